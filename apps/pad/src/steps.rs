//! History as people read it: what one person did in one go is one step.

use std::collections::BTreeMap;

use automerge::{ActorId, Automerge, ChangeHash};
use serde::{Deserialize, Serialize};
use wattle_types::{NodeId, UnixTime};

use crate::difference::{Touched, touched};
use crate::history::{HistoryEntry, changes_between};
use crate::{PadError, summary};

/// A pause longer than this ends a step.
const PAUSE_MS_MAX: u64 = 60_000;

/// Bytes of text that are compared to say what steps did. What is beyond is told without: a history of a long
/// text must not take as long as reading that text a hundred times.
const COMPARED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Changes of one author, each building on exactly the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// The newest of the changes. As a version it is the document as its author saw it then.
    #[serde(with = "crate::wire::hash")]
    pub version: ChangeHash,
    /// The version that the oldest of them was made on.
    #[serde(with = "crate::wire::hashes")]
    pub before: Vec<ChangeHash>,
    /// Who vouches for them.
    pub author: Option<NodeId>,
    /// Where nobody does: whose changes build on them, and brought them in.
    pub brought_by: Option<NodeId>,
    /// When the oldest was made, by the clock of who made it.
    pub began: Option<UnixTime>,
    /// When the newest was made.
    pub ended: Option<UnixTime>,
    /// How many changes.
    pub changes: usize,
    /// What their author says about them.
    pub message: Option<String>,
    /// What they did; none where the text is too long to look at all of them.
    pub touched: Option<Touched>,
}

/// How a history is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling<'a> {
    /// Only what came after this version.
    pub since: Option<&'a [ChangeHash]>,
    /// Only what this version has; everything without it.
    pub until: Option<&'a [ChangeHash]>,
    /// The newest so many.
    pub limit: usize,
    /// Every change by itself.
    pub each: bool,
}

/// The newest steps, newest first. `author` says who vouches for an actor.
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub fn steps(
    doc: &Automerge,
    telling: Telling<'_>,
    author: impl Fn(&ActorId) -> Option<NodeId>,
) -> Result<Vec<HistoryStep>, PadError> {
    let mut steps: Vec<HistoryStep> = Vec::new();
    // What a change builds on came with whoever made the change, at the latest.
    let mut brought: BTreeMap<ChangeHash, NodeId> = BTreeMap::new();
    for entry in changes_between(doc, telling.since, telling.until)? {
        let (author, mut by) = (author(&entry.actor), brought.get(&entry.hash).copied());
        by = author.or(by);
        for dep in &entry.deps {
            if let Some(by) = by {
                brought.entry(*dep).or_insert(by);
            }
        }
        let step = step(entry, author, by.filter(|_| author.is_none()));
        if let Some(last) = steps.last_mut().filter(|last| !telling.each && goes_on(&step, last)) {
            last.changes = last.changes.saturating_add(1);
            (last.before, last.began) = (step.before, step.began);
        } else if steps.len() < telling.limit {
            steps.push(step);
        } else {
            break;
        }
    }
    let compared = summary(doc).text_bytes.saturating_mul(2).max(1);
    for step in steps.iter_mut().take(COMPARED_BYTES_MAX / compared) {
        step.touched = touched(doc, &step.before, &[step.version]).ok();
    }
    Ok(steps)
}

fn step(entry: HistoryEntry, author: Option<NodeId>, brought_by: Option<NodeId>) -> HistoryStep {
    HistoryStep {
        version: entry.hash,
        before: entry.deps,
        author,
        brought_by,
        began: entry.time,
        ended: entry.time,
        changes: 1,
        message: entry.message,
        touched: None,
    }
}

/// Whether `newer` only goes on with `older`: the same author, without a pause, and nothing of anybody else came
/// between. So what both did is the difference of two versions.
fn goes_on(older: &HistoryStep, newer: &HistoryStep) -> bool {
    let pause = match (older.ended, newer.began) {
        (Some(ended), Some(began)) => began.as_millis().abs_diff(ended.as_millis()),
        (None, None) => 0,
        _ => u64::MAX,
    };
    newer.before == [older.version]
        && pause <= PAUSE_MS_MAX
        && (older.author, older.brought_by, &older.message)
            == (newer.author, newer.brought_by, &newer.message)
}
