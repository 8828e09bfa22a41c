//! Documents about faults on purpose, in the nodes of a testnet.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::FaultsSchema;

/// How delays spread around the one asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpreadName {
    /// Anything up to the jitter more or less.
    #[default]
    Uniform,
    /// Normal, with the jitter as its standard deviation.
    Normal,
    /// Never less, mostly a little more, now and then much.
    HeavyTail,
}

/// What happens to what this node sends to one peer, and whether the link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultLink {
    /// The peer.
    #[schema(value_type = String)]
    pub peer: NodeId,
    /// How much later things arrive there, up to a minute.
    #[serde(default)]
    pub delay_ms: f64,
    /// How much that varies.
    #[serde(default)]
    pub jitter_ms: f64,
    /// And how.
    #[serde(default)]
    pub spread: SpreadName,
    /// The share that is lost, 0 to 1. Datagrams of members are gone; what is lost of a stream is sent again.
    #[serde(default)]
    pub loss: f64,
    /// Bits in a second; 0 is no limit.
    #[serde(default)]
    pub rate_bits: u64,
    /// Nothing leaves to it.
    #[serde(default)]
    pub cut_to: bool,
    /// Nothing arrives from it.
    #[serde(default)]
    pub cut_from: bool,
}

/// The faults that a node is to have; links that are not named have none. What is not said is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultsRequest {
    /// Each link.
    pub links: Vec<FaultLink>,
    /// It finds no space on its disk.
    #[serde(default)]
    pub disk_full: bool,
    /// How far its clock is ahead; negative when it is behind. A day at most.
    #[serde(default)]
    pub clock_ms: i64,
}

/// What was done to one link since the node started.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultLinkState {
    /// What is done to it.
    pub link: FaultLink,
    /// Datagrams of members that wanted to leave over it.
    pub datagrams: u64,
    /// Of these, lost or stopped by a cut.
    pub datagrams_lost: u64,
    /// Datagrams that came over it and were stopped by a cut.
    pub datagrams_refused: u64,
    /// Segments of streams that left over it.
    pub segments: u64,
    /// Of these, sent again.
    pub segments_resent: u64,
}

/// The faults of a node of a testnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultsDocument {
    /// `wattle.faults/1`.
    pub schema: FaultsSchema,
    /// Every link that was ever named.
    pub links: Vec<FaultLinkState>,
    /// Whether it finds no space on its disk.
    pub disk_full: bool,
    /// How far its clock is ahead.
    pub clock_ms: i64,
}
