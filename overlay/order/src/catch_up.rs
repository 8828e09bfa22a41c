//! Fetching committed blocks by height: from several at once, each answer proven by itself.
//!
//! [`crate::Output::Behind`] says what a node misses. [`CatchUp`] asks several nodes for ranges of it, and gives what
//! came, in order, to [`crate::Input::Synced`].
//!
//! # Rules
//!
//! * **F1, proof.** A range is taken only with a certificate for its last block, and hashes down to its first
//!   ([`crate::Checker::check_chain`]); it begins where it was asked to.
//! * **F2, liars.** Who sends a range that does not verify, or another than it was asked for, is asked no more in this
//!   epoch. Who is slow, or has nothing, is asked later again: that proves nothing.
//! * **F3, deadlines.** Each question has its own; after it the range is asked of another. So no node holds up the
//!   rest.
//! * **F4, shares.** No node has more than two questions at a time, and what is not asked of one is asked of another.
//! * **F5, bounds.** Ranges ahead of the first missing block are bounded, and so is what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_types::{Machine, NodeId, Outbox, Time, cbor};

use crate::block::Proposal;
use crate::certificate::Qc;
use crate::check::{ChainEnd, Checked, Rejected};
use crate::committee::Committee;
use crate::ids::{BlockId, Epoch, Height};
use crate::limits::{MESSAGE_BYTES_MAX, RANGE_BLOCKS_MAX, RANGES_MAX, VALIDATORS_MAX};

/// Questions that one node has at a time (F4).
const ASKED_MAX: usize = 2;

/// Send me these blocks: committed, of one epoch, above a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Of which epoch.
    pub epoch: Epoch,
    /// Above which height.
    pub above: Height,
    /// How many at the most.
    pub count: u16,
}

/// Blocks from the beginning of a range, as many as fit, with what proves the last of them; or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The blocks, ascending.
    pub blocks: Vec<Proposal>,
    /// What proves the last; none if there are no blocks.
    pub end: Option<ChainEnd>,
}

impl Answer {
    /// What a node answers that has these committed blocks above the height, ascending and without gaps; `ended` is the
    /// proof of the epoch's end, if it ended. Blocks of another epoch, what is not proven here, and what makes the
    /// answer too large are left out.
    #[must_use]
    pub fn of(range: &Range, blocks: &[Proposal], ended: Option<&crate::EpochProof>) -> Self {
        let own = blocks.iter().take_while(|block| block.header().epoch == range.epoch);
        let own: Vec<&Proposal> = own.collect();
        let last = ended.map(|proof| proof.header.id());
        // Two thirds of a message: the last certificate has room too.
        let (mut bytes, mut chosen, mut end) = (0, Vec::new(), None);
        for (place, block) in own.iter().take(usize::from(range.count).min(RANGE_BLOCKS_MAX)).enumerate() {
            bytes += cbor::encode(*block).len();
            let proof = own.get(place + 1).map(|next| ChainEnd::Certified(Box::new(next.block.qc.clone())));
            let ends = last == Some(block.header().id());
            let proof = proof
                .or_else(|| ended.filter(|_| ends).map(|proof| ChainEnd::Epoch(Box::new(proof.clone()))));
            if proof.is_none() || (bytes > MESSAGE_BYTES_MAX / 3 * 2 && !chosen.is_empty()) {
                break;
            }
            chosen.push((*block).clone());
            end = proof;
        }
        Self { blocks: chosen, end }
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// From what came.
    ///
    /// # Errors
    /// [`cbor::DecodeError`]: the sender's fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, cbor::DecodeError> {
        cbor::decode(bytes, MESSAGE_BYTES_MAX)
    }
}

/// What names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`crate::Output::Behind`].
    Behind {
        /// What is here.
        above: Height,
        /// What there is.
        target: Checked<Qc>,
    },
    /// A question was answered, and the answer checked by [`crate::Checker::check_chain`]; or the stream broke.
    Answered {
        /// Which question.
        id: AskId,
        /// What came of it.
        result: Result<Vec<Checked<Proposal>>, Unanswered>,
    },
    /// Up to here all is committed here.
    Committed(Height),
    /// Who keeps the log beside the validators of the epoch; so many as there may be validators are asked.
    Peers(Vec<NodeId>),
    /// [`crate::Output::EpochEnded`].
    EpochEnded(Arc<Committee>),
    /// The deadline has come.
    Wake,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Who was asked has nothing of it, or cannot be reached: nobody's fault.
    Nothing,
    /// The answer does not verify (F2).
    Lie(Rejected),
    /// The answer is no message, or too large (F2).
    Malformed,
}

/// What must happen now.
#[derive(Clone, Debug)]
pub enum Output {
    /// Ask a node for a range, and say [`Input::Answered`].
    Ask {
        /// Whom.
        peer: NodeId,
        /// To be named in the answer.
        id: AskId,
        /// For what.
        range: Range,
    },
    /// For the machine of the log: [`crate::Input::Synced`].
    Synced {
        /// The blocks, ascending.
        blocks: Vec<Checked<Proposal>>,
    },
    /// A node lied, and that is proven: it is to be let go (F2).
    Misbehaved {
        /// Which.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// How fast it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// How long a node has to answer (F3).
    pub answer_within: Duration,
    /// How long one that was slow or had nothing is not asked.
    pub rest: Duration,
}

#[derive(Debug)]
struct Piece {
    count: u16,
    blocks: Vec<Checked<Proposal>>,
    /// Who was asked for it in vain, lately.
    tried: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Asked {
    peer: NodeId,
    above: Height,
    until: Time,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What is here, or was given to the machine of the log.
    pub above: Height,
    /// What there is.
    pub target: Height,
    /// Questions that wait for an answer.
    pub asked: usize,
    /// Blocks that wait for those before them.
    pub waiting: usize,
    /// Who lied.
    pub liars: Vec<NodeId>,
}

/// Fetches committed blocks by height.
#[derive(Debug)]
pub struct CatchUp {
    config: Config,
    committee: Arc<Committee>,
    /// Everything up to here was given to the machine of the log, and the last block of it.
    given: (Height, Option<BlockId>),
    committed: Height,
    target: Height,
    /// By the height above which each begins.
    pieces: BTreeMap<Height, Piece>,
    asked: BTreeMap<AskId, Asked>,
    asks: u64,
    rests: BTreeMap<NodeId, Time>,
    liars: BTreeSet<NodeId>,
    peers: Vec<NodeId>,
    turns: usize,
}

impl CatchUp {
    /// With nothing to fetch.
    #[must_use]
    pub fn new(config: Config, committee: Arc<Committee>) -> Self {
        let given = (committee.anchor().height, None);
        Self {
            config,
            committee,
            given,
            committed: given.0,
            target: given.0,
            pieces: BTreeMap::new(),
            asked: BTreeMap::new(),
            asks: 0,
            rests: BTreeMap::new(),
            liars: BTreeSet::new(),
            peers: Vec::new(),
            turns: 0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            above: self.given.0,
            target: self.target,
            asked: self.asked.len(),
            waiting: self.pieces.values().map(|piece| piece.blocks.len()).sum(),
            liars: self.liars.iter().copied().collect(),
        }
    }

    fn on_behind(&mut self, above: Height, target: &Qc) {
        // What the certificate commits, and the two above it that lead there.
        let there =
            target.data.commit.map_or(above.next(), |commit| Height(commit.height.0.saturating_add(1)));
        self.target = self.target.max(there);
        if above < self.given.0 {
            // What was given did not help: it begins again.
            self.begin(above);
        }
        self.on_committed(above);
    }

    fn begin(&mut self, above: Height) {
        self.given = (above, None);
        self.pieces.clear();
        self.asked.clear();
    }

    fn on_committed(&mut self, height: Height) {
        self.committed = self.committed.max(height);
        if height > self.given.0 {
            self.given = (height, None);
            self.pieces.retain(|above, _| *above >= height);
            self.asked.retain(|_, asked| asked.above >= height);
        }
    }

    fn on_answer(
        &mut self,
        now: Time,
        id: AskId,
        result: Result<Vec<Checked<Proposal>>, Unanswered>,
        out: &mut Outbox<Output>,
    ) {
        let Some(Asked { peer, above, .. }) = self.asked.remove(&id) else { return };
        let count = self.pieces.get(&above).map_or(0, |piece| piece.count);
        let blocks = match result {
            Ok(blocks) if blocks.is_empty() => return self.rest(now, peer, above),
            Ok(blocks) if self.fits(above, count, &blocks) => blocks,
            Ok(_) => return self.lied(peer, "the blocks are not those that it was asked for", out),
            // It is ahead or behind by an epoch: no lie.
            Err(Unanswered::Nothing | Unanswered::Lie(Rejected::OtherEpoch { .. })) => {
                return self.rest(now, peer, above);
            }
            Err(Unanswered::Lie(_)) => return self.lied(peer, "a range that does not verify", out),
            Err(Unanswered::Malformed) => return self.lied(peer, "an answer that is no range", out),
        };
        self.rests.remove(&peer);
        let Some(mut piece) = self.pieces.remove(&above) else { return };
        let got = u16::try_from(blocks.len()).unwrap_or(u16::MAX);
        if got < piece.count {
            // As much as fitted; the rest is another piece.
            let rest = Piece { count: piece.count - got, blocks: Vec::new(), tried: BTreeSet::new() };
            self.pieces.insert(Height(above.0.saturating_add(u64::from(got))), rest);
        }
        (piece.count, piece.blocks) = (got, blocks);
        self.pieces.insert(above, piece);
    }

    /// F1: they begin where they should, and are not more than that.
    fn fits(&self, above: Height, count: u16, blocks: &[Checked<Proposal>]) -> bool {
        let heights = (above.0.saturating_add(1)..).zip(blocks);
        let right = heights.into_iter().all(|(height, block)| block.header().height == Height(height));
        right && blocks.len() <= usize::from(count)
    }

    fn rest(&mut self, now: Time, peer: NodeId, above: Height) {
        self.rests.insert(peer, now.after(self.config.rest));
        if let Some(piece) = self.pieces.get_mut(&above) {
            piece.tried.insert(peer);
        }
    }

    /// F2.
    fn lied(&mut self, peer: NodeId, why: &'static str, out: &mut Outbox<Output>) {
        self.liars.insert(peer);
        self.asked.retain(|_, asked| asked.peer != peer);
        out.push(Output::Misbehaved { peer, why });
    }

    /// F3: who is late is not waited for.
    fn give_up(&mut self, now: Time) {
        let late: Vec<AskId> =
            self.asked.iter().filter(|(_, asked)| asked.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(Asked { peer, above, .. }) = self.asked.remove(&id) {
                self.rest(now, peer, above);
            }
        }
        self.rests.retain(|_, until| *until > now);
    }

    /// What is whole from the beginning goes to the machine of the log.
    fn give(&mut self, out: &mut Outbox<Output>) {
        while let Some(piece) = self.pieces.get(&self.given.0).filter(|piece| !piece.blocks.is_empty()) {
            let first = piece.blocks.first().map(|block| block.header().parent);
            let Some(piece) = self
                .pieces
                .remove(&self.given.0)
                .filter(|_| self.given.1.is_none_or(|last| first == Some(last)))
            else {
                // Two certified chains: what is committed decides, and what was given is on its way there.
                return self.begin(self.committed);
            };
            let last = piece.blocks.last().map(|block| (block.header().height, block.id()));
            if let Some((height, id)) = last {
                self.given = (height, Some(id));
            }
            out.push(Output::Synced { blocks: piece.blocks });
        }
    }

    /// F5: pieces of what is missing, so far ahead and no farther.
    fn cut(&mut self) {
        let mut next = self.given.0;
        let end = self.given.0.0.saturating_add((RANGES_MAX * RANGE_BLOCKS_MAX) as u64);
        while next < self.target && next.0 < end {
            if let Some(piece) = self.pieces.get(&next) {
                next = Height(next.0.saturating_add(u64::from(piece.count)));
                continue;
            }
            let left = self.target.0.saturating_sub(next.0).min(RANGE_BLOCKS_MAX as u64);
            let before = self.pieces.range(next..).next().map(|(above, _)| above.0.saturating_sub(next.0));
            let count = u16::try_from(left.min(before.unwrap_or(left))).unwrap_or(1).max(1);
            self.pieces.insert(next, Piece { count, blocks: Vec::new(), tried: BTreeSet::new() });
        }
    }

    /// F4: each piece that is not here is asked of somebody.
    fn ask(&mut self, now: Time, out: &mut Outbox<Output>) {
        let asked: BTreeSet<Height> = self.asked.values().map(|asked| asked.above).collect();
        let missing =
            self.pieces.iter().filter(|(above, piece)| piece.blocks.is_empty() && !asked.contains(above));
        let missing: Vec<(Height, u16)> = missing.map(|(above, piece)| (*above, piece.count)).collect();
        for (above, count) in missing {
            let Some(peer) = self.choose(above) else { break };
            self.asks = self.asks.wrapping_add(1);
            let (id, until) = (AskId(self.asks), now.after(self.config.answer_within));
            self.asked.insert(id, Asked { peer, above, until });
            let range = Range { epoch: self.committee.epoch(), above, count };
            out.push(Output::Ask { peer, id, range });
        }
    }

    /// Who has the least to answer, and was not asked for this in vain; in turn.
    fn choose(&mut self, above: Height) -> Option<NodeId> {
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for asked in self.asked.values() {
            *load.entry(asked.peer).or_default() += 1;
        }
        let validators = self.committee.validators().list().iter().map(|validator| validator.id);
        let all: BTreeSet<NodeId> = validators.chain(self.peers.iter().copied()).collect();
        let all: Vec<NodeId> = all.into_iter().collect();
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % all.len().max(1);
        let turned = all[first..].iter().chain(&all[..first]).copied();
        let free = turned.filter(|id| {
            let busy = load.get(id).is_some_and(|asked| *asked >= ASKED_MAX);
            *id != self.config.me && !self.liars.contains(id) && !self.rests.contains_key(id) && !busy
        });
        let tried = self.pieces.get(&above).map(|piece| piece.tried.clone()).unwrap_or_default();
        free.min_by_key(|id| (tried.contains(id), load.get(id).copied().unwrap_or_default()))
    }

    /// What must hold after every input. For tests and simulations.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        let span: usize = self.pieces.values().map(|piece| usize::from(piece.count)).sum();
        assert!(span <= (RANGES_MAX + 1) * RANGE_BLOCKS_MAX, "F5: what is ahead is bounded");
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for asked in self.asked.values() {
            *load.entry(asked.peer).or_default() += 1;
            assert!(!self.liars.contains(&asked.peer), "F2: a liar is asked");
        }
        assert!(load.values().all(|asked| *asked <= ASKED_MAX), "F4: nobody has more than its share");
        let asked: BTreeSet<Height> = self.asked.values().map(|asked| asked.above).collect();
        assert_eq!(asked.len(), self.asked.len(), "F4: nothing is asked of two");
    }
}

impl Machine for CatchUp {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Behind { above, target } if target.data.epoch == self.committee.epoch() => {
                self.on_behind(above, &target);
            }
            Input::Behind { .. } | Input::Wake => {}
            Input::Answered { id, result } => self.on_answer(now, id, result, out),
            Input::Committed(height) => self.on_committed(height),
            Input::Peers(peers) => self.peers = peers.into_iter().take(VALIDATORS_MAX).collect(),
            Input::EpochEnded(committee) => {
                let height = committee.anchor().height;
                self.committee = committee;
                self.begin(height);
                (self.committed, self.target) = (height, height);
                self.liars.clear();
                self.rests.clear();
            }
        }
        self.give_up(now);
        self.give(out);
        self.cut();
        self.ask(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let asked = self.asked.values().map(|asked| asked.until).min();
        // Somebody may be asked again.
        let open = self.pieces.values().any(|piece| piece.blocks.is_empty());
        let rested = self.rests.values().min().copied().filter(|_| open);
        asked.into_iter().chain(rested).min()
    }
}
