//! The address book: where peers were last reached, so that a restarted node rejoins without a bootstrap.
//!
//! Pure; the actor writes what changed to `Table::Addresses`. Bounded to 1024 peers of 8 addresses each: at
//! the cap the peer that answered longest ago is forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wattle_types::limits::{ADDRESS_BOOK_PEERS_MAX, ADDRESSES_PER_PEER_MAX};
use wattle_types::{NodeId, Table, UnixTime, Write, cbor};

use crate::{Address, Reach};

/// What is known of one peer's whereabouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Addresses, the one that worked last first.
    pub(crate) addresses: Vec<Address>,
    /// When a connection to it last worked.
    pub(crate) seen: UnixTime,
}

/// An entry on disk, keyed by the node's public key.
#[derive(Serialize, Deserialize)]
struct StoredEntry {
    addresses: Vec<String>,
    seen: UnixTime,
}

/// The book.
#[derive(Default)]
pub(crate) struct AddressBook {
    entries: BTreeMap<NodeId, Entry>,
    writes: Vec<Write>,
}

impl AddressBook {
    /// Takes back what an earlier run wrote; damaged entries are dropped.
    pub(crate) fn restore(&mut self, stored: &[(Vec<u8>, Vec<u8>)]) {
        for (key, bytes) in stored {
            let peer = <[u8; 32]>::try_from(key.as_slice()).ok().map(NodeId::from_public_key);
            let entry = cbor::decode::<StoredEntry>(bytes, 16 * 1024).ok();
            if let (Some(peer), Some(entry)) = (peer, entry) {
                let addresses = entry.addresses.iter().filter_map(|text| text.parse().ok());
                let addresses = addresses.take(ADDRESSES_PER_PEER_MAX).collect();
                self.entries.insert(peer, Entry { addresses, seen: entry.seen });
            } else {
                self.writes.push(Write::Remove { table: Table::Addresses, key: key.clone() });
            }
        }
    }

    /// A connection to `peer` works at `address`.
    pub(crate) fn worked(&mut self, peer: NodeId, address: &Address, now: UnixTime) {
        self.note(peer, address.clone(), true, Some(now));
    }

    /// `peer` says that it listens there. A relayed address is no whereabouts; and a peer on the internet has
    /// no business on this machine or network.
    pub(crate) fn claimed(&mut self, peer: NodeId, address: &Address, from: Reach) {
        if is_believable(address, from) {
            self.note(peer, address.clone(), false, None);
        }
    }

    /// Nobody answered there. The last address is kept: the peer may only be away.
    pub(crate) fn failed(&mut self, peer: NodeId, address: &Address) {
        let address = address.without_peer();
        if let Some(entry) = self.entries.get_mut(&peer)
            && entry.addresses.len() > 1
            && entry.addresses.contains(&address)
        {
            entry.addresses.retain(|known| *known != address);
            self.write(peer);
        }
    }

    /// The addresses of a peer, best first.
    pub(crate) fn addresses(&self, peer: NodeId) -> Vec<Address> {
        self.entries.get(&peer).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// Everybody, the most recently seen first.
    pub(crate) fn recent(&self) -> Vec<(NodeId, Vec<Address>)> {
        let mut peers: Vec<_> = self.entries.iter().collect();
        peers.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.seen));
        peers.into_iter().map(|(peer, entry)| (*peer, entry.addresses.clone())).collect()
    }

    /// Peers known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What changed since the last call and must reach the disk.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    fn note(&mut self, peer: NodeId, address: Address, first: bool, seen: Option<UnixTime>) {
        let address = address.without_peer();
        if !self.entries.contains_key(&peer) {
            // Only a peer that answered gets an entry: what others merely say fills no book.
            let Some(seen) = seen else { return };
            self.make_room();
            self.entries.insert(peer, Entry { addresses: Vec::new(), seen });
        }
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        let before = entry.clone();
        let known = entry.addresses.iter().position(|known| *known == address);
        match known {
            Some(index) if first => {
                entry.addresses.remove(index);
                entry.addresses.insert(0, address);
            }
            Some(_) => {}
            None if first => entry.addresses.insert(0, address),
            None => entry.addresses.push(address),
        }
        entry.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        entry.seen = seen.unwrap_or(entry.seen);
        if *entry != before {
            self.write(peer);
        }
    }

    fn make_room(&mut self) {
        if self.entries.len() < ADDRESS_BOOK_PEERS_MAX {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.seen).map(|(peer, _)| *peer);
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
            self.writes.push(Write::Remove { table: Table::Addresses, key: oldest.public_key().to_vec() });
        }
    }

    fn write(&mut self, peer: NodeId) {
        let Some(entry) = self.entries.get(&peer) else { return };
        let addresses = entry.addresses.iter().map(ToString::to_string).collect();
        let value = cbor::encode(&StoredEntry { addresses, seen: entry.seen });
        self.writes.push(Write::Put { table: Table::Addresses, key: peer.public_key().to_vec(), value });
    }
}

/// Whether an address that a peer at distance `from` claims can be its own.
pub(crate) fn is_believable(address: &Address, from: Reach) -> bool {
    match address.reach() {
        // A name may lead anywhere, this machine included.
        Reach::Relayed | Reach::Name => false,
        Reach::Global => true,
        Reach::Private => matches!(from, Reach::Private | Reach::Loopback),
        Reach::Loopback => from == Reach::Loopback && address.ip().is_some_and(|ip| !ip.is_unspecified()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn when(seconds: u64) -> UnixTime {
        UnixTime::from_millis(seconds * 1000)
    }

    #[test]
    fn the_address_that_worked_last_comes_first_and_survives_a_restart() {
        let mut book = AddressBook::default();
        book.worked(node(1), &at("/ip4/10.0.0.1/tcp/1"), when(1));
        book.worked(node(1), &at("/ip4/10.0.0.1/udp/1/quic-v1"), when(2));
        let stored: Vec<_> = book
            .take_writes()
            .into_iter()
            .filter_map(|write| match write {
                Write::Put { key, value, .. } => Some((key, value)),
                Write::Remove { .. } | Write::RemoveRange { .. } => None,
            })
            .collect();
        let mut again = AddressBook::default();
        again.restore(&[stored.last().unwrap().clone(), (b"bad".to_vec(), b"bad".to_vec())]);
        assert_eq!(again.addresses(node(1)), [at("/ip4/10.0.0.1/udp/1/quic-v1"), at("/ip4/10.0.0.1/tcp/1")]);
        assert_eq!(again.take_writes().len(), 1, "the damaged entry is dropped");
    }

    #[test]
    fn a_peer_on_the_internet_cannot_send_us_to_our_own_machine_or_network() {
        for (address, from, believable) in [
            ("/ip4/127.0.0.1/tcp/1", Reach::Global, false),
            ("/ip4/10.0.0.1/tcp/1", Reach::Global, false),
            ("/ip4/127.0.0.1/tcp/1", Reach::Private, false),
            ("/ip4/10.0.0.1/tcp/1", Reach::Private, true),
            ("/ip4/127.0.0.1/tcp/1", Reach::Loopback, true),
            ("/ip4/0.0.0.0/tcp/1", Reach::Loopback, false),
            ("/ip4/81.2.69.142/tcp/1", Reach::Private, true),
            ("/dns4/localhost/tcp/22", Reach::Global, false),
            ("/ip6/::ffff:127.0.0.1/tcp/22", Reach::Global, false),
            ("/ip6/::ffff:10.0.0.1/tcp/22", Reach::Global, false),
            ("/ip4/81.2.69.142/tcp/1/p2p-circuit", Reach::Global, false),
        ] {
            assert_eq!(is_believable(&at(address), from), believable, "{address} from {from:?}");
        }
    }

    #[test]
    fn strangers_fill_no_book() {
        let mut book = AddressBook::default();
        book.claimed(node(1), &at("/ip4/81.2.69.142/tcp/1"), Reach::Global);
        assert_eq!(book.len(), 0);
        for index in 0..=ADDRESS_BOOK_PEERS_MAX {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&index.to_be_bytes());
            let seen = when(u64::try_from(index).unwrap());
            book.worked(NodeId::from_public_key(key), &at("/ip4/10.0.0.1/tcp/1"), seen);
        }
        assert_eq!(book.len(), ADDRESS_BOOK_PEERS_MAX);
        assert_eq!(book.addresses(NodeId::from_public_key([0; 32])), [], "the one seen longest ago went");
    }

    #[test]
    fn a_dead_address_is_dropped_but_never_the_last() {
        let mut book = AddressBook::default();
        book.worked(node(1), &at("/ip4/10.0.0.1/tcp/1"), when(1));
        book.worked(node(1), &at("/ip4/10.0.0.1/tcp/2"), when(2));
        book.failed(node(1), &at("/ip4/10.0.0.1/tcp/2"));
        book.failed(node(1), &at("/ip4/10.0.0.1/tcp/1"));
        assert_eq!(book.addresses(node(1)), [at("/ip4/10.0.0.1/tcp/1")]);
    }
}
