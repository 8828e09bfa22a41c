//! Which ports a node listens on.
//!
//! libp2p binds TCP with `SO_REUSEPORT`, so a second node would silently share the port of the first and take half of its
//! connections. A plain bind tells whether somebody listens; it is tried first, and closed again.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use wattle_net::Address;

use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// The port of a node that nobody told otherwise.
pub const DEFAULT_PORT: u16 = 7710;
/// Between the ports of two nodes on one machine.
const STEP: u16 = 10;
/// Nodes on one machine that find a port by themselves.
const TRIED: u16 = 200;

/// Where to listen when the first choice is a default: on the first port from `from` that is free for all addresses.
#[must_use]
pub fn free_default(addresses: &[Address], from: u16) -> Option<(u16, Vec<Address>)> {
    (0..TRIED).map_while(|step| from.checked_add(step.saturating_mul(STEP))).find_map(|port| {
        let moved: Vec<Address> = addresses.iter().map(|address| with_port(address, port)).collect();
        moved.iter().all(|address| probe(address).is_ok()).then_some((port, moved))
    })
}

/// The port after one that turned out to be busy.
#[must_use]
pub const fn after(port: u16) -> u16 {
    port.saturating_add(STEP)
}

/// Checks addresses that somebody chose.
///
/// # Errors
/// The first that cannot be listened on, as a document.
pub fn check_chosen(addresses: &[Address]) -> Result<(), ErrorDocument> {
    for address in addresses {
        if let Err(error) = probe(address) {
            let message = format!("cannot listen on {address}: {error}");
            let document = match error.kind() {
                io::ErrorKind::AddrInUse => ErrorDocument::new(ErrorCode::Conflict, message)
                    .hint("choose another port, or leave it out to get a free one"),
                io::ErrorKind::PermissionDenied => ErrorDocument::new(ErrorCode::Denied, message)
                    .hint("ports below 1024 need rights: choose a higher one"),
                _ => ErrorDocument::new(ErrorCode::Usage, message)
                    .hint("wattle config show --origin p2p.listen"),
            };
            return Err(document);
        }
    }
    Ok(())
}

fn probe(address: &Address) -> io::Result<()> {
    let (Some(ip), Some(port)) = (address.ip(), address.port()) else { return Ok(()) };
    let socket = SocketAddr::new(ip, port);
    if address.is_tcp() { TcpListener::bind(socket).map(drop) } else { UdpSocket::bind(socket).map(drop) }
}

fn with_port(address: &Address, port: u16) -> Address {
    let old = address.port().unwrap_or(port);
    let text = address.to_string();
    let moved = text.replacen(&format!("/{old}"), &format!("/{port}"), 1);
    moved.parse().unwrap_or_else(|_| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(port: u16) -> Vec<Address> {
        let texts = [format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{port}")];
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_default_port_that_is_busy_for_tcp_or_udp_gives_way_to_the_next() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let (chosen, moved) = free_default(&addresses(port), port).unwrap();
        assert_eq!(chosen % STEP, port % STEP);
        assert!(chosen > port);
        assert_eq!(moved, addresses(chosen));
        let udp = UdpSocket::bind(("127.0.0.1", chosen)).unwrap();
        assert!(free_default(&addresses(port), chosen).unwrap().0 > chosen);
        drop(udp);
    }

    #[test]
    fn a_chosen_port_that_is_busy_is_a_conflict() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let error = check_chosen(&addresses(port)).unwrap_err();
        assert_eq!((error.code, error.exit), (ErrorCode::Conflict, 6));
        assert!(error.message.contains(&port.to_string()), "{error}");
    }
}
