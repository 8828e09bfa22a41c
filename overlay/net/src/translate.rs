//! The only place that sees libp2p's events: each becomes one of ours, or nothing.

use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::kad::{InboundRequest, ProviderRecord, QueryId, QueryResult, QueryStats, Record as KadRecord};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, gossipsub, identify, kad, mdns, ping};
use wattle_types::NodeId;

use crate::behaviour::{BehaviourEvent, node_id};
use crate::peers::Opened;
use crate::report::{Path, PathKind, Transport};
use crate::{Address, DisconnectReason};

/// What happened, in our words.
pub(crate) enum Input {
    Listening(Address),
    ListenClosed {
        addresses: Vec<Address>,
        why: Option<String>,
    },
    Opened(Opened),
    Closed {
        connection: ConnectionId,
        peer: NodeId,
        reason: DisconnectReason,
    },
    DialFailed {
        connection: ConnectionId,
        peer: Option<NodeId>,
        failure: DialFailure,
    },
    Identified {
        peer: NodeId,
        info: Identity,
    },
    RoundTrip {
        peer: NodeId,
        rtt: Duration,
    },
    /// Nobody answers pings there any more.
    Unanswered {
        connection: ConnectionId,
    },
    LanFound(Vec<(NodeId, Address)>),
    LanLost(Vec<NodeId>),
    Dht(DhtInput),
    Gossip(GossipInput),
}

/// Why a dial brought no connection.
pub(crate) enum DialFailure {
    /// A connection or another dial to the peer exists already.
    Redundant,
    /// Nothing to dial.
    NoAddress,
    /// Somebody else answered.
    WrongPeer { got: Option<NodeId>, address: Address },
    /// It is this node.
    Myself,
    /// Every address failed.
    Unreachable(Vec<(Address, String)>),
    /// Our own limits or lists forbid it.
    Denied(String),
}

/// What a peer says of itself.
pub(crate) struct Identity {
    pub(crate) network_protocol: String,
    pub(crate) agent: String,
    pub(crate) protocols: Vec<String>,
    pub(crate) listens: Vec<Address>,
}

/// A query of ours went on.
pub(crate) struct Progress {
    pub(crate) query: QueryId,
    pub(crate) result: QueryResult,
    pub(crate) stats: QueryStats,
    /// Whether it ended.
    pub(crate) last: bool,
}

/// What happened in the DHT.
pub(crate) enum DhtInput {
    Progress(Progress),
    PutRequest { source: PeerId, record: KadRecord },
    ProvideRequest { record: ProviderRecord },
    TableGrew,
}

/// What happened in gossip.
pub(crate) enum GossipInput {
    Message { forwarder: PeerId, id: gossipsub::MessageId, message: Box<gossipsub::Message> },
    Slow { peer: NodeId },
}

/// Translates one event.
pub(crate) fn translate(event: SwarmEvent<BehaviourEvent>) -> Option<Input> {
    match event {
        SwarmEvent::Behaviour(event) => behaviour(event),
        SwarmEvent::ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            concurrent_dial_errors,
            ..
        } => {
            let failed = concurrent_dial_errors.unwrap_or_default();
            Some(Input::Opened(Opened {
                connection: connection_id,
                peer: node_id(&peer_id)?,
                outbound: endpoint.is_dialer(),
                path: path(&endpoint),
                failed: failed.into_iter().map(|(address, _)| Address::from_multiaddr(address)).collect(),
            }))
        }
        SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
            Some(Input::Closed { connection: connection_id, peer: node_id(&peer_id)?, reason: reason(cause) })
        }
        SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => Some(Input::DialFailed {
            connection: connection_id,
            peer: peer_id.as_ref().and_then(node_id),
            failure: dial_failure(error),
        }),
        SwarmEvent::NewListenAddr { address, .. } => Some(Input::Listening(Address::from_multiaddr(address))),
        SwarmEvent::ExpiredListenAddr { address, .. } => {
            Some(Input::ListenClosed { addresses: vec![Address::from_multiaddr(address)], why: None })
        }
        SwarmEvent::ListenerClosed { addresses, reason, .. } => Some(Input::ListenClosed {
            addresses: addresses.into_iter().map(Address::from_multiaddr).collect(),
            why: reason.err().map(|error| error.to_string()),
        }),
        SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
            tracing::debug!(from = %send_back_addr, %error, "a connection from outside failed");
            None
        }
        SwarmEvent::ListenerError { error, .. } => {
            tracing::warn!(%error, "a listener had an error and goes on");
            None
        }
        // Nothing follows from these, or another event says the same with more in it. libp2p may add kinds.
        _ => None,
    }
}

fn behaviour(event: BehaviourEvent) -> Option<Input> {
    match event {
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            identified(&peer_id, info)
        }
        BehaviourEvent::Ping(event) => match event.result {
            Ok(rtt) => Some(Input::RoundTrip { peer: node_id(&event.peer)?, rtt }),
            // A peer that does not know the protocol is not therefore dead.
            Err(ping::Failure::Unsupported) => None,
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                Some(Input::Unanswered { connection: event.connection })
            }
        },
        BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
            let found = found.into_iter().filter_map(|(peer, address)| Some((node_id(&peer)?, address)));
            Some(Input::LanFound(
                found.map(|(peer, address)| (peer, Address::from_multiaddr(address))).collect(),
            ))
        }
        BehaviourEvent::Kad(event) => kad(event).map(Input::Dht),
        BehaviourEvent::Gossip(event) => gossip(event).map(Input::Gossip),
        BehaviourEvent::Mdns(mdns::Event::Expired(lost)) => {
            Some(Input::LanLost(lost.iter().filter_map(|(peer, _)| node_id(peer)).collect()))
        }
        BehaviourEvent::Identify(_) => None,
        // These behaviours only deny; they have no events.
        BehaviourEvent::Limits(_)
        | BehaviourEvent::Memory(_)
        | BehaviourEvent::Blocked(_)
        | BehaviourEvent::Allowed(_)
        | BehaviourEvent::Streams(()) => None,
    }
}

fn identified(peer: &PeerId, info: identify::Info) -> Option<Input> {
    let info = Identity {
        network_protocol: clean(&info.protocol_version),
        agent: clean(&info.agent_version),
        protocols: info.protocols.iter().take(64).map(|protocol| clean(protocol.as_ref())).collect(),
        listens: info.listen_addrs.into_iter().take(32).map(Address::from_multiaddr).collect(),
    };
    Some(Input::Identified { peer: node_id(peer)?, info })
}

/// A peer's words go to terminals and logs: no control characters, at most 96 characters.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(96).collect()
}

fn kad(event: kad::Event) -> Option<DhtInput> {
    match event {
        kad::Event::OutboundQueryProgressed { id, result, stats, step } => {
            Some(DhtInput::Progress(Progress { query: id, result, stats, last: step.last }))
        }
        kad::Event::InboundRequest {
            request: InboundRequest::PutRecord { source, record: Some(record), .. },
        } => Some(DhtInput::PutRequest { source, record }),
        kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
            Some(DhtInput::ProvideRequest { record })
        }
        kad::Event::RoutingUpdated { is_new_peer, .. } => is_new_peer.then_some(DhtInput::TableGrew),
        // Routable peers are offered through identify instead, where their protocols are known.
        kad::Event::InboundRequest { .. }
        | kad::Event::UnroutablePeer { .. }
        | kad::Event::RoutablePeer { .. }
        | kad::Event::PendingRoutablePeer { .. }
        | kad::Event::ModeChanged { .. } => None,
    }
}

fn gossip(event: gossipsub::Event) -> Option<GossipInput> {
    match event {
        gossipsub::Event::Message { propagation_source, message_id, message } => {
            let message = Box::new(message);
            Some(GossipInput::Message { forwarder: propagation_source, id: message_id, message })
        }
        gossipsub::Event::SlowPeer { peer_id, .. } => Some(GossipInput::Slow { peer: node_id(&peer_id)? }),
        gossipsub::Event::Subscribed { .. }
        | gossipsub::Event::Unsubscribed { .. }
        | gossipsub::Event::GossipsubNotSupported { .. } => None,
    }
}

fn path(endpoint: &ConnectedPoint) -> Path {
    let address = Address::from_multiaddr(endpoint.get_remote_address().clone());
    let transport = if address.is_quic() { Transport::Quic } else { Transport::Tcp };
    let kind = match relay(address.as_multiaddr()) {
        Some(via) => PathKind::Relayed { via },
        None => PathKind::Direct,
    };
    Path { kind, transport, address: address.without_peer() }
}

fn relay(address: &Multiaddr) -> Option<NodeId> {
    use libp2p::multiaddr::Protocol;
    let mut relay = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => relay = node_id(&peer),
            Protocol::P2pCircuit => return relay,
            _ => {}
        }
    }
    None
}

fn reason(cause: Option<ConnectionError>) -> DisconnectReason {
    match cause {
        None => DisconnectReason::Asked,
        Some(ConnectionError::KeepAliveTimeout) => DisconnectReason::Idle,
        Some(ConnectionError::IO(error)) => match error.kind() {
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof => {
                DisconnectReason::Remote
            }
            _ => {
                let text = error.to_string();
                // QUIC and Yamux wrap the other side's goodbye in errors of their own.
                let goodbye =
                    ["closed by peer", "Connection is closed", "connection is closed", "aborted by peer"];
                if goodbye.iter().any(|part| text.contains(part)) {
                    DisconnectReason::Remote
                } else {
                    DisconnectReason::Lost(clean(&text))
                }
            }
        },
    }
}

fn dial_failure(error: DialError) -> DialFailure {
    match error {
        DialError::LocalPeerId { .. } => DialFailure::Myself,
        DialError::NoAddresses => DialFailure::NoAddress,
        DialError::DialPeerConditionFalse(_) | DialError::Aborted => DialFailure::Redundant,
        DialError::WrongPeerId { obtained, address } => {
            DialFailure::WrongPeer { got: node_id(&obtained), address: Address::from_multiaddr(address) }
        }
        DialError::Denied { cause } => DialFailure::Denied(deepest(&cause)),
        DialError::Transport(errors) => {
            let tried = errors
                .into_iter()
                .map(|(address, error)| (Address::from_multiaddr(address), deepest(&error)));
            DialFailure::Unreachable(tried.collect())
        }
    }
}

/// The innermost cause: "Connection refused" rather than the four layers around it.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    clean(&error.to_string())
}
