//! The figures of membership, from the simulator: what MEMBERS are told, when, wrongly or not, and what it costs.
//!
//! Run: `cargo bench -p wattle-swim --bench table -- [NAME..]`, with a name only that part; everything takes half an
//! hour. Each row has the seeds it comes from; equal seeds give equal rows on every machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where something is wrong, and prints"
)]
#![expect(dead_code, reason = "the simulator is shared with the tests, which use more of it")]

#[path = "../tests/simulated/world.rs"]
mod world;

use std::time::Duration;

use wattle_swim::{Lifeguard, State, Timing};
use wattle_types::Time;

use world::{Options, World};

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let cases: [(&str, fn()); 8] = [
        ("detect", detect),
        ("large", large),
        ("deaf", deaf),
        ("flip", flip_flop),
        ("lossy", lossy_few),
        ("pauses", pauses),
        ("grid", grid),
        ("joins", joins_and_splits),
    ];
    for (name, case) in cases {
        let asked = names.iter().any(|asked| asked == name);
        if asked || names.is_empty() {
            println!("\n== {name}");
            case();
        }
    }
}

fn options(seed: u64, timing: Timing, loss: u64) -> Options {
    Options { timing, loss, ..Options::new(seed) }
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

fn median(spans: &mut [Duration]) -> Duration {
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied().unwrap_or_default()
}

/// All have just started again, each with a new key: how long until some of them, and with that about all, have heard
/// that of everybody and have nothing left to tell.
fn settle(world: &mut World) -> Duration {
    let count = world.nodes.len();
    let begun = world.now;
    let settled = world.until(300 * SECOND, &mut |world| {
        [0, count / 2, count - 1].into_iter().all(|at| {
            let here = world.swim(at);
            let knows = |it: usize| {
                let (known, run) = (here.standing(&world.nodes[it].id), world.swim(it).incarnation());
                it == at || known.is_some_and(|(_, incarnation)| incarnation.epoch() == run.epoch())
            };
            here.status().queue < 8 && (0..count).all(knows)
        })
    });
    assert!(settled.is_some(), "they never know each other");
    world.now.since(begun)
}

/// Kills members one at a time: when the first and the last learn it.
fn kill_one_by_one(count: usize, kills: usize, seeds: u64, timing: &Timing, loss: u64) {
    let (mut firsts, mut alls, mut missed) = (Vec::new(), Vec::new(), 0);
    let (mut wrong, mut bytes, mut packets, mut suspected, mut streams) = (0, 0.0, 0.0, 0, 0.0);
    let mut settled = Duration::ZERO;
    for seed in 1..=seeds {
        let mut world = World::new(count, options(seed, timing.clone(), loss));
        settled = settled.max(settle(&mut world));
        world.run(20 * SECOND);
        let (bytes_before, packets_before, streams_before) = traffic(&world);
        world.run(30 * SECOND);
        let (bytes_after, packets_after, streams_after) = traffic(&world);
        let of = count as f64 * 30.0 * seeds as f64;
        bytes += (bytes_after - bytes_before) as f64 / of;
        packets += (packets_after - packets_before) as f64 / of;
        streams += (streams_after - streams_before) as f64 / of;
        for kill in 0..kills {
            let victim = (kill * 7 + seed as usize) % count;
            let begun = world.now;
            world.crash(victim);
            let all = world.until(60 * SECOND, &mut |world| world.all_see(victim, State::Faulty));
            match all {
                Some(all) => {
                    firsts.push(first_verdict(&world, victim, begun).unwrap_or_default());
                    alls.push(all);
                }
                None => missed += 1,
            }
            let (id, seeds) = (world.nodes[0].id, vec![world.nodes[(victim + 1) % count].id]);
            world.nodes[victim].seeds = if victim == 0 { seeds } else { vec![id] };
            world.nodes[victim].unwell_until = world.now.after(20 * SECOND);
            world.start(victim);
            world.until(20 * SECOND, &mut |world| world.all_see(victim, State::Alive));
            world.run(3 * SECOND);
        }
        wrong += world.false_positives.len();
        suspected += world.up().iter().map(|node| world.swim(*node).status().counts.accused).sum::<u64>();
    }
    let (most, worst) = (alls.iter().max().copied().unwrap_or_default(), firsts.iter().max().copied());
    println!(
        "N {count:5} suspicion {:.1} loss {:4.1} %  first {:5.2} (max {:5.2})  all {:5.2} (max {:5.2})  missed {missed}  \
         wrong {wrong}  accusations {suspected}  all started again, settled after {:.1}  idle {bytes:5.1} B/s {packets:.2} pkt/s, streams {streams:.0} B/s  seeds 1..={seeds} x {kills}",
        seconds(timing.suspicion),
        loss as f64 / 10.0,
        seconds(median(&mut firsts)),
        seconds(worst.unwrap_or_default()),
        seconds(median(&mut alls)),
        seconds(most),
        seconds(settled),
    );
}

fn traffic(world: &World) -> (u64, u64, u64) {
    let sum = |of: &dyn Fn(&world::Node) -> u64| world.nodes.iter().map(of).sum();
    (sum(&|it| it.bytes), sum(&|it| it.packets), sum(&|it| it.stream_bytes))
}

fn first_verdict(world: &World, victim: usize, since: Time) -> Option<Duration> {
    let verdicts = world.up().into_iter().flat_map(|node| world.changes(node, victim, since));
    verdicts.filter(|(_, to)| *to == State::Faulty).map(|(at, _)| at.since(since)).min()
}

fn detect() {
    for (timing, loss) in [
        (Timing::lan(), 0),
        (Timing::lan(), 50),
        (Timing::lan(), 200),
        (Timing::fast(), 0),
        (Timing::fast(), 200),
    ] {
        kill_one_by_one(50, 5, 4, &timing, loss);
    }
    for (timing, loss) in [(Timing::lan(), 0), (Timing::lan(), 50), (Timing::lan(), 200)] {
        kill_one_by_one(500, 3, 2, &timing, loss);
    }
}

fn large() {
    for (timing, loss) in [(Timing::lan(), 0), (Timing::lan(), 50), (Timing::lan(), 200)] {
        kill_one_by_one(2000, 2, 1, &timing, loss);
    }
}

/// What is wrong in a world, in all and at members that are well.
fn told_wrong(world: &World) -> (usize, usize) {
    let healthy = world.false_positives.iter().filter(|it| it.healthy).count();
    (world.false_positives.len(), healthy)
}

fn deaf() {
    for (count, few, name, guard, connected, seeds) in [
        (40, 4, "everything", Lifeguard::ON, 100, 5),
        (40, 4, "everything, a third connected", Lifeguard::ON, 33, 5),
        (40, 4, "no fallback", Lifeguard { fallback: false, ..Lifeguard::ON }, 0, 5),
        (40, 4, "plain SWIM", Lifeguard::OFF, 0, 5),
        (50, 5, "everything", Lifeguard::ON, 100, 5),
        (500, 50, "everything", Lifeguard::ON, 100, 1),
        (2000, 200, "everything", Lifeguard::ON, 100, 1),
    ] {
        let timing = Timing { lifeguard: guard, ..Timing::lan() };
        let (mut all, mut healthy, mut own, mut verdicts) = (0, 0, 0.0, 0);
        for seed in 1..=seeds {
            let mut world = World::new(count, Options { connected, ..options(seed, timing.clone(), 0) });
            settle(&mut world);
            for node in 0..few {
                world.nodes[node].deaf = 800;
            }
            for _ in 0..90 {
                world.run(SECOND);
                let health = (0..few).map(|node| f64::from(world.swim(node).status().health));
                own += health.sum::<f64>() / (few as f64 * 90.0 * seeds as f64);
            }
            let (in_all, at_healthy) = told_wrong(&world);
            all += in_all;
            healthy += at_healthy;
            verdicts += world.verdicts as usize - in_all;
        }
        println!(
            "N {count:4}, {few} lose 80 % of what comes, 90 s: {name:32} wrong {all:5} (at healthy {healthy:5})  \
             about the deaf {verdicts:5}  health of the deaf {own:.1}  seeds 1..={seeds}"
        );
    }
}

/// Rapid, section 7: some members hear nothing for 20 s, then everything for 20 s.
fn flip_flop() {
    for (count, few, connected) in [(40, 4, 100), (40, 4, 0), (200, 10, 100)] {
        let mut world = World::new(count, Options { connected, ..options(1, Timing::lan(), 0) });
        world.run(10 * SECOND);
        let mut most = 0;
        for _ in 0..5 {
            let cycle = world.now;
            for deaf in [1000, 0] {
                for node in 0..few {
                    world.nodes[node].deaf = deaf;
                    world.nodes[node].unwell_until = world.now.after(30 * SECOND);
                }
                world.run(20 * SECOND);
            }
            for node in few..count {
                for flipping in 0..few {
                    let changes = world.changes(node, flipping, cycle);
                    let verdicts = changes.iter().filter(|(_, to)| *to != State::Suspect);
                    most = most.max(verdicts.filter(|(_, to)| *to == State::Faulty).count());
                }
            }
        }
        let agreed = world.until(60 * SECOND, &mut |world| world.agree());
        let (all, healthy) = told_wrong(&world);
        println!(
            "N {count:4}, {few} hear nothing 20 s of 40, 5 times ({connected} % connected): wrong {all} (at healthy {healthy})  \
             most times faulty in a cycle at one observer {most}  all tables equal {agreed:?} after the last  seed 1"
        );
    }
}

/// Rapid, section 7: one per cent lose 80 % both ways.
fn lossy_few() {
    for (count, few, connected) in [(200, 2, 100), (200, 2, 0), (500, 5, 100)] {
        let mut world = World::new(count, Options { connected, ..options(1, Timing::lan(), 0) });
        world.run(10 * SECOND);
        for node in 0..few {
            world.nodes[node].deaf = 800;
        }
        let begun = world.now;
        world.run(180 * SECOND);
        let mut most = 0;
        for node in few..count {
            for lossy in 0..few {
                let changes = world.changes(node, lossy, begun);
                most = most.max(changes.iter().filter(|(_, to)| *to == State::Faulty).count());
            }
        }
        let (all, healthy) = told_wrong(&world);
        println!(
            "N {count:4}, {few} lose 80 % of what comes, 180 s ({connected} % connected): wrong {all} (at healthy {healthy})  \
             most times faulty at one observer {most}  seed 1"
        );
    }
}

/// The paused fifth: stopped D s, running I s.
fn pauses() {
    for (stopped, running) in [(1, 1), (4, 1), (16, 1)] {
        let (count, few) = (50, 10);
        let mut world = World::new(count, options(1, Timing::lan(), 0));
        world.run(10 * SECOND);
        let before = traffic(&world);
        let begun = world.now;
        while world.now.since(begun) < 120 * SECOND {
            for node in 0..few {
                world.pause(node, stopped * SECOND, false);
            }
            world.run((stopped + running) * SECOND);
        }
        let after = traffic(&world);
        let (all, healthy) = told_wrong(&world);
        let span = seconds(world.now.since(begun));
        let refuted: u64 = (0..count).map(|node| world.swim(node).status().counts.refuted).sum();
        println!(
            "N 50, 10 stopped {stopped:2} s of {:2}: wrong {all} (at healthy {healthy})  verdicts about them {}  refutations {refuted}  {:.0} B/s sent  seed 1",
            stopped + running,
            world.verdicts as usize - all,
            (after.0 - before.0) as f64 / count as f64 / span,
        );
    }
}

/// Lifeguard, section V: members whose IO stands still while their timers run.
fn grid() {
    let parts = [
        ("SWIM", Lifeguard::OFF),
        ("LHA-Probe", Lifeguard { probe: true, ..Lifeguard::OFF }),
        ("LHA-Suspicion", Lifeguard { suspicion: true, ..Lifeguard::OFF }),
        ("Buddy", Lifeguard { buddy: true, ..Lifeguard::OFF }),
        ("Lifeguard", Lifeguard { fallback: false, last_chance: false, ..Lifeguard::ON }),
        ("everything", Lifeguard::ON),
    ];
    let mut base: Option<[f64; 4]> = None;
    for (name, lifeguard) in parts {
        let mut sum = [0.0; 4];
        for few in [4, 16, 32] {
            for blocked in [2, 8, 33] {
                for running_ms in [1, 1024] {
                    let one = grid_cell(lifeguard, few, blocked, running_ms);
                    for (sum, one) in sum.iter_mut().zip(one) {
                        *sum += one;
                    }
                }
            }
        }
        let base = base.get_or_insert(sum);
        let part = |at: usize| 100.0 * sum[at] / base[at].max(1.0);
        println!(
            "N 128 {name:14} wrong {:8} ({:6.2} %)  at healthy {:8} ({:6.2} %)  packets {:5.1} %  bytes {:5.1} %  seed 1",
            sum[0],
            part(0),
            sum[1],
            part(1),
            part(2),
            part(3)
        );
    }
}

fn grid_cell(lifeguard: Lifeguard, few: usize, blocked: u32, running_ms: u64) -> [f64; 4] {
    // The paper's alpha of 5.
    let timing = Timing { lifeguard, suspicion: 5 * SECOND, ..Timing::lan() };
    let mut world = World::new(128, options(1, timing, 0));
    let (before, begun) = (traffic(&world), world.now);
    while world.now.since(begun) < 120 * SECOND {
        for node in 0..few {
            world.pause(node, blocked * SECOND, true);
        }
        world.run(blocked * SECOND + Duration::from_millis(running_ms));
    }
    let (after, (all, healthy)) = (traffic(&world), told_wrong(&world));
    [all as f64, healthy as f64, (after.1 - before.1) as f64, (after.0 - before.0) as f64]
}

fn joins_and_splits() {
    for count in [50, 500] {
        let mut world = World::empty(count, options(1, Timing::lan(), 0));
        world.start(0);
        let seed = world.nodes[0].id;
        for node in 1..count {
            world.nodes[node].seeds = vec![seed];
            world.start(node);
        }
        let all = |world: &World| (0..count).all(|node| world.swim(node).status().live == count);
        let took = world.until(120 * SECOND, &mut |world| all(world));
        println!("N {count:4} join at once through one: all see all after {took:?}  seed 1");
    }
    for seed in 1..=3 {
        let mut world = World::new(40, options(seed, Timing::lan(), 0));
        for node in 0..20 {
            world.nodes[node].side = 1;
        }
        world.run(90 * SECOND);
        let verdicts = world.verdicts;
        for node in 0..20 {
            world.nodes[node].side = 0;
        }
        let took = world.until(120 * SECOND, &mut |world| world.all_see_all());
        println!("N 40 split in halves 90 s: {verdicts} of 800 verdicts, healed after {took:?}  seed {seed}");
    }
}
