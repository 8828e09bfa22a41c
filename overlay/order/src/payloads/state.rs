//! From blocks that are looked at to blocks that are told of (rule M6).

use std::collections::BTreeSet;
use std::sync::Arc;

use wattle_types::{NodeId, Outbox, Time, UnixTime};

use super::chain::Known;
use super::{Output, Payloads};
use crate::block::{Payload, Proposal};
use crate::certificate::Qc;
use crate::check::Checked;
use crate::committee::Committee;
use crate::ids::{BlockId, Digest};
use crate::limits::{INLINE_COUNT_MAX, LOOK_AHEAD, TIME_DRIFT_MAX_MS};

impl Payloads {
    pub(super) fn on_validate(&mut self, block: &Checked<Proposal>) {
        // Whoever proposes a block has what is in it; then everybody may.
        let author = self.committee.id(block.header().author);
        let all = self.committee.validators().list().iter().map(|validator| validator.id);
        let mut others: Vec<NodeId> = all.filter(|id| Some(*id) != author && *id != self.config.me).collect();
        let turn = block.header().round.0 as usize % others.len().max(1);
        others.rotate_left(turn);
        let author = author.filter(|author| *author != self.config.me);
        if let Some(known) = self.chain.insert(block) {
            known.asked = true;
            known.holders = author.into_iter().chain(others).collect();
            known.wants = None;
        }
    }

    pub(super) fn on_commit(
        &mut self,
        blocks: &[Checked<Proposal>],
        proof: Option<&Checked<Qc>>,
        before: Option<&Committee>,
    ) {
        // Who signed has validated the block and all below it, so it has what they order.
        let committee = before.unwrap_or(&self.committee);
        let signers = proof.into_iter().flat_map(|proof| proof.signers.seats());
        let signers = signers.filter_map(|seat| committee.id(seat)).filter(|id| *id != self.config.me);
        let signers: Vec<NodeId> = signers.collect();
        let all = committee.validators().list().iter().map(|validator| validator.id);
        // Who votes now has it by the time that those may be gone.
        let all = all.chain(before.into_iter().flat_map(|_| self.validators()));
        let others: Vec<NodeId> = all.filter(|id| *id != self.config.me && !signers.contains(id)).collect();
        for block in blocks {
            if let Some(known) = self.chain.insert(block) {
                known.committed = true;
                known.holders = signers.iter().chain(&others).copied().collect();
                known.wants = None;
            }
        }
    }

    fn validators(&self) -> impl Iterator<Item = NodeId> + use<'_> {
        self.committee.validators().list().iter().map(|validator| validator.id)
    }

    pub(super) fn on_epoch(&mut self, committee: Arc<Committee>) {
        self.seat = committee.seat(&self.config.me);
        self.committee = committee;
        let now: Vec<NodeId> = self.validators().filter(|id| *id != self.config.me).collect();
        for known in self.chain.blocks.values_mut() {
            known.holders.extend(&now);
            known.wants = None;
        }
        // Who votes now hands nothing on; who does not any more begins anew.
        (self.hands_at, self.handed) = (None, BTreeSet::new());
        self.chain.enter_epoch();
        let offered = self.mempool.offered();
        self.mempool.take_back(offered);
        self.late.clear();
    }

    /// Looks at what can be looked at, tells what can be told, and asks for the rest.
    pub(super) fn settle(&mut self, now: Time, out: &mut Outbox<Output>) {
        let mut told = self.tell_ordered(out);
        // However many wait above, only those are visited that can be looked at, and some more.
        let (mut known_up_to, mut ahead, mut next) = (self.chain.height, LOOK_AHEAD, None);
        while let Some((height, id)) = self.chain.above(next) {
            next = Some((height, id));
            let Some(known) = self.chain.blocks.get(&id) else { continue };
            if known.looked.is_none() && !self.chain.is_known_up_to(&known.block.header().parent) {
                if ahead > 0 && self.store.may_want_more() {
                    ahead -= 1;
                    self.has_all(&id, out);
                } else if height > known_up_to.next() {
                    break;
                }
                continue;
            }
            if known.looked.is_none() {
                let has_all = self.has_all(&id, out);
                let Some(known) = self.chain.blocks.get(&id) else { continue };
                let looked = if has_all { self.look_at(&known.block) } else { None };
                if let Some(known) = self.chain.blocks.get_mut(&id) {
                    known.looked = looked;
                }
                // The next may be on the tip once this one is told.
                told |= self.tell_ordered(out);
            }
            known_up_to = known_up_to.max(height);
        }
        if told {
            self.forget(out);
        }
        self.tell_verdicts(now, out);
    }

    /// Whether all is here that a block orders. Asks for the rest, if it was not asked for before.
    fn has_all(&mut self, id: &BlockId, out: &mut Outbox<Output>) -> bool {
        let Some(known) = self.chain.blocks.get(id) else { return false };
        let missing = self.missing(&known.block);
        if missing.is_empty() || known.wants == Some(self.store.lost()) {
            return missing.is_empty();
        }
        for batch in &missing {
            if self.store.want(*batch, &known.holders) {
                out.push(Output::Load { batch: *batch });
            }
        }
        let all = missing.iter().all(|batch| self.store.wants(batch));
        let wants = all.then_some(self.store.lost());
        if let Some(known) = self.chain.blocks.get_mut(id) {
            known.wants = wants;
        }
        false
    }

    /// When a block's time is no longer ahead of the clock.
    pub(super) fn judges_at(&self) -> Option<Time> {
        let waits = self.chain.blocks.values().filter(|known| known.asked && known.looked.is_some());
        let times =
            waits.map(|known| known.block.header().time).filter(|time| *time > self.chain.unknown_until);
        times.map(|time| self.when(early(time))).min()
    }

    /// V7: of a block that is far ahead of the clock nothing is said until the clock is there. B: nor of one that may
    /// order again what was ordered before all that is known here; a quorum that commits it says enough.
    fn tell_verdicts(&mut self, now: Time, out: &mut Outbox<Output>) {
        let (wall, unknown_until) = (self.wall(now), self.chain.unknown_until);
        for (id, known) in &mut self.chain.blocks {
            let time = known.block.header().time;
            if let Some(verdict) = known.verdict().filter(|_| known.asked)
                && early(time) <= wall
                && time > unknown_until
            {
                known.asked = false;
                out.push(Output::Judged { block: *id, verdict });
            }
        }
    }

    /// M6: ascending, each once, with all its entries. Whether there was one.
    fn tell_ordered(&mut self, out: &mut Outbox<Output>) -> bool {
        let mut told = false;
        while let Some(id) = self.chain.next() {
            let Some(known) = self.chain.blocks.get(&id) else { return told };
            let (block, entries) = (known.block.clone(), self.entries(known));
            let Some(entries) = entries else {
                // It was here, and gave way to others in memory.
                self.has_all(&id, out);
                return told;
            };
            let Some((known, gone)) = self.chain.advance(&self.committee, &id) else { return told };
            if known.asked
                && let Some(verdict) = known.verdict()
            {
                out.push(Output::Judged { block: id, verdict });
            }
            for key in known.keys().into_iter().flatten() {
                self.mempool.remove(key);
            }
            if let Payload::Batches(batches) = &block.block.payload {
                batches.iter().for_each(|batch| self.store.set_ordered(&batch.batch));
            }
            self.abandoned(&gone);
            if !gone.is_empty() {
                let chain = &self.chain;
                self.store.retain_wanted(|batch| chain.needs(batch));
            }
            out.push(Output::Ordered { block, entries });
            told = true;
        }
        told
    }

    /// Blocks that the chain went past.
    fn abandoned(&mut self, gone: &[Known]) {
        for known in gone {
            let Known { block, asked, .. } = known;
            self.mempool.take_back(known.keys().into_iter().flatten().copied());
            // M5: its payload never came here.
            let withheld = *asked && known.looked.is_none() && !self.missing(block).is_empty();
            if let Some(author) = self.committee.id(block.header().author).filter(|_| withheld) {
                self.strike(author);
            }
        }
    }

    /// Lets go what no block can need any more.
    fn forget(&mut self, out: &mut Outbox<Output>) {
        let (chain, time) = (&self.chain, self.chain.time);
        self.store.retain_wanted(|batch| chain.needs(batch));
        let spent = |held: &&super::batch::Held| {
            let small = held.batch.entries.len() <= INLINE_COUNT_MAX;
            let over =
                held.batch.until() < time || (small && held.batch.keys().all(|key| chain.is_spent(&key)));
            over && !chain.needs(&held.batch.digest())
        };
        let spent: Vec<Digest> = self.store.free().filter(spent).map(|held| held.batch.digest()).collect();
        for batch in spent {
            self.store.forget(&batch);
            out.push(Output::Forget { batch });
        }
        self.store.shrink(|batch| self.chain.needs(batch));
    }
}

/// From when on a block of that time is looked at as one of the present.
fn early(time: UnixTime) -> UnixTime {
    UnixTime::from_millis(time.as_millis().saturating_sub(TIME_DRIFT_MAX_MS))
}
