//! One process per data directory: `flock` on the file `LOCK`, whose content says who holds it.
//!
//! The system drops the lock with the process, however it dies, so nobody ever removes the file. Its content outlives a
//! kill; it is only believed while the lock is held.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use wattle_types::UnixTime;

const FILE: &str = "LOCK";

/// Far more than an [`Owner`] with the longest path needs.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// How long to wait for processes that only look at the lock, a millisecond each; they hold it for microseconds.
const LOOKERS_WAIT_MS: u32 = 1000;

/// The process that runs the node, as others on this machine see it. Fields of newer programs are skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// When it started, in milliseconds since 1970.
    pub since_ms: UnixTime,
    /// The name of the node.
    pub node: String,
    /// The version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where its API listens: the path of a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_socket: Option<PathBuf>,
    /// Where its API listens by HTTP, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// The port for other nodes, once it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2p_port: Option<u16>,
}

impl Owner {
    /// This process, running the node of this name since now.
    #[must_use]
    pub fn this_process(node: &str) -> Self {
        // A clock before 1970 shows as 1970: the time is for a person to read.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            pid: std::process::id(),
            since_ms: UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            node: node.to_owned(),
            version: None,
            api_socket: None,
            api_url: None,
            p2p_port: None,
        }
    }
}

/// The process that holds the data directory `dir` at this moment; `None` when none does, or when it has not said who it is
/// (it does so in the first microseconds). Changes nothing.
#[must_use]
pub fn read_owner(dir: &Path) -> Option<Owner> {
    let file = File::open(dir.join(FILE)).ok()?;
    // A shared lock is to be had only while nobody holds the exclusive one.
    if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
        return read_content(&file);
    }
    // Ignored because closing the file unlocks it as well, only later while a process is being started by this one.
    flock(&file, FlockOperation::Unlock).ok();
    None
}

fn read_content(file: &File) -> Option<Owner> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once('\n')?.0).ok()
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    owner: Owner,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(crate) enum NotLocked {
    Held(Option<Owner>),
    Io(io::Error),
}

impl Lock {
    /// Takes the lock of the directory, which must exist, without waiting for another node.
    pub(crate) fn take(dir: &Path, owner: Owner) -> Result<Self, NotLocked> {
        Self::take_after(dir, owner, || std::thread::sleep(Duration::from_millis(1)))
    }

    /// `wait` is called while somebody looks.
    fn take_after(dir: &Path, owner: Owner, mut wait: impl FnMut()) -> Result<Self, NotLocked> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(dir.join(FILE))
            .map_err(NotLocked::Io)?;
        for _ in 0..LOOKERS_WAIT_MS {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let mut lock = Self { file, owner };
                    lock.update(|_| {}).map_err(NotLocked::Io)?;
                    return Ok(lock);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(NotLocked::Io(error.into())),
            }
            // A shared lock is to be had beside those who only look, never beside a node.
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(NotLocked::Held(read_content(&file))),
                Err(error) => return Err(NotLocked::Io(error.into())),
            }
            flock(&file, FlockOperation::Unlock).map_err(|error| NotLocked::Io(error.into()))?;
            wait();
        }
        Err(NotLocked::Held(None))
    }

    /// Changes what others are told. Not synced: it says nothing after a power cut.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Owner)) -> io::Result<()> {
        change(&mut self.owner);
        let mut line = serde_json::to_vec(&self.owner)?;
        line.push(b'\n');
        // First the line, then the cut: a reader in between sees the new line and stops at its end.
        self.file.write_all_at(&line, 0)?;
        self.file.set_len(line.len() as u64)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Ignored because the content is not believed once the lock is gone, which closing the file brings about at the
        // latest: a process that is just being started by this one shares the open file, and with it the lock, for a moment.
        drop(self.file.set_len(0));
        flock(&self.file, FlockOperation::Unlock).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_learns_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_owner(dir.path()), None);
        let first = Owner::this_process("alice");
        let mut lock = Lock::take(dir.path(), first.clone()).unwrap();
        assert_eq!(read_owner(dir.path()), Some(first.clone()));
        let Err(NotLocked::Held(Some(seen))) = Lock::take(dir.path(), Owner::this_process("bob")) else {
            panic!("locked twice");
        };
        assert_eq!(seen, first);

        lock.update(|owner| owner.p2p_port = Some(7710)).unwrap();
        assert_eq!(read_owner(dir.path()).unwrap().p2p_port, Some(7710));
        lock.update(|owner| owner.p2p_port = None).unwrap();
        assert_eq!(read_owner(dir.path()), Some(first));
        drop(lock);
        assert_eq!(read_owner(dir.path()), None);
        Lock::take(dir.path(), Owner::this_process("bob")).unwrap();
    }

    #[test]
    fn what_a_killed_node_left_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut line = serde_json::to_vec(&Owner::this_process("ghost")).unwrap();
        line.push(b'\n');
        std::fs::write(dir.path().join(FILE), line).unwrap();
        assert_eq!(read_owner(dir.path()), None);
        let bob = Owner::this_process("bob");
        let _lock = Lock::take(dir.path(), bob.clone()).unwrap();
        assert_eq!(read_owner(dir.path()), Some(bob));
    }

    #[test]
    fn a_process_that_only_looks_does_not_stop_a_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path(), Owner::this_process("alice")).unwrap());
        let looker = File::open(dir.path().join(FILE)).unwrap();
        flock(&looker, FlockOperation::NonBlockingLockShared).unwrap();
        let mut waits = 0;
        let lock = Lock::take_after(dir.path(), Owner::this_process("alice"), || {
            waits += 1;
            flock(&looker, FlockOperation::Unlock).unwrap();
        });
        assert_eq!(lock.map(|_| waits).unwrap(), 1);
    }

    #[test]
    fn a_process_that_is_just_being_started_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path(), Owner::this_process("alice")).unwrap();
        // What fork leaves in the new process until exec.
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(dir.path(), Owner::this_process("alice")).unwrap();
    }

    #[test]
    fn an_owner_written_by_a_newer_program_is_understood() {
        let text = r#"{"pid":1,"since_ms":2,"node":"n","colour":"green"}"#;
        let owner: Owner = serde_json::from_str(text).unwrap();
        assert_eq!((owner.pid, owner.node.as_str()), (1, "n"));
    }
}
