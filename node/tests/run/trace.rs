//! One trace over two nodes, as a collector sees it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::process::{program, raw_call, run, run_with};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACE_BYTES: [u8; 16] =
    [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
const CALLER: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
const HELLO: &str = r#"{"data_b64":"aGVsbG8="}"#;

/// Takes OTLP over HTTP as a collector would, and gives each body on.
fn collector() -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || collect(stream, &sender));
        }
    });
    (endpoint, bodies)
}

/// Answers the requests of one connection.
fn collect(stream: TcpStream, bodies: &Sender<Vec<u8>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        bodies.send(body).ok()?;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// The lines of a subscription, from the one that says it holds.
fn subscribe(socket: &std::path::Path) -> impl Iterator<Item = String> + use<> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let request = "GET /api/v1/topics/messages?patterns=trace.* HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let mut next = move || {
        let mut line = String::new();
        lines.read_line(&mut line).ok().map(|_read| line)
    };
    while !next().unwrap().contains("\"subscribed\"") {}
    std::iter::from_fn(move || Some(next().unwrap_or_default()))
}

#[test]
fn one_trace_covers_a_call_its_message_and_the_reception_on_another_node() {
    let home = tempfile::tempdir().unwrap();
    let (endpoint, bodies) = collector();
    let traced = |node: &str| {
        let mut command = program(home.path(), node);
        command.env("WATTLE_TELEMETRY_OTLP_ENDPOINT", &endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        run_with(&mut command)
    };
    let (mut alice, mut bob) = (traced("alice"), traced("bob"));
    alice.connected();
    bob.connected();
    let mut heard = subscribe(&bob.socket());
    // The mesh takes a moment to form; each try is one more message of the same trace.
    let begun = Instant::now();
    let message = loop {
        let (status, text) = raw_call(&alice.socket(), "POST /api/v1/topics/trace.a/messages", CALLER, HELLO);
        assert_eq!(status, 200, "{text}");
        if let Some(line) = heard.by_ref().take(3).find(|line| line.contains("\"message\"")) {
            break line;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "bob hears nothing");
    };
    assert!(message.contains(&format!("\"trace_id\":\"{TRACE}\"")), "{message}");

    let (mut sent, mut received) = (false, false);
    while !(sent && received) {
        let body = bodies.recv_timeout(Duration::from_secs(10)).unwrap();
        let of_trace = contains(&body, &TRACE_BYTES);
        sent |=
            of_trace && contains(&body, b"alice") && contains(&body, b"POST /api/v1/topics/{topic}/messages");
        received |= of_trace && contains(&body, b"bob") && contains(&body, b"topic deliver");
    }
}

#[test]
fn without_an_endpoint_nothing_is_traced_and_nothing_leaves() {
    let home = tempfile::tempdir().unwrap();
    let alice = run(home.path(), "alice");
    let mut heard = subscribe(&alice.socket());
    let (status, _) = raw_call(&alice.socket(), "POST /api/v1/topics/trace.a/messages", CALLER, HELLO);
    assert_eq!(status, 200);
    let message = heard.by_ref().take(10).find(|line| line.contains("\"message\"")).unwrap();
    assert!(!message.contains("trace_id"), "{message}");
    let (_, config) = alice.call("GET /api/v1/config?key=telemetry.otlp_endpoint", "");
    assert_eq!(
        (&config["values"][0]["value"], &config["values"][0]["origin"]),
        (&"".into(), &"default".into())
    );
}
