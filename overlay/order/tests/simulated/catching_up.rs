//! Rules F1 to F5: a node that was away gets the log from several, some of whom lie.

use crate::ranges::Serves;
use crate::world::{Options, World};
use crate::{MILLI, SECOND, seeds};

fn options(seed: u64, n: usize) -> Options {
    Options { ranges: true, load_us: 5_000, rules: crate::faults::skipping(), ..Options::new(seed, n) }
}

/// The last place was away for so long; whether it has caught up then, and how long that took.
fn catches_up(world: &mut World, away_ms: u32) -> std::time::Duration {
    let last = world.places.len() - 1;
    world.crash(last);
    world.run(MILLI * away_ms);
    world.start(last);
    let (began, goal) = (world.now, world.lowest_of(&[0]));
    let behind = goal - world.places[last].height();
    assert!(behind > 100, "it is only {behind} behind");
    if !world.within(30 * SECOND, |world| world.places[last].height() >= goal) {
        world.fail(&format!("it does not catch up: {:?}", world.places[last].ranged));
    }
    world.now.since(began)
}

/// A11's pure half.
#[test]
fn who_was_away_gets_the_log_from_all_who_have_it() {
    for seed in seeds(2) {
        let mut world = World::new(options(seed, 4));
        world.run(200 * MILLI);
        let took = catches_up(&mut world, 4_000);
        assert!(took < SECOND, "{took:?}");
        let ranged = &world.places[3].ranged;
        let shares =
            (0..3).map(|place| ranged.asked.iter().filter(|id| **id == world.places[place].id).count());
        assert!(
            shares.clone().all(|share| share > 0),
            "F4: not all were asked: {:?}",
            shares.collect::<Vec<_>>()
        );
        assert!(ranged.accused.is_empty());
        world.run(SECOND);
        assert!(world.places[3].core.as_ref().unwrap().counts().votes > 10, "and votes again");
    }
}

#[test]
fn liars_are_let_go_for_what_is_proven_and_the_slow_are_not_waited_for() {
    for seed in seeds(2) {
        for serves in [Serves::Garbled, Serves::Others, Serves::Never, Serves::Dribbles] {
            let mut world = World::new(options(seed, 4));
            world.run(200 * MILLI);
            world.places[1].ranged.serves = Some(serves);
            let took = catches_up(&mut world, 4_000);
            assert!(took < 3 * SECOND, "{took:?} with one that is {serves:?}");
            let accused = &world.places[3].ranged.accused;
            let guilty = [world.places[1].id];
            match serves {
                // One bit may make it of another epoch, which proves nothing; what it is then is not taken.
                Serves::Garbled => assert!(accused.is_empty() || *accused == guilty),
                Serves::Others => assert_eq!(*accused, guilty),
                Serves::Never | Serves::Dribbles => assert!(accused.is_empty(), "F2: that proves nothing"),
            }
        }
    }
}

#[test]
fn with_payload_by_batches_too() {
    for seed in seeds(2) {
        let mut world = World::new(Options { payload: Some(20_000), load_us: 2_000, ..options(seed, 4) });
        world.run(200 * MILLI);
        world.places[2].ranged.serves = Some(Serves::Garbled);
        let took = catches_up(&mut world, 2_000);
        assert!(took < 5 * SECOND, "{took:?}");
    }
}
