//! What this node says of itself to the other members, and where others say that they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_bytes::ByteArray;
use wattle_net::Address;
use wattle_net::datagrams::Datagrams;
use wattle_swim::{ADDRESSES_MAX, Description, Reach, Signed};
use wattle_types::NodeId;

/// What a person configured.
#[derive(Clone, Debug)]
pub struct About {
    /// What people call it; may be empty.
    pub name: String,
    /// How packets reach it.
    pub reach: Reach,
    /// What it does.
    pub roles: BTreeSet<String>,
    /// What its owner says of it.
    pub tags: BTreeMap<String, String>,
    /// Where others reach it besides where it listens.
    pub external: Vec<Address>,
}

impl About {
    /// All of it, as it is signed.
    pub(super) fn description(
        &self,
        listening: &[Address],
        datagrams: &Datagrams,
        anchors: &[NodeId],
    ) -> Description {
        let addresses = told(&self.external, listening);
        Description {
            name: self.name.clone(),
            roles: self.roles.clone(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            udp_port: datagrams.port().unwrap_or(0),
            boot_key: ByteArray::new(datagrams.boot_key()),
            reach: self.reach,
            anchors: anchors.to_vec(),
            tags: self.tags.clone(),
        }
    }
}

/// The addresses worth telling: one that others can use before one of this machine only, and of one machine those
/// of either transport.
fn told(external: &[Address], listening: &[Address]) -> Vec<Address> {
    let inner = |address: &&Address| address.ip().is_some_and(|ip| ip.is_loopback() || is_link_local(ip));
    let outer: Vec<&Address> =
        external.iter().chain(listening.iter().filter(|address| !inner(address))).collect();
    let chosen = if outer.is_empty() { listening.iter().collect() } else { outer };
    chosen.into_iter().take(ADDRESSES_MAX).cloned().collect()
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether nobody but this machine can reach this node.
pub(super) fn loopback_only(listening: &[Address]) -> bool {
    listening.iter().filter_map(Address::ip).all(|ip| ip.is_loopback())
}

/// Where a member says that it is reached by streams.
pub(super) fn addresses(record: &Signed) -> Vec<Address> {
    let described = record.description().map(|described| described.addresses.as_slice());
    described.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect()
}

/// Where a member says that it is reached by datagrams.
pub(super) fn datagram_places(described: &Description) -> Vec<SocketAddr> {
    let parsed = described.addresses.iter().filter_map(|text| text.parse::<Address>().ok());
    let machines: BTreeSet<IpAddr> = parsed.filter_map(|address| address.ip()).collect();
    machines.into_iter().map(|ip| SocketAddr::new(ip, described.udp_port)).collect()
}
