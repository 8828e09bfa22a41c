//! What the disk holds of a document, and under which keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use wattle_types::{DocAccess, DocId, KeyRange, NodeId, Table, UnixTime, Write, cbor};

use crate::document::Hash;

/// Bytes of a snapshot in one value: a batch takes one megabyte.
const PART_BYTES: usize = 512 * 1024;

/// Records since the snapshot.
const RECORDS_MAX: u64 = 2048;

/// The same of a document that is written as its changes: a snapshot of it is no shorter than they are, and takes as
/// long as all of them. So many records take some 20 MB, and a third of a second to read.
const RECORDS_OF_LARGE_MAX: u64 = 64 * 1024;

/// Bytes that the records may hold more than the snapshot.
const RECORDS_BYTES_MAX: u64 = 4 * 1024 * 1024;

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
    /// Where removals cut: changes that were here and that no program may bring back, oldest first.
    #[serde(default)]
    pub cut: Vec<Hash>,
    /// How far it is. Every edit changes that and hardly one the rest, so it has a key of its own.
    #[serde(skip)]
    pub tip: Tip,
}

/// How far a document is, and where its bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TipParts", into = "TipParts")]
pub(crate) struct Tip {
    pub heads: Vec<Hash>,
    pub stored: Stored,
}

/// A tip as it is written: without the names of its fields, which would be a tenth of what a letter costs.
type TipParts = (Vec<Hash>, u64, u32, u64, u64, u64, u64);

impl From<Tip> for TipParts {
    fn from(Tip { heads, stored: it }: Tip) -> Self {
        (heads, it.generation, it.parts, it.snapshot_bytes, it.first, it.next, it.record_bytes)
    }
}

impl From<TipParts> for Tip {
    fn from((heads, generation, parts, snapshot_bytes, first, next, record_bytes): TipParts) -> Self {
        Self { heads, stored: Stored { generation, parts, snapshot_bytes, first, next, record_bytes } }
    }
}

/// Where a document's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Whether the records since the snapshot are to become part of it. Reading them takes longer than reading a
    /// snapshot, and writing one costs as much as the document is large: so many, or so much more than it holds.
    pub(crate) fn is_due(&self, is_large: bool) -> bool {
        let records = self.next.saturating_sub(self.first);
        if is_large {
            return records >= RECORDS_OF_LARGE_MAX;
        }
        let eight_times = self.snapshot_bytes.saturating_mul(8).max(64 * 1024);
        let bytes_max = eight_times.min(self.snapshot_bytes.saturating_add(RECORDS_BYTES_MAX));
        records >= RECORDS_MAX || self.record_bytes > bytes_max
    }

    /// Every key to read, in order: the parts of the snapshot, then the records.
    pub(crate) fn keys(&self, doc: &DocId) -> Vec<(Table, Vec<u8>)> {
        let records = (self.first..self.next).map(|record| record_key(doc, record));
        self.part_keys(doc).chain(records).collect()
    }

    fn part_keys(&self, doc: &DocId) -> impl Iterator<Item = (Table, Vec<u8>)> {
        let (doc, generation) = (*doc, self.generation);
        (0..self.parts).map(move |part| part_key(&doc, generation, part))
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
        let parts = self.part_keys(doc).map(|(table, key)| Write::Remove { table, key });
        let (table, from) = record_key(doc, self.first);
        let (_, to) = record_key(doc, self.next);
        let records = Write::RemoveRange { table, range: KeyRange::between(&from, &to) };
        // One write whatever their number: a batch has a limit.
        parts.chain((self.first < self.next).then_some(records)).collect()
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

    /// What is to be written where `saved` is on disk: what differs.
    pub(crate) fn writes(&self, saved: Option<&Self>) -> Vec<Write> {
        let doc = &self.access.id;
        let put = |key, value| Write::Put { table: Table::Docs, key, value };
        let mut writes = Vec::new();
        let is_saved = saved.is_some_and(|saved| Self { tip: self.tip.clone(), ..saved.clone() } == *self);
        if !is_saved {
            writes.push(put(doc.as_bytes().to_vec(), cbor::encode(self)));
        }
        if saved.is_none_or(|saved| saved.tip != self.tip) {
            writes.push(put(tip_key(doc), cbor::encode(&self.tip)));
        }
        writes
    }

    /// Removes what [`Self::writes`] put there.
    pub(crate) fn removals(&self) -> [Write; 2] {
        let doc = &self.access.id;
        [doc.as_bytes().to_vec(), tip_key(doc)].map(|key| Write::Remove { table: Table::Docs, key })
    }

    /// Every row, from what the table holds.
    ///
    /// # Errors
    /// Which part cannot be read or is missing, in words.
    pub(crate) fn read_all(table: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<Self>, String> {
        let (rows, tips): (Vec<_>, Vec<_>) = table.into_iter().partition(|(key, _)| key.len() == 16);
        let mut tips: BTreeMap<Vec<u8>, Vec<u8>> = tips.into_iter().collect();
        let row = |(_, value): (Vec<u8>, Vec<u8>)| {
            let row: Self = cbor::decode(&value, value.len()).map_err(|error| format!("its row: {error}"))?;
            let tip = tips.remove(&tip_key(&row.access.id)).ok_or("nothing says how far it is")?;
            let tip = cbor::decode(&tip, tip.len()).map_err(|error| format!("how far it is: {error}"))?;
            Ok(Self { tip, ..row })
        };
        rows.into_iter().map(row).collect()
    }
}

/// The key that says how far a document is: behind that of its row.
fn tip_key(doc: &DocId) -> Vec<u8> {
    [doc.as_bytes().as_slice(), b"t"].concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let read = wattle_types::ReadSecret::from_bytes([3; 16]);
        Row {
            access: DocAccess { id: DocId::from_bytes([2; 16]), read, owner: None },
            owner: None,
            bearer: None,
            inviter: None,
            since: UnixTime::from_millis(7),
            label: Label::default(),
            cut: Vec::new(),
            tip: Tip { heads: vec![Hash::new([4; 32])], stored: Stored { next: 9, ..Stored::default() } },
        }
    }

    fn table(writes: Vec<Write>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let put = |write| match write {
            Write::Put { key, value, .. } => Some((key, value)),
            _ => None,
        };
        writes.into_iter().filter_map(put).collect()
    }

    #[test]
    fn a_row_is_read_as_it_was_written_and_only_what_changed_is_written_again() {
        let row = row();
        assert_eq!(Row::read_all(table(row.writes(None))), Ok(vec![row.clone()]));
        assert_eq!(row.writes(Some(&row)), Vec::new());
        let edited = Row { tip: Tip::default(), ..row.clone() };
        assert_eq!(table(edited.writes(Some(&row))).len(), 1);
        let renamed = Row { label: Label { title: "new".to_owned(), ..Label::default() }, ..row.clone() };
        let mut both = table(row.writes(None));
        both.retain(|(key, _)| key.len() > 16);
        both.extend(table(renamed.writes(Some(&row))));
        assert_eq!(Row::read_all(both), Ok(vec![renamed]));
    }

    #[test]
    fn a_document_of_which_nothing_says_how_far_it_is_is_not_taken_for_an_empty_one() {
        let mut rows = table(row().writes(None));
        rows.retain(|(key, _)| key.len() == 16);
        assert_eq!(Row::read_all(rows), Err("nothing says how far it is".to_owned()));
    }

    #[test]
    fn a_large_document_is_written_anew_after_many_more_records() {
        let of = |next, record_bytes| Stored { next, record_bytes, ..Stored::default() };
        assert!(of(RECORDS_MAX, 0).is_due(false) && of(1, 1 << 20).is_due(false));
        assert!(!of(RECORDS_MAX, 0).is_due(true) && !of(1, 1 << 20).is_due(true));
        assert!(of(RECORDS_OF_LARGE_MAX, 0).is_due(true));
        // The keys of so many would be more than a batch takes.
        assert_eq!(of(RECORDS_OF_LARGE_MAX, 0).removals(&DocId::from_bytes([2; 16])).len(), 1);
    }
}
