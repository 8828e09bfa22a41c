//! Overlays of real nodes on loopback: what a user of the handle is promised.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use tokio::sync::mpsc;
use wattle_net::{ConnectError, DhtError, Event, Source, TraceEvent, TraceTarget};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, network, until};
use wattle_types::{Liveness, NetworkName, NodeId, ProviderKey, Record, RecordKey, UnixTime};

fn wall() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap())
}

fn signed(node: &Node, name: &str, sequence: u64, payload: &str) -> Record {
    let expires = wall().after(Duration::from_secs(3600));
    let name = name.parse().unwrap();
    Record::sign(&node.key, &NetworkName::default(), name, sequence, expires, payload.as_bytes()).unwrap()
}

fn key_of(node: &Node, name: &str) -> RecordKey {
    RecordKey::Signed { owner: node.id(), name: name.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_connect_over_quic_and_know_each_other() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.join(&two).await;
    until("both list the other", || async {
        one.peers().await == [two.id()] && two.peers().await == [one.id()]
    })
    .await;
    let pong = one.overlay.ping(two.id(), PATIENCE).await.unwrap();
    assert!(pong.rtt < Duration::from_secs(1));
    assert_eq!(one.overlay.connect(Some(one.id()), Vec::new()).await.unwrap_err(), ConnectError::Myself);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_somebody_says_to_dial_is_dialed_while_another_address_does_not_answer() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let old = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port()).parse().unwrap();
    let waits = tokio::spawn({
        let (overlay, peer) = (one.overlay.clone(), two.id());
        async move { overlay.connect(Some(peer), vec![old]).await }
    });
    // A datagram there: the dial is under way.
    silent.recv_from(&mut [0; 2000]).await.unwrap();
    let dialed = one.overlay.connect(Some(two.id()), two.addresses().await);
    let answer = tokio::time::timeout(Duration::from_secs(2), dialed).await;
    answer.expect("the other dial is not waited for").unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_nodes_store_find_provide_and_trace() {
    let nodes = network(20).await;
    let put = nodes[3].overlay.put(signed(&nodes[3], "greeting", 1, "hello"), PATIENCE).await.unwrap();
    assert!(put.stored_on.len() >= 15, "stored on {} of 20", put.stored_on.len());
    for reader in [0, 5, 10, 15, 19] {
        let found = nodes[reader].overlay.get(key_of(&nodes[3], "greeting"), PATIENCE).await.unwrap();
        assert_eq!(found.record.payload(), b"hello");
    }

    let key = ProviderKey::of_name(&NetworkName::default(), &"printer".parse().unwrap());
    nodes[7].overlay.provide(key, PATIENCE).await.unwrap();
    until("the provider is found", || async {
        nodes[12].overlay.find_providers(key, 1, PATIENCE).await == Ok(vec![nodes[7].id()])
    })
    .await;

    let (steps, mut watch) = mpsc::channel(512);
    let report = nodes[19]
        .overlay
        .trace(TraceTarget::Record(key_of(&nodes[3], "greeting")), PATIENCE, steps)
        .await
        .unwrap();
    assert!(report.queries > 0 && !report.closest.is_empty());
    let mut way = Vec::new();
    while let Some(step) = watch.recv().await {
        if let TraceEvent::Closer { shared_bits, .. } = step {
            way.push(shared_bits);
        }
    }
    assert!(way.is_sorted_by(|before, after| before < after), "shared bits strictly increase: {way:?}");
    assert_eq!(way.last(), report.closest.first().map(|peer| peer.shared_bits).as_ref());

    for dead in 0..5 {
        nodes[dead + 8].overlay.stop().await;
    }
    let found = nodes[1].overlay.get(key_of(&nodes[3], "greeting"), PATIENCE).await.unwrap();
    assert_eq!(found.record.payload(), b"hello");
    let absent = nodes[1].overlay.get(key_of(&nodes[3], "absent"), PATIENCE).await.unwrap_err();
    assert!(matches!(absent, DhtError::NotFound { .. }), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_wins_and_older_ones_are_refused() {
    let nodes = network(6).await;
    nodes[1].overlay.put(signed(&nodes[1], "n", 5, "five"), PATIENCE).await.unwrap();
    nodes[1].overlay.put(signed(&nodes[1], "n", 7, "seven"), PATIENCE).await.unwrap();
    let stale = nodes[1].overlay.put(signed(&nodes[1], "n", 6, "six"), PATIENCE).await.unwrap_err();
    assert_eq!(stale, DhtError::Stale { got: 6, current: 7 });
    for reader in &nodes {
        let found = reader.overlay.get(key_of(&nodes[1], "n"), PATIENCE).await.unwrap();
        assert_eq!(found.record.payload(), b"seven");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_every_matching_subscriber_once() {
    let nodes = network(6).await;
    let pattern = || vec!["sensors.*".parse().unwrap()];
    let mut kitchen = nodes[4].overlay.subscribe(pattern()).await.unwrap();
    let mut other = nodes[5].overlay.subscribe(vec!["sensors.cellar".parse().unwrap()]).await.unwrap();
    let topic: wattle_types::Topic = "sensors.kitchen".parse().unwrap();
    let cellar: wattle_types::Topic = "sensors.cellar".parse().unwrap();
    for (topic, reader) in [(&topic, &mut kitchen), (&cellar, &mut other)] {
        // A mesh takes a heartbeat to form: until then nobody is promised anything.
        let formed = tokio::time::timeout(PATIENCE, async {
            loop {
                nodes[0].overlay.publish(topic.clone(), b"probe".to_vec(), None).await.unwrap();
                if tokio::time::timeout(Duration::from_millis(100), reader.next()).await.is_ok() {
                    return;
                }
            }
        });
        formed.await.expect("the mesh forms");
    }
    nodes[0].overlay.publish(topic.clone(), vec![0, 255, 10], None).await.unwrap();
    nodes[0].overlay.publish(topic.clone(), b"end".to_vec(), None).await.unwrap();
    nodes[0].overlay.publish(cellar, b"cold".to_vec(), None).await.unwrap();
    let mut got = Vec::new();
    while got.last().map(Vec::as_slice) != Some(b"end") {
        let delivery = tokio::time::timeout(PATIENCE, kitchen.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(delivery.from, nodes[0].id());
        if delivery.message.topic == topic {
            got.push(delivery.message.payload.to_vec());
        }
    }
    assert_eq!(got.iter().filter(|payload| **payload == [0, 255, 10]).count(), 1);
    let cold = async {
        while let Some(Ok(delivery)) = other.next().await {
            if delivery.message.payload.as_ref() == b"cold" {
                return;
            }
            assert_eq!(delivery.message.payload.as_ref(), b"probe", "only what its pattern matches");
        }
    };
    tokio::time::timeout(PATIENCE, cold).await.expect("the other pattern gets its message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_through_the_mesh() {
    let nodes = network(4).await;
    let mut requests = nodes[3].overlay.subscribe(vec!["time.now".parse().unwrap()]).await.unwrap();
    let server = nodes[3].clone();
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            if let Some(inbox) = request.message.reply_to {
                server.overlay.publish(inbox, b"noon".to_vec(), None).await.unwrap();
            }
        }
    });
    let topic: wattle_types::Topic = "time.now".parse().unwrap();
    until("the request is answered", || async {
        let answer =
            nodes[1].overlay.request(topic.clone(), b"?".to_vec(), Duration::from_secs(1), None).await;
        answer.is_ok_and(|answer| answer.message.payload.as_ref() == b"noon" && answer.from == nodes[3].id())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_finds_its_peers_in_its_address_book() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.join(&two).await;
    one.overlay.put(signed(&one, "kept", 1, "still here"), PATIENCE).await.unwrap();
    let disk: Disk = one.disk.clone();
    one.overlay.stop().await;
    drop(one);
    let begun = std::time::Instant::now();
    let again = Node::start_on(config(1), disk).await;
    until("the restarted node is back with its peer", || async { again.peers().await == [two.id()] }).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
    let found = again.overlay.get(key_of(&again, "kept"), PATIENCE).await.unwrap();
    assert_eq!(found.record.payload(), b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_another_network_part_with_the_reason() {
    let one = Node::start(1).await;
    let elsewhere = wattle_net::Config { network: "elsewhere".parse().unwrap(), ..config(2) };
    let two = Node::start_on(elsewhere, Disk::default()).await;
    let error = one.overlay.connect(Some(two.id()), two.addresses().await).await.unwrap_err();
    assert!(error.to_string().contains("another network (elsewhere)"), "{error}");
}

/// Who is in a node's routing table.
async fn table(node: &Node) -> Vec<NodeId> {
    let buckets = node.overlay.table().await.unwrap();
    buckets.iter().flat_map(|bucket| bucket.peers.iter().map(|peer| peer.peer)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_leaves_the_routing_table_and_is_not_dialed_until_it_is_heard_of() {
    let (one, two, three) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    one.join(&two).await;
    one.join(&three).await;
    until("both are in the table", || async { table(&one).await.len() == 2 }).await;
    two.overlay.stop().await;
    until("it is gone", || async { one.peers().await == [three.id()] }).await;
    one.overlay.liveness(two.id(), Liveness::Away).await.unwrap();
    assert_eq!(table(&one).await, [three.id()], "no lookup waits for it any more");

    // It runs again, elsewhere and without memory, so that it looks for nobody itself.
    let again = Node::start(2).await;
    let mut events = one.overlay.events();
    let mut is_dialed = async |source: Source, within: Duration| {
        one.overlay.candidate(again.id(), again.addresses().await, source).await.unwrap();
        let connected = async {
            while let Ok(event) = events.recv().await {
                if matches!(event, Event::Connected(info) if info.peer == again.id()) {
                    return;
                }
            }
        };
        tokio::time::timeout(within, connected).await.is_ok()
    };
    assert!(!is_dialed(Source::AddressBook, Duration::from_secs(1)).await, "somebody remembers it");
    assert!(is_dialed(Source::Mdns, PATIENCE).await, "it was heard of itself");
    until("it is in the table again", || async { table(&one).await.contains(&again.id()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_and_answers_stays_whatever_membership_says() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.join(&two).await;
    until("it is in the table", || async { table(&one).await == [two.id()] }).await;
    one.overlay.liveness(two.id(), Liveness::Away).await.unwrap();
    one.overlay.close_unless_it_answers(two.id()).await.unwrap();
    assert_eq!((table(&one).await, one.peers().await), (vec![two.id()], vec![two.id()]));
    two.overlay.stop().await;
    until("it hung up", || async { one.peers().await.is_empty() }).await;
    assert_eq!(table(&one).await, [], "and then it is out of the table");
}
