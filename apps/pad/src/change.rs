//! Editing a text as somebody saved it: the difference, as splices in the sections that it touches.

use std::ops::{ControlFlow, Range};

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ObjId, ObjType, ReadDoc as _, TextEncoding};
use unicode_segmentation::UnicodeSegmentation as _;
use wattle_types::limits::SECTION_BYTES_MAX;

use crate::PadError;
use crate::body::{Body, STEP_BYTES, boundary, check_length, cut, cut_point};
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
    let mut changing = Changing::begin(tx, base, new)?;
    while let Some(work) = changing.rest.pop() {
        Edit { base, new, kept: &changing.kept }.do_work(tx, work, &mut changing.done)?;
    }
    Ok(changing.done)
}

/// Makes `new` of `base` in steps, as [`change_text`] does at once: with every call as much of it as one change should
/// hold. The first transaction stands on the version that `base` is the text of, each other on the one before.
/// `done` is told in the end what the edit did.
///
/// # Errors
///
/// Each step those of [`change_text`].
pub fn change_text_in_steps(
    base: String,
    new: impl AsRef<str>,
    done: impl Fn(TextChange),
) -> impl FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, PadError> {
    let mut changing = None;
    move |tx: &mut Transaction<'_>| {
        let new = new.as_ref();
        let mut going = match changing.take() {
            Some(going) => going,
            None => Changing::begin(tx, &base, new)?,
        };
        let mut left = STEP_BYTES;
        while let Some(work) = going.rest.pop_if(|work| left == STEP_BYTES || work.bytes() <= left) {
            left = left.saturating_sub(work.bytes().max(1));
            Edit { base: &base, new, kept: &going.kept }.do_work(tx, work, &mut going.done)?;
        }
        if going.rest.is_empty() {
            done(going.done);
            return Ok(ControlFlow::Break(()));
        }
        changing = Some(going);
        Ok(ControlFlow::Continue(()))
    }
}

/// An edit that is under way.
struct Changing {
    /// The stretches that are equal before and after.
    kept: Vec<Part>,
    /// What is still to be done, the next at the end.
    rest: Vec<Work>,
    done: TextChange,
}

/// A piece of an edit. What comes before it in the text is not touched until it is done.
enum Work {
    /// Makes of a Text object, which holds so much of the base, so much of the new text.
    Section { id: ObjId, part: Part, bytes: usize },
    /// A section of the new text.
    Add { list: ObjId, index: usize, new: Range<usize> },
    /// A splice of the one Text object of a foreign document.
    Splice { id: ObjId, at: usize, delete: usize, new: Range<usize> },
    /// P2, of a Text object that was spliced.
    Look { id: ObjId },
}

impl Work {
    /// Letters that it brings or takes, at most.
    fn bytes(&self) -> usize {
        match self {
            Self::Section { bytes, .. } => *bytes,
            Self::Add { new, .. } => new.len(),
            Self::Splice { delete, new, .. } => delete.saturating_add(new.len()),
            Self::Look { .. } => 0,
        }
    }
}

impl Changing {
    /// Looks at what is to be done.
    fn begin(tx: &Transaction<'_>, base: &str, new: &str) -> Result<Self, PadError> {
        check_length(new.len(), base.len())?;
        let body = Body::find(&View::now(tx)).ok_or(PadError::NoText)?;
        let ends = ends(tx, &body, base)?;
        let diff = diff::texts(base, new);
        let (lines_added, lines_removed) = (diff.lines_added, diff.lines_removed);
        let done = TextChange { lines_added, lines_removed, ..TextChange::default() };
        let kept = kept(&diff.edits, base.len(), new.len());
        let mut changing = Self { kept, rest: Vec::new(), done };
        let rest = match body {
            Body::Single(id) => {
                let all = Part { old: 0..base.len(), new: 0..new.len() };
                changing.edit(base, new).splices_in_pieces(&id, &all, tx.text_encoding())
            }
            Body::Sections { list, sections } if sections.is_empty() => added(&list, 0, new, 0..new.len()),
            Body::Sections { list, sections } => {
                let parts = parts(&diff.edits, &ends, new.len());
                let edit = changing.edit(base, new);
                // From the last to the first, so that a new section does not move those that are still to come.
                let mut rest = Vec::new();
                for ((index, id), part) in sections.into_iter().zip(parts).rev() {
                    let home = if must_cut(&part) { edit.home(&part) } else { part.new.clone() };
                    let (ahead, behind) = (part.new.start..home.start, home.end..part.new.end);
                    let part = Part { old: part.old, new: home };
                    let splices = edit.splices(&part, tx.text_encoding());
                    let bytes = splices.iter().map(|it| it.delete.saturating_add(it.insert.len())).sum();
                    if !splices.is_empty() {
                        rest.push(Work::Section { id, part, bytes });
                    }
                    rest.extend(added(&list, index.saturating_add(1), new, behind));
                    rest.extend(added(&list, index, new, ahead));
                }
                rest
            }
        };
        changing.rest = rest;
        changing.rest.reverse();
        Ok(changing)
    }

    fn edit<'a>(&'a self, base: &'a str, new: &'a str) -> Edit<'a> {
        Edit { base, new, kept: &self.kept }
    }
}

/// A stretch of the new text as new sections of `list`, from `index` on.
fn added(list: &ObjId, index: usize, new: &str, range: Range<usize>) -> Vec<Work> {
    let text = new.get(range.clone()).unwrap_or_default();
    let sections = if text.is_empty() { Vec::new() } else { cut(text) };
    let mut start = range.start;
    let add = |(index, section): (usize, &str)| {
        let new = start..start.saturating_add(section.len());
        start = new.end;
        Work::Add { list: list.clone(), index, new }
    };
    (index..).zip(sections).map(add).collect()
}

/// Makes `new` of what the Text object `id` holds, wherever in the document it is.
pub(crate) fn change_object(tx: &mut Transaction<'_>, id: &ObjId, new: &str) -> Result<(), PadError> {
    let base = View::now(tx).characters(id);
    check_length(new.len(), base.len())?;
    let diff = diff::texts(&base, new);
    let kept = kept(&diff.edits, base.len(), new.len());
    let edit = Edit { base: &base, new, kept: &kept };
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
    /// Where that begins in the new text.
    start: usize,
}

/// One edit of a text.
struct Edit<'a> {
    base: &'a str,
    new: &'a str,
    kept: &'a [Part],
}

impl<'a> Edit<'a> {
    fn do_work(&self, tx: &mut Transaction<'_>, work: Work, done: &mut TextChange) -> Result<(), PadError> {
        match work {
            Work::Section { id, part, .. } => {
                done.splices = done.splices.saturating_add(self.write(tx, &id, &part)?);
            }
            Work::Add { list, index, new } => {
                let id = tx.insert_object(list, index, ObjType::Text)?;
                tx.splice_text(&id, 0, 0, self.new.get(new).unwrap_or_default())?;
                done.sections_added = done.sections_added.saturating_add(1);
            }
            Work::Splice { id, at, delete, new } => {
                let delete = isize::try_from(delete).unwrap_or(isize::MAX);
                tx.splice_text(&id, at, delete, self.new.get(new).unwrap_or_default())?;
                done.splices = done.splices.saturating_add(1);
            }
            Work::Look { id } => {
                if View::now(tx).characters(&id) != self.new {
                    return Err(PadError::ForeignText);
                }
            }
        }
        Ok(())
    }

    /// The splices of one Text object, from the last to the first, none longer than a change should be.
    fn splices_in_pieces(&self, id: &ObjId, part: &Part, encoding: TextEncoding) -> Vec<Work> {
        let mut pieces = Vec::new();
        for splice in self.splices(part, encoding).into_iter().rev() {
            let Splice { at, mut delete, insert, start } = splice;
            while delete > STEP_BYTES {
                pieces.push(Work::Splice { id: id.clone(), at, delete: STEP_BYTES, new: start..start });
                delete = delete.saturating_sub(STEP_BYTES);
            }
            // What is inserted first stands behind what is inserted there later.
            let mut texts = Vec::new();
            let mut from = start;
            let mut rest = insert;
            while rest.len() > STEP_BYTES {
                let (piece, after) = rest.split_at(boundary(rest, STEP_BYTES));
                texts.push(from..from.saturating_add(piece.len()));
                (from, rest) = (from.saturating_add(piece.len()), after);
            }
            texts.push(from..from.saturating_add(rest.len()));
            for new in texts.into_iter().rev() {
                pieces.push(Work::Splice { id: id.clone(), at, delete: std::mem::take(&mut delete), new });
            }
        }
        if !pieces.is_empty() {
            pieces.push(Work::Look { id: id.clone() });
        }
        pieces
    }

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
                splices.push(Splice { at, delete, insert, start: new });
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
