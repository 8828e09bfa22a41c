//! The log on disk: records of the machine as rows, and rows as what is asked for.
//!
//! ```text
//! order          genesis -> what the log began with        safety -> what this key signed last, with its checksum
//!                tip     -> the committed height, and what the tree stands on from there
//!                told    -> up to where everything that is ordered is here and indexed
//!                root, height  -> the digest of everything ordered up to there, for the last few heights
//!                free, digest  -> nothing: a batch that no block has ordered
//!                base, applied, certified, part: see `snapshots`; epoch: see `epochs`
//! order_blocks   height, id -> block       up to the tip there is one for each height
//! order_proofs   height     -> the certificate that commits the block there and all before it
//! order_batches  digest     -> entries that blocks order by that digest
//! ```
//!
//! The rows of one record are one batch, so a crash finds all of it or nothing. What the machine says leaves only
//! after the batch is on disk.
//!
//! Where an entry stands is in `index`.
//!
//! An entry's place in a block is a number: that of its batch times [`BATCH_PLACES`], and its place in what the block
//! orders of the batch. Entries that are in the block itself are one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_order::limits::{
    BATCH_COUNT_MAX, ENTRY_LIFE_MAX_MS, KEPT_BLOCKS_MAX, MESSAGE_BYTES_MAX, RANGE_BLOCKS_MAX,
};
use wattle_order::payloads::{Batch, Ordered};
use wattle_order::{
    BlockId, ChainEnd, Committee, Digest, Epoch, Genesis, Height, Payload, Position, Proposal, Qc, Record,
    Root, SafetyRecord, Tree, catch_up, transaction_hash,
};
use wattle_store::{Failure, Store};
use wattle_types::{KeyRange, NodeId, Table, UnixTime, Write, cbor};
use wattle_weave::order::{ANSWER_BLOCKS_MAX, ANSWER_BYTES_MAX};

use super::epochs::{Epochs, epoch_row};
use super::index::{self, Index};
use super::proofs::Proven;

const GENESIS: &[u8] = b"genesis";
const SAFETY: &[u8] = b"safety";
const TIP: &[u8] = b"tip";
const TOLD: &[u8] = b"told";
pub(super) const ROOT: &[u8] = b"root";
pub(super) const FREE: &[u8] = b"free";
/// Places of a block for each of its batches.
pub(super) const BATCH_PLACES: u32 = 8 * 1024;
const _: () = assert!(BATCH_PLACES as usize >= BATCH_COUNT_MAX, "places overlap");
/// Heights whose root is kept: a block vouches for one that lies a few back.
pub(super) const ROOTS_KEPT: u64 = 64;
/// Blocks that are read at once for an answer, which may be full before the last of them.
const READ_AT_ONCE: usize = 8;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which block.
    pub height: Height,
    /// At which place of it, from 0.
    pub index: u32,
}

impl Place {
    /// Of an entry of a batch of that block.
    #[must_use]
    pub fn new(height: Height, batch: u64, index: u64) -> Self {
        let index = batch.saturating_mul(u64::from(BATCH_PLACES)).saturating_add(index);
        Self { height, index: u32::try_from(index).unwrap_or(u32::MAX) }
    }
}

impl From<Position> for Place {
    fn from(at: Position) -> Self {
        Self::new(at.height, at.batch, at.index)
    }
}

/// Why what is on disk is no log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The disk's.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A row cannot be read.
    #[error(
        "the {what} of the ordered log on disk is damaged: restore the data directory, or begin with an empty one"
    )]
    Damaged {
        /// Which.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct TipRow {
    height: Height,
    /// None where an epoch stands on it.
    root: Option<Root>,
}

/// Up to where all that is ordered is here, and its digest.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) height: Height,
    pub(super) root: Digest,
}

impl Told {
    pub(super) const fn new(height: Height, root: Digest) -> Self {
        Self { height, root }
    }
}

/// What the disk has when the node starts.
pub(super) struct Found {
    /// As the machine reads them.
    pub(super) records: Vec<Record>,
    /// Blocks above the committed height.
    pub(super) pending: BTreeMap<BlockId, Height>,
    /// What this key signed last is there and cannot be read.
    pub(super) safety_damaged: bool,
    /// Up to where everything is indexed.
    pub(super) told: Told,
    pub(super) index: Index,
    /// The digests up to there, for the last heights.
    pub(super) roots: Vec<(Height, Digest)>,
    /// Committed blocks above this height are to be told of again, or for the first time.
    pub(super) again_above: Height,
    /// Batches that no block has ordered.
    pub(super) free: Vec<Batch>,
}

/// Committed blocks as they are told to others.
pub(super) struct Stretch {
    pub(super) blocks: Vec<Proposal>,
    pub(super) end: Option<Box<ChainEnd>>,
    pub(super) height: Height,
}

/// The rows of the log.
#[derive(Clone)]
pub(super) struct Disk {
    store: Arc<Store>,
}

fn height_key(height: Height) -> Vec<u8> {
    height.0.to_be_bytes().to_vec()
}

fn block_key(height: Height, id: &BlockId) -> Vec<u8> {
    [height.0.to_be_bytes().as_slice(), id.as_bytes()].concat()
}

/// The key of the digest of everything ordered up to a height.
pub(super) fn root_key(height: Height) -> Vec<u8> {
    [ROOT, height.0.to_be_bytes().as_slice()].concat()
}

/// The keys of everything up to a height and with it.
pub(super) fn up_to(height: Height) -> KeyRange {
    KeyRange::between(&[], &height_key(height.next()))
}

/// The keys of the blocks above a height, up to another and with it.
fn between(above: Height, upto: Height) -> KeyRange {
    KeyRange::between(&height_key(above.next()), &height_key(upto.next()))
}

pub(super) fn read<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DiskError> {
    // A block is a message, and nothing here is larger.
    cbor::decode(bytes, 2 * MESSAGE_BYTES_MAX).map_err(|_damaged| DiskError::Damaged { what })
}

pub(super) fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Write {
    Write::Put { table, key, value }
}

/// With its checksum before it: of this row alone a wrong one may lead to a second signature.
fn sealed(record: &SafetyRecord) -> Vec<u8> {
    let bytes = cbor::encode(record);
    [transaction_hash(&bytes).as_bytes().as_slice(), &bytes].concat()
}

fn unsealed(row: &[u8]) -> Result<SafetyRecord, DiskError> {
    let damaged = DiskError::Damaged { what: "safety record" };
    let (sum, bytes) = row.split_at_checked(32).ok_or(damaged.clone())?;
    if transaction_hash(bytes).as_bytes() != sum {
        return Err(damaged);
    }
    read("safety record", bytes)
}

impl Disk {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::clone(store) }
    }

    pub(super) const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What the log began with, if there is one here.
    pub(super) fn genesis(&self) -> Result<Option<Genesis>, DiskError> {
        let row = self.store.get(Table::Order, GENESIS)?;
        row.map(|row| read("genesis", &row)).transpose()
    }

    /// To begin with it.
    pub(super) fn begin(genesis: &Genesis) -> Vec<Write> {
        vec![put(Table::Order, GENESIS.to_vec(), cbor::encode(genesis))]
    }

    fn tip(&self) -> Result<Option<TipRow>, DiskError> {
        let row = self.store.get(Table::Order, TIP)?;
        row.map(|row| read("committed height", &row)).transpose()
    }

    /// The committed height.
    pub(super) fn height(&self) -> Result<Height, DiskError> {
        Ok(self.tip()?.map_or(Height(0), |tip| tip.height))
    }

    /// Everything that the machine goes on with in the epoch that is under way. Reads the disk: for the start.
    pub(super) fn load(&self, committee: &Committee) -> Result<Found, DiskError> {
        let (mut records, anchor) = (Vec::new(), committee.anchor());
        let tip = self.tip()?;
        let height = tip.as_ref().map_or(Height(0), |tip| tip.height);
        if height < anchor.height {
            return Err(DiskError::Damaged { what: "chain of blocks" });
        }
        if let Some(TipRow { height, root: Some(root) }) = tip.filter(|tip| tip.height > anchor.height) {
            let base = self.base()?;
            let lowest = base.map_or(Height(0), |base| base.height).max(anchor.height);
            let kept = Height(height.0.saturating_sub(KEPT_BLOCKS_MAX as u64)).max(lowest);
            let blocks = self.blocks(between(kept, height), usize::MAX)?;
            let last = blocks.last().map_or(lowest, |last| last.header().height);
            let stands = base.map(|base| (base.height, base.id)).into_iter();
            let on_base = stands.chain([(anchor.height, anchor.block)]).all(|(height, id)| {
                kept > height || blocks.first().is_none_or(|first| first.header().parent == id)
            });
            let linked = blocks.windows(2).all(|pair| pair[1].header().parent == pair[0].header().id());
            let whole = last == height && on_base && linked;
            let proof = self.proof(height)?.filter(|(at, _)| *at == height);
            let (true, Some((_, proof))) = (whole, proof) else {
                return Err(DiskError::Damaged { what: "chain of blocks" });
            };
            let ids = blocks.iter().map(|block| block.header().id()).collect();
            records.extend(blocks.into_iter().map(|block| Record::Block(Box::new(block))));
            let (proof, root) = (Box::new(proof), Box::new(root));
            records.push(Record::Commit { blocks: ids, height, proof, root });
        }
        let mut above = self.blocks(KeyRange::between(&height_key(height.next()), &[0xff; 9]), usize::MAX)?;
        // Those beyond the end of an epoch are of no use in the next.
        above.retain(|block| block.header().epoch == committee.epoch());
        let pending = above.iter().map(|block| (block.header().id(), block.header().height)).collect();
        records.extend(above.into_iter().map(|block| Record::Block(Box::new(block))));
        let safety = self.store.get(Table::Order, SAFETY)?.map(|row| unsealed(&row));
        // With every end of an epoch there is one.
        let lost = safety.is_none() && committee.epoch() > Epoch(1);
        let safety_damaged = lost || matches!(safety, Some(Err(_)));
        let safety = safety.and_then(Result::ok).map(|safety| match safety.epoch.cmp(&committee.epoch()) {
            std::cmp::Ordering::Equal => Ok(safety),
            // It came into this epoch by a snapshot, and signed nothing in it.
            std::cmp::Ordering::Less => Ok(SafetyRecord::fresh(committee)),
            std::cmp::Ordering::Greater => Err(DiskError::Damaged { what: "epoch" }),
        });
        records.extend(safety.transpose()?.map(|safety| Record::Safety(Box::new(safety))));
        let told = self.told()?;
        let again_above = self.window(height, told.height)?;
        let (roots, free) = (self.roots()?, self.free()?);
        let index = Index::load(&self.store)?;
        Ok(Found { records, pending, safety_damaged, told, index, roots, again_above, free })
    }

    /// Up to where all that is ordered is here and indexed.
    pub(super) fn told(&self) -> Result<Told, DiskError> {
        let row = self.store.get(Table::Order, TOLD)?;
        Ok(row.map(|row| read("index of entries", &row)).transpose()?.unwrap_or_default())
    }

    /// Above which height committed blocks are told of again: their entries could come again, or are not indexed.
    fn window(&self, tip: Height, told: Height) -> Result<Height, DiskError> {
        let Some(last) = self.block(tip)? else { return Ok(tip) };
        let time = last.header().time.as_millis();
        let least = UnixTime::from_millis(time.saturating_sub(ENTRY_LIFE_MAX_MS));
        let (lowest, mut upto) = (self.base_height()?, tip);
        while upto > lowest {
            let above = Height(upto.0.saturating_sub(KEPT_BLOCKS_MAX as u64)).max(lowest);
            let blocks = self.blocks(between(above, upto), usize::MAX)?;
            let over = |block: &&Proposal| block.header().time < least && block.header().height <= told;
            if let Some(block) = blocks.iter().rev().find(over) {
                return Ok(block.header().height);
            }
            upto = above;
        }
        Ok(upto)
    }

    /// Some committed blocks above a height, with the certificate for the last of them.
    pub(super) fn proven(&self, above: Height) -> Result<(Vec<Proposal>, Option<ChainEnd>), DiskError> {
        // Read once: more may be committed meanwhile.
        let tip = self.height()?;
        let mut blocks =
            if above < tip { self.blocks(between(above, tip), KEPT_BLOCKS_MAX)? } else { Vec::new() };
        if let Some(end) = self.cut(&mut blocks)? {
            return Ok((blocks, Some(end)));
        }
        let reaches_tip = blocks.last().is_none_or(|last| last.header().height >= tip);
        if !reaches_tip && let Some(next) = blocks.pop() {
            return Ok((blocks, Some(ChainEnd::Certified(Box::new(next.block.qc)))));
        }
        let damaged = DiskError::Damaged { what: "chain of blocks" };
        let Some((_, proof)) = self.proof(tip)?.filter(|_| !blocks.is_empty()) else {
            return Ok((Vec::new(), None));
        };
        // The certificate in the block that commits the tip is the one for the tip.
        let row = self.store.get(Table::OrderBlocks, &block_key(tip.next(), &proof.data.block))?;
        let next: Proposal = read("block", &row.ok_or(damaged)?)?;
        Ok((blocks, Some(ChainEnd::Certified(Box::new(next.block.qc)))))
    }

    fn roots(&self) -> Result<Vec<(Height, Digest)>, DiskError> {
        let damaged = DiskError::Damaged { what: "digests of what is ordered" };
        let rows = self.store.range(Table::Order, &KeyRange::prefix(ROOT), usize::MAX)?;
        let root = |(key, row): &(Vec<u8>, Vec<u8>)| -> Result<(Height, Digest), DiskError> {
            let height = key.strip_prefix(ROOT).and_then(|height| height.try_into().ok());
            let height = height.map(u64::from_be_bytes).ok_or(damaged.clone())?;
            Ok((Height(height), read("digests of what is ordered", row)?))
        };
        rows.iter().map(root).collect()
    }

    /// Batches that no block has ordered.
    fn free(&self) -> Result<Vec<Batch>, DiskError> {
        let rows = self.store.range(Table::Order, &KeyRange::prefix(FREE), usize::MAX)?;
        let mut free = Vec::new();
        for (key, _) in rows {
            let row = key.strip_prefix(FREE).map(|digest| self.store.get(Table::OrderBatches, digest));
            if let Some(row) = row.transpose()?.flatten() {
                free.push(Batch::decode(&row).map_err(|_damaged| DiskError::Damaged { what: "batch" })?);
            }
        }
        Ok(free)
    }

    /// A batch, if it is here.
    pub(super) fn batch(&self, digest: &Digest) -> Result<Option<Batch>, DiskError> {
        let row = self.store.get(Table::OrderBatches, digest.as_bytes())?;
        let damaged = |_damaged| DiskError::Damaged { what: "batch" };
        row.map(|row| Batch::decode(&row).map_err(damaged)).transpose()
    }

    /// What a block orders, each entry with its place.
    pub(super) fn entries(&self, block: &Proposal) -> Result<Vec<(Place, ByteBuf)>, DiskError> {
        let height = block.header().height;
        let mut all = Vec::new();
        for (batch, entries) in (0..).zip(self.batches(block)?) {
            let placed = |(index, entry)| (Place::new(height, batch, index), entry);
            all.extend((0..).zip(entries).map(placed));
        }
        Ok(all)
    }

    /// What a block orders, by its batches.
    fn batches(&self, block: &Proposal) -> Result<Vec<Vec<ByteBuf>>, DiskError> {
        let parts = match &block.block.payload {
            Payload::Inline(entries) => return Ok(vec![entries.clone()]),
            Payload::Batches(parts) => parts,
        };
        let mut all = Vec::new();
        for part in parts {
            let batch = self.batch(&part.batch)?.ok_or(DiskError::Damaged { what: "batch of a block" })?;
            let entries = batch.transactions().map(|entry| ByteBuf::from(entry.to_vec()));
            all.push(part.select(entries));
        }
        Ok(all)
    }

    /// What is here of a range of committed blocks.
    pub(super) fn range(&self, range: &catch_up::Range) -> Result<catch_up::Answer, DiskError> {
        // One more, whose certificate proves the last.
        let most = usize::from(range.count).min(RANGE_BLOCKS_MAX).saturating_add(1);
        let mut blocks = self.committed(range.above, most)?;
        if blocks.first().is_some_and(|first| !first.header().height.follows(range.above)) {
            // They were removed a moment ago: another range would be a lie (F2).
            blocks.clear();
        }
        let end = self.cut(&mut blocks)?;
        let ended = match &end {
            Some(ChainEnd::Epoch(proof)) => Some(&**proof),
            Some(ChainEnd::Certified(_)) | None => None,
        };
        Ok(catch_up::Answer::of(range, &blocks, ended))
    }

    /// If there is much above a height, a certificate of its epoch that proves it.
    pub(super) fn far(&self, above: Height, epochs: &Epochs) -> Result<Option<Qc>, DiskError> {
        let ended = epochs.end_of(above.next());
        let height = ended.map_or_else(|| self.height(), |end| Ok(end.header.height))?;
        if height.0 <= above.0.saturating_add(2 * RANGE_BLOCKS_MAX as u64) {
            return Ok(None);
        }
        match ended {
            Some(end) => Ok(Some(end.commit.clone())),
            None => Ok(self.proof(height)?.map(|(_, proof)| proof)),
        }
    }

    fn blocks(&self, range: KeyRange, limit: usize) -> Result<Vec<Proposal>, DiskError> {
        let rows = self.store.range(Table::OrderBlocks, &range, limit)?;
        rows.iter().map(|(_, row)| read("block", row)).collect()
    }

    /// The certificate that commits a height, with the height of the last block that it commits.
    pub(super) fn proof(&self, height: Height) -> Result<Option<(Height, Qc)>, DiskError> {
        let range = KeyRange::between(&height_key(height), &[0xff; 9]);
        let rows = self.store.range(Table::OrderProofs, &range, 1)?;
        let Some((key, row)) = rows.first() else { return Ok(None) };
        let at = key.as_slice().try_into().map(u64::from_be_bytes);
        let at = at.map_err(|_damaged| DiskError::Damaged { what: "certificate" })?;
        Ok(Some((Height(at), read("certificate", row)?)))
    }

    /// Committed blocks above a height, so many at most.
    pub(super) fn committed(&self, above: Height, limit: usize) -> Result<Vec<Proposal>, DiskError> {
        let height = self.height()?;
        if above >= height { Ok(Vec::new()) } else { self.blocks(between(above, height), limit) }
    }

    /// A committed block.
    pub(super) fn block(&self, height: Height) -> Result<Option<Proposal>, DiskError> {
        if height == Height(0) || height > self.height()? {
            return Ok(None);
        }
        let below = Height(height.0.saturating_sub(1));
        Ok(self.blocks(between(below, height), 1)?.into_iter().next())
    }

    /// Where an entry stands, if it is ordered.
    pub(super) fn place(&self, hash: &Digest) -> Result<Option<Place>, DiskError> {
        index::find(&self.store, hash)
    }

    /// A committed block with what proves its entries.
    pub(super) fn proven_block(&self, height: Height) -> Result<Option<Proven>, DiskError> {
        let Some(block) = self.block(height)? else { return Ok(None) };
        let with_tree = |entries: Vec<ByteBuf>| {
            let tree = Tree::of(entries.iter().map(|entry| transaction_hash(entry)).collect());
            (entries, tree)
        };
        let batches = self.batches(&block)?.into_iter().map(with_tree).collect();
        let (links, commit) = self.commit_of(height)?;
        Ok(Some(Proven { block, batches, epochs: Vec::new(), links, commit }))
    }

    /// Committed blocks above a height, up to another and with it.
    pub(super) fn committed_between(&self, above: Height, upto: Height) -> Result<Vec<Proposal>, DiskError> {
        self.blocks(between(above, upto), usize::MAX)
    }

    /// The first blocks that are here up to a height, so many at most.
    pub(super) fn blocks_up_to(&self, height: Height, limit: usize) -> Result<Vec<Proposal>, DiskError> {
        self.blocks(up_to(height), limit)
    }

    /// Whether this key signed, or could have.
    pub(super) fn has_safety(&self) -> Result<bool, DiskError> {
        Ok(self.store.get(Table::Order, SAFETY)?.is_some())
    }

    /// Committed blocks above a height for somebody who follows, with what proves the last. Where they reach the tip,
    /// the block that proves the tip comes with them.
    pub(super) fn stretch(&self, above: Height) -> Result<Stretch, DiskError> {
        let height = self.height()?;
        let mut stretch = Stretch { blocks: Vec::new(), end: None, height };
        if above >= height {
            return Ok(stretch);
        }
        let mut from = above;
        let mut bytes = 0;
        while from < height && stretch.blocks.len() <= ANSWER_BLOCKS_MAX && bytes < ANSWER_BYTES_MAX {
            let rows = self.store.range(Table::OrderBlocks, &between(from, height), READ_AT_ONCE)?;
            let before = from;
            for (_, row) in rows {
                bytes += row.len();
                if stretch.blocks.len() > ANSWER_BLOCKS_MAX || bytes >= ANSWER_BYTES_MAX {
                    break;
                }
                let block: Proposal = read("block", &row)?;
                from = block.header().height;
                stretch.blocks.push(block);
            }
            if from == before {
                break;
            }
        }
        stretch.end = match self.cut(&mut stretch.blocks)? {
            Some(end) => Some(Box::new(end)),
            None => self.end_of(&mut stretch.blocks, height)?,
        };
        Ok(stretch)
    }

    /// What proves the last of these blocks.
    fn end_of(&self, blocks: &mut Vec<Proposal>, height: Height) -> Result<Option<Box<ChainEnd>>, DiskError> {
        if blocks.last().is_some_and(|last| last.header().height == height)
            && let Some((_, proof)) = self.proof(height)?.filter(|(at, _)| *at == height)
        {
            let key = block_key(height.next(), &proof.data.block);
            if let Some(row) = self.store.get(Table::OrderBlocks, &key)? {
                blocks.push(read("block", &row)?);
                return Ok(Some(Box::new(ChainEnd::Certified(Box::new(proof)))));
            }
        }
        // The certificate in each proves the one before it.
        let proves = blocks.pop().map(|block| block.block.qc);
        Ok(proves.filter(|_| !blocks.is_empty()).map(|qc| Box::new(ChainEnd::Certified(Box::new(qc)))))
    }
}

/// The rows of a batch.
pub(super) fn batch_rows(batch: &Batch) -> Vec<Write> {
    let digest = batch.digest();
    let free = [FREE, digest.as_bytes()].concat();
    vec![
        put(Table::OrderBatches, digest.as_bytes().to_vec(), batch.encode()),
        put(Table::Order, free, Vec::new()),
    ]
}

/// The row of a batch that a block orders.
pub(super) fn batch_of_block(batch: &Batch) -> Vec<Write> {
    vec![put(Table::OrderBatches, batch.digest().as_bytes().to_vec(), batch.encode())]
}

/// Without a batch that no block will have.
pub(super) fn forget_rows(batch: &Digest) -> Vec<Write> {
    let free = [FREE, batch.as_bytes()].concat();
    vec![
        Write::Remove { table: Table::OrderBatches, key: batch.as_bytes().to_vec() },
        Write::Remove { table: Table::Order, key: free },
    ]
}

/// The rows of what a block orders, in parts that are written one after the other; the last says that all is there.
pub(super) fn ordered_rows(
    index: &mut Index,
    block: &Proposal,
    entries: &[Ordered],
    root: Digest,
) -> Vec<Vec<Write>> {
    let height = block.header().height;
    let mut parts = index.take(height, entries);
    let mut last = parts.pop().unwrap_or_default();
    if let Payload::Batches(batches) = &block.block.payload {
        let free = batches.iter().map(|part| [FREE, part.batch.as_bytes()].concat());
        last.extend(free.map(|key| Write::Remove { table: Table::Order, key }));
    }
    last.push(put(Table::Order, root_key(height), cbor::encode(&root)));
    if let Some(old) = height.0.checked_sub(ROOTS_KEPT) {
        last.push(Write::Remove { table: Table::Order, key: root_key(Height(old)) });
    }
    last.push(put(Table::Order, TOLD.to_vec(), cbor::encode(&Told { height, root })));
    parts.push(last);
    parts
}

/// The row of what this key signed last.
pub(super) fn safety_row(safety: &SafetyRecord) -> Write {
    put(Table::Order, SAFETY.to_vec(), sealed(safety))
}

fn tip_rows(height: Height, root: Option<&Root>, proof: &Qc) -> Vec<Write> {
    let tip = TipRow { height, root: root.cloned() };
    vec![
        put(Table::Order, TIP.to_vec(), cbor::encode(&tip)),
        put(Table::OrderProofs, height_key(height), cbor::encode(proof)),
    ]
}

/// The rows of a log that stands on a block, with the certificate that commits it or one behind it.
pub(super) fn stand_rows(root: &Root, proof: &Qc, told: Told) -> Vec<Write> {
    let mut rows = tip_rows(root.tip().height, Some(root), proof);
    rows.push(put(Table::Order, TOLD.to_vec(), cbor::encode(&told)));
    rows
}

/// The rows of a record. `pending` are the blocks above the committed height.
pub(super) fn rows(record: &Record, pending: &mut BTreeMap<BlockId, Height>) -> Vec<Write> {
    match record {
        Record::Safety(safety) => vec![safety_row(safety)],
        Record::Block(block) => {
            let (id, height) = (block.header().id(), block.header().height);
            pending.insert(id, height);
            vec![put(Table::OrderBlocks, block_key(height, &id), cbor::encode(block))]
        }
        Record::Commit { blocks, height, proof, root } => {
            let mut writes = tip_rows(*height, Some(root), proof);
            for id in blocks {
                pending.remove(id);
            }
            // What the commit went past is in no chain any more.
            let gone: Vec<_> =
                pending.iter().filter(|(_, at)| **at <= *height).map(|(id, at)| (*at, *id)).collect();
            for (at, id) in gone {
                pending.remove(&id);
                writes.push(Write::Remove { table: Table::OrderBlocks, key: block_key(at, &id) });
            }
            writes
        }
        Record::Epoch { blocks, proof, safety } => {
            let height = proof.header.height;
            let mut writes = tip_rows(height, None, &proof.commit);
            writes.extend([epoch_row(proof), safety_row(safety)]);
            for id in blocks {
                pending.remove(id);
            }
            // What stands behind the end counts for nothing.
            let gone = std::mem::take(pending).into_iter();
            let remove = |(id, at): (BlockId, Height)| block_key(at, &id);
            let gone = gone.map(|row| Write::Remove { table: Table::OrderBlocks, key: remove(row) });
            writes.extend(gone);
            writes
        }
    }
}

/// Who votes in the first epoch of a log.
pub(super) fn validators(committee: &Committee) -> Vec<NodeId> {
    committee.validators().list().iter().map(|validator| validator.id).collect()
}
