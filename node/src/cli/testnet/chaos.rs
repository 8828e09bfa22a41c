//! `testnet chaos`: faults by the hour, each with its end, all from one seed.
//!
//! The schedule is made before anything is done and follows from seed, nodes, span and kinds alone: the same seed makes
//! the same faults at the same moments. A majority of the nodes runs at every moment, one partition is on at a time,
//! and every fault is over when the time is.

use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use jiff::Timestamp;

use super::state::{Held, Place, Row, State};
use super::{links, nodes, report};
use crate::api::documents::ErrorDocument;
use crate::cli::documents::{
    TestnetChaosDocument, TestnetChaosSchema, TestnetChaosStep, TestnetNodeFault, TestnetPartition,
    TestnetReportDocument, TestnetShape, TestnetStanding,
};
use crate::cli::errors::{Failure, advise};
use crate::cli::session::{Session, Shown};
use crate::cli::values::{as_ms, short};
use crate::exit::ErrorCode;

/// Between the beginnings of two faults.
const PAUSE_MS: std::ops::Range<u64> = 500..2500;
/// How long a fault stays.
const STAY_MS: std::ops::Range<u64> = 1000..8000;
/// How wrong a clock becomes: more than anybody's battery.
const CLOCK_S_MAX: i64 = 60 * 60;
/// The longest chaos: a schedule is in memory.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What chaos does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Kill a node, and bring it back
    Kill,
    /// Freeze a node, and thaw it
    Pause,
    /// Split the nodes in two, now and then one way only, and heal
    Partition,
    /// Make round trips longer
    Latency,
    /// Lose some of what is sent
    Loss,
    /// Have a node find no space on its disk
    Disk,
    /// Set the clock of a node wrong
    Clock,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Kill(u32),
    Restart(u32),
    Pause(u32),
    Resume(u32),
    Partition { groups: [Vec<u32>; 2], one_way: bool },
    Heal,
    Latency { ms: u32, jitter_ms: u32 },
    Loss { percent: u32 },
    Disk { node: u32, full: bool },
    Clock { node: u32, ahead_s: i64 },
}

impl Step {
    /// As one would type it.
    fn words(&self) -> String {
        match self {
            Self::Kill(index) => format!("kill {index}"),
            Self::Restart(index) => format!("restart {index}"),
            Self::Pause(index) => format!("pause {index}"),
            Self::Resume(index) => format!("resume {index}"),
            Self::Partition { groups, one_way } => {
                let group = |group: &[u32]| group.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
                let arrow = if *one_way { "--one-way " } else { "" };
                format!("partition {arrow}{} {}", group(&groups[0]), group(&groups[1]))
            }
            Self::Heal => "heal".to_owned(),
            Self::Latency { ms: 0, .. } => "latency 0ms".to_owned(),
            Self::Latency { ms, jitter_ms } => format!("latency {ms}ms+-{jitter_ms}"),
            Self::Loss { percent } => format!("loss {percent}%"),
            Self::Disk { node, full } => format!("disk {node} {}", if *full { "full" } else { "free" }),
            Self::Clock { node, ahead_s } => {
                let way = if *ahead_s < 0 { " --behind" } else { "" };
                format!("clock {node} {}s{way}", ahead_s.unsigned_abs())
            }
        }
    }
}

/// What is done when, in order.
pub(super) fn schedule(seed: u64, nodes: &[u32], span: Duration, kinds: &[Kind]) -> Vec<(Duration, Step)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut steps = Vec::new();
    // Until when each node is away, and until when links are cut or shaped.
    let mut away: Vec<(u32, u64)> = Vec::new();
    let (mut cut, mut shaped, mut wrong) = (0, 0, 0);
    let (mut at, end) = (0, as_ms(span));
    loop {
        at += random.u64(PAUSE_MS);
        let stay = random.u64(STAY_MS);
        if at + STAY_MS.start > end {
            break;
        }
        let until = (at + stay).min(end);
        away.retain(|(_, until)| *until > at);
        let Some(kind) = random.choice(kinds.iter().copied()) else { break };
        let more_may_go = (away.len() + 1) * 2 < nodes.len();
        let pair = match kind {
            Kind::Kill | Kind::Pause | Kind::Disk if more_may_go => {
                let here = nodes.iter().copied().filter(|index| away.iter().all(|(gone, _)| gone != index));
                let Some(index) = random.choice(here.collect::<Vec<_>>()) else { continue };
                away.push((index, until));
                match kind {
                    Kind::Kill => (Step::Kill(index), Step::Restart(index)),
                    Kind::Disk => {
                        let disk = |full| Step::Disk { node: index, full };
                        (disk(true), disk(false))
                    }
                    _ => (Step::Pause(index), Step::Resume(index)),
                }
            }
            Kind::Partition if cut <= at && nodes.len() > 1 => {
                cut = until;
                (split(&mut random, nodes), Step::Heal)
            }
            Kind::Latency if shaped <= at => {
                shaped = until;
                let ms = random.u32(10..200);
                let jitter_ms = random.u32(0..=ms / 2);
                (Step::Latency { ms, jitter_ms }, Step::Latency { ms: 0, jitter_ms: 0 })
            }
            Kind::Loss if shaped <= at => {
                shaped = until;
                (Step::Loss { percent: random.u32(1..=20) }, Step::Loss { percent: 0 })
            }
            Kind::Clock if wrong <= at => {
                wrong = until;
                let Some(node) = random.choice(nodes.iter().copied()) else { break };
                let ahead_s = random.i64(1..=CLOCK_S_MAX) * if random.bool() { 1 } else { -1 };
                let clock = |ahead_s| Step::Clock { node, ahead_s };
                (clock(ahead_s), clock(0))
            }
            _ => continue,
        };
        steps.push((at, pair.0));
        steps.push((until, pair.1));
    }
    // Stable: what ends at a moment ends before what begins then only where it was drawn first.
    steps.sort_by_key(|(at, _)| *at);
    steps.into_iter().map(|(at, step)| (Duration::from_millis(at), step)).collect()
}

/// Two groups, neither of them empty.
fn split(random: &mut fastrand::Rng, nodes: &[u32]) -> Step {
    let mut shuffled = nodes.to_vec();
    random.shuffle(&mut shuffled);
    let (one, other) = shuffled.split_at(random.usize(1..nodes.len()));
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    one.sort_unstable();
    other.sort_unstable();
    Step::Partition { groups: [one, other], one_way: random.u8(0..4) == 0 }
}

pub(super) fn chaos(session: &Session, args: &super::Chaos) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    let state = place.read()?;
    if args.span.0 > SPAN_MAX {
        return Err(ErrorDocument::new(ErrorCode::Usage, "chaos lasts a day at most").into());
    }
    let standing = |row: &&Row| place.standing(row) != TestnetStanding::Down;
    let indexes: Vec<u32> = state.nodes.iter().filter(standing).map(|row| row.index).collect();
    let seed = args.seed.unwrap_or(state.seed);
    let kinds = kinds(&state, &args.kinds)?;
    let steps = schedule(seed, &indexes, args.span.0, &kinds);
    let say = |text: String| if session.out.json { Ok(()) } else { session.out.line(&text) };
    say(format!("seed {seed}: {} steps in {}", steps.len(), short(args.span.0)))?;
    let mut done = Vec::new();
    if args.dry_run {
        for (at, step) in &steps {
            say(format!("{:>7.1}s  {}", at.as_secs_f64(), step.words()))?;
            done.push(TestnetChaosStep { at_ms: as_ms(*at), what: step.words(), done: None });
        }
    } else {
        let ran = run(session, &place, &steps, args.span.0, &mut done);
        // Whatever ended it, what it did is undone.
        let undone = undo(session, &place, &indexes);
        ran?;
        undone?;
    }
    let report = if args.dry_run { None } else { Some(report::of(session, &place, args.within.0)?) };
    finish(session, seed, &place, done, report)
}

/// The kinds that were asked for, else all there are for these nodes.
fn kinds(state: &State, asked: &[Kind]) -> Result<Vec<Kind>, Failure> {
    let is_shared = state.backend.shares_process();
    let can_be = |kind: &Kind| !is_shared || !matches!(kind, Kind::Kill | Kind::Pause | Kind::Clock);
    if let Some(kind) = asked.iter().find(|kind| !can_be(kind)) {
        let word = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let message = format!("no chaos can {word} one node of \"{}\": all are in one process", state.name);
        let document = ErrorDocument::new(ErrorCode::Usage, message);
        return Err(
            advise(document, "have each", "wattle testnet up 5 --backend process", "in its own").into()
        );
    }
    let kinds = if asked.is_empty() { Kind::value_variants() } else { asked };
    Ok(kinds.iter().copied().filter(can_be).collect())
}

fn finish(
    session: &Session,
    seed: u64,
    place: &Place,
    steps: Vec<TestnetChaosStep>,
    report: Option<TestnetReportDocument>,
) -> Result<(), Failure> {
    let pass = report.as_ref().map(|report| report.pass);
    let document = TestnetChaosDocument {
        schema: TestnetChaosSchema::V1,
        name: place.net.to_string(),
        seed,
        steps,
        report,
    };
    session.show_own(&document, |document| Shown {
        text: document.report.as_ref().map(|report| report::text_of(session, report)).unwrap_or_default(),
        ids: document.steps.iter().map(|step| step.what.clone()).collect(),
    })?;
    if pass == Some(false) { Err(ErrorCode::Partial.into()) } else { Ok(()) }
}

fn run(
    session: &Session,
    place: &Place,
    steps: &[(Duration, Step)],
    span: Duration,
    done: &mut Vec<TestnetChaosStep>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let until = |at: Duration| {
        let wait = at.saturating_sub(begun.elapsed());
        session.block_on(async move {
            tokio::time::sleep(wait).await;
            Ok(())
        })
    };
    for (at, step) in steps {
        until(*at)?;
        let mut held = place.hold()?;
        take(session, &mut held, step)?;
        let now = begun.elapsed();
        if !session.out.json && !session.out.quiet {
            session.out.line(&format!("{:>7.1}s  {}", now.as_secs_f64(), step.words()))?;
        }
        done.push(TestnetChaosStep { at_ms: as_ms(*at), what: step.words(), done: Some(as_ms(now)) });
    }
    until(span)
}

fn take(session: &Session, held: &mut Held, step: &Step) -> Result<(), Failure> {
    let rows = |held: &Held, index: u32| {
        held.state.nodes.iter().filter(|row| row.index == index).cloned().collect::<Vec<_>>()
    };
    match step {
        Step::Kill(index) => nodes::kill(held, &rows(held, *index))?,
        Step::Restart(index) => nodes::restart(session, held, &rows(held, *index))?,
        Step::Pause(index) => nodes::pause(held, &rows(held, *index))?,
        Step::Resume(index) => nodes::resume(session, held, &rows(held, *index))?,
        Step::Partition { groups, one_way } => {
            let (groups, since) = (groups.to_vec(), Timestamp::now());
            held.state.partition = Some(TestnetPartition { groups, one_way: *one_way, since });
        }
        Step::Heal => held.state.partition = None,
        Step::Latency { ms, jitter_ms } => {
            let (latency_ms, jitter_ms) = (f64::from(*ms), f64::from(*jitter_ms));
            shape(held, TestnetShape { latency_ms, jitter_ms, ..TestnetShape::default() });
        }
        Step::Loss { percent } => {
            shape(held, TestnetShape { loss: f64::from(*percent) / 100.0, ..TestnetShape::default() });
        }
        Step::Disk { node, full } => {
            held.state.set_node_fault(TestnetNodeFault { disk_full: *full, ..held.state.node_fault(*node) });
        }
        Step::Clock { node, ahead_s } => {
            let clock_ms = ahead_s * 1000;
            held.state.set_node_fault(TestnetNodeFault { clock_ms, ..held.state.node_fault(*node) });
        }
    }
    held.state.note(step.words());
    links::spread(session, held).map(drop)
}

/// Makes this the shape of every link; one that does nothing is none.
fn shape(held: &mut Held, shape: TestnetShape) {
    held.state.links.clear();
    if shape != TestnetShape::default() {
        held.state.links.push(shape);
    }
}

/// Whatever is still on: links as they should be, and every node running.
fn undo(session: &Session, place: &Place, indexes: &[u32]) -> Result<(), Failure> {
    let mut held = place.hold()?;
    held.state.partition = None;
    held.state.links.clear();
    held.state.node_faults.clear();
    for row in held.state.nodes.clone().iter().filter(|row| indexes.contains(&row.index)) {
        let row = std::slice::from_ref(row);
        match held.place.standing(&row[0]) {
            TestnetStanding::Paused => nodes::resume(session, &held, row)?,
            TestnetStanding::Down => nodes::restart(session, &mut held, row)?,
            TestnetStanding::Running => {}
        }
    }
    links::spread(session, &held).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_chaos_and_another_one_another() {
        let of = |seed| schedule(seed, &[0, 1, 2, 3, 4], Duration::from_secs(120), Kind::value_variants());
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert!(of(7).len() > 40, "{}", of(7).len());
    }

    #[test]
    fn a_majority_always_runs_and_everything_is_over_in_the_end() {
        for seed in 0..200 {
            let (mut away, mut cut, mut shaped, mut wrong) = (Vec::new(), false, false, None);
            for (at, step) in
                schedule(seed, &[0, 1, 2, 3, 4], Duration::from_secs(60), Kind::value_variants())
            {
                assert!(at <= Duration::from_secs(60));
                match step {
                    Step::Kill(index) | Step::Pause(index) | Step::Disk { node: index, full: true } => {
                        assert!(!away.contains(&index), "seed {seed}: {index} is away already");
                        away.push(index);
                    }
                    Step::Restart(index) | Step::Resume(index) | Step::Disk { node: index, full: false } => {
                        away.retain(|gone| *gone != index);
                    }
                    Step::Partition { groups, .. } => {
                        assert!(!cut && groups.iter().all(|group| !group.is_empty()), "seed {seed}");
                        cut = true;
                    }
                    Step::Heal => cut = false,
                    Step::Latency { ms: 0, .. } | Step::Loss { percent: 0 } => shaped = false,
                    Step::Latency { .. } | Step::Loss { .. } => {
                        assert!(!shaped, "seed {seed}: links are shaped already");
                        shaped = true;
                    }
                    Step::Clock { node, ahead_s: 0 } => assert_eq!(wrong.take(), Some(node), "seed {seed}"),
                    Step::Clock { node, .. } => assert_eq!(wrong.replace(node), None, "seed {seed}"),
                }
                assert!(away.len() * 2 < 5, "seed {seed}: {away:?} are away");
            }
            assert!(away.is_empty() && !cut && !shaped && wrong.is_none(), "seed {seed}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_done() {
        let steps = schedule(1, &[0, 1, 2], Duration::from_secs(60), &[Kind::Partition]);
        assert!(steps.iter().all(|(_, step)| matches!(step, Step::Partition { .. } | Step::Heal)));
        assert!(!steps.is_empty());
        assert_eq!(schedule(1, &[0, 1], Duration::from_secs(60), &[Kind::Kill]), [], "half is no majority");
    }
}
