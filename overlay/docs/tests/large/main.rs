//! A text that is larger than what Automerge may be given at once: made, stored, shared, read again, and what memory
//! that takes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures memory and time")]
#![expect(clippy::print_stdout, reason = "and says what it took")]

#[path = "../simulated/world.rs"]
#[expect(dead_code, reason = "the other tests of the same world use the rest of it")]
mod world;

use std::ops::ControlFlow;
use std::time::Duration;

use automerge::sync::{Message, State, SyncDoc as _};
use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
use wattle_docs::chunk::{CHANGE_ROWS_MAX, DOCUMENT_ROWS_MAX, inspect};
use wattle_docs::{Conversation, DocError, Edit, Input, Outcome, Role, Steps};
use wattle_types::{DocId, Table};

use world::{Faults, World};

const SECOND: Duration = Duration::from_secs(1);

/// Letters of a section, and sections of a step.
const SECTION: usize = 16 * 1024;
const SECTIONS_PER_STEP: usize = 4;

/// Steps that make a little more than a peer takes as one document; with `WATTLE_TEXT_STEPS=160` the largest text.
fn steps() -> usize {
    let least = DOCUMENT_ROWS_MAX as usize / (SECTION * SECTIONS_PER_STEP) + 3;
    std::env::var("WATTLE_TEXT_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(least)
}

/// Megabytes that the process holds at most, beyond what it held before. With all of the text at once it is a gigabyte
/// and more; the simulated disks and the channels between the nodes are in it.
const MEGABYTES_MAX: u64 = 400;

/// It packs as prose does: what packs a hundredfold is refused as a bomb when it comes as one document.
fn section(number: usize) -> String {
    let mut noise = number as u64;
    let mut letter = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (noise >> 60) as u8)
    };
    (0..SECTION).map(|_| letter()).collect()
}

fn write(tx: &mut Transaction<'_>, step: usize) -> Result<(), automerge::AutomergeError> {
    let list = match tx.get(ROOT, "sections")? {
        Some((_, list)) => list,
        None => tx.put_object(ROOT, "sections", ObjType::List)?,
    };
    for index in step * SECTIONS_PER_STEP..(step + 1) * SECTIONS_PER_STEP {
        let text = tx.insert_object(&list, index, ObjType::Text)?;
        tx.splice_text(&text, 0, 0, &section(index))?;
    }
    Ok(())
}

/// Makes a large text; fails at one of the steps, if it is to.
fn large(fails_at: Option<usize>) -> Steps {
    let (mut step, steps) = (0, steps());
    Box::new(move |tx| {
        if fails_at == Some(step) {
            return Err("no further".to_owned());
        }
        write(tx, step).map_err(|error| error.to_string())?;
        step += 1;
        Ok(if step == steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

fn letter() -> Edit {
    Box::new(|tx| {
        let (_, list) = tx.get(ROOT, "sections").unwrap().unwrap();
        let (_, text) = tx.get(&list, 3).unwrap().unwrap();
        tx.splice_text(&text, 7, 0, "x").map_err(|error| error.to_string())
    })
}

fn text(automerge: &impl ReadDoc) -> String {
    let Some((_, list)) = automerge.get(ROOT, "sections").unwrap() else { return String::new() };
    let sections = (0..automerge.length(&list)).map(|index| automerge.get(&list, index).unwrap().unwrap().1);
    sections.map(|section| automerge.text(section).unwrap()).collect()
}

fn text_at(world: &mut World, node: usize, doc: DocId) -> String {
    let read = |request| Input::Read { request, doc, read: Box::new(|it, _| text(it).into_bytes()) };
    let Ok(Outcome::Read(bytes)) = world.ask(node, read) else { panic!("not read") };
    String::from_utf8(bytes).unwrap()
}

fn all() -> String {
    (0..steps() * SECTIONS_PER_STEP).map(section).collect()
}

fn create(world: &mut World) -> DocId {
    match world.ask(0, |request| Input::CreateInSteps { request, steps: large(None) }) {
        Ok(Outcome::Opened { doc }) => doc,
        other => panic!("{other:?}"),
    }
}

/// Megabytes that the process held at most since the last reset.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn reset_peak() -> u64 {
    // Ignored because a system without it only measures more.
    let _ignored = std::fs::write("/proc/self/clear_refs", "5");
    peak()
}

fn bounded(what: &str, before: u64, began: std::time::Instant) {
    let (now, took) = (peak(), began.elapsed());
    println!("{what}: {took:?}, from {before} MB to {now} MB at the most");
    assert!(now.saturating_sub(before) < MEGABYTES_MAX, "{what} takes {} MB", now - before);
}

// One test, because memory is measured of the whole process.
#[test]
fn a_large_text_is_made_shared_and_read_again_in_bounded_memory() {
    let mut world = World::new(2, 3, Faults::NONE);
    world.connect_all();
    let (before, began) = (reset_peak(), std::time::Instant::now());
    let doc = create(&mut world);
    bounded("making it", before, began);

    let (before, began) = (reset_peak(), std::time::Instant::now());
    world.invite(0, 1, doc, Role::Writer);
    for _ in 0..30 {
        world.run(SECOND);
        if world.heads(1, doc) == world.heads(0, doc) {
            break;
        }
    }
    bounded("sharing it", before, began);
    assert_eq!(world.heads(1, doc), world.heads(0, doc), "bob does not get it");
    assert!(world.nodes.iter().all(|node| node.misbehaved.is_empty()));

    let expected = all();
    for node in [1, 0] {
        world.crash(node);
        world.start(node);
        let (before, began) = (reset_peak(), std::time::Instant::now());
        let read = text_at(&mut world, node, doc);
        bounded("reading it again", before, began);
        assert!(read == expected, "node {node} has another text, of {} bytes", read.len());
    }

    world.connect_all();
    let (before, began) = (reset_peak(), std::time::Instant::now());
    world.ask(1, |request| Input::Edit { request, doc, at: None, edit: letter() }).unwrap();
    world.run(SECOND);
    bounded("typing a letter", before, began);
    assert_eq!(world.heads(0, doc), world.heads(1, doc));
    assert_eq!(world.rows(1, Table::DocSnapshots), 0, "a letter does not write all of it anew");

    a_programs_first_letter_comes(&mut world, doc);
    what_fails_in_a_later_step_leaves_nothing(&mut world, doc);
}

/// A program opens the document as a page does that has nothing of it, and somebody types a letter there.
fn a_programs_first_letter_comes(world: &mut World, doc: DocId) {
    let mut automerge = Automerge::new().with_actor(ActorId::from([9; 16]));
    let (mut state, mut conversation) = (State::new(), Box::<Conversation>::default());
    let mut talk = |automerge: &mut Automerge, world: &mut World| {
        for _ in 0..8 {
            let message = automerge.generate_sync_message(&mut state).map(Message::encode);
            let said = std::mem::take(&mut conversation);
            let sync = |request| Input::Sync { request, doc, conversation: said, message };
            let Outcome::Synced { conversation: now, message } = world.ask(0, sync)? else { panic!() };
            conversation = now.unwrap();
            let Some(message) = message else { break };
            automerge.receive_sync_message(&mut state, Message::decode(&message).unwrap()).unwrap();
        }
        Ok::<(), DocError>(())
    };
    talk(&mut automerge, world).unwrap();
    assert_eq!(text(&automerge).len(), all().len() + 1);
    // As many as make it send all of the document: more than a third of its changes.
    for _ in 0..steps() {
        let mut transaction = automerge.transaction();
        letter()(&mut transaction).unwrap();
        transaction.commit();
    }
    assert!(inspect(&automerge.save()).is_err(), "no peer would take it as one");
    talk(&mut automerge, world).unwrap();
    world.run(SECOND);
    let mut heads: Vec<[u8; 32]> = automerge.get_heads().iter().map(|head| head.0).collect();
    heads.sort_unstable();
    for node in 0..2 {
        assert_eq!(world.heads(node, doc), heads, "at {node}");
    }
}

fn what_fails_in_a_later_step_leaves_nothing(world: &mut World, doc: DocId) {
    let heads = world.heads(0, doc);
    let steps = large(Some(2));
    let failed = world.ask(0, |request| Input::EditInSteps { request, doc, at: None, steps });
    assert_eq!(failed, Err(DocError::Refused("no further".to_owned())));
    let at_once: Edit = Box::new(|tx| {
        let text = tx.put_object(ROOT, "more", ObjType::Text).unwrap();
        let letters = "x".repeat(CHANGE_ROWS_MAX as usize);
        tx.splice_text(text, 0, 0, &letters).map_err(|error| error.to_string())
    });
    let refused = world.ask(0, |request| Input::Edit { request, doc, at: None, edit: at_once });
    let Err(DocError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("524289 operations at once"), "{why}");
    world.run(SECOND);
    assert_eq!(world.heads(0, doc), heads);
    let expected = all();
    let read = text_at(world, 0, doc);
    assert_eq!(read.len(), expected.len() + 1 + self::steps());
}
