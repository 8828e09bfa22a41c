//! The ordered half of an app: what it makes of the log, on every replica the same.
//!
//! # Rules
//!
//! * **O1, same log, same state.** What an entry comes to depends on the entries before it, their places and the times
//!   of their blocks, and on nothing else. Limits too are counted in the blocks' times, never in this node's.
//! * **O2, root.** Behind each block stands one hash of the state of every app that has one in the log, and of all that
//!   entries came to. Validators compare it a few blocks later; one that differs is wrong, and says so.
//! * **O3, order.** Blocks are applied ascending, each once; one that comes again is left out. A block without entries
//!   for apps changes nothing, and need not be told.
//! * **O4, restore.** A snapshot that was taken behind a block makes the state behind that block, root and all; bytes
//!   that do not are refused, and nothing changed. Behind the same block it has the same bytes on every replica, also
//!   on one that was restored: validators vouch for them.

use serde::{Deserialize, Serialize};
use wattle_types::UnixTime;

use crate::app::Reject;

/// Bytes of what one entry says to its app.
pub const ENTRY_BYTES_MAX: usize = 60 * 1024;
/// Bytes of a receipt's answer; what is longer is cut off.
pub const ANSWER_BYTES_MAX: usize = 1024;
/// Bytes of a snapshot of all apps.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// What one app may do in the log. Part of what every replica does alike: a change is a new version of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuota {
    /// Entries in a second of the blocks' times; twice as many at once.
    pub entries_per_second: u64,
    /// Bytes of entries in a second of the blocks' times; twice as many at once.
    pub bytes_per_second: u64,
    /// Bytes that it may keep, by its own word ([`crate::App::stored`]). An entry beyond it is refused.
    pub stored_bytes: u64,
}

impl Default for LogQuota {
    /// More than the log orders in a second, and a snapshot that a newcomer has within seconds.
    fn default() -> Self {
        Self { entries_per_second: 100_000, bytes_per_second: 64 << 20, stored_bytes: 128 << 20 }
    }
}

/// A block's distance from the beginning of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Height(pub u64);

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// In which block.
    pub height: Height,
    /// At which place of it.
    pub index: u64,
    /// The block's time: the only clock that an app has here.
    pub time: UnixTime,
}

/// What came of an entry: an answer in the app's own form, or why it changed nothing. Either way it stands in the log.
pub type Receipt = Result<Vec<u8>, Reject>;

/// Bytes that are no state. Whoever made them is at fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a state of {app}: {why}")]
pub struct Corrupt {
    /// Of which app, or of all.
    pub app: String,
    /// Why not.
    pub why: String,
}

impl Corrupt {
    /// Says why.
    #[must_use]
    pub fn new(app: impl ToString, why: impl Into<String>) -> Self {
        Self { app: app.to_string(), why: why.into() }
    }
}

/// An entry in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// For which app.
    pub app: String,
    /// Its hash, by which the log knows it.
    pub transaction: [u8; 32],
    /// At which place of the block.
    pub index: u64,
    /// In the app's own form.
    pub data: Vec<u8>,
}

/// A committed block, as far as apps are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedBlock {
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: UnixTime,
    /// Its entries, in order.
    pub entries: Vec<Ordered>,
}

/// What an entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which entry.
    pub transaction: [u8; 32],
    /// Where it stands.
    pub at: Position,
    /// What came of it.
    pub receipt: Receipt,
}

/// A block that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its height.
    pub height: Height,
    /// The digest of the state behind it (O2).
    pub root: [u8; 32],
    /// What each entry came to, in order.
    pub outcomes: Vec<Outcome>,
}

/// A block was applied already, or one behind it was. The caller is at fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block of height {} came, and {} was applied already", got.0, applied.0)]
pub struct NotNext {
    /// Its height.
    pub got: Height,
    /// The last one's.
    pub applied: Height,
}
