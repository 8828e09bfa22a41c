//! Two real nodes in one home: every command that needs a node, with `--json`, against its schema's name.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod home;
mod schemas;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use home::Home;
use serde_json::Value;
use wattle::cli::pages::{PAGES, page};

impl Home {
    /// Runs a leaf with `--json` and checks what it prints against its page.
    fn json(&self, path: &str, words: &[&str]) {
        let words: Vec<&str> = path.split(' ').chain(words.iter().copied()).chain(["--json"]).collect();
        let output = self.wattle(&words);
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        let calm = output.status.success() || output.status.code() == Some(10);
        assert!(calm, "{words:?}: {stderr}");
        schemas::check(page(path).unwrap(), &stdout);
    }

    /// Runs a leaf without colours, and with a stdout that is full or closed: no escape byte, and no panic.
    fn is_calm(&self, path: &str, words: &[&str]) {
        let words: Vec<&str> = path.split(' ').chain(words.iter().copied()).collect();
        let plain = self.command(&words).env("NO_COLOR", "1").env("TERM", "xterm").output().unwrap();
        assert!(!plain.stdout.contains(&0x1b) && !plain.stderr.contains(&0x1b), "{words:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        // 141 is what a shell says of a program that a closed pipe ended.
        for (stdout, status) in [(Stdio::from(full), 1), (Stdio::from(closed), 141)] {
            let output = self.command(&words).stdout(stdout).output().unwrap();
            let (code, stderr) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
            let expected = matches!(code, Some(4 | 10)) || code == Some(status);
            assert!(expected, "{words:?}: {:?} {stderr}", output.status);
            assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
        }
    }

    /// Runs a leaf with `--json` that must fail so.
    fn fails(&self, path: &str, words: &[&str], exit: i32) {
        let words: Vec<&str> = path.split(' ').chain(words.iter().copied()).chain(["--json"]).collect();
        let output = self.wattle(&words);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {stderr}");
        let page = page(path).unwrap();
        assert!(
            exit == 2 || page.exits.iter().any(|code| i32::from(code.exit()) == exit),
            "{words:?} {exit}"
        );
        schemas::check_error(page, stderr.lines().last().unwrap_or_default());
    }
}

/// A peer that nobody has ever seen.
const NOBODY: &str = "12D3KooWGjMCwmwtWzhRSC6qdFMH1fGQCCQ7TRvBz2Hh6dsuXBFJ";

/// How commands fail at a running node: words, and the exit status.
const FAILURES: &[(&str, &[&str], i32)] = &[
    ("id", &["carol"], 4),
    ("ui", &["-n", "bob"], 1),
    ("wait", &["--peers", "99", "--timeout", "100ms"], 5),
    ("logs level", &["=/="], 2),
    ("invite", &["--expires", "1ms"], 2),
    ("join", &["wattle:1abc"], 9),
    ("connect", &["carol"], 4),
    ("disconnect", &["carol"], 4),
    ("peers name", &["carol", "x"], 4),
    ("peers block", &["carol"], 4),
    ("peers unblock", &["carol"], 4),
    ("ping", &["carol"], 4),
    ("members remove", &["carol"], 4),
    ("members remove", &[NOBODY], 6),
    ("dht get", &["nothing-of-the-kind", "--timeout", "5s"], 4),
    ("dht find-peer", &[NOBODY, "--timeout", "5s"], 4),
    ("topic pub", &["a b", "x"], 2),
    ("topic sub", &["a b"], 2),
    ("topic request", &["live.nobody", "x", "--timeout", "100ms"], 5),
    ("invite", &["--room", "nothing"], 4),
    ("room new", &["a b"], 2),
    ("room new", &["talk"], 6),
    ("room info", &["nothing"], 4),
    ("room members", &["nothing"], 4),
    ("room leave", &["nothing"], 4),
    ("room export", &["nothing"], 4),
    ("chat", &["nothing"], 4),
    ("chat", &[], 2),
    ("chat send", &["nothing", "x"], 4),
    ("chat send", &["talk", " "], 2),
    ("chat tail", &["nothing"], 4),
    ("doc new", &["x", "--from", "/nowhere"], 4),
    ("doc show", &["nothing"], 4),
    ("doc show", &["mine", "--at", "xyz"], 2),
    ("doc show", &["mine", "--at", "00000000"], 4),
    ("doc open", &["nothing", "--print"], 4),
    ("doc history", &["mine", "--limit", "0"], 2),
    ("doc diff", &["mine", "00000000"], 4),
    ("doc watch", &["nothing"], 4),
    ("doc export", &["mine", "-o", "/proc/version"], 6),
    ("doc import", &["/nowhere"], 4),
    ("doc bind", &["/dev/null", "mine"], 2),
    ("doc join", &["automerge:2UFWaUbN7ZVhyYcFrEcnzLnKwKyK"], 9),
    ("doc set", &["mine", "sections", "3"], 2),
    ("doc share", &["nothing"], 4),
    ("doc join", &["wattle:1abc"], 9),
    ("doc remove", &["mine", NOBODY], 2),
    ("doc rm", &["automerge:3yQ"], 4),
    ("token revoke", &["00000000"], 4),
    ("config set", &["log.level", "=/="], 2),
    ("bench ping", &["--rate", "0"], 2),
    ("bench gossip", &["--size", "0"], 2),
    ("run", &[], 6),
];

/// Documents that the walk needs; gives a file to begin one with and a ticket to one of bob's.
fn with_documents(home: &Home) -> (String, String) {
    let notes = home.path().join("notes.md").display().to_string();
    std::fs::write(&notes, "tea\n").unwrap();
    home.ok(&["doc", "new", "gone"]);
    home.ok(&["-n", "bob", "doc", "new", "shared"]);
    let doc_ticket = home.ok(&["-n", "bob", "doc", "share", "shared", "-q"]).trim().to_owned();
    home.ok(&["doc", "new", "mine", "--from", &notes]);
    let mine = home.ok(&["doc", "share", "mine", "-q"]).trim().to_owned();
    home.ok(&["-n", "bob", "doc", "join", &mine]);
    (notes, doc_ticket)
}

/// Walks the commands about documents.
fn walk_documents(home: &Home, notes: &str, ticket: &str) -> Vec<&'static str> {
    let version = home.ok(&["doc", "history", "mine", "-q"]).trim().to_owned();
    let saved = home.path().join("saved.automerge").display().to_string();
    let walk: &[(&'static str, &[&str])] = &[
        ("doc new", &["another", "--from", notes]),
        ("doc list", &[]),
        ("doc show", &["mine"]),
        ("doc show", &["mine", "--path", "title"]),
        ("doc set", &["mine", "count", "3"]),
        ("doc edit", &["mine"]),
        ("doc open", &["mine", "--print"]),
        ("doc history", &["mine"]),
        ("doc diff", &["mine", &version]),
        ("doc export", &["mine", "--format", "text"]),
        ("doc export", &["mine", "--force", "-o", &saved]),
        ("doc import", &[&saved, "--title", "imported"]),
        ("doc bind", &[notes, "mine", "--once", "--from", "file"]),
        ("doc share", &["mine", "--ro"]),
        ("doc join", &[ticket]),
        ("doc members", &["shared"]),
        ("doc remove", &["mine", "bob"]),
        ("doc rm", &["gone"]),
    ];
    walk_through(home, walk)
}

/// A member that came and said goodbye; gives its id.
fn one_that_left(home: &Home) -> String {
    home.set_up("dave");
    home.run("dave");
    home.ok(&["wait", "--members", "3", "--timeout", "20s"]);
    let dave = home.ok(&["-n", "dave", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "dave", "stop"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while home.ok(&["members", "--status", "left", "-q"]).trim() != dave {
        assert!(std::time::Instant::now() < deadline, "{}", home.ok(&["members"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    dave
}

/// Walks the commands about rooms.
fn walk_rooms(home: &Home) -> Vec<&'static str> {
    home.ok(&["room", "new", "talk"]);
    home.ok(&["room", "new", "gone"]);
    // These succeed only once, so they are not run again without a place to write to.
    home.json("room new", &["another"]);
    home.json("room leave", &["gone"]);
    let mut seen = vec!["room new", "room leave"];
    let walk: &[(&'static str, &[&str])] = &[
        ("chat send", &["talk", "hello"]),
        ("chat tail", &["talk", "-c", "1"]),
        ("room list", &[]),
        ("room info", &["talk"]),
        ("room members", &["talk"]),
        ("room export", &["talk"]),
        ("invite", &["--room", "talk"]),
    ];
    seen.extend(walk_through(home, walk));
    // Without a terminal the chat prints lines for as long as somebody reads them.
    let words = ["chat", "talk", "--json"];
    let mut chat = home.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(chat.stdout.take().unwrap()).read_line(&mut line).unwrap();
    chat.kill().unwrap();
    chat.wait().unwrap();
    schemas::check(page("chat").unwrap(), &line);
    seen.push("chat");
    seen
}

/// Load, for a moment.
const LOADS: &[(&str, &[&str])] = &[
    ("bench ping", &["--for", "200ms"]),
    ("bench gossip", &["--for", "200ms", "--clients", "2"]),
    ("bench dht", &["--for", "200ms"]),
    ("bench doc", &["--for", "200ms"]),
];

/// What is not walked but seen all the same, here or where there is a log.
const ELSEWHERE: &[&str] =
    &["wait", "peers name", "token revoke", "stop", "topic reply", "topic sub", "doc watch", "bench order"];

/// Runs each with `--json` and calmly; gives their paths.
fn walk_through(home: &Home, walk: &[(&'static str, &[&str])]) -> Vec<&'static str> {
    for (path, words) in walk {
        home.json(path, words);
        if !["disconnect", "topic request", "doc remove"].contains(path) {
            home.is_calm(path, words);
        }
    }
    walk.iter().map(|(path, _)| *path).collect()
}

#[test]
fn every_command_answers_with_its_document() {
    let home = Home::with(&["default", "bob"]);
    home.json("wait", &["--ready", "--peers", "1"]);
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.json("peers name", &[&bob, "bob"]);
    let gone = one_that_left(&home);
    let ticket = home.ok(&["-n", "bob", "invite", "-q"]).trim().to_owned();
    let replies = ["-n", "bob", "topic", "reply", "live.ask", "--exec", "tr a-z A-Z", "-c", "1", "--json"];
    let reply = home.command(&replies).stdout(Stdio::piped()).spawn().unwrap();
    let hears = ["topic", "sub", "live.*", "-c", "1", "--json"];
    let sub = home.command(&hears).stdout(Stdio::piped()).spawn().unwrap();

    let (notes, doc_ticket) = with_documents(&home);
    let watches = ["doc", "watch", "mine", "-c", "1", "--json"];
    let watch = home.command(&watches).stdout(Stdio::piped()).spawn().unwrap();

    let walk: &[(&'static str, &[&str])] = &[
        ("id", &[]),
        ("status", &[]),
        ("health", &[]),
        ("doctor", &[]),
        ("version", &[]),
        ("ui", &["--print"]),
        ("logs", &["--since", "1m"]),
        ("logs level", &[]),
        ("logs level", &["info"]),
        ("invite", &["--expires", "1h"]),
        ("join", &[&ticket]),
        ("connect", &["bob"]),
        ("peers", &["--all"]),
        ("ping", &["bob", "-c", "1"]),
        ("members", &["--status", "alive"]),
        ("members remove", &[&gone]),
        ("dht put", &["greeting", "back at 10"]),
        ("dht get", &["greeting"]),
        ("dht provide", &["printer"]),
        ("dht find-providers", &["printer"]),
        ("dht find-peer", &["bob"]),
        ("dht closest", &["bob"]),
        ("dht table", &[]),
        ("dht trace", &["bob"]),
        ("dht stats", &[]),
        ("topic request", &["live.ask", "hello", "--timeout", "10s"]),
        ("topic pub", &["live.news", "hello"]),
        ("topic list", &["--mesh"]),
        ("token new", &["--role", "read"]),
        ("token list", &[]),
        ("peers block", &["bob"]),
        ("peers unblock", &["bob"]),
        ("members leave", &[]),
        ("disconnect", &["bob"]),
    ];
    let mut seen = walk_documents(&home, &notes, &doc_ticket);
    seen.extend(walk_rooms(&home));
    seen.extend(walk_through(&home, LOADS));
    seen.extend(walk_through(&home, walk));
    for (path, stream) in [("topic reply", reply), ("topic sub", sub), ("doc watch", watch)] {
        let output = stream.wait_with_output().unwrap();
        assert!(output.status.success());
        schemas::check(page(path).unwrap(), std::str::from_utf8(&output.stdout).unwrap());
    }
    for (path, words, exit) in FAILURES {
        home.fails(path, words, *exit);
    }
    let tokens: Value = serde_json::from_str(&home.ok(&["token", "list", "--json"])).unwrap();
    let token = tokens["tokens"].as_array().unwrap().iter().find(|token| token["role"] == "read").unwrap();
    home.json("token revoke", &[token["id"].as_str().unwrap()]);
    home.json("stop", &[]);

    let of_the_log = |path: &str| path.starts_with("order ") || path.starts_with("register ");
    for page in PAGES.iter().filter(|page| page.needs_node && !of_the_log(page.path)) {
        assert!(seen.contains(&page.path) || ELSEWHERE.contains(&page.path), "{} is not walked", page.path);
    }
}

/// How commands about the log fail: words, and the exit status.
const LOG_FAILURES: &[(&str, &[&str], i32)] = &[
    ("order init", &["--validators", "default,bob,cleo"], 2),
    ("order init", &["--validators", "default,bob,cleo,nobody"], 2),
    ("order join", &["/nowhere"], 2),
    ("order submit", &["x", "--app", "Notes"], 2),
    ("order submit", &[""], 2),
    ("order log", &["--from", "x"], 2),
    ("order get", &["a:b"], 2),
    ("order get", &["999999"], 4),
    ("order get", &["1:99"], 4),
    ("order get", &["0000000000000000000000000000000000000000000000000000000000000000"], 4),
    ("order watch", &["-c", "99", "--timeout", "100ms"], 5),
    ("order verify", &["/nowhere", "--genesis", "/nowhere"], 2),
    ("order submit", &["x", "--app", "register/1"], 2),
    ("register append", &["no spaces", "x"], 2),
    ("register read", &["nothing"], 4),
];

#[test]
fn every_command_about_the_log_answers_with_its_document() {
    let home = Home::with(&["default", "bob", "cleo", "dora"]);
    for (path, words) in [
        ("order status", &[][..]),
        ("order submit", &["x"]),
        ("order log", &[]),
        ("bench order", &["--for", "100ms"]),
    ] {
        home.fails(path, words, 4);
    }
    home.fails("register append", &["births", "x"], 4);
    home.fails("register list", &[], 4);
    let file = |name: &str| home.path().join(name).display().to_string();
    let (genesis, other, receipt) = (file("genesis.json"), file("other.json"), file("r.json"));
    let who = "default,bob,cleo,dora";
    home.json("order init", &["--validators", who, "-o", &genesis]);
    home.fails("order init", &["--validators", who, "-o", &genesis], 2);
    home.json("order init", &["--validators", who, "-o", &other]);
    for node in ["bob", "cleo", "dora"] {
        home.ok(&["-n", node, "order", "join", &genesis]);
    }
    home.json("order join", &[&genesis]);
    home.json("order join", &[&genesis]);
    home.fails("order join", &[&other], 6);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !home.ok(&["order", "validators", "--json"]).matches("\"reachable\":true").count().eq(&4) {
        assert!(std::time::Instant::now() < deadline, "{}", home.ok(&["order", "validators"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let watches = ["order", "watch", "-c", "2", "--json"];
    let watch = home.command(&watches).stdout(Stdio::piped()).spawn().unwrap();
    let walk: &[(&'static str, &[&str])] = &[
        ("order submit", &["pay bob 5", "--receipt", &receipt]),
        ("order submit", &["pay bob 6", "--wait", "accept"]),
        ("bench order", &["--for", "200ms", "--clients", "4"]),
        ("order status", &[]),
        ("order validators", &[]),
        ("order log", &["--from", "1"]),
        ("order verify", &[&receipt, "--genesis", &genesis]),
        ("register append", &["births", "ann, 3.4 kg"]),
        ("register read", &["births"]),
        ("register list", &[]),
        ("status", &[]),
    ];
    walk_through(&home, walk);
    let first: Value = serde_json::from_str(&home.ok(&["order", "log", "--from", "1", "--json"])).unwrap();
    let entry = &first["entries"][0];
    home.json("order get", &[&entry["height"].to_string()]);
    home.json("order get", &[&format!("{}:{}", entry["height"], entry["index"])]);
    home.json("order get", &[entry["entry"].as_str().unwrap()]);
    let lines = home.ok(&["order", "log", "-f", "--from", "1", "-c", "1", "--json"]);
    let line: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((&line["type"], &line["entry"]), (&"entry".into(), &entry["entry"]));
    let output = watch.wait_with_output().unwrap();
    assert!(output.status.success());
    schemas::check(page("order watch").unwrap(), std::str::from_utf8(&output.stdout).unwrap());
    for (path, words, exit) in LOG_FAILURES {
        home.fails(path, words, *exit);
    }
    let text = std::fs::read_to_string(&receipt).unwrap();
    std::fs::write(&receipt, text.replacen("\"round\":", "\"round\":1", 1)).unwrap();
    home.fails("order verify", &[&receipt, "--genesis", &genesis], 9);
}

/// Takes a testnet away at the end of a test, however that ends.
struct Testnet<'a>(&'a Home);

impl Drop for Testnet<'_> {
    fn drop(&mut self) {
        self.0.wattle(&["testnet", "down"]);
    }
}

/// How commands about testnets fail: words, and the exit status.
const TESTNET_FAILURES: &[(&str, &[&str], i32)] = &[
    ("testnet up", &["0"], 2),
    ("testnet up", &["2"], 6),
    ("testnet up", &["5", "--validators", "3", "--name", "lab"], 2),
    ("testnet up", &["200", "--validators", "129", "--name", "lab"], 2),
    ("testnet apply", &["/nowhere"], 4),
    ("testnet partition", &["0,1"], 2),
    ("testnet partition", &["0,7", "1"], 4),
    ("testnet partition", &["0,1", "1"], 2),
    ("testnet latency", &["soon"], 2),
    ("testnet latency", &["0-7", "5ms"], 4),
    ("testnet loss", &["0-0", "5%"], 2),
    ("testnet pause", &["0"], 6),
    ("testnet remove", &["all"], 6),
    ("testnet kill", &["zoe"], 4),
    ("testnet status", &["--name", "other"], 4),
    ("testnet down", &["--name", "Bad"], 2),
];

#[test]
fn every_command_about_testnets_answers_with_its_document() {
    let home = Home::with(&[]);
    let testnet = Testnet(&home);
    let file = |name: &str, text: &str| {
        std::fs::write(home.path().join(name), text).unwrap();
        home.path().join(name).display().to_string()
    };
    let plan = "nodes = 2\n[links]\nlatency = \"1ms\"\n[[fault]]\nat = \"100ms\"\ndo = \"clear\"\n";
    let plan = file("plan.toml", plan);
    let wrong = file("wrong.toml", "nodes = 2\nlinks = 3\n");
    let other = file("other.toml", "nodes = 4\nvalidators = 4\n");
    let walk: &[(&'static str, &[&str])] = &[
        ("testnet list", &[]),
        ("testnet up", &["2"]),
        ("testnet list", &[]),
        ("testnet status", &[]),
        ("testnet exec", &["--json", "all", "--", "id"]),
        ("testnet logs", &[]),
        ("testnet latency", &["0-1", "5ms+-1", "--spread", "heavy-tail"]),
        ("testnet loss", &["1%"]),
        ("testnet rate", &["alice-bob", "10mbit"]),
        ("testnet disk", &["1", "full"]),
        ("testnet clock", &["bob", "90s", "--behind"]),
        ("testnet partition", &["--one-way", "0", "1"]),
        ("testnet status", &[]),
        ("testnet report", &["--within", "100ms"]),
        ("testnet clear", &[]),
        ("testnet heal", &[]),
        ("testnet pause", &["bob"]),
        ("testnet resume", &["bob"]),
        ("testnet kill", &["1"]),
        ("testnet restart", &["1"]),
        ("testnet add", &["1"]),
        ("testnet remove", &["2"]),
        ("testnet apply", &[&plan, "--dry-run"]),
        ("testnet apply", &[&plan]),
        ("testnet apply", &[&plan]),
        ("testnet chaos", &["--for", "20s", "--dry-run"]),
        ("testnet report", &["--within", "30s"]),
        ("testnet down", &["--keep"]),
        ("testnet status", &[]),
    ];
    for (path, words) in walk {
        home.json(path, words);
    }
    for (path, words, exit) in TESTNET_FAILURES {
        home.fails(path, words, *exit);
    }
    home.fails("testnet apply", &[&wrong], 2);
    home.fails("testnet apply", &[&other], 6);
    home.json("testnet down", &[]);
    home.fails("testnet down", &[], 4);
    drop(testnet);
    let elsewhere = ["testnet demo"];
    for page in PAGES.iter().filter(|page| page.path.starts_with("testnet")) {
        let walked = walk.iter().any(|(path, _)| *path == page.path) || page.path == "testnet down";
        assert!(walked || elsewhere.contains(&page.path), "{} is not walked", page.path);
    }
}

#[test]
fn a_second_start_names_the_first() {
    let home = Home::with(&["default"]);
    let output = home.wattle(&["run", "-d"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.starts_with("error: node \"default\" is already running (pid "), "{stderr}");
    let output = home.wattle(&["-n", "bob", "status"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("other nodes  default (running)"), "{stderr}");
}
