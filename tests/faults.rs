//! Faults on purpose between real nodes over real transports: what was asked for is what a peer measures.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::time::{Duration, Instant};

use wattle_net::faults::{DEAD_AFTER, Faults, LinkFaults};
use wattle_net::{ChannelKind, Config, Event};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, until};

const TRANSPORTS: [&str; 2] = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];

/// A node with a table of faults.
async fn faulty(number: u32, transport: &str) -> (Node, Faults) {
    let faults = Faults::new(u64::from(number));
    let listen = vec![transport.parse().unwrap()];
    let config = Config { listen, faults: Some(faults.clone()), ..config(number) };
    (Node::start_on(config, Disk::default()).await, faults)
}

/// Pings over a link that has no delay: they take a moment, and the fastest is what the others are compared with.
const QUICK_PINGS: usize = 60;

/// The fastest round trip of some pings, in milliseconds: what a busy machine adds is not the link's.
async fn ping(from: &Node, to: &Node) -> f64 {
    fastest(from, to, 9).await
}

async fn fastest(from: &Node, to: &Node, pings: usize) -> f64 {
    let mut trips = Vec::new();
    for _ in 0..pings {
        let pong = from.overlay.ping(to.id(), PATIENCE).await.unwrap();
        trips.push(pong.rtt.as_secs_f64() * 1000.0);
    }
    trips.sort_by(f64::total_cmp);
    trips[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_of_50_ms_adds_50_ms_to_every_ping() {
    for transport in TRANSPORTS {
        let ((one, faults), (other, _)) = (faulty(1, transport).await, faulty(2, transport).await);
        one.join(&other).await;
        let before = fastest(&one, &other, QUICK_PINGS).await;
        let delay = Duration::from_millis(50);
        let link = LinkFaults { delay, jitter: delay / 10, ..LinkFaults::default() };
        faults.set(&[(other.id(), link)].into()).unwrap();
        // A link is one link, whoever asks: the answer goes over it.
        let delayed = [ping(&one, &other).await, ping(&other, &one).await];
        faults.set(&[].into()).unwrap();
        let after = fastest(&one, &other, QUICK_PINGS).await;
        assert!(after < before + 10.0, "{transport}: {after} ms after, {before} ms before");
        // Either may have been taken while the machine was busy.
        let quick = before.min(after);
        for added in delayed.map(|delayed| delayed - quick) {
            assert!((45.0..=60.0).contains(&added), "{transport}: {added} ms were added to {quick} ms");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_link_carries_as_much_as_before_only_later() {
    for transport in TRANSPORTS {
        let ((one, faults), (other, _)) = (faulty(1, transport).await, faulty(2, transport).await);
        one.join(&other).await;
        let mut listener = other.overlay.accept_channels(ChannelKind::Documents).unwrap();
        let delay = Duration::from_millis(100);
        faults.set(&[(other.id(), LinkFaults { delay, ..LinkFaults::default() })].into()).unwrap();
        let (mut sender, _receiver) =
            one.overlay.open_channel(other.id(), ChannelKind::Documents).await.unwrap().split();
        let begun = Instant::now();
        for number in 0..50_u8 {
            sender.send(&[number; 500]).await.unwrap();
        }
        let (_sender, mut heard) = listener.next().await.unwrap().split();
        for number in 0..50_u8 {
            assert_eq!(heard.next().await.unwrap().unwrap(), [number; 500]);
        }
        let took = begun.elapsed();
        // One after the other they would take five seconds.
        assert!(took >= delay && took < 10 * delay, "{transport}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_lets_through_what_it_was_told_to() {
    for transport in TRANSPORTS {
        let ((one, faults), (other, _)) = (faulty(1, transport).await, faulty(2, transport).await);
        one.join(&other).await;
        let mut listener = other.overlay.accept_channels(ChannelKind::Documents).unwrap();
        let link = LinkFaults { rate_bits: 800_000, ..LinkFaults::default() };
        faults.set(&[(other.id(), link)].into()).unwrap();
        let (mut sender, _receiver) =
            one.overlay.open_channel(other.id(), ChannelKind::Documents).await.unwrap().split();
        let begun = Instant::now();
        sender.send(&[7; 100_000]).await.unwrap();
        let (_sender, mut heard) = listener.next().await.unwrap().split();
        assert_eq!(heard.next().await.unwrap().unwrap().len(), 100_000);
        let took = begun.elapsed().as_secs_f64();
        assert!((0.9..2.0).contains(&took), "{transport}: 100 kB at 100 kB/s took {took} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_one_way_carries_the_other_way_only() {
    for transport in TRANSPORTS {
        let ((one, faults), (other, _)) = (faulty(1, transport).await, faulty(2, transport).await);
        one.join(&other).await;
        let mut listener = other.overlay.accept_channels(ChannelKind::Documents).unwrap();
        let (mut sender, mut receiver) =
            one.overlay.open_channel(other.id(), ChannelKind::Documents).await.unwrap().split();
        sender.send(b"hello").await.unwrap();
        let (mut back, mut heard) = listener.next().await.unwrap().split();
        assert_eq!(heard.next().await.unwrap().unwrap(), b"hello");

        faults.set(&[(other.id(), LinkFaults { cut_to: true, ..LinkFaults::default() })].into()).unwrap();
        sender.send(b"into the void").await.unwrap();
        back.send(b"this way it goes").await.unwrap();
        let came = tokio::time::timeout(PATIENCE, receiver.next()).await.unwrap();
        assert_eq!(came.unwrap().unwrap(), b"this way it goes", "{transport}");
        let quiet = tokio::time::timeout(Duration::from_millis(500), heard.next()).await;
        assert!(quiet.is_err(), "{transport}: {quiet:?} came over a link that is cut");

        // What waited is sent again, as a transport does.
        faults.set(&[].into()).unwrap();
        let came = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
        assert_eq!(came.unwrap().unwrap(), b"into the void", "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stays_cut_breaks_and_none_begins_until_the_link_is_healed() {
    let ((one, faults), (other, _)) = (faulty(1, TRANSPORTS[0]).await, faulty(2, TRANSPORTS[0]).await);
    one.join(&other).await;
    let mut events = one.overlay.events();
    faults.set(&[(other.id(), LinkFaults { cut_from: true, ..LinkFaults::default() })].into()).unwrap();
    let begun = Instant::now();
    let broke = tokio::time::timeout(2 * DEAD_AFTER, async {
        loop {
            if let Ok(Event::Disconnected { peer, .. }) = events.recv().await {
                return peer;
            }
        }
    });
    assert_eq!(broke.await.unwrap(), other.id());
    assert!(begun.elapsed() >= DEAD_AFTER - Duration::from_secs(1), "broke after {:?}", begun.elapsed());
    let refused = one.overlay.connect(Some(other.id()), other.addresses().await).await;
    assert!(refused.is_err(), "a handshake over a link that is cut: {refused:?}");
    faults.set(&[].into()).unwrap();
    until("they are connected again", || async {
        one.overlay.connect(Some(other.id()), other.addresses().await).await.is_ok()
    })
    .await;
}
