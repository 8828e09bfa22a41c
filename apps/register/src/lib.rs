//! Register: lists of lines that everybody reads alike.
//!
//! # What it does
//!
//! A register has a name and lines. Whoever may use the ordered log appends one; the log says which comes first, and
//! every replica has the same lines under the same numbers.
//!
//! # The walk of a line
//!
//! 1. [`Ask::Append`] is checked and proposed ([`Change`]).
//! 2. The log orders it, and each replica applies it: the line has its number and its place in the log.
//! 3. Whoever asked hears both ([`Answer::Appended`]), and [`Ask::Read`] gives the line on every node.
//!
//! # Invariants
//!
//! * **G1** Two replicas that applied the same log have the same lines, numbers and digest.
//! * **G2** Lines are never changed and never taken away.
//! * **G3** A snapshot whose lines are not those of its digest is refused.
//!
//! # Bounds
//!
//! A name has [`NAME_BYTES_MAX`] bytes and a line [`LINE_BYTES_MAX`]; there are [`REGISTERS_MAX`] registers, and what
//! all keep is bounded by the app's quota in the log. At a bound an append is refused, and the register stays as it is.
//!
//! # Not here
//!
//! Who may append (whoever may use the log), deleting, changing.

mod ask;
mod lines;
mod register;

pub use ask::{Answer, Ask, Change, LINE_BYTES_MAX, Line, NAME_BYTES_MAX, READ_MAX, Summary, check_name};
pub use lines::REGISTERS_MAX;
pub use register::{ID, Register};
