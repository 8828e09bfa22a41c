//! Golden vectors: the bytes of everything that travels or is kept, with what they mean.
//!
//! A vector is a file under `tests/vectors/`: a line of hexadecimal (or the text itself where the format is
//! text), then the decoded value. Changing one changes what older nodes understand: it needs a new version,
//! and `UPDATE=1` to write the new file. The vectors of old versions stay and must decode.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::{ByteArray, ByteBuf};
use wattle_net::datagrams::{BootKey, Sealer};
use wattle_order::catch_up::{Answer as RangeAnswer, Range};
use wattle_order::payloads::Message as PayloadMessage;
use wattle_order::{BlockId, ChainId, Digest, Entry as LogEntry, Epoch, Height, Message as OrderMessage};
use wattle_swim::{
    Body, Claim, Coordinate, Description, Entry, Incarnation, Message, More, Packet, Reach, Rumor, ShortId,
    Signed, Version,
};
use wattle_types::{
    ContentHash, DocAccess, DocId, Domain, Endpoint, Envelope, NetworkKey, NetworkName, ProviderKey,
    ReadSecret, Record, RecordBody, RecordKey, SecretKey, Ticket, TicketDocument, TopicMessage, TraceContext,
    UnixTime, cbor,
};
use wattle_weave::order::{Answer, Ask, Frame};

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn alice() -> SecretKey {
    SecretKey::from_bytes(&[0xa1; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds `encoded` and its meaning to the vector `name`.
fn golden(name: &str, encoded: &str, decoded: &impl Debug) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let now = format!("{encoded}\n{decoded:#?}\n");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, golden, "{name} changed: that is a new wire version (UPDATE=1 writes it)");
}

#[test]
fn ids_and_keys_are_spelled_as_ever() {
    let (id, network) = (alice().node_id(), NetworkName::default());
    golden("node_id.v1.txt", &hex(&id.to_peer_id_bytes()), &id.to_string());
    let hash = RecordKey::Hash(ContentHash::of(b"hello"));
    golden("record_key_hash.v1.txt", &hash.to_path(&network), &hash);
    let signed = RecordKey::Signed { owner: id, name: "greeting".parse().unwrap() };
    golden("record_key_signed.v1.txt", &signed.to_path(&network), &signed);
    let name = ProviderKey::of_name(&network, &"greeting".parse().unwrap());
    golden("provider_key_name.v1.txt", &hex(name.as_bytes()), &"the name \"greeting\" in the network wattle");
}

#[test]
fn a_signed_record_is_written_as_ever() {
    let network = NetworkName::default();
    let expires = NOW.after(Duration::from_secs(3600));
    let name = "greeting".parse().unwrap();
    let record = Record::sign(&alice(), &network, name, 7, expires, b"hello").unwrap();
    golden("record_signed.v1.txt", &hex(record.value()), &record);
    let key = record.key_bytes(&network);
    assert_eq!(Record::check(&network, &key, record.value(), NOW), Ok(record));
}

#[test]
fn an_envelope_is_written_as_ever() {
    let body = RecordBody {
        key: ByteBuf::from(*b"/wattle/signed/x"),
        sequence: u64::MAX,
        expires: NOW,
        payload: ByteBuf::from([0, 255]),
    };
    let envelope = Envelope::seal(&alice(), Domain::Record, &NetworkName::default(), &body);
    golden("envelope.v1.txt", &hex(&cbor::encode(&envelope)), &body);
    let read: Envelope = cbor::decode(&cbor::encode(&envelope), 1024).unwrap();
    assert_eq!(read.open::<RecordBody>(Domain::Record, &NetworkName::default()).unwrap().value(), &body);
}

#[test]
fn topic_messages_are_written_as_ever() {
    let plain = TopicMessage {
        topic: "sensors.kitchen".parse().unwrap(),
        payload: ByteBuf::from(*b"21.5"),
        reply_to: None,
        trace: None,
    };
    golden("topic_message.v1.txt", &hex(&cbor::encode(&plain)), &plain);
    let trace = TraceContext { trace_id: ByteArray::new([1; 16]), span_id: ByteArray::new([2; 8]) };
    let reply_to = Some("sensors._reply.x".parse().unwrap());
    let request = TopicMessage { reply_to, trace: Some(trace), ..plain.clone() };
    golden("topic_request.v1.txt", &hex(&cbor::encode(&request)), &request);
    for message in [plain, request] {
        assert_eq!(cbor::decode(&cbor::encode(&message), 4096), Ok(message));
    }
}

#[test]
fn tickets_are_written_as_ever() {
    let endpoint = |ip: &str| Endpoint { ip: ip.parse().unwrap(), port: 7710, quic: true, tcp: true };
    let public = Ticket {
        network: NetworkName::default(),
        network_key: None,
        document: None,
        inviter: alice().node_id(),
        endpoints: vec![endpoint("192.168.1.5"), endpoint("81.2.69.142"), endpoint("10.0.0.4")],
        expires: NOW,
    };
    let private = Ticket {
        network: "home-lab".parse().unwrap(),
        network_key: Some(NetworkKey::from_bytes([0x11; 32])),
        document: None,
        endpoints: vec![endpoint("fd00::1")],
        ..public
    };
    let access = DocAccess {
        id: DocId::of_owner(&alice().node_id()),
        read: ReadSecret::from_bytes([0x22; 16]),
        owner: None,
    };
    let document = Some(TicketDocument { access, bearer: [0x33; 16] });
    let to_document = Ticket { document, ..public.clone() };
    for (name, ticket) in [
        ("ticket_public.v1.txt", public),
        ("ticket_private.v1.txt", private),
        ("ticket_document.v1.txt", to_document),
    ] {
        let text = ticket.to_text(&alice());
        golden(name, &text, &ticket);
        assert_eq!(text.parse(), Ok(ticket));
    }
}

fn bob() -> SecretKey {
    SecretKey::from_bytes(&[0xb0; 32])
}

fn carol() -> SecretKey {
    SecretKey::from_bytes(&[0xca; 32])
}

/// The run began in 2027, and refuted three times.
const INCARNATION: Incarnation = Incarnation::from_u64(0x6b49_d200_0000_0003);

fn says(key: &SecretKey, claim: &Claim) -> Arc<Signed> {
    Arc::new(Signed::seal(key, &NetworkName::default(), claim).unwrap())
}

fn record() -> Arc<Signed> {
    let description = Description {
        name: "attic".to_owned(),
        roles: ["relay".to_owned()].into(),
        addresses: vec!["/ip4/192.168.1.5/udp/7710/quic-v1".to_owned()],
        udp_port: 7711,
        boot_key: ByteArray::new([0x44; 32]),
        reach: Reach::Anchored,
        anchors: vec![carol().node_id()],
        tags: [("zone".to_owned(), "home".to_owned())].into(),
    };
    says(&bob(), &Claim::Alive { incarnation: INCARNATION, description })
}

fn accusations() -> Vec<Arc<Signed>> {
    let claim = Claim::Suspect { subject: bob().node_id(), incarnation: INCARNATION };
    vec![says(&alice(), &claim), says(&carol(), &claim)]
}

fn removal() -> Arc<Signed> {
    says(&carol(), &Claim::Remove { subject: bob().node_id(), incarnation: INCARNATION })
}

/// What a packet is for, and what it tells.
type Told = (Body, Vec<Rumor<Arc<Signed>>>);

#[test]
fn packets_of_members_are_written_as_ever() {
    let coordinate = Coordinate { axes: [1, -2, 3000, -4000], height: 100, error: 250 };
    let more = Some(More { coordinate, root: 0x0102_0304_0506_0708 });
    let target = ShortId::of(&bob().node_id());
    let refute = says(&bob(), &Claim::Refute { incarnation: INCARNATION });
    let leave = says(&bob(), &Claim::Leave { incarnation: INCARNATION });
    let first = Arc::clone(&accusations()[0]);
    let tells = |claim| (Body::Gossip, vec![Rumor::Claim(claim)]);
    let samples: [(&str, Told); 13] = [
        ("ping", (Body::Ping { sequence: 7, more: false }, vec![])),
        ("ping_more", (Body::Ping { sequence: 7, more: true }, vec![])),
        ("ping_request", (Body::PingRequest { sequence: 8, target, patience_ms: 150 }, vec![])),
        ("ack", (Body::Ack { sequence: 7, more: None }, vec![])),
        ("ack_more", (Body::Ack { sequence: 7, more }, vec![])),
        ("nack", (Body::Nack { sequence: 8 }, vec![])),
        ("alive", tells(record())),
        ("refute", tells(refute)),
        ("suspect", tells(first)),
        ("leave", tells(leave)),
        ("remove", tells(removal())),
        ("dead", (Body::Gossip, vec![Rumor::Dead(accusations())])),
        ("ask", (Body::Gossip, vec![Rumor::Ask(target)])),
    ];
    let known = [alice(), bob(), carol()].map(|key| key.node_id());
    let resolve = |short| known.into_iter().find(|id| ShortId::of(id) == short);
    for (name, (body, rumors)) in samples {
        let packet = Packet { stamp: INCARNATION.stamp(), body, rumors };
        let bytes = packet.encode();
        golden(&format!("member_packet_{name}.v1.txt"), &hex(&bytes), &packet);
        assert_eq!(
            Packet::decode(&bytes, &resolve).unwrap().open(&NetworkName::default()),
            Ok(packet),
            "{name}"
        );
    }
}

#[test]
fn messages_of_members_are_written_as_ever() {
    let entry = |removal| Entry {
        record: record(),
        since: Some(says(&bob(), &Claim::Refute { incarnation: INCARNATION })),
        accusations: accusations(),
        removal,
        age_s: 90,
    };
    let version = Version(ShortId::of(&bob().node_id()), INCARNATION, 1, 90);
    let mut mask = [0; 32];
    mask[3] = 0x81;
    let want = vec![ShortId(9)];
    let samples: [(&str, Message<Arc<Signed>>); 6] = [
        ("hello", Message::Hello { record: record(), root: u64::MAX }),
        ("same", Message::Same),
        ("buckets", Message::Buckets { hashes: ByteBuf::from([0x0f; 2048]) }),
        ("versions", Message::Versions { mask: ByteArray::new(mask), entries: vec![version] }),
        ("records", Message::Records { records: vec![entry(None)], want: want.clone() }),
        ("records_removed", Message::Records { records: vec![entry(Some(removal()))], want }),
    ];
    for (name, message) in samples {
        let bytes = message.clone().encode();
        golden(&format!("members_message_{name}.v1.txt"), &hex(&bytes), &message);
        assert_eq!(Message::decode(&bytes).unwrap().open(&NetworkName::default()), Ok(message), "{name}");
    }
}

#[test]
fn datagrams_of_members_are_sealed_as_ever() {
    let network = NetworkName::default();
    let (here, there) = (BootKey::from_bytes([0x11; 32]), BootKey::from_bytes([0x22; 32]));
    let (alice, bob) = (alice().node_id(), bob().node_id());
    let from = Sealer::new(&network, (&alice, &here), (&bob, &there.public()));
    let mut to = Sealer::new(&network, (&bob, &there), (&alice, &here.public()));
    let sealed = from.seal(0x01_0203_0405, b"ping");
    golden("member_datagram_sealed.v1.txt", &hex(&sealed), &"number 0x0102030405 of alice to bob: ping");
    assert_eq!(to.open(&sealed), Some((0x01_0203_0405, b"ping".to_vec())));
    assert_eq!(to.open(&sealed), None, "once");
    golden("member_datagram_who.v1.txt", &hex(&from.who(7)), &"alice could not read number 7");
}

#[test]
fn frames_of_the_ordered_log_are_written_as_ever() {
    let chain = ChainId::from_bytes([0xc4; 32]);
    let entry = LogEntry { app: "note/1".to_owned(), data: ByteBuf::from(b"hello"), until: NOW, salt: 7 };
    let bytes = entry.encode();
    golden("order_entry.v1.txt", &hex(&bytes), &entry);
    assert_eq!(LogEntry::decode(&bytes), Ok(entry));
    let fetch = OrderMessage::Fetch { block: BlockId::from_bytes([0xb1; 32]), above: Height(411) };
    let frames = [
        ("hello", Frame::Hello(chain)),
        ("message", Frame::Message(Box::new(fetch))),
        ("payload", Frame::Payload(PayloadMessage::Entries(vec![ByteBuf::from(bytes.clone())]))),
    ];
    for (name, frame) in frames {
        let bytes = frame.encode();
        golden(&format!("order_frame_{name}.v1.txt"), &hex(&bytes), &frame);
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{name}");
    }
    let asks = [
        ("blocks", Ask::Blocks { chain, above: Height(411), wait_ms: 20_000 }),
        ("range", Ask::Range { chain, range: Range { epoch: Epoch(1), above: Height(411), count: 64 } }),
        ("batch", Ask::Batch { chain, batch: Digest::from_bytes([0xd1; 32]) }),
        ("submit", Ask::Submit { chain, entries: vec![ByteBuf::from(bytes.clone())] }),
        ("snapshot", Ask::Snapshot { chain }),
        ("piece", Ask::Piece { chain, piece: Digest::from_bytes([0xd2; 32]) }),
    ];
    for (name, ask) in asks {
        let bytes = ask.encode();
        golden(&format!("order_ask_{name}.v1.txt"), &hex(&bytes), &ask);
        assert_eq!(Ask::decode(&bytes), Ok(ask), "{name}");
    }
    let answers = [
        ("blocks", Answer::Blocks { blocks: Vec::new(), end: None, height: Height(411) }),
        ("range", Answer::Range(RangeAnswer { blocks: Vec::new(), end: None })),
        ("batch", Answer::Batch(Some(vec![ByteBuf::from(bytes.clone())]))),
        ("compacted", Answer::Compacted(Height(400))),
        ("snapshot_none", Answer::Snapshot(None)),
        ("piece", Answer::Piece(Some(ByteBuf::from(bytes)))),
        ("piece_lacking", Answer::Piece(None)),
        ("batch_lacking", Answer::Batch(None)),
        ("taken", Answer::Taken),
        ("refused", Answer::Refused("this node does not vote".to_owned())),
    ];
    for (name, answer) in answers {
        let bytes = answer.encode();
        golden(&format!("order_answer_{name}.v1.txt"), &hex(&bytes), &answer);
        assert_eq!(Answer::decode(&bytes), Ok(answer), "{name}");
    }
}
