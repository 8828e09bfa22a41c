//! The bytes of what replicas say to each other in passing.

use super::*;

/// One line of hexadecimal. Changing it changes what other nodes understand.
const VECTOR: &str = include_str!("../../tests/vectors/ephemeral.v1.hex");

fn tag() -> DocTag {
    DocTag::from_bytes([0xd0; 16])
}

#[test]
fn presence_is_written_as_ever() {
    let message = Message::Ephemeral {
        sender: "ann".parse().unwrap(),
        session: "k2f9".parse().unwrap(),
        count: 1 << 40,
        data: ByteBuf::from([0xa1, 0x61, 0x78, 0x07]),
    };
    let bytes = frame(&tag(), &message);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, VECTOR.trim());
    let (read, body) = split(&bytes).unwrap();
    assert_eq!((read, cbor::decode::<Message>(body, FRAME_BYTES_MAX)), (tag(), Ok(message)));
}

#[test]
fn a_name_that_is_empty_or_too_long_is_no_presence() {
    for (sender, session) in [(String::new(), "x".to_owned()), ("x".to_owned(), "x".repeat(257))] {
        // As one writes it who does not keep to the types.
        let value = |text: &str| ciborium::Value::Text(text.to_owned());
        let fields = [
            (value("sender"), value(&sender)),
            (value("session"), value(&session)),
            (value("count"), 1.into()),
            (value("data"), ciborium::Value::Bytes(vec![1])),
        ];
        let message = ciborium::Value::Map(vec![(value("Ephemeral"), ciborium::Value::Map(fields.to_vec()))]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&message, &mut bytes).unwrap();
        assert!(cbor::decode::<Message>(&bytes, FRAME_BYTES_MAX).is_err());
    }
}

#[test]
fn what_may_hold_changes_is_known_before_it_is_read() {
    let part = Message::Part { transfer: 1, part: 0, parts: 1, bytes: ByteBuf::new() };
    assert!(!holds_no_changes(&cbor::encode(&part)));
    let summary =
        Message::Summary { control: ByteArray::default(), heads: Vec::new(), feeds: ByteArray::default() };
    let prune = Message::Prune { authors: Vec::new() };
    for message in [summary, prune, Message::Hello { nonce: Nonce::default() }] {
        assert!(holds_no_changes(&cbor::encode(&message)), "{message:?}");
    }
    // The same name as one that is written in pieces, or with a length that could be shorter.
    for other in [&b"\xa1\x7f\x64Part\xff"[..], b"\xa1\x78\x04Part", b"\xbf\x64Part", b"\xa1", b""] {
        assert!(!holds_no_changes(other), "{other:?}");
    }
}

#[test]
fn all_changes_of_a_message_are_those_of_a_transfer_in_one_part() {
    let changes = Payload { vouches: Vec::new(), chunks: vec![ByteBuf::from(vec![7; 9])] };
    let part = |parts: u32, bytes: Vec<u8>| {
        cbor::encode(&Message::Part { transfer: 1, part: 0, parts, bytes: ByteBuf::from(bytes) })
    };
    assert_eq!(all_changes(&part(1, cbor::encode(&changes))), Some(changes.clone()));
    assert_eq!(all_changes(&part(2, cbor::encode(&changes))), None);
    assert_eq!(all_changes(&part(1, vec![0xff])), None);
    assert_eq!(all_changes(&cbor::encode(&Message::Hello { nonce: Nonce::default() })), None);
}
