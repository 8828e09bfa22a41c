//! What is ordered goes to the apps, block by block, and what they come to goes to the machine: votes vouch for it.
//!
//! The task of the machine hands blocks over a bounded channel and never waits; what did not fit is read from the disk,
//! as everything is that was ordered before the node started. Snapshots are taken where every node takes them
//! ([`Pace`]); one that could not be saved for want of space is taken all the same, because votes name it. A start
//! applies again what came since the last that was saved.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wattle_app::{Ordered as AppEntry, OrderedBlock};
use wattle_order::payloads::Ordered;
use wattle_order::{
    Base, Certified, Committee, Digest, Entry, Epoch, Header, Height, Manifest, Pace, Proposal, apps_root,
    transaction_hash,
};
use wattle_store::CommitError;
use wattle_weave::order::Input;

use super::Heard;
use super::disk::{Disk, DiskError, Place, ROOTS_KEPT};
use super::epochs::Now;
use super::snapshots::{Applied, Came};
use crate::apps::Apps;

/// Blocks that wait for the apps; what is beyond is read from the disk.
const WAITING_MAX: usize = 256;
/// Blocks that are read at a time.
const READ_AT_ONCE: usize = 64;
/// How long the disk has for what is decided, before it is looked again.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// Why apps stop to apply.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    NotSaved(#[from] CommitError),
    /// What the log came to cannot be used, and what led to it is gone.
    #[error("their state on disk is damaged, and the log was compacted: begin with an empty data directory")]
    Lost,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// A block that is decided, with what it orders for apps.
pub(super) struct Handed {
    block: Proposal,
    entries: OrderedBlock,
}

/// Where the task of the machine hands blocks to.
pub(super) struct Handing {
    blocks: mpsc::Sender<Handed>,
    apps: Arc<[&'static str]>,
}

impl Handing {
    /// Hands over a block that is decided.
    pub(super) fn hand(&self, block: &Proposal, entries: &[Ordered]) {
        let height = block.header().height;
        let for_apps =
            entries.iter().filter(|ordered| self.apps.contains(&ordered.whole.entry().app.as_str()));
        let entries = for_apps.map(|ordered| AppEntry {
            app: ordered.whole.entry().app.clone(),
            transaction: *ordered.whole.transaction().as_bytes(),
            index: u64::from(Place::new(height, ordered.batch, ordered.index).index),
            data: ordered.whole.entry().data.to_vec(),
        });
        let entries = block_of(block.header(), entries.collect());
        // Ignored because what is not taken is read from the disk.
        drop(self.blocks.try_send(Handed { block: block.clone(), entries }));
    }
}

fn block_of(header: &Header, entries: Vec<AppEntry>) -> OrderedBlock {
    OrderedBlock { height: wattle_app::Height(header.height.0), time: header.time, entries }
}

/// The task that has the apps apply what is ordered.
pub(super) struct Apply {
    apps: Apps,
    names: Arc<[&'static str]>,
    epochs: Now,
    disk: Disk,
    tip: watch::Receiver<Height>,
    heard: mpsc::Sender<Heard>,
    blocks: mpsc::Receiver<Handed>,
    /// What the log stands on behind the last block that was applied.
    base: Base,
    /// The digest of the apps' state there.
    state: Digest,
    /// What they came to behind the last blocks.
    came: VecDeque<Came>,
    pace: Pace,
    /// The last snapshot.
    last: Option<Manifest>,
    /// It is saved, and no block is known yet that vouches for it.
    unproven: bool,
    /// What the last one needs that a quorum vouches for.
    proven: BTreeSet<Digest>,
    /// Pieces that are on disk, once it was looked for them.
    pieces: Option<BTreeSet<Digest>>,
}

impl Apply {
    pub(super) fn new(
        apps: &Apps,
        epochs: &Now,
        disk: &Disk,
        tip: &watch::Receiver<Height>,
        heard: &mpsc::Sender<Heard>,
    ) -> (Self, Handing) {
        let (handed, blocks) = mpsc::channel(WAITING_MAX);
        let names = apps.in_log();
        let apply = Self {
            apps: apps.clone(),
            names: Arc::clone(&names),
            epochs: epochs.clone(),
            disk: disk.clone(),
            tip: tip.clone(),
            heard: heard.clone(),
            blocks,
            base: Base::of_epoch(epochs.borrow().first(), Digest::default()),
            state: Digest::default(),
            came: VecDeque::new(),
            pace: Pace::default(),
            last: None,
            unproven: false,
            proven: BTreeSet::new(),
            pieces: None,
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
                    self.done()
                );
                // Ignored because the node stops.
                drop(self.heard.send(Heard::Alarm(what)).await);
            }
        }
    }

    /// Up to where all is applied.
    const fn done(&self) -> Height {
        self.base.height()
    }

    async fn work(&mut self) -> Result<(), ApplyError> {
        self.begin().await?;
        loop {
            match self.blocks.try_recv() {
                Ok(block) => self.on_block(block).await?,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let tip = *self.tip.borrow_and_update();
                    if self.done() < tip {
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

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, ApplyError> {
        let disk = self.disk.clone();
        let read = tokio::task::spawn_blocking(move || work(&disk)).await;
        Ok(read.map_err(|_stopped| ApplyError::Stopped)??)
    }

    /// Goes on from the last snapshot that was saved. One that cannot be used is made again from the beginning of the
    /// log, where that is here.
    async fn begin(&mut self) -> Result<(), ApplyError> {
        let saved = match self.read(Disk::applied).await {
            Ok(saved) => saved,
            Err(ApplyError::Stopped) => return Err(ApplyError::Stopped),
            Err(error) => {
                tracing::warn!(%error, "the saved state of the apps cannot be read");
                None
            }
        };
        let mut agreed = None;
        if let Some((applied, state)) = saved {
            let root = self.restore(state).await?;
            agreed = Some(applied).filter(|applied| root == Some(applied.manifest.apps));
            if agreed.is_none() {
                tracing::warn!("the saved state of the apps is not the one that was agreed on");
            }
        }
        match agreed {
            Some(applied) => self.go_on(applied).await?,
            // Of a log that ran in this process before nothing is left.
            None => drop(self.restore(self.apps.unapplied()).await?),
        }
        let lowest = self.read(Disk::base_height).await?;
        if self.done() < lowest {
            return Err(ApplyError::Lost);
        }
        self.state = Digest::from_bytes(self.apps.log_root().await.ok_or(ApplyError::Stopped)?);
        for came in self.came.clone() {
            self.report(came).await?;
        }
        Ok(())
    }

    /// The root of a state from which the apps go on, if it is one.
    async fn restore(&self, state: Vec<u8>) -> Result<Option<Digest>, ApplyError> {
        match self.apps.restore(state).await.ok_or(ApplyError::Stopped)? {
            Ok(root) => Ok(Some(Digest::from_bytes(root))),
            Err(error) => {
                tracing::warn!(%error, "a state of the apps cannot be used");
                Ok(None)
            }
        }
    }

    async fn go_on(&mut self, applied: Applied) -> Result<(), ApplyError> {
        let Applied { manifest, came } = applied;
        let certified = match self.read(Disk::certified).await {
            Ok(certified) => certified,
            Err(ApplyError::Stopped) => return Err(ApplyError::Stopped),
            Err(error) => {
                tracing::warn!(%error, "the proof of the last snapshot cannot be read: the next one has its own");
                None
            }
        };
        let digest = manifest.digest();
        self.unproven = certified.as_ref().is_none_or(|known| known.manifest.digest() != digest);
        self.proven = certified.into_iter().flat_map(|known| known.manifest.pieces).collect();
        self.base = manifest.base.clone();
        self.came.extend(came);
        self.pace = Pace { last: manifest.base.height(), state: manifest.bytes, since: 0 };
        self.last = Some(manifest);
        Ok(())
    }

    async fn report(&self, came: Came) -> Result<(), ApplyError> {
        let root = apps_root(came.state, came.snapshot);
        let applied = Heard::Log(Input::Applied { height: came.height, root });
        self.heard.send(applied).await.map_err(|_closed| ApplyError::Stopped)
    }

    async fn on_block(&mut self, handed: Handed) -> Result<(), ApplyError> {
        let height = handed.block.header().height;
        if height <= self.done() {
            // Told again after a start.
            let known = self.came.iter().find(|came| came.height == height).copied();
            return match known {
                Some(came) => self.report(came).await,
                None => Ok(()),
            };
        }
        if height > self.done().next() {
            self.read_up_to(Height(height.0.saturating_sub(1))).await?;
        }
        self.apply(handed).await
    }

    /// Applies what the disk has, up to a block; what it does not have yet it is waited for.
    async fn read_up_to(&mut self, upto: Height) -> Result<(), ApplyError> {
        while self.done() < upto {
            let (names, above) = (Arc::clone(&self.names), self.done());
            let read = move |disk: &Disk| -> Result<Vec<Handed>, DiskError> {
                let whole = disk.told()?.height.min(upto);
                let left = usize::try_from(whole.0.saturating_sub(above.0)).unwrap_or(READ_AT_ONCE);
                let blocks = disk.committed(above, left.min(READ_AT_ONCE))?;
                blocks.into_iter().map(|block| for_apps(disk, block, &names)).collect()
            };
            let blocks = self.read(read).await?;
            if blocks.is_empty() {
                tokio::time::sleep(READ_AGAIN).await;
            }
            for block in blocks {
                self.apply(block).await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, handed: Handed) -> Result<(), ApplyError> {
        let Handed { block, entries } = handed;
        self.stand_on(&block).await?;
        if !entries.entries.is_empty() {
            let bytes: u64 = entries.entries.iter().map(|entry| entry.data.len() as u64).sum();
            self.pace.since = self.pace.since.saturating_add(bytes);
            let root = self.apps.order(entries).await.ok_or(ApplyError::Stopped)?;
            self.state = Digest::from_bytes(root);
        }
        // Whoever begins in an epoch needs nothing of the one before.
        let due = self.pace.is_due(self.done()) || block.block.next.is_some();
        let state = if due { Some(self.snapshot().await?) } else { None };
        let came = Came {
            height: self.done(),
            ordered: self.base.ordered,
            state: self.state,
            snapshot: self.last.as_ref().map(Manifest::digest).unwrap_or_default(),
        };
        self.came.push_back(came);
        while self.came.len() as u64 > ROOTS_KEPT {
            self.came.pop_front();
        }
        self.report(came).await?;
        if let Some(state) = state {
            self.save(state).await?;
        }
        self.prove(block.header()).await
    }

    /// The next block is the one on which all stands.
    async fn stand_on(&mut self, block: &Proposal) -> Result<(), ApplyError> {
        let damaged = DiskError::Damaged { what: "chain of blocks" };
        let committee = self.committee(block.header().epoch).await?;
        let next = self.base.after(&committee, block).ok_or(damaged)?;
        self.base = match &block.block.next {
            // What the next epoch inherits is what its voters know of the last block.
            Some(_) => {
                let committee = self.committee(block.header().epoch.next()).await?;
                Base::of_epoch(&committee, next.ordered)
            }
            None => next,
        };
        Ok(())
    }

    /// Who votes in an epoch, as soon as it has begun here.
    async fn committee(&mut self, epoch: Epoch) -> Result<Arc<Committee>, ApplyError> {
        let begun = self.epochs.wait_for(|epochs| epochs.of(epoch).is_some()).await;
        let committee = begun.map_err(|_closed| ApplyError::Stopped)?.of(epoch).cloned();
        committee.ok_or(ApplyError::Stopped)
    }

    /// Takes a snapshot; gives the state.
    async fn snapshot(&mut self) -> Result<Vec<u8>, ApplyError> {
        let (base, apps) = (self.base.clone(), self.state);
        let state = self.apps.log_snapshot().await.ok_or(ApplyError::Stopped)?;
        let taking = move || (Manifest::new(base, apps, &state), state);
        let taken = tokio::task::spawn_blocking(taking).await;
        let (manifest, state) = taken.map_err(|_stopped| ApplyError::Stopped)?;
        self.pace = Pace { last: manifest.base.height(), state: manifest.bytes, since: 0 };
        self.last = Some(manifest);
        self.unproven = false;
        Ok(state)
    }

    /// Saves the last snapshot. One for which there is no space is left out: it can be made again from the log.
    async fn save(&mut self, state: Vec<u8>) -> Result<(), ApplyError> {
        let Some(manifest) = self.last.clone() else { return Ok(()) };
        let pieces = match self.pieces.take() {
            Some(pieces) => pieces,
            None => self.read(Disk::pieces).await?,
        };
        let applied = Applied { manifest, came: self.came.iter().copied().collect() };
        match self.disk.save_applied(&applied, &state, &pieces).await {
            Ok(()) => self.unproven = true,
            Err(CommitError::Full { .. }) => {
                tracing::warn!(height = %self.done(), "there is no space for a snapshot of the log");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let mut pieces = pieces;
        pieces.extend(&applied.manifest.pieces);
        self.forget(pieces).await
    }

    /// Lets go pieces that are of neither snapshot.
    async fn forget(&mut self, mut pieces: BTreeSet<Digest>) -> Result<(), ApplyError> {
        let last: BTreeSet<&Digest> = self.last.iter().flat_map(|last| &last.pieces).collect();
        let gone = |piece: &Digest| !last.contains(piece) && !self.proven.contains(piece);
        let stale: Vec<Digest> = pieces.iter().copied().filter(gone).collect();
        pieces.retain(|piece| !gone(piece));
        match self.disk.forget_pieces(stale.clone()).await {
            Ok(()) => {}
            // They go with the next.
            Err(CommitError::Full { .. }) => pieces.extend(stale),
            Err(error) => return Err(error.into()),
        }
        self.pieces = Some(pieces);
        Ok(())
    }

    /// If this committed block vouches for the last snapshot, that is the proof of it.
    async fn prove(&mut self, header: &Header) -> Result<(), ApplyError> {
        let Some(manifest) = self.last.as_ref().filter(|_| self.unproven) else { return Ok(()) };
        let digest = manifest.digest();
        let vouched = header.executed.height;
        let came = self.came.iter().find(|came| came.height == vouched && came.snapshot == digest);
        let Some(Came { ordered, state, .. }) = came.copied() else { return Ok(()) };
        let height = header.height;
        let (links, commit) = self.read(move |disk| disk.commit_of(height)).await?;
        let (epochs, manifest) = (Arc::clone(&self.epochs.borrow()), manifest.clone());
        let (chain, epochs) = (epochs.first().chain(), epochs.before(header.epoch));
        let (vouched, header) = ((ordered, state), header.clone());
        let certified = Certified { chain, manifest, vouched, epochs, header, links, commit };
        match self.disk.save_certified(&certified).await {
            Ok(()) => self.unproven = false,
            Err(CommitError::Full { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.proven = certified.manifest.pieces.into_iter().collect();
        match self.pieces.take() {
            Some(pieces) => self.forget(pieces).await,
            None => Ok(()),
        }
    }
}

/// A block as the disk has it, with what it orders for apps.
fn for_apps(disk: &Disk, block: Proposal, names: &[&'static str]) -> Result<Handed, DiskError> {
    let mut entries = Vec::new();
    for (place, bytes) in disk.entries(&block)? {
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
    let entries = block_of(block.header(), entries);
    Ok(Handed { block, entries })
}
