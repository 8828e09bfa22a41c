//! The file of a binding: reading it whole, hearing of it, its lock.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use wattle_types::limits::DOCUMENT_TEXT_BYTES_MAX;

use super::super::errors::{Failure, of_io};

/// Between two looks that must be alike before a file counts as written.
const SETTLES_IN: Duration = Duration::from_millis(30);
/// How long an emptied or missing file may be one that is being written.
const EMPTY_MAX: Duration = Duration::from_millis(400);
/// A file that never stands still is read as it is after this long.
const SETTLES_MAX: Duration = Duration::from_secs(2);

/// A file that was replaced: an editor that had it open may still write to it.
pub(super) struct Replaced {
    file: File,
    held: Vec<u8>,
}

impl Replaced {
    pub(super) const fn new(file: File) -> Self {
        Self { file, held: Vec::new() }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut held = Vec::new();
        self.file.read_to_end(&mut held)?;
        Ok(held)
    }

    /// What it holds once nobody is in the middle of writing it.
    pub(super) async fn settled(&mut self, had_text: bool) -> io::Result<Vec<u8>> {
        let began = Instant::now();
        let mut held = self.read()?;
        loop {
            tokio::time::sleep(SETTLES_IN).await;
            let again = self.read()?;
            let still = again == held;
            held = again;
            let waited = began.elapsed();
            let doubtful = had_text && held.is_empty() && waited <= EMPTY_MAX;
            if (still && !doubtful) || waited > SETTLES_MAX {
                self.held.clone_from(&held);
                return Ok(held);
            }
        }
    }

    /// What it holds, if that is something else than the last time.
    pub(super) async fn news(&mut self) -> io::Result<Option<Vec<u8>>> {
        let before = self.held.clone();
        if self.read()? == before {
            return Ok(None);
        }
        let now = self.settled(!before.is_empty()).await?;
        Ok(Some(now).filter(|now| *now != before))
    }
}

/// What is at the path; none where nothing is.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        // What is longer cannot be a document's text; the node says so of a little more than allowed.
        Ok(found) if found.len() > 2 * DOCUMENT_TEXT_BYTES_MAX as u64 => {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "it is too large for a document"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What tells two states of a file apart without reading it.
fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// What is at the path once it stands still: an editor may have emptied it and be about to write, or have moved
/// it away to put another in its place.
pub(super) async fn read_settled(path: &Path, had_text: bool) -> io::Result<Option<Vec<u8>>> {
    let began = Instant::now();
    loop {
        let before = stamp(path);
        tokio::time::sleep(SETTLES_IN).await;
        let found = read(path)?;
        let still = before == stamp(path);
        let doubtful = had_text && found.as_ref().is_none_or(Vec::is_empty);
        let waited = began.elapsed();
        if (still && (!doubtful || waited > EMPTY_MAX)) || waited > SETTLES_MAX {
            return Ok(found);
        }
    }
}

/// Locks the file at the path, or says who has it.
pub(super) fn lock(path: &Path, shown: &str) -> Result<File, Failure> {
    let locked = wattle_store::lock_file(path);
    let locked = locked.map_err(|error| of_io("lock", Path::new(shown), &error))?;
    locked.ok_or_else(|| super::taken(shown))
}

/// Whether this open file is the one at the path, or nothing is there.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(mine), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return true };
    (mine.dev(), mine.ino()) == (there.dev(), there.ino())
}

/// Keeps bytes beside the file, under a name that is free.
pub(super) fn keep_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut number = 1;
    loop {
        let beside = path.with_file_name(format!("{name}.old{number}"));
        match wattle_store::create_file(&beside, bytes) {
            Ok(()) => return Ok(beside),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(of_io("write", &beside, &error).into()),
        }
    }
}

/// Tells when something is done to the file. The directory is watched, because an editor may put another file in
/// its place. None where the system has no notifications.
pub(super) fn watcher(path: &Path, notices: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let (directory, name) = (path.parent()?, path.file_name()?.to_owned());
    let tell = move |event: notify::Result<notify::Event>| {
        let concerns = event.is_ok_and(|event| {
            let read_only = matches!(event.kind, EventKind::Access(access)
                if access != AccessKind::Close(AccessMode::Write));
            !read_only && event.paths.iter().any(|path| path.file_name() == Some(&name))
        });
        // Where it is full, what waits already says the same.
        if concerns && notices.try_send(()).is_err() {
            tracing::trace!("a notification more than are read");
        }
    };
    let mut watcher = notify::recommended_watcher(tell).ok()?;
    watcher.watch(directory, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_being_written_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        std::fs::write(&path, "").unwrap();
        let writes = path.clone();
        let editor = tokio::task::spawn_blocking(move || {
            for part in ["one\n", "one\ntwo\n", "one\ntwo\nthree\n"] {
                std::thread::sleep(Duration::from_millis(20));
                std::fs::write(&writes, part).unwrap();
            }
        });
        let read = read_settled(&path, true).await.unwrap();
        editor.await.unwrap();
        assert_eq!(read.as_deref(), Some(b"one\ntwo\nthree\n".as_slice()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_settled(&path, true).await.unwrap(), Some(Vec::new()), "it may be meant");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_settled(&path, true).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_another_takes_the_place_of_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        std::fs::write(&path, "one\n").unwrap();
        let (sender, mut notices) = mpsc::channel(1);
        let _watcher = watcher(&path, sender).unwrap();
        std::fs::write(dir.path().join("other.md"), "x").unwrap();
        let draft = dir.path().join("draft");
        std::fs::write(&draft, "two\n").unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(200), notices.recv()).await;
        assert!(quiet.is_err(), "other files are no news");
        std::fs::rename(&draft, &path).unwrap();
        tokio::time::timeout(Duration::from_secs(2), notices.recv()).await.unwrap().unwrap();
    }

    #[test]
    fn what_is_kept_beside_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        let [first, second] = [b"a".as_slice(), b"b"].map(|bytes| keep_beside(&path, bytes).unwrap());
        assert_eq!(std::fs::read(first).unwrap(), b"a");
        assert_eq!(std::fs::read(second).unwrap(), b"b");
    }
}
