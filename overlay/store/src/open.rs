//! The steps from a path to an open data directory, and what can stand in the way.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::files::sync_parent;
use crate::lock::{Lock, NotLocked, Owner};
use crate::tables::{self, Tables};
use crate::version;

const DATABASE_DIR: &str = "db";
const DATABASE_FILE: &str = "tables.redb";

/// Why the data directory was not opened. Unless a variant says otherwise, nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer program made this directory. Nobody's fault, and nothing was touched. To do: run that program,
    /// or give this one another directory (`wattle -n OTHER run`).
    #[error("{dir} has data format {found}, and this program knows format {known}{}", needed(.needs.as_deref()))]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
        /// The first program that knows its format, if the directory says so.
        needs: Option<String>,
    },
    /// The format of the directory cannot be told. To do: put back a copy of the directory; if you know that
    /// the data is of format 1, write the file anew: `echo 1 > VERSION`.
    #[error("{file} does not say which data format this is: {why}")]
    Version {
        /// The file `VERSION`.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another process runs on this directory. To do: use that node, stop it, or start a second one under
    /// another name. There is never a lock to remove by hand.
    #[error("{dir} is in use by another process{}", described(.owner.as_deref()))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who runs there, if it has said so yet.
        owner: Option<Box<Owner>>,
    },
    /// The database cannot be opened. What it holds stays as it is; a full disk may leave `VERSION`, `LOCK`
    /// and an empty database behind, which the next start takes up. To do: see the [`Failure`].
    #[error(transparent)]
    Database(#[from] Failure),
    /// The system refused a step before the database. A directory just made may stay. To do: check the path,
    /// its permissions and the space on its disk.
    #[error("{path}: {source}")]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Database(Failure::DiskFull { file: path.to_owned() })
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

fn needed(needs: Option<&str>) -> String {
    needs.map(|needs| format!("; it needs {needs} or newer")).unwrap_or_default()
}

fn described(owner: Option<&Owner>) -> String {
    owner.map(|owner| format!(" (node {:?}, pid {})", owner.node, owner.pid)).unwrap_or_default()
}

/// Steps 1 to 4 of the specification.
pub(crate) fn open(dir: &Path, owner: Owner) -> Result<(Lock, Tables), OpenError> {
    version::check(dir)?;
    make_dir(dir)?;
    let lock = Lock::take(dir, owner).map_err(|error| match error {
        NotLocked::Held(owner) => OpenError::Locked { dir: dir.to_owned(), owner: owner.map(Box::new) },
        NotLocked::Io(source) => OpenError::from_io(&dir.join("LOCK"), source),
    })?;
    // Again: another program may have upgraded the directory between the first look and the lock.
    let has_version = version::check(dir)?;
    make_dir(&dir.join(DATABASE_DIR))?;
    let tables = open_tables(dir, has_version)?;
    if !has_version {
        version::write(dir)?;
    }
    Ok((lock, tables))
}

fn open_tables(dir: &Path, has_version: bool) -> Result<Tables, OpenError> {
    let file = dir.join(DATABASE_DIR).join(DATABASE_FILE);
    let exists = file.try_exists().map_err(|error| OpenError::from_io(&file, error))?;
    match (has_version, exists) {
        (true, true) => Ok(Tables::open(&file)?),
        // A database made now would pass the loss of everything off as a first start.
        (true, false) => Err(Failure::Corrupt { file, why: "it is missing".to_owned() }.into()),
        (false, false) => {
            tables::create(&file)?;
            Ok(Tables::open(&file)?)
        }
        // A first start that was killed before it wrote VERSION leaves a database without a table. With one,
        // the file VERSION was lost, and with it the knowledge of what the tables mean.
        (false, true) => {
            let tables = Tables::open(&file)?;
            match tables.is_untouched()? {
                true => Ok(tables),
                false => Err(OpenError::Version {
                    file: dir.join("VERSION"),
                    why: "it is missing, yet there is data",
                }),
            }
        }
    }
}

/// Makes the directory for this user alone. One that exists keeps its mode, since an administrator may have
/// chosen it (a container's volume); its files are closed to others in any case.
fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::from_io(dir, source);
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o022 != 0 {
                tracing::warn!(dir = %dir.display(), mode = format_args!("{mode:04o}"), "others can replace files in the data directory");
            }
            Ok(())
        }
        Ok(_) => Err(io(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
            sync_parent(dir).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}
