//! Rumours that wait to be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::claim::{Claim, Incarnation, ShortId, Signed};
use crate::wire::{CERTIFICATE_MAX, Rumor, certificate_bytes, claim_bytes};

/// Rumours that wait at once. Beyond it the one that was told most, of the least urgent kind, is dropped: the
/// next comparison of tables brings it.
pub const QUEUE_MAX: usize = 4096;

/// So many waiting rumours fill ten packets, and for each such ten what comes from everywhere is told once less: as
/// when all nodes of a large group start again at once.
const MANY: usize = 64;

/// Rumours that are tried for one packet.
const TRIED_MAX: usize = 48;

/// What is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    OwnRefute,
    Refute,
    Leave,
    /// What a member that is known says anew: it started again, or describes itself otherwise.
    Change,
    Certificate,
    /// The first that is said against a member.
    Suspicion,
    /// And what others add.
    Accusation,
    Removal,
    /// A newcomer's.
    Record,
}

/// What a rumour is about. One thing has one rumour: a newer one takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Topic {
    subject: ShortId,
    kind: u8,
    accuser: ShortId,
}

#[derive(Debug)]
struct Waiting {
    topic: Topic,
    incarnation: Incarnation,
    rumor: Rumor<Arc<Signed>>,
    bytes: usize,
}

type Order = (Urgency, u32, u64);

/// The queue, in the order of telling: urgency, then how often it was told, then age.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Order, Waiting>,
    topics: BTreeMap<Topic, Order>,
    next: u64,
}

fn topic_of(rumor: &Rumor<Arc<Signed>>) -> Option<(Topic, Incarnation, usize)> {
    let none = ShortId(0);
    match rumor {
        Rumor::Claim(signed) => {
            let subject = ShortId::of(&signed.subject());
            let (kind, accuser) = match signed.claim() {
                Claim::Alive { .. } => (0, none),
                Claim::Refute { .. } | Claim::Leave { .. } => (1, none),
                Claim::Suspect { .. } => (3, ShortId::of(&signed.author())),
                Claim::Remove { .. } => (4, none),
            };
            Some((Topic { subject, kind, accuser }, signed.claim().incarnation(), claim_bytes(signed)))
        }
        Rumor::Dead(claims) => {
            let first = claims.first()?;
            let topic = Topic { subject: ShortId::of(&first.subject()), kind: 2, accuser: none };
            let bytes = certificate_bytes(claims.len().min(CERTIFICATE_MAX));
            Some((topic, first.claim().incarnation(), bytes))
        }
        Rumor::Ask(_) => None,
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets a rumour wait. It takes the place of what it makes untrue: all that was said of earlier
    /// incarnations, and by a certificate the accusations.
    pub(crate) fn push(&mut self, urgency: Urgency, rumor: Rumor<Arc<Signed>>) {
        let Some((topic, incarnation, bytes)) = topic_of(&rumor) else { return };
        let of_subject: Vec<(Topic, Order)> =
            self.of(topic.subject).map(|(topic, order)| (*topic, *order)).collect();
        for (other, order) in of_subject {
            let waiting = self.waiting.get(&order);
            let older = waiting.is_some_and(|waiting| waiting.incarnation < incarnation);
            // A refutation is of the run whose record may still have to be told.
            let outdated = older && (other.kind != 0 || topic.kind == 0);
            if outdated || other == topic || (topic.kind == 2 && other.kind == 3) {
                self.remove(&other);
            }
        }
        while self.waiting.len() >= QUEUE_MAX {
            let Some((_, last)) = self.waiting.pop_last() else { break };
            self.topics.remove(&last.topic);
        }
        let order = (urgency, 0, self.next);
        self.next += 1;
        self.topics.insert(topic, order);
        self.waiting.insert(order, Waiting { topic, incarnation, rumor, bytes });
    }

    fn of(&self, subject: ShortId) -> impl Iterator<Item = (&Topic, &Order)> {
        let first = Topic { subject, kind: 0, accuser: ShortId(0) };
        let last = Topic { subject, kind: u8::MAX, accuser: ShortId(u64::MAX) };
        self.topics.range(first..=last)
    }

    fn remove(&mut self, topic: &Topic) {
        if let Some(order) = self.topics.remove(topic) {
            self.waiting.remove(&order);
        }
    }

    /// Drops what accuses a member: it answered.
    pub(crate) fn forgive(&mut self, subject: ShortId) {
        let accusing: Vec<Topic> =
            self.of(subject).map(|(topic, _)| *topic).filter(|topic| topic.kind >= 2).collect();
        for topic in accusing {
            self.remove(&topic);
        }
    }

    /// Whether this node's own word of that kind still waits.
    pub(crate) fn holds_own(&self, subject: ShortId) -> bool {
        self.of(subject).any(|(topic, _)| topic.kind == 1)
    }

    /// Another member told it as well: one copy less is needed.
    pub(crate) fn heard(&mut self, rumor: &Rumor<Arc<Signed>>, copies: u32) {
        let Some((topic, incarnation, _)) = topic_of(rumor) else { return };
        let Some(order) = self.topics.get(&topic).copied() else { return };
        let same = self.waiting.get(&order).is_some_and(|waiting| waiting.incarnation == incarnation);
        if same {
            // What only delays a verdict, or a verdict's end, if somebody misses it, is told less often once it
            // comes from everywhere; who misses the first word of a suspicion and hears only of its end waits for
            // another whole one. What nothing but the comparison of tables would bring is told to the end, unless so
            // much waits that each word would wait behind all the others: then that comparison is the quicker way.
            let crowd = u32::try_from(self.waiting.len() / MANY).unwrap_or(u32::MAX);
            let by = match order.0 {
                Urgency::OwnRefute => 0,
                Urgency::Accusation => 3,
                Urgency::Suspicion | Urgency::Refute => 2,
                Urgency::Certificate => 1,
                Urgency::Leave | Urgency::Removal => crowd.min(1),
                Urgency::Change => crowd,
                Urgency::Record => crowd.saturating_add(1),
            };
            if by == 0 {
                return;
            }
            self.told(order, by, copies);
        }
    }

    fn told(&mut self, order: Order, by: u32, copies: u32) {
        let Some(waiting) = self.waiting.remove(&order) else { return };
        let (urgency, sent, number) = order;
        if sent + by >= copies {
            self.topics.remove(&waiting.topic);
            return;
        }
        let order = (urgency, sent + by, number);
        self.topics.insert(waiting.topic, order);
        self.waiting.insert(order, waiting);
    }

    /// The most urgent rumours that fit, each told once more.
    pub(crate) fn take(&mut self, bytes_max: usize, copies: u32) -> Vec<Rumor<Arc<Signed>>> {
        let mut left = bytes_max;
        let mut chosen = Vec::new();
        for (order, waiting) in self.waiting.iter().take(TRIED_MAX) {
            if waiting.bytes <= left {
                left -= waiting.bytes;
                chosen.push(*order);
            }
        }
        let rumors = chosen.iter().filter_map(|order| self.waiting.get(order));
        let rumors: Vec<Rumor<Arc<Signed>>> = rumors.map(|waiting| waiting.rumor.clone()).collect();
        for order in chosen {
            self.told(order, 1, copies);
        }
        rumors
    }

    pub(crate) fn check(&self) {
        assert!(self.waiting.len() <= QUEUE_MAX, "the queue is bounded");
        assert_eq!(self.waiting.len(), self.topics.len(), "one rumour for each topic");
    }
}

#[cfg(test)]
mod tests {
    use wattle_types::{NetworkName, SecretKey};

    use super::*;

    fn sign(seed: u8, claim: &Claim) -> Arc<Signed> {
        let key = SecretKey::from_bytes(&[seed; 32]);
        Arc::new(Signed::seal(&key, &NetworkName::default(), claim).unwrap())
    }

    fn at(number: u64) -> Incarnation {
        Incarnation::from_u64(number)
    }

    fn suspect(accuser: u8, number: u64) -> Rumor<Arc<Signed>> {
        let subject = SecretKey::from_bytes(&[9; 32]).node_id();
        Rumor::Claim(sign(accuser, &Claim::Suspect { subject, incarnation: at(number) }))
    }

    fn refute(number: u64) -> Rumor<Arc<Signed>> {
        Rumor::Claim(sign(9, &Claim::Refute { incarnation: at(number) }))
    }

    #[test]
    fn rumours_are_told_in_the_order_of_urgency_and_so_often() {
        let mut queue = Queue::default();
        let leave = Rumor::Claim(sign(3, &Claim::Leave { incarnation: at(1) }));
        let own = Rumor::Claim(sign(1, &Claim::Refute { incarnation: at(1) }));
        queue.push(Urgency::Accusation, suspect(2, 1));
        queue.push(Urgency::Leave, leave.clone());
        queue.push(Urgency::OwnRefute, own.clone());
        assert_eq!(queue.take(1000, 2), [own.clone(), leave, suspect(2, 1)]);
        assert_eq!(queue.take(100, 2), [own], "only what fits");
        assert_eq!(queue.take(1000, 2).len(), 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_first_word_of_a_suspicion_is_told_more_often_than_further_ones() {
        let mut queue = Queue::default();
        queue.push(Urgency::Suspicion, suspect(2, 1));
        queue.push(Urgency::Accusation, suspect(3, 1));
        for accuser in [2, 3].into_iter().cycle().take(8) {
            queue.heard(&suspect(accuser, 1), 9);
        }
        assert_eq!(queue.take(1000, 9), [suspect(2, 1)]);
    }

    #[test]
    fn what_only_a_comparison_of_tables_would_bring_is_told_to_the_end() {
        let mut queue = Queue::default();
        let left = Rumor::Claim(sign(3, &Claim::Leave { incarnation: at(1) }));
        queue.push(Urgency::Leave, left.clone());
        queue.push(Urgency::Change, refute(1));
        queue.push(Urgency::Certificate, suspect(2, 1));
        for rumor in [&left, &refute(1), &suspect(2, 1)] {
            (0..9).for_each(|_| queue.heard(rumor, 9));
        }
        assert_eq!(queue.take(1000, 9), [left, refute(1)]);
    }

    #[test]
    fn where_very_much_waits_all_of_it_is_told_less_often() {
        let mut queue = Queue::default();
        for member in 0..MANY {
            let key = SecretKey::from_bytes(&[u8::try_from(member).unwrap(); 32]);
            let claim = Claim::Refute { incarnation: at(1) };
            let claim = Signed::seal(&key, &NetworkName::default(), &claim).unwrap();
            queue.push(Urgency::Change, Rumor::Claim(Arc::new(claim)));
        }
        (0..9).for_each(|_| queue.heard(&refute(1), 9));
        assert_eq!(queue.len(), MANY - 1, "that word, and then no more: few enough are left");
        let other = Rumor::Claim(sign(8, &Claim::Refute { incarnation: at(1) }));
        (0..9).for_each(|_| queue.heard(&other, 9));
        assert_eq!(queue.len(), MANY - 1);
    }

    #[test]
    fn a_refutation_takes_the_place_of_what_it_refutes() {
        let mut queue = Queue::default();
        queue.push(Urgency::Accusation, suspect(2, 1));
        queue.push(Urgency::Accusation, suspect(3, 1));
        queue.push(Urgency::Accusation, suspect(4, 2));
        queue.push(Urgency::Refute, refute(2));
        assert_eq!(queue.take(1000, 9), [refute(2), suspect(4, 2)], "what is said of its incarnation stays");
        queue.check();
    }

    #[test]
    fn what_comes_back_from_others_need_not_be_told_so_often() {
        let mut queue = Queue::default();
        queue.push(Urgency::Accusation, suspect(2, 1));
        queue.push(Urgency::OwnRefute, refute(1));
        for _ in 0..9 {
            queue.heard(&suspect(2, 1), 9);
            queue.heard(&refute(1), 9);
        }
        assert_eq!(queue.take(1000, 9), [refute(1)], "but one's own word is told to the end");
    }

    #[test]
    fn the_least_urgent_is_dropped_at_the_cap() {
        let mut queue = Queue::default();
        let signed = sign(9, &Claim::Refute { incarnation: at(1) });
        let Rumor::Claim(accusation) = suspect(2, 1) else { return };
        queue.push(Urgency::Accusation, Rumor::Claim(accusation));
        for number in 0..QUEUE_MAX as u64 {
            // The same claim under as many topics: signing so many takes a second.
            let topic = Topic { subject: ShortId(number), kind: 1, accuser: ShortId(0) };
            let order = (Urgency::Refute, 0, number + 10);
            if queue.waiting.len() < QUEUE_MAX {
                let rumor = Rumor::Claim(Arc::clone(&signed));
                queue.waiting.insert(order, Waiting { topic, incarnation: at(1), rumor, bytes: 81 });
                queue.topics.insert(topic, order);
            }
        }
        assert_eq!(queue.len(), QUEUE_MAX);
        // Of another: what is said of the accused itself stays.
        queue.push(Urgency::OwnRefute, Rumor::Claim(sign(8, &Claim::Refute { incarnation: at(1) })));
        queue.check();
        assert!(queue.waiting.keys().all(|(urgency, ..)| *urgency != Urgency::Accusation));
    }
}
