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

/// The data directory of a place is gone, but for the key; or is what it was when it had so many records.
fn wind_back(world: &mut World, place: usize, records: usize) {
    world.crash(place);
    let kept: Vec<_> = world.places[place].disk.log[..records].to_vec();
    let key = world.places[place].key.clone();
    let _last = world.add_place(key, false);
    let last = world.places.len() - 1;
    world.places.swap(place, last);
    let mut gone = world.places.pop().unwrap();
    let here = &mut world.places[place];
    here.life = gone.life + 1;
    let committed =
        |record: &Record| if let Record::Commit { blocks, .. } = record { blocks.len() } else { 0 };
    let commits: usize = kept.iter().map(|(_, record)| committed(record)).sum();
    here.chain = gone.chain.drain(..commits).collect();
    let of = |applied: &crate::world::Applied| transactions(&applied.block);
    here.ordered = here.chain.iter().flat_map(of).collect();
    here.mempool = gone.mempool;
    here.disk.log = kept;
    here.disk.have_synced(records);
}

/// Cuts a place off from all, or lets it back.
fn cut_off(world: &mut World, place: usize, cut: bool) {
    world.cut.clear();
    for other in (0..4).filter(|other| cut && *other != place) {
        world.cut.extend([(place, other), (other, place)]);
    }
}

/// Rule K. The judge knows every signature that ever left, whatever disk it was made with.
#[test]
fn a_validator_whose_data_directory_was_wiped_or_is_an_older_copy_signs_nothing_more() {
    for seed in seeds(12) {
        let mut world = World::new(Options { load_us: 3_000, ..Options::new(seed, 4) });
        world.run(100 * MILLI);
        // Nothing at all, or a copy of some time ago.
        let records = if seed % 3 == 0 { 0 } else { world.places[1].disk.synced };
        world.run((20 + 40 * seed as u32) * MILLI);
        wind_back(&mut world, 1, records);
        // Nobody tells it anything for a while.
        cut_off(&mut world, 1, seed % 2 == 0);
        world.start(1);
        world.run(300 * MILLI);
        cut_off(&mut world, 1, false);
        world.run(SECOND);
        let alarms = &world.places[1].alarms;
        assert!(matches!(alarms.as_slice(), [Alarm::RecordOld { .. }]), "{alarms:?}, seed {seed}");
        let core = world.places[1].core.as_ref().unwrap();
        assert_eq!(core.counts().votes, 0, "seed {seed}");
        assert!(!core.status().validator);
        let tip = world.places[0].height();
        assert!(world.within(SECOND, |world| world.places[1].height() > tip), "it follows, seed {seed}");
        // What showed it is on disk by now and not looked at again, so the record says it.
        world.crash(1);
        world.places[1].alarms.clear();
        world.start(1);
        world.run(SECOND);
        let alarms = &world.places[1].alarms;
        assert!(
            matches!(alarms.as_slice(), [Alarm::RecordOld { .. }]),
            "{alarms:?}, started again, seed {seed}"
        );
        assert_eq!(world.places[1].core.as_ref().unwrap().counts().votes, 0, "started again, seed {seed}");
    }
}

/// Rule K: one that never signed is no other than one whose disk was wiped, so it waits until the round after the one
/// in which it asked is certified; then it votes.
#[test]
fn a_validator_that_comes_late_for_the_first_time_waits_two_rounds_and_votes() {
    for seed in seeds(4) {
        let mut world = World::new(Options { load_us: 3_000, ..Options::new(seed, 4) });
        wind_back(&mut world, 3, 0);
        world.run(300 * MILLI);
        world.start(3);
        let votes = |world: &World| world.places[3].core.as_ref().map_or(0, |core| core.counts().votes);
        assert!(world.within(SECOND, |world| votes(world) > 10), "seed {seed}: {:?}", world.places[3].alarms);
        assert!(world.places[3].alarms.is_empty());
    }
}

/// Rule K: the others do not rest while one may not sign yet. So soon another one may die.
#[test]
fn a_log_that_rests_wakes_for_one_that_comes_late_and_lives_on_without_another() {
    for seed in seeds(4) {
        let mut options = Options::new(seed, 4);
        options.config.idle = 30 * SECOND;
        let mut world = World::new(options);
        wind_back(&mut world, 3, 0);
        for _ in 0..4 {
            world.submit();
            world.run(300 * MILLI);
        }
        world.run(3 * SECOND);
        world.start(3);
        let is_wary = |world: &World| world.places[3].core.as_ref().is_none_or(|core| core.status().wary);
        assert!(world.within(10 * MILLI, is_wary), "seed {seed}: it does not come late");
        assert!(world.within(3 * SECOND, |world| !is_wary(world)), "seed {seed}: it may not sign for long");
        world.crash(seed as usize % 3);
        world.submit();
        let lives = |place: &&crate::world::Place| place.core.is_some();
        let is_ordered =
            |world: &World| world.places.iter().filter(lives).all(|place| place.mempool.is_empty());
        assert!(
            world.within(10 * SECOND, is_ordered),
            "seed {seed}: nothing is ordered without the dead one"
        );
    }
}

/// Rule K: while the others cannot be heard nothing new is signed, and a quorum that starts goes on at once.
#[test]
fn a_validator_that_starts_alone_waits_for_a_quorum_before_it_signs() {
    let mut world = World::new(Options { load_us: 3_000, ..Options::new(1, 4) });
    world.run(200 * MILLI);
    world.crash(2);
    cut_off(&mut world, 2, true);
    world.start(2);
    let before = world.places[2].disk.log.len();
    world.run(2 * SECOND);
    let signed = world.places[2].disk.log.len() - before;
    assert!(signed <= 1, "{signed} records, and the first is of the start");
    cut_off(&mut world, 2, false);
    let votes = |world: &World| world.places[2].core.as_ref().map_or(0, |core| core.counts().votes);
    assert!(world.within(SECOND, |world| votes(world) > 5));
    assert!(world.places[2].alarms.is_empty());
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
