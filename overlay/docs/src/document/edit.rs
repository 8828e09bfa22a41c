//! Edits of local callers, at once or in steps.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable as _, Transaction};
use automerge::{Automerge, ChangeHash, PatchLog};
use wattle_types::UnixTime;

use super::{Document, Hash, seconds};
use crate::chunk::{CHANGE_ROWS_MAX, ROWS_MAX};

/// Operations that a document may have after an edit here. What writers add at the same time is on top, and a peer
/// that has nothing takes all of it at once.
const OPERATIONS_MAX: u64 = ROWS_MAX / 4 * 3;

/// An edit as a caller brings it: it changes the document inside a transaction, or says why it cannot.
pub type Edit = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<(), String> + Send>;

/// A long edit: it is called with a new transaction until it breaks off, and each becomes a change of its own, on
/// top of the one before. All of them are saved at once or none is. What one step inserts is best some 64 KiB.
pub type Steps = Box<dyn FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, String> + Send>;

/// Why an edit was not made. The document is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditFault {
    /// The edit itself says why.
    Refused(String),
    /// The library failed in the middle: the document must be read again.
    Broken,
}

/// An edit of either kind.
pub(crate) enum Work {
    Edit(Edit),
    Steps(Steps),
}

impl Document {
    /// Does work on the current state, or on the state at `at` and merges it. Says whether it changed anything.
    pub(crate) fn work(
        &mut self,
        at: Option<&[Hash]>,
        now: UnixTime,
        work: Work,
    ) -> Result<Option<Hash>, EditFault> {
        match work {
            Work::Edit(edit) => self.edit(at, now, edit),
            Work::Steps(steps) => self.edit_in_steps(at, now, steps),
        }
    }

    /// Runs an edit.
    pub(crate) fn edit(
        &mut self,
        at: Option<&[Hash]>,
        now: UnixTime,
        edit: Edit,
    ) -> Result<Option<Hash>, EditFault> {
        let mut edit = Some(edit);
        let mut once = |tx: &mut Transaction<'_>| {
            edit.take().map_or(Ok(()), |edit| edit(tx)).map(|()| ControlFlow::Break(()))
        };
        let (at, operations) = (at.map(changes), self.operations);
        let automerge = &mut self.automerge;
        let run = || step(automerge, at.as_deref(), now, operations, &mut once);
        let (change, _) = catch_unwind(AssertUnwindSafe(run)).map_err(|_panic| EditFault::Broken)??;
        let Some(change) = change else { return Ok(None) };
        self.keep_fresh()?;
        Ok(Some(Hash::new(change.0)))
    }

    /// Runs an edit in steps, on a copy that takes the document's place when the last step is made.
    fn edit_in_steps(
        &mut self,
        at: Option<&[Hash]>,
        now: UnixTime,
        mut steps: Steps,
    ) -> Result<Option<Hash>, EditFault> {
        let copy = self.answer(Automerge::clone).ok_or(EditFault::Broken)?;
        let mut next = Self { automerge: copy, ..self.without_automerge() };
        let mut at = at.map(changes);
        let mut last = None;
        let run = || {
            loop {
                let made = step(&mut next.automerge, at.as_deref(), now, next.operations, &mut steps)?;
                if let (Some(change), flow) = (made.0, made.1) {
                    next.keep_fresh()?;
                    at = at.take().map(|_before| vec![change]);
                    last = Some(Hash::new(change.0));
                    if flow.is_break() {
                        return Ok(());
                    }
                } else if made.1.is_break() {
                    return Ok(());
                }
            }
        };
        // What fails, fails on the copy.
        let failed = || EditFault::Refused("the edit failed inside the document".to_owned());
        catch_unwind(AssertUnwindSafe(run)).map_err(|_panic| failed())??;
        *self = next;
        Ok(last)
    }
}

fn changes(heads: &[Hash]) -> Vec<ChangeHash> {
    heads.iter().map(|head| ChangeHash(**head)).collect()
}

/// Whether a version is the current one. Automerge finds a place in an older one letter by letter, for each letter that
/// goes: of 70 thousand in one text that took minutes, and takes a moment in the current version.
fn is_now(automerge: &Automerge, heads: &[ChangeHash]) -> bool {
    let (now, at) = (automerge.get_heads(), BTreeSet::from_iter(heads));
    now.len() == at.len() && now.iter().all(|head| at.contains(head))
}

/// One change, if there is anything to change, and whether more follow.
fn step(
    automerge: &mut Automerge,
    at: Option<&[ChangeHash]>,
    now: UnixTime,
    operations: u64,
    edit: &mut dyn FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, String>,
) -> Result<(Option<ChangeHash>, ControlFlow<()>), EditFault> {
    let mut transaction = match at.filter(|heads| !is_now(automerge, heads)) {
        None => automerge.transaction(),
        Some(heads) => {
            let opened = automerge.transaction_at(PatchLog::inactive(), heads);
            opened.map_err(|error| EditFault::Refused(error.to_string()))?
        }
    };
    let made = edit(&mut transaction).and_then(|flow| {
        let more = transaction.pending_ops() as u64;
        check(more, operations.saturating_add(more)).map(|()| flow)
    });
    match made {
        Ok(flow) => {
            let options = CommitOptions::default().with_time(seconds(now));
            Ok((transaction.commit_with(options).0, flow))
        }
        Err(why) => {
            transaction.rollback();
            Err(EditFault::Refused(why))
        }
    }
}

/// What no other node would take is refused where it is made.
pub(super) fn check(change: u64, all: u64) -> Result<(), String> {
    if change > CHANGE_ROWS_MAX {
        return Err(format!(
            "this makes {change} operations at once (a letter is one), and other nodes take {CHANGE_ROWS_MAX} at \
             most: bring it in smaller parts"
        ));
    }
    if all > OPERATIONS_MAX {
        return Err(format!(
            "with this the history of the document has {all} operations (a letter is one), and other nodes take \
             {OPERATIONS_MAX} at most: begin a new document with what it holds now"
        ));
    }
    Ok(())
}
