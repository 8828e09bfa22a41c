//! The validators change by an ordered entry.

use wattle_order::{Epoch, Message};

use crate::world::{Options, World, keys, validators};
use crate::{MILLI, SECOND, seeds};

pub(crate) fn epoch_of(world: &World, place: usize) -> Epoch {
    world.places[place].core.as_ref().map_or(Epoch(0), |core| core.status().epoch)
}

/// Four validators, and three more places that follow.
pub(crate) fn with_followers(options: Options) -> World {
    let mut world = World::new(options);
    let committee = std::sync::Arc::clone(&world.committee);
    for key in keys(7).into_iter().filter(|key| committee.seat(&key.node_id()).is_none()) {
        let place = world.add_place(key, false);
        world.start(place);
    }
    world
}

/// The four from a place on order that others are the validators, and those enter their epoch.
pub(crate) fn change(world: &mut World, from: usize, to: std::ops::Range<usize>, epoch: u64) {
    change_with(world, from, to, &[], epoch);
}

/// The same, and some more are to be validators of whom nobody knows how they do.
fn change_with(world: &mut World, from: usize, to: std::ops::Range<usize>, more: &[usize], epoch: u64) {
    let chosen = to.clone().chain(more.iter().copied());
    let chosen: Vec<_> = chosen.map(|place| world.places[place].key.clone()).collect();
    let set = validators(&chosen);
    let entered = |world: &World| to.clone().all(|place| epoch_of(world, place) == Epoch(epoch));
    let done = if world.options.payload.is_some() {
        // Those who join are heard once somebody who votes wants them; so all say it until it is done.
        (0..20).any(|_| {
            let old =
                (from..from + 4).chain(to.clone()).filter(|place| epoch_of(world, *place) < Epoch(epoch));
            let old: Vec<usize> = old.collect();
            old.into_iter().for_each(|place| world.approve(place, &set, 50 * SECOND));
            world.within(SECOND, entered)
        })
    } else {
        for place in from..from + 4 {
            world.places[place].next_validators = Some(set.clone());
        }
        world.within(20 * SECOND, entered)
    };
    if !done {
        world.fail("the new validators do not enter their epoch");
    }
    world.places.iter_mut().for_each(|place| place.next_validators = None);
}

/// A10 in part.
#[test]
fn validators_are_replaced_under_load_with_crashes_and_nothing_is_lost() {
    for seed in seeds(3) {
        let mut world = with_followers(Options { load_us: 5_000, loss: 10, ..Options::new(seed, 4) });
        world.run(300 * MILLI);
        world.crash(0);
        change(&mut world, 0, 3..7, 2);
        world.start(0);
        let tip = world.places[4].height();
        assert!(world.within(5 * SECOND, |world| world.places[4].height() > tip + 20), "seed {seed}");
        world.crash(4);
        change(&mut world, 3, 0..4, 3);
        world.start(4);
        let tip = world.places[0].height();
        assert!(world.within(5 * SECOND, |world| world.places[0].height() > tip + 20), "seed {seed}");
        // Everybody who waited was ordered, once.
        let waits = world.places[0].mempool.len();
        assert!(waits < 100, "{waits} wait, seed {seed}");
    }
}

/// One that votes in both epochs and missed the end of the first fetches what led there by height.
#[test]
fn a_validator_that_was_away_while_the_epoch_ended_comes_into_the_next() {
    for seed in seeds(4) {
        let mut world = with_followers(Options { load_us: 5_000, ranges: true, ..Options::new(seed, 4) });
        world.run(300 * MILLI);
        world.crash(3);
        world.run(SECOND);
        change_with(&mut world, 0, 0..3, &[3, 4], 2);
        world.run(SECOND);
        world.start(3);
        if !world.within(5 * SECOND, |world| epoch_of(world, 3) == Epoch(2)) {
            world.fail("it stays in the epoch that is over");
        }
        let tip = world.places[0].height();
        assert!(world.within(5 * SECOND, |world| world.places[3].height() > tip + 20), "seed {seed}");
    }
}

/// Of the three that still vote one has the certificate that ends the epoch, leaves with it, and dies. The other two
/// are too few to end it anew.
#[test]
fn who_has_the_last_certificate_of_an_epoch_tells_it_to_the_others_before_it_leaves() {
    for seed in seeds(6) {
        let mut world = with_followers(Options { load_us: 5_000, ..Options::new(seed, 4) });
        world.run(300 * MILLI);
        world.crash(3);
        let chosen: Vec<_> = world.places[3..7].iter().map(|place| place.key.clone()).collect();
        let set = validators(&chosen);
        (0..3).for_each(|place| world.places[place].next_validators = Some(set.clone()));
        let has_left = |world: &World, place: usize| epoch_of(world, place) == Epoch(2);
        assert!(world.within(20 * SECOND, |world| (0..3).any(|place| has_left(world, place))));
        let first = (0..3).find(|place| has_left(&world, *place)).unwrap();
        world.crash(first);
        let others: Vec<usize> = (0..3).filter(|place| *place != first).collect();
        if !world.within(5 * SECOND, |world| others.iter().all(|place| has_left(world, *place))) {
            world.fail("they stay in the epoch that is over");
        }
    }
}

/// Who hears of an end that it knows does not answer with it.
#[test]
fn the_end_of_an_epoch_is_told_once_to_each_and_no_more() {
    let mut world = with_followers(Options { load_us: 5_000, keep: true, ..Options::new(3, 4) });
    world.run(300 * MILLI);
    change(&mut world, 0, 1..5, 2);
    world.run(2 * SECOND);
    let told = world.sent.iter().filter(|message| matches!(***message, Message::EpochEnded(_))).count();
    assert!((1..=7 * 7).contains(&told), "told {told} times");
}

/// A8 in an epoch's end: it is one record, so that a crash finds either epoch whole.
#[test]
fn a_crash_of_all_at_any_point_of_an_epochs_end_leaves_one_epoch_or_the_other() {
    for seed in seeds(12) {
        let mut world = with_followers(Options { load_us: 5_000, ..Options::new(seed, 4) });
        world.run(200 * MILLI);
        let chosen: Vec<_> = world.places[3..7].iter().map(|place| place.key.clone()).collect();
        let set = validators(&chosen);
        (0..4).for_each(|place| world.places[place].next_validators = Some(set.clone()));
        for place in 0..7 {
            world.places[place].fuse = Some(4 + (seed * 5 + place as u64 * 2) % 31);
        }
        world.run(SECOND / 2);
        for place in 0..7 {
            if world.places[place].core.is_some() {
                world.crash(place);
            }
            world.start(place);
        }
        let done = world.within(10 * SECOND, |world| (3..7).all(|place| epoch_of(world, place) >= Epoch(2)));
        if !done {
            world.fail("the new validators do not enter their epoch after the crash");
        }
        world.places.iter_mut().for_each(|place| place.next_validators = None);
        let tip = world.places[4].height();
        assert!(world.within(5 * SECOND, |world| world.places[4].height() > tip + 5), "seed {seed}");
    }
}
