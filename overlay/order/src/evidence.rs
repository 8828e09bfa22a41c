//! Proofs that a validator broke the protocol: two signed words of it that no honest one says both. They prove
//! themselves, whoever brings them.

use serde::{Deserialize, Serialize};
use wattle_types::Domain;

use crate::block::{Header, verifies};
use crate::certificate::{Claim, TimeoutData, Vote};
use crate::check::Seen;
use crate::committee::Committee;
use crate::ids::{Epoch, Round, Seat, Signature};

/// A proof.
#[expect(clippy::large_enum_variant, reason = "there are few, and none unless somebody lies")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// E1: two blocks of one leader in one round.
    Proposals {
        /// One, with its author's signature.
        one: (Header, Signature),
        /// The other.
        other: (Header, Signature),
    },
    /// E2: two votes of one validator in one round.
    Votes {
        /// One.
        one: Vote,
        /// The other.
        other: Vote,
    },
    /// E3, amnesia: a vote whose block stands on a certificate of round q, and a timeout of that round or a later
    /// one whose author says it knows none as high as q.
    Amnesia {
        /// The vote.
        vote: Vote,
        /// The timeout's round.
        round: Round,
        /// What the timeout claims.
        claim: Claim,
    },
}

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Offence {
    /// E1.
    Proposals,
    /// E2.
    Votes,
    /// E3.
    Amnesia,
}

/// What was broken by whom and when: of each, one proof is enough.
pub type EvidenceKey = (Offence, Seat, Round);

impl Evidence {
    /// What it proves.
    #[must_use]
    pub const fn key(&self) -> EvidenceKey {
        match self {
            Self::Proposals { one: (header, _), .. } => (Offence::Proposals, header.author, header.round),
            Self::Votes { one, .. } => (Offence::Votes, one.voter, one.data.round),
            Self::Amnesia { claim, round, .. } => (Offence::Amnesia, claim.author, *round),
        }
    }

    /// In which epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Proposals { one: (header, _), .. } => header.epoch,
            Self::Votes { one, .. } => one.data.epoch,
            Self::Amnesia { vote, .. } => vote.data.epoch,
        }
    }

    /// Whether it proves what it says, in this epoch.
    #[must_use]
    pub(crate) fn holds(&self, committee: &Committee, seen: &mut Seen) -> bool {
        if self.epoch() != committee.epoch() {
            return false;
        }
        match self {
            Self::Proposals { one: (one, first), other: (other, second) } => {
                let Some(author) = committee.id(one.author) else { return false };
                one.epoch == other.epoch
                    && one.round == other.round
                    && one.author == other.author
                    && one != other
                    && verifies(committee, &author, &one.id(), first)
                    && verifies(committee, &author, &other.id(), second)
            }
            Self::Votes { one, other } => {
                one.voter == other.voter
                    && one.data.epoch == other.data.epoch
                    && one.data.round == other.data.round
                    && one.data != other.data
                    && seen.check_vote(committee, one)
                    && seen.check_vote(committee, other)
            }
            Self::Amnesia { vote, round, claim } => {
                let (epoch, high_qc_round) = (vote.data.epoch, claim.high_qc_round);
                let data = TimeoutData { epoch, round: *round, high_qc_round };
                vote.voter == claim.author
                    && *round >= vote.data.round
                    && high_qc_round < vote.data.parent_round
                    && seen.check_vote(committee, vote)
                    && seen.check_signature(
                        committee,
                        Domain::OrderTimeout,
                        claim.author,
                        &data.signed_body(committee.chain()),
                        &claim.signature,
                    )
            }
        }
    }
}
