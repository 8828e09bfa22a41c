//! Floods against shared documents: mutated messages and changes, made-up tags. Alone in its process, so that
//! what is measured is its own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper ends the test like the test itself")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use automerge::Automerge;
use serde_bytes::{ByteArray, ByteBuf};
use wattle_docs::chunk::inspect_change;
use wattle_docs::{Input, Role};
use wattle_tests::documents::{
    Act, Bearer, Desk, FeedId, Message, Post, PostLink, Root, Sent, Speaker, Top, frame, is_data, put,
    unframe,
};
use wattle_tests::hostile::resident_bytes;
use wattle_types::{DocId, DocTag, Domain, Envelope, NetworkName, SecretKey};

const MIB: u64 = 1 << 20;

/// Messages of one run of the tests; the long one takes another number: `WATTLE_FLOOD=200000`.
fn messages() -> u64 {
    let asked = std::env::var("WATTLE_FLOOD").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(10_000)
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).unwrap()
    }

    /// Some bytes changed, cut, doubled, added.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.index(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.index(5)],
                3 => bytes.truncate(at.max(1)),
                4 => {
                    let some: Vec<u8> = bytes[at..].iter().take(1 + self.index(24)).copied().collect();
                    bytes.splice(at..at, some);
                }
                _ => drop(bytes.splice(at..(at + 1 + self.index(4)).min(bytes.len()), [])),
            }
        }
    }
}

/// A chunk whose length and checksum say what is in it: past them, the decoder has to look.
fn repaired(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    let mut rest = content.len();
    while rest > 0x7f {
        length.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    length.push(rest as u8);
    let hash = <sha2::Sha256 as sha2::Digest>::digest([&[kind][..], &length, content].concat());
    [&[0x85, 0x6f, 0x4a, 0x83][..], &hash[..4], &[kind], &length, content].concat()
}

/// The content of a chunk, behind its length.
fn content(chunk: &[u8]) -> &[u8] {
    let length = chunk[9..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    &chunk[9 + length + 1..]
}

/// One document under attack, and one beside it.
struct Attack {
    desk: Desk,
    doc: DocId,
    innocent: DocId,
    base: Automerge,
    writer: Speaker,
    outsider: Speaker,
    draw: Draw,
    actors: u64,
    seen: BTreeMap<&'static str, u64>,
    peak: u64,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let mut desk = Desk::new(SecretKey::from_bytes(&[1; 32]));
        let (doc, innocent) = (desk.create(), desk.create());
        let (access, bearer) = desk.invite(doc, Role::Writer, &Bearer { expires: None, uses: None });
        let writer = Speaker::new(SecretKey::from_bytes(&[2; 32]), access.clone(), Some(bearer));
        desk.meet(&writer, writer.redemption(writer.id()));
        for number in 0..12 {
            let value = "some text, so that there is something to compress ".repeat(number);
            let edit = put(&format!("key {number}"), &value);
            desk.ask(|request| Input::Edit { request, doc, at: None, edit }).unwrap();
        }
        let mut outsider = Speaker::new(SecretKey::from_bytes(&[9; 32]), access, None);
        // It heard of the tag, and knows neither secret nor id.
        outsider.access.id = DocId::from_bytes([0; 16]);
        let base = desk.read(doc);
        let (draw, seen) = (Draw(seed), BTreeMap::new());
        Self { desk, doc, innocent, base, writer, outsider, draw, actors: 0, seen, peak: 0 }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A change that is well made, and one that is not, under a number that is free.
    fn changes(&mut self) -> (automerge::Change, Vec<u8>) {
        self.actors += 1;
        let mut document = self.base.clone();
        document.set_actor(automerge::ActorId::from(self.actors.to_be_bytes().as_slice()));
        let value = format!("{} {}", self.actors, "well made ".repeat(self.draw.index(60)));
        let change = {
            let edit = put(&format!("key {}", self.draw.below(20)), &value);
            let mut transaction = document.transaction();
            edit(&mut transaction).unwrap();
            transaction.commit();
            document.get_last_local_change().unwrap()
        };
        let mut inner = content(change.raw_bytes()).to_vec();
        self.draw.mutate(&mut inner);
        let damaged = repaired(1, &inner);
        (change, damaged)
    }

    /// One message of a member that may write: a change damaged inside, with its word for it; or any message,
    /// damaged anywhere.
    fn of_member(&mut self) -> Vec<u8> {
        let kind = self.draw.below(8);
        let nonce = ByteArray::new([3; 16]);
        if kind < 4 {
            let (change, damaged) = self.changes();
            // Its word holds: it names the hash that the damaged change has.
            let mut hash = change.hash().0;
            if let Ok(summary) = inspect_change(&damaged) {
                hash = summary.hash;
            }
            let root = Root {
                actor: ByteBuf::from(change.actor_id().to_bytes()),
                seq: change.seq(),
                change: ByteArray::new(hash),
            };
            let vouch = self.writer.vouch_for(root, 1);
            if kind == 0 {
                let mut document = self.base.save();
                let mut inner = content(&document).to_vec();
                self.draw.mutate(&mut inner);
                document = repaired(0, &inner);
                return self.writer.push(vec![vouch], vec![document]);
            }
            return self.writer.push(vec![vouch], vec![damaged]);
        }
        let (change, _) = self.changes();
        let vouch = self.writer.vouch(&self.writer.key, self.doc, 1, &change);
        let message = match self.draw.below(12) {
            0 => Message::Want {
                heads: vec![ByteArray::new([1; 32])],
                clock: vec![(ByteBuf::from(vec![1; 16]), 3)],
            },
            1 => Message::Summary {
                control: ByteArray::new([2; 32]),
                heads: vec![ByteArray::new(change.hash().0)],
                feeds: ByteArray::new([6; 32]),
            },
            2 => Message::Operations { hashes: vec![ByteArray::new([4; 32]); 3] },
            3 => {
                let act = Act::Grant { to: self.writer.id(), role: Role::Admin, bearer: None };
                Message::Learn { operations: vec![self.writer.operation(&self.writer.key, 3, act)] }
            }
            4 => Message::Part { transfer: 7, part: 0, parts: 3, bytes: ByteBuf::from(vec![5; 300]) },
            5 => Message::Hello { nonce },
            6 => Message::Feeds { tops: vec![self.top()] },
            7 => Message::Fetch { feed: self.top().feed, first: 1, last: u64::MAX },
            8 => {
                let post = self.post(b"well said");
                if self.draw.below(2) == 0 {
                    return self.writer.frame(&Message::Posts { posts: vec![post], asked: None });
                }
                Message::Posts { posts: vec![post], asked: Some(self.top().feed) }
            }
            9 => {
                Message::Forked { entries: vec![self.post(b"one").envelope, self.post(b"another").envelope] }
            }
            10 => Message::Signal { bytes: ByteBuf::from(vec![1; 40]) },
            _ => return self.damaged(self.writer.push(vec![vouch], vec![change.raw_bytes().to_vec()])),
        };
        self.damaged(self.writer.frame(&message))
    }

    /// How far the writer's feed is, as it says.
    fn top(&mut self) -> Top {
        let feed = FeedId { author: self.writer.id(), number: self.draw.below(3) as u16 };
        let link = PostLink { at: self.draw.below(u64::MAX), id: ByteArray::new([8; 32]) };
        Top { feed, last: self.draw.below(1 << 20), link: Some(link), fork: None }
    }

    /// An entry that is signed, at a place of its choice.
    fn post(&mut self, body: &[u8]) -> Sent {
        let (number, seq) = (self.draw.below(3) as u16, 1 + self.draw.below(5));
        let prev = (seq > 1).then(|| PostLink { at: seq - 1, id: ByteArray::new([9; 32]) });
        let body = ByteBuf::from(body.to_vec());
        let post = Post { doc: self.doc, feed: number, seq, at: seq, prev, seen: Vec::new(), body };
        let envelope = Envelope::seal(&self.writer.key, Domain::DocPost, &NetworkName::default(), &post);
        Sent { number, seq, envelope }
    }

    /// Damaged behind the tag, mostly.
    fn damaged(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.draw.below(16) == 0 {
            self.draw.mutate(&mut frame);
        } else {
            let mut body = frame.split_off(16);
            self.draw.mutate(&mut body);
            frame.extend(body);
        }
        frame
    }

    /// One message of somebody without the link: what a member would say, well made or not, under a tag that is
    /// known to be one.
    fn of_outsider(&mut self) -> Vec<u8> {
        let said = self.of_member();
        match self.draw.below(4) {
            // A genuine change with a genuine word, recorded elsewhere: only the session is missing.
            0 => {
                let (change, _) = self.changes();
                let vouch = self.writer.vouch(&self.writer.key, self.doc, 1, &change);
                self.writer.push(vec![vouch], vec![change.raw_bytes().to_vec()])
            }
            1 => {
                let (nonce, proof) =
                    (ByteArray::new([self.draw.below(256) as u8; 16]), ByteArray::new([1; 32]));
                let prove = Message::Prove { asked: nonce, proof, redeem: None };
                let frame = self.outsider.frame(&prove);
                if self.draw.below(2) == 0 { frame } else { self.damaged(frame) }
            }
            _ => said,
        }
    }

    /// Half of the messages from who has no link. Nothing of it may come as far as the document.
    fn outside(&mut self, messages: u64) {
        self.desk.wait(Duration::from_secs(200));
        let (loads, disk, me) = (self.desk.loads, self.desk.disk.clone(), self.outsider.id());
        self.desk.handle(Input::PeerUp { peer: me });
        for _ in 0..messages {
            let frame = self.of_outsider();
            for answer in self.desk.hears(me, frame) {
                let (_, message) = unframe(&answer);
                assert!(!is_data(&message), "an outsider was told {message:?}");
                self.saw("answered with a challenge");
            }
            self.sent_away(me);
        }
        assert_eq!(self.desk.loads, loads, "an outsider's message was brought to the document");
        assert!(self.desk.disk == disk, "an outsider's message was written to the disk");
    }

    /// The other half from a member that may write, in rounds: a document holds what was accepted of each.
    fn inside(&mut self, messages: u64) {
        let me = self.writer.id();
        self.back();
        for number in 0..messages {
            let frame = self.of_member();
            let before = self.desk.replica.status(&self.doc).unwrap().heads;
            self.desk.hears(me, frame);
            if !self.sent_away(me) {
                let same = self.desk.replica.status(&self.doc).unwrap().heads == before;
                self.saw(if same { "ignored" } else { "accepted" });
            }
            self.desk.sent.clear();
            if number % 500 == 0 {
                let (doc, innocent) = (self.doc, self.innocent);
                for doc in [doc, innocent] {
                    let edit = put("honest", &number.to_string());
                    self.desk.ask(|request| Input::Edit { request, doc, at: None, edit }).unwrap();
                }
            }
        }
    }

    /// After a member was sent away it comes again.
    fn sent_away(&mut self, who: wattle_types::NodeId) -> bool {
        self.peak = self.peak.max(resident_bytes());
        let faults = std::mem::take(&mut self.desk.misbehaved);
        for (peer, why) in &faults {
            assert_eq!(*peer, who, "an honest node was accused");
            self.saw(why);
        }
        if faults.is_empty() {
            return false;
        }
        if who == self.writer.id() {
            self.back();
        } else {
            self.desk.handle(Input::PeerDown { peer: who });
            self.desk.handle(Input::PeerUp { peer: who });
            self.desk.sent.clear();
        }
        true
    }

    /// Everything is as it was said to be, and is there after a restart.
    fn unharmed(&mut self) {
        let mut again = self.desk.restarted();
        for doc in [self.doc, self.innocent] {
            let heads = self.desk.replica.status(&doc).unwrap().heads;
            assert_eq!(again.replica.status(&doc).unwrap().heads, heads);
            let read: wattle_docs::Read = Box::new(|automerge, _| automerge.save());
            let read = again.ask(|request| Input::Read { request, doc, read });
            let Ok(wattle_docs::Outcome::Read(saved)) = read else { panic!("{doc} is harmed: {read:?}") };
            assert!(Automerge::load(&saved).is_ok(), "{doc} would not read back");
            let edit = put("after", "x");
            again.ask(|request| Input::Edit { request, doc, at: None, edit }).unwrap();
        }
        assert!(again.replica.members(&self.doc).unwrap().role(&self.writer.id()) == Some(Role::Writer));
    }

    /// Lets the member in again after it was sent away.
    fn back(&mut self) {
        self.desk.handle(Input::PeerDown { peer: self.writer.id() });
        self.desk.meet(&self.writer, None);
        self.desk.sent.clear();
    }
}

/// Panics that were caught: each is a message that the decoder did not survive.
static PANICS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// One after the other: memory is measured.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn mutated_messages_from_inside_and_outside_harm_no_document() {
    let _alone = ALONE.lock().unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(std::panic::Location::file).unwrap_or_default();
        if place.contains("automerge-") || place.contains("hexane-") {
            PANICS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        } else {
            hook(panic);
        }
    }));
    let began = Instant::now();
    let before = resident_bytes();
    let (mut seen, mut peak) = (BTreeMap::<&str, u64>::new(), before);
    let per_round = 1000;
    for round in 0..messages() / per_round {
        let mut attack = Attack::new(round);
        attack.outside(per_round / 2);
        attack.inside(per_round / 2);
        attack.unharmed();
        peak = peak.max(attack.peak);
        for (what, count) in attack.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    let grown = peak.saturating_sub(before) / MIB;
    let panics = PANICS.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "{} messages in {:?}: {seen:?}, {panics} panics caught, {grown} MiB",
        messages(),
        began.elapsed()
    );
    assert!(grown <= 200, "memory grew by {grown} MiB");
    assert!(seen["accepted"] > 0 && seen["bytes that are no change"] > 0, "{seen:?}");
}

#[test]
fn made_up_tags_cost_nothing_that_stays() {
    let _alone = ALONE.lock().unwrap();
    let mut attack = Attack::new(1);
    let me = attack.outsider.id();
    attack.desk.handle(Input::PeerUp { peer: me });
    attack.desk.sent.clear();
    let latency = |attack: &mut Attack| {
        let mut took: Vec<Duration> = (0..200)
            .map(|number| {
                let (doc, edit) = (attack.innocent, put("honest", &number.to_string()));
                let began = Instant::now();
                attack.desk.ask(|request| Input::Edit { request, doc, at: None, edit }).unwrap();
                began.elapsed()
            })
            .collect();
        took.sort();
        took[197]
    };
    let before = (resident_bytes(), latency(&mut attack));
    for _ in 0..10_000 {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&attack.draw.below(u64::MAX).to_be_bytes());
        let hello = Message::Hello { nonce: ByteArray::new([1; 16]) };
        let answers = attack.desk.hears(me, frame(&DocTag::from_bytes(tag), &hello));
        assert_eq!(answers.len(), 1);
    }
    let grown = resident_bytes().saturating_sub(before.0) / MIB;
    assert!(grown <= 20, "memory grew by {grown} MiB");
    assert_eq!(attack.desk.replica.list().len(), 2);
    let after = latency(&mut attack);
    println!("{grown} MiB, p99 {:?} before, {after:?} after", before.1);
    assert!(after <= before.1 * 2 + Duration::from_millis(2), "{after:?} is more than twice {:?}", before.1);
}

/// A bomb that comes as a member's change, with a word that holds.
#[test]
fn a_bomb_by_a_writer_is_refused_and_costs_it_the_channel() {
    let _alone = ALONE.lock().unwrap();
    let mut attack = Attack::new(1);
    let deflated = miniz_oxide::deflate::compress_to_vec(&vec![b'a'; 200 << 20], 6);
    let bomb = repaired(2, &deflated);
    assert!(bomb.len() < 250_000);
    let (change, _) = attack.changes();
    let vouch = attack.writer.vouch(&attack.writer.key, attack.doc, 1, &change);
    let frame = attack.writer.push(vec![vouch], vec![bomb]);
    let (before, began) = (resident_bytes(), Instant::now());
    attack.back();
    attack.desk.hears(attack.writer.id(), frame);
    let (took, grown) = (began.elapsed(), resident_bytes().saturating_sub(before) / MIB);
    let who = attack.writer.id();
    assert_eq!(attack.desk.misbehaved, [(who, "bytes that are no change")]);
    assert!(grown <= 100 && took < Duration::from_secs(2), "{grown} MiB, {took:?}");
    attack.unharmed();
}
