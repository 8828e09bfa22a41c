//! Documents about load.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::BenchSchema;

/// What was done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BenchKind {
    /// Round trips to peers.
    Ping,
    /// Messages on a topic.
    Gossip,
    /// Records.
    Dht,
    /// Edits of a document.
    Doc,
    /// Entries of the ordered log.
    Order,
}

impl BenchKind {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Gossip => "gossip",
            Self::Dht => "dht",
            Self::Doc => "doc",
            Self::Order => "order",
        }
    }

    /// What one operation is, and what it is when it came to its outcome.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ping => ("ping/echo", "answered"),
            Self::Gossip => ("gossip/publish", "heard by all"),
            Self::Dht => ("dht/put+get", "found"),
            Self::Doc => ("doc/edit", "on all nodes"),
            Self::Order => ("order/submit", "committed"),
        }
    }
}

/// How long something took, in milliseconds: half of them no longer than `p50`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BenchLatency {
    /// Half.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What the figures depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BenchEnvironment {
    /// Members that were alive.
    pub nodes: u64,
    /// Cores of this machine.
    pub cores: u64,
    /// Bytes of each; 0 where nothing is carried.
    pub bytes: u64,
    /// How many at the same time.
    pub clients: u64,
    /// How many in one operation.
    pub together: u64,
    /// Other nodes of this machine, where outcomes were looked for.
    pub listeners: u64,
    /// Who keeps the log; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validators: Option<u64>,
}

/// What came of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BenchDocument {
    /// `wattle.bench/1`.
    pub schema: BenchSchema,
    /// What was done.
    pub kind: BenchKind,
    /// How often it was begun.
    pub sent: u64,
    /// How often it came to its outcome.
    pub ok: u64,
    /// How often not.
    pub errors: u64,
    /// Outcomes in a second.
    pub rate: f64,
    /// How long all of it took.
    pub took_ms: u64,
    /// From when it was due to its outcome; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<BenchLatency>,
    /// Parts of that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, BenchLatency>,
    /// Why there were errors, and how many of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, u64>,
    /// What the figures depend on.
    pub env: BenchEnvironment,
}
