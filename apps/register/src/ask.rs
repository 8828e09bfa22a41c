//! What people ask of registers, what they are told, and what stands in the log.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_app::{Position, Reject, RejectCode};
use wattle_types::cbor;

/// Bytes of a register's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a line.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines in one answer.
pub const READ_MAX: usize = 1000;
/// Bytes of lines in one answer.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Which registers there are.
    List,
    /// Append a line.
    Append {
        /// To which register; it begins with its first line.
        register: String,
        /// The line.
        line: ByteBuf,
    },
    /// Lines of a register.
    Read {
        /// Which.
        register: String,
        /// From which number on; the newest when absent.
        from: Option<u64>,
        /// How many at most.
        limit: usize,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The registers, by name.
    List(Vec<Summary>),
    /// The line stands in the log.
    Appended {
        /// Its number.
        number: u64,
        /// Where it stands.
        at: Position,
    },
    /// Lines, in order.
    Lines {
        /// Which.
        lines: Vec<Line>,
        /// How many the register has here: there may be newer ones elsewhere.
        count: u64,
    },
}

/// A register at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub register: String,
    /// How many lines it has.
    pub count: u64,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 0.
    pub number: u64,
    /// Where it stands in the log.
    pub at: Position,
    /// What it says.
    pub line: ByteBuf,
}

/// What stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A line more.
    Append {
        /// To which register.
        register: String,
        /// The line.
        line: ByteBuf,
    },
}

fn usage(why: String) -> Reject {
    Reject::new(RejectCode::Usage, why)
}

/// Whether a register may be called so.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), Reject> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    let why = format!("a register's name has 1 to {NAME_BYTES_MAX} letters, digits and any of - _ . /");
    Err(usage(why))
}

impl Change {
    /// Whether it makes sense by itself.
    pub(crate) fn check(&self) -> Result<(), Reject> {
        let Self::Append { register, line } = self;
        check_name(register)?;
        if line.len() > LINE_BYTES_MAX {
            return Err(usage(format!("a line of {} bytes; at most {LINE_BYTES_MAX} are kept", line.len())));
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let change: Self = cbor::decode(bytes, LINE_BYTES_MAX + 1024)
            .map_err(|error| usage(format!("nothing that register understands: {error}")))?;
        change.check()?;
        Ok(change)
    }
}
