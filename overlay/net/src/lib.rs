//! The overlay: the one task that owns the libp2p swarm, and the handle to it.

mod actor;
mod address;
mod address_book;
mod away;
mod behaviour;
mod channels;
mod command;
mod config;
mod connections;
pub mod datagrams;
mod dht;
mod ends;
mod event;
pub mod faults;
mod handle;
mod meeting;
mod peers;
mod ping;
mod report;
mod start;
mod topics;
mod traffic;
mod translate;

pub use address::{Address, InvalidAddress, Reach};
pub use channels::{
    AlreadyAccepted, Channel, ChannelKind, ChannelListener, ChannelReceiver, ChannelSender, OpenChannelError,
    ReceiveError, SendError,
};
pub use config::{Config, ConnectionLimits, DhtMode, Profile, Restored, StartError};
#[doc(hidden)]
pub use dht::trace::read_answer as read_kademlia_answer;
pub use event::{DisconnectReason, Event, Misbehaviour};
pub use handle::{Overlay, Subscription};
pub use report::{
    Answer, Bucket, BucketPeer, ClosestPeer, ConnectError, Delivery, DhtError, DhtStats, FoundRecord, Lagged,
    LanStatus, Path, PathKind, PeerInfo, PersistBatch, PingError, Pong, PublishError, Published, PutReport,
    QueryStats, RejectedAnswer, RequestError, Source, Status, Stopped, TopicInfo, TraceEvent, TraceReport,
    TraceTarget, Transport,
};
