//! The one place that names the database: named tables of bytes in one redb file.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use rustix::fs::OFlags;
use wattle_types::{KeyRange, Table, Write};

use crate::failure::Failure;

/// Pages kept in memory. Reads happen at start and on API calls, so a small cache does; the default is 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

/// A key with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The database, open.
pub(crate) struct Tables {
    database: Database,
    file: PathBuf,
}

/// Whether the file must be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// There is no file yet: make it.
    Absent,
    /// There is one, with data that this program wrote.
    Present,
}

impl Tables {
    pub(crate) fn open(file: &Path, expect: Expect) -> Result<Self, Failure> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(expect == Expect::Absent)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(file);
        let length = opened.as_ref().map_or(Ok(0), |opened| opened.metadata().map(|it| it.len()));
        let (opened, length) = match (opened, length) {
            (Ok(opened), Ok(length)) => (opened, length),
            (Err(error), _) | (_, Err(error)) => return Err(Failure::from_io(file, &error)),
        };
        // The database would make a fresh, empty one of an empty file: every entry lost without a word.
        if expect == Expect::Present && length == 0 {
            return Err(Failure::Corrupt { file: file.to_owned(), why: "it is empty".to_owned() });
        }
        let backend = redb::backends::FileBackend::new(opened)
            .map_err(|error| Failure::from_redb(file, error.into()))?;
        Self::open_on(backend, file)
    }

    /// Opens on any storage: the tests bring one that fails on command.
    pub(crate) fn open_on(backend: impl StorageBackend, file: &Path) -> Result<Self, Failure> {
        let database = guard(file, || {
            // Checksums are verified at open or never: a page read later is trusted.
            let mut builder = redb::Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(backend)?)
        })?;
        Ok(Self { database, file: file.to_owned() })
    }

    /// Whether nothing was ever committed: tables are made by their first write.
    pub(crate) fn is_untouched(&self) -> Result<bool, Failure> {
        guard(&self.file, || Ok(self.database.begin_read()?.list_tables()?.next().is_none()))
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        guard(&self.file, || match self.database.begin_read()?.open_table(definition(table)) {
            Ok(open) => Ok(open.get(key)?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// The first entries of a range, so many at most.
    pub(crate) fn range(&self, table: Table, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, Failure> {
        guard(&self.file, || {
            let open = match self.database.begin_read()?.open_table(definition(table)) {
                Ok(open) => open,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut entries = Vec::new();
            for entry in open.range::<&[u8]>(bounds(range))?.take(limit) {
                let (key, value) = entry?;
                entries.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(entries)
        })
    }

    /// Applies the writes in order, all or none; on disk when this returns.
    pub(crate) fn commit(&self, writes: &[&Write]) -> Result<(), Failure> {
        guard(&self.file, || {
            let mut transaction = self.database.begin_write()?;
            // Peers choose much of what is stored. With one phase, what makes a commit whole is a checksum
            // that they could aim at, and one damaged page would quietly bring back the state before the last
            // acknowledgement.
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
        })
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

const fn table_of(write: &Write) -> Table {
    match write {
        Write::Put { table, .. } | Write::Remove { table, .. } | Write::RemoveRange { table, .. } => *table,
    }
}

/// A range as the database wants it.
fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(range.from()), range.to().map_or(Bound::Unbounded, Bound::Excluded))
}

/// Runs one use of the database; its panics become [`Failure::Corrupt`]. After any failure the store is not
/// used again, so no state that a panic left half changed is ever seen.
fn guard<T>(file: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::from_redb(file, error)),
        Err(panic) => Err(Failure::from_panic(file, &*panic)),
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
    drop(Tables::open(&unfinished, Expect::Absent)?);
    std::fs::File::open(&unfinished).and_then(|made| made.sync_all()).map_err(io)?;
    std::fs::rename(&unfinished, file).map_err(io)?;
    crate::files::sync_parent(file).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_database_is_damage_and_not_the_end_of_the_process() {
        let outcome: Result<(), _> = guard(Path::new("tables.redb"), || panic!("page 7 is its own parent"));
        let Err(Failure::Corrupt { why, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("page 7 is its own parent"), "{why}");
    }
}
