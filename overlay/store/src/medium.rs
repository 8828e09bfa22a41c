//! What the tables lie on: a file and the space around it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Bound, Range};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, OFlags};

use crate::failure::Failure;

/// Where a database can be opened, and opened anew. The tests bring one of memory that fails on command.
pub(crate) trait Medium: Send + Sync {
    /// Its bytes.
    fn open(&self) -> Result<Box<dyn StorageBackend>, Failure>;
    /// How many more bytes may be written there, if that can be told.
    fn free_bytes(&self) -> Option<u64>;
    /// Frees the space of these bytes, in which nothing is that anybody will read, if that is possible.
    fn give_back(&self, unused: &[Range<u64>]);
}

/// A file of its own.
pub(crate) struct DiskFile {
    path: PathBuf,
}

impl DiskFile {
    /// Makes the file at this path, which must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        open(path, true)?;
        Ok(Self { path: path.to_owned() })
    }

    /// The file at this path, with data that this program wrote.
    pub(crate) fn existing(path: &Path) -> Result<Self, Failure> {
        // The database would make a fresh, empty one of an empty file: every entry lost without a word.
        let length = open(path, false)?.metadata().map_err(|error| Failure::from_io(path, &error))?.len();
        match length {
            0 => Err(Failure::Corrupt { file: path.to_owned(), why: "it is empty".to_owned() }),
            _ => Ok(Self { path: path.to_owned() }),
        }
    }
}

fn open(path: &Path, new: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(new).mode(0o600);
    let opened = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path);
    opened.map_err(|error| Failure::from_io(path, &error))
}

impl Medium for DiskFile {
    fn open(&self) -> Result<Box<dyn StorageBackend>, Failure> {
        let backend = FileBackend::new(open(&self.path, false)?);
        Ok(Box::new(backend.map_err(|error| Failure::from_redb(&self.path, error.into()))?))
    }

    fn free_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.path).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn give_back(&self, unused: &[Range<u64>]) {
        let Ok(file) = open(&self.path, false) else { return };
        for bytes in unused {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if let Err(error) =
                rustix::fs::fallocate(&file, hole, bytes.start, bytes.end.saturating_sub(bytes.start))
            {
                // The space stays with the database, which will use it for other pages.
                tracing::debug!(%error, "space that a commit took in vain cannot be given back");
                return;
            }
        }
    }
}

/// Where the pages of the database begin. Before them is its header, the only thing that is written in place.
const PAGES: u64 = 4096;

/// What was written since the last flush. None of it is part of a commit: all pages of one are flushed before
/// it becomes current.
#[derive(Debug, Default)]
pub(crate) struct Unflushed(Mutex<Vec<Range<u64>>>);

impl Unflushed {
    fn wrote(&self, offset: u64, bytes: usize) {
        if offset >= PAGES {
            let end = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            self.lock().push(offset..end);
        }
    }

    /// Takes it, neighbours joined.
    pub(crate) fn take(&self) -> Vec<Range<u64>> {
        let mut parts = std::mem::take(&mut *self.lock());
        parts.sort_unstable_by_key(|part| part.start);
        parts.dedup_by(|next, joined| {
            let touches = next.start <= joined.end;
            if touches {
                joined.end = joined.end.max(next.end);
            }
            touches
        });
        parts
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Storage on which a flush that fails is never mistaken for one that found no space: the system may have
/// dropped what was to be flushed, whatever it says of the reason. It also knows what was not flushed.
#[derive(Debug)]
pub(crate) struct Flushed(pub(crate) Box<dyn StorageBackend>, pub(crate) Arc<Unflushed>);

impl StorageBackend for Flushed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data().map_err(|error| io::Error::other(format!("a flush failed: {error}")))?;
        self.1.lock().clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.wrote(offset, data.len());
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
