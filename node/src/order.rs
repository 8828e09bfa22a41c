//! The ordered log: the machine of `wattle-order` with its streams, its disk, its clock, and what waits to be ordered.
//!
//! A node keeps at most one log, and none until somebody joins one with its genesis. Whose key is in the genesis votes;
//! any other node follows: it checks everything as a validator does, and says nothing.

mod again;
mod apply;
mod archive;
mod disk;
mod driver;
mod epochs;
mod follow;
mod index;
mod links;
mod proofs;
mod quorum;
mod rebase;
pub mod receipts;
mod snapshots;
mod view;
mod writes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::{AlreadyAccepted, Overlay};
use wattle_order::catch_up::{self, CatchUp};
use wattle_order::payloads::{self, Below, NotTaken, Payloads};
use wattle_order::{
    ChainId, Checked, Committee, Config, Core, Corrupt, Digest, Epoch, Genesis, Height, InvalidEntry,
    Proposal, Receipt, Recovered, Round, Seat, Seen, Sound, Whole,
};
use wattle_store::{CommitError, Store};
use wattle_types::{NodeId, SecretKey, UnixTime};
use wattle_weave::order::{Input, Machines};

use crate::apps::Apps;

pub use archive::{ArchiveError, Archived, BadArchive, FileOrDir, archives};
pub use disk::{DiskError, Place};
pub use driver::Fate;
pub use links::Reach;
pub use quorum::{Quorum, needed, quorum, silenced};
pub use rebase::RestoreError;
pub use snapshots::CompactError;
pub use view::{HighQc, ValidatorView, View};

use again::Again;
use apply::Apply;
use disk::Disk;
use driver::{Driver, Request, State};
use follow::{Follower, Keeper};
use links::Links;
use proofs::{Proofs, Proven};
use rebase::Rebase;

/// What waits for the machine; beyond it streams are not read.
const HEARD_MAX: usize = 1024;
/// Requests that wait for the machine; beyond it callers wait.
const REQUESTS_MAX: usize = 1024;
/// Events for those who watch; who is slower misses some, and reads the log.
const EVENTS_MAX: usize = 1024;
/// How long a leader waits for something to order while nothing is in a hurry. Every empty block costs each node half a
/// dozen messages, two writes and two kilobytes for ever, and whatever comes meanwhile is proposed at once.
const REST: Duration = Duration::from_secs(30);
/// How old what callers are told of the log may be.
const LATELY: Duration = Duration::from_millis(20);
/// How long a keeper has to answer for a range of blocks, and how long one that did not is not asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const REST_AFTER: Duration = Duration::from_secs(2);
/// Words of keepers that what is asked of them is not kept any more; what is beyond is said again.
const BEHIND_MAX: usize = 16;

/// What the task of the machine hears.
enum Heard {
    /// Something for the machine.
    Log(Input),
    /// Blocks by height, checked, with what proves the last of them.
    Synced { blocks: Vec<Checked<Proposal>>, proof: Sound },
    /// A validator said what no honest one says.
    Misbehaved { peer: NodeId },
    /// An operator has to know.
    Alarm(String),
}

/// Something that happened in the log, and when.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: UnixTime,
    /// What.
    pub event: Event,
}

/// What happens in the log.
#[derive(Clone, Debug)]
pub enum Event {
    /// A block with entries is committed.
    Committed {
        /// At which height.
        height: Height,
        /// In which round.
        round: Round,
        /// How many entries.
        entries: usize,
        /// Who proposed it.
        leader: Option<NodeId>,
    },
    /// Others vote from now on.
    Epoch {
        /// In which epoch.
        epoch: Epoch,
        /// Behind which block.
        height: Height,
        /// Who.
        validators: Vec<NodeId>,
    },
    /// A validator signed two things of which no honest one signs both.
    Evidence {
        /// Who.
        validator: Option<NodeId>,
        /// What.
        what: String,
    },
    /// A validator sent what no honest one sends.
    Misbehaved {
        /// Who.
        validator: NodeId,
    },
    /// An operator has to do something.
    Alarm {
        /// What it is about.
        what: String,
    },
}

/// Why a log is not kept here. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// This node is in another network.
    #[error("the log is of network \"{theirs}\", and this node is in \"{ours}\"")]
    OtherNetwork {
        /// The log's.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// There is a log here.
    #[error("this node keeps log {ours}, and a node keeps one")]
    OtherLog {
        /// This node's.
        ours: ChainId,
    },
    /// What is on disk is no log.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is on disk does not verify.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The disk did not take it.
    #[error(transparent)]
    NotSaved(#[from] CommitError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

impl From<AlreadyAccepted> for JoinError {
    fn from(_: AlreadyAccepted) -> Self {
        Self::Stopped
    }
}

/// The log of a running node, if it keeps one.
#[derive(Clone)]
pub struct Order {
    start: Arc<Start>,
    state: Arc<Mutex<Standing>>,
    events: broadcast::Sender<Told>,
}

struct Start {
    overlay: Overlay,
    store: Arc<Store>,
    key: SecretKey,
    apps: Option<Apps>,
    config: Timing,
    started: Instant,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Held by who begins a log, or has it go on from a snapshot.
    changes: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
enum Standing {
    #[default]
    None,
    Kept(Arc<Log>),
    /// There is one on disk, and it cannot be used.
    Broken(String),
}

/// A log that is kept here.
pub struct Log {
    genesis: Genesis,
    me: NodeId,
    epochs: epochs::Now,
    requests: mpsc::Sender<Request>,
    heard: mpsc::Sender<Heard>,
    disk: Disk,
    asked: Asked,
    tip: watch::Receiver<Height>,
    /// Up to where the machine told of what is ordered.
    told: watch::Receiver<Height>,
    /// It ends with the node, or when it begins anew on a snapshot.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What many callers ask for at once.
#[derive(Default)]
struct Asked {
    proofs: Proofs,
    lately: tokio::sync::Mutex<Option<(Instant, Arc<View>)>>,
}

impl Order {
    /// Goes on with the log that is on disk, if there is one. One that cannot be used is said to be so, and the rest of
    /// the node runs. Without apps what is ordered is only kept.
    #[must_use]
    pub fn start(
        overlay: &Overlay,
        store: &Arc<Store>,
        key: &SecretKey,
        apps: Option<&Apps>,
        config: Timing,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let start = Start {
            overlay: overlay.clone(),
            store: Arc::clone(store),
            key: key.clone(),
            apps: apps.cloned(),
            config,
            started: Instant::now(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            changes: tokio::sync::Mutex::new(()),
        };
        let order = Self {
            start: Arc::new(start),
            state: Arc::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        };
        let begun = match Disk::new(store).genesis() {
            Ok(None) => Standing::None,
            Ok(Some(genesis)) => match order.begin(genesis) {
                Ok(log) => Standing::Kept(Arc::new(log)),
                Err(error) => Standing::Broken(error.to_string()),
            },
            Err(error) => Standing::Broken(error.to_string()),
        };
        if let Standing::Broken(why) = &begun {
            tracing::error!(why, "the ordered log on disk cannot be used: this node takes no part in it");
        }
        *order.lock() = begun;
        order
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        // A standing is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log that is kept here.
    #[must_use]
    pub fn log(&self) -> Option<Arc<Log>> {
        match &*self.lock() {
            Standing::Kept(log) => Some(Arc::clone(log)),
            Standing::None | Standing::Broken(_) => None,
        }
    }

    /// Why the log on disk cannot be used.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        match &*self.lock() {
            Standing::Broken(why) => Some(why.clone()),
            Standing::None | Standing::Kept(_) => None,
        }
    }

    /// The key of this node.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.start.key
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Told> {
        self.events.subscribe()
    }

    /// Keeps a log from now on, also after a restart. Joining again changes nothing.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, genesis: Genesis) -> Result<Arc<Log>, JoinError> {
        let _alone = self.start.changes.lock().await;
        if let Some(log) = self.same(&genesis)? {
            return Ok(log);
        }
        self.start.store.commit(Disk::begin(&genesis)).await?;
        let log = Arc::new(self.begin(genesis)?);
        *self.lock() = Standing::Kept(Arc::clone(&log));
        Ok(log)
    }

    /// The log that runs, if it is the one of this genesis, which is of this node's network.
    fn same(&self, genesis: &Genesis) -> Result<Option<Arc<Log>>, JoinError> {
        let (theirs, ours) = (genesis.network.to_string(), self.start.overlay.network().to_string());
        if theirs != ours {
            return Err(JoinError::OtherNetwork { theirs, ours });
        }
        let known = Disk::new(&self.start.store).genesis()?;
        match known {
            Some(known) if known != *genesis => Err(JoinError::OtherLog { ours: known.chain() }),
            _ => Ok(self.log()),
        }
    }

    fn begin(&self, genesis: Genesis) -> Result<Log, JoinError> {
        let stop = self.start.stop.child_token();
        let begun = self.begin_until(&stop, genesis);
        if begun.is_err() {
            // What began already ends.
            stop.cancel();
        }
        begun
    }

    fn begin_until(&self, stop: &CancellationToken, genesis: Genesis) -> Result<Log, JoinError> {
        let Start { overlay, store, key, apps, config, started, tasks: all_tasks, .. } = &*self.start;
        let tasks = &TaskTracker::new();
        let disk = Disk::new(store);
        let epochs = disk.epochs(&genesis)?;
        let (committee, proofs) = (Arc::clone(epochs.current()), epochs.before(epochs.current().epoch()));
        let found = disk.load(&committee)?;
        if found.safety_damaged && found.records.is_empty() {
            return Err(DiskError::Damaged { what: "safety record" }.into());
        }
        let tip_time = disk.block(found.told.height)?.map_or(genesis.created, |block| block.header().time);
        let recovered = Recovered::read(Arc::clone(&committee), &mut Seen::new(), found.records)?;
        let recovered = recovered.after(proofs);
        let below = disk.below(found.again_above, &committee)?;
        let me = overlay.id();
        let machines = config.machines(me, key, recovered, &committee, &below);
        let (heard, hears) = mpsc::channel(HEARD_MAX);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (tip_is, tip) = watch::channel(found.told.height);
        let (expired, over) = watch::channel(None);
        let chain = committee.chain();
        let (epochs_are, epochs) = watch::channel(Arc::new(epochs));
        let (compacted, behind) = mpsc::channel(BEHIND_MAX);
        let tell = (heard.clone(), compacted);
        let seen = (tip.clone(), over);
        let follower = Follower::new(overlay, chain, epochs.clone(), tell, seen, (stop, tasks));
        let links =
            links::Start { overlay, chain, epochs: epochs.clone(), heard: heard.clone(), stop, tasks };
        let links = Links::start(links)?;
        let (tip_now, heard_now, epochs_now) = (tip.clone(), heard.clone(), epochs.clone());
        Keeper { chain, disk: disk.clone(), tip: tip_now, heard: heard_now, me, epochs: epochs_now }
            .start(overlay, stop, tasks)?;
        let apply = apps.as_ref().map(|apps| Apply::new(apps, &epochs, &disk, &tip, &heard));
        let (apply, handing) = apply.unzip();
        let known = handing.is_some().then(|| found.roots.into_iter().collect());
        let ordered = (found.told.height, found.told.root);
        let (told_is, told) = watch::channel(found.again_above);
        let again = Again::new(&disk, &epochs, &told, &heard)?;
        let mut driver = Driver {
            log: wattle_weave::order::Log::new(machines, ordered, known),
            started: *started,
            me,
            epochs: epochs_are,
            links: links.clone(),
            disk: disk.clone(),
            follower: follower.clone(),
            tip: tip_is,
            told: told_is,
            expired,
            events: self.events.clone(),
            heard: heard.clone(),
            apps: handing,
            pending: found.pending,
            tasks: tasks.clone(),
            state: State::new(tip_time, below.unknown_until, found.index),
        };
        driver.begin(found.free);
        tasks.spawn(stop.clone().run_until_cancelled_owned(again.run()));
        if let Some(apply) = apply {
            tasks.spawn(stop.clone().run_until_cancelled_owned(apply.run()));
        }
        tasks.spawn(stop.clone().run_until_cancelled_owned(follower.clone().follow(links)));
        tasks.spawn(driver.run(hears, asked, stop.clone()));
        tasks.close();
        let (stop, tasks) = (stop.clone(), tasks.clone());
        let (ending, asked) = (tasks.clone(), Asked::default());
        all_tasks.spawn(async move { ending.wait().await });
        let log = Log { genesis, me, epochs, requests, heard, disk, asked, tip, told, stop, tasks };
        let rebase = Rebase::new(self, &log, follower, behind);
        all_tasks.spawn(self.start.stop.clone().run_until_cancelled_owned(rebase.run()));
        Ok(log)
    }
}

/// A committed block with what it orders.
#[derive(Clone, Debug)]
pub struct WholeBlock {
    /// The block.
    pub block: Proposal,
    /// Its entries, in order.
    pub entries: Vec<(Place, ByteBuf)>,
}

/// Why an entry was not submitted. Nothing changed but where it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It is not taken.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// The disk's.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// The fate of what is known to stand there.
fn known(place: Place) -> oneshot::Receiver<Fate> {
    let (fate, told) = oneshot::channel();
    // Ignored because it is received by whoever is given the other end.
    drop(fate.send(Fate::Ordered(place)));
    told
}

impl Log {
    /// What names it.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        self.epochs.borrow().first().chain()
    }

    /// What it began with.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Who votes now.
    #[must_use]
    pub fn committee(&self) -> Arc<Committee> {
        Arc::clone(self.epochs.borrow().current())
    }

    /// Who voted in an epoch, if it began.
    #[must_use]
    pub fn committee_of(&self, epoch: Epoch) -> Option<Arc<Committee>> {
        self.epochs.borrow().of(epoch).cloned()
    }

    /// Where this node sits now, if it votes.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        self.epochs.borrow().current().seat(&self.me)
    }

    /// The committed height, and when it changes.
    #[must_use]
    pub fn tip(&self) -> watch::Receiver<Height> {
        self.tip.clone()
    }

    /// How it did a moment ago, the same for all who ask within it: callers by the thousand cost no more than one.
    /// Nothing once the node stops.
    pub async fn lately(&self) -> Option<Arc<View>> {
        let mut lately = self.asked.lately.lock().await;
        if let Some((at, view)) = &*lately
            && at.elapsed() < LATELY
        {
            return Some(Arc::clone(view));
        }
        let view: Arc<View> = self.view().await?.into();
        *lately = Some((Instant::now(), Arc::clone(&view)));
        Some(view)
    }

    /// How it does; nothing once the node stops.
    pub async fn view(&self) -> Option<Box<View>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::View(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Submits an entry. What is given back tells its fate, as soon as that is known.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, entry: Arc<Whole>) -> Result<oneshot::Receiver<Fate>, SubmitError> {
        let taken = self.submit_all(vec![entry]).await?.pop().ok_or(SubmitError::Stopped)?;
        Ok(taken?)
    }

    /// Submits entries, each for itself: what is given back tells the fate of those that are taken, and
    /// why others are not.
    ///
    /// # Errors
    /// [`SubmitError`], where nothing is known of any.
    pub async fn submit_all(
        &self,
        entries: Vec<Arc<Whole>>,
    ) -> Result<Vec<Result<oneshot::Receiver<Fate>, NotTaken>>, SubmitError> {
        let hashes: Vec<Digest> = entries.iter().map(|entry| entry.transaction()).collect();
        let (fates, told): (Vec<_>, Vec<_>) = entries.iter().map(|_| oneshot::channel()).unzip();
        let entries = entries.into_iter().zip(fates).collect();
        let (taken, answer) = oneshot::channel();
        let request = Request::Submit { entries, taken };
        self.requests.send(request).await.map_err(|_closed| SubmitError::Stopped)?;
        let taken = answer.await.map_err(|_closed| SubmitError::Stopped)?;
        let mut fates = Vec::new();
        for ((hash, told), taken) in hashes.into_iter().zip(told).zip(taken) {
            fates.push(match taken {
                // What is over its time may have been ordered before; only the disk remembers it for so long.
                Err(why @ NotTaken::Invalid(InvalidEntry::Expired { .. })) => {
                    let place = self.read(move |disk| disk.place(&hash)).await?;
                    place.map(known).ok_or(why)
                }
                taken => taken.map(|()| told),
            });
        }
        Ok(fates)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let disk = self.disk.clone();
        let reading = tokio::task::spawn_blocking(move || work(&disk)).await;
        reading.unwrap_or(Err(DiskError::Damaged { what: "disk" }))
    }

    /// Committed blocks above a height, so many at most, as far as they and all that they order are here.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn blocks(&self, above: Height, limit: usize) -> Result<Vec<Proposal>, DiskError> {
        let tip = *self.tip.borrow();
        let limit = limit.min(usize::try_from(tip.0.saturating_sub(above.0)).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.read(move |disk| disk.committed(above, limit)).await
    }

    /// The same with what they order, each entry with its place.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn blocks_whole(&self, above: Height, limit: usize) -> Result<Vec<WholeBlock>, DiskError> {
        let blocks = self.blocks(above, limit).await?;
        let whole = |disk: &Disk, block: Proposal| Ok(WholeBlock { entries: disk.entries(&block)?, block });
        self.read(move |disk| blocks.into_iter().map(|block| whole(disk, block)).collect()).await
    }

    /// A committed block, if all that it orders is here.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn block(&self, height: Height) -> Result<Option<WholeBlock>, DiskError> {
        if height == Height(0) {
            return Ok(None);
        }
        let found = self.blocks_whole(Height(height.0.saturating_sub(1)), 1).await?.pop();
        // Where the log was compacted the first block above is a later one.
        Ok(found.filter(|found| found.block.header().height == height))
    }

    /// The height of the first block that is here; below it there is a snapshot only.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn first(&self) -> Result<Height, DiskError> {
        Ok(self.read(Disk::base_height).await?.next())
    }

    /// The height of the newest snapshot that a quorum vouches for, and the bytes of its state.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn snapshot(&self) -> Result<Option<(Height, u64)>, DiskError> {
        let certified = self.read(Disk::certified).await?;
        Ok(certified.map(|certified| (certified.manifest.base.height(), certified.manifest.bytes)))
    }

    /// Where the entry with this hash stands, if it is ordered.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn place(&self, hash: Digest) -> Result<Option<Place>, DiskError> {
        // What is asked for is mostly new, and what is new may not be on disk yet.
        let (reply, answer) = oneshot::channel();
        let asked = self.requests.send(Request::Recent(hash, reply)).await;
        let recent = if asked.is_ok() { answer.await.unwrap_or_default() } else { None };
        if recent.is_some() { Ok(recent) } else { self.read(move |disk| disk.place(&hash)).await }
    }

    /// The proof that an entry stands there, with the entry.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn receipt(&self, place: Place) -> Result<Option<(Receipt, Vec<u8>)>, DiskError> {
        let epochs = Arc::clone(&self.epochs.borrow());
        let proven = move |disk: &Disk, height| {
            let proven = disk.proven_block(height)?;
            Ok(proven.map(|it| Proven { epochs: epochs.before(it.block.header().epoch), ..it }))
        };
        let read = async |height| self.read(move |disk| proven(disk, height)).await;
        self.asked.proofs.receipt(self.chain(), place, read).await
    }
}

/// How fast things happen.
#[derive(Clone, Debug)]
pub struct Timing {
    core: Config,
    payloads: fn(NodeId) -> payloads::Config,
}

impl Timing {
    fn machines(
        &self,
        me: NodeId,
        key: &SecretKey,
        recovered: Recovered,
        committee: &Arc<Committee>,
        below: &Below,
    ) -> Machines {
        let catching = catch_up::Config { me, answer_within: ANSWER_WITHIN, rest: REST_AFTER };
        Machines {
            core: Core::new(self.core.clone(), key.clone(), recovered),
            payloads: Payloads::new((self.payloads)(me), Arc::clone(committee), below),
            catch_up: CatchUp::new(catching, Arc::clone(committee)),
        }
    }
}

/// The machines' timing for a profile of the overlay.
#[must_use]
pub fn timing(lan: bool) -> Timing {
    let (core, payloads): (Config, fn(NodeId) -> payloads::Config) =
        if lan { (Config::lan(), payloads::Config::lan) } else { (Config::wan(), payloads::Config::wan) };
    Timing { core: Config { idle: REST, ..core }, payloads }
}
