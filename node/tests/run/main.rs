//! The program itself: a node starts, is found, is used, and leaves nothing behind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod chat;
mod documents;
mod faults;
mod process;
mod trace;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use wattle::api::documents::ErrorDocument;

use process::{program, run};

#[test]
fn a_node_starts_answers_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    assert!(node.ready.created && node.ready.name == "alice");
    assert!(node.ready.listen.iter().all(|address| address.starts_with("/ip4/127.0.0.1/")));
    let key = home.path().join("data/nodes/alice/identity.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let (status, document) = node.call("GET /api/v1/status", "");
    assert_eq!((status, &document["schema"]), (200, &"wattle.status/1".into()));
    assert_eq!(document["node"]["id"], node.ready.id.to_string());
    let (status, error) = node.call("GET /api/v1/wait?peers=1&timeout_ms=100", "");
    assert_eq!((status, &error["code"]), (504, &"timeout".into()));
    assert_eq!(error["message"], "timed out after 100ms waiting for 1 peers");

    let began = Instant::now();
    node.signal(rustix::process::Signal::TERM);
    assert!(node.end().success());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!home.path().join("run/alice").exists());

    let again = run(home.path(), "alice");
    assert!(!again.ready.created);
    assert_eq!(again.ready.id, node.ready.id);
}

#[test]
fn a_second_start_is_a_conflict_that_names_the_first() {
    let home = tempfile::tempdir().unwrap();
    let first = run(home.path(), "alice");
    let began = Instant::now();
    let second = program(home.path(), "alice").args(["--json", "run"]).output().unwrap();
    assert_eq!(second.status.code(), Some(6));
    assert!(began.elapsed() < Duration::from_secs(2));
    let error: ErrorDocument = serde_json::from_slice(&second.stderr).unwrap();
    assert!(error.message.contains(&format!("already running (pid {}", first.ready.pid)), "{error}");
    assert_eq!(first.call("GET /api/v1/status", "").0, 200);
}

#[test]
fn after_a_kill_the_node_starts_again_without_help() {
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    node.signal(rustix::process::Signal::KILL);
    node.end();
    assert!(node.socket().exists(), "a killed process cleans nothing up");
    let again = run(home.path(), "alice");
    assert_eq!(again.call("GET /api/v1/status", "").0, 200);
}

#[test]
fn two_nodes_of_one_user_find_each_other_without_multicast() {
    let home = tempfile::tempdir().unwrap();
    let mut alice = run(home.path(), "alice");
    let began = Instant::now();
    let mut bob = run(home.path(), "bob");
    alice.connected();
    bob.connected();
    // The bound of the product is 1 s; a machine that runs other tests as well gets more.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let (_, peers) = alice.call("GET /api/v1/peers", "");
    assert_eq!(peers["peers"][0]["id"], bob.ready.id.to_string());
    assert_eq!((&peers["peers"][0]["label"], &peers["peers"][0]["name"]), (&"bob".into(), &().into()));
    let screen = || program(home.path(), "alice").arg("peers").output().unwrap().stdout;
    let labelled = String::from_utf8(screen()).unwrap();
    assert!(labelled.contains(&format!("bob* ..{}", bob.ready.id.short())), "{labelled}");
    assert_eq!(peers["peers"][0]["path"], "direct");

    let name = format!(r#"{{"peer":"{}","name":"bob"}}"#, bob.ready.id);
    assert_eq!(alice.call("POST /api/v1/peers/name", &name).0, 200);
    let named = String::from_utf8(screen()).unwrap();
    assert!(named.contains(&format!("bob ..{}", bob.ready.id.short())) && !named.contains('*'), "{named}");
    let (status, stored) = bob.call("PUT /api/v1/dht/records/greeting", r#"{"value_b64":"aGVsbG8="}"#);
    assert_eq!((status, &stored["announced"]), (200, &true.into()), "{stored}");
    for key in ["greeting", "bob%2Fgreeting"] {
        let (status, found) = alice.call(&format!("GET /api/v1/dht/records/{key}"), "");
        assert_eq!((status, &found["record"]["value_b64"]), (200, &"aGVsbG8=".into()), "{key}: {found}");
        assert_eq!(found["record"]["owner_name"], "bob");
    }
    let (status, error) = alice.call("PUT /api/v1/dht/records/bob%2Fgreeting", r#"{"value_b64":""}"#);
    assert_eq!((status, &error["code"]), (403, &"denied".into()));
    let (status, error) = alice.call("GET /api/v1/dht/records/nothing-of-the-kind", "");
    assert_eq!((status, &error["code"]), (404, &"not_found".into()), "{error}");
}

#[test]
fn a_peer_of_an_earlier_run_is_still_known_by_its_short_id() {
    let home = tempfile::tempdir().unwrap();
    let (mut alice, mut bob) = (run(home.path(), "alice"), run(home.path(), "bob"));
    alice.connected();
    bob.connected();
    let id = bob.ready.id;
    for node in [&mut bob, &mut alice] {
        node.signal(rustix::process::Signal::TERM);
        assert!(node.end().success());
    }
    let alice = run(home.path(), "alice");
    let (_, peers) = alice.call("GET /api/v1/peers?all=true", "");
    assert_eq!(
        (&peers["peers"], &peers["offline"][0]["id"]),
        (&serde_json::json!([]), &id.to_string().into())
    );
    let (status, found) = alice.call(&format!("GET /api/v1/id?peer=..{}", id.short()), "");
    assert_eq!((status, &found["id"]), (200, &id.to_string().into()), "{found}");
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let home = tempfile::tempdir().unwrap();
    let wattle = |words: &[&str]| {
        let mut command = program(home.path(), "alice");
        command.env("WATTLE_P2P_PROFILE", "lan").args(words);
        command
    };
    for (key, value) in [("p2p.profile", "wan"), ("p2p.mdns", "true"), ("connections.idle_after", "9s")] {
        assert!(wattle(&["config", "set", key, value]).output().unwrap().status.success());
    }
    let shown = wattle(&["config", "show", "--origin"]).output().unwrap().stdout;
    let shown = String::from_utf8(shown).unwrap();
    let origin = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.rsplit_once("   from ").unwrap().1.to_owned()
    };
    assert_eq!(origin("p2p.profile"), "env WATTLE_P2P_PROFILE");
    assert!(origin("connections.idle_after").contains("config.toml:"), "{shown}");
    assert_eq!(origin("connections.low_water"), "default");

    let mut command = wattle(&["--json", "run", "--no-mdns"]);
    let node = process::started(&mut command);
    let (_, config) = node.call("GET /api/v1/config?key=p2p", "");
    let value = |key: &str| {
        let values = config["values"].as_array().unwrap();
        values.iter().find(|value| value["key"] == key).unwrap().clone()
    };
    assert_eq!(
        (&value("p2p.mdns")["value"], &value("p2p.mdns")["origin"]),
        (&false.into(), &"flag --no-mdns".into())
    );
    assert_eq!(value("p2p.profile")["value"], "lan");
}

#[test]
fn a_ticket_connects_nodes_that_cannot_find_each_other() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (alice, bob) = (run(here.path(), "alice"), run(there.path(), "bob"));
    let (_, invite) = alice.call("POST /api/v1/tickets", "{}");
    let ticket = invite["ticket"].as_str().unwrap();
    assert!(ticket.len() <= 200);
    let (status, joined) =
        bob.call("POST /api/v1/join", &format!(r#"{{"ticket":"{ticket}","name":"alice"}}"#));
    assert_eq!((status, &joined["peer"]["name"]), (200, &"alice".into()), "{joined}");
    let mut damaged = ticket.to_owned();
    damaged.pop();
    let (status, error) = bob.call("POST /api/v1/join", &format!(r#"{{"ticket":"{damaged}"}}"#));
    assert_eq!((status, &error["exit"]), (422, &9.into()), "{error}");
    let (status, error) = alice.call("POST /api/v1/join", &format!(r#"{{"ticket":"{ticket}"}}"#));
    assert_eq!((status, &error["exit"]), (409, &6.into()), "{error}");
}

#[test]
fn a_port_that_somebody_chose_and_that_is_busy_is_a_conflict() {
    let home = tempfile::tempdir().unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", busy.local_addr().unwrap().port());
    let output = program(home.path(), "alice")
        .env("WATTLE_P2P_LISTEN", &listen)
        .args(["--json", "run"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
    let error: ErrorDocument = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error.message.contains(&listen), "{error}");
    assert!(!home.path().join("run/alice").join("api.sock").exists());
}

#[test]
fn events_go_on_where_a_reader_stopped() {
    let home = tempfile::tempdir().unwrap();
    let mut alice = run(home.path(), "alice");
    let mut bob = run(home.path(), "bob");
    alice.connected();
    bob.connected();
    let read = |headers: &str| {
        let mut stream = UnixStream::connect(alice.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /api/v1/events?since=0 HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let ids = BufReader::new(stream).lines().map_while(Result::ok);
        ids.filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok()).take(2).collect::<Vec<_>>()
    };
    assert_eq!(read(""), [1, 2]);
    assert_eq!(read("Last-Event-ID: 1\r\n")[0], 2);
}

#[test]
fn a_node_stops_when_it_is_asked_to() {
    let home = tempfile::tempdir().unwrap();
    let mut node = run(home.path(), "alice");
    assert_eq!(node.call("POST /api/v1/stop", "{}").0, 200);
    assert!(node.end().success());
}
