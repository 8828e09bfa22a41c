//! The ordered log among real nodes of this machine: their sockets, their disks, their deaths.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use wattle_tests::binary::{Machine, did_not_run, wait_for};
use wattle_tests::local::{Api, Local, Log, PATIENCE, agreed};

const VALIDATORS: [&str; 4] = ["anna", "bert", "cleo", "dora"];

fn start<'m>(machine: &'m Machine, name: &str) -> Local<'m> {
    assert!(machine.run(&["-n", name, "config", "set", "p2p.profile", "lan"]).status.success());
    Local::start(machine, name)
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Four nodes that keep a log, and its genesis.
fn four(machine: &Machine) -> (Vec<Local<'_>>, PathBuf) {
    let nodes: Vec<Local<'_>> = VALIDATORS.iter().map(|name| start(machine, name)).collect();
    let genesis = machine.home().join("genesis.json");
    let file = genesis.display().to_string();
    ok(&machine.run(&["order", "init", "--validators", &VALIDATORS.join(","), "-o", &file]));
    for node in &nodes {
        let joined = machine.json(&["-n", node.name(), "order", "join", &file]);
        assert_eq!(joined["role"], "validator", "{joined}");
    }
    for node in &nodes {
        wait_for("all validators are there", PATIENCE, || reachable(node) == 4);
    }
    (nodes, genesis)
}

fn reachable(node: &Local<'_>) -> u64 {
    node.api().get("/api/v1/order/status")["reachable"].as_u64().unwrap()
}

fn submitted(node: &Local<'_>, text: &str) -> Value {
    match node.api().submit(text) {
        Some((200, answer)) => answer,
        other => panic!("{} did not order {text}: {other:?}\n{}", node.name(), node.log()),
    }
}

/// Waits until nodes are as far as the farthest was, and holds their logs to each other.
fn agree(nodes: &[&Local<'_>]) -> Log {
    agreed(&nodes.iter().map(|node| node.api()).collect::<Vec<_>>(), PATIENCE)
}

#[test]
fn what_is_submitted_to_any_node_stands_in_one_order_on_all_and_a_fifth_follows() {
    let machine = Machine::new(None);
    let (nodes, genesis) = four(&machine);
    for round in 0..3 {
        for node in &nodes {
            let answer = submitted(node, &format!("{} {round}", node.name()));
            assert_eq!(answer["state"], "ordered", "{answer}");
        }
    }
    // One that comes later has everything from the beginning, and its entries are ordered as well.
    let follower = start(&machine, "finn");
    let joined = machine.json(&["-n", "finn", "order", "join", &genesis.display().to_string()]);
    assert_eq!(joined["role"], "follower", "{joined}");
    wait_for("the follower has the log", PATIENCE, || follower.api().log().len() == 12);
    let mine = submitted(&follower, "finn says hello");
    let all: Vec<&Local<'_>> = nodes.iter().chain([&follower]).collect();
    let log = agree(&all);
    let place = (mine["height"].as_u64().unwrap(), mine["index"].as_u64().unwrap());
    assert_eq!(log[&place].1, "finn says hello");
    assert_eq!(log.len(), 13, "each stands there once: {log:?}");
    // The same entry again is the same entry: it stands where it stands.
    let again = json!({ "data_b64": "YQ==", "salt": 7, "until_ms": unix_ms() + 60_000 });
    let first = nodes[0].api().ok("POST /api/v1/order/entries", &again);
    let second = nodes[1].api().ok("POST /api/v1/order/entries", &again);
    assert_eq!((&first["height"], &first["index"]), (&second["height"], &second["index"]));
    for node in &all {
        let status = machine.json(&["-n", node.name(), "status"]);
        assert_eq!(status["order"]["quorum"], true, "{status}");
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Says that it is over when it goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_nodes_are_killed_and_nothing_forks() {
    let machine = Machine::new(None);
    let (mut nodes, _) = four(&machine);
    let (acknowledged, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let apis: Vec<Api> = nodes.iter().map(Local::api).collect();
    std::thread::scope(|scope| {
        // The writers end with it, also when it fails.
        let ending = Ending(&over);
        for (writer, api) in apis.iter().enumerate() {
            let (acknowledged, over) = (&acknowledged, &over);
            scope.spawn(move || {
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let text = format!("{writer} {number}");
                    if let Some((200, answer)) = api.submit(&text) {
                        let place = |of: &str| answer[of].as_u64().unwrap();
                        acknowledged.lock().unwrap().push(((place("height"), place("index")), text));
                    } else {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            });
        }
        let more = |count: usize| {
            let before = acknowledged.lock().unwrap().len();
            wait_for("more is ordered", PATIENCE, || acknowledged.lock().unwrap().len() >= before + count);
        };
        more(20);
        for victim in [3, 0, 1] {
            nodes[victim].kill();
            more(20);
            nodes[victim].run();
            more(20);
        }
        drop(ending);
    });
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= 140, "{}", acknowledged.len());
    for (place, text) in &acknowledged {
        assert_eq!(log.get(place).map(|(_, text)| text), Some(text), "lost at {place:?}");
    }
    let distinct: BTreeSet<&String> = log.values().map(|(hash, _)| hash).collect();
    assert_eq!(distinct.len(), log.len(), "an entry stands twice");
}

/// Many entries for one request.
fn many(texts: impl IntoIterator<Item = String>) -> Value {
    let entry = |text: String| json!({ "data_b64": BASE64.encode(text.as_bytes()) });
    json!({ "entries": texts.into_iter().map(entry).collect::<Vec<_>>() })
}

#[test]
fn many_entries_of_one_request_stand_each_at_its_place_or_it_is_said_why_not() {
    let machine = Machine::new(None);
    let (mut nodes, _) = four(&machine);
    let request = many((0..500).map(|number| format!("many {number}")));
    let answer = nodes[1].api().ok("POST /api/v1/order/submissions", &request);
    let submitted = answer["entries"].as_array().unwrap();
    assert_eq!((submitted.len(), &answer["failed"]), (500, &json!(0)), "{}", answer["took_ms"]);
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    for (number, entry) in submitted.iter().enumerate() {
        let place = (entry["height"].as_u64().unwrap(), entry["index"].as_u64().unwrap());
        assert_eq!(log[&place].1, format!("many {number}"));
        assert_eq!(log[&place].0, entry["entry"].as_str().unwrap());
    }

    // Each line of a pipe is an entry, and what is empty is none.
    let lines: String = (0..700).map(|number| format!("line {number}\n\n")).collect();
    let mut pipe = machine.command(&["-n", "cleo", "order", "submit-lines", "--json"]);
    let mut pipe = pipe.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = pipe.stdin.take().unwrap();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, lines.as_bytes()));
    let output = pipe.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let printed = ok(&output);
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    assert_eq!((printed.lines().count(), log.len()), (700, 1200));
    for (number, line) in printed.lines().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let place = (entry["height"].as_u64().unwrap(), entry["index"].as_u64().unwrap());
        assert_eq!(log[&place].1, format!("line {number}"));
    }

    // One that can be none: nothing of the request is kept.
    let refused =
        nodes[0].api().ask("POST /api/v1/order/submissions", &many(["fine".to_owned(), String::new()]));
    let (status, error) = refused.unwrap();
    assert!(status == 400 && error["details"].to_string().contains("number 1"), "{status} {error}");
    assert_eq!(nodes[0].api().ask("POST /api/v1/order/submissions", &many([])).unwrap().0, 400);
    nodes[2].kill();
    nodes[3].kill();
    wait_for("it is noticed", PATIENCE, || reachable(&nodes[0]) == 2);
    let (_, error) =
        nodes[0].api().ask("POST /api/v1/order/submissions", &many(["late".to_owned()])).unwrap();
    assert_eq!(error["code"], "no_quorum", "{error}");
    nodes[2].run();
    nodes[3].run();
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    assert!(log.values().all(|(_, text)| text != "fine" && text != "late") && log.len() == 1200);
}

#[test]
fn without_a_quorum_that_is_said_at_once_with_who_is_missing_and_commits_resume_with_it() {
    let machine = Machine::new(None);
    let (mut nodes, _) = four(&machine);
    submitted(&nodes[0], "before");
    nodes[2].kill();
    nodes[3].kill();
    let missed = |node: &Local<'_>| {
        let status = node.api().get("/api/v1/order/status");
        let validators = status["validators"].as_array().unwrap().iter();
        let missed = validators.filter(|validator| validator["reachable"] == false);
        missed.map(|validator| validator["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let dead = BTreeSet::from(["cleo".to_owned(), "dora".to_owned()]);
    wait_for("it is noticed", PATIENCE, || missed(&nodes[0]) == dead);
    let begun = Instant::now();
    let refused = machine.run(&["-n", "anna", "order", "submit", "lost", "--timeout", "10s"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(8), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(2), "said after {:?}", begun.elapsed());
    assert!(said.contains("no quorum: 2 of 4 validators reachable (3 needed)"), "{said}");
    let missing = said.lines().find(|line| line.contains("missing")).unwrap_or_default();
    assert!(missing.contains("cleo (") && missing.contains("dora (") && !missing.contains("bert"), "{said}");
    assert!(said.contains("NOT accepted"), "{said}");
    assert_eq!(machine.run(&["-n", "anna", "order", "status"]).status.code(), Some(8));
    let status = machine.json(&["-n", "anna", "status"]);
    assert_eq!((&status["verdict"], &status["order"]["quorum"]), (&json!("no_quorum"), &json!(false)));
    nodes[2].run();
    wait_for("three are there", PATIENCE, || reachable(&nodes[0]) == 3);
    let begun = Instant::now();
    submitted(&nodes[0], "after");
    assert!(begun.elapsed() < Duration::from_secs(15), "resumed after {:?}", begun.elapsed());
    nodes[3].run();
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    let texts: Vec<&str> = log.values().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["before", "after"], "what was not accepted is not there");
}

#[test]
fn the_metrics_of_a_node_say_how_the_log_does_and_nothing_of_a_log_that_is_not_there() {
    let machine = Machine::new(None);
    let (mut nodes, _) = four(&machine);
    let alone = start(&machine, "finn");
    for number in 0..3 {
        submitted(&nodes[0], &format!("entry {number}"));
    }
    let of = |node: &str, series: &str| machine.metric(node, &format!("order_{series}"));
    let log = nodes[1].api().log();
    let (highest, _) = log.last_key_value().unwrap();
    wait_for("all of it is counted", PATIENCE, || of("bert", "entries_total") == Some(3.0));
    assert!(of("bert", "height").unwrap() >= highest.0 as f64);
    assert!(of("bert", "blocks_total").unwrap() >= 1.0);
    assert!(of("bert", "votes_total").unwrap() >= 1.0);
    for (series, value) in [
        ("quorum", 1.0),
        ("signs", 1.0),
        ("waiting", 0.0),
        ("validators{state=\"reachable\"}", 4.0),
        ("validators{state=\"missing\"}", 0.0),
    ] {
        assert_eq!(of("bert", series), Some(value), "{series}");
    }
    // How long an entry took is known where it was submitted.
    let took = of("anna", "commit_seconds{quantile=\"0.99\"}").unwrap();
    assert!(took > 0.0 && took < 10.0, "{took}");
    assert_eq!(of("bert", "commit_seconds{quantile=\"0.99\"}"), None);
    assert_eq!(of(alone.name(), "height"), None, "it keeps no log");
    nodes[2].kill();
    nodes[3].kill();
    wait_for("who is missing is counted", PATIENCE, || {
        of("anna", "validators{state=\"missing\"}") == Some(2.0) && of("anna", "quorum") == Some(0.0)
    });
}

/// What is too long for a block travels ahead of it, and is on the disk of whoever votes for it.
#[test]
fn long_entries_travel_ahead_of_their_blocks_and_are_there_when_all_nodes_were_killed_at_once() {
    let machine = Machine::new(None);
    let (mut nodes, genesis) = four(&machine);
    let follower = start(&machine, "finn");
    let joined = machine.json(&["-n", "finn", "order", "join", &genesis.display().to_string()]);
    assert_eq!(joined["role"], "follower", "{joined}");
    let long = |name: &str| format!("{name} {}", "long ".repeat(8_000));
    let apis: Vec<Api> = nodes.iter().chain([&follower]).map(Local::api).collect();
    std::thread::scope(|scope| {
        for (number, api) in apis.iter().enumerate() {
            scope.spawn(move || {
                let answer = api.submit(&long(&number.to_string()));
                assert_eq!(answer.as_ref().map(|(code, _)| *code), Some(200), "{answer:?}");
            });
        }
    });
    let before = agree(&nodes.iter().chain([&follower]).collect::<Vec<_>>());
    let texts: BTreeSet<&String> = before.values().map(|(_, text)| text).collect();
    assert_eq!(texts, (0..5).map(|number| long(&number.to_string())).collect::<Vec<_>>().iter().collect());
    nodes.iter_mut().for_each(Local::kill);
    nodes.iter_mut().for_each(Local::run);
    assert!(nodes.iter().all(|node| node.api().log() == before), "it is all there");
    for node in &nodes {
        wait_for("all validators are there", PATIENCE, || reachable(node) == 4);
    }
    submitted(&nodes[1], "and on it goes");
    let after = agree(&nodes.iter().chain([&follower]).collect::<Vec<_>>());
    assert_eq!(after.len(), 6);
}

/// The lines of a register as a node has them; none while it has no such register.
fn lines(node: &Local<'_>, register: &str) -> Vec<Value> {
    let asked = node.api().ask(&format!("GET /api/v1/registers/{register}?from=0&count=1000"), &Value::Null);
    match asked {
        Some((200, answer)) => answer["lines"].as_array().unwrap().clone(),
        Some((404, _)) => Vec::new(),
        other => panic!("{other:?}\n{}", node.log()),
    }
}

/// What is appended anywhere is read alike everywhere, and votes vouch for it.
#[test]
fn lines_of_a_register_are_alike_on_all_nodes_also_after_restarts_and_nobody_computes_another_state() {
    let machine = Machine::new(None);
    let (mut nodes, genesis) = four(&machine);
    let mut follower = start(&machine, "finn");
    let joined = machine.json(&["-n", "finn", "order", "join", &genesis.display().to_string()]);
    assert_eq!(joined["role"], "follower", "{joined}");
    let apis: Vec<Api> = nodes.iter().chain([&follower]).map(Local::api).collect();
    let numbers = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for (writer, api) in apis.iter().enumerate() {
            let numbers = &numbers;
            scope.spawn(move || {
                for number in 0..6 {
                    let line = BASE64.encode(format!("{writer} {number}").as_bytes());
                    let body = json!({ "line_b64": line, "timeout_ms": 20_000 });
                    let answer = api.ok("POST /api/v1/registers/births", &body);
                    assert!(numbers.lock().unwrap().insert(answer["number"].as_u64().unwrap()), "{answer}");
                }
            });
        }
    });
    assert!(numbers.into_inner().unwrap().into_iter().eq(0..30), "each line has a number of its own");
    let all = |nodes: &[Local<'_>], follower: &Local<'_>, count: usize| {
        // Whoever took the last line answered; the others apply it in their turn.
        wait_for("the first has all lines", PATIENCE, || lines(&nodes[0], "births").len() == count);
        let first = lines(&nodes[0], "births");
        for node in nodes.iter().chain([follower]) {
            let what = format!("{} has the same lines", node.name());
            wait_for(&what, PATIENCE, || lines(node, "births") == first);
            let status = node.api().get("/api/v1/order/status");
            assert_eq!(status["alarms"], json!([]), "{}", node.name());
        }
    };
    all(&nodes, &follower, 30);
    nodes.iter_mut().chain([&mut follower]).for_each(Local::kill);
    nodes.iter_mut().chain([&mut follower]).for_each(Local::run);
    all(&nodes, &follower, 30);
    for node in &nodes {
        wait_for("all validators are there", PATIENCE, || reachable(node) == 4);
    }
    // More blocks than lie between an execution and the votes for it.
    for number in 30..42 {
        let body = json!({ "line_b64": BASE64.encode(b"later"), "timeout_ms": 20_000 });
        let answer = nodes[number % 4].api().ok("POST /api/v1/registers/births", &body);
        assert_eq!(answer["number"], number);
    }
    all(&nodes, &follower, 42);
    assert!(nodes.iter().all(|node| node.api().get("/api/v1/order/status")["signs"] == true));
    let read = ok(&machine.run(&["-n", "finn", "register", "read", "births", "-c", "1"]));
    assert!(read.starts_with("41  ") && read.trim_end().ends_with("later"), "{read}");
}

#[test]
fn an_entry_that_was_taken_when_the_quorum_went_is_called_unknown_and_ordered_later() {
    let machine = Machine::new(None);
    let (nodes, _) = four(&machine);
    submitted(&nodes[0], "before");
    nodes[2..].iter().for_each(|node| node.pause(true));
    let unsure = machine.run(&["-n", "anna", "order", "submit", "between", "--timeout", "2s"]);
    let said = String::from_utf8_lossy(&unsure.stderr).into_owned();
    assert!(matches!(unsure.status.code(), Some(5 | 8)), "{said}");
    assert!(said.contains("NOT KNOWN yet") && !said.contains("NOT accepted"), "{said}");
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = said.split_whitespace().find(is_hash).unwrap_or_else(|| panic!("no hash to ask for: {said}"));
    let find = || machine.run(&["-n", "anna", "order", "get", hash]);
    assert_eq!(find().status.code(), Some(4), "{}", String::from_utf8_lossy(&find().stderr));
    nodes[2..].iter().for_each(|node| node.pause(false));
    wait_for("its fate is known", PATIENCE, || find().status.success());
    let log = agree(&nodes.iter().collect::<Vec<_>>());
    let texts: Vec<&str> = log.values().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["before", "between"]);
}

/// How long ago a vote of another stood in a certificate, as a node saw it.
fn last_vote(node: &Local<'_>, of: &Local<'_>) -> Option<Duration> {
    let status = node.api().get("/api/v1/order/status");
    let all = status["validators"].as_array().unwrap();
    let one = all.iter().find(|validator| validator["id"] == of.id()).unwrap();
    one["last_vote_ms_ago"].as_u64().map(Duration::from_millis)
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// It says that its key signed what it knows nothing of, signs nothing more, and has the whole log all the same.
fn follows_only(nodes: &[Local<'_>], node: usize) {
    let status = || nodes[node].api().get("/api/v1/order/status");
    wait_for("it says that it signs no more", PATIENCE, || {
        !status()["alarms"].as_array().unwrap().is_empty()
    });
    let said = status();
    assert!(said["alarms"][0].as_str().unwrap().contains("is an older copy"), "{said}");
    assert_eq!(said["signs"], false, "{said}");
    submitted(&nodes[0], "the others go on");
    agree(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(status()["signs"], false);
}

/// Rule K. What a key signed stands in what the others have.
#[test]
fn a_data_directory_that_is_an_older_copy_or_was_wiped_signs_nothing_more_with_its_key() {
    let machine = Machine::new(None);
    let (mut nodes, genesis) = four(&machine);
    let directory = machine.home().join(".local/share/wattle/nodes/dora");
    let copy = machine.home().join("copy");
    submitted(&nodes[0], "before the copy");
    nodes[3].kill();
    copy_directory(&directory, &copy);
    nodes[3].run();
    // The others may think for a while that her old connections stand.
    submitted(&nodes[0], "she is back");
    wait_for("she hears the others", PATIENCE, || nodes[3].api().height() >= nodes[0].api().height());
    let begun = Instant::now();
    for number in 0.. {
        submitted(&nodes[number % 3], &format!("behind the copy {number}"));
        if last_vote(&nodes[0], &nodes[3]).is_some_and(|ago| ago < begun.elapsed()) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "she votes no more");
    }
    nodes[3].kill();
    std::fs::remove_dir_all(&directory).unwrap();
    copy_directory(&copy, &directory);
    nodes[3].run();
    follows_only(&nodes, 3);
    // Of another life only the key is left.
    nodes[3].kill();
    let key = std::fs::read(directory.join("identity.key")).unwrap();
    for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
        match entry.file_name().to_str() {
            Some("identity.key") => {}
            _ if entry.file_type().unwrap().is_dir() => std::fs::remove_dir_all(entry.path()).unwrap(),
            _ => std::fs::remove_file(entry.path()).unwrap(),
        }
    }
    nodes[3].run();
    assert_eq!(std::fs::read(directory.join("identity.key")).unwrap(), key);
    let joined = machine.json(&["-n", "dora", "order", "join", &genesis.display().to_string()]);
    assert_eq!(joined["role"], "validator");
    follows_only(&nodes, 3);
}

/// What the other verifier says of receipts, one a line; nothing where there is no Python.
fn python(genesis: &Path, receipts: &str) -> Option<(i32, Vec<String>)> {
    use std::io::Write as _;
    if Command::new("python3").arg("--version").output().is_err() {
        did_not_run("python3 is not here");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlay/order/tests/verify_receipt.py");
    let mut child = Command::new("python3");
    child.arg(script).arg(genesis).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(receipts.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    Some((output.status.code().unwrap(), said))
}

/// J18.
#[test]
fn a_receipt_holds_offline_for_two_verifiers_and_with_one_byte_changed_for_neither() {
    let machine = Machine::new(None);
    let (nodes, genesis) = four(&machine);
    let (file, data) = (machine.home().join("r.json"), machine.home().join("data"));
    std::fs::write(&data, "pay bob 5").unwrap();
    let path = |path: &Path| path.display().to_string();
    submitted(&nodes[0], "another");
    let placed = ok(&machine.run(&["-n", "bert", "order", "submit", "pay bob 5", "--receipt", &path(&file)]));
    let later = machine.home().join("later.json");
    let place = placed.split_whitespace().take(2).map(|word| &word[2..]).collect::<Vec<_>>().join(":");
    ok(&machine.run(&["-n", "dora", "order", "get", &place, "--receipt", &path(&later)]));
    drop(nodes);
    let verify = |file: &Path| {
        let words = ["order", "verify", &path(file), "--genesis", &path(&genesis), "--data", &path(&data)];
        machine.run(&words)
    };
    let said = ok(&verify(&file));
    assert!(said.starts_with("valid: entry ") && said.contains("of 4)"), "{said}");
    ok(&verify(&later));
    let receipt = std::fs::read_to_string(&file).unwrap();
    let other = machine.home().join("other.json");
    let mut changed = String::new();
    // The last byte is the end of the line, which says nothing.
    let end = receipt.len() - 1;
    for at in (0..end).step_by(end / 40) {
        let mut bytes = receipt.clone().into_bytes();
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
        std::fs::write(&other, &bytes).unwrap();
        let refused = verify(&other);
        assert_eq!(refused.status.code(), Some(9), "byte {at}: {}", String::from_utf8_lossy(&bytes));
        changed.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    std::fs::write(&data, "pay bob 6").unwrap();
    assert_eq!(verify(&file).status.code(), Some(9), "of other data it is no proof");
    let Some((code, said)) = python(&genesis, &receipt) else { return };
    assert_eq!((code, said.len()), (0, 1), "{said:?}");
    assert!(said[0].starts_with("ok 1 "), "{said:?}");
    let (code, said) = python(&genesis, &changed).unwrap();
    assert_eq!((code, said.len()), (9, changed.lines().count()));
    assert!(said.iter().all(|line| line.starts_with("no ")), "{said:?}");
}
