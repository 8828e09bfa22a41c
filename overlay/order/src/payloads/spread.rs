//! How batches and entries get around (rules M3, M4 and M5).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_types::{NodeId, Outbox, Time};

use super::batch::{Batch, Held, Origin};
use super::{Message, Output, Payloads};
use crate::core::To;
use crate::entry::Whole;
use crate::ids::{Digest, Height, Seq};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COUNT_MAX, ENTRY_LIFE_MAX_MS, HANDED_MAX, SERVING_MAX, STRIKE_BLOCKS,
    TIME_DRIFT_MAX_MS, VALIDATORS_MAX,
};

/// Bytes at which a batch does not wait for more.
const SEAL_BYTES: usize = BATCH_BYTES_MAX / 4;
/// How often a batch that a quorum has is told to the others.
const TELL_ATTEMPTS_MAX: u32 = 6;

impl Payloads {
    pub(super) fn is_durable(&self, held: &Held) -> bool {
        held.seq.is_none_or(|seq| seq <= self.durable)
    }

    /// Whether a quorum said that it has a batch.
    pub(super) fn is_spread(&self, held: &Held) -> bool {
        self.committee.is_quorum(held.haves.iter().filter_map(|id| self.committee.seat(id)))
    }

    fn store_batch(&mut self, batch: Arc<Batch>, origin: Origin, out: &mut Outbox<Output>) {
        self.last = self.last.next();
        out.push(Output::Persist { seq: self.last, batch: Arc::clone(&batch) });
        self.store.insert(batch, origin, Some(self.last));
    }

    /// When what waits in the mempool becomes a batch: at once if it is much, or if no batch of this node's is under
    /// way; else it waits for company.
    pub(super) fn seals_at(&self) -> Option<Time> {
        let since = self.loose_since?;
        let loose = self.mempool.loose_bytes();
        let room = self.store.has_room_for(self.config.me, loose.min(BATCH_BYTES_MAX));
        if self.seat.is_none() || self.failed || loose == 0 || !room {
            return None;
        }
        // While none of its own is on its way, company would come too late.
        let at_once = loose >= SEAL_BYTES || !self.store.has_free_of(self.config.me);
        Some(if at_once { since } else { since.after(self.config.seal_after) })
    }

    pub(super) fn seal_if_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        while self.seals_at().is_some_and(|at| at <= now) {
            let mut bytes = 0;
            let fits = |whole: &&Arc<Whole>| {
                bytes += whole.bytes.len();
                bytes <= BATCH_BYTES_MAX
            };
            let entries: Vec<_> =
                self.mempool.loose().take(BATCH_COUNT_MAX).take_while(fits).cloned().collect();
            let Ok(batch) = Batch::new(entries) else { return };
            self.mempool.seal(batch.keys());
            self.loose_since = (self.mempool.loose_bytes() > 0).then_some(now);
            if self.store.get(&batch.digest()).is_some() {
                continue;
            }
            let message = Message::Batch(batch.to_bytes());
            let digest = batch.digest();
            self.store_batch(Arc::new(batch), Origin::Author(self.config.me), out);
            let at = now.after(self.config.tell_retry);
            if let Some(held) = self.store.get_mut(&digest) {
                held.again = Some((at, 0));
            }
            self.tells_at = Some(self.tells_at.map_or(at, |next| next.min(at)));
            out.push(Output::Send { to: To::All, message });
        }
    }

    /// M3: a batch is told again to those who did not say that they have it, less often each time.
    pub(super) fn tell_again(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.tells_at.is_none_or(|at| at > now) {
            return;
        }
        let (me, retry) = (self.config.me, self.config.tell_retry);
        let committee = Arc::clone(&self.committee);
        for held in self.store.own_mut(me) {
            let Some((at, attempts)) = held.again else { continue };
            if at > now {
                continue;
            }
            let all = committee.validators().list().iter().map(|validator| validator.id);
            let missing: Vec<NodeId> = all.filter(|id| *id != me && !held.haves.contains(id)).collect();
            let spread = committee.is_quorum(held.haves.iter().filter_map(|id| committee.seat(id)));
            if missing.is_empty() || (spread && attempts >= TELL_ATTEMPTS_MAX) {
                held.again = None;
                continue;
            }
            // As long as it cannot be ordered it is told often: those who are missing may come back any moment.
            let slower = if spread { attempts.min(4) } else { attempts.min(1) };
            held.again = Some((now.after(retry.saturating_mul(1 << slower)), attempts.saturating_add(1)));
            for id in missing {
                out.push(Output::Send { to: To::One(id), message: Message::Batch(held.batch.to_bytes()) });
            }
        }
        self.tells_at = self.store.own_mut(me).filter_map(|held| held.again).map(|(at, _)| at).min();
    }

    /// A validator's batch. M4: what is over its room is not taken; it tells it again.
    pub(super) fn on_batch(
        &mut self,
        now: Time,
        from: NodeId,
        transactions: Vec<ByteBuf>,
        out: &mut Outbox<Output>,
    ) {
        if self.committee.seat(&from).is_none() || self.failed || from == self.config.me {
            return;
        }
        let Ok(batch) = Batch::read(transactions) else {
            return out.push(Output::Misbehaved { peer: from, why: "its batch is none" });
        };
        let digest = batch.digest();
        if let Some(held) = self.store.get(&digest) {
            // M3: "have" is said of what is on disk only.
            if self.is_durable(held) {
                out.push(Output::Send { to: To::One(from), message: Message::Have(digest) });
            }
            return;
        }
        if !self.store.wants(&digest) && batch.keys().all(|key| self.chain.is_spent(&key)) {
            // It is ordered, or never will be: what is taken now would be let go, and a block may have it.
            return;
        }
        let ahead = Duration::from_millis(ENTRY_LIFE_MAX_MS + TIME_DRIFT_MAX_MS);
        let sensible = batch.until() >= self.chain.time && batch.until() <= self.wall(now).after(ahead);
        if self.store.wants(&digest) || (sensible && self.store.has_room_for(from, batch.bytes())) {
            let room = self.store.has_room_for(from, batch.bytes());
            let origin = if room { Origin::Author(from) } else { Origin::Asked };
            self.store_batch(Arc::new(batch), origin, out);
        }
    }

    pub(super) fn on_have(&mut self, from: NodeId, batch: &Digest) {
        let known = self.committee.seat(&from).is_some();
        if let Some(held) = self.store.get_mut(batch).filter(|_| known) {
            held.haves.insert(from);
        }
    }

    pub(super) fn on_persisted(&mut self, upto: Seq, out: &mut Outbox<Output>) {
        let upto = upto.min(self.last);
        if self.failed || upto <= self.durable {
            return;
        }
        let fresh = self.store.synced(upto);
        self.durable = upto;
        let me = self.config.me;
        for digest in fresh {
            let Some(held) = self.store.get_mut(&digest) else { continue };
            held.haves.insert(me);
            // M3: "have" is said of what is on disk only.
            if let Some(author) = held.author.filter(|author| *author != me) {
                out.push(Output::Send { to: To::One(author), message: Message::Have(digest) });
            }
        }
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, batch: Digest, out: &mut Outbox<Output>) {
        if let Some(held) = self.store.get_mut(&batch) {
            held.asked_by.insert(from);
            out.push(Output::Send { to: To::One(from), message: Message::Fetched(held.batch.to_bytes()) });
            // M5: one of so many is honest, and its author did not give it the batch in time.
            let asked = held.asked_by.iter().filter_map(|id| self.committee.seat(id));
            let late = self.committee.has_honest(asked) && !held.ordered;
            if let Some(author) = held.author.filter(|author| late && *author != self.config.me) {
                held.asked_by.clear();
                self.strike(author);
            }
            return;
        }
        let here = self.serving.len();
        let known = self.serving.contains_key(&batch);
        if !known && here >= SERVING_MAX {
            return out.push(Output::Send { to: To::One(from), message: Message::Lacks(batch) });
        }
        let waiting = self.serving.entry(batch).or_default();
        if waiting.len() < VALIDATORS_MAX {
            waiting.insert(from);
        }
        if !known {
            out.push(Output::Load { batch });
        }
    }

    /// M5: for a while its batches are not ordered by this node.
    pub(super) fn strike(&mut self, author: NodeId) {
        let height = self.chain.height.0;
        let (times, until) = self.late.entry(author).or_insert((0, Height(0)));
        *until = Height(height.saturating_add(STRIKE_BLOCKS << (*times).min(3)));
        *times = times.saturating_add(1);
    }

    pub(super) fn is_late(&self, author: &NodeId) -> bool {
        self.late.get(author).is_some_and(|(_, until)| *until > self.chain.height)
    }

    pub(super) fn on_fetched(&mut self, from: NodeId, transactions: Vec<ByteBuf>, out: &mut Outbox<Output>) {
        let Ok(batch) = Batch::read(transactions) else {
            return out
                .push(Output::Misbehaved { peer: from, why: "the batch that it was asked for is none" });
        };
        // Nobody is blamed for an answer that came too late.
        if self.store.wants(&batch.digest()) && !self.failed {
            self.store_batch(Arc::new(batch), Origin::Asked, out);
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        now: Time,
        batch: Digest,
        content: Option<Arc<Batch>>,
        out: &mut Outbox<Output>,
    ) {
        let content = content.filter(|content| content.digest() == batch);
        for to in self.serving.remove(&batch).unwrap_or_default() {
            let message =
                content.as_ref().map_or(Message::Lacks(batch), |here| Message::Fetched(here.to_bytes()));
            out.push(Output::Send { to: To::One(to), message });
        }
        let wanted = self.store.wants(&batch);
        match content {
            // At the start what is in no block comes unasked.
            Some(content) if wanted || (!self.started && self.store.get(&batch).is_none()) => {
                self.store.insert(content, Origin::Disk, None);
            }
            Some(_) => {}
            None => self.store.ask_from(&batch, now.after(self.config.fetch_after)),
        }
    }

    pub(super) fn ask(&mut self, now: Time, out: &mut Outbox<Output>) {
        for (batch, holder) in self.store.due(now, self.config.fetch_retry) {
            out.push(Output::Send { to: To::One(holder), message: Message::Fetch(batch) });
        }
    }

    /// A node without a vote hands its entries to so many validators that one is honest, and to others when they are
    /// not ordered after a while.
    pub(super) fn hand_on(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.seat.is_some() || !self.started {
            return;
        }
        if self.mempool.is_empty() {
            (self.hands_at, self.handed) = (None, BTreeSet::new());
            return;
        }
        if self.hands_at.is_some_and(|at| at <= now) {
            self.handed.clear();
            self.turns = self.turns.wrapping_add(1);
            self.hands_at = None;
        }
        loop {
            let mut bytes = 0;
            let fresh = self.mempool.all().filter(|whole| !self.handed.contains(&whole.key));
            let fits = |whole: &&Arc<Whole>| {
                bytes += whole.bytes.len();
                bytes <= BATCH_BYTES_MAX
            };
            let fresh: Vec<_> = fresh.take(HANDED_MAX).take_while(fits).cloned().collect();
            if fresh.is_empty() {
                break;
            }
            self.handed.extend(fresh.iter().map(|whole| whole.key));
            let entries: Vec<ByteBuf> = fresh.iter().map(|whole| whole.bytes.clone()).collect();
            for id in self.some_validators() {
                out.push(Output::Send { to: To::One(id), message: Message::Entries(entries.clone()) });
            }
        }
        self.hands_at.get_or_insert(now.after(self.config.tell_retry));
    }

    /// More than a third of them, others each time.
    fn some_validators(&self) -> Vec<NodeId> {
        let mut seats: Vec<_> = self.committee.seats().collect();
        let count = seats.len().max(1);
        let first = usize::from(self.config.me.public_key()[31]).wrapping_add(self.turns) % count;
        seats.rotate_left(first);
        let enough = (1..=seats.len()).find(|few| self.committee.has_honest(seats[..*few].iter().copied()));
        seats.truncate(enough.unwrap_or(count));
        seats.into_iter().filter_map(|seat| self.committee.id(seat)).collect()
    }
}
