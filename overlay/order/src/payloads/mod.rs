//! The payload path: from entries that somebody hands in to what blocks order, and back to the apps.
//!
//! # What it does
//!
//! [`Payloads`] is a machine of its own beside [`crate::Core`]: it answers [`crate::Output::Build`] and
//! [`crate::Output::Validate`], is told of [`crate::Output::Commit`], and says [`crate::Input::Built`],
//! [`crate::Input::Judged`] and [`crate::Input::Waiting`]. The host carries between the two.
//!
//! 1. An entry is handed in and waits in the mempool ([`Input::Submit`], [`Output::Answer`]).
//! 2. A validator seals what waits into a batch, stores it, and sends it to all; they store it and say so.
//! 3. A leader orders what waits: the entries themselves if that is little, else batches by their digests.
//! 4. Who votes has everything on disk. What is missing is fetched, of the leader first, then of all.
//! 5. What is committed is told in order, with its entries, as soon as they are here ([`Output::Ordered`]).
//!
//! # Rules
//!
//! * **M1, once.** An entry stands in a block iff it lives at the block's time and stands nowhere before on that
//!   block's chain. A batch stands in one block: it waits until none of its entries is too far ahead of its time. Every
//!   voter checks it, against what is committed and the blocks above. An entry says itself until when it lives, so what
//!   is remembered is bounded, and the bound is a rule of the chain too.
//! * **M2, room.** The mempool has a bound in entries and bytes, and each submitter a share. What is over it is
//!   refused with the reason. First come, first served; what an abandoned block had waits as before.
//! * **M3, availability (OptQS).** "Have" is said, and a block's payload called valid, only when every batch in it is
//!   on disk here. So a certificate proves that f + 1 honest nodes have it.
//! * **M4, bounds.** Batches that no block has ordered are bounded for each author; what is asked for in all.
//! * **M5, late authors.** As leader, this node orders its own batches when a quorum has them, and those of others as
//!   soon as it has them itself; but for a while not of an author whose batches had to be fetched from here by f + 1.
//! * **M6, order.** What is committed is told ascending, each block once, and never without all its entries.
//!
//! # Not here
//!
//! What entries mean (the apps), whether they make sense (`App::check`, before they are handed in), the disk.

mod batch;
mod build;
mod chain;
mod mempool;
mod message;
mod spread;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wattle_types::{Machine, NodeId, Outbox, Time, UnixTime};

pub use batch::{Batch, InvalidBatch};
pub use mempool::{Bounds, Busy, Mempool, NotTaken, Room, Submitter};
pub use message::Message;

use crate::approval::{APPROVALS_APP, Change};
use crate::block::Payload;
use crate::block::{BlockInfo, Proposal};
use crate::certificate::Qc;
use crate::check::Checked;
use crate::committee::{Committee, Validators};
use crate::core::To;
use crate::entry::{InvalidEntry, Key, Whole};
use crate::ids::{BlockId, Digest, Height, Round, Seat, Seq};
use crate::tree::Verdict;
use batch::Store;
use chain::Chain;

/// What one node does as it likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// What the mempool holds at the most.
    pub bounds: Bounds,
    /// How long an entry waits for company before it is sealed into a batch, while another batch is under way.
    pub seal_after: Duration,
    /// How long a batch that a block names may still be on its way before it is asked for.
    pub fetch_after: Duration,
    /// How often it is asked for, of somebody else each time.
    pub fetch_retry: Duration,
    /// How often a batch is told again to those who did not say that they have it, and entries to validators.
    pub tell_retry: Duration,
}

impl Config {
    /// One building.
    #[must_use]
    pub fn lan(me: NodeId) -> Self {
        let millis = Duration::from_millis;
        Self {
            me,
            bounds: Bounds::default(),
            seal_after: millis(5),
            fetch_after: millis(30),
            fetch_retry: millis(100),
            tell_retry: millis(1000),
        }
    }

    /// The internet.
    #[must_use]
    pub fn wan(me: NodeId) -> Self {
        let millis = Duration::from_millis;
        Self {
            seal_after: millis(50),
            fetch_after: millis(200),
            fetch_retry: millis(500),
            tell_retry: millis(3000),
            ..Self::lan(me)
        }
    }

    /// The same, with every span that is waited again and again at least a millisecond.
    fn clamped(self) -> Self {
        let least = Duration::from_millis(1);
        let (fetch_retry, tell_retry) = (self.fetch_retry.max(least), self.tell_retry.max(least));
        Self { fetch_retry, tell_retry, ..self }
    }
}

/// The block below the first that the machine will be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// The block.
    pub block: BlockId,
    /// Its height.
    pub height: Height,
    /// Its time, as far as it is known.
    pub time: UnixTime,
    /// What was ordered at or below it, and is not told of, could stand again in blocks up to that time (rule B).
    pub unknown_until: UnixTime,
}

impl Below {
    /// Where an epoch begins.
    #[must_use]
    pub const fn epoch(committee: &Committee) -> Self {
        let crate::committee::Anchor { block, height, time, .. } = *committee.anchor();
        Self { block, height, time, unknown_until: UnixTime::from_millis(0) }
    }

    /// Below a block before which nothing was ordered that could come again.
    #[must_use]
    pub fn first(first: &Proposal) -> Self {
        let header = first.header();
        let height = Height(header.height.0.saturating_sub(1));
        // No time is known yet: the block says its own.
        let none = UnixTime::from_millis(0);
        Self { block: header.parent, height, time: none, unknown_until: none }
    }

    /// On a block of which only a snapshot is here.
    #[must_use]
    pub fn snapshot(tip: &BlockInfo) -> Self {
        let life = Duration::from_millis(crate::limits::ENTRY_LIFE_MAX_MS);
        let BlockInfo { id: block, height, time, .. } = *tip;
        Self { block, height, time, unknown_until: time.after(life) }
    }
}

/// What names an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmitId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// What time it is. Said at the start, and when the clock was set.
    Clock(UnixTime),
    /// Somebody hands in an entry.
    Submit {
        /// To be named in the answer.
        id: SubmitId,
        /// Who.
        from: Submitter,
        /// What.
        entry: Arc<Whole>,
    },
    /// A message came.
    Received {
        /// Who holds the other end of the stream.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// [`crate::Output::Build`].
    Build {
        /// In which round.
        round: Round,
        /// On which block.
        parent: BlockId,
    },
    /// [`crate::Output::Validate`].
    Validate {
        /// The block.
        block: Checked<Proposal>,
    },
    /// [`crate::Output::Commit`]. At the start the host says it of every block on disk that is not more than
    /// [`ENTRY_LIFE_MAX_MS`](crate::limits::ENTRY_LIFE_MAX_MS) before the last one, so that nothing is ordered again.
    Commit {
        /// The blocks.
        blocks: Vec<Checked<Proposal>>,
        /// What commits them; none for what is read from disk.
        proof: Option<Checked<Qc>>,
        /// Who voted in their epoch, if that is over: those may have what they order, and others not.
        before: Option<Arc<Committee>>,
    },
    /// [`crate::Output::EpochEnded`].
    EpochEnded {
        /// The new epoch.
        committee: Arc<Committee>,
    },
    /// The answer to [`Output::Load`]. At the start also for batches that are on disk and in no committed block.
    Loaded {
        /// Which.
        batch: Digest,
        /// What the disk has.
        content: Option<Arc<Batch>>,
    },
    /// Everything up to this batch is on disk.
    Persisted {
        /// The batch's number.
        upto: Seq,
    },
    /// The disk failed: no batch is stored any more, and nothing that needs one is called valid.
    NotPersisted,
    /// The deadline has come. The first starts the machine.
    Wake,
}

/// What must happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// What came of handing in an entry.
    Answer {
        /// Which.
        id: SubmitId,
        /// Its hash, by which the log knows it. It waits in memory here; it is certain when it is ordered.
        result: Result<Digest, NotTaken>,
    },
    /// For the machine of the log: [`crate::Input::Built`].
    Built {
        /// In which round.
        round: Round,
        /// What to order.
        payload: Payload,
        /// What time it is.
        time: UnixTime,
        /// The validators of the next epoch, if this one is to end (N).
        next: Option<Validators>,
    },
    /// For the machine of the log: [`crate::Input::Judged`].
    Judged {
        /// Which block.
        block: BlockId,
        /// What is to be said of its payload.
        verdict: Verdict,
    },
    /// For the machine of the log: [`crate::Input::Waiting`].
    Waiting(bool),
    /// For the apps: this is committed, with all that it orders.
    Ordered {
        /// The block.
        block: Checked<Proposal>,
        /// Its entries, in order.
        entries: Vec<Ordered>,
    },
    /// An entry of this node's own callers was not ordered in its time, and never will be.
    Expired {
        /// Its hash.
        transaction: Digest,
    },
    /// Write this to disk, in the order of the numbers, and say [`Input::Persisted`].
    Persist {
        /// Its number.
        seq: Seq,
        /// The batch.
        batch: Arc<Batch>,
    },
    /// Look whether this batch is on disk, and say [`Input::Loaded`].
    Load {
        /// Which.
        batch: Digest,
    },
    /// No block will have this batch: it may go from the disk.
    Forget {
        /// Which.
        batch: Digest,
    },
    /// Send this.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Message,
    },
    /// A peer broke the protocol: its score goes down.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// In which batch of the block.
    pub batch: u64,
    /// At which place of what the block orders of the batch.
    pub index: u64,
    /// The entry.
    pub whole: Arc<Whole>,
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Entries that wait in the mempool.
    pub waiting: Room,
    /// Batches that are here.
    pub batches: usize,
    /// Batches that are asked for.
    pub wanted: usize,
    /// The last block whose entries were told.
    pub height: Height,
    /// Blocks that are committed and whose entries are not all here.
    pub behind: usize,
    /// Entries that are remembered so that they are not ordered again.
    pub remembered: usize,
    /// Whose batches this node does not order for a while (M5).
    pub late: Vec<NodeId>,
    /// Validators that are approved by some for the next epoch (N).
    pub changes: Vec<Change>,
}

/// Validators that did not spread their batches: how often, and up to which height they are left out.
type Late = BTreeMap<NodeId, (u32, Height)>;

/// One node's part of the payload path.
#[derive(Debug)]
pub struct Payloads {
    config: Config,
    committee: Arc<Committee>,
    seat: Option<Seat>,
    /// The wall clock, and when it was told.
    clock: (UnixTime, Time),
    mempool: Mempool,
    chain: Chain,
    store: Store,
    last: Seq,
    durable: Seq,
    failed: bool,
    started: bool,
    waits: bool,
    /// Since when the oldest entry waits for a batch.
    loose_since: Option<Time>,
    /// When it is looked at whether what this node offered for a block is in one.
    offered_until: Option<Time>,
    /// A node without a vote hands its entries to validators: when it does so again, and which have been handed on.
    hands_at: Option<Time>,
    handed: BTreeSet<Key>,
    turns: usize,
    /// When a batch of this node's own is told again, or a little before.
    tells_at: Option<Time>,
    late: Late,
    /// Who waits for a batch that the disk is asked for.
    serving: BTreeMap<Digest, BTreeSet<NodeId>>,
}

impl Payloads {
    /// Empty, on the block below the first that it will be told of.
    #[must_use]
    pub fn new(config: Config, committee: Arc<Committee>, below: &Below) -> Self {
        let start = Time::ZERO;
        Self {
            seat: committee.seat(&config.me),
            clock: (committee.anchor().time, start),
            mempool: Mempool::new(config.bounds),
            chain: Chain::new(below),
            config: config.clamped(),
            committee,
            store: Store::default(),
            last: Seq(0),
            durable: Seq(0),
            failed: false,
            started: false,
            waits: false,
            loose_since: None,
            offered_until: None,
            hands_at: None,
            handed: BTreeSet::new(),
            turns: 0,
            tells_at: None,
            late: Late::new(),
            serving: BTreeMap::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let (batches, wanted) = self.store.lens();
        let late = self.late.iter().filter(|(_, (_, until))| *until > self.chain.height);
        Status {
            waiting: self.mempool.held(),
            batches,
            wanted,
            height: self.chain.height,
            behind: self.chain.blocks.values().filter(|known| known.committed).count(),
            remembered: self.chain.remembered(),
            late: late.map(|(author, _)| *author).collect(),
            changes: self.chain.changes(),
        }
    }

    fn wall(&self, now: Time) -> UnixTime {
        let (wall, at) = self.clock;
        wall.after(now.since(at))
    }

    /// When the wall clock will say so.
    fn when(&self, wall: UnixTime) -> Time {
        self.clock.1.after(wall.since(self.clock.0))
    }

    fn on_submit(
        &mut self,
        now: Time,
        id: SubmitId,
        from: Submitter,
        entry: Arc<Whole>,
        out: &mut Outbox<Output>,
    ) {
        let result = self.take(now, from, entry);
        out.push(Output::Answer { id, result });
    }

    /// M2: takes an entry into the mempool, or says why not.
    fn take(&mut self, now: Time, from: Submitter, whole: Arc<Whole>) -> Result<Digest, NotTaken> {
        if self.chain.is_ordered(&whole.key) {
            return Err(NotTaken::Ordered);
        }
        whole.check_life(self.wall(now))?;
        if whole.entry.app == APPROVALS_APP && !self.chain.hears(&self.committee, &whole) {
            return Err(InvalidEntry::Approval.into());
        }
        let (ordered, max) = (self.chain.live(), crate::limits::LIVE_ENTRIES_MAX);
        if ordered + self.mempool.held().entries >= max {
            return Err(NotTaken::Busy(Busy::Chain { ordered, max }));
        }
        if self.failed && self.seat.is_some() {
            return Err(NotTaken::Disk);
        }
        let transaction = whole.transaction;
        self.mempool.admit(from, whole).map_err(NotTaken::Busy)?;
        Ok(transaction)
    }

    fn on_received(&mut self, now: Time, from: NodeId, message: Message, out: &mut Outbox<Output>) {
        match message {
            // Only validators are asked; nobody hands on for others.
            Message::Entries(_) if self.seat.is_none() => {}
            Message::Entries(entries) if entries.len() > crate::limits::HANDED_MAX => {
                out.push(Output::Misbehaved {
                    peer: from,
                    why: "it hands in more entries than one message may have",
                });
            }
            Message::Entries(entries) => {
                for whole in entries.into_iter().filter_map(|entry| Whole::read(entry).ok()) {
                    // Ignored because its owner hears from the log: it tries others until then.
                    let _taken = self.take(now, Submitter::Peer(from), Arc::new(whole)).is_ok();
                }
            }
            Message::Batch(transactions) => self.on_batch(now, from, transactions, out),
            Message::Have(batch) => self.on_have(from, &batch),
            Message::Fetch(batch) => self.on_fetch(from, batch, out),
            Message::Fetched(transactions) => self.on_fetched(from, transactions, out),
            Message::Lacks(batch) => self.store.lacks(&batch, now),
        }
    }

    /// What is over its time goes; own callers hear of theirs.
    fn expire(&mut self, now: Time, out: &mut Outbox<Output>) {
        for (from, transaction) in self.mempool.expire(self.wall(now)) {
            if from == Submitter::Here {
                out.push(Output::Expired { transaction });
            }
        }
    }

    /// Says once whether anything waits to be ordered.
    fn tell_waiting(&mut self, out: &mut Outbox<Output>) {
        let spreads = self.seat.is_some() && !self.mempool.is_empty();
        let waits = spreads || self.store.has_free() || self.chain.is_to_end(&self.committee);
        if self.started && waits != self.waits {
            self.waits = waits;
            out.push(Output::Waiting(waits));
        }
    }

    /// What must hold after every input. For tests and simulations.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        self.mempool.check_invariants();
        self.store.check_invariants();
        assert!(self.durable <= self.last, "M3: nothing is durable that was not written");
        assert!(
            self.chain.remembered() <= crate::limits::LIVE_ENTRIES_MAX,
            "M1: what is remembered is bounded"
        );
        assert!(self.serving.len() <= crate::limits::SERVING_MAX, "M4: what is read for others is bounded");
        let above = self.chain.blocks.values().all(|known| known.height() > self.chain.height);
        assert!(above, "M6: blocks are above the last that was told of");
        self.chain.check_invariants();
    }
}

impl Machine for Payloads {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Clock(wall) => self.clock = (wall, now),
            Input::Submit { id, from, entry } => self.on_submit(now, id, from, entry, out),
            Input::Received { from, message } => self.on_received(now, from, message, out),
            Input::Build { round, parent } => self.on_build(now, round, &parent, out),
            Input::Validate { block } => self.on_validate(&block),
            Input::Commit { blocks, proof, before } => {
                self.on_commit(&blocks, proof.as_ref(), before.as_deref());
            }
            Input::EpochEnded { committee } => self.on_epoch(committee),
            Input::Loaded { batch, content } => self.on_loaded(now, batch, content, out),
            Input::Persisted { upto } => self.on_persisted(upto, out),
            Input::NotPersisted => self.failed = true,
            Input::Wake => {
                self.started = true;
                self.expire(now, out);
                self.take_back_if_due(now);
                self.tell_again(now, out);
            }
        }
        self.settle(now, out);
        if self.mempool.loose_bytes() > 0 {
            self.loose_since.get_or_insert(now);
        } else {
            self.loose_since = None;
        }
        self.seal_if_due(now, out);
        self.hand_on(now, out);
        self.ask(now, out);
        self.tell_waiting(out);
    }

    fn deadline(&self) -> Option<Time> {
        if !self.started {
            return Some(Time::ZERO);
        }
        let expires = self.mempool.expires().map(|until| self.when(until).after(Duration::from_millis(1)));
        let times = [
            self.offered_until,
            expires,
            self.seals_at(),
            self.hands_at,
            self.store.asks_at(),
            self.tells_at,
            self.judges_at(),
        ];
        times.into_iter().flatten().min()
    }
}
