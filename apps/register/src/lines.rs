//! The state: every register with its lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_app::{Corrupt, Position, Reject, RejectCode, SNAPSHOT_BYTES_MAX};
use wattle_types::{cbor, keyed};

use crate::ask::{Change, Line};

/// Registers. At the cap no further one is begun.
pub const REGISTERS_MAX: usize = 10_000;
/// What a line costs beside its bytes.
const LINE_COST: u64 = 64;

/// A line without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    at: Position,
    line: ByteBuf,
}

/// A line as a snapshot has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Appended {
    at: Position,
    register: String,
    line: ByteBuf,
}

/// All registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    registers: BTreeMap<String, Vec<Kept>>,
    stored: u64,
    /// Over all lines, one after the other as they were appended: a line more costs the same however many there are.
    digest: [u8; 32],
}

impl Registers {
    /// Applies a change; the line's number.
    pub(crate) fn apply(&mut self, at: Position, change: Change) -> Result<u64, Reject> {
        change.check()?;
        let Change::Append { register, line } = change;
        if !self.registers.contains_key(&register) && self.registers.len() >= REGISTERS_MAX {
            let why = format!("there are {REGISTERS_MAX} registers, and that is all that there may be");
            return Err(Reject::new(RejectCode::NotSaved, why));
        }
        let place = cbor::encode(&at);
        let parts: [&[u8]; 5] =
            [b"wattle register line v1", &self.digest, &place, register.as_bytes(), &line];
        self.digest = keyed(&[0; 32], &parts);
        self.stored += (register.len() + line.len()) as u64 + LINE_COST;
        let lines = self.registers.entry(register).or_default();
        lines.push(Kept { at, line });
        Ok(lines.len() as u64 - 1)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.registers.iter().map(|(name, lines)| (name.as_str(), lines.len() as u64))
    }

    /// How many lines a register has; none if there is no such register.
    pub(crate) fn count(&self, register: &str) -> Option<u64> {
        self.registers.get(register).map(|lines| lines.len() as u64)
    }

    /// The lines of a register from a number on.
    pub(crate) fn read(&self, register: &str, from: u64) -> impl Iterator<Item = Line> {
        let lines = self.registers.get(register).into_iter().flatten();
        let numbered = (0..).zip(lines).skip(usize::try_from(from).unwrap_or(usize::MAX));
        numbered.map(|(number, kept)| Line { number, at: kept.at, line: kept.line.clone() })
    }

    pub(crate) const fn stored(&self) -> u64 {
        self.stored
    }

    pub(crate) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let all = self
            .registers
            .iter()
            .flat_map(|(register, lines)| lines.iter().map(move |kept| (register, kept)));
        let mut all: Vec<Appended> = all
            .map(|(register, kept)| Appended {
                at: kept.at,
                register: register.clone(),
                line: kept.line.clone(),
            })
            .collect();
        all.sort_by_key(|appended| appended.at);
        cbor::encode(&all)
    }

    /// G3: everything is made again from the lines.
    pub(crate) fn restore(bytes: &[u8]) -> Result<Self, Corrupt> {
        let corrupt = |why: String| Corrupt::new(crate::ID, why);
        let all: Vec<Appended> =
            cbor::decode(bytes, SNAPSHOT_BYTES_MAX).map_err(|error| corrupt(error.to_string()))?;
        if !all.is_sorted_by(|one, next| one.at < next.at) {
            return Err(corrupt("two lines stand in one place".to_owned()));
        }
        let mut restored = Self::default();
        for Appended { at, register, line } in all {
            restored.apply(at, Change::Append { register, line }).map_err(|reject| corrupt(reject.text))?;
        }
        Ok(restored)
    }
}
