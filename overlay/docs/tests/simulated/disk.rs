//! What documents cost the disk.

use automerge::transaction::Transactable as _;
use automerge::{ROOT, ReadDoc as _};
use wattle_docs::{Edit, Input, Role};
use wattle_types::{DocId, Table};

use crate::SECOND;
use crate::world::{Faults, World};

/// Sections of a paper, and letters of each.
const SECTIONS: u64 = 64;
const LETTERS: usize = 2000;

/// A document with a text of 128,000 letters in sections that packs as prose does.
fn paper(world: &mut World) -> DocId {
    let doc = world.create(0);
    for section in 0..SECTIONS {
        let prose: String = (0..LETTERS).map(|_| char::from(b'a' + world.draw(16) as u8)).collect();
        let write: Edit = Box::new(move |transaction| {
            let text = transaction.put_object(ROOT, name(section), automerge::ObjType::Text);
            let text = text.map_err(|error| error.to_string())?;
            transaction.splice_text(&text, 0, 0, &prose).map_err(|error| error.to_string())
        });
        world.ask(0, |request| Input::Edit { request, doc, at: None, edit: write }).unwrap();
    }
    doc
}

fn name(section: u64) -> String {
    format!("section {section}")
}

fn type_a_letter(world: &mut World, doc: DocId) {
    let (section, at) = (world.draw(SECTIONS), world.draw(LETTERS as u64) as usize);
    let edit: Edit = Box::new(move |transaction| {
        let text = transaction.get(ROOT, name(section)).map_err(|error| error.to_string())?;
        let (_, text) = text.ok_or("no such section")?;
        transaction.splice_text(&text, at, 0, "x").map_err(|error| error.to_string())
    });
    world.ask(0, |request| Input::Edit { request, doc, at: None, edit }).unwrap();
}

/// Letters of all sections.
fn letters(saved: &[u8]) -> usize {
    let read = automerge::Automerge::load(saved).unwrap();
    let text = |section| read.get(ROOT, name(section)).unwrap().unwrap().1;
    (0..SECTIONS).map(|section| read.length(text(section))).sum()
}

#[test]
fn a_letter_in_a_paper_writes_600_bytes_at_most_snapshots_with_it() {
    let mut world = World::new(1, 1, Faults::NONE);
    let doc = paper(&mut world);
    // As many edits as make one snapshot due.
    let (edits, before) = (2048, world.nodes[0].written_bytes);
    for _ in 0..edits {
        type_a_letter(&mut world, doc);
    }
    let each = (world.nodes[0].written_bytes - before) / edits;
    assert!(each <= 600, "{each} bytes an edit");
    assert!(world.rows(0, Table::DocSnapshots) > 0);
    let before = world.save(0, doc).unwrap();
    world.crash(0);
    world.start(0);
    let after = world.save(0, doc).unwrap();
    assert_eq!(letters(&after), SECTIONS as usize * LETTERS + edits as usize);
    assert_eq!(after, before);
}

#[test]
fn who_joins_a_large_document_writes_what_came_once_and_reads_it_again() {
    let mut world = World::new(2, 2, Faults::NONE);
    let doc = paper(&mut world);
    for number in 0..8 {
        let noise: String = (0..100_000).map(|_| char::from(b' ' + world.draw(90) as u8)).collect();
        world.put(0, doc, &format!("large {number}"), &noise).unwrap();
    }
    let size = world.save(0, doc).unwrap().len() as u64;
    assert!(size > 600 * 1024, "{size} bytes are one record");
    world.invite(0, 1, doc, Role::Reader);
    world.run(10 * SECOND);
    assert_eq!(world.heads(0, doc), world.heads(1, doc));
    let written = world.nodes[1].written_bytes;
    assert!(written < size + 16 * 1024, "{written} bytes were written for {size}");
    world.crash(1);
    world.start(1);
    assert_eq!(world.save(0, doc), world.save(1, doc));
}
