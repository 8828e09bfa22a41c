//! The payload path with everything around it: what is handed in anywhere stands in the log of all, once.

use std::collections::BTreeSet;
use std::time::Duration;

use wattle_order::payloads::{Input, NotTaken, SubmitId, Submitter};
use wattle_order::{Alarm, Digest, Epoch, Payload};

use crate::carry::{Lie, entry, wall, whole};
use crate::epochs::{change, epoch_of, with_followers};
use crate::faults::skipping;
use crate::world::{Options, Place, World, validators};
use crate::{MILLI, SECOND, seeds};

/// Little goes inline, this much by batches.
const LITTLE: usize = 40;
const MUCH: usize = 20_000;

fn options(seed: u64, n: usize, bytes: usize) -> Options {
    let load_us = if bytes == LITTLE { 1_000 } else { 2_000 };
    Options { payload: Some(bytes), load_us, rules: skipping(), ..Options::new(seed, n) }
}

/// No more comes.
fn quiet(world: &mut World) {
    world.options.load_us = 3600 * 1_000_000;
}

/// What somebody took and did not say to be over.
fn taken(world: &World) -> BTreeSet<u64> {
    let answers = world.places.iter().filter(|place| place.honest()).flat_map(|place| &place.carried.answers);
    answers.filter(|(_, result)| result.is_ok()).map(|(number, _)| *number).collect()
}

/// Everything that was taken stands in the log of every honest place, with all that is committed.
fn all_is_everywhere(world: &mut World, within: Duration) {
    quiet(world);
    let taken = taken(world);
    let done = |world: &World| {
        let honest = world.places.iter().filter(|place| place.honest() && place.core.is_some());
        let behind =
            |place: &Place| place.carried.machine.as_ref().is_some_and(|machine| machine.status().behind > 0);
        honest.into_iter().all(|place| taken.is_subset(&place.ordered) && !behind(place))
    };
    if !world.within(within, done) {
        let honest = world.places.iter().filter(|place| place.honest());
        let missing: Vec<_> = honest
            .map(|place| {
                let status = place.carried.machine.as_ref().map(|machine| machine.status());
                (taken.difference(&place.ordered).take(5).copied().collect::<Vec<_>>(), status)
            })
            .collect();
        world.fail(&format!("what was taken is not everywhere: {missing:?}"));
    }
}

/// Four places whose log rests for half a minute. Who leads next comes from how many entries came before the last.
fn rested(before: usize, bytes: usize) -> World {
    let mut options = Options { load_us: 0, ..options(before as u64, 4, bytes) };
    options.config.idle = 30 * SECOND;
    let mut world = World::new(options);
    for _ in 0..=before {
        world.submit();
        world.run(200 * MILLI);
    }
    all_is_everywhere(&mut world, SECOND);
    world.run(SECOND);
    world
}

/// Whether all that live have it in their log.
fn is_everywhere(world: &World, tx: u64) -> bool {
    world.places.iter().filter(|place| place.core.is_some()).all(|place| place.ordered.contains(&tx))
}

/// How many blocks of all places went inline, by batches, and by batches with something left out.
fn shapes(world: &World) -> (u64, u64, u64) {
    let shapes = world.places.iter().map(|place| place.carried.shapes);
    shapes.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
}

#[test]
fn what_is_handed_in_anywhere_is_ordered_once_on_all_inline_or_by_batches() {
    for seed in seeds(4) {
        for bytes in [LITTLE, MUCH] {
            let mut world = World::new(options(seed, 4, bytes));
            world.run(2 * SECOND);
            all_is_everywhere(&mut world, 2 * SECOND);
            let (inline, batches, parts) = shapes(&world);
            if bytes == LITTLE {
                assert!(inline > 100 && batches == 0, "{inline} {batches}");
            } else {
                assert!(batches > 100 && parts > 0, "{inline} {batches} {parts}");
            }
            assert_eq!(world.timeouts(), 0, "seed {seed}, {bytes} bytes");
            assert!(taken(&world).len() > 800);
        }
    }
}

/// A log that rests hears of nobody's death: who sees a round begin all the same counts from then.
#[test]
fn one_that_died_while_the_log_rested_delays_the_next_entry_by_rounds_and_not_by_a_rest() {
    for (dead, first, before) in (0..64).map(|case| (case % 4, case / 4 % 4, case / 16)) {
        if dead == first {
            continue;
        }
        for bytes in [LITTLE, MUCH] {
            let mut world = rested(before, bytes);
            world.crash(dead);
            world.run(SECOND);
            let tx = world.next();
            world.hand_to(first, tx);
            let rounds = (2..6).map(|since| world.options.config.round_timeout(since)).sum();
            if !world.within(rounds, |world| is_everywhere(world, tx)) {
                world.fail(&format!(
                    "{bytes} bytes at {first} wait while {dead} is dead, after {before} and one"
                ));
            }
        }
    }
}

/// What a leader offered in a round that failed is in no log: the others learn of it, though another one leads next.
#[test]
fn what_was_offered_without_a_quorum_is_ordered_within_rounds_of_its_return() {
    for (back, gone, before) in (0..64).map(|case| (case % 4, case / 4 % 4, case / 16)) {
        if back == gone {
            continue;
        }
        for first in (0..4).filter(|first| ![back, gone].contains(first)) {
            let mut world = rested(before, LITTLE);
            world.crash(back);
            world.crash(gone);
            world.run(SECOND);
            let tx = world.next();
            world.hand_to(first, tx);
            world.run(3 * SECOND);
            world.start(back);
            // What was told into the void is told again within this.
            let patience = world.options.config.timeout_max * 2;
            if !world.within(patience, |world| is_everywhere(world, tx)) {
                world.fail(&format!("what {first} has waits while {gone} is dead, and {back} was"));
            }
        }
    }
}

/// Whoever alone has something to order ends the rest of all others: its block, or its batch, was lost to them.
#[test]
fn what_one_alone_has_is_ordered_within_rounds_though_all_others_rest() {
    let mut crashed = 0;
    for (first, other, before) in (0..64).map(|case| (case % 4, case / 4 % 4, case / 16)) {
        for bytes in [LITTLE, MUCH] {
            let mut world = rested(before, bytes);
            // Only the other hears of it at first, if that is another. Who has a batch needs its author no more.
            let sides: Vec<u8> = (0..4).map(|place| u8::from(place == first || place == other)).collect();
            world.partition(&sides);
            let batches = world.places[other].carried.disk.len();
            let tx = world.next();
            world.hand_to(first, tx);
            world.run(50 * MILLI);
            if world.places[other].carried.disk.len() > batches && first != other {
                crashed += 1;
                world.crash(first);
            }
            world.cut.clear();
            let rounds = (2..10).map(|since| world.options.config.round_timeout(since)).sum();
            if !world.within(rounds, |world| is_everywhere(world, tx)) {
                world.fail(&format!(
                    "{bytes} bytes that {other} alone has from {first}, after {before} and one"
                ));
            }
        }
    }
    assert!(crashed > 20, "{crashed} authors of a batch died");
}

#[test]
fn loss_and_crashes_lose_nothing_that_a_living_node_took() {
    for seed in seeds(3) {
        for bytes in [LITTLE, MUCH] {
            let mut world = World::new(Options { loss: 30, double: 30, ..options(seed, 4, bytes) });
            for victim in [0, 2, 1] {
                world.run(700 * MILLI);
                // What only this one has is gone with it.
                let before = taken(&world);
                world.crash(victim);
                let lost: Vec<u64> = before.into_iter().collect();
                let here = &mut world.places[victim].carried.answers;
                lost.iter().for_each(|number| drop(here.remove(number)));
                world.run(300 * MILLI);
                world.start(victim);
            }
            world.run(500 * MILLI);
            all_is_everywhere(&mut world, 20 * SECOND);
        }
    }
}

#[test]
fn twins_and_partitions_order_nothing_twice() {
    for seed in seeds(4) {
        let mut world = World::new(Options { twins: 1, loss: 10, ..options(seed, 4, MUCH) });
        for round in 0..6 {
            let sides: Vec<u8> =
                (0..world.places.len()).map(|place| ((place as u64 + seed + round) % 2) as u8).collect();
            world.partition(&sides);
            world.run(300 * MILLI);
        }
        world.cut.clear();
        world.run(SECOND);
        all_is_everywhere(&mut world, 20 * SECOND);
    }
}

/// A13 in part: it gives its batches to one only. What is committed can be had all the same, and who had to serve its
/// batches leaves it out for a while.
#[test]
fn one_who_withholds_its_batches_holds_nothing_up_for_long() {
    let mut struck = 0;
    for seed in seeds(4) {
        let mut world = World::new(options(seed, 4, MUCH));
        world.places[0].carried.lie = Some(Lie::Withholds);
        for _ in 0..20 {
            world.run(100 * MILLI);
            let late = |place: &Place| place.carried.machine.as_ref().unwrap().status().late;
            struck += world.places.iter().filter(|place| late(place).contains(&world.places[0].id)).count();
        }
        let commits = world.lowest();
        assert!(commits > 150, "{commits}, seed {seed}");
        // What is handed to the liar is its own business.
        let only_there: Vec<u64> = world.places[0].carried.answers.keys().copied().collect();
        let elsewhere: BTreeSet<u64> =
            world.places[1..].iter().flat_map(|place| place.carried.answers.keys().copied()).collect();
        for number in only_there.iter().filter(|number| !elsewhere.contains(number)) {
            world.places[0].carried.answers.remove(number);
        }
        all_is_everywhere(&mut world, 10 * SECOND);
    }
    assert!(struck > 0, "nobody left it out");
}

/// A13 in part: a batch that nobody has. The round times out, nothing of it is committed, and the log goes on.
#[test]
fn a_batch_that_nobody_has_is_never_committed() {
    for seed in seeds(4) {
        let mut world = World::new(options(seed, 4, LITTLE));
        world.places[3].carried.lie = Some(Lie::Invents);
        let mut struck = 0;
        for _ in 0..80 {
            world.run(50 * MILLI);
            let late = |place: &Place| place.carried.machine.as_ref().unwrap().status().late;
            struck += world.places[..3].iter().filter(|place| late(place) == [world.places[3].id]).count();
        }
        assert!(world.lowest() > 40, "{}", world.lowest());
        assert!(struck > 0, "nobody left it out, seed {seed}");
        let invented = Digest::from_bytes([9; 32]);
        for applied in world.places.iter().flat_map(|place| &place.chain) {
            if let Payload::Batches(batches) = &applied.block.block.payload {
                assert!(batches.iter().all(|batch| batch.batch != invented));
            }
        }
        world.places[3].carried.answers.clear();
        all_is_everywhere(&mut world, 10 * SECOND);
    }
}

#[test]
fn what_a_liar_orders_again_gets_no_vote() {
    for seed in seeds(3) {
        for bytes in [LITTLE, MUCH] {
            let mut world = World::new(options(seed, 4, bytes));
            world.places[1].carried.lie = Some(Lie::Repeats);
            world.run(3 * SECOND);
            assert!(world.lowest() > 30, "{}", world.lowest());
            assert!(world.timeouts() > 0, "it did not even try, seed {seed}");
            all_is_everywhere(&mut world, 20 * SECOND);
        }
    }
}

#[test]
fn one_who_answers_nobody_and_one_who_crashes_leave_every_committed_block_whole() {
    for seed in seeds(3) {
        let mut world = World::new(Options { loss: 100, ..options(seed, 4, MUCH) });
        world.places[2].carried.lie = Some(Lie::Pretends);
        world.run(800 * MILLI);
        world.crash(3);
        world.run(400 * MILLI);
        world.start(3);
        world.places[3].carried.answers.clear();
        world.run(500 * MILLI);
        world.options.loss = 20;
        all_is_everywhere(&mut world, 20 * SECOND);
    }
}

#[test]
fn a_slow_disk_votes_for_nothing_that_it_has_not_stored() {
    // The judge looks at each vote.
    let mut world = World::new(options(5, 4, MUCH));
    world.places[1].disk.slow_us = Some(20_000);
    world.run(3 * SECOND);
    assert!(world.lowest() > 100, "{}", world.lowest());
    all_is_everywhere(&mut world, 5 * SECOND);
}

#[test]
fn one_whose_disk_takes_no_batch_says_nothing_of_them_and_the_others_go_on() {
    let mut world = World::new(options(6, 4, MUCH));
    world.run(500 * MILLI);
    world.places[2].carried.broken = true;
    let before = world.places[0].height();
    world.run(2 * SECOND);
    assert!(world.places[0].height() > before + 100, "{}", world.places[0].height());
    let batches = shapes(&world).1;
    assert!(batches > 50, "{batches}");
    // It would keep what it took to itself.
    let entry = whole(&entry(1, LITTLE, wall(world.now.after(5 * SECOND))));
    world.tell_payloads(2, Input::Submit { id: SubmitId(1), from: Submitter::Here, entry });
    assert_eq!(world.places[2].carried.answers[&1], Err(NotTaken::Disk));
}

#[test]
fn validators_change_under_load_and_followers_hand_in_too() {
    for seed in seeds(2) {
        let mut world = with_followers(Options { loss: 5, ..options(seed, 4, MUCH) });
        world.run(500 * MILLI);
        change(&mut world, 0, 3..7, 2);
        world.run(700 * MILLI);
        change(&mut world, 3, 0..4, 3);
        world.run(500 * MILLI);
        all_is_everywhere(&mut world, 30 * SECOND);
        let handed: usize = world.places[4..].iter().map(|place| place.carried.answers.len()).sum();
        assert!(handed > 200, "{handed}");
        assert_eq!(world.places[0].core.as_ref().unwrap().status().epoch, Epoch(3));
    }
}

/// N: three of four want one new validator, whoever of these says so.
#[test]
fn validators_change_when_a_quorum_and_all_who_join_approve_and_not_before() {
    for seed in seeds(2) {
        let mut world = with_followers(Options { load_us: 20_000, ..options(seed, 4, LITTLE) });
        world.run(300 * MILLI);
        let keys: Vec<_> = [1, 2, 3, 4].map(|place: usize| world.places[place].key.clone()).into();
        let next = validators(&keys);
        let epoch = |world: &World| epoch_of(world, 1).0;
        // Two of four are no quorum, and who leaves need not agree.
        for place in [1, 2, 4] {
            world.approve(place, &next, 50 * SECOND);
            world.run(SECOND);
        }
        assert_eq!(epoch(&world), 1, "two of four are a quorum, seed {seed}");
        // A third wants others first.
        let others = validators(&world.places[..4].iter().map(|place| place.key.clone()).collect::<Vec<_>>());
        world.approve(3, &others, 50 * SECOND);
        world.run(SECOND);
        assert_eq!(epoch(&world), 1, "seed {seed}");
        let wanted = &world.places[0].carried.machine.as_ref().unwrap().status().changes;
        let wanted: BTreeSet<usize> = wanted.iter().map(|change| change.approved.len()).collect();
        assert_eq!(wanted, BTreeSet::from([1, 3]));
        world.approve(3, &next, 50 * SECOND);
        if !world.within(SECOND, |world| [1, 2, 3, 4].iter().all(|place| epoch_of(world, *place) == Epoch(2)))
        {
            world.fail("all agree, and the validators do not change");
        }
        all_is_everywhere(&mut world, 10 * SECOND);
        // The machines of one place hear of the end one after the other.
        let changes =
            |place: &Place| place.carried.machine.as_ref().is_some_and(|it| !it.status().changes.is_empty());
        let over = world.within(10 * MILLI, |world| !world.places.iter().any(changes));
        assert!(over, "what was approved is kept, seed {seed}");
    }
}

/// N: who joins is not taken for ready without its word, nor after its word is over.
#[test]
fn nobody_is_made_a_validator_without_its_word_or_by_one_that_is_over() {
    let mut world = with_followers(Options { load_us: 20_000, ..options(3, 4, LITTLE) });
    world.run(300 * MILLI);
    let keys: Vec<_> = [0, 1, 2, 4].map(|place: usize| world.places[place].key.clone()).into();
    let next = validators(&keys);
    // What it says before anybody who votes wants it is not heard.
    world.approve(4, &next, 50 * SECOND);
    world.run(SECOND);
    (0..4).for_each(|place| world.approve(place, &next, 10 * SECOND));
    world.run(5 * SECOND);
    assert_eq!(epoch_of(&world, 0), Epoch(1), "one who said nothing in time votes");
    world.run(6 * SECOND);
    world.approve(4, &next, 50 * SECOND);
    world.run(2 * SECOND);
    assert_eq!(epoch_of(&world, 0), Epoch(1), "words that are over count");
    (0..4).for_each(|place| world.approve(place, &next, 10 * SECOND));
    world.run(SECOND / 2);
    world.approve(4, &next, 50 * SECOND);
    assert!(world.within(SECOND, |world| epoch_of(world, 4) == Epoch(2)));
}

/// N: a leader that ends the epoch as it likes is not voted for, and the log goes on in its epoch.
#[test]
fn a_leader_that_names_validators_nobody_approved_ends_nothing() {
    let mut world = with_followers(Options { load_us: 5_000, ..options(4, 4, LITTLE) });
    world.run(300 * MILLI);
    let keys: Vec<_> = world.places[3..7].iter().map(|place| place.key.clone()).collect();
    world.places[1].next_validators = Some(validators(&keys));
    let tip = world.places[0].height();
    assert!(world.within(10 * SECOND, |world| world.places[0].height() > tip + 40));
    assert!((0..7).all(|place| epoch_of(&world, place) == Epoch(1)));
}

/// The minority commits nothing, and says of each entry when its time is over; after it heals all goes on.
#[test]
fn a_minority_says_that_its_entries_are_over() {
    let mut world = World::new(Options { load_us: 0, ..options(7, 4, LITTLE) });
    world.partition(&[0, 1, 1, 1]);
    let entry = whole(&entry(1, LITTLE, wall(world.now.after(5 * SECOND))));
    let hash = entry.transaction();
    world.tell_payloads(0, Input::Submit { id: SubmitId(1), from: Submitter::Here, entry });
    assert_eq!(world.places[0].carried.answers[&1], Ok(hash));
    world.run(4 * SECOND);
    assert!(world.places[0].carried.expired.is_empty());
    world.run(2 * SECOND);
    assert_eq!(world.places[0].carried.expired, BTreeSet::from([hash]));
    world.cut.clear();
    world.run(10 * SECOND);
    assert!(world.places.iter().all(|place| !place.ordered.contains(&1)), "it is ordered after it was over");
}

/// A restart reads only what could come again, and orders nothing twice.
#[test]
fn after_hours_and_a_restart_of_all_what_was_ordered_is_not_ordered_again() {
    for seed in seeds(2) {
        let mut world = World::new(options(seed, 4, LITTLE));
        world.run(SECOND);
        let early: Vec<u64> = taken(&world).into_iter().take(50).collect();
        (0..4).for_each(|place| world.crash(place));
        (0..4).for_each(|place| world.start(place));
        world.run(200 * MILLI);
        // Its clients did not hear and hand it in again.
        early.iter().for_each(|number| world.hand_to((*number % 4) as usize, *number));
        world.run(SECOND);
        quiet(&mut world);
        world.run(SECOND);
        let refused = |place: &Place| {
            early
                .iter()
                .filter(|number| place.carried.answers.get(number).is_some_and(Result::is_err))
                .count()
        };
        let refused: usize = world.places.iter().map(refused).sum();
        assert!(refused > 0, "what is ordered is refused at the door, seed {seed}");
        assert!(world.lowest() > 200);
    }
}

/// A19: the root of what was applied is agreed some blocks later. One that computes another stops voting and says so.
#[test]
fn one_whose_app_makes_another_state_of_the_same_entries_stops_voting_and_says_so() {
    for bytes in [LITTLE, MUCH] {
        let mut world = World::new(options(8, 4, bytes));
        world.run(500 * MILLI);
        let tip = world.places[2].height();
        world.places[2].wrong_from = Some(tip + 1);
        world.run(SECOND);
        let status = world.places[2].core.as_ref().unwrap().status();
        assert!(status.quarantined, "it does not notice");
        let alarm = |alarm: &Alarm| matches!(alarm, Alarm::StateDiffers { height, .. } if height.0 > tip);
        assert!(world.places[2].alarms.iter().any(alarm), "{:?}", world.places[2].alarms);
        let votes = world.places[2].core.as_ref().unwrap().counts().votes;
        let before = world.places[0].height();
        world.run(SECOND);
        assert_eq!(world.places[2].core.as_ref().unwrap().counts().votes, votes, "it votes");
        assert!(world.places[0].height() > before + 20, "the others go on");
        assert!(world.places[0].alarms.is_empty());
    }
}
