//! What the disk holds of a document, and under which keys.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use wattle_types::{DocAccess, DocId, NodeId, Table, UnixTime, Write, cbor};

use crate::document::Hash;

/// Bytes of a snapshot in one value: a batch takes one megabyte.
const PART_BYTES: usize = 512 * 1024;

/// What a document is at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Which app it is for, as its creator wrote it.
    pub kind: String,
    /// What people call it.
    pub title: String,
}
/// Cuts that a document remembers: a removal makes one for each editing session that it cuts off.
const CUTS_MAX: usize = 1024;

/// A document's line in the index: enough to list it and to tell equal heads without reading the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub access: DocAccess,
    /// The secret half of the owner's key, where this node founded the document.
    pub owner: Option<ByteArray<32>>,
    /// The ticket's key, until it was redeemed.
    pub bearer: Option<ByteArray<16>>,
    /// Who invited this node: asked before anyone else is known.
    pub inviter: Option<NodeId>,
    /// When it came here.
    pub since: UnixTime,
    /// Which app it is for, and what people call it.
    pub label: Label,
    pub heads: Vec<Hash>,
    pub stored: Stored,
    /// Where removals cut: changes that were here and that no program may bring back, oldest first.
    #[serde(default)]
    pub cut: Vec<Hash>,
}

/// Where a document's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Which snapshot; none before the first.
    pub generation: u64,
    /// Parts of the snapshot.
    pub parts: u32,
    pub snapshot_bytes: u64,
    /// The records since: `first` to before `next`.
    pub first: u64,
    pub next: u64,
    pub record_bytes: u64,
}

impl Stored {
    /// Whether the records since the snapshot outweigh it.
    pub(crate) const fn is_due(&self) -> bool {
        let records = self.next.saturating_sub(self.first);
        let floor = if self.snapshot_bytes > 64 * 1024 { self.snapshot_bytes } else { 64 * 1024 };
        records >= 1024 || self.record_bytes > floor
    }

    /// Every key to read, in order: the parts of the snapshot, then the records.
    pub(crate) fn keys(&self, doc: &DocId) -> Vec<(Table, Vec<u8>)> {
        let parts = (0..self.parts).map(|part| part_key(doc, self.generation, part));
        let records = (self.first..self.next).map(|record| record_key(doc, record));
        parts.chain(records).collect()
    }

    /// The writes of a snapshot: batches of parts, and what the row says once they are all on disk.
    pub(crate) fn snapshot(&self, doc: &DocId, bytes: &[u8]) -> (Vec<Vec<Write>>, Self) {
        let generation = self.generation.saturating_add(1);
        let mut parts = 0;
        let batches = bytes.chunks(PART_BYTES).map(|part| {
            let (table, key) = part_key(doc, generation, parts);
            parts += 1;
            vec![Write::Put { table, key, value: part.to_vec() }]
        });
        let batches = batches.collect();
        let next = Self {
            generation,
            parts,
            snapshot_bytes: bytes.len() as u64,
            first: self.next,
            next: self.next,
            record_bytes: 0,
        };
        (batches, next)
    }

    /// Removes everything that these keys name.
    pub(crate) fn removals(&self, doc: &DocId) -> Vec<Write> {
        self.keys(doc).into_iter().map(|(table, key)| Write::Remove { table, key }).collect()
    }

    /// Appends a record; gives its write.
    pub(crate) fn append(&mut self, doc: &DocId, bytes: Vec<u8>) -> Write {
        let (table, key) = record_key(doc, self.next);
        self.next = self.next.saturating_add(1);
        self.record_bytes = self.record_bytes.saturating_add(bytes.len() as u64);
        Write::Put { table, key, value: bytes }
    }
}

impl Row {
    /// Remembers where a removal cut. Beyond the cap the oldest are forgotten: a program that has kept such a
    /// change through a thousand removals may bring it back.
    pub(crate) fn cut_off(&mut self, cut: Vec<Hash>) {
        self.cut.extend(cut);
        let over = self.cut.len().saturating_sub(CUTS_MAX);
        self.cut.drain(..over);
    }

    pub(crate) fn write(&self) -> Write {
        Write::Put { table: Table::Docs, key: self.access.id.as_bytes().to_vec(), value: cbor::encode(self) }
    }
}

/// The key of a signed operation.
pub(crate) fn operation_key(doc: &DocId, hash: &[u8; 32]) -> Vec<u8> {
    [doc.as_bytes().as_slice(), hash].concat()
}

fn record_key(doc: &DocId, record: u64) -> (Table, Vec<u8>) {
    (Table::DocChanges, [doc.as_bytes().as_slice(), &record.to_be_bytes()].concat())
}

fn part_key(doc: &DocId, generation: u64, part: u32) -> (Table, Vec<u8>) {
    let key = [doc.as_bytes().as_slice(), &generation.to_be_bytes(), &part.to_be_bytes()].concat();
    (Table::DocSnapshots, key)
}
