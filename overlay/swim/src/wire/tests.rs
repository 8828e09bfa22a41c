use std::collections::BTreeMap;

use proptest::prelude::*;
use wattle_types::SecretKey;

use super::*;
use crate::claim::Description;
use crate::claim::Reach;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn resolve(short: ShortId) -> Option<NodeId> {
    (1..8).map(|seed| key(seed).node_id()).find(|node| ShortId::of(node) == short)
}

fn network() -> NetworkName {
    NetworkName::default()
}

fn seal(seed: u8, claim: &Claim) -> Arc<Signed> {
    Arc::new(Signed::seal(&key(seed), &network(), claim).unwrap())
}

/// The largest description that is allowed.
fn largest() -> Description {
    let tags = BTreeMap::from([("k".to_owned(), "v".repeat(400))]);
    Description {
        name: "n".repeat(64),
        roles: std::collections::BTreeSet::new(),
        addresses: vec!["/ip4/192.168.100.100/udp/7710/quic-v1".to_owned(); 4],
        udp_port: 7711,
        boot_key: serde_bytes::ByteArray::new([7; 32]),
        reach: Reach::Anchored,
        anchors: vec![key(3).node_id(), key(4).node_id()],
        tags,
    }
}

fn samples() -> Vec<Packet<Arc<Signed>>> {
    let incarnation = Incarnation::from_u64(0x6b49_d200_0000_0003);
    let subject = key(2).node_id();
    let suspect = |accuser| seal(accuser, &Claim::Suspect { subject, incarnation });
    let more = More {
        coordinate: Coordinate { axes: [1, -2, 3, -4], height: 100, error: 250 },
        root: 0x0102_0304_0506_0708,
    };
    let of = |body, rumors| Packet { stamp: incarnation.stamp(), body, rumors };
    vec![
        of(Body::Ping { sequence: 7, more: false }, vec![]),
        of(Body::Ping { sequence: 8, more: true }, vec![Rumor::Ask(ShortId(5))]),
        of(Body::PingRequest { sequence: 9, target: ShortId::of(&subject), patience_ms: 150 }, vec![]),
        of(Body::Ack { sequence: 7, more: None }, vec![Rumor::Claim(suspect(3))]),
        of(
            Body::Ack { sequence: 8, more: Some(more) },
            vec![
                Rumor::Dead(vec![suspect(3), suspect(4), suspect(5)]),
                Rumor::Claim(seal(3, &Claim::Remove { subject, incarnation })),
            ],
        ),
        of(Body::Nack { sequence: 9 }, vec![]),
        of(
            Body::Gossip,
            vec![
                Rumor::Claim(seal(2, &Claim::Refute { incarnation })),
                Rumor::Claim(seal(2, &Claim::Leave { incarnation })),
                Rumor::Claim(seal(2, &Claim::Alive { incarnation, description: largest() })),
            ],
        ),
    ]
}

#[test]
fn every_packet_reads_back_as_it_was_written() {
    for packet in samples() {
        let bytes = packet.encode();
        let raw = Packet::decode(&bytes, &resolve).unwrap();
        assert_eq!(raw.encode(), bytes);
        assert_eq!(raw.open(&network()).unwrap(), packet);
    }
}

/// The budget of an idle member: two packets of these, one of each kind, a second.
#[test]
fn a_ping_and_its_answer_have_six_bytes() {
    let sizes: Vec<usize> = samples().iter().map(|packet| packet.encode().len()).collect();
    assert_eq!((sizes[0], sizes[2], sizes[3] - 89, sizes[5]), (6, 16, 6, 6));
    for packet in samples() {
        let rumors = packet.rumors.iter().map(|rumor| match rumor {
            Rumor::Claim(claim) => claim_bytes(claim),
            Rumor::Dead(claims) => certificate_bytes(claims.len()),
            Rumor::Ask(_) => ASK_BYTES,
        });
        let bytes = head_bytes(&packet.body) + rumors.sum::<usize>();
        assert_eq!(packet.encode().len(), bytes, "what is counted is what is written");
    }
}

#[test]
fn the_largest_record_fits_a_packet() {
    let claim = Claim::Alive { incarnation: Incarnation::from_u64(u64::MAX), description: largest() };
    let signed = seal(2, &claim);
    assert!(signed.envelope().body().len() > RECORD_BYTES_MAX * 3 / 4);
    let head = head_bytes(&Body::PingRequest { sequence: 0, target: ShortId(0), patience_ms: 0 });
    assert!(head + 1 + 32 + 2 + RECORD_BYTES_MAX + 64 <= PACKET_BYTES_MAX);
    let mut over = largest();
    over.tags.insert("more".to_owned(), "x".repeat(200));
    let claim = Claim::Alive { incarnation: Incarnation::default(), description: over };
    assert_eq!(Signed::seal(&key(2), &network(), &claim), None);
}

#[test]
fn what_is_about_nobody_known_is_left_out_and_the_rest_is_read() {
    let incarnation = Incarnation::from_u64(1);
    let known = seal(2, &Claim::Refute { incarnation });
    let stranger = seal(9, &Claim::Refute { incarnation });
    let accusing = seal(2, &Claim::Suspect { subject: key(9).node_id(), incarnation });
    let rumors = [stranger, accusing, Arc::clone(&known)].map(Rumor::Claim).to_vec();
    let bytes = Packet { stamp: incarnation.stamp(), body: Body::Gossip, rumors }.encode();
    let packet = Packet::decode(&bytes, &resolve).unwrap().open(&network()).unwrap();
    assert_eq!(packet.rumors, [Rumor::Claim(known)]);
}

#[test]
fn packets_that_nobody_writes_are_refused() {
    let head = |kind: u8| [&[kind][..], &[0; 3]].concat();
    let decode = |bytes: &[u8]| Packet::decode(bytes, &resolve).map(drop);
    assert_eq!(decode(&[]), Err(PacketError::Short("kind")));
    assert_eq!(decode(&[0; 3]), Err(PacketError::Short("incarnation")));
    assert_eq!(decode(&head(5)), Err(PacketError::Unknown("kind", 5)));
    assert_eq!(decode(&head(0x10)), Err(PacketError::Unknown("kind", 0x10)));
    assert_eq!(decode(&head(1)), Err(PacketError::Short("sequence")));
    assert_eq!(decode(&[&head(0)[..], &[9]].concat()), Err(PacketError::Unknown("rumour", 9)));
    let dead = [&head(0)[..], &[5], &[0; 16], &[0]].concat();
    assert_eq!(decode(&dead), Err(PacketError::Count("number of accusations", 0)));
    let dead = [&head(0)[..], &[5], &[0; 16], &[5]].concat();
    assert_eq!(decode(&dead), Err(PacketError::Count("number of accusations", 5)));
    let alive = [&head(0)[..], &[1], &[0; 32], &[0xff, 0xff]].concat();
    assert_eq!(decode(&alive), Err(PacketError::Count("length of a record", 65_535)));
    assert_eq!(decode(&[0; PACKET_BYTES_MAX + 1]), Err(PacketError::TooLarge(PACKET_BYTES_MAX + 1)));
}

proptest! {
    /// Total and exact: no bytes make the reader fail but with an error, and what it reads is written as it was.
    #[test]
    fn any_bytes_are_refused_or_read_exactly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let all = |short: ShortId| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&short.0.to_be_bytes());
            Some(NodeId::from_public_key(key))
        };
        if let Ok(packet) = Packet::decode(&bytes, &all) {
            prop_assert_eq!(packet.encode(), bytes);
        }
    }

    /// The same with bytes that are nearly right: one byte of a real packet is another, or its end is missing.
    #[test]
    fn damaged_packets_are_refused_or_read_exactly(
        which in 0usize..7, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let all = |short: ShortId| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&short.0.to_be_bytes());
            resolve(short).or(Some(NodeId::from_public_key(key)))
        };
        let whole = samples()[which].encode();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(packet) = Packet::decode(&bytes, &all) {
            prop_assert_eq!(packet.encode(), bytes.clone());
            // What was signed is covered by the signatures; the head is covered by the seal.
            let opened = packet.open(&network());
            let head = head_bytes(&samples()[which].body);
            prop_assert!(opened.is_err() || bytes == whole || at < head || cut || whole.len() < head + 20);
        }
    }
}
