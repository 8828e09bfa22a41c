//! Documents on real nodes, as people use them: share, edit apart, come together, be removed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Home(tempfile::TempDir);

impl Home {
    fn with(nodes: &[&str]) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for node in nodes {
            home.ok(&["-n", node, "config", "set", "api.listen", "off"]);
            home.run(node);
        }
        home
    }

    fn run(&self, node: &str) {
        let (quic, tcp) = ("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0");
        self.ok(&["-n", node, "run", "-d", "--no-mdns", "--listen", quic, "--listen", tcp]);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
        command.args(["--home", &self.path().display().to_string()]).args(words).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn wattle(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.wattle(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Edits a document with `sed`, as a person would with an editor.
    fn edit(&self, node: &str, doc: &str, script: &str) -> Output {
        let editor = format!("sed -i '{script}'");
        self.command(&["-n", node, "doc", "edit", doc]).env("EDITOR", editor).output().unwrap()
    }

    fn doc(&self, node: &str, title: &str) -> Value {
        let docs: Value = serde_json::from_str(&self.ok(&["-n", node, "doc", "list", "--json"])).unwrap();
        let found = docs["docs"].as_array().unwrap().iter().find(|doc| doc["title"] == title);
        found.unwrap_or_else(|| panic!("{node} has no {title}: {docs}")).clone()
    }

    /// Waits until both have the same heads; says how long it took.
    fn until_equal(&self, one: &str, other: &str, title: &str) -> Duration {
        let began = Instant::now();
        while self.doc(one, title)["heads"] != self.doc(other, title)["heads"] {
            assert!(began.elapsed() < Duration::from_secs(20), "{one} and {other} stay apart");
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for node in ["alice", "bob"] {
            self.wattle(&["-n", node, "stop", "--timeout", "5s"]);
        }
    }
}

fn shared(home: &Home) {
    let notes = home.path().join("notes.md").display().to_string();
    std::fs::write(&notes, "one\ntwo\nthree\n").unwrap();
    home.ok(&["-n", "alice", "doc", "new", "notes", "--from", &notes]);
    let ticket = home.ok(&["-n", "alice", "doc", "share", "notes", "-q"]).trim().to_owned();
    assert!(ticket.len() <= 200, "{} characters: {ticket}", ticket.len());
    let began = Instant::now();
    home.ok(&["-n", "bob", "doc", "join", &ticket]);
    assert!(began.elapsed() < Duration::from_secs(3), "the document took {:?}", began.elapsed());
}

#[test]
fn two_editors_on_both_sides_of_a_cut_lose_nothing() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", "notes"]), "one\ntwo\nthree\n");
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "peers", "block", &bob]);
    // The same line and others, on both sides.
    assert!(home.edit("alice", "notes", "s/two/two by alice/;1s/^/zero\\n/").status.success());
    assert!(home.edit("bob", "notes", "s/two/two by bob/;$s/$/\\nfour/").status.success());
    assert_ne!(home.doc("alice", "notes")["heads"], home.doc("bob", "notes")["heads"]);
    home.ok(&["-n", "alice", "peers", "unblock", &bob]);
    home.ok(&["-n", "alice", "connect", &bob]);
    home.until_equal("alice", "bob", "notes");
    let text = home.ok(&["-n", "alice", "doc", "show", "notes"]);
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", "notes"]), text);
    for part in ["zero", "by alice", "by bob", "four"] {
        assert!(text.contains(part), "`{part}` is lost: {text}");
    }
}

#[test]
fn an_acknowledged_edit_survives_kill_9_and_reaches_the_other_afterwards() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    home.ok(&["-n", "alice", "stop"]);
    home.ok(&["-n", "bob", "doc", "set", "notes", "tea", "green"]);
    let status: Value = serde_json::from_str(&home.ok(&["-n", "bob", "status", "--json"])).unwrap();
    let pid = status["pid"].as_u64().or_else(|| status["node"]["pid"].as_u64());
    let pid = pid.unwrap_or_else(|| panic!("no pid in {status}")).to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    home.run("alice");
    let began = Instant::now();
    while home.wattle(&["-n", "bob", "run", "-d", "--no-mdns"]).status.code() != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(10), "bob does not start again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", "notes", "--path", "tea"]).trim(), "\"green\"");
    home.until_equal("alice", "bob", "notes");
    assert_eq!(home.ok(&["-n", "alice", "doc", "show", "notes", "--path", "tea"]).trim(), "\"green\"");
}

#[test]
fn a_reader_cannot_write_and_a_removed_writer_cannot_come_back() {
    let home = Home::with(&["alice", "bob"]);
    home.ok(&["-n", "alice", "doc", "new", "news"]);
    let ticket = home.ok(&["-n", "alice", "doc", "share", "news", "--ro", "-q"]).trim().to_owned();
    home.ok(&["-n", "bob", "doc", "join", &ticket]);
    let refused = home.wattle(&["-n", "bob", "doc", "set", "news", "mine", "x"]);
    assert_eq!(refused.status.code(), Some(7), "{}", String::from_utf8_lossy(&refused.stderr));
    let writer = home.ok(&["-n", "alice", "doc", "share", "news", "-q"]).trim().to_owned();
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "doc", "remove", "news", &bob]);
    home.ok(&["-n", "bob", "doc", "rm", "news"]);
    for (ticket, exit) in [(&ticket, 7), (&writer, 7)] {
        let back = home.wattle(&["-n", "bob", "doc", "join", ticket]);
        assert_eq!(back.status.code(), Some(exit), "{}", String::from_utf8_lossy(&back.stderr));
        home.ok(&["-n", "bob", "doc", "rm", home.ok(&["-n", "bob", "doc", "list", "-q"]).trim()]);
    }
    // A ticket made after the removal lets in again.
    let anew = home.ok(&["-n", "alice", "doc", "share", "news", "-q"]).trim().to_owned();
    home.ok(&["-n", "bob", "doc", "join", &anew]);
    home.ok(&["-n", "bob", "doc", "set", "news", "mine", "x"]);
    home.until_equal("alice", "bob", "news");
}
