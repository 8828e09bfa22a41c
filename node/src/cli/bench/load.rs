//! Operations one after the other, or at their times, for a while; and what came of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cli::documents::BenchLatency;
use crate::cli::errors::Failure;
use crate::cli::output::Output;

/// Latencies that are kept; of more, so many by lot.
const SAMPLES_MAX: usize = 1_000_000;
/// Reasons that are told apart; the others count as one.
const REASONS_MAX: usize = 16;
/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// How much of it, and for how long.
pub(super) struct Load {
    pub(super) out: Output,
    pub(super) word: &'static str,
    pub(super) span: Duration,
    /// So many a second in all.
    pub(super) rate: Option<u32>,
    pub(super) clients: usize,
    /// So many in one operation; the rate counts each.
    pub(super) together: u32,
    /// Whether the progress is drawn.
    pub(super) shows: bool,
}

/// An operation that had its outcome.
#[derive(Default)]
pub(super) struct Done {
    /// How long it took, where that is not from the call to its end.
    pub(super) took: Option<Duration>,
    /// How long parts of it took.
    pub(super) parts: Vec<(&'static str, Duration)>,
}

/// Latencies, in milliseconds.
#[derive(Default)]
pub(super) struct Samples {
    kept: Vec<f64>,
    count: u64,
    max: f64,
    last: Option<f64>,
}

/// What came of all operations.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) ended: u64,
    pub(super) ok: u64,
    pub(super) whole: Samples,
    pub(super) parts: BTreeMap<&'static str, Samples>,
    /// Why some had none, and how many.
    pub(super) why: BTreeMap<String, u64>,
    /// The first of these.
    pub(super) first: Option<Failure>,
    pub(super) elapsed: Duration,
}

fn as_millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

impl Samples {
    fn add(&mut self, ms: f64) {
        self.count += 1;
        self.max = self.max.max(ms);
        self.last = Some(ms);
        if self.kept.len() < SAMPLES_MAX {
            self.kept.push(ms);
        } else if let Some(place) =
            usize::try_from(fastrand::u64(..self.count)).ok().and_then(|place| self.kept.get_mut(place))
        {
            *place = ms;
        }
    }

    pub(super) const fn last(&self) -> Option<f64> {
        self.last
    }

    /// The percentiles; nothing of nothing.
    pub(super) fn latency(&self) -> Option<BenchLatency> {
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        // The smallest that at least so many are not above.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).map(|ms| (ms * 1000.0).round() / 1000.0)
        };
        let max = (self.max * 1000.0).round() / 1000.0;
        Some(BenchLatency { p50: at(50)?, p90: at(90)?, p99: at(99)?, max })
    }
}

impl Tally {
    fn add(&mut self, count: u64, late: Duration, took: Duration, done: Result<Done, Failure>) {
        self.ended += count;
        match done {
            Ok(done) => {
                self.ok += count;
                self.whole.add(as_millis(done.took.unwrap_or(took) + late));
                for (name, took) in done.parts {
                    self.parts.entry(name).or_default().add(as_millis(took));
                }
            }
            Err(failure) => {
                let mut why = words(&failure);
                if self.why.len() >= REASONS_MAX && !self.why.contains_key(&why) {
                    "other reasons".clone_into(&mut why);
                }
                *self.why.entry(why).or_default() += count;
                self.first.get_or_insert(failure);
            }
        }
    }
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::Error(document) => document.message.clone(),
        _ => "the node did not answer".to_owned(),
    }
}

impl Load {
    /// Does operations until the time is over; those that were begun are waited for. Each is told whose it is, and its
    /// number.
    pub(super) async fn run(&self, operation: impl AsyncFn(usize, u64) -> Result<Done, Failure>) -> Tally {
        let tally = RefCell::new(Tally::default());
        let next = Cell::new(0_u64);
        let begun = Instant::now();
        let end = begun + self.span;
        let (counts, numbers, operation) = (&tally, &next, &operation);
        let together = u64::from(self.together);
        let client = |index: usize| async move {
            loop {
                let number = numbers.get();
                let before = number as f64 * f64::from(self.together);
                let due = self.rate.map(|rate| Duration::from_secs_f64(before / f64::from(rate)));
                let due = due.map(|due| begun + due);
                // The first is done in any case, however short the time.
                if number > 0 && (due.is_some_and(|due| due >= end) || Instant::now() >= end) {
                    break;
                }
                numbers.set(number + 1);
                if let Some(due) = due {
                    tokio::time::sleep_until(due.into()).await;
                }
                let started = Instant::now();
                let late = due.map(|due| started.saturating_duration_since(due)).unwrap_or_default();
                counts.borrow_mut().sent += together;
                let done = operation(index, number).await;
                counts.borrow_mut().add(together, late, started.elapsed(), done);
            }
        };
        let all = futures::future::join_all((0..self.clients).map(client));
        let drawn = async {
            loop {
                if self.shows {
                    let line = super::progress(self.word, begun.elapsed(), self.span, &counts.borrow());
                    self.out.draw_over(&line);
                }
                tokio::time::sleep(DRAW_EVERY).await;
            }
        };
        tokio::select! {
            _ends = all => {}
            () = drawn => {}
        }
        if self.shows {
            self.out.draw_over("");
        }
        let mut tally = tally.into_inner();
        tally.elapsed = begun.elapsed();
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::documents::ErrorDocument;
    use crate::exit::ErrorCode;

    fn samples(all: impl IntoIterator<Item = u32>) -> Option<BenchLatency> {
        let mut samples = Samples::default();
        all.into_iter().for_each(|ms| samples.add(f64::from(ms)));
        samples.latency()
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let latency = samples((1..=100).rev()).unwrap();
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.max), (50.0, 90.0, 99.0, 100.0));
        let one = samples([7]).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
        let two = samples([9, 1]).unwrap();
        assert_eq!((two.p50, two.p90, two.max), (1.0, 9.0, 9.0));
        assert!(samples([]).is_none());
    }

    #[test]
    fn what_had_no_outcome_is_an_error_and_no_latency() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        tally.add(1, ms(5), ms(20), Ok(Done::default()));
        tally.add(1, ms(0), ms(20), Ok(Done { took: Some(ms(3)), parts: vec![("put", ms(2))] }));
        tally.add(1, ms(0), ms(9000), Err(ErrorDocument::new(ErrorCode::Timeout, "too late").into()));
        assert_eq!((tally.ended, tally.ok, tally.why.get("too late")), (3, 2, Some(&1)));
        let latency = tally.whole.latency().unwrap();
        assert_eq!((latency.p50, latency.max), (3.0, 25.0), "what begins late is late");
        assert_eq!(tally.parts["put"].latency().unwrap().p50, 2.0);
    }

    fn load(rate: Option<u32>, clients: usize, span: Duration) -> Load {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            globals: crate::cli::session::Globals,
        }
        let out = Output::new(&Cli::parse_from(["wattle"]).globals);
        Load { out, word: "test", span, rate, clients, together: 1, shows: false }
    }

    #[tokio::test]
    async fn no_more_is_done_than_there_are_clients_and_times_for() {
        let busy = Cell::new((0, 0));
        let operation = async |_: usize, _: u64| {
            let (now, most) = busy.get();
            busy.set((now + 1, most.max(now + 1)));
            tokio::time::sleep(Duration::from_millis(1)).await;
            busy.set((busy.get().0 - 1, busy.get().1));
            Ok(Done::default())
        };
        let tally = load(Some(100), 4, Duration::from_millis(50)).run(&operation).await;
        assert!((1..=5).contains(&tally.sent), "due after 0, 10, 20, 30 and 40 ms: {}", tally.sent);
        assert_eq!((tally.ended, tally.ok), (tally.sent, tally.sent));
        let tally = load(None, 4, Duration::from_millis(50)).run(&operation).await;
        assert!(tally.ok == tally.sent && tally.elapsed >= Duration::from_millis(50));
        assert!((2..=4).contains(&busy.get().1), "{} at the same time", busy.get().1);
        let once = load(None, 4, Duration::ZERO).run(&operation).await;
        assert_eq!(once.sent, 1);
        let many = Load { together: 50, ..load(Some(1000), 2, Duration::from_millis(200)) };
        let tally = many.run(&operation).await;
        assert_eq!((tally.sent, tally.ok), (200, 200), "four times fifty, one each 50 ms");
    }
}
