//! Where each entry stands, by its hash.
//!
//! Hashes are random, and a row at a random place of a large table costs a page of its own. So entries are indexed in
//! runs: a run is full after [`RUN_ENTRIES`], its rows stand together, and a key begins with the height of the block
//! with which its run began. What is looked for is looked for in every run, the eldest first: two seeks each.
//!
//! ```text
//! order          run             -> the height with which the newest run began, and how many entries are in it
//! order_entries  run, hash's first half -> height, place
//! ```

use serde::{Deserialize, Serialize};
use wattle_order::payloads::Ordered;
use wattle_order::{Digest, Height};
use wattle_store::Store;
use wattle_types::{KeyRange, Table, Write, cbor};

use super::disk::{DiskError, Place, put, read};
use super::snapshots::CompactError;

pub(super) const RUN: &[u8] = b"run";
/// Entries of a run. Fewer cost less to write, and more to look for.
const RUN_ENTRIES: u64 = 4096;
/// Rows of one write; a block with more entries is written in parts.
const ROWS_MAX: usize = 4096;
/// Bytes of a hash that are in a key: as many as tell entries apart in the log.
const HASH_BYTES: usize = 16;

/// The newest run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    began: Height,
    entries: u64,
}

/// What stands where in a row's key.
fn key(run: Height, hash: &Digest) -> Vec<u8> {
    [run.0.to_be_bytes().as_slice(), &hash.as_bytes()[..HASH_BYTES]].concat()
}

impl Index {
    /// As it is on disk.
    pub(super) fn load(store: &Store) -> Result<Self, DiskError> {
        let row = store.get(Table::Order, RUN)?;
        Ok(row.map(|row| read("index of entries", &row)).transpose()?.unwrap_or_default())
    }

    /// Takes what a block orders: its rows, in parts that are written one after the other. What is in the last part is
    /// there when all is.
    pub(super) fn take(&mut self, height: Height, entries: &[Ordered]) -> Vec<Vec<Write>> {
        if entries.is_empty() {
            return vec![Vec::new()];
        }
        if self.entries == 0 || self.entries >= RUN_ENTRIES {
            *self = Self { began: height, entries: 0 };
        }
        self.entries = self.entries.saturating_add(entries.len() as u64);
        let row = |ordered: &Ordered| {
            let place = Place::new(height, ordered.batch, ordered.index);
            let place = [height.0.to_be_bytes().as_slice(), &place.index.to_be_bytes()].concat();
            (key(self.began, &ordered.whole.transaction()), place)
        };
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = entries.iter().map(row).collect();
        rows.sort_unstable();
        let mut rows = rows.into_iter().map(|(key, place)| put(Table::OrderEntries, key, place));
        let some =
            || Some(rows.by_ref().take(ROWS_MAX).collect()).filter(|some: &Vec<Write>| !some.is_empty());
        let mut parts: Vec<Vec<Write>> = std::iter::from_fn(some).collect();
        let run = put(Table::Order, RUN.to_vec(), cbor::encode(self));
        parts.last_mut().into_iter().for_each(|last| last.push(run.clone()));
        parts
    }
}

/// The first run that began at a height or later.
fn first_run(store: &Store, from: Height) -> Result<Option<Height>, DiskError> {
    let from = from.0.to_be_bytes();
    let rows = store.range(Table::OrderEntries, &KeyRange::between(&from, &[0xff; 9]), 1)?;
    let began = |(key, _): &(Vec<u8>, Vec<u8>)| key.first_chunk().copied().map(u64::from_be_bytes);
    let damaged = DiskError::Damaged { what: "index of entries" };
    rows.first().map(|row| began(row).map(Height).ok_or(damaged)).transpose()
}

/// Removes the runs of which all entries stand at or below a height.
pub(super) async fn compact(store: &Store, upto: Height) -> Result<(), CompactError> {
    while let Some(run) = first_run(store, Height(0))? {
        match first_run(store, run.next())? {
            Some(next) if next <= upto.next() => {
                let range = KeyRange::prefix(&run.0.to_be_bytes());
                store.commit(vec![Write::RemoveRange { table: Table::OrderEntries, range }]).await?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Where an entry stands, if it is ordered.
pub(super) fn find(store: &Store, hash: &Digest) -> Result<Option<Place>, DiskError> {
    let damaged = || DiskError::Damaged { what: "index of entries" };
    let mut run = Height(0);
    loop {
        let wanted = key(run, hash);
        let rows = store.range(Table::OrderEntries, &KeyRange::between(&wanted, &[0xff; 9]), 1)?;
        let Some((found, row)) = rows.first() else { return Ok(None) };
        if *found == wanted {
            return place(row).map(Some).ok_or_else(damaged);
        }
        let began = found.first_chunk().copied().map(u64::from_be_bytes).ok_or_else(damaged)?;
        // The first row at or behind the wanted one is of this run, which has it not, or of a later one.
        run = if began == run.0 { run.next() } else { Height(began) };
    }
}

fn place(row: &[u8]) -> Option<Place> {
    let (height, index) = row.split_first_chunk()?;
    let index = index.try_into().ok().map(u32::from_be_bytes)?;
    Some(Place { height: Height(u64::from_be_bytes(*height)), index })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use wattle_order::{Entry, Whole};
    use wattle_store::Owner;
    use wattle_types::UnixTime;

    use super::*;

    fn entries(of: u64, count: u64) -> Vec<Ordered> {
        let whole = |salt: u64| {
            let (app, until) = ("a/1".to_owned(), UnixTime::from_millis(1));
            let entry = Entry { app, data: vec![1].into(), until, salt: of << 32 | salt };
            Arc::new(Whole::read(entry.encode().into()).unwrap())
        };
        (0..count).map(|index| Ordered { batch: index % 3, index, whole: whole(index) }).collect()
    }

    async fn write(store: &Store, parts: Vec<Vec<Write>>) {
        for part in parts {
            store.commit(part).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_entry_of_every_run_is_found_where_it_stands_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Owner::this_process("index")).unwrap();
        let mut index = Index::load(&store).unwrap();
        let blocks: [(u64, u64); 6] = [(3, 1), (4, 0), (5, 5000), (9, 2), (10, 4095), (11, 70)];
        let mut runs = BTreeSet::new();
        for (height, count) in blocks {
            write(&store, index.take(Height(height), &entries(height, count))).await;
            // A start goes on with the same run.
            assert_eq!(Index::load(&store).unwrap(), index);
            runs.insert(index.began);
        }
        assert_eq!(runs, BTreeSet::from([Height(3), Height(9), Height(11)]));
        for (height, count) in blocks {
            for ordered in entries(height, count) {
                let place = Place::new(Height(height), ordered.batch, ordered.index);
                assert_eq!(find(&store, &ordered.whole.transaction()).unwrap(), Some(place));
            }
        }
        for ordered in entries(7, 500) {
            assert_eq!(find(&store, &ordered.whole.transaction()).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_block_that_was_half_indexed_in_a_crash_is_indexed_again_in_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Owner::this_process("index")).unwrap();
        let (mut index, block) = (Index::default(), entries(5, 5000));
        write(&store, index.take(Height(3), &entries(3, 10))).await;
        let first = index.take(Height(5), &block);
        assert_eq!(first.len(), 2);
        write(&store, first[..1].to_vec()).await;
        let mut again = Index::load(&store).unwrap();
        assert_eq!(again.take(Height(5), &block), first);
    }
}
