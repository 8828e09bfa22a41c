//! Files of the user's, which others write too: one program each keeps them, and nobody's last words are lost.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::files::{Temporary, sync_parent, write_temporary};

/// A file that took the place of another.
#[derive(Debug)]
pub struct Swapped {
    /// The one that stands at the path now, locked as [`lock_file`] does.
    pub new: File,
    /// The one that stood there; it has no name any more. A program that had it open may still write to it.
    pub old: File,
}

/// Locks a file, so that no two of our processes keep it: none when another one holds the lock. It lasts as long
/// as the handle. The lock is on the file and not on its name: who replaces the file locks the new one.
///
/// # Errors
/// What the system said.
pub fn lock_file(path: &Path) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts a file with these bytes in the place of the one at `path`, which must exist, in one step, and gives the
/// old one back: what somebody wrote to it a moment ago can be read there. The new one has the old one's mode,
/// and its owner where this user may give files away.
///
/// # Errors
/// What the system said; the file is as it was. Only when the last step fails, making the new name durable, the
/// new content may be in place already.
pub fn swap_file(path: &Path, bytes: &[u8]) -> io::Result<Swapped> {
    let target = std::fs::canonicalize(path)?;
    let found = std::fs::metadata(&target)?;
    let temporary = write_temporary(&target, bytes, Some(found.mode() & 0o7777))?;
    let new = File::open(&temporary.0)?;
    flock(&new, FlockOperation::NonBlockingLockExclusive)?;
    // Ignored because only root may, and a file of this user's own needs it not.
    drop(std::os::unix::fs::fchown(&new, Some(found.uid()), Some(found.gid())));
    new.set_permissions(Permissions::from_mode(found.mode() & 0o7777))?;
    let old = match renameat_with(CWD, &temporary.0, CWD, &target, RenameFlags::EXCHANGE) {
        Ok(()) => File::open(&temporary.0)?,
        // A file system that cannot exchange two names: what is written between these two lines is lost.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            let old = File::open(&target)?;
            std::fs::rename(&temporary.0, &target)?;
            old
        }
        Err(error) => return Err(error.into()),
    };
    drop::<Temporary>(temporary);
    sync_parent(&target)?;
    Ok(Swapped { new, old })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_swap_gives_back_what_stood_there_and_what_is_still_written_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        std::fs::write(&path, "one\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut editor = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut swapped = swap_file(&path, b"two\n").unwrap();
        editor.write_all(b"late\n").unwrap();
        let mut old = String::new();
        swapped.old.read_to_string(&mut old).unwrap();
        assert_eq!(old, "one\nlate\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_has_one_keeper_also_after_it_was_swapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        std::fs::write(&path, "one\n").unwrap();
        let first = lock_file(&path).unwrap().unwrap();
        assert!(lock_file(&path).unwrap().is_none());
        let swapped = swap_file(&path, b"two\n").unwrap();
        drop((first, swapped.old));
        assert!(lock_file(&path).unwrap().is_none());
        drop(swapped.new);
        assert!(lock_file(&path).unwrap().is_some());
    }
}
