//! Who typed each character.
//!
//! Automerge knows the session that made each element of a text. A section that grew too long has moved an end of
//! itself to a new section, though, and there the mover made the elements. Such a move is recognised by what it
//! is, not by what the mover says of it: the new section ends (or begins) with exactly the characters that the
//! same change deleted from the end (or the beginning) of its neighbour. They stay the ones of who typed them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use automerge::{ActorId, Automerge, ChangeHash, ObjId, ScalarValueRef, ValueRef};

use crate::body::{Body, texts_in};
use crate::view::View;

/// What stands in a text for an element that is no string.
const NO_STRING: &str = "\u{fffc}";

/// Changes that moved text, which are looked at: a text of 10 MB that was typed from nothing has 600 sections.
/// What moved in later ones counts as typed by the mover.
const MOVES_MAX: usize = 1_000;

/// A stretch of the text that one editing session typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Bytes of the text.
    pub bytes: Range<usize>,
    /// Who typed them; `Automerge::get_author_for_actor` says whose session that is.
    pub actor: ActorId,
}

/// Who typed each character of the current text, in order and without gaps. It depends on the changes alone, so
/// it is the same on every replica.
#[must_use]
pub fn blame(doc: &Automerge) -> Vec<Typed> {
    let view = View::now(doc);
    let Some(body) = Body::find(&view) else { return Vec::new() };
    let moved = match &body {
        Body::Sections { list, sections } => moved(doc, list, sections),
        Body::Single(_) => BTreeMap::new(),
    };
    let mut typed: Vec<Typed> = Vec::new();
    for character in body.texts().into_iter().flat_map(|id| characters(&view, id)) {
        let start = typed.last().map_or(0, |last| last.bytes.end);
        let end = start.saturating_add(character.text.len());
        let Some(actor) = typist(&moved, &character.id) else { continue };
        match typed.last_mut() {
            Some(last) if last.actor == actor => last.bytes.end = end,
            _ => typed.push(Typed { bytes: start..end, actor }),
        }
    }
    typed
}

/// Elements that were moved, and who typed what they are copies of.
type Moved = BTreeMap<ObjId, ActorId>;

/// Who typed an element; nobody made the root, which is no element.
fn typist(moved: &Moved, id: &ObjId) -> Option<ActorId> {
    let made_by = match id {
        ObjId::Root => None,
        ObjId::Id(_, actor, _) => Some(actor),
    };
    moved.get(id).or(made_by).cloned()
}

/// An element of a Text.
struct Character {
    text: String,
    id: ObjId,
}

fn characters(view: &View<'_, Automerge>, text: &ObjId) -> Vec<Character> {
    let characters = view.elements(text).map(|item| {
        let text = match &item.value {
            ValueRef::Scalar(ScalarValueRef::Str(text)) => text.to_string(),
            ValueRef::Scalar(_) | ValueRef::Object(_) => NO_STRING.to_owned(),
        };
        Character { text, id: item.id() }
    });
    characters.collect()
}

/// A change that made sections of a list that was there before, with the versions around it.
struct Cutting {
    before: Vec<ChangeHash>,
    after: ChangeHash,
}

/// All elements that changes have moved from section to section, the oldest changes first: what was moved twice
/// is still of who typed it.
fn moved(doc: &Automerge, list: &ObjId, sections: &[(usize, ObjId)]) -> Moved {
    let makers: BTreeSet<ChangeHash> = sections.iter().filter_map(|(_, id)| doc.hash_for_opid(id)).collect();
    let metas = makers.iter().filter_map(|hash| doc.get_change_meta_by_hash(hash));
    let cuttings: BTreeMap<(u64, ChangeHash), Cutting> = metas
        .filter(|change| !change.deps.is_empty())
        .map(|change| ((change.start_op, change.hash), Cutting { before: change.deps, after: change.hash }))
        .collect();
    let mut moved = Moved::new();
    for cutting in cuttings.values().take(MOVES_MAX) {
        let after = [cutting.after];
        let (Ok(old), Ok(new)) = (View::of(doc, Some(&cutting.before)), View::of(doc, Some(&after))) else {
            continue;
        };
        trace(&old, &new, list, &mut moved);
    }
    moved
}

/// Finds what one change moved from the sections it left to the new ones beside them.
fn trace(old: &View<'_, Automerge>, new: &View<'_, Automerge>, list: &ObjId, moved: &mut Moved) {
    let texts = |view| texts_in(view, list).into_iter().map(|(_, id)| id);
    let known: BTreeSet<ObjId> = texts(old).collect();
    let all: Vec<ObjId> = texts(new).collect();
    let mut start = 0;
    for made in all.chunk_by(|one, other| known.contains(one) == known.contains(other)) {
        let end = start + made.len();
        if made.first().is_some_and(|id| !known.contains(id)) {
            let ahead = start.checked_sub(1).and_then(|index| all.get(index));
            let content: Vec<Character> = made.iter().flat_map(|id| characters(new, id)).collect();
            let mut pairs = Vec::new();
            if let Some(home) = ahead {
                let (was, is) = (characters(old, home), kept(new, home));
                let gone =
                    was.iter().rev().zip(content.iter().rev()).take_while(|(was, _)| !is.contains(&was.id));
                pairs.extend(gone.take_while(|(was, now)| was.text == now.text).map(copy_of));
            }
            if let Some(home) = all.get(end) {
                let (was, is) = (characters(old, home), kept(new, home));
                let gone = was.iter().zip(&content).take_while(|(was, _)| !is.contains(&was.id));
                pairs.extend(gone.take_while(|(was, now)| was.text == now.text).map(copy_of));
            }
            for (now, was) in pairs {
                if let Some(actor) = typist(moved, &was) {
                    moved.insert(now, actor);
                }
            }
        }
        start = end;
    }
}

fn copy_of((was, now): (&Character, &Character)) -> (ObjId, ObjId) {
    (now.id.clone(), was.id.clone())
}

fn kept(view: &View<'_, Automerge>, section: &ObjId) -> BTreeSet<ObjId> {
    characters(view, section).into_iter().map(|character| character.id).collect()
}
