//! Addresses: what a person types and what the wire carries, and how far each reaches.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use wattle_types::{Endpoint, NodeId};

/// A multiaddr such as `/ip4/10.0.0.4/udp/7710/quic-v1`, perhaps ending in the peer it leads to
/// (`/p2p/12D3KooW…`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Multiaddr);

/// Why a text is no address. Caller error; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a multiaddr such as /ip4/10.0.0.4/udp/7710/quic-v1: {why}")]
pub struct InvalidAddress {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This machine.
    Loopback,
    /// This local network (RFC 1918, link-local, unique local, carrier-grade NAT).
    Private,
    /// The internet.
    Global,
    /// Through another peer.
    Relayed,
    /// A name that DNS must answer for.
    Name,
}

impl Address {
    pub(crate) const fn from_multiaddr(multiaddr: Multiaddr) -> Self {
        Self(multiaddr)
    }

    pub(crate) const fn as_multiaddr(&self) -> &Multiaddr {
        &self.0
    }

    /// The peer at its end, when it names one that can exist here.
    #[must_use]
    pub fn peer(&self) -> Option<NodeId> {
        self.0.iter().last().and_then(|part| match part {
            Protocol::P2p(peer) => NodeId::from_peer_id_bytes(&peer.to_bytes()).ok(),
            _ => None,
        })
    }

    /// The address without the peer at its end.
    #[must_use]
    pub fn without_peer(&self) -> Self {
        let mut multiaddr = self.0.clone();
        if let Some(Protocol::P2p(_)) = multiaddr.iter().last() {
            multiaddr.pop();
        }
        Self(multiaddr)
    }

    /// The address with `peer` at its end.
    #[must_use]
    pub fn with_peer(&self, peer: NodeId) -> Self {
        let bytes = peer.to_peer_id_bytes();
        match libp2p::PeerId::from_bytes(&bytes) {
            Ok(peer) => Self(self.without_peer().0.with(Protocol::P2p(peer))),
            Err(_) => self.clone(),
        }
    }

    /// The IP address it begins with.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.iter().next().and_then(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            // An IPv4 address in IPv6 clothes is an IPv4 address.
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
            _ => None,
        })
    }

    /// The UDP or TCP port it names.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.iter().find_map(|part| match part {
            Protocol::Udp(port) | Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    }

    /// Whether it speaks QUIC.
    #[must_use]
    pub fn is_quic(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Protocol::QuicV1))
    }

    /// Whether it speaks TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Protocol::Tcp(_)))
    }

    /// How far it reaches.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.0.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
            return Reach::Relayed;
        }
        match self.ip() {
            None => Reach::Name,
            Some(ip) if ip.is_loopback() || ip.is_unspecified() => Reach::Loopback,
            Some(IpAddr::V4(ip)) => {
                let [a, b, ..] = ip.octets();
                let shared = a == 100 && (64..128).contains(&b);
                if ip.is_private() || ip.is_link_local() || shared { Reach::Private } else { Reach::Global }
            }
            Some(IpAddr::V6(ip)) => {
                if ip.is_unique_local() || ip.is_unicast_link_local() {
                    Reach::Private
                } else {
                    Reach::Global
                }
            }
        }
    }

    /// The addresses of a ticket's endpoint.
    #[must_use]
    pub fn of_endpoint(endpoint: &Endpoint) -> Vec<Self> {
        let base = Multiaddr::from(endpoint.ip);
        let quic =
            endpoint.quic.then(|| base.clone().with(Protocol::Udp(endpoint.port)).with(Protocol::QuicV1));
        let tcp = endpoint.tcp.then(|| base.with(Protocol::Tcp(endpoint.port)));
        quic.into_iter().chain(tcp).map(Self).collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why: &str| InvalidAddress { text: text.to_owned(), why: why.to_owned() };
        let multiaddr: Multiaddr =
            text.parse().map_err(|error: libp2p::multiaddr::Error| invalid(&error.to_string()))?;
        if multiaddr.is_empty() { Err(invalid("it is empty")) } else { Ok(Self(multiaddr)) }
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
