//! Programs on automerge-repo with wattle nodes as their sync servers: the foreign half is the JavaScript
//! library itself, in `tests/interop/repo.mjs`.
//!
//! It needs Node and `npm ci` in `tests/interop`; without them these tests say that they did not run, and with
//! `WATTLE_TEST_ALL=1` they fail.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper ends the test like the test itself")]
#![expect(clippy::print_stderr, reason = "how long it took is part of what it shows")]

use std::path::{Path, PathBuf};
use std::process::{Child as Process, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wattle_tests::binary::{Machine, did_not_run, wait_for};
use wattle_tests::local::percentile;

const PATIENCE: Duration = Duration::from_secs(30);

/// Rounds of the long test, one after the other, and what they may take together.
const ROUNDS: usize = 20;
const BUDGET: Duration = Duration::from_secs(180);

/// A program on automerge-repo: one JSON line for each step, one JSON line back.
struct Js {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

/// Whether the JavaScript half can run here.
fn is_here() -> bool {
    let installed = directory().join("node_modules/@automerge/automerge-repo/package.json").exists();
    let node = std::process::Command::new("node").arg("--version").output().is_ok();
    if !(installed && node) {
        did_not_run("Node is not here (npm ci in tests/interop)");
    }
    installed && node
}

impl Js {
    async fn start(url: &str, token: Option<&str>) -> Self {
        let spawned = Command::new("node")
            .arg("repo.mjs")
            .arg(url)
            .args(token)
            .current_dir(directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut js = Self { _child: child, input, output };
        let peer = js.step("connected", json!({})).await["peer"].as_str().unwrap().to_owned();
        assert!(peer.starts_with("wattle-12D3"), "{peer}");
        js
    }

    async fn attempt(&mut self, step: &str, mut wish: Value) -> Value {
        wish["step"] = step.into();
        self.input.write_all(format!("{wish}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("js took too long to {step}")).unwrap();
        serde_json::from_str(&line.expect("js is alive")).unwrap()
    }

    async fn step(&mut self, step: &str, wish: Value) -> Value {
        let answer = self.attempt(step, wish.clone()).await;
        assert_eq!(answer["ok"], true, "{step} {wish}: {}", answer["error"].as_str().unwrap_or_default());
        answer
    }

    async fn create(&mut self, value: Value) -> String {
        self.step("create", json!({ "value": value })).await["url"].as_str().unwrap().to_owned()
    }

    /// Finds a document in one try.
    async fn find(&mut self, url: &str) -> Value {
        self.step("find", json!({ "url": url })).await["value"].clone()
    }

    async fn splice(&mut self, url: &str, at: usize, delete: usize, insert: &str) {
        let wish = json!({ "url": url, "path": ["text"], "at": at, "delete": delete, "insert": insert });
        self.step("splice", wish).await;
    }

    async fn put(&mut self, url: &str, path: Value, value: impl Into<Value>) {
        self.step("put", json!({ "url": url, "path": path, "value": value.into() })).await;
    }

    /// Waits until the document has this here; how long that took.
    async fn until(&mut self, url: &str, path: Value, equals: impl Into<Value>) -> f64 {
        let wish = json!({ "url": url, "path": path, "equals": equals.into() });
        self.step("until", wish).await["ms"].as_f64().unwrap()
    }

    async fn read(&mut self, url: &str) -> Value {
        self.step("read", json!({ "url": url })).await["value"].clone()
    }

    async fn heads(&mut self, url: &str) -> Value {
        self.step("heads", json!({ "url": url })).await["heads"].clone()
    }

    async fn hears(&mut self, url: &str, count: usize) -> Vec<Value> {
        let heard = self.step("heard", json!({ "url": url, "count": count })).await;
        heard["heard"].as_array().unwrap().iter().map(|heard| heard["message"].clone()).collect()
    }
}

/// A node of its own process, killed at the end.
struct Node<'m> {
    machine: &'m Machine,
    name: &'static str,
    process: Option<Process>,
    port: u16,
}

impl<'m> Node<'m> {
    fn start(machine: &'m Machine, name: &'static str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut node = Self { machine, name, process: None, port };
        node.ok(&["config", "set", "api.listen", &format!("127.0.0.1:{port}")]);
        node.run();
        node
    }

    fn run(&mut self) {
        let (quic, tcp) = ("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0");
        let words = ["-n", self.name, "run", "--no-mdns", "--listen", quic, "--listen", tcp];
        let log = self.machine.home().join(format!("{}.log", self.name));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.machine.command(&words);
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.ok(&["wait", "--ready", "--timeout", "20s"]);
    }

    /// Ends it at once, as a power cut would.
    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.machine.run(&[&["-n", self.name], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {words:?}: {said}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    fn heads(&self, url: &str) -> Option<Value> {
        let docs: Value = serde_json::from_str(&self.ok(&["doc", "list", "--json"])).unwrap();
        let found = docs["docs"].as_array().unwrap().iter().find(|doc| doc["id"] == url)?;
        let mut heads: Vec<String> = serde_json::from_value(found["heads"].clone()).unwrap();
        heads.sort();
        Some(json!(heads))
    }

    fn token(&self) -> String {
        self.ok(&["token", "new", "--role", "user", "-q"]).trim().to_owned()
    }

    async fn over_tcp(&self, token: &str) -> Js {
        Js::start(&format!("ws://127.0.0.1:{}/api/v1/docs/sync", self.port), Some(token)).await
    }

    async fn over_socket(&self) -> Js {
        let status = self.machine.json(&["-n", self.name, "status"]);
        let socket = status["api"]["socket"].as_str().unwrap().trim_start_matches("unix:").to_owned();
        Js::start(&format!("ws+unix:{socket}:/api/v1/docs/sync"), None).await
    }

    /// Lets the other node have a document that this one has.
    fn share(&self, url: &str, other: &Self) {
        wait_for("the node has the document", PATIENCE, || self.heads(url).is_some());
        let ticket = self.ok(&["doc", "share", url, "-q"]);
        other.ok(&["doc", "join", ticket.trim()]);
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until all that have the document have the same heads.
async fn until_equal(url: &str, nodes: &[&Node<'_>], programs: &mut [&mut Js]) {
    let began = Instant::now();
    loop {
        let mut heads = Vec::new();
        for node in nodes {
            heads.push(node.heads(url).unwrap_or_default());
        }
        for program in &mut *programs {
            heads.push(program.heads(url).await);
        }
        if heads.iter().all(|other| *other == heads[0]) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{url} stays different: {heads:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text_of(value: &Value) -> &str {
    value["text"].as_str().unwrap_or_default()
}

/// The ten checks of a program against its sync server, between two programs; `share` brings a document from
/// the server of the first to that of the second.
async fn ten_checks(one: &mut Js, other: &mut Js, share: impl Fn(&str)) {
    // 1, 2. A document is made, and found elsewhere in one try.
    let url = one.create(json!({ "text": "", "list": [1, 2], "map": { "a": 1 } })).await;
    share(&url);
    assert_eq!(other.find(&url).await, json!({ "text": "", "list": [1, 2], "map": { "a": 1 } }));
    // 3, 4. Text, both ways.
    one.splice(&url, 0, 0, "hello").await;
    other.until(&url, json!(["text"]), "hello").await;
    other.splice(&url, 5, 0, " world").await;
    one.until(&url, json!(["text"]), "hello world").await;
    // 5. Maps and lists.
    one.put(&url, json!(["map", "deep"]), json!({ "b": [true, null, 1.5] })).await;
    other.until(&url, json!(["map", "deep"]), json!({ "b": [true, null, 1.5] })).await;
    other.step("remove", json!({ "url": &url, "path": ["map", "a"] })).await;
    one.until(&url, json!(["map"]), json!({ "deep": { "b": [true, null, 1.5] } })).await;
    // 6. Characters of more than one unit.
    one.splice(&url, 0, 5, "\u{1f469}\u{200d}\u{1f680} e\u{301} \u{4f60}").await;
    let emoji = "\u{1f469}\u{200d}\u{1f680} e\u{301} \u{4f60} world";
    other.until(&url, json!(["text"]), emoji).await;
    // 7. A hundred edits at once.
    let began = Instant::now();
    let writes = |number: usize| json!(["map", format!("{number}")]);
    for number in 0..50 {
        tokio::join!(
            async {
                one.splice(&url, 0, 0, "a").await;
            },
            async {
                other.put(&url, writes(number), number).await;
            },
        );
    }
    one.until(&url, writes(49), 49).await;
    until_equal(&url, &[], &mut [&mut *one, &mut *other]).await;
    assert_eq!(text_of(&one.read(&url).await), format!("{}{emoji}", "a".repeat(50)));
    assert_eq!(one.read(&url).await, other.read(&url).await);
    eprintln!("a hundred edits at once were equal after {:?}", began.elapsed());
    // 8. Presence, both ways.
    one.step("broadcast", json!({ "url": &url, "message": { "cursor": 7 } })).await;
    assert_eq!(other.hears(&url, 1).await, [json!({ "cursor": 7 })]);
    other.step("broadcast", json!({ "url": &url, "message": "hi" })).await;
    assert_eq!(one.hears(&url, 1).await, ["hi"]);
    // 9. Edits apart.
    other.step("disconnect", json!({})).await;
    one.put(&url, json!(["one"]), "while apart").await;
    other.put(&url, json!(["other"]), "while apart").await;
    other.step("connect", json!({})).await;
    one.until(&url, json!(["other"]), "while apart").await;
    other.until(&url, json!(["one"]), "while apart").await;
    until_equal(&url, &[], &mut [&mut *one, &mut *other]).await;
    // 10. What nobody has is said to be nowhere, at once.
    let began = Instant::now();
    let nowhere = one.attempt("find", json!({ "url": "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu" })).await;
    let why = nowhere["error"].as_str().unwrap_or_default();
    assert!(nowhere["ok"] == false && why.contains("unavailable"), "{nowhere}");
    assert!(began.elapsed() < Duration::from_secs(2), "that took {:?}", began.elapsed());
    // And what was said is said once.
    assert_eq!((one.hears(&url, 0).await.len(), other.hears(&url, 0).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_on_one_node_pass_all_ten_checks() {
    if !is_here() {
        return;
    }
    let machine = Machine::new(None);
    let node = Node::start(&machine, "a");
    let (mut one, mut other) = (node.over_tcp(&node.token()).await, node.over_socket().await);
    for _ in 0..3 {
        ten_checks(&mut one, &mut other, |_| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_on_two_nodes_pass_all_ten_checks() {
    if !is_here() {
        return;
    }
    let machine = Machine::new(None);
    let (a, b) = (Node::start(&machine, "a"), Node::start(&machine, "b"));
    let (mut one, mut other) = (a.over_tcp(&a.token()).await, b.over_socket().await);
    for _ in 0..3 {
        ten_checks(&mut one, &mut other, |url| a.share(url, &b)).await;
    }
}

/// Journey J12: what is typed in a program at one node is seen by one at another.
#[tokio::test(flavor = "multi_thread")]
async fn a_keystroke_at_one_node_is_seen_at_the_other_in_a_moment() {
    if !is_here() {
        return;
    }
    let machine = Machine::new(None);
    let (a, b) = (Node::start(&machine, "a"), Node::start(&machine, "b"));
    let (mut one, mut other) = (a.over_tcp(&a.token()).await, b.over_socket().await);
    let url = one.create(json!({ "text": "" })).await;
    a.share(&url, &b);
    other.find(&url).await;
    let (mut text, mut took) = (String::new(), Vec::new());
    for key in "the quick brown fox jumps over the lazy dog and goes home for tea".chars() {
        let began = Instant::now();
        one.splice(&url, text.len(), 0, &key.to_string()).await;
        text.push(key);
        other.until(&url, json!(["text"]), text.as_str()).await;
        took.push(began.elapsed());
        // Eight a second.
        tokio::time::sleep(Duration::from_millis(125).saturating_sub(began.elapsed())).await;
    }
    let slow = percentile(&mut took, 95);
    eprintln!("of {} keystrokes 95 % took {slow:?} at most", took.len());
    assert!(slow <= Duration::from_millis(150), "{slow:?}");
}

/// Journey J12: the node is restarted while somebody types.
#[tokio::test(flavor = "multi_thread")]
async fn who_types_through_a_restart_of_the_node_loses_nothing() {
    if !is_here() {
        return;
    }
    let machine = Machine::new(None);
    let (mut a, b) = (Node::start(&machine, "a"), Node::start(&machine, "b"));
    let (mut one, mut other) = (a.over_tcp(&a.token()).await, b.over_socket().await);
    let url = one.create(json!({ "text": "" })).await;
    a.share(&url, &b);
    other.find(&url).await;
    let typed: String = (0..100_u8).map(|number| char::from(b'a' + number % 26)).collect();
    for (at, key) in typed.char_indices() {
        if at == 40 {
            a.kill();
        }
        if at == 60 {
            a.run();
        }
        one.splice(&url, at, 0, &key.to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.until(&url, json!(["text"]), typed.as_str()).await;
    until_equal(&url, &[&a, &b], &mut [&mut one, &mut other]).await;
    assert_eq!(text_of(&one.read(&url).await), typed);
}

/// One round: two documents of a program at `a`, edited there and by the command line at `b`, with a power cut
/// of `a` in the middle.
async fn round(number: usize, a: &mut Node<'_>, b: &Node<'_>, one: &mut Js, other: &mut Js) {
    let notes = one.create(json!({ "text": "start", "kind": "notes" })).await;
    let plan = one.create(json!({ "text": "", "kind": "plan" })).await;
    for url in [&notes, &plan] {
        a.share(url, b);
        other.find(url).await;
    }
    one.splice(&notes, 5, 0, " of it").await;
    b.ok(&["doc", "set", &notes, "cli", &format!("{number}")]);
    one.put(&plan, json!(["program"]), number).await;
    b.ok(&["doc", "set", &plan, "cli", "\"before\""]);
    one.step("broadcast", json!({ "url": &notes, "message": { "at": number } })).await;
    other.step("broadcast", json!({ "url": &notes, "message": "here" })).await;
    assert_eq!(other.hears(&notes, 1).await, [json!({ "at": number })]);
    assert_eq!(one.hears(&notes, 1).await, ["here"]);
    one.until(&notes, json!(["cli"]), number).await;

    a.kill();
    one.splice(&notes, 0, 5, "end").await;
    one.put(&plan, json!(["apart"]), true).await;
    b.ok(&["doc", "set", &notes, "apart", "true"]);
    b.ok(&["doc", "set", &plan, "cli", "\"after\""]);
    other.splice(&plan, 0, 0, "from the other side").await;
    a.run();

    one.until(&notes, json!(["apart"]), true).await;
    one.until(&plan, json!(["text"]), "from the other side").await;
    other.until(&notes, json!(["text"]), "end of it").await;
    other.until(&plan, json!(["apart"]), true).await;
    for url in [&notes, &plan] {
        until_equal(url, &[a, b], &mut [&mut *one, &mut *other]).await;
        assert_eq!(one.read(url).await, other.read(url).await);
    }
    let whole = json!({
        "text": "from the other side", "kind": "plan", "program": number, "cli": "after", "apart": true
    });
    assert_eq!(one.read(&plan).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_at_one_node_and_the_command_line_at_another_end_equal_through_power_cuts_twenty_times() {
    if !is_here() {
        return;
    }
    let machine = Machine::new(None);
    let (mut a, b) = (Node::start(&machine, "a"), Node::start(&machine, "b"));
    let (mut one, mut other) = (a.over_tcp(&a.token()).await, b.over_socket().await);
    let began = Instant::now();
    for number in 0..ROUNDS {
        let round_began = Instant::now();
        round(number, &mut a, &b, &mut one, &mut other).await;
        eprintln!("round {number} took {:?}", round_began.elapsed());
    }
    eprintln!("{ROUNDS} rounds took {:?}", began.elapsed());
    assert!(began.elapsed() < BUDGET, "{ROUNDS} rounds took {:?}", began.elapsed());
}
