//! What libp2p does by default, and that wattle does not: one test for each finding of ARCHITECTURE.md that
//! code can show.
//!
//! Elsewhere: records that anybody may overwrite (`poison`), one peer filling the stores (`flood`), identify
//! and js-libp2p (`interop`). Not here yet, and so without a test: AutoNAT, relays, hole punching.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper ends the test like the test itself")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::kad::KBucketKey;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use wattle_net::{Config, ConnectionLimits, DhtMode, Event, Lagged, RequestError, Source, Subscription};
use wattle_tests::hostile::{GossipRpc, Manner, Stranger};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, network, until};
use wattle_tests::records::signed;
use wattle_types::{NodeId, ProviderKey, Topic, TopicMessage, TopicPattern, cbor};

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

async fn follow(nodes: &[Node], pattern: &str) -> Vec<Subscription> {
    let pattern: TopicPattern = pattern.parse().unwrap();
    let mut followers = Vec::new();
    for node in nodes {
        followers.push(node.overlay.subscribe(vec![pattern.clone()]).await.unwrap());
    }
    followers
}

/// Waits until messages of `root` get from each node to every other: over links that both ends know of, since a
/// message sent between a graft and its arrival passes the grafter by.
async fn meshed(nodes: &[Node], root: &str) {
    until("the mesh has formed", || async {
        let mut links = BTreeMap::new();
        for node in nodes {
            let topics = node.overlay.topics().await.unwrap();
            let mesh = topics.into_iter().find(|info| info.root == root).map(|info| info.mesh);
            links.insert(node.id(), mesh.unwrap_or_default());
        }
        let mut reached = BTreeSet::new();
        let mut next = vec![nodes[0].id()];
        while let Some(node) = next.pop() {
            if reached.insert(node) {
                let both = |other: &&NodeId| links.get(*other).is_some_and(|mesh| mesh.contains(&node));
                next.extend(links[&node].iter().filter(both));
            }
        }
        reached.len() == nodes.len()
    })
    .await;
}

/// The payloads that arrive, each with how often, until `enough` different ones were there.
async fn collect(follower: &mut Subscription, enough: usize) -> (BTreeSet<Vec<u8>>, usize) {
    let (mut seen, mut arrived) = (BTreeSet::new(), 0);
    let waited = tokio::time::timeout(PATIENCE, async {
        while seen.len() < enough {
            match follower.next().await {
                Some(Ok(delivery)) => {
                    arrived += 1;
                    seen.insert(delivery.message.payload.into_vec());
                }
                Some(Err(Lagged(lost))) => panic!("{lost} messages lost by a slow reader"),
                None => return,
            }
        }
    });
    drop(waited.await);
    (seen, arrived)
}

/// Finding 1: gossipsub keeps every connection for ever.
#[tokio::test(flavor = "multi_thread")]
async fn connections_stay_below_high_water_and_gossip_still_reaches_everybody() {
    const HIGH: usize = 6;
    let limits = ConnectionLimits {
        low_water: NonZeroUsize::new(4).unwrap(),
        high_water: NonZeroUsize::new(HIGH).unwrap(),
        idle_after: Duration::from_secs(1),
    };
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..12_u32 {
        let friends = nodes.iter().rev().take(3);
        let mut bootstrap = Vec::new();
        for friend in friends {
            bootstrap.extend(friend.addresses().await);
        }
        let config = Config { connections: limits, bootstrap, ..config(number) };
        nodes.push(Node::start_on(config, Disk::default()).await);
    }
    let mut followers = follow(&nodes, "news.>").await;
    for node in &nodes {
        until("the node has peers", || async { !node.peers().await.is_empty() }).await;
    }
    meshed(&nodes, "news").await;
    // Lookups dial whom they meet: without trimming everybody ends up connected to everybody.
    for node in &nodes {
        // Ignored because some dials of a lookup are refused by full nodes, and only the dials matter here.
        drop(node.overlay.put(signed(&node.key, "home", 1, "x"), Duration::from_secs(2)).await);
        for node in &nodes {
            let peers = node.peers().await.len();
            assert!(peers <= HIGH, "{peers} connections");
        }
    }
    until("a message reaches all twelve", || async {
        nodes[0].overlay.publish(topic("news.today"), b"hello".to_vec(), None).await.is_ok()
            && all_have(&nodes, "news").await
    })
    .await;
    for follower in &mut followers {
        assert!(!collect(follower, 1).await.0.is_empty());
    }
}

/// Finding 1, where there are more neighbours than connections: everybody hears of everybody again and again.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_who_are_too_many_do_not_dial_each_other_for_ever() {
    const NODES: u32 = 16;
    // So many looks in a row open nothing: everybody is told of everybody twice, and dials nobody.
    const QUIET: usize = 32;
    let limits = ConnectionLimits {
        low_water: NonZeroUsize::new(4).unwrap(),
        high_water: NonZeroUsize::new(10).unwrap(),
        idle_after: Duration::from_secs(1),
    };
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let config = Config { connections: limits, ..config(number) };
        nodes.push(Node::start_on(config, Disk::default()).await);
    }
    let mut all = Vec::new();
    for node in &nodes {
        all.push((node.id(), node.addresses().await));
    }
    let mut events: Vec<_> = nodes.iter().map(|node| node.overlay.events()).collect();
    // One of a look of each, and how many connections that came to.
    let mut look = async |turn: usize| {
        for (place, node) in nodes.iter().enumerate() {
            let (peer, addresses) = all[(place + turn) % all.len()].clone();
            node.overlay.candidate(peer, addresses, Source::SameMachine).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut connected = 0;
        for events in &mut events {
            while let Ok(event) = events.try_recv() {
                connected += usize::from(matches!(event, Event::Connected(_)));
            }
        }
        connected
    };
    let mut opened = Vec::new();
    while opened.len() < QUIET || opened[opened.len() - QUIET..].iter().any(|opened| *opened > 0) {
        assert!(opened.len() < 300, "connections are opened for ever: {opened:?}");
        opened.push(look(opened.len()).await);
    }
    for node in &nodes {
        assert!(node.peers().await.len() >= 3, "and everybody has some");
    }
}

/// Finding 1, from the other side: who keeps everybody has no room for who comes next.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_lets_an_idle_stranger_go_for_a_newcomer() {
    const HIGH: usize = 12;
    let limits = ConnectionLimits {
        low_water: NonZeroUsize::new(10).unwrap(),
        high_water: NonZeroUsize::new(HIGH).unwrap(),
        idle_after: Duration::from_millis(1),
    };
    let full = Node::start_on(Config { connections: limits, ..config(1) }, Disk::default()).await;
    let mut strangers = Vec::new();
    for number in 0..u32::try_from(HIGH).unwrap() {
        let stranger = Stranger::start(Manner::plausible(100 + number));
        stranger.join(&full).await;
        strangers.push(stranger);
    }
    let newcomer = Node::start(2).await;
    newcomer.join(&full).await;
    until("the newcomer took a stranger's place", || async {
        let peers = full.peers().await;
        peers.len() <= HIGH && peers.contains(&newcomer.id())
    })
    .await;
}

async fn all_have(nodes: &[Node], root: &str) -> bool {
    for node in nodes.iter().skip(1) {
        let topics = node.overlay.topics().await.unwrap();
        if !topics.iter().any(|info| info.root == root && info.received > 0) {
            return false;
        }
    }
    true
}

/// Finding 3: libp2p's automatic mode takes any external address, a relay's too, for reachability.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_nobody_on_the_internet_can_dial_asks_the_dht_and_does_not_serve_it() {
    let somewhere: wattle_net::Address = "/ip4/203.0.113.7/tcp/7710".parse().unwrap();
    let bootstrapped = |number| Config { bootstrap: vec![somewhere.clone()], ..config(number) };
    let serves = |config: Config| async {
        let node = Node::start_on(config, Disk::default()).await;
        let serves = node.overlay.status().await.unwrap().dht_server;
        node.overlay.stop().await;
        serves
    };
    assert!(!serves(bootstrapped(1)).await, "behind a router");
    assert!(serves(Config { external: vec![somewhere.clone()], ..bootstrapped(2) }).await, "port forwarded");
    assert!(serves(config(3)).await, "a local overlay");
    assert!(!serves(Config { dht_mode: DhtMode::Client, ..config(4) }).await, "told so");

    // And what it says of itself is what others go by: a client is in nobody's table.
    let server = Node::start(5).await;
    let client = Config { dht_mode: DhtMode::Client, ..config(6) };
    let client = Node::start_on(client, Disk::default()).await;
    client.join(&server).await;
    until("the client knows the server", || async { client.overlay.status().await.unwrap().table_size == 1 })
        .await;
    until("both see each other", || async { server.peers().await == [client.id()] }).await;
    assert_eq!(server.overlay.status().await.unwrap().table_size, 0);
}

/// Finding 5: gossipsub resets streams whose control data is over 16 KiB, which its own sender produces.
#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_of_a_thousand_messages_resets_no_stream() {
    let node = Node::start(1).await;
    let mut follower = follow(std::slice::from_ref(&node), "news.>").await.remove(0);
    let stranger = Stranger::start(Manner::plausible(100));
    stranger.join(&node).await;
    let mut line = stranger.gossip(&node).await;
    let mesh = "/wattle/topics/1/news";
    // Ids as other programs write them: author and sequence, 72 bytes; 72 KiB in all.
    let ids = (0..1000_u32).map(|id| [&[7; 68], id.to_be_bytes().as_slice()].concat()).collect();
    line.tell(&GossipRpc::ihave(mesh, ids)).await.unwrap();
    let message = TopicMessage {
        topic: topic("news.today"),
        payload: b"still here".to_vec().into(),
        reply_to: None,
        trace: None,
    };
    let message = stranger.gossip_message(mesh, 1, cbor::encode(&message));
    line.tell(&GossipRpc::publish(message)).await.unwrap();
    let (seen, arrived) = collect(&mut follower, 1).await;
    assert_eq!((seen, arrived), (BTreeSet::from([b"still here".to_vec()]), 1));
}

/// Finding 5 again, from inside: many small messages a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_fifty_messages_a_second_all_arrive_once_and_no_connection_is_lost() {
    const MESSAGES: usize = 300;
    let nodes = network(8).await;
    for node in &nodes {
        // Everybody knows everybody, and no dial is under way whose duplicate would be closed later.
        until("the overlay has settled", || async {
            node.peers().await.len() == 7 && open_connections(&node.overlay.metrics().await.unwrap()) == 7
        })
        .await;
    }
    let mut followers = follow(&nodes, "load.>").await;
    meshed(&nodes, "load").await;
    let mut events: Vec<_> = nodes.iter().map(|node| node.overlay.events()).collect();
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / 150));
    let publish = async {
        for number in 0..MESSAGES {
            pace.tick().await;
            let mut payload = vec![0; 256];
            payload[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
            let publisher = &nodes[number % nodes.len()];
            publisher.overlay.publish(topic("load.test"), payload, None).await.unwrap();
        }
    };
    let everybody = followers.iter_mut().map(|follower| collect(follower, MESSAGES));
    let ((), collected) = tokio::join!(publish, futures::future::join_all(everybody));
    for (node, (seen, arrived)) in nodes.iter().zip(collected) {
        assert_eq!((seen.len(), arrived), (MESSAGES, MESSAGES), "at {:?}", node.id());
    }
    for events in &mut events {
        loop {
            match events.try_recv() {
                Ok(Event::Disconnected { peer, reason }) => panic!("{peer:?} was lost: {reason}"),
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Finding 6: gossip gives nothing to who comes late. wattle's topics promise just that, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_topic_late_gets_what_comes_then_and_nothing_from_before() {
    let nodes = network(3).await;
    let mut early = follow(&nodes[..2], "news.>").await;
    meshed(&nodes[..2], "news").await;
    nodes[0].overlay.publish(topic("news.today"), b"early".to_vec(), None).await.unwrap();
    assert_eq!(collect(&mut early[1], 1).await.0, BTreeSet::from([b"early".to_vec()]));
    let mut late = follow(&nodes[2..], "news.>").await;
    meshed(&nodes, "news").await;
    nodes[0].overlay.publish(topic("news.today"), b"late".to_vec(), None).await.unwrap();
    assert_eq!(collect(&mut late[0], 1).await.0, BTreeSet::from([b"late".to_vec()]));
}

/// Waits until the last connection to a peer is closed, and not only no longer listed.
async fn parted(events: &mut Receiver<Event>, peer: NodeId) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !matches!(events.recv().await, Ok(Event::Disconnected { peer: who, .. }) if who == peer) {}
    });
    waited.await.unwrap();
}

/// Finding 1, once more: with a bound on connections, those who follow a rare topic need not be neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_rare_topic_is_found_by_publishers_and_other_followers_that_it_has_no_connection_to() {
    let nodes = network(26).await;
    let (first, others) = nodes.split_first().unwrap();
    let (publisher, other) = (&others[0], &others[1]);
    // A topic that the follower is not itself asked about: a lookup connects to everybody that it asks.
    let far = |topic: &Topic| {
        let key = KBucketKey::new(
            ProviderKey::of_topic(first.overlay.network(), &topic.root()).as_bytes().to_vec(),
        );
        let distance = |node: &Node| key.distance(&KBucketKey::new(node.id().to_peer_id_bytes().to_vec()));
        others[2..].iter().filter(|node| distance(node) < distance(first)).count() >= 20
    };
    let rare = (0..1000).map(|number| topic(&format!("rare{number}.word"))).find(far).unwrap();
    let pattern = format!("{}.>", rare.root().as_str());

    let mut follower = follow(&nodes[..1], &pattern).await;
    until("the follower is announced", || async {
        let mut holders = 0;
        for node in others {
            holders += usize::from(node.overlay.dht_stats().await.unwrap().providers_held > 0);
        }
        holders >= 15
    })
    .await;
    for stranger in [publisher, other] {
        let (mut here, mut there) = (stranger.overlay.events(), first.overlay.events());
        if stranger.overlay.disconnect(first.id()).await.unwrap() {
            parted(&mut here, first.id()).await;
            parted(&mut there, stranger.id()).await;
        }
    }
    let published = publisher.overlay.publish(rare.clone(), b"hello".to_vec(), None).await.unwrap();
    assert_eq!(published.mesh_peers, 1);
    assert_eq!(collect(&mut follower[0], 1).await.0, BTreeSet::from([b"hello".to_vec()]));

    let _also = follow(std::slice::from_ref(other), &pattern).await;
    until("both followers are in one mesh", || async {
        let topics = other.overlay.topics().await.unwrap();
        topics.iter().any(|info| info.mesh.contains(&first.id()))
    })
    .await;
}

/// Finding 7: score defaults silence quiet topics, and testnets on one address.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_topic_among_twelve_nodes_on_one_address_is_still_carried_after_many_heartbeats() {
    let nodes = network(12).await;
    let mut followers = follow(&nodes, "quiet.>").await;
    meshed(&nodes, "quiet").await;
    // Twelve heartbeats with nothing to say. This is the time in question, not a wait for luck: scores are
    // counted per heartbeat.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (number, node) in nodes.iter().enumerate() {
        let payload = vec![u8::try_from(number).unwrap()];
        node.overlay.publish(topic("quiet.word"), payload, None).await.unwrap();
    }
    for follower in &mut followers {
        assert_eq!(collect(follower, nodes.len()).await, ((0..12).map(|n| vec![n]).collect(), 12));
    }
}

/// Finding 8: dialing every address of a peer, from both sides, leaves up to four connections.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_dial_each_other_at_once_on_every_transport_end_with_one_connection() {
    let nodes = [Node::start(1).await, Node::start(2).await, Node::start(3).await, Node::start(4).await];
    let mut dials = Vec::new();
    for one in &nodes {
        for other in nodes.iter().filter(|other| other.id() != one.id()) {
            for address in other.addresses().await {
                let (overlay, peer) = (one.overlay.clone(), other.id());
                dials.push(async move { overlay.connect(Some(peer), vec![address]).await });
            }
        }
    }
    assert_eq!(dials.len(), 24, "two transports, twelve directions");
    futures::future::join_all(dials).await;
    for node in &nodes {
        until("everybody is connected to everybody", || async { node.peers().await.len() == 3 }).await;
        until("one connection each", || async {
            let metrics = node.overlay.metrics().await.unwrap();
            open_connections(&metrics) == 3
        })
        .await;
    }
    for node in &nodes {
        assert_eq!(node.peers().await.len(), 3, "and none was lost over it");
    }
}

/// Connections opened less those closed, from the node's own metrics.
fn open_connections(metrics: &str) -> i64 {
    let sum = |name: &str| -> i64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    };
    sum("libp2p_swarm_connections_established_total") + sum("swarm_connections_established_total")
        - sum("libp2p_swarm_connections_duration_seconds_count")
        - sum("swarm_connections_duration_seconds_count")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_waits_for_an_answer_is_not_announced_as_a_follower() {
    let nodes = network(3).await;
    let asked =
        nodes[0].overlay.request(topic("ask.anybody"), b"hello".to_vec(), Duration::from_secs(3), None);
    assert!(matches!(asked.await, Err(RequestError::Timeout { listeners: 0, .. })));
    for node in &nodes {
        assert_eq!(node.overlay.dht_stats().await.unwrap().providers_held, 0);
    }
}
