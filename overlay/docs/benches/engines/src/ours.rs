//! Real nodes of this process: sockets on loopback, databases on the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle::documents::Documents;
use wattle_docs::{Edit, Event, Role};
use wattle_net::{Config, ConnectionLimits, DhtMode, Overlay, PersistBatch, Profile, Restored};
use wattle_store::{Owner, Store};
use wattle_types::{DocId, NetworkName, SecretKey};

use crate::{PATIENCE, Result};

pub type Heads = Vec<[u8; 32]>;

/// A node.
pub struct Node {
    pub overlay: Overlay,
    pub documents: Documents,
    /// How long the database took to open.
    pub opened: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Starts node `number` in a directory.
    pub async fn start(number: u8, dir: &Path) -> Result<Self> {
        let key = SecretKey::from_bytes(&[number; 32]);
        let begun = Instant::now();
        let store = Arc::new(open(dir).await?);
        let opened = begun.elapsed();
        let (persist, mut batches) = mpsc::channel::<PersistBatch>(64);
        let overlay = Overlay::start(config(key.clone())?, Restored::default(), persist).await?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let keeper = Arc::clone(&store);
        tasks.spawn(async move {
            while let Some(batch) = batches.recv().await {
                if keeper.commit(batch.writes).await.is_ok()
                    && let Some(done) = batch.done
                {
                    // Ignored because the node may have stopped meanwhile.
                    done.send(()).unwrap_or_default();
                }
            }
        });
        let (happens, mut hears) = mpsc::channel(256);
        tasks.spawn(async move { while hears.recv().await.is_some() {} });
        let documents = Documents::start(&overlay, &store, &key, &stop, happens, &tasks)?;
        Ok(Self { overlay, documents, opened, stop, tasks })
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.overlay.stop().await;
        let Self { overlay, documents, tasks, .. } = self;
        drop((overlay, documents));
        tasks.close();
        if tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.is_err() {
            eprintln!("a node did not end within 10 s");
        }
    }

    pub async fn connect(&self, other: &Self) -> Result<()> {
        let status = other.overlay.status().await?;
        let addresses = status.listening.iter().map(|address| address.with_peer(other.overlay.id()));
        self.overlay.connect(Some(other.overlay.id()), addresses.collect()).await?;
        Ok(())
    }

    /// Lets others take part in a document.
    pub async fn share(&self, doc: DocId, guests: &[&Self]) -> Result<()> {
        let (access, bearer) = self.documents.invite(doc, Role::Writer, None, None).await?;
        for guest in guests {
            guest.documents.join(access.clone(), Some(bearer), Some(self.overlay.id())).await?;
        }
        Ok(())
    }

    pub async fn heads(&self, doc: DocId) -> Heads {
        self.documents.status(doc).await.map(|status| status.heads).unwrap_or_default()
    }

    /// Waits until a document has these heads, on disk.
    pub async fn until(&self, doc: DocId, heads: &Heads) -> Result<()> {
        let begun = Instant::now();
        while self.heads(doc).await != *heads {
            if begun.elapsed() > PATIENCE {
                return Err("a document stays behind".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Changes a document; the heads after it.
    pub async fn edit(&self, doc: DocId, edit: Edit) -> Result<Heads> {
        Ok(self.documents.edit(doc, None, edit).await?.after)
    }
}

/// Waits until a watcher is told that a document has these heads.
pub async fn told(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    which: DocId,
    heads: &Heads,
) -> Result<()> {
    loop {
        match tokio::time::timeout(PATIENCE, events.recv()).await?? {
            Event::Changed { doc, after, .. } if doc == which && after == *heads => return Ok(()),
            _ => {}
        }
    }
}

/// Opens the database, once the last run has let go of it.
async fn open(dir: &Path) -> Result<Store> {
    let begun = Instant::now();
    loop {
        match Store::open(dir, Owner::this_process("engines")) {
            Ok(store) => return Ok(store),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn config(key: SecretKey) -> Result<Config> {
    Ok(Config {
        key,
        network: NetworkName::default(),
        network_key: None,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        external: Vec::new(),
        bootstrap: Vec::new(),
        mdns: false,
        dht_mode: DhtMode::Auto,
        profile: Profile::Lan,
        connections: ConnectionLimits::standard(),
        allow: Vec::new(),
        memory_bytes_max: 16 << 30,
        agent: "wattle/engines".to_owned(),
        faults: None,
    })
}
