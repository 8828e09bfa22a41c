//! Crashes, partitions, loss.

use std::time::Duration;

use wattle_order::{Config, Rules};

use crate::judge::quorum;
use crate::world::{Options, Random, World};
use crate::{MILLI, SECOND, scale, seeds};

pub(crate) fn skipping() -> Rules {
    Rules { opening: Vec::new(), skip_blocks: 1000, lag: 4 }
}

/// Every set of f of n.
fn placements(n: usize) -> Vec<Vec<usize>> {
    let f = (n - 1) / 3;
    let all = (0u32..1 << n).filter(|mask| mask.count_ones() as usize == f);
    all.map(|mask| (0..n).filter(|seat| mask >> seat & 1 == 1).collect()).collect()
}

#[test]
fn four_honest_validators_commit_what_comes_and_never_time_out() {
    let mut world = World::new(Options { load_us: 10_000, ..Options::new(1, 4) });
    world.run(5 * SECOND);
    assert!(world.lowest() > 500, "{}", world.lowest());
    assert_eq!(world.timeouts(), 0);
    assert!(world.places.iter().all(|place| place.mempool.len() < 10));
}

#[test]
fn an_idle_log_rests_and_wakes_at_once() {
    let mut options = Options::new(2, 4);
    options.config.idle = SECOND;
    let mut world = World::new(options);
    world.run(60 * SECOND);
    // Three blocks at the most for a turn of rest, and no timeout.
    assert!(world.lowest() <= 60, "{}", world.lowest());
    assert_eq!(world.timeouts(), 0);
    world.submit();
    let done = world.within(50 * MILLI, |world| world.places.iter().all(|place| place.mempool.is_empty()));
    assert!(done, "a transaction waits for the log to wake");
}

#[test]
fn messages_that_travel_as_bytes_are_what_was_sent() {
    let options = Options { wire: true, load_us: 20_000, loss: 20, ..Options::new(3, 4) };
    let mut world = World::new(options);
    world.run(2 * SECOND);
    assert!(world.lowest() > 50);
}

/// A3.
#[test]
fn commits_go_on_with_any_f_crashed_from_the_start_or_midway() {
    for n in [4, 7, 10] {
        let f = (n - 1) / 3;
        let step = if scale() > 1 { 1 } else { [1, 5, 30][f - 1] };
        let free = fault_free(n);
        for (index, dead) in placements(n).into_iter().enumerate().step_by(step) {
            for rules in [Rules { skip_blocks: 0, ..skipping() }, skipping()] {
                let skips = rules.skip_blocks > 0;
                let midway = index % 2 == 1;
                let options = slow_links(index as u64, n, rules);
                let mut world = World::new(options);
                if midway {
                    world.run(SECOND / 5);
                }
                dead.iter().for_each(|seat| world.crash(*seat));
                let from = world.now;
                world.run(3 * SECOND);
                let live =
                    world.honest().into_iter().find(|place| world.places[*place].core.is_some()).unwrap();
                let gap = world.longest_gap(live, from, world.now);
                // A round's timeout while f rounds in a row bring no commit.
                let view = world.options.config.round_timeout(3 + f as u64);
                let views = if f == 1 { 3 } else { f as u32 + 2 };
                assert!(gap <= view * views, "n={n} dead {dead:?} skips {skips}: no commit for {gap:?}");
                if skips {
                    let late =
                        world.places[live].commit_times.iter().filter(|at| **at > from.after(SECOND)).count();
                    let must = free * (n - f) / n * 8 / 10;
                    assert!(late >= must, "n={n} dead {dead:?}: {late} commits in 2 s, {free} fault-free");
                }
            }
        }
    }
}

fn slow_links(seed: u64, n: usize, rules: Rules) -> Options {
    Options { load_us: 10_000, delay_us: 5_000, rules, ..Options::new(seed, n) }
}

fn fault_free(n: usize) -> usize {
    let mut world = World::new(slow_links(0, n, skipping()));
    world.run(3 * SECOND);
    let from = wattle_types::Time::ZERO.after(SECOND);
    world.places[0].commit_times.iter().filter(|at| **at > from).count()
}

/// A6.
#[test]
fn a_minority_commits_nothing_and_all_are_equal_soon_after_a_partition_heals() {
    let splits: [&[u8]; 5] = [&[0, 0, 1, 1], &[0, 0, 0, 1], &[1, 0, 0, 0], &[0, 1, 2, 2], &[0, 1, 0, 1]];
    for seed in seeds(1) {
        let mut options = Options { load_us: 200_000, ..Options::new(seed, 4) };
        options.config.idle = 200 * MILLI;
        let mut world = World::new(options);
        for sides in splits {
            world.run(2 * SECOND);
            world.partition(sides);
            world.run(SECOND);
            let before: Vec<u64> = world.places.iter().map(|place| place.height()).collect();
            world.run(30 * SECOND);
            for (place, side) in sides.iter().enumerate() {
                let with = sides.iter().filter(|other| *other == side).count();
                let grew = world.places[place].height() > before[place];
                assert_eq!(grew, with >= quorum(4), "split {sides:?}, place {place}, seed {seed}");
            }
            let tip = world.places.iter().map(|place| place.height()).max().unwrap();
            world.cut.clear();
            let limit = world.options.config.timeout_max * 2 + 4 * 2 * MILLI;
            let commits = world.within(limit, |world| world.places.iter().any(|place| place.height() > tip));
            assert!(commits, "no commit {limit:?} after the split {sides:?} healed, seed {seed}");
            let equal = world.within(10 * SECOND, |world| world.lowest() > tip);
            assert!(equal, "not equal 10 s after the split {sides:?} healed, seed {seed}");
        }
    }
}

#[test]
fn links_that_work_one_way_only_stop_nobody() {
    for seed in seeds(4) {
        let mut world = World::new(Options { load_us: 50_000, ..Options::new(seed, 4) });
        for _ in 0..5 {
            world.cut.clear();
            // Each of two links loses one direction.
            for _ in 0..2 {
                let (from, to) = (world.random.below(4) as usize, world.random.below(4) as usize);
                world.cut.insert((from, to));
            }
            let before = world.places.iter().map(|place| place.height()).max().unwrap();
            let grows = world.within(10 * SECOND, |world| {
                world.places.iter().filter(|place| place.height() > before + 5).count() >= 3
            });
            if !grows {
                world.fail("one-way links stop the log");
            }
        }
        world.cut.clear();
        let tip = world.places.iter().map(|place| place.height()).max().unwrap();
        assert!(world.within(10 * SECOND, |world| world.lowest() > tip));
    }
}

/// A7.
#[test]
fn loss_repetition_reordering_and_delay_slow_the_log_and_never_stop_it() {
    for n in [4, 7] {
        let mut lossless = 0;
        for loss in [0, 20, 100, 200] {
            for seed in seeds(1) {
                let config = Config {
                    timeout: 1500 * MILLI,
                    timeout_max: 6 * SECOND,
                    retry: 500 * MILLI,
                    idle: 100 * MILLI,
                    fetch_retry: 300 * MILLI,
                    guards_key: true,
                };
                let (delay_us, jitter_us, load_us) = (1_000, 499_000, 250_000);
                let options = Options {
                    config,
                    loss,
                    double: 50,
                    delay_us,
                    jitter_us,
                    load_us,
                    ..Options::new(seed, n)
                };
                let mut world = World::new(options);
                let mut commits = 0;
                for _ in 0..3 {
                    let before = world.lowest();
                    world.run(60 * SECOND);
                    let more = world.lowest() - before;
                    assert!(more >= 1, "n={n} loss {loss}/1000: no commit in a minute, seed {seed}");
                    commits += more;
                }
                match loss {
                    0 => lossless = commits,
                    20 => {
                        assert!(
                            commits * 2 >= lossless,
                            "n={n}: {commits} commits of {lossless} at 2 % loss"
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A7b.
#[test]
fn unordered_links_a_node_a_block_behind_and_late_payloads_cause_no_view_change() {
    let options = Options { delay_us: 500, jitter_us: 4_000, load_us: 4_000, ..Options::new(5, 4) };
    let mut world = World::new(options);
    world.places[3].lag_us = 6_000;
    (0..3).for_each(|place| world.places[place].think_us = 2_000);
    world.run(SECOND);
    let (warm, from) = (world.timeouts(), world.places[0].round());
    world.run(Duration::from_secs(5 * scale()));
    let rounds = world.places[0].round() - from;
    let late = world.timeouts() - warm;
    assert!(rounds > 200 * scale() && late * 10_000 <= rounds * 4, "{late} timeouts in {rounds} rounds");
}

/// A7b.
#[test]
fn a_node_that_was_cut_off_votes_again_within_two_rounds_of_having_the_parent() {
    for seed in seeds(5) {
        let mut world = World::new(Options { load_us: 3_000, ..Options::new(seed, 4) });
        world.run(200 * MILLI);
        world.partition(&[0, 0, 0, 1]);
        // A few blocks: fetched by hash, not by height.
        world.within(SECOND, |world| world.places[0].height() > world.places[3].height() + 6);
        world.cut.clear();
        let caught = world.within(SECOND, |world| world.places[3].height() + 3 >= world.places[0].height());
        assert!(caught, "seed {seed}");
        let (votes, round) = (votes_of(&world, 3), world.places[3].round());
        world.within(SECOND, |world| world.places[3].round() >= round + 3);
        assert!(votes_of(&world, 3) > votes, "no vote in two rounds, seed {seed}");
    }
}

fn votes_of(world: &World, place: usize) -> u64 {
    world.places[place].core.as_ref().unwrap().counts().votes
}

/// Everything at once, by seed: the mix is drawn anew each time.
#[test]
fn whatever_mix_of_faults_comes_there_is_one_log_and_it_goes_on_when_they_end() {
    for seed in seeds(12) {
        let mut draw = Random(seed ^ 0xfau64);
        let n = [4, 5, 7][draw.below(3) as usize];
        let options = Options {
            loss: draw.below(150),
            double: draw.below(100),
            jitter_us: draw.below(30_000),
            disk_us: draw.below(5_000),
            load_us: 10_000,
            rules: if draw.chance(500) { skipping() } else { Options::new(0, 4).rules },
            ..Options::new(seed, n)
        };
        let mut world = World::new(options);
        for _ in 0..10 {
            world.run(Duration::from_millis(100 + draw.below(400)));
            let place = draw.below(n as u64) as usize;
            match draw.below(4) {
                0 if world.places[place].core.is_some() => world.crash(place),
                1 => {
                    let sides: Vec<u8> = (0..n).map(|_| draw.below(2) as u8).collect();
                    world.partition(&sides);
                }
                2 => world.cut.clear(),
                _ => {}
            }
            for place in 0..n {
                if world.places[place].core.is_none() && draw.chance(500) {
                    world.start(place);
                }
            }
        }
        world.cut.clear();
        (world.options.loss, world.options.double) = (0, 0);
        for place in 0..n {
            if world.places[place].core.is_none() {
                world.start(place);
            }
        }
        let tip = world.places.iter().map(|place| place.height()).max().unwrap();
        if !world.within(15 * SECOND, |world| world.lowest() > tip + 3) {
            world.fail("the log does not go on after the faults");
        }
    }
}
