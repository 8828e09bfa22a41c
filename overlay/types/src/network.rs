//! The overlay a node belongs to: a name, and for a private overlay a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::limits::NETWORK_NAME_BYTES_MAX;

/// The name of an overlay. It is part of every protocol name and of everything signed, so networks never mix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

/// Why a text is no network name. Caller error; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network name has 1 to {NETWORK_NAME_BYTES_MAX} lower-case letters, digits or dashes, and starts with a letter"
)]
pub struct InvalidNetworkName;

impl NetworkName {
    /// The name everyone gets who does not choose one.
    pub const DEFAULT: &'static str = "wattle";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NetworkName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NetworkName {
    type Err = InvalidNetworkName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sized = (1..=NETWORK_NAME_BYTES_MAX).contains(&text.len());
        let spelled = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
        if sized && spelled && starts { Ok(Self(text.to_owned())) } else { Err(InvalidNetworkName) }
    }
}

impl TryFrom<String> for NetworkName {
    type Error = InvalidNetworkName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.0
    }
}

/// The 32-byte key of a private overlay. Whoever has it can join; wiped from memory when dropped, never
/// shown.
#[derive(Clone, PartialEq, Eq, Zeroize)]
#[zeroize(drop)]
pub struct NetworkKey([u8; 32]);

/// Why a text is no network key. Caller error; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network key is 64 hexadecimal digits")]
pub struct InvalidNetworkKey;

impl NetworkKey {
    /// A key from 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for the handshake and for a ticket.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as 64 hexadecimal digits, for its 0600 file.
    #[must_use]
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl FromStr for NetworkKey {
    type Err = InvalidNetworkKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
        let Ok(Ok(bytes)) = bytes.map(<[u8; 32]>::try_from) else { return Err(InvalidNetworkKey) };
        Ok(Self(bytes))
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_confuse_a_protocol_name_are_refused() {
        for bad in ["", "Wattle", "a/b", "1st", "-a", "a b", "ä", &"a".repeat(33)] {
            assert_eq!(bad.parse::<NetworkName>(), Err(InvalidNetworkName), "{bad}");
        }
        assert_eq!("home-lab-2".parse::<NetworkName>().unwrap().as_str(), "home-lab-2");
    }

    #[test]
    fn a_key_is_never_shown_by_debug() {
        let key = NetworkKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "NetworkKey(secret)");
        assert_eq!(key.to_hex().parse(), Ok(key));
        assert_eq!("abc".parse::<NetworkKey>(), Err(InvalidNetworkKey));
    }
}
