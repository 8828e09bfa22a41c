//! A validator that was away for long, and what it costs the others that it comes back (A11).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wattle_store::{Owner, Store};
use wattle_tests::local::{Api, agreed, size};
use wattle_types::{KeyRange, Table, Write};

use super::*;

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Who submits at once.
const WRITERS: usize = 16;

/// Changes the leader's signature in every block that a node which is down would tell, up to a height.
fn spoil_blocks(net: &Net, name: &str, upto: u64) -> usize {
    let data = net.directory().join("data/nodes").join(name);
    let mut opened = None;
    wait_for("its disk is free", PATIENCE, || {
        opened = Store::open(&data, Owner::this_process("test")).ok();
        opened.is_some()
    });
    let store = opened.unwrap();
    let range = KeyRange::between(&[], &upto.to_be_bytes());
    let rows = store.range(Table::OrderBlocks, &range, usize::MAX).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut spoiled = 0;
    for (key, mut value) in rows {
        *value.last_mut().unwrap() ^= 1;
        let write = Write::Put { table: Table::OrderBlocks, key, value };
        runtime.block_on(store.commit(vec![write])).unwrap();
        spoiled += 1;
    }
    spoiled
}

/// What alice's log says of whoever broke a rule.
fn blamed_by_alice(net: &Net) -> Vec<String> {
    let log =
        std::fs::read_to_string(net.directory().join("state/nodes/alice/wattle.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("broke a rule of the log")).map(str::to_owned).collect()
}

/// The writers end with the test, also when it fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `WATTLE_AWAY_BLOCKS` blocks.
#[test]
fn who_was_away_for_long_is_soon_as_far_as_the_others_though_one_of_them_lies() {
    let blocks = size("WATTLE_AWAY_BLOCKS", 300) as u64;
    let net = Net::up(&["4", "--validators", "4"]);
    let apis: Vec<Api> =
        NAMES.iter().map(|name| Api::at(net.directory().join(format!("run/{name}/api.sock")))).collect();
    let status = |api: &Api| api.get("/api/v1/order/status");
    let height = |api: &Api| {
        let answer = api.ask("GET /api/v1/order/status", &Value::Null);
        answer.map_or(0, |(_, it)| it["height"].as_u64().unwrap_or(0))
    };
    let dave = status(&apis[3])["validators"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["myself"] == true)
        .unwrap()["id"]
        .clone();
    net.ok(&["testnet", "kill", "0"]);
    let (number, over, ordered) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ending = Ending(&over);
        for writer in 0..WRITERS {
            let (api, number, over, ordered) = (&apis[1 + writer % 2], &number, &over, &ordered);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let text = format!("{:0>1000}", number.fetch_add(1, Ordering::Relaxed));
                    if let Some((200, _)) = api.submit(&text) {
                        ordered.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let rate = |span: Duration| {
            let before = ordered.load(Ordering::Relaxed);
            std::thread::sleep(span);
            (ordered.load(Ordering::Relaxed) - before) as f64 / span.as_secs_f64()
        };
        wait_for("there is much that alice does not have", 20 * PATIENCE, || height(&apis[1]) > blocks);
        // What is two minutes old a node takes from its disk as it is.
        net.ok(&["testnet", "clock", "3m"]);
        let now = height(&apis[1]);
        wait_for("blocks of now", PATIENCE, || height(&apis[1]) > now + 5);
        net.ok(&["testnet", "kill", "3"]);
        assert!(spoil_blocks(&net, "dave", blocks - 100) > 100);
        net.ok(&["testnet", "restart", "3"]);
        wait_for("dave votes again", PATIENCE, || height(&apis[3]) + 5 > height(&apis[1]));
        let flow = ordered.load(Ordering::Relaxed);
        wait_for("entries flow", PATIENCE, || ordered.load(Ordering::Relaxed) > flow + 50);
        let before = rate(Duration::from_secs(2));
        // She hears of it from dave alone first, so that he is asked at all.
        net.ok(&["testnet", "partition", "0,3", "1,2"]);
        net.ok(&["testnet", "restart", "0"]);
        wait_for("alice found out that dave lies", PATIENCE, || !blamed_by_alice(&net).is_empty());
        net.ok(&["testnet", "heal"]);
        let (begun, had, goal) = (Instant::now(), height(&apis[0]), height(&apis[1]));
        wait_for("alice has the log", 4 * PATIENCE, || height(&apis[0]) >= goal);
        let took = begun.elapsed();
        let after = rate(Duration::from_secs(2));
        println!(
            "{} blocks in {took:?}: {:.0}/s; entries {before:.0}/s before and {after:.0}/s after",
            goal - had,
            (goal - had) as f64 / took.as_secs_f64()
        );
    });
    agreed(&apis, PATIENCE);
    let (blamed, dave) = (blamed_by_alice(&net), dave.as_str().unwrap());
    assert!(blamed.iter().all(|line| line.contains(dave)), "{blamed:?}");
    let (_, report) = net.report("60s");
    assert_eq!(check(&report, "order")["pass"], true, "{report:#}");
}
