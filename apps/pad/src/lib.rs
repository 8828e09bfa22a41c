//! What is inside a shared document: text in sections, fields, history, and who typed what.
//!
//! # What it does
//!
//! Reads and edits one Automerge document. What is asked ([`Ask`]) the app makes a call of ([`Pad`]); everything
//! else here is a pure function of a document and of what somebody wants of it. Who may write, how documents travel
//! and where they are kept is decided elsewhere.
//!
//! # The schema
//!
//! ```text
//! root map
//!   title     string                the newest writer wins
//!   sections  list of Text objects  joined, they are the text; each up to 64 KiB of UTF-8
//!   ...       any other field, map, list, counter
//! ```
//!
//! A text is cut because applying one remote change costs as much as the text object it touches is long: 3.3 s
//! in one object of 10 MB, 5 ms in a new section of 16 KiB. Documents of other programs have no `sections`;
//! their text is, in this order, the root Text object named `text`, the one named `content`, or the only one
//! that is not the `title`. It is edited where it is and never cut.
//!
//! # An edit of the text, in steps
//!
//! 1. The caller opens a transaction at the version that was edited, so concurrent edits merge by themselves.
//! 2. [`change_text`] compares base and new by lines, then what changed by characters as people see them.
//! 3. Each difference becomes one splice in the section that it touches; the rest of the text is not written.
//! 4. A section that would grow beyond the cap keeps as much as it can of what it has; the surplus goes to new
//!    sections beside it.
//! 5. What is long becomes several changes of 64 KiB of text, each on the one before
//!    ([`create_in_steps`], [`change_text_in_steps`]): all of a change is in memory at once wherever it comes.
//!
//! # Invariants
//!
//! * **P1 no edit is lost.** An edit deletes only what differs between base and new, so what others wrote
//!   meanwhile is still there after the merge. An emptied section stays: somebody may be typing in it.
//! * **P2 the text is what was saved.** After [`change_text`], without concurrent edits, the text equals `new`;
//!   it is read back before the edit is reported as done.
//! * **P3 no panic.** A document may hold anything at any place; what is not as the schema says is skipped,
//!   shown, or an error, and every walk has a cap ([`wattle_types::limits`]).
//! * **P4 the same everywhere.** History, difference and blame depend on the changes alone, not on the replica
//!   or on the order in which changes came.
//!
//! # Bounds
//!
//! Reading costs O(document); an edit O(text) to compare and O(section) to write. What does not fit the caps is
//! refused with both numbers.
//!
//! # Not here
//!
//! Rights, signatures, sync, storage, clocks: the documents have them. Rich text: marks and blocks
//! of other editors are kept and not shown.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::string_slice, clippy::expect_used))]

mod ask;
mod blame;
mod body;
mod change;
mod diff;
mod difference;
mod error;
mod fields;
mod file;
mod history;
mod pad;
mod path;
mod steps;
mod version;
mod view;
mod wire;

pub use ask::{Answer, Ask, Hash, Refusal};
pub use blame::{Typed, blame};
pub use body::{Summary, create, create_in_steps, import_text, summary, text, text_of, title};
pub use change::{TextChange, change_text, change_text_in_steps};
pub use difference::{PatchLine, Touched, difference, lines_changed, touched};
pub use error::PadError;
pub use fields::{get, import_json, set, to_json, value_of};
pub(crate) use file::import_in_steps;
pub use file::{FileContent, FileFormat, export, import, recognise};
pub use history::{HistoryEntry, history, made_already};
pub use pad::{ID, Pad, SHOWN_FORM, shown};
pub use path::{Path, Step};
pub use steps::{HistoryStep, Telling, steps};
pub use version::version;

#[cfg(test)]
mod tests;
