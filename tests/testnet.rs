//! Testnets as a user has them: started, put through faults, looked at, and gone without a trace.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "testnet/apply.rs"]
mod apply;
#[path = "testnet/bench.rs"]
mod bench;
#[path = "testnet/catching_up.rs"]
mod catching_up;
#[path = "testnet/epochs.rs"]
mod epochs;
#[path = "testnet/inproc.rs"]
mod inproc;
#[path = "testnet/netns.rs"]
mod netns;
#[path = "testnet/node_faults.rs"]
mod node_faults;
#[path = "testnet/order_soak.rs"]
mod order_soak;
#[path = "testnet/snapshots.rs"]
mod snapshots;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wattle_tests::binary::{Machine, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A testnet on a machine of its own; it goes with the test, however that ends.
struct Net {
    machine: Machine,
    up: Value,
}

impl Net {
    fn up(words: &[&str]) -> Self {
        let machine = Machine::new(None);
        let up = machine.json(&[&["testnet", "up", "--timeout", "60s"], words].concat());
        Self { machine, up }
    }

    fn run(&self, words: &[&str]) -> Output {
        self.machine.run(words)
    }

    /// Runs a command that must succeed; gives what it printed.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `wattle -t demo/NODE WORDS`.
    fn at(&self, node: &str, words: &[&str]) -> String {
        let spot = format!("demo/{node}");
        self.ok(&[&["-t", &spot], words].concat())
    }

    /// Where its files are.
    fn directory(&self) -> PathBuf {
        PathBuf::from(self.up["directory"].as_str().unwrap())
    }

    fn alive(&self, node: &str) -> u64 {
        let spot = format!("demo/{node}");
        self.machine.json(&["-t", &spot, "status"])["members"]["alive"].as_u64().unwrap()
    }

    /// The fastest round trip from one node to another, in milliseconds: what a busy machine adds is not the link's.
    fn ping(&self, from: &str, to: &str) -> f64 {
        let spot = format!("demo/{from}");
        let output = self.run(&["-t", &spot, "ping", to, "-c", "7", "--json"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut trips: Vec<f64> = lines.filter_map(|line| line["rtt_ms"].as_f64()).collect();
        trips.sort_by(f64::total_cmp);
        assert!(!trips.is_empty(), "no ping was answered: {}", String::from_utf8_lossy(&output.stderr));
        trips[0]
    }

    /// A report that must be given, whether it passes or not.
    fn report(&self, within: &str) -> (i32, Value) {
        let output = self.run(&["testnet", "report", "--within", within, "--json"]);
        let document = serde_json::from_slice(&output.stdout);
        let document = document.unwrap_or_else(|_| panic_with(&String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), document)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.machine.run(&["testnet", "down", "--name", "demo"]));
    }
}

#[expect(clippy::panic, reason = "a test ends where it fails")]
fn panic_with<T>(what: &str) -> T {
    panic!("{what}")
}

/// What the other verifier says of a receipt; nothing where there is no Python.
fn python(genesis: &str, receipt: &str) -> Option<String> {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        wattle_tests::binary::did_not_run("python3 is not here");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlay/order/tests/verify_receipt.py");
    let mut child = std::process::Command::new("python3")
        .args([script.as_os_str(), genesis.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(receipt.as_bytes()).unwrap();
    Some(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
}

/// How a check of a report ended.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

/// The processes whose command line names a path.
fn processes_of(home: &Path) -> Vec<String> {
    let home = home.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&home)).collect()
}

/// Every file below a directory.
fn files_below(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path().display().to_string()),
        }
    }
    files
}

#[test]
fn five_nodes_are_up_alive_for_all_and_gone_without_a_trace() {
    let net = Net::up(&["5", "--seed", "7"]);
    eprintln!(
        "5 nodes answered after {} ms, all alive on all after {} ms",
        net.up["up_ms"], net.up["alive_ms"]
    );
    assert_eq!(net.up["seed"], 7);
    let names: Vec<&str> =
        net.up["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol", "dave", "erin"]);
    for node in ["0", "1", "carol", "dave", "4"] {
        assert_eq!(net.alive(node), 5, "at {node}");
    }
    // They know each other by name, and a node answers under its own.
    assert!(net.at("0", &["ping", "erin", "-c", "1"]).contains("erin"));
    assert_eq!(net.at("carol", &["id", "-q"]).trim(), net.up["nodes"][2]["id"].as_str().unwrap());
    let again = net.run(&["testnet", "up", "2"]);
    assert_eq!(again.status.code(), Some(6), "{}", String::from_utf8_lossy(&again.stderr));

    let status = net.machine.json(&["testnet", "status"]);
    assert!(
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["state"] == "running" && node["alive"] == 5)
    );
    assert_eq!(net.machine.json(&["testnet", "list"])["testnets"][0]["running"], 5);
    assert_eq!(processes_of(net.machine.home()).len(), 5);

    let down = net.machine.json(&["testnet", "down"]);
    assert_eq!(down["stopped"], 5);
    assert_eq!(processes_of(net.machine.home()), Vec::<String>::new());
    assert_eq!(files_below(net.machine.home()), Vec::<String>::new());
    assert_eq!(net.run(&["testnet", "status"]).status.code(), Some(4));
    assert_eq!(net.run(&["-t", "demo/0", "status"]).status.code(), Some(4));
}

#[test]
fn an_up_that_is_killed_in_the_middle_leaves_no_process_and_down_takes_the_rest_away() {
    let machine = Machine::new(None);
    for wanted in [1, 4, 8] {
        let mut up = machine.command(&["testnet", "up", "8"]).stdout(Stdio::null()).spawn().unwrap();
        wait_for("some nodes are started", PATIENCE, || processes_of(machine.home()).len() >= wanted);
        up.kill().unwrap();
        up.wait().unwrap();
        // They may still come to their ports, which nobody holds for them any more; somebody else's testnet starts
        // nevertheless.
        drop(Net::up(&["2"]));
        wait_for("what was started ends by itself", PATIENCE, || processes_of(machine.home()).is_empty());
        let list = machine.json(&["testnet", "list"]);
        assert_eq!(
            (&list["testnets"][0]["phase"], &list["testnets"][0]["running"]),
            (&"starting".into(), &0.into())
        );
        let again = machine.run(&["testnet", "up", "2"]);
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.code() == Some(6) && said.contains("was begun and not finished"), "{said}");
        assert!(said.contains("wattle testnet down --name demo"), "{said}");
        assert!(machine.run(&["testnet", "down"]).status.success());
        assert_eq!(files_below(machine.home()), Vec::<String>::new());
    }
    // And at once, while they are still on their way up.
    let mut up = machine.command(&["testnet", "up", "8"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("some nodes are started", PATIENCE, || processes_of(machine.home()).len() >= 3);
    up.kill().unwrap();
    up.wait().unwrap();
    assert!(machine.run(&["testnet", "down"]).status.success());
    assert_eq!(processes_of(machine.home()), Vec::<String>::new());
    assert_eq!(files_below(machine.home()), Vec::<String>::new());
}

#[test]
fn a_latency_of_50_ms_is_what_ping_shows_more_and_only_on_that_link() {
    let net = Net::up(&["3"]);
    let before = net.ping("0", "bob");
    net.ok(&["testnet", "latency", "0-1", "50ms+-5"]);
    for (from, to) in [("0", "bob"), ("1", "alice")] {
        let added = net.ping(from, to) - before;
        assert!((45.0..=60.0).contains(&added), "{from} to {to}: {added} ms more than {before} ms");
    }
    let other = net.ping("0", "carol") - before;
    assert!(other < 20.0, "another link is {other} ms slower");
    net.ok(&["testnet", "clear"]);
    let after = net.ping("0", "bob") - before;
    assert!(after < 20.0, "{after} ms are left");
}

#[test]
fn of_what_is_sent_a_tenth_is_lost_on_the_link_that_loses_a_tenth() {
    let net = Net::up(&["3"]);
    net.ok(&["testnet", "loss", "0-1", "10%"]);
    net.run(&["-t", "demo/0", "bench", "gossip", "--for", "9s", "--rate", "400", "--clients", "64"]);
    let faults = get(&net, "0");
    let links = faults["links"].as_array().unwrap();
    let count = |link: &Value, what: &str| link[what].as_f64().unwrap();
    let link = links.iter().find(|link| link["link"]["peer"] == net.up["nodes"][1]["id"]).unwrap();
    let lost = count(link, "segments_resent");
    let sent = count(link, "segments") + lost;
    eprintln!("{lost} of {sent} segments were lost and sent again");
    assert!(sent > 1000.0 && (0.08..=0.12).contains(&(lost / sent)), "{link}");
    let others = links.iter().filter(|other| *other != link);
    assert!(others.clone().all(|other| count(other, "segments_resent") == 0.0), "{faults}");
}

#[test]
fn a_partition_is_seen_and_reported_and_healed() {
    let net = Net::up(&["4"]);
    net.ok(&["testnet", "partition", "0,1", "2,3"]);
    assert!(net.ping("0", "bob") < 100.0, "both are on one side");
    let across = net.run(&["-t", "demo/0", "ping", "carol", "-c", "1", "--timeout", "2s"]);
    assert!(!across.status.success(), "{}", String::from_utf8_lossy(&across.stdout));
    let (exit, report) = net.report("1s");
    assert_eq!((exit, &report["pass"]), (10, &false.into()), "{report:#}");
    assert_eq!(check(&report, "membership")["pass"], false);
    wait_for("each side sees itself alone", PATIENCE, || {
        ["0", "1", "2", "3"].iter().all(|node| net.alive(node) == 2)
    });
    net.ok(&["testnet", "heal"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
    let evidence = &check(&report, "membership")["evidence"];
    let (split, healed) = (&evidence["split_seen_after_ms"], &evidence["healed_seen_after_ms"]);
    eprintln!("split seen after {split} ms, healed view after {healed} ms");
    assert!(split.as_u64().is_some_and(|ms| ms > 0) && healed.is_u64(), "{evidence:#}");
}

/// The journey of a log through a split: the side with three of four validators goes on, the other says what it lacks.
#[test]
fn a_log_goes_on_where_its_validators_are_and_is_one_again_after_a_split() {
    let net = Net::up(&["5", "--validators", "4"]);
    let log = &net.up["log"];
    eprintln!("5 nodes, the first block after {} ms", log["first_block_ms"]);
    assert_eq!((log["height"].as_u64(), log["validators"].as_array().unwrap().len()), (Some(1), 4));
    net.ok(&["testnet", "partition", "0,1", "2,3,4"]);
    assert!(net.at("3", &["order", "submit", "from the many", "--timeout", "60s"]).starts_with("h="));
    let began = Instant::now();
    let refused = net.run(&["-t", "demo/0", "order", "submit", "from the few", "--timeout", "20s"]);
    assert!(began.elapsed() < Duration::from_secs(25), "it took {:?}", began.elapsed());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(8), "{said}");
    assert!(said.contains("3 needed") && said.contains("carol") && said.contains("dave"), "{said}");
    let (code, report) = net.report("1s");
    let order = check(&report, "order");
    assert_eq!((code, &order["pass"]), (10, &Value::Bool(false)), "{order}");
    assert!(order["summary"].as_str().unwrap().contains("behind: alice, bob"), "{order}");
    net.ok(&["testnet", "heal"]);
    // Who comes later has all of it too.
    net.ok(&["testnet", "add"]);
    let (code, report) = net.report("60s");
    let order = check(&report, "order");
    assert_eq!((code, &order["pass"]), (0, &Value::Bool(true)), "{report:#}");
    let summary = order["summary"].as_str().unwrap();
    assert!(summary.contains("{0,1} committed 0, {2,3,4} committed 1; no fork, 6 of 6 agree"), "{summary}");
    // What the few wanted is not ordered behind anybody's back: it is, or never will be, and that can be asked.
    for node in 0..6 {
        assert!(net.at(&node.to_string(), &["order", "log"]).contains("from the many"), "at {node}");
    }
    net.ok(&["testnet", "down"]);
    assert_eq!(processes_of(net.machine.home()), [""; 0]);
}

#[test]
fn a_one_way_partition_is_one_way() {
    let net = Net::up(&["2"]);
    net.ok(&["testnet", "partition", "--one-way", "0", "1"]);
    // What bob sends arrives; what alice sends does not, neither a question nor an answer.
    let refused = |node: &str| {
        let faults = get(&net, node);
        let link = &faults["links"][0];
        (link["datagrams_lost"].as_u64().unwrap(), link["datagrams_refused"].as_u64().unwrap())
    };
    wait_for("alice sends in vain", PATIENCE, || refused("0").0 >= 3);
    assert_eq!(refused("0").1, 0, "what bob sends comes in at alice");
    assert_eq!(refused("1").0, 0, "what bob sends leaves");
    for node in ["0", "1"] {
        let other = if node == "0" { "bob" } else { "alice" };
        let spot = format!("demo/{node}");
        let ping = net.run(&["-t", &spot, "ping", other, "-c", "1", "--timeout", "2s"]);
        assert!(!ping.status.success(), "a round trip needs both ways");
    }
    net.ok(&["testnet", "heal"]);
    wait_for("they are alive for each other", PATIENCE, || net.alive("0") == 2 && net.alive("1") == 2);
}

/// The faults of a node, as its API tells them.
fn get(net: &Net, node: &str) -> Value {
    let directory = net.up["directory"].as_str().unwrap();
    let name = if node == "0" { "alice" } else { "bob" };
    let socket = Path::new(directory).join("run").join(name).join("api.sock");
    ask(&socket, "GET", "").1
}

/// Asks for the faults over a socket; gives status and answer.
fn ask(socket: &Path, method: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!(
        "{method} /api/v1/faults HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn a_node_that_no_testnet_started_takes_no_faults_from_anybody() {
    let machine = Machine::new(None);
    assert!(machine.run(&["config", "set", "p2p.mdns", "false"]).status.success());
    let _node = machine.start(&[]);
    let socket = machine.home().join("run/wattle/default/api.sock");
    for (method, body) in [("GET", ""), ("POST", r#"{"links":[]}"#)] {
        let (status, error) = ask(&socket, method, body);
        assert_eq!((status, &error["code"]), (403, &"denied".into()), "{error}");
        assert!(error["message"].as_str().unwrap().contains("not part of a testnet"), "{error}");
    }
}

/// Three nodes that share a document and a room, and what a report says of them.
fn three_that_share() -> (Net, Value) {
    let net = Net::up(&["3"]);
    net.at("0", &["doc", "new", "plan"]);
    net.at("0", &["room", "new", "talk"]);
    let doc = net.at("0", &["doc", "share", "plan", "-q"]);
    let room = net.at("0", &["invite", "--room", "talk", "-q"]);
    for node in ["1", "2"] {
        net.at(node, &["doc", "join", doc.trim()]);
        net.at(node, &["join", room.trim()]);
    }
    net.at("0", &["chat", "send", "talk", "before"]);
    let (exit, report) = net.report("30s");
    assert_eq!(exit, 0, "{report:#}");
    (net, report)
}

#[test]
fn a_report_fails_while_a_document_or_a_room_differs_and_passes_when_they_are_one_again() {
    let (net, report) = three_that_share();
    assert_eq!(
        (&check(&report, "docs")["pass"], &check(&report, "chat")["pass"]),
        (&true.into(), &true.into())
    );

    net.ok(&["testnet", "partition", "0", "1,2"]);
    net.at("0", &["doc", "set", "plan", "who", "alice"]);
    net.at("1", &["doc", "set", "plan", "where", "here"]);
    let (exit, report) = net.report("3s");
    assert_eq!(exit, 10);
    assert_eq!(check(&report, "docs")["pass"], false, "{report:#}");
    assert_eq!(check(&report, "chat")["pass"], true, "nothing was said: {report:#}");

    net.at("2", &["chat", "send", "talk", "who hears me"]);
    let (_, report) = net.report("3s");
    let chat = check(&report, "chat");
    assert_eq!(chat["pass"], false, "{report:#}");
    assert_eq!(chat["evidence"]["#talk"]["missing"]["alice"], 1, "{chat:#}");

    net.ok(&["testnet", "heal"]);
    let (exit, report) = net.report("60s");
    assert_eq!(exit, 0, "{report:#}");
    let took = &check(&report, "docs")["held_after_ms"];
    eprintln!("heads equal {took} ms after the heal");
    // And what it says is in the files too.
    let out = net.machine.home().join("report");
    net.ok(&["testnet", "report", "-o", &out.display().to_string()]);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("everything holds") && page.contains("heads equal in"), "{page}");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert_eq!((&json["schema"], &json["pass"]), (&"wattle.testnet_report/1".into(), &true.into()));
}

/// A copy of files and directories with their rights; sockets stay behind.
fn copy_tree(from: &Path, to: &Path) {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            copy_tree(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Validators that were all put back to a copy of yesterday sign another history, and one node has the first: a fork as
/// it would come about.
#[test]
fn a_report_names_a_fork_of_the_log() {
    let net = Net::up(&["5", "--validators", "4"]);
    let backup = net.machine.home().join("backup");
    let submit = |node: &str, text: &str| {
        let spot = format!("demo/{node}");
        wait_for("a quorum", PATIENCE, || net.run(&["-t", &spot, "order", "status"]).status.success());
        net.at(node, &["order", "submit", text, "--timeout", "60s"]);
    };
    net.ok(&["testnet", "down", "--keep"]);
    copy_tree(&net.directory(), &backup);
    net.ok(&["testnet", "restart", "all"]);
    submit("0", "one story");
    let (exit, report) = net.report("60s");
    assert_eq!(exit, 0, "{report:#}");

    net.ok(&["testnet", "down", "--keep"]);
    for name in ["bob", "carol", "dave", "erin"] {
        let data = Path::new("data/nodes").join(name);
        std::fs::remove_dir_all(net.directory().join(&data)).unwrap();
        copy_tree(&backup.join(&data), &net.directory().join(&data));
    }
    net.ok(&["testnet", "restart", "1", "2", "3", "4"]);
    submit("3", "another story");
    submit("4", "and how it ends");
    net.ok(&["testnet", "restart", "0"]);
    let (exit, report) = net.report("5s");
    let order = check(&report, "order");
    assert_eq!((exit, &order["pass"]), (10, &false.into()), "{report:#}");
    assert!(order["summary"].as_str().unwrap().contains("FORK: alice"), "{order:#}");
    assert_eq!(order["evidence"]["forks"], serde_json::json!(["alice"]), "{order:#}");
    let text = String::from_utf8(net.run(&["testnet", "report", "--within", "1s"]).stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("order")).unwrap();
    assert!(line.contains("FORK") && line.ends_with("FAIL"), "{text}");
}

/// Bob as he would be had something gone wrong: begun from the same files, cut off from everybody, and asked in the
/// place of the other one.
struct Twin {
    machine: Machine,
    directory: PathBuf,
}

impl Twin {
    /// Of a testnet that is down.
    fn of(net: &Net) -> Self {
        let machine = Machine::new(None);
        let below = net.directory().strip_prefix(net.machine.home()).unwrap().to_path_buf();
        let directory = machine.home().join(below);
        copy_tree(&net.directory(), &directory);
        Self { machine, directory }
    }

    fn start(&self) {
        for words in [&["testnet", "partition", "0", "1", "2"][..], &["testnet", "restart", "1"]] {
            let output = self.machine.run(words);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Whoever asks bob of that testnet asks this one from now on.
    fn answers_for_bob_of(&self, net: &Net) {
        let socket = |directory: &Path| directory.join("run/bob/api.sock");
        std::fs::rename(socket(&net.directory()), net.directory().join("run/bob/own.sock")).unwrap();
        std::os::unix::fs::symlink(socket(&self.directory), socket(&net.directory())).unwrap();
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        drop(self.machine.run(&["testnet", "down", "--name", "demo"]));
    }
}

/// Three nodes with a document and a room, and what bob was like before the rest of it happened.
fn three_and_a_twin() -> (Net, Twin) {
    let (net, _report) = three_that_share();
    net.ok(&["testnet", "down", "--keep"]);
    let twin = Twin::of(&net);
    net.ok(&["testnet", "restart", "all"]);
    twin.start();
    (net, twin)
}

#[test]
fn a_report_names_who_lost_a_message() {
    let (net, twin) = three_and_a_twin();
    net.at("0", &["chat", "send", "talk", "after"]);
    let (exit, report) = net.report("60s");
    assert_eq!(exit, 0, "{report:#}");
    twin.answers_for_bob_of(&net);
    let (exit, report) = net.report("1s");
    let chat = check(&report, "chat");
    assert_eq!((exit, &chat["pass"]), (10, &false.into()), "{report:#}");
    assert_eq!(chat["evidence"]["#talk"]["missing"], serde_json::json!({ "bob": 1 }), "{chat:#}");
    assert_eq!(chat["evidence"]["#talk"]["messages"], 2, "{chat:#}");
    assert_eq!(check(&report, "docs")["pass"], true, "no document changed: {report:#}");
}

#[test]
fn a_report_names_a_document_that_is_not_the_same_everywhere() {
    let (net, twin) = three_and_a_twin();
    net.at("0", &["doc", "set", "plan", "who", "alice"]);
    let (exit, report) = net.report("60s");
    assert_eq!(exit, 0, "{report:#}");
    let set = twin.machine.run(&["-t", "demo/1", "doc", "set", "plan", "who", "nobody"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    twin.answers_for_bob_of(&net);
    let (exit, report) = net.report("1s");
    let docs = check(&report, "docs");
    assert_eq!((exit, &docs["pass"]), (10, &false.into()), "{report:#}");
    let evidence = docs["evidence"].as_object().unwrap().values();
    let plan: Vec<&Value> = evidence.filter(|doc| doc["title"] == "plan").collect();
    assert_eq!((plan.len(), &plan[0]["equal"]), (1, &false.into()), "{docs:#}");
    let heads = &plan[0]["heads"];
    assert!(heads["alice"] == heads["carol"] && heads["alice"] != heads["bob"], "{docs:#}");
    assert_eq!(check(&report, "chat")["pass"], true, "every message is there: {report:#}");
}

/// Runs a command that starts a node, and takes the port of that node before the node does; nothing when the node is
/// quicker. The command must succeed either way.
fn take_port(net: &Net, words: &[&str], name: &str) -> Option<(TcpListener, UdpSocket, u16)> {
    let mut command = net.machine.command(words).stdout(Stdio::null()).spawn().unwrap();
    let node = format!("--node {name} ");
    let begun = Instant::now();
    while !processes_of(net.machine.home()).iter().any(|line| line.contains(&node)) {
        assert!(begun.elapsed() < PATIENCE, "{name} was never started");
    }
    let config = net.directory().join(format!("config/nodes/{name}/config.toml"));
    let config = std::fs::read_to_string(config).unwrap();
    let port: u16 = config.split("/tcp/").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", port)).ok().zip(UdpSocket::bind(("127.0.0.1", port)).ok());
    let ended = command.wait().unwrap();
    assert!(ended.success(), "{words:?}: {ended}");
    taken.map(|(tcp, udp)| (tcp, udp, port))
}

#[test]
fn a_node_whose_port_is_taken_while_it_starts_comes_up_on_another() {
    let net = Net::up(&["2"]);
    let moved = |name: &str, taken: &(TcpListener, UdpSocket, u16)| {
        let status = net.machine.json(&["testnet", "status"]);
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        assert!(node["answers"] == true && node["port"] != taken.2, "{} was taken: {node}", taken.2);
    };
    let restarted = (0..20).find_map(|_| {
        net.ok(&["testnet", "kill", "1"]);
        take_port(&net, &["testnet", "restart", "1"], "bob")
    });
    moved("bob", &restarted.unwrap());
    let more = ["carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "lena"];
    let added = more.into_iter().find_map(|name| Some((name, take_port(&net, &["testnet", "add"], name)?)));
    let (name, taken) = added.unwrap();
    moved(name, &taken);
    wait_for("they are alive for each other", PATIENCE, || net.alive("bob") == net.alive(name));
}

#[test]
fn nodes_are_killed_frozen_and_brought_back_and_come_and_go() {
    let net = Net::up(&["3"]);
    let id = net.at("1", &["id", "-q"]);
    net.ok(&["testnet", "kill", "bob"]);
    let error = net.run(&["-t", "demo/1", "status"]);
    let said = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(
        error.status.code() == Some(3) && said.contains("wattle testnet restart --name demo 1"),
        "{said}"
    );
    wait_for("the others see it gone", PATIENCE, || net.alive("0") == 2 && net.alive("2") == 2);
    net.ok(&["testnet", "restart", "1"]);
    assert_eq!(net.at("1", &["id", "-q"]), id, "it is who it was");
    wait_for("it is back", PATIENCE, || ["0", "1", "2"].iter().all(|node| net.alive(node) == 3));

    net.ok(&["testnet", "pause", "2"]);
    let frozen = net.machine.json(&["testnet", "status"]);
    assert_eq!(
        (&frozen["nodes"][2]["state"], &frozen["nodes"][2]["answers"]),
        (&"paused".into(), &false.into())
    );
    wait_for("the others see it gone", PATIENCE, || net.alive("0") == 2);
    net.ok(&["testnet", "resume", "2"]);
    wait_for("it is back", PATIENCE, || ["0", "1", "2"].iter().all(|node| net.alive(node) == 3));

    net.ok(&["testnet", "add"]);
    wait_for("the new one is known", PATIENCE, || {
        ["0", "1", "2", "dave"].iter().all(|node| net.alive(node) == 4)
    });
    assert!(net.at("dave", &["ping", "alice", "-c", "1"]).contains("alice"), "by name, both ways");
    assert!(net.at("0", &["ping", "dave", "-c", "1"]).contains("dave"));
    net.ok(&["testnet", "remove", "0"]);
    wait_for("the removed one is gone", PATIENCE, || ["1", "2", "3"].iter().all(|node| net.alive(node) == 3));
    let directory = net.up["directory"].as_str().unwrap().to_owned();
    let left: Vec<String> =
        files_below(Path::new(&directory)).into_iter().filter(|file| file.contains("alice")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(net.machine.json(&["testnet", "add"])["nodes"][0], 4, "no index is used twice");
    for words in [["testnet", "kill", "0"], ["testnet", "pause", "frank"]] {
        assert_eq!(net.run(&words).status.code(), Some(4), "{words:?}");
    }
}

#[test]
fn a_command_runs_everywhere_and_the_logs_are_one() {
    let net = Net::up(&["3"]);
    let lines = net.ok(&["testnet", "exec", "all", "--json", "--", "id", "-q"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = lines.iter().map(|line| line["stdout"].as_str().unwrap().trim()).collect();
    let known: Vec<&str> =
        net.up["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
    assert_eq!(ids, known);
    let missing = net.run(&["testnet", "exec", "1", "--", "dht", "get", "nothing", "--timeout", "2s"]);
    assert_eq!(missing.status.code(), Some(4), "it ends as the command does");
    net.ok(&["testnet", "kill", "2"]);
    let some = net.run(&["testnet", "exec", "all", "--", "status"]);
    assert_eq!(some.status.code(), Some(10), "some worked and some did not");

    let logs = net.ok(&["testnet", "logs", "--json"]);
    let logs: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        logs.is_sorted_by_key(|line| line["ts"].as_str().unwrap().to_owned()),
        "in the order of their times"
    );
    for name in ["alice", "bob", "carol"] {
        assert!(
            logs.iter().any(|line| line["name"] == name && line["text"].as_str().unwrap().contains("ready")),
            "{name}"
        );
    }
    let colored = net.ok(&["testnet", "logs", "alice", "--color", "always"]);
    assert!(colored.contains('\u{1b}') && !colored.contains("carol "), "{colored}");
}

#[test]
fn files_that_were_kept_come_back_as_the_same_testnet() {
    let net = Net::up(&["2"]);
    net.at("0", &["doc", "new", "plan"]);
    net.ok(&["testnet", "down", "--keep"]);
    assert_eq!(processes_of(net.machine.home()), Vec::<String>::new());
    let begun = Instant::now();
    net.ok(&["testnet", "restart", "all"]);
    wait_for("they are alive for each other", PATIENCE, || net.alive("0") == 2 && net.alive("1") == 2);
    eprintln!("back after {:?}", begun.elapsed());
    assert!(net.at("0", &["doc", "list"]).contains("plan"));
}

#[test]
fn chaos_of_one_seed_is_the_same_twice_undone_in_the_end_and_survived() {
    let net = Net::up(&["3", "--seed", "11"]);
    net.at("0", &["doc", "new", "plan"]);
    let doc = net.at("0", &["doc", "share", "plan", "-q"]);
    for node in ["1", "2"] {
        net.at(node, &["doc", "join", doc.trim()]);
    }
    let words = ["testnet", "chaos", "--for", "12s", "--seed", "5"];
    let steps = |document: &Value| -> Vec<String> {
        document["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["what"].as_str().unwrap().to_owned())
            .collect()
    };
    let planned = net.machine.json(&[&words[..], &["--dry-run"]].concat());
    let before = net.machine.json(&["testnet", "status"]);
    assert!(
        before["nodes"].as_array().unwrap().iter().all(|node| node["state"] == "running"),
        "nothing was done"
    );
    let output = net.run(&[&words[..], &["--json"]].concat());
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(steps(&done), steps(&planned));
    assert!(steps(&done).len() >= 4, "{done:#}");
    assert_eq!(output.status.code(), Some(0), "{:#}", done["report"]);
    let after = net.machine.json(&["testnet", "status"]);
    assert!(after["nodes"].as_array().unwrap().iter().all(|node| node["state"] == "running"), "{after:#}");
    assert!(after["partition"].is_null() && after["links"].as_array().unwrap().is_empty(), "{after:#}");
}

/// Over QUIC nobody says that a killed node is gone, and the others spoke into its old connections for ten seconds.
#[test]
fn a_validator_that_was_killed_and_runs_again_takes_part_within_seconds() {
    let net = Net::up(&["4", "--validators", "4"]);
    for round in 0..3 {
        wait_for("all are connected for a second", PATIENCE, || {
            let status = net.machine.json(&["testnet", "status"]);
            let nodes = status["nodes"].as_array().unwrap().clone();
            nodes.iter().all(|node| node["uptime_ms"].as_u64() > Some(1000))
        });
        net.ok(&["testnet", "kill", "0"]);
        net.ok(&["testnet", "restart", "0"]);
        let begun = Instant::now();
        net.at("0", &["order", "submit", "here again", "--timeout", "20s"]);
        assert!(begun.elapsed() < Duration::from_secs(5), "round {round}: {:?}", begun.elapsed());
    }
}

#[test]
fn the_demo_shows_a_split_and_its_end_and_leaves_nothing() {
    let machine = Machine::new(None);
    let output = machine.run(&["testnet", "demo", "--timeout", "60s"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    for line in ["$ wattle testnet partition", "no quorum: ", "$ wattle testnet heal", "PASS"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("FAIL"), "{said}");
    assert_eq!(processes_of(machine.home()), Vec::<String>::new());
    assert_eq!(files_below(machine.home()), Vec::<String>::new());
}
