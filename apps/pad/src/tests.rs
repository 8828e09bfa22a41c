//! What the crate promises, as sentences.

mod editing;
mod fields;
mod past;
mod shown;
mod steps;
mod stepwise;

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{ActorId, Automerge, ChangeHash, PatchLog};

use crate::{TextChange, change_text, create, text};

/// A replica whose edits are named after `name`, the same in every run.
pub(crate) fn replica(name: &str) -> Automerge {
    Automerge::new().with_actor(ActorId::from(name.as_bytes()))
}

/// Edits and commits; answers what the edit answered and the change it became.
pub(crate) fn commit<T>(
    doc: &mut Automerge,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, crate::PadError>,
) -> T {
    let mut tx = doc.transaction();
    let answer = edit(&mut tx).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1_700_000_000));
    answer
}

/// A document with this text, made by `name`.
pub(crate) fn document(name: &str, body: &str) -> Automerge {
    let mut doc = replica(name);
    commit(&mut doc, |tx| create(tx, "notes", body));
    doc
}

/// Another replica of a document.
pub(crate) fn copy(doc: &Automerge, name: &str) -> Automerge {
    doc.fork().with_actor(ActorId::from(name.as_bytes()))
}

/// Saves `new` over the current text.
pub(crate) fn save(doc: &mut Automerge, new: &str) -> TextChange {
    let base = text(doc, None).unwrap().unwrap();
    commit(doc, |tx| change_text(tx, &base, new))
}

/// Saves `new` over the text at an older version.
pub(crate) fn save_at(doc: &mut Automerge, heads: &[ChangeHash], new: &str) -> TextChange {
    let base = text(doc, Some(heads)).unwrap().unwrap();
    let mut tx = doc.transaction_at(PatchLog::inactive(), heads).unwrap();
    let change = change_text(&mut tx, &base, new).unwrap();
    tx.commit();
    change
}

/// The current text.
pub(crate) fn read(doc: &Automerge) -> String {
    text(doc, None).unwrap().unwrap()
}

/// Brings two replicas together, both ways.
pub(crate) fn merge(one: &mut Automerge, other: &mut Automerge) {
    one.merge(other).unwrap();
    other.merge(one).unwrap();
    assert_eq!(one.get_heads(), other.get_heads());
    assert_eq!(read(one), read(other));
}
