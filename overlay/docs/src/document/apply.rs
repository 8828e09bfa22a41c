//! Changes as they go into Automerge: some at a time.
//!
//! Automerge has all of what it is given at once in memory, some hundred bytes for each operation of it, so a text of
//! ten megabytes would take five gigabytes. What is many changes is applied in slices, and each is looked at before the
//! next: then the memory is that of one slice, however long the text.

use std::collections::BTreeSet;

use automerge::{Automerge, Change, ChangeHash, ReadDoc as _};
use serde_bytes::ByteBuf;

use super::{Fault, Hash, is_document};
use crate::chunk::{CHANGE_ROWS_MAX, DOCUMENT_ROWS_MAX};

/// Operations that are applied at once, unless one change has more: half of what that one may have.
const SLICE_OPERATIONS_MAX: usize = 256 * 1024;

/// Changes, with the bytes of those that came by themselves.
pub(super) type Incoming = Vec<(Change, ByteBuf)>;

/// Applies changes, which are in order.
pub(super) fn apply(automerge: &mut Automerge, changes: &[(Change, ByteBuf)]) -> Result<(), Fault> {
    for slice in slices(changes) {
        apply_slice(automerge, slice)?;
    }
    Ok(())
}

/// Applies changes, which are in order; says whether Automerge gives back exactly those. It keeps operations and makes
/// changes from them anew when it is asked: of one that was malformed in a way that it does not notice, it would make
/// another one, or panic, much later.
pub(super) fn apply_and_look(
    automerge: &mut Automerge,
    changes: &[(Change, ByteBuf)],
) -> Result<bool, Fault> {
    let mut gives_back = true;
    for slice in slices(changes) {
        let before = automerge.get_heads();
        apply_slice(automerge, slice)?;
        gives_back &= gives_back_after(automerge, &before, slice);
    }
    Ok(gives_back)
}

/// Whether what was added since some heads is given back as exactly these changes.
pub(super) fn gives_back_after(
    automerge: &Automerge,
    before: &[ChangeHash],
    changes: &[(Change, ByteBuf)],
) -> bool {
    let back: BTreeSet<ChangeHash> = automerge.get_changes(before).iter().map(Change::hash).collect();
    back.len() == changes.len() && changes.iter().all(|(change, _)| back.contains(&change.hash()))
}

/// Reads chunks as they were stored, in their order.
pub(super) fn load(automerge: &mut Automerge, chunks: &[ByteBuf]) -> Result<(), Fault> {
    let malformed = |error: &dyn std::fmt::Display| Fault::Malformed(error.to_string());
    let (mut waiting, mut operations): (Incoming, usize) = (Vec::new(), 0);
    for chunk in chunks {
        if is_document(chunk) {
            apply(automerge, &std::mem::take(&mut waiting))?;
            automerge.load_incremental(chunk).map_err(|error| malformed(&error))?;
            continue;
        }
        let change = Change::from_bytes(chunk.to_vec()).map_err(|error| malformed(&error))?;
        operations = operations.saturating_add(change.len());
        waiting.push((change, ByteBuf::new()));
        // At once as far as memory allows: one after the other, each takes as long as all of them.
        if operations >= SLICE_OPERATIONS_MAX {
            apply(automerge, &std::mem::take(&mut waiting))?;
            operations = 0;
        }
    }
    apply(automerge, &waiting)
}

/// The heads of the document that chunks hold.
pub(crate) fn heads_of(chunks: &[ByteBuf]) -> Result<Vec<Hash>, Fault> {
    let mut automerge = Automerge::new();
    load(&mut automerge, chunks)?;
    Ok(heads(&automerge))
}

/// The heads, in order.
pub(super) fn heads(automerge: &Automerge) -> Vec<Hash> {
    let mut heads: Vec<Hash> = automerge.get_heads().iter().map(|head| Hash::new(head.0)).collect();
    heads.sort();
    heads
}

/// Whether a document has more than peers take as one chunk.
pub(super) fn is_large(automerge: &Automerge) -> bool {
    let stats = automerge.stats();
    stats.num_ops.max(stats.num_changes) > DOCUMENT_ROWS_MAX
}

/// Whether a change has more operations than one may have.
pub(super) fn is_oversized(change: &Change) -> bool {
    change.len() as u64 > CHANGE_ROWS_MAX
}

fn apply_slice(automerge: &mut Automerge, slice: &[(Change, ByteBuf)]) -> Result<(), Fault> {
    let changes: Vec<Change> = slice.iter().map(|(change, _)| change.clone()).collect();
    automerge.apply_changes(changes).map_err(|error| Fault::Unfit(error.to_string()))
}

pub(super) fn slices(changes: &[(Change, ByteBuf)]) -> Vec<&[(Change, ByteBuf)]> {
    let (mut slices, mut rest) = (Vec::new(), changes);
    while !rest.is_empty() {
        let mut operations = 0_usize;
        let fits = |(change, _): &&(Change, ByteBuf)| {
            operations = operations.saturating_add(change.len());
            operations <= SLICE_OPERATIONS_MAX
        };
        let (slice, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        slices.push(slice);
        rest = after;
    }
    slices
}
