//! The decoders that strangers reach, each as a function of bytes that must never panic.
//!
//! `tests/fuzz/` runs them under libFuzzer; `tests/fuzz_corpus.rs` replays the corpus that it found in every test run. Each target
//! also holds what decodes to what it promises: the one spelling, the caps.

use wattle_types::limits::{RECORD_PAYLOAD_BYTES_MAX, TICKET_ENDPOINTS_MAX, TOPIC_MESSAGE_BYTES_MAX};
use wattle_types::{
    NetworkName, NodeId, Record, RecordKey, Ticket, TopicMessage, TopicPattern, UnixTime, cbor,
};

/// A target: its name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("record", record),
    ("record_key", record_key),
    ("ticket", ticket),
    ("topic_message", topic_message),
    ("words", words),
];

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// A record as a peer sends it: one byte of key length, the key, the value.
pub fn record(bytes: &[u8]) {
    let network = NetworkName::default();
    let Some((length, rest)) = bytes.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(*length)) else { return };
    if let Ok(record) = Record::check(&network, key, value, NOW) {
        assert_eq!(record.key_bytes(&network), key, "a record knows its key");
        assert_eq!(record.value(), value, "a record is stored as it came");
        assert!(record.payload().len() <= RECORD_PAYLOAD_BYTES_MAX, "a payload is capped");
    }
}

/// A key as a peer sends it.
pub fn record_key(bytes: &[u8]) {
    let network = NetworkName::default();
    if let Ok(key) = RecordKey::from_bytes(&network, bytes) {
        assert_eq!(key.to_bytes(&network), bytes, "a key has one spelling");
    }
}

/// A ticket as somebody pastes it.
pub fn ticket(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ticket) = Ticket::read(text, NOW) {
        assert!(ticket.endpoints.len() <= TICKET_ENDPOINTS_MAX, "endpoints are capped");
        assert!(ticket.expires > NOW, "an expired ticket is refused");
    }
}

/// A gossip message as a peer sends it.
pub fn topic_message(bytes: &[u8]) {
    if let Ok(message) = cbor::decode::<TopicMessage>(bytes, TOPIC_MESSAGE_BYTES_MAX) {
        assert_eq!(cbor::encode(&message), bytes, "a message has one spelling");
    }
}

/// The words that people type: ids, topics, patterns.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id), "an id survives its text");
    }
    if let (Ok(pattern), Ok(topic)) = (text.parse::<TopicPattern>(), text.parse()) {
        assert!(pattern.matches(&topic), "a topic matches itself");
    }
}
