//! Twins (Bano et al., OPODIS 2021): liars that are two honest nodes with one key, and a network that is cut anew in
//! each round.

use std::sync::atomic::{AtomicU64, Ordering};

use wattle_order::Seat;

use crate::world::{Options, Random, World};
use crate::{MILLI, SECOND, each_seed, scale};

/// Rounds with a script, and rounds in which everybody hears everybody.
const SCRIPTED: u64 = 5;
const TAIL: u64 = 7;

/// Runs one scenario: who leads in each scripted round, and who is on which side. False if S, liveness or evidence
/// fails; the world says how.
fn run(mut world: World, scripted: u64) {
    let end = world.now.after(60 * SECOND);
    let honest = world.honest();
    let all_past =
        |world: &World, round: u64| honest.iter().all(|place| world.places[*place].round() > round);
    if !world.run_until(end, |world| all_past(world, scripted)) {
        world.fail("the scripted rounds do not end");
    }
    let before: Vec<u64> = honest.iter().map(|place| world.places[*place].height()).collect();
    let from = honest.iter().map(|place| world.places[*place].round()).max().unwrap();
    let twice = (world.options.twins as u64 * 2).max(1);
    let all_commit = |world: &World| {
        honest.iter().zip(&before).all(|(place, before)| world.places[*place].height() >= before + 2)
    };
    world.run_until(end, |world| {
        all_past(world, from + TAIL) && (all_commit(world) || all_past(world, from + TAIL * twice))
    });
    for (place, before) in honest.iter().zip(&before) {
        if world.places[*place].height() < before + 2 {
            world.fail(&format!(
                "place {place} committed less than two blocks in the rounds behind the script"
            ));
        }
    }
    world.run(20 * MILLI);
    check_evidence(&world);
}

/// Who heard two words of one validator and round found that out, or knows it from a block.
fn check_evidence(world: &World) {
    for (place, key) in &world.judge.due {
        let here = &world.places[*place];
        let found = here.evidence.iter().any(|evidence| evidence.key() == *key);
        let told = here.chain.iter().flat_map(|applied| &applied.block.block.evidence);
        let told = told.into_iter().any(|evidence| evidence.key() == *key);
        if here.honest() && !found && !told {
            world.fail(&format!("place {place} heard both words and does not know {key:?}"));
        }
    }
    for place in world.honest() {
        for evidence in &world.places[place].evidence {
            let seat = evidence.key().1;
            if seat.index() >= world.options.twins {
                world.fail(&format!("{:?} accuses an honest one", evidence.key()));
            }
        }
    }
}

fn world(n: usize, twins: usize, seed: u64, leaders: Vec<Seat>, script: Vec<Vec<u8>>) -> World {
    let mut options = Options::new(seed, n);
    options.twins = twins;
    options.rules.opening = leaders;
    options.jitter_us = 0;
    options.disk_us = 50;
    options.config.timeout = 20 * MILLI;
    options.config.timeout_max = 200 * MILLI;
    options.config.retry = 20 * MILLI;
    options.config.idle = MILLI;
    let mut world = World::new(options);
    world.script = script;
    world
}

/// The ways to cut five places (the twin is 0 and 4) in two, up to the names of the honest: how many of them are with
/// which twin.
fn cuts() -> Vec<Vec<u8>> {
    let all = (0u8..16)
        .map(|mask| (0..5).map(|place| if place == 0 { 0 } else { mask >> (place - 1) & 1 }).collect());
    all.collect()
}

/// The scenarios of A1: in each round one of 16 cuts and one of 4 leaders. Symmetric ones are merged: the names of the
/// honest validators are interchangeable, so of those that only swap them the first stays.
fn scenario(index: u64) -> Option<(Vec<Seat>, Vec<Vec<u8>>)> {
    let cuts = cuts();
    let (mut rest, mut leaders, mut script) = (index, Vec::new(), Vec::new());
    for _ in 0..SCRIPTED {
        leaders.push(Seat((rest % 4) as u16));
        script.push(cuts[(rest / 4 % 16) as usize].clone());
        rest /= 64;
    }
    // Among 1, 2, 3 the first to lead is 1, and 2 leads before 3.
    let first = |seat: u16| leaders.iter().position(|leader| leader.0 == seat).unwrap_or(usize::MAX);
    (first(1) <= first(2) && first(2) <= first(3)).then_some((leaders, script))
}

/// A1. All scenarios are 64^5, a sixth of them after merging: they are walked in equal steps, as many as there is time
/// for; `WATTLE_ORDER_SCALE` makes the steps smaller.
#[test]
fn every_small_twins_scenario_is_safe_live_and_leaves_evidence() {
    let count = 150 * scale();
    let all = 64u64.pow(SCRIPTED as u32);
    // Coprime to 64, so that every digit takes every value.
    let step = (all / (count * 3)) | 1;
    let done = AtomicU64::new(0);
    each_seed(450, |nth| {
        if let Some((leaders, script)) = scenario(nth * step % all) {
            run(world(4, 1, nth * step % all, leaders, script), SCRIPTED);
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let done = done.into_inner();
    assert!(done >= count / 2, "{done} scenarios");
}

/// A1, all of a smaller box: the same cut in every round, the twin or one honest validator leads.
#[test]
fn every_twins_scenario_with_one_cut_is_safe_live_and_leaves_evidence() {
    for cut in cuts() {
        for leaders in (0..32u32).step_by(if scale() == 1 { 8 } else { 1 }) {
            let leaders = (0..5).map(|round| Seat((leaders >> round & 1) as u16)).collect();
            run(world(4, 1, 0, leaders, vec![cut.clone(); 5]), SCRIPTED);
        }
    }
}

/// A2.
#[test]
fn random_twins_scenarios_are_safe_live_and_leave_evidence() {
    each_seed(40, |seed| {
        let mut draw = Random(seed);
        let (n, twins) = if draw.chance(700) { (7, 2) } else { (10, 3) };
        let leaders: Vec<Seat> = (0..8)
            .map(|_| {
                let twin = draw.chance(500);
                Seat(draw.below(if twin { twins } else { n }) as u16)
            })
            .collect();
        let script = (0..8)
            .map(|_| {
                let cuts = 1 + draw.below(3);
                (0..n + twins).map(|_| draw.below(cuts) as u8).collect()
            })
            .collect();
        run(world(n as usize, twins as usize, seed, leaders, script), 8);
    });
}
