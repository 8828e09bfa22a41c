//! The decoders that strangers reach, and the door of the API, each as a function of bytes that must never
//! panic: what peers send, what people type and paste, what local programs ask.
//!
//! `tests/fuzz/` runs them under libFuzzer; `tests/fuzz_corpus.rs` replays the corpus that it found in every
//! test run. Each target also holds what decodes to what it promises: the one spelling, the caps.

mod apps;
mod documents;
mod members;
mod order;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;
use wattle::api::documents::{
    BlockRequest, ConnectRequest, DhtFindPeerRequest, DhtProvideRequest, DhtProvidersRequest, DhtPutRequest,
    DhtTargetRequest, DisconnectRequest, DocFieldRequest, DocImportRequest, DocJoinRequest, DocNewRequest,
    DocRemoveRequest, DocShareRequest, DocTextRequest, FaultsRequest, InviteRequest, JoinRequest,
    LogLevelRequest, MembersRemoveRequest, NameRequest, NickRequest, OrderJoinRequest, OrderSubmitRequest,
    OrderVerifyRequest, PingRequest, PublishRequest, RegisterAppendRequest, RoomNewRequest, RoomTopicRequest,
    SayRequest, SessionRequest, StopRequest, TokenNewRequest, TokenRevokeRequest, TopicQuestionRequest,
};
use wattle::api::{Access, Door, Gate, Guard, check_key, check_name, gate_only};
use wattle::config::{Config, Sources};
use wattle_net::{Address, Reach, read_kademlia_answer};
use wattle_store::{Owner, Store};
use wattle_types::limits::{
    ADDRESSES_PER_PEER_MAX, RECORD_PAYLOAD_BYTES_MAX, TICKET_ENDPOINTS_MAX, TOPIC_MESSAGE_BYTES_MAX,
};
use wattle_types::{
    NetworkName, NodeId, Record, RecordKey, Ticket, TopicMessage, TopicPattern, UnixTime, cbor,
};

/// A target: its name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 25] = [
    ("bodies", bodies),
    ("chunk", documents::chunk),
    ("config", config),
    ("document_change", documents::document_change),
    ("document_frames", documents::document_frames),
    ("file", documents::file),
    ("genesis", order::genesis),
    ("http", http),
    ("kademlia_answer", kademlia_answer),
    ("log_answer", order::log_answer),
    ("log_ask", order::log_ask),
    ("log_frames", order::log_frames),
    ("member_datagram", members::member_datagram),
    ("member_message", members::member_message),
    ("member_packet", members::member_packet),
    ("receipt", order::receipt),
    ("record", record),
    ("record_key", record_key),
    ("register", apps::register),
    ("repo_message", documents::repo_message),
    ("room", apps::room),
    ("sync_message", documents::sync_message),
    ("ticket", ticket),
    ("topic_message", topic_message),
    ("words", words),
];

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// Several inputs in one: each behind a byte that says how it is meant, and its length in two bytes.
fn parts(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    let next = move || {
        let ([how, high, low], behind) = rest.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (part, behind) = behind.split_at(length);
        rest = behind;
        Some((*how, part))
    };
    std::iter::from_fn(next).take(16)
}

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

/// The words that people type: ids, topics, patterns, addresses, keys, petnames.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address), "an address survives its text");
    }
    // Whether it is a key or a name does not matter here; that the answer comes without a panic does.
    let _key = check_key(&NetworkName::default(), text);
    let _name = check_name(text);
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id), "an id survives its text");
    }
    if let (Ok(pattern), Ok(topic)) = (text.parse::<TopicPattern>(), text.parse()) {
        assert!(pattern.matches(&topic), "a topic matches itself");
    }
}

/// What a peer answers to a question of a trace.
pub fn kademlia_answer(bytes: &[u8]) {
    if let Ok(named) = read_kademlia_answer(bytes, Reach::Global) {
        assert!(named.len() <= 20, "k peers are taken from an answer");
        for (_, addresses) in named {
            assert!(addresses.len() <= ADDRESSES_PER_PEER_MAX, "addresses are capped");
            let local = |address: &Address| address.reach() != Reach::Global;
            assert!(!addresses.iter().any(local), "a stranger names no address of this network");
        }
    }
}

/// A config file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let draft = Some((Path::new("config.toml"), text));
    match Config::load(&Sources { draft, ..Sources::default() }) {
        Ok(config) => {
            let limits = config.settings.connections;
            assert!(limits.low_water <= limits.high_water, "low water is not above high water");
        }
        Err(problems) => assert!(!problems.document().message.is_empty(), "a problem is said"),
    }
}

/// The bodies of the API's requests.
pub fn bodies(bytes: &[u8]) {
    body::<BlockRequest>(bytes);
    body::<ConnectRequest>(bytes);
    body::<DhtFindPeerRequest>(bytes);
    body::<DhtProvideRequest>(bytes);
    body::<DhtProvidersRequest>(bytes);
    body::<DhtPutRequest>(bytes);
    body::<DhtTargetRequest>(bytes);
    body::<DisconnectRequest>(bytes);
    body::<DocFieldRequest>(bytes);
    body::<DocImportRequest>(bytes);
    body::<DocJoinRequest>(bytes);
    body::<DocNewRequest>(bytes);
    body::<DocRemoveRequest>(bytes);
    body::<DocShareRequest>(bytes);
    body::<DocTextRequest>(bytes);
    body::<FaultsRequest>(bytes);
    body::<InviteRequest>(bytes);
    body::<JoinRequest>(bytes);
    body::<LogLevelRequest>(bytes);
    body::<MembersRemoveRequest>(bytes);
    body::<NameRequest>(bytes);
    body::<NickRequest>(bytes);
    body::<OrderJoinRequest>(bytes);
    body::<OrderSubmitRequest>(bytes);
    body::<OrderVerifyRequest>(bytes);
    body::<PingRequest>(bytes);
    body::<PublishRequest>(bytes);
    body::<RegisterAppendRequest>(bytes);
    body::<RoomNewRequest>(bytes);
    body::<RoomTopicRequest>(bytes);
    body::<SayRequest>(bytes);
    body::<SessionRequest>(bytes);
    body::<StopRequest>(bytes);
    body::<TokenNewRequest>(bytes);
    body::<TokenRevokeRequest>(bytes);
    body::<TopicQuestionRequest>(bytes);
}

#[expect(clippy::expect_used, reason = "a document that cannot be written is what is looked for")]
fn body<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).expect("a request can be written");
    let again: T = serde_json::from_slice(&written).expect("and read again");
    assert_eq!(
        serde_json::to_vec(&again).expect("and written again"),
        written,
        "a request survives its text"
    );
}

/// The doors of the API: the guard, and the routes that need no overlay with their bodies.
struct Api {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
    access: Arc<Access>,
}

#[expect(clippy::expect_used, reason = "without an API there is nothing to fuzz")]
static API: LazyLock<Api> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let home = tempfile::tempdir().expect("a directory");
    let store = Store::open(home.path(), Owner::this_process("fuzz")).expect("a store");
    let access = Arc::new(Access::open(Arc::new(store)).expect("the tokens"));
    // Statics are never dropped: the files are open, and their names go now.
    home.close().expect("the directory goes");
    let id = NodeId::from_public_key([7; 32]);
    let guard = Arc::new(Guard::new(Arc::clone(&access), id, vec!["node.home".to_owned()], false));
    let router = gate_only(Arc::new(Gate { guard, id, url: None }));
    Api { runtime, router, access }
});

/// A request: method and target, header lines, an empty line, the body. A stranger sends it to the TCP door,
/// then this user to the socket.
pub fn http(bytes: &[u8]) {
    send(bytes, Door::Tcp { port: 7711 });
    assert!(API.access.tokens(NOW).is_empty(), "a stranger made a token");
    send(bytes, Door::Socket);
    for token in API.access.tokens(NOW) {
        // Ignored because one that is gone is what is wanted.
        drop(API.runtime.block_on(API.access.revoke(&token.id)));
    }
}

fn send(bytes: &[u8], door: Door) {
    let head = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(head);
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next().unwrap_or_default().splitn(2, |byte| *byte == b' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut request = Request::builder().method(method).uri(target).extension(door);
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        request = request.header(name, value.trim_ascii());
    }
    let Ok(request) = request.body(Body::from(body.get(2..).unwrap_or_default().to_vec())) else { return };
    let (uri, method) = (request.uri().path().to_owned(), request.method().clone());
    let Ok(answer) = API.runtime.block_on(API.router.clone().oneshot(request));
    assert!(!answer.status().is_server_error(), "{} at {method} {uri}", answer.status());
}
