//! Membership: SWIM with suspicion, Lifeguard and signed claims.

mod claim;
mod config;
mod coordinate;
mod health;
mod queue;
mod random;
mod rtt;
mod stream;
mod suspicion;
mod swim;
mod table;
mod view;
mod wire;

pub use claim::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, ANCHORS_MAX, Claim, Description, Incarnation, InvalidDescription,
    NAME_BYTES_MAX, RECORD_BYTES_MAX, ROLE_BYTES_MAX, ROLES_MAX, Reach, RejectedClaim, ShortId, Signed,
    TAGS_BYTES_MAX,
};
pub use config::{Config, InvalidConfig, Lifeguard, MEMBERS_MAX, Timing};
pub use coordinate::Coordinate;
pub use health::HEALTH_SCORE_MAX;
pub use queue::QUEUE_MAX;
pub use stream::{Entry, Message, MessageError, STREAM_BYTES_MAX, Version};
pub use swim::{Corrupt, Input, Memory, Output, PersistId, RequestId, SEEDS_MAX, Swim, own_row_key};
pub use view::{Counts, Event, MemberView, Reason, State, Status, View, Why};
pub use wire::{Body, CERTIFICATE_MAX, More, PACKET_BYTES_MAX, Packet, PacketError, RawClaim, Rumor};
