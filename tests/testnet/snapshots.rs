//! A log that was compacted, and who comes to it then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use data_encoding::BASE64;
use serde_json::json;
use wattle_order::limits::PIECE_BYTES_MAX;
use wattle_store::{Owner, Store};
use wattle_tests::local::{Api, Draw, size};
use wattle_types::{KeyRange, Table, Write};

use super::*;

/// Bytes of one line.
const LINE: usize = 15_000;
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Four validators and alice, who follows; the log is `megabytes` long, and two minutes ago.
fn grown(megabytes: usize) -> Net {
    let net = Net::up(&["5", "--validators", "4"]);
    let count = AtomicU64::new(0);
    let lines = (megabytes * 1_000_000).div_ceil(LINE) as u64;
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let (api, count) = (api(&net, NAMES[1 + writer % 4]), &count);
            scope.spawn(move || {
                loop {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    if number >= lines {
                        return;
                    }
                    let line = json!({ "line_b64": BASE64.encode(&line(number)) });
                    // An app does so much in a second, and says so.
                    while !matches!(api.ask("POST /api/v1/registers/births", &line), Some((200, _))) {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            });
        }
    });
    // Blocks until one vouches for a snapshot, here and everywhere.
    let has_one = |node: &&str| {
        let spot = format!("demo/{node}");
        net.machine.json(&["-t", &spot, "order", "snapshot", "list"])["certified"].is_object()
    };
    let mut number = 0;
    wait_for("there is a snapshot", PATIENCE, || {
        number += 1;
        net.at("1", &["order", "submit", &format!("entry {number}"), "--timeout", "30s"]);
        ["1", "2", "3", "4"].iter().all(has_one)
    });
    net.ok(&["testnet", "clock", "3m"]);
    // The newest blocks are kept in any case.
    let carol = api(&net, "carol");
    let (from, mut number) = (height(&carol), 0);
    wait_for("there is more", PATIENCE, || {
        number += 1;
        assert!(matches!(carol.submit(&format!("later {number}")), Some((200, _))));
        height(&carol) > from + 80
    });
    net
}

/// Bytes that nothing makes smaller.
fn line(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..LINE / 8).flat_map(|_| next()).collect()
}

fn api(net: &Net, name: &str) -> Api {
    Api::at(net.directory().join(format!("run/{name}/api.sock")))
}

pub(super) fn compact(net: &Net, nodes: &[&str]) -> u64 {
    let mut first = 0;
    for node in nodes {
        let spot = format!("demo/{node}");
        let made = net.machine.json(&["-t", &spot, "order", "snapshot", "create", "--compact"]);
        assert!(made["removed"].as_u64().unwrap() > 10, "{made}");
        assert!(made["snapshot"]["state_height"].as_u64().unwrap() + 1 >= made["first"].as_u64().unwrap());
        first = made["first"].as_u64().unwrap();
    }
    first
}

/// It has its key, and nothing else any more.
pub(super) fn wipe(net: &Net, name: &str) {
    let data = net.directory().join("data/nodes").join(name);
    std::fs::remove_dir_all(data.join("db")).unwrap();
    std::fs::remove_file(data.join("VERSION")).unwrap();
}

pub(super) fn join(net: &Net, node: &str) -> Value {
    let spot = format!("demo/{node}");
    let genesis = net.directory().join("genesis.json").display().to_string();
    net.machine.json(&["-t", &spot, "order", "join", &genesis])
}

/// What a register has, whoever is asked.
fn register(api: &Api) -> Value {
    let all = api.get("/api/v1/registers");
    let last = api.get("/api/v1/registers/births?count=3");
    json!([all["registers"], last["lines"], last["count"]])
}

fn height(api: &Api) -> u64 {
    api.ask("GET /api/v1/order/status", &Value::Null).map_or(0, |(_, it)| it["height"].as_u64().unwrap_or(0))
}

#[test]
fn a_newcomer_goes_on_from_a_snapshot_and_a_file_where_the_log_was_compacted() {
    let net = grown(2);
    let file = net.machine.home().join("log.snapshot").display().to_string();
    net.at("3", &["order", "snapshot", "create", "-o", &file]);
    let first = compact(&net, &["1", "2", "3", "4"]);
    let gone = net.run(&["-t", "demo/1", "order", "get", "3"]);
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(gone.status.code() == Some(4) && said.contains(&format!("begins at height {first}")), "{said}");

    // By the network: from nothing to all that is known.
    net.ok(&["testnet", "kill", "0"]);
    wipe(&net, "alice");
    net.ok(&["testnet", "restart", "0"]);
    assert_eq!(join(&net, "0")["role"], "follower");
    let (alice, bob) = (api(&net, "alice"), api(&net, "bob"));
    wait_for("alice has the log", PATIENCE, || height(&alice) >= height(&bob) && height(&bob) > 0);
    assert!(alice.get("/api/v1/order/status")["first"].as_u64().unwrap() > first.min(10));
    wait_for("its state is the same", PATIENCE, || register(&alice) == register(&bob));
    net.at("0", &["order", "submit", "from alice", "--timeout", "30s"]);

    // By a file: what it lacks comes from the others.
    net.ok(&["testnet", "kill", "0"]);
    wipe(&net, "alice");
    net.ok(&["testnet", "restart", "0"]);
    refuses_damaged(&net, &alice, &file);
    let restored = net.machine.json(&["-t", "demo/0", "order", "snapshot", "restore", &file]);
    assert_eq!(restored["role"], "follower", "{restored}");
    wait_for("alice has the rest", PATIENCE, || height(&alice) >= height(&bob));
    wait_for("its state is the same", PATIENCE, || register(&alice) == register(&bob));
    net.at("0", &["order", "submit", "from alice again", "--timeout", "30s"]);
    let again = net.run(&["-t", "demo/0", "order", "snapshot", "restore", &file]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(6) && said.contains("nothing to restore"), "{said}");

    // A node that is told of snapshots goes on with what it has after a restart.
    for node in ["0", "1"] {
        net.ok(&["testnet", "kill", node]);
        net.ok(&["testnet", "restart", node]);
    }
    wait_for("all are as far", PATIENCE, || height(&alice) >= height(&bob) && height(&bob) > 0);
    wait_for("its state is the same", PATIENCE, || register(&alice) == register(&bob));
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}

/// A file that is another is refused, and nothing comes of it.
fn refuses_damaged(net: &Net, api: &Api, file: &str) {
    let (whole, bad) = (std::fs::read(file).unwrap(), net.machine.home().join("bad.snapshot"));
    let (mut draw, request) = (Draw(18), json!({ "file": bad }));
    for round in 0..120 {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(draw.below(whole.len())),
            1 => bytes.extend([draw.below(256) as u8]),
            // The first part has the proof of all others.
            2 => bytes[draw.below(6000)] ^= 1 << draw.below(8),
            _ => bytes[draw.below(whole.len())] ^= 1 << draw.below(8),
        }
        std::fs::write(&bad, bytes).unwrap();
        let (status, answer) = api.ask("POST /api/v1/order/snapshots/restore", &request).unwrap();
        assert_eq!((status, &answer["code"]), (422, &json!("invalid")), "round {round}: {answer}");
    }
    let spot = ["-t", "demo/0", "order"];
    let refused = net.run(&[&spot[..], &["snapshot", "restore", bad.to_str().unwrap()]].concat());
    assert_eq!(refused.status.code(), Some(9), "{}", String::from_utf8_lossy(&refused.stderr));
    let absent = net.run(&[&spot[..], &["snapshot", "restore", "/nowhere"]].concat());
    assert_eq!(absent.status.code(), Some(4), "{}", String::from_utf8_lossy(&absent.stderr));
    assert_eq!(net.run(&[&spot[..], &["status"]].concat()).status.code(), Some(4), "there is no log here");
}

/// The disk of a node that was killed a moment ago.
fn opened(net: &Net, name: &str) -> Store {
    let data = net.directory().join("data/nodes").join(name);
    let mut store = None;
    wait_for("its disk is free", PATIENCE, || {
        store = Store::open(&data, Owner::this_process("test")).ok();
        store.is_some()
    });
    store.unwrap()
}

/// Flips a bit of every piece that a node which is down would give.
fn spoil_pieces(net: &Net, name: &str) -> usize {
    let store = opened(net, name);
    let pieces = store.range(Table::Order, &KeyRange::prefix(b"part"), usize::MAX).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (key, mut value) in pieces.clone() {
        value[100] ^= 1;
        runtime.block_on(store.commit(vec![Write::Put { table: Table::Order, key, value }])).unwrap();
    }
    pieces.len()
}

/// `WATTLE_SNAPSHOT_MB` megabytes of state.
#[test]
fn one_that_gives_wrong_pieces_and_a_kill_in_the_middle_keep_no_newcomer_from_a_snapshot() {
    let megabytes = size("WATTLE_SNAPSHOT_MB", 6);
    let net = grown(megabytes);
    compact(&net, &["1", "2", "3", "4"]);
    net.ok(&["testnet", "kill", "4"]);
    let pieces = spoil_pieces(&net, "erin");
    // The next snapshot is due when there is twice as much: the last has half of it at the least.
    assert!(pieces * PIECE_BYTES_MAX >= megabytes * 1_000_000 / 2, "{pieces} pieces");
    net.ok(&["testnet", "restart", "4"]);
    net.ok(&["testnet", "kill", "0"]);
    wipe(&net, "alice");
    // So slow that there is a middle.
    net.ok(&["testnet", "rate", &format!("{}mbit", 4 * megabytes.div_ceil(6))]);
    net.ok(&["testnet", "restart", "0"]);
    join(&net, "0");
    let alice = api(&net, "alice");
    let mut here = 0;
    for attempt in 1.. {
        std::thread::sleep(Duration::from_millis(300 * attempt));
        net.ok(&["testnet", "kill", "0"]);
        here =
            opened(&net, "alice").range(Table::Order, &KeyRange::prefix(b"part"), usize::MAX).unwrap().len();
        if here > 0 {
            break;
        }
        net.ok(&["testnet", "restart", "0"]);
    }
    assert!(here < pieces, "{here} of {pieces} pieces in the middle");
    net.ok(&["testnet", "restart", "0"]);
    let begun = Instant::now();
    let bob = api(&net, "bob");
    wait_for("alice has the log", 2 * PATIENCE, || height(&alice) >= height(&bob) && height(&bob) > 0);
    println!("{megabytes} MB: {here} of {pieces} pieces before, the rest in {:?}", begun.elapsed());
    wait_for("its state is the same", PATIENCE, || register(&alice) == register(&bob));
    let log = std::fs::read_to_string(net.directory().join("state/nodes/alice/wattle.log")).unwrap();
    assert!(log.contains("a piece that is another"), "{log}");
    let status = net.machine.json(&["testnet", "status"]);
    println!("resident {}", status["nodes"][0]["rss_bytes"]);
}

#[test]
fn a_validator_that_goes_on_from_a_file_computes_what_the_others_do_and_votes_again() {
    let net = Net::up(&["4", "--validators", "4"]);
    let append = |text: &str| net.at("1", &["register", "append", "births", text, "--timeout", "30s"]);
    (0..5).for_each(|number| drop(append(&format!("early {number}"))));
    let dave = api(&net, "dave");
    wait_for("dave has them", PATIENCE, || register(&dave)[2] == 5);
    net.ok(&["testnet", "partition", "3", "0,1,2"]);
    (0..5).for_each(|number| drop(append(&format!("late {number}"))));
    let file = net.machine.home().join("young.snapshot").display().to_string();
    // The log goes on while it is written.
    let (bob, over, until) = (api(&net, "bob"), AtomicBool::new(false), Instant::now() + 2 * PATIENCE);
    let made = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (bob, over) = (&bob, &over);
            scope.spawn(move || {
                let mut number = 0;
                // However the test ends.
                while !over.load(Ordering::Relaxed) && Instant::now() < until {
                    number += 1;
                    assert!(matches!(bob.submit(&format!("meanwhile {writer} {number}")), Some((200, _))));
                }
            });
        }
        wait_for("there is much", PATIENCE, || height(&bob) > 60);
        let made = net.run(&["-t", "demo/1", "order", "snapshot", "create", "-o", &file, "--json"]);
        over.store(true, Ordering::Relaxed);
        serde_json::from_slice::<Value>(&made.stdout).unwrap()
    });
    assert_eq!(made["snapshot"]["state_height"], 0, "a young log is there with every block: {made}");
    let restored = net.machine.json(&["-t", "demo/3", "order", "snapshot", "restore", &file]);
    assert_eq!(restored["role"], "validator");
    let heights = (restored["height"].as_u64().unwrap(), made["snapshot"]["height"].as_u64().unwrap());
    assert!(heights.0 >= heights.1, "{heights:?}");
    wait_for("its apps are as far", PATIENCE, || register(&dave)[2] == 10);
    assert_eq!(register(&dave), register(&api(&net, "bob")));
    net.ok(&["testnet", "heal"]);
    // Without it there is no quorum now.
    net.ok(&["testnet", "kill", "2"]);
    append("with dave");
    let status = dave.get("/api/v1/order/status");
    assert_eq!((&status["alarms"], &status["signs"]), (&json!([]), &json!(true)), "{status}");
    net.ok(&["testnet", "restart", "2"]);
    let (exit, report) = net.report("60s");
    assert_eq!((exit, &report["pass"]), (0, &true.into()), "{report:#}");
}
