//! The one place that names the database: named tables of bytes in one redb file.

use std::any::Any;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError};
use wattle_types::{KeyRange, Table, Write};

use crate::failure::Failure;
use crate::medium::{DiskFile, Flushed, Medium, Unflushed};

/// Pages kept in memory. Reads happen at start and on API calls, so a small cache does; the default is 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

/// A key with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The database, open.
pub(crate) struct Tables {
    file: PathBuf,
    medium: Box<dyn Medium>,
    /// Written only to open it anew; `None` when that failed.
    database: RwLock<Option<Open>>,
    /// Held by a commit until the database is in order again. A read that meets one that is not waits here.
    settled: Mutex<()>,
    /// Somebody wants to see what a full disk does.
    pretends_full: AtomicBool,
}

/// The database, and what of its file may be given back when it must be opened anew.
struct Open {
    database: Database,
    unflushed: Arc<Unflushed>,
}

/// Why nothing was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotCommitted {
    /// There is no space for it. Nothing of it is there, and the next one may be tried.
    Full,
    /// The disk's fault: the store must stop.
    Failed(Failure),
}

impl Tables {
    pub(crate) fn open(file: &Path) -> Result<Self, Failure> {
        Self::open_on(Box::new(DiskFile::existing(file)?), file)
    }

    /// Opens on any medium: the tests bring one that fails on command.
    pub(crate) fn open_on(medium: Box<dyn Medium>, file: &Path) -> Result<Self, Failure> {
        let database = RwLock::new(Some(Open::on(&*medium, file)?));
        let pretends_full = AtomicBool::new(false);
        Ok(Self { file: file.to_owned(), medium, database, settled: Mutex::new(()), pretends_full })
    }

    /// The database's file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// How many more bytes may be written, if that can be told.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        if self.pretends_full() { Some(0) } else { self.medium.free_bytes() }
    }

    pub(crate) fn pretend_full(&self, full: bool) {
        self.pretends_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn pretends_full(&self) -> bool {
        self.pretends_full.load(Ordering::Relaxed)
    }

    /// Whether nothing was ever committed: tables are made by their first write.
    pub(crate) fn is_untouched(&self) -> Result<bool, Failure> {
        self.read(|database| Ok(database.begin_read()?.list_tables()?.next().is_none()))
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.read(|database| match open_table(database, table)? {
            Some(open) => Ok(open.get(key)?.map(|value| value.value().to_vec())),
            None => Ok(None),
        })
    }

    /// The first entries of a range, so many at most.
    pub(crate) fn range(&self, table: Table, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, Failure> {
        self.read(|database| {
            let mut entries = Vec::new();
            let Some(open) = open_table(database, table)? else { return Ok(entries) };
            for entry in open.range::<&[u8]>(bounds(range))?.take(limit) {
                let (key, value) = entry?;
                entries.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(entries)
        })
    }

    /// Reads. When a commit that found no space has just taken the database along, waits until it is back.
    fn read<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        match self.with(&work) {
            Err(Fault::Redb(redb::Error::PreviousIo)) => {}
            outcome => return outcome.map_err(|fault| fault.into_failure(&self.file)),
        }
        let _settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        self.with(&work).map_err(|fault| fault.into_failure(&self.file))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Fault> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        // Without one the store has stopped, with the reason for that.
        let Some(open) = &*open else { return Err(Fault::Redb(redb::Error::DatabaseClosed)) };
        guard(|| work(&open.database))
    }

    /// Applies the writes in order, all or none; on disk when this returns.
    pub(crate) fn commit(&self, writes: &[&Write]) -> Result<(), NotCommitted> {
        let _settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = match self.with(|database| transact(database, writes)) {
            Ok(()) => return Ok(()),
            Err(fault) => fault.into_failure(&self.file),
        };
        if !matches!(fault, Failure::DiskFull { .. }) {
            return Err(NotCommitted::Failed(fault));
        }
        // After any error the database refuses all further work until it is opened anew. What is then there is
        // the last commit: the space ran out before this one became current.
        self.reopen().map_err(NotCommitted::Failed)?;
        Err(NotCommitted::Full)
    }

    fn reopen(&self) -> Result<(), Failure> {
        let mut open = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Open { database, unflushed }) = open.take() {
            // First, since it holds the file's lock.
            drop(database);
            // Otherwise the batch that did not fit would leave no space for those that do.
            self.medium.give_back(&unflushed.take());
        }
        *open = Some(Open::on(&*self.medium, &self.file)?);
        Ok(())
    }
}

impl Open {
    fn on(medium: &dyn Medium, file: &Path) -> Result<Self, Failure> {
        let unflushed = Arc::new(Unflushed::default());
        let backend = Flushed(medium.open()?, Arc::clone(&unflushed));
        let opened = guard(|| {
            // Checksums are verified at open or never: a page read later is trusted.
            let mut builder = redb::Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(backend)?)
        });
        Ok(Self { database: opened.map_err(|fault| fault.into_failure(file))?, unflushed })
    }
}

fn transact(database: &Database, writes: &[&Write]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // Peers choose much of what is stored. With one phase, what makes a commit whole is a checksum that they
    // could aim at, and one damaged page would quietly bring back the state before the last acknowledgement.
    transaction.set_two_phase_commit(true);
    for table in Table::ALL {
        let mut here = writes.iter().filter(|write| table_of(write) == table).peekable();
        if here.peek().is_none() {
            continue;
        }
        let mut open = transaction.open_table(definition(table))?;
        for write in here {
            match write {
                Write::Put { key, value, .. } => drop(open.insert(&key[..], &value[..])?),
                Write::Remove { key, .. } => drop(open.remove(&key[..])?),
                Write::RemoveRange { range, .. } => {
                    open.retain_in::<&[u8], _>(bounds(range), |_, _| false)?;
                }
            }
        }
    }
    Ok(transaction.commit()?)
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

type Opened = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A table as of the last commit, if anything was ever written to it.
fn open_table(database: &Database, table: Table) -> Result<Option<Opened>, redb::Error> {
    match database.begin_read()?.open_table(definition(table)) {
        Ok(open) => Ok(Some(open)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A range as the database wants it.
fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(range.from()), range.to().map_or(Bound::Unbounded, Bound::Excluded))
}

const fn table_of(write: &Write) -> Table {
    match write {
        Write::Put { table, .. } | Write::Remove { table, .. } | Write::RemoveRange { table, .. } => *table,
    }
}

/// What one use of the database came to.
enum Fault {
    Redb(redb::Error),
    Panic(Box<dyn Any + Send>),
}

impl Fault {
    fn into_failure(self, file: &Path) -> Failure {
        match self {
            Self::Redb(error) => Failure::from_redb(file, error),
            Self::Panic(panic) => Failure::from_panic(file, &*panic),
        }
    }
}

/// Runs one use of the database; its panics become [`Failure::Corrupt`]. After a panic the store is not used
/// again, so no state that one left half changed is ever seen.
fn guard<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(Fault::Redb),
        Err(panic) => Err(Fault::Panic(panic)),
    }
}

/// Makes an empty database at `file` through a neighbouring name, so that a kill leaves either none or a
/// whole one.
pub(crate) fn create(file: &Path) -> Result<(), Failure> {
    let unfinished = file.with_extension("unfinished");
    let io = |error: io::Error| Failure::from_io(file, &error);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    drop(Tables::open_on(Box::new(DiskFile::create(&unfinished)?), &unfinished)?);
    std::fs::File::open(&unfinished).and_then(|made| made.sync_all()).map_err(io)?;
    std::fs::rename(&unfinished, file).map_err(io)?;
    crate::files::sync_parent(file).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicU32, Ordering};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;

    struct Memory;

    impl Medium for Memory {
        fn open(&self) -> Result<Box<dyn StorageBackend>, Failure> {
            Ok(Box::new(InMemoryBackend::new()))
        }

        fn free_bytes(&self) -> Option<u64> {
            None
        }

        fn give_back(&self, _: &[Range<u64>]) {}
    }

    #[test]
    fn a_read_that_meets_a_commit_without_space_waits_until_the_database_is_in_order_again() {
        let tables = Tables::open_on(Box::new(Memory), Path::new("memory")).unwrap();
        let committing = tables.settled.lock().unwrap();
        let tries = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                tables.read(|_| match tries.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(redb::Error::PreviousIo),
                    _ => Ok("read"),
                })
            });
            while tries.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!reading.is_finished(), "it did not wait");
            drop(committing);
            assert_eq!(reading.join().unwrap(), Ok("read"));
        });
        let still_failed = tables.read::<()>(|_| Err(redb::Error::PreviousIo));
        assert!(matches!(still_failed, Err(Failure::Disk { .. })), "{still_failed:?}");
    }

    #[test]
    fn a_panic_of_the_database_is_damage_and_not_the_end_of_the_process() {
        let outcome: Result<(), _> = guard(|| panic!("page 7 is its own parent"));
        let Err(fault) = outcome else { panic!("no fault") };
        let Failure::Corrupt { why, .. } = fault.into_failure(Path::new("tables.redb")) else {
            panic!("no damage")
        };
        assert!(why.contains("page 7 is its own parent"), "{why}");
    }
}
