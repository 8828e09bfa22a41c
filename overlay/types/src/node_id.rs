//! The identity of a node: its Ed25519 public key, written as a libp2p `PeerId`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// libp2p's encoding of an Ed25519 public key as a `PeerId` (peer-ids spec, "Peer IDs"): an identity
/// multihash (0x00, 36 bytes) of the protobuf `PublicKey { Type: Ed25519, Data: 32 bytes }`.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Who a node is: its Ed25519 public key. Shown as a libp2p `PeerId` (`12D3KooW…`), the same text every other
/// libp2p program shows. Peers with other kinds of keys cannot connect, so no other identity exists here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// Why a text or bytes name no node. Caller error; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeId {
    /// Not base58.
    #[error("a peer id is written in base58 (letters and digits without 0, O, I, l)")]
    NotBase58,
    /// Base58, but not the encoding of an Ed25519 key.
    #[error("not an Ed25519 peer id (those start with 12D3KooW and have 52 characters)")]
    NotEd25519,
}

impl NodeId {
    /// The node whose public key this is.
    #[must_use]
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The Ed25519 public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes of the libp2p `PeerId`.
    #[must_use]
    pub fn to_peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// From the bytes of a libp2p `PeerId`.
    ///
    /// # Errors
    /// [`InvalidNodeId::NotEd25519`] when they do not hold an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, InvalidNodeId> {
        bytes
            .strip_prefix(&PEER_ID_PREFIX)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(InvalidNodeId::NotEd25519)
    }

    /// The last six characters: what people see and type. Prefixes are useless, every id starts `12D3KooW`.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text.get(text.len().saturating_sub(6)..).unwrap_or_default().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId(..{})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // 52 characters are what 38 bytes need; longer text is refused before it is decoded (base58 is
        // quadratic).
        if text.len() > 64 {
            return Err(InvalidNodeId::NotEd25519);
        }
        let mut bytes = [0; 64];
        let Ok(length) = bs58::decode(text).onto(&mut bytes[..]) else {
            return Err(InvalidNodeId::NotBase58);
        };
        Self::from_peer_id_bytes(bytes.get(..length).unwrap_or_default())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(D::Error::custom)
        } else {
            let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)?;
            Ok(Self(bytes.into_array()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_shows_its_last_six_characters() {
        let id = NodeId::from_public_key([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(id));
        assert!(text.ends_with(&id.short()));
        assert_eq!(id.short().len(), 6);
    }

    #[test]
    fn damaged_ids_are_refused_with_the_reason() {
        assert_eq!("0OIl".parse::<NodeId>(), Err(InvalidNodeId::NotBase58));
        assert_eq!("".parse::<NodeId>(), Err(InvalidNodeId::NotEd25519));
        // A sha2-256 multihash, as RSA keys have.
        assert_eq!(
            "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC".parse::<NodeId>(),
            Err(InvalidNodeId::NotEd25519)
        );
        assert_eq!("1".repeat(10_000).parse::<NodeId>(), Err(InvalidNodeId::NotEd25519));
    }
}
