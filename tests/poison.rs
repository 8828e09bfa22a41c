//! Attacks on the DHT's records: what a stranger writes, replays or answers changes nothing that honest nodes
//! read.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::time::Duration;

use wattle_net::{Config, DhtError, DhtMode, Misbehaviour, TraceTarget};
use wattle_tests::hostile::{KadMessage, Manner, Stranger};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, key, network, until};
use wattle_tests::records::{key_bytes, key_of, reported, signed, signed_until, wall};
use wattle_types::{ContentHash, NetworkName, NodeId, ProviderKey, Record, RecordKey, RejectedRecord};

const NODES: u32 = 8;
const READS: usize = 200;

/// Every lie of the catalogue about one record, each with what a node says of it; `None` where it may be an
/// honest mistake.
fn lies(victim: &Node, liar: &Stranger) -> Vec<(Vec<u8>, Vec<u8>, Option<&'static str>)> {
    let at = key_bytes(victim.id(), "home");
    let by_victim = |sequence, payload| signed(&victim.key, "home", sequence, payload).value().to_vec();
    let mut damaged = by_victim(9, "evil");
    *damaged.last_mut().unwrap() ^= 1;
    let expired = signed_until(&victim.key, "home", 9, "evil", wall_before(Duration::from_secs(3600)));
    let later = wall().after(Duration::from_secs(72 * 3600));
    let immortal = signed_until(&victim.key, "home", 9, "evil", later);
    let content = RecordKey::Hash(ContentHash::of(b"good")).to_bytes(&NetworkName::default());
    let mine = signed(&liar.key, "home", 9, "evil");
    let foreign = NetworkName::default();
    let foreign = RecordKey::Hash(ContentHash::of(b"evil")).to_path(&foreign).replacen("wattle", "ipns", 1);
    vec![
        (at.clone(), damaged, Some("the signature does not verify")),
        (at.clone(), mine.value().to_vec(), Some("signed by")),
        (key_bytes(victim.id(), "other"), by_victim(9, "evil"), Some("signed for another key")),
        (at.clone(), by_victim(4, "evil"), None),
        (at.clone(), by_victim(5, "evil"), Some("the same sequence number")),
        (at.clone(), vec![0xa3; 20_000], Some("20000 bytes are more than")),
        (at.clone(), expired.value().to_vec(), Some("expired")),
        (at.clone(), immortal.value().to_vec(), Some("more than the 48 h")),
        (at, b"not CBOR at all".to_vec(), Some("malformed")),
        (content, b"evil".to_vec(), Some("does not hash to its key")),
        (foreign.into_bytes(), b"evil".to_vec(), Some("another network")),
        (vec![0xff; 300], b"evil".to_vec(), Some("a record key is")),
    ]
}

fn wall_before(span: Duration) -> wattle_types::UnixTime {
    wattle_types::UnixTime::from_millis(wall().as_millis() - u64::try_from(span.as_millis()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_liar_writes_changes_nothing_that_is_read() {
    let nodes = network(NODES).await;
    for node in &nodes {
        let put = node.overlay.put(signed(&node.key, "home", 5, &node.id().short()), PATIENCE).await.unwrap();
        assert_eq!(put.stored_on.len(), nodes.len() - 1, "everybody else is near: {put:?}");
    }
    let good = Record::content(b"good".to_vec()).unwrap();
    nodes[0].overlay.put(good, PATIENCE).await.unwrap();

    let liar = Stranger::start(Manner::plausible(100));
    for node in &nodes {
        liar.join(node).await;
        let mut events = node.overlay.events();
        let mut line = liar.kad(node).await;
        for (key, value, why) in lies(&nodes[0], &liar) {
            line.ask(&KadMessage::put(&key, &value, 0)).await.unwrap();
            let Some(why) = why else { continue };
            let Misbehaviour::BadRecord(said) = reported(&mut events, liar.id()).await else {
                panic!("a bad record is called one")
            };
            assert!(said.contains(why), "{said} does not say {why}");
        }
    }

    for read in 0..READS {
        let (reader, owner) = (&nodes[read % nodes.len()], &nodes[read % 7]);
        let found = reader.overlay.get(key_of(owner.id(), "home"), PATIENCE).await.unwrap();
        assert_eq!(
            (found.record.payload(), found.record.sequence()),
            (owner.id().short().as_bytes(), Some(5))
        );
        assert_eq!(found.rejected, [], "nobody stored a lie");
    }
    let content = RecordKey::Hash(ContentHash::of(b"good"));
    assert_eq!(nodes[7].overlay.get(content, PATIENCE).await.unwrap().record.payload(), b"good");
    let other = nodes[7].overlay.get(key_of(nodes[0].id(), "other"), PATIENCE).await.unwrap_err();
    assert!(matches!(other, DhtError::NotFound { .. }), "{other}");

    nodes[0].overlay.put(signed(&nodes[0].key, "home", 6, "moved"), PATIENCE).await.unwrap();
    let found = nodes[5].overlay.get(key_of(nodes[0].id(), "home"), PATIENCE).await.unwrap();
    assert_eq!(found.record.payload(), b"moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_stores_a_record_again_does_not_shorten_its_life() {
    let nodes = network(4).await;
    let record = signed(&nodes[1].key, "home", 1, "mine");
    let content = Record::content(b"anybody's".to_vec()).unwrap();
    nodes[1].overlay.put(record.clone(), PATIENCE).await.unwrap();
    nodes[1].overlay.put(content.clone(), PATIENCE).await.unwrap();
    let stranger = Stranger::start(Manner::plausible(100));
    for node in &nodes {
        stranger.join(node).await;
        let mut line = stranger.kad(node).await;
        for record in [&record, &content] {
            let key = record.key_bytes(&NetworkName::default());
            line.ask(&KadMessage::put(&key, record.value(), 60)).await.unwrap();
            let held = line.ask(&KadMessage::get(&key)).await.unwrap().record;
            let left = held.unwrap_or_else(|| panic!("{:?} gave it up", node.id())).ttl_seconds;
            // 0: as long as the record itself says.
            assert!(left == 0 || left > 3000, "{:?} keeps it for {left} s", node.id());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lies_is_found_out_and_named() {
    let nodes = network(NODES).await;
    let owner = &nodes[2];
    let put = |sequence| {
        let payload = if sequence == 8 { "new" } else { "old" };
        owner.overlay.put(signed(&owner.key, "home", sequence, payload), PATIENCE)
    };
    let at = key_bytes(owner.id(), "home");
    let old = signed(&owner.key, "home", 7, "old");
    let (forger, miser) = (Stranger::start(Manner::plausible(100)), Stranger::start(Manner::plausible(101)));
    let forged = signed(&forger.key, "home", 99, "evil");
    forger.hold(at.clone(), forged.value().to_vec()).await;
    miser.hold(at, old.value().to_vec()).await;
    for node in &nodes {
        forger.join(node).await;
        miser.join(node).await;
    }
    put(8).await.unwrap();

    until("both liars are asked", || async {
        let found = nodes[7].overlay.get(key_of(owner.id(), "home"), PATIENCE).await.unwrap();
        let forger_named = found.rejected.iter().any(|answer| answer.peer == Some(forger.id()));
        let miser_named = found.answers.iter().any(|answer| answer.peer == miser.id());
        forger_named && miser_named
    })
    .await;
    for reader in &nodes {
        let found = reader.overlay.get(key_of(owner.id(), "home"), PATIENCE).await.unwrap();
        assert_eq!(found.record.payload(), b"new");
        for refused in &found.rejected {
            let why = RejectedRecord::WrongOwner { signer: forger.id(), owner: owner.id() };
            assert_eq!((refused.peer, &refused.why), (Some(forger.id()), &why));
        }
        for answer in found.answers.iter().filter(|answer| answer.peer == miser.id()) {
            assert_eq!((answer.sequence, answer.current), (Some(7), false));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_peer_that_lost_the_offer_gets_another() {
    let nodes = network(4).await;
    let scatterbrain = Stranger::start(Manner { forgets: 1, ..Manner::plausible(100) });
    let hopeless = Stranger::start(Manner::plausible(101));
    for node in &nodes {
        scatterbrain.join(node).await;
        hopeless.join(node).await;
    }
    until("both are asked", || async {
        let closest = nodes[0].overlay.closest(TraceTarget::Record(key_of(nodes[0].id(), "home")), PATIENCE);
        let closest: Vec<NodeId> = closest.await.unwrap().iter().map(|peer| peer.peer).collect();
        closest.contains(&scatterbrain.id()) && closest.contains(&hopeless.id())
    })
    .await;
    let record = signed(&nodes[0].key, "home", 1, "here");
    let report = nodes[0].overlay.put(record, PATIENCE).await.unwrap();
    assert!(report.stored_on.contains(&scatterbrain.id()), "{report:?}");
    assert!(!report.stored_on.contains(&hopeless.id()), "{report:?}");
    assert_eq!((report.stored_on.len(), report.offered_to), (4, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hung_up_under_a_question_is_asked_again() {
    let nodes = network(4).await;
    let asker = &nodes[0].overlay;
    let hasty = [100, 101].map(|number| Stranger::start(Manner { hangs_up: 1, ..Manner::plausible(number) }));
    for stranger in &hasty {
        for node in &nodes {
            stranger.join(node).await;
        }
    }
    let part = async |stranger: &Stranger| {
        asker.disconnect(stranger.id()).await.unwrap();
        let away = || async { !nodes[0].peers().await.contains(&stranger.id()) };
        until("they have parted", away).await;
    };
    // The first that calls finds it hanging up.
    part(&hasty[0]).await;
    let found = asker.closest(TraceTarget::Peer(hasty[0].id()), PATIENCE).await.unwrap();
    assert_eq!(found[0].peer, hasty[0].id(), "the nearest: {found:?}");
    assert_eq!(found.len(), 5, "and nobody twice: {found:?}");
    part(&hasty[1]).await;
    let found = asker.find_peer(hasty[1].id(), PATIENCE).await;
    assert!(found.as_ref().is_ok_and(|addresses| !addresses.is_empty()), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_nobody_took_says_so() {
    let node = Node::start(1).await;
    let ahead = Stranger::start(Manner::plausible(100));
    ahead.join(&node).await;
    ahead.hold(key_bytes(node.id(), "home"), signed(&node.key, "home", 9, "newer").value().to_vec()).await;
    let put = node.overlay.put(signed(&node.key, "home", 8, "older"), PATIENCE).await;
    assert_eq!(put.unwrap_err(), DhtError::NotStored { asked: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_the_dht_is_found_as_a_provider_all_the_same() {
    let nodes = network(4).await;
    // Two of them: whoever serves the DHT holds the announcement itself here.
    let mut clients = Vec::new();
    for number in [8, 9] {
        let client = Config { dht_mode: DhtMode::Client, ..config(number) };
        let client = Node::start_on(client, Disk::default()).await;
        client.join(&nodes[0]).await;
        clients.push(client);
    }
    let key = ProviderKey::of_name(&NetworkName::default(), &"printer".parse().unwrap());
    clients[0].overlay.provide(key, PATIENCE).await.unwrap();
    until("one client finds the other", || async {
        clients[1].overlay.find_providers(key, 1, PATIENCE).await == Ok(vec![clients[0].id()])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_record_names_nobody_but_its_sender() {
    let nodes = network(4).await;
    let stranger = Stranger::start(Manner::plausible(100));
    let key = ProviderKey::of_name(&NetworkName::default(), &"printer".parse().unwrap());
    for node in &nodes {
        stranger.join(node).await;
        let mut line = stranger.kad(node).await;
        let innocent = [nodes[1].id(), key_of_nobody()].map(|id| KadMessage::provide(key.as_bytes(), id));
        line.flood(innocent.into_iter()).await.unwrap();
        assert_eq!(node.overlay.dht_stats().await.unwrap().providers_held, 0);
    }
    let found = nodes[2].overlay.find_providers(key, 1, PATIENCE).await.unwrap_err();
    assert!(matches!(found, DhtError::NotFound { .. }), "{found}");
}

fn key_of_nobody() -> NodeId {
    key(4711).node_id()
}
