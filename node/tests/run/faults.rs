//! What goes wrong on a machine: odd environments, races, clients that stall, disks that are full.

use std::ffi::OsStr;
use std::io::{PipeReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wattle::api::documents::ErrorDocument;

use crate::process::{LOOPBACK, program, raw_call, run, run_with};

/// A command that talks to a node of `program`.
fn wattle(home: &Path, node: &str, words: &[&str]) -> Output {
    program(home, node).args(words).output().unwrap()
}

fn error_of(output: &Output) -> ErrorDocument {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stderr).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Ignored because it may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The end of a process that must come soon; a process that hangs is killed.
fn soon(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("still running after 10 s")
}

/// Waits until a line that contains `part` is on the child's stderr.
fn says(child: &mut Child, part: &str) {
    let mut said = Vec::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !String::from_utf8_lossy(&said).contains(part) {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
}

#[test]
fn an_environment_that_is_no_text_does_not_matter() {
    let home = tempfile::tempdir().unwrap();
    let node = run_with(program(home.path(), "alice").env("ODD", OsStr::from_bytes(b"\xff\xfe")));
    assert_eq!(node.call("GET /api/v1/status", "").0, 200);
}

#[test]
fn a_stop_that_returned_leaves_room_for_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut first = run(home.path(), "alice");
        assert!(wattle(home.path(), "alice", &["stop"]).status.success());
        let second = run(home.path(), "alice");
        assert_eq!(second.ready.id, first.ready.id);
        assert!(first.end().success());
    }
}

#[test]
fn of_two_starts_at_the_same_instant_one_runs_and_one_is_a_conflict() {
    let home = tempfile::tempdir().unwrap();
    for node in ["alice", "bob"] {
        let start = || {
            let mut command = program(home.path(), node);
            command.args(["--json", "run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut both = [start(), start()];
        let begun = Instant::now();
        let loser = loop {
            if let Some(index) = both.iter_mut().position(|child| child.try_wait().unwrap().is_some()) {
                break index;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "both run");
            std::thread::sleep(Duration::from_millis(5));
        };
        let [mut first, mut second] = both;
        let (winner, loser) = if loser == 0 { (&mut second, first) } else { (&mut first, second) };
        let output = loser.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(6));
        assert!(error_of(&output).message.contains("already running"));
        assert!(wattle(home.path(), node, &["wait", "--ready", "--timeout", "10s"]).status.success());
        signal(winner, Signal::TERM);
        assert!(soon(winner).success());
    }
}

#[test]
fn two_starts_at_the_same_instant_never_share_a_default_port() {
    let home = tempfile::tempdir().unwrap();
    let start = |node: &str| {
        let mut command = program(home.path(), node);
        command.env_remove("WATTLE_P2P_LISTEN").env("WATTLE_P2P_SAME_MACHINE", "false");
        std::thread::spawn(move || run_with(&mut command))
    };
    let nodes: Vec<_> = ["a", "b", "c"].map(start).into_iter().map(|node| node.join().unwrap()).collect();
    let mut ports: Vec<&str> = nodes
        .iter()
        .filter_map(|node| node.ready.listen.iter().find_map(|address| address.split("/tcp/").nth(1)))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
}

#[test]
fn settings_changed_at_the_same_instant_are_all_kept() {
    let home = tempfile::tempdir().unwrap();
    let wanted = [
        ("log.level", "info"),
        ("p2p.profile", "lan"),
        ("p2p.dht_mode", "client"),
        ("p2p.same_machine", "false"),
        ("connections.idle_after", "9s"),
        ("network.name", "raced"),
    ];
    let set = |(key, value): (&str, &str)| {
        let mut command = program(home.path(), "alice");
        command.args(["config", "set", key, value]).stdout(Stdio::null()).spawn().unwrap()
    };
    for mut child in wanted.map(set) {
        assert!(child.wait().unwrap().success());
    }
    let file = home.path().join("config/nodes/alice/config.toml");
    let text = std::fs::read_to_string(file).unwrap();
    for (key, _) in wanted {
        let name = key.split('.').nth(1).unwrap();
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} = "))), "{key} is lost: {text}");
    }
}

#[test]
fn a_kill_while_settings_change_leaves_one_valid_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config/nodes/alice/config.toml");
    for pause in 0..20 {
        let level = if pause % 2 == 0 { "info" } else { "debug" };
        let mut child = program(home.path(), "alice");
        let mut child =
            child.args(["config", "set", "log.level", level]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text.is_empty() || text.contains("\nlevel = ") || text.starts_with("[log]"), "{text}");
        assert!(wattle(home.path(), "alice", &["config", "check"]).status.success());
    }
    assert!(wattle(home.path(), "alice", &["config", "set", "log.level", "warn"]).status.success());
}

#[test]
fn a_kill_at_any_moment_of_the_start_leaves_a_node_that_starts() {
    let home = tempfile::tempdir().unwrap();
    let mut id = None;
    for pause in [1, 5, 10, 20, 30, 45, 60, 80, 110, 150, 200] {
        let mut child = program(home.path(), "alice");
        let mut child =
            child.args(["--json", "run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = wattle(home.path(), "alice", &["id", "-q"]);
        if seen.status.success() {
            let seen = String::from_utf8(seen.stdout).unwrap();
            assert_eq!(*id.get_or_insert_with(|| seen.clone()), seen, "the key is made once");
        }
    }
    let node = run(home.path(), "alice");
    assert!(id.is_none_or(|id| id.trim() == node.ready.id.to_string()));
}

#[test]
fn a_record_whose_put_was_answered_survives_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let mut alice = run(home.path(), "alice");
    let mut bob = run(home.path(), "bob");
    alice.connected();
    bob.connected();
    let (status, stored) = alice.call("PUT /api/v1/dht/records/kept", r#"{"value_b64":"aGVsbG8="}"#);
    assert_eq!(status, 200, "{stored}");
    for node in [&mut alice, &mut bob] {
        node.signal(Signal::KILL);
        node.end();
    }
    let alice = run(home.path(), "alice");
    let (_, stats) = alice.call("GET /api/v1/dht/stats", "");
    assert_ne!(stats["published"], 0, "{stats}");
}

/// Ctrl-C for a command in this state: 130, soon.
fn interrupted(mut child: Child) {
    signal(&child, Signal::INT);
    assert_eq!(soon(&mut child).code(), Some(130));
}

#[test]
fn ctrl_c_ends_every_waiting_command_with_130() {
    let home = tempfile::tempdir().unwrap();
    let node = run(home.path(), "alice");
    let spawn = |words: &[&str]| {
        let mut command = program(home.path(), "alice");
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let waiting: &[&[&str]] = &[
        &["dht", "put", "key"],
        &["dht", "put", "key", "-"],
        &["topic", "request", "a.b", "-"],
        &["topic", "request", "a.b", "hello"],
        &["topic", "pub", "a.b", "-"],
        &["topic", "sub", "a.b"],
        &["topic", "reply", "a.b", "--exec", "cat"],
        &["join", "-"],
        &["logs", "-f"],
        &["peers", "--watch"],
        &["status", "--watch"],
        &["wait", "--peers", "9"],
    ];
    for words in waiting {
        let mut child = spawn(words);
        // The handler of SIGINT is there once the process catches it.
        let status = format!("/proc/{}/status", child.id());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            let text = std::fs::read_to_string(&status).unwrap();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
            if u64::from_str_radix(caught, 16).unwrap() & 2 != 0 || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(child.try_wait().unwrap().is_none(), "{words:?} did not wait");
        signal(&child, Signal::INT);
        assert_eq!(soon(&mut child).code(), Some(130), "{words:?}");
    }
    assert_eq!(node.call("GET /api/v1/status", "").0, 200);
}

/// A pipe with hardly any room left, and its reader, which does not read.
fn full_pipe(room: usize) -> (PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    writer.write_all(&vec![b'\n'; size - room]).unwrap();
    (reader, writer)
}

#[test]
fn ctrl_c_ends_a_command_whose_reader_does_not_read() {
    let home = tempfile::tempdir().unwrap();
    let _node = run(home.path(), "alice");
    let (reader, writer) = full_pipe(16);
    let mut command = program(home.path(), "alice");
    let mut child =
        command.args(["-v", "topic", "sub", "a.b"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    says(&mut child, "following");
    assert!(wattle(home.path(), "alice", &["topic", "pub", "a.b", "hello"]).status.success());
    interrupted(child);
    drop((reader, command));
}

#[test]
fn a_screen_that_nobody_reads_does_not_hold_up_the_node() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = full_pipe(1024);
    let mut alice = program(home.path(), "alice");
    alice.env("TOKIO_WORKER_THREADS", "1").args(["--json", "run"]).stdout(writer);
    let mut alice = Killed(alice.spawn().unwrap());
    assert!(wattle(home.path(), "alice", &["wait", "--ready", "--timeout", "10s"]).status.success());
    let mut bob = run(home.path(), "bob");
    bob.connected();
    for _ in 0..3 {
        assert!(wattle(home.path(), "alice", &["status", "--timeout", "5s"]).status.success());
    }
    let begun = Instant::now();
    signal(&alice.0, Signal::TERM);
    assert!(soon(&mut alice.0).success());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop(reader);
}

#[test]
fn a_path_that_is_no_text_is_refused_with_a_document() {
    let home = tempfile::tempdir().unwrap();
    let node = run(home.path(), "alice");
    for request in
        ["GET /api/v1/dht/records/%ff", "PUT /api/v1/dht/records/%c3%28", "POST /api/v1/topics/%ff/messages"]
    {
        let (status, error) = node.call(request, "{}");
        assert_eq!((status, &error["code"]), (400, &"usage".into()), "{request}: {error}");
    }
    for request in ["GET /%2e%2e/%2e%2e/etc/passwd", "GET /api/v1/../../etc/passwd", "GET /api/v1/%2e%2e"] {
        let (status, error) = node.call(request, "");
        assert_eq!((status, &error["code"]), (404, &"not_found".into()), "{request}: {error}");
    }
}

#[test]
fn hostile_bodies_are_refused_and_the_node_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let node = run(home.path(), "alice");
    let deep = "[".repeat(200_000);
    let nested = r#"{"peer":"#.repeat(100_000);
    let bodies = [deep.as_str(), &nested, "{\"peer\":\"\u{0}\"}", "{}{}", "null", "[]", r#"{"peer":1e999}"#];
    for body in bodies {
        let (status, text) = raw_call(&node.socket(), "POST /api/v1/peers/connect", "", body);
        assert_eq!(status, 400, "{text}");
        let error: ErrorDocument = serde_json::from_str(&text).unwrap();
        assert!(error.message.len() < 400, "{error}");
    }
    let long = format!(r#"{{"peer":"{}"}}"#, "a".repeat(500_000));
    let (_, text) = raw_call(&node.socket(), "POST /api/v1/peers/connect", "", &long);
    assert!(text.len() < 2000, "a caller's text comes back {} bytes long", text.len());
    assert_eq!(node.call("GET /api/v1/status", "").0, 200);
}

#[test]
fn files_of_others_in_the_runtime_directory_harm_nobody() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("run");
    let place = |name: &str| {
        let directory = root.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    };
    place("alice");
    for directory in [&root, &root.join("alice")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    std::fs::write(place("huge").join("neighbour.json"), vec![b'{'; 4 << 20]).unwrap();
    std::fs::write(place("deep").join("neighbour.json"), "[".repeat(16_000)).unwrap();
    std::fs::write(place("odd").join("neighbour.json"), b"\xff\xfe{}").unwrap();
    std::os::unix::fs::symlink("/dev/zero", place("linked").join("neighbour.json")).unwrap();
    std::os::unix::fs::symlink("/", root.join("away")).unwrap();
    let fifo = Command::new("mkfifo").arg(place("pipe").join("neighbour.json")).status().unwrap();
    assert!(fifo.success());
    std::fs::write(place("\u{1b}[31mred").join("neighbour.json"), "{}").unwrap();
    std::fs::write(root.join("alice/api.json"), r#"{"pid":1,"url":"http://evil.example"}"#).unwrap();
    std::fs::write(root.join("alice/api.sock"), "no socket").unwrap();

    let output = wattle(home.path(), "alice", &["status"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(!stderr.contains('\u{1b}') && !stderr.contains("(running)"), "{stderr}");
    let alice = run(home.path(), "alice");
    let mut bob = run(home.path(), "bob");
    bob.connected();
    assert_eq!(alice.call("GET /api/v1/status", "").0, 200);
}

#[test]
fn a_key_that_others_can_read_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    assert!(wattle(home.path(), "alice", &["init"]).status.success());
    let key = home.path().join("data/nodes/alice/identity.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    for words in [&["--json", "run"][..], &["--json", "id"], &["--json", "key", "show"]] {
        let output = wattle(home.path(), "alice", words);
        assert_eq!(output.status.code(), Some(7), "{words:?}");
        assert!(error_of(&output).message.contains("identity.key"), "{words:?}");
    }
}

#[test]
fn data_of_a_newer_program_is_refused_and_not_touched() {
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    node.signal(Signal::TERM);
    node.end();
    let data = home.path().join("data/nodes/alice");
    std::fs::write(data.join("VERSION"), "999 wattle-9.9.9\n").unwrap();
    let before = std::fs::read(data.join("db/tables.redb")).unwrap();
    let output = wattle(home.path(), "alice", &["--json", "run"]);
    let error = error_of(&output);
    assert_eq!((output.status.code(), error.exit), (Some(6), 6), "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("9.9.9"), "{error}");
    assert_eq!(std::fs::read(data.join("db/tables.redb")).unwrap(), before);
}

#[test]
fn damaged_data_is_an_error_that_names_the_file() {
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    node.signal(Signal::TERM);
    node.end();
    let tables = home.path().join("data/nodes/alice/db/tables.redb");
    let length = std::fs::metadata(&tables).unwrap().len();
    std::fs::write(&tables, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    let output = wattle(home.path(), "alice", &["--json", "run"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(error_of(&output).message.contains("tables.redb"));
}

/// A shell in a namespace where `at` is `mount`ed; `None`, with a line on stderr, where that is forbidden.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn mounted(at: &Path, mount: &str, then: &str) -> Option<Output> {
    let tried = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("did not run: unshare -Urm is not allowed here");
        assert!(std::env::var_os("WATTLE_TEST_ALL").is_none(), "WATTLE_TEST_ALL is set");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &format!("{mount} && {then}"), "sh"]);
    command.arg(at).arg(env!("CARGO_BIN_EXE_wattle"));
    command.env("WATTLE_P2P_LISTEN", LOOPBACK).env("WATTLE_P2P_MDNS", "false");
    Some(command.output().unwrap())
}

#[test]
fn a_home_that_cannot_be_written_is_an_error_and_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o ro none "$1""#;
    for words in ["run", "init", "config set log.level info", "key new", "doctor"] {
        let Some(output) = mounted(home.path(), mount, &format!(r#""$2" --json --home "$1" {words}"#)) else {
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{words}: {stderr}");
        if words != "doctor" {
            assert!(matches!(output.status.code(), Some(1 | 7)), "{words}: {:?} {stderr}", output.status);
            assert!(error_of(&output).message.contains("nodes"), "{words}: {stderr}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let fill = r#"mount -t tmpfs -o size=64k none "$1" && (cat /dev/zero > "$1/filler" 2>/dev/null || true)"#;
    for words in ["run", "init", "config set log.level info", "key new"] {
        let Some(output) = mounted(home.path(), fill, &format!(r#""$2" --json --home "$1" {words}"#)) else {
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}: {stderr}");
        assert!(stderr.to_ascii_lowercase().contains("no space"), "{words}: {stderr}");
        error_of(&output);
    }
}
