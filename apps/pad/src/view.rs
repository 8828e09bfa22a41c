//! Reading at one version: the current one, an older one, or the one a transaction stands on.

use automerge::iter::{ListRange, MapRange};
use automerge::{Automerge, ChangeHash, ObjId, ObjType, Prop, ReadDoc, Value};

use crate::PadError;

/// One version of a document. What is missing, or is not of the kind that is asked for, reads as nothing.
pub(crate) struct View<'a, D> {
    doc: &'a D,
    at: Option<&'a [ChangeHash]>,
}

impl<'a> View<'a, Automerge> {
    /// The version `at`, which the document must have; the current one without.
    pub(crate) fn of(doc: &'a Automerge, at: Option<&'a [ChangeHash]>) -> Result<Self, PadError> {
        // Automerge reads unknown heads as if they were not there, which would show another version.
        let unknown = at.into_iter().flatten().find(|hash| doc.get_change_meta_by_hash(hash).is_none());
        unknown.map_or(Ok(Self { doc, at }), |hash| Err(PadError::UnknownVersion(*hash)))
    }
}

impl<'a, D: ReadDoc> View<'a, D> {
    /// What `doc` shows by itself: the current version, or that of a transaction with its edits so far.
    pub(crate) const fn now(doc: &'a D) -> Self {
        Self { doc, at: None }
    }

    /// The value at `prop` of `object`.
    pub(crate) fn get(&self, object: &ObjId, prop: impl Into<Prop>) -> Option<(Value<'a>, ObjId)> {
        let found = match self.at {
            Some(heads) => self.doc.get_at(object, prop, heads),
            None => self.doc.get(object, prop),
        };
        found.ok().flatten()
    }

    /// The object of kind `kind` at `prop` of `object`.
    pub(crate) fn object(&self, object: &ObjId, prop: impl Into<Prop>, kind: ObjType) -> Option<ObjId> {
        self.get(object, prop).filter(|(value, _)| *value == Value::Object(kind)).map(|(_, id)| id)
    }

    /// The elements of a list, or the characters of a Text.
    pub(crate) fn elements(&self, object: &ObjId) -> ListRange<'a> {
        match self.at {
            Some(heads) => self.doc.list_range_at(object, .., heads),
            None => self.doc.list_range(object, ..),
        }
    }

    /// The entries of a map, by key.
    pub(crate) fn entries(&self, object: &ObjId) -> MapRange<'a> {
        match self.at {
            Some(heads) => self.doc.map_range_at(object, .., heads),
            None => self.doc.map_range(object, ..),
        }
    }

    /// How many elements a list has.
    pub(crate) fn length(&self, object: &ObjId) -> usize {
        match self.at {
            Some(heads) => self.doc.length_at(object, heads),
            None => self.doc.length(object),
        }
    }

    /// The characters of a Text object; nothing where it is none.
    pub(crate) fn characters(&self, object: &ObjId) -> String {
        let text = match self.at {
            Some(heads) => self.doc.text_at(object, heads),
            None => self.doc.text(object),
        };
        text.unwrap_or_default()
    }
}
