//! Who changed a document, and when they say they did.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Automerge, ChangeHash, ChangeMetadata};
use wattle_types::UnixTime;

use crate::PadError;
use crate::view::View;

/// A time below this is in seconds (as Automerge has it, until the year 5138), above in milliseconds (as some
/// programs write it, since 1973).
const SECONDS_MAX: u64 = 100_000_000_000;

/// One change of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The change; as a version (`at`), it and everything it builds on.
    pub hash: ChangeHash,
    /// The editing session that made it.
    pub actor: ActorId,
    /// Whose session that is: the bytes of a node id in documents of ours.
    pub author: Option<Vec<u8>>,
    /// The how manieth change of this actor it is, from 1.
    pub seq: u64,
    /// When it was made, by the clock of who made it; nobody has checked that.
    pub time: Option<UnixTime>,
    /// What its author says about it.
    pub message: Option<String>,
    /// How many operations it has: about one per character.
    pub ops: u64,
    /// The changes that it builds on.
    pub deps: Vec<ChangeHash>,
}

/// The newest `limit` changes, newest first: none before one that builds on it, and of two that do not know of
/// each other the later one by their clocks first. The same on every replica that has the same changes.
#[must_use]
pub fn history(doc: &Automerge, limit: usize) -> Vec<HistoryEntry> {
    ordered(doc.get_changes_meta(&[]), limit)
}

/// The changes that came after the version `since` and that the version `until` has, in the order of
/// [`history`].
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub(crate) fn changes_between(
    doc: &Automerge,
    since: Option<&[ChangeHash]>,
    until: Option<&[ChangeHash]>,
) -> Result<Vec<HistoryEntry>, PadError> {
    // For its check that the versions are here.
    View::of(doc, since)?;
    View::of(doc, until)?;
    let mut changes = doc.get_changes_meta(since.unwrap_or_default());
    if let Some(until) = until {
        let later: BTreeSet<ChangeHash> =
            doc.get_changes_meta(until).into_iter().map(|change| change.hash).collect();
        changes.retain(|change| !later.contains(&change.hash));
    }
    Ok(ordered(changes, usize::MAX))
}

/// The change that made `text` of the version `at`, where one of those that `is_mine` did so already: an edit
/// whose answer got lost is not made twice.
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub fn made_already(
    doc: &Automerge,
    at: &[ChangeHash],
    text: &str,
    is_mine: impl Fn(&ActorId) -> bool,
) -> Result<Option<ChangeHash>, PadError> {
    View::of(doc, Some(at))?;
    let at: BTreeSet<&ChangeHash> = at.iter().collect();
    let heads: Vec<ChangeHash> = at.iter().map(|hash| **hash).collect();
    let changes = doc.get_changes_meta(&heads);
    for change in &changes {
        let on_it = change.deps.iter().collect::<BTreeSet<_>>() == at;
        if !on_it || !is_mine(&change.actor) {
            continue;
        }
        for made in [change, last_step(&changes, change)] {
            if crate::text(doc, Some(&[made.hash]))?.as_deref() == Some(text) {
                return Ok(Some(made.hash));
            }
        }
    }
    Ok(None)
}

/// The last change of an edit in steps that began with `first`: they are made at one time, each on the one before.
fn last_step<'c, 'd>(
    changes: &'c [ChangeMetadata<'d>],
    first: &'c ChangeMetadata<'d>,
) -> &'c ChangeMetadata<'d> {
    let goes_on = |change: &&ChangeMetadata<'_>| {
        (&change.actor, change.timestamp) == (&first.actor, first.timestamp) && change.seq > first.seq
    };
    let mut later: Vec<&ChangeMetadata<'_>> = changes.iter().filter(goes_on).collect();
    later.sort_by_key(|change| change.seq);
    let mut last = first;
    for change in later {
        if change.deps != [last.hash] {
            break;
        }
        last = change;
    }
    last
}

fn ordered(changes: Vec<ChangeMetadata<'_>>, limit: usize) -> Vec<HistoryEntry> {
    let changes: BTreeMap<ChangeHash, ChangeMetadata<'_>> =
        changes.into_iter().map(|change| (change.hash, change)).collect();
    let mut dependents: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    for dep in changes.values().flat_map(|change| &change.deps) {
        let count = dependents.entry(*dep).or_default();
        *count = count.saturating_add(1);
    }
    let newest = |change: &ChangeMetadata<'_>| (time(change), change.start_op, change.hash);
    let heads = changes.values().filter(|change| !dependents.contains_key(&change.hash));
    let mut ready: BTreeSet<_> = heads.map(newest).collect();
    let mut entries = Vec::new();
    while entries.len() < limit {
        let Some((_, _, hash)) = ready.pop_last() else { break };
        let Some(change) = changes.get(&hash) else { continue };
        for dep in &change.deps {
            let Some(count) = dependents.get_mut(dep) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                ready.extend(changes.get(dep).map(newest));
            }
        }
        entries.push(entry(change));
    }
    entries
}

fn entry(change: &ChangeMetadata<'_>) -> HistoryEntry {
    HistoryEntry {
        hash: change.hash,
        actor: change.actor.as_ref().clone(),
        author: change.author.as_ref().map(|author| author.as_bytes().to_vec()),
        seq: change.seq,
        time: time(change),
        message: change.message.as_ref().map(|message| message.to_string()),
        ops: change.max_op.saturating_add(1).saturating_sub(change.start_op),
        deps: change.deps.clone(),
    }
}

fn time(change: &ChangeMetadata<'_>) -> Option<UnixTime> {
    let time = u64::try_from(change.timestamp).ok().filter(|time| *time > 0)?;
    Some(UnixTime::from_millis(if time < SECONDS_MAX { time.saturating_mul(1000) } else { time }))
}
