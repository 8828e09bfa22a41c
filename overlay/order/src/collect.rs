//! Votes and timeouts of several validators, until they are a certificate; and who said two things.

use std::collections::BTreeMap;

use crate::block::{Header, Proposal};
use crate::certificate::{Claim, Qc, Tc, Timeout, Vote};
use crate::check::Checked;
use crate::committee::Committee;
use crate::evidence::Evidence;
use crate::ids::{BlockId, Round, Seat, Signature};
use crate::limits::{VOTE_ROUNDS_MAX, WITNESS_ROUNDS_MAX};

/// Votes that are no certificate yet: one of each validator and round, for a few rounds.
#[derive(Debug, Default)]
pub(crate) struct Votes(BTreeMap<Round, BTreeMap<Seat, Checked<Vote>>>);

impl Votes {
    /// Takes a vote. A certificate, if it completes one. `high` is the round of the highest certificate, `current` this
    /// node's round: a vote outside of what lies between them and a little more is dropped (attack 11).
    pub(crate) fn add(
        &mut self,
        committee: &Committee,
        high: Round,
        current: Round,
        vote: Checked<Vote>,
    ) -> Option<Checked<Qc>> {
        let round = vote.data.round;
        if round <= high || round.0 > current.0.saturating_add(VOTE_ROUNDS_MAX) {
            return None;
        }
        let votes = self.0.entry(round).or_default();
        let data = vote.data;
        votes.entry(vote.voter).or_insert(vote);
        let same: Vec<_> = votes.values().filter(|vote| vote.data == data).collect();
        Qc::assemble(committee, &same)
    }

    /// Forgets what can be no higher certificate.
    pub(crate) fn prune(&mut self, high: Round) {
        self.0.retain(|round, _| *round > high);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

/// Timeouts of the current round, one of each validator.
#[derive(Debug, Default)]
pub(crate) struct Timeouts(BTreeMap<Seat, Checked<Timeout>>);

impl Timeouts {
    /// Takes a timeout of the current round; the first of each validator stands.
    pub(crate) fn add(&mut self, timeout: Checked<Timeout>) {
        self.0.entry(timeout.author).or_insert(timeout);
    }

    pub(crate) fn authors(&self) -> impl Iterator<Item = Seat> + '_ {
        self.0.keys().copied()
    }

    pub(crate) fn certificate(&self, committee: &Committee) -> Option<Checked<Tc>> {
        Tc::assemble(committee, &self.0.values().collect::<Vec<_>>())
    }

    /// What one validator said.
    pub(crate) fn of(&self, seat: Seat) -> Option<&Checked<Timeout>> {
        self.0.get(&seat)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Who said what lately. Kept apart from what makes certificates, so that a liar cannot choose which word counts.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    proposals: BTreeMap<(Round, Seat), (BlockId, Header, Signature)>,
    votes: BTreeMap<(Round, Seat), Checked<Vote>>,
    claims: BTreeMap<(Round, Seat), Claim>,
}

impl Witness {
    /// Whether a word of this round is worth noting: not long past, and not far ahead, so that there is room for all.
    pub(crate) const fn covers(current: Round, round: Round) -> bool {
        round.0 <= current.0.saturating_add(VOTE_ROUNDS_MAX)
            && round.0 >= current.0.saturating_sub(WITNESS_ROUNDS_MAX)
    }

    /// E1. Headers are what proves it, so payloads are not kept.
    pub(crate) fn note_proposal(&mut self, proposal: &Checked<Proposal>) -> Option<Evidence> {
        let said = || (proposal.header().clone(), proposal.signature);
        let key = (proposal.header().round, proposal.header().author);
        let (id, header, signature) = self.proposals.entry(key).or_insert_with(|| {
            let (header, signature) = said();
            (proposal.id(), header, signature)
        });
        (*id != proposal.id())
            .then(|| Evidence::Proposals { one: (header.clone(), *signature), other: said() })
    }

    /// E2 and E3.
    pub(crate) fn note_vote(&mut self, vote: &Checked<Vote>) -> Option<Evidence> {
        let key = (vote.data.round, vote.voter);
        let known = self.votes.entry(key).or_insert_with(|| vote.clone());
        if known.data != vote.data {
            return Some(Evidence::Votes { one: (**known).clone(), other: (**vote).clone() });
        }
        let later = self.claims.range((vote.data.round, Seat(0))..);
        let forgot = |((_, seat), claim): &(&(Round, Seat), &Claim)| {
            *seat == vote.voter && claim.high_qc_round < vote.data.parent_round
        };
        let ((round, _), claim) = later.into_iter().find(forgot)?;
        Some(Evidence::Amnesia { vote: (**vote).clone(), round: *round, claim: *claim })
    }

    /// E3.
    pub(crate) fn note_timeout(&mut self, timeout: &Checked<Timeout>) -> Option<Evidence> {
        let (round, claim) = (timeout.data.round, timeout.claim());
        // A liar may say two things of one round; the lower is what convicts it.
        let known = self.claims.entry((round, timeout.author)).or_insert(claim);
        if claim.high_qc_round < known.high_qc_round {
            *known = claim;
        }
        let earlier = self.votes.range(..=(round, Seat(u16::MAX)));
        let forgot = |((_, seat), vote): &(&(Round, Seat), &Checked<Vote>)| {
            *seat == timeout.author && claim.high_qc_round < vote.data.parent_round
        };
        let (_, vote) = earlier.into_iter().find(forgot)?;
        Some(Evidence::Amnesia { vote: (**vote).clone(), round, claim })
    }

    /// The last vote of a validator that is noted.
    pub(crate) fn last_vote(&self, seat: Seat) -> Option<&Checked<Vote>> {
        self.votes.iter().rev().find(|((_, voter), _)| *voter == seat).map(|(_, vote)| vote)
    }

    /// Forgets what is long past.
    pub(crate) fn prune(&mut self, current: Round) {
        let first = (Round(current.0.saturating_sub(WITNESS_ROUNDS_MAX)), Seat(0));
        self.proposals = self.proposals.split_off(&first);
        self.votes = self.votes.split_off(&first);
        self.claims = self.claims.split_off(&first);
    }

    pub(crate) fn len(&self) -> usize {
        self.proposals.len() + self.votes.len() + self.claims.len()
    }
}
