//! Documents on several nodes, with a network, disks and a clock that obey one seed.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::Automerge;
use automerge::transaction::Transactable as _;

use crate::SECOND;
use crate::world::{Faults, World, put};
use wattle_docs::{DocError, Event, Input, Outcome, Role};
use wattle_types::DocId;

/// Runs of five replicas in every test run; the long run takes another number at build time.
const SEEDS: u64 = match option_env!("WATTLE_SIM_SEEDS") {
    None => 100,
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(seeds) => seeds,
        Err(_) => 100,
    },
};

#[test]
fn a_document_arrives_with_its_ticket_and_edits_cross_both_ways() {
    let mut world = World::new(2, 1, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    world.put(1, doc, "from bob", "hello").unwrap();
    world.put(0, doc, "from alice", "hello").unwrap();
    world.run(SECOND);
    let all = BTreeSet::from(["title", "from alice", "from bob"].map(str::to_owned));
    assert_eq!(world.keys(0, doc), all);
    assert_eq!(world.keys(1, doc), all);
    assert_eq!(world.save(0, doc), world.save(1, doc));
    let status = world.nodes[0].replica.as_ref().unwrap().status(&doc).unwrap();
    assert!(status.peers.iter().all(|peer| peer.in_sync), "{status:?}");
}

#[test]
fn who_joins_has_the_document_at_once_whichever_frame_comes_first() {
    for seed in 0..200 {
        let mut world = World::new(2, seed, Faults { delay_ms: 15, disk_ms: 20, ..Faults::NONE });
        let doc = world.create(0);
        world.invite(0, 1, doc, Role::Writer);
        world.run(SECOND);
        assert_eq!(world.heads(0, doc), world.heads(1, doc), "seed {seed}");
    }
}

#[test]
fn a_reader_reads_and_cannot_write() {
    let mut world = World::new(2, 2, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Reader);
    world.run(SECOND);
    assert_eq!(world.save(0, doc), world.save(1, doc));
    let refused = world.put(1, doc, "mine", "x");
    assert_eq!(refused, Err(DocError::NotAllowed { needed: "writer", held: "a reader" }));
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Grant { request, doc, to: bob, role: Role::Writer }).unwrap();
    world.run(SECOND);
    world.put(1, doc, "mine", "x").unwrap();
    world.run(SECOND);
    assert!(world.keys(0, doc).contains("mine"));
}

#[test]
fn who_has_no_ticket_receives_not_one_byte() {
    let mut world = World::new(3, 9, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.connect_all();
    for number in 0..20 {
        world.put(number % 2, doc, &format!("{number}"), "x").unwrap();
    }
    world.run(90 * SECOND);
    assert_eq!(world.nodes[2].received_bytes, 0);
    assert_eq!(world.keys(1, doc).len(), 21);
}

#[test]
fn both_sides_of_a_partition_write_and_end_equal() {
    let mut world = World::new(3, 3, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.invite(0, 2, doc, Role::Writer);
    world.connect_all();
    world.run(SECOND);
    world.disconnect(0, 1);
    world.disconnect(2, 1);
    for number in 0..5 {
        world.put(0, doc, &format!("left {number}"), "x").unwrap();
        world.put(1, doc, &format!("right {number}"), "x").unwrap();
    }
    world.connect_all();
    world.run(SECOND);
    let heads = world.heads(0, doc);
    assert_eq!((world.heads(1, doc), world.heads(2, doc)), (heads.clone(), heads));
    assert_eq!(world.keys(2, doc).len(), 11);
}

#[test]
fn of_many_small_documents_the_one_that_was_used_last_stays_in_memory_for_a_minute() {
    let mut world = World::new(1, 15, Faults::NONE);
    let docs: Vec<DocId> = (0..12).map(|_| world.create(0)).collect();
    let read = |world: &mut World, docs: &[DocId]| {
        let before = world.nodes[0].loads;
        for doc in docs {
            world.save(0, *doc).unwrap();
            world.run(SECOND / 10);
        }
        world.nodes[0].loads - before
    };
    assert_eq!(read(&mut world, &docs[11..]), 0, "it was used last");
    assert_eq!(read(&mut world, &docs[..11]), 11, "the others were put away");
    for _ in 0..3 {
        assert_eq!(read(&mut world, &docs[10..11]), 0, "it is used again and again");
    }
    assert_eq!(read(&mut world, &docs[9..10]), 1, "another is used");
    assert_eq!(read(&mut world, &docs[10..11]), 1, "in the place of the first");
    world.run(59 * SECOND);
    assert_eq!(read(&mut world, &docs[10..11]), 0);
    world.run(75 * SECOND);
    assert_eq!(read(&mut world, &docs[10..11]), 1, "a minute after its last use");
}

#[test]
fn who_writes_small_documents_in_turn_is_one_actor_in_each() {
    let mut world = World::new(1, 16, Faults::NONE);
    let docs: Vec<DocId> = (0..5).map(|_| world.create(0)).collect();
    for round in 0..6 {
        for doc in &docs {
            world.put(0, *doc, &format!("{round}"), "x").unwrap();
        }
    }
    assert!(world.nodes[0].loads > 20, "they were put away and read again: {}", world.nodes[0].loads);
    for doc in docs {
        let saved = Automerge::load(&world.save(0, doc).unwrap()).unwrap();
        let changes = saved.get_changes(&[]);
        let actors: BTreeSet<_> = changes.iter().map(|change| change.actor_id().clone()).collect();
        assert_eq!((changes.len(), actors.len()), (7, 1));
    }
}

/// Five members, each connected to each, and what each received while one of them wrote so many kilobytes.
fn written_among_five(kilobytes: u64) -> (World, DocId, Vec<u64>) {
    let mut world = World::new(5, 12, Faults { delay_ms: 2, disk_ms: 2, ..Faults::NONE });
    let doc = world.create(0);
    (1..5).for_each(|guest| world.invite(0, guest, doc, Role::Writer));
    world.connect_all();
    world.run(10 * SECOND);
    let before: Vec<u64> = world.nodes.iter().map(|node| node.received_bytes).collect();
    for number in 0..kilobytes {
        // What cannot be packed.
        let value: String = (0..1024).map(|_| char::from(b'!' + world.draw(90) as u8)).collect();
        world.put(0, doc, &format!("{number}"), &value).unwrap();
        world.run(SECOND / 4);
    }
    let received =
        world.nodes.iter().zip(before).map(|(node, before)| node.received_bytes - before).collect();
    (world, doc, received)
}

#[test]
fn a_change_comes_to_each_of_five_members_once_and_not_from_each() {
    let (world, doc, received) = written_among_five(40);
    for guest in 1..5 {
        assert_eq!(world.heads(guest, doc), world.heads(0, doc));
        // Four copies of each would be 160 KiB; before anything is known of the ways there are some.
        assert!((40_000..100_000).contains(&received[guest]), "{received:?}");
    }
    assert!(received[0] < 40_000, "nobody gives the author what it wrote: {received:?}");
}

#[test]
fn who_loses_the_way_to_an_author_has_its_changes_at_once_again_after_the_first() {
    let (mut world, doc, _) = written_among_five(10);
    world.disconnect(0, 4);
    world.put(0, doc, "first", "x").unwrap();
    world.run(SECOND / 5);
    assert_eq!(world.heads(4, doc), world.heads(0, doc), "a summary tells of it");
    world.run(SECOND);
    for number in 0..10 {
        world.put(0, doc, &format!("again {number}"), "x").unwrap();
        world.run(SECOND / 50);
        assert_eq!(world.heads(4, doc), world.heads(0, doc), "change {number} waits for a summary");
        world.run(SECOND);
    }
}

#[test]
fn a_removed_writer_is_cut_at_the_same_place_everywhere() {
    let mut world = World::new(4, 4, Faults::NONE);
    let doc = world.create(0);
    for guest in 1..4 {
        world.invite(0, guest, doc, Role::Writer);
    }
    world.connect_all();
    world.run(SECOND);
    world.put(1, doc, "before", "x").unwrap();
    world.run(SECOND);
    // Bob writes where only Carol hears it, while Alice removes him.
    world.disconnect(0, 1);
    world.disconnect(0, 2);
    world.disconnect(3, 1);
    world.disconnect(3, 2);
    world.put(1, doc, "unseen", "x").unwrap();
    world.run(SECOND);
    assert!(world.keys(2, doc).contains("unseen"));
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    for node in [0, 2, 3] {
        let keys = world.keys(node, doc);
        assert!(keys.contains("before") && !keys.contains("unseen"), "node {node} holds {keys:?}");
    }
    assert_eq!(world.heads(0, doc), world.heads(2, doc));
    assert_eq!(world.heads(0, doc), world.heads(3, doc));
    // What he writes from now on reaches nobody, and he can neither write nor come back by his ticket.
    let refused = world.put(1, doc, "after", "x");
    assert!(matches!(refused, Err(DocError::NotAllowed { .. })), "{refused:?}");
    // Carol writes on, and it holds.
    world.put(2, doc, "carol", "x").unwrap();
    world.run(SECOND);
    assert!(world.keys(3, doc).contains("carol"));
}

#[test]
fn every_replica_names_who_wrote_each_change_also_of_who_was_removed() {
    let mut world = World::new(3, 4, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.invite(0, 2, doc, Role::Writer);
    world.connect_all();
    world.run(SECOND);
    world.put(1, doc, "first", "x").unwrap();
    world.run(SECOND);
    let [alice, bob] = [0, 1].map(|node| Some(world.nodes[node].id));
    for node in 0..3 {
        assert_eq!(world.authors(node, doc), [alice, bob], "at {node}");
    }
    // Carol hears what bob writes apart and must cut it; its vouch took the place of the one for what stays.
    world.disconnect(0, 1);
    world.disconnect(0, 2);
    world.put(1, doc, "second", "x").unwrap();
    world.run(SECOND);
    assert_eq!(world.authors(2, doc), [alice, bob, bob]);
    let who = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    for node in [0, 2] {
        assert_eq!(world.authors(node, doc), [alice, bob], "at {node}");
        world.crash(node);
        world.start(node);
        assert_eq!(world.authors(node, doc), [alice, bob], "at {node}, read again");
    }
}

#[test]
fn a_history_that_is_imported_is_kept_vouched_for_and_arrives_everywhere() {
    let mut world = World::new(2, 5, Faults::NONE);
    let mut elsewhere = Automerge::new().with_actor(b"elsewhere".as_slice().into());
    let mut beside = elsewhere.fork().with_actor(b"beside".as_slice().into());
    let write = |document: &mut Automerge, key: &str| {
        document.transact::<_, _, automerge::AutomergeError>(|tx| tx.put(automerge::ROOT, key, 1)).unwrap();
    };
    write(&mut elsewhere, "one");
    write(&mut beside, "two");
    write(&mut elsewhere, "three");
    elsewhere.merge(&mut beside).unwrap();
    assert_eq!(elsewhere.get_heads().len(), 2);
    let history = Some(Box::new(elsewhere.clone()));
    let made = world.ask(0, |request| Input::Create { request, history, edit: Box::new(|_| Ok(())) });
    let Ok(Outcome::Opened { doc }) = made else { panic!("{made:?}") };
    world.invite(0, 1, doc, Role::Reader);
    world.run(SECOND);
    world.crash(0);
    world.start(0);
    let alice = Some(world.nodes[0].id);
    for node in 0..2 {
        let here = Automerge::load(&world.save(node, doc).unwrap()).unwrap();
        let kept = |change: &automerge::Change| here.get_change_meta_by_hash(&change.hash()).is_some();
        assert!(elsewhere.get_changes(&[]).iter().all(kept), "at {node}");
        assert_eq!(world.authors(node, doc), [None, None, None, alice], "at {node}");
    }
}

#[test]
fn a_removed_writer_whose_only_changes_were_unseen_is_cut_too() {
    let mut world = World::new(3, 10, Faults::NONE);
    let doc = world.create(0);
    for guest in 1..3 {
        world.invite(0, guest, doc, Role::Writer);
    }
    world.connect_all();
    world.run(SECOND);
    // The first that Bob ever writes is heard by Carol alone, while Alice removes him.
    world.disconnect(0, 1);
    world.disconnect(0, 2);
    world.put(1, doc, "unseen", "x").unwrap();
    world.run(SECOND);
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    assert_eq!(world.keys(2, doc), BTreeSet::from(["title".to_owned()]));
    assert_eq!(world.heads(0, doc), world.heads(2, doc));
}

#[test]
fn who_was_removed_while_away_learns_of_it_when_back() {
    let mut world = World::new(2, 14, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    world.disconnect(0, 1);
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(5 * SECOND);
    let refused = world.put(1, doc, "after", "x");
    assert!(matches!(refused, Err(DocError::NotAllowed { .. } | DocError::NotHere)), "{refused:?}");
    // A new ticket lets him in again.
    world.invite(0, 1, doc, Role::Writer);
    world.run(5 * SECOND);
    world.put(1, doc, "again", "x").unwrap();
    world.run(5 * SECOND);
    assert!(world.keys(0, doc).contains("again"));
}

#[test]
fn the_last_admin_stays() {
    let mut world = World::new(2, 15, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    let [alice, bob] = [0, 1].map(|node| world.nodes[node].id);
    let refused = world.ask(0, |request| Input::Remove { request, doc, who: alice });
    assert!(matches!(refused, Err(DocError::Refused(_))), "{refused:?}");
    world.ask(0, |request| Input::Grant { request, doc, to: bob, role: Role::Admin }).unwrap();
    world.ask(0, |request| Input::Remove { request, doc, who: alice }).unwrap();
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let mut world = World::new(1, 5, Faults { disk_ms: 20, ..Faults::NONE });
    let doc = world.create(0);
    let mut acknowledged = BTreeSet::new();
    for round in 0..60 {
        let mut asked = Vec::new();
        for number in 0..8 {
            let (request, key) = (world.request(), format!("{round} {number}"));
            world.handle(0, Input::Edit { request, doc, at: None, edit: put(&key, "x") });
            asked.push((request, key));
            let pause = world.draw(15);
            world.run(Duration::from_millis(pause));
        }
        for (request, key) in asked {
            if let Some(Ok(Outcome::Edited { .. })) = world.nodes[0].replies.remove(&request) {
                acknowledged.insert(key);
            }
        }
        world.crash(0);
        world.start(0);
        let keys = world.keys(0, doc);
        let lost: Vec<_> = acknowledged.difference(&keys).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
    }
    assert!(acknowledged.len() > 100, "only {} were acknowledged", acknowledged.len());
}

#[test]
fn a_full_disk_is_told_and_takes_nothing_with_it() {
    let mut world = World::new(1, 6, Faults::NONE);
    let doc = world.create(0);
    world.put(0, doc, "before", "x").unwrap();
    world.nodes[0].full = true;
    assert_eq!(world.put(0, doc, "during", "x"), Err(DocError::NotSaved("the disk is full".to_owned())));
    assert!(matches!(
        world.ask(0, |request| Input::Create { request, history: None, edit: put("a", "b") }),
        Err(DocError::NotSaved(_))
    ));
    assert!(!world.keys(0, doc).contains("during"));
    world.nodes[0].full = false;
    world.put(0, doc, "after", "x").unwrap();
    world.crash(0);
    world.start(0);
    let keys = world.keys(0, doc);
    assert!(keys.contains("before") && keys.contains("after") && !keys.contains("during"), "{keys:?}");
}

#[test]
fn equal_heads_end_a_reconnect_without_loading_the_document() {
    let mut world = World::new(2, 7, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.run(SECOND);
    for number in 0..200 {
        world.put(0, doc, &format!("key {number}"), "x").unwrap();
    }
    world.run(SECOND);
    for node in 0..2 {
        world.crash(node);
        world.start(node);
    }
    let before = [0, 1].map(|node| world.nodes[node].received_bytes);
    world.connect_all();
    world.run(SECOND);
    for (node, before) in before.into_iter().enumerate() {
        let bytes = world.nodes[node].received_bytes - before;
        assert!(bytes <= 2048, "node {node} received {bytes} bytes");
        let synced = world.nodes[node].events.iter().filter(|event| matches!(event, Event::InSync { .. }));
        assert!(synced.count() > 0);
    }
}

#[test]
fn a_channel_between_nodes_that_share_many_documents_is_not_filled_up_by_the_first_words() {
    let mut world = World::new(2, 7, Faults { delay_ms: 60, overtake: false, ..Faults::NONE });
    for _ in 0..100 {
        let doc = world.create(0);
        world.invite(0, 1, doc, Role::Writer);
    }
    world.run(5 * SECOND);
    world.disconnect(0, 1);
    world.run(SECOND);
    let before = [0, 1].map(|node| world.nodes[node].received_bytes);
    world.connect_all();
    let mut most = 0;
    for _ in 0..3000 {
        most = most.max(world.on_their_way());
        world.run(Duration::from_millis(1));
    }
    for (node, before) in before.into_iter().enumerate() {
        let all = world.nodes[node].replica.as_ref().unwrap().list();
        let synced = all.iter().filter(|status| status.peers.iter().any(|peer| peer.in_sync)).count();
        assert_eq!(synced, 100, "at node {node}");
        let bytes = world.nodes[node].received_bytes - before;
        assert!(bytes <= 100 * 320, "node {node} received {bytes} bytes");
    }
    assert!(most <= 32, "{most} frames were on their way at once");
}

#[test]
fn who_missed_the_word_that_another_is_equal_hears_it_again() {
    for seed in 0..60 {
        let mut world = World::new(2, seed, Faults::NONE);
        let doc = world.create(0);
        world.invite(0, 1, doc, Role::Writer);
        world.run(SECOND);
        world.faults.loss = 40;
        world.put(0, doc, "more", "x").unwrap();
        world.run(7 * SECOND);
        world.faults.loss = 0;
        world.run(20 * SECOND);
        for node in 0..2 {
            let status = world.nodes[node].replica.as_ref().unwrap().status(&doc).unwrap();
            assert!(status.peers.iter().all(|peer| peer.in_sync), "seed {seed}: at node {node} {status:?}");
        }
    }
}

#[test]
fn a_document_of_megabytes_crosses_in_parts_and_is_stored_in_parts() {
    let mut world = World::new(2, 8, Faults { delay_ms: 3, ..Faults::NONE });
    let doc = world.create(0);
    for number in 0..6 {
        let noise: String = (0..400_000).map(|_| char::from(b' ' + world.draw(90) as u8)).collect();
        world.put(0, doc, &format!("large {number}"), &noise).unwrap();
    }
    world.invite(0, 1, doc, Role::Writer);
    world.run(10 * SECOND);
    assert_eq!(world.save(0, doc), world.save(1, doc));
    for node in 0..2 {
        world.crash(node);
        world.start(node);
    }
    assert_eq!(again(&world.save(0, doc).unwrap()), again(&world.save(1, doc).unwrap()));
    assert_eq!(world.keys(1, doc).len(), 7);
}

/// The bytes of a document whose changes were applied in an order of their own: by what they build on, then by
/// hash. Automerge saves changes in the order in which they came.
pub(crate) fn again(saved: &[u8]) -> Vec<u8> {
    let mut left = Automerge::load(saved).unwrap().get_changes(&[]);
    left.sort_by_key(|change| change.hash());
    let mut document = Automerge::new();
    while !left.is_empty() {
        let ready = left.iter().position(|change| {
            change.deps().iter().all(|hash| document.get_change_meta_by_hash(hash).is_some())
        });
        document.apply_changes([left.remove(ready.unwrap())]).unwrap();
    }
    document.save()
}

/// One run of five replicas under every fault; the seed tells which.
fn swarm(seed: u64) {
    let mut world =
        World::new(5, seed, Faults { loss: 5, double: 5, delay_ms: 40, overtake: true, disk_ms: 20 });
    let doc = world.create(0);
    for guest in 1..5 {
        world.invite(0, guest, doc, Role::Writer);
    }
    world.connect_all();
    let mut acknowledged = BTreeSet::new();
    let mut asked = Vec::new();
    for number in 0..60 {
        let node = world.draw(5) as usize;
        match world.draw(10) {
            0 => {
                let other = world.draw(5) as usize;
                world.disconnect(node, other);
            }
            1 => world.connect_all(),
            2 if world.draw(3) == 0 => {
                world.crash(node);
                let down = world.draw(300);
                world.run(Duration::from_millis(down));
                world.start(node);
            }
            _ => {
                let (request, key) = (world.request(), format!("{number}"));
                world.handle(node, Input::Edit { request, doc, at: None, edit: put(&key, "x") });
                asked.push((node, request, key));
            }
        }
        let pause = world.draw(200);
        world.run(Duration::from_millis(pause));
        for (node, request, key) in &asked {
            if let Some(Ok(_)) = world.nodes[*node].replies.remove(request) {
                acknowledged.insert(key.clone());
            }
        }
    }
    world.faults = Faults::NONE;
    world.connect_all();
    world.run(90 * SECOND);
    let saved = world.save(0, doc).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for node in 1..5 {
        let other = world.save(node, doc).unwrap_or_else(|error| panic!("seed {seed}, node {node}: {error}"));
        let heads = (world.heads(0, doc), world.heads(node, doc));
        assert_eq!(heads.0, heads.1, "seed {seed}: node {node} differs");
        assert!(again(&saved) == again(&other), "seed {seed}: node {node} has other bytes");
    }
    let keys = world.keys(0, doc);
    let lost: Vec<_> = acknowledged.difference(&keys).collect();
    assert!(lost.is_empty(), "seed {seed} lost {lost:?}");
    let bad: Vec<_> = world.nodes.iter().flat_map(|node| &node.misbehaved).collect();
    assert!(bad.is_empty(), "seed {seed}: an honest node was accused: {bad:?}");
    assert!(acknowledged.len() > 5, "seed {seed}: only {} were acknowledged", acknowledged.len());
}

#[test]
fn five_replicas_end_equal_and_lose_nothing_under_every_fault() {
    for seed in 0..SEEDS {
        swarm(seed);
    }
}
