//! Which inputs are answered at once: who drives the machine need not move it to another thread for those.
//!
//! A signature costs some fifty microseconds, and most else as much as the document has operations. So what is said in
//! few bytes about a document of few operations takes less than to hand it to a thread and back. But for changes, and
//! what is read of a document: a hundred bytes may hold half a million operations.

use wattle_types::{DocId, Time};

use super::{Entry, Input, Replica, State};
use crate::message::{holds_no_changes, split};

/// Bytes that peers, programs or the disk bring: no more than some signed entries.
const QUICK_BYTES: usize = 2 * 1024;

/// Operations and bytes of a document that is saved and read back in a millisecond.
const QUICK_OPERATIONS: u64 = 1024;
const QUICK_DOCUMENT_BYTES: u64 = 256 * 1024;

/// Operations about its members, all of which a peer may ask for.
const QUICK_LOG: usize = 64;

/// Frames that are answered in one turn: each may ask for all of a document.
const QUICK_FRAMES: usize = 4;

impl Replica {
    /// Whether an input takes no longer than a fifth of a millisecond; one in a thousand, which makes a snapshot due,
    /// takes a millisecond. What a caller brings to do with a document is never quick: it may take any time.
    #[must_use]
    pub fn is_quick(&self, now: Time, input: &Input) -> bool {
        let is_small =
            |doc: Option<&DocId>| doc.and_then(|doc| self.entries.get(doc)).is_none_or(|it| it.is_small());
        match input {
            Input::PeerUp { .. } | Input::PeerDown { .. } | Input::Append { .. } | Input::Signal { .. } => {
                true
            }
            Input::Ephemeral { .. } | Input::Found { .. } => true,
            Input::Received { frame, .. } => self.is_frame_quick(frame) && frame.len() <= QUICK_BYTES,
            Input::ReceivedTogether { frames } => {
                let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
                bytes <= QUICK_BYTES
                    && frames.len() <= QUICK_FRAMES
                    && frames.iter().all(|(_, frame)| self.is_frame_quick(frame))
            }
            Input::Sync { doc, message: None, .. } => is_small(Some(doc)),
            Input::Persisted { id } => {
                let of = [&self.persists, &self.feed_persists, &self.shown_persists];
                of.iter().all(|persists| is_small(persists.get(id)))
            }
            Input::Fetched { values: Ok(values), .. } => is_little(values),
            Input::Wake => {
                let due = |(due, _): &&(Time, DocId)| *due <= now;
                let all = self.timers.iter().take_while(due).chain(self.rests.iter().take_while(due));
                all.map(|(_, doc)| doc).all(|doc| is_small(Some(doc)))
            }
            _ => false,
        }
    }

    fn is_frame_quick(&self, frame: &[u8]) -> bool {
        let Some((tag, body)) = split(frame) else { return true };
        let doc = self.tags.get(&tag);
        holds_no_changes(body)
            && doc.and_then(|doc| self.entries.get(doc)).is_none_or(|entry| entry.is_small())
    }
}

impl Entry {
    /// Whether nothing that is done with it takes long. What is not in memory is read first, which counts by itself.
    pub(super) fn is_small(&self) -> bool {
        let stored = &self.row.tip.stored;
        let operations = match &self.state {
            State::Open(document) => document.operations(),
            State::Loading(_) | State::Closed | State::Damaged(_) => 0,
        };
        operations <= QUICK_OPERATIONS
            && self.log.len() <= QUICK_LOG
            && stored.snapshot_bytes + stored.record_bytes <= QUICK_DOCUMENT_BYTES
    }
}

fn is_little(values: &[Option<Vec<u8>>]) -> bool {
    values.iter().flatten().map(Vec::len).sum::<usize>() <= QUICK_BYTES
}
