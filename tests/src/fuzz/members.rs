//! What members send each other: sealed datagrams, the packets in them, messages over streams.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_bytes::ByteArray;
use wattle_swim::{
    Claim, Config, Description, Incarnation, Input, Message, Output, PACKET_BYTES_MAX, Packet, RawClaim,
    Reach, ShortId, Signed, Swim, Timing,
};
use wattle_types::{Envelope, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Time, UnixTime, cbor};

/// Members whose keys are known, so that what they sign in the corpus holds.
pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn description() -> Description {
    Description {
        name: String::new(),
        roles: std::collections::BTreeSet::new(),
        addresses: vec!["/ip4/10.0.0.1/udp/7710/quic-v1".to_owned()],
        udp_port: 7711,
        boot_key: ByteArray::new([4; 32]),
        reach: Reach::Public,
        anchors: Vec::new(),
        tags: std::collections::BTreeMap::new(),
    }
}

/// The records of members 1 to 4, of the epoch 9.
static RECORDS: LazyLock<Vec<Arc<Signed>>> = LazyLock::new(|| {
    let claim = Claim::Alive { incarnation: Incarnation::of_epoch(9), description: description() };
    let sign = |seed| Signed::seal(&key(seed), &NetworkName::default(), &claim).map(Arc::new);
    (1..=4).filter_map(sign).collect()
});

/// A machine in the middle of its life that knows four members, one of them suspect.
fn machine() -> (Swim, Time) {
    let (network, started) = (NetworkName::default(), UnixTime::from_millis(0));
    let config = Config::new(key(9), network, [3; 32], started, description(), Timing::lan());
    #[expect(clippy::expect_used, reason = "without a machine there is nothing to fuzz")]
    let mut swim = Swim::new(config.expect("a configuration"), &wattle_swim::Memory::default());
    let mut now = Time::ZERO;
    step(&mut swim, now, Input::Wake);
    for record in RECORDS.iter() {
        let (from, record) = (record.author(), Arc::clone(record));
        step(&mut swim, now, Input::Message { from, message: Message::Hello { record, root: 1 } });
    }
    for _ in 0..8 {
        now = swim.deadline().unwrap_or(now).max(now).after(Duration::from_micros(1));
        step(&mut swim, now, Input::Wake);
    }
    (swim, now)
}

/// Gives a machine an input, and lets its disk work at once.
fn step(swim: &mut Swim, now: Time, input: Input) {
    let mut out = Outbox::new();
    swim.handle(now, input, &mut out);
    let outputs: Vec<Output> = out.drain().collect();
    for output in outputs {
        match output {
            Output::Packet { bytes, .. } => assert!(bytes.len() <= PACKET_BYTES_MAX, "a packet is capped"),
            Output::Message { bytes, .. } => {
                assert!(bytes.len() <= wattle_swim::STREAM_BYTES_MAX, "a message is capped");
            }
            Output::Persist { id, .. } => step(swim, now, Input::Persisted { id }),
            _ => {}
        }
    }
    swim.check_invariants();
}

/// Some of what follows from an input.
fn live_on(swim: &mut Swim, mut now: Time) {
    for _ in 0..4 {
        now = swim.deadline().unwrap_or(now).max(now);
        step(swim, now, Input::Wake);
    }
}

/// What was inside a datagram of member 1.
pub(super) fn member_packet(bytes: &[u8]) {
    let whoever = |short: ShortId| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&short.0.to_be_bytes());
        Some(NodeId::from_public_key(id))
    };
    let Ok(packet) = Packet::<RawClaim>::decode(bytes, &whoever) else { return };
    assert_eq!(packet.encode(), bytes, "a packet has one spelling");
    let (mut swim, now) = machine();
    let known = Packet::<RawClaim>::decode(bytes, &|short| swim.resolve(short));
    assert!(known.is_ok(), "who is known changes what is left out, not what is a packet");
    let Ok(packet) = known else { return };
    let Ok(packet) = packet.open(&NetworkName::default()) else { return };
    step(&mut swim, now, Input::Packet { from: key(1).node_id(), packet });
    live_on(&mut swim, now);
}

/// A frame of the members' stream of member 1.
pub(super) fn member_message(bytes: &[u8]) {
    let Ok(message) = Message::<Envelope>::decode(bytes) else { return };
    assert_eq!(cbor::encode(&message), bytes, "a message has one spelling");
    let Ok(message) = message.open(&NetworkName::default()) else { return };
    let (mut swim, now) = machine();
    step(&mut swim, now, Input::Message { from: key(1).node_id(), message });
    live_on(&mut swim, now);
}

/// A datagram as it arrives, then as what a member sealed: a number, and what is inside.
pub(super) fn member_datagram(bytes: &[u8]) {
    use wattle_net::datagrams::{BootKey, Sealer};
    let network = NetworkName::default();
    let (here, there) = (BootKey::from_bytes([0x11; 32]), BootKey::from_bytes([0x22; 32]));
    let (alice, bob) = (key(1).node_id(), key(2).node_id());
    let from = Sealer::new(&network, (&alice, &here), (&bob, &there.public()));
    let mut to = Sealer::new(&network, (&bob, &there), (&alice, &here.public()));
    if let Some((number, inside)) = to.open(bytes) {
        assert_eq!(from.seal(number, &inside), bytes, "only what was sealed opens");
    }
    for record in bytes.chunks(16) {
        let Some((number, inside)) = record.split_first_chunk::<5>() else { continue };
        let mut wide = [0; 8];
        wide[3..].copy_from_slice(number);
        let number = u64::from_be_bytes(wide);
        let mut sealed = from.seal(number, inside);
        let opened = to.open(&sealed);
        assert!(opened.is_none_or(|it| it == (number, inside.to_vec())), "what opens is what was sealed");
        assert_eq!(to.open(&sealed), None, "nothing opens twice");
        if let Some(last) = sealed.last_mut() {
            *last ^= 1;
        }
        assert_eq!(to.open(&sealed), None, "what was touched does not open");
    }
}
