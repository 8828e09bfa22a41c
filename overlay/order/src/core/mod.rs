//! The machine.

mod blocks;
mod commits;
mod guard;
mod rounds;
mod start;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wattle_types::{Machine, NodeId, Outbox, SecretKey, Time, UnixTime};

use crate::block::{Payload, Proposal};
use crate::certificate::{Qc, Tc, Timeout, Vote};
use crate::check::{Checked, Sound};
use crate::collect::{Timeouts, Votes, Witness};
use crate::committee::{Committee, Validators};
use crate::config::Config;
use crate::epoch::EpochProof;
use crate::evidence::{Evidence, EvidenceKey};
use crate::ids::{BlockId, Digest, Epoch, Height, Round, Seat, Seq, hash};
use crate::journal::{Gated, Journal, Record};
use crate::limits::{EVIDENCE_WAITING_MAX, HELD_MAX};
use crate::message::Message;
use crate::safety::{Refusal, Safety};
use crate::tree::{Tree, Verdict};
use blocks::{Suspended, Wanted};
use guard::Guard;
pub use start::{Corrupt, Recovered};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message came, everything in it checked.
    Received {
        /// Who holds the other end of the stream.
        from: NodeId,
        /// What it says.
        message: Sound,
    },
    /// A message of another epoch came; one of the two sides is behind.
    OtherEpoch {
        /// From whom.
        from: NodeId,
        /// In which that one is, at the least.
        epoch: Epoch,
    },
    /// The answer to [`Output::Validate`], whenever it is known.
    Judged {
        /// Which block.
        block: BlockId,
        /// What the application says.
        verdict: Verdict,
    },
    /// The answer to [`Output::Build`].
    Built {
        /// For which round.
        round: Round,
        /// What to order; one that is over a limit is refused. Batches in it are on disk here.
        payload: Payload,
        /// The wall clock.
        time: UnixTime,
        /// The validators of the next epoch, if this one is to end.
        next: Option<Validators>,
    },
    /// Transactions wait here to be ordered, or none do any more.
    Waiting(bool),
    /// Everything up to this record is on disk.
    Persisted {
        /// The record.
        upto: Seq,
    },
    /// The disk failed; nothing is signed any more.
    NotPersisted,
    /// The application executed a committed block.
    Executed {
        /// Up to where.
        height: Height,
        /// The digest of its state.
        root: Digest,
    },
    /// The answer to [`Output::Behind`], in whole or a part from its beginning: committed blocks, ascending.
    Synced {
        /// The blocks.
        blocks: Vec<Checked<Proposal>>,
    },
    /// The deadline has come. The first starts the machine; what others say before it is dropped.
    Wake,
}

/// For whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// For one.
    One(NodeId),
    /// For every validator but this node.
    All,
}

/// What must happen now.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this to disk, in the order of the numbers, and say [`Input::Persisted`].
    Persist {
        /// Its number.
        seq: Seq,
        /// What.
        record: Record,
    },
    /// Send this. What it needs on disk is there.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Arc<Message>,
    },
    /// It is this node's turn: say [`Input::Built`] with what to order, at once, nothing if there is nothing.
    Build {
        /// In which round.
        round: Round,
        /// On which block; what is in it and before it must not be ordered again.
        parent: BlockId,
    },
    /// Look whether the payload is here, durable, and right, and say [`Input::Judged`]. What is not here is to be
    /// fetched; say it when it came. Of this node's own block the application hears in the same way, and nothing waits
    /// for what it says.
    Validate {
        /// The block.
        block: Checked<Proposal>,
    },
    /// These are decided, ascending and gap-free, and on disk with their proof. After a restart what was told last may
    /// be told again.
    Commit {
        /// The blocks.
        blocks: Vec<Checked<Proposal>>,
        /// The certificate that commits the last of them, and so all.
        proof: Checked<Qc>,
    },
    /// This node is behind, or misses a block that nobody gave it: fetch the committed blocks above a height from
    /// several of the certificate's signers, check them with [`crate::Checker::check_chain`], and say
    /// [`Input::Synced`]. While it is far behind it is asked again until they come.
    Behind {
        /// What is here.
        above: Height,
        /// What there is.
        target: Checked<Qc>,
    },
    /// The epoch is over, and on disk. What comes from now on is checked by the new one's [`crate::Checker`].
    EpochEnded {
        /// For those who come after.
        proof: Box<EpochProof>,
        /// The new epoch.
        committee: Arc<Committee>,
    },
    /// Somebody broke the protocol, and this proves it.
    Evidence(Checked<Evidence>),
    /// An operator has to know.
    Alarm(Alarm),
    /// A peer broke the protocol in a way that proves nothing to others: its score goes down.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// What an operator has to know, at once and loudly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Two certificates commit different blocks: a third of the validators or more lie. This node stops.
    Fork {
        /// One.
        one: Box<Qc>,
        /// The other.
        other: Box<Qc>,
    },
    /// A quorum vouches for another state than this node computed. It votes no more; its application is wrong.
    StateDiffers {
        /// At which height.
        height: Height,
        /// The quorum's.
        agreed: Digest,
        /// This node's.
        ours: Digest,
    },
    /// A quorum validated a block that this node's application calls invalid. It votes no more on top of it.
    VerdictDiffers {
        /// Which.
        block: BlockId,
    },
    /// The disk failed. This node signs nothing more until it is started again.
    DiskFailed,
    /// The log has blocks, and what this key signed is lost. It signs nothing in this epoch.
    RecordLost,
    /// Somebody shows a signature of this node's key that its record does not know of: the record is an older copy, or
    /// the key is used in two places. It signs nothing in this epoch.
    RecordOld {
        /// In which round.
        round: Round,
    },
    /// Evidence names this node's own key: it is used in two places. It signs nothing in this epoch.
    KeyUsedTwice,
}

/// What the machine did, to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds that this node timed out.
    pub timeouts: u64,
    /// Votes signed.
    pub votes: u64,
    /// Blocks committed.
    pub commits: u64,
    /// Refusals to sign, by reason.
    pub refusals: BTreeMap<Refusal, u64>,
    /// Blocks that were asked for.
    pub fetches: u64,
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The epoch.
    pub epoch: Epoch,
    /// The round.
    pub round: Round,
    /// The committed tip.
    pub height: Height,
    /// Whose turn it is.
    pub leader: Option<NodeId>,
    /// This node fetches what it missed, and does not vote.
    pub syncing: bool,
    /// This node may vote: it sits in this epoch, and knows what it signed.
    pub validator: bool,
    /// It does not sign anything new yet: it has not heard where the others are, or they have not come far enough (K).
    pub wary: bool,
    /// Its disk failed: it signs nothing until it is started again.
    pub failed: bool,
    /// Its application is wrong; it votes no more.
    pub quarantined: bool,
    /// Two certificates contradict each other; it stopped.
    pub halted: bool,
    /// Since when the round lasts.
    pub round_since: Time,
    /// Since when it has taken too long here.
    pub expired_since: Option<Time>,
    /// How long it may take, when nothing rests.
    pub round_timeout: Duration,
    /// The records that are on disk.
    pub durable: Seq,
}

/// How many of everything are kept; each is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Blocks above the tip.
    pub blocks: usize,
    /// Blocks without their parent.
    pub suspended: usize,
    /// Blocks asked for.
    pub wanted: usize,
    /// Votes and timeouts that are no certificate yet.
    pub collected: usize,
    /// Words noted to find liars.
    pub noted: usize,
    /// Messages that wait for the disk.
    pub held: usize,
    /// Proofs that wait for a block.
    pub evidence: usize,
}

/// What waits for the disk.
#[derive(Debug)]
pub(crate) enum Held {
    Vote(To, Checked<Vote>),
    Timeout(Checked<Timeout>, u32),
    Proposal(Checked<Proposal>),
    Blocks(NodeId, Vec<Checked<Proposal>>),
    Commit(Vec<Checked<Proposal>>, Checked<Qc>),
    Epoch(Box<EpochProof>, Arc<Committee>),
}

fn send(out: &mut Outbox<Output>, to: To, message: Message) {
    out.push(Output::Send { to, message: Arc::new(message) });
}

/// The round that this node is in.
#[derive(Debug)]
pub(crate) struct Turn {
    round: Round,
    since: Time,
    /// Since when it is no rest: its block is here, or somebody calls it too long.
    woken: Option<Time>,
    /// Since when it is timed out here, or would be if this node could sign.
    expired: Option<Time>,
    /// When the timeout is told again.
    retry_at: Time,
    tick: u32,
    /// The application was asked for a payload.
    asked: bool,
    /// The others were told that the round began, because its proposal may take long.
    told: bool,
}

impl Turn {
    /// A round that begins, in which nothing happened yet.
    const fn new(round: Round, since: Time) -> Self {
        Self { round, since, woken: None, expired: None, retry_at: since, tick: 0, asked: false, told: false }
    }
}

/// One node's part of the log.
#[derive(Debug)]
pub struct Core {
    config: Config,
    me: NodeId,
    committee: Arc<Committee>,
    safety: Safety,
    journal: Journal,
    held: VecDeque<Gated<Held>>,
    tree: Tree,
    high_qc: Checked<Qc>,
    high_tc: Option<Checked<Tc>>,
    turn: Turn,
    votes: Votes,
    timeouts: Timeouts,
    witness: Witness,
    suspended: Suspended,
    wanted: Wanted,
    /// Committed blocks for those who are a little behind, oldest first.
    kept: VecDeque<Checked<Proposal>>,
    /// The height that is to be reached before this node votes again, and when it is asked for again.
    syncing: Option<(Height, Time)>,
    waiting_since: Option<Time>,
    evidence: BTreeMap<EvidenceKey, Checked<Evidence>>,
    /// What the application computed, and what certificates say it is.
    executed: BTreeMap<Height, Digest>,
    agreed: BTreeMap<Height, Digest>,
    /// What certificates commit.
    proven: BTreeMap<Height, Checked<Qc>>,
    ending: Option<Checked<EpochProof>>,
    past_epochs: VecDeque<EpochProof>,
    quarantined: bool,
    halted: bool,
    started: bool,
    guard: Guard,
    alarms: Vec<Alarm>,
    counts: Counts,
}

impl Machine for Core {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        if self.halted {
            return;
        }
        match input {
            // The first record of a log is a safety record, so nothing comes before the start.
            Input::Received { .. } | Input::OtherEpoch { .. } | Input::Synced { .. } if !self.started => {}
            Input::Wake => self.on_wake(now, out),
            Input::Received { from, message } => self.on_message(now, from, message, out),
            Input::OtherEpoch { from, epoch } => self.on_other_epoch(from, epoch, out),
            Input::Judged { block, verdict } => self.on_judged(now, &block, verdict, out),
            Input::Built { round, payload, time, next } => {
                self.on_built(now, round, payload, time, next, out);
            }
            Input::Waiting(waits) => self.on_waiting(now, waits, out),
            Input::Persisted { upto } => self.journal.on_persisted(upto),
            Input::NotPersisted => {
                self.journal.on_failed();
                self.alarms.push(Alarm::DiskFailed);
            }
            Input::Executed { height, root } => self.on_executed(now, height, root, out),
            Input::Synced { blocks } => self.on_synced(now, blocks, out),
        }
        self.flush(now, out);
        // What was held may have committed something.
        if self.end_sync_if_near(now, out) {
            self.flush(now, out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        if self.halted {
            return None;
        }
        if !self.started {
            return Some(Time::ZERO);
        }
        let expires = if self.turn.expired.is_some() { self.turn.retry_at } else { self.expires_at() };
        let sync = self.syncing.map(|(_, at)| at);
        let others = [self.proposes_at(), self.wanted.deadline(), sync, self.greets_at()];
        others.into_iter().flatten().min().map_or(Some(expires), |at| Some(at.min(expires)))
    }
}

impl Core {
    /// Starts with what the disk has; the first [`Input::Wake`] sends again what may not have left.
    #[must_use]
    pub fn new(config: Config, key: SecretKey, recovered: Recovered) -> Self {
        start::begin(config, key, recovered)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            epoch: self.committee.epoch(),
            round: self.turn.round,
            height: self.tree.tip().info.height,
            leader: self.leader().and_then(|seat| self.committee.id(seat)),
            syncing: self.syncing.is_some(),
            validator: self.safety.seat().is_some(),
            wary: self.is_wary(),
            failed: self.journal.has_failed(),
            quarantined: self.quarantined,
            halted: self.halted,
            round_since: self.turn.since,
            expired_since: self.turn.expired,
            round_timeout: self.round_timeout(),
            durable: self.journal.durable(),
        }
    }

    /// Since when the round is over its time.
    #[must_use]
    pub const fn expired_since(&self) -> Option<Time> {
        self.turn.expired
    }

    /// What it did.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many of everything it keeps.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            blocks: self.tree.entries().count(),
            suspended: self.suspended.len(),
            wanted: self.wanted.len(),
            collected: self.votes.len() + self.timeouts.len(),
            noted: self.witness.len(),
            held: self.held.len(),
            evidence: self.evidence.len(),
        }
    }

    /// The epoch.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// The hash of everything that decides what happens next: two runs that were told the same agree on it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let tree: Vec<_> = self
            .tree
            .entries()
            .map(|entry| (entry.info.id, entry.verdict, entry.certified, entry.commits))
            .collect();
        let turn = (
            self.turn.round,
            self.turn.since.as_micros(),
            self.turn.woken.is_some(),
            self.turn.expired.is_some(),
            self.turn.tick,
        );
        let certificates = (self.high_qc.digest(), self.high_tc.as_ref().map(|tc| tc.digest()));
        let sizes = (self.votes.len(), self.timeouts.len(), self.witness.len(), self.held.len());
        let waits = (self.suspended.ids(), self.wanted.ids(), self.syncing.map(|(height, _)| height));
        let flags = (self.quarantined, self.halted, self.started, self.journal.durable());
        let record = self.safety.record();
        let deadline = self.deadline().map(Time::as_micros);
        let all = (turn, certificates, sizes, waits, flags, record, self.tree.root(), tree, deadline);
        Digest::from_bytes(hash("wattle order state v1", &all))
    }

    /// What must hold after every input. For tests and simulations.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        let record = self.safety.record();
        let entered = self.high_qc.data.round.max(self.high_tc.as_ref().map_or(Round(0), |tc| tc.round));
        assert!(self.turn.round.follows(entered), "R: the round is the one behind the highest certificate");
        assert!(record.high_qc.data.round == self.high_qc.data.round, "L: the record has the lock");
        assert!(record.last_round <= self.turn.round, "V2: nothing is signed for a round that has not come");
        assert!(record.highest_timeout_round <= record.last_round, "T: a timed out round takes no vote");
        let tip = self.tree.tip().info.height;
        assert!(self.tree.entries().all(|entry| entry.info.height > tip), "C: blocks are above the tip");
        assert!(!self.may_end_sync(), "who is near syncs no more");
        let kept = self.kept();
        let n = self.committee.validators().list().len();
        assert!(kept.suspended <= crate::limits::SUSPENDED_MAX && kept.wanted <= crate::limits::WANTED_MAX);
        assert!(kept.collected <= n * (crate::limits::VOTE_ROUNDS_MAX as usize + 4) + n, "B: {kept:?}");
        assert!(kept.evidence <= EVIDENCE_WAITING_MAX && kept.held <= 2 * HELD_MAX, "B: {kept:?}");
    }

    fn on_message(&mut self, now: Time, from: NodeId, message: Sound, out: &mut Outbox<Output>) {
        match message {
            Sound::Proposal(proposal) => self.on_proposal(now, from, &proposal, out),
            Sound::Vote(vote) => self.on_vote(now, vote, out),
            Sound::Timeout(timeout) => self.on_timeout(now, from, timeout, out),
            Sound::Certificates { qc, tc } => {
                self.on_qc(now, &qc, out);
                if let Some(tc) = tc {
                    self.on_tc(now, &tc, out);
                }
                self.on_greeted(now, from, out);
            }
            Sound::Started => self.on_started(now, from, out),
            Sound::Fetch { block, above } => self.on_fetch(from, &block, above),
            Sound::Blocks(blocks) => self.on_blocks(now, from, blocks, out),
            Sound::Evidence(evidence) => self.report(evidence, out),
            Sound::EpochEnded(proof) => self.on_epoch_ended(now, proof, out),
        }
    }

    fn on_wake(&mut self, now: Time, out: &mut Outbox<Output>) {
        if !self.started {
            self.start(now, out);
            return;
        }
        self.greet_again(now, out);
        self.expire_if_due(now, out);
        self.propose_if_due(now, out);
        self.ask_again(now, out);
        self.sync_again(now, out);
    }

    /// A new proof: told to all, and kept for a block.
    fn report(&mut self, evidence: Checked<Evidence>, out: &mut Outbox<Output>) {
        let key = evidence.key();
        if evidence.epoch() != self.committee.epoch() || self.evidence.contains_key(&key) {
            return;
        }
        if !crate::tree::admits(self.tree.told(), &key) || self.evidence.len() >= EVIDENCE_WAITING_MAX {
            return;
        }
        if self.safety.seat() == Some(key.1) {
            self.alarms.push(Alarm::KeyUsedTwice);
            if self.config.guards_key {
                self.safety.renounce(key.2, &mut self.journal);
                self.guard = Guard::default();
            }
        }
        self.evidence.insert(key, evidence.clone());
        send(out, To::All, Message::Evidence((*evidence).clone()));
        out.push(Output::Evidence(evidence));
    }

    fn note(&mut self, evidence: Option<Evidence>, out: &mut Outbox<Output>) {
        if let Some(evidence) = evidence {
            self.report(Checked::made_of_checked(evidence), out);
        }
    }

    /// Hands out records, and whatever they covered that is on disk now.
    fn flush(&mut self, now: Time, out: &mut Outbox<Output>) {
        while let Some(gated) = self.held.pop_front() {
            match self.journal.release(gated) {
                Ok(held) => self.released(now, held, out),
                Err(gated) => {
                    self.held.push_front(gated);
                    break;
                }
            }
        }
        for (seq, record) in self.journal.take() {
            out.push(Output::Persist { seq, record });
        }
        self.alarms.drain(..).for_each(|alarm| out.push(Output::Alarm(alarm)));
    }

    fn released(&mut self, now: Time, held: Held, out: &mut Outbox<Output>) {
        match held {
            Held::Vote(to, vote) if to == To::One(self.me) => self.on_vote(now, vote, out),
            Held::Vote(to, vote) => send(out, to, Message::Vote((*vote).clone())),
            Held::Timeout(timeout, tick) => {
                let message = Message::Timeout(Timeout { tick, ..(*timeout).clone() });
                send(out, To::All, message);
                self.on_timeout(now, self.me, timeout, out);
            }
            Held::Proposal(proposal) => {
                send(out, To::All, Message::Proposal((*proposal).clone()));
                out.push(Output::Validate { block: proposal });
            }
            Held::Blocks(to, blocks) => {
                let blocks = blocks.iter().map(|block| (**block).clone()).collect();
                send(out, To::One(to), Message::Blocks(blocks));
            }
            Held::Commit(blocks, proof) => out.push(Output::Commit { blocks, proof }),
            Held::Epoch(proof, committee) => out.push(Output::EpochEnded { proof, committee }),
        }
    }

    fn hold(&mut self, gated: Gated<Held>) {
        self.held.push_back(gated);
    }

    fn refused(&mut self, why: Refusal) {
        let count = self.counts.refusals.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    fn is_unsure(&self) -> bool {
        self.syncing.is_some() || self.quarantined || self.halted || self.is_wary()
    }

    fn others(&self, seats: impl IntoIterator<Item = Seat>) -> Vec<NodeId> {
        let ids: BTreeSet<NodeId> = seats
            .into_iter()
            .filter_map(|seat| self.committee.id(seat))
            .filter(|id| *id != self.me)
            .collect();
        ids.into_iter().collect()
    }
}
