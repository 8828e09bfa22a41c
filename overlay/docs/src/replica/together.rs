//! Changes that came while the machine was busy, applied as one.
//!
//! To apply a change costs as much as the text that it touches is long, however many changes there are. So what one
//! member wrote in some consecutive frames is applied, vouched for and written once. Nothing waits for it: who is
//! alone is applied at once, and how much comes together is as much as came during the turn before.

use serde_bytes::ByteBuf;
use wattle_types::{DocId, NodeId, Outbox, Time};

use super::{Job, Output, Replica};
use crate::chunk;
use crate::payload::Payload;

/// Bytes of changes that are applied as one: some hundred of people who type.
const TOGETHER_BYTES_MAX: usize = 32 * 1024;

/// What one member wrote of one document, in the order in which it came.
pub(super) struct Run {
    doc: DocId,
    peer: NodeId,
    payloads: Vec<Payload>,
    bytes: usize,
}

impl Replica {
    pub(super) fn received_together(
        &mut self,
        now: Time,
        frames: Vec<(NodeId, Vec<u8>)>,
        out: &mut Outbox<Output>,
    ) {
        self.together = true;
        for (peer, frame) in frames {
            self.received(now, peer, &frame, out);
        }
        self.together = false;
        self.apply_run(now, out);
    }

    /// Takes a payload: it is applied with those around it, or at once.
    pub(super) fn take_payload(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        payload: Payload,
        out: &mut Outbox<Output>,
    ) {
        // Of what others vouched for a part may be malformed and the rest not: each is judged by itself.
        let is_own = payload.vouches.iter().all(|envelope| envelope.author() == peer);
        let more: usize = payload.chunks.iter().map(|chunk| chunk.len()).sum();
        let fits = |run: &Run| {
            (run.doc, run.peer) == (doc, peer) && run.bytes.saturating_add(more) <= TOGETHER_BYTES_MAX
        };
        if !self.run.as_ref().is_some_and(fits) || !is_own {
            self.apply_run(now, out);
        }
        if !self.together || !is_own || more > TOGETHER_BYTES_MAX {
            self.job(now, doc, Job::Accept { peer, payload }, out);
            return;
        }
        let run = self.run.get_or_insert_with(|| Run { doc, peer, payloads: Vec::new(), bytes: 0 });
        run.payloads.push(payload);
        run.bytes = run.bytes.saturating_add(more);
    }

    /// Applies what was taken so far: what is said next may be about it.
    pub(super) fn apply_run(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some(Run { doc, peer, payloads, .. }) = self.run.take() else { return };
        for payload in joined(payloads) {
            self.job(now, doc, Job::Accept { peer, payload }, out);
        }
    }
}

/// As one, unless that is more than one may be.
fn joined(payloads: Vec<Payload>) -> Vec<Payload> {
    let chunks: Vec<ByteBuf> = payloads.iter().flat_map(|payload| payload.chunks.clone()).collect();
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
    if payloads.len() < 2 || chunk::inspect(&bytes).is_err() {
        return payloads;
    }
    let vouches = payloads.into_iter().flat_map(|payload| payload.vouches).collect();
    vec![Payload { vouches, chunks }]
}
