//! A running node, as the API sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wattle_net::faults::Faults;
use wattle_net::{Overlay, Path, PathKind, PeerInfo, Source, Transport};
use wattle_store::Store;
use wattle_types::{NetworkKey, SecretKey, UnixTime};

use crate::api::Names;
use crate::api::documents::{EventLine, PathName, Peer, SourceName, TransportName};
use crate::apps::Apps;
use crate::config::Config;
use crate::documents::Documents;
use crate::members::Members;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::paths::Paths;
use crate::ring::Ring;
use crate::telemetry::Telemetry;

/// Everything that the routes of the API need.
pub struct Node {
    /// The overlay.
    pub overlay: Overlay,
    /// The members of the network.
    pub members: Members,
    /// Faults on purpose, in a node of a testnet.
    pub faults: Option<Faults>,
    /// The documents.
    pub documents: Documents,
    /// The ordered log.
    pub order: Order,
    /// The apps.
    pub apps: Apps,
    /// The disk.
    pub store: Arc<Store>,
    /// Who this node is.
    pub key: SecretKey,
    /// The key of a private network.
    pub network_key: Option<NetworkKey>,
    /// The configuration it runs with.
    pub config: Config,
    /// Where its files are.
    pub paths: Paths,
    /// What it calls others.
    pub names: Arc<Names>,
    /// What happened.
    pub events: Arc<Ring<EventLine>>,
    /// What it logs.
    pub telemetry: Arc<Telemetry>,
    /// What its API counts.
    pub metrics: Arc<Metrics>,
    /// `http://127.0.0.1:7711`, when TCP is on.
    pub url: Option<String>,
    /// When the process started.
    pub started: Instant,
    /// The same by the wall clock.
    pub started_at: UnixTime,
    /// Ends the process politely.
    pub stop: CancellationToken,
}

impl Node {
    /// A connected peer as a document.
    #[must_use]
    pub fn peer(&self, info: &PeerInfo) -> Peer {
        peer_document(&self.names, info)
    }
}

/// A connected peer as a document.
#[must_use]
pub fn peer_document(names: &Names, info: &PeerInfo) -> Peer {
    let (path, transport, via) = path_names(&info.path);
    Peer {
        id: info.peer,
        name: names.of(info.peer),
        label: names.label(info.peer),
        path,
        transport,
        via,
        address: info.path.address.to_string(),
        rtt_ms: info.rtt.map(millis),
        estimate_ms: None,
        connected_ms: whole_millis(info.connected),
        outbound: info.outbound,
        source: match info.source {
            Source::Overlay => SourceName::Overlay,
            Source::AddressBook => SourceName::AddressBook,
            Source::Bootstrap => SourceName::Bootstrap,
            Source::Mdns => SourceName::Mdns,
            Source::SameMachine => SourceName::SameMachine,
            Source::Asked => SourceName::Asked,
        },
        bytes_in: info.bytes_in,
        bytes_out: info.bytes_out,
        agent: info.agent.clone(),
        protocols: info.protocols.clone(),
        listens: info.listens.iter().map(ToString::to_string).collect(),
    }
}

/// A path as documents name it.
#[must_use]
pub fn path_names(path: &Path) -> (PathName, TransportName, Option<wattle_types::NodeId>) {
    let (name, via) = match path.kind {
        PathKind::Direct => (PathName::Direct, None),
        PathKind::Relayed { via } => (PathName::Relayed, Some(via)),
    };
    let transport = match path.transport {
        Transport::Quic => TransportName::Quic,
        Transport::Tcp => TransportName::Tcp,
    };
    (name, transport, via)
}

/// A short span in milliseconds, to the microsecond.
#[must_use]
pub fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// A long span in whole milliseconds.
#[must_use]
pub fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A count as documents hold it.
#[must_use]
pub fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
