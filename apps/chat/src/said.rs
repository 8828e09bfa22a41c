//! What a feed's entry says.

use serde::{Deserialize, Serialize};
use wattle_app::{Reject, RejectCode};
use wattle_types::limits::POST_BYTES_MAX;
use wattle_types::{PostId, UnixTime, cbor};

/// Bytes of a message: an entry less what is around it.
pub const TEXT_BYTES_MAX: usize = POST_BYTES_MAX - 128;

/// Characters of a room's name.
const NAME_CHARS_MAX: usize = 64;

/// What a program calls a message that it keeps until the node has it: a number nobody else draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptId(pub u64);

/// A message that a program kept until the node had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// It is in the room once, however often it is said.
    pub id: KeptId,
    /// When somebody wrote it.
    pub written: UnixTime,
    /// Whether something is done: `/me waves`.
    pub action: bool,
    /// What it says.
    pub text: String,
}

/// The body of an entry. What a newer version adds is shown as something that this one cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// Something said.
    Text(String),
    /// Something done: `/me waves`.
    Action(String),
    /// Either of them, which a program kept until the node had it.
    Kept(Kept),
    /// Another text for an earlier message of the same author.
    Edit {
        /// Which.
        of: PostId,
        /// The new text.
        text: String,
    },
    /// An earlier message of the same author is taken back.
    Delete {
        /// Which.
        of: PostId,
    },
}

impl Said {
    pub(crate) fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        cbor::decode(body, POST_BYTES_MAX).ok()
    }

    /// Checks that there is something to say and that it is not too much.
    ///
    /// # Errors
    /// [`RejectCode::Usage`].
    pub fn check(&self) -> Result<(), Reject> {
        let (Self::Text(text) | Self::Action(text) | Self::Edit { text, .. } | Self::Kept(Kept { text, .. })) =
            self
        else {
            return Ok(());
        };
        if text.trim().is_empty() {
            return Err(Reject::new(RejectCode::Usage, "there is nothing to say in an empty message"));
        }
        if text.len() > TEXT_BYTES_MAX {
            let why = format!("a message of {} bytes; at most {TEXT_BYTES_MAX} are sent", text.len());
            return Err(Reject::new(RejectCode::Usage, why));
        }
        Ok(())
    }
}

/// A room's name without the `#` that people type before it.
#[must_use]
pub fn clean_name(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix('#').unwrap_or(name)
}

/// Checks a room's name.
///
/// # Errors
/// [`RejectCode::Usage`], saying what a name is.
pub fn check_name(name: &str) -> Result<(), Reject> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    let plain = name.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter));
    if fits && plain {
        return Ok(());
    }
    let why =
        format!("`{name}` is no name for a room: up to {NAME_CHARS_MAX} letters, digits, `-`, `_` and `.`");
    Err(Reject::new(RejectCode::Usage, why))
}
