//! Feeds between simulated nodes: appended, carried, caught up with, and held to one chain per author.

use std::time::Duration;

use crate::SECOND;
use crate::world::{Faults, World};
use wattle_docs::{DocError, Event, Input, Role};
use wattle_types::limits::POST_BYTES_MAX;
use wattle_types::{Hlc, Posted, UnixTime};

/// Some nodes that all write one document, connected.
pub(crate) fn room(nodes: usize, seed: u64, faults: Faults) -> (World, wattle_types::DocId) {
    let mut world = World::new(nodes, seed, Faults::NONE);
    let doc = world.create(0);
    for guest in 1..nodes {
        world.invite(0, guest, doc, Role::Writer);
    }
    world.connect_all();
    world.run(SECOND);
    world.faults = faults;
    (world, doc)
}

fn texts(page: &[Posted]) -> Vec<String> {
    page.iter().map(|it| String::from_utf8(it.post.body.to_vec()).unwrap()).collect()
}

#[test]
fn what_one_says_all_hear_in_one_order() {
    let (mut world, doc) = room(3, 1, Faults::NONE);
    world.say(0, doc, "hello").unwrap();
    world.run(SECOND);
    world.say(1, doc, "hello yourself").unwrap();
    world.run(SECOND);
    world.say(2, doc, "and me").unwrap();
    world.run(SECOND);
    for node in 0..3 {
        assert_eq!(world.said(node, doc), ["hello", "hello yourself", "and me"], "node {node}");
    }
    let heard = world.nodes[2].events.iter().filter(|event| matches!(event, Event::FeedGrew { .. }));
    assert_eq!(heard.count(), 3);
}

#[test]
fn an_answer_comes_after_its_question_whatever_the_clocks_say() {
    let (mut world, doc) = room(2, 2, Faults::NONE);
    world.nodes[1].clock_behind = Duration::from_secs(60);
    world.crash(1);
    world.start(1);
    world.connect_all();
    world.run(SECOND);
    world.say(0, doc, "question").unwrap();
    world.run(SECOND);
    world.say(1, doc, "answer").unwrap();
    world.run(SECOND);
    world.say(0, doc, "thanks").unwrap();
    world.run(SECOND);
    for node in 0..2 {
        assert_eq!(world.said(node, doc), ["question", "answer", "thanks"], "node {node}");
    }
    assert!(world.page(0, doc, None, 9).iter().all(|it| !it.late), "nothing of a conversation is late");
}

#[test]
fn an_entry_names_what_its_author_had_seen_and_nobody_had_answered() {
    let (mut world, doc) = room(4, 14, Faults::NONE);
    world.say(0, doc, "question").unwrap();
    world.run(SECOND);
    for other in 0..4 {
        world.disconnect(1, other);
        world.disconnect(2, other);
    }
    world.say(1, doc, "one answer").unwrap();
    world.say(2, doc, "another").unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    world.say(3, doc, "I heard both").unwrap();
    world.run(SECOND);
    let page = world.page(0, doc, None, 9);
    let links: Vec<_> = page.iter().map(Posted::link).collect();
    assert_eq!(page[1].post.seen, [links[0]]);
    assert_eq!(page[3].post.seen, [links[1], links[2]]);
}

#[test]
fn the_newest_come_first_to_who_joins_late() {
    let (mut world, doc) = room(2, 3, Faults::NONE);
    world.disconnect(0, 1);
    for number in 0..600 {
        world.say(0, doc, &number.to_string()).unwrap();
    }
    world.faults.delay_ms = 20;
    world.connect_all();
    while world.page(1, doc, None, 50).is_empty() {
        world.run(Duration::from_millis(1));
    }
    let newest = texts(&world.page(1, doc, None, 50));
    assert_eq!(newest, (550..600).map(|number| number.to_string()).collect::<Vec<_>>());
    world.run(10 * SECOND);
    assert_eq!(world.said(1, doc), world.said(0, doc));
    let status = world.nodes[1].replica.as_ref().unwrap().status(&doc).unwrap();
    assert!(status.peers.iter().all(|peer| peer.in_sync), "{status:?}");
}

#[test]
fn in_a_full_room_an_entry_comes_to_everybody_once() {
    let (mut world, doc) = room(6, 5, Faults { delay_ms: 4, disk_ms: 4, ..Faults::NONE });
    let before: Vec<u64> = world.nodes.iter().map(|node| node.received_bytes).collect();
    let text = "x".repeat(2000);
    for number in 0..30 {
        world.say(number % 6, doc, &text).unwrap();
        world.run(Duration::from_millis(20));
    }
    world.run(SECOND);
    for (node, before) in before.into_iter().enumerate() {
        assert_eq!(world.said(node, doc).len(), 30, "node {node}");
        // 25 entries of others are 50 000 bytes once; the rest says who has what.
        let bytes = world.nodes[node].received_bytes - before;
        assert!(bytes < 2 * 25 * 2000, "node {node} received {bytes} bytes");
    }
}

#[test]
fn who_is_not_connected_to_an_author_hears_it_from_others_at_once() {
    let (mut world, doc) = room(4, 6, Faults { delay_ms: 4, disk_ms: 4, ..Faults::NONE });
    for (one, other) in [(0, 2), (0, 3), (1, 3)] {
        world.disconnect(one, other);
    }
    world.run(10 * SECOND);
    world.say(0, doc, "from the end of the line").unwrap();
    world.run(Duration::from_millis(150));
    assert_eq!(world.said(3, doc), ["from the end of the line"]);
}

#[test]
fn who_joins_late_sees_the_newest_of_many_authors_before_the_rest_of_any() {
    let (mut world, doc) = room(9, 9, Faults::NONE);
    for number in 0..900 {
        world.say(number % 9, doc, &number.to_string()).unwrap();
        if number % 90 == 0 {
            world.run(SECOND);
        }
    }
    world.run(10 * SECOND);
    // It comes back to one of them with nothing.
    for other in 0..8 {
        world.disconnect(other, 8);
    }
    let late = world.nodes.len() - 1;
    world.forget_feeds(late);
    world.faults.delay_ms = 20;
    world.connect(0, late);
    let end: Vec<String> = texts(&world.page(0, doc, None, 50));
    while texts(&world.page(late, doc, None, 50)) != end {
        world.run(Duration::from_millis(1));
        assert!(world.said(late, doc).len() < 400, "the rest of some came before the end of others");
    }
    world.run(60 * SECOND);
    assert_eq!(world.said(late, doc), world.said(0, doc));
}

/// A room whose first node said so much to all but the last one, which starts anew; the bytes of what it lacks.
fn who_lacks(
    (entries, bytes): (usize, usize),
    nodes: usize,
    faults: Faults,
) -> (World, wattle_types::DocId, u64) {
    let (mut world, doc) = room(nodes, 21, Faults::NONE);
    let late = nodes - 1;
    (0..late).for_each(|other| world.disconnect(other, late));
    let before = world.nodes[1].received_bytes;
    for number in 0..entries {
        let body = format!("{number} {}", "x".repeat(bytes)).into_bytes();
        let request = world.request();
        world.handle(0, Input::Append { request, doc, body });
        world.run(Duration::from_millis(2));
    }
    world.run(10 * SECOND);
    let bytes = world.nodes[1].received_bytes - before;
    world.forget_feeds(late);
    world.faults = faults;
    (world, doc, bytes)
}

/// How many milliseconds it takes to fetch sixteen answers from one.
fn sixteen_answers(of: (usize, usize), faults: Faults) -> u64 {
    let (mut world, doc, _) = who_lacks(of, 3, faults);
    world.connect(0, 2);
    let begun = world.now;
    while world.said(2, doc).len() < of.0 {
        world.run(Duration::from_millis(5));
    }
    world.now.since(begun).as_millis() as u64
}

#[test]
fn who_catches_up_asks_for_more_before_the_last_answer_is_there() {
    let took = sixteen_answers((16 * 128, 200), Faults { delay_ms: 40, ..Faults::NONE });
    assert!(took < 16 * 40, "it took {took} ms, and there and back takes 40");
}

#[test]
fn who_catches_up_asks_for_more_as_soon_as_the_disk_took_what_came() {
    // An answer fills more than half of a batch.
    let took = sixteen_answers((16 * 105, 2_200), Faults { disk_ms: 60, ..Faults::NONE });
    assert!(took < 650, "it took {took} ms, and a read and a write take 60 and overlap");
}

#[test]
fn who_catches_up_is_given_each_entry_by_one_of_many() {
    let faults = Faults { delay_ms: 20, overtake: false, disk_ms: 5, ..Faults::NONE };
    let (mut world, doc, bytes) = who_lacks((1500, 200), 6, faults);
    let before = world.nodes[5].received_bytes;
    (0..5).for_each(|other| world.connect(other, 5));
    world.run(10 * SECOND);
    assert_eq!(world.said(5, doc).len(), 1500);
    let received = world.nodes[5].received_bytes - before;
    assert!(received < bytes * 3 / 2, "{received} bytes of {bytes}");
}

/// The second of three nodes lacks a long piece in the middle of what the first one said, and the third lacks all.
fn with_a_hole() -> (World, wattle_types::DocId) {
    let (mut world, doc, _) = who_lacks((100, 20), 3, Faults::NONE);
    world.disconnect(0, 1);
    for number in 100..1100 {
        world.say(0, doc, &number.to_string()).unwrap();
    }
    world.faults.delay_ms = 20;
    world.connect(0, 1);
    while world.said(1, doc).len() == 100 {
        world.run(Duration::from_millis(1));
    }
    world.disconnect(0, 1);
    let here = world.said(1, doc).len();
    assert!(here < 600, "no hole is left of {here}");
    world.run(SECOND);
    (world, doc)
}

#[test]
fn who_catches_up_with_one_that_has_a_hole_gets_what_is_on_both_sides_of_it() {
    let (mut world, doc) = with_a_hole();
    world.connect(1, 2);
    world.run(20 * SECOND);
    assert_eq!(world.said(2, doc), world.said(1, doc));
    world.connect(0, 1);
    world.run(20 * SECOND);
    assert_eq!(world.said(2, doc).len(), 1100);
}

#[test]
fn pages_go_back_from_any_place() {
    let (mut world, doc) = room(3, 4, Faults::NONE);
    for number in 0..90 {
        world.say(number % 3, doc, &number.to_string()).unwrap();
        world.run(Duration::from_millis(100));
    }
    let mut back = Vec::new();
    let mut before = None;
    loop {
        let page = world.page(1, doc, before, 7);
        let Some(first) = page.first() else { break };
        before = Some(first.link());
        back.splice(0..0, texts(&page));
        assert!(back.len() <= 90, "it goes round: {back:?}");
    }
    assert_eq!(back, (0..90).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn both_sides_of_a_partition_talk_and_what_comes_late_is_marked() {
    let (mut world, doc) = room(3, 5, Faults::NONE);
    world.disconnect(0, 2);
    world.disconnect(1, 2);
    world.say(0, doc, "here").unwrap();
    world.say(2, doc, "there").unwrap();
    world.run(60 * SECOND);
    world.connect_all();
    world.run(5 * SECOND);
    world.say(1, doc, "together").unwrap();
    world.run(SECOND);
    let said = world.said(0, doc);
    assert!((1..3).all(|node| world.said(node, doc) == said), "{said:?}");
    assert_eq!(said.len(), 3);
    let late = |node: usize| {
        let page = world.page(node, doc, None, 9);
        texts(&page.into_iter().filter(|it| it.late).collect::<Vec<_>>())
    };
    assert_eq!(
        (late(0), late(1), late(2)),
        (vec!["there".into()], vec!["there".into()], vec!["here".into()])
    );
}

#[test]
fn an_author_learns_who_has_what_it_said() {
    let (mut world, doc) = room(3, 6, Faults::NONE);
    world.disconnect(0, 2);
    world.disconnect(1, 2);
    world.say(0, doc, "hello").unwrap();
    world.run(SECOND);
    let reached = |world: &World| {
        let mut reached = std::collections::BTreeSet::new();
        for event in &world.nodes[0].events {
            if let Event::Reached { peer, seq: 1.., .. } = event {
                reached.insert(world.index(peer).unwrap());
            }
        }
        reached.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(reached(&world), [1]);
    world.connect_all();
    world.run(10 * SECOND);
    assert_eq!(reached(&world), [1, 2]);
}

#[test]
fn what_was_said_and_acknowledged_survives_a_crash() {
    let (mut world, doc) = room(1, 7, Faults { disk_ms: 20, ..Faults::NONE });
    let mut acknowledged = Vec::new();
    for round in 0..40 {
        let mut asked = Vec::new();
        for number in 0..8 {
            let (request, text) = (world.request(), format!("{round} {number}"));
            let body = text.as_bytes().to_vec();
            world.handle(0, Input::Append { request, doc, body });
            asked.push((request, text));
            let pause = world.draw(15);
            world.run(Duration::from_millis(pause));
        }
        for (request, text) in asked {
            if let Some(Ok(_)) = world.nodes[0].replies.remove(&request) {
                acknowledged.push(text);
            }
        }
        world.crash(0);
        world.start(0);
        let said = world.said(0, doc);
        let lost: Vec<_> = acknowledged.iter().filter(|text| !said.contains(text)).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
    }
    assert!(acknowledged.len() > 80, "only {} were acknowledged", acknowledged.len());
}

#[test]
fn a_reader_says_nothing_and_a_message_has_a_limit() {
    let mut world = World::new(2, 8, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Reader);
    world.run(SECOND);
    let refused = world.say(1, doc, "psst");
    assert_eq!(refused, Err(DocError::NotAllowed { needed: "writer", held: "a reader" }));
    let long = "x".repeat(POST_BYTES_MAX + 1);
    assert!(matches!(world.say(0, doc, &long), Err(DocError::Refused(_))));
    world.say(0, doc, &long[1..]).unwrap();
    world.run(SECOND);
    assert_eq!(world.said(1, doc).len(), 1);
}

#[test]
fn a_full_disk_refuses_a_message_and_keeps_the_others() {
    let (mut world, doc) = room(1, 9, Faults::NONE);
    world.say(0, doc, "before").unwrap();
    world.nodes[0].full = true;
    assert_eq!(world.say(0, doc, "during"), Err(DocError::NotSaved("the disk is full".to_owned())));
    world.nodes[0].full = false;
    world.say(0, doc, "after").unwrap();
    world.crash(0);
    world.start(0);
    assert_eq!(world.said(0, doc), ["before", "after"]);
}

#[test]
fn what_a_removed_member_said_behind_the_end_is_nowhere() {
    let (mut world, doc) = room(4, 10, Faults::NONE);
    world.say(1, doc, "before").unwrap();
    world.run(SECOND);
    for other in [0, 3] {
        world.disconnect(other, 1);
        world.disconnect(other, 2);
    }
    world.say(1, doc, "unseen").unwrap();
    world.run(SECOND);
    assert_eq!(world.said(2, doc), ["before", "unseen"]);
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    for node in [0, 2, 3] {
        assert_eq!(world.said(node, doc), ["before"], "node {node}");
    }
    // Let in again, he goes on in another feed: nobody takes what he said before for a fork.
    world.ask(0, |request| Input::Grant { request, doc, to: bob, role: Role::Writer }).unwrap();
    world.run(10 * SECOND);
    world.say(1, doc, "again").unwrap();
    world.run(10 * SECOND);
    for node in 0..4 {
        assert_eq!(world.said(node, doc), ["before", "again"], "node {node}");
    }
}

#[test]
fn what_a_removed_member_said_first_and_only_there_is_nowhere() {
    let (mut world, doc) = room(4, 13, Faults::NONE);
    for other in [0, 3] {
        world.disconnect(other, 1);
        world.disconnect(other, 2);
    }
    world.say(1, doc, "unseen").unwrap();
    world.run(SECOND);
    let bob = world.nodes[1].id;
    world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    for node in [0, 2, 3] {
        assert_eq!(world.said(node, doc), [""; 0], "node {node}");
    }
}

#[test]
fn two_entries_in_one_place_end_a_feed_everywhere_and_the_author_goes_on_in_the_next() {
    let (mut world, doc) = room(3, 11, Faults::NONE);
    world.say(1, doc, "one").unwrap();
    world.run(2 * SECOND);
    // Bob's disk is set back to here after each side of a partition heard another second and third entry.
    world.disconnect(1, 0);
    world.disconnect(1, 2);
    world.disconnect(0, 2);
    let back = world.nodes[1].disk.clone();
    world.connect(1, 0);
    world.say(1, doc, "two for alice").unwrap();
    world.say(1, doc, "three for alice").unwrap();
    world.run(2 * SECOND);
    world.crash(1);
    world.nodes[1].disk = back;
    world.start(1);
    world.connect(1, 2);
    world.run(2 * SECOND);
    world.say(1, doc, "two for carol").unwrap();
    world.run(2 * SECOND);
    assert_eq!(world.said(0, doc), ["one", "two for alice", "three for alice"]);
    assert_eq!(world.said(2, doc), ["one", "two for carol"]);
    world.connect_all();
    world.run(30 * SECOND);
    for node in 0..3 {
        let mut said = world.said(node, doc);
        said[1..].sort();
        assert_eq!(said, ["one", "two for alice", "two for carol"], "node {node}");
        assert!(world.page(node, doc, None, 9)[1..].iter().all(|it| it.forked), "flagged at node {node}");
        let told = world.nodes[node].events.iter().any(|event| matches!(event, Event::FeedForked { .. }));
        assert!(told, "node {node} was not told");
    }
    world.say(1, doc, "sorry").unwrap();
    world.run(10 * SECOND);
    assert!((0..3).all(|node| world.said(node, doc).last().unwrap() == "sorry"));
}

#[test]
fn a_clock_far_ahead_moves_no_other_clock() {
    let (mut world, doc) = room(2, 12, Faults::NONE);
    world.nodes[1].clock_ahead = Duration::from_secs(3600);
    world.crash(1);
    world.start(1);
    world.connect_all();
    world.run(SECOND);
    world.say(1, doc, "from the future").unwrap();
    world.run(SECOND);
    world.say(0, doc, "now").unwrap();
    world.run(SECOND);
    let now = world.page(0, doc, None, 9).into_iter().find(|it| &*it.post.body == b"now").unwrap();
    assert!(now.post.at < Hlc::at(UnixTime::from_millis(1_800_000_000_000 + 60_000)), "{:?}", now.post.at);
}

#[test]
fn an_answer_to_what_was_dated_ahead_comes_after_it_once_that_is_near() {
    let (mut world, doc) = room(3, 13, Faults::NONE);
    world.set_clock(1, 11 * 60);
    world.say(1, doc, "from the future").unwrap();
    world.run(SECOND);
    // Ten minutes are as far as clocks follow: it was further ahead when it came, and is not any more.
    world.run(90 * SECOND);
    world.say(0, doc, "here by now").unwrap();
    world.run(SECOND);
    for node in 0..3 {
        assert_eq!(world.said(node, doc), ["from the future", "here by now"], "node {node}");
        assert_eq!(world.nodes[node].misbehaved, [], "node {node}");
    }
}

/// Five nodes talk while links come and go, frames are lost, doubled and late, clocks are set wrong by up to an hour,
/// and nodes die between writes. Gives how many messages were acknowledged.
fn talk(seed: u64) -> usize {
    let faults = Faults { loss: 5, double: 5, delay_ms: 40, overtake: true, disk_ms: 10 };
    let (mut world, doc) = room(5, seed, faults);
    let mut acknowledged = Vec::new();
    for step in 0..60 {
        let node = world.draw(5) as usize;
        match world.draw(10) {
            0 if world.is_up(node) => world.crash(node),
            0 | 1 if !world.is_up(node) => {
                world.start(node);
                (0..5).for_each(|other| world.connect(node, other));
            }
            2 => {
                let other = world.draw(5) as usize;
                world.disconnect(node, other);
            }
            3 => {
                let other = world.draw(5) as usize;
                world.connect(node, other);
            }
            4 => {
                let ahead_s = world.draw(7200) as i64 - 3600;
                world.set_clock(node, ahead_s);
            }
            5 => world.set_clock(node, 0),
            _ if world.is_up(node) => {
                let text = format!("{step} of {node}");
                if world.say(node, doc, &text).is_ok() {
                    acknowledged.push(text);
                }
            }
            _ => {}
        }
        let pause = world.draw(200);
        world.run(Duration::from_millis(pause));
    }
    for node in 0..5 {
        if !world.is_up(node) {
            world.start(node);
        }
        world.set_clock(node, 0);
    }
    world.faults = Faults::NONE;
    world.connect_all();
    world.run(40 * SECOND);
    let said = world.said(0, doc);
    for node in 0..5 {
        assert_eq!(world.said(node, doc), said, "seed {seed}: node {node} differs");
        assert_eq!(world.nodes[node].misbehaved, [], "seed {seed}: node {node} takes another for a liar");
    }
    for text in &acknowledged {
        assert_eq!(said.iter().filter(|it| *it == text).count(), 1, "seed {seed}: {text:?} of {said:?}");
    }
    acknowledged.len()
}

#[test]
fn five_nodes_that_crash_and_part_end_with_the_same_talk() {
    let seeds: u64 = option_env!("WATTLE_SIM_SEEDS").map_or(30, |seeds| seeds.parse().unwrap());
    let said: usize = (0..seeds).map(|seed| talk(seed + 1000)).sum();
    // A run in which nobody could say anything would prove nothing.
    assert!(said as u64 > 15 * seeds, "only {said} messages in {seeds} runs");
}
