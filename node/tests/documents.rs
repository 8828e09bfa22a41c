//! Documents on real nodes, as people use them: share, edit apart, come together, be removed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod home;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use home::Home;
use serde_json::Value;

impl Home {
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["--json"]].concat())).unwrap()
    }

    /// Runs a command that must fail so; gives what it said.
    fn fails(&self, words: &[&str], exit: i32) -> String {
        let output = self.wattle(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {said}");
        said
    }

    /// A command that goes on until it is told to stop.
    fn keeps_on(&self, words: &[&str]) -> Running {
        let mut child = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, said }
    }

    /// Waits until the file of that name is as it should be; says how long it took.
    fn until_file(&self, name: &str, is: impl Fn(&str) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
            if is(&text) {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{name} stays as it is: {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a node's document has this text; says how long it took.
    fn until_text(&self, node: &str, title: &str, is: impl Fn(&str) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let text = self.ok(&["-n", node, "doc", "show", title]);
            if is(&text) {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{title} at {node} stays as it is: {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
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

/// A command that goes on, and what it prints.
struct Running {
    child: std::process::Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Running {
    /// The next line that says this.
    fn until(&self, part: &str) -> String {
        loop {
            let line = self.said.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("nobody says `{part}`"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Whether it ends as it should at a Ctrl-C that comes once it has said this on stderr.
    fn interrupted_after(mut self, part: &str) -> bool {
        let mut stderr = BufReader::new(self.child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it said `{part}`");
        }
        self.signal("-INT");
        self.child.wait().unwrap().code() == Some(130)
    }

    /// Ends it as Ctrl-C does; gives what it still said on stderr.
    fn interrupt(mut self) -> String {
        self.signal("-INT");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(130), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ignored because one that was interrupted has ended already.
        drop(self.child.kill());
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
    let took = home.until_equal("alice", "bob", "notes");
    assert!(took <= Duration::from_secs(1), "after the cut they took {took:?}");
    let text = home.ok(&["-n", "alice", "doc", "show", "notes"]);
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", "notes"]), text);
    for part in ["zero", "by alice", "by bob", "four"] {
        assert!(text.contains(part), "`{part}` is lost: {text}");
    }
    past_names_both(&home, &bob, &text);
}

/// After two have written apart and come together: who, what, and each version as its author saw it.
fn past_names_both(home: &Home, bob: &str, text: &str) {
    home.ok(&["-n", "alice", "peers", "name", bob, "bob"]);
    let past = home.json(&["-n", "alice", "doc", "history", "notes"]);
    assert_eq!(past["heads"], home.doc("alice", "notes")["heads"]);
    let steps = past["steps"].as_array().unwrap();
    let by = |who: &str| {
        let step = steps.iter().find(|step| step["author"]["name"] == who && step["lines_added"] == 2);
        step.unwrap_or_else(|| panic!("nothing by {who}: {past}")).clone()
    };
    let theirs = by("bob");
    assert_eq!((&theirs["lines_removed"], &theirs["author"]["id"]), (&Value::from(1), &Value::from(bob)));
    assert!(steps.iter().any(|step| step["author"]["me"] == true), "{past}");
    let screen = home.ok(&["-n", "alice", "doc", "history", "notes"]);
    assert!(screen.contains("  bob  ") && screen.contains("  you  "), "{screen}");
    assert!(screen.contains("+2 -1 lines"), "{screen}");

    // What history prints names a version: bob's is the document as he saved it, without what alice did.
    let short = &theirs["version"].as_str().unwrap()[..8];
    assert!(screen.contains(short), "{screen}");
    let as_bob_saw_it = home.ok(&["-n", "alice", "doc", "show", "notes", "--at", short]);
    assert_eq!(as_bob_saw_it, "one\ntwo by bob\nthree\nfour\n");
    let words = ["-n", "alice", "--color", "always", "doc", "diff", "notes", short];
    let diff = home.ok(&words);
    assert!(diff.contains("\u{1b}[32m+zero\u{1b}[0m") && diff.contains("by you"), "{diff}");
    let plain = home.ok(&["-n", "alice", "doc", "diff", "notes", short]);
    assert!(!plain.contains('\u{1b}') && !text.is_empty(), "{plain}");
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
        assert_eq!(home.ok(&["-n", "bob", "doc", "list", "-q"]), "", "what never arrived is not listed");
    }
    // A ticket made after the removal lets in again.
    let anew = home.ok(&["-n", "alice", "doc", "share", "news", "-q"]).trim().to_owned();
    home.ok(&["-n", "bob", "doc", "join", &anew]);
    home.ok(&["-n", "bob", "doc", "set", "news", "mine", "x"]);
    home.until_equal("alice", "bob", "news");
}

#[test]
fn whoever_watches_hears_who_did_what_also_after_the_node_was_away() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "peers", "name", &bob, "bob"]);
    let text = home.keeps_on(&["-n", "alice", "doc", "watch", "notes"]);
    let lines = home.keeps_on(&["-n", "alice", "doc", "watch", "notes", "--json"]);
    lines.until("\"type\":\"watching\"");
    home.ok(&["-n", "bob", "doc", "set", "notes", "tea", "green"]);
    text.until("tea by bob");
    assert!(home.edit("bob", "notes", "1d").status.success());
    text.until("+0 -1 lines by bob");
    let line: Value = serde_json::from_str(&lines.until("\"lines_removed\":1")).unwrap();
    assert_eq!((&line["type"], &line["step"]["author"]["name"]), (&"changed".into(), &"bob".into()));
    assert!(line["ts"].is_string(), "{line}");

    home.ok(&["-n", "alice", "stop"]);
    home.ok(&["-n", "bob", "doc", "set", "notes", "cups", "3"]);
    home.run("alice");
    text.until("cups by bob");
    let line: Value = serde_json::from_str(&lines.until("cups")).unwrap();
    assert_eq!(line["type"], "changed");
    home.ok(&["-n", "alice", "doc", "rm", "notes"]);
    drop(lines);
    let mut text = text;
    assert_eq!(text.child.wait().unwrap().code(), Some(4), "a document that was forgotten ends a watch");
    home.ok(&["-n", "alice", "doc", "new", "other"]);
    assert!(home.keeps_on(&["-n", "alice", "doc", "watch", "other"]).interrupted_after("watching"));
}

#[test]
fn a_document_that_was_a_file_keeps_its_history_and_a_damaged_file_is_refused() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    home.ok(&["-n", "bob", "doc", "set", "notes", "tea", "green"]);
    home.until_equal("alice", "bob", "notes");
    let place = |name: &str| home.path().join(name).display().to_string();
    let (saved, text, json) = (place("notes.automerge"), place("notes.txt"), place("notes.json"));
    for file in [&saved, &text, &json] {
        home.ok(&["-n", "alice", "doc", "export", "notes", "-o", file]);
    }
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "one\ntwo\nthree\n");
    let fields: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&fields["tea"], &fields["title"]), (&"green".into(), &"notes".into()));
    let loaded = automerge::Automerge::load(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(loaded.get_changes(&[]).len(), 2);

    // Nothing is replaced without a word, and what is there stays whole.
    let before = std::fs::read(&saved).unwrap();
    let said = home.fails(&["-n", "alice", "doc", "export", "notes", "--format", "text", "-o", &saved], 6);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&saved).unwrap(), before);
    home.ok(&["-n", "alice", "doc", "export", "notes", "-o", &text, "--force"]);

    let copy = home.ok(&["-n", "bob", "doc", "import", &saved, "--title", "copy", "-q"]).trim().to_owned();
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", &copy, "--path", "tea"]).trim(), "\"green\"");
    let past = home.json(&["-n", "bob", "doc", "history", &copy, "--each"]);
    let versions: Vec<&str> =
        past["steps"].as_array().unwrap().iter().filter_map(|step| step["version"].as_str()).collect();
    let old = home.json(&["-n", "alice", "doc", "history", "notes", "--each"]);
    for step in old["steps"].as_array().unwrap() {
        assert!(versions.contains(&step["version"].as_str().unwrap()), "{step} is not in {past}");
    }
    home.ok(&["-n", "bob", "doc", "import", &json, "--title", "from json"]);
    assert_eq!(home.ok(&["-n", "bob", "doc", "show", "from json", "--path", "tea"]).trim(), "\"green\"");
    home.ok(&["-n", "bob", "doc", "import", &text, "--title", "from text"]);
    assert_eq!(home.json(&["-n", "bob", "doc", "show", "from text"])["text"], "one\ntwo\nthree\n");

    let damaged = place("damaged.automerge");
    let cut = &before[..before.len() - 7];
    let mut turned = before.clone();
    turned[20] ^= 1;
    for bytes in [cut, turned.as_slice(), b"not automerge"] {
        std::fs::write(&damaged, bytes).unwrap();
        home.fails(&["-n", "bob", "doc", "import", &damaged], 9);
    }
    std::fs::write(&damaged, [0xff, 0xfe, 0]).unwrap();
    std::fs::rename(&damaged, place("binary")).unwrap();
    home.fails(&["-n", "bob", "doc", "import", &place("binary")], 2);
}

#[test]
fn a_text_of_megabytes_goes_in_and_comes_out() {
    let home = Home::with(&["alice"]);
    let file = home.path().join("long.txt").display().to_string();
    let long: String = (0..60_000).map(|line| format!("this is line number {line}\n")).collect();
    std::fs::write(&file, &long).unwrap();
    home.ok(&["-n", "alice", "doc", "import", &file]);
    assert_eq!(home.ok(&["-n", "alice", "doc", "export", "long", "--format", "text"]), long);
}

#[test]
fn an_id_alone_opens_what_is_here_and_says_what_is_missing_elsewhere() {
    let home = Home::with(&["alice", "bob"]);
    let id = home.ok(&["-n", "alice", "doc", "new", "notes", "-q"]).trim().to_owned();
    let said = home.ok(&["-n", "alice", "doc", "join", &id]);
    assert!(said.starts_with("here already: \"notes\""), "{said}");
    let said = home.fails(&["-n", "bob", "doc", "join", &id], 4);
    assert!(said.contains("an id alone opens nothing") && said.contains("wattle doc share"), "{said}");
    assert_eq!(home.ok(&["-n", "bob", "doc", "list", "-q"]), "");

    // What is not there is not there, whether it is a document or a part of one, and hints are for this node.
    let said = home.fails(&["-n", "alice", "doc", "show", "notes", "--path", "tea"], 4);
    assert!(said.contains("nothing at `tea`"), "{said}");
    let said = home.fails(&["-n", "alice", "doc", "show", "news"], 4);
    assert!(said.contains("wattle -n alice --home") && said.contains("doc list"), "{said}");
    home.fails(&["-n", "alice", "doc", "show", "notes", "--path", "a[["], 2);
    let file = home.path().join("text.md").display().to_string();
    std::fs::write(&file, "text\n").unwrap();
    home.ok(&["-n", "alice", "doc", "new", "text", "--from", &file]);
    let unchanged = home.edit("alice", "text", "");
    assert_eq!(String::from_utf8_lossy(&unchanged.stdout), "nothing was changed\n");
    assert!(!String::from_utf8_lossy(&unchanged.stderr).contains("changed"), "{unchanged:?}");
}

#[test]
fn a_bound_file_and_its_document_stay_in_step_both_ways() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "peers", "name", &bob, "bob"]);
    let file = home.path().join("bound.md");
    let path = file.display().to_string();
    let binding = home.keeps_on(&["-n", "alice", "doc", "bind", &path, "notes"]);
    binding.until("are equal");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();

    // An editor that writes in place, and one that puts a new file there.
    std::fs::write(&file, "one\ntwo\nthree\nfour\n").unwrap();
    let took = home.until_text("bob", "notes", |text| text.ends_with("four\n"));
    assert!(took <= Duration::from_secs(1), "the file took {took:?}");
    binding.until("file -> document   +1 -0 lines");
    assert!(Command::new("sed").args(["-i", "s/one/ONE/", &path]).status().unwrap().success());
    let took = home.until_text("bob", "notes", |text| text.starts_with("ONE\n"));
    assert!(took <= Duration::from_secs(1), "the replaced file took {took:?}");

    assert!(home.edit("bob", "notes", "s/three/THREE/").status.success());
    let took = home.until_file("bound.md", |text| text == "ONE\ntwo\nTHREE\nfour\n");
    assert!(took <= Duration::from_secs(1), "the document took {took:?}");
    binding.until("document -> file   +1 -1 lines by bob");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o640, "its mode is kept");

    // Again and again at the same time, on both sides: nothing is lost, and no conflict file appears.
    for round in 0..10 {
        let editor = std::thread::spawn({
            let file = file.clone();
            move || {
                let text = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, format!("{text}file {round}\n")).unwrap();
            }
        });
        assert!(home.edit("bob", "notes", &format!("1i doc {round}")).status.success());
        editor.join().unwrap();
        let both = |text: &str| {
            text.contains(&format!("file {round}\n")) && text.contains(&format!("doc {round}\n"))
        };
        home.until_file("bound.md", both);
        home.until_text("bob", "notes", both);
    }
    let text = home.ok(&["-n", "alice", "doc", "show", "notes"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    for round in 0..10 {
        for line in [format!("file {round}"), format!("doc {round}")] {
            assert_eq!(text.lines().filter(|other| **other == line).count(), 1, "`{line}`: {text}");
        }
    }
    let names: Vec<String> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("bound.md"))
        .collect();
    assert_eq!(names, ["bound.md"]);
    binding.interrupt();
}

#[test]
fn a_binding_goes_on_where_it_was_after_it_was_killed_and_while_its_node_is_away() {
    let home = Home::with(&["alice", "bob"]);
    shared(&home);
    let file = home.path().join("bound.md");
    let path = file.display().to_string();
    let words = ["-n", "alice", "doc", "bind", &path, "notes"];
    let binding = home.keeps_on(&words);
    binding.until("are equal");
    // While the node is away both sides are changed.
    home.ok(&["-n", "alice", "stop"]);
    std::fs::write(&file, "one, in the file\ntwo\nthree\n").unwrap();
    assert!(home.edit("bob", "notes", "s/three/three, by bob/").status.success());
    home.run("alice");
    let merged = "one, in the file\ntwo\nthree, by bob\n";
    home.until_file("bound.md", |text| text == merged);
    home.until_text("bob", "notes", |text| text == merged);
    binding.signal("-KILL");
    drop(binding);
    // While nothing keeps them in step, too.
    std::fs::write(&file, "one, in the file\ntwo\ntwo and a half\nthree, by bob\n").unwrap();
    assert!(home.edit("bob", "notes", "1i zero").status.success());
    home.until_text("alice", "notes", |text| text.starts_with("zero"));
    home.ok(&[&words[..], &["--once"]].concat());
    let merged = "zero\none, in the file\ntwo\ntwo and a half\nthree, by bob\n";
    assert_eq!(std::fs::read_to_string(&file).unwrap(), merged);
    assert_eq!(home.ok(&["-n", "alice", "doc", "show", "notes"]), merged);
}

#[test]
fn what_cannot_be_bound_is_said_and_nothing_is_touched() {
    let home = Home::with(&["alice"]);
    let place = |name: &str| home.path().join(name).display().to_string();
    let (own, other) = (place("own.md"), place("other.md"));
    std::fs::write(&own, "mine\n").unwrap();
    home.ok(&["-n", "alice", "doc", "new", "notes", "--from", &own]);
    std::fs::write(&other, "another\n").unwrap();
    let once = |file: &str, more: &[&str]| {
        home.wattle(&[&["-n", "alice", "doc", "bind", file, "notes", "--once"], more].concat())
    };
    let said = home.fails(&["-n", "alice", "doc", "bind", &other, "notes"], 6);
    assert!(said.contains("--from file") && said.contains("--from doc"), "{said}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "another\n");

    let binary = place("picture.png");
    std::fs::write(&binary, [0x89, b'P', b'N', b'G', 0, 0xff]).unwrap();
    home.fails(&["-n", "alice", "doc", "bind", &binary, "notes"], 2);
    assert_eq!(std::fs::read(&binary).unwrap().len(), 6);
    home.fails(&["-n", "alice", "doc", "bind", &place("no/such.md"), "notes"], 4);
    home.fails(&["-n", "alice", "doc", "bind", &place(""), "notes"], 2);

    let binding = home.keeps_on(&["-n", "alice", "doc", "bind", &own, "notes"]);
    binding.until("are equal");
    let said = home.fails(&["-n", "alice", "doc", "bind", &own, "notes", "--once"], 6);
    assert!(said.contains("another process keeps"), "{said}");
    // Also once an editor has put another file there.
    assert!(Command::new("sed").args(["-i", "s/mine/yours/", &own]).status().unwrap().success());
    home.fails(&["-n", "alice", "doc", "bind", &own, "notes", "--once"], 6);
    home.until_text("alice", "notes", |text| text == "yours\n");
    home.fails(&["-n", "alice", "doc", "bind", &own, "notes", "--once"], 6);
    // What becomes binary stays as it is, and so does the document.
    std::fs::write(&own, [0xff, 0]).unwrap();
    let mut binding = binding;
    assert_eq!(binding.child.wait().unwrap().code(), Some(2));
    assert_eq!(home.ok(&["-n", "alice", "doc", "show", "notes"]), "yours\n");

    assert!(once(&other, &["--from", "doc"]).status.success());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "yours\n");
    assert_eq!(std::fs::read_to_string(place("other.md.old1")).unwrap(), "another\n");
    let third = place("third.md");
    std::fs::write(&third, "third\n").unwrap();
    assert!(once(&third, &["--from", "file"]).status.success());
    assert_eq!(home.ok(&["-n", "alice", "doc", "show", "notes"]), "third\n");
}
