//! Why the store stopped for good.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

/// The fault that stopped the store. Nobody's input causes it: the disk, or the file on it, is at fault.
///
/// Once a call returned this, every later call returns the same one, and nothing is acknowledged until the
/// node is started again: after a failed fsync the kernel may have dropped the very pages that were to be
/// saved, so a second try that succeeds proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No space, or no quota, is left to open the database: at the start, or after a commit that found none.
    /// A commit alone is only refused for that ([`CommitError::Full`](crate::CommitError::Full)). What was
    /// acknowledged is safe; the batches in flight are not there. To do: free space, then start the node
    /// again.
    #[error("no space is left on the disk of {file}")]
    DiskFull {
        /// The database.
        file: PathBuf,
    },
    /// The operating system could not read or write. The batches in flight may or may not be there after the
    /// next start; all acknowledged ones are, if the disk keeps its word. To do: check the disk (`dmesg`),
    /// then start again.
    #[error("the disk of {file} failed: {why}")]
    Disk {
        /// The database.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The bytes on disk are not those that were written. Nothing was changed by finding out. To do: stop the
    /// node and put back a copy of the data directory; without one, move the damaged file away (`mv FILE
    /// FILE.damaged`) together with `VERSION` and start empty: identity and configuration are elsewhere and
    /// stay.
    #[error("{file} is damaged: {why}")]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Failure {
    /// Sorts an error of the operating system.
    pub(crate) fn from_io(file: &Path, error: &io::Error) -> Self {
        let file = file.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { file },
            // What a file that is no database, or is cut short, looks like through read calls.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { file, why: error.to_string() }
            }
            _ => Self::Disk { file, why: error.to_string() },
        }
    }

    /// Sorts an error of the database.
    pub(crate) fn from_redb(file: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::from_io(file, &error),
            redb::Error::Corrupted(why) => Self::Corrupt { file: file.to_owned(), why },
            // A table with other types, or a file of another format, is not what this program wrote.
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::UpgradeRequired(_)) => {
                Self::Corrupt { file: file.to_owned(), why: error.to_string() }
            }
            error => Self::Disk { file: file.to_owned(), why: error.to_string() },
        }
    }

    /// A panic inside the database: it asserts what no file that it wrote can violate.
    pub(crate) fn from_panic(file: &Path, panic: &(dyn Any + Send)) -> Self {
        let why = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Self::Corrupt { file: file.to_owned(), why: format!("the database gave up on it ({why})") }
    }
}
