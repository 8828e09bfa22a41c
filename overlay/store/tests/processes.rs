//! What only another process can show: kills, locks, full disks, newer programs.
//!
//! The children are this test program again: run with [`ROLE`] set, the test `child` plays that role; without
//! it, it does nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use wattle_store::{CommitError, Failure, OpenError, Owner, Store, load_or_create_key, read_owner};
use wattle_types::{KeyRange, Table, Write};

const ROLE: &str = "WATTLE_STORE_TEST_ROLE";
const DIR: &str = "WATTLE_STORE_TEST_DIR";
const FIRST: &str = "WATTLE_STORE_TEST_FIRST";

/// Numbers that one writing child may use; the next starts after them.
const NUMBERS: u64 = 1_000_000;

/// Commits that wait at the same time in the writing child, so that batches share transactions.
const WRITERS: u64 = 8;

// ---- the children

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match role.as_str() {
        "write" => write_until_killed(&dir, std::env::var(FIRST).unwrap().parse().unwrap()).await,
        "hold" => hold_until_killed(&dir).await,
        "fill" => fill_the_disk(&dir).await,
        "key" => drop(load_or_create_key(&dir.join("identity.key")).unwrap()),
        other => panic!("no role {other}"),
    }
}

fn say(line: &str) {
    // On a line of its own, whatever the test harness prints before it.
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

async fn write_until_killed(dir: &Path, first: u64) {
    let store = Arc::new(Store::open(dir, Owner::this_process("writer")).unwrap());
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            for number in (first + writer..first + NUMBERS).step_by(WRITERS as usize) {
                store.commit(batch(number)).await.unwrap();
                say(&format!("acknowledged {number}"));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn hold_until_killed(dir: &Path) {
    let store = Store::open(dir, Owner::this_process("holder")).unwrap();
    store.update_owner(|owner| owner.p2p_port = Some(7710)).unwrap();
    say("holding");
    std::future::pending::<()>().await;
}

/// Runs on a file system of its own with little space. What is on it besides takes as much as is wanted.
struct Ballast(PathBuf);

impl Ballast {
    /// Fills the file system but for so many bytes.
    fn leave(&self, free: u64) {
        let mut file = std::fs::File::create(&self.0).unwrap();
        let space = || {
            let space = rustix::fs::statvfs(&self.0).unwrap();
            space.f_bavail * space.f_frsize
        };
        while space() > free {
            let some = usize::try_from((space() - free).min(64 << 10)).unwrap();
            file.write_all(&vec![1; some]).unwrap();
        }
    }
}

async fn fill_the_disk(dir: &Path) {
    const KEYS: u64 = 3200;
    let ballast = Ballast(dir.join("ballast"));
    let data = dir.join("data");
    let store = Store::open(&data, Owner::this_process("filler")).unwrap();
    for first in (0..KEYS).step_by(400) {
        let some = (first..first + 400).map(|number| put(Table::Records, number, vec![9; 2 << 10]));
        store.commit(some.collect()).await.unwrap();
    }
    let is_full = |outcome| match outcome {
        Err(CommitError::Full { .. }) => true,
        Ok(()) => false,
        Err(error) => panic!("{error}"),
    };
    let whole = || {
        let found = store.range(Table::Records, &KeyRange::all(), usize::MAX).unwrap();
        assert!(found.len() as u64 == KEYS && found.iter().all(|(_, value)| value[..] == [9; 2 << 10]));
    };

    // Foreseen: hardly anything is left.
    ballast.leave(64 << 10);
    assert!(is_full(store.commit(batch(1)).await));
    whole();
    // Not foreseen: a little to write, in very many places.
    ballast.leave(8 << 20);
    let everywhere = || (0..KEYS).map(|number| put(Table::Records, number, vec![8; 200])).collect();
    for _ in 0..3 {
        assert!(is_full(store.commit(everywhere()).await));
        whole();
        assert_eq!(store.get(Table::Records, &7_u64.to_be_bytes()).unwrap(), Some(vec![9; 2 << 10]));
        // What fits is committed all the same.
        store.commit(batch_of_another_table(1)).await.unwrap();
    }
    // Nothing is left at all: removing either works or is refused.
    ballast.leave(0);
    let remove = Write::RemoveRange { table: Table::Records, range: KeyRange::prefix(&[0xff]) };
    is_full(store.commit(vec![remove]).await);
    whole();

    // Somebody makes room.
    std::fs::remove_file(&ballast.0).unwrap();
    store.commit(everywhere()).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, store.failed()).await.is_err());
    store.close();
    let store = Store::open(&data, Owner::this_process("filler")).unwrap();
    let found = store.scan(Table::Records).unwrap();
    assert!(found.len() as u64 == KEYS && found.iter().all(|(_, value)| value[..] == [8; 200]));
    assert_eq!(store.scan(Table::Blocked).unwrap().len(), 1);
    say("the disk was full");
}

fn batch_of_another_table(number: u64) -> Vec<Write> {
    vec![put(Table::Blocked, number, value(number))]
}

// ---- the parent's tools

fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(DIR, dir);
    command
}

/// A child and its lines. Killed when dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that starts with `word`, without it; `None` at the end.
    fn next(&mut self, word: &str) -> Option<String> {
        loop {
            let line = self.lines.next()?.unwrap();
            if let Some(rest) = line.strip_prefix(word) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    /// SIGKILL; what it had said comes after.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn put(table: Table, number: u64, value: Vec<u8>) -> Write {
    Write::Put { table, key: number.to_be_bytes().to_vec(), value }
}

/// One entry in each of two tables, with sizes that move pages about.
fn batch(number: u64) -> Vec<Write> {
    vec![put(Table::Records, number, value(number)), put(Table::Providers, number, value(number))]
}

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(8 + usize::try_from(number % 40).unwrap())
}

fn numbers(store: &Store) -> BTreeSet<u64> {
    let records = store.scan(Table::Records).unwrap();
    assert_eq!(records, store.scan(Table::Providers).unwrap(), "a batch is there in part");
    let number = |(key, found): (Vec<u8>, Vec<u8>)| {
        let number = u64::from_be_bytes(key.try_into().unwrap());
        assert_eq!(found, value(number));
        number
    };
    records.into_iter().map(number).collect()
}

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, Owner::this_process("parent"))
}

/// Every file below `dir` with its bytes, mode and time of change.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32, i64, i64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        }
        let metadata = path.metadata().unwrap();
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        all.push((path, bytes, metadata.mode(), metadata.mtime(), metadata.mtime_nsec()));
    }
    all.sort();
    all
}

// ---- the tests

#[test]
fn every_acknowledged_write_survives_fifty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for cycle in 0..50 {
        let mut command = command("write", dir.path());
        command.env(FIRST, (cycle * NUMBERS).to_string());
        let mut writer = Running::start(command);
        // Killed after so many acknowledgements, while eight more commits are under way; some cycles while it
        // opens.
        let mut number = |line: String| acknowledged.insert(line.parse::<u64>().unwrap());
        for _ in 0..cycle * 7 % 50 {
            number(writer.next("acknowledged").unwrap());
        }
        writer.kill();
        while let Some(line) = writer.next("acknowledged") {
            number(line);
        }

        assert_eq!(read_owner(dir.path()), None, "a dead process owns the directory");
        let store = open(dir.path()).unwrap();
        let found = numbers(&store);
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "cycle {cycle}: lost {lost:?}");
        let unasked = found.difference(&acknowledged).count() as u64;
        assert!(
            unasked <= (cycle + 1) * WRITERS,
            "cycle {cycle}: {unasked} entries that nobody was promised"
        );
    }
    assert!(acknowledged.len() > 1000, "only {} writes", acknowledged.len());
}

#[test]
fn a_second_process_is_told_who_owns_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Running::start(command("hold", dir.path()));
    holder.next("holding").unwrap();
    let before = snapshot(dir.path());

    let error = open(dir.path()).err().expect("the directory is held");
    let OpenError::Locked { owner: Some(owner), .. } = &error else { panic!("{error}") };
    assert_eq!((owner.pid, owner.node.as_str(), owner.p2p_port), (holder.child.id(), "holder", Some(7710)));
    assert!(error.to_string().contains(&format!("pid {}", holder.child.id())), "{error}");
    assert_eq!(read_owner(dir.path()).as_ref(), Some(&**owner));
    assert_eq!(snapshot(dir.path()), before, "the refused process changed something");

    holder.kill();
    assert_eq!(read_owner(dir.path()), None);
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_newer_data_directory_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("VERSION"), "2 wattle-7.1.0\n").unwrap();
    let before = snapshot(dir.path());
    for _ in 0..2 {
        let error = open(dir.path()).err().expect("format 2 is unknown");
        assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().ends_with("it needs wattle-7.1.0 or newer"), "{error}");
    }
    assert_eq!(snapshot(dir.path()), before);

    // And an empty directory but for a newer version: not even a lock appears.
    let bare = tempfile::tempdir().unwrap();
    std::fs::write(bare.path().join("VERSION"), "3\n").unwrap();
    let before = snapshot(bare.path());
    assert!(matches!(open(bare.path()), Err(OpenError::Newer { found: 3, .. })));
    assert_eq!(snapshot(bare.path()), before);
}

#[test]
fn a_damaged_version_file_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("VERSION"), [0xff, 0x00, 0x31]).unwrap();
    let before = snapshot(dir.path());
    let error = open(dir.path()).err().expect("no version");
    assert!(matches!(&error, OpenError::Version { file, .. } if file.ends_with("VERSION")), "{error}");
    assert_eq!(snapshot(dir.path()), before);
}

#[tokio::test]
async fn data_that_lost_its_version_or_its_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.commit(batch(1)).await.unwrap();
    store.close();
    let (version, database) = (dir.path().join("VERSION"), dir.path().join("db/tables.redb"));
    let away = dir.path().join("away");

    std::fs::rename(&version, &away).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Version { .. })));
    assert!(!version.exists());
    std::fs::rename(&away, &version).unwrap();

    std::fs::rename(&database, &away).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Database(Failure::Corrupt { .. }))));
    std::fs::write(&database, "").unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Database(Failure::Corrupt { .. }))));
    std::fs::write(&database, "not a database, whatever its name says").unwrap();
    let error = open(dir.path()).err().expect("damaged");
    assert!(error.to_string().contains("db/tables.redb is damaged"), "{error}");
    std::fs::rename(&away, &database).unwrap();

    assert_eq!(numbers(&open(dir.path()).unwrap()), BTreeSet::from([1]));
}

#[test]
fn a_first_start_that_was_cut_short_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    // Before VERSION; before the database had its name; before the database was whole.
    std::fs::remove_file(dir.path().join("VERSION")).unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::remove_file(dir.path().join("VERSION")).unwrap();
    std::fs::remove_file(dir.path().join("db/tables.redb")).unwrap();
    std::fs::write(dir.path().join("db/tables.unfinished"), "half").unwrap();
    drop(open(dir.path()).unwrap());
    assert!(!dir.path().join("db/tables.unfinished").exists());
    assert!(dir.path().join("VERSION").exists());
}

#[test]
fn the_data_directory_and_its_files_are_closed_to_others() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("nodes/default");
    let _store = open(&dir).unwrap();
    assert_eq!(dir.metadata().unwrap().permissions(), Permissions::from_mode(0o40700));
    for (path, _, mode, ..) in snapshot(&dir) {
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn two_processes_that_make_a_key_at_once_end_with_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut children: Vec<_> =
        (0..4).map(|_| command("key", dir.path()).stdout(Stdio::null()).spawn().unwrap()).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["identity.key"]);
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // A file system of 48 MiB that only the child sees, and that goes with it.
    let mut command = Command::new("unshare");
    let child = self::command("fill", dir.path());
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg(r#"mount -t tmpfs -o size=48m tmpfs "$0" || exit 77; exec "$@""#).arg(dir.path());
    command.arg(child.get_program()).args(child.get_args());
    command.env(ROLE, "fill").env(DIR, dir.path());
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(77) && !is_unshare_refusal(&output) => output,
        refused => {
            let why = refused.map_or_else(
                |error| error.to_string(),
                |it| String::from_utf8_lossy(&it.stderr).into_owned(),
            );
            assert_ne!(std::env::var("WATTLE_TEST_ALL").as_deref(), Ok("1"), "no private file system: {why}");
            writeln!(std::io::stderr(), "NOT RUN: a full disk needs a private file system: {why}").unwrap();
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("the disk was full"), "{said}");
}

fn is_unshare_refusal(output: &std::process::Output) -> bool {
    String::from_utf8_lossy(&output.stderr).starts_with("unshare:")
}
