//! The texts of the protocol, each of its own type and with a cap.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ID_BYTES_MAX;

/// Why a text is no id. Caller error; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {ID_BYTES_MAX} bytes, not {got}")]
pub struct InvalidText {
    /// Bytes of the text.
    pub got: usize,
}

macro_rules! text {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidText;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let sized = (1..=ID_BYTES_MAX).contains(&text.len());
                if sized { Ok(Self(text)) } else { Err(InvalidText { got: text.len() }) }
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    )+};
}

text! {
    /// Who speaks on a connection, as it calls itself. No proof of anything.
    PeerId,
    /// A document as automerge-repo spells it: base58check of the bytes behind `automerge:` in its URLs.
    DocumentId,
    /// A store that outlives connections.
    StorageId,
    /// One run of a peer.
    SessionId,
    /// A version of the protocol.
    ProtocolVersion,
}

impl ProtocolVersion {
    /// The version that is spoken here, and the only one there is.
    pub const ONE: &'static str = "1";

    /// Version 1.
    #[must_use]
    pub fn one() -> Self {
        Self(Self::ONE.to_owned())
    }
}
