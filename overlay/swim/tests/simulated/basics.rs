//! Joining, failing, refuting, leaving.

use wattle_swim::State;

use crate::SECOND;
use crate::world::{Options, World};

#[test]
fn members_that_join_through_one_see_each_other() {
    let mut world = World::empty(12, Options::new(1));
    world.start(0);
    let seed = world.nodes[0].id;
    for node in 1..12 {
        world.nodes[node].seeds = vec![seed];
        world.start(node);
    }
    let took = world.until(5 * SECOND, &mut |world| {
        (0..12).all(|node| world.swim(node).status().live == 12) && world.agree()
    });
    assert!(took.is_some(), "{:?}", (0..12).map(|node| world.swim(node).status().live).collect::<Vec<_>>());
    world.run(30 * SECOND);
    assert!(world.false_positives.is_empty());
    println!("joined {took:?}");
}

#[test]
fn a_member_that_dies_is_faulty_at_all_others() {
    let mut world = World::new(20, Options::new(2));
    world.run(30 * SECOND);
    assert_eq!(world.verdicts, 0);
    world.crash(7);
    let took = world.until(15 * SECOND, &mut |world| world.all_see(7, State::Faulty));
    println!("dead {took:?}");
    assert!(took.is_some());
    assert!(world.false_positives.is_empty());
}
