//! Who may enter the routing table: a gate against one operator filling it.
//!
//! A Kademlia table is eclipsed by many ids behind few addresses (Heilman et al., "Eclipse Attacks on
//! Bitcoin's Peer-to-Peer Network", 2015, section 7; rust-libp2p's table has no such rule). Addresses are
//! scarce, ids are not: at most 2 peers of one /24 (IPv4) or /48 (IPv6) share a bucket, and at most 10 of one
//! /16 (or /32) the whole table. Addresses that do not leave this machine or network are exempt: whoever is
//! inside already passed a door.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wattle_types::NodeId;

use crate::{Address, Reach};

const PER_SUBNET_AND_BUCKET_MAX: usize = 2;
const PER_NETWORK_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: u32,
    subnet: [u8; 6],
    network: [u8; 4],
}

/// The gate's books: who was let in from where.
#[derive(Default)]
pub(crate) struct Diversity {
    places: BTreeMap<NodeId, Place>,
}

impl Diversity {
    /// Lets a peer in, or not. A peer that is in already stays in.
    pub(crate) fn admit(&mut self, peer: NodeId, bucket: u32, address: &Address) -> bool {
        if address.reach() != Reach::Global || self.places.contains_key(&peer) {
            return true;
        }
        let Some(place) = address.ip().map(|ip| place(bucket, ip)) else { return false };
        let close =
            self.places.values().filter(|other| other.bucket == bucket && other.subnet == place.subnet);
        let wide = self.places.values().filter(|other| other.network == place.network);
        if close.count() >= PER_SUBNET_AND_BUCKET_MAX || wide.count() >= PER_NETWORK_MAX {
            return false;
        }
        self.places.insert(peer, place);
        true
    }

    /// A peer left the table.
    pub(crate) fn left(&mut self, peer: NodeId) {
        self.places.remove(&peer);
    }
}

fn place(bucket: u32, ip: IpAddr) -> Place {
    let octets = match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            return Place { bucket, subnet: [4, a, b, c, 0, 0], network: [4, a, b, 0] };
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    let [a, b, c, d, e, f, ..] = octets;
    Place { bucket, subnet: [a, b, c, d, e, f], network: [a, b, c, d] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16) -> NodeId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_public_key(key)
    }

    fn at(ip: &str) -> Address {
        format!("/ip4/{ip}/tcp/7710").parse().unwrap()
    }

    #[test]
    fn a_bucket_takes_two_of_one_subnet_and_the_table_ten_of_one_network() {
        let mut gate = Diversity::default();
        assert!(gate.admit(node(1), 3, &at("81.2.69.1")));
        assert!(gate.admit(node(2), 3, &at("81.2.69.2")));
        assert!(!gate.admit(node(3), 3, &at("81.2.69.3")));
        assert!(gate.admit(node(1), 3, &at("81.2.69.1")), "who is in stays in");
        gate.left(node(2));
        assert!(gate.admit(node(3), 3, &at("81.2.69.3")));
        let many =
            (4..100).filter(|n| gate.admit(node(*n), u32::from(*n), &at(&format!("81.2.{n}.1")))).count();
        assert_eq!(many, 8, "ten of 81.2.0.0/16 in all");
    }

    #[test]
    fn a_local_network_is_not_limited() {
        let mut gate = Diversity::default();
        assert!(
            (0..500)
                .all(|n| gate.admit(node(n), 1, &at("192.168.1.7"))
                    && gate.admit(node(n), 1, &at("127.0.0.1")))
        );
    }
}
