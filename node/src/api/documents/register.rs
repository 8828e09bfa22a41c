//! Documents about registers in the ordered log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bytes, RegisterAppendSchema, RegisterSchema, RegistersSchema};

/// A register at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterRow {
    /// Its name.
    pub register: String,
    /// How many lines it has here.
    pub count: u64,
}

/// The registers, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistersDocument {
    /// `wattle.registers/1`.
    pub schema: RegistersSchema,
    /// How far the log is here.
    pub height: u64,
    /// The registers.
    pub registers: Vec<RegisterRow>,
}

/// A line of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterLine {
    /// Its number, from 0.
    pub number: u64,
    /// The block of the log that it stands in.
    pub height: u64,
    /// Its place there, from 0.
    pub index: u64,
    /// The time of its block, by the clock of who proposed it.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What it says.
    pub line_b64: Bytes,
}

/// Lines of a register, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterDocument {
    /// `wattle.register/1`.
    pub schema: RegisterSchema,
    /// Its name.
    pub register: String,
    /// How many lines it has here: there may be newer ones elsewhere.
    pub count: u64,
    /// How far the log is here.
    pub height: u64,
    /// The lines.
    pub lines: Vec<RegisterLine>,
}

/// A line to append.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterAppendRequest {
    /// What it says; 16 KiB at most.
    pub line_b64: Bytes,
    /// When to give up waiting; 30 s when absent, 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A line stands in the log for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterAppendDocument {
    /// `wattle.register_append/1`.
    pub schema: RegisterAppendSchema,
    /// To which register it was appended.
    pub register: String,
    /// Its number there, from 0.
    pub number: u64,
    /// The block of the log that it stands in.
    pub height: u64,
    /// Its place there, from 0.
    pub index: u64,
    /// How long it took.
    pub took_ms: u64,
}
