//! What a node must be told to take part in an overlay.

use std::num::NonZeroUsize;
use std::time::Duration;

use wattle_types::{NetworkKey, NetworkName, NodeId, SecretKey};

use crate::Address;
use crate::faults::Faults;

/// Everything the overlay needs to know, parsed and checked at the edge.
#[derive(Debug)]
pub struct Config {
    /// Who this node is.
    pub key: SecretKey,
    /// The overlay it belongs to.
    pub network: NetworkName,
    /// The key of a private overlay. With one, only TCP is used: QUIC cannot carry a pre-shared key.
    pub network_key: Option<NetworkKey>,
    /// Where to listen. Port 0 lets the system choose.
    pub listen: Vec<Address>,
    /// Addresses under which others can reach this node although it does not listen on them (port
    /// forwarding).
    pub external: Vec<Address>,
    /// Peers to dial at the start, each with a peer id or a `/dnsaddr` that resolves to such.
    pub bootstrap: Vec<Address>,
    /// Whether to look for peers on the local network by multicast DNS.
    pub mdns: bool,
    /// Whether to answer DHT queries of others.
    pub dht_mode: DhtMode,
    /// Timing for the kind of network this runs in.
    pub profile: Profile,
    /// How many connections to keep.
    pub connections: ConnectionLimits,
    /// When not empty, only these peers may connect.
    pub allow: Vec<NodeId>,
    /// Largest resident memory in bytes at which new connections are still accepted.
    pub memory_bytes_max: usize,
    /// What this program calls itself to others, such as `wattle/0.1.0`.
    pub agent: String,
    /// Faults on purpose, in the nodes of a testnet only.
    pub faults: Option<Faults>,
}

/// Whether a node answers DHT queries. A client asks but is in nobody's routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtMode {
    /// Server on private and loopback addresses and where an external address is configured, else client: a
    /// node that cannot be dialed makes every lookup of others slower.
    Auto,
    /// Always ask only.
    Client,
    /// Always answer.
    Server,
}

/// Timing for the kind of network a node runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A local network or one machine: heartbeat 500 ms.
    Lan,
    /// The internet: heartbeat 1 s.
    Wan,
}

/// How many connections to keep. libp2p alone keeps every connection for ever once gossip runs, so that an
/// overlay of N nodes drifts to N - 1 connections each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Trimming stops here.
    pub low_water: NonZeroUsize,
    /// Above this, the least valuable connections are closed. Not less than `low_water`.
    pub high_water: NonZeroUsize,
    /// A connection over which nothing came or went for this long is idle, and trimmed before those in use.
    pub idle_after: Duration,
}

impl ConnectionLimits {
    /// 48 to 64 connections, as many as a routing table of some thousand nodes has close peers; idle after
    /// 2 s, in which every question of a lookup is answered.
    #[must_use]
    pub const fn standard() -> Self {
        Self {
            low_water: NonZeroUsize::new(48).expect("48 is not zero"),
            high_water: NonZeroUsize::new(64).expect("64 is not zero"),
            idle_after: Duration::from_secs(2),
        }
    }
}

/// What an earlier run of this node left on disk, as read from its tables: (key, value) pairs.
#[derive(Debug, Default)]
pub struct Restored {
    /// [`wattle_types::Table::Records`].
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// [`wattle_types::Table::Providers`].
    pub providers: Vec<(Vec<u8>, Vec<u8>)>,
    /// [`wattle_types::Table::Published`].
    pub published: Vec<(Vec<u8>, Vec<u8>)>,
    /// [`wattle_types::Table::Addresses`].
    pub addresses: Vec<(Vec<u8>, Vec<u8>)>,
    /// [`wattle_types::Table::Blocked`].
    pub blocked: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why the overlay did not start. Nothing runs afterwards.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there, or the address is not this machine's. Caller's to change.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address asked for.
        address: Address,
        /// What the system said.
        why: String,
    },
    /// QUIC was asked for in a private network.
    #[error("{0} uses QUIC, which cannot carry the key of a private network: listen on TCP instead")]
    QuicIsNeverPrivate(Address),
    /// The connection limits contradict each other.
    #[error("connections.high_water ({high}) is below connections.low_water ({low})")]
    Water {
        /// low_water.
        low: usize,
        /// high_water.
        high: usize,
    },
    /// A transport could not be built: no DNS configuration, no multicast socket.
    #[error("the {part} transport did not start: {why}")]
    Transport {
        /// Which.
        part: &'static str,
        /// What the system said.
        why: String,
    },
}
