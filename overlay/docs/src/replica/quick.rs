//! Which inputs are answered at once: who drives the machine need not move it to another thread for those.
//!
//! A signature costs some fifty microseconds, and most else as much as the document has operations. So what is said in
//! few bytes about a document of few operations takes less than to hand it to a thread and back. A hundred bytes may
//! hold half a million operations: so those of changes, and of what is read of a document, are counted first.

use wattle_types::{DocId, NodeId, Time};

use super::disk::payloads;
use super::{Entry, Input, Job, Replica, State};
use crate::chunk::{are_little, is_little_sync};
use crate::document::Heard;
use crate::message::{all_changes, holds_no_changes, split};
use crate::payload::Payload;

/// Bytes that peers, programs or the disk bring: at most ten signatures.
const QUICK_BYTES: usize = 2 * 1024;

/// Bytes of a document on disk.
const QUICK_DOCUMENT_BYTES: u64 = 256 * 1024;

/// What is remembered of a program, all of which is walked when it is answered.
const QUICK_CONVERSATION_BYTES: usize = 8 * 1024;

/// Operations about its members, all of which a peer may ask for.
const QUICK_LOG: usize = 64;

/// Frames that are answered in one turn: each may ask for all of a document.
const QUICK_FRAMES: usize = 4;

impl Replica {
    /// Whether an input takes no longer than half a millisecond; one in a thousand, which makes a snapshot due,
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
            Input::Received { peer, frame } => self.are_frames_quick(&[(peer, frame)]),
            Input::ReceivedTogether { frames } => {
                let frames: Vec<_> = frames.iter().map(|(peer, frame)| (peer, frame)).collect();
                self.are_frames_quick(&frames)
            }
            Input::Sync { doc, conversation, message, .. } => {
                is_small(Some(doc))
                    && conversation.bytes() <= QUICK_CONVERSATION_BYTES
                    && message.as_deref().is_none_or(is_little_sync)
            }
            Input::Loaded { doc, values: Ok(values) } => {
                is_little(values) && self.entries.get(doc).is_none_or(|entry| entry.is_read_quickly(values))
            }
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

    fn are_frames_quick(&self, frames: &[(&NodeId, &Vec<u8>)]) -> bool {
        let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
        if frames.len() > QUICK_FRAMES || bytes > QUICK_BYTES {
            return false;
        }
        let mut changes = Vec::new();
        for (peer, frame) in frames {
            let Some((tag, message)) = split(frame) else { continue };
            // Without a document or a session for it what holds changes is not even read.
            let Some(entry) = self.tags.get(&tag).and_then(|doc| self.entries.get(doc)) else { continue };
            if !entry.is_small() {
                return false;
            }
            if entry.sessions.contains_key(peer) && !holds_no_changes(message) {
                let Some(all) = all_changes(message) else { return false };
                changes.push(all);
            }
        }
        hold_little(&changes)
    }
}

impl Entry {
    /// Whether nothing that is done with it takes long. What is not in memory is read first, which counts by itself.
    pub(super) fn is_small(&self) -> bool {
        let stored = &self.row.tip.stored;
        let is_small = match &self.state {
            State::Open(document) => document.is_small(),
            State::Loading(_) | State::Closed | State::Damaged(_) => true,
        };
        is_small
            && self.log.len() <= QUICK_LOG
            && stored.snapshot_bytes + stored.record_bytes <= QUICK_DOCUMENT_BYTES
    }

    /// Whether what the disk has of it is read at once, and all done that waits for it.
    fn is_read_quickly(&self, values: &[Option<Vec<u8>>]) -> bool {
        let State::Loading(jobs) = &self.state else { return true };
        let Ok(mut all) = payloads(self, values.to_vec()) else { return true };
        let is_quick = jobs.len() <= QUICK_FRAMES && jobs.iter().all(Job::is_quick);
        all.extend(jobs.iter().filter_map(Job::payload).cloned());
        is_quick && hold_little(&all)
    }
}

impl Job {
    /// Whether it takes little time in a small document, but for the changes that it brings.
    fn is_quick(&self) -> bool {
        match self {
            Self::Want { clock, .. } => clock.len() <= QUICK_LOG,
            Self::Ask { .. } => true,
            Self::Accept { payload, .. } => payload.bytes() <= QUICK_BYTES,
            Self::Sync { conversation, heard, .. } => {
                conversation.bytes() <= QUICK_CONVERSATION_BYTES
                    && heard.as_ref().is_none_or(Heard::is_little)
            }
            _ => false,
        }
    }

    const fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Accept { payload, .. } => Some(payload),
            _ => None,
        }
    }
}

/// Whether changes are applied, or read, at once.
fn hold_little(payloads: &[Payload]) -> bool {
    are_little(payloads.iter().flat_map(|payload| &payload.chunks).map(|chunk| chunk.as_slice()))
}

fn is_little(values: &[Option<Vec<u8>>]) -> bool {
    values.iter().flatten().map(Vec::len).sum::<usize>() <= QUICK_BYTES
}
