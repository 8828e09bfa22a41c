//! What large documents show at first, which is kept beside them.

use std::time::Duration;

use automerge::{Automerge, ROOT, ReadDoc as _};
use wattle_docs::{Authors, DocError, Input, Outcome, Role, Show};
use wattle_types::{DocId, Table};

use crate::world::{Faults, World, put};
use crate::{MILLI, SECOND};

/// At least so many: more than two parts, so that a power cut can leave some of them.
const BYTES: usize = 1_200_000;

const SHOW: Show = Show { from: 8, form: 1, bytes };

/// All that is in it and the version, over and over.
fn bytes(automerge: &Automerge) -> Vec<u8> {
    let mut heads = automerge.get_heads();
    heads.sort();
    let keys = automerge.keys(ROOT).collect::<Vec<_>>().join(" ");
    let once = format!("{keys} at {heads:?}; ");
    once.repeat(BYTES / once.len() + 1).into_bytes()
}

fn world(nodes: usize, seed: u64, faults: Faults) -> World {
    let mut world = World::new(nodes, seed, faults);
    world.show = SHOW;
    for node in 0..nodes {
        restart(&mut world, node);
    }
    world
}

fn restart(world: &mut World, node: usize) {
    world.crash(node);
    world.start(node);
}

fn large(world: &mut World) -> DocId {
    let doc = world.create(0);
    for number in 0..8 {
        world.put(0, doc, &format!("{number}"), "x").unwrap();
    }
    doc
}

fn shown(world: &mut World, node: usize, doc: DocId) -> Vec<u8> {
    match world.ask(node, |request| Input::Show { request, doc }) {
        Ok(Outcome::Read(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn read(world: &mut World, node: usize, doc: DocId) -> Vec<u8> {
    let read = Box::new(|automerge: &Automerge, _: &Authors<'_>| bytes(automerge));
    match world.ask(node, |request| Input::Read { request, doc, read }) {
        Ok(Outcome::Read(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn is_shown(world: &World, node: usize, doc: DocId) -> bool {
    world.nodes[node].replica.as_ref().unwrap().is_shown(&doc)
}

#[test]
fn a_large_document_that_rested_is_shown_without_being_read() {
    let mut world = world(2, 1, Faults::NONE);
    let doc = large(&mut world);
    world.invite(0, 1, doc, Role::Reader);
    world.run(6 * SECOND);
    for node in 0..2 {
        restart(&mut world, node);
        let loads = world.nodes[node].loads;
        let told = shown(&mut world, node, doc);
        assert_eq!(world.nodes[node].loads, loads, "node {node} read it");
        assert!(told == read(&mut world, node, doc), "node {node} shows something else");
        assert_eq!(world.nodes[node].loads, loads + 1);
    }
}

#[test]
fn a_small_document_is_read_and_nothing_is_kept_of_it() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = world.create(0);
    world.run(90 * SECOND);
    assert_eq!(world.rows(0, Table::DocShown), 0);
    assert!(shown(&mut world, 0, doc) == read(&mut world, 0, doc));
}

#[test]
fn what_is_shown_has_every_edit_that_was_acknowledged() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = large(&mut world);
    world.run(6 * SECOND);
    assert!(is_shown(&world, 0, doc));
    world.put(0, doc, "newest", "x").unwrap();
    for _ in 0..2 {
        assert!(!is_shown(&world, 0, doc));
        let told = shown_text(&mut world, 0, doc);
        assert!(told.contains(" newest"), "{}", &told[..80]);
        // The document was open. Now it has to be read.
        restart(&mut world, 0);
    }
}

#[test]
fn it_is_written_when_the_document_rests_and_once_a_minute_at_most() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = large(&mut world);
    let before = world.nodes[0].written_bytes;
    for number in 0..40 {
        world.put(0, doc, &format!("at once {number}"), "x").unwrap();
        world.run(SECOND);
    }
    assert!(
        world.nodes[0].written_bytes - before < BYTES as u64,
        "it was written while the document changed"
    );
    let before = world.nodes[0].written_bytes;
    for number in 0..20 {
        world.put(0, doc, &format!("slowly {number}"), "x").unwrap();
        world.run(6 * SECOND);
    }
    let times = (world.nodes[0].written_bytes - before) / BYTES as u64;
    assert!((1..=3).contains(&times), "it was written {times} times in two minutes");
    world.run(60 * SECOND);
    assert!(is_shown(&world, 0, doc));
    assert_eq!(world.rows(0, Table::DocShown), 3, "what was kept before is there still");
}

#[test]
fn who_only_reads_causes_no_writes() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = large(&mut world);
    world.run(6 * SECOND);
    restart(&mut world, 0);
    let before = world.nodes[0].written_bytes;
    for _ in 0..40 {
        read(&mut world, 0, doc);
        world.run(5 * SECOND);
    }
    assert_eq!(world.nodes[0].written_bytes, before);
}

/// It can be had from the document at any time. The document cannot be had from it.
#[test]
fn a_disk_that_does_not_take_it_harms_no_edit() {
    let mut world = world(1, 1, Faults { disk_ms: 100, ..Faults::NONE });
    let doc = large(&mut world);
    world.nodes[0].refuses = Some(Table::DocShown);
    let loads = world.nodes[0].loads;
    for number in 0..200 {
        world.put(0, doc, &format!("edit {number}"), "x").unwrap();
        world.run(if number % 20 == 0 { 6 * SECOND } else { 50 * MILLI });
    }
    assert_eq!((world.nodes[0].loads, world.rows(0, Table::DocShown)), (loads, 0));
    world.nodes[0].refuses = None;
    world.put(0, doc, "last", "x").unwrap();
    world.run(70 * SECOND);
    assert!(is_shown(&world, 0, doc));
}

#[test]
fn an_edit_does_not_wait_for_it_to_be_written() {
    let mut world = world(1, 1, Faults { disk_ms: 400, ..Faults::NONE });
    let doc = large(&mut world);
    while world.waiting(0) == 0 || world.rows(0, Table::DocShown) == 0 {
        world.run(10 * MILLI);
    }
    let before = world.now;
    world.put(0, doc, "meanwhile", "x").unwrap();
    assert!(world.now.since(before) < SECOND, "it took {:?}", world.now.since(before));
    assert!(shown_text(&mut world, 0, doc).contains(" meanwhile"));
}

/// A removal cuts what was written unseen. Whoever knows of the removal does not show what it cuts.
#[test]
fn what_a_removal_cuts_is_not_shown_from_before_it() {
    for seed in 0..40 {
        let mut world = world(3, seed, Faults { delay_ms: 5, disk_ms: 40, ..Faults::NONE });
        let doc = large(&mut world);
        world.invite(0, 1, doc, Role::Writer);
        world.invite(0, 2, doc, Role::Reader);
        world.connect_all();
        world.run(SECOND);
        for node in 1..3 {
            world.disconnect(0, node);
        }
        world.put(1, doc, "unseen", "x").unwrap();
        world.run(8 * SECOND);
        let bob = world.nodes[1].id;
        world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
        // Carol has it closed when she hears of it, and dies at some moment afterwards.
        restart(&mut world, 2);
        assert!(shown_text(&mut world, 2, doc).contains(" unseen"), "seed {seed}");
        world.connect(0, 2);
        let after = world.draw(120);
        world.run(Duration::from_millis(after));
        restart(&mut world, 2);
        let (told, has) = (shown(&mut world, 2, doc), read(&mut world, 2, doc));
        assert!(told == has, "seed {seed}, {after} ms: carol shows what she would not give");
    }
}

fn shown_text(world: &mut World, node: usize, doc: DocId) -> String {
    String::from_utf8(shown(world, node, doc)).unwrap()
}

#[test]
fn what_is_not_as_it_was_written_or_has_another_form_is_not_shown() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = large(&mut world);
    world.run(7 * SECOND);
    let expected = read(&mut world, 0, doc);
    let damages: [fn(&mut World); 3] = [
        |world| world.show.form += 1,
        |world| {
            let value = world.nodes[0].disk.iter_mut().find(|((table, _), _)| *table == Table::DocShown);
            value.unwrap().1[7] ^= 1;
        },
        |world| {
            let at = world.nodes[0].disk.keys().rfind(|(table, _)| *table == Table::DocShown).cloned();
            world.nodes[0].disk.remove(&at.unwrap());
        },
    ];
    for damage in damages {
        world.crash(0);
        damage(&mut world);
        world.start(0);
        assert!(shown(&mut world, 0, doc) == expected, "it shows something else");
        world.run(6 * SECOND);
        assert!(is_shown(&world, 0, doc), "it is not kept anew");
        restart(&mut world, 0);
        let loads = world.nodes[0].loads;
        assert!(shown(&mut world, 0, doc) == expected && world.nodes[0].loads == loads);
    }
}

#[test]
fn nothing_of_a_forgotten_document_is_kept() {
    let mut world = world(1, 1, Faults::NONE);
    let doc = large(&mut world);
    world.run(6 * SECOND);
    assert!(world.rows(0, Table::DocShown) > 0);
    world.ask(0, |request| Input::Forget { request, doc }).unwrap();
    assert_eq!(world.nodes[0].disk.len(), 0);
    assert_eq!(world.ask(0, |request| Input::Show { request, doc }), Err(DocError::Unknown(doc)));
}

#[test]
fn a_node_that_is_killed_at_any_write_shows_what_it_has() {
    for seed in 0..40 {
        let mut world = world(2, seed, Faults { disk_ms: 400, ..Faults::NONE });
        let doc = large(&mut world);
        world.invite(0, 1, doc, Role::Writer);
        for number in 0..25 {
            let (node, request) = (world.draw(2) as usize, world.request());
            let edit = put(&format!("{number}"), "y");
            world.handle(node, Input::Edit { request, doc, at: None, edit });
            // Now and then long enough for it to be written, which takes a second or two.
            let pause = [100, 6_000, 7_000, 65_000][world.draw(4) as usize] + world.draw(1000);
            world.run(Duration::from_millis(pause));
            let node = world.draw(2) as usize;
            world.nodes[node].full = world.draw(8) == 0;
            if world.draw(2) == 0 {
                restart(&mut world, node);
                let (told, has) = (shown(&mut world, node, doc), read(&mut world, node, doc));
                assert!(told == has, "seed {seed}: node {node} shows something else");
                world.connect_all();
            }
        }
    }
}
