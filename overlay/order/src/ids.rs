//! Counters and hashes, each a type of its own.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;
use wattle_types::cbor;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one behind it.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// Whether it is exactly the one behind `earlier`.
            #[must_use]
            pub fn follows(self, earlier: Self) -> bool {
                self.0.checked_sub(1) == Some(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// A span of the log with one set of validators.
    Epoch
}
counter! {
    /// One leader's turn within an epoch (the paper's view).
    Round
}
counter! {
    /// A block's distance from the beginning of the log.
    Height
}
counter! {
    /// A record's place in the order in which records must reach the disk.
    Seq
}

/// A validator's place in the list of its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seat(pub u16);

impl Seat {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self([0; $length])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}..", data_encoding::HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                if !deserializer.is_human_readable() {
                    return ByteArray::<$length>::deserialize(deserializer).map(|bytes| Self(bytes.into_array()));
                }
                let text = String::deserialize(deserializer)?;
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
                let wrong = |bytes: Vec<u8>| D::Error::custom(format!("{} bytes, not {}", bytes.len(), $length));
                bytes.try_into().map(Self).map_err(wrong)
            }
        }
    };
}

bytes_id! {
    /// What names a block: the hash of its header.
    BlockId, 32
}
bytes_id! {
    /// A hash of something else than a block.
    Digest, 32
}
bytes_id! {
    /// What names a log: the hash of its genesis, and with it its network. It is part of everything signed.
    ChainId, 32
}
bytes_id! {
    /// An Ed25519 signature.
    Signature, 64
}

/// `label 0x00 body` hashed: a label holds no zero byte, so no two pairs collide.
pub(crate) fn hash_bytes(label: &str, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(label.as_bytes()).update(&[0]).update(body);
    *hasher.finalize().as_bytes()
}

/// The hash of a value's one encoding.
pub(crate) fn hash<T: Serialize>(label: &str, value: &T) -> [u8; 32] {
    hash_bytes(label, &cbor::encode(value))
}
