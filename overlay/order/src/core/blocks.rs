//! Blocks come in any order: they wait for their parent, are put on it in the step in which it comes, and what is
//! missing is fetched from those who voted for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wattle_types::{NodeId, Outbox, Time};

use super::{Alarm, Core, Held, Output, To, send};
use crate::block::Proposal;
use crate::check::Checked;
use crate::collect::Witness;
use crate::ids::{BlockId, Height, Round, Seat};
use crate::journal::Record;
use crate::limits::{
    BEHIND_MAX, FETCH_ATTEMPTS_MAX, FETCH_BLOCKS_MAX, HELD_MAX, SUSPENDED_MAX, SUSPENDED_PER_AUTHOR_MAX,
    WANTED_MAX,
};
use crate::message::Message;
use crate::tree::{Unfit, Verdict};

/// Blocks whose parent is not here.
#[derive(Debug, Default)]
pub(crate) struct Suspended(BTreeMap<BlockId, (Checked<Proposal>, bool)>);

impl Suspended {
    /// Keeps a block; `asked` says that a certificate names it. At the cap the one of the lowest round gives way; one
    /// author makes room for itself only.
    fn insert(&mut self, proposal: &Checked<Proposal>, asked: bool) {
        self.0.entry(proposal.id()).or_insert_with(|| (proposal.clone(), asked));
        let author = proposal.header().author;
        let own = self.0.values().filter(|(block, asked)| block.header().author == author && !asked);
        if own.count() > SUSPENDED_PER_AUTHOR_MAX {
            self.drop_lowest(|block, asked| block.header().author == author && !asked);
        }
        if self.0.len() > SUSPENDED_MAX {
            self.drop_lowest(|_, _| true);
        }
    }

    fn drop_lowest(&mut self, of: impl Fn(&Proposal, bool) -> bool) {
        let of = self.0.iter().filter(|(_, (block, asked))| of(block, *asked));
        let lowest = of.min_by_key(|(_, (block, _))| block.header().round).map(|(id, _)| *id);
        lowest.map(|id| self.0.remove(&id));
    }

    fn take_children(&mut self, parent: &BlockId) -> Vec<(Checked<Proposal>, bool)> {
        let child = |(id, (block, _)): (&BlockId, &(Checked<Proposal>, bool))| {
            (block.header().parent == *parent).then_some(*id)
        };
        let children: Vec<BlockId> = self.0.iter().filter_map(child).collect();
        children.iter().filter_map(|id| self.0.remove(id)).collect()
    }

    /// The block that a suspended one needs in the end, with who has it.
    fn missing(&self, mut id: BlockId) -> Option<(BlockId, Vec<Seat>)> {
        let mut missing = None;
        while let Some((block, _)) = self.0.get(&id) {
            id = block.header().parent;
            missing = Some((id, block.block.qc.signers.seats().collect()));
        }
        missing
    }

    pub(super) fn prune(&mut self, tip: Height) {
        self.0.retain(|_, (block, _)| block.header().height > tip);
    }

    /// Whether a suspended block waits for this one.
    pub(super) fn needs(&self, parent: &BlockId) -> bool {
        self.0.values().any(|(block, _)| block.header().parent == *parent)
    }

    pub(super) fn ids(&self) -> Vec<BlockId> {
        self.0.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
struct Want {
    holders: Vec<NodeId>,
    since: Time,
    at: Time,
    attempts: u32,
}

/// Blocks that are asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted(BTreeMap<BlockId, Want>);

impl Wanted {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.values().map(|want| want.at).min()
    }

    pub(super) fn ids(&self) -> Vec<BlockId> {
        self.0.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps what is still needed.
    pub(super) fn retain(&mut self, needed: impl Fn(&BlockId) -> bool) {
        self.0.retain(|id, _| needed(id));
    }

    /// Lets go what nobody has given so far. Whether there was any.
    fn give_up(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|_, want| want.attempts < FETCH_ATTEMPTS_MAX);
        self.0.len() < before
    }

    /// The next to ask for each block that is due; all are asked in turn, less often each time round.
    fn due(&mut self, now: Time, retry: Duration) -> Vec<(BlockId, NodeId)> {
        let mut due = Vec::new();
        for (id, want) in self.0.iter_mut().filter(|(_, want)| want.at <= now) {
            let turn = want.attempts as usize;
            let Some(holder) = want.holders.get(turn % want.holders.len().max(1)) else { continue };
            due.push((*id, *holder));
            want.attempts += 1;
            let rounds = (turn / want.holders.len().max(1)).min(4);
            want.at = now.after(retry.saturating_mul(1 << rounds));
        }
        due
    }
}

impl Core {
    pub(super) fn on_proposal(
        &mut self,
        now: Time,
        from: NodeId,
        proposal: &Checked<Proposal>,
        out: &mut Outbox<Output>,
    ) {
        // R: certificates before what carries them.
        self.on_qc(now, &proposal.qc(), out);
        if let Some(tc) = proposal.tc() {
            self.on_tc(now, &tc, out);
        }
        if proposal.header().epoch != self.committee.epoch() {
            return;
        }
        if self.tree.get(&proposal.id()).is_some() && from != self.me {
            self.vote_again(&proposal.id());
        }
        self.add(now, proposal, false, out);
    }

    /// A block of this node's own: what is in it was validated when it was built.
    pub(super) fn add_own(&mut self, now: Time, proposal: &Checked<Proposal>, out: &mut Outbox<Output>) {
        let evidence = self.witness.note_proposal(proposal);
        self.note(evidence, out);
        match self.tree.attach(&self.committee, proposal, false) {
            Ok(()) => {
                self.tree.set_verdict(&proposal.id(), Verdict::Valid);
                self.attached(now, proposal, out);
                self.vote_if_ready();
            }
            // What this node built does not fit: the application offered what the rules forbid. The round times out.
            Err(Unfit::Rule(why)) => out.push(Output::Misbehaved { peer: self.me, why }),
            Err(Unfit::Crowd) => {}
        }
    }

    /// Puts a block, and all that waited for it, where it belongs. `asked` says that a certificate names it.
    pub(super) fn add(
        &mut self,
        now: Time,
        proposal: &Checked<Proposal>,
        asked: bool,
        out: &mut Outbox<Output>,
    ) {
        if proposal.header().epoch != self.committee.epoch() {
            return;
        }
        let block = &proposal.block;
        self.signed_by([block.header.author].into_iter(), block.header.round);
        self.signed_by(block.qc.signers.seats(), block.qc.data.round);
        // E1, however it came here.
        if Witness::covers(self.turn.round, proposal.header().round) {
            let evidence = self.witness.note_proposal(proposal);
            self.note(evidence, out);
        }
        let id = proposal.id();
        let asked = asked || self.wanted.0.remove(&id).is_some() || self.high_qc.data.block == id;
        let tip = self.tree.tip().info;
        if self.tree.get(&id).is_some() || proposal.header().height <= tip.height {
            return;
        }
        if !self.journal.accepts() {
            // The disk is behind: what is not taken now is fetched when it has caught up.
            return;
        }
        if self.tree.get(&proposal.header().parent).is_none() {
            // On top of a block beside the tip: it can never be committed here.
            if !proposal.header().height.follows(tip.height) {
                self.suspended.insert(proposal, asked);
                self.want_missing(now, &id, out);
            }
            return;
        }
        let mut queue = VecDeque::from([(proposal.clone(), asked)]);
        while let Some((block, asked)) = queue.pop_front() {
            let epoch = self.committee.epoch();
            if self.attach(now, &block, asked, out) && epoch == self.committee.epoch() {
                // The suspended chain goes in the same step as what it waited for; else this node stays a block
                // behind and without a vote.
                queue.extend(self.suspended.take_children(&block.id()));
            }
        }
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }

    fn attach(
        &mut self,
        now: Time,
        block: &Checked<Proposal>,
        asked: bool,
        out: &mut Outbox<Output>,
    ) -> bool {
        if self.tree.get(&block.header().parent).is_none() || block.header().epoch != self.committee.epoch() {
            // A commit meanwhile went past it.
            return false;
        }
        if let Err(unfit) = self.tree.attach(&self.committee, block, asked) {
            if let (Unfit::Rule(why), Some(peer)) = (unfit, self.committee.id(block.header().author)) {
                out.push(Output::Misbehaved { peer, why });
            }
            return false;
        }
        self.journal.append(Record::Block(Box::new((**block).clone())));
        out.push(Output::Validate { block: block.clone() });
        self.attached(now, block, out);
        true
    }

    /// What follows from a block being here: its certificate may commit (C), and certificates for it may have come
    /// before.
    fn attached(&mut self, now: Time, block: &Checked<Proposal>, out: &mut Outbox<Output>) {
        let id = block.id();
        self.wanted.0.remove(&id);
        self.certified(now, &block.qc(), out);
        if block.header().round == self.turn.round {
            self.turn.woken.get_or_insert(now);
        }
        if self.high_qc.data.block == id {
            let qc = self.high_qc.clone();
            self.certified(now, &qc, out);
        }
        if self.ending.as_ref().is_some_and(|proof| proof.header.id() == id) {
            self.finish_epoch(now, out);
        }
    }

    pub(super) fn on_judged(
        &mut self,
        now: Time,
        block: &BlockId,
        verdict: Verdict,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.tree.set_verdict(block, verdict) else { return };
        if entry.certified && entry.verdict == Some(Verdict::Invalid) {
            self.quarantine(Alarm::VerdictDiffers { block: *block });
        }
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }

    fn want_missing(&mut self, now: Time, id: &BlockId, out: &mut Outbox<Output>) {
        if self.syncing.is_none()
            && let Some((missing, holders)) = self.suspended.missing(*id)
        {
            self.want(now, missing, holders.into_iter(), out);
        }
    }

    /// Asks for a block: of those who voted for it, f + 1 are honest and have it.
    pub(super) fn want(
        &mut self,
        now: Time,
        id: BlockId,
        holders: impl Iterator<Item = Seat>,
        out: &mut Outbox<Output>,
    ) {
        if self.suspended.0.contains_key(&id) {
            self.want_missing(now, &id, out);
            return;
        }
        if self.tree.get(&id).is_some() || self.wanted.0.contains_key(&id) {
            return;
        }
        let mut holders = self.others(holders);
        if holders.is_empty() {
            return;
        }
        // Not everybody asks the same one first.
        let first = self.turn.round.0 as usize % holders.len();
        holders.rotate_left(first);
        if self.wanted.0.len() >= WANTED_MAX {
            let oldest = self.wanted.0.iter().min_by_key(|(_, want)| want.since).map(|(id, _)| *id);
            oldest.map(|id| self.wanted.0.remove(&id));
        }
        self.counts.fetches = self.counts.fetches.saturating_add(1);
        self.wanted.0.insert(id, Want { holders, since: now, at: now, attempts: 0 });
        self.ask_again(now, out);
    }

    pub(super) fn ask_again(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.wanted.give_up() && self.syncing.is_none() {
            // Those who have it may keep it no longer in memory: by height it comes from their disks. Nothing proves
            // that this node is far behind, so it goes on voting, and whoever names the block next makes it ask again.
            out.push(Output::Behind { above: self.tree.tip().info.height, target: self.high_qc.clone() });
        }
        let above = self.tree.tip().info.height;
        for (block, holder) in self.wanted.due(now, self.config.fetch_retry) {
            let message = Message::Fetch { block, above };
            send(out, To::One(holder), message);
        }
    }

    /// What is told is on disk here, as everything that leaves.
    pub(super) fn on_fetch(&mut self, from: NodeId, block: &BlockId, above: Height) {
        let mut chain = VecDeque::new();
        let mut next = *block;
        while chain.len() < FETCH_BLOCKS_MAX {
            let here = self.tree.get(&next).and_then(|entry| entry.proposal.as_ref());
            let Some(found) = here.or_else(|| self.kept.iter().find(|kept| kept.id() == next)) else { break };
            if found.header().height <= above {
                break;
            }
            next = found.header().parent;
            chain.push_front(found.clone());
        }
        if !chain.is_empty() && self.held.len() < HELD_MAX {
            let gated = self.journal.gate(Held::Blocks(from, chain.into()));
            self.hold(gated);
        }
    }

    pub(super) fn on_blocks(
        &mut self,
        now: Time,
        from: NodeId,
        blocks: Vec<Checked<Proposal>>,
        out: &mut Outbox<Output>,
    ) {
        let linked = blocks.windows(2).all(|pair| pair[1].header().parent == pair[0].id());
        let asked = blocks.last().is_some_and(|last| self.wanted.0.contains_key(&last.id()));
        if !linked {
            out.push(Output::Misbehaved { peer: from, why: "its answer is no chain" });
        } else if asked {
            // Nobody is blamed for an answer that came too late.
            blocks.iter().for_each(|block| self.add(now, block, true, out));
        }
    }

    /// This node is so far behind that blocks are fetched by height. It votes again when it has them.
    pub(super) fn sync_to(&mut self, now: Time, height: Height, out: &mut Outbox<Output>) {
        let begun = self.syncing.is_some();
        let height = self.syncing.map_or(height, |(known, _)| known.max(height));
        let at = self.syncing.map_or(now, |(_, at)| at);
        self.syncing = Some((height, at));
        if !begun {
            self.sync_again(now, out);
        }
    }

    pub(super) fn sync_again(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some((height, at)) = self.syncing else { return };
        if at <= now {
            self.syncing = Some((height, now.after(self.config.fetch_retry.saturating_mul(4))));
            // Where an epoch ended of which this node was not told, only the proof of it says how far that goes.
            let ended = self.ending.as_ref().map(|proof| Checked::made_of_checked(proof.commit.clone()));
            let target = ended.unwrap_or_else(|| self.high_qc.clone());
            out.push(Output::Behind { above: self.tree.tip().info.height, target });
        }
    }

    pub(super) fn on_synced(&mut self, now: Time, blocks: Vec<Checked<Proposal>>, out: &mut Outbox<Output>) {
        let before = self.tree.tip().info.height;
        let epoch = self.committee.epoch();
        for block in blocks.iter().take_while(|block| block.header().epoch == epoch) {
            self.add(now, block, true, out);
        }
        let Some((height, _)) = self.syncing.filter(|_| self.tree.tip().info.height > before) else { return };
        if !self.may_end_sync() {
            self.syncing = Some((height, now));
            self.sync_again(now, out);
        }
    }

    /// Whether the rest comes by itself, from those who vote. The end of an epoch does not.
    pub(super) fn may_end_sync(&self) -> bool {
        let near = self.tree.tip().info.height.0.saturating_add(BEHIND_MAX / 2);
        self.ending.is_none() && self.syncing.is_some_and(|(height, _)| height.0 <= near)
    }

    /// However the blocks came: by height, or one by one from those who told of them. Whether it ended now.
    pub(super) fn end_sync_if_near(&mut self, now: Time, out: &mut Outbox<Output>) -> bool {
        let ends = self.may_end_sync();
        if ends {
            self.syncing = None;
            self.catch_up(now, out);
        }
        ends
    }

    /// What came while this node was far behind is worth asking for now.
    fn catch_up(&mut self, now: Time, out: &mut Outbox<Output>) {
        for id in self.suspended.ids() {
            self.want_missing(now, &id, out);
        }
        let high = self.high_qc.clone();
        if high.data.round > Round(0) && self.tree.get(&high.data.block).is_none() {
            self.want(now, high.data.block, high.signers.seats(), out);
        }
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }
}
