//! Joining, and comparing tables: what gossip missed is found by fingerprints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteArray;
use wattle_types::{NodeId, Outbox, Time};

use super::claims::Source;
use super::{Index, Output, Swim};
use crate::claim::{Claim, ShortId, Signed};
use crate::stream::{Entry, Message, RECORDS_BYTES, Version};
use crate::table::{Member, age_s, before, is_masked};
use crate::view::State;
use crate::wire::CERTIFICATE_MAX;

/// The shortest time between two comparisons that differing fingerprints begin.
const SYNC_SPACING: Duration = Duration::from_secs(5);

/// How long nothing must have changed here before a differing fingerprint means anything: until then gossip is
/// on its way.
const CALM: Duration = Duration::from_secs(2);

/// So many members are asked what became of those that have left, when this node was away: it may have missed that
/// one was removed, and no fingerprint tells.
pub(crate) const INQUIRIES: u32 = 3;

/// A member that has so little of its tombstone left is not learned any more: it would go round for ever.
const ALMOST_FORGOTTEN: Duration = Duration::from_secs(120);

impl Swim {
    pub(crate) fn hello_to(&mut self, to: NodeId, out: &mut Outbox<Output>) {
        let Some(record) = self.record.clone() else { return };
        self.counts.syncs += 1;
        let message = Message::Hello { record, root: self.table.root() };
        out.push(Output::Message { to, bytes: message.encode() });
        if let Some(refutation) = self.refutation.clone() {
            let Some(record) = self.record.clone() else { return };
            let (accusations, removal, age_s) = (Vec::new(), None, 0);
            let records = vec![Entry { record, since: Some(refutation), accusations, removal, age_s }];
            let message = Message::Records { records, want: Vec::new() };
            out.push(Output::Message { to, bytes: message.encode() });
        }
    }

    pub(crate) fn say_hello(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) {
        self.synced_at = now;
        if let Some(member) = self.table.get(index) {
            self.hello_to(member.id, out);
        }
    }

    pub(crate) fn on_sync_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        let every = self.config.timing.sync_every;
        self.due.sync = Some(now.after(every));
        let differing = self.differing.take().and_then(|peer| self.table.find(&peer));
        if let Some(index) = differing.filter(|index| self.table.get(*index).is_some_and(Member::is_live)) {
            self.say_hello(now, index, out);
            return;
        }
        // Somebody drawn at random had the same within the interval: that was the comparison.
        if now.since(self.agreed_at) < every && self.agreed_at > Time::ZERO {
            return;
        }
        if let Some(index) = self.some_live(1, &[]).first().copied() {
            self.say_hello(now, index, out);
        }
    }

    /// The fingerprint of another's table came with an ack.
    pub(crate) fn on_root(&mut self, now: Time, from: Index, root: u64, out: &mut Outbox<Output>) {
        if root == self.table.root() {
            self.agreed_at = now;
            return;
        }
        let calm = self.changed_at.after(CALM).max(self.synced_at.after(SYNC_SPACING));
        if self.queue.is_empty() && now >= calm {
            self.say_hello(now, from, out);
            return;
        }
        self.differing = self.table.get(from).map(|member| member.id);
        let soon = calm.max(now.after(self.config.timing.period));
        self.due.sync = Some(self.due.sync.map_or(soon, |at| at.min(soon)));
    }

    /// A packet that could not be read: one of the two started again, and the other does not know it.
    pub(crate) fn on_unreadable(&mut self, now: Time, sender: ShortId, out: &mut Outbox<Output>) {
        if !self.is_running() {
            return;
        }
        let Some(index) = self.table.by_short(sender) else { return };
        let Some(member) = self.table.get_mut(index) else { return };
        let lately = now.since(member.spoken_at) < Duration::from_secs(1);
        if member.state == State::Left || lately || !self.unreadable.allows(now) {
            return;
        }
        member.spoken_at = now;
        self.say_hello(now, index, out);
    }

    pub(crate) fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message<Arc<Signed>>,
        out: &mut Outbox<Output>,
    ) {
        if !self.is_running() || from == self.me {
            return;
        }
        match message {
            Message::Hello { record, root } => self.on_hello(now, from, record, root, out),
            Message::Same => {
                self.joining = 0;
                self.agreed_at = now;
                self.inquire(now, from, out);
            }
            Message::Buckets { hashes } => match self.table.differing(&hashes) {
                Some(mask) => {
                    self.inquire(now, from, out);
                    let entries = self.table.versions(&mask, self.unix(now));
                    let message = Message::Versions { mask: ByteArray::new(mask), entries };
                    out.push(Output::Message { to: from, bytes: message.encode() });
                }
                None => out.push(Output::Misbehaved { peer: from, why: "sends a table that is none" }),
            },
            Message::Versions { mask, entries } => self.on_versions(now, from, &mask, entries, out),
            Message::Records { records, want } => {
                // Whoever is new is introduced before anything is said of it: one may be the other's accuser.
                let (news, known): (Vec<_>, Vec<_>) =
                    records.into_iter().partition(|entry| self.table.find(&entry.record.author()).is_none());
                for entry in known {
                    self.on_entry(now, entry, false, out);
                }
                let news: Vec<_> = news.into_iter().filter(|entry| !self.is_useless(entry)).collect();
                for entry in &news {
                    self.learn(now, Arc::clone(&entry.record), Source::Own, out);
                }
                for entry in news {
                    self.on_entry(now, entry, true, out);
                }
                let wanted: Vec<Entry<Arc<Signed>>> =
                    want.into_iter().filter_map(|short| self.entry(now, short)).collect();
                self.send_records(from, wanted, Vec::new(), out);
            }
        }
    }

    /// Says what this node has where members are that left, so that the other tells which of those were removed.
    fn inquire(&mut self, now: Time, from: NodeId, out: &mut Outbox<Output>) {
        if self.inquiries == 0 || self.table.gone().is_empty() {
            return;
        }
        self.inquiries -= 1;
        let mask = self.table.mask_of(self.table.gone());
        let entries = self.table.versions(&mask, self.unix(now));
        let message = Message::Versions { mask: ByteArray::new(mask), entries };
        out.push(Output::Message { to: from, bytes: message.encode() });
    }

    fn on_hello(
        &mut self,
        now: Time,
        from: NodeId,
        record: Arc<Signed>,
        root: u64,
        out: &mut Outbox<Output>,
    ) {
        if record.author() != from || record.description().is_none() {
            out.push(Output::Misbehaved { peer: from, why: "introduces another as itself" });
            return;
        }
        self.learn(now, record, Source::Own, out);
        let message = if root == self.table.root() {
            Message::Same
        } else {
            Message::Buckets { hashes: self.table.hashes() }
        };
        out.push(Output::Message { to: from, bytes: message.encode() });
    }

    /// What each side lacks follows from what the other says it has.
    fn on_versions(
        &mut self,
        now: Time,
        from: NodeId,
        mask: &[u8; 32],
        entries: Vec<Version>,
        out: &mut Outbox<Output>,
    ) {
        let mut theirs: BTreeMap<ShortId, Version> =
            entries.into_iter().map(|version| (version.0, version)).collect();
        let ours = self.table.versions(mask, self.unix(now));
        let (mut give, mut want) = (Vec::new(), Vec::new());
        for Version(short, incarnation, standing, age_s) in ours {
            match theirs.remove(&short) {
                Some(Version(_, other, others, _)) if (other, others) == (incarnation, standing) => {}
                Some(Version(_, other, others, _)) => {
                    if (other, others) > (incarnation, standing) {
                        want.push(short);
                    } else {
                        give.push(short);
                    }
                }
                // Who is over and not known there is of no use there, or is about to be forgotten here.
                None if standing >= 2 || self.is_old(standing, age_s) => {}
                None => give.push(short),
            }
        }
        let own = ShortId::of(&self.me);
        if want.contains(&own) {
            // They hold this node faulty, or know a later run of it.
            self.on_held_faulty(now, out);
        }
        for Version(short, _, standing, age_s) in theirs.into_values() {
            if is_masked(mask, short) && standing < 2 && !self.is_old(standing, age_s) {
                want.push(short);
            }
        }
        let records = give.into_iter().filter_map(|short| self.entry(now, short)).collect();
        self.send_records(from, records, want, out);
    }

    /// Whether a member that is over has so little time left that it is not learned any more.
    fn is_old(&self, standing: u8, age_s: u32) -> bool {
        let remembered = self.config.timing.tombstone.saturating_sub(ALMOST_FORGOTTEN);
        standing > 0 && Duration::from_secs(u64::from(age_s)) >= remembered
    }

    fn on_held_faulty(&mut self, now: Time, out: &mut Outbox<Output>) {
        let waits = self.due.gossip.is_some() && self.queue.holds_own(ShortId::of(&self.me));
        if !waits {
            self.refute(now, out);
        }
    }

    /// Everything here about one member.
    fn entry(&self, now: Time, short: ShortId) -> Option<Entry<Arc<Signed>>> {
        if short == ShortId::of(&self.me) {
            let (record, since) = (self.record.clone()?, self.refutation.clone());
            return Some(Entry { record, since, accusations: Vec::new(), removal: None, age_s: 0 });
        }
        let member = self.table.get(self.table.by_short(short)?)?;
        let suspicion = member.suspicion.as_deref();
        let accusers = suspicion.into_iter().flat_map(|it| it.accusers.iter().take(CERTIFICATE_MAX));
        Some(Entry {
            record: Arc::clone(&member.record),
            since: member.since.clone(),
            accusations: accusers.map(Arc::clone).collect(),
            removal: member.removal.clone().filter(|_| member.state == State::Removed),
            age_s: if member.is_live() { 0 } else { age_s(member, self.unix(now)) },
        })
    }

    /// A replayed leave of one who is not known here is nothing to remember, nor is whom others removed.
    fn is_useless(&self, entry: &Entry<Arc<Signed>>) -> bool {
        let left = entry.since.as_ref().is_some_and(|since| matches!(since.claim(), Claim::Leave { .. }));
        let over = left || entry.removal.is_some() || self.is_old(1, entry.age_s);
        entry.record.description().is_none() || (entry.record.author() != self.me && over)
    }

    fn on_entry(&mut self, now: Time, entry: Entry<Arc<Signed>>, is_new: bool, out: &mut Outbox<Output>) {
        if entry.record.description().is_none() {
            return;
        }
        let Entry { record, since, accusations, removal, age_s } = entry;
        let (author, unix) = (record.author(), self.unix(now));
        if !is_new {
            self.learn(now, record, Source::Own, out);
        }
        let own = |since: &Arc<Signed>| {
            since.author() == author && matches!(since.claim(), Claim::Refute { .. } | Claim::Leave { .. })
        };
        if let Some(since) = since.filter(own) {
            self.learn(now, since, Source::Own, out);
        }
        if author == self.me {
            self.on_certificate(now, accusations, Source::Own, out);
            return;
        }
        let Some(index) = self.table.find(&author) else { return };
        let source = if is_new { Source::Introduced(index) } else { Source::Stream(index) };
        self.on_certificate(now, accusations, source, out);
        let removes = |removal: &Arc<Signed>| {
            removal.subject() == author && matches!(removal.claim(), Claim::Remove { .. })
        };
        if let Some(removal) = removal.filter(removes) {
            self.learn(now, removal, Source::Stream(index), out);
        }
        let is_over = |member: &&mut Member| matches!(member.state, State::Left | State::Removed);
        if let Some(member) = self.table.get_mut(index).filter(is_over).filter(|_| age_s > 0) {
            member.at = member.at.min(before(unix, age_s));
        }
        let member = self.table.get_mut(index).filter(|member| is_new && member.state == State::Suspect);
        if let Some(suspicion) = member.and_then(|member| member.suspicion.as_deref_mut()) {
            suspicion.failed_at = (age_s > 0).then(|| before(unix, age_s));
        }
    }

    /// Sends entries in as many messages as they need.
    fn send_records(
        &mut self,
        to: NodeId,
        records: Vec<Entry<Arc<Signed>>>,
        want: Vec<ShortId>,
        out: &mut Outbox<Output>,
    ) {
        if records.is_empty() && want.is_empty() {
            return;
        }
        let size = |entry: &Entry<Arc<Signed>>| {
            let claims = [&entry.record].into_iter().chain(&entry.since).chain(&entry.accusations);
            let claims = claims.chain(&entry.removal);
            claims.map(|claim| claim.envelope().body().len() + 160).sum::<usize>()
        };
        let (mut part, mut bytes) = (Vec::new(), 0);
        for entry in records {
            bytes += size(&entry);
            part.push(entry);
            if bytes >= RECORDS_BYTES {
                let message = Message::Records { records: std::mem::take(&mut part), want: Vec::new() };
                out.push(Output::Message { to, bytes: message.encode() });
                bytes = 0;
            }
        }
        let message = Message::Records { records: part, want };
        out.push(Output::Message { to, bytes: message.encode() });
    }
}
