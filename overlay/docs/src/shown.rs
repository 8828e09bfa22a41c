//! What the disk holds of what a large document shows at first, and under which keys.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use wattle_types::{DocId, KeyRange, Table, Write, cbor, keyed};

use crate::document::Hash;

/// Bytes in one value: a batch takes one megabyte.
const PART_BYTES: usize = 512 * 1024;

/// Of which state of a document something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// The form of the bytes.
    pub form: u32,
    pub heads: Vec<Hash>,
    /// The operations: one of them may cut what these heads name.
    pub control: ByteArray<32>,
}

/// What is kept. Where it is on disk all its parts are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub version: Version,
    pub bytes: u64,
    parts: u32,
    digest: ByteArray<32>,
}

impl Shown {
    pub(crate) fn of(version: Version, bytes: &[u8]) -> Self {
        let parts = bytes.chunks(PART_BYTES).len() as u32;
        Self { version, bytes: bytes.len() as u64, parts, digest: digest(bytes) }
    }

    /// The batches that keep it in the place of what was kept before.
    pub(crate) fn batches(&self, doc: &DocId, bytes: &[u8]) -> Vec<Vec<Write>> {
        let parts = (0..).zip(bytes.chunks(PART_BYTES)).map(|(part, value)| {
            let (table, key) = part_key(doc, part);
            vec![Write::Put { table, key, value: value.to_vec() }]
        });
        let last = Write::Put { table: Table::Docs, key: key(doc), value: cbor::encode(self) };
        std::iter::once(removals(doc).to_vec()).chain(parts).chain([vec![last]]).collect()
    }

    /// Every key to read, in order.
    pub(crate) fn keys(&self, doc: &DocId) -> Vec<(Table, Vec<u8>)> {
        (0..self.parts).map(|part| part_key(doc, part)).collect()
    }

    /// The bytes, if these are what was written.
    pub(crate) fn whole(&self, values: Vec<Option<Vec<u8>>>) -> Option<Vec<u8>> {
        let bytes = values.into_iter().collect::<Option<Vec<_>>>()?.concat();
        (digest(&bytes) == self.digest).then_some(bytes)
    }

    /// Takes what is kept out of the rows of [`Table::Docs`]. What cannot be read is not kept: the document is there.
    pub(crate) fn take_all(rows: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(DocId, Self)> {
        let found = rows.extract_if(.., |(key, _)| key.len() == 17 && key.ends_with(KEPT));
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((DocId::from_bytes(*key.first_chunk()?), cbor::decode(&value, value.len()).ok()?))
        };
        found.filter_map(read).collect()
    }
}

/// Removes all that is kept of a document.
pub(crate) fn removals(doc: &DocId) -> [Write; 2] {
    let range = KeyRange::prefix(doc.as_bytes());
    [
        Write::Remove { table: Table::Docs, key: key(doc) },
        Write::RemoveRange { table: Table::DocShown, range },
    ]
}

/// Behind the key of the document's row.
const KEPT: &[u8] = b"s";

fn key(doc: &DocId) -> Vec<u8> {
    [doc.as_bytes().as_slice(), KEPT].concat()
}

fn part_key(doc: &DocId, part: u32) -> (Table, Vec<u8>) {
    (Table::DocShown, [doc.as_bytes().as_slice(), &part.to_be_bytes()].concat())
}

fn digest(bytes: &[u8]) -> ByteArray<32> {
    ByteArray::new(keyed(b"what a document shows at first\0\0", &[bytes]))
}
