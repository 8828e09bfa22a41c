//! Editing a text as somebody saved it: the difference, as splices in the sections that it touches.

use std::ops::Range;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ObjId, ObjType, ReadDoc as _, TextEncoding};
use unicode_segmentation::UnicodeSegmentation as _;
use wattle_types::limits::SECTION_BYTES_MAX;

use crate::PadError;
use crate::body::{Body, boundary, check_length, cut, cut_point};
use crate::diff::{self, Hunk};
use crate::view::View;

/// What a section keeps when it is cut: a quarter stays free, so that the next key does not cut it again.
const SECTION_KEPT_BYTES: usize = SECTION_BYTES_MAX / 4 * 3;

/// A section longer than this was not made by us and is never cut: that would write most of a text anew.
const SECTION_CUT_BYTES_MAX: usize = SECTION_BYTES_MAX * 2;

/// What an edit did to the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextChange {
    /// Lines that the edit added; a changed line is one added and one removed.
    pub lines_added: usize,
    /// Lines that the edit removed.
    pub lines_removed: usize,
    /// Places where the text was spliced; 0 if nothing was to do.
    pub splices: usize,
    /// Sections that were made for text that did not fit.
    pub sections_added: usize,
}

/// Makes `new` of `base`, which is the text at the version that `tx` stands on.
///
/// For an edit that was begun at an older version the caller opens the transaction there
/// (`Automerge::transaction_at`); what others changed since is merged, not overwritten.
///
/// # Errors
///
/// [`PadError::NoText`], [`PadError::OtherBase`], [`PadError::TextTooLong`], [`PadError::ForeignText`].
pub fn change_text(tx: &mut Transaction<'_>, base: &str, new: &str) -> Result<TextChange, PadError> {
    check_length(new.len(), base.len())?;
    let body = Body::find(&View::now(tx)).ok_or(PadError::NoText)?;
    let ends = ends(tx, &body, base)?;
    let diff = diff::texts(base, new);
    let (lines_added, lines_removed) = (diff.lines_added, diff.lines_removed);
    let mut change = TextChange { lines_added, lines_removed, ..TextChange::default() };
    let edit = Edit { base, new, kept: kept(&diff.edits, base.len(), new.len()) };
    match body {
        Body::Single(id) => {
            let all = Part { old: 0..base.len(), new: 0..new.len() };
            change.splices = edit.write(tx, &id, &all)?;
        }
        Body::Sections { list, sections } if sections.is_empty() => {
            change.sections_added = add_sections(tx, &list, 0, new)?;
        }
        Body::Sections { list, sections } => {
            let parts = parts(&diff.edits, &ends, new.len());
            // From the last to the first, so that a new section does not move those that are still to come.
            for ((index, id), part) in sections.iter().zip(&parts).rev() {
                let home = if must_cut(part) { edit.home(part) } else { part.new.clone() };
                let after = new.get(home.end..part.new.end).unwrap_or_default();
                let before = new.get(part.new.start..home.start).unwrap_or_default();
                let spliced = edit.write(tx, id, &Part { old: part.old.clone(), new: home })?;
                let behind = add_sections(tx, &list, index.saturating_add(1), after)?;
                let ahead = add_sections(tx, &list, *index, before)?;
                change.splices = change.splices.saturating_add(spliced);
                change.sections_added = change.sections_added.saturating_add(behind).saturating_add(ahead);
            }
        }
    }
    Ok(change)
}

/// Makes `new` of what the Text object `id` holds, wherever in the document it is.
pub(crate) fn change_object(tx: &mut Transaction<'_>, id: &ObjId, new: &str) -> Result<(), PadError> {
    let base = View::now(tx).characters(id);
    check_length(new.len(), base.len())?;
    let diff = diff::texts(&base, new);
    let edit = Edit { base: &base, new, kept: kept(&diff.edits, base.len(), new.len()) };
    edit.write(tx, id, &Part { old: 0..base.len(), new: 0..new.len() }).map(|_splices| ())
}

/// Where each Text object of the body ends in `base`, which must be exactly their texts joined.
fn ends(tx: &Transaction<'_>, body: &Body, base: &str) -> Result<Vec<usize>, PadError> {
    let view = View::now(tx);
    let texts: Vec<String> = body.texts().into_iter().map(|id| view.characters(id)).collect();
    let got = texts.iter().map(String::len).sum();
    if got != base.len() || !texts.iter().flat_map(|text| text.bytes()).eq(base.bytes()) {
        return Err(PadError::OtherBase { base: base.len(), got });
    }
    let end = |at: &mut usize, text: &String| {
        *at = at.saturating_add(text.len());
        Some(*at)
    };
    Ok(texts.iter().scan(0, end).collect())
}

/// A stretch of the text before the edit, and what becomes of it.
struct Part {
    old: Range<usize>,
    new: Range<usize>,
}

/// What becomes of each section. What is inserted between two goes to the latter, so that text that is added
/// where a section begins does not fill the one before; what replaces the end of one and the beginning of
/// another goes to the former.
fn parts(edits: &[Hunk], ends: &[usize], new_len: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, end) in ends.iter().enumerate() {
        let (old_start, new_start) = parts.last().map_or((0, 0), |part| (part.old.end, part.new.end));
        let is_last = index.saturating_add(1) == ends.len();
        let new_end = if is_last { new_len } else { moved(edits, *end) };
        parts.push(Part { old: old_start..*end, new: new_start..new_end.max(new_start) });
    }
    parts
}

/// Where the place `at` of the old text is in the new one.
fn moved(edits: &[Hunk], at: usize) -> usize {
    let before = edits.partition_point(|edit| edit.old.start < at);
    let last = before.checked_sub(1).and_then(|index| edits.get(index));
    last.map_or(at, |edit| edit.new.end.saturating_add(at.saturating_sub(edit.old.end)))
}

/// The stretches that are equal before and after.
fn kept(edits: &[Hunk], old_len: usize, new_len: usize) -> Vec<Part> {
    let mut kept = Vec::new();
    let (mut old, mut new) = (0, 0);
    for edit in edits {
        kept.push(Part { old: old..edit.old.start, new: new..edit.new.start });
        (old, new) = (edit.old.end, edit.new.end);
    }
    kept.push(Part { old: old..old_len, new: new..new_len });
    kept
}

fn must_cut(part: &Part) -> bool {
    part.new.len() > SECTION_BYTES_MAX && part.old.len() <= SECTION_CUT_BYTES_MAX
}

/// Puts `text` into new sections of `list`, from `index` on; says how many.
pub(crate) fn add_sections(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    index: usize,
    text: &str,
) -> Result<usize, PadError> {
    let sections = if text.is_empty() { Vec::new() } else { cut(text) };
    for (at, section) in (index..).zip(&sections) {
        let id = tx.insert_object(list, at, ObjType::Text)?;
        tx.splice_text(&id, 0, 0, section)?;
    }
    Ok(sections.len())
}

/// Characters to delete and text to insert, at a place of one Text object before the edit.
struct Splice<'a> {
    at: usize,
    delete: usize,
    insert: &'a str,
}

/// One edit of a text.
struct Edit<'a> {
    base: &'a str,
    new: &'a str,
    kept: Vec<Part>,
}

impl<'a> Edit<'a> {
    /// Makes of the object `id`, which holds `part.old` of the base, `part.new` of the new text.
    fn write(&self, tx: &mut Transaction<'_>, id: &ObjId, part: &Part) -> Result<usize, PadError> {
        let splices = self.splices(part, tx.text_encoding());
        // From the last to the first, so that each place still counts what is before it.
        for splice in splices.iter().rev() {
            let delete = isize::try_from(splice.delete).unwrap_or(isize::MAX);
            tx.splice_text(id, splice.at, delete, splice.insert)?;
        }
        let wanted = self.new.get(part.new.clone()).unwrap_or_default();
        // P2. It differs where another program counts or stores characters otherwise.
        if !splices.is_empty() && View::now(tx).characters(id) != wanted {
            return Err(PadError::ForeignText);
        }
        Ok(splices.len())
    }

    /// What lies between the kept stretches, in the units that the document counts in.
    fn splices(&self, part: &Part, encoding: TextEncoding) -> Vec<Splice<'a>> {
        let count = |range: Range<usize>| units(encoding, self.base.get(range).unwrap_or_default());
        let mut splices = Vec::new();
        let (mut old, mut new, mut at) = (part.old.start, part.new.start, 0usize);
        let end = Part { old: part.old.end..part.old.end, new: part.new.end..part.new.end };
        for kept in self.kept_within(part).chain([end]) {
            let delete = count(old..kept.old.start);
            let insert = self.new.get(new..kept.new.start).unwrap_or_default();
            if delete > 0 || !insert.is_empty() {
                splices.push(Splice { at, delete, insert });
            }
            at = at.saturating_add(delete).saturating_add(count(kept.old.clone()));
            (old, new) = (kept.old.end, kept.new.end);
        }
        splices
    }

    /// The kept stretches, cut to what lies in `part` both before and after.
    fn kept_within(&self, part: &Part) -> impl Iterator<Item = Part> {
        let first = self.kept.partition_point(|kept| kept.new.end <= part.new.start);
        let kept = self.kept.iter().skip(first).take_while(move |kept| kept.new.start < part.new.end);
        kept.filter_map(move |kept| {
            let from_old = part.old.start.saturating_sub(kept.old.start);
            let from_new = part.new.start.saturating_sub(kept.new.start);
            let skipped = from_old.max(from_new);
            let left_old = part.old.end.saturating_sub(kept.old.start);
            let left_new = part.new.end.saturating_sub(kept.new.start);
            let end = left_old.min(left_new).min(kept.old.len());
            let shift = |start: usize| start.saturating_add(skipped)..start.saturating_add(end);
            (skipped < end).then(|| Part { old: shift(kept.old.start), new: shift(kept.new.start) })
        })
    }

    /// What of `part.new` stays in a section that must be cut: as much as possible of what it had, because what
    /// moves to another section is written anew, and a concurrent edit of it stays behind.
    fn home(&self, part: &Part) -> Range<usize> {
        let kept: Vec<Range<usize>> = self.kept_within(part).map(|kept| kept.new).collect();
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
            let all = self.new.get(part.new.clone()).unwrap_or_default();
            return part.new.start..part.new.start.saturating_add(cut_point(all, SECTION_KEPT_BYTES));
        };
        if last.end.saturating_sub(first.start) <= SECTION_BYTES_MAX {
            return first.start..last.end;
        }
        let all = self.new.get(first.start..last.end).unwrap_or_default();
        let head = first.start..first.start.saturating_add(cut_point(all, SECTION_KEPT_BYTES));
        let tail = last.end.saturating_sub(tail_bytes(all))..last.end;
        let of = |window: &Range<usize>| -> usize { kept.iter().map(|kept| overlap(kept, window)).sum() };
        if of(&tail) > of(&head) { tail } else { head }
    }
}

/// How long the end of `text` is that a section keeps: from the beginning of a line where lines are short enough.
fn tail_bytes(text: &str) -> usize {
    let start = boundary(text, text.len().saturating_sub(SECTION_KEPT_BYTES));
    let tail = text.get(start..).unwrap_or_default();
    let line_end = tail.find('\n').filter(|at| *at < tail.len() / 2);
    tail.len().saturating_sub(line_end.map_or(0, |at| at.saturating_add(1)))
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> usize {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}

/// How long a text is in the units that a document counts in.
fn units(encoding: TextEncoding, text: &str) -> usize {
    match encoding {
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::GraphemeCluster => text.graphemes(true).count(),
    }
}
