//! Who gets in, who is kept out, and what a guest cannot break.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wattle_net::{
    Config, ConnectError, DisconnectReason, Event, Misbehaviour, Overlay, Restored, StartError, TraceTarget,
};
use wattle_tests::hostile::{GossipMessage, GossipRpc, KadMessage, Manner, Stranger};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, key, until};
use wattle_tests::records::reported;
use wattle_types::limits::TOPIC_PAYLOAD_BYTES_MAX;
use wattle_types::{NetworkKey, NodeId, Topic, TopicMessage, cbor};

/// As long as somebody who is thrown out may linger.
const AT_ONCE: Duration = Duration::from_secs(1);

fn private(number: u32, key: u8) -> Config {
    let tcp = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    Config { network_key: Some(NetworkKey::from_bytes([key; 32])), listen: tcp, ..config(number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_of_a_private_network_gets_in_and_nobody_else_is_even_asked_who_it_is() {
    let one = Node::start_on(private(1, 7), Disk::default()).await;
    let two = Node::start_on(private(2, 7), Disk::default()).await;
    two.join(&one).await;
    until("both see each other", || async { one.peers().await == [two.id()] }).await;

    let mut events = one.overlay.events();
    let other_key = Node::start_on(private(3, 8), Disk::default()).await;
    let no_key = Node::start(4).await;
    // At the same time, because each takes the ten seconds after which a handshake is given up.
    let (at_one, at_other, at_none) =
        (one.addresses().await, tcp_of(&other_key).await, tcp_of(&no_key).await);
    let refused = futures::future::join_all([
        other_key.overlay.connect(Some(one.id()), at_one.clone()),
        no_key.overlay.connect(Some(one.id()), at_one),
        one.overlay.connect(Some(other_key.id()), at_other),
        one.overlay.connect(Some(no_key.id()), at_none),
    ]);
    for refused in refused.await {
        assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    }
    assert_eq!((other_key.peers().await, no_key.peers().await), (Vec::new(), Vec::new()));
    assert_eq!(one.peers().await, [two.id()]);
    let connected = std::iter::from_fn(|| events.try_recv().ok());
    assert_eq!(connected.filter(|event| matches!(event, Event::Connected(_))).count(), 0);
}

async fn tcp_of(node: &Node) -> Vec<wattle_net::Address> {
    node.addresses().await.into_iter().filter(wattle_net::Address::is_tcp).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_network_over_quic_is_refused_at_the_start_with_the_reason() {
    let config = Config { network_key: Some(NetworkKey::from_bytes([7; 32])), ..config(1) };
    let (persist, _batches) = mpsc::channel(1);
    let refused = Overlay::start(config, Restored::default(), persist).await;
    let Err(refused) = refused else { panic!("it started") };
    assert!(matches!(refused, StartError::QuicIsNeverPrivate(_)));
    assert!(refused.to_string().contains("listen on TCP instead"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_peer_is_dropped_at_once_and_stays_out_even_after_a_restart_until_it_is_unblocked() {
    let (host, guest) = (Node::start(1).await, Node::start(2).await);
    guest.join(&host).await;
    until("both see each other", || async { host.peers().await == [guest.id()] }).await;
    let begun = Instant::now();
    host.overlay.block(guest.id(), true).await.unwrap();
    until("it is dropped", || async { host.peers().await.is_empty() && guest.peers().await.is_empty() })
        .await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let refused = host.overlay.connect(Some(guest.id()), guest.addresses().await).await.unwrap_err();
    assert_eq!(refused, ConnectError::Blocked);
    kept_out(&guest, &host).await;

    let disk = host.disk.clone();
    host.overlay.stop().await;
    let host = Node::start_on(config(1), disk).await;
    assert!(host.overlay.blocked().await.unwrap().contains(&guest.id()));
    kept_out(&guest, &host).await;

    host.overlay.block(guest.id(), false).await.unwrap();
    guest.join(&host).await;
}

async fn kept_out(guest: &Node, host: &Node) {
    let refused = guest.overlay.connect(Some(host.id()), host.addresses().await).await;
    assert!(matches!(refused, Err(ConnectError::HungUp(_))), "{refused:?}");
    assert_eq!(host.peers().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_allow_list_nobody_else_connects_in_either_direction() {
    let (friend, stranger) = (Node::start(2).await, Node::start(3).await);
    let picky = Config { allow: vec![friend.id()], ..config(1) };
    let picky = Node::start_on(picky, Disk::default()).await;
    friend.join(&picky).await;
    let refused = stranger.overlay.connect(Some(picky.id()), picky.addresses().await).await;
    assert!(matches!(refused, Err(ConnectError::HungUp(_))), "{refused:?}");
    let refused = picky.overlay.connect(Some(stranger.id()), stranger.addresses().await).await;
    assert!(matches!(refused, Err(ConnectError::HungUp(_))), "{refused:?}");
    until("only the friend is there", || async { picky.peers().await == [friend.id()] }).await;
}

fn message(text: &str, size: usize) -> Vec<u8> {
    let topic: Topic = text.parse().unwrap();
    let payload = vec![b'x'; size].into();
    cbor::encode(&TopicMessage { topic, payload, reply_to: None, trace: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_gossip_is_reported_and_never_delivered() {
    const NEWS: &str = "/wattle/topics/1/news";
    let node = Node::start(1).await;
    let mut follower = node.overlay.subscribe(vec!["news.>".parse().unwrap()]).await.unwrap();
    let mut events = node.overlay.events();
    let mut trailing = message("news.today", 4);
    trailing.push(0);
    let bad = [
        (b"not CBOR".to_vec(), "malformed"),
        (Vec::new(), "malformed"),
        (vec![0x81; 4096], "malformed"),
        (message("weather.today", 4), "another mesh"),
        (trailing, "1 bytes after"),
        (message("news.today", TOPIC_PAYLOAD_BYTES_MAX + 1), "too large"),
        (message("news.today", TOPIC_PAYLOAD_BYTES_MAX + 2000), "bytes are more than"),
    ];
    for (number, (data, why)) in (200..).zip(bad) {
        // Another one for each: who has sent a few is no longer listened to.
        let stranger = Stranger::start(Manner::plausible(number));
        stranger.join(&node).await;
        let message = stranger.gossip_message(NEWS, 1, data);
        stranger.gossip(&node).await.tell(&GossipRpc::publish(message)).await.unwrap();
        let Misbehaviour::BadMessage(said) = reported(&mut events, stranger.id()).await else {
            panic!("a bad message is called one")
        };
        assert!(said.contains(why), "{said} does not say {why}");
    }

    let other = Stranger::start(Manner::plausible(101));
    other.join(&node).await;
    let mut line = other.gossip(&node).await;
    let signed = other.gossip_message(NEWS, 1, message("news.today", 4));
    let unsigned = GossipMessage { signature: None, ..signed.clone() };
    let forged = GossipMessage { from: Some(author(&node)), ..signed.clone() };
    let altered = GossipMessage { data: Some(message("news.today", 5)), ..signed.clone() };
    for message in [unsigned, forged, altered, signed] {
        line.tell(&GossipRpc::publish(message)).await.unwrap();
    }
    let delivery = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((delivery.from, delivery.message.payload.as_ref()), (other.id(), b"xxxx".as_slice()));

    // More than a frame may have: the stream ends, the node goes on.
    let huge = other.gossip_message(NEWS, 2, message("news.today", 1 << 20));
    // Ignored because the node may hang up while we still write, or read no further, which is its right.
    drop(tokio::time::timeout(Duration::from_millis(500), line.tell(&GossipRpc::publish(huge))).await);
    let mut line = other.gossip(&node).await;
    line.tell(&GossipRpc::publish(other.gossip_message(NEWS, 3, message("news.today", 6)))).await.unwrap();
    let delivery = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(delivery.message.payload.as_ref(), b"xxxxxx");
}

fn author(node: &Node) -> Vec<u8> {
    node.id().to_peer_id_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_in_identify_breaks_nothing_and_reaches_no_terminal() {
    let (node, friend) = (Node::start(1).await, Node::start(2).await);
    friend.join(&node).await;
    let at_friend = friend.addresses().await;
    let claims = (1..60_u16).map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap());
    let stolen = at_friend.iter().map(|address| address.without_peer().to_string().parse().unwrap());
    let junk = Manner {
        agent: format!("\u{1b}[31m{}\n\0", "a".repeat(1000)),
        network_protocol: format!("\u{7}junk/{}", "b".repeat(500)),
        claims: stolen.chain(claims).collect(),
        ..Manner::plausible(100)
    };
    let junk = Stranger::start(junk);
    junk.join(&node).await;
    let status = node.overlay.status().await.unwrap();
    let info = status.peers.iter().find(|info| info.peer == junk.id()).unwrap();
    let agent = info.agent.clone().unwrap();
    assert!(agent.len() <= 96 && !agent.chars().any(char::is_control), "{agent:?}");
    assert!(info.listens.len() <= 32, "{} addresses", info.listens.len());
    assert!(node.overlay.addresses(junk.id()).await.unwrap().len() <= 8);

    // It claims to listen where the friend does: who looks for the one still finds the one.
    let newcomer = Node::start(3).await;
    newcomer.join(&node).await;
    let found = newcomer.overlay.connect(Some(friend.id()), Vec::new()).await.unwrap();
    assert_eq!(found.peer, friend.id());
    node.overlay.ping(friend.id(), PATIENCE).await.unwrap();

    let elsewhere = Manner { network_protocol: "/wattle//1".to_owned(), ..Manner::plausible(101) };
    let elsewhere = Stranger::start(elsewhere);
    let mut events = node.overlay.events();
    elsewhere.dial(&node).await;
    let parted = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(Event::Disconnected { peer, reason }) = events.recv().await
                && peer == elsewhere.id()
            {
                return reason;
            }
        }
    });
    assert!(matches!(parted.await.unwrap(), DisconnectReason::OtherNetwork(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_half_open_connections_disturb_no_peer_and_end_with_their_caller() {
    let (node, friend) = (Node::start(1).await, Node::start(2).await);
    friend.join(&node).await;
    let tcp = tcp_of(&node).await;
    let target = (tcp[0].ip().unwrap(), tcp[0].port().unwrap());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(target).await.unwrap());
    }
    for _ in 0..20 {
        let pong = friend.overlay.ping(node.id(), PATIENCE).await.unwrap();
        assert!(pong.rtt < Duration::from_secs(1), "{:?}", pong.rtt);
    }
    assert_eq!(node.peers().await, [friend.id()]);
    drop(silent);
    let newcomer = Node::start(3).await;
    until("a newcomer gets in again", || async {
        newcomer.overlay.connect(Some(node.id()), node.addresses().await).await.is_ok()
    })
    .await;
}

/// Strangers whose ids share no leading bit with a node's: all of them belong into one bucket.
fn far_from(node: &Node) -> impl Iterator<Item = u32> {
    let key_of = |id: NodeId| KBucketKey::from(PeerId::from_bytes(&id.to_peer_id_bytes()).unwrap());
    let me = key_of(node.id());
    (300..).filter(move |number| me.distance(&key_of(key(*number).node_id())).ilog2() == Some(255))
}

async fn listed(node: &Node) -> BTreeSet<NodeId> {
    let table = node.overlay.table().await.unwrap();
    table.iter().flat_map(|bucket| bucket.peers.iter().map(|peer| peer.peer)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_a_full_bucket_stays_until_it_cannot_be_reached_where_it_listens() {
    let node = Node::start(1).await;
    let mut numbers = far_from(&node);
    let mut eldest = Vec::new();
    for number in numbers.by_ref().take(20) {
        let stranger = Stranger::start(Manner::plausible(number));
        stranger.join(&node).await;
        until("it is in the table", || async { listed(&node).await.contains(&stranger.id()) }).await;
        eldest.push(stranger);
    }
    let first = listed(&node).await;
    let away = eldest.swap_remove(0);
    assert!(node.overlay.disconnect(away.id()).await.unwrap());
    until("it is gone", || async { !node.peers().await.contains(&away.id()) }).await;
    let late = Stranger::start(Manner::plausible(numbers.next().unwrap()));
    late.join(&node).await;
    let mut line = late.kad(&node).await;
    for _ in 0..100 {
        line.ask(&KadMessage::get(b"anything")).await.unwrap();
    }
    assert_eq!(listed(&node).await, first, "the eldest stay, connected or not");
    assert!(!node.peers().await.contains(&away.id()), "and nobody is dialed to see whether they live");

    // Somebody names an address where nobody listens: that says nothing about where the peer does.
    let nowhere = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let refused = node.overlay.connect(Some(away.id()), nowhere).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    assert_eq!(listed(&node).await, first, "a wrong address removes nobody");

    // Really gone: the lookup that meets it makes room for somebody else.
    let id = away.id();
    drop(away);
    until("a lookup has met it", || async {
        let found = node.overlay.closest(TraceTarget::Peer(id), PATIENCE).await;
        assert!(found.is_ok(), "{found:?}");
        !listed(&node).await.contains(&id)
    })
    .await;
    let next = Stranger::start(Manner::plausible(numbers.next().unwrap()));
    next.join(&node).await;
    until("its place is taken", || async { listed(&node).await.contains(&next.id()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_its_ports_to_somebody_else_leaves_the_table() {
    let two_ports = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap(); 2];
    let before = Node::start_on(Config { listen: two_ports, ..config(2) }, Disk::default()).await;
    let node = Node::start(1).await;
    node.join(&before).await;
    until("it is in the table", || async { listed(&node).await.contains(&before.id()) }).await;
    let listen: Vec<_> = before.addresses().await.iter().map(wattle_net::Address::without_peer).collect();
    before.overlay.stop().await;
    until("it is gone", || async { node.peers().await.is_empty() }).await;
    for address in &listen {
        let at = (address.ip().unwrap(), address.port().unwrap());
        until("its port is free", || async { TcpListener::bind(at).await.is_ok() }).await;
    }
    let after = Node::start_on(Config { listen, ..config(3) }, Disk::default()).await;
    // The lookup that meets the old id asks for it at both ports, one after the other.
    until("the old id is out", || async {
        // Ignored because nobody is left to find.
        drop(node.overlay.closest(TraceTarget::Peer(before.id()), PATIENCE).await);
        !listed(&node).await.contains(&before.id())
    })
    .await;
    after.overlay.stop().await;
}
