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
use crate::ids::{BlockId, Digest, Height};
use crate::limits::{INLINE_COUNT_MAX, TIME_DRIFT_MAX_MS};

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
        let mut open: Vec<(Height, BlockId)> = (self.chain.blocks.iter())
            .filter(|(_, known)| known.looked.is_none())
            .map(|(id, known)| (known.height(), *id))
            .collect();
        open.sort_unstable();
        for (_, id) in open {
            let Some(block) = self.chain.blocks.get(&id).map(|known| known.block.clone()) else { continue };
            self.want_missing(&block, out);
            let looked = self.look_at(&block);
            if let Some(known) = self.chain.blocks.get_mut(&id) {
                known.looked = looked;
            }
            // The next may be on the tip once this one is told.
            self.tell_ordered(out);
        }
        self.tell_ordered(out);
        self.tell_verdicts(now, out);
    }

    fn want_missing(&mut self, block: &Proposal, out: &mut Outbox<Output>) {
        for batch in self.missing(block) {
            let id = block.id();
            let holders = self.chain.blocks.get(&id).map(|known| known.holders.clone()).unwrap_or_default();
            if self.store.want(batch, &holders) {
                out.push(Output::Load { batch });
            }
        }
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

    /// M6: ascending, each once, with all its entries.
    fn tell_ordered(&mut self, out: &mut Outbox<Output>) {
        while let Some(id) = self.chain.next() {
            let Some(known) = self.chain.blocks.get(&id) else { return };
            let (block, entries) = (known.block.clone(), self.entries(known));
            let Some(entries) = entries else {
                // It was here, and gave way to others in memory.
                return self.want_missing(&block, out);
            };
            let Some((known, gone)) = self.chain.advance(&self.committee, &id) else { return };
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
            out.push(Output::Ordered { block, entries });
            self.forget(out);
        }
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
        let open = self.chain.blocks.values().filter(|known| known.looked.is_none() || known.committed);
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        for known in open {
            if let Payload::Batches(batches) = &known.block.block.payload {
                needed.extend(batches.iter().map(|batch| batch.batch));
            }
        }
        self.store.retain_wanted(&needed);
        let (chain, time) = (&self.chain, self.chain.time);
        let spent = |held: &&super::batch::Held| {
            let small = held.batch.entries.len() <= INLINE_COUNT_MAX;
            let over =
                held.batch.until() < time || (small && held.batch.keys().all(|key| chain.is_spent(&key)));
            over && !needed.contains(&held.batch.digest())
        };
        let spent: Vec<Digest> = self.store.free().filter(spent).map(|held| held.batch.digest()).collect();
        for batch in spent {
            self.store.forget(&batch);
            out.push(Output::Forget { batch });
        }
        self.store.shrink(&needed);
    }
}

/// From when on a block of that time is looked at as one of the present.
fn early(time: UnixTime) -> UnixTime {
    UnixTime::from_millis(time.as_millis().saturating_sub(TIME_DRIFT_MAX_MS))
}
