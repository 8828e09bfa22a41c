//! Validators that lie, with a key of their own and the machine's help where it is honest.

use std::sync::Arc;

use serde_bytes::ByteBuf;
use wattle_order::{
    Block, Checker, Message, Payload, Proposal, Qc, Round, Seat, Signature, Sound, Timeout, TimeoutData, To,
    Vote, VoteData,
};
use wattle_types::{Domain, NodeId, SecretKey, cbor};

use crate::world::World;

/// How a place lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Liar {
    /// It leads nothing, votes nothing: it is there and silent.
    Silent,
    /// As leader of these rounds it tells half of the others another block.
    Equivocates { rounds: std::ops::Range<u64> },
    /// As leader it stands on the certificate before the last, if a timeout certificate lets it try.
    Stale,
    /// It votes for whatever it hears of, and tells everybody.
    VotesForAll,
    /// It says in timeouts that it knows of no certificate.
    Forgets,
    /// It collects votes, and keeps the certificate to itself: no proposal of its own.
    Withholds,
}

impl Liar {
    /// What it sends instead of what it should.
    pub(crate) fn instead(
        &self,
        world: &World,
        place: usize,
        to: To,
        message: &Arc<Message>,
    ) -> Vec<(To, Message)> {
        let honest = vec![(to, (**message).clone())];
        let signer = Signer::of(world, place);
        match (self, &**message) {
            (Self::Silent, _) => Vec::new(),
            (Self::Withholds, Message::Proposal(_) | Message::Certificates { .. }) => Vec::new(),
            (Self::Equivocates { rounds }, Message::Proposal(proposal))
                if rounds.contains(&proposal.header().round.0) =>
            {
                let other = signer.other(proposal);
                let others: Vec<NodeId> = signer.others(world);
                let half = others.len().div_ceil(2);
                let part = |index| if index < half { proposal.clone() } else { other.clone() };
                let said = others.iter().enumerate();
                said.map(|(index, id)| (To::One(*id), Message::Proposal(part(index)))).collect()
            }
            (Self::Stale, Message::Proposal(proposal)) => {
                let stale = signer.stale(world, place, proposal);
                stale.map_or(honest, |stale| vec![(To::All, Message::Proposal(stale))])
            }
            _ => honest,
        }
    }

    /// What it says besides, on hearing something.
    pub(crate) fn answer(&self, world: &World, place: usize, message: &Sound) -> Vec<(To, Message)> {
        let signer = Signer::of(world, place);
        match (self, message) {
            (Self::VotesForAll, Sound::Proposal(proposal)) => {
                let parent = proposal.block.qc.data;
                let header = proposal.header();
                let data = VoteData {
                    epoch: header.epoch,
                    round: header.round,
                    block: proposal.id(),
                    parent: header.parent,
                    parent_round: parent.round,
                    commit: None,
                };
                vec![(To::All, Message::Vote(signer.vote(data)))]
            }
            (Self::Forgets, Sound::Certificates { tc: Some(tc), .. }) => {
                // The certificate leads into the next round; it only hides what it had before.
                let (epoch, round) = (tc.epoch, tc.round.next());
                let data = TimeoutData { epoch, round, high_qc_round: Round(0) };
                let lie = Timeout {
                    data,
                    author: signer.seat,
                    signature: signer.sign(Domain::OrderTimeout, &data),
                    high_qc: Qc::genesis(signer.checker.committee()),
                    tc: Some((**tc).clone()),
                    vote: None,
                    tick: 0,
                };
                vec![(To::All, Message::Timeout(lie))]
            }
            _ => Vec::new(),
        }
    }
}

/// A key that signs anything.
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a SecretKey,
    pub(crate) checker: &'a Checker,
    pub(crate) seat: Seat,
}

impl<'a> Signer<'a> {
    pub(crate) fn of(world: &'a World, place: usize) -> Self {
        let here = &world.places[place];
        let seat = here.checker.committee().seat(&here.id).unwrap_or_default();
        Self { key: &here.key, checker: &here.checker, seat }
    }

    pub(crate) fn sign<T: serde::Serialize>(&self, domain: Domain, what: &T) -> Signature {
        let committee = self.checker.committee();
        let body = cbor::encode(&(committee.chain(), what));
        Signature::from_bytes(self.key.sign(domain, committee.network(), &body))
    }

    pub(crate) fn vote(&self, data: VoteData) -> Vote {
        Vote { data, voter: self.seat, signature: self.sign(Domain::OrderVote, &data) }
    }

    /// A block with a header that fits its body, signed.
    pub(crate) fn propose(&self, mut block: Block) -> Proposal {
        block.header.payload = block.payload.root();
        block.header.stored = block.payload.stored();
        block.header.qc = block.qc.digest();
        block.header.tc = block.tc.as_ref().map(wattle_order::Tc::digest);
        block.header.parent = block.qc.data.block;
        let signature = self.sign(Domain::OrderProposal, &block.header.id());
        Proposal::unchecked(block, signature)
    }

    fn others(&self, world: &World) -> Vec<NodeId> {
        let all = world.committee.validators().list().iter().map(|validator| validator.id);
        all.filter(|id| *id != self.key.node_id()).collect()
    }

    /// Another block for the same round.
    pub(crate) fn other(&self, proposal: &Proposal) -> Proposal {
        let mut block = proposal.block.clone();
        block.payload = Payload::Inline(vec![ByteBuf::from(b"another".to_vec())]);
        self.propose(block)
    }

    /// A block for the same round on the certificate before.
    fn stale(&self, world: &World, place: usize, proposal: &Proposal) -> Option<Proposal> {
        let before = world.judge_block_of(place, &proposal.header().parent)?;
        let mut block = proposal.block.clone();
        block.qc = before.block.qc.clone();
        block.header.height = before.header().height;
        block.header.executed = before.header().executed;
        block.payload = Payload::empty();
        Some(self.propose(block))
    }
}
