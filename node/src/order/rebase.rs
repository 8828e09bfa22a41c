//! Going on from a snapshot: where those who keep the log kept nothing of what comes next here.
//!
//! # Rules
//!
//! * **S1, need.** A snapshot is asked for when so many validators say that they kept nothing of what is asked for that
//!   one of them is honest; or one other peer does, which is asked only where no validator of the epoch tells anything.
//!   A lie costs no more than the blocks before a snapshot that a quorum vouches for.
//! * **S2, proof.** A snapshot is taken when its proof holds ([`Certified::check`]), and a piece when it has the digest
//!   that stands in it. Who gives another is asked for none any more.
//! * **S3, nothing twice.** Pieces that are here are not asked for again: after a restart, or for a newer snapshot.
//! * **S4, all or nothing.** The log goes on from the snapshot when all of it is here, in one write; before, it is what
//!   it was. What this node's key signed stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wattle_order::payloads::Batch;
use wattle_order::{Certified, ChainEnd, Checker, Committee, Digest, Genesis, Height, Seen, piece_digest};
use wattle_types::NodeId;

use super::archive::{self, BadArchive, Frame, Frames, Head};
use super::disk::{self, Disk, DiskError, validators};
use super::epochs::Now;
use super::follow::{self, Behind, Follower};
use super::{JoinError, Log, Order, Standing};

/// Parts of a file that are read ahead.
const READ_AHEAD: usize = 2;
/// How long blocks that came may take to be committed here.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// So many blocks before the last may not be committed before the next come.
const NEAR: u64 = 3;
/// How often a log is begun whose streams are not free yet, and how long after each time.
const ATTEMPTS: usize = 40;
const SOON: Duration = Duration::from_millis(25);
/// How long to wait before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The task that waits for the need of a snapshot.
pub(super) struct Rebase {
    order: Order,
    epochs: Now,
    disk: Disk,
    tip: watch::Receiver<Height>,
    follower: Follower,
    behind: mpsc::Receiver<Behind>,
    /// The log ends.
    stop: CancellationToken,
}

/// Pieces that are still to come.
type Wanted = Arc<Mutex<VecDeque<Digest>>>;

impl Rebase {
    pub(super) fn new(order: &Order, log: &Log, follower: Follower, behind: mpsc::Receiver<Behind>) -> Self {
        Self {
            order: order.clone(),
            epochs: log.epochs.clone(),
            disk: log.disk.clone(),
            tip: log.tip.clone(),
            follower,
            behind,
            stop: log.stop.clone(),
        }
    }

    /// Runs until the log ends, here or because it goes on from a snapshot.
    pub(super) async fn run(mut self) {
        let mut said: BTreeMap<NodeId, Height> = BTreeMap::new();
        loop {
            let Behind { keeper, base, helps } = tokio::select! {
                Some(behind) = self.behind.recv() => behind,
                () = self.stop.cancelled() => return,
            };
            said.insert(keeper, base);
            let tip = *self.tip.borrow();
            said.retain(|_, base| *base > tip);
            let committee = self.committee();
            let seats = said.keys().filter_map(|keeper| committee.seat(keeper));
            if !helps && !committee.has_honest(seats) {
                continue;
            }
            let keepers = said.keys().copied().collect();
            tracing::info!(%tip, "the log is not kept from here on: this node goes on from a snapshot");
            match self.fetch(tip, keepers).await {
                Ok(certified) => {
                    let height = certified.manifest.base.height();
                    match self.order.go_on_from(&certified, &self.stop).await {
                        Ok(true) => tracing::info!(%height, "the log goes on from a snapshot"),
                        Ok(false) => {}
                        Err(error) => tracing::error!(%error, "the log does not go on from a snapshot"),
                    }
                    // Where the log runs on it is asked for again when it is needed.
                    said.clear();
                }
                Err(why) => {
                    tracing::warn!(why, "no snapshot of the log could be had: it is tried again");
                    said.clear();
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn committee(&self) -> Arc<Committee> {
        Arc::clone(self.epochs.borrow().current())
    }

    /// The newest snapshot above a height that a quorum vouches for, with all its pieces on disk: of validators, and of
    /// those who said that there is one.
    async fn fetch(&self, tip: Height, who: BTreeSet<NodeId>) -> Result<Certified, String> {
        let me = self.order.start.overlay.id();
        let keepers: BTreeSet<NodeId> = who.into_iter().chain(validators(&self.committee())).collect();
        let keepers: Vec<NodeId> = keepers.into_iter().filter(|id| *id != me).collect();
        let genesis = Arc::clone(self.epochs.borrow().first());
        let (mut asking, mut newest) = (JoinSet::new(), None::<Certified>);
        for keeper in keepers.iter().copied() {
            let (follower, genesis) = (self.follower.clone(), Arc::clone(&genesis));
            asking.spawn(async move {
                let certified = follower.snapshot(keeper).await?.ok_or("it has none")?;
                certified.check(&genesis, &mut Seen::new()).map_err(|error| error.to_string())?;
                Ok::<_, String>(certified)
            });
        }
        let mut why = "nobody was asked".to_owned();
        while let Some(answer) = asking.join_next().await {
            match answer.map_err(|error| error.to_string())? {
                Ok(certified) => {
                    let height = |certified: &Certified| certified.manifest.base.height();
                    let newer = newest.as_ref().is_none_or(|known| height(&certified) > height(known));
                    if newer && height(&certified) > tip {
                        newest = Some(certified);
                    }
                }
                Err(error) => why = error,
            }
        }
        let certified = newest.ok_or(why)?;
        self.fetch_pieces(&certified, &keepers).await?;
        Ok(certified)
    }

    /// Fetches what is not here of its pieces, of several at once; who gave a wrong one, or none, is asked for none.
    async fn fetch_pieces(&self, certified: &Certified, keepers: &[NodeId]) -> Result<(), String> {
        let disk = self.disk.clone();
        let here = tokio::task::spawn_blocking(move || disk.pieces()).await;
        let here: BTreeSet<Digest> =
            here.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let missing = certified.manifest.pieces.iter().copied().filter(|piece| !here.contains(piece));
        let missing: BTreeSet<Digest> = missing.collect();
        let wanted: Wanted = Arc::new(Mutex::new(missing.into_iter().collect()));
        let mut good: Vec<NodeId> = keepers.to_vec();
        loop {
            let mut asking = JoinSet::new();
            for keeper in good.drain(..) {
                let (follower, disk, wanted) =
                    (self.follower.clone(), self.disk.clone(), Arc::clone(&wanted));
                asking.spawn(async move {
                    let ended = fetch_from(&follower, &disk, keeper, &wanted).await;
                    ended.map(|()| keeper).map_err(|why| (keeper, why))
                });
            }
            while let Some(ended) = asking.join_next().await {
                match ended.map_err(|error| error.to_string())? {
                    Ok(keeper) => good.push(keeper),
                    Err((keeper, why)) => {
                        tracing::warn!(%keeper, why, "a keeper gives no more pieces of a snapshot");
                    }
                }
            }
            // What one took and did not get is for the others.
            let left = wanted.lock().unwrap_or_else(PoisonError::into_inner).len();
            match left {
                0 => return Ok(()),
                _ if good.is_empty() => return Err(format!("{left} pieces are missing")),
                _ => {}
            }
        }
    }
}

/// Asks one keeper for pieces until none is wanted, or it gives none.
async fn fetch_from(follower: &Follower, disk: &Disk, keeper: NodeId, wanted: &Wanted) -> Result<(), String> {
    let next = || wanted.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let back = |piece| wanted.lock().unwrap_or_else(PoisonError::into_inner).push_back(piece);
    while let Some(piece) = next() {
        let bytes = match follower.piece(keeper, piece).await {
            Ok(Some(bytes)) if piece_digest(&bytes) == piece => bytes,
            answer => {
                back(piece);
                return Err(match answer {
                    Ok(Some(_)) => "a piece that is another".to_owned(),
                    Ok(None) => "it has a piece no more".to_owned(),
                    Err(why) => why,
                });
            }
        };
        if let Err(error) = disk.save_piece(&piece, bytes).await {
            back(piece);
            return Err(error.to_string());
        }
    }
    Ok(())
}

impl Order {
    /// Ends the log that runs and goes on with it from a snapshot whose pieces are on disk, if it is still that log and
    /// did not come as far by itself.
    ///
    /// # Errors
    /// [`JoinError`]; the log is then what it was.
    async fn go_on_from(&self, certified: &Certified, ended: &CancellationToken) -> Result<bool, JoinError> {
        let _alone = self.start.changes.lock().await;
        let Some(log) = self.log().filter(|_| !ended.is_cancelled()) else { return Ok(false) };
        if certified.manifest.base.height() <= *log.tip.borrow() {
            return Ok(false);
        }
        log.end().await;
        let saved = self.stand_on(&log.genesis, certified).await;
        if saved.is_err() {
            // What failed once fails at once again: others are kept waiting meanwhile, and not asked.
            tokio::time::sleep(AGAIN).await;
        }
        // Whatever happens the log goes on, from the snapshot or from where it was.
        self.restart(log.genesis.clone()).await?;
        saved.map(|()| true)
    }

    /// Has the log on disk, which does not run, stand on a snapshot whose pieces are there.
    async fn stand_on(&self, genesis: &Genesis, certified: &Certified) -> Result<(), JoinError> {
        let (disk, genesis, certified) = (Disk::new(&self.start.store), genesis.clone(), certified.clone());
        let rows = tokio::task::spawn_blocking(move || {
            let rows = disk.begin_on(&genesis, &certified)?;
            let (here, needed) = (disk.pieces()?, certified.manifest.pieces.iter().copied().collect());
            if !here.is_superset(&needed) {
                return Err(DiskError::Damaged { what: "snapshot" });
            }
            // Pieces of snapshots that nobody needs any more.
            Ok((rows, here.difference(&needed).copied().collect::<Vec<Digest>>()))
        });
        let (rows, stale) = rows.await.map_err(|_stopped| JoinError::Stopped)??;
        self.start.store.commit(rows).await?;
        if let Err(error) = Disk::new(&self.start.store).forget_pieces(stale).await {
            tracing::warn!(%error, "pieces of older snapshots are left on the disk");
        }
        Ok(())
    }

    /// Begins with what is on disk, in the place of what ran before.
    async fn restart(&self, genesis: Genesis) -> Result<Arc<Log>, JoinError> {
        let mut begun = self.begin(genesis.clone());
        // What accepted streams before may be about to end.
        for _ in 0..ATTEMPTS {
            if !matches!(&begun, Err(JoinError::Stopped)) || self.start.stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(SOON).await;
            begun = self.begin(genesis.clone());
        }
        let begun = begun.map(Arc::new);
        *self.lock() = match &begun {
            Ok(log) => Standing::Kept(Arc::clone(log)),
            Err(error) => Standing::Broken(error.to_string()),
        };
        begun
    }

    /// Goes on from what a file has: its snapshot, if that is ahead of what is here, and its blocks. All of it is
    /// checked before anything changes.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn restore(&self, file: PathBuf) -> Result<Arc<Log>, RestoreError> {
        let _alone = self.start.changes.lock().await;
        let path = file.clone();
        let checked = tokio::task::spawn_blocking(move || archive::check(&path)).await;
        let head = checked.map_err(|_stopped| JoinError::Stopped)??;
        let log = self.same(&head.genesis)?;
        let here = log.as_ref().map_or(Height(0), |log| *log.tip.borrow());
        if head.height <= here {
            return Err(RestoreError::NotAhead { here, height: head.height });
        }
        let ran = log.is_some();
        if let Some(log) = log {
            log.end().await;
        }
        let (frames, mut read) = mpsc::channel(READ_AHEAD);
        tokio::task::spawn_blocking(move || read_frames(&file, &frames));
        let begun = self.take_snapshot(&head, here, &mut read).await;
        // One that ran before goes on, whatever came of it.
        let log = if begun.is_ok() || ran { Some(self.restart(head.genesis.clone()).await) } else { None };
        let (first, Some(log)) = (begun?, log.transpose()?) else { return Err(JoinError::Stopped.into()) };
        self.take_blocks(&log, &head, first, &mut read).await?;
        Ok(log)
    }

    /// Takes the snapshot of a file, if it is ahead of what is here; gives what stands behind it.
    async fn take_snapshot(
        &self,
        head: &Head,
        here: Height,
        frames: &mut mpsc::Receiver<Result<Frame, BadArchive>>,
    ) -> Result<Option<Frame>, RestoreError> {
        let disk = Disk::new(&self.start.store);
        let certified = head.certified.as_ref().filter(|_| head.base() > here);
        loop {
            match frames.recv().await.transpose()? {
                Some(Frame::Head(_)) => {}
                Some(Frame::Piece(bytes)) if certified.is_some() => {
                    let saved = disk.save_piece(&piece_digest(&bytes), bytes.into_vec()).await;
                    saved.map_err(JoinError::from)?;
                }
                Some(Frame::Piece(_)) => {}
                behind => {
                    match certified {
                        Some(certified) => self.stand_on(&head.genesis, certified).await?,
                        None => {
                            let begun = self.start.store.commit(Disk::begin(&head.genesis)).await;
                            begun.map_err(JoinError::from)?;
                        }
                    }
                    return Ok(behind);
                }
            }
        }
    }

    /// Gives the blocks of a file to the log that runs.
    async fn take_blocks(
        &self,
        log: &Log,
        head: &Head,
        first: Option<Frame>,
        frames: &mut mpsc::Receiver<Result<Frame, BadArchive>>,
    ) -> Result<(), RestoreError> {
        let (mut committee, mut next) = (log.committee(), first);
        let (mut seen, mut tip) = (Seen::new(), log.tip());
        while let Some(frame) = next {
            match frame {
                Frame::Batch(bytes) => {
                    let batch =
                        Batch::decode(&bytes).map_err(|error| BadArchive::Malformed(error.to_string()))?;
                    let saved = self.start.store.commit(disk::batch_of_block(&batch)).await;
                    saved.map_err(JoinError::from)?;
                }
                Frame::Blocks { blocks, end } => {
                    let before = blocks.first().is_some_and(|first| first.header().epoch < committee.epoch());
                    let last = blocks.last().map_or(Height(0), |last| last.header().height);
                    let checker = Checker::new(Arc::clone(&committee));
                    let ends = match &*end {
                        ChainEnd::Epoch(proof) if !before => Some(proof.check(&committee, &mut seen)),
                        ChainEnd::Epoch(_) | ChainEnd::Certified(_) => None,
                    };
                    let ends = ends.transpose().map_err(BadArchive::Rejected)?;
                    // What is of an epoch that is over here is here.
                    if !before {
                        let heard = follow::check(&checker, &mut seen, blocks, *end);
                        let heard = heard.map_err(BadArchive::Malformed)?;
                        log.heard.send(heard).await.map_err(|_stopped| JoinError::Stopped)?;
                    }
                    // The last ones are committed by those that come next, if they are not the last of an epoch.
                    let near = if ends.is_some() { last } else { Height(last.0.saturating_sub(NEAR)) };
                    committee = ends.map_or(committee, Arc::new);
                    // Ignored because what is missing in the end is told.
                    drop(tokio::time::timeout(TAKE_MAX, tip.wait_for(|tip| *tip >= near)).await);
                }
                Frame::Head(_) | Frame::Piece(_) | Frame::End => {}
            }
            next = frames.recv().await.transpose()?;
        }
        match tokio::time::timeout(TAKE_MAX, tip.wait_for(|tip| *tip >= head.height)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_stopped)) => Err(JoinError::Stopped.into()),
            Err(_elapsed) => Err(RestoreError::InPart { here: *log.tip.borrow(), height: head.height }),
        }
    }
}

fn read_frames(file: &Path, frames: &mpsc::Sender<Result<Frame, BadArchive>>) {
    let mut read = match Frames::open(file) {
        Ok(read) => read,
        Err(error) => return drop(frames.blocking_send(Err(error))),
    };
    loop {
        let frame = read.next();
        let over = !matches!(&frame, Ok(frame) if *frame != Frame::End);
        if frames.blocking_send(frame).is_err() || over {
            return;
        }
    }
}

/// Why a log does not go on from a file.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file's. Nothing changed.
    #[error(transparent)]
    Bad(#[from] BadArchive),
    /// The node's.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// There is as much here. Nothing changed.
    #[error("the log is at height {here} here, and the file ends at {height}")]
    NotAhead {
        /// What is here.
        here: Height,
        /// What the file has.
        height: Height,
    },
    /// Not all of it was taken; what was is right, and the rest comes from others.
    #[error("the log is at height {here} now, and the file ends at {height}")]
    InPart {
        /// What is here.
        here: Height,
        /// What the file has.
        height: Height,
    },
}

impl Log {
    /// Ends its tasks, and waits for what they write.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
