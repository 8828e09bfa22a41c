//! What must hold while the network, or some members, do badly.

use wattle_swim::{Event, State, Timing};

use crate::world::{Options, Pause, World};
use crate::{MILLI, SECOND};

/// Acceptance 2: members that lose most of what comes bury nobody, and know that they are the ones.
#[test]
fn deaf_members_bury_nobody_at_members_that_are_well() {
    let mut world = World::new(30, Options::new(21));
    for node in 0..3 {
        world.nodes[node].deaf = 800;
    }
    let (mut health, mut samples) = (0, 0);
    for _ in 0..90 {
        world.run(SECOND);
        health += (0..3).map(|node| world.swim(node).status().health).sum::<u32>();
        samples += 3;
    }
    assert!(world.false_positives.iter().all(|it| !it.healthy), "M2: {:?}", world.false_positives);
    assert!(world.false_positives.len() <= 2, "nor at the deaf: {:?}", world.false_positives);
    assert!(health >= 4 * samples, "they know it: {health} in {samples}");
    for node in 0..3 {
        world.nodes[node].deaf = 0;
    }
    let healed = world.until(10 * SECOND, &mut |world| world.all_see_all());
    assert!(healed.is_some(), "all see all within 10 s");
}

/// Acceptance 3: one cannot hear another, and both hear the rest.
#[test]
fn a_member_that_only_one_cannot_hear_is_never_faulty() {
    for connected in [100, 0] {
        let mut world = World::new(10, Options { connected, ..Options::new(22) });
        world.cut.insert((1, 0));
        world.run(240 * SECOND);
        assert_eq!(world.verdicts, 0, "connected {connected}");
        let counts = world.swim(0).status().counts;
        assert!(counts.indirect + counts.fallback > 10, "by other ways: {counts:?}");
        assert!(world.all_see_all());
    }
}

/// Acceptance 4 and M6, Rapid section 7: some hear nothing for 20 s, then everything, again and again.
#[test]
fn members_that_flip_between_deaf_and_well_are_judged_once_a_cycle() {
    (23..33).for_each(flip);
}

fn flip(seed: u64) {
    let mut world = World::new(25, Options { connected: 0, ..Options::new(seed) });
    world.run(5 * SECOND);
    for _ in 0..3 {
        let cycle = world.now;
        for deaf in [1000, 0] {
            for node in 0..3 {
                world.nodes[node].deaf = deaf;
                world.nodes[node].unwell_until = world.now.after(30 * SECOND);
            }
            world.run(20 * SECOND);
        }
        for observer in 3..25 {
            for flipping in 0..3 {
                let changes = world.changes(observer, flipping, cycle);
                let faulty = changes.iter().filter(|(_, to)| *to == State::Faulty).count();
                assert!(
                    faulty <= 1,
                    "M6: n{flipping} was faulty {faulty} times in a cycle at n{observer}, seed {seed}"
                );
            }
        }
        assert!(
            world.until(3 * SECOND, &mut |world| world.all_see_all()).is_some(),
            "well means alive, seed {seed}"
        );
    }
    assert!(
        world.false_positives.iter().all(|it| !it.healthy),
        "M2 at seed {seed}: {:?}",
        world.false_positives
    );
}

/// Acceptance 5: a fifth of the members is stopped and goes on, by every rhythm.
#[test]
fn stopped_members_make_nobody_else_faulty() {
    for (stopped, running_ms) in [(1, 1000), (4, 250), (16, 1000)] {
        let mut world = World::new(20, Options::new(24));
        let begun = world.now;
        while world.now.since(begun) < 60 * SECOND {
            for node in 0..4 {
                world.pause(node, stopped * SECOND, false);
            }
            world.run(stopped * SECOND + running_ms as u32 * MILLI);
        }
        assert!(world.false_positives.is_empty(), "M2 {stopped}: {:?}", world.false_positives);
        assert!(stopped > 1 || world.verdicts == 0, "one second is no reason");
        let stalls: u64 = (0..4).map(|node| world.swim(node).status().counts.stalls).sum();
        assert!(stalls > 0, "they noticed that they were away");
        for node in 0..4 {
            // A member that was away holds nobody faulty for what it did not hear meanwhile.
            let verdicts = world.nodes[node].events.iter().filter(|(_, it)| {
                matches!(it, Event::MemberChanged { to: State::Faulty, member, .. }
                    if world.index[member] >= 4)
            });
            assert_eq!(verdicts.count(), 0);
        }
    }
}

/// Lifeguard, section V: IO stands still while timers run, so nobody notices that he was away.
#[test]
fn members_whose_io_stands_still_make_nobody_else_faulty() {
    let mut world = World::new(30, Options { connected: 0, ..Options::new(25) });
    let begun = world.now;
    while world.now.since(begun) < 90 * SECOND {
        for node in 0..6 {
            world.pause(node, 8 * SECOND, true);
        }
        world.run(8 * SECOND + 250 * MILLI);
    }
    assert!(world.false_positives.iter().all(|it| !it.healthy), "M2: {:?}", world.false_positives);
}

/// Acceptance 11: both parts list the other as faulty, and find each other when they can.
#[test]
fn parts_that_were_split_find_each_other() {
    let mut world = World::new(24, Options::new(26));
    for node in 0..10 {
        world.nodes[node].side = 1;
    }
    let parted = |world: &World| {
        (0..24).all(|node| {
            (0..24)
                .filter(|it| (*it < 10) != (node < 10))
                .all(|it| world.state(node, it) == Some(State::Faulty))
        })
    };
    assert!(world.until(90 * SECOND, &mut |world| parted(world)).is_some(), "M1");
    world.run(60 * SECOND);
    let doubts = |it: usize| {
        world.nodes[it].events.iter().any(|(_, event)| *event == Event::SelfSuspect { begins: true })
    };
    assert!((0..10).all(doubts), "who loses most of the group doubts itself");
    for node in 0..10 {
        world.nodes[node].side = 0;
    }
    let healed = world.until(20 * SECOND, &mut |world| world.all_see_all());
    assert!(healed.is_some_and(|took| took < 10 * SECOND), "{healed:?}");
    assert!(world.until(20 * SECOND, &mut |world| world.agree()).is_some(), "M4");
    let over = |world: &World| (0..24).all(|node| !world.swim(node).view().self_suspect);
    assert!(world.until(30 * SECOND, &mut |world| over(world)).is_some());
}

/// Acceptance 12: loss, jitter and reordering make nobody faulty, and hide nobody who is.
#[test]
fn a_fifth_of_all_packets_lost_hides_no_death_and_makes_none() {
    let mut world = World::new(30, Options { loss: 200, jitter_us: 50_000, double: 50, ..Options::new(27) });
    world.run(60 * SECOND);
    assert_eq!(world.verdicts, 0, "M2");
    for victim in [3, 13, 23] {
        world.crash(victim);
        let took = world.until(15 * SECOND, &mut |world| world.all_see(victim, State::Faulty));
        assert!(took.is_some(), "M1: n{victim}");
        world.run(5 * SECOND);
    }
    assert!(world.false_positives.is_empty(), "M2: {:?}", world.false_positives);
    let refuted: u64 = world.up().iter().map(|node| world.swim(*node).status().counts.failed).sum();
    assert!(refuted > 0, "some probes did fail");
}

/// What loss costs does not grow with the group: a probe that failed is made again before all are told of it. Who has
/// heard everything for a while accuses at once.
#[test]
fn who_loses_a_fifth_of_all_packets_accuses_when_two_probes_fail_in_a_row() {
    let mut world = World::new(50, Options { loss: 200, connected: 0, ..Options::new(29) });
    world.run(30 * SECOND);
    let sums = |world: &World| {
        let counts: Vec<_> = world.up().iter().map(|node| world.swim(*node).status().counts).collect();
        (counts.iter().map(|it| it.failed).sum(), counts.iter().map(|it| it.accused).sum())
    };
    let before: (u64, u64) = sums(&world);
    world.run(60 * SECOND);
    let (failed, accused) = (sums(&world).0 - before.0, sums(&world).1 - before.1);
    assert!(failed >= 20 && accused <= failed / 5, "{failed} probes failed, {accused} accusations");
    world.options.loss = 0;
    world.run(2 * SECOND);
    for (victim, probes) in [(7, 2), (8, 1)] {
        world.crash(victim);
        let before = sums(&world);
        let took = world.until(5 * SECOND, &mut |world| sums(world).0 > before.0);
        assert!(took.is_some(), "n{victim} is not probed");
        assert_eq!(sums(&world).1 - before.1, 2 - probes, "one probe of n{victim} failed");
        let took = world.until(700 * MILLI, &mut |world| sums(world).1 > before.1);
        assert!(took.is_some(), "who probed n{victim} does not probe it again");
        world.run(60 * SECOND);
    }
}

/// Acceptance 15: who starts again and again is not told of each time.
#[test]
fn a_member_that_flaps_is_told_of_now_and_then() {
    let mut world = World::new(12, Options::new(28));
    world.run(5 * SECOND);
    let begun = world.now;
    for _ in 0..60 {
        world.crash(5);
        world.run(200 * MILLI);
        world.start(5);
        world.run(800 * MILLI);
    }
    let spans = world.now.since(begun).as_secs() as usize;
    for observer in (0..12).filter(|it| *it != 5) {
        let told = world.changes(observer, 5, begun).len();
        assert!(told >= 2 && told <= 6 + 2 * spans / 5 + 2, "n{observer} was told {told} times in {spans} s");
        assert!(world.swim(observer).status().queue < 64, "the queue is bounded by the members");
    }
    assert!(world.until(10 * SECOND, &mut |world| world.all_see_all()).is_some());
    assert!(world.false_positives.is_empty());
}

/// Swarm: each seed draws its own faults; then they end, and all must be well (M1 to M4).
#[test]
fn whatever_goes_wrong_is_right_again_when_it_ends() {
    let (mut suspected, mut cleared, mut verdicts, mut refuted, mut chances, mut stalls) = (0, 0, 0, 0, 0, 0);
    for seed in 100..150 {
        let mut world = swarm(seed);
        let reproduce = format!("seed {seed}: {:?}", world.options);
        world.options.loss = 0;
        world.options.double = 0;
        world.cut.clear();
        for node in 0..world.nodes.len() {
            (world.nodes[node].deaf, world.nodes[node].side) = (0, 0);
        }
        let wide_awake = |world: &World| world.nodes.iter().all(|it| it.pause == Pause::No);
        assert!(world.until(15 * SECOND, &mut |world| wide_awake(world)).is_some());
        let dead: Vec<usize> = (0..world.nodes.len()).filter(|node| !world.is_up(*node)).collect();
        let well = world.until(60 * SECOND, &mut |world| {
            world.all_see_all() && dead.iter().all(|it| world.all_see(*it, State::Faulty))
        });
        assert!(well.is_some(), "M1, M2: {reproduce}");
        assert!(world.until(20 * SECOND, &mut |world| world.agree()).is_some(), "M4: {reproduce}");
        let before = world.verdicts;
        world.run(20 * SECOND);
        assert_eq!(world.verdicts, before, "it stays so: {reproduce}");
        for node in world.up() {
            world.swim(node).check_invariants();
            let counts = world.swim(node).status().counts;
            suspected += counts.suspected;
            cleared += counts.cleared;
            refuted += counts.refuted;
            chances += counts.chances_taken;
            stalls += counts.stalls;
        }
        verdicts += world.verdicts;
        assert_eq!(world.rejected, 0, "nobody sends what another rejects: {reproduce}");
        let blamed: usize = world.nodes.iter().map(|it| it.misbehaved.len()).sum();
        assert_eq!(blamed, 0, "nobody honest is blamed: {reproduce}");
    }
    assert!(
        suspected > 100 && cleared > 50 && verdicts > 50 && refuted > 20 && stalls > 5,
        "nothing was tested"
    );
    assert!(chances > 0, "no last chance was taken");
}

/// A minute of what the seed draws: loss, doubling, deaf and stopped members, cuts, splits, crashes.
fn swarm(seed: u64) -> World {
    let mut world = World::new(10, Options { timing: Timing::sim(), ..Options::new(seed) });
    world.options.loss = [0, 50, 300][world.draw(3) as usize];
    world.options.double = [0, 200][world.draw(2) as usize];
    world.options.jitter_us = [400, 30_000, 200_000][world.draw(3) as usize];
    world.options.connected = [0, 50, 100][world.draw(3) as usize];
    for _ in 0..20 {
        let (node, other) = (world.draw(10) as usize, world.draw(10) as usize);
        match world.draw(8) {
            0 => world.crash(node),
            1 if !world.is_up(node) => world.start(node),
            2 => world.nodes[node].deaf = [0, 800, 1000][other % 3],
            3 => {
                let (span, blocked) = (world.draw(12_000) as u32 * MILLI, world.draw(2) == 0);
                world.pause(node, span, blocked);
            }
            4 => drop(world.cut.insert((node, other))),
            5 => world.cut.clear(),
            6 => {
                let side = world.draw(2) as u32;
                (0..10).filter(|it| it % 3 == node % 3).for_each(|it| world.nodes[it].side = side);
            }
            _ => {}
        }
        world.run(3 * SECOND);
    }
    world
}
