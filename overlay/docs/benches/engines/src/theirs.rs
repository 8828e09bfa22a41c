//! samod: repositories of this process with storage in memory, over TCP on loopback.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automerge::{Automerge, ChangeHash};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use samod::storage::{InMemoryStorage, Storage, StorageKey};
use samod::{BackoffConfig, DialError, Dialer, DocHandle, Repo, Transport, Url};
use tokio::net::{TcpListener, TcpStream};

use crate::{PATIENCE, Result};

/// Connects without waiting for more to send, as our channels do; samod's own dialer waits.
struct Loopback {
    address: SocketAddr,
    url: Url,
}

impl Dialer for Loopback {
    type Error = Infallible;

    fn url(&self) -> Url {
        self.url.clone()
    }

    fn connect(&self) -> BoxFuture<'static, std::result::Result<Transport, DialError<Infallible>>> {
        let address = self.address;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await.map_err(DialError::transient)?;
            stream.set_nodelay(true).map_err(DialError::transient)?;
            Ok(Transport::from_tokio_io(stream))
        })
    }
}

pub async fn repository() -> Repo {
    Repo::build_tokio().load().await
}

/// Listens for others; gives the address.
pub async fn listen(repository: &Repo) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = repository.make_acceptor(Url::parse(&format!("tcp://{address}"))?)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if stream.set_nodelay(true).is_err() || acceptor.accept_tokio_io(stream).is_err() {
                return;
            }
        }
    });
    Ok(address)
}

pub async fn dial(repository: &Repo, address: SocketAddr) -> Result<()> {
    let url = Url::parse(&format!("tcp://{address}"))?;
    let dialer = repository.dial(BackoffConfig::default(), Arc::new(Loopback { address, url }))?;
    dialer.established().await.map_err(|error| format!("{error:?}"))?;
    Ok(())
}

/// Fetches a document that a connected repository has.
pub async fn find(repository: &Repo, original: &DocHandle) -> Result<DocHandle> {
    let found = tokio::time::timeout(PATIENCE, repository.find(original.document_id().clone())).await??;
    found.ok_or_else(|| "samod did not find a document".into())
}

pub async fn heads(handle: &DocHandle) -> Result<Vec<ChangeHash>> {
    Ok(handle.with_document_async(|document| document.get_heads()).await?)
}

/// Waits until a document has these heads.
pub async fn until(handle: &DocHandle, wanted: &[ChangeHash]) -> Result<()> {
    let begun = Instant::now();
    while heads(handle).await? != wanted {
        if begun.elapsed() > PATIENCE {
            return Err("a document of samod stays behind".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// The heads of a document after each change to it, as a watcher is told of them.
pub fn changes(handle: &DocHandle) -> impl Stream<Item = Vec<ChangeHash>> + Unpin + '_ {
    Box::pin(handle.changes().map(|change| change.new_heads))
}

/// Waits until a watcher is told that its document has these heads.
pub async fn told(
    mut changes: impl Stream<Item = Vec<ChangeHash>> + Unpin,
    wanted: &[ChangeHash],
) -> Result<()> {
    while let Some(heads) = tokio::time::timeout(PATIENCE, changes.next()).await? {
        if heads == wanted {
            return Ok(());
        }
    }
    Err("a repository of samod ended".into())
}

/// Types a letter; the heads after it.
pub async fn type_letter(handle: &DocHandle) -> Result<Vec<ChangeHash>> {
    let typed = handle.with_document_async(letter).await?;
    Ok(typed?)
}

fn letter(document: &mut Automerge) -> std::result::Result<Vec<ChangeHash>, String> {
    let mut transaction = document.transaction();
    crate::trace::type_letter(&mut transaction)?;
    transaction.commit();
    Ok(document.get_heads())
}

/// Storage that counts what it is given.
#[derive(Clone, Default)]
pub struct Counted {
    inner: InMemoryStorage,
    pub bytes: Arc<AtomicU64>,
}

impl Storage for Counted {
    fn load(&self, key: StorageKey) -> impl Future<Output = Option<Vec<u8>>> + Send {
        Storage::load(&self.inner, key)
    }

    fn load_range(&self, prefix: StorageKey) -> impl Future<Output = HashMap<StorageKey, Vec<u8>>> + Send {
        Storage::load_range(&self.inner, prefix)
    }

    fn put(&self, key: StorageKey, data: Vec<u8>) -> impl Future<Output = ()> + Send {
        self.bytes.fetch_add(u64::try_from(data.len()).unwrap_or(0), Ordering::Relaxed);
        Storage::put(&self.inner, key, data)
    }

    fn delete(&self, key: StorageKey) -> impl Future<Output = ()> + Send {
        Storage::delete(&self.inner, key)
    }
}
