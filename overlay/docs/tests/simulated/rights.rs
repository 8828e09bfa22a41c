//! Writers that become readers and writers again: what each replica keeps of them, whenever it heard.

use std::collections::BTreeSet;
use std::time::Duration;

use wattle_docs::{DocError, Event, Input, Outcome, Role};
use wattle_types::{DocId, Table};

use crate::SECOND;
use crate::replicas::again;
use crate::world::{Faults, World, put};

pub(crate) fn grant(
    world: &mut World,
    by: usize,
    doc: DocId,
    whom: usize,
    role: Role,
) -> Result<Outcome, DocError> {
    let to = world.nodes[whom].id;
    world.ask(by, |request| Input::Grant { request, doc, to, role })
}

fn role(world: &World, at: usize, doc: DocId, of: usize) -> Option<Role> {
    world.nodes[at].replica.as_ref().unwrap().members(&doc).unwrap().role(&world.nodes[of].id)
}

/// These replicas hold the same document and the same feeds, and know it of each other.
pub(crate) fn assert_equal(world: &mut World, doc: DocId, nodes: &[usize], why: &str) {
    let first = nodes[0];
    let saved = again(&world.save(first, doc).unwrap());
    let ids: BTreeSet<_> = nodes.iter().map(|node| world.nodes[*node].id).collect();
    for node in nodes {
        assert_eq!(world.heads(*node, doc), world.heads(first, doc), "{why}: heads of node {node}");
        assert_eq!(world.said(*node, doc), world.said(first, doc), "{why}: feeds of node {node}");
        assert!(again(&world.save(*node, doc).unwrap()) == saved, "{why}: bytes of node {node}");
        let status = world.nodes[*node].replica.as_ref().unwrap().status(&doc).unwrap();
        let unequal: Vec<_> =
            status.peers.iter().filter(|peer| ids.contains(&peer.peer) && !peer.in_sync).collect();
        assert!(unequal.is_empty(), "{why}: node {node} differs from {unequal:?}");
    }
}

/// Alice founds, Bob and Carol write, and Dave has a ticket that he has not used.
fn four(seed: u64) -> (World, DocId) {
    let mut world = World::new(4, seed, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.invite(0, 2, doc, Role::Writer);
    world.connect_all();
    world.run(SECOND);
    (world, doc)
}

#[test]
fn what_a_writer_wrote_stays_when_it_becomes_a_reader_and_comes_to_who_joins_late() {
    let (mut world, doc) = four(1);
    world.put(1, doc, "by bob", "x").unwrap();
    world.say(1, doc, "says bob").unwrap();
    world.run(SECOND);
    grant(&mut world, 0, doc, 1, Role::Reader).unwrap();
    world.run(SECOND);
    assert_eq!(role(&world, 2, doc, 1), Some(Role::Reader));
    let refused = Err(DocError::NotAllowed { needed: "writer", held: "a reader" });
    assert_eq!(world.put(1, doc, "after", "x"), refused);
    assert_eq!(world.say(1, doc, "after").map(drop), refused.map(drop));
    world.put(2, doc, "by carol", "x").unwrap();
    world.invite(0, 3, doc, Role::Writer);
    world.connect_all();
    world.run(10 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3], "a reader now");
    assert_eq!(world.keys(3, doc), BTreeSet::from(["title", "by bob", "by carol"].map(str::to_owned)));
    assert_eq!(world.said(3, doc), ["says bob"]);
    // A writer again, it goes on.
    grant(&mut world, 0, doc, 1, Role::Writer).unwrap();
    world.run(SECOND);
    world.put(1, doc, "again", "x").unwrap();
    world.say(1, doc, "and again").unwrap();
    world.run(10 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3], "a writer again");
    assert!(world.keys(3, doc).contains("again"));
    assert_eq!(world.said(3, doc), ["says bob", "and again"]);
}

#[test]
fn what_a_former_writer_goes_on_writing_apart_is_nowhere_when_all_are_back() {
    for promoted in [false, true] {
        let (mut world, doc) = four(2);
        world.put(1, doc, "before", "x").unwrap();
        world.say(1, doc, "before").unwrap();
        world.run(SECOND);
        for other in [0, 3] {
            world.disconnect(other, 1);
            world.disconnect(other, 2);
        }
        grant(&mut world, 0, doc, 1, Role::Reader).unwrap();
        // Bob has not heard of it; Carol hears him.
        world.put(1, doc, "meanwhile", "x").unwrap();
        world.say(1, doc, "meanwhile").unwrap();
        world.run(SECOND);
        assert!(world.keys(2, doc).contains("meanwhile"));
        assert_eq!(world.said(2, doc), ["before", "meanwhile"]);
        world.connect_all();
        world.run(10 * SECOND);
        if promoted {
            grant(&mut world, 0, doc, 1, Role::Writer).unwrap();
            world.run(SECOND);
            world.put(1, doc, "again", "x").unwrap();
            world.say(1, doc, "again").unwrap();
        }
        world.invite(0, 3, doc, Role::Reader);
        world.connect_all();
        world.run(10 * SECOND);
        assert_equal(&mut world, doc, &[0, 1, 2, 3], "all are back");
        assert!(!world.keys(3, doc).contains("meanwhile"));
        let said: &[&str] = if promoted { &["before", "again"] } else { &["before"] };
        assert_eq!(world.said(3, doc), said);
        let forked = |it: &Event| matches!(it, Event::FeedForked { .. });
        assert!(world.nodes.iter().all(|node| !node.events.iter().any(forked)), "nobody forged");
    }
}

#[test]
fn a_role_that_is_taken_and_given_back_in_one_breath_leaves_the_same_everywhere() {
    let (mut world, doc) = four(3);
    for other in [0, 3] {
        world.disconnect(other, 1);
        world.disconnect(other, 2);
    }
    world.put(1, doc, "unseen", "x").unwrap();
    world.say(1, doc, "unseen").unwrap();
    world.run(SECOND);
    grant(&mut world, 0, doc, 1, Role::Reader).unwrap();
    grant(&mut world, 0, doc, 1, Role::Writer).unwrap();
    world.invite(0, 3, doc, Role::Writer);
    world.connect_all();
    world.run(10 * SECOND);
    world.put(1, doc, "again", "x").unwrap();
    world.say(1, doc, "again").unwrap();
    world.run(10 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3], "given back");
    assert_eq!(world.said(3, doc), ["again"]);
}

#[test]
fn who_lost_its_right_time_and_again_is_told_that_no_feed_is_left_and_edits_on() {
    let (mut world, doc) = four(9);
    for turn in 0..16 {
        world.say(1, doc, &format!("{turn}")).unwrap();
        world.run(SECOND);
        grant(&mut world, 0, doc, 1, Role::Reader).unwrap();
        grant(&mut world, 0, doc, 1, Role::Writer).unwrap();
        world.run(SECOND);
    }
    let refused = world.say(1, doc, "once more").unwrap_err();
    assert!(refused.to_string().starts_with("this node lost its right to write here 16 times"), "{refused}");
    world.put(1, doc, "once more", "x").unwrap();
    world.run(SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2], "sixteen turns");
    assert_eq!(world.said(2, doc).len(), 16);
    assert!(world.keys(2, doc).contains("once more"));
}

#[test]
fn a_second_ticket_makes_a_reader_a_writer_and_a_writer_no_reader() {
    let mut world = World::new(3, 8, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Reader);
    world.invite(0, 2, doc, Role::Writer);
    world.connect_all();
    world.run(SECOND);
    for (node, second) in [(1, Role::Writer), (2, Role::Reader)] {
        // It has not heard of the ticket in any other way.
        (0..3).for_each(|other| world.disconnect(node, other));
        world.invite(0, node, doc, second);
        world.run(10 * SECOND);
        let known = [0, 1, 2].map(|at| role(&world, at, doc, node));
        assert_eq!(known, [Some(Role::Writer); 3], "node {node}");
        world.put(node, doc, &format!("by {node}"), "x").unwrap();
    }
    // Made a reader, nobody comes to write again by the ticket that it came with.
    grant(&mut world, 0, doc, 1, Role::Reader).unwrap();
    world.run(SECOND);
    world.crash(1);
    world.start(1);
    world.connect_all();
    world.run(10 * SECOND);
    assert_eq!(role(&world, 0, doc, 1), Some(Role::Reader));
    assert_equal(&mut world, doc, &[0, 1, 2], "with second tickets");
}

#[test]
fn an_admin_that_becomes_a_writer_loses_nothing_that_it_wrote_or_signed() {
    let (mut world, doc) = four(5);
    grant(&mut world, 0, doc, 1, Role::Admin).unwrap();
    world.run(SECOND);
    world.put(1, doc, "as admin", "x").unwrap();
    world.say(1, doc, "as admin").unwrap();
    world.invite(1, 3, doc, Role::Writer);
    world.connect_all();
    world.run(SECOND);
    // What Bob writes where Alice does not hear it stays too: he may still write.
    world.disconnect(0, 1);
    world.say(1, doc, "apart").unwrap();
    for other in [2, 3] {
        world.disconnect(0, other);
    }
    grant(&mut world, 0, doc, 1, Role::Writer).unwrap();
    world.put(1, doc, "apart", "x").unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3], "an admin less");
    assert_eq!(world.said(3, doc), ["as admin", "apart"]);
    assert!(world.keys(3, doc).contains("apart"));
    assert_eq!([1, 3].map(|of| role(&world, 2, doc, of)), [Some(Role::Writer); 2]);
}

#[test]
fn the_last_admin_is_left_what_it_is() {
    let (mut world, doc) = four(6);
    let refused = grant(&mut world, 0, doc, 0, Role::Reader);
    assert!(matches!(refused, Err(DocError::Refused(_))), "{refused:?}");
    assert_eq!(role(&world, 0, doc, 0), Some(Role::Admin));
}

/// Carol hears of it while what Bob writes is on its way to her disk, so her cut is a batch of its own. She dies as
/// soon as the first is there. Says whether the second was not.
fn dies_between_removal_and_cut(seed: u64, removed: bool) -> bool {
    let (mut world, doc) = four(seed);
    world.put(1, doc, "before", "x").unwrap();
    world.run(SECOND);
    for other in [0, 3] {
        world.disconnect(other, 1);
        world.disconnect(other, 2);
    }
    world.put(1, doc, "unseen", "x").unwrap();
    world.run(SECOND);
    let (request, who) = (world.request(), world.nodes[1].id);
    let lower = Input::Grant { request, doc, to: who, role: Role::Reader };
    world.handle(0, if removed { Input::Remove { request, doc, who } } else { lower });
    world.run(SECOND);
    world.faults.disk_ms = 50;
    let [known, parts] = [Table::DocControl, Table::DocSnapshots].map(|table| world.rows(2, table));
    for number in 0.. {
        if number == 100 {
            world.connect(0, 2);
        }
        let request = world.request();
        let edit = put(&format!("unseen {number}"), "x");
        world.handle(1, Input::Edit { request, doc, at: None, edit });
        world.run(Duration::from_millis(1));
        if world.rows(2, Table::DocControl) > known {
            break;
        }
    }
    let between = world.rows(2, Table::DocSnapshots) == parts;
    world.crash_behind(2, 0);
    world.faults.disk_ms = 1;
    world.start(2);
    assert!(world.keys(2, doc).contains("before"));
    world.run(SECOND);
    assert!(!world.keys(2, doc).contains("unseen"), "seed {seed}, removed: {removed}");
    world.connect_all();
    world.run(10 * SECOND);
    assert_equal(&mut world, doc, &[0, 2], &format!("seed {seed}, removed: {removed}"));
    world.crash(2);
    world.start(2);
    assert!(!world.keys(2, doc).contains("unseen"), "it stays cut");
    between
}

#[test]
fn a_cut_that_a_crash_kept_from_the_disk_is_made_once_the_document_is_read() {
    for removed in [false, true] {
        let between = (0..10).filter(|seed| dies_between_removal_and_cut(20 + seed, removed)).count();
        assert!(between > 0, "nobody died between the two");
    }
}

/// Five nodes of which two are admins; roles of the others rise, fall and end while links come and go, frames are
/// lost, and nodes die between writes. A sixth joins at the end.
fn roles(seed: u64) -> usize {
    let mut world = World::new(6, seed, Faults::NONE);
    let (doc, late) = (world.create(0), 5);
    (1..late).for_each(|guest| world.invite(0, guest, doc, Role::Writer));
    grant(&mut world, 0, doc, 1, Role::Admin).unwrap();
    (0..late).for_each(|one| (0..one).for_each(|other| world.connect(one, other)));
    world.run(SECOND);
    world.faults = Faults { loss: 5, double: 5, delay_ms: 40, overtake: true, disk_ms: 20 };
    let (mut by_admins, mut asked, mut changes) = (BTreeSet::new(), Vec::new(), 0);
    for step in 0..70 {
        let node = world.draw(5) as usize;
        let request = world.request();
        match world.draw(12) {
            0 => {
                let other = world.draw(5) as usize;
                world.disconnect(node, other);
            }
            1 => (0..late).for_each(|other| world.connect(node, other)),
            2 if world.draw(3) == 0 => {
                world.crash(node);
                world.start(node);
            }
            3..=5 => {
                let whom = 2 + world.draw(3) as usize;
                let (who, by) = (world.nodes[whom].id, world.draw(2) as usize);
                let input = match world.draw(5) {
                    0 => Input::Remove { request, doc, who },
                    1 | 2 => Input::Grant { request, doc, to: who, role: Role::Reader },
                    _ => Input::Grant { request, doc, to: who, role: Role::Writer },
                };
                world.handle(by, input);
                changes += 1;
            }
            6..=8 => {
                let body = format!("{step} of {node}").into_bytes();
                world.handle(node, Input::Append { request, doc, body });
            }
            _ => {
                let key = format!("{step} of {node}");
                world.handle(node, Input::Edit { request, doc, at: None, edit: put(&key, "x") });
                asked.push((node, request, key));
            }
        }
        let pause = world.draw(200);
        world.run(Duration::from_millis(pause));
        for (node, request, key) in &asked {
            if matches!(world.nodes[*node].replies.remove(request), Some(Ok(_))) && *node < 2 {
                by_admins.insert(key.clone());
            }
        }
    }
    world.faults = Faults::NONE;
    world.invite(0, late, doc, Role::Reader);
    world.connect_all();
    world.run(90 * SECOND);
    let bad: Vec<_> = world.nodes.iter().flat_map(|node| &node.misbehaved).collect();
    assert!(bad.is_empty(), "seed {seed}: an honest node was accused: {bad:?}");
    let members: Vec<usize> = (0..6).filter(|node| role(&world, 0, doc, *node).is_some()).collect();
    for node in &members {
        let same = (0..6).all(|of| role(&world, *node, doc, of) == role(&world, 0, doc, of));
        assert!(same, "seed {seed}: node {node} knows other members");
    }
    assert_equal(&mut world, doc, &members, &format!("seed {seed}"));
    let keys = world.keys(late, doc);
    let lost: Vec<_> = by_admins.difference(&keys).collect();
    assert!(lost.is_empty(), "seed {seed}: of who always could write was lost: {lost:?}");
    changes
}

#[test]
fn replicas_end_equal_however_roles_rise_and_fall() {
    let seeds: u64 = option_env!("WATTLE_SIM_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    let changes: usize = (0..seeds).map(|seed| roles(seed + 5000)).sum();
    assert!(changes as u64 > 5 * seeds, "only {changes} changes of roles in {seeds} runs");
}
