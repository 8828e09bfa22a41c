//! What a local program says of a document, in automerge's own sync protocol.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::sync::{ChunkList, Message, State, SyncDoc as _};
use automerge::{Automerge, Change, ReadDoc as _};
use serde_bytes::ByteBuf;

use super::{Document, Fault, Hash, Incoming, apply};
use crate::chunk::{self, CHANGE_ROWS_MAX, DOCUMENT_ROWS_MAX};
use crate::message::HEADS_MAX;

/// Bytes of changes that wait in one conversation for those that they build on. The filter of a sync message
/// is wrong about one change in a hundred, so a gap is common, short, and closed by the next message.
pub const GAP_BYTES_MAX: usize = 4 << 20;

/// Passes over changes that came out of order. What is left then waits for the next message.
const PASSES_MAX: usize = 16;

/// How far the conversation with one local program about one document has come. Whoever holds the
/// conversation keeps it between two messages; the machine keeps nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    sync: State,
    /// Changes whose dependencies have not come yet.
    gap: Vec<ByteBuf>,
    /// It holds what a removal cut off: all that it writes builds on that, so nothing more is taken from it.
    cut: bool,
}

impl Conversation {
    /// Bytes that it takes, but for small change.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let gap: usize = self.gap.iter().map(|change| change.len()).sum();
        let filters = self.sync.their_have.iter().flatten().map(|have| {
            let hashes = have.last_sync.len().saturating_mul(32);
            have.bloom.to_bytes().len().saturating_add(hashes)
        });
        let lists = [&self.sync.their_heads, &self.sync.their_need].into_iter().flatten();
        let hashes = lists.map(Vec::len).sum::<usize>()
            + self.sync.shared_heads.len()
            + self.sync.last_sent_heads.len()
            + self.sync.sent_hashes.len();
        gap + filters.sum::<usize>() + hashes.saturating_mul(32)
    }

    /// Whether the program was last told exactly these heads.
    #[must_use]
    pub fn was_told(&self, heads: &[[u8; 32]]) -> bool {
        let told: BTreeSet<[u8; 32]> = self.sync.last_sent_heads.iter().map(|head| head.0).collect();
        told.len() == heads.len() && heads.iter().all(|head| told.contains(head))
    }

    /// Whether the program holds what the removal of a writer cut off. Nothing that it writes is taken until it
    /// starts anew without it.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Gives back room that nothing is in: a program may have thousands of documents open that rest.
    pub(crate) fn shrink(&mut self) {
        let sync = &mut self.sync;
        let lists = [&mut sync.their_heads, &mut sync.their_need].into_iter().flatten();
        for hashes in lists.chain([&mut sync.shared_heads, &mut sync.last_sent_heads]) {
            hashes.shrink_to_fit();
        }
        if let Some(haves) = &mut sync.their_have {
            haves.shrink_to_fit();
            haves.iter_mut().for_each(|have| have.last_sync.shrink_to_fit());
        }
    }

    /// Whether the program may change the document. One that now may sends again what was refused.
    pub(crate) fn set_may_write(&mut self, may_write: bool) {
        self.sync.set_read_only(!may_write || self.cut);
    }
}

/// A message that passed the bounds.
pub(crate) struct Heard {
    message: Message,
    /// Rows of the largest document in it.
    document_rows: u64,
    is_little: bool,
}

impl Heard {
    /// Reads a message after looking at all that is in it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let inspected = chunk::inspect_sync(bytes).map_err(|error| Fault::Malformed(error.to_string()))?;
        let read = || Message::decode(bytes).map_err(|error| Fault::Malformed(error.to_string()));
        let message = catch_unwind(read).map_err(|_panic| Fault::Panicked)??;
        let is_little = chunk::is_little_sync(bytes);
        Ok(Self { message, document_rows: inspected.chunks.document_rows, is_little })
    }

    /// Whether it is answered in half a millisecond.
    pub(crate) const fn is_little(&self) -> bool {
        self.is_little
    }

    /// Whether its sender has anything of the document.
    pub(crate) fn has_heads(&self) -> bool {
        !self.message.heads.is_empty()
    }
}

impl Document {
    /// Takes a message. What is new in it counts as written here: not vouched for yet, not on disk, not sent.
    /// After a fault the document is as it was, and the conversation is over.
    pub(crate) fn hear(
        &mut self,
        conversation: &mut Conversation,
        heard: Heard,
        cut: &[Hash],
    ) -> Result<(), Fault> {
        let Heard { mut message, document_rows, .. } = heard;
        self.check_rows(document_rows)?;
        let chunks = std::mem::replace(&mut message.changes, ChunkList::empty());
        let takes = !chunks.is_empty() && !conversation.sync.read_only;
        let take = || if takes { self.taken(conversation, &chunks, cut).map(Some) } else { Ok(None) };
        let taken = catch_unwind(AssertUnwindSafe(take)).map_err(|_panic| Fault::Panicked)??;
        let (mut next, changes) = taken.unwrap_or_default();
        let sync = &mut conversation.sync;
        let told = sync.last_sent_heads.clone();
        // Without changes in the message this reads the document and writes the conversation.
        let automerge = next.as_mut().unwrap_or(&mut self.automerge);
        let receive = || automerge.receive_sync_message(sync, message);
        let received = catch_unwind(AssertUnwindSafe(receive)).map_err(|_panic| Fault::Panicked)?;
        received.map_err(|error| Fault::Malformed(error.to_string()))?;
        if !chunks.is_empty() {
            // Who sent changes is told that they are here.
            sync.last_sent_heads = told;
        }
        if let Some(next) = next {
            self.automerge = next;
            self.count(&changes);
            self.fresh.extend(changes);
        }
        Ok(())
    }

    /// A program that made more than a third of the changes sends all of the document, as one. So it may be as large as
    /// this one, and what no peer would take is not there; to read it takes the memory that a file of it takes.
    pub(super) fn check_rows(&self, rows: u64) -> Result<(), Fault> {
        let here = self.automerge.stats().num_ops;
        let max = DOCUMENT_ROWS_MAX.max(here.saturating_add(CHANGE_ROWS_MAX));
        if rows > max {
            let why =
                format!("a document of {rows} operations at once (a letter is one), and {max} are taken");
            return Err(Fault::Malformed(why));
        }
        Ok(())
    }

    /// A copy with the changes applied, where something is new; and what is.
    fn taken(
        &self,
        conversation: &mut Conversation,
        items: &ChunkList,
        cut: &[Hash],
    ) -> Result<(Option<Automerge>, Vec<Change>), Fault> {
        let mut chunks = std::mem::take(&mut conversation.gap);
        for item in items.iter() {
            let split = chunk::split(item).map_err(|error| Fault::Malformed(error.to_string()))?;
            chunks.extend(split.into_iter().map(|chunk| ByteBuf::from(chunk.to_vec())));
        }
        let mut incoming = self.unknown_of_bounded(&chunks)?;
        let all = incoming.len();
        let cut: BTreeSet<[u8; 32]> = cut.iter().map(|hash| **hash).collect();
        incoming.retain(|(change, _)| !cut.contains(&change.hash().0));
        conversation.cut |= incoming.len() < all;
        let (ready, later) = self.settle(incoming);
        if later.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > GAP_BYTES_MAX {
            return Err(Fault::Malformed("too many changes whose dependencies are missing".to_owned()));
        }
        if !conversation.cut {
            conversation.gap = later.into_iter().map(|(_, bytes)| bytes).collect();
        }
        if ready.is_empty() {
            return Ok((None, Vec::new()));
        }
        let mut next = self.automerge.clone();
        apply(&mut next, &ready)?;
        if next.get_heads().len() > HEADS_MAX {
            return Err(Fault::Malformed(format!("more than {HEADS_MAX} heads")));
        }
        Ok((Some(next), ready.into_iter().map(|(change, _)| change).collect()))
    }

    /// Those that can be applied, in an order in which they can; and those that still miss something.
    fn settle(&self, mut incoming: Incoming) -> (Incoming, Incoming) {
        // A change's operations are numbered above those that it builds on, but for changes without any.
        incoming.sort_by_key(|(change, _)| change.start_op());
        let (mut ready, mut here) = (Vec::new(), BTreeSet::new());
        for _ in 0..PASSES_MAX {
            let mut later = Vec::new();
            let mut seen = BTreeSet::new();
            let before = ready.len();
            for (change, bytes) in incoming {
                let is_here =
                    |dep| here.contains(dep) || self.automerge.get_change_meta_by_hash(dep).is_some();
                if change.deps().iter().all(is_here) {
                    if here.insert(change.hash()) {
                        ready.push((change, bytes));
                    }
                } else if seen.insert(change.hash()) {
                    later.push((change, bytes));
                }
            }
            incoming = later;
            if incoming.is_empty() || ready.len() == before {
                break;
            }
        }
        (ready, incoming)
    }

    /// What is to be said next, if anything.
    pub(crate) fn say(&self, conversation: &mut Conversation) -> Result<Option<Vec<u8>>, Fault> {
        let Conversation { sync, gap, .. } = conversation;
        let say = || {
            if gap.is_empty() {
                return Ok(self.automerge.generate_sync_message(sync).map(Message::encode));
            }
            // With what waits in its queue the copy asks for what is missing, not for what has come already.
            let mut copy = self.automerge.clone();
            apply(&mut copy, &self.unknown(gap)?)?;
            Ok(copy.generate_sync_message(sync).map(Message::encode))
        };
        catch_unwind(AssertUnwindSafe(say)).map_err(|_panic| Fault::Panicked)?
    }
}

#[cfg(test)]
mod tests;
