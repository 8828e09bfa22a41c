//! Who accuses whom, how long that is waited for, and how many accusations one member has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use wattle_types::{NodeId, Time, UnixTime};

use crate::claim::{Incarnation, ShortId, Signed};
use crate::config::Timing;

/// For how long an accusation counts against its author's quota, and is not taken again.
pub(crate) const QUOTA_WINDOW: Duration = Duration::from_secs(10);

/// The longest suspicion is this times the shortest (Lifeguard, section IV-B).
const LONGEST: u32 = 6;

/// The binary logarithm, in 65536ths. Whole numbers only: every machine waits equally long.
fn log2(value: u64) -> u64 {
    let value = value.max(1);
    let whole = u64::from(63 - value.leading_zeros());
    // The mantissa in [1, 2), in 2^31ths; squared sixteen times, each carry is one more bit.
    let mut mantissa = if whole >= 31 { value >> (whole - 31) } else { value << (31 - whole) };
    let mut fraction = 0;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        fraction <<= 1;
        if mantissa >> 32 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (whole << 16) | fraction
}

fn scaled(span: Duration, by: u64, of: u64) -> Duration {
    let micros = u128::from(by) * span.as_micros() / u128::from(of.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// A smaller group is waited for as if it had so many members: there two prove that one is gone, or one, and what they
/// say is refuted in no less time.
const FEW: u64 = 13;

/// The shortest suspicion among so many live members: it grows with the logarithm, as gossip does.
pub(crate) fn shortest(timing: &Timing, members: usize) -> Duration {
    // log10 = log2 / log2(10), and log2(10) is 217706 in 65536ths.
    scaled(timing.suspicion, log2((members as u64).max(FEW)), 217_706)
}

/// The longest suspicion: that of one accuser.
pub(crate) fn longest(timing: &Timing, members: usize) -> Duration {
    shortest(timing, members).saturating_mul(LONGEST)
}

/// How many members must accuse one before that proves something: the quorum of a certificate.
pub(crate) const fn quorum(members: usize) -> usize {
    match members {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// How many members one member may accuse within [`QUOTA_WINDOW`].
pub(crate) const fn quota(members: usize) -> usize {
    let part = members / 50;
    if part > 3 { part } else { 3 }
}

/// How many copies of a rumour one member sends.
pub(crate) fn copies(members: usize) -> u32 {
    2 * (usize::BITS - members.leading_zeros())
}

/// One member's being accused.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) incarnation: Incarnation,
    /// Distinct ones, the first first.
    pub(crate) accusers: Vec<Arc<Signed>>,
    pub(crate) started: Time,
    /// When its last chance begins, and how long that is.
    pub(crate) deadline: Time,
    pub(crate) chance: Duration,
    /// From when on accusers beyond the first are told of. Before that most suspicions have ended, and only the
    /// first accusation and the refutation have crossed the group.
    pub(crate) confirm_at: Time,
    /// When this node says the next word of it: the first accusation once more, then the further ones.
    pub(crate) word_at: Time,
    /// Since when another holds it faulty: who learns of a failure late forgets it no later.
    pub(crate) failed_at: Option<UnixTime>,
    /// It took a last chance: no certificate asks it for another before then.
    pub(crate) acquitted_until: Time,
    /// The ping that is its last chance, once it is under way.
    pub(crate) last_chance: Option<u16>,
    /// Whether somebody showed a certificate.
    pub(crate) certified: bool,
    /// Whom this node had asked to probe, if it accuses too.
    pub(crate) helpers: Vec<NodeId>,
}

impl Suspicion {
    pub(crate) fn accused_by(&self, accuser: &NodeId) -> bool {
        self.accusers.iter().any(|claim| claim.author() == *accuser)
    }

    pub(crate) fn names(&self) -> Vec<NodeId> {
        self.accusers.iter().map(|claim| claim.author()).collect()
    }
}

/// How long after its start the further accusers of a suspicion are told of: in time for the quorum to be known
/// everywhere when the shortest suspicion is over.
pub(crate) fn confirm_after(timing: &Timing, members: usize) -> Duration {
    let shortest = shortest(timing, members);
    shortest.saturating_sub(timing.period.min(shortest / 4))
}

/// How long after its start the first accusation of a suspicion is told once more. One member of a hundred or two
/// misses the first time, and waits for a whole suspicion from when it hears of it; most suspicions are refuted
/// before this.
pub(crate) fn repeat_after(timing: &Timing, members: usize) -> Duration {
    confirm_after(timing, members) / 2
}

/// How long a suspicion lasts with so many accusers (Lifeguard, section IV-B): from the longest with one down
/// to the shortest with a quorum, by the logarithm.
pub(crate) fn timeout(timing: &Timing, members: usize, accusers: usize) -> Duration {
    let shortest = shortest(timing, members);
    let wanted = quorum(members).saturating_sub(1) as u64;
    if wanted == 0 || !timing.lifeguard.suspicion {
        return shortest;
    }
    let confirmed = (accusers.saturating_sub(1) as u64).min(wanted);
    let longest = longest(timing, members);
    let off = scaled(longest.saturating_sub(shortest), log2(confirmed + 1), log2(wanted + 1));
    longest.saturating_sub(off)
}

/// What becomes of an accusation by its author's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts.
    Counts,
    /// Its author accused the same member within the window.
    Repeated,
    /// Its author has accused too many.
    OverQuota,
    /// So many that no honest member does.
    Flood,
}

/// One member's accusations within the window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credit {
    counted: VecDeque<(Time, ShortId)>,
    /// Whom it accused beyond the quota, and since when those are counted.
    excess: Vec<ShortId>,
    excess_since: Time,
}

impl Credit {
    pub(crate) fn spend(&mut self, now: Time, subject: ShortId, quota: usize) -> Verdict {
        self.expire(now, QUOTA_WINDOW);
        if self.counted.iter().any(|(_, whom)| *whom == subject) {
            return Verdict::Repeated;
        }
        if self.counted.len() < quota {
            self.counted.push_back((now, subject));
            return Verdict::Counts;
        }
        if now.since(self.excess_since) >= QUOTA_WINDOW {
            self.excess.clear();
            self.excess_since = now;
        }
        // Many tell of one accusation: that is one.
        if !self.excess.contains(&subject) {
            self.excess.push(subject);
        }
        // Honest ones hold themselves to the quota; a window that is shifted by slow gossip sees two of them, and
        // a restart forgets one. Each so many more are told of once.
        if self.excess.len() <= 2 * quota {
            return Verdict::OverQuota;
        }
        self.excess.clear();
        Verdict::Flood
    }

    /// Whether its author, this node, may accuse a member now and is heard by all. Others may have counted an
    /// accusation as much later as it can be `told`: so long this node counts it longer than they do.
    pub(crate) fn allows(&mut self, now: Time, subject: ShortId, quota: usize, told: Duration) -> bool {
        self.expire(now, QUOTA_WINDOW.saturating_add(told));
        let is_lately = |(at, whom): &(Time, ShortId)| *whom == subject && now.since(*at) < QUOTA_WINDOW;
        self.counted.len() < quota && !self.counted.iter().any(is_lately)
    }

    /// This node accuses a member, as it may.
    pub(crate) fn note(&mut self, now: Time, subject: ShortId) {
        self.counted.push_back((now, subject));
    }

    fn expire(&mut self, now: Time, window: Duration) {
        while self.counted.front().is_some_and(|(at, _)| now.since(*at) >= window) {
            self.counted.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_logarithm_is_that_of_the_books() {
        for value in [1u64, 2, 3, 10, 50, 1000, 16_384, 1 << 40] {
            let exact = (value as f64).log2() * 65536.0;
            assert!((log2(value) as f64 - exact).abs() < 2.0, "{value}: {} {exact}", log2(value));
        }
    }

    /// Lifeguard, section IV-B: one accuser makes the longest suspicion, a quorum the shortest.
    #[test]
    fn each_accuser_shortens_a_suspicion_down_to_a_floor() {
        let timing = Timing::lan();
        let spans: Vec<u128> = (1..6).map(|accusers| timeout(&timing, 50, accusers).as_millis()).collect();
        assert_eq!(spans, [27_523, 13_052, 4587, 4587, 4587]);
        assert_eq!(timeout(&timing, 3, 1).as_millis(), 3007, "one accuser is a quorum of three");
        assert_eq!(timeout(&timing, 1000, 3).as_millis(), 8099);
    }

    #[test]
    fn a_quorum_and_a_quota_follow_the_size_of_the_group() {
        assert_eq!([2, 3, 4, 7, 8, 5000].map(quorum), [1, 1, 2, 2, 3, 3]);
        assert_eq!([2, 50, 199, 200, 1000].map(quota), [3, 3, 3, 4, 20]);
        assert_eq!([1, 3, 7, 50, 2000].map(copies), [2, 4, 6, 12, 22]);
    }

    #[test]
    fn a_member_has_three_accusations_in_ten_seconds() {
        let mut credit = Credit::default();
        let at = |seconds| Time::ZERO.after(seconds * SECOND);
        assert_eq!(credit.spend(at(1), ShortId(1), 3), Verdict::Counts);
        assert_eq!(credit.spend(at(1), ShortId(1), 3), Verdict::Repeated);
        assert_eq!(credit.spend(at(2), ShortId(2), 3), Verdict::Counts);
        assert_eq!(credit.spend(at(3), ShortId(3), 3), Verdict::Counts);
        assert_eq!(credit.spend(at(4), ShortId(4), 3), Verdict::OverQuota);
        assert_eq!(credit.spend(at(11), ShortId(4), 3), Verdict::Counts);
        for subject in (5..11).chain([5; 9]) {
            assert_eq!(credit.spend(at(11), ShortId(subject), 3), Verdict::OverQuota);
        }
        assert_eq!(credit.spend(at(11), ShortId(12), 3), Verdict::Flood);
    }

    /// The second accuser of a member is told of when its suspicion is nearly over: there the three of ten seconds come
    /// together with those of the ten seconds before.
    #[test]
    fn who_keeps_to_its_quota_is_within_it_wherever_it_is_heard_late() {
        let told = shortest(&Timing::lan(), 100);
        let (mut own, mut heard) = (Credit::default(), Vec::new());
        let mut delays = (0..6).map(|part| told * part / 5).cycle();
        for tenth in 0..1000_u32 {
            let (now, subject) = (Time::ZERO.after(SECOND / 10 * tenth), ShortId(u64::from(tenth)));
            if own.allows(now, subject, 3, told) {
                own.note(now, subject);
                heard.push((now.after(delays.next().unwrap_or_default()), subject));
            }
        }
        assert!(heard.len() >= 15, "{}", heard.len());
        heard.sort_unstable();
        let mut credit = Credit::default();
        for (at, subject) in heard {
            assert_eq!(credit.spend(at, subject, 3), Verdict::Counts, "at {at:?}");
        }
        let (subject, at) = (ShortId(7), |seconds: u32| Time::ZERO.after((1000 + seconds) * SECOND));
        own.note(at(0), subject);
        assert!(!own.allows(at(9), subject, 3, told) && own.allows(at(10), subject, 3, told));
    }
}
