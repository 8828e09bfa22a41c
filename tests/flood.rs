//! A flood: one stranger asks for everything to be stored. Alone in its file, because it measures this
//! process's memory.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::time::Duration;

use wattle_net::Misbehaviour;
use wattle_tests::hostile::{KadMessage, Manner, Stranger, resident_bytes};
use wattle_tests::overlay::{Node, PATIENCE, network};
use wattle_tests::records::{key_bytes, key_of, reported, signed};
use wattle_types::{ContentHash, NetworkName, ProviderKey};

const NODES: u32 = 6;
const PROVIDER_KEYS: u32 = 10_000;
const PUTS: u32 = 1_000;
const READS: usize = 200;
const GROWTH_BYTES_MAX: u64 = 20 << 20;

fn provider_keys(count: u32, salt: u32, stranger: &Stranger) -> impl Iterator<Item = KadMessage> {
    let id = stranger.id();
    (0..count).map(move |number| {
        let hash = ContentHash::of(&[number.to_be_bytes(), salt.to_be_bytes()].concat());
        KadMessage::provide(ProviderKey::of_content(&hash).as_bytes(), id)
    })
}

fn puts(count: u32, stranger: &Stranger) -> impl Iterator<Item = KadMessage> {
    (0..count).map(move |number| {
        let name = format!("n{number}");
        let record = signed(&stranger.key, &name, 1, &"x".repeat(4000));
        KadMessage::put(&key_bytes(stranger.id(), &name), record.value(), 0)
    })
}

async fn read(nodes: &[Node], count: usize) {
    for round in 0..count {
        let (reader, owner) = (&nodes[round % nodes.len()], &nodes[round % 5]);
        let found = reader.overlay.get(key_of(owner.id(), "home"), PATIENCE).await.unwrap();
        assert_eq!(found.record.payload(), owner.id().short().as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_fills_neither_the_stores_nor_the_memory_and_nobody_else_pays() {
    let nodes = network(NODES).await;
    for node in &nodes {
        node.overlay.put(signed(&node.key, "home", 1, &node.id().short()), PATIENCE).await.unwrap();
    }
    // Warm up: every path of the flood, in small, by somebody else.
    let (calm, flooder) = (Stranger::start(Manner::plausible(100)), Stranger::start(Manner::plausible(101)));
    let victim = &nodes[0];
    for stranger in [&calm, &flooder] {
        stranger.join(victim).await;
    }
    calm.kad(victim).await.flood(provider_keys(100, 0, &calm)).await.unwrap();
    let mut line = calm.kad(victim).await;
    for put in puts(20, &calm) {
        line.ask(&put).await.unwrap();
    }
    read(&nodes, 20).await;
    let before = resident_bytes();

    let mut events = victim.overlay.events();
    let flood = async {
        flooder.kad(victim).await.flood(provider_keys(PROVIDER_KEYS, 1, &flooder)).await.unwrap();
        let said = reported(&mut events, flooder.id()).await;
        assert!(matches!(said, Misbehaviour::OverQuota(_)), "{said}");
        let mut line = flooder.kad(victim).await;
        for put in puts(PUTS, &flooder) {
            line.ask(&put).await.unwrap();
        }
    };
    tokio::join!(flood, read(&nodes, READS));
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{} KiB more than before", grown >> 10);

    let stats = victim.overlay.dht_stats().await.unwrap();
    assert!(stats.providers_held <= 100 + 256, "{} provider records", stats.providers_held);
    assert!(stats.records_held <= 30 + 512, "{} records", stats.records_held);
    let moved = signed(&nodes[3].key, "home", 2, "moved");
    let put = nodes[3].overlay.put(moved, PATIENCE).await.unwrap();
    assert!(put.stored_on.contains(&victim.id()), "the flooded node still stores for others");
    let key = ProviderKey::of_name(&NetworkName::default(), &"printer".parse().unwrap());
    let held = victim.overlay.dht_stats().await.unwrap().providers_held;
    nodes[4].overlay.provide(key, PATIENCE).await.unwrap();
    wattle_tests::overlay::until("the flooded node still takes provider records", || async {
        victim.overlay.dht_stats().await.unwrap().providers_held == held + 1
    })
    .await;
    let found = nodes[5].overlay.find_providers(key, 1, PATIENCE).await.unwrap();
    assert_eq!(found, [nodes[4].id()]);
    let pong = nodes[1].overlay.ping(victim.id(), PATIENCE).await.unwrap();
    println!("{} KiB more than before; ping {:?}", grown >> 10, pong.rtt);
    assert!(pong.rtt < Duration::from_secs(1));
}
