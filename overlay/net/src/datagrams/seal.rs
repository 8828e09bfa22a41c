//! What a sealed packet is made of.

use std::io;

use crypto_box::aead::Aead as _;
use crypto_box::{ChaChaBox, PublicKey, SecretKey};
use wattle_types::{NetworkName, NodeId};

/// The first byte of a sealed packet of version 1.
pub(super) const SEALED: u8 = 1;
/// The first byte of "who are you".
pub(super) const WHO: u8 = 2;
const SENDER_BYTES: usize = 8;
/// A thousand packets a second for 34 years.
const COUNTER_BYTES: usize = 5;
/// Kind, sender and counter.
pub(super) const HEADER_BYTES: usize = 1 + SENDER_BYTES + COUNTER_BYTES;
/// "Who are you" is a header.
pub(super) const WHO_BYTES: usize = HEADER_BYTES;
const TAG_BYTES: usize = 16;
/// What sealing adds.
pub(super) const SEALED_BYTES_MORE: usize = HEADER_BYTES + TAG_BYTES;
/// The first counter that does not fit.
pub(super) const COUNTER_END: u64 = 1 << (8 * COUNTER_BYTES);
const NONCE_BYTES: usize = 24;

/// The secret of one boot. It never leaves the process, and is wiped when dropped.
pub struct BootKey(SecretKey);

impl BootKey {
    /// A new one, from the system's randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(SecretKey::from(bytes)))
    }

    /// The one with this secret: for vectors of what is on the wire.
    #[doc(hidden)]
    #[must_use]
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        Self(SecretKey::from(secret))
    }

    /// What others need to seal for it: an X25519 public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        *self.0.public_key().as_bytes()
    }
}

/// The beginning of a node's public key. Keys cannot be made to begin alike with less than 2^64 tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sender([u8; SENDER_BYTES]);

impl Sender {
    pub(super) fn of(id: &NodeId) -> Self {
        let mut bytes = [0; SENDER_BYTES];
        bytes.copy_from_slice(&id.public_key()[..SENDER_BYTES]);
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What seals for one peer and opens what it sealed.
pub(super) struct Pair {
    cipher: ChaChaBox,
    there: [u8; NONCE_BYTES - COUNTER_BYTES],
    back: [u8; NONCE_BYTES - COUNTER_BYTES],
}

impl Pair {
    pub(super) fn new(network: &NetworkName, me: (&NodeId, &BootKey), peer: (&NodeId, &[u8; 32])) -> Self {
        Self {
            cipher: ChaChaBox::new(&PublicKey::from(*peer.1), &me.1.0),
            there: direction(network, me.0, peer.0),
            back: direction(network, peer.0, me.0),
        }
    }

    /// The whole packet, number `counter` of this boot.
    pub(super) fn seal(&self, me: Sender, counter: u64, bytes: &[u8]) -> Vec<u8> {
        let mut packet = start(SEALED, me, counter);
        // Ignored because it fails only for more than 2^38 bytes, and a packet of only a header is refused.
        let sealed = self.cipher.encrypt(&nonce(&self.there, counter).into(), bytes).unwrap_or_default();
        packet.extend(sealed);
        packet
    }

    /// What is inside, if the peer sealed it for this node.
    pub(super) fn open(&self, counter: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        self.cipher.decrypt(&nonce(&self.back, counter).into(), sealed).ok()
    }
}

/// The part of a nonce that tells who speaks to whom, and in which network.
fn direction(network: &NetworkName, from: &NodeId, to: &NodeId) -> [u8; NONCE_BYTES - COUNTER_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("wattle members datagram v1");
    hasher.update(from.public_key()).update(to.public_key()).update(network.as_str().as_bytes());
    let mut bytes = [0; NONCE_BYTES - COUNTER_BYTES];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES - COUNTER_BYTES]);
    bytes
}

fn nonce(direction: &[u8; NONCE_BYTES - COUNTER_BYTES], counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..NONCE_BYTES - COUNTER_BYTES].copy_from_slice(direction);
    nonce[NONCE_BYTES - COUNTER_BYTES..].copy_from_slice(&counter.to_be_bytes()[8 - COUNTER_BYTES..]);
    nonce
}

/// "Who are you": I could not read your packet `counter`.
pub(super) fn who(me: Sender, counter: u64) -> Vec<u8> {
    start(WHO, me, counter)
}

fn start(kind: u8, sender: Sender, counter: u64) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_BYTES);
    packet.push(kind);
    packet.extend(sender.0);
    packet.extend(&counter.to_be_bytes()[8 - COUNTER_BYTES..]);
    packet
}

/// What a packet says it is, before anything in it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Sealed by this sender, as its packet of this number.
    Sealed(Sender, u64),
    /// "Who are you", about the packet of this number.
    Who(Sender, u64),
}

/// Reads what a packet says it is; nothing if it is none.
pub(super) fn head(packet: &[u8]) -> Option<Head> {
    let (sender, counter) = sender_and_counter(packet)?;
    match packet.first() {
        Some(&SEALED) if packet.len() >= SEALED_BYTES_MORE => Some(Head::Sealed(sender, counter)),
        Some(&WHO) if packet.len() == WHO_BYTES => Some(Head::Who(sender, counter)),
        _ => None,
    }
}

fn sender_and_counter(packet: &[u8]) -> Option<(Sender, u64)> {
    let sender = packet.get(1..1 + SENDER_BYTES)?.try_into().ok()?;
    let mut counter = [0; 8];
    counter[8 - COUNTER_BYTES..].copy_from_slice(packet.get(1 + SENDER_BYTES..HEADER_BYTES)?);
    Some((Sender(sender), u64::from_be_bytes(counter)))
}
