use ciborium::Value;
use ciborium::value::Integer;
use proptest::prelude::*;
use wattle_types::limits::CBOR_DEPTH_MAX;

use super::*;
use crate::chunk::inspect_sync;

/// A frame that automerge-repo 2.5.6 sent.
macro_rules! vector {
    ($name:literal) => {
        unhex(include_str!(concat!("../../tests/vectors/automerge-repo-2.5.6/", $name, ".hex")))
    };
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.trim().chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn vectors() -> Vec<Vec<u8>> {
    vec![
        vector!("client-join"),
        vector!("client-request"),
        vector!("client-sync"),
        vector!("client-sync-with-changes"),
        vector!("client-ephemeral"),
        vector!("client-remote-subscription-change"),
        vector!("server-peer"),
        vector!("server-error"),
        vector!("server-sync"),
        vector!("server-sync-with-changes"),
        vector!("server-doc-unavailable"),
        vector!("server-ephemeral"),
        vector!("server-remote-heads-changed"),
        vector!("large-ephemeral"),
        vector!("tagged-sync"),
    ]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| (text(name), value.clone())).collect())
}

fn frame(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// What a JavaScript program sees of a value: no tags, nothing that is undefined, fields in no order, and one
/// kind of number.
fn seen(value: Value) -> Value {
    match value {
        Value::Tag(_, inner) => seen(*inner),
        Value::Array(items) => Value::Array(items.into_iter().map(seen).collect()),
        Value::Float(number) if number.fract() == 0.0 => Value::Integer(Integer::from(number as u64)),
        Value::Map(fields) => {
            let mut fields: Vec<_> = fields
                .into_iter()
                .filter(|(_, value)| *value != Value::Null)
                .map(|(name, value)| (name, seen(value)))
                .collect();
            fields.sort_by(|one, other| one.0.as_text().cmp(&other.0.as_text()));
            Value::Map(fields)
        }
        other => other,
    }
}

fn read(frame: &[u8]) -> Value {
    seen(ciborium::from_reader(frame).unwrap())
}

fn id<T: std::str::FromStr<Err = InvalidText>>(text: &str) -> T {
    text.parse().unwrap()
}

#[test]
fn a_javascript_peer_joins_and_is_answered() {
    let Message::Join { sender, metadata, versions } = Message::decode(&vector!("client-join")).unwrap()
    else {
        panic!("no join");
    };
    assert_eq!((sender.as_str(), metadata.ephemeral), ("one", false));
    assert_eq!(metadata.storage.unwrap().as_str().len(), 36);
    assert_eq!(versions, [ProtocolVersion::one()]);
    let Message::Peer { sender, target, version, .. } = Message::decode(&vector!("server-peer")).unwrap()
    else {
        panic!("no peer");
    };
    assert_eq!((sender.as_str(), target.as_str()), ("reference-server", "one"));
    assert_eq!(version.as_str(), ProtocolVersion::ONE);
    let refused = Message::Error {
        sender: id("reference-server"),
        target: id("three"),
        reason: "unsupported protocol version".to_owned(),
    };
    assert_eq!(Message::decode(&vector!("server-error")), Ok(refused));
}

#[test]
fn documents_are_asked_for_synced_and_talked_about() {
    let Message::Request(request) = Message::decode(&vector!("client-request")).unwrap() else {
        panic!("no request")
    };
    assert_eq!((request.sender.as_str(), request.target.as_str()), ("two", "reference-server"));
    assert_eq!(inspect_sync(&request.data).unwrap().chunks.changes, 0);
    for frame in [vector!("client-sync"), vector!("server-sync"), vector!("tagged-sync")] {
        let Message::Sync(sync) = Message::decode(&frame).unwrap() else { panic!("no sync") };
        inspect_sync(&sync.data).unwrap();
    }
    for frame in [vector!("client-sync-with-changes"), vector!("server-sync-with-changes")] {
        let Message::Sync(sync) = Message::decode(&frame).unwrap() else { panic!("no sync") };
        let chunks = inspect_sync(&sync.data).unwrap().chunks;
        assert_eq!(chunks.documents + chunks.changes + chunks.compressed_changes, 1, "{chunks:?}");
        assert_eq!(sync.document, request.document);
    }
    let unavailable = Message::Unavailable {
        sender: id("reference-server"),
        target: id("two"),
        document: id("4NMNnkMhL8jXrdJ9jamS58PAVdXu"),
    };
    assert_eq!(Message::decode(&vector!("server-doc-unavailable")), Ok(unavailable));
    let Message::Ephemeral(said) = Message::decode(&vector!("client-ephemeral")).unwrap() else {
        panic!("not said")
    };
    let Message::Ephemeral(heard) = Message::decode(&vector!("server-ephemeral")).unwrap() else {
        panic!("not heard");
    };
    assert_eq!((said.sender.as_str(), said.count), ("one", 1));
    assert_eq!(heard, Ephemeral { target: id("two"), ..said }, "it is passed on as the first sender said it");
    let Message::Ephemeral(large) = Message::decode(&vector!("large-ephemeral")).unwrap() else {
        panic!("lost")
    };
    assert_eq!(large.count, 1 << 40, "a large count comes as a float");
}

#[test]
fn gossip_of_third_replicas_is_accepted() {
    let change = Message::decode(&vector!("client-remote-subscription-change")).unwrap();
    let expected = Message::RemoteSubscriptionChange { sender: id("two"), target: id("reference-server") };
    assert_eq!(change, expected);
    let heads = Message::decode(&vector!("server-remote-heads-changed")).unwrap();
    assert!(matches!(heads, Message::RemoteHeadsChanged { target, .. } if target == id("two")));
}

#[test]
fn what_is_written_says_what_javascript_said() {
    for frame in vectors() {
        let message = Message::decode(&frame).unwrap();
        let written = message.encode();
        assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
        match message {
            // Of the gossip only who and whom is kept, and heads are an empty map, over which JavaScript can walk.
            Message::RemoteSubscriptionChange { .. } => assert_eq!(read(&written).as_map().unwrap().len(), 3),
            Message::RemoteHeadsChanged { .. } => {
                let fields = read(&written).into_map().unwrap();
                assert!(fields.contains(&(text("newHeads"), Value::Map(vec![]))), "{fields:?}");
            }
            _ => assert_eq!(read(&written), read(&frame)),
        }
    }
    let leave = Message::Leave { sender: id("one") };
    assert_eq!(Message::decode(&leave.encode()), Ok(leave));
}

#[test]
fn every_spelling_of_cbor_is_read() {
    let leave = Ok(Message::Leave { sender: id("one") });
    // An indefinite map, keys and values in pieces, a tag before a text.
    let pieces = [
        b"\xbf\x7f\x62ty\x62pe\xff\x65leave".to_vec(),
        b"\x7f\x66sender\x62Id\xff\xd8\x2a\x7f\x61o\x62ne\xff\xff".to_vec(),
    ];
    assert_eq!(Message::decode(&pieces.concat()), leave);
    // Lengths in more bytes than they need, and fields nobody knows.
    let long = b"\xba\x00\x00\x00\x03\x79\x00\x04type\x78\x05leave\x61x\xf7\x68senderId\x63one";
    assert_eq!(Message::decode(long), leave);
    let data = b"\xa5\x64type\x64sync\x68senderId\x61a\x68targetId\x61b\x6adocumentId\x61d\x64data\x5f\x41\x01\x42\x02\x03\xff";
    assert!(matches!(Message::decode(data), Ok(Message::Sync(sync)) if sync.data == [1, 2, 3]));
    let bare = frame(&map(&[("type", text("join")), ("senderId", text("one"))]));
    let (metadata, versions) = (PeerMetadata::default(), vec![ProtocolVersion::one()]);
    assert_eq!(Message::decode(&bare), Ok(Message::Join { sender: id("one"), metadata, versions }));
}

#[test]
fn unknown_types_are_named_and_their_fields_are_not_believed() {
    let odd = map(&[("data", map(&[])), ("senderId", Value::Bool(true)), ("type", text("subduction"))]);
    assert_eq!(Message::decode(&frame(&odd)), Ok(Message::Unknown { kind: "subduction".to_owned() }));
    let long = map(&[("type", text(&"ä".repeat(500)))]);
    assert_eq!(Message::decode(&frame(&long)), Ok(Message::Unknown { kind: "ä".repeat(128) }));
    let written = Message::Unknown { kind: "subduction".to_owned() }.encode();
    assert_eq!(read(&written), map(&[("type", text("subduction"))]));
}

#[test]
fn what_is_no_message_is_refused() {
    let malformed = |bytes: &[u8]| matches!(Message::decode(bytes), Err(DecodeError::Malformed(_)));
    let with = |fields: &[(&str, Value)]| {
        let sync = [("type", text("sync")), ("senderId", text("a")), ("targetId", text("b"))];
        frame(&map(&[&sync[..], fields].concat()))
    };
    let (document, data) = (("documentId", text("d")), ("data", Value::Bytes(vec![1])));
    assert!(Message::decode(&with(&[document.clone(), data.clone()])).is_ok());
    let missing = DecodeError::Missing { kind: "sync", field: "data" };
    assert_eq!(Message::decode(&with(std::slice::from_ref(&document))), Err(missing.clone()));
    assert_eq!(Message::decode(&with(&[document.clone(), ("data", Value::Null)])), Err(missing));
    assert!(malformed(&with(&[document.clone(), ("data", text("text"))])));
    assert!(malformed(&with(&[document.clone(), ("data", Value::Array(vec![1.into()]))])));
    assert!(malformed(&with(&[document.clone(), data.clone(), data.clone()])), "twice");
    assert!(malformed(&with(&[("documentId", text("")), data.clone()])), "empty");
    assert!(malformed(&with(&[("documentId", text(&"d".repeat(257))), data.clone()])), "long");
    let trailing = [with(&[document, data]), vec![0, 0]].concat();
    assert_eq!(Message::decode(&trailing), Err(DecodeError::Trailing(2)));
    let unknown = [frame(&map(&[("type", text("x"))])), vec![0]].concat();
    assert_eq!(Message::decode(&unknown), Err(DecodeError::Trailing(1)));
    assert!(malformed(&[]) && malformed(b"\xa0") && malformed(b"\x80") && malformed(b"GET /"));
    let versions = Value::Array(vec![text("1"); 17]);
    let join = [("type", text("join")), ("senderId", text("a")), ("supportedProtocolVersions", versions)];
    assert!(malformed(&frame(&map(&join))));
    for count in [Value::Float(0.5), Value::Float(-1.0), Value::Float(1e300), Value::Integer((-1).into())] {
        let said = [("type", text("ephemeral")), ("senderId", text("a")), ("count", count)];
        assert!(malformed(&frame(&map(&said))), "{said:?}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let large = vec![0; FRAME_BYTES_MAX + 1];
    assert_eq!(
        Message::decode(&large),
        Err(DecodeError::TooLarge { got: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX })
    );
    let nested = |depth: usize| {
        let rest = b"\x64type\x65leave\x68senderId\x61a";
        [&b"\xa3\x61x"[..], &vec![0x81; depth], &[0], rest].concat()
    };
    assert!(Message::decode(&nested(CBOR_DEPTH_MAX - 1)).is_ok());
    assert!(matches!(Message::decode(&nested(CBOR_DEPTH_MAX)), Err(DecodeError::Malformed(_))));
    assert!(matches!(Message::decode(&nested(1_000_000)), Err(DecodeError::Malformed(_))));
    // A byte string that claims 2^62 bytes and has one.
    let claim = b"\xa2\x64type\x64sync\x64data\x5b\x40\x00\x00\x00\x00\x00\x00\x00\x01";
    assert!(matches!(Message::decode(claim), Err(DecodeError::Malformed(_))));
    let error = Message::Error { sender: id("a"), target: id("b"), reason: "ä".repeat(REASON_BYTES_MAX) };
    let Ok(Message::Error { reason, .. }) = Message::decode(&error.encode()) else { panic!("no error") };
    assert_eq!(reason.len(), REASON_BYTES_MAX, "what is for people is cut, not refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn mutated_frames_never_panic_and_what_is_read_can_be_written(
        vector in prop::sample::select(vectors()),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = vector;
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Message::decode(&bytes));
    }
}
