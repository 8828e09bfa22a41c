//! Where a document's text is, and how a new one is laid out.

use std::ops::ControlFlow;

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value, ValueRef};
use wattle_types::limits::{DOCUMENT_TEXT_BYTES_MAX, SECTION_BYTES_MAX, SECTION_FILL_BYTES};

use crate::PadError;
use crate::view::View;

pub(crate) const TITLE: &str = "title";
pub(crate) const SECTIONS: &str = "sections";

/// Where other programs keep their text, in the order of asking.
const FOREIGN: [&str; 2] = ["text", "content"];

/// Bytes of text that one change brings or takes at most, where it is long: other nodes take a change apart at once, in
/// some hundred bytes for each letter.
pub(crate) const STEP_BYTES: usize = 64 * 1024;

/// What a document is, in a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The title, if it has one.
    pub title: Option<String>,
    /// Bytes of its text in UTF-8; 0 without a text.
    pub text_bytes: usize,
    /// Changes in its history.
    pub changes: u64,
}

/// Lays out a new document: its title, and its text in sections. `tx` is the first transaction of a document.
///
/// # Errors
///
/// [`PadError::TextTooLong`].
pub fn create(tx: &mut Transaction<'_>, title: &str, text: &str) -> Result<(), PadError> {
    check_length(text.len(), 0)?;
    tx.put(ROOT, TITLE, title)?;
    let list = tx.put_object(ROOT, SECTIONS, ObjType::List)?;
    for (index, section) in cut(text).into_iter().enumerate() {
        let id = tx.insert_object(&list, index, ObjType::Text)?;
        tx.splice_text(&id, 0, 0, section)?;
    }
    Ok(())
}

/// Lays out a new document in steps: with every call as much more of it as one change should hold, until nothing is
/// left. The first transaction of a document is followed by those that build on it.
///
/// # Errors
///
/// [`PadError::TextTooLong`].
pub fn create_in_steps(
    title: String,
    text: String,
) -> Result<impl FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, PadError>, PadError> {
    check_length(text.len(), 0)?;
    let ends = cut(&text).into_iter().scan(0, |at: &mut usize, section| {
        *at = at.saturating_add(section.len());
        Some(*at)
    });
    let ends: Vec<usize> = ends.collect();
    let (mut list, mut index, mut start) = (None, 0, 0);
    Ok(move |tx: &mut Transaction<'_>| {
        let id = match &list {
            Some(list) => ObjId::clone(list),
            None => {
                tx.put(ROOT, TITLE, title.as_str())?;
                tx.put_object(ROOT, SECTIONS, ObjType::List)?
            }
        };
        let mut left = STEP_BYTES;
        while let Some(end) = ends.get(index).copied() {
            let section = text.get(start..end).unwrap_or_default();
            if section.len() > left {
                list = Some(id);
                return Ok(ControlFlow::Continue(()));
            }
            let object = tx.insert_object(&id, index, ObjType::Text)?;
            tx.splice_text(&object, 0, 0, section)?;
            left = left.saturating_sub(section.len());
            (index, start) = (index.saturating_add(1), end);
        }
        Ok(ControlFlow::Break(()))
    })
}

/// Lays out a new document from the bytes of a file.
///
/// # Errors
///
/// [`PadError::NotText`] if the file is binary, else as [`create`].
pub fn import_text(tx: &mut Transaction<'_>, title: &str, file: &[u8]) -> Result<(), PadError> {
    create(tx, title, text_of(file)?)
}

/// The text of a file.
///
/// # Errors
///
/// [`PadError::NotText`] if it is not UTF-8 or has a zero byte, which no text file has and every binary one.
pub fn text_of(file: &[u8]) -> Result<&str, PadError> {
    let text = str::from_utf8(file).map_err(|error| PadError::NotText { at: error.valid_up_to() })?;
    text.find('\0').map_or(Ok(text), |at| Err(PadError::NotText { at }))
}

/// The text of a document at a version (the current one without `at`); none where it has only fields.
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub fn text(doc: &Automerge, at: Option<&[ChangeHash]>) -> Result<Option<String>, PadError> {
    let view = View::of(doc, at)?;
    Ok(Body::find(&view).map(|body| body.texts().iter().map(|id| view.characters(id)).collect()))
}

/// The title of a document: a string, or a Text object as JavaScript programs make it.
#[must_use]
pub fn title(doc: &Automerge) -> Option<String> {
    let view = View::now(doc);
    match view.get(&ROOT, TITLE)? {
        (Value::Scalar(value), _) => match value.as_ref() {
            ScalarValue::Str(title) => Some(title.to_string()),
            _ => None,
        },
        (Value::Object(ObjType::Text), id) => Some(view.characters(&id)),
        (Value::Object(_), _) => None,
    }
}

/// What a document is, in short. Costs as much as its text is long.
#[must_use]
pub fn summary(doc: &Automerge) -> Summary {
    let view = View::now(doc);
    let texts = Body::find(&view).map(Body::into_texts).unwrap_or_default();
    let text_bytes = texts.iter().map(|id| view.characters(id).len()).sum();
    Summary { title: title(doc), text_bytes, changes: doc.stats().num_changes }
}

/// Where the text of a document is.
pub(crate) enum Body {
    /// Ours: the Text elements of `sections`, with their indexes. Anything else in that list is skipped.
    Sections { list: ObjId, sections: Vec<(usize, ObjId)> },
    /// One Text object at the root, made by another program.
    Single(ObjId),
}

impl Body {
    pub(crate) fn find<D: ReadDoc>(view: &View<'_, D>) -> Option<Self> {
        let list = view.object(&ROOT, SECTIONS, ObjType::List);
        let sections = list.as_ref().map(|list| texts_in(view, list)).unwrap_or_default();
        // A list without any Text may be anything of another program's: it is ours only if no text is elsewhere.
        let foreign = if sections.is_empty() { foreign(view) } else { None };
        match (foreign, list) {
            (Some(id), _) => Some(Self::Single(id)),
            (None, Some(list)) if !sections.is_empty() || view.length(&list) == 0 => {
                Some(Self::Sections { list, sections })
            }
            (None, _) => None,
        }
    }

    /// The Text objects, in order.
    pub(crate) fn into_texts(self) -> Vec<ObjId> {
        match self {
            Self::Sections { sections, .. } => sections.into_iter().map(|(_, id)| id).collect(),
            Self::Single(id) => vec![id],
        }
    }

    pub(crate) fn texts(&self) -> Vec<&ObjId> {
        match self {
            Self::Sections { sections, .. } => sections.iter().map(|(_, id)| id).collect(),
            Self::Single(id) => vec![id],
        }
    }
}

pub(crate) fn texts_in<D: ReadDoc>(view: &View<'_, D>, list: &ObjId) -> Vec<(usize, ObjId)> {
    let texts = view.elements(list).filter(|item| item.value == ValueRef::Object(ObjType::Text));
    texts.map(|item| (item.index, item.id())).collect()
}

fn foreign<D: ReadDoc>(view: &View<'_, D>) -> Option<ObjId> {
    let named = FOREIGN.iter().find_map(|name| view.object(&ROOT, *name, ObjType::Text));
    named.or_else(|| {
        let texts = view.entries(&ROOT).filter(|entry| entry.value == ValueRef::Object(ObjType::Text));
        let mut texts = texts.filter(|entry| entry.key != TITLE);
        let only = texts.next()?;
        texts.next().is_none().then(|| only.id())
    })
}

/// A text may be edited up to the cap; one that is longer already may only shrink.
pub(crate) const fn check_length(bytes: usize, bytes_before: usize) -> Result<(), PadError> {
    if bytes > DOCUMENT_TEXT_BYTES_MAX && bytes > bytes_before {
        Err(PadError::TextTooLong { bytes, bytes_max: DOCUMENT_TEXT_BYTES_MAX })
    } else {
        Ok(())
    }
}

/// Cuts a text into new sections, at least one: at line ends where lines are short enough.
pub(crate) fn cut(text: &str) -> Vec<&str> {
    const { assert!(SECTION_FILL_BYTES <= SECTION_BYTES_MAX) };
    let mut sections = Vec::new();
    let mut rest = text;
    while rest.len() > SECTION_FILL_BYTES {
        let (section, after) = rest.split_at(cut_point(rest, SECTION_FILL_BYTES));
        sections.push(section);
        rest = after;
    }
    if !rest.is_empty() || sections.is_empty() {
        sections.push(rest);
    }
    sections
}

/// Where to cut `text` at `bytes_max` or before: behind the last line end of the latter half, else behind its
/// last white space, else between two characters.
pub(crate) fn cut_point(text: &str, bytes_max: usize) -> usize {
    let end = boundary(text, bytes_max);
    let half = boundary(text, end / 2);
    let latter = text.get(half..end).unwrap_or_default();
    let after = |(at, found): (usize, &str)| half.saturating_add(at).saturating_add(found.len());
    let line = latter.rmatch_indices('\n').next();
    line.or_else(|| latter.rmatch_indices(char::is_whitespace).next()).map_or(end, after)
}

/// The last place between two characters of `text` that is not behind `at`.
pub(crate) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}
