//! What is ordered: blocks, each with the certificate for the one before it.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::{Domain, cbor};
use wattle_types::{NodeId, SecretKey, UnixTime};

use crate::certificate::{CommitInfo, Qc, Tc, VoteData};
use crate::committee::{Anchor, Committee, Validators};
use crate::evidence::Evidence;
use crate::ids::{BlockId, Digest, Epoch, Height, Round, Seat, Signature, hash};
use crate::limits::{BATCHES_MAX, EVIDENCE_PER_BLOCK_MAX, INLINE_BYTES_MAX, INLINE_COUNT_MAX};
use crate::merkle::{transaction_hash, tree_root};

/// What came of executing the log up to a height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Executed {
    /// The last block that was executed.
    pub height: Height,
    /// The digest of the state behind it.
    pub root: Digest,
}

/// What a block orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// The transactions themselves: one batch, in the block.
    Inline(Vec<ByteBuf>),
    /// Batches by their digest. Who votes has them on disk, so a certificate proves that they can be had.
    Batches(Vec<BatchRef>),
}

/// A batch in a block. What stands on the chain already, or is over its time, is left out of it: so one entry in two
/// authors' batches spoils neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchRef {
    /// The digest of the batch, as it is stored.
    pub batch: Digest,
    /// What is left of it; none if that is all.
    pub left: Option<Left>,
}

/// What a block orders of a batch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Left {
    /// The places of the batch that are left out, ascending.
    pub skip: Vec<u16>,
    /// The digest of the others.
    pub digest: Digest,
}

impl BatchRef {
    /// A whole batch.
    #[must_use]
    pub const fn whole(batch: Digest) -> Self {
        Self { batch, left: None }
    }

    /// The digest of what is ordered of it.
    #[must_use]
    pub fn ordered(&self) -> Digest {
        self.left.as_ref().map_or(self.batch, |left| left.digest)
    }

    /// Whether a place of the batch is left out.
    #[must_use]
    pub fn skips(&self, place: usize) -> bool {
        let place = u16::try_from(place);
        self.left
            .as_ref()
            .is_some_and(|left| place.is_ok_and(|place| left.skip.binary_search(&place).is_ok()))
    }

    /// What is ordered of a batch, given all of it.
    pub fn select<T>(&self, batch: impl IntoIterator<Item = T>) -> Vec<T> {
        let kept = batch.into_iter().enumerate().filter(|(place, _)| !self.skips(*place));
        kept.map(|(_, transaction)| transaction).collect()
    }

    /// Whether it has its one spelling.
    fn is_spelled_well(&self) -> bool {
        let Some(Left { skip, digest }) = &self.left else { return true };
        !skip.is_empty() && skip.is_sorted_by(|one, other| one < other) && *digest != self.batch
    }
}

/// The digest of a batch of transactions.
#[must_use]
pub fn batch_digest<'a>(transactions: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    tree_root(&transactions.into_iter().map(transaction_hash).collect::<Vec<_>>())
}

impl Payload {
    /// Nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Batches(Vec::new())
    }

    /// Whether it orders nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::Inline(transactions) => transactions.is_empty(),
            Self::Batches(batches) => batches.is_empty(),
        }
    }

    /// The digests of what it orders of its batches, in order.
    #[must_use]
    pub fn batches(&self) -> Vec<Digest> {
        match self {
            Self::Inline(transactions) => vec![batch_digest(transactions.iter().map(|tx| tx.as_slice()))],
            Self::Batches(batches) => batches.iter().map(BatchRef::ordered).collect(),
        }
    }

    /// Binds a block to where its entries are stored, if that does not follow from their root.
    #[must_use]
    pub fn stored(&self) -> Option<Digest> {
        match self {
            Self::Batches(batches) if batches.iter().any(|batch| batch.left.is_some()) => {
                Some(Digest::from_bytes(hash("wattle order stored v1", batches)))
            }
            _ => None,
        }
    }

    /// The root of the tree over its batches.
    #[must_use]
    pub fn root(&self) -> Digest {
        tree_root(&self.batches())
    }

    /// Whether it keeps the limits and has one spelling.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        match self {
            Self::Inline(transactions) => {
                let bytes: usize = transactions.iter().map(|transaction| transaction.len()).sum();
                let counted = (1..=INLINE_COUNT_MAX).contains(&transactions.len());
                counted && bytes <= INLINE_BYTES_MAX && transactions.iter().all(|tx| !tx.is_empty())
            }
            Self::Batches(batches) => {
                batches.len() <= BATCHES_MAX && batches.iter().all(BatchRef::is_spelled_well)
            }
        }
    }
}

/// What a block's id is the hash of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// In which epoch.
    pub epoch: Epoch,
    /// In whose turn.
    pub round: Round,
    /// One more than its parent's.
    pub height: Height,
    /// Who proposed it.
    pub author: Seat,
    /// The block before it.
    pub parent: BlockId,
    /// The digest of the certificate for the parent.
    pub qc: Digest,
    /// The digest of the certificate that the round before timed out.
    pub tc: Option<Digest>,
    /// The root of the tree over its batches.
    pub payload: Digest,
    /// What [`Payload::stored`] says.
    pub stored: Option<Digest>,
    /// The digest of the proofs of misbehaviour in it.
    pub evidence: Digest,
    /// The digest of the next epoch's validators, if this block ends its epoch.
    pub next: Option<Digest>,
    /// The execution that its voters vouch for.
    pub executed: Executed,
    /// When its author made it, never before its parent.
    pub time: UnixTime,
}

impl Header {
    /// What names the block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        BlockId::from_bytes(hash("wattle order block v1", self))
    }
}

/// One step of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What its id is the hash of.
    pub header: Header,
    /// The certificate for its parent: never optional (attack 7).
    pub qc: Qc,
    /// The certificate that the round before timed out, exactly if `qc` is not of that round.
    pub tc: Option<Tc>,
    /// What it orders.
    pub payload: Payload,
    /// Proofs of misbehaviour.
    pub evidence: Vec<Evidence>,
    /// The next epoch's validators, if this block ends its epoch.
    pub next: Option<Validators>,
}

pub(crate) fn evidence_digest(evidence: &[Evidence]) -> Digest {
    Digest::from_bytes(hash("wattle order evidence v1", &evidence))
}

impl Block {
    /// Whether the header says of the body what the body is, and all is within the limits. Rule V1 without
    /// signatures: TC present exactly if `qc.round` is not r - 1, and high enough (V4).
    #[must_use]
    pub(crate) fn is_consistent(&self) -> bool {
        let Self { header, qc, tc, payload, evidence, next } = self;
        let hashes = header.qc == qc.digest()
            && header.tc == tc.as_ref().map(Tc::digest)
            && header.payload == payload.root()
            && header.stored == payload.stored()
            && header.evidence == evidence_digest(evidence)
            && header.next == next.as_ref().map(Validators::digest);
        let limits = payload.is_within_limits() && evidence.len() <= EVIDENCE_PER_BLOCK_MAX;
        hashes && limits && header.parent == qc.data.block && self.extends_justly()
    }

    /// Rule V4: `B.qc.round = r - 1`, or `B.tc.round = r - 1` and `B.qc.round >= max tc.high_qc_round`.
    #[must_use]
    pub(crate) fn extends_justly(&self) -> bool {
        let round = self.header.round;
        match &self.tc {
            None => round.follows(self.qc.data.round),
            Some(tc) => {
                let fresh = self.qc.data.round >= tc.high_qc_round();
                round.follows(tc.round) && fresh && !round.follows(self.qc.data.round)
            }
        }
    }

    /// Whether it orders anything, or ends the epoch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty() && self.evidence.is_empty() && self.next.is_none()
    }
}

/// What votes and rules need to know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// What names it.
    pub id: BlockId,
    /// Its round.
    pub round: Round,
    /// Its height.
    pub height: Height,
    /// The execution it vouches for.
    pub executed: Executed,
    /// Its time.
    pub time: UnixTime,
}

impl BlockInfo {
    /// Of the block on which an epoch stands: its round there is 0.
    #[must_use]
    pub(crate) const fn of_anchor(anchor: &Anchor) -> Self {
        Self {
            id: anchor.block,
            round: Round(0),
            height: anchor.height,
            executed: anchor.executed,
            time: anchor.time,
        }
    }
}

/// A block with its leader's signature, as it travels and is stored. Two different ones of one round prove that
/// the leader lies (E1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The block.
    pub block: Block,
    /// Its author's signature over its id.
    pub signature: Signature,
    /// Computed when it is checked.
    #[serde(skip)]
    id: BlockId,
}

impl Proposal {
    /// Signs a block. Whether it may be signed is decided by [`crate::safety::Safety`] alone.
    pub(crate) fn sign(key: &SecretKey, committee: &Committee, block: Block) -> Self {
        let id = block.header.id();
        let signature = key.sign(Domain::OrderProposal, committee.network(), &signed_body(committee, &id));
        Self { block, signature: Signature::from_bytes(signature), id }
    }

    /// From its parts, nothing checked; it has no id before it is.
    #[must_use]
    pub fn unchecked(block: Block, signature: Signature) -> Self {
        Self { block, signature, id: BlockId::default() }
    }

    /// What names the block.
    #[must_use]
    pub const fn id(&self) -> BlockId {
        self.id
    }

    /// What stands in its header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.block.header
    }

    /// What votes and rules need to know of it.
    #[must_use]
    pub const fn info(&self) -> BlockInfo {
        let Header { round, height, executed, time, .. } = &self.block.header;
        BlockInfo { id: self.id, round: *round, height: *height, executed: *executed, time: *time }
    }

    pub(crate) fn set_id(&mut self) {
        self.id = self.block.header.id();
    }

    /// What a vote for it says. `parent` is what its certificate is for.
    #[must_use]
    pub(crate) fn vote_data(&self, parent: &BlockInfo) -> VoteData {
        let header = &self.block.header;
        // A certificate for this vote commits the parent if their rounds are consecutive (rule C), so the vote
        // says so and one certificate proves its own commit.
        let commit = CommitInfo { height: parent.height, block: parent.id, executed: parent.executed };
        let commits = header.round.follows(parent.round) && parent.round > Round(0);
        VoteData {
            epoch: header.epoch,
            round: header.round,
            block: self.id,
            parent: parent.id,
            parent_round: parent.round,
            commit: commits.then_some(commit),
        }
    }
}

/// What a leader signs.
pub(crate) fn signed_body(committee: &Committee, id: &BlockId) -> Vec<u8> {
    cbor::encode(&(committee.chain(), id))
}

/// Whether a leader's signature over a block's id holds.
pub(crate) fn verifies(committee: &Committee, author: &NodeId, id: &BlockId, signature: &Signature) -> bool {
    let body = signed_body(committee, id);
    author.verifies(Domain::OrderProposal, committee.network(), &body, signature.as_bytes())
}
