//! Whose turn it is: round robin by weight, passing over those that failed to lead lately.
//!
//! Who failed is read from committed blocks only (a gap between the rounds of a block and its parent), and a block's
//! leader follows from the blocks before it. So all who have the same chain agree, whatever each saw or missed; who
//! has another chain disagrees about liveness only, since rule V lets nobody vote twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::committee::Committee;
use crate::ids::{Height, Round, Seat};

/// Steps of one turn of a heavy validator: weights are scaled to at most this.
const STEPS_MAX: u64 = 8;

/// What a committed block says of its leaders.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Led {
    pub(crate) height: Height,
    pub(crate) author: Seat,
    /// Who had the rounds between its parent and it.
    pub(crate) failed: Vec<Seat>,
}

/// Whose turn it is, for blocks on top of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When each last failed; only what is younger than the rules' span.
    failures: BTreeMap<Seat, Height>,
    skipped: BTreeSet<Seat>,
    turns: Arc<Vec<Seat>>,
}

impl Schedule {
    pub(crate) fn new(committee: &Committee, failures: BTreeMap<Seat, Height>) -> Self {
        let skipped = skipped(committee, &failures);
        let turns = Arc::new(turns(committee, &skipped));
        Self { failures, skipped, turns }
    }

    pub(crate) const fn failures(&self) -> &BTreeMap<Seat, Height> {
        &self.failures
    }

    /// The schedule once a further block is committed.
    pub(crate) fn after(&self, committee: &Committee, led: &Led) -> Self {
        let span = committee.rules().skip_blocks;
        if span == 0 {
            return self.clone();
        }
        let mut failures = self.failures.clone();
        failures.extend(led.failed.iter().map(|seat| (*seat, led.height)));
        failures.remove(&led.author);
        failures.retain(|_, height| height.0.saturating_add(span) > led.height.0);
        let skipped = skipped(committee, &failures);
        let turns = if skipped == self.skipped {
            Arc::clone(&self.turns)
        } else {
            Arc::new(turns(committee, &skipped))
        };
        Self { failures, skipped, turns }
    }

    /// Whose turn a round is.
    pub(crate) fn leader(&self, committee: &Committee, round: Round) -> Seat {
        let opening = usize::try_from(round.0.saturating_sub(1)).ok();
        if let Some(seat) = opening.and_then(|index| committee.rules().opening.get(index)) {
            return *seat;
        }
        let place = round.0 % (self.turns.len().max(1) as u64);
        self.turns.get(place as usize).copied().unwrap_or_default()
    }

    /// Whose turns the rounds between a block and its parent were, at most two turns of everybody back.
    pub(crate) fn failed(&self, committee: &Committee, parent: Round, round: Round) -> Vec<Seat> {
        let back = 2 * committee.validators().list().len() as u64;
        let first = parent.0.saturating_add(1).max(round.0.saturating_sub(back));
        let seats: BTreeSet<Seat> =
            (first..round.0).map(|between| self.leader(committee, Round(between))).collect();
        seats.into_iter().collect()
    }
}

/// Who is passed over: the latest failures first, as long as those left out are less than a third.
fn skipped(committee: &Committee, failures: &BTreeMap<Seat, Height>) -> BTreeSet<Seat> {
    let mut latest: Vec<(&Seat, &Height)> = failures.iter().collect();
    latest.sort_by_key(|(seat, height)| (std::cmp::Reverse(**height), **seat));
    let mut out = BTreeSet::new();
    let mut weight = 0;
    for (seat, _) in latest {
        let more: u64 = weight + committee.weight(*seat);
        if more * 3 < committee.total() {
            out.insert(*seat);
            weight = more;
        }
    }
    out
}

/// A turn of everybody: each as often as its weight says, evenly spread (smooth weighted round robin).
fn turns(committee: &Committee, skipped: &BTreeSet<Seat>) -> Vec<Seat> {
    let seats: Vec<Seat> = committee.seats().collect();
    let mut seats: Vec<Seat> = seats.into_iter().filter(|seat| !skipped.contains(seat)).collect();
    seats.sort_unstable();
    let heaviest = seats.iter().map(|seat| committee.weight(*seat)).max().unwrap_or(1).max(1);
    let steps: Vec<u64> =
        seats.iter().map(|seat| (committee.weight(*seat) * STEPS_MAX / heaviest).max(1)).collect();
    let divisor = steps.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let steps: Vec<i64> = steps.iter().map(|step| (step / divisor) as i64).collect();
    let sum: i64 = steps.iter().sum();
    let mut credit = vec![0i64; seats.len()];
    let mut order = Vec::new();
    for _ in 0..sum {
        credit.iter_mut().zip(&steps).for_each(|(credit, step)| *credit += step);
        // The first of those with the most.
        let best =
            (0..credit.len()).rev().max_by_key(|index| credit.get(*index).copied().unwrap_or_default());
        let best = best.unwrap_or_default();
        if let (Some(credit), Some(seat)) = (credit.get_mut(best), seats.get(best)) {
            *credit -= sum;
            order.push(*seat);
        }
    }
    order
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committee::{Genesis, Rules, Validator, Validators};
    use wattle_types::{NetworkName, SecretKey, UnixTime};

    fn committee(weights: &[u64]) -> Committee {
        let id = |seed: u8| SecretKey::from_bytes(&[seed; 32]).node_id();
        let list = weights.iter().zip(1..).map(|(weight, seed)| Validator { id: id(seed), weight: *weight });
        let validators = Validators::new(list.collect()).unwrap();
        let rules = Rules { opening: vec![Seat(3)], skip_blocks: 10, lag: 4 };
        let created = UnixTime::from_millis(1);
        Committee::genesis(&Genesis { network: NetworkName::default(), validators, rules, created })
    }

    fn led(height: u64, author: u16, failed: &[u16]) -> Led {
        let failed = failed.iter().map(|seat| Seat(*seat)).collect();
        Led { height: Height(height), author: Seat(author), failed }
    }

    #[test]
    fn each_leads_as_often_as_its_weight_says_and_the_opening_comes_first() {
        let committee = committee(&[3, 3, 2, 1, 1]);
        let schedule = Schedule::new(&committee, BTreeMap::new());
        assert_eq!(schedule.leader(&committee, Round(1)), Seat(3));
        let mut times: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let turn = schedule.turns.len();
        for seat in committee.seats() {
            let count = schedule.turns.iter().filter(|leader| **leader == seat).count();
            times.entry(committee.weight(seat)).or_default().push(count * 10 / turn);
        }
        // In tenths of all turns, rounded down; weights are scaled to eight steps.
        assert_eq!(times, BTreeMap::from([(1, vec![0, 0]), (2, vec![2]), (3, vec![3, 3])]));
        let pairs = schedule.turns.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(pairs, 0, "no one leads twice in a row");
    }

    #[test]
    fn who_failed_is_passed_over_for_a_span_of_blocks_but_never_a_third_of_all() {
        let committee = committee(&[1; 7]);
        let start = Schedule::new(&committee, BTreeMap::new());
        let leads = |schedule: &Schedule, seat: u16| schedule.turns.contains(&Seat(seat));
        let two = start.after(&committee, &led(1, 0, &[1, 2]));
        assert!(!leads(&two, 1) && !leads(&two, 2) && leads(&two, 3));
        // Three of seven would be more than a third: the latest count.
        let three = two.after(&committee, &led(2, 0, &[3]));
        assert!(!leads(&three, 3) && (leads(&three, 1) != leads(&three, 2)));
        // A block of its own clears it; else time does.
        let cleared = three.after(&committee, &led(3, 3, &[]));
        assert!(leads(&cleared, 3) && !leads(&cleared, 1) && !leads(&cleared, 2));
        let later =
            (4..=11).fold(cleared, |schedule, height| schedule.after(&committee, &led(height, 0, &[])));
        assert!(leads(&later, 1) && leads(&later, 2));
        assert_eq!(later, start);
    }

    #[test]
    fn the_rounds_between_two_blocks_name_who_failed_without_counting_for_ever() {
        let committee = committee(&[1; 4]);
        let schedule = Schedule::new(&committee, BTreeMap::new());
        assert_eq!(schedule.failed(&committee, Round(4), Round(5)), []);
        assert_eq!(schedule.failed(&committee, Round(4), Round(7)), [Seat(1), Seat(2)]);
        assert_eq!(schedule.failed(&committee, Round(4), Round(u64::MAX)).len(), 4);
    }
}
