//! One of several machines that share a node's documents by their ids.

use wattle_types::{DocId, SecretKey};

use super::Replica;

/// Which of a node's machines one is. A document is at home in one of them, by its id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u16,
    count: u16,
}

/// Draws of an owner's key until the document that it founds is at home here. With 64 machines a miss of all is
/// one in 10^27; then the document is found until the next start, and by it at home elsewhere.
const DRAWS_MAX: u32 = 4096;

impl Shard {
    /// The only machine of a node.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Each of so many, at least one.
    pub fn each(count: u16) -> impl Iterator<Item = Self> {
        let count = count.max(1);
        (0..count).map(move |index| Self { index, count })
    }

    /// The one of so many that has a document.
    #[must_use]
    pub fn of(doc: &DocId, count: u16) -> Self {
        let count = count.max(1);
        // An id is a hash, or random where another program made it: any part of it is as good as another.
        let [one, other, ..] = *doc.as_bytes();
        Self { index: u16::from_be_bytes([one, other]) % count, count }
    }

    /// Its place among the others, from 0.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.index
    }

    /// Whether a document is at home here.
    #[must_use]
    pub fn holds(self, doc: &DocId) -> bool {
        Self::of(doc, self.count) == self
    }
}

impl Replica {
    /// This machine as one of several: what it makes is at home in it.
    #[must_use]
    pub const fn of_shard(mut self, shard: Shard) -> Self {
        self.shard = shard;
        self
    }

    /// The key of the owner of a document that is made here, and the document's id.
    pub(super) fn draw_owner(&mut self) -> (SecretKey, DocId) {
        let mut owner = SecretKey::from_bytes(&self.draw());
        for _ in 0..DRAWS_MAX {
            if self.shard.holds(&DocId::of_owner(&owner.node_id())) {
                break;
            }
            owner = SecretKey::from_bytes(&self.draw());
        }
        let id = DocId::of_owner(&owner.node_id());
        (owner, id)
    }
}
