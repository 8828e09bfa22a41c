//! Real nodes on this machine, asked over their sockets as a program would.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::binary::{Machine, Node, wait_for};
use crate::overlay::fail;

/// How long anything may take on a machine that runs other tests as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How large a test is: what the variable says, else its small size.
#[must_use]
pub fn size(variable: &str, small: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(small)
}

/// Draws numbers from a seed (Knuth's multiplier; the high bits are the good ones).
#[derive(Clone, Debug)]
pub struct Draw(pub u64);

impl Draw {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % end.max(1)
    }
}

/// The value of so many per cent of a run's times.
#[must_use]
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

/// A node that listens on loopback only. It is killed when it is dropped.
pub struct Local<'m> {
    machine: &'m Machine,
    name: String,
    node: Option<Node>,
    socket: PathBuf,
    id: String,
}

impl<'m> Local<'m> {
    /// Makes and starts one.
    #[must_use]
    pub fn start(machine: &'m Machine, name: &str) -> Self {
        Self::with_api(machine, name, "off")
    }

    /// The same, with its page at a port that stays over restarts.
    #[must_use]
    pub fn start_with_page(machine: &'m Machine, name: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.unwrap_or_else(|error| fail(&error.to_string()));
        Self::with_api(machine, name, &address.to_string())
    }

    fn with_api(machine: &'m Machine, name: &str, listen: &str) -> Self {
        let set = |key, value| {
            let output = machine.run(&["-n", name, "config", "set", key, value]);
            if !output.status.success() {
                fail(&String::from_utf8_lossy(&output.stderr));
            }
        };
        set("api.listen", listen);
        set("p2p.mdns", "false");
        set("p2p.listen", r#"["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"]"#);
        let mut local =
            Self { machine, name: name.to_owned(), node: None, socket: PathBuf::new(), id: String::new() };
        local.run();
        local
    }

    /// Starts it again.
    pub fn run(&mut self) {
        self.node = Some(self.machine.start(&["-n", &self.name]));
        let status = self.machine.json(&["-n", &self.name, "status"]);
        let socket = status["api"]["socket"].as_str().unwrap_or_else(|| fail("no socket"));
        self.socket = PathBuf::from(socket.trim_start_matches("unix:"));
        self.id = status["node"]["id"].as_str().unwrap_or_else(|| fail("no id")).to_owned();
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        self.node = None;
    }

    /// Holds it up where it is, or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.node.iter().for_each(|node| node.pause(paused));
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it answers; also for another thread, and when it is down.
    #[must_use]
    pub fn api(&self) -> Api {
        Api(self.socket.clone())
    }

    /// Memory that it holds.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.node.as_ref().map_or(0, Node::resident_bytes)
    }

    /// What it wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.home().join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Lets this node into a document of another; it is here when this returns.
    pub fn join(&self, host: &Self, doc: &str) {
        let ticket = host.api().ok(&format!("POST /api/v1/docs/{doc}/tickets"), &json!({ "role": "writer" }));
        self.api().ok("POST /api/v1/docs/join", &json!({ "ticket": ticket["ticket"] }));
    }

    /// Cuts or mends the way between this node and another, at this end.
    pub fn block(&self, other: &Self, blocked: bool) {
        self.api().ok("POST /api/v1/peers/block", &json!({ "peer": other.id, "blocked": blocked }));
    }

    /// Waits until it is connected to another.
    pub fn meets(&self, other: &Self) {
        wait_for(&format!("{} meets {}", self.name, other.name), PATIENCE, || self.sees(other));
    }

    /// Whether it is connected to another.
    #[must_use]
    pub fn sees(&self, other: &Self) -> bool {
        let peers = self.api().ok("GET /api/v1/peers", &Value::Null);
        peers["peers"].as_array().is_some_and(|all| all.iter().any(|it| it["id"] == *other.id))
    }
}

/// Where a node answers.
#[derive(Clone, Debug)]
pub struct Api(PathBuf);

impl Api {
    /// The one at a socket.
    #[must_use]
    pub const fn at(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// Asks. `None` when nobody answers, or stops half way.
    #[must_use]
    pub fn ask(&self, request: &str, body: &Value) -> Option<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = UnixStream::connect(&self.0).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!("{request} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        let whole = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(whole.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    /// Asks what must be answered well.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.ok(&format!("GET {path}"), &Value::Null)
    }

    /// The same, for any request.
    ///
    /// # Panics
    /// When it is not answered well.
    pub fn ok(&self, request: &str, body: &Value) -> Value {
        match self.ask(request, body) {
            Some((200, answer)) => answer,
            other => fail(&format!("{request}: {other:?}")),
        }
    }

    /// Has a text ordered. `None` when nobody answers.
    #[must_use]
    pub fn submit(&self, text: &str) -> Option<(u16, Value)> {
        let body = json!({ "data_b64": BASE64.encode(text.as_bytes()), "timeout_ms": 20_000 });
        self.ask("POST /api/v1/order/entries", &body)
    }

    /// How far the log is.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.get("/api/v1/order/status")["height"].as_u64().unwrap_or_else(|| fail("no height"))
    }

    /// The whole log.
    ///
    /// # Panics
    /// When it cannot be read, or has two entries in one place.
    #[must_use]
    pub fn log(&self) -> Log {
        let (mut all, mut from) = (Log::new(), 1);
        loop {
            let page = self.get(&format!("/api/v1/order/entries?from={from}&count=1000"));
            for entry in page["entries"].as_array().into_iter().flatten() {
                let read = read_entry(entry).unwrap_or_else(|| fail(&format!("no entry: {entry}")));
                if let Some(other) = all.insert(read.0, read.1) {
                    fail(&format!("two entries in one place: {entry}, {other:?}"));
                }
            }
            from = page["next"].as_u64().unwrap_or_else(|| fail("no next"));
            if page["height"].as_u64().is_none_or(|height| from > height) {
                return all;
            }
        }
    }

    /// Makes a document.
    #[must_use]
    pub fn new_doc(&self, title: &str) -> String {
        let made = self.ok("POST /api/v1/docs", &json!({ "title": title }));
        made["doc"]["id"].as_str().unwrap_or_else(|| fail("no id")).to_owned()
    }

    /// Sets a field; the heads after it once it is on disk, `None` when nobody answers.
    #[must_use]
    pub fn set(&self, doc: &str, path: &str, value: &Value) -> Option<Value> {
        let request = format!("POST /api/v1/docs/{doc}/fields");
        match self.ask(&request, &json!({ "path": path, "value": value }))? {
            (200, done) => Some(done["after"].clone()),
            other => fail(&format!("{request}: {other:?}")),
        }
    }

    /// The heads of every document, by id.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<String, Value> {
        let docs = self.get("/api/v1/docs");
        let docs = docs["docs"].as_array().cloned().unwrap_or_default();
        let row = |doc: &Value| Some((doc["id"].as_str()?.to_owned(), doc["heads"].clone()));
        docs.iter().filter_map(row).collect()
    }
}

/// Where an entry of the ordered log stands: its height, and which of that block's it is.
pub type Place = (u64, u64);
/// The entries of the ordered log: the hash and the text of each.
pub type Log = BTreeMap<Place, (String, String)>;

fn read_entry(entry: &Value) -> Option<(Place, (String, String))> {
    let text = BASE64.decode(entry["data_b64"].as_str()?.as_bytes()).ok()?;
    // Not all that is ordered is text.
    let text = String::from_utf8_lossy(&text).into_owned();
    let place = (entry["height"].as_u64()?, entry["index"].as_u64()?);
    Some((place, (entry["entry"].as_str()?.to_owned(), text)))
}

/// Waits until nodes are as far in the log as the farthest was; gives what they have up to there.
///
/// # Panics
/// When one does not come so far within `patience`, or has another log.
pub fn agreed(nodes: &[Api], patience: Duration) -> Log {
    let farthest = nodes.iter().map(Api::height).max().unwrap_or_default();
    let mut first: Option<Log> = None;
    for (number, node) in nodes.iter().enumerate() {
        wait_for(&format!("node {number} catches up"), patience, || node.height() >= farthest);
        let mut log = node.log();
        log.retain(|(height, _), _| *height <= farthest);
        match &first {
            Some(first) => assert!(log == *first, "node {number} has another log"),
            None => first = Some(log),
        }
    }
    first.unwrap_or_default()
}

/// Waits until all nodes have the same heads of the same documents; how long that took.
///
/// # Panics
/// When that takes longer than `within`.
pub fn until_equal(nodes: &[&Local<'_>], within: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        let heads: Vec<_> = nodes.iter().map(|node| node.api().heads()).collect();
        if heads.windows(2).all(|pair| pair.first() == pair.last()) {
            return begun.elapsed();
        }
        if begun.elapsed() > within {
            let differ = |(doc, of): (&String, &Value)| {
                let other = heads.iter().find(|heads| heads.get(doc) != Some(of));
                other.map(|heads| format!("{doc}: {of} and {:?}", heads.get(doc)))
            };
            let first = heads.first().into_iter().flatten().find_map(differ);
            fail(&format!("different after {within:?}: {first:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
