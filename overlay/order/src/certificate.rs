//! Votes and timeouts, and the certificates that quorums of them make.

use serde::{Deserialize, Serialize};
use wattle_types::{Domain, SecretKey, cbor};

use crate::block::Executed;
use crate::check::Checked;
use crate::committee::Committee;
use crate::ids::{BlockId, ChainId, Digest, Epoch, Height, Round, Seat, Signature, hash};

/// What a certificate commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommitInfo {
    /// The height that is decided, and with it all below.
    pub height: Height,
    /// The block at it.
    pub block: BlockId,
    /// The execution that block vouches for.
    pub executed: Executed,
}

/// What a vote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VoteData {
    /// In which epoch. Part of the signed bytes: weights of different epochs never add up (attack 8).
    pub epoch: Epoch,
    /// In which round.
    pub round: Round,
    /// For which block.
    pub block: BlockId,
    /// The block before it.
    pub parent: BlockId,
    /// That one's round.
    pub parent_round: Round,
    /// What a quorum of these votes commits.
    pub commit: Option<CommitInfo>,
}

impl VoteData {
    /// What is signed, in the domain of votes.
    #[must_use]
    pub(crate) fn signed_body(&self, chain: ChainId) -> Vec<u8> {
        cbor::encode(&(chain, self))
    }
}

/// A validator's vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// What it says.
    pub data: VoteData,
    /// Whose it is.
    pub voter: Seat,
    /// Its signature.
    pub signature: Signature,
}

impl Vote {
    pub(crate) fn sign(key: &SecretKey, committee: &Committee, voter: Seat, data: VoteData) -> Self {
        let body = data.signed_body(committee.chain());
        let signature = Signature::from_bytes(key.sign(Domain::OrderVote, committee.network(), &body));
        Self { data, voter, signature }
    }
}

/// What a timeout says: the round took too long, and this is the highest certificate its author knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimeoutData {
    /// In which epoch.
    pub epoch: Epoch,
    /// Which round.
    pub round: Round,
    /// The round of its author's highest certificate: its lock, told truthfully (rule L).
    pub high_qc_round: Round,
}

impl TimeoutData {
    /// What is signed, in the domain of timeouts.
    #[must_use]
    pub(crate) fn signed_body(&self, chain: ChainId) -> Vec<u8> {
        cbor::encode(&(chain, self))
    }
}

/// A validator's word that a round took too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// What it says.
    pub data: TimeoutData,
    /// Whose it is.
    pub author: Seat,
    /// Its signature over `data`.
    pub signature: Signature,
    /// The certificate that `data` speaks of.
    pub high_qc: Qc,
    /// Why its author is in this round, if `high_qc` does not say so.
    pub tc: Option<Tc>,
    /// Its author's vote in this round: enough of them make a certificate though the collector died.
    pub vote: Option<Vote>,
    /// Which repetition this is. Not signed; so that nothing between takes it for one that was seen.
    pub tick: u32,
}

impl Timeout {
    pub(crate) fn sign(key: &SecretKey, committee: &Committee, data: &TimeoutData) -> Signature {
        let body = data.signed_body(committee.chain());
        Signature::from_bytes(key.sign(Domain::OrderTimeout, committee.network(), &body))
    }

    /// What of it makes part of a certificate.
    #[must_use]
    pub const fn claim(&self) -> Claim {
        Claim { author: self.author, high_qc_round: self.data.high_qc_round, signature: self.signature }
    }
}

/// Who signed, a bit for each seat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signers(#[serde(with = "hex_or_bytes")] Vec<u8>);

impl Signers {
    /// These, each once.
    #[must_use]
    pub fn of(seats: impl IntoIterator<Item = Seat>) -> Self {
        let mut bytes = Vec::new();
        for seat in seats {
            let byte = seat.index() / 8;
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0u8);
            }
            if let Some(byte) = bytes.get_mut(byte) {
                *byte |= 1 << (seat.0 % 8);
            }
        }
        Self(bytes)
    }

    /// The seats, ascending.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        // Not more than there can be: a long row of bytes names nobody else.
        let bits = (0..self.0.len().min(usize::from(u16::MAX) / 8) as u16 * 8).map(Seat);
        bits.filter(|seat| self.0.get(seat.index() / 8).is_some_and(|byte| byte >> (seat.0 % 8) & 1 == 1))
    }

    /// Whether this is the only spelling of these seats: no empty byte at the end.
    fn is_short(&self) -> bool {
        self.0.last() != Some(&0)
    }
}

/// Bytes of CBOR, and text for people.
mod hex_or_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&data_encoding::HEXLOWER.encode(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(serde_bytes::ByteBuf::into_vec)
        }
    }
}

/// A quorum's votes for one block (the paper's QC). It names the execution and the commit that it proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qc {
    /// What all of them signed.
    pub data: VoteData,
    /// Who signed.
    pub signers: Signers,
    /// Their signatures, by seat.
    pub signatures: Vec<Signature>,
}

impl Qc {
    /// The certificate for the block on which an epoch stands: round 0, and nobody signs it.
    #[must_use]
    pub fn genesis(committee: &Committee) -> Self {
        let block = committee.anchor().block;
        let round = Round(0);
        let data = VoteData {
            epoch: committee.epoch(),
            round,
            block,
            parent: block,
            parent_round: round,
            commit: None,
        };
        Self { data, signers: Signers::default(), signatures: Vec::new() }
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(hash("wattle order qc v1", self))
    }

    /// Whether a quorum of the epoch is named, each once, in the one spelling, with a signature each.
    #[must_use]
    pub(crate) fn is_whole(&self, committee: &Committee) -> bool {
        let named = self.signers.seats().count();
        let known = self.signers.seats().all(|seat| committee.id(seat).is_some());
        self.data.epoch == committee.epoch()
            && known
            && named == self.signatures.len()
            && self.signers.is_short()
            && committee.is_quorum(self.signers.seats())
    }

    /// Makes one of votes that say the same; none if they are no quorum.
    #[must_use]
    pub(crate) fn assemble(committee: &Committee, votes: &[&Checked<Vote>]) -> Option<Checked<Self>> {
        let data = votes.first()?.data;
        let same = |vote: &&&Checked<Vote>| vote.data == data;
        let by_seat: std::collections::BTreeMap<Seat, Signature> =
            votes.iter().filter(same).map(|vote| (vote.voter, vote.signature)).collect();
        let qc = Self {
            data,
            signers: Signers::of(by_seat.keys().copied()),
            signatures: by_seat.into_values().collect(),
        };
        qc.is_whole(committee).then(|| Checked::made_of_checked(qc))
    }
}

/// One validator's part of a certificate that a round timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Whose it is.
    pub author: Seat,
    /// The round of its highest certificate.
    pub high_qc_round: Round,
    /// Its signature over [`TimeoutData`].
    pub signature: Signature,
}

/// A quorum's word that a round took too long (the paper's TC), with the highest certificate that any of them has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tc {
    /// In which epoch.
    pub epoch: Epoch,
    /// Which round.
    pub round: Round,
    /// Who says so, by seat.
    pub claims: Vec<Claim>,
    /// A certificate of the highest round among the claims.
    pub high_qc: Qc,
}

impl Tc {
    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(hash("wattle order tc v1", self))
    }

    /// The highest round among the claims; never that of the certificate it came with.
    #[must_use]
    pub fn high_qc_round(&self) -> Round {
        self.claims.iter().map(|claim| claim.high_qc_round).max().unwrap_or_default()
    }

    /// Whether a quorum of the epoch is named, each once, and the certificate is the highest of the claims.
    #[must_use]
    pub(crate) fn is_whole(&self, committee: &Committee) -> bool {
        let ascending = self.claims.windows(2).all(|pair| pair[0].author < pair[1].author);
        let known = self.claims.iter().all(|claim| committee.id(claim.author).is_some());
        self.epoch == committee.epoch()
            && ascending
            && known
            && committee.is_quorum(self.claims.iter().map(|claim| claim.author))
            && self.high_qc.data.round == self.high_qc_round()
            && self.high_qc.data.round < self.round
    }

    /// Makes one of timeouts of the same epoch and round; none if they are no quorum.
    #[must_use]
    pub(crate) fn assemble(committee: &Committee, timeouts: &[&Checked<Timeout>]) -> Option<Checked<Self>> {
        let highest = timeouts.iter().max_by_key(|timeout| timeout.data.high_qc_round)?;
        let TimeoutData { epoch, round, .. } = highest.data;
        let same = |timeout: &&&Checked<Timeout>| timeout.data.epoch == epoch && timeout.data.round == round;
        let mut claims: Vec<Claim> = timeouts.iter().filter(same).map(|timeout| timeout.claim()).collect();
        claims.sort_by_key(|claim| claim.author);
        claims.dedup_by_key(|claim| claim.author);
        let tc = Self { epoch, round, claims, high_qc: highest.high_qc.clone() };
        tc.is_whole(committee).then(|| Checked::made_of_checked(tc))
    }
}
