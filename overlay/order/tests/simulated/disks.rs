//! Crashes at every persistence point, torn records, slow and broken disks.

use wattle_order::{Alarm, Record};
use wattle_types::cbor;

use crate::faults::skipping;
use crate::world::{Options, World, transactions};
use crate::{MILLI, SECOND, scale, seeds};

/// The first moment after `fuse` persistence points of these places: each stops there, and starts again a little
/// later.
fn crash_and_go_on(seed: u64, places: &[usize], fuses: &[u64]) {
    let mut world = World::new(Options { load_us: 3_000, ..Options::new(seed, 4) });
    world.run(100 * MILLI);
    for (place, fuse) in places.iter().zip(fuses) {
        world.places[*place].fuse = Some(*fuse);
    }
    world.within(SECOND, |world| places.iter().all(|place| world.places[*place].core.is_none()));
    // Where the others stopped before, one alone does not come to its point.
    let up: Vec<usize> = places.iter().copied().filter(|place| world.places[*place].core.is_some()).collect();
    up.iter().for_each(|place| world.crash(*place));
    world.run(10 * MILLI);
    places.iter().for_each(|place| world.start(*place));
    let tip = world.places.iter().map(|place| place.height()).max().unwrap();
    // A8: two timeouts after the last restart, and the few rounds that a commit takes.
    let limit = world.options.config.round_timeout(4) * 2 + 50 * MILLI;
    if !world.within(limit, |world| world.lowest() > tip) {
        world.fail(&format!("no commit {limit:?} after {places:?} stopped at {fuses:?}"));
    }
    world.run(100 * MILLI);
}

/// A8.
#[test]
fn a_crash_at_any_persistence_point_forgets_nothing_that_was_said() {
    for fuse in 1..=24 * scale() {
        crash_and_go_on(fuse, &[(fuse % 4) as usize], &[fuse]);
    }
}

/// A8.
#[test]
fn all_crash_at_once_and_the_log_goes_on_without_repair() {
    for seed in seeds(16) {
        let fuses: Vec<u64> = (0..4).map(|place| 1 + (seed * 7 + place * 3) % 23).collect();
        crash_and_go_on(seed, &[0, 1, 2, 3], &fuses);
    }
}

/// A8.
#[test]
fn one_that_crashes_again_and_again_never_contradicts_itself() {
    for seed in seeds(4) {
        let mut world = World::new(Options { load_us: 3_000, ..Options::new(seed, 4) });
        for _ in 0..30 {
            let fuse = 1 + world.random.below(40);
            world.places[1].fuse = Some(fuse);
            world.within(SECOND, |world| world.places[1].core.is_none());
            world.run(5 * MILLI);
            if world.places[1].core.is_none() {
                world.start(1);
            }
        }
        let tip = world.places.iter().map(|place| place.height()).max().unwrap();
        assert!(world.within(5 * SECOND, |world| world.lowest() > tip), "seed {seed}");
    }
}

/// A8: a record that was cut anywhere is not a record, so the log ends before it.
#[test]
fn a_record_torn_at_any_byte_is_no_record() {
    let mut world = World::new(Options { load_us: 3_000, ..Options::new(1, 4) });
    world.places[2].lag_us = 90_000;
    world.run(SECOND);
    let mut kinds = std::collections::BTreeSet::new();
    for (_, record) in &world.places[1].disk.log {
        let kind = std::mem::discriminant(record);
        if !kinds.insert(format!("{kind:?}")) {
            continue;
        }
        let bytes = cbor::encode(record);
        let again = cbor::decode::<Record>(&bytes, bytes.len()).unwrap();
        assert_eq!(cbor::encode(&again), bytes);
        for end in 0..bytes.len() {
            assert!(cbor::decode::<Record>(&bytes[..end], bytes.len()).is_err(), "torn at {end}");
        }
    }
    assert_eq!(kinds.len(), 3, "safety, block and commit");
}

#[test]
fn one_whose_safety_record_is_lost_signs_nothing_and_says_so() {
    let mut world = World::new(Options { load_us: 3_000, ..Options::new(1, 4) });
    world.run(200 * MILLI);
    world.crash(0);
    world.places[0].disk.log.retain(|(_, record)| !matches!(record, Record::Safety(_)));
    world.places[0].disk.synced = world.places[0].disk.log.len();
    world.start(0);
    world.run(SECOND);
    assert_eq!(world.places[0].alarms, [Alarm::RecordLost]);
    assert_eq!(world.places[0].core.as_ref().unwrap().counts().votes, 0);
    // It follows all the same.
    let tip = world.places[1].height();
    assert!(world.within(SECOND, |world| world.places[0].height() > tip));
}

/// A9.
#[test]
fn a_slow_disk_of_one_costs_little_and_nothing_leaves_before_its_fsync() {
    let commits = |slow_us: Option<u64>| {
        let mut world =
            World::new(Options { load_us: 10_000, delay_us: 3_000, rules: skipping(), ..Options::new(1, 4) });
        world.places[2].disk.slow_us = slow_us;
        world.run(2 * SECOND);
        world.places[0].chain.iter().map(|applied| transactions(&applied.block).len()).sum::<usize>()
    };
    let free = commits(None);
    for slow_us in [50_000, 500_000, 5_000_000] {
        let slow = commits(Some(slow_us));
        assert!(slow * 10 >= free * 7, "{slow} transactions with an fsync of {slow_us} us, {free} without");
    }
}

/// A9. Seven fsyncs in a row: a proposal's and a vote's in each of two rounds, the one under way when a transaction
/// comes, the proposal's that tells the followers, and that of the commit itself.
#[test]
fn slow_disks_of_all_cost_seven_fsyncs_and_no_more() {
    let latency = |disk_us: u64| {
        let mut options = Options { load_us: 20_000, disk_us, ..Options::new(1, 4) };
        options.config.timeout = 400 * MILLI;
        let mut world = World::new(options);
        world.run(5 * SECOND);
        (world.median_latency(0), world.timeouts())
    };
    let ((base, _), (slow, timeouts)) = (latency(200), latency(50_000));
    assert!(slow <= base + 7 * 50 * MILLI, "{slow:?}, and {base:?} with quick disks");
    assert_eq!(timeouts, 0);
}

/// A9.
#[test]
fn one_whose_disk_fails_stops_signing_and_the_others_go_on() {
    let mut world = World::new(Options { load_us: 3_000, rules: skipping(), ..Options::new(1, 4) });
    world.run(200 * MILLI);
    world.places[3].disk.broken = true;
    world.run(100 * MILLI);
    let votes = world.places[3].core.as_ref().unwrap().counts().votes;
    let tip = world.places[0].height();
    world.run(2 * SECOND);
    assert_eq!(world.places[3].alarms.first(), Some(&Alarm::DiskFailed));
    assert_eq!(world.places[3].core.as_ref().unwrap().counts().votes, votes);
    assert!(world.places[0].height() > tip + 100);
}
