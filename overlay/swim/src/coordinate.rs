//! Where a node is among the others, by round trips (Vivaldi, SIGCOMM 2004, with a height).
//!
//! Coordinates choose among members that are as good as each other. They decide nothing about who is alive,
//! and are in nothing that is hashed or signed. Between nodes they are whole microseconds.

use std::time::Duration;

/// The longest round trip that is believed; what is longer is a pause, not a distance.
pub(crate) const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

/// How far from the origin a coordinate may be, in microseconds: a round trip that is believed.
const FAR: f64 = 10_000_000.0;

/// How much of the error each sample moves the node (Vivaldi's `c_c`).
const MOVE: f64 = 0.25;

/// How much of each sample enters the error (Vivaldi's `c_e`).
const LEARN: f64 = 0.25;

/// The height below which nobody is: the way out of one's own machine.
const HEIGHT_MIN: f64 = 10.0;

/// A place as it travels: microseconds on four axes and above them, and how sure of it a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinate {
    /// The place.
    pub axes: [i32; 4],
    /// What every path to it has in common.
    pub height: i32,
    /// The relative error, in thousandths; at least as much as is sure is 1000.
    pub error: u16,
}

impl Coordinate {
    /// The round trip to another place.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Duration {
        let span = Place::from(*self).distance(&Place::from(*other));
        Duration::from_micros(whole(span).unsigned_abs().into())
    }

    /// Whether a node can be there.
    fn is_sane(&self) -> bool {
        let near = |micros: i32| f64::from(micros).abs() <= FAR;
        self.axes.iter().all(|axis| near(*axis)) && near(self.height) && self.height >= 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    axes: [f64; 4],
    height: f64,
    error: f64,
}

impl From<Coordinate> for Place {
    fn from(it: Coordinate) -> Self {
        let height = f64::from(it.height);
        Self { axes: it.axes.map(f64::from), height, error: f64::from(it.error) / 1000.0 }
    }
}

/// The nearest whole number. Everything here is below [`FAR`] and its square root of five.
#[expect(clippy::cast_possible_truncation, reason = "clamped before it is cut")]
fn whole(value: f64) -> i32 {
    value.clamp(-3.0 * FAR, 3.0 * FAR).round() as i32
}

impl Place {
    pub(crate) const fn origin() -> Self {
        Self { axes: [0.0; 4], height: HEIGHT_MIN, error: 1.0 }
    }

    pub(crate) fn coordinate(&self) -> Coordinate {
        let error = u16::try_from(whole(self.error * 1000.0)).unwrap_or(1000);
        Coordinate { axes: self.axes.map(whole), height: whole(self.height), error }
    }

    fn distance(&self, other: &Self) -> f64 {
        let squares: f64 = self.axes.iter().zip(other.axes).map(|(a, b)| (a - b) * (a - b)).sum();
        squares.sqrt() + self.height + other.height
    }

    /// Moves this node by one round trip to a place. False, and nothing moved, if that is not a place or the
    /// span none.
    pub(crate) fn learn(&mut self, other: Coordinate, round_trip: Duration, draw: u64) -> bool {
        if round_trip > ROUND_TRIP_MAX || round_trip.is_zero() || !other.is_sane() || other.error == 0 {
            return false;
        }
        let other = Self::from(other);
        let span = round_trip.as_secs_f64() * 1e6;
        let distance = self.distance(&other);
        let weight = self.error / (self.error + other.error).max(1e-6);
        let off = (distance - span).abs() / span;
        self.error = (off * LEARN * weight + self.error * (1.0 - LEARN * weight)).clamp(0.01, 1.0);
        let force = MOVE * weight * (span - distance);
        let (way, apart) = self.way_from(&other, draw);
        for (axis, step) in self.axes.iter_mut().zip(way) {
            *axis = (*axis + step * force).clamp(-FAR / 4.0, FAR / 4.0);
        }
        if apart > 1.0 {
            let height = self.height + (self.height + other.height) * force / apart.max(span);
            self.height = height.clamp(HEIGHT_MIN, FAR / 4.0);
        }
        true
    }

    /// The direction away from another place and how far apart the places are; two that are in one place part
    /// in a direction that is drawn.
    fn way_from(&self, other: &Self, draw: u64) -> ([f64; 4], f64) {
        let mut way = [0.0; 4];
        for (step, (a, b)) in way.iter_mut().zip(self.axes.iter().zip(other.axes)) {
            *step = a - b;
        }
        let length = way.iter().map(|step| step * step).sum::<f64>().sqrt();
        if length > 1.0 {
            return (way.map(|step| step / length), length);
        }
        let mut bits = draw;
        for step in &mut way {
            *step = if bits & 1 == 0 { 0.5 } else { -0.5 };
            bits >>= 1;
        }
        (way, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn places_come_to_predict_round_trips() {
        // Two houses of three nodes: 2 ms within, 80 ms between them.
        let mut places = [Place::origin(); 6];
        let mut random = crate::random::Random::new(&[7; 32]);
        for _ in 0..4000 {
            let (a, b) = (random.below(6), random.below(6));
            if a != b {
                let span = if a / 3 == b / 3 { 2 * MILLI } else { 80 * MILLI };
                let other = places[b].coordinate();
                assert!(places[a].learn(other, span, random.next()));
            }
        }
        let spans = |a: usize, b: usize| places[a].coordinate().distance(&places[b].coordinate());
        assert!(spans(0, 1) < 12 * MILLI, "{:?}", spans(0, 1));
        assert!(spans(0, 4) > 60 * MILLI && spans(0, 4) < 100 * MILLI, "{:?}", spans(0, 4));
    }

    #[test]
    fn places_and_spans_that_cannot_be_are_refused() {
        let mut here = Place::origin();
        let far = Coordinate { axes: [i32::MAX, 0, 0, 0], height: 10, error: 500 };
        let below = Coordinate { axes: [0; 4], height: -1, error: 500 };
        let sure = Coordinate { axes: [0; 4], height: 10, error: 0 };
        for bad in [far, below, sure] {
            assert!(!here.learn(bad, MILLI, 0), "{bad:?}");
        }
        let good = Coordinate { axes: [5, 5, 5, 5], height: 10, error: 500 };
        assert!(!here.learn(good, Duration::from_secs(11), 0));
        assert!(!here.learn(good, Duration::ZERO, 0));
        assert_eq!(here.coordinate(), Place::origin().coordinate());
    }
}
