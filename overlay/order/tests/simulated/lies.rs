//! Validators that lie on purpose, and an application that is not deterministic.

use std::sync::Arc;

use wattle_order::{Alarm, Message, Offence, Record, Round, SafetyRecord, To, Vote, VoteData};

use crate::faults::skipping;
use crate::liars::{Liar, Signer};
use crate::world::{Options, World};
use crate::{MILLI, SECOND, each_seed, seeds};

fn lying(seed: u64, n: usize, liar: &Liar) -> World {
    // A liar does not care what its key signed elsewhere.
    let mut world = World::new(Options { load_us: 5_000, guards_key: false, ..Options::new(seed, n) });
    // The last f seats.
    (n - (n - 1) / 3..n).for_each(|place| world.places[place].liar = Some(liar.clone()));
    world
}

fn told(world: &World, place: usize, offence: Offence) -> Vec<(u16, Round, u64)> {
    let chain = world.places[place].chain.iter();
    let keys = chain.flat_map(|applied| {
        let round = applied.block.header().round.0;
        applied.block.block.evidence.iter().map(move |evidence| (evidence.key(), round))
    });
    let of = keys.filter(|((kind, _, _), _)| *kind == offence);
    of.map(|((_, seat, about), round)| (seat.0, about, round)).collect()
}

/// A4.
#[test]
fn a_leader_that_tells_two_blocks_is_proved_a_liar_in_a_block_within_ten_rounds() {
    let free = {
        let mut world = World::new(Options { load_us: 5_000, rules: skipping(), ..Options::new(1, 4) });
        world.run_until(world.now.after(30 * SECOND), |world| world.places[0].round() > 200);
        (world.places[0].height() as u128, world.now.as_micros())
    };
    for seed in seeds(1) {
        let mut world = World::new(Options { load_us: 5_000, rules: skipping(), ..Options::new(seed, 4) });
        world.places[3].liar = Some(Liar::Equivocates { rounds: 20..150 });
        world.run_until(world.now.after(30 * SECOND), |world| world.places[0].round() > 200);
        for place in 0..3 {
            let told = told(&world, place, Offence::Proposals);
            assert!(!told.is_empty(), "no evidence at place {place}, seed {seed}");
            for (seat, about, round) in told {
                assert!(seat == 3 && round <= about.0 + 10, "{seat} {about:?} in round {round}, seed {seed}");
            }
        }
        let commits = world.places[0].height() as u128;
        assert!(commits * 10 >= free.0 * 7, "{commits} commits in 200 rounds, {} without a liar", free.0);
    }
}

/// A5.
#[test]
fn one_that_votes_for_everything_is_proved_guilty_and_nobody_else() {
    for (n, seed) in [4, 7].into_iter().flat_map(|n| seeds(2).map(move |seed| (n, seed))) {
        let mut world = lying(seed, n, &Liar::VotesForAll);
        world.run(SECOND / 2);
        assert!(world.lowest() > 30, "n={n}, seed {seed}");
        // Its second vote of a round names no commit, so it differs from the honest one.
        for place in world.honest() {
            let guilty: Vec<u16> =
                world.places[place].evidence.iter().map(|evidence| evidence.key().1.0).collect();
            assert!(!guilty.is_empty() && guilty.iter().all(|seat| usize::from(*seat) >= n - (n - 1) / 3));
            assert!(!told(&world, place, Offence::Votes).is_empty());
        }
    }
}

/// A5.
#[test]
fn one_that_hides_its_lock_is_proved_guilty_and_nobody_else() {
    for seed in seeds(3) {
        let mut world = lying(seed, 4, &Liar::Forgets);
        world.run(300 * MILLI);
        // Rounds time out, and it says that it knows nothing.
        for _ in 0..4 {
            world.crash(0);
            world.run(700 * MILLI);
            world.start(0);
            world.run(300 * MILLI);
        }
        let guilty: Vec<_> = world.places[1].evidence.iter().map(|evidence| evidence.key()).collect();
        assert!(guilty.iter().any(|(offence, _, _)| *offence == Offence::Amnesia), "{guilty:?}, seed {seed}");
        assert!(guilty.iter().all(|(_, seat, _)| seat.0 == 3), "{guilty:?}, seed {seed}");
        let tip = world.places[1].height();
        assert!(world.within(5 * SECOND, |world| world.lowest() > tip + 5), "seed {seed}");
    }
}

/// A5.
#[test]
fn one_that_forgets_what_it_signed_at_random_breaks_nothing() {
    each_seed(6, |seed| {
        let mut world = World::new(Options { load_us: 5_000, loss: 30, ..Options::new(seed, 4) });
        world.places[3].liar = Some(Liar::Stale);
        for _ in 0..12 {
            let pause = 20 + world.random.below(80) as u32;
            world.run(pause * MILLI);
            world.crash(3);
            let keep = world.random.below(3) as usize;
            forget(&mut world, 3, keep);
            world.start(3);
        }
        let tip = world.places[0].height();
        if !world.within(10 * SECOND, |world| world.lowest() > tip + 5) {
            world.fail("the log does not go on beside one that forgets");
        }
        for place in 0..3 {
            assert!(
                world.places[place].evidence.iter().all(|evidence| evidence.key().1.0 == 3),
                "seed {seed}"
            );
        }
    });
}

/// Replaces the safety records of a place by an early one.
fn forget(world: &mut World, place: usize, keep: usize) {
    let log = &mut world.places[place].disk.log;
    let early: Vec<SafetyRecord> = log
        .iter()
        .filter_map(|(_, record)| match record {
            Record::Safety(safety) => Some((**safety).clone()),
            _ => None,
        })
        .collect();
    let early = early[keep.min(early.len() - 1)].clone();
    for (_, record) in log.iter_mut() {
        if let Record::Safety(safety) = record {
            **safety = early.clone();
        }
    }
}

#[test]
fn leaders_that_are_silent_stale_or_keep_certificates_cost_time_and_nothing_else() {
    for liar in [Liar::Silent, Liar::Stale, Liar::Withholds] {
        for n in [4, 7] {
            for seed in seeds(2) {
                let mut world = lying(seed, n, &liar);
                world.options.loss = 10;
                world.run(4 * SECOND);
                let tip = world.lowest();
                assert!(tip > 10, "{liar:?} n={n}: {tip}, seed {seed}");
                // Timeouts give the stale one its chance.
                world.crash(0);
                world.run(SECOND);
                world.start(0);
                assert!(
                    world.within(10 * SECOND, |world| world.lowest() > tip + 10),
                    "{liar:?}, seed {seed}"
                );
            }
        }
    }
}

/// A14.
#[test]
fn votes_and_timeouts_of_far_rounds_move_nobody_and_take_no_room() {
    let mut world = World::new(Options { load_us: 5_000, ..Options::new(1, 4) });
    world.places[3].liar = Some(Liar::Silent);
    world.run(300 * MILLI);
    let free = world.median_latency(0);
    for step in 0..40u64 {
        for far in 0..25u64 {
            let round = world.places[0].round() + 1 + (1 << (far * 5 % 63)) + step;
            let signer = Signer::of(&world, 3);
            let genesis = wattle_order::Qc::genesis(signer.checker.committee());
            let data = VoteData { round: Round(round), parent_round: Round(round - 1), ..genesis.data };
            let vote: Vote = signer.vote(data);
            world.transmit(3, To::All, &Arc::new(Message::Vote(vote)));
        }
        world.run(10 * MILLI);
        for place in 0..3 {
            let kept = world.places[place].core.as_ref().unwrap().kept();
            assert!(kept.collected < 4 * 12 && kept.noted < 4 * 100, "{kept:?}");
        }
    }
    assert!(world.places[0].round() < 2_000, "a round without a certificate");
    world.run(SECOND);
    assert!(world.median_latency(0) <= free * 3);
}

/// A19.
#[test]
fn one_whose_application_differs_stops_voting_and_says_so_and_the_others_go_on() {
    let mut world = World::new(Options { load_us: 5_000, rules: skipping(), ..Options::new(1, 4) });
    world.places[2].wrong_from = Some(50);
    let alarmed = world.within(10 * SECOND, |world| !world.places[2].alarms.is_empty());
    assert!(alarmed && matches!(world.places[2].alarms[0], Alarm::StateDiffers { .. }));
    // k + 2 blocks, and those that were under way.
    assert!(world.places[2].height() <= 50 + world.options.rules.lag + 2 + 3, "{}", world.places[2].height());
    let votes = world.places[2].core.as_ref().unwrap().counts().votes;
    let tip = world.places[0].height();
    world.run(3 * SECOND);
    assert_eq!(world.places[2].core.as_ref().unwrap().counts().votes, votes);
    assert!(world.places[0].height() > tip + 100);
    assert!([0, 1, 3].iter().all(|place| world.places[*place].alarms.is_empty()));
}

/// A19.
#[test]
fn where_too_many_differ_the_log_halts_and_vouches_for_no_state() {
    let mut world = World::new(Options { load_us: 5_000, ..Options::new(1, 4) });
    world.places[1].wrong_from = Some(50);
    world.places[2].wrong_from = Some(50);
    world.run(5 * SECOND);
    assert!(world.lowest() >= 49);
    let tip = world.places.iter().map(|place| place.height()).max().unwrap();
    world.run(10 * SECOND);
    assert!(world.places.iter().all(|place| place.height() == tip || place.height() + 3 > tip));
    for place in &world.places {
        let vouched = place.chain.last().unwrap().block.header().executed.height;
        assert!(vouched.0 < 50, "{vouched:?}");
    }
}
