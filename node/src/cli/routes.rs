//! Where in the API each question is asked. One table, so that the paths stand in one place.

use super::client::part;

pub(super) const STATUS: &str = "/api/v1/status";
pub(super) const VERSION: &str = "/api/v1/version";
pub(super) const HEALTH: &str = "/api/v1/health";
pub(super) const ID: &str = "/api/v1/id";
pub(super) const STOP: &str = "/api/v1/stop";
pub(super) const LOGS: &str = "/api/v1/logs";
pub(super) const LOG_LEVEL: &str = "/api/v1/logs/level";
pub(super) const PEERS: &str = "/api/v1/peers";
pub(super) const CONNECT: &str = "/api/v1/peers/connect";
pub(super) const DISCONNECT: &str = "/api/v1/peers/disconnect";
pub(super) const BLOCK: &str = "/api/v1/peers/block";
pub(super) const NAME: &str = "/api/v1/peers/name";
pub(super) const PING: &str = "/api/v1/ping";
pub(super) const MEMBERS: &str = "/api/v1/members";
pub(super) const MEMBERS_FOLLOW: &str = "/api/v1/members/follow";
pub(super) const MEMBERS_LEAVE: &str = "/api/v1/members/leave";
pub(super) const MEMBERS_REMOVE: &str = "/api/v1/members/remove";
pub(super) const FAULTS: &str = "/api/v1/faults";
pub(super) const ORDER_STATUS: &str = "/api/v1/order/status";
pub(super) const ORDER_VALIDATORS: &str = "/api/v1/order/validators";
pub(super) const ORDER_ENTRIES: &str = "/api/v1/order/entries";
pub(super) const ORDER_FOLLOW: &str = "/api/v1/order/follow";
pub(super) const ORDER_JOIN: &str = "/api/v1/order/join";
pub(super) const ORDER_SUBMISSIONS: &str = "/api/v1/order/submissions";
pub(super) const ORDER_CHANGES: &str = "/api/v1/order/changes";
pub(super) const ORDER_SNAPSHOTS: &str = "/api/v1/order/snapshots";
pub(super) const ORDER_RESTORE: &str = "/api/v1/order/snapshots/restore";
pub(super) const REGISTERS: &str = "/api/v1/registers";
pub(super) const TICKETS: &str = "/api/v1/tickets";
pub(super) const JOIN: &str = "/api/v1/join";
pub(super) const SESSION_CODE: &str = "/api/v1/session/code";
pub(super) const TOKENS: &str = "/api/v1/tokens";
pub(super) const TOKENS_REVOKE: &str = "/api/v1/tokens/revoke";
pub(super) const DHT_RECORDS: &str = "/api/v1/dht/records";
pub(super) const DHT_PROVIDE: &str = "/api/v1/dht/provide";
pub(super) const DHT_STOP_PROVIDING: &str = "/api/v1/dht/stop-providing";
pub(super) const DHT_PROVIDERS: &str = "/api/v1/dht/find-providers";
pub(super) const DHT_FIND_PEER: &str = "/api/v1/dht/find-peer";
pub(super) const DHT_CLOSEST: &str = "/api/v1/dht/closest";
pub(super) const DHT_TRACE: &str = "/api/v1/dht/trace";
pub(super) const DHT_TABLE: &str = "/api/v1/dht/table";
pub(super) const DHT_STATS: &str = "/api/v1/dht/stats";
pub(super) const DOCS: &str = "/api/v1/docs";
pub(super) const DOCS_JOIN: &str = "/api/v1/docs/join";
pub(super) const ROOMS: &str = "/api/v1/rooms";
pub(super) const DOCS_IMPORT: &str = "/api/v1/docs/import";
pub(super) const TOPICS: &str = "/api/v1/topics";

/// One document at a glance.
pub(super) fn one_doc(doc: &str) -> String {
    format!("{DOCS}/{}", part(doc))
}

/// What is done with one document.
pub(super) fn doc(doc: &str, what: &str) -> String {
    format!("{DOCS}/{}/{what}", part(doc))
}

/// One room, or what is done with it: `/messages`.
pub(super) fn room(room: &str, what: &str) -> String {
    format!("{ROOMS}/{}{what}", part(room))
}

/// What is done with one topic.
pub(super) fn topic(topic: &str, what: &str) -> String {
    format!("{TOPICS}/{}/{what}", part(topic))
}

/// The stream of messages that match one of the patterns.
pub(super) fn messages(patterns: &[String]) -> String {
    let patterns: Vec<String> = patterns.iter().map(|pattern| part(pattern)).collect();
    format!("{TOPICS}/messages?patterns={}", patterns.join(","))
}
