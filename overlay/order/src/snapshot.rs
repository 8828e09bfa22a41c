//! Snapshots: what a log came to at a height, so that whoever has one needs nothing of what was before.
//!
//! ```text
//! a block vouches for:  tree(ordered, tree(apps, snapshot))      [state_root]
//!   ordered   a digest over all that is ordered up to the height that it vouches for
//!   apps      the digest of the apps' state there
//!   snapshot  the digest of the manifest of the last snapshot at or below that height; zeros before the first
//! genesis -> (proof of each epoch's end) -> a quorum -> (headers) -> that block -> manifest -> each piece of the state
//! ```
//!
//! Every node takes snapshots at the same heights ([`Pace`]), so one certificate that comes later proves the manifest
//! whole, and each piece can be had of anybody and is right or wrong by itself.

use serde::{Deserialize, Serialize};

use crate::block::{Header, Proposal};
use crate::certificate::Qc;
use crate::check::{Checked, Rejected, Seen};
use crate::committee::Committee;
use crate::epoch::EpochProof;
use crate::ids::{ChainId, Digest, Height, hash, hash_bytes};
use crate::limits::{
    EPOCH_LINKS_MAX, EPOCH_PROOFS_MAX, PIECE_BYTES_MAX, PIECES_MAX, SNAPSHOT_BLOCKS, SNAPSHOT_BLOCKS_MIN,
    SNAPSHOT_BYTES_MIN,
};
use crate::merkle::tree_root;
use crate::tree::{Root, Tree};

/// What votes vouch for at a height: all that is ordered up to it, and what the apps made of it.
#[must_use]
pub fn state_root(ordered: Digest, apps: Digest) -> Digest {
    tree_root(&[ordered, apps])
}

/// What the apps made of the log: their state, and the last snapshot of it.
#[must_use]
pub fn apps_root(state: Digest, snapshot: Digest) -> Digest {
    tree_root(&[state, snapshot])
}

/// The digest of everything that is ordered, with one block more. Blocks that order nothing leave it as it is.
#[must_use]
pub fn ordered_after(ordered: Digest, block: &Proposal) -> Digest {
    if block.block.payload.is_empty() { ordered } else { tree_root(&[ordered, block.header().payload]) }
}

/// What a log stands on behind a block: with it, and nothing from before, a node goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// What blocks on top of it inherit.
    pub root: Root,
    /// The digest of everything that is ordered up to there.
    pub ordered: Digest,
}

impl Base {
    /// What an epoch begins with; the first, where `ordered` is zeros.
    #[must_use]
    pub fn of_epoch(committee: &Committee, ordered: Digest) -> Self {
        Self { root: Root::of_epoch(committee), ordered }
    }

    /// At which height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.root.tip().height
    }

    /// The same behind the next block, which is committed: nothing of it is checked. None if it does not stand there.
    #[must_use]
    pub fn after(&self, committee: &Committee, block: &Proposal) -> Option<Self> {
        let mut next = block.clone();
        next.set_id();
        let next = Checked::made_of_checked(next);
        let mut tree = Tree::new(committee, self.root.clone());
        tree.attach(committee, &next, true).ok()?;
        tree.advance(&next.id());
        Some(Self { root: tree.root(), ordered: ordered_after(self.ordered, block) })
    }
}

/// When a snapshot is due. Counted alike by every node: in blocks and bytes of the log since the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// The height of the last snapshot; 0 before the first.
    pub last: Height,
    /// Bytes of the state in it.
    pub state: u64,
    /// Bytes of entries that were applied since.
    pub since: u64,
}

impl Pace {
    /// Whether one is due behind the block of this height: after as many bytes of entries as the state had, so that to
    /// take it costs no more than to order, or after so many blocks that to apply them again would take long; but not
    /// before a block could vouch for the last one.
    #[must_use]
    pub const fn is_due(&self, height: Height) -> bool {
        let bytes = if self.state > SNAPSHOT_BYTES_MIN { self.state } else { SNAPSHOT_BYTES_MIN };
        let blocks = height.0.saturating_sub(self.last.0);
        blocks >= SNAPSHOT_BLOCKS || (blocks >= SNAPSHOT_BLOCKS_MIN && self.since >= bytes)
    }
}

/// What a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the log stands on there.
    pub base: Base,
    /// The digest of the apps' state there, as the apps say it.
    pub apps: Digest,
    /// Bytes of the state.
    pub bytes: u64,
    /// The digests of its pieces: all but the last have [`PIECE_BYTES_MAX`] bytes.
    pub pieces: Vec<Digest>,
}

impl Manifest {
    /// Of a state behind a block.
    #[must_use]
    pub fn new(base: Base, apps: Digest, state: &[u8]) -> Self {
        let pieces = state.chunks(PIECE_BYTES_MAX).map(piece_digest).collect();
        Self { base, apps, bytes: state.len() as u64, pieces }
    }

    /// What names it, and all that it names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(hash("wattle order snapshot v1", self))
    }

    /// Whether there are as many pieces as its bytes make.
    fn is_whole(&self) -> bool {
        let pieces = self.bytes.div_ceil(PIECE_BYTES_MAX as u64);
        self.pieces.len() as u64 == pieces && self.pieces.len() <= PIECES_MAX
    }
}

/// What names a piece of a state.
#[must_use]
pub fn piece_digest(piece: &[u8]) -> Digest {
    Digest::from_bytes(hash_bytes("wattle order piece v1", piece))
}

/// The proof that a quorum vouches for a snapshot, to anybody who has the genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The log.
    pub chain: ChainId,
    /// The snapshot.
    pub manifest: Manifest,
    /// What was ordered, and the state of the apps, at the height that `header` vouches for.
    pub vouched: (Digest, Digest),
    /// From the genesis to the epoch of the block; none for the first.
    pub epochs: Vec<EpochProof>,
    /// A block that vouches for a height at or above the snapshot's, and below the next one's.
    pub header: Header,
    /// The blocks behind it, up to the one that `commit` names; none if that is the block itself.
    pub links: Vec<Header>,
    /// A quorum commits the block, or one behind it.
    pub commit: Qc,
}

impl Certified {
    /// Whether it holds for those who know how the log began: then its manifest is what every honest node has.
    ///
    /// # Errors
    /// [`Rejected`] with the first thing that does not hold.
    pub fn check(&self, genesis: &Committee, seen: &mut Seen) -> Result<(), Rejected> {
        let (ordered, state) = self.vouched;
        let root = state_root(ordered, apps_root(state, self.manifest.digest()));
        let too_long = self.epochs.len() > EPOCH_PROOFS_MAX || self.links.len() > EPOCH_LINKS_MAX;
        if self.chain != genesis.chain() || !self.manifest.is_whole() || too_long {
            return Err(Rejected::Inconsistent("snapshot"));
        }
        if self.header.executed.root != root || self.header.executed.height < self.manifest.base.height() {
            return Err(Rejected::Inconsistent("snapshot that the block vouches for"));
        }
        let mut last = self.header.id();
        for link in &self.links {
            if link.parent != last || link.epoch != self.header.epoch {
                return Err(Rejected::Inconsistent("link of the snapshot"));
            }
            last = link.id();
        }
        if self.commit.data.commit.is_none_or(|commit| commit.block != last) {
            return Err(Rejected::Inconsistent("commit of the snapshot"));
        }
        let mut committee = genesis.clone();
        for proof in &self.epochs {
            committee = proof.check(&committee, seen)?;
        }
        // One is taken where an epoch begins, so it and what vouches for it are of one epoch.
        let within = self.manifest.base.height() >= committee.anchor().height;
        if self.header.epoch != committee.epoch() || !within {
            return Err(Rejected::Inconsistent("epoch of the snapshot"));
        }
        seen.check_qc(&committee, &self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_after_as_many_bytes_as_the_state_has_or_after_many_blocks() {
        let pace = Pace { last: Height(10), state: 0, since: 0 };
        assert!(!pace.is_due(Height(10 + SNAPSHOT_BLOCKS - 1)) && pace.is_due(Height(10 + SNAPSHOT_BLOCKS)));
        let soon = Height(10 + SNAPSHOT_BLOCKS_MIN);
        assert!(!Pace { since: SNAPSHOT_BYTES_MIN - 1, ..pace }.is_due(soon));
        assert!(Pace { since: SNAPSHOT_BYTES_MIN, ..pace }.is_due(soon));
        assert!(!Pace { since: u64::MAX, ..pace }.is_due(Height(soon.0 - 1)), "the last one can be proven");
        let large = Pace { state: 3 * SNAPSHOT_BYTES_MIN, ..pace };
        assert!(!Pace { since: 3 * SNAPSHOT_BYTES_MIN - 1, ..large }.is_due(soon));
        assert!(Pace { since: 3 * SNAPSHOT_BYTES_MIN, ..large }.is_due(soon));
    }
}
