//! An operator removes who is gone for good: from every list, for as long as it does not come back itself.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use wattle_swim::{
    Claim, Entry, Event, Input, Message, Reason, RemoveError, RequestId, Rumor, Signed, State, Timing,
};
use wattle_types::NetworkName;

use crate::world::{Options, World, key};
use crate::{MILLI, SECOND};

/// The operator of a node removes another.
fn remove(world: &mut World, at: usize, subject: usize) -> Result<(), RemoveError> {
    let (peer, before) = (world.nodes[subject].id, world.nodes[at].removals.len());
    world.handle(at, Input::Remove { request: RequestId(1), peer });
    world.until(SECOND, &mut |world| world.nodes[at].removals.len() > before).unwrap();
    *world.nodes[at].removals.last().unwrap()
}

fn claim(world: &World, author: usize, subject: usize, at: usize) -> Arc<Signed> {
    let (_, incarnation) = world.swim(at).standing(&world.nodes[subject].id).unwrap();
    world.sign(author, &Claim::Remove { subject: world.nodes[subject].id, incarnation })
}

/// A world in which one has died, and all know it.
fn with_one_dead(count: usize, dead: usize, options: Options) -> World {
    let mut world = World::new(count, options);
    world.crash(dead);
    world.until(15 * SECOND, &mut |world| world.all_see(dead, State::Faulty)).unwrap();
    world
}

fn is_listed(world: &World, node: usize, subject: usize) -> bool {
    let id = world.nodes[subject].id;
    world.swim(node).view().members.iter().any(|member| member.id == id)
}

#[test]
fn who_is_removed_is_in_no_list_and_everybody_hears_who_said_so() {
    let mut world = with_one_dead(12, 7, Options::new(61));
    assert_eq!(remove(&mut world, 3, 7), Ok(()));
    let took = world.until(3 * SECOND, &mut |world| world.all_see(7, State::Removed));
    assert!(took.is_some_and(|took| took < SECOND), "{took:?}");
    let operator = world.nodes[3].id;
    for node in world.up() {
        assert!(!is_listed(&world, node, 7), "n{node} lists it");
        let status = world.swim(node).status();
        assert_eq!((status.live, status.faulty, status.left, status.removed), (11, 0, 0, 1));
        let why = world.nodes[node].events.iter().rev().find_map(|(_, event)| match event {
            Event::MemberChanged { to: State::Removed, from: Some(State::Faulty), why, .. } => Some(why),
            _ => None,
        });
        assert!(why.is_some_and(|why| why.reason == Reason::Removed && why.accusers == [operator]));
    }
    assert!(world.until(10 * SECOND, &mut |world| world.agree()).is_some(), "M4");
}

#[test]
fn who_is_removed_stays_so_whatever_others_still_say_of_it() {
    let mut world = with_one_dead(12, 7, Options::new(62));
    // One has it as faulty, on its disk, and is away while it is removed. Another has never heard of anything.
    world.run(2 * SECOND);
    let record = Arc::clone(world.swim(0).record(&world.nodes[7].id).unwrap());
    let accusations: Vec<Arc<Signed>> = [1, 2, 4].iter().map(|it| world.accusation(*it, 7, 0)).collect();
    world.crash(5);
    world.until(15 * SECOND, &mut |world| world.all_see(5, State::Faulty)).unwrap();
    remove(&mut world, 3, 7).unwrap();
    world.until(3 * SECOND, &mut |world| world.all_see(7, State::Removed)).unwrap();
    world.start(5);
    let back = world.until(20 * SECOND, &mut |world| world.state(5, 7) == Some(State::Removed));
    assert!(back.is_some(), "who was away learns it");
    let newcomer = world.add(key(12));
    world.nodes[newcomer].seeds = vec![world.nodes[5].id];
    world.start(newcomer);
    world.until(5 * SECOND, &mut |world| world.swim(newcomer).status().live == 12).unwrap();
    // Nor is it told to one who never heard of it, and would be of no use to it.
    let removal = Some(claim(&world, 3, 7, 0));
    let entry = Entry {
        record: Arc::clone(&record),
        since: None,
        accusations: accusations.clone(),
        removal,
        age_s: 9,
    };
    let (from, records) = (world.nodes[1].id, vec![entry]);
    world.handle(newcomer, Input::Message { from, message: Message::Records { records, want: Vec::new() } });
    assert_eq!(world.state(newcomer, 7), None);
    for _ in 0..20 {
        let rumors = vec![
            Rumor::Claim(Arc::clone(&record)),
            Rumor::Claim(Arc::clone(&accusations[0])),
            Rumor::Dead(accusations.clone()),
        ];
        let records = vec![Entry {
            record: Arc::clone(&record),
            since: None,
            accusations: accusations.clone(),
            removal: None,
            age_s: 60,
        }];
        world.say(1, 0, rumors);
        let from = world.nodes[1].id;
        world.handle(0, Input::Message { from, message: Message::Records { records, want: Vec::new() } });
        world.run(SECOND);
        assert_eq!(world.state(0, 7), Some(State::Removed));
    }
    for node in world.up() {
        assert!(!is_listed(&world, node, 7), "n{node} lists it");
        assert!(world.swim(node).status().faulty == 0);
    }
    assert!(world.until(20 * SECOND, &mut |world| world.agree()).is_some(), "M4");
}

#[test]
fn who_was_removed_and_runs_comes_back_by_its_own_word() {
    for talks in [true, false] {
        let mut world = World::new(10, Options::new(63));
        world.nodes[9].side = 1;
        world
            .until(20 * SECOND, &mut |world| (0..9).all(|it| world.state(it, 9) == Some(State::Faulty)))
            .unwrap();
        let before = world.swim(0).standing(&world.nodes[9].id).unwrap().1;
        remove(&mut world, 0, 9).unwrap();
        world
            .until(3 * SECOND, &mut |world| (0..9).all(|it| world.state(it, 9) == Some(State::Removed)))
            .unwrap();
        let begun = world.now;
        world.nodes[9].side = 0;
        if talks {
            // As when a connection is made: it introduces itself.
            let peer = world.nodes[0].id;
            world.handle(9, Input::Join { peers: vec![peer] });
        }
        let back = world.until(40 * SECOND, &mut |world| world.all_see_all());
        assert!(back.is_some_and(|took| took < 15 * SECOND), "its own word brings it back: {talks} {back:?}");
        for node in 0..9 {
            let (_, incarnation) = world.swim(node).standing(&world.nodes[9].id).unwrap();
            assert!(incarnation > before && is_listed(&world, node, 9));
            assert!(world.changes(node, 9, begun).iter().any(|(_, to)| *to == State::Alive));
        }
        assert!(world.until(20 * SECOND, &mut |world| world.agree()).is_some(), "M4");
    }
}

#[test]
fn only_who_is_gone_can_be_removed() {
    let mut world = with_one_dead(8, 7, Options::new(64));
    assert_eq!(remove(&mut world, 0, 1), Err(RemoveError::StillThere(State::Alive)));
    assert_eq!(remove(&mut world, 0, 0), Err(RemoveError::Myself));
    let peer = key(77).node_id();
    world.handle(0, Input::Remove { request: RequestId(2), peer });
    assert_eq!(world.nodes[0].removals.last(), Some(&Err(RemoveError::Unknown)));
    assert_eq!(remove(&mut world, 0, 7), Ok(()));
    assert_eq!(remove(&mut world, 0, 7), Err(RemoveError::Unknown), "it is in no list any more");
    world.handle(0, Input::Leave);
    assert_eq!(remove(&mut world, 0, 1), Err(RemoveError::NotTakingPart));
    world.run(SECOND);
    assert_eq!(world.state(2, 1), Some(State::Alive));
}

#[test]
fn a_member_that_removes_everyone_removes_nobody_who_is_there() {
    let mut world = with_one_dead(12, 7, Options::new(65));
    let stranger = Signed::seal(
        &key(77),
        &NetworkName::default(),
        &Claim::Remove {
            subject: world.nodes[7].id,
            incarnation: world.swim(0).standing(&world.nodes[7].id).unwrap().1,
        },
    );
    world.say(1, 0, vec![Rumor::Claim(Arc::new(stranger.unwrap()))]);
    assert_eq!(world.state(0, 7), Some(State::Faulty), "nobody knows who says so");
    for _ in 0..30 {
        for subject in (0..12).filter(|it| ![1, 7].contains(it)) {
            for to in (0..12).filter(|it| ![1, 7].contains(it)) {
                let at = if subject == to { 1 } else { to };
                let word = claim(&world, 1, subject, at);
                world.say(1, to, vec![Rumor::Claim(word)]);
            }
        }
        world.run(SECOND);
    }
    assert!(world.all_see_all(), "who is there is there");
    assert_eq!(world.verdicts, 11, "one verdict at each, of the one that died");
    for victim in (0..12).filter(|it| ![1, 7].contains(it)) {
        let refuted = world.swim(victim).status().counts.refuted;
        assert!((1..=4).contains(&refuted), "n{victim} refuted {refuted} times in 30 s");
    }
    // What was said of an incarnation that is past does not remove who came back.
    let old = claim(&world, 1, 7, 0);
    world.start(7);
    world.until(5 * SECOND, &mut |world| world.all_see(7, State::Alive)).unwrap();
    world.crash(7);
    world.until(15 * SECOND, &mut |world| world.all_see(7, State::Faulty)).unwrap();
    world.say(1, 0, vec![Rumor::Claim(old)]);
    assert_eq!(world.state(0, 7), Some(State::Faulty));
}

#[test]
fn the_word_that_a_suspect_is_gone_waits_for_the_verdict() {
    for survives in [true, false] {
        let mut world = World::new(12, Options::new(66));
        let accusation = world.accusation(1, 7, 7);
        if !survives {
            world.crash(7);
        }
        world.say(1, 0, vec![Rumor::Claim(accusation)]);
        let word = claim(&world, 1, 7, 0);
        world.say(1, 0, vec![Rumor::Claim(word)]);
        assert_eq!(world.state(0, 7), Some(State::Suspect), "not before the verdict");
        assert!(is_listed(&world, 0, 7));
        let wanted = if survives { State::Alive } else { State::Removed };
        let begun = world.now;
        let took = world.until(20 * SECOND, &mut |world| world.all_see(7, wanted));
        assert!(took.is_some(), "{wanted:?}");
        let mut changes = world.changes(0, 7, begun);
        changes.retain(|(_, state)| *state != State::Suspect);
        if let [(verdict, State::Faulty), (removed, State::Removed)] = changes.as_slice() {
            assert_eq!(verdict, removed, "with the verdict, not after it");
        } else {
            assert!(survives, "{changes:?}");
        }
        world.run(20 * SECOND);
        assert!(world.all_see(7, wanted));
    }
}

/// Nothing is acknowledged that a crash in the next moment would undo.
#[test]
fn a_removal_is_answered_when_it_is_on_disk_and_not_before() {
    let mut world = with_one_dead(6, 5, Options { disk_ms: 400, ..Options::new(70) });
    // A batch that does not have it is under way already.
    world.crash(4);
    world.until(15 * SECOND, &mut |world| world.state(1, 4) == Some(State::Faulty)).unwrap();
    world.run(500 * MILLI);
    let peer = world.nodes[5].id;
    world.handle(1, Input::Remove { request: RequestId(1), peer });
    world.handle(1, Input::Remove { request: RequestId(2), peer });
    assert_eq!(world.nodes[1].removals, [Err(RemoveError::Unknown)], "the first waits for the disk");
    world.until(2 * SECOND, &mut |world| world.nodes[1].removals.len() == 2).unwrap();
    assert_eq!(world.nodes[1].removals[1], Ok(()));
    // Now everybody's process ends: only this disk can tell.
    (0..4).for_each(|node| world.crash(node));
    world.start(1);
    world.run(3 * SECOND);
    assert_eq!(world.state(1, 5), Some(State::Removed));
}

#[test]
fn a_removal_that_the_disk_does_not_take_is_not_said_to_be_done() {
    let mut world = with_one_dead(6, 5, Options::new(71));
    world.run(2 * SECOND);
    world.nodes[1].full = true;
    assert_eq!(remove(&mut world, 1, 5), Err(RemoveError::NotOnDisk));
    world.nodes[1].full = false;
    world.run(6 * SECOND);
    (0..5).for_each(|node| world.crash(node));
    world.start(1);
    world.run(3 * SECOND);
    assert_eq!(world.state(1, 5), Some(State::Removed), "it is tried again");
}

#[test]
fn nobody_tries_to_reach_who_was_removed() {
    let mut world = with_one_dead(6, 5, Options::new(67));
    let sent = Rc::new(Cell::new(0));
    let counter = Rc::clone(&sent);
    world.tap = Some(Box::new(move |_, to, _| counter.set(counter.get() + usize::from(to == 5))));
    world.run(40 * SECOND);
    assert!(sent.get() > 0, "who is faulty is tried again");
    remove(&mut world, 0, 5).unwrap();
    world.run(3 * SECOND);
    sent.set(0);
    world.run(120 * SECOND);
    assert_eq!(sent.get(), 0);
}

#[test]
fn who_was_removed_is_so_after_a_restart_and_is_forgotten_in_the_end() {
    for leaves in [true, false] {
        let timing = Timing { tombstone: 300 * SECOND, sync_every: 5 * SECOND, ..Timing::lan() };
        let mut world = World::new(6, Options { timing, ..Options::new(68) });
        if leaves {
            world.handle(5, Input::Leave);
            world.run(3 * SECOND);
        }
        world.crash(5);
        let state = if leaves { State::Left } else { State::Faulty };
        world.until(15 * SECOND, &mut |world| world.all_see(5, state)).unwrap();
        remove(&mut world, 1, 5).unwrap();
        world.until(3 * SECOND, &mut |world| world.all_see(5, State::Removed)).unwrap();
        world.run(2 * SECOND);
        // Everybody's process ends at once: only the disks remember.
        for node in 0..5 {
            world.crash(node);
        }
        let begun = world.now;
        for node in 0..5 {
            world.start(node);
        }
        world.run(20 * SECOND);
        assert!(world.all_see(5, State::Removed) && !is_listed(&world, 0, 5), "{leaves}");
        assert_eq!(world.changes(0, 5, begun), [], "nobody is told of it again");
        world.run(400 * SECOND);
        assert!((0..5).all(|node| world.state(node, 5).is_none()), "nobody keeps it");
        assert!((0..5).all(|node| world.nodes[node].disk.len() == 5), "nor does a disk");
        assert!(world.agree());
    }
}

/// What no fingerprint tells: it had left where the sleeper last looked, and was removed while the sleeper was away.
#[test]
fn who_left_and_was_removed_while_a_node_was_away_is_in_no_list_there() {
    for stops in [true, false] {
        let mut world = World::new(8, Options::new(69));
        world.handle(7, Input::Leave);
        world.run(3 * SECOND);
        world.crash(7);
        assert!(world.all_see(7, State::Left));
        if stops {
            world.crash(2);
        } else {
            world.nodes[2].side = 1;
        }
        let others: Vec<usize> = (0..7).filter(|node| *node != 2).collect();
        let gone = |world: &World| others.iter().all(|node| world.state(*node, 2) == Some(State::Faulty));
        world.until(20 * SECOND, &mut |world| gone(world)).unwrap();
        remove(&mut world, 4, 7).unwrap();
        world.run(60 * SECOND);
        assert!(stops || is_listed(&world, 2, 7), "it cannot know");
        if stops {
            world.start(2);
        } else {
            world.nodes[2].side = 0;
        }
        let took = world.until(30 * SECOND, &mut |world| world.all_see(7, State::Removed));
        assert!(took.is_some() && !is_listed(&world, 2, 7), "stopped: {stops}");
    }
}
