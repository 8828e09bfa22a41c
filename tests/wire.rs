//! Golden vectors: the bytes of everything that travels or is kept, with what they mean.
//!
//! A vector is a file under `tests/vectors/`: a line of hexadecimal (or the text itself where the format is
//! text), then the decoded value. Changing one changes what older nodes understand: it needs a new version,
//! and `UPDATE=1` to write the new file. The vectors of old versions stay and must decode.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{
    ContentHash, DocAccess, DocId, Domain, Endpoint, Envelope, NetworkKey, NetworkName, ProviderKey,
    ReadSecret, Record, RecordBody, RecordKey, SecretKey, Ticket, TicketDocument, TopicMessage, TraceContext,
    UnixTime, cbor,
};

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
