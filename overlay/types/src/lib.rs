//! What every wattle crate speaks: ids, time, limits, canonical CBOR, signatures, records, topics and
//! tickets.
//!
//! # What it does
//!
//! Gives each concept of the overlay exactly one type, and each type exactly one encoding. Everything here is
//! a pure function of its input: no clock, no file, no socket, no randomness.
//!
//! # Invariants
//!
//! * **T1 exact decoding.** Bytes that decode are the bytes that the value encodes to ([`cbor`]): a size cap
//!   before anything is allocated, a depth cap, no trailing bytes, no second spelling of one value.
//! * **T2 verified by type.** A [`Verified<T>`] exists only where a signature was checked for the right
//!   domain and network; nothing else can make one.
//! * **T3 bounded.** Every cap stands in [`limits`], each with its reasoning.
//!
//! # Not here
//!
//! Sockets, clocks, files, and any rule of a protocol: a protocol is a [`Machine`] in a crate of its own.

pub mod cbor;
mod document;
mod envelope;
mod feed;
pub mod limits;
mod liveness;
mod machine;
mod network;
mod node_id;
mod record;
mod storage;
mod ticket;
mod time;
mod topic;

pub use document::{DocAccess, DocId, DocTag, InvalidDocId, ReadSecret, bearer_key, keyed};
pub use envelope::{Domain, Envelope, EnvelopeError, SecretKey, Verified};
pub use feed::{FeedId, Hlc, InvalidPostId, POST_SEQ_END, Post, PostId, PostLink, Posted, frontier};
pub use liveness::Liveness;
pub use machine::{Machine, Outbox};
pub use network::{InvalidNetworkKey, InvalidNetworkName, NetworkKey, NetworkName};
pub use node_id::{InvalidNodeId, NodeId};
pub use record::{
    ContentHash, InvalidRecordKey, Precedence, ProviderKey, Record, RecordBody, RecordKey, RecordName,
    RejectedRecord, SignedRecord,
};
pub use storage::{KeyRange, Table, Write};
pub use ticket::{Endpoint, Ticket, TicketDocument, TicketError};
pub use time::{Time, UnixTime};
pub use topic::{InvalidTopic, Topic, TopicMessage, TopicPattern, TopicRoot, TraceContext};
