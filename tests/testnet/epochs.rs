//! The validators of the log change while it is written, and some of them die at the wrong moment (A10).

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use wattle_tests::local::{Api, Place, agreed, size};

use super::snapshots::{compact, join, wipe};
use super::*;

const NAMES: [&str; 10] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"];
/// Who submits at once, or one for every four entries a second.
const WRITERS: u64 = 32;

/// A node of the net, as this test needs it.
#[derive(Clone)]
struct Peer {
    name: &'static str,
    id: String,
    api: Api,
}

/// Those that run, in two parts: who votes first, and who does not.
fn peers(net: &Net, count: usize) -> (Vec<Peer>, Vec<Peer>) {
    let peer = |name: &'static str| {
        let id = net.at(name, &["id", "-q"]).trim().to_owned();
        Peer { name, id, api: Api::at(net.directory().join(format!("run/{name}/api.sock"))) }
    };
    let all: Vec<Peer> = NAMES[..count].iter().copied().map(peer).collect();
    let status = all[0].api.get("/api/v1/order/status");
    let first = status["validators"].as_array().unwrap().clone();
    all.into_iter().partition(|peer| first.iter().any(|it| it["id"] == peer.id.as_str()))
}

fn ids(peers: &[Peer]) -> Vec<&str> {
    peers.iter().map(|peer| peer.id.as_str()).collect()
}

fn epoch(api: &Api) -> u64 {
    api.ask("GET /api/v1/order/status", &Value::Null).map_or(0, |(_, it)| it["epoch"].as_u64().unwrap_or(0))
}

/// Writers and what was acknowledged to them. They end with the test, also when it fails.
struct Load {
    over: AtomicBool,
    number: AtomicU64,
    kept: Mutex<Vec<(Place, String)>>,
    rate: u64,
    bytes: usize,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

struct Ending<'a>(&'a Load);

impl Load {
    fn writers(&self) -> u64 {
        WRITERS.max(self.rate / 4)
    }

    fn write(&self, apis: &[Api]) {
        let pause = Duration::from_micros(1_000_000 * self.writers() / self.rate);
        while !self.over.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let text = format!("{number:0>width$}", width = self.bytes);
            let begun = Instant::now();
            if let Some((200, answer)) = apis[usize::try_from(number).unwrap() % apis.len()].submit(&text)
                && answer["state"] == "ordered"
            {
                let place = |of: &str| answer[of].as_u64().unwrap();
                self.kept.lock().unwrap().push(((place("height"), place("index")), text));
            }
            std::thread::sleep(pause.saturating_sub(begun.elapsed()));
        }
    }
}

/// The longest time in which a node ordered nothing, up to now.
fn longest_gap(api: &Api, over: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, (0, Instant::now()));
    while !over.load(Ordering::Relaxed) {
        let height = api.ask("GET /api/v1/order/status", &Value::Null);
        let height = height.and_then(|(_, it)| it["height"].as_u64()).unwrap_or(last.0);
        if height > last.0 {
            longest = longest.max(last.1.elapsed());
            last = (height, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    longest
}

/// All of these say, each on its own node, that those are to vote.
fn change(net: &Net, says: &[Peer], next: &[Peer], to: u64) {
    let validators = ids(next).join(",");
    std::thread::scope(|scope| {
        for peer in says {
            scope.spawn(|| {
                let said =
                    net.at(peer.name, &["order", "change", "--validators", &validators, "--timeout", "60s"]);
                assert!(said.starts_with(&format!("epoch {to}: ")), "{said}");
            });
        }
    });
}

/// `WATTLE_CHANGE_RATE` entries of `WATTLE_CHANGE_BYTES` are asked for a second.
#[test]
fn validators_change_under_load_while_some_die_and_nothing_is_lost() {
    let net = Net::up(&["10", "--validators", "4"]);
    let (old, new) = peers(&net, 10);
    let all = [&old[..], &new[..]].concat();
    let seven = [&old[..], &new[..3]].concat();
    let apis: Vec<Api> = all.iter().map(|peer| peer.api.clone()).collect();
    let load = Load {
        over: AtomicBool::new(false),
        number: AtomicU64::new(0),
        kept: Mutex::default(),
        rate: size("WATTLE_CHANGE_RATE", 60) as u64,
        // A few make a batch.
        bytes: size("WATTLE_CHANGE_BYTES", 8_000),
    };
    let gap = std::thread::scope(|scope| {
        let _ending = Ending(&load);
        for _ in 0..load.writers() {
            scope.spawn(|| load.write(&apis));
        }
        let gap = scope.spawn(|| longest_gap(&new[5].api, &load.over));
        // Two say so, and die: one who votes, and one who would.
        let request = json!({ "validators": ids(&seven), "epoch": 1 });
        for peer in [&old[0], &new[0]] {
            // Who would join hears a moment later that somebody wants it.
            wait_for("it is heard", PATIENCE, || {
                peer.api.ok("POST /api/v1/order/changes", &request)["heard"] == true
            });
            net.ok(&["testnet", "kill", peer.name]);
        }
        change(&net, &[&old[1..], &new[1..3]].concat(), &seven, 2);
        for peer in [&old[0], &new[0]] {
            net.ok(&["testnet", "restart", peer.name]);
            wait_for("who was dead is in the new epoch", PATIENCE, || epoch(&peer.api) == 2);
        }
        change(&net, &all, &all, 3);
        change(&net, &all, &old, 4);
        // All at once: nobody who votes then has what those had.
        change(&net, &[&old[..], &new[..4]].concat(), &new[..4], 5);
        std::thread::sleep(Duration::from_secs(1));
        load.over.store(true, Ordering::Relaxed);
        gap.join().unwrap()
    });
    let kept = load.kept.into_inner().unwrap();
    let log = agreed(&apis, PATIENCE);
    println!("{} of {} entries acknowledged, {gap:?} at most without a block", kept.len(), log.len());
    for (place, text) in &kept {
        assert_eq!(log.get(place).map(|(_, text)| text), Some(text), "lost at {place:?}");
    }
    let distinct: BTreeSet<&String> = log.values().map(|(hash, _)| hash).collect();
    assert_eq!(distinct.len(), log.len(), "an entry stands twice");
    assert!(kept.len() > 50, "{} entries", kept.len());
    without_the_first(&net, &old, &new);
}

/// Those of the first epoch are gone: the log goes on, and is proven and had with nothing but its beginning.
fn without_the_first(net: &Net, old: &[Peer], new: &[Peer]) {
    for peer in old {
        net.ok(&["testnet", "kill", peer.name]);
    }
    let (genesis, receipt) =
        (net.directory().join("genesis.json"), net.machine.home().join("r.json").display().to_string());
    net.at(new[4].name, &["order", "submit", "of the last epoch", "--receipt", &receipt, "--timeout", "30s"]);
    let genesis = genesis.display().to_string();
    let said = net.ok(&["order", "verify", &receipt, "--genesis", &genesis]);
    assert!(said.starts_with("valid: entry "), "{said}");
    let signer = new[..4].iter().any(|peer| said.contains(&peer.id[peer.id.len() - 6..]));
    assert!(signer, "those sign who vote now: {said}");
    if let Some(said) = python(&genesis, &std::fs::read_to_string(&receipt).unwrap()) {
        assert!(said.starts_with("ok 5 "), "{said}");
    }

    // One with an empty disk knows the genesis only, and those who are in it are gone.
    let last = &new[5];
    net.ok(&["testnet", "kill", last.name]);
    wipe(net, last.name);
    net.ok(&["testnet", "restart", last.name]);
    join(net, last.name);
    wait_for("the newcomer has the log", PATIENCE, || last.api.height() >= new[0].api.height());
    assert_eq!(epoch(&last.api), 5);

    for peer in old.iter().chain(&new[..2]) {
        if new[..2].iter().any(|it| it.id == peer.id) {
            net.ok(&["testnet", "kill", peer.name]);
        }
        net.ok(&["testnet", "restart", peer.name]);
    }
    net.at(old[1].name, &["order", "submit", "all are back", "--timeout", "30s"]);
    let apis: Vec<Api> = old.iter().chain(new).map(|peer| peer.api.clone()).collect();
    agreed(&apis, PATIENCE);
    let (_, report) = net.report("60s");
    assert_eq!(check(&report, "order")["pass"], true, "{report:#}");
    for peer in old.iter().chain(new) {
        let status = peer.api.get("/api/v1/order/status");
        assert_eq!(status["alarms"], json!([]), "{}", peer.name);
    }
}

/// Where the log was compacted, one that begins on a snapshot begins in the epoch of it: by the network, and by a file.
#[test]
fn who_begins_on_a_snapshot_begins_in_its_epoch_and_votes_there() {
    let net = Net::up(&["5", "--validators", "4"]);
    let (old, new) = peers(&net, 5);
    let all = [&old[..], &new[..]].concat();
    net.at(old[0].name, &["register", "append", "births", "of the first epoch"]);
    change(&net, &all, &[&old[1..], &new[..]].concat(), 2);
    change(&net, &all, &[&old[..3], &new[..]].concat(), 3);
    let grow = |by: u64| {
        let from = new[0].api.height();
        let mut number = 0;
        wait_for("the log grows", PATIENCE, || {
            number += 1;
            let said = new[0].api.submit(&format!("{number} above {from}"));
            assert!(matches!(said, Some((200, _))), "{said:?}");
            new[0].api.height() > from + by
        });
    };
    grow(20);
    net.ok(&["testnet", "clock", "3m"]);
    grow(80);
    compact(&net, &NAMES[..5]);

    let register = |peer: &Peer| peer.api.get("/api/v1/registers/births?count=3")["lines"].clone();
    let expected = register(&old[0]);
    assert_eq!(expected.as_array().unwrap().len(), 1);
    // By the network: one that votes now, and one that did once.
    for peer in [&new[0], &old[3]] {
        net.ok(&["testnet", "kill", peer.name]);
        wipe(&net, peer.name);
        net.ok(&["testnet", "restart", peer.name]);
        join(&net, peer.name);
        wait_for("it has the log", PATIENCE, || epoch(&peer.api) == 3);
        assert!(peer.api.get("/api/v1/order/status")["first"].as_u64().unwrap() > 10);
        wait_for("and the register", PATIENCE, || register(peer) == expected);
    }
    // By a file.
    let file = net.machine.home().join("log.snapshot").display().to_string();
    net.at(old[0].name, &["order", "snapshot", "create", "-o", &file]);
    net.ok(&["testnet", "kill", old[3].name]);
    wipe(&net, old[3].name);
    net.ok(&["testnet", "restart", old[3].name]);
    net.at(old[3].name, &["order", "snapshot", "restore", &file]);
    assert_eq!(epoch(&old[3].api), 3);

    // What its key signed in this epoch is gone with its disk, so it signs in the next only.
    net.ok(&["testnet", "clock", "6m"]);
    grow(20);
    let signs = || new[0].api.get("/api/v1/order/status")["signs"] == true;
    assert!(!signs(), "it may sign twice");
    let four = [&old[..3], &new[..]].concat();
    change(&net, &four, &four, 4);
    wait_for("it signs", PATIENCE, signs);
    net.ok(&["testnet", "kill", old[1].name]);
    net.at(old[0].name, &["order", "submit", "with its vote", "--timeout", "30s"]);
    net.ok(&["testnet", "restart", old[1].name]);
    change(&net, &all, &old, 5);
    let apis: Vec<Api> = all.iter().map(|peer| peer.api.clone()).collect();
    let farthest = apis.iter().map(Api::height).max().unwrap();
    wait_for("all are as far", PATIENCE, || apis.iter().all(|api| api.height() >= farthest));
    let (_, report) = net.report("60s");
    assert_eq!(check(&report, "order")["pass"], true, "{report:#}");
}
