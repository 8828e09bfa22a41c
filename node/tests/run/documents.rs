//! Documents of a node that is killed, and of one whose disk is full: what was acknowledged is there.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{LOOPBACK, Running, run, started};

/// A call that may find nobody, or lose its node half way.
pub(crate) fn try_call(socket: &Path, request: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let length = body.len();
    let head = format!("{request} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

fn set(socket: &Path, doc: &str, key: &str, value: &str) -> Option<(u16, Value)> {
    let body = json!({ "path": key, "value": value }).to_string();
    try_call(socket, &format!("POST /api/v1/docs/{doc}/fields"), &body)
}

fn new_doc(node: &Running, title: &str) -> String {
    let (status, made) = node.call("POST /api/v1/docs", &json!({ "title": title }).to_string());
    assert_eq!(status, 200, "{made}");
    made["id"].as_str().or_else(|| made["doc"]["id"].as_str()).unwrap().to_owned()
}

fn keys(node: &Running, doc: &str) -> BTreeSet<String> {
    let (status, content) = node.call(&format!("GET /api/v1/docs/{doc}/content"), "");
    assert_eq!(status, 200, "{content}");
    content["value"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// Kills of one run of the tests; the long run takes another number: `WATTLE_KILLS=200`.
fn kills() -> u64 {
    std::env::var("WATTLE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

#[test]
fn no_acknowledged_edit_is_lost_by_kills_at_full_speed() {
    const WRITERS: u64 = 8;
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    let mut draw = 0x5eed_u64;
    let (mut doc, mut journal, mut all) = (String::new(), BTreeSet::new(), 0);
    let mut slowest = Duration::ZERO;
    for kill in 0..kills() {
        // A document that is young, then one with some compactions behind it.
        if kill % 10 == 0 {
            doc = new_doc(&node, &format!("number {kill}"));
            journal = BTreeSet::new();
        }
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_millis(30 + (draw >> 33) % 400);
        let (socket, told, count) = (node.socket(), Mutex::new(BTreeSet::new()), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    loop {
                        let key = format!("k{kill}_{}", count.fetch_add(1, Ordering::Relaxed));
                        match set(&socket, &doc, &key, "some text that takes room on the disk") {
                            Some((200, _)) => drop(told.lock().unwrap().insert(key)),
                            Some(other) => panic!("{other:?}"),
                            None => return,
                        }
                    }
                });
            }
            std::thread::sleep(pause);
            node.signal(Signal::KILL);
            node.end();
        });
        let told = told.into_inner().unwrap();
        all += told.len();
        journal.extend(told);
        let began = Instant::now();
        node = run(home.path(), "alice");
        slowest = slowest.max(began.elapsed());
        let lost: Vec<_> = journal.difference(&keys(&node, &doc)).cloned().collect();
        assert!(lost.is_empty(), "kill {kill} lost {lost:?}");
    }
    println!("{} kills, {all} edits acknowledged, none lost, the slowest start took {slowest:?}", kills());
    assert!(all > 20, "only {all} were acknowledged");
}

/// A mount namespace in which a node's data is on a file system of its own, and what fills it.
struct Small {
    holder: Child,
    home: tempfile::TempDir,
}

impl Small {
    /// Says why where namespaces are forbidden.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    fn new(megabytes: u32) -> Option<Self> {
        let tried = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("did not run: unshare -Urm is not allowed here");
            assert!(std::env::var_os("WATTLE_TEST_ALL").is_none(), "WATTLE_TEST_ALL is set");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("data")).unwrap();
        let script =
            format!(r#"mount -t tmpfs -o size={megabytes}m none "$1" && echo ready && exec sleep 600"#);
        let mut holder = Command::new("unshare");
        holder.args(["-Urm", "sh", "-c", &script, "sh"]).arg(home.path().join("data"));
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self { holder, home })
    }

    fn run(&self) -> Running {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-U", "-m", "--preserve-credentials"]);
        command.arg(env!("CARGO_BIN_EXE_wattle")).arg("--home").arg(self.home.path()).args(["-n", "alice"]);
        command.env("WATTLE_P2P_MDNS", "false").env("WATTLE_P2P_LISTEN", LOOPBACK);
        started(command.args(["--json", "run"]))
    }

    /// Where the ballast is, seen from outside.
    fn ballast(&self) -> PathBuf {
        let inside = self.home.path().strip_prefix("/").unwrap().join("data/ballast");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// Fills the file system but for so many bytes.
    fn leave(&self, free: u64) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let space = || {
            let space = rustix::fs::statvfs(self.ballast()).unwrap();
            space.f_bavail * space.f_frsize
        };
        while space() > free {
            let some = usize::try_from((space() - free).min(64 << 10)).unwrap();
            if file.write_all(&vec![1; some]).is_err() {
                return;
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Ignored because it may have ended already.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Edits until the disk is full, at most `most`; says how many were refused.
fn fill(node: &Running, doc: &str, name: &str, most: u32, journal: &mut BTreeSet<String>) -> u32 {
    let (socket, value) = (node.socket(), "a few kilobytes of text ".repeat(120));
    let mut refused = 0;
    for number in 0..most {
        let key = format!("{name}_{number}");
        match set(&socket, doc, &key, &value) {
            Some((200, _)) => drop(journal.insert(key)),
            Some((507, error)) => {
                let text = error.to_string();
                assert!(text.contains("not saved"), "{text}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        if refused == 3 {
            break;
        }
    }
    refused
}

#[test]
fn a_full_disk_is_told_and_takes_no_document_with_it() {
    let Some(small) = Small::new(12) else { return };
    let mut node = small.run();
    let docs = [new_doc(&node, "one"), new_doc(&node, "other")];
    let mut journals = [BTreeSet::new(), BTreeSet::new()];
    let mut refusals = 0;
    // A document of this size is rewritten after every few dozen of these edits: the disk is full before, while
    // and after that happens.
    for (round, free) in [600_u64 << 10, 300 << 10, 100 << 10, 8 << 10, 0].into_iter().enumerate() {
        small.leave(free);
        for (doc, journal) in docs.iter().zip(&mut journals) {
            refusals += fill(&node, doc, &format!("full{round}"), 60, journal);
            // What was refused is not there, and what is there can be read.
            assert_eq!(keys(&node, doc), *journal, "round {round}");
        }
        if round % 2 == 1 {
            node.signal(Signal::KILL);
            node.end();
            std::fs::remove_file(small.ballast()).unwrap();
            node = small.run();
            for (doc, journal) in docs.iter().zip(&journals) {
                assert_eq!(keys(&node, doc), *journal, "after a kill in round {round}");
            }
        }
        std::fs::remove_file(small.ballast()).unwrap_or_default();
        // There is room again: both go on.
        for (doc, journal) in docs.iter().zip(&mut journals) {
            assert_eq!(fill(&node, doc, &format!("room{round}"), 10, journal), 0, "round {round}");
        }
    }
    assert!(refusals >= 6, "the disk was full {refusals} times");
    node.signal(Signal::KILL);
    node.end();
    let node = small.run();
    for (doc, journal) in docs.iter().zip(&journals) {
        assert_eq!(keys(&node, doc), *journal);
    }
}
