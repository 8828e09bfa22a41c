//! Every state that four validators come to in some rounds while one of them lies, over the real rules.
//!
//! # The model
//!
//! Three validators are honest. The fourth is the network too: it signs whatever it likes, leads every round, and
//! decides what comes to whom and when, so nothing is sent here. An honest one votes for any block that certificates
//! justify which exist anywhere, or says that a round took too long, and is shown any certificate that exists anywhere.
//! A certificate exists once two of the honest signed for it: the liar is the third. What an honest one answers, the
//! real [`Safety`] alone decides.
//!
//! Each step begins with the record that the last one left in the journal, as after a crash: there is one between any
//! two signatures. A crash before the record is on disk is no step, for nothing left.
//!
//! What is left out changes nothing. Who says that a round took too long shows the lowest certificate that the rules
//! let it: with a higher one less would be possible behind it. States in which the honest changed places are one. Of
//! each kind of block there are two in a round: a third could not have two votes where another has. Votes of the last
//! round come last: so they are no steps, and what two of the honest would vote for is asked in each state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_bytes::ByteBuf;
use stateright::{Checker, Model, Property};
use wattle_types::{NetworkName, SecretKey, UnixTime};

use super::Safety;
use crate::block::{Block, BlockInfo, Header, Payload, Proposal, evidence_digest};
use crate::certificate::{Qc, Tc, Timeout, TimeoutData, Vote};
use crate::check::Checked;
use crate::committee::{Committee, Genesis, Rules, Validator, Validators};
use crate::ids::{Round, Seat};
use crate::journal::{Journal, Record, SafetyRecord};
use crate::tree::{Ready, Root, Tree, Verdict};

const HONEST: usize = 3;
/// Who signs whatever is asked of it.
const LIAR: usize = 3;

/// The number of a block; 0 is what the log stands on.
type BlockNo = u16;
/// The number of all that one validator signed; 0 is nothing.
type PastNo = u32;
/// What the honest have signed, in order of the numbers.
type State = [PastNo; HONEST];

/// What tells a block from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Shape {
    round: u64,
    parent: BlockNo,
    /// What the round before timed out with, if it did: the block of the highest certificate.
    tc: Option<BlockNo>,
    /// Which of the two.
    second: bool,
}

/// What an honest validator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Act {
    Vote(Shape),
    Timeout { round: u64, high: BlockNo },
}

struct Made {
    shape: Option<Shape>,
    info: BlockInfo,
    proposal: Option<Checked<Proposal>>,
    /// The certificate, should there ever be one.
    qc: Checked<Qc>,
}

#[derive(Clone, Default)]
struct Past {
    record: Option<SafetyRecord>,
    votes: BTreeSet<BlockNo>,
    timeouts: BTreeMap<u64, BlockNo>,
}

/// Blocks and steps of the rules, each made once.
struct Known {
    blocks: Vec<Made>,
    numbers: BTreeMap<Shape, BlockNo>,
    pasts: Vec<Past>,
    steps: BTreeMap<(PastNo, Act), Option<PastNo>>,
}

struct Rounds {
    /// The last round; in those before it a state changes.
    last: u64,
    committee: Committee,
    keys: Vec<SecretKey>,
    known: Mutex<Known>,
}

/// What there is for all to see in a state.
struct Seen {
    certified: BTreeSet<BlockNo>,
    /// Of each round that timed out, the lowest that the highest certificate in it can be.
    timed_out: BTreeMap<u64, BlockNo>,
    voted: BTreeSet<Shape>,
}

impl Rounds {
    fn new(last: u64) -> Self {
        let mut keys: Vec<SecretKey> = (1..=4).map(|seed| SecretKey::from_bytes(&[seed; 32])).collect();
        keys.sort_by_key(SecretKey::node_id);
        let list = keys.iter().map(|key| Validator { id: key.node_id(), weight: 1 }).collect();
        let rules = Rules { skip_blocks: 0, ..Rules::default() };
        let committee = Committee::genesis(&Genesis {
            network: NetworkName::default(),
            validators: Validators::new(list).unwrap(),
            rules,
            created: UnixTime::from_millis(1),
        });
        let anchor = Made {
            shape: None,
            info: BlockInfo::of_anchor(committee.anchor()),
            proposal: None,
            qc: Checked::made_of_checked(Qc::genesis(&committee)),
        };
        let known = Known {
            blocks: vec![anchor],
            numbers: BTreeMap::new(),
            pasts: vec![Past::default()],
            steps: BTreeMap::new(),
        };
        Self { last, committee, keys, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self, key: usize) -> Seat {
        self.committee.seat(&self.keys[key].node_id()).unwrap()
    }

    fn seen(&self, known: &Known, state: &State) -> Seen {
        let pasts: Vec<&Past> = state.iter().map(|past| &known.pasts[*past as usize]).collect();
        let all: BTreeSet<BlockNo> = pasts.iter().flat_map(|past| past.votes.iter().copied()).collect();
        let votes = |block: &BlockNo| pasts.iter().filter(|past| past.votes.contains(block)).count();
        let certified = all.iter().copied().filter(|block| votes(block) >= 2).chain([0]).collect();
        let mut timed_out = BTreeMap::new();
        for round in 1..self.last {
            let mut told: Vec<BlockNo> =
                pasts.iter().filter_map(|past| past.timeouts.get(&round).copied()).collect();
            told.sort_by_key(|block| known.blocks[usize::from(*block)].info.round);
            // The liar's is as low as can be, so the higher of the lowest two counts.
            timed_out.extend(told.get(1).map(|high| (round, *high)));
        }
        let voted = all.iter().filter_map(|block| known.blocks[usize::from(*block)].shape).collect();
        Seen { certified, timed_out, voted }
    }

    /// What the honest may be asked for in a round, whether or not they will.
    fn asked(&self, known: &Known, seen: &Seen, round: u64) -> Vec<Act> {
        let round_of = |block: BlockNo| known.blocks[usize::from(block)].info.round.0;
        let timed_out = seen.timed_out.get(&(round - 1)).copied();
        let before = || seen.certified.iter().copied().filter(move |block| round_of(*block) < round);
        if timed_out.is_none() && !before().any(|block| round_of(block) + 1 == round) {
            return Vec::new();
        }
        let mut acts = BTreeSet::new();
        for parent in before() {
            let tc = timed_out.filter(|_| round_of(parent) + 1 != round);
            let first = Shape { round, parent, tc, second: false };
            acts.insert(Act::Vote(first));
            if seen.voted.contains(&first) && round + 1 < self.last {
                acts.insert(Act::Vote(Shape { second: true, ..first }));
            }
        }
        // One that somebody has voted for, though now there are others that are justified by less.
        acts.extend(seen.voted.iter().filter(|shape| shape.round == round).map(|it| Act::Vote(*it)));
        if round < self.last {
            acts.extend(before().map(|high| Act::Timeout { round, high }));
        }
        acts.into_iter().collect()
    }

    /// What a validator has signed when it was asked for something; none if the rules refuse.
    fn step(&self, known: &mut Known, past: PastNo, act: Act) -> Option<PastNo> {
        if let Some(done) = known.steps.get(&(past, act)) {
            return *done;
        }
        let mut next = known.pasts[past as usize].clone();
        let mut safety = Safety::new(self.keys[0].clone(), &self.committee, next.record.take(), true);
        let mut journal = Journal::new();
        let signed = match act {
            Act::Vote(shape) => {
                let block = self.block(known, shape);
                next.votes.insert(block);
                safety.vote(&self.committee, &self.ready(known, block), &mut journal).is_ok()
            }
            Act::Timeout { round, high } => {
                next.timeouts.insert(round, high);
                let qc = known.blocks[usize::from(high)].qc.clone();
                safety.timeout(&self.committee, Round(round), &qc, None, &mut journal).is_ok()
            }
        };
        let done = signed.then(|| {
            next.record = journal.take().into_iter().find_map(|(_, record)| match record {
                Record::Safety(record) => Some(*record),
                _ => None,
            });
            known.pasts.push(next);
            PastNo::try_from(known.pasts.len() - 1).unwrap()
        });
        known.steps.insert((past, act), done);
        done
    }

    fn qc(&self, proposal: &Proposal, parent: &BlockInfo) -> Checked<Qc> {
        let data = proposal.vote_data(parent);
        let votes: Vec<_> = [0, 1, LIAR]
            .map(|key| Vote::sign(&self.keys[key], &self.committee, self.seat(key), data))
            .map(Checked::made_of_checked)
            .into();
        Qc::assemble(&self.committee, &votes.iter().collect::<Vec<_>>()).unwrap()
    }

    fn tc(&self, known: &Known, round: u64, high: BlockNo) -> Tc {
        let high_qc = (*known.blocks[usize::from(high)].qc).clone();
        let genesis = Qc::genesis(&self.committee);
        let said = [(0, high_qc), (1, genesis.clone()), (LIAR, genesis)].map(|(key, high_qc)| {
            let data = TimeoutData {
                epoch: self.committee.epoch(),
                round: Round(round),
                high_qc_round: high_qc.data.round,
            };
            let signature = Timeout::sign(&self.keys[key], &self.committee, &data);
            let author = self.seat(key);
            Checked::made_of_checked(Timeout {
                data,
                author,
                signature,
                high_qc,
                tc: None,
                vote: None,
                tick: 0,
            })
        });
        (*Tc::assemble(&self.committee, &said.iter().collect::<Vec<_>>()).unwrap()).clone()
    }

    fn block(&self, known: &mut Known, shape: Shape) -> BlockNo {
        if let Some(block) = known.numbers.get(&shape) {
            return *block;
        }
        let Made { info: parent, qc, .. } = &known.blocks[usize::from(shape.parent)];
        let (parent, qc) = (*parent, (**qc).clone());
        let tc = shape.tc.map(|high| self.tc(known, shape.round - 1, high));
        let tree = self.tree(known, shape.parent);
        let schedule = &tree.get(&parent.id).unwrap().schedule;
        let author = schedule.leader(&self.committee, Round(shape.round));
        let payload =
            if shape.second { Payload::Inline(vec![ByteBuf::from("other")]) } else { Payload::empty() };
        let header = Header {
            epoch: self.committee.epoch(),
            round: Round(shape.round),
            height: parent.height.next(),
            author,
            parent: parent.id,
            qc: qc.digest(),
            tc: tc.as_ref().map(Tc::digest),
            payload: payload.root(),
            stored: payload.stored(),
            evidence: evidence_digest(&[]),
            next: None,
            executed: parent.executed,
            time: parent.time,
        };
        let key = self.keys.iter().find(|key| self.committee.seat(&key.node_id()) == Some(author)).unwrap();
        let block = Block { header, qc, tc, payload, evidence: Vec::new(), next: None };
        let proposal = Checked::made_of_checked(Proposal::sign(key, &self.committee, block));
        let qc = self.qc(&proposal, &parent);
        let number = BlockNo::try_from(known.blocks.len()).unwrap();
        let made = Made { shape: Some(shape), info: proposal.info(), proposal: Some(proposal), qc };
        known.blocks.push(made);
        known.numbers.insert(shape, number);
        number
    }

    /// The block and all before it.
    fn chain(known: &Known, block: BlockNo) -> Vec<BlockNo> {
        let parent = |block: &BlockNo| known.blocks[usize::from(*block)].shape.map(|shape| shape.parent);
        let mut chain: Vec<BlockNo> = std::iter::successors(Some(block), parent).collect();
        chain.reverse();
        chain
    }

    fn tree(&self, known: &Known, block: BlockNo) -> Tree {
        let mut tree = Tree::new(&self.committee, Root::of_epoch(&self.committee));
        for block in Self::chain(known, block) {
            if let Some(proposal) = &known.blocks[usize::from(block)].proposal {
                tree.attach(&self.committee, proposal, true).unwrap();
                tree.set_verdict(&proposal.id(), Verdict::Valid);
            }
        }
        tree
    }

    fn ready(&self, known: &Known, block: BlockNo) -> Ready {
        self.tree(known, block).ready(&known.blocks[usize::from(block)].info.id).unwrap()
    }

    /// The blocks that certificates commit, or would in the last round; those before them not counted.
    fn committed(&self, state: &State) -> BTreeSet<BlockNo> {
        let mut known = self.known();
        let seen = self.seen(&known, state);
        let commits = |known: &Known, block: BlockNo| {
            let Made { shape, qc, .. } = &known.blocks[usize::from(block)];
            qc.data.commit.and(shape.map(|shape| shape.parent))
        };
        let mut committed: BTreeSet<BlockNo> =
            seen.certified.iter().filter_map(|block| commits(&known, *block)).collect();
        for act in self.asked(&known, &seen, self.last) {
            let would = state.iter().filter(|past| self.step(&mut known, **past, act).is_some()).count();
            if let Act::Vote(shape) = act
                && would >= 2
                && commits(&known, known.numbers[&shape]).is_some()
            {
                committed.insert(shape.parent);
            }
        }
        committed
    }

    /// Whether blocks are all on one chain.
    fn agree(&self, committed: &BTreeSet<BlockNo>) -> bool {
        let known = self.known();
        let chains: Vec<_> = committed.iter().map(|block| Self::chain(&known, *block)).collect();
        let longest = chains.iter().max_by_key(|chain| chain.len());
        longest.is_none_or(|longest| chains.iter().all(|chain| longest.starts_with(chain)))
    }
}

impl Model for Rounds {
    type State = State;
    type Action = (PastNo, Act);

    fn init_states(&self) -> Vec<State> {
        vec![[0; HONEST]]
    }

    fn actions(&self, state: &State, actions: &mut Vec<(PastNo, Act)>) {
        let known = self.known();
        let seen = self.seen(&known, state);
        let acts: Vec<Act> = (1..self.last).flat_map(|round| self.asked(&known, &seen, round)).collect();
        for who in state.iter().copied().collect::<BTreeSet<_>>() {
            let record = known.pasts[who as usize].record.as_ref();
            let lock = record.map_or(Round(0), |record| record.high_qc.data.round);
            let promises_more = |high: BlockNo| known.blocks[usize::from(high)].info.round > lock;
            let acts = acts.iter().copied();
            let acts = acts.filter(|act| !matches!(act, Act::Timeout { high, .. } if promises_more(*high)));
            actions.extend(acts.map(|act| (who, act)));
        }
    }

    fn next_state(&self, state: &State, (who, act): (PastNo, Act)) -> Option<State> {
        let next = self.step(&mut self.known(), who, act)?;
        let mut state = *state;
        *state.iter_mut().find(|past| **past == who)? = next;
        state.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |model: &Self, state: &State| model.agree(&model.committed(state))),
            // A model in which nothing is ever committed agrees too.
            Property::sometimes("a commit", |model: &Self, state: &State| !model.committed(state).is_empty()),
            Property::sometimes(
                "a lock that the round before did not make",
                |model: &Self, state: &State| {
                    let known = model.known();
                    let skips = |shape: &Shape| shape.tc.is_some() && shape.parent > 0;
                    state.iter().any(|past| {
                        let votes = known.pasts[*past as usize].votes.iter();
                        votes.filter_map(|block| known.blocks[usize::from(*block)].shape).any(|it| skips(&it))
                    })
                },
            ),
        ]
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how many states there are says that none is left out")]
fn honest_validators_agree_in_every_state_of_four_rounds() {
    let checked = Rounds::new(4).checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them different", checked.state_count(), checked.unique_state_count());
    assert!(checked.is_done(), "all of them were seen");
    checked.assert_properties();
}
