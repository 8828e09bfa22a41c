//! Datagrams: sealed packets between members, for what is worth more early than certain.
//!
//! # What it does
//!
//! A probe must not wait behind a lost byte of something else, must not need a connection to everybody, and must
//! be believed only from whom it says it is. So members speak over a UDP socket of their own, and every packet is
//! sealed for one pair of nodes. There is no handshake: each node makes a key for this boot, says it in its signed
//! record of membership, and whoever holds that record can seal for it ([`Datagrams::know`]).
//!
//! # On the wire
//!
//! ```text
//! sealed        01 | sender 8 | counter 5 | ciphertext | tag 16      30 bytes more than what is inside
//! who are you   02 | sender 8 | counter 5                            14 bytes, the answer to a sealed one
//! ```
//!
//! `sender` is the beginning of a public key. `counter` counts what this boot of the sender has sent, whoever it
//! was for; in "who are you" it is the one of the packet that was not understood. Numbers are big-endian.
//!
//! # Rules
//!
//! 1. The key of a pair is X25519 of both boot keys, the cipher XChaCha20-Poly1305 (`ChaChaBox` of `crypto_box`).
//!    The nonce is 19 bytes of a hash of network, sender and receiver, and the counter: no packet can be turned
//!    around, given to somebody else, or carried to another network, and no nonce is used twice.
//! 2. A packet is opened once: a window of 1024 counters for each peer refuses copies and what is older. A new boot
//!    has a new key, so nothing of an old one opens.
//! 3. A stranger's packet is answered with "who are you", at most once a second to each sender and 32 times a second
//!    in all, and never with more bytes than it had. It is believed only as the echo of something just sent.
//! 4. Where an authentic packet came from is where the next one goes for [`MAPPING_KEPT`]: that is the hole in the
//!    peer's NAT. Otherwise the addresses it claims are taken in turn.
//! 5. A packet that the kernel has no room for is dropped: datagrams may be lost.
//!
//! # Bounds
//!
//! About 400 bytes for each peer, at most [`DATAGRAM_PEERS_MAX`]; one buffer of 2 KiB; 512 senders of late questions.
//!
//! # Deliberately not here
//!
//! What is inside, who is a member, and when to send: that is the machine of membership.

mod seal;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use wattle_types::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_PEERS_MAX};
use wattle_types::{NetworkName, NodeId};

use crate::faults::{Fate, Faults};
pub use seal::BootKey;

use seal::{COUNTER_END, Head, Pair, SEALED_BYTES_MORE, Sender};
use window::Window;

/// How long the place that a peer's packet came from is where the next one goes. NATs keep a mapping for 30 s at
/// least (RFC 4787, REQ-5 asks for minutes; what is sold keeps less).
pub const MAPPING_KEPT: Duration = Duration::from_secs(30);
/// At most one question to a stranger in this time.
const WHO_AGAIN: Duration = Duration::from_secs(1);
/// Questions to strangers in [`WHO_AGAIN`], all together.
const WHO_MAX: usize = 32;
/// How far back an echo may lie.
const ECHO_MAX: u64 = 1024;
/// Packets that the faults of a testnet hold back at once; one more is lost.
const LATE_MAX: usize = 1024;

/// Where to bind.
#[derive(Clone, Debug)]
pub struct DatagramConfig {
    /// This node.
    pub me: NodeId,
    /// Its network: part of every seal.
    pub network: NetworkName,
    /// The port wanted; 0, or when it is taken: any.
    pub port: u16,
    /// Whether only this machine may reach it.
    pub loopback_only: bool,
    /// Faults on purpose, in the nodes of a testnet only.
    pub faults: Option<Faults>,
}

/// Neither IPv4 nor IPv6 could be bound. The system's fault; nothing runs.
#[derive(Debug, thiserror::Error)]
#[error("no socket for datagrams of members: {0}")]
pub struct BindError(#[source] io::Error);

/// Why a packet was not sent. Nothing else changed.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// Nobody said the key of this peer. To do: [`Datagrams::know`].
    #[error("the key of this peer is not known")]
    Unknown,
    /// Longer than a packet may be. The caller's fault.
    #[error("a datagram holds {max} bytes, not {got}")]
    TooLong {
        /// How long it was.
        got: usize,
        /// How long it may be.
        max: usize,
    },
    /// This boot has sent 2^40 packets.
    #[error("this start of the node has sent all the packets it may")]
    Exhausted,
    /// The kernel refused it, or the peer has no address of a kind that this machine has.
    #[error("not sent: {0}")]
    Io(#[source] io::Error),
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// A packet that this peer, in this boot, sealed for this node.
    Opened {
        /// Who sent it.
        from: NodeId,
        /// What was inside.
        bytes: Vec<u8>,
    },
    /// This peer does not know the key of this boot: it should be told.
    AskedWho {
        /// Who asks. Not proven, but it got something just sent to it.
        from: NodeId,
    },
}

/// How many packets went and came, and why some were dropped, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Packets sent.
    pub sent: u64,
    /// Their bytes, without the headers of UDP and IP.
    pub sent_bytes: u64,
    /// Packets opened.
    pub opened: u64,
    /// Bytes of all that arrived.
    pub received_bytes: u64,
    /// Packets of somebody unknown.
    pub unknown: u64,
    /// Packets that did not open, or are none.
    pub refused: u64,
    /// Packets seen before, or too old to tell.
    pub replayed: u64,
    /// Packets that the kernel had no room for.
    pub unsent: u64,
}

struct Known {
    id: NodeId,
    boot: [u8; 32],
    sealer: Sealer,
    addresses: Vec<SocketAddr>,
    turn: usize,
    mapping: Option<(SocketAddr, Instant)>,
}

/// The sockets of this node's datagrams, and whom it can seal for. One task owns it.
pub struct Datagrams {
    config: DatagramConfig,
    key: BootKey,
    ipv4: Option<Arc<UdpSocket>>,
    ipv6: Option<Arc<UdpSocket>>,
    known: BTreeMap<Sender, Known>,
    asked: BTreeMap<Sender, Instant>,
    sent: u64,
    counts: DatagramCounts,
    late: Arc<Semaphore>,
}

impl Datagrams {
    /// Binds IPv4 and IPv6 where there are such, to the same port if possible, and makes the key of this boot.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(config: DatagramConfig) -> Result<Self, BindError> {
        let any = |port| async move {
            let v4 = if config.loopback_only { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
            UdpSocket::bind((v4, port)).await
        };
        let ipv4 = match any(config.port).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => any(0).await,
            bound => bound,
        };
        let port = match &ipv4 {
            Ok(socket) => socket.local_addr().map_err(BindError)?.port(),
            Err(_) => config.port,
        };
        let v6 = if config.loopback_only { Ipv6Addr::LOCALHOST } else { Ipv6Addr::UNSPECIFIED };
        let ipv6 = bind_v6_only(SocketAddr::from((v6, port)));
        if let (Err(error), Err(_)) = (&ipv4, &ipv6) {
            return Err(BindError(io::Error::new(error.kind(), error.to_string())));
        }
        for socket in [&ipv4, &ipv6].into_iter().flatten() {
            // Until the runtime has looked at a socket, it takes none for ready to send.
            socket.writable().await.map_err(BindError)?;
        }
        Ok(Self {
            key: BootKey::generate().map_err(BindError)?,
            ipv4: ipv4.ok().map(Arc::new),
            ipv6: ipv6.ok().map(Arc::new),
            config,
            known: BTreeMap::new(),
            asked: BTreeMap::new(),
            sent: 0,
            counts: DatagramCounts::default(),
            late: Arc::new(Semaphore::new(LATE_MAX)),
        })
    }

    /// The public half of the key of this boot, as it belongs into the signed record of this node.
    #[must_use]
    pub fn boot_key(&self) -> [u8; 32] {
        self.key.public()
    }

    /// The port that others reach; IPv6 has the same unless somebody else had it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let address = self.ipv4.as_ref().or(self.ipv6.as_ref()).map(|socket| socket.local_addr());
        address.and_then(Result::ok).map(|address| address.port())
    }

    /// What went and came.
    #[must_use]
    pub const fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// From now on `peer` can be sent to and is understood. Known with the same key already: only the addresses
    /// are new. Answers `false` when there are [`DATAGRAM_PEERS_MAX`] already, or another peer's key begins alike.
    pub fn know(&mut self, peer: NodeId, boot: [u8; 32], addresses: Vec<SocketAddr>) -> bool {
        let sender = Sender::of(&peer);
        let full = self.known.len() >= DATAGRAM_PEERS_MAX;
        match self.known.get_mut(&sender) {
            Some(known) if known.id != peer => return false,
            Some(known) if known.boot == boot => {
                known.addresses = addresses;
                return true;
            }
            Some(_) => {}
            None if full => return false,
            None => {}
        }
        let sealer = Sealer::new(&self.config.network, (&self.config.me, &self.key), (&peer, &boot));
        let known = Known { id: peer, boot, sealer, addresses, turn: 0, mapping: None };
        self.known.insert(sender, known);
        true
    }

    /// Forgets a peer: it is a stranger again.
    pub fn forget(&mut self, peer: &NodeId) {
        let sender = Sender::of(peer);
        if self.known.get(&sender).is_some_and(|known| known.id == *peer) {
            self.known.remove(&sender);
        }
    }

    /// Seals and sends. Never waits: what the kernel has no room for is lost, as datagrams may be.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn send(&mut self, peer: &NodeId, bytes: &[u8]) -> Result<(), DatagramError> {
        let max = DATAGRAM_BYTES_MAX - SEALED_BYTES_MORE;
        if bytes.len() > max {
            return Err(DatagramError::TooLong { got: bytes.len(), max });
        }
        if self.sent >= COUNTER_END {
            return Err(DatagramError::Exhausted);
        }
        let known = self.known.get_mut(&Sender::of(peer)).filter(|known| known.id == *peer);
        let known = known.ok_or(DatagramError::Unknown)?;
        let to = known.place(Instant::now(), self.ipv4.is_some(), self.ipv6.is_some());
        let to = to.ok_or_else(|| DatagramError::Io(io::ErrorKind::AddrNotAvailable.into()))?;
        let packet = known.sealer.seal(self.sent, bytes);
        // The counter is used up even if nothing leaves: a nonce is never used twice.
        self.sent += 1;
        self.put_faulty(Some(*peer), packet, to)
    }

    /// Sends, or does to the packet what the faults of this testnet say. Without faults it is [`Self::put`].
    fn put_faulty(
        &mut self,
        peer: Option<NodeId>,
        packet: Vec<u8>,
        to: SocketAddr,
    ) -> Result<(), DatagramError> {
        let fate = match (&self.config.faults, peer) {
            (Some(faults), Some(peer)) => faults.datagram_to(peer, packet.len()),
            _ => Fate::Now,
        };
        match fate {
            Fate::Now => self.put(&packet, to),
            Fate::Lost => Ok(()),
            Fate::Later(wait) => {
                let socket = if to.is_ipv4() { self.ipv4.clone() } else { self.ipv6.clone() };
                let place = Arc::clone(&self.late).try_acquire_owned();
                let (Some(socket), Ok(place)) = (socket, place) else { return Ok(()) };
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    // Ignored because a datagram may be lost.
                    drop(socket.try_send_to(&packet, to));
                    drop(place);
                });
                Ok(())
            }
        }
    }

    fn put(&mut self, packet: &[u8], to: SocketAddr) -> Result<(), DatagramError> {
        let socket = if to.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let socket =
            socket.as_ref().ok_or_else(|| DatagramError::Io(io::ErrorKind::AddrNotAvailable.into()))?;
        match socket.try_send_to(packet, to) {
            Ok(sent_bytes) => {
                self.counts.sent += 1;
                self.counts.sent_bytes += sent_bytes as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.counts.unsent += 1;
                Ok(())
            }
            Err(error) => Err(DatagramError::Io(error)),
        }
    }

    /// The next packet that says something. Cancel safe.
    pub async fn receive(&mut self) -> Datagram {
        let mut buffer = [0; 2048];
        loop {
            let Some((length, source)) = self.next_packet(&mut buffer).await else { continue };
            self.counts.received_bytes += length as u64;
            if let Some(datagram) = self.take(Instant::now(), &buffer[..length], source) {
                return datagram;
            }
        }
    }

    /// One packet of either socket. An error of a socket is that of a packet sent before (ICMP): no packet.
    async fn next_packet(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (v4, v6) = (self.ipv4.as_deref(), self.ipv6.as_deref());
        let socket = tokio::select! {
            _ready = ready(v4) => v4,
            _ready = ready(v6) => v6,
        };
        socket.and_then(|socket| socket.try_recv_from(buffer).ok())
    }

    fn take(&mut self, now: Instant, packet: &[u8], source: SocketAddr) -> Option<Datagram> {
        let head = seal::head(packet);
        if let (Some(faults), Some(Head::Sealed(sender, _) | Head::Who(sender, _))) =
            (&self.config.faults, &head)
            && !faults.lets_in(sender.as_bytes())
        {
            return None;
        }
        match head {
            Some(Head::Sealed(sender, counter)) => self.take_sealed(now, (sender, counter), packet, source),
            Some(Head::Who(sender, counter)) => self.take_who(sender, counter),
            None => {
                self.counts.refused += 1;
                None
            }
        }
    }

    fn take_sealed(
        &mut self,
        now: Instant,
        (sender, counter): (Sender, u64),
        packet: &[u8],
        source: SocketAddr,
    ) -> Option<Datagram> {
        let Some(known) = self.known.get_mut(&sender) else {
            self.counts.unknown += 1;
            self.ask_who(now, sender, counter, source);
            return None;
        };
        let bytes = match known.sealer.open_numbered(counter, packet) {
            Opening::Opened(bytes) => bytes,
            Opening::Replayed => {
                self.counts.replayed += 1;
                return None;
            }
            Opening::Refused => {
                self.counts.refused += 1;
                // Sealed under the key of another boot: of its next one, or one long gone. It will say which.
                self.ask_who(now, sender, counter, source);
                return None;
            }
        };
        known.mapping = Some((source, now));
        self.counts.opened += 1;
        Some(Datagram::Opened { from: known.id, bytes })
    }

    /// Asks whoever sent this, unless it or too many others were asked just now.
    fn ask_who(&mut self, now: Instant, sender: Sender, counter: u64, source: SocketAddr) {
        self.asked.retain(|_, asked| now.saturating_duration_since(*asked) < WHO_AGAIN);
        if self.asked.len() >= WHO_MAX || self.asked.contains_key(&sender) {
            return;
        }
        self.asked.insert(sender, now);
        let question = seal::who(Sender::of(&self.config.me), counter);
        let known = self.config.faults.as_ref().and_then(|faults| faults.named(sender.as_bytes()));
        // Ignored because the stranger sends again, and is asked again.
        drop(self.put_faulty(known, question, source));
    }

    fn take_who(&mut self, sender: Sender, counter: u64) -> Option<Datagram> {
        let just_sent = counter < self.sent && self.sent - counter <= ECHO_MAX;
        match self.known.get(&sender).filter(|_| just_sent) {
            Some(known) => Some(Datagram::AskedWho { from: known.id }),
            None => {
                self.counts.refused += 1;
                None
            }
        }
    }
}

/// One end of a pair, without a socket: what it seals, and what of the other end it opens, once each.
#[doc(hidden)]
pub struct Sealer {
    me: Sender,
    peer: Sender,
    pair: Pair,
    window: Window,
}

impl Sealer {
    /// Between this node and a peer with its key.
    #[must_use]
    pub fn new(network: &NetworkName, me: (&NodeId, &BootKey), peer: (&NodeId, &[u8; 32])) -> Self {
        let pair = Pair::new(network, me, peer);
        Self { me: Sender::of(me.0), peer: Sender::of(peer.0), pair, window: Window::default() }
    }

    /// The packet of this number.
    #[must_use]
    pub fn seal(&self, counter: u64, bytes: &[u8]) -> Vec<u8> {
        self.pair.seal(self.me, counter, bytes)
    }

    /// "Who are you" about the packet of this number.
    #[must_use]
    pub fn who(&self, counter: u64) -> Vec<u8> {
        seal::who(self.me, counter)
    }

    /// What is inside a packet that the peer sealed, and its number.
    pub fn open(&mut self, packet: &[u8]) -> Option<(u64, Vec<u8>)> {
        let Head::Sealed(sender, counter) = seal::head(packet)? else { return None };
        match self.open_numbered(counter, packet) {
            Opening::Opened(bytes) if sender == self.peer => Some((counter, bytes)),
            Opening::Opened(_) | Opening::Replayed | Opening::Refused => None,
        }
    }

    fn open_numbered(&mut self, counter: u64, packet: &[u8]) -> Opening {
        if !self.window.is_new(counter) {
            return Opening::Replayed;
        }
        match self.pair.open(counter, &packet[seal::HEADER_BYTES..]) {
            Some(bytes) => {
                self.window.add(counter);
                Opening::Opened(bytes)
            }
            None => Opening::Refused,
        }
    }
}

/// What came of opening a packet.
enum Opening {
    Opened(Vec<u8>),
    Replayed,
    Refused,
}

impl Known {
    /// Where the next packet goes.
    fn place(&mut self, now: Instant, ipv4: bool, ipv6: bool) -> Option<SocketAddr> {
        let usable = |address: &SocketAddr| if address.is_ipv4() { ipv4 } else { ipv6 };
        if let Some((address, seen)) = self.mapping
            && now.saturating_duration_since(seen) < MAPPING_KEPT
        {
            return Some(address);
        }
        let count = self.addresses.len();
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        (0..count).map(|step| self.addresses[turn.wrapping_add(step) % count]).find(usable)
    }
}

async fn ready(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

/// An IPv6 socket beside an IPv4 one of the same port: it must not take IPv4 too.
fn bind_v6_only(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    if socket.bind(&address.into()).is_err() {
        socket.bind(&SocketAddr::new(address.ip(), 0).into())?;
    }
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests;
