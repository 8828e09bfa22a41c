//! Feeds whose authors do not keep to one chain, and what happens to them in the middle of something else.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_bytes::ByteBuf;
use wattle_docs::{DocError, Event, Input, Outcome, Role};
use wattle_types::limits::POST_BYTES_MAX;
use wattle_types::{
    DocId, Domain, Envelope, Hlc, NetworkName, NodeId, Post, PostId, PostLink, SecretKey, Table, UnixTime,
    cbor,
};

use crate::SECOND;
use crate::feeds::room;
use crate::world::{Faults, World};

/// What an attacker's own program says about feeds.
#[derive(Serialize)]
enum Message {
    Feeds { tops: Vec<Top> },
    Posts { posts: Vec<Sent>, asked: Option<()> },
    Forked { entries: Vec<Envelope> },
    Signal { bytes: ByteBuf },
}

#[derive(Serialize)]
struct Sent {
    number: u16,
    seq: u64,
    envelope: Envelope,
}

#[derive(Serialize)]
struct Feed {
    author: NodeId,
    number: u16,
}

#[derive(Serialize)]
struct Top {
    feed: Feed,
    last: u64,
    link: Option<PostLink>,
    fork: Option<(u64, Vec<PostId>)>,
}

/// Speaks as one node to another.
fn tell(world: &mut World, from: usize, to: usize, doc: DocId, message: &Message) {
    let tag = world.nodes[0].replica.as_ref().unwrap().access(&doc).unwrap().read.tag();
    let frame = [tag.as_bytes().as_slice(), &cbor::encode(message)].concat();
    world.send(from, to, frame);
}

fn key(node: usize) -> SecretKey {
    SecretKey::from_bytes(&[node as u8 + 1; 32])
}

/// An entry of the second feed of its author, so that what the author's own node does is not in its way.
fn entry(key: &SecretKey, doc: DocId, seq: u64, prev: Option<PostLink>, body: &[u8]) -> (Envelope, PostLink) {
    entry_of(key, doc, 1, seq, prev, body)
}

fn entry_of(
    key: &SecretKey,
    doc: DocId,
    feed: u16,
    seq: u64,
    prev: Option<PostLink>,
    body: &[u8],
) -> (Envelope, PostLink) {
    let at = Hlc::at(UnixTime::from_millis(1_800_000_000_000 + seq));
    let post = Post { doc, feed, seq, at, prev, seen: Vec::new(), body: ByteBuf::from(body) };
    let envelope = Envelope::seal(key, Domain::DocPost, &NetworkName::default(), &post);
    let link = PostLink { at, id: PostId::from_bytes(envelope.hash()) };
    (envelope, link)
}

fn posts(entries: &[(u64, &Envelope)]) -> Message {
    let sent =
        |(seq, envelope): &(u64, &Envelope)| Sent { number: 1, seq: *seq, envelope: (*envelope).clone() };
    Message::Posts { posts: entries.iter().map(sent).collect(), asked: None }
}

/// Everybody who is up has the same, and knows it.
fn assert_equal(world: &World, doc: DocId, nodes: &[usize], why: &str) {
    let said = world.said(nodes[0], doc);
    for node in nodes {
        assert_eq!(world.said(*node, doc), said, "{why}: node {node}");
        let status = world.nodes[*node].replica.as_ref().unwrap().status(&doc).unwrap();
        let ids: BTreeSet<_> = nodes.iter().map(|node| world.nodes[*node].id).collect();
        let unequal: Vec<_> =
            status.peers.iter().filter(|peer| ids.contains(&peer.peer) && !peer.in_sync).collect();
        assert!(unequal.is_empty(), "{why}: node {node} differs from {unequal:?}");
        let rows = world.rows(*node, Table::DocPosts) as u64;
        assert_eq!(rows, status.posts, "{why}: node {node} has other entries on disk than it says");
    }
}

#[test]
fn a_message_that_a_removal_overtakes_is_never_acknowledged_without_being_on_disk() {
    for seed in 0..6 {
        let faults = Faults { disk_ms: 40, ..Faults::NONE };
        let (mut world, doc) = room(2, seed, faults);
        let bob = world.nodes[1].id;
        let request = world.request();
        world.handle(0, Input::Remove { request, doc, who: bob });
        let (mut asked, mut answered, mut refused) = (Vec::new(), 0, 0);
        for _ in 0..150 {
            let request = world.request();
            asked.push(request);
            world.handle(1, Input::Append { request, doc, body: b"still here".to_vec() });
            world.run(Duration::from_millis(1));
            for request in &asked {
                match world.nodes[1].replies.remove(request) {
                    Some(Ok(Outcome::Appended { post })) => {
                        let here = world.page(1, doc, None, usize::MAX).iter().any(|it| it.id == post);
                        assert!(here, "seed {seed}: {request:?} was acknowledged and is nowhere");
                        answered += 1;
                    }
                    Some(_) => refused += 1,
                    None => {}
                }
            }
        }
        world.run(SECOND);
        let late = asked.iter().filter(|it| world.nodes[1].replies.contains_key(it)).count();
        assert!(answered > 0 && refused > 0, "the removal came between");
        assert_eq!(answered + refused + late, asked.len(), "everything is answered");
    }
}

#[test]
fn a_removal_and_a_return_learned_at_once_leave_the_same_everywhere_and_nobody_is_called_a_forger() {
    for before in [false, true] {
        let (mut world, doc) = room(4, 20, Faults::NONE);
        if before {
            world.say(1, doc, "before").unwrap();
            world.run(SECOND);
        }
        for other in [0, 3] {
            world.disconnect(other, 1);
            world.disconnect(other, 2);
        }
        world.say(1, doc, "unseen").unwrap();
        world.run(SECOND);
        world.disconnect(1, 2);
        let bob = world.nodes[1].id;
        world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
        world.connect(0, 1);
        world.run(10 * SECOND);
        world.ask(0, |request| Input::Grant { request, doc, to: bob, role: Role::Writer }).unwrap();
        world.run(10 * SECOND);
        world.say(1, doc, "again").unwrap();
        world.run(SECOND);
        world.connect_all();
        world.run(30 * SECOND);
        let expected: &[&str] = if before { &["before", "again"] } else { &["again"] };
        for node in 0..4 {
            assert_eq!(world.said(node, doc), expected, "node {node}");
            let forked = world.nodes[node].events.iter().any(|it| matches!(it, Event::FeedForked { .. }));
            assert!(!forked, "node {node} was told that an honest author forged");
        }
        assert_equal(&world, doc, &[0, 1, 2, 3], "after the return");
    }
}

#[test]
fn a_cut_that_a_crash_kept_from_the_disk_is_made_at_the_next_start() {
    for seed in 0..40 {
        let (mut world, doc) = room(4, 100 + seed, Faults { disk_ms: 30, ..Faults::NONE });
        for other in [0, 3] {
            world.disconnect(other, 1);
            world.disconnect(other, 2);
        }
        world.say(1, doc, "unseen").unwrap();
        world.run(SECOND);
        world.disconnect(1, 2);
        let bob = world.nodes[1].id;
        world.ask(0, |request| Input::Remove { request, doc, who: bob }).unwrap();
        world.connect(0, 2);
        let until = world.draw(80);
        for _ in 0..until {
            let request = world.request();
            world.handle(2, Input::Append { request, doc, body: b"chatter".to_vec() });
            world.run(Duration::from_millis(1));
        }
        world.crash(2);
        world.start(2);
        world.connect_all();
        world.run(20 * SECOND);
        assert!(!world.said(2, doc).contains(&"unseen".to_owned()), "seed {seed}");
        assert_equal(&world, doc, &[0, 2, 3], &format!("seed {seed}"));
    }
}

#[test]
fn a_link_to_an_entry_that_nobody_has_ends_the_feed_and_starts_no_storm() {
    let (mut world, doc) = room(4, 21, Faults::NONE);
    let mallory = key(1);
    let (one, one_link) = entry(&mallory, doc, 1, None, b"one");
    let (two, _) = entry(&mallory, doc, 2, Some(one_link), b"two");
    let (_, nowhere) = entry(&mallory, doc, 2, Some(one_link), b"never sent");
    let (three, three_link) = entry(&mallory, doc, 3, Some(nowhere), b"three");
    let (four, _) = entry(&mallory, doc, 4, Some(three_link), b"four");
    let chain = posts(&[(1, &one), (2, &two)]);
    let top = posts(&[(4, &four)]);
    let rest = posts(&[(3, &three)]);
    tell(&mut world, 1, 0, doc, &chain);
    world.run(SECOND);
    tell(&mut world, 1, 0, doc, &top);
    tell(&mut world, 1, 2, doc, &top);
    tell(&mut world, 1, 3, doc, &top);
    world.run(SECOND);
    tell(&mut world, 1, 0, doc, &rest);
    tell(&mut world, 1, 3, doc, &rest);
    let bytes = |world: &World| world.nodes.iter().map(|node| node.received_bytes).sum::<u64>();
    world.run(30 * SECOND);
    let before = bytes(&world);
    world.run(30 * SECOND);
    assert!(bytes(&world) - before < 10_000, "{} bytes for nothing", bytes(&world) - before);
    assert_equal(&world, doc, &[0, 1, 2, 3], "with a dangling link");
}

#[test]
fn a_proof_about_nobody_or_beyond_the_limits_is_not_kept() {
    let (mut world, doc) = room(3, 22, Faults::NONE);
    let nobody = SecretKey::from_bytes(&[99; 32]);
    let pair = |key: &SecretKey, body: &[u8]| {
        let mut entries = vec![entry(key, doc, 1, None, b"one").0, entry(key, doc, 1, None, body).0];
        entries.sort_by_key(Envelope::hash);
        entries
    };
    let feeds = |world: &World, node: usize| {
        world.nodes[node].disk.keys().filter(|(table, _)| *table == Table::DocFeeds).count()
    };
    tell(&mut world, 1, 0, doc, &Message::Forked { entries: pair(&nobody, b"other") });
    world.run(SECOND);
    assert_eq!(feeds(&world, 0), 0, "who is no member has no feed");
    // Whichever of the two comes first.
    for fill in 0..8 {
        let long = vec![fill; POST_BYTES_MAX + 1];
        tell(&mut world, 1, 0, doc, &Message::Forked { entries: pair(&key(1), &long) });
    }
    world.run(SECOND);
    assert_eq!(feeds(&world, 0), 0, "an entry over its limit is no proof");
    assert!(world.nodes[2].misbehaved.is_empty(), "who passes on is not blamed");
}

#[test]
fn who_claims_that_feeds_differ_is_asked_for_it_and_nobody_else() {
    let (mut world, doc) = room(4, 23, Faults::NONE);
    world.say(2, doc, "hello").unwrap();
    world.run(2 * SECOND);
    let carol = world.nodes[2].id;
    let link = PostLink { at: Hlc::from_bits(7), id: PostId::from_bytes([7; 32]) };
    let top = || Top { feed: Feed { author: carol, number: 0 }, last: 1, link: Some(link), fork: None };
    let before: Vec<u64> = world.nodes.iter().map(|node| node.received_bytes).collect();
    for _ in 0..200 {
        tell(&mut world, 1, 0, doc, &Message::Feeds { tops: vec![top()] });
        world.run(Duration::from_millis(10));
    }
    for node in [2, 3] {
        let told = world.nodes[node].received_bytes - before[node];
        assert!(told < 2000, "node {node} heard {told} bytes because of a liar");
    }
    world.run(10 * SECOND);
    assert_equal(&world, doc, &[0, 2, 3], "after lies");
    let ids = (0..1000).map(|_| PostId::from_bytes([1; 32])).collect();
    tell(&mut world, 1, 0, doc, &Message::Feeds { tops: vec![Top { fork: Some((1, ids)), ..top() }] });
    world.run(SECOND);
    assert_eq!(world.nodes[0].misbehaved, [(world.nodes[1].id, "a document message over its limits")]);
}

#[test]
fn a_peer_that_claims_more_than_it_gives_is_not_believed() {
    let (mut world, doc) = room(3, 27, Faults::NONE);
    world.say(2, doc, "hello").unwrap();
    world.run(2 * SECOND);
    let [carol, nobody] = [world.nodes[2].id, SecretKey::from_bytes(&[99; 32]).node_id()];
    let missing =
        |world: &World| world.nodes[0].replica.as_ref().unwrap().status(&doc).unwrap().posts_missing;
    for last in 1..30 {
        let top =
            |author, number| Top { feed: Feed { author, number }, last: last * 1000, link: None, fork: None };
        let tops = vec![top(carol, 0), top(carol, 99), top(nobody, 0), top(world.nodes[1].id, 0)];
        tell(&mut world, 1, 0, doc, &Message::Feeds { tops });
        world.run(SECOND);
        assert!(last < 8 || missing(&world) == 0, "{} messages are said to be missing", missing(&world));
    }
    // What it does have is counted again.
    world.disconnect(0, 2);
    world.disconnect(0, 1);
    world.say(1, doc, "real").unwrap();
    world.connect_all();
    world.run(10 * SECOND);
    assert_eq!((world.said(0, doc).len(), missing(&world)), (2, 0));
}

/// Entries of one author, of which each node was told others: never all, and never in one order.
#[test]
fn a_feed_in_more_pieces_than_are_kept_ends_equal_whatever_came_first() {
    for (seed, length, least) in [(30, 6, 5), (31, 60, 48), (32, 300, 100), (33, 600, 100)] {
        let (mut world, doc) = room(4, seed, Faults::NONE);
        let (mut chain, mut prev) = (Vec::new(), None);
        for seq in 1..=length {
            let (envelope, link) = entry(&key(1), doc, seq, prev, b"x");
            prev = Some(link);
            chain.push((seq, envelope));
        }
        for other in [0, 2, 3] {
            (0..4).for_each(|it| world.disconnect(other, it));
        }
        let disk = world.nodes[1].disk.clone();
        for hearer in [0, 2, 3] {
            world.connect(1, hearer);
            world.run(SECOND);
            // Nobody is told the fifth, the tenth and so on; of the rest each hears most, in its own order.
            let mut told: Vec<_> = chain.iter().filter(|(seq, _)| seq % 5 != 0).collect();
            told.retain(|(seq, _)| !(seq + hearer as u64).is_multiple_of(3));
            match hearer {
                0 => {}
                2 => told.reverse(),
                _ => (0..told.len()).for_each(|at| told.swap(at, (at * 7 + 3) % (at + 1))),
            }
            for some in told.chunks(8) {
                let some: Vec<_> = some.iter().map(|(seq, envelope)| (*seq, envelope)).collect();
                tell(&mut world, 1, hearer, doc, &posts(&some));
                world.run(Duration::from_millis(5));
            }
            world.run(SECOND);
            world.crash(1);
            world.nodes[1].disk = disk.clone();
            world.start(1);
        }
        world.connect_all();
        world.run(60 * SECOND);
        assert_equal(&world, doc, &[0, 1, 2, 3], &format!("{length} entries"));
        let said = world.said(0, doc).len();
        assert!(said >= least, "{said} of {length}");
        // Once the author tells the rest, all of it is everywhere.
        for some in chain.chunks(8) {
            let some: Vec<_> = some.iter().map(|(seq, envelope)| (*seq, envelope)).collect();
            tell(&mut world, 1, 0, doc, &posts(&some));
            world.run(Duration::from_millis(20));
        }
        world.run(60 * SECOND);
        assert_equal(&world, doc, &[0, 1, 2, 3], &format!("{length} entries, told whole"));
        assert_eq!(world.said(3, doc).len() as u64, length);
    }
}

/// While a batch is on its way a piece gives way to a newer one, and comes again once another gap is closed.
#[test]
fn a_piece_that_goes_and_comes_again_before_the_disk_is_free_is_there() {
    let (mut world, doc) = room(2, 28, Faults::NONE);
    let (mut chain, mut prev) = (Vec::new(), None);
    for seq in 1..=140 {
        let (envelope, link) = entry(&key(1), doc, seq, prev, b"x");
        prev = Some(link);
        chain.push((seq, envelope));
    }
    let say = |world: &mut World, seq: u64| {
        let (_, envelope) = &chain[seq as usize - 1];
        tell(world, 1, 0, doc, &posts(&[(seq, envelope)]));
        world.run(Duration::from_millis(1));
    };
    // The first, and as many pieces behind it as are kept.
    (1..=64).for_each(|piece| say(&mut world, 2 * piece - 1));
    world.run(SECOND);
    world.faults.disk_ms = 20_000;
    for seq in [127, 129, 131, 6, 3, 5] {
        say(&mut world, seq);
    }
    let waiting = world.waiting(0);
    world.faults.disk_ms = 1;
    world.run(60 * SECOND);
    let rows = world.rows(0, Table::DocPosts) as u64;
    let status = world.nodes[0].replica.as_ref().unwrap().status(&doc).unwrap();
    assert_eq!((waiting, rows), (1, status.posts), "what the row says is on disk");
}

#[test]
fn an_entry_that_is_cut_while_it_is_on_its_way_to_the_disk_is_told_to_nobody() {
    let mut between = 0;
    for seed in 0..10 {
        let (mut world, doc) = room(4, 200 + seed, Faults::NONE);
        for other in [0, 3] {
            world.disconnect(other, 1);
            world.disconnect(other, 2);
        }
        let who = world.nodes[1].id;
        world.ask(0, |request| Input::Remove { request, doc, who }).unwrap();
        world.faults.disk_ms = 200;
        let request = world.request();
        world.handle(1, Input::Append { request, doc, body: b"unseen".to_vec() });
        while world.waiting(2) == 0 {
            world.run(Duration::from_millis(1));
        }
        let is_of_bob = |event: &Event| match event {
            Event::FeedGrew { posts, .. } => posts.iter().any(|post| post.author == who),
            _ => false,
        };
        world.connect(0, 2);
        world.run(Duration::from_millis(1));
        let knows = world.nodes[2].replica.as_ref().unwrap().members(&doc).unwrap().role(&who).is_none();
        let told = world.nodes[2].events.iter().any(is_of_bob);
        between += usize::from(knows && !told);
        world.run(10 * SECOND);
        assert!(told || !world.nodes[2].events.iter().any(is_of_bob), "seed {seed}: told after it was cut");
        world.connect_all();
        world.run(10 * SECOND);
        assert_equal(&world, doc, &[0, 2, 3], &format!("seed {seed}"));
    }
    assert!(between > 0, "the removal never came between");
}

#[test]
fn so_many_feeds_are_looked_into_and_a_fork_is_found_beside_them() {
    let (mut world, doc) = room(7, 29, Faults::NONE);
    let feeds: Vec<(usize, u16)> =
        (1..6).flat_map(|author| (0..16).map(move |number| (author, number))).collect();
    let link = PostLink { at: Hlc::from_bits(7), id: PostId::from_bytes([7; 32]) };
    for (author, number) in &feeds {
        let (envelope, _) = entry_of(&key(*author), doc, *number, 1, None, b"x");
        let sent = Sent { number: *number, seq: 1, envelope };
        tell(&mut world, 6, 0, doc, &Message::Posts { posts: vec![sent], asked: None });
    }
    world.run(SECOND);
    assert_eq!(world.said(0, doc).len(), 80);
    for (author, number) in &feeds {
        let feed = Feed { author: world.nodes[*author].id, number: *number };
        let tops = vec![Top { feed, last: 1, link: Some(link), fork: None }];
        // The machine itself asserts that there are not too many.
        tell(&mut world, 6, 0, doc, &Message::Feeds { tops });
    }
    world.run(SECOND);
    let (other, _) = entry_of(&key(3), doc, 9, 1, None, b"y");
    let sent = Sent { number: 9, seq: 1, envelope: other };
    tell(&mut world, 6, 0, doc, &Message::Posts { posts: vec![sent], asked: None });
    world.run(20 * SECOND);
    let forked = |event: &Event| matches!(event, Event::FeedForked { feed, .. } if feed.number == 9);
    assert!((0..7).all(|node| world.nodes[node].events.iter().any(forked)), "the fork is known everywhere");
}

#[test]
fn what_is_said_in_passing_is_heard_at_a_bounded_rate() {
    let (mut world, doc) = room(2, 24, Faults::NONE);
    let heard = |world: &World| {
        world.nodes[0].events.iter().filter(|event| matches!(event, Event::Signal { .. })).count()
    };
    for _ in 0..500 {
        tell(&mut world, 1, 0, doc, &Message::Signal { bytes: ByteBuf::from(b"typing") });
    }
    world.run(SECOND);
    assert!((1..=20).contains(&heard(&world)), "{} of 500", heard(&world));
    tell(&mut world, 1, 0, doc, &Message::Signal { bytes: ByteBuf::from(b"typing") });
    let before = heard(&world);
    world.run(SECOND);
    assert_eq!(heard(&world), before + 1, "it may speak again");
}

#[test]
fn no_batch_is_larger_than_the_store_takes_however_many_feeds_fork() {
    let (mut world, doc) = room(2, 25, Faults { disk_ms: 500, ..Faults::NONE });
    let mallory = key(1);
    let mut requests = Vec::new();
    for number in 0..32 {
        let request = world.request();
        requests.push(request);
        let body = vec![number; POST_BYTES_MAX];
        world.handle(0, Input::Append { request, doc, body });
    }
    for number in 0..16 {
        let fill = vec![number as u8; POST_BYTES_MAX - 1];
        let at = |last: u8| {
            let body = [fill.as_slice(), &[last]].concat();
            entry_of(&mallory, doc, number, 1, None, &body).0
        };
        let mut entries = vec![at(0), at(1)];
        entries.sort_by_key(Envelope::hash);
        tell(&mut world, 1, 0, doc, &Message::Forked { entries });
    }
    // The world asserts the size of every batch.
    world.run(20 * SECOND);
    let replies = requests.iter().map(|request| &world.nodes[0].replies[request]);
    let (saved, refused): (Vec<_>, Vec<_>) = replies.partition(|reply| reply.is_ok());
    assert!(saved.len() >= 30, "{refused:?}");
    assert!(refused.iter().all(|reply| matches!(reply, Err(DocError::Busy))), "{refused:?}");
}

#[test]
fn what_a_reader_signs_is_kept_nowhere_and_what_contradicts_itself_is_its_senders_fault() {
    let mut world = World::new(3, 26, Faults::NONE);
    let doc = world.create(0);
    world.invite(0, 1, doc, Role::Writer);
    world.invite(0, 2, doc, Role::Reader);
    world.connect_all();
    world.run(SECOND);
    let (psst, link) = entry(&key(2), doc, 1, None, b"psst");
    tell(&mut world, 2, 0, doc, &posts(&[(1, &psst)]));
    world.run(SECOND);
    assert_eq!(world.said(0, doc), [""; 0]);
    assert!(world.nodes[0].misbehaved.is_empty(), "who may write is learned late by some");
    let post = Post {
        doc,
        feed: 1,
        seq: 1,
        at: link.at,
        prev: None,
        seen: vec![link],
        body: ByteBuf::from(b"before what I saw"),
    };
    let early = Envelope::seal(&key(1), Domain::DocPost, &NetworkName::default(), &post);
    tell(&mut world, 1, 0, doc, &posts(&[(1, &early)]));
    world.run(SECOND);
    assert_eq!(world.said(0, doc), [""; 0]);
    assert_eq!(world.nodes[0].misbehaved, [(world.nodes[1].id, "a feed's entry that contradicts itself")]);
}

/// A feed that forked at several places while nodes die: its author's disk is set back again and again.
fn forks(seed: u64) {
    let (mut world, doc) = room(5, seed, Faults { disk_ms: 10, ..Faults::NONE });
    world.say(1, doc, "first").unwrap();
    world.run(2 * SECOND);
    for other in [0, 2, 3, 4] {
        (0..5).for_each(|it| world.disconnect(other, it));
    }
    let mut disks = vec![world.nodes[1].disk.clone()];
    // Each of three hears another branch; the branches part at random places.
    for hearer in [0, 2, 3] {
        let from = world.draw(disks.len() as u64) as usize;
        world.crash(1);
        world.nodes[1].disk = disks[from].clone();
        world.start(1);
        world.connect(1, hearer);
        world.run(SECOND);
        let length = 1 + world.draw(12);
        for number in 0..length {
            world.say(1, doc, &format!("{number} to {hearer}")).unwrap();
            disks.push(world.nodes[1].disk.clone());
        }
        world.run(SECOND);
        world.disconnect(1, hearer);
    }
    world.connect_all();
    for _ in 0..world.draw(6) {
        let pause = world.draw(60);
        world.run(Duration::from_millis(pause));
        let node = world.draw(5) as usize;
        world.crash(node);
        world.start(node);
        (0..5).for_each(|other| world.connect(node, other));
    }
    if world.draw(3) == 0 {
        let bob = world.nodes[1].id;
        let request = world.request();
        world.handle(0, Input::Remove { request, doc, who: bob });
    }
    world.connect_all();
    world.run(60 * SECOND);
    assert_equal(&world, doc, &[0, 2, 3, 4], &format!("seed {seed}"));
}

#[test]
fn feeds_that_fork_at_several_places_end_equal_whoever_dies_meanwhile() {
    let seeds: u64 = option_env!("WATTLE_SIM_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    (0..seeds).for_each(|seed| forks(seed + 3000));
}
