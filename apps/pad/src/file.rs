//! Documents as files: what a file is, and what becomes of it.

use std::ops::ControlFlow;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{Automerge, ROOT};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::body::{TITLE, text_of};
use crate::{PadError, create, create_in_steps, import_json, text, to_json};

/// The four bytes that every chunk of Automerge begins with.
const AUTOMERGE_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// What a document becomes as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFormat {
    /// Everything, with the history.
    Automerge,
    /// The text alone.
    Text,
    /// Every field and the text, without the history.
    Json,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum FileContent {
    /// Bytes of Automerge; nobody has looked further than their beginning.
    Automerge,
    /// A JSON object.
    Json(Json),
    /// Text.
    Text(String),
}

/// Whether bytes begin as a file of Automerge does.
pub(crate) fn is_automerge(bytes: &[u8]) -> bool {
    bytes.starts_with(&AUTOMERGE_MAGIC)
}

/// What a file holds, by its content. Its name decides nothing but whether a mismatch is damage: a broken
/// `x.json` is no text.
///
/// # Errors
///
/// [`PadError::Damaged`], [`PadError::NotText`].
pub fn recognise(name: &str, bytes: &[u8]) -> Result<FileContent, PadError> {
    if is_automerge(bytes) {
        return Ok(FileContent::Automerge);
    }
    let ends = |end: &str| name.to_ascii_lowercase().ends_with(end);
    let damaged = |why: String| PadError::Damaged { why };
    if ends(".automerge") {
        return Err(damaged("it does not begin as an Automerge file does".to_owned()));
    }
    match serde_json::from_slice(bytes) {
        Ok(Json::Object(fields)) => Ok(FileContent::Json(Json::Object(fields))),
        Ok(_) if ends(".json") => Err(damaged("it is JSON, but no map of fields".to_owned())),
        Err(error) if ends(".json") => Err(damaged(format!("it is no JSON: {error}"))),
        Ok(_) | Err(_) => Ok(FileContent::Text(text_of(bytes)?.to_owned())),
    }
}

/// Lays out a new document from what a file holds. `title` is what people shall call it; without, what the file
/// itself says, or else `name`. `tx` is the first transaction of a document, or the first on the history of an
/// Automerge file, which keeps its own title unless another is given.
///
/// # Errors
///
/// As [`create`] and [`import_json`].
pub fn import(
    tx: &mut Transaction<'_>,
    content: &FileContent,
    title: Option<&str>,
    name: &str,
) -> Result<(), PadError> {
    match content {
        FileContent::Automerge => {
            if let Some(title) = title {
                tx.put(ROOT, TITLE, title)?;
            }
        }
        FileContent::Json(json) => {
            let mut json = json.clone();
            if let Some(fields) = json.as_object_mut() {
                if let Some(title) = title {
                    fields.insert(TITLE.to_owned(), Json::from(title));
                } else {
                    fields.entry(TITLE).or_insert_with(|| Json::from(name));
                }
            }
            import_json(tx, &json)?;
        }
        FileContent::Text(text) => create(tx, title.unwrap_or(name), text)?,
    }
    Ok(())
}

/// Lays out a new document from the bytes of a file that is none of Automerge, as [`import`] does; a text in steps.
pub(crate) fn import_in_steps(
    file: String,
    title: Option<String>,
    name: String,
    bytes: Vec<u8>,
) -> impl FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, PadError> {
    let mut steps = None;
    move |tx: &mut Transaction<'_>| {
        if steps.is_none() {
            match recognise(&file, &bytes)? {
                FileContent::Text(text) => {
                    let title = title.clone().unwrap_or_else(|| name.clone());
                    steps = Some(create_in_steps(title, text)?);
                }
                content => {
                    import(tx, &content, title.as_deref(), &name)?;
                }
            }
        }
        steps.as_mut().map_or(Ok(ControlFlow::Break(())), |steps| steps(tx))
    }
}

/// A document as the bytes of a file.
///
/// # Errors
///
/// [`PadError::NoText`], and those of [`to_json`].
pub fn export(doc: &Automerge, format: FileFormat) -> Result<Vec<u8>, PadError> {
    match format {
        FileFormat::Automerge => Ok(doc.save()),
        FileFormat::Text => Ok(text(doc, None)?.ok_or(PadError::NoText)?.into_bytes()),
        FileFormat::Json => {
            let json = to_json(doc, None)?;
            let mut bytes = serde_json::to_vec_pretty(&json).map_err(|_not_json| PadError::TooLarge)?;
            bytes.push(b'\n');
            Ok(bytes)
        }
    }
}
