//! Channels between real nodes: who is at the other end, how many there may be, what an open one protects.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use wattle_net::{
    AlreadyAccepted, Channel, ChannelKind, ChannelListener, Config, ConnectError, ConnectionLimits,
    DisconnectReason, Event, Misbehaviour, OpenChannelError, SendError, Stopped,
};
use wattle_tests::hostile::{Manner, Stranger};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, key, until};
use wattle_tests::records::reported;
use wattle_types::limits::CHANNEL_FRAME_BYTES_MAX;
use wattle_types::{NodeId, SecretKey};

const DOCUMENTS: ChannelKind = ChannelKind::Documents;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it waits for ever")
}

async fn accepted(listener: &mut ChannelListener) -> Channel {
    soon(listener.next()).await.unwrap()
}

/// Two nodes that know each other over one transport, and the listener of the second.
async fn two(transport: &str) -> (Node, Node, ChannelListener) {
    let on = |number| Config { listen: vec![transport.parse().unwrap()], ..config(number) };
    let (one, other) =
        (Node::start_on(on(1), Disk::default()).await, Node::start_on(on(2), Disk::default()).await);
    one.join(&other).await;
    let listener = other.overlay.accept_channels(DOCUMENTS).unwrap();
    (one, other, listener)
}

const TRANSPORTS: [&str; 2] = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];

#[tokio::test(flavor = "multi_thread")]
async fn frames_cross_both_ways_between_the_peers_that_the_handshake_proved() {
    for transport in TRANSPORTS {
        let (one, other, mut listener) = two(transport).await;
        let here = one.overlay.open_channel(other.id(), DOCUMENTS).await.unwrap();
        assert_eq!(here.peer(), other.id());
        let (mut sender, mut receiver) = here.split();
        sender.send(b"first").await.unwrap();
        let there = accepted(&mut listener).await;
        assert_eq!(there.peer(), one.id());
        let (mut back, mut heard) = there.split();
        assert_eq!(soon(heard.next()).await, Some(Ok(b"first".to_vec())));
        // Both at once, and more than the windows of both transports hold.
        let frames: Vec<Vec<u8>> = (0..24_u8).map(|fill| vec![fill; CHANNEL_FRAME_BYTES_MAX]).collect();
        let all = async |receiver: &mut wattle_net::ChannelReceiver| {
            for frame in &frames {
                assert!(receiver.next().await.unwrap().unwrap() == *frame);
            }
        };
        let sent = async { tokio::join!(sender.send_all(&frames), back.send_all(&frames)) };
        let (sent, (), ()) = soon(async { tokio::join!(sent, all(&mut receiver), all(&mut heard)) }).await;
        assert_eq!(sent, (Ok(()), Ok(())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_is_dropped_ends_the_other_after_what_it_sent() {
    for transport in TRANSPORTS {
        let (one, other, mut listener) = two(transport).await;
        for who_drops in 0..3 {
            let here = one.overlay.open_channel(other.id(), DOCUMENTS).await.unwrap();
            let (mut sender, receiver) = here.split();
            sender.send(b"last words").await.unwrap();
            let mut halves = (Some(sender), Some(receiver));
            match who_drops {
                0 => drop(halves.0.take()),
                1 => drop(halves.1.take()),
                _ => halves = (None, None),
            }
            let (mut back, mut heard) = accepted(&mut listener).await.split();
            assert_eq!(soon(heard.next()).await, Some(Ok(b"last words".to_vec())), "{transport}");
            assert_eq!(soon(heard.next()).await, None, "{transport}");
            assert_eq!(soon(back.send(b"still there?")).await, Err(SendError::Ended));
            drop(halves);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_ends_with_the_connection_and_a_listener_with_the_node() {
    for transport in TRANSPORTS {
        let (one, other, mut listener) = two(transport).await;
        let here = one.overlay.open_channel(other.id(), DOCUMENTS).await.unwrap();
        let there = accepted(&mut listener).await;
        other.overlay.stop().await;
        // With or without an error: the connection was closed, not the channel.
        for channel in [here, there] {
            let (mut sender, mut receiver) = channel.split();
            while soon(receiver.next()).await.is_some() {}
            assert_eq!(sender.send(b"x").await, Err(SendError::Ended));
        }
        assert!(soon(listener.next()).await.is_none());
        let stopped = other.overlay.open_channel(one.id(), DOCUMENTS).await.err();
        assert_eq!(stopped, Some(OpenChannelError::Connect(ConnectError::Stopped(Stopped))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_to_a_peer_that_was_sent_away_ends_at_once_on_both_sides() {
    for transport in TRANSPORTS {
        for block in [false, true] {
            let (one, other, mut listener) = two(transport).await;
            let here = one.overlay.open_channel(other.id(), DOCUMENTS).await.unwrap();
            let there = accepted(&mut listener).await;
            if block {
                other.overlay.block(one.id(), true).await.unwrap();
            } else {
                other.overlay.disconnect(one.id()).await.unwrap();
            }
            // Nobody has anything to send: who only listens must hear of it too.
            let began = Instant::now();
            let mut held = Vec::new();
            for channel in [there, here] {
                let (sender, mut receiver) = channel.split();
                held.push(sender);
                while soon(receiver.next()).await.is_some() {}
            }
            assert!(began.elapsed() < Duration::from_secs(2), "{transport}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_connects_by_itself_and_says_why_there_is_none() {
    let (one, other) = (Node::start(1).await, Node::start(2).await);
    let open = async |peer| soon(one.overlay.open_channel(peer, DOCUMENTS)).await.map(|it| it.peer());
    assert_eq!(open(one.id()).await, Err(OpenChannelError::Connect(ConnectError::Myself)));
    assert_eq!(open(other.id()).await, Err(OpenChannelError::Connect(ConnectError::NoAddress)));
    // It has an address in the book and no connection.
    other.join(&one).await;
    until("both see each other", || async { one.peers().await == [other.id()] }).await;
    other.overlay.disconnect(one.id()).await.unwrap();
    until("it is gone", || async { one.peers().await.is_empty() }).await;
    assert_eq!(open(other.id()).await, Err(OpenChannelError::NotTaken));
    assert_eq!(one.peers().await, [other.id()]);

    let listener = other.overlay.accept_channels(DOCUMENTS).unwrap();
    assert_eq!(other.overlay.accept_channels(DOCUMENTS).err(), Some(AlreadyAccepted));
    assert_eq!(open(other.id()).await, Ok(other.id()));
    drop(listener);
    until("nobody accepts any more", || async {
        matches!(one.overlay.open_channel(other.id(), DOCUMENTS).await, Err(OpenChannelError::NotTaken))
    })
    .await;
    let _again = other.overlay.accept_channels(DOCUMENTS).unwrap();
    assert_eq!(open(other.id()).await, Ok(other.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_channel_of_one_peer_is_closed_and_those_that_nobody_accepts_are_few() {
    let node = Node::start(1).await;
    let mut events = node.overlay.events();
    let mut listener = node.overlay.accept_channels(DOCUMENTS).unwrap();
    let pushy = Stranger::start(Manner::plausible(100));
    pushy.join(&node).await;
    let mut lines = vec![pushy.channel(&node).await];
    let _first = accepted(&mut listener).await;
    lines.push(pushy.channel(&node).await);
    let second = accepted(&mut listener).await;
    let mut third = pushy.channel(&node).await;
    assert_eq!(soon(third.closed()).await, 0);
    assert_eq!(reported(&mut events, pushy.id()).await, Misbehaviour::OverQuota("channels"));
    drop(second);
    soon(lines[1].closed()).await;
    // The place is free once the end of the second has been said.
    let freed = async {
        loop {
            let line = pushy.channel(&node).await;
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(200), listener.next()).await {
                return (line, next.unwrap());
            }
        }
    };
    let _next = soon(freed).await;

    // Nobody accepts from here on: sixteen wait, the others are closed.
    let (mut waiting, mut closed) = (Vec::new(), 0);
    for number in 101..121 {
        let stranger = Stranger::start(Manner::plausible(number));
        stranger.join(&node).await;
        let mut line = stranger.channel(&node).await;
        match tokio::time::timeout(Duration::from_millis(200), line.closed()).await {
            Ok(_) => closed += 1,
            Err(_) => waiting.push((stranger, line)),
        }
    }
    assert_eq!((waiting.len(), closed), (16, 4));
    for (stranger, _) in &waiting {
        assert_eq!(accepted(&mut listener).await.peer(), stranger.id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_breaks_a_rule_costs_its_sender_the_channel_and_nothing_else() {
    let node = Node::start(1).await;
    let mut events = node.overlay.events();
    let mut listener = node.overlay.accept_channels(DOCUMENTS).unwrap();
    let stranger = Stranger::start(Manner::plausible(100));
    stranger.join(&node).await;
    let mut line = stranger.channel(&node).await;
    line.tell_raw(&[b"\x02ok".as_slice(), &[0xff, 0xff, 0xff, 0x7f]].concat()).await.unwrap();
    let (_sender, mut receiver) = accepted(&mut listener).await.split();
    assert_eq!(soon(receiver.next()).await, Some(Ok(b"ok".to_vec())));
    assert!(matches!(soon(receiver.next()).await, Some(Err(_))));
    assert_eq!(soon(receiver.next()).await, None);
    assert_eq!(soon(line.closed()).await, 0);
    assert!(matches!(reported(&mut events, stranger.id()).await, Misbehaviour::BadFrame(_)));
    assert_eq!(node.peers().await, [stranger.id()], "the connection stays");
    let _line = stranger.channel(&node).await;
    assert_eq!(accepted(&mut listener).await.peer(), stranger.id());
}

/// Strangers in the order in which a full node lets them go: the farthest first.
fn far_ones_first(from: NodeId) -> Vec<u32> {
    let key_of = |id: NodeId| KBucketKey::from(PeerId::from_bytes(&id.to_peer_id_bytes()).unwrap());
    let me = key_of(from);
    let mut numbers: Vec<u32> = (100..112).collect();
    numbers.sort_by_cached_key(|number| me.distance(&key_of(key(*number).node_id())));
    numbers.reverse();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_keeps_the_peer_it_has_a_channel_to_whoever_opened_it() {
    const HIGH: usize = 12;
    let limits = ConnectionLimits {
        // Two have to go for a newcomer.
        low_water: NonZeroUsize::new(HIGH - 1).unwrap(),
        high_water: NonZeroUsize::new(HIGH).unwrap(),
        idle_after: Duration::from_millis(1),
    };
    // One transport: a dial that ends its handshake on two would count twice for a moment.
    let tcp = vec![TRANSPORTS[1].parse().unwrap()];
    let full = Config { connections: limits, listen: tcp, ..config(1) };
    let full = Node::start_on(full, Disk::default()).await;
    let mut events = full.overlay.events();
    let mut listener = full.overlay.accept_channels(DOCUMENTS).unwrap();
    let numbers = far_ones_first(SecretKey::node_id(&full.key));
    let friend = Node::start_on(Config { key: key(numbers[0]), ..config(0) }, Disk::default()).await;
    let _of_friend = friend.overlay.accept_channels(DOCUMENTS).unwrap();
    let mut strangers = Vec::new();
    // The two farthest last: they would be the first to go.
    for number in numbers[1..].iter().rev() {
        if strangers.len() == HIGH - 2 {
            friend.join(&full).await;
        }
        let stranger = Stranger::start(Manner::plausible(*number));
        stranger.join(&full).await;
        strangers.push(stranger);
    }
    until("the node is full", || async { full.peers().await.len() == HIGH }).await;
    let _ours = full.overlay.open_channel(friend.id(), DOCUMENTS).await.unwrap();
    let talker = strangers.last().unwrap();
    let _theirs = (talker.channel(&full).await, accepted(&mut listener).await);

    let newcomer = Node::start(2).await;
    newcomer.join(&full).await;
    let mut trimmed = Vec::new();
    while trimmed.len() < 2 {
        if let Event::Disconnected { peer, reason: DisconnectReason::Trimmed } =
            soon(events.recv()).await.unwrap()
        {
            trimmed.push(peer);
        }
    }
    assert!(![friend.id(), talker.id()].iter().any(|peer| trimmed.contains(peer)), "{trimmed:?}");
}
