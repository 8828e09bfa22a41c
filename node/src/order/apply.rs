//! What is ordered goes to the apps, block by block, and what they come to goes to the machine: votes vouch for it.
//!
//! The task of the machine hands blocks over a bounded channel and never waits; what did not fit is read from the disk,
//! as everything is that was ordered before the node started. The state of the apps is saved now and then, so that a
//! start applies again what came since, and no more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wattle_app::{Ordered as AppEntry, OrderedBlock};
use wattle_order::payloads::Ordered;
use wattle_order::{Digest, Entry, Header, Height, Proposal, transaction_hash};
use wattle_store::CommitError;
use wattle_types::UnixTime;
use wattle_weave::order::Input;

use super::Heard;
use super::disk::{Applied, Disk, DiskError, Place, ROOTS_KEPT};
use crate::apps::Apps;

/// Blocks that wait for the apps; what is beyond is read from the disk.
const WAITING_MAX: usize = 256;
/// Blocks that are read at a time.
const READ_AT_ONCE: usize = 64;
/// How long the disk has for what is decided, before it is looked again.
const READ_AGAIN: Duration = Duration::from_millis(50);
/// The state is saved after so many blocks,
const SAVE_BLOCKS: u64 = 1024;
/// or after so many bytes of entries, or as many as it has itself: to save it costs no more than to order.
const SAVE_BYTES: usize = 1 << 20;

/// Why apps stop to apply.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    NotSaved(#[from] CommitError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// Where the task of the machine hands blocks to.
pub(super) struct Handing {
    blocks: mpsc::Sender<OrderedBlock>,
    apps: Arc<[&'static str]>,
}

impl Handing {
    /// Hands over a block that is decided.
    pub(super) fn hand(&self, header: &Header, entries: &[Ordered]) {
        let height = header.height;
        let for_apps =
            entries.iter().filter(|ordered| self.apps.contains(&ordered.whole.entry().app.as_str()));
        let entries = for_apps.map(|ordered| AppEntry {
            app: ordered.whole.entry().app.clone(),
            transaction: *ordered.whole.transaction().as_bytes(),
            index: u64::from(Place::new(height, ordered.batch, ordered.index).index),
            data: ordered.whole.entry().data.to_vec(),
        });
        let block = block_of(height, header.time, entries.collect());
        // Ignored because what is not taken is read from the disk.
        drop(self.blocks.try_send(block));
    }
}

fn block_of(height: Height, time: UnixTime, entries: Vec<AppEntry>) -> OrderedBlock {
    OrderedBlock { height: wattle_app::Height(height.0), time, entries }
}

/// The task that has the apps apply what is ordered.
pub(super) struct Apply {
    apps: Apps,
    names: Arc<[&'static str]>,
    disk: Disk,
    tip: watch::Receiver<Height>,
    heard: mpsc::Sender<Heard>,
    blocks: mpsc::Receiver<OrderedBlock>,
    done: Height,
    root: Digest,
    /// The digests behind the last blocks.
    roots: VecDeque<(Height, Digest)>,
    saved: Applied,
    saved_bytes: usize,
    /// Bytes of entries that were applied since.
    since: usize,
    /// There was no space for it, and it is tried again from there on.
    not_before: Height,
}

impl Apply {
    pub(super) fn new(
        apps: &Apps,
        disk: &Disk,
        tip: &watch::Receiver<Height>,
        heard: &mpsc::Sender<Heard>,
    ) -> (Self, Handing) {
        let (handed, blocks) = mpsc::channel(WAITING_MAX);
        let names = apps.in_log();
        let apply = Self {
            apps: apps.clone(),
            names: Arc::clone(&names),
            disk: disk.clone(),
            tip: tip.clone(),
            heard: heard.clone(),
            blocks,
            done: Height(0),
            root: Digest::default(),
            roots: VecDeque::new(),
            saved: Applied::default(),
            saved_bytes: 0,
            since: 0,
            not_before: Height(0),
        };
        (apply, Handing { blocks: handed, apps: names })
    }

    /// Runs until the node stops, or the disk fails.
    pub(super) async fn run(mut self) {
        match self.work().await {
            Ok(()) | Err(ApplyError::Stopped) => {}
            Err(error) => {
                let what = format!(
                    "the apps stopped at height {} of the log: {error}. This node will vote no more: see to its disk, and \
                     start it again",
                    self.done
                );
                // Ignored because the node stops.
                drop(self.heard.send(Heard::Alarm(what)).await);
            }
        }
    }

    async fn work(&mut self) -> Result<(), ApplyError> {
        self.begin().await?;
        loop {
            match self.blocks.try_recv() {
                Ok(block) => self.on_block(block).await?,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let tip = *self.tip.borrow_and_update();
                    if self.done < tip {
                        self.read_up_to(tip).await?;
                        continue;
                    }
                    tokio::select! {
                        block = self.blocks.recv() => match block {
                            Some(block) => self.on_block(block).await?,
                            None => return Ok(()),
                        },
                        changed = self.tip.changed() => changed.map_err(|_closed| ApplyError::Stopped)?,
                    }
                }
            }
        }
    }

    /// Goes on from what was saved. What cannot be used is made again from the beginning of the log.
    async fn begin(&mut self) -> Result<(), ApplyError> {
        let disk = self.disk.clone();
        let read = tokio::task::spawn_blocking(move || disk.applied()).await;
        let saved = read.map_err(|_stopped| ApplyError::Stopped)?;
        match saved {
            Ok(Some((applied, state))) => {
                let (bytes, last) = (state.len(), applied.roots.last().copied());
                match self.apps.restore(state).await.ok_or(ApplyError::Stopped)? {
                    Ok(root) if last == Some((applied.height, Digest::from_bytes(root))) => {
                        self.done = applied.height;
                        self.roots.extend(&applied.roots);
                        (self.saved, self.saved_bytes) = (applied, bytes);
                    }
                    Ok(_) => tracing::warn!("the saved state of the apps is not the one that was agreed on"),
                    Err(error) => tracing::warn!(%error, "the saved state of the apps cannot be used"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the saved state of the apps cannot be read"),
        }
        self.root = Digest::from_bytes(self.apps.log_root().await.ok_or(ApplyError::Stopped)?);
        for (height, root) in self.roots.clone() {
            self.report(height, root).await?;
        }
        Ok(())
    }

    async fn report(&self, height: Height, root: Digest) -> Result<(), ApplyError> {
        let applied = Heard::Log(Input::Applied { height, root });
        self.heard.send(applied).await.map_err(|_closed| ApplyError::Stopped)
    }

    async fn on_block(&mut self, block: OrderedBlock) -> Result<(), ApplyError> {
        let height = Height(block.height.0);
        if height <= self.done {
            // Told again after a start.
            let known = self.roots.iter().find(|(at, _)| *at == height).copied();
            return match known {
                Some((height, root)) => self.report(height, root).await,
                None => Ok(()),
            };
        }
        if height > self.done.next() {
            self.read_up_to(Height(height.0.saturating_sub(1))).await?;
        }
        self.apply(block).await
    }

    /// Applies what the disk has, up to a block; what it does not have yet it is waited for.
    async fn read_up_to(&mut self, upto: Height) -> Result<(), ApplyError> {
        while self.done < upto {
            let (disk, names, above) = (self.disk.clone(), Arc::clone(&self.names), self.done);
            let read = move || -> Result<Vec<OrderedBlock>, DiskError> {
                let whole = disk.told()?.height.min(upto);
                let left = usize::try_from(whole.0.saturating_sub(above.0)).unwrap_or(READ_AT_ONCE);
                let blocks = disk.committed(above, left.min(READ_AT_ONCE))?;
                blocks.iter().map(|block| for_apps(&disk, block, &names)).collect()
            };
            let read = tokio::task::spawn_blocking(read).await;
            let blocks = read.map_err(|_stopped| ApplyError::Stopped)??;
            if blocks.is_empty() {
                tokio::time::sleep(READ_AGAIN).await;
            }
            for block in blocks {
                self.apply(block).await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, block: OrderedBlock) -> Result<(), ApplyError> {
        let height = Height(block.height.0);
        if !block.entries.is_empty() {
            self.since += block.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            let root = self.apps.order(block).await.ok_or(ApplyError::Stopped)?;
            self.root = Digest::from_bytes(root);
        }
        self.done = height;
        self.roots.push_back((height, self.root));
        while self.roots.len() as u64 > ROOTS_KEPT {
            self.roots.pop_front();
        }
        self.report(height, self.root).await?;
        self.save_if_due().await
    }

    async fn save_if_due(&mut self) -> Result<(), ApplyError> {
        let blocks = self.done.0.saturating_sub(self.saved.height.0);
        let is_due = blocks >= SAVE_BLOCKS || self.since >= SAVE_BYTES.max(self.saved_bytes);
        if !is_due || self.done < self.not_before {
            return Ok(());
        }
        let state = if self.since > 0 || self.saved_bytes == 0 {
            Some(self.apps.log_snapshot().await.ok_or(ApplyError::Stopped)?)
        } else {
            None
        };
        let upto = (self.done, self.roots.iter().copied().collect());
        match self.disk.save_applied(&self.saved, upto, state.as_deref()).await {
            Ok(saved) => self.saved = saved,
            // It can be made again from the log, so it waits for space.
            Err(CommitError::Full { .. }) => {
                self.not_before = Height(self.done.0.saturating_add(SAVE_BLOCKS));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.saved_bytes = state.map_or(self.saved_bytes, |state| state.len());
        self.since = 0;
        Ok(())
    }
}

/// A block as the disk has it, with what it orders for apps.
fn for_apps(disk: &Disk, block: &Proposal, names: &[&'static str]) -> Result<OrderedBlock, DiskError> {
    let header = block.header();
    let mut entries = Vec::new();
    for (place, bytes) in disk.entries(block)? {
        // What is no entry is in no block that was voted for.
        let Ok(entry) = Entry::decode(&bytes) else { continue };
        if names.contains(&entry.app.as_str()) {
            entries.push(AppEntry {
                app: entry.app,
                transaction: *transaction_hash(&bytes).as_bytes(),
                index: u64::from(place.index),
                data: entry.data.into_vec(),
            });
        }
    }
    Ok(block_of(header.height, header.time, entries))
}
