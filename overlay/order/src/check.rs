//! The edge: bytes of strangers become values whose every signature was checked, or are refused.
//!
//! Nothing else makes a [`Checked`], so the machine cannot see what was not checked (attack 7). The one rule is
//! that of [`NodeId::verifies`](wattle_types::NodeId::verifies), `verify_strict`: a batch could decide otherwise
//! about crafted keys, and then validators would disagree about a certificate.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wattle_types::Domain;

use crate::block::{Proposal, signed_body};
use crate::certificate::{Qc, Tc, Timeout, TimeoutData, Vote};
use crate::committee::Committee;
use crate::epoch::EpochProof;
use crate::evidence::Evidence;
use crate::ids::{BlockId, Epoch, Height, Round, Seat, Signature, hash, hash_bytes};
use crate::limits::{CHECKED_MAX, FETCH_BLOCKS_MAX};
use crate::message::Message;

/// A value whose every signature was checked, for this log and its epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked<T>(Arc<T>);

impl<T> Clone for Checked<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Checked<T> {
    /// For what this crate makes of checked parts, or signs itself.
    pub(crate) fn made_of_checked(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl Checked<Proposal> {
    /// The certificate in it.
    #[must_use]
    pub fn qc(&self) -> Checked<Qc> {
        Checked::made_of_checked(self.block.qc.clone())
    }

    /// The certificate in it that the round before timed out.
    #[must_use]
    pub fn tc(&self) -> Option<Checked<Tc>> {
        self.block.tc.clone().map(Checked::made_of_checked)
    }
}

impl Checked<Tc> {
    /// The certificate in it.
    #[must_use]
    pub fn high_qc(&self) -> Checked<Qc> {
        Checked::made_of_checked(self.high_qc.clone())
    }
}

impl Checked<Timeout> {
    /// The certificate in it.
    #[must_use]
    pub fn high_qc(&self) -> Checked<Qc> {
        Checked::made_of_checked(self.high_qc.clone())
    }

    /// Why its author is in that round.
    #[must_use]
    pub fn tc(&self) -> Option<Checked<Tc>> {
        self.tc.clone().map(Checked::made_of_checked)
    }

    /// The vote in it.
    #[must_use]
    pub fn vote(&self) -> Option<Checked<Vote>> {
        self.vote.clone().map(Checked::made_of_checked)
    }
}

/// A message whose every signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// A leader's block.
    Proposal(Checked<Proposal>),
    /// A vote.
    Vote(Checked<Vote>),
    /// A round took too long.
    Timeout(Checked<Timeout>),
    /// The certificates that lead into the sender's round.
    Certificates {
        /// The highest of a block.
        qc: Checked<Qc>,
        /// The highest of a timeout.
        tc: Option<Checked<Tc>>,
    },
    /// Send me this block.
    Fetch {
        /// Which.
        block: BlockId,
        /// And those before it above this height.
        above: Height,
    },
    /// Blocks that were asked for.
    Blocks(Vec<Checked<Proposal>>),
    /// Somebody broke the protocol.
    Evidence(Checked<Evidence>),
    /// The epoch is over.
    EpochEnded(Checked<EpochProof>),
    /// The sender has just started.
    Started,
}

/// Why a message is not taken. The sender's fault, but for [`Rejected::OtherEpoch`]; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is of an epoch that is over here, or has not begun: one of the two sides is behind.
    #[error("epoch {got}, and this is {current}")]
    OtherEpoch {
        /// In which who told it is, at the least.
        got: Epoch,
        /// Ours.
        current: Epoch,
    },
    /// A signature does not hold, or its author does not sit there.
    #[error("the signature of the {0} does not verify")]
    Signature(&'static str),
    /// Its parts do not fit together, or it is over a limit.
    #[error("the {0} is not what it says")]
    Inconsistent(&'static str),
}

/// What was checked lately: a certificate comes in many messages, and each vote again in a certificate. At the cap
/// the oldest are forgotten and checked again.
#[derive(Debug, Default)]
pub struct Seen {
    known: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Seen {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { known: BTreeSet::new(), order: VecDeque::new() }
    }

    fn remember(&mut self, key: [u8; 32]) {
        if !self.known.insert(key) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > CHECKED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn check_signature(
        &mut self,
        committee: &Committee,
        domain: Domain,
        seat: Seat,
        body: &[u8],
        signature: &Signature,
    ) -> bool {
        let Some(id) = committee.id(seat) else { return false };
        let parts = [domain.label().as_bytes(), &[0], id.public_key().as_slice(), signature.as_bytes(), body]
            .concat();
        let key = hash_bytes("wattle order seen signature", &parts);
        if self.known.contains(&key) {
            return true;
        }
        let holds = id.verifies(domain, committee.network(), body, signature.as_bytes());
        if holds {
            self.remember(key);
        }
        holds
    }

    pub(crate) fn check_vote(&mut self, committee: &Committee, vote: &Vote) -> bool {
        let body = vote.data.signed_body(committee.chain());
        self.check_signature(committee, Domain::OrderVote, vote.voter, &body, &vote.signature)
    }

    /// Whether a certificate is one of this epoch.
    ///
    /// # Errors
    /// [`Rejected`]: no quorum, or a signature that does not hold.
    pub fn check_qc(&mut self, committee: &Committee, qc: &Qc) -> Result<(), Rejected> {
        if qc.data.epoch != committee.epoch() {
            return Err(Rejected::OtherEpoch { got: qc.data.epoch, current: committee.epoch() });
        }
        if qc.data.round == Round(0) {
            let genesis = *qc == Qc::genesis(committee);
            return if genesis { Ok(()) } else { Err(Rejected::Inconsistent("certificate of round 0")) };
        }
        let key = hash("wattle order seen qc", &(committee.chain(), qc));
        if self.known.contains(&key) {
            return Ok(());
        }
        if !qc.is_whole(committee) || qc.data.parent_round >= qc.data.round {
            return Err(Rejected::Inconsistent("certificate"));
        }
        let body = qc.data.signed_body(committee.chain());
        for (seat, signature) in qc.signers.seats().zip(&qc.signatures) {
            if !self.check_signature(committee, Domain::OrderVote, seat, &body, signature) {
                return Err(Rejected::Signature("certificate"));
            }
        }
        self.remember(key);
        Ok(())
    }

    /// Whether a timeout certificate is one of this epoch.
    ///
    /// # Errors
    /// [`Rejected`]: no quorum, a signature that does not hold, or not the highest certificate of the claims.
    pub fn check_tc(&mut self, committee: &Committee, tc: &Tc) -> Result<(), Rejected> {
        if tc.epoch != committee.epoch() {
            return Err(Rejected::OtherEpoch { got: tc.epoch, current: committee.epoch() });
        }
        let key = hash("wattle order seen tc", &(committee.chain(), tc));
        if self.known.contains(&key) {
            return Ok(());
        }
        if !tc.is_whole(committee) {
            return Err(Rejected::Inconsistent("timeout certificate"));
        }
        for claim in &tc.claims {
            let high_qc_round = claim.high_qc_round;
            let data = TimeoutData { epoch: tc.epoch, round: tc.round, high_qc_round };
            let body = data.signed_body(committee.chain());
            if !self.check_signature(committee, Domain::OrderTimeout, claim.author, &body, &claim.signature) {
                return Err(Rejected::Signature("timeout certificate"));
            }
        }
        self.check_qc(committee, &tc.high_qc)?;
        self.remember(key);
        Ok(())
    }
}

/// What proves the last block of a chain that was fetched by height.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainEnd {
    /// A certificate for it.
    Certified(Box<Qc>),
    /// It is the last of its epoch.
    Epoch(Box<EpochProof>),
}

/// Checks what comes, for one epoch.
#[derive(Clone, Debug)]
pub struct Checker {
    committee: Arc<Committee>,
}

impl Checker {
    /// For an epoch.
    #[must_use]
    pub const fn new(committee: Arc<Committee>) -> Self {
        Self { committee }
    }

    /// The epoch.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// Checks a message, every signature in it.
    ///
    /// # Errors
    /// [`Rejected`]; with [`Rejected::OtherEpoch`] tell the machine, it knows how to help.
    pub fn check(&self, seen: &mut Seen, message: Message) -> Result<Sound, Rejected> {
        let committee = &*self.committee;
        match message {
            Message::Proposal(proposal) => self.check_proposal(seen, proposal).map(Sound::Proposal),
            Message::Vote(vote) => self.check_vote(seen, vote).map(Sound::Vote),
            Message::Timeout(timeout) => self.check_timeout(seen, timeout).map(Sound::Timeout),
            Message::Certificates { qc, tc } => {
                seen.check_qc(committee, &qc)?;
                tc.iter().try_for_each(|tc| seen.check_tc(committee, tc))?;
                let (qc, tc) = (Checked::made_of_checked(qc), tc.map(Checked::made_of_checked));
                Ok(Sound::Certificates { qc, tc })
            }
            Message::Fetch { block, above } => Ok(Sound::Fetch { block, above }),
            Message::Started => Ok(Sound::Started),
            Message::Blocks(blocks) if blocks.len() > FETCH_BLOCKS_MAX => {
                Err(Rejected::Inconsistent("answer"))
            }
            Message::Blocks(blocks) => {
                let checked = blocks.into_iter().map(|proposal| self.check_proposal(seen, proposal));
                checked.collect::<Result<_, _>>().map(Sound::Blocks)
            }
            Message::Evidence(evidence) => {
                self.same_epoch(evidence.epoch())?;
                let holds = evidence.holds(committee, seen);
                let checked = holds.then(|| Sound::Evidence(Checked::made_of_checked(evidence)));
                checked.ok_or(Rejected::Inconsistent("evidence"))
            }
            Message::EpochEnded(proof) => {
                // Who tells of an end is behind it: to answer it with the same would go on for ever.
                self.same_epoch(proof.epoch()).map_err(|_other| self.other_epoch(proof.epoch().next()))?;
                proof.check(committee, seen)?;
                Ok(Sound::EpochEnded(Checked::made_of_checked(proof)))
            }
        }
    }

    fn same_epoch(&self, got: Epoch) -> Result<(), Rejected> {
        if got == self.committee.epoch() { Ok(()) } else { Err(self.other_epoch(got)) }
    }

    fn other_epoch(&self, got: Epoch) -> Rejected {
        Rejected::OtherEpoch { got, current: self.committee.epoch() }
    }

    /// Rule V1: epoch, signatures, certificates, all of this epoch's validators.
    fn check_proposal(&self, seen: &mut Seen, mut proposal: Proposal) -> Result<Checked<Proposal>, Rejected> {
        let committee = &*self.committee;
        self.same_epoch(proposal.block.header.epoch)?;
        if !proposal.block.is_consistent() {
            return Err(Rejected::Inconsistent("block"));
        }
        proposal.set_id();
        self.check_author(seen, &proposal)?;
        seen.check_qc(committee, &proposal.block.qc)?;
        proposal.block.tc.iter().try_for_each(|tc| seen.check_tc(committee, tc))?;
        if !proposal.block.evidence.iter().all(|evidence| evidence.holds(committee, seen)) {
            return Err(Rejected::Inconsistent("evidence in the block"));
        }
        Ok(Checked::made_of_checked(proposal))
    }

    fn check_author(&self, seen: &mut Seen, proposal: &Proposal) -> Result<(), Rejected> {
        let author = proposal.header().author;
        let body = signed_body(&self.committee, &proposal.id());
        let holds =
            seen.check_signature(&self.committee, Domain::OrderProposal, author, &body, &proposal.signature);
        if holds { Ok(()) } else { Err(Rejected::Signature("proposal")) }
    }

    fn check_vote(&self, seen: &mut Seen, vote: Vote) -> Result<Checked<Vote>, Rejected> {
        self.same_epoch(vote.data.epoch)?;
        if vote.data.parent_round >= vote.data.round {
            return Err(Rejected::Inconsistent("vote"));
        }
        if !seen.check_vote(&self.committee, &vote) {
            return Err(Rejected::Signature("vote"));
        }
        Ok(Checked::made_of_checked(vote))
    }

    /// Rule T: a timeout shows the certificate it speaks of, and why its author is in that round. So nobody is drawn
    /// into a round that has not come (attack 11).
    fn check_timeout(&self, seen: &mut Seen, timeout: Timeout) -> Result<Checked<Timeout>, Rejected> {
        let committee = &*self.committee;
        let Timeout { data, author, signature, high_qc, tc, vote, .. } = &timeout;
        self.same_epoch(data.epoch)?;
        let entered = match tc {
            None => data.round.follows(high_qc.data.round),
            Some(tc) => data.round.follows(tc.round) && high_qc.data.round < data.round,
        };
        let own = |vote: &Vote| vote.voter == *author && vote.data.round == data.round;
        if !entered || high_qc.data.round != data.high_qc_round || !vote.iter().all(own) {
            return Err(Rejected::Inconsistent("timeout"));
        }
        let body = data.signed_body(committee.chain());
        if !seen.check_signature(committee, Domain::OrderTimeout, *author, &body, signature) {
            return Err(Rejected::Signature("timeout"));
        }
        seen.check_qc(committee, high_qc)?;
        tc.iter().try_for_each(|tc| seen.check_tc(committee, tc))?;
        vote.iter().try_for_each(|vote| self.check_vote(seen, vote.clone()).map(drop))?;
        Ok(Checked::made_of_checked(timeout))
    }

    /// Checks a chain that was fetched by height: each block is named by the certificate in the next, so of the
    /// certificates only the last has signatures to check. The leaders' signatures are no part of a block's id, and
    /// may one day be evidence, so they are checked.
    ///
    /// # Errors
    /// [`Rejected`] when a link is broken or nothing proves the end.
    pub fn check_chain(
        &self,
        seen: &mut Seen,
        blocks: Vec<Proposal>,
        end: &ChainEnd,
    ) -> Result<Vec<Checked<Proposal>>, Rejected> {
        let mut certified = match end {
            ChainEnd::Certified(qc) => seen.check_qc(&self.committee, qc).map(|()| qc.data.block)?,
            ChainEnd::Epoch(proof) => proof.check(&self.committee, seen).map(|_| proof.header.id())?,
        };
        let mut chain = Vec::new();
        for mut block in blocks.into_iter().rev() {
            self.same_epoch(block.block.header.epoch)?;
            block.set_id();
            if block.id() != certified || !block.block.is_consistent() {
                return Err(Rejected::Inconsistent("chain"));
            }
            self.check_author(seen, &block)?;
            certified = block.block.qc.data.block;
            chain.push(Checked::made_of_checked(block));
        }
        chain.reverse();
        Ok(chain)
    }
}
