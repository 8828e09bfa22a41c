//! What a person sees: each screen, made from canned answers of a node that is only a socket.
//!
//! Kept as files under `snapshots/screens/`; `UPDATE=1 cargo test -p wattle --test screens` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

const TS: &str = "2026-11-22T10:31:07.214Z";

fn carol() -> String {
    wattle_types::NodeId::from_public_key([7; 32]).to_string()
}

fn bob() -> String {
    wattle_types::NodeId::from_public_key([9; 32]).to_string()
}

fn peer(id: &str, name: Option<&str>) -> Value {
    let mut peer = json!({
        "id": id, "path": "direct", "transport": "quic", "address": "/ip4/192.168.1.9/udp/7710/quic-v1",
        "rtt_ms": 1.2, "connected_ms": 7_800_000, "outbound": true, "source": "mdns",
        "bytes_in": 3_250_586, "bytes_out": 2_097_152, "agent": "wattle/0.1.0", "protocols": [], "listens": [],
    });
    if let Some(name) = name {
        peer["name"] = name.into();
    }
    peer
}

/// A peer whose round trip was not measured yet.
fn guessed(id: &str) -> Value {
    let mut peer = peer(id, None);
    peer.as_object_mut().unwrap().remove("rtt_ms");
    peer["estimate_ms"] = 34.04.into();
    peer
}

/// The answer to one request: a document, or lines of a stream.
fn answer(method: &str, path: &str) -> Vec<Value> {
    let (bob, carol) = (bob(), carol());
    match (method, path) {
        ("GET", "/api/v1/status") => vec![status(&bob, "ok", json!([]))],
        ("GET", "/api/v1/peers") => vec![json!({
            "schema": "wattle.peers/1",
            "peers": [peer(&bob, Some("小林")), guessed(&carol)],
        })],
        ("POST", "/api/v1/ping") => vec![
            json!({"type": "reply", "ts": TS, "seq": 1, "id": bob, "name": "bob", "rtt_ms": 11.94, "path": "direct",
                "transport": "quic", "address": "/ip4/81.2.69.142/udp/7710/quic-v1"}),
            json!({"type": "lost", "ts": TS, "seq": 2, "error": error("timeout", 5, "no answer after 1s")}),
            json!({"type": "done", "ts": TS, "schema": "wattle.ping/1", "id": bob, "name": "bob", "sent": 2,
                "answered": 1, "min_ms": 11.94, "avg_ms": 11.94, "max_ms": 11.94, "path": "direct", "transport": "quic"}),
        ],
        ("POST", "/api/v1/dht/trace") => trace(&bob, &carol),
        ("GET", "/api/v1/dht/table") => vec![json!({
            "schema": "wattle.dht_table/1", "id": carol, "size": 3, "buckets": [
                {"shared_bits": 0, "peers": [bucket_peer(&bob, true), bucket_peer(&carol, false)]},
                {"shared_bits": 4, "peers": [bucket_peer(&bob, true)]},
            ],
        })],
        ("GET", "/api/v1/topics/messages?patterns=sensors.%3E") => vec![
            json!({"type": "subscribed", "ts": TS, "patterns": ["sensors.>"]}),
            json!({"type": "message", "ts": TS, "topic": "sensors.kitchen", "from": bob, "name": "bob", "seq": 1,
                "bytes": 10, "data_b64": "eyJ0IjoyMS41fQ=="}),
        ],
        ("POST", "/api/v1/topics/dev/messages") => vec![json!({
            "schema": "wattle.topic_pub/1", "topic": "dev", "bytes": 5, "mesh_peers": 0, "local": 0,
        })],
        ("POST", "/api/v1/tickets") => vec![json!({
            "schema": "wattle.invite/1", "ticket": "wattle:1qy0xk3", "network": "home-lab", "private": true,
            "inviter": bob, "addresses": ["192.168.1.5:7710"], "expires": TS,
        })],
        _ => vec![error("not_found", 4, &format!("there is nothing at {path}"))],
    }
}

fn error(code: &str, exit: u8, message: &str) -> Value {
    json!({"schema": "wattle.error/1", "code": code, "exit": exit, "message": message})
}

fn bucket_peer(id: &str, connected: bool) -> Value {
    json!({"id": id, "connected": connected, "addresses": ["/ip4/10.0.0.4/tcp/4001"]})
}

fn status(id: &str, verdict: &str, warnings: Value) -> Value {
    json!({
        "schema": "wattle.status/1", "verdict": verdict, "summary": "connected to 4 peers", "warnings": warnings,
        "node": {"name": "default", "id": id, "version": "0.1.0", "pid": 4242, "uptime_ms": 8_040_000, "rss_bytes": 31_000_000},
        "network": {"name": "wattle", "private": false, "reachability": "unknown", "lan": "heard", "lan_heard": 2,
            "relays": [], "listen": ["/ip4/192.168.1.5/udp/7710/quic-v1"], "external": [], "bootstrap": 0,
            "address_book": 5, "inbound_seen": 0},
        "peers": {"total": 4, "direct": 4, "relayed": 0, "quic": 3, "tcp": 1},
        "members": {"alive": 5, "suspect": 1, "faulty": 0, "left": 2, "health": 0, "self_suspect": false},
        "dht": {"mode": "server", "table_size": 19, "buckets": 6, "records_held": 3, "published": 1},
        "api": {"socket": "unix:/run/user/1000/wattle/default/api.sock", "url": "http://127.0.0.1:7711"},
    })
}

fn trace(bob: &str, carol: &str) -> Vec<Value> {
    let step = |kind: &str, hop: u32, id: &str, bits: u32| json!({"type": kind, "ts": TS, "hop": hop, "peer": id, "shared_bits": bits, "distance_bits": 256 - bits});
    let mut first = step("response", 1, bob, 4);
    first["name"] = "bob".into();
    first["rtt_ms"] = 1.1.into();
    first["closer"] = json!([{"id": carol, "shared_bits": 7}]);
    let mut failed = step("timeout", 1, carol, 3);
    failed["why"] = "no answer in 3s".into();
    let mut last = step("response", 2, carol, 14);
    last["rtt_ms"] = 10.7.into();
    last["has_target"] = true.into();
    let done = json!({"type": "done", "ts": TS, "schema": "wattle.dht_trace/1", "target": "carol", "found": true, "hops": 2,
        "queries": 3, "failures": 1, "took_ms": 41, "closest": [], "addresses": ["/ip4/10.0.0.7/udp/7710/quic-v1"]});
    vec![step("query", 1, bob, 4), first, failed, last, done]
}

/// A node that is only its socket, in a home of its own.
struct Canned {
    home: tempfile::TempDir,
    requests: mpsc::Receiver<String>,
}

impl Canned {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("run/default");
        std::fs::create_dir_all(&dir).unwrap();
        let listener = UnixListener::bind(dir.join("api.sock")).unwrap();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Ignored because the test is over when nobody listens.
                drop(sender.send(serve(stream.unwrap())));
            }
        });
        Self { home, requests }
    }

    fn wattle(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_wattle"))
            .args(["--home", &self.home.path().display().to_string()])
            .args(words)
            .env_clear()
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// Reads one request and answers it; gives its body.
fn serve(stream: UnixStream) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    let lines = answer(method, path);
    let failed = lines[0]["schema"] == "wattle.error/1";
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let status = if failed { "404 Not Found" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    let mut stream = stream;
    // Ignored because a client may hang up as soon as it has what it wants.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())));
    String::from_utf8(body).unwrap()
}

fn snapshot(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/screens").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        text, kept,
        "{name} changed; when that is meant: UPDATE=1 cargo test -p wattle --test screens"
    );
}

#[test]
fn screens_are_as_kept() {
    let node = Canned::start();
    for (name, words) in [
        ("status.txt", vec!["status"]),
        ("peers.txt", vec!["peers"]),
        ("ping.txt", vec!["ping", "bob", "-c", "2"]),
        ("dht-trace.txt", vec!["dht", "trace", "carol"]),
        ("dht-table.txt", vec!["dht", "table"]),
        ("dht-table-bars.txt", vec!["dht", "table", "--bars"]),
        ("topic-sub.txt", vec!["topic", "sub", "sensors.>", "-c", "1"]),
        ("topic-pub.txt", vec!["topic", "pub", "dev", "hello"]),
        ("invite.txt", vec!["invite", "--qr"]),
        ("not-found.txt", vec!["dht", "stats"]),
    ] {
        let output = node.wattle(&words);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let exit = output.status.code().unwrap();
        let text = format!("$ wattle {}\n{stdout}{stderr}exit {exit}\n", words.join(" "));
        // What to type is said for this home, which is another one each time.
        snapshot(name, &text.replace(&format!(" --home {}", node.home.path().display()), ""));
    }
}

#[test]
fn json_is_passed_on_as_the_node_wrote_it() {
    let node = Canned::start();
    let output = node.wattle(&["status", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document, status(&bob(), "ok", json!([])));
    let output = node.wattle(&["dht", "trace", "carol", "--json"]);
    let lines: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(lines, trace(&bob(), &carol()));
}

#[test]
fn quiet_prints_ids_and_nothing_else() {
    let node = Canned::start();
    let output = node.wattle(&["peers", "-q"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n{}\n", bob(), carol()));
    assert_eq!(node.wattle(&["invite", "-q"]).stdout, b"wattle:1qy0xk3\n");
}

#[test]
fn stdin_is_published_line_by_line_as_it_is() {
    let node = Canned::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wattle"))
        .args(["--home", &node.home.path().display().to_string(), "topic", "pub", "dev", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"one\n\xff\xfe\nlast without end").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(10), "nobody is subscribed");
    // The canned node answers before it hands a body over here, so the last one is waited for.
    let within = std::time::Duration::from_secs(5);
    let mut bodies: Vec<String> = (0..3).map_while(|_| node.requests.recv_timeout(within).ok()).collect();
    bodies.extend(node.requests.try_iter());
    assert_eq!(
        bodies,
        [r#"{"data_b64":"b25l"}"#, r#"{"data_b64":"//4="}"#, r#"{"data_b64":"bGFzdCB3aXRob3V0IGVuZA=="}"#]
    );
}

#[test]
fn a_trace_is_drawn_into_a_file() {
    let node = Canned::start();
    let file = node.home.path().join("hops.svg");
    let output = node.wattle(&["dht", "trace", "carol", "--svg", &file.display().to_string()]);
    assert!(output.status.success());
    let drawing = std::fs::read_to_string(Path::new(&file)).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.matches("<circle").count() == 3);
}
