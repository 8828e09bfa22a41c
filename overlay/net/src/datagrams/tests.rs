use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use wattle_types::limits::DATAGRAM_BYTES_MAX;
use wattle_types::{NetworkName, NodeId, SecretKey};

use super::seal::{BootKey, HEADER_BYTES, Pair, SEALED_BYTES_MORE, Sender, WHO, WHO_BYTES};
use super::{Datagram, DatagramConfig, DatagramError, Datagrams};
use crate::faults::{Faults, LinkFaults};

fn id(seed: u8) -> NodeId {
    SecretKey::from_bytes(&[seed; 32]).node_id()
}

async fn node(seed: u8, network: &str) -> Datagrams {
    faulty(seed, network, None).await
}

async fn faulty(seed: u8, network: &str, faults: Option<Faults>) -> Datagrams {
    let network = network.parse::<NetworkName>().expect("a network name");
    let config = DatagramConfig { me: id(seed), network, port: 0, loopback_only: true, faults };
    Datagrams::bind(config).await.expect("a socket on this machine")
}

fn place(node: &Datagrams) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, node.port().expect("a port")))
}

/// Two nodes that know each other.
async fn pair() -> (Datagrams, Datagrams) {
    let (mut alice, mut bob) = (node(1, "n").await, node(2, "n").await);
    assert!(alice.know(id(2), bob.boot_key(), vec![place(&bob)]));
    assert!(bob.know(id(1), alice.boot_key(), vec![place(&alice)]));
    (alice, bob)
}

/// The packet that `from` makes of `bytes` for `to`, caught on its way.
async fn caught(from: &mut Datagrams, to: NodeId, boot: [u8; 32], bytes: &[u8]) -> (Vec<u8>, UdpSocket) {
    let wire = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket on this machine");
    let address = wire.local_addr().expect("its address");
    from.forget(&to);
    assert!(from.know(to, boot, vec![address]));
    from.send(&to, bytes).expect("sent");
    let mut packet = vec![0; 2048];
    let (length, _) = wire.recv_from(&mut packet).await.expect("arrived");
    packet.truncate(length);
    (packet, wire)
}

async fn hear(node: &mut Datagrams) -> Option<Datagram> {
    tokio::time::timeout(Duration::from_millis(200), node.receive()).await.ok()
}

/// What must come, in the end.
async fn heard(node: &mut Datagrams) -> Datagram {
    tokio::time::timeout(Duration::from_secs(10), node.receive()).await.expect("a packet that says something")
}

#[tokio::test]
async fn what_is_sealed_for_a_peer_arrives_there_and_back() {
    let (mut alice, mut bob) = pair().await;
    alice.send(&id(2), b"ping").expect("sent");
    assert_eq!(heard(&mut bob).await, Datagram::Opened { from: id(1), bytes: b"ping".to_vec() });
    bob.send(&id(1), b"ack").expect("sent");
    assert_eq!(heard(&mut alice).await, Datagram::Opened { from: id(2), bytes: b"ack".to_vec() });
    assert_eq!((alice.counts().sent, alice.counts().opened), (1, 1));
}

#[tokio::test]
async fn the_longest_packet_fits_the_least_mtu_of_ipv6_and_a_longer_one_is_refused() {
    let (mut alice, mut bob) = pair().await;
    let longest = vec![7; DATAGRAM_BYTES_MAX - SEALED_BYTES_MORE];
    alice.send(&id(2), &longest).expect("sent");
    assert_eq!(heard(&mut bob).await, Datagram::Opened { from: id(1), bytes: longest.clone() });
    // 1280 bytes, less the headers of IPv6 and UDP (RFC 8200, section 5).
    assert!(alice.counts().sent_bytes <= 1280 - 48);
    let longer = [longest, vec![7]].concat();
    assert!(matches!(alice.send(&id(2), &longer), Err(DatagramError::TooLong { .. })));
}

#[tokio::test]
async fn a_packet_opens_once_and_only_unharmed() {
    let (mut alice, mut bob) = pair().await;
    let boot = bob.boot_key();
    let (packet, wire) = caught(&mut alice, id(2), boot, b"once").await;
    for position in 0..packet.len() {
        let mut harmed = packet.clone();
        harmed[position] ^= 0x40;
        wire.send_to(&harmed, place(&bob)).await.expect("sent");
    }
    wire.send_to(&packet, place(&bob)).await.expect("sent");
    assert_eq!(heard(&mut bob).await, Datagram::Opened { from: id(1), bytes: b"once".to_vec() });
    wire.send_to(&packet, place(&bob)).await.expect("sent");
    assert_eq!(hear(&mut bob).await, None);
    assert_eq!((bob.counts().opened, bob.counts().replayed), (1, 1));
    assert_eq!(bob.counts().refused + bob.counts().unknown, packet.len() as u64);
}

#[tokio::test]
async fn a_packet_is_worth_nothing_to_others_elsewhere_or_after_a_new_boot() {
    let (mut alice, mut bob) = pair().await;
    let mut carol = node(3, "n").await;
    let mut elsewhere = node(2, "other").await;
    let boot = bob.boot_key();
    let (packet, wire) = caught(&mut alice, id(2), boot, b"for bob").await;
    for node in [&mut carol, &mut elsewhere] {
        assert!(node.know(id(1), alice.boot_key(), vec![place(&alice)]));
        wire.send_to(&packet, place(node)).await.expect("sent");
        assert_eq!(hear(node).await, None);
        assert_eq!((node.counts().opened, node.counts().refused), (0, 1));
    }
    // Turned around: bob's own packet comes back to him.
    let (own, wire) = caught(&mut bob, id(1), alice.boot_key(), b"mine").await;
    wire.send_to(&own, place(&bob)).await.expect("sent");
    assert_eq!(hear(&mut bob).await, None);
    // Bob starts again, with the same identity: yesterday's packet is noise.
    let mut again = node(2, "n").await;
    assert!(again.know(id(1), alice.boot_key(), vec![place(&alice)]));
    wire.send_to(&packet, place(&again)).await.expect("sent");
    assert_eq!(hear(&mut again).await, None);
    assert_eq!(again.counts().opened, 0);
}

#[tokio::test]
async fn a_stranger_is_asked_who_it_is_and_hears_of_it() {
    let (mut alice, mut bob) = pair().await;
    bob.forget(&id(1));
    alice.send(&id(2), b"hello").expect("sent");
    assert_eq!(hear(&mut bob).await, None);
    assert_eq!(heard(&mut alice).await, Datagram::AskedWho { from: id(2) });
}

#[tokio::test]
async fn nobody_is_made_to_ask_more_than_it_was_sent_or_than_its_share() {
    let mut bob = node(2, "n").await;
    let liar = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket on this machine");
    for stranger in 0..200u8 {
        let mut packet = vec![1; HEADER_BYTES + 16];
        packet[1..9].copy_from_slice(&[stranger; 8]);
        liar.send_to(&packet, place(&bob)).await.expect("sent");
        liar.send_to(&packet, place(&bob)).await.expect("sent");
    }
    assert_eq!(hear(&mut bob).await, None);
    assert!(bob.counts().sent <= 32, "asked {} times", bob.counts().sent);
    assert!(bob.counts().sent > 0, "a stranger is asked");
    assert_eq!(bob.counts().sent_bytes, bob.counts().sent * WHO_BYTES as u64);
}

#[tokio::test]
async fn a_question_that_echoes_nothing_is_ignored() {
    let (mut alice, mut bob) = pair().await;
    alice.send(&id(2), b"ping").expect("sent");
    assert!(matches!(heard(&mut bob).await, Datagram::Opened { .. }));
    let liar = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket on this machine");
    for (sender, counter) in [(id(2), 1u8), (id(2), 200), (id(9), 0)] {
        let mut packet = vec![WHO];
        packet.extend(&sender.public_key()[..8]);
        packet.extend([0, 0, 0, 0, 0, counter]);
        liar.send_to(&packet, place(&alice)).await.expect("sent");
    }
    assert_eq!(hear(&mut alice).await, None);
    assert_eq!(alice.counts().refused, 3);
}

#[tokio::test]
async fn the_next_packet_goes_where_the_last_one_came_from() {
    let (mut alice, mut bob) = pair().await;
    alice.send(&id(2), b"ping").expect("sent");
    assert!(matches!(heard(&mut bob).await, Datagram::Opened { .. }));
    // Bob was told an address of alice where nobody is, as of a node behind a NAT.
    assert!(bob.know(id(1), alice.boot_key(), vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9))]));
    bob.send(&id(1), b"ack").expect("sent");
    assert_eq!(heard(&mut alice).await, Datagram::Opened { from: id(2), bytes: b"ack".to_vec() });
}

#[tokio::test]
async fn addresses_are_taken_in_turn_until_one_answers() {
    let (mut alice, mut bob) = pair().await;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let somebody = place(&bob);
    assert!(alice.know(id(2), bob.boot_key(), vec![nobody, somebody]));
    for _ in 0..2 {
        alice.send(&id(2), b"ping").expect("sent");
    }
    assert_eq!(heard(&mut bob).await, Datagram::Opened { from: id(1), bytes: b"ping".to_vec() });
}

#[test]
fn the_same_keys_seal_differently_in_another_network() {
    let (alice, bob) = (BootKey::generate().expect("randomness"), BootKey::generate().expect("randomness"));
    let network = |name: &str| name.parse::<NetworkName>().expect("a network name");
    let there = Pair::new(&network("n"), (&id(1), &alice), (&id(2), &bob.public()));
    let here = |name| Pair::new(&network(name), (&id(2), &bob), (&id(1), &alice.public()));
    let packet = there.seal(Sender::of(&id(1)), 7, b"secret");
    let sealed = &packet[HEADER_BYTES..];
    assert_eq!(here("n").open(7, sealed), Some(b"secret".to_vec()));
    assert_eq!(here("other").open(7, sealed), None);
    assert_eq!(here("n").open(8, sealed), None);
}

/// Alice, whose link to bob has these faults, and bob.
async fn faulty_pair(faults: LinkFaults) -> (Datagrams, Datagrams, Faults) {
    let table = Faults::new(7);
    table.set(&[(id(2), faults)].into()).expect("faults that can be");
    let (mut alice, mut bob) = (faulty(1, "n", Some(table.clone())).await, node(2, "n").await);
    assert!(alice.know(id(2), bob.boot_key(), vec![place(&bob)]));
    assert!(bob.know(id(1), alice.boot_key(), vec![place(&alice)]));
    (alice, bob, table)
}

#[tokio::test]
async fn a_loss_of_ten_percent_is_one_of_ten_percent_where_datagrams_arrive() {
    let (mut alice, mut bob, table) = faulty_pair(LinkFaults { loss: 0.1, ..LinkFaults::default() }).await;
    let mut arrived = 0;
    for _ in 0..100 {
        // Few at once, so that the kernel loses none of its own.
        for _ in 0..40 {
            alice.send(&id(2), b"ping").expect("sent or lost");
        }
        while tokio::time::timeout(Duration::from_millis(10), bob.receive()).await.is_ok() {
            arrived += 1;
        }
    }
    let lost = 100.0 - f64::from(arrived) / 40.0;
    assert!((8.0..=12.0).contains(&lost), "{lost} % were lost");
    let counts = table.all()[0].2;
    assert_eq!((counts.datagrams, counts.datagrams_lost), (4000, 4000 - arrived as u64), "and it says so");
}

#[tokio::test]
async fn a_link_that_is_cut_one_way_lets_datagrams_through_the_other_way() {
    let (mut alice, mut bob, table) = faulty_pair(LinkFaults { cut_to: true, ..LinkFaults::default() }).await;
    alice.send(&id(2), b"ping").expect("sent or lost");
    assert_eq!(hear(&mut bob).await, None);
    bob.send(&id(1), b"ping").expect("sent");
    assert_eq!(heard(&mut alice).await, Datagram::Opened { from: id(2), bytes: b"ping".to_vec() });

    table
        .set(&[(id(2), LinkFaults { cut_from: true, ..LinkFaults::default() })].into())
        .expect("faults that can be");
    bob.send(&id(1), b"ping").expect("sent");
    assert_eq!(hear(&mut alice).await, None);
    alice.send(&id(2), b"ping").expect("sent");
    assert_eq!(heard(&mut bob).await, Datagram::Opened { from: id(1), bytes: b"ping".to_vec() });

    table.set(&[].into()).expect("faults that can be");
    bob.send(&id(1), b"healed").expect("sent");
    assert_eq!(heard(&mut alice).await, Datagram::Opened { from: id(2), bytes: b"healed".to_vec() });
}

#[tokio::test]
async fn datagrams_that_are_delayed_arrive_later_and_those_behind_a_slow_link_one_after_the_other() {
    let delay = Duration::from_millis(80);
    let (mut alice, mut bob, table) = faulty_pair(LinkFaults { delay, ..LinkFaults::default() }).await;
    let begun = std::time::Instant::now();
    alice.send(&id(2), b"ping").expect("sent");
    heard(&mut bob).await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());

    // 1000 bytes and their headers take about a tenth of a second each.
    table
        .set(&[(id(2), LinkFaults { rate_bits: 80_000, ..LinkFaults::default() })].into())
        .expect("faults that can be");
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        alice.send(&id(2), &[0; 1000]).expect("sent");
    }
    for _ in 0..4 {
        heard(&mut bob).await;
    }
    let took = begun.elapsed();
    assert!((0.4..0.8).contains(&took.as_secs_f64()), "{took:?}");
}
