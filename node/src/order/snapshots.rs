//! Snapshots on disk, and a log that begins with one.
//!
//! ```text
//! order  applied      -> the last snapshot that was saved: from there the apps go on after a start
//!        certified    -> the last one for which a quorum vouches: what others are told
//!        part, digest -> a piece of the state of either, or of one that is being fetched
//!        base         -> the block on which all that is kept stands; none where that is the beginning
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wattle_order::limits::{ENTRY_LIFE_MAX_MS, KEPT_BLOCKS_MAX};
use wattle_order::payloads::Below;
use wattle_order::{
    BlockInfo, Certified, Committee, Digest, Genesis, Header, Height, Manifest, Payload, Qc, SafetyRecord,
};
use wattle_store::CommitError;
use wattle_types::{KeyRange, Table, UnixTime, Write, cbor};

use super::disk::{self, Disk, DiskError, Told, put, read};
use super::epochs::{EPOCH, Epochs, epoch_row};
use super::index;

const APPLIED: &[u8] = b"applied";
const CERTIFIED: &[u8] = b"certified";
const PART: &[u8] = b"part";
const BASE: &[u8] = b"base";
/// Blocks that are removed at once.
const REMOVED_AT_ONCE: usize = 16;
/// Pieces that are looked at at once.
const PIECES_AT_ONCE: usize = 4;

/// What the apps came to behind a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Came {
    pub(super) height: Height,
    /// The digest of everything that is ordered up to there.
    pub(super) ordered: Digest,
    /// That of the apps' state.
    pub(super) state: Digest,
    /// The last snapshot at or below it.
    pub(super) snapshot: Digest,
}

/// The last snapshot that was saved, and what votes may still have to vouch for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) manifest: Manifest,
    pub(super) came: Vec<Came>,
}

fn part_key(piece: &Digest) -> Vec<u8> {
    [PART, piece.as_bytes()].concat()
}

fn certified_row(certified: &Certified) -> Write {
    put(Table::Order, CERTIFIED.to_vec(), cbor::encode(certified))
}

impl Disk {
    /// The block on which all that is kept stands, if the beginning is not.
    pub(super) fn base(&self) -> Result<Option<BlockInfo>, DiskError> {
        let row = self.store().get(Table::Order, BASE)?;
        row.map(|row| read("base", &row)).transpose()
    }

    /// Below which height nothing is kept but a snapshot.
    pub(super) fn base_height(&self) -> Result<Height, DiskError> {
        Ok(self.base()?.map_or(Height(0), |base| base.height))
    }

    /// What the machine begins on, where committed blocks are told of above a height.
    pub(super) fn below(&self, above: Height, committee: &Committee) -> Result<Below, DiskError> {
        match (self.block(above.next())?, self.base()?) {
            (_, Some(base)) if base.height == above => Ok(Below::snapshot(&base)),
            (Some(first), _) => Ok(Below::first(&first)),
            (None, _) => Ok(Below::epoch(committee)),
        }
    }

    /// The last snapshot that was saved, with the state of the apps in it.
    pub(super) fn applied(&self) -> Result<Option<(Applied, Vec<u8>)>, DiskError> {
        let damaged = || DiskError::Damaged { what: "state of the apps" };
        let Some(row) = self.store().get(Table::Order, APPLIED)? else { return Ok(None) };
        let applied: Applied = read("state of the apps", &row)?;
        let mut state = Vec::new();
        for piece in &applied.manifest.pieces {
            state.extend(self.piece(piece)?.ok_or_else(damaged)?);
        }
        Ok(Some((applied, state)))
    }

    /// A piece of a state, if it is here.
    pub(super) fn piece(&self, piece: &Digest) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.store().get(Table::Order, &part_key(piece))?)
    }

    /// Saves a piece of a state.
    pub(super) async fn save_piece(&self, piece: &Digest, bytes: Vec<u8>) -> Result<(), CommitError> {
        self.store().commit(vec![put(Table::Order, part_key(piece), bytes)]).await
    }

    /// The last snapshot for which a quorum vouches.
    pub(super) fn certified(&self) -> Result<Option<Certified>, DiskError> {
        let row = self.store().get(Table::Order, CERTIFIED)?;
        row.map(|row| read("snapshot", &row)).transpose()
    }

    /// Saves a snapshot: the pieces that are not here first, and what names them last.
    pub(super) async fn save_applied(
        &self,
        applied: &Applied,
        state: &[u8],
        known: &BTreeSet<Digest>,
    ) -> Result<(), CommitError> {
        let pieces = state.chunks(wattle_order::limits::PIECE_BYTES_MAX);
        for (digest, piece) in applied.manifest.pieces.iter().zip(pieces) {
            if !known.contains(digest) {
                self.save_piece(digest, piece.to_vec()).await?;
            }
        }
        self.store().commit(vec![put(Table::Order, APPLIED.to_vec(), cbor::encode(applied))]).await
    }

    /// Saves that a quorum vouches for the snapshot.
    pub(super) async fn save_certified(&self, certified: &Certified) -> Result<(), CommitError> {
        self.store().commit(vec![certified_row(certified)]).await
    }

    /// Removes pieces that are of no snapshot any more.
    pub(super) async fn forget_pieces(&self, pieces: Vec<Digest>) -> Result<(), CommitError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let remove = |piece: &Digest| Write::Remove { table: Table::Order, key: part_key(piece) };
        self.store().commit(pieces.iter().map(remove).collect()).await
    }

    /// The pieces that are here.
    pub(super) fn pieces(&self) -> Result<BTreeSet<Digest>, DiskError> {
        let (mut pieces, mut range) = (BTreeSet::new(), KeyRange::prefix(PART));
        loop {
            let rows = self.store().range(Table::Order, &range, PIECES_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { return Ok(pieces) };
            range = range.after(last);
            let digest = |key: &[u8]| key.strip_prefix(PART).and_then(|digest| digest.try_into().ok());
            pieces.extend(rows.iter().filter_map(|(key, _)| digest(key)).map(Digest::from_bytes));
        }
    }

    /// What links a committed block to the one that a certificate commits, and that certificate.
    pub(super) fn commit_of(&self, height: Height) -> Result<(Vec<Header>, Qc), DiskError> {
        let Some((last, commit)) = self.proof(height)? else {
            return Err(DiskError::Damaged { what: "certificate" });
        };
        let blocks = self.committed_between(Height(height.0.saturating_sub(1)), last)?;
        let mut links: Vec<Header> = blocks.iter().skip(1).map(|block| block.header().clone()).collect();
        // The last of an epoch may be committed by one behind it.
        let end = blocks.last().map(|last| self.epoch_end(last)).transpose()?.flatten();
        links.extend(end.into_iter().flat_map(|end| end.links));
        Ok((links, commit))
    }

    /// To begin on a snapshot whose pieces are here, whatever was here before. What this key signed stays.
    pub(super) fn begin_on(&self, genesis: &Genesis, certified: &Certified) -> Result<Vec<Write>, DiskError> {
        let Manifest { base, apps, .. } = &certified.manifest;
        let (tip, snapshot) = (*base.root.tip(), certified.manifest.digest());
        let all = |table| Write::RemoveRange { table, range: KeyRange::all() };
        let prefix = |prefix| Write::RemoveRange { table: Table::Order, range: KeyRange::prefix(prefix) };
        let came = Came { height: tip.height, ordered: base.ordered, state: *apps, snapshot };
        let applied = Applied { manifest: certified.manifest.clone(), came: vec![came] };
        let mut writes: Vec<Write> =
            [Table::OrderBlocks, Table::OrderProofs, Table::OrderBatches, Table::OrderEntries]
                .map(all)
                .into();
        writes.extend([disk::ROOT, disk::FREE, index::RUN, EPOCH].map(prefix));
        writes.extend(Self::begin(genesis));
        writes.extend(certified.epochs.iter().map(epoch_row));
        writes.extend([
            put(Table::Order, BASE.to_vec(), cbor::encode(&tip)),
            put(Table::Order, APPLIED.to_vec(), cbor::encode(&applied)),
            certified_row(certified),
            put(Table::Order, disk::root_key(tip.height), cbor::encode(&base.ordered)),
        ]);
        writes.extend(disk::stand_rows(&base.root, &certified.commit, Told::new(tip.height, base.ordered)));
        if !self.has_safety()? {
            let epochs = Epochs::genesis(genesis).and(certified.epochs.clone());
            let epochs = epochs.map_err(|_rejected| DiskError::Damaged { what: "epoch" })?;
            writes.push(disk::safety_row(&SafetyRecord::fresh(epochs.current())));
        }
        Ok(writes)
    }

    /// Up to which height blocks may go: what the last snapshot has and nobody needs to judge new ones.
    pub(super) fn may_compact(&self) -> Result<Height, DiskError> {
        let tip = self.height()?;
        let Some(certified) = self.certified()? else { return Ok(Height(0)) };
        let Some(last) = self.block(tip)? else { return Ok(Height(0)) };
        let time = last.header().time.as_millis();
        let over = UnixTime::from_millis(time.saturating_sub(ENTRY_LIFE_MAX_MS + 1));
        let most = certified.manifest.base.height().0.min(tip.0.saturating_sub(KEPT_BLOCKS_MAX as u64));
        // The times of blocks never go back.
        let (mut from, mut upto) = (self.base_height()?.0, most);
        while from < upto {
            let middle = from + (upto - from).div_ceil(2);
            let block = self.block(Height(middle))?.ok_or(DiskError::Damaged { what: "chain of blocks" })?;
            if block.header().time <= over { from = middle } else { upto = middle - 1 }
        }
        Ok(Height(from))
    }

    /// Removes the blocks up to a height and what they order; how many. The new base comes first, so whatever stops it
    /// leaves a log that begins there, and rows that the next time takes along.
    ///
    /// # Errors
    /// [`CompactError`].
    pub(super) async fn compact(&self, upto: Height) -> Result<u64, CompactError> {
        let before = self.base_height()?;
        if upto > before {
            let block = self.block(upto)?.ok_or(DiskError::Damaged { what: "chain of blocks" })?;
            let info = BlockInfo { id: block.header().id(), ..block.info() };
            self.store().commit(vec![put(Table::Order, BASE.to_vec(), cbor::encode(&info))]).await?;
        }
        let base = self.base_height()?;
        loop {
            let blocks = self.blocks_up_to(base, REMOVED_AT_ONCE)?;
            let Some(last) = blocks.last().map(|block| block.header().height) else { break };
            let mut writes = Vec::new();
            for block in &blocks {
                if let Payload::Batches(parts) = &block.block.payload {
                    let key = |batch: &Digest| batch.as_bytes().to_vec();
                    writes.extend(
                        parts
                            .iter()
                            .map(|part| Write::Remove { table: Table::OrderBatches, key: key(&part.batch) }),
                    );
                }
            }
            for table in [Table::OrderBlocks, Table::OrderProofs] {
                writes.push(Write::RemoveRange { table, range: disk::up_to(last) });
            }
            self.store().commit(writes).await?;
        }
        index::compact(self.store(), base).await?;
        Ok(base.0.saturating_sub(before.0))
    }
}

/// Why blocks are still there. What was removed is removed, and the next time goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// The disk's.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk did not take it.
    #[error(transparent)]
    NotSaved(#[from] CommitError),
}
