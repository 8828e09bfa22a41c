//! What must hold whatever happens, said without the machine's own predicates.
//!
//! S: no two honest places have different blocks at a height; heights ascend without gaps; no transaction twice; every
//! commit has a proof. And of every signature an honest place ever sent, in any life: it was on disk before, and
//! never contradicts another.

use std::collections::{BTreeMap, BTreeSet};

use wattle_order::{
    BlockId, Checked, Epoch, EvidenceKey, Message, Offence, Proposal, Qc, Round, Seat, Sound, VoteData,
};
use wattle_types::NodeId;

use crate::world::{Options, Place};

/// n to the least quorum, not computed.
const QUORUMS: [(usize, usize); 4] = [(4, 3), (5, 4), (7, 5), (10, 7)];

#[derive(Debug, Default)]
pub(crate) struct Judge {
    decided: BTreeMap<u64, BlockId>,
    transactions: BTreeMap<u64, u64>,
    votes: BTreeMap<(NodeId, Epoch, Round), VoteData>,
    proposals: BTreeMap<(NodeId, Epoch, Round), BlockId>,
    /// The last timeout: its round and what it claimed.
    timeouts: BTreeMap<(NodeId, Epoch), (Round, Round)>,
    heard_proposals: BTreeMap<(usize, Round, Seat), BlockId>,
    heard_votes: BTreeMap<(usize, Round, Seat), VoteData>,
    /// What a place must have found out.
    pub(crate) due: BTreeSet<(usize, EvidenceKey)>,
}

pub(crate) fn quorum(n: usize) -> usize {
    QUORUMS.iter().find(|(count, _)| *count == n).unwrap().1
}

impl Judge {
    pub(crate) fn check_commit(
        &mut self,
        options: &Options,
        index: usize,
        place: &Place,
        block: &Proposal,
        transactions: &[u64],
    ) {
        if !place.honest() {
            return;
        }
        let height = block.header().height.0;
        let seed = options.seed;
        assert_eq!(height, place.height() + 1, "S: a gap or a repetition at place {index}, seed {seed:#x}");
        let known = *self.decided.entry(height).or_insert(block.id());
        assert_eq!(
            known,
            block.id(),
            "S: a fork at height {height}, place {index}, seed {seed:#x}, {options:?}"
        );
        let distinct: BTreeSet<&u64> = transactions.iter().collect();
        assert_eq!(distinct.len(), transactions.len(), "S: a transaction twice in a block, seed {seed:#x}");
        for tx in transactions {
            let first = *self.transactions.entry(*tx).or_insert(height);
            assert_eq!(first, height, "S: transaction {tx} twice, seed {seed:#x}");
        }
    }

    pub(crate) fn check_proof(
        &self,
        options: &Options,
        place: &Place,
        blocks: &[Checked<Proposal>],
        proof: &Checked<Qc>,
    ) {
        let members = place.checker.committee().validators().list().len();
        let n = if proof.data.epoch == Epoch(1) { options.n } else { members };
        let distinct: BTreeSet<Seat> = proof.signers.seats().collect();
        assert!(
            distinct.len() >= quorum(n),
            "I5: {} of {n} is no quorum, seed {:#x}",
            distinct.len(),
            options.seed
        );
        assert_eq!(distinct.len(), proof.signatures.len());
        let last = blocks.last().unwrap();
        let commit = proof.data.commit.unwrap();
        let ends = last.block.next.is_some();
        assert!(ends || commit.block == last.id(), "the proof is of another block, seed {:#x}", options.seed);
    }

    pub(crate) fn check_sent(&mut self, place: &Place, message: &Message, options: &Options) {
        let seed = options.seed;
        // What another said may be told back to it.
        let own = |seat: Seat| place.checker.committee().id(seat) == Some(place.id);
        match message {
            Message::Vote(vote) if !own(vote.voter) => {}
            Message::Timeout(timeout) if !own(timeout.author) => {}
            Message::Vote(vote) => {
                let disk = place.disk.safety.get(&vote.data.epoch);
                let covered = disk.is_some_and(|disk| {
                    disk.last_round >= vote.data.round && disk.high_qc.data.round >= vote.data.parent_round
                });
                assert!(covered, "a vote left before its record was on disk, seed {seed:#x}");
                let lacks = place.carried.lacks(&vote.data.block);
                assert!(lacks.is_empty(), "M3: a vote for what is not on disk ({lacks:?}), seed {seed:#x}");
                self.check_vote(place.id, &vote.data, seed);
            }
            Message::Timeout(timeout) => {
                let (round, claim) = (timeout.data.round, timeout.data.high_qc_round);
                let disk = place.disk.safety.get(&timeout.data.epoch);
                let covered = disk.is_some_and(|disk| {
                    disk.last_round >= round
                        && disk.high_qc.data.round >= claim
                        && disk.highest_timeout_round >= round
                });
                assert!(covered, "a timeout left before its record was on disk, seed {seed:#x}");
                let last = self.timeouts.entry((place.id, timeout.data.epoch)).or_insert((round, claim));
                let grows = round >= last.0 && claim >= last.1;
                assert!(
                    grows,
                    "T: a timeout goes back from {last:?} to {:?}, seed {seed:#x}",
                    (round, claim)
                );
                *last = (round, claim);
                if let Some(vote) = &timeout.vote {
                    self.check_vote_data(place.id, &vote.data, seed);
                }
            }
            Message::Proposal(proposal) => {
                let header = proposal.header();
                let disk = place.disk.safety.get(&header.epoch);
                let covered = disk
                    .and_then(|disk| disk.last_proposal)
                    .is_some_and(|(round, id)| round > header.round || id == proposal.id());
                assert!(covered, "a proposal left before its record was on disk, seed {seed:#x}");
                let known = *self
                    .proposals
                    .entry((place.id, header.epoch, header.round))
                    .or_insert_with(|| proposal.id());
                assert_eq!(known, proposal.id(), "P: two proposals in a round, seed {seed:#x}");
            }
            _ => {}
        }
    }

    fn check_vote(&mut self, id: NodeId, data: &VoteData, seed: u64) {
        let first = !self.votes.contains_key(&(id, data.epoch, data.round));
        let timed_out = self.timeouts.get(&(id, data.epoch)).is_some_and(|(round, _)| *round >= data.round);
        assert!(!(first && timed_out), "V3: a vote in a round that was timed out, seed {seed:#x}");
        self.check_vote_data(id, data, seed);
    }

    fn check_vote_data(&mut self, id: NodeId, data: &VoteData, seed: u64) {
        let known = *self.votes.entry((id, data.epoch, data.round)).or_insert(*data);
        assert_eq!(known, *data, "V3: two votes in a round, seed {seed:#x}");
    }

    /// What a place hears; two words of one validator and round are due as evidence.
    pub(crate) fn note(&mut self, place: usize, message: &Sound) {
        match message {
            Sound::Proposal(proposal) => {
                let (round, author) = (proposal.header().round, proposal.header().author);
                let known =
                    *self.heard_proposals.entry((place, round, author)).or_insert_with(|| proposal.id());
                if known != proposal.id() {
                    self.due.insert((place, (Offence::Proposals, author, round)));
                }
            }
            Sound::Vote(vote) => self.note_vote(place, vote.voter, &vote.data),
            Sound::Timeout(timeout) => {
                if let Some(vote) = &timeout.vote {
                    self.note_vote(place, vote.voter, &vote.data);
                }
            }
            _ => {}
        }
    }

    fn note_vote(&mut self, place: usize, voter: Seat, data: &VoteData) {
        let known = *self.heard_votes.entry((place, data.round, voter)).or_insert(*data);
        if known != *data {
            self.due.insert((place, (Offence::Votes, voter, data.round)));
        }
    }
}
