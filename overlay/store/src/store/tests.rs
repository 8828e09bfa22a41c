//! The store on a disk of memory that fails, and loses power, on command.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use redb::StorageBackend;

use super::*;
use crate::medium::Medium;

/// What the machine's disk does. `image` is what reads see; after a power cut there is what was synced, and
/// any part of what was not, in sectors.
#[derive(Debug, Default)]
struct Disk {
    image: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    syncs: u32,
    /// Changes and syncs until one fails with this error; all later ones fail as well.
    fails_after: Option<(u32, io::ErrorKind)>,
    /// The next flush fails with this error.
    flush_fails: Option<io::ErrorKind>,
    /// Blocks of the file that were ever written, and how many there may be.
    occupied: BTreeSet<usize>,
    space: Option<usize>,
    /// Whether the system can tell how much space is left.
    tells: bool,
    opened: u32,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

impl Disk {
    fn count(&mut self) -> io::Result<()> {
        match &mut self.fails_after {
            None => Ok(()),
            Some((0, kind)) => Err((*kind).into()),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// As much of a write as there is space for.
    fn occupy(&mut self, start: usize, length: usize) -> usize {
        for block in start / BLOCK..(start + length).div_ceil(BLOCK) {
            let full = self.space.is_some_and(|space| self.occupied.len() >= space);
            if full && !self.occupied.contains(&block) {
                return (block * BLOCK).saturating_sub(start);
            }
            self.occupied.insert(block);
        }
        length
    }

    /// Leaves space for so many more blocks.
    fn leave(&mut self, blocks: usize) {
        self.space = Some(self.occupied.len() + blocks);
    }

    /// What a power cut leaves. The seed chooses which unsynced sectors made it.
    fn after_power_cut(&self, seed: u64) -> Vec<u8> {
        let mut left = self.synced.clone();
        let mut state = seed;
        for change in &self.unsynced {
            match change {
                Change::Length(length) => left.resize(*length, 0),
                Change::Bytes(offset, bytes) => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let start = offset + number * SECTOR;
                        if seed != 0 && (state >> 63 == 1 || seed == 1) && start + sector.len() <= left.len()
                        {
                            left[start..start + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        left
    }
}

#[derive(Clone, Debug, Default)]
struct Backend(Arc<Mutex<Disk>>);

impl Backend {
    fn with(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk { synced: image.clone(), image, ..Disk::default() })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let start = usize::try_from(offset).unwrap();
        let bytes = disk.image.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count()?;
        let len = usize::try_from(len).unwrap();
        disk.image.resize(len, 0);
        disk.occupied.retain(|block| *block < len.div_ceil(BLOCK));
        disk.unsynced.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count()?;
        if let Some(kind) = disk.flush_fails.take() {
            return Err(kind.into());
        }
        disk.synced = disk.image.clone();
        disk.unsynced.clear();
        disk.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count()?;
        let start = usize::try_from(offset).unwrap();
        let wrote = &data[..disk.occupy(start, data.len())];
        disk.image[start..start + wrote.len()].copy_from_slice(wrote);
        disk.unsynced.push(Change::Bytes(start, wrote.to_vec()));
        if wrote.len() < data.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Medium for Backend {
    fn open(&self) -> Result<Box<dyn StorageBackend>, Failure> {
        self.disk().opened += 1;
        Ok(Box::new(self.clone()))
    }

    fn free_bytes(&self) -> Option<u64> {
        let disk = self.disk();
        let free = disk.space.map_or(usize::MAX, |space| (space - disk.occupied.len()) * BLOCK);
        disk.tells.then_some(free as u64)
    }

    fn give_back(&self, unused: &[Range<u64>]) {
        let mut disk = self.disk();
        for bytes in unused {
            let [start, end] = [bytes.start, bytes.end].map(|at| usize::try_from(at).unwrap());
            let end = end.min(disk.image.len());
            disk.image[start..end].fill(0);
            disk.unsynced.push(Change::Bytes(start, vec![0; end - start]));
            disk.occupied.retain(|block| !(start..end).contains(&(block * BLOCK)));
        }
    }
}

fn tables(backend: &Backend) -> Result<Tables, Failure> {
    Tables::open_on(Box::new(backend.clone()), Path::new("memory"))
}

fn store(backend: &Backend) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::take(dir.path(), Owner::this_process("test")).unwrap();
    let store = Store::start(dir.path(), lock, tables(backend).unwrap()).unwrap();
    (dir, store)
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Write {
    Write::Put { table, key: key.to_vec(), value: value.to_vec() }
}

/// Batch `number`: one entry in each of two tables, large enough to move pages about.
fn batch(number: u32) -> Vec<Write> {
    let value = number.to_be_bytes().repeat(100);
    vec![
        put(Table::Records, &number.to_be_bytes(), &value),
        put(Table::Providers, &number.to_be_bytes(), &value),
    ]
}

fn scan(tables: &Tables, table: Table) -> Result<Vec<Entry>, Failure> {
    tables.range(table, &KeyRange::all(), usize::MAX)
}

/// Which batches are there, in both tables with the right values.
fn batches(tables: &Tables) -> Vec<u32> {
    let records = scan(tables, Table::Records).unwrap();
    assert_eq!(records, scan(tables, Table::Providers).unwrap(), "a batch is there in part");
    let number = |(key, value): Entry| {
        let number = u32::from_be_bytes(key.try_into().unwrap());
        assert_eq!(value, number.to_be_bytes().repeat(100));
        number
    };
    records.into_iter().map(number).collect()
}

#[tokio::test]
async fn the_first_failure_at_any_step_ends_the_store_and_loses_nothing_acknowledged() {
    const BATCHES: u32 = 12;
    let mut survived = 0;
    for step in 0.. {
        let backend = Backend::default();
        let (_dir, store) = store(&backend);
        // A disk on which nothing at all can be written any more is not only full.
        let kind = [io::ErrorKind::StorageFull, io::ErrorKind::Other][step as usize % 2];
        backend.disk().fails_after = Some((step, kind));
        let mut acknowledged = Vec::new();
        let mut failure = None;
        for number in 0..BATCHES {
            match store.commit(batch(number)).await {
                Ok(()) if failure.is_some() => panic!("step {step}: acknowledged after a failure"),
                Ok(()) => acknowledged.push(number),
                Err(CommitError::Failed(new)) => assert_eq!(failure.get_or_insert_with(|| new.clone()), &new),
                Err(error) => panic!("{error}"),
            }
        }
        let Some(failure) = failure else {
            assert_eq!(acknowledged.len(), BATCHES as usize);
            break;
        };
        survived += 1;
        let says_full = matches!(failure, Failure::DiskFull { .. });
        assert!(!says_full || kind == io::ErrorKind::StorageFull, "{failure}");
        assert_eq!(store.failed().await, failure);
        assert_eq!(store.get(Table::Records, b"x"), Err(failure.clone()));
        assert_eq!(store.scan(Table::Blocked), Err(failure));

        // The power goes, and the disk is well afterwards.
        for seed in 0..8 {
            let found = batches(&tables(&Backend::with(backend.disk().after_power_cut(seed))).unwrap());
            assert!(
                found.starts_with(&acknowledged),
                "step {step}, seed {seed}: {acknowledged:?} of {found:?}"
            );
            assert!(found.len() <= acknowledged.len() + 1, "step {step}, seed {seed}: {found:?}");
        }
    }
    assert!(survived > 50, "only {survived} steps failed");
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_block_refuses_what_does_not_fit_and_nothing_else() {
    let (mut refused, mut reopened) = (0, 0);
    for (left, tells) in (0..64).flat_map(|left| [(left, false), (left + 64, true)]) {
        let backend = Backend::default();
        let (_dir, store) = store(&backend);
        backend.disk().leave(left);
        backend.disk().tells = tells;
        let mut acknowledged = Vec::new();
        for number in 0..24 {
            match store.commit(batch(number)).await {
                Ok(()) => acknowledged.push(number),
                Err(CommitError::Full { bytes, .. }) => {
                    assert_eq!(bytes, 808);
                    refused += 1;
                }
                Err(error) => panic!("{left} blocks: {error}"),
            }
            assert_eq!(batches(&store.tables), acknowledged, "{left} blocks");
        }
        reopened += backend.disk().opened - 1;
        assert!(!tells || backend.disk().opened == 1, "the database was let run into it");
        for seed in 0..8 {
            let found = batches(&tables(&Backend::with(backend.disk().after_power_cut(seed))).unwrap());
            assert_eq!(found, acknowledged, "{left} blocks, seed {seed}");
        }
        // Somebody makes room.
        backend.disk().space = None;
        store.commit(batch(24)).await.unwrap();
        acknowledged.push(24);
        store.close();
        assert_eq!(batches(&tables(&backend).unwrap()), acknowledged);
    }
    assert!(refused > 100 && reopened > 20, "{refused} batches refused, {reopened} times opened anew");
}

#[tokio::test]
async fn a_flush_that_fails_stops_the_store_even_for_want_of_space() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        let backend = Backend::default();
        let (_dir, store) = store(&backend);
        store.commit(batch(0)).await.unwrap();
        backend.disk().flush_fails = Some(kind);
        let refused = store.commit(batch(1)).await.unwrap_err();
        let CommitError::Failed(failure @ Failure::Disk { .. }) = refused else {
            panic!("{kind}: {refused}")
        };
        assert!(failure.to_string().contains("a flush failed"), "{failure}");
        assert_eq!(store.failed().await, failure);
        assert_eq!(store.commit(batch(2)).await, Err(CommitError::Failed(failure)));
        assert_eq!(backend.disk().opened, 1, "and nothing is tried again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_group_that_does_not_fit_the_small_batches_are_committed() {
    for tells in [false, true] {
        let backend = Backend::default();
        let (_dir, store) = store(&backend);
        let store = Arc::new(store);
        let big = |number: u32| vec![put(Table::Published, &number.to_be_bytes(), &vec![7; 700 << 10])];
        let mut tasks = Vec::new();
        {
            // While the disk is held, the writer is stuck with the first batch and the others wait.
            let mut disk = backend.disk();
            (disk.tells, disk.space) = (tells, Some(disk.occupied.len() + 150));
            for number in 0..12_u32 {
                if number == 1 {
                    std::thread::sleep(Duration::from_millis(100));
                }
                let writes = if number % 3 == 1 { big(number) } else { batch(number) };
                let committing = Arc::clone(&store);
                tasks.push(tokio::spawn(async move { committing.commit(writes).await }));
                let waiting = usize::try_from(number).unwrap();
                while store.queue.as_ref().unwrap().capacity() > QUEUE_BATCHES - waiting {
                    std::thread::yield_now();
                }
            }
        }
        for (number, task) in (0..12).zip(tasks) {
            let outcome = task.await.unwrap();
            if number % 3 == 1 {
                assert!(
                    matches!(outcome, Err(CommitError::Full { bytes, .. }) if bytes > 700_000),
                    "{outcome:?}"
                );
            } else {
                assert_eq!(outcome, Ok(()));
            }
        }
        let expected: Vec<u32> = (0..12).filter(|number| number % 3 != 1).collect();
        assert_eq!(batches(&store.tables), expected);
        assert_eq!(store.scan(Table::Published).unwrap(), []);
        // Once for the group and once for the first that did not fit alone, however many there are.
        assert!(backend.disk().opened <= 5, "opened {} times", backend.disk().opened);
    }
}

#[tokio::test]
async fn a_full_disk_still_takes_what_only_removes() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    for number in 0..40 {
        store.commit(batch(number)).await.unwrap();
    }
    backend.disk().leave(20);
    backend.disk().tells = true;
    assert!(matches!(store.commit(batch(40)).await, Err(CommitError::Full { .. })));
    let all = |table| Write::RemoveRange { table, range: KeyRange::all() };
    store.commit(vec![all(Table::Records), all(Table::Providers)]).await.unwrap();
    assert!(batches(&store.tables).is_empty());
}

#[test]
fn reads_go_on_while_the_disk_is_full() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    runtime.block_on(store.commit(batch(7))).unwrap();
    backend.disk().leave(8);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut reads = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    assert!(store.get(Table::Records, &7_u32.to_be_bytes()).unwrap().is_some());
                    assert_eq!(store.scan(Table::Providers).unwrap().len(), 1);
                    reads += 1;
                }
                reads
            })
        });
        let big = || vec![put(Table::Records, b"big", &vec![1; 500 << 10])];
        for _ in 0..200 {
            let refused = runtime.block_on(store.commit(big()));
            assert!(matches!(refused, Err(CommitError::Full { .. })), "{refused:?}");
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert!(backend.disk().opened > 100);
}

#[tokio::test]
async fn a_range_is_read_in_parts_and_removed_whole() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    assert_eq!(store.range(Table::Records, &KeyRange::all(), 5).unwrap(), []);
    let key = |first: u8, second: u8| vec![first, second];
    let writes = (0..3).flat_map(|first| (0..4).map(move |second| (first, second)));
    let writes = writes.map(|(first, second)| put(Table::Records, &key(first, second), &[second]));
    store.commit(writes.collect()).await.unwrap();

    let mut range = KeyRange::prefix(&[1]);
    let mut parts = Vec::new();
    loop {
        let part = store.range(Table::Records, &range, 3).unwrap();
        let Some((last, _)) = part.last() else { break };
        range = range.after(last);
        parts.push(part.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
    }
    assert_eq!(parts, [vec![key(1, 0), key(1, 1), key(1, 2)], vec![key(1, 3)]]);
    assert_eq!(store.range(Table::Records, &KeyRange::all(), 0).unwrap(), []);

    // In the order of the batch: what is put after a removal stays. A range the wrong way round is empty.
    let remove = |range| Write::RemoveRange { table: Table::Records, range };
    let backwards = KeyRange::between(&[2], &[0]);
    assert_eq!(store.range(Table::Records, &backwards, 5).unwrap(), []);
    let writes = vec![
        put(Table::Records, &key(1, 9), b"before"),
        remove(KeyRange::prefix(&[1])),
        put(Table::Records, &key(1, 2), b"after"),
        remove(backwards),
        remove(KeyRange::between(&key(2, 1), &key(2, 3))),
    ];
    store.commit(writes).await.unwrap();
    let left = store.scan(Table::Records).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let expected = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (2, 0), (2, 3)];
    assert_eq!(left, expected.map(|(first, second)| key(first, second)));

    let long = KeyRange::between(b"", &[1; KEY_BYTES_MAX + 1]);
    let refused = store.commit(vec![remove(long)]).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { what: "bytes in a key", .. })), "{refused:?}");
}

#[tokio::test]
async fn a_power_cut_at_any_acknowledgement_loses_nothing() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    for number in 0..40 {
        store.commit(batch(number)).await.unwrap();
        for seed in 0..4 {
            let left = backend.disk().after_power_cut(seed);
            let found = batches(&tables(&Backend::with(left)).unwrap());
            assert_eq!(found, (0..=number).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

/// What is there after so many batches as documents write them: a snapshot in parts took the place of the one
/// before it and of its records, feeds were cut and went on, and the row says so.
fn document(number: u32) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let value = |part: u32| [number, part].map(u32::to_be_bytes).concat().repeat(500);
    let key = |part: u32| [number, part].map(u32::to_be_bytes).concat();
    let parts = (0..number % 4).map(|part| ((Table::DocSnapshots, key(part)), value(part)));
    let records = (0..number % 3).map(|record| ((Table::DocChanges, key(record)), value(record)));
    let posts = (0..number % 5).map(|post| ((Table::DocPosts, post.to_be_bytes().to_vec()), value(post)));
    let row = ((Table::Docs, b"row".to_vec()), number.to_be_bytes().to_vec());
    parts.chain(records).chain(posts).chain([row]).collect()
}

/// Makes of one the next.
fn next_document(number: u32) -> Vec<Write> {
    let gone = document(number - 1).into_keys().filter(|(table, _)| *table != Table::DocPosts);
    let gone = gone.map(|(table, key)| Write::Remove { table, key });
    let cut = Write::RemoveRange { table: Table::DocPosts, range: KeyRange::all() };
    let puts = document(number).into_iter().map(|((table, key), value)| Write::Put { table, key, value });
    gone.chain([cut]).chain(puts).collect()
}

/// The simulated disks of documents do all of a batch or nothing of it, and batches in order. This is why.
#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_batch_leaves_all_of_it_or_nothing() {
    let mut torn = 0;
    for step in 0.. {
        let backend = Backend::default();
        let (_dir, store) = store(&backend);
        backend.disk().fails_after = Some((step, io::ErrorKind::Other));
        let mut acknowledged = 0;
        for number in 1..=6 {
            match store.commit(next_document(number)).await {
                Ok(()) => acknowledged = number,
                Err(_failed) => break,
            }
        }
        for seed in 0..8 {
            let tables = tables(&Backend::with(backend.disk().after_power_cut(seed))).unwrap();
            let entries = |table| {
                let entries = scan(&tables, table).unwrap().into_iter();
                entries.map(move |(key, value)| ((table, key), value))
            };
            let documents = [Table::Docs, Table::DocChanges, Table::DocSnapshots, Table::DocPosts];
            let found: BTreeMap<_, _> = documents.into_iter().flat_map(entries).collect();
            let is_here = |number: u32| {
                if number == 0 { found.is_empty() } else { found == document(number) }
            };
            let which = [acknowledged, acknowledged + 1].into_iter().find(|number| is_here(*number));
            assert!(which.is_some(), "step {step}, seed {seed}: {acknowledged} acknowledged, {found:?}");
        }
        if acknowledged == 6 {
            break;
        }
        torn += 1;
    }
    assert!(torn > 50, "only {torn} steps failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_wait_together_share_one_transaction() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    let before = backend.disk().syncs;
    let mut outcomes = Vec::new();
    {
        // While the disk is held, the writer is stuck with the first batches and the others fill the queue.
        let _disk = backend.disk();
        for number in 0.. {
            let (done, outcome) = oneshot::channel();
            let waits = Batch { writes: batch(number), bytes: 0, done };
            if store.queue.as_ref().unwrap().try_send(waits).is_err() {
                break;
            }
            outcomes.push(outcome);
        }
    }
    let waited = outcomes.len();
    assert!(waited >= QUEUE_BATCHES, "only {waited} waited");
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
    // Two for a transaction: what the writer had in its hands, what waited, and what the database adds.
    let syncs = backend.disk().syncs - before;
    assert!(syncs <= 12, "{syncs} syncs for {waited} batches");
    assert_eq!(batches(&store.tables).len(), waited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_beyond_the_queue_wait_and_all_are_kept() {
    const BATCHES: u32 = 2 * QUEUE_BATCHES as u32 + 50;
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    let store = Arc::new(store);
    let mut tasks = Vec::new();
    {
        // While the disk is held, the writer is stuck with the first batches and the others fill the queue.
        let disk = backend.disk();
        // More than the writer's hands and the queue hold together.
        for number in 0..BATCHES {
            let store = Arc::clone(&store);
            tasks.push(tokio::spawn(async move { store.commit(batch(number)).await }));
        }
        while store.queue.as_ref().unwrap().capacity() > 0 {
            std::thread::yield_now();
        }
        assert!(!tasks.iter().any(tokio::task::JoinHandle::is_finished), "acknowledged without a disk");
        drop(disk);
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(batches(&store.tables).len(), BATCHES as usize);
}

#[tokio::test]
async fn queued_batches_are_finished_when_the_store_closes() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    let (done, outcome) = oneshot::channel();
    store.queue.as_ref().unwrap().send(Batch { writes: batch(7), bytes: 0, done }).await.unwrap();
    let failed = store.failed();
    store.close();
    outcome.await.unwrap().unwrap();
    assert_eq!(batches(&tables(&backend).unwrap()), [7]);
    let waits = tokio::time::timeout(Duration::ZERO, failed).await;
    assert!(waits.is_err(), "closing is no failure");
}

#[tokio::test]
async fn a_batch_over_a_cap_is_refused_and_the_store_goes_on() {
    let backend = Backend::default();
    let (_dir, store) = store(&backend);
    let remove = Write::Remove { table: Table::Records, key: Vec::new() };
    let refused = [
        (vec![put(Table::Records, &vec![0; KEY_BYTES_MAX + 1], b"")], "bytes in a key"),
        (vec![put(Table::Records, b"k", &vec![0; BATCH_BYTES_MAX])], "bytes"),
        (vec![remove; BATCH_WRITES_MAX + 1], "writes"),
    ];
    for (writes, what) in refused {
        let error = store.commit(writes).await.unwrap_err();
        assert!(matches!(error, CommitError::TooLarge { what: found, .. } if found == what), "{error}");
    }
    store
        .commit(vec![put(Table::Records, &[0; KEY_BYTES_MAX], &vec![7; BATCH_BYTES_MAX - KEY_BYTES_MAX])])
        .await
        .unwrap();
    assert_eq!(
        store.get(Table::Records, &[0; KEY_BYTES_MAX]).unwrap().unwrap().len(),
        BATCH_BYTES_MAX - KEY_BYTES_MAX
    );
    store.commit(Vec::new()).await.unwrap();
}

type Content = BTreeMap<Table, Vec<Entry>>;

/// A file of a few pages after several batches, the last of which removes: as a kill leaves it, and closed.
fn small_images() -> ([Vec<u8>; 2], Content) {
    let backend = Backend::default();
    let tables = tables(&backend).unwrap();
    for number in 0..6 {
        tables.commit(&batch(number).iter().collect::<Vec<_>>()).unwrap();
    }
    tables.commit(&[&Write::Remove { table: Table::Records, key: 0_u32.to_be_bytes().to_vec() }]).unwrap();
    let content = Table::ALL.map(|table| (table, scan(&tables, table).unwrap()));
    let killed = backend.disk().synced.clone();
    drop(tables);
    let closed = backend.disk().image.clone();
    ([killed, closed], content.into_iter().collect())
}

/// Opens a damaged image: whether it was refused. Not refused, it must hold exactly what was committed.
fn is_refused(image: Vec<u8>, content: &Content, what: &str) -> bool {
    let opened = match tables(&Backend::with(image)) {
        Ok(opened) => opened,
        Err(Failure::Corrupt { .. }) => return true,
        Err(other) => panic!("{what}: damage is reported as {other}"),
    };
    for (table, entries) in content {
        match scan(&opened, *table) {
            Ok(found) => assert!(&found == entries, "{what}: other data, silently"),
            Err(Failure::Corrupt { .. }) => return true,
            Err(other) => panic!("{what}: damage is reported as {other}"),
        }
    }
    false
}

/// Refused, or exactly the state now or one commit before: that commit removed record 0 and nothing else.
fn assert_is_one_commit_old(image: Vec<u8>, content: &Content) {
    let Ok(opened) = tables(&Backend::with(image)) else { return };
    for (table, entries) in content {
        let mut found = scan(&opened, *table).unwrap();
        if *table == Table::Records && found.len() > entries.len() {
            assert_eq!(found.remove(0).0, 0_u32.to_be_bytes());
        }
        assert_eq!(&found, entries);
    }
}

#[test]
fn a_flipped_bit_is_found_or_does_no_harm() {
    // The bytes that decide which state is current.
    const HEADER: usize = 512;
    // The one bit that no checksum covers: which of the two last commits is current. See `S5` for what it can
    // do.
    const CURRENT: (usize, u8) = (9, 1);
    let (images, content) = small_images();
    for image in images {
        let mut refused = 0;
        for at in 0..image.len() {
            // Every bit of the header; one bit of each other byte, and a sixteenth of what is unused.
            let bits: &[u8] = if at < HEADER { &[1, 2, 4, 8, 16, 32, 64, 128] } else { &[1 << (at % 8)] };
            if at >= HEADER && image[at] == 0 && at % 16 != 0 {
                continue;
            }
            for bit in bits {
                let mut damaged = image.clone();
                damaged[at] ^= bit;
                if (at, *bit) == CURRENT {
                    assert_is_one_commit_old(damaged, &content);
                    continue;
                }
                refused += u32::from(is_refused(damaged, &content, &format!("byte {at}, bit {bit:#04x}")));
            }
        }
        assert!(refused > 1000, "only {refused} flips were noticed");
    }
}

#[test]
fn a_cut_or_overwritten_database_is_refused() {
    let ([_, image], content) = small_images();
    for length in (1..image.len()).step_by(512) {
        let cut = image[..length].to_vec();
        assert!(is_refused(cut, &content, &format!("{length} bytes")), "{length} bytes of {}", image.len());
    }
    assert!(is_refused(vec![0; image.len()], &content, "zeros"));
    assert!(is_refused(b"SQLite format 3\0".repeat(512), &content, "another program's file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn the_tables_hold_what_ordered_maps_would(
        script in prop::collection::vec(
            prop::collection::vec((0..7_usize, any::<Option<u8>>(), 0..20_u8, 0..40_u8), 0..8),
            0..20,
        )
    ) {
        let backend = Backend::default();
        let mut open = tables(&backend).unwrap();
        let mut model: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>> = BTreeMap::new();
        for (number, writes) in script.iter().enumerate() {
            let writes: Vec<Write> = writes.iter().map(|&(table, value, key, to)| {
                let name = |key: u8| vec![key; usize::from(key)];
                let (table, key) = (Table::ALL[table], name(key));
                match value {
                    Some(value) => Write::Put { table, key, value: vec![value; usize::from(value)] },
                    None if to < 20 => Write::RemoveRange { table, range: KeyRange::between(&key, &name(to)) },
                    None => Write::Remove { table, key },
                }
            }).collect();
            open.commit(&writes.iter().collect::<Vec<_>>()).unwrap();
            for write in writes {
                match write {
                    Write::Put { table, key, value } => { model.entry(table).or_default().insert(key, value); }
                    Write::Remove { table, key } => { model.entry(table).or_default().remove(&key); }
                    Write::RemoveRange { table, range } => {
                        model.entry(table).or_default().retain(|key, _| !range.contains(key));
                    }
                }
            }
            if number % 5 == 4 {
                drop(open);
                open = tables(&backend).unwrap();
            }
        }
        for table in Table::ALL {
            let expected: Vec<Entry> = model.remove(&table).unwrap_or_default().into_iter().collect();
            for (key, value) in &expected {
                let found = open.get(table, key).unwrap();
                prop_assert_eq!(found.as_ref(), Some(value));
            }
            prop_assert_eq!(scan(&open, table).unwrap(), expected);
            prop_assert_eq!(open.get(table, b"absent").unwrap(), None);
        }
    }
}
