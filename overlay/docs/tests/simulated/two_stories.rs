//! Actors that have two changes under one number: told apart, heard apart, and settled.

use std::time::Duration;

use automerge::transaction::Transactable as _;
use automerge::{ActorId, Author, Automerge, Change};
use serde::Serialize;
use serde_bytes::{ByteArray, ByteBuf};
use wattle_docs::{Input, Role};
use wattle_types::{DocId, Domain, Envelope, NetworkName, SecretKey, cbor};

use crate::SECOND;
use crate::rights::{assert_equal, grant};
use crate::world::{Faults, World, put};

#[derive(Serialize)]
enum Message {
    Part { transfer: u32, part: u32, parts: u32, bytes: ByteBuf },
}

#[derive(Serialize)]
struct Payload {
    vouches: Vec<Envelope>,
    chunks: Vec<ByteBuf>,
}

#[derive(Serialize)]
struct Root {
    actor: ByteBuf,
    seq: u64,
    change: ByteArray<32>,
}

#[derive(Serialize)]
struct Vouch {
    doc: DocId,
    root: Root,
    epoch: u32,
}

fn key(node: usize) -> SecretKey {
    SecretKey::from_bytes(&[node as u8 + 1; 32])
}

/// Changes of one actor on top of a document, vouched for by a node.
fn story(base: &[u8], by: usize, actor: &[u8], doc: DocId, texts: &[&str]) -> Message {
    let mut document = Automerge::load(base).unwrap();
    document.set_author(Some(Author::from(key(by).node_id().public_key().to_vec())));
    document.set_actor(ActorId::from(actor));
    let mut chunks = Vec::new();
    let mut vouches = Vec::new();
    for text in texts {
        let mut transaction = document.transaction();
        transaction.put(automerge::ROOT, *text, "x").unwrap();
        transaction.commit();
        let change: Change = document.get_last_local_change().unwrap();
        let root = Root {
            actor: ByteBuf::from(change.actor_id().to_bytes()),
            seq: change.seq(),
            change: ByteArray::new(change.hash().0),
        };
        let vouch = Vouch { doc, root, epoch: 1 };
        vouches = vec![Envelope::seal(&key(by), Domain::DocVouch, &NetworkName::default(), &vouch)];
        chunks.push(ByteBuf::from(change.raw_bytes().to_vec()));
    }
    let bytes = ByteBuf::from(cbor::encode(&Payload { vouches, chunks }));
    Message::Part { transfer: 1, part: 0, parts: 1, bytes }
}

/// Four nodes that write, of which node 1 lies.
fn four(seed: u64) -> (World, DocId) {
    let mut world = World::new(4, seed, Faults::NONE);
    let doc = world.create(0);
    (1..4).for_each(|guest| world.invite(0, guest, doc, Role::Writer));
    world.connect_all();
    world.run(SECOND);
    (world, doc)
}

fn part(world: &mut World) {
    (0..world.nodes.len()).for_each(|one| (0..one).for_each(|other| world.disconnect(one, other)));
}

/// Tells one node something in the name of node 1, whose own replica forgets that it was there.
fn tell(world: &mut World, to: usize, doc: DocId, message: &Message) {
    let disk = world.nodes[1].disk.clone();
    world.connect(1, to);
    world.run(SECOND);
    let tag = world.nodes[0].replica.as_ref().unwrap().access(&doc).unwrap().read.tag();
    world.send(1, to, [tag.as_bytes().as_slice(), &cbor::encode(message)].concat());
    world.run(SECOND);
    world.crash(1);
    world.nodes[1].disk = disk;
    world.start(1);
}

#[test]
fn of_two_stories_the_one_that_an_admin_heard_stays_everywhere() {
    for length in 1..4 {
        let (mut world, doc) = four(length);
        let base = world.save(0, doc).unwrap();
        part(&mut world);
        world.put(2, doc, "before", "x").unwrap();
        let (one, other) = (["one 1", "one 2", "one 3"], ["other 1", "other 2", "other 3"]);
        tell(&mut world, 0, doc, &story(&base, 1, &[77; 16], doc, &one[..length as usize]));
        tell(&mut world, 2, doc, &story(&base, 1, &[77; 16], doc, &other[..4 - length as usize]));
        world.connect(0, 3);
        world.run(SECOND);
        world.put(2, doc, "on other", "x").unwrap();
        world.put(3, doc, "on one", "x").unwrap();
        world.run(SECOND);
        assert!(world.keys(2, doc).contains("other 1") && world.keys(3, doc).contains("one 1"));
        world.connect_all();
        world.run(60 * SECOND);
        assert_equal(&mut world, doc, &[0, 1, 2, 3], &format!("length {length}"));
        let keys = world.keys(2, doc);
        assert!(["title", "one 1", "on one", "before"].iter().all(|key| keys.contains(*key)), "{keys:?}");
        assert!(!keys.contains("other 1") && !keys.contains("on other"), "{keys:?}");
        // Everybody writes on, and a restart finds the same.
        world.put(2, doc, "carol again", "x").unwrap();
        world.put(3, doc, "dave again", "x").unwrap();
        world.run(SECOND);
        for node in 0..4 {
            world.crash(node);
            world.start(node);
        }
        world.connect_all();
        world.run(10 * SECOND);
        assert_equal(&mut world, doc, &[0, 1, 2, 3], &format!("length {length}, again"));
        assert!(world.keys(1, doc).contains("carol again") && world.keys(1, doc).contains("dave again"));
    }
}

#[test]
fn two_admins_that_heard_different_stories_end_with_one() {
    let (mut world, doc) = four(10);
    grant(&mut world, 0, doc, 2, Role::Admin).unwrap();
    world.run(SECOND);
    let base = world.save(0, doc).unwrap();
    part(&mut world);
    tell(&mut world, 0, doc, &story(&base, 1, &[77; 16], doc, &["one"]));
    tell(&mut world, 2, doc, &story(&base, 1, &[77; 16], doc, &["other"]));
    world.put(2, doc, "on other", "x").unwrap();
    world.put(0, doc, "on one", "x").unwrap();
    world.connect_all();
    world.run(60 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3], "two admins");
    let keys = world.keys(3, doc);
    assert!(keys.contains("one") != keys.contains("other"), "{keys:?}");
}

#[test]
fn a_change_that_is_forged_under_somebody_elses_number_gives_way_to_the_authors_own() {
    let (mut world, doc) = four(11);
    world.put(3, doc, "first", "x").unwrap();
    world.run(SECOND);
    let base = world.save(0, doc).unwrap();
    let actor = Automerge::load(&base).unwrap();
    let actor = actor.get_changes(&[]).last().unwrap().actor_id().clone();
    part(&mut world);
    tell(&mut world, 0, doc, &story(&base, 1, actor.to_bytes(), doc, &["forged"]));
    assert!(world.keys(0, doc).contains("forged"));
    world.put(3, doc, "second", "x").unwrap();
    world.connect(0, 3);
    world.connect(0, 2);
    world.run(60 * SECOND);
    assert_equal(&mut world, doc, &[0, 2, 3], "forged");
    let keys = world.keys(2, doc);
    assert!(keys.contains("second") && !keys.contains("forged"), "{keys:?}");
    assert!(world.nodes.iter().all(|node| node.misbehaved.is_empty()), "nobody is sent away for it");
}

/// A writer tells stories to whom it likes, while others edit, part, meet and die.
fn stories(seed: u64) {
    let mut world = World::new(5, seed, Faults::NONE);
    let doc = world.create(0);
    (1..5).for_each(|guest| world.invite(0, guest, doc, Role::Writer));
    world.connect_all();
    world.run(SECOND);
    if world.draw(2) == 0 {
        grant(&mut world, 0, doc, 4, Role::Admin).unwrap();
        world.run(SECOND);
    }
    let base = world.save(0, doc).unwrap();
    world.faults = Faults { loss: 3, double: 5, delay_ms: 40, overtake: true, disk_ms: 20 };
    part(&mut world);
    let mut told = 0;
    for step in 0..40 {
        let node = [0, 2, 3, 4][world.draw(4) as usize];
        match world.draw(10) {
            0 | 1 if told < 6 => {
                let texts: Vec<String> = (0..=world.draw(3)).map(|it| format!("{told} {it}")).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let actor = [70 + world.draw(2) as u8; 16];
                tell(&mut world, node, doc, &story(&base, 1, &actor, doc, &texts));
                told += 1;
            }
            2 => part(&mut world),
            3 => [0, 2, 3, 4].into_iter().for_each(|other| world.connect(node, other)),
            4 if world.draw(3) == 0 => {
                world.crash(node);
                world.start(node);
            }
            _ => {
                let (request, name) = (world.request(), format!("{step} of {node}"));
                world.handle(node, Input::Edit { request, doc, at: None, edit: put(&name, "x") });
            }
        }
        let pause = world.draw(200);
        world.run(Duration::from_millis(pause));
    }
    world.faults = Faults::NONE;
    world.connect_all();
    world.run(120 * SECOND);
    assert_equal(&mut world, doc, &[0, 1, 2, 3, 4], &format!("seed {seed}"));
}

#[test]
fn whatever_stories_a_writer_tells_the_others_end_equal() {
    let seeds: u64 = option_env!("WATTLE_SIM_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    (0..seeds).for_each(|seed| stories(seed + 7000));
}
