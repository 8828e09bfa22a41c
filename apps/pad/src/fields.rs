//! A document as JSON: reading it, one field of it, setting a field, and making a document of a JSON file.

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{Automerge, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::{Map, Number, Value as Json};
use wattle_types::limits::{DOCUMENT_ANSWER_BYTES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_VALUES_MAX};

use crate::body::{Body, SECTIONS, check_length};
use crate::change::{add_sections, change_object};
use crate::view::View;
use crate::{PadError, Path, Step};

/// Names shown of what a map has.
const NAMES_SHOWN_MAX: usize = 8;

/// The whole document at a version (the current one without `at`) as JSON.
///
/// Texts and strings are strings, counters and timestamps (milliseconds) are numbers, bytes are a string of
/// lower-case hexadecimal digits, and a number that JSON does not have is null.
///
/// # Errors
///
/// [`PadError::UnknownVersion`], [`PadError::TooDeep`], [`PadError::TooLarge`].
pub fn to_json(doc: &Automerge, at: Option<&[ChangeHash]>) -> Result<Json, PadError> {
    get(doc, &Path::default(), at)
}

/// What is at a path, as [`to_json`] shows it.
///
/// # Errors
///
/// [`PadError::NotFound`], [`PadError::WrongKind`], and those of [`to_json`].
pub fn get(doc: &Automerge, path: &Path, at: Option<&[ChangeHash]>) -> Result<Json, PadError> {
    let view = View::of(doc, at)?;
    let mut found = (Value::Object(ObjType::Map), ROOT);
    for (index, step) in path.steps().iter().enumerate() {
        let (kind, id) = container(&found, path, index)?;
        let missing = || not_found(&view, path, index, kind, &id);
        let prop = prop(kind, step, path, index)?;
        found = view.get(&id, prop).ok_or_else(missing)?;
    }
    json(&view, found.0, &found.1, &mut Budget::default())
}

/// Sets the field at `path`: an existing one, a new one of an existing map, an element of a list, or the one
/// behind its end. Where a Text is and a string comes, the Text is edited, so that a concurrent edit survives.
///
/// # Errors
///
/// [`PadError::NoParent`] if the map or list around it does not exist, [`PadError::WrongKind`],
/// [`PadError::OutOfRange`], [`PadError::TextPath`], [`PadError::RootIsAMap`], [`PadError::TooDeep`],
/// [`PadError::TooLarge`].
pub fn set(tx: &mut Transaction<'_>, path: &Path, value: &Json) -> Result<(), PadError> {
    let Some((last, before)) = path.steps().split_last() else { return Err(PadError::RootIsAMap) };
    check(value, before.len())?;
    let mut found = (Value::Object(ObjType::Map), ROOT);
    for (index, step) in before.iter().enumerate() {
        let (kind, id) = container(&found, path, index)?;
        let prop = prop(kind, step, path, index)?;
        let after = path.steps().get(index.saturating_add(1));
        let empty = if matches!(after, Some(Step::Index(_))) { "[]" } else { "{}" };
        let parent = || path.start(index.saturating_add(1)).to_string();
        let value = View::now(tx).get(&id, prop).map(|(value, id)| (value.into_owned(), id));
        found = value.ok_or_else(|| PadError::NoParent { parent: parent(), empty })?;
    }
    let (kind, id) = container(&found, path, before.len())?;
    let prop = prop(kind, last, path, before.len())?;
    let present = View::now(tx).get(&id, prop.clone()).map(|(value, id)| (value.into_owned(), id));
    check_is_no_text(tx, path, &id, present.as_ref().map(|(_, id)| id))?;
    match (present, value, &prop) {
        (Some((Value::Object(ObjType::Text), text)), Json::String(new), _) => change_object(tx, &text, new),
        (None, _, Prop::Seq(index)) => {
            let length = View::now(tx).length(&id);
            let list = || path.start(before.len()).to_string();
            if *index > length {
                return Err(PadError::OutOfRange { path: list(), length });
            }
            write(tx, Slot::Insert(id, *index), value)
        }
        _ => write(tx, Slot::Put(id, prop), value),
    }
}

/// What a person typed as a value: JSON where it is JSON, else the string itself.
#[must_use]
pub fn value_of(typed: &str) -> Json {
    serde_json::from_str(typed).unwrap_or_else(|_| Json::from(typed))
}

/// Lays out a new document from a JSON file; what [`to_json`] showed of a document becomes that again.
///
/// # Errors
///
/// [`PadError::RootIsAMap`] if the file holds anything else, [`PadError::TooDeep`], [`PadError::TooLarge`],
/// [`PadError::TextTooLong`].
pub fn import_json(tx: &mut Transaction<'_>, value: &Json) -> Result<(), PadError> {
    let Json::Object(fields) = value else { return Err(PadError::RootIsAMap) };
    check(value, 0)?;
    for (key, value) in fields {
        let parts = value.as_array().filter(|_| key == SECTIONS);
        let parts = parts.and_then(|parts| parts.iter().map(Json::as_str).collect::<Option<Vec<&str>>>());
        match parts {
            Some(parts) => {
                let text = parts.concat();
                check_length(text.len(), 0)?;
                let list = tx.put_object(ROOT, SECTIONS, ObjType::List)?;
                add_sections(tx, &list, 0, &text)?;
            }
            None => write(tx, Slot::Put(ROOT, Prop::from(key.as_str())), value)?,
        }
    }
    Ok(())
}

/// The map or list that `found`, the value at the first `steps` steps, is.
fn container(found: &(Value<'_>, ObjId), path: &Path, steps: usize) -> Result<(ObjType, ObjId), PadError> {
    let why = match &found.0 {
        Value::Object(ObjType::Text) => "is a text and has no fields",
        Value::Object(kind) => return Ok((*kind, found.1.clone())),
        Value::Scalar(_) => "is a single value and has no fields",
    };
    Err(PadError::WrongKind { path: path.start(steps).to_string(), why })
}

/// The step into a map or list of kind `kind`, which is at the first `steps` steps.
fn prop(kind: ObjType, step: &Step, path: &Path, steps: usize) -> Result<Prop, PadError> {
    let wrong = |why| PadError::WrongKind { path: path.start(steps).to_string(), why };
    match (kind, step) {
        (ObjType::List | ObjType::Text, Step::Index(index)) => Ok(Prop::Seq(*index)),
        (ObjType::List | ObjType::Text, Step::Key(key)) => {
            key.parse().map(Prop::Seq).map_err(|_not_a_number| wrong("is a list: give a number, as in [0]"))
        }
        (ObjType::Map | ObjType::Table, Step::Key(key)) => Ok(Prop::from(key.as_str())),
        (ObjType::Map | ObjType::Table, Step::Index(_)) => Err(wrong("is a map: give a name, not a number")),
    }
}

fn not_found<D: ReadDoc>(
    view: &View<'_, D>,
    path: &Path,
    steps: usize,
    kind: ObjType,
    id: &ObjId,
) -> PadError {
    let has = if kind == ObjType::List {
        format!("{} elements", view.length(id))
    } else {
        let mut entries = view.entries(id).map(|entry| entry.key.into_owned());
        let names: Vec<String> = entries.by_ref().take(NAMES_SHOWN_MAX).collect();
        match (names.is_empty(), entries.count()) {
            (true, _) => "no fields".to_owned(),
            (false, 0) => names.join(", "),
            (false, more) => format!("{} and {more} more", names.join(", ")),
        }
    };
    PadError::NotFound { path: path.to_string(), parent: path.start(steps).to_string(), has }
}

/// The text is edited, never replaced by a field.
fn check_is_no_text(
    tx: &Transaction<'_>,
    path: &Path,
    parent: &ObjId,
    present: Option<&ObjId>,
) -> Result<(), PadError> {
    let in_text = match Body::find(&View::now(tx)) {
        Some(Body::Sections { list, .. }) => *parent == list || present == Some(&list),
        Some(Body::Single(text)) => present == Some(&text),
        None => false,
    };
    if in_text { Err(PadError::TextPath { path: path.to_string() }) } else { Ok(()) }
}

/// Where a value is written.
enum Slot {
    Put(ObjId, Prop),
    Insert(ObjId, usize),
}

/// Writes a value that was checked. A string becomes a value of its own, not a Text: of two strings set at once
/// one wins, their letters are not mixed.
fn write(tx: &mut Transaction<'_>, slot: Slot, value: &Json) -> Result<(), PadError> {
    let mut open = vec![(slot, value)];
    while let Some((slot, value)) = open.pop() {
        match value {
            Json::Object(fields) => {
                let id = make(tx, slot, ObjType::Map)?;
                let fields = fields.iter().rev();
                open.extend(
                    fields.map(|(key, value)| (Slot::Put(id.clone(), Prop::from(key.as_str())), value)),
                );
            }
            Json::Array(elements) => {
                let id = make(tx, slot, ObjType::List)?;
                let elements = elements.iter().enumerate().rev();
                open.extend(elements.map(|(index, value)| (Slot::Insert(id.clone(), index), value)));
            }
            Json::Null => put(tx, slot, ScalarValue::Null)?,
            Json::Bool(value) => put(tx, slot, ScalarValue::Boolean(*value))?,
            Json::String(value) => put(tx, slot, ScalarValue::from(value.as_str()))?,
            Json::Number(number) => put(tx, slot, scalar(number))?,
        }
    }
    Ok(())
}

fn make(tx: &mut Transaction<'_>, slot: Slot, kind: ObjType) -> Result<ObjId, PadError> {
    Ok(match slot {
        Slot::Put(object, prop) => tx.put_object(object, prop, kind)?,
        Slot::Insert(list, index) => tx.insert_object(list, index, kind)?,
    })
}

fn put(tx: &mut Transaction<'_>, slot: Slot, value: ScalarValue) -> Result<(), PadError> {
    match slot {
        Slot::Put(object, prop) => tx.put(object, prop, value)?,
        Slot::Insert(list, index) => tx.insert(list, index, value)?,
    }
    Ok(())
}

fn scalar(number: &Number) -> ScalarValue {
    let whole = number.as_i64().map(ScalarValue::Int).or_else(|| number.as_u64().map(ScalarValue::Uint));
    whole.or_else(|| number.as_f64().map(ScalarValue::F64)).unwrap_or(ScalarValue::Null)
}

/// What one answer may still hold.
pub(crate) struct Budget {
    values: usize,
    bytes: usize,
    depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { values: DOCUMENT_VALUES_MAX, bytes: DOCUMENT_ANSWER_BYTES_MAX, depth: DOCUMENT_DEPTH_MAX }
    }
}

impl Budget {
    /// For a value that is shown in a line.
    pub(crate) const fn of_a_line() -> Self {
        Self { values: 100, bytes: 2000, depth: 8 }
    }

    fn take(&mut self, bytes: usize) -> Result<(), PadError> {
        self.values = self.values.checked_sub(1).ok_or(PadError::TooLarge)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(PadError::TooLarge)?;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), PadError> {
        self.depth = self.depth.checked_sub(1).ok_or(PadError::TooDeep)?;
        Ok(())
    }

    const fn leave(&mut self) {
        self.depth = self.depth.saturating_add(1);
    }
}

/// A JSON value that is to be written at a depth.
fn check(value: &Json, depth: usize) -> Result<(), PadError> {
    let mut budget = Budget::default();
    let mut open = vec![(value, depth)];
    while let Some((value, depth)) = open.pop() {
        if depth >= DOCUMENT_DEPTH_MAX && (value.is_object() || value.is_array()) {
            return Err(PadError::TooDeep);
        }
        budget.take(value.as_str().map_or(0, str::len))?;
        let deeper = depth.saturating_add(1);
        match value {
            Json::Array(elements) => open.extend(elements.iter().map(|value| (value, deeper))),
            Json::Object(fields) => open.extend(fields.values().map(|value| (value, deeper))),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    Ok(())
}

/// A value of a document as JSON. Recursion ends where the budget's depth does.
pub(crate) fn json<D: ReadDoc>(
    view: &View<'_, D>,
    value: Value<'_>,
    id: &ObjId,
    budget: &mut Budget,
) -> Result<Json, PadError> {
    budget.take(0)?;
    let kind = match value {
        Value::Scalar(value) => return json_of(value.as_ref(), budget),
        Value::Object(kind) => kind,
    };
    budget.enter()?;
    let json = match kind {
        ObjType::Text => {
            let text = view.characters(id);
            budget.take(text.len())?;
            Json::String(text)
        }
        ObjType::List => {
            let elements = view.elements(id).map(|item| {
                let id = item.id();
                json(view, item.value.into_value(), &id, budget)
            });
            Json::Array(elements.collect::<Result<_, _>>()?)
        }
        ObjType::Map | ObjType::Table => {
            let mut fields = Map::new();
            for entry in view.entries(id) {
                let (id, key) = (entry.id(), entry.key.into_owned());
                budget.take(key.len())?;
                fields.insert(key, json(view, entry.value.into_value(), &id, budget)?);
            }
            Json::Object(fields)
        }
    };
    budget.leave();
    Ok(json)
}

fn json_of(value: &ScalarValue, budget: &mut Budget) -> Result<Json, PadError> {
    Ok(match value {
        ScalarValue::Str(text) => {
            budget.take(text.len())?;
            Json::from(text.as_str())
        }
        ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => {
            budget.take(bytes.len().saturating_mul(2))?;
            Json::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        ScalarValue::Int(value) | ScalarValue::Timestamp(value) => Json::from(*value),
        ScalarValue::Uint(value) => Json::from(*value),
        ScalarValue::F64(value) => Json::from(*value),
        ScalarValue::Counter(counter) => Json::from(i64::from(counter)),
        ScalarValue::Boolean(value) => Json::from(*value),
        ScalarValue::Null => Json::Null,
    })
}
