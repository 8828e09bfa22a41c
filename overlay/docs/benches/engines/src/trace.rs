//! The edits: a person's keystrokes from a file, or made ones of the same shape.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc};
use serde::Deserialize;

use crate::Result;

/// As many keystrokes as the real trace has.
const MADE_PATCHES: usize = 259_778;

/// One keystroke: where, how many characters go, what comes.
#[derive(Deserialize)]
pub struct Patch(usize, usize, String);

#[derive(Deserialize)]
struct Recording {
    #[serde(rename = "startContent", default)]
    start: String,
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    patches: Vec<Patch>,
}

/// Reads a trace, packed or not.
pub fn read(path: &Path) -> Result<Vec<Patch>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
        bytes = plain;
    }
    let file: Recording = serde_json::from_slice(&bytes)?;
    if !file.start.is_empty() {
        return Err("a trace that does not begin with an empty text".into());
    }
    Ok(file.txns.into_iter().flat_map(|transaction| transaction.patches).collect())
}

/// Keystrokes like a person's: runs of typing, three deletions in ten, now and then another place.
pub fn made() -> Vec<Patch> {
    let (mut state, mut length, mut cursor) = (7_u64, 0_usize, 0_usize);
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let mut patches = Vec::with_capacity(MADE_PATCHES);
    while patches.len() < MADE_PATCHES {
        if draw(50) == 0 {
            cursor = draw(length + 1);
        }
        if draw(10) < 3 && cursor > 0 {
            cursor -= 1;
            length -= 1;
            patches.push(Patch(cursor, 1, String::new()));
        } else {
            let letter = b"etaoin shrdlu"[draw(13)] as char;
            patches.push(Patch(cursor, 0, letter.to_string()));
            cursor += 1;
            length += 1;
        }
    }
    patches
}

/// A document with a change for each patch.
pub fn build(patches: &[Patch]) -> Result<Automerge> {
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
    transaction.commit();
    for Patch(at, gone, come) in patches {
        let mut transaction = document.transaction();
        transaction.splice_text(&text, *at, isize::try_from(*gone)?, come)?;
        transaction.commit();
    }
    Ok(document)
}

/// The text of a document.
pub fn text(document: &impl ReadDoc) -> std::result::Result<ObjId, String> {
    match document.get(ROOT, "text") {
        Ok(Some((_, text))) => Ok(text),
        Ok(None) => Err("a document without text".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Types one letter in the middle.
pub fn type_letter(transaction: &mut (impl Transactable + ReadDoc)) -> std::result::Result<(), String> {
    let text = text(transaction)?;
    let middle = transaction.length(&text) / 2;
    transaction.splice_text(&text, middle, 0, "x").map_err(|error| error.to_string())
}

/// Puts a short text into an empty document.
pub fn begin(transaction: &mut impl Transactable) -> std::result::Result<(), String> {
    let text = transaction.put_object(ROOT, "text", ObjType::Text).map_err(|error| error.to_string())?;
    transaction.splice_text(&text, 0, 0, "a small document").map_err(|error| error.to_string())
}
