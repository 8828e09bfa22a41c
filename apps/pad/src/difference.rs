//! What differs between two versions of a document, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, Value};
use serde::{Deserialize, Serialize};
use wattle_types::limits::{DIFFERENCE_LINES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_VALUES_MAX};

use crate::body::Body;
use crate::diff::{Hunk, hunks, lines};
use crate::fields::{Budget, json};
use crate::view::View;
use crate::{PadError, Path, Step};

/// Equal lines shown around what differs.
const CONTEXT_LINES: usize = 3;

/// Characters of a field's value in a line.
const VALUE_CHARS_MAX: usize = 200;

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchLine {
    /// The next lines are of the text at `path` (the document's text without one), from these lines on.
    Text {
        /// The path of the Text; empty for the document's text.
        path: String,
        /// The first line in the old version, from 1.
        old_line: usize,
        /// The first line in the new version, from 1.
        new_line: usize,
    },
    /// A line that both versions have.
    Kept(String),
    /// A line that only the old version has.
    Removed(String),
    /// A line that only the new version has.
    Added(String),
    /// A field, each value as JSON in short; none where the field is not.
    Field {
        /// The path of the field.
        path: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// There is more than is told.
    Cut,
}

impl fmt::Display for PatchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { path, old_line, new_line } if path.is_empty() => {
                write!(f, "@@ -{old_line} +{new_line} @@")
            }
            Self::Text { path, old_line, new_line } => write!(f, "@@ -{old_line} +{new_line} @@ {path}"),
            Self::Kept(line) => write!(f, " {line}"),
            Self::Removed(line) => write!(f, "-{line}"),
            Self::Added(line) => write!(f, "+{line}"),
            Self::Field { path, old, new } => {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(nothing)".to_owned());
                write!(f, "{path}: {} -> {}", shown(old), shown(new))
            }
            Self::Cut => f.write_str("... and more"),
        }
    }
}

/// What differs between two versions: the lines of the text, then every field, in the order of the document.
/// Elements of a list that only moved along are not told.
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub fn difference(
    doc: &Automerge,
    before: &[ChangeHash],
    after: &[ChangeHash],
) -> Result<Vec<PatchLine>, PadError> {
    let (old, new) = (View::of(doc, Some(before))?, View::of(doc, Some(after))?);
    let mut compare = Compare { told: Vec::new(), visited: 0, text: Vec::new(), old, new };
    let (old_text, new_text) =
        (compare.take_text(|compare| &compare.old), compare.take_text(|compare| &compare.new));
    compare.tell_text("", &old_text, &new_text);
    compare.walk();
    let mut told = compare.told;
    if told.len() > DIFFERENCE_LINES_MAX {
        told.truncate(DIFFERENCE_LINES_MAX);
        told.push(PatchLine::Cut);
    }
    Ok(told)
}

/// Fields that are named of what a step touched.
const FIELDS_NAMED_MAX: usize = 8;

/// What two versions differ in, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Lines of text that only the later one has.
    pub lines_added: usize,
    /// Lines of text that only the earlier one has.
    pub lines_removed: usize,
    /// Fields that differ, the first few.
    pub fields: Vec<String>,
    /// There is more than is counted or named.
    pub more: bool,
}

/// What two versions differ in, in short.
///
/// # Errors
///
/// [`PadError::UnknownVersion`].
pub fn touched(doc: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Result<Touched, PadError> {
    let mut touched = Touched::default();
    for line in difference(doc, before, after)? {
        match line {
            PatchLine::Text { path, .. } if !path.is_empty() => touched.name(path),
            PatchLine::Text { .. } | PatchLine::Kept(_) => {}
            PatchLine::Removed(_) => touched.lines_removed = touched.lines_removed.saturating_add(1),
            PatchLine::Added(_) => touched.lines_added = touched.lines_added.saturating_add(1),
            PatchLine::Field { path, .. } => touched.name(path),
            PatchLine::Cut => touched.more = true,
        }
    }
    Ok(touched)
}

impl Touched {
    fn name(&mut self, path: String) {
        if self.fields.contains(&path) {
            return;
        }
        if self.fields.len() < FIELDS_NAMED_MAX {
            self.fields.push(path);
        } else {
            self.more = true;
        }
    }
}

/// Lines that one text has more than the other, and fewer: a changed line is one of each.
#[must_use]
pub fn lines_changed(old: &str, new: &str) -> (usize, usize) {
    let all = hunks(&lines(old), &lines(new));
    let sum = |of: fn(&Hunk) -> usize| all.iter().map(of).fold(0, usize::saturating_add);
    (sum(|hunk| hunk.new.len()), sum(|hunk| hunk.old.len()))
}

type Found = (Value<'static>, ObjId);

/// A place that both versions have.
struct Place {
    path: Path,
    old: Found,
    new: Found,
}

struct Compare<'a> {
    told: Vec<PatchLine>,
    visited: usize,
    /// The objects that the text is in: they are told as one text.
    text: Vec<ObjId>,
    old: View<'a, Automerge>,
    new: View<'a, Automerge>,
}

impl<'a> Compare<'a> {
    /// The text of a version; its objects are not told again as fields.
    fn take_text(&mut self, of: impl Fn(&Self) -> &View<'a, Automerge>) -> String {
        let Some(body) = Body::find(of(self)) else { return String::new() };
        let text = body.texts().into_iter().map(|id| of(self).characters(id)).collect();
        self.text.push(match body {
            Body::Sections { list, .. } => list,
            Body::Single(id) => id,
        });
        text
    }

    fn is_full(&self) -> bool {
        self.told.len() > DIFFERENCE_LINES_MAX || self.visited > DOCUMENT_VALUES_MAX
    }

    /// All fields, depth first, without recursion.
    fn walk(&mut self) {
        let root = || (Value::Object(ObjType::Map), ROOT);
        let mut open = vec![Place { path: Path::default(), old: root(), new: root() }];
        while let Some(place) = open.pop() {
            if self.is_full() || place.path.steps().len() > DOCUMENT_DEPTH_MAX {
                self.told.push(PatchLine::Cut);
                return;
            }
            let below = match (&place.old, &place.new) {
                ((Value::Object(kind), old), (Value::Object(_), new)) if old == new => {
                    self.inside(&place.path, *kind, new)
                }
                ((Value::Scalar(old), _), (Value::Scalar(new), _)) if old == new => Vec::new(),
                _ => {
                    self.tell_field(&place.path, Some(place.old), Some(place.new));
                    Vec::new()
                }
            };
            open.extend(below.into_iter().rev());
        }
    }

    /// What is in an object that both versions have: tells what only one of them has, gives what both have.
    fn inside(&mut self, path: &Path, kind: ObjType, id: &ObjId) -> Vec<Place> {
        if self.text.contains(id) {
            return Vec::new();
        }
        match kind {
            ObjType::Text => {
                let (old, new) = (self.old.characters(id), self.new.characters(id));
                self.tell_text(&path.to_string(), &old, &new);
                Vec::new()
            }
            ObjType::List => self.inside_list(path, id),
            ObjType::Map | ObjType::Table => self.inside_map(path, id),
        }
    }

    fn inside_map(&mut self, path: &Path, id: &ObjId) -> Vec<Place> {
        let (mut old, new) = (entries(&self.old, id), entries(&self.new, id));
        self.visited = self.visited.saturating_add(old.len()).saturating_add(new.len());
        let mut both = Vec::new();
        for (key, new) in new {
            let path = path.then(Step::Key(key.clone()));
            match old.remove(&key) {
                Some(old) => both.push(Place { path, old, new }),
                None => self.tell_field(&path, None, Some(new)),
            }
        }
        for (key, old) in old {
            self.tell_field(&path.then(Step::Key(key)), Some(old), None);
        }
        both
    }

    fn inside_list(&mut self, path: &Path, id: &ObjId) -> Vec<Place> {
        let (old, new) = (elements(&self.old, id), elements(&self.new, id));
        self.visited = self.visited.saturating_add(old.len()).saturating_add(new.len());
        let ids = |elements: &[Found]| elements.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
        let mut both = Vec::new();
        let (mut old_at, mut new_at) = (0, 0);
        let end = Hunk { old: old.len()..old.len(), new: new.len()..new.len() };
        let at = |index: usize| path.then(Step::Index(index));
        for hunk in hunks(&ids(&old), &ids(&new)).into_iter().chain([end]) {
            let kept = (new_at..hunk.new.start).zip(pairs(
                &old,
                old_at..hunk.old.start,
                &new,
                new_at..hunk.new.start,
            ));
            both.extend(kept.map(|(index, (old, new))| Place { path: at(index), old, new }));
            let replaced = hunk.old.len().min(hunk.new.len());
            let changed = hunk.new.clone().zip(pairs(&old, hunk.old.clone(), &new, hunk.new.clone()));
            both.extend(changed.map(|(index, (old, new))| Place { path: at(index), old, new }));
            for index in hunk.old.clone().skip(replaced) {
                self.tell_field(&at(index), old.get(index).cloned(), None);
            }
            for index in hunk.new.clone().skip(replaced) {
                self.tell_field(&at(index), None, new.get(index).cloned());
            }
            (old_at, new_at) = (hunk.old.end, hunk.new.end);
        }
        both
    }

    fn tell_field(&mut self, path: &Path, old: Option<Found>, new: Option<Found>) {
        let is_text = |found: &Option<Found>| found.as_ref().is_some_and(|(_, id)| self.text.contains(id));
        if self.is_full() || ((old.is_none() || is_text(&old)) && (new.is_none() || is_text(&new))) {
            return;
        }
        let old = old.map(|found| in_short(&self.old, found));
        let new = new.map(|found| in_short(&self.new, found));
        self.told.push(PatchLine::Field { path: path.to_string(), old, new });
    }

    fn tell_text(&mut self, path: &str, old: &str, new: &str) {
        let (old, new) = (lines(old), lines(new));
        let line = |lines: &[&str], at: usize| {
            let line = lines.get(at).copied().unwrap_or_default();
            line.strip_suffix('\n').unwrap_or(line).to_owned()
        };
        // Up to which line of the new text everything is told.
        let mut told_to = 0;
        let all = hunks(&old, &new);
        for (index, hunk) in all.iter().enumerate() {
            if self.is_full() {
                return;
            }
            let start = hunk.new.start.saturating_sub(CONTEXT_LINES).max(told_to);
            if told_to == 0 || start > told_to {
                let (old_line, new_line) =
                    (hunk.old.start.saturating_sub(hunk.new.start.saturating_sub(start)), start);
                let from_one = |line: usize| line.saturating_add(1);
                let (old_line, new_line) = (from_one(old_line), from_one(new_line));
                self.told.push(PatchLine::Text { path: path.to_owned(), old_line, new_line });
            }
            self.told.extend((start..hunk.new.start).map(|at| PatchLine::Kept(line(&new, at))));
            self.told.extend(hunk.old.clone().map(|at| PatchLine::Removed(line(&old, at))));
            self.told.extend(hunk.new.clone().map(|at| PatchLine::Added(line(&new, at))));
            let next = all.get(index.saturating_add(1)).map_or(new.len(), |next| next.new.start);
            told_to = hunk.new.end.saturating_add(CONTEXT_LINES).min(next);
            self.told.extend((hunk.new.end..told_to).map(|at| PatchLine::Kept(line(&new, at))));
        }
    }
}

fn entries(view: &View<'_, Automerge>, id: &ObjId) -> BTreeMap<String, Found> {
    let entries = view.entries(id).map(|entry| {
        let id = entry.id();
        (entry.key.into_owned(), (entry.value.into_value(), id))
    });
    entries.collect()
}

fn elements(view: &View<'_, Automerge>, id: &ObjId) -> Vec<Found> {
    let elements = view.elements(id).map(|item| {
        let id = item.id();
        (item.value.into_value(), id)
    });
    elements.collect()
}

/// Elements of two lists side by side, as many as both stretches have.
fn pairs(old: &[Found], of_old: Range<usize>, new: &[Found], of_new: Range<usize>) -> Vec<(Found, Found)> {
    let (old, new) = (old.get(of_old).unwrap_or_default(), new.get(of_new).unwrap_or_default());
    old.iter().cloned().zip(new.iter().cloned()).collect()
}

fn in_short(view: &View<'_, Automerge>, (value, id): Found) -> String {
    let whole = match &value {
        Value::Object(ObjType::List) => "[...]",
        Value::Object(ObjType::Text) | Value::Scalar(_) => "\"...\"",
        Value::Object(ObjType::Map | ObjType::Table) => "{...}",
    };
    let Ok(json) = json(view, value, &id, &mut Budget::of_a_line()) else { return whole.to_owned() };
    let text = json.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
