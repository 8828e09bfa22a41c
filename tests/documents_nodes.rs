//! Attacks on shared documents over real channels: honest nodes as they run, with their disks, against a program
//! that speaks their protocol and is not theirs.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::time::{Duration, Instant};

use automerge::ReadDoc as _;
use automerge::transaction::Transactable as _;
use serde_bytes::{ByteArray, ByteBuf};
use wattle_docs::{Edit, Event, Role};
use wattle_net::{ChannelKind, ChannelReceiver, ChannelSender};
use wattle_tests::documents::{Message, Speaker, frame, is_data, put, unframe};
use wattle_tests::honest::Honest;
use wattle_tests::hostile::resident_bytes;
use wattle_tests::local::size;
use wattle_tests::overlay::{Node, PATIENCE, key, until, until_within};
use wattle_types::{DocId, DocTag, NodeId, ProviderKey, ReadSecret};

/// Two honest nodes that share a document, one of them its owner.
async fn pair(role: Role) -> (Honest, Honest, DocId) {
    pair_beside(role, &[]).await
}

/// The same among others that are there from the beginning.
async fn pair_beside(role: Role, others: &[&Node]) -> (Honest, Honest, DocId) {
    let (alice, bob) = (Honest::start(1).await, Honest::start(2).await);
    bob.node.join(&alice.node).await;
    for other in others {
        other.join(&alice.node).await;
        other.join(&bob.node).await;
    }
    let doc = alice.documents.create(put("title", "a document")).await.unwrap();
    alice.invite(&bob, doc, role).await;
    alice.until_equal(&bob, doc).await;
    (alice, bob, doc)
}

/// A channel of an attacker's.
struct Mouth {
    sender: ChannelSender,
    receiver: ChannelReceiver,
    peer: NodeId,
}

impl Mouth {
    async fn open(from: &Node, to: &Honest) -> Self {
        let opened = from.overlay.open_channel(to.node.id(), ChannelKind::Documents).await;
        let (sender, receiver) = opened.unwrap().split();
        Self { sender, receiver, peer: to.node.id() }
    }

    async fn say(&mut self, frame: &[u8]) {
        self.sender.send(frame).await.unwrap();
    }

    /// The next message that is `wanted`; what else is said is passed over.
    async fn hear(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        let heard = async {
            loop {
                let (_, message) = unframe(&self.receiver.next().await.unwrap().unwrap());
                if wanted(&message) {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("it never says that")
    }

    /// Everything that is said within a span.
    async fn listen(&mut self, span: Duration) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let end = tokio::time::Instant::now() + span;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(end, self.receiver.next()).await {
            heard.push(frame);
        }
        heard
    }

    async fn ended(&mut self) {
        let ended = async { while let Some(Ok(_)) = self.receiver.next().await {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the channel stays open");
    }

    /// The whole handshake.
    async fn session(&mut self, speaker: &Speaker) {
        self.say(&speaker.hello()).await;
        let challenge = self.hear(|message| matches!(message, Message::Challenge { .. })).await;
        let (prove, holds) = speaker.prove(self.peer, &challenge, speaker.redemption(speaker.id()));
        assert!(holds, "the node proves the secret");
        self.say(&prove).await;
    }
}

async fn member(alice: &Honest, doc: DocId, number: u32, role: Role) -> (Node, Speaker, Mouth) {
    let node = Node::start(number).await;
    node.join(&alice.node).await;
    let (access, bearer) = alice.documents.invite(doc, role, None, None).await.unwrap();
    let speaker = Speaker::new(key(number), access, Some(bearer));
    let mut mouth = Mouth::open(&node, alice).await;
    mouth.session(&speaker).await;
    mouth.hear(|message| matches!(message, Message::Learn { .. } | Message::Summary { .. })).await;
    (node, speaker, mouth)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_at_every_member_hears_nothing_and_holds_nothing() {
    let outsider = Node::start(9).await;
    let (alice, bob, doc) = pair_beside(Role::Writer, &[&outsider]).await;
    let mut mouths = Vec::new();
    for honest in [&alice, &bob] {
        mouths.push(Mouth::open(&outsider, honest).await);
    }
    // The tag is a secret; suppose it leaked. Beside it: tags made from the id, and made-up ones.
    let (access, _) = alice.documents.invite(doc, Role::Reader, None, None).await.unwrap();
    let leaked = access.read.tag();
    let guessed = [
        leaked,
        DocTag::from_bytes(*doc.as_bytes()),
        ReadSecret::from_bytes(*doc.as_bytes()).tag(),
        DocTag::from_bytes([0xab; 16]),
    ];
    let (hash, nonce) = (ByteArray::new([4; 32]), ByteArray::new([3; 16]));
    let edits = async {
        for number in 0..100 {
            alice.edit(doc, &format!("{number}")).await;
            bob.edit(doc, &format!("by bob {number}")).await;
        }
    };
    let attack = async {
        let mut answers: Vec<Vec<usize>> = Vec::new();
        for tag in guessed {
            for mouth in &mut mouths {
                for message in [
                    Message::Hello { nonce },
                    Message::Prove { asked: nonce, proof: hash, redeem: None },
                    Message::Want { heads: Vec::new(), clock: Vec::new() },
                    Message::Summary { control: hash, heads: vec![hash], feeds: hash },
                    Message::Part { transfer: 1, part: 0, parts: 1, bytes: ByteBuf::from(vec![1; 900]) },
                    Message::Operations { hashes: Vec::new() },
                ] {
                    mouth.say(&frame(&tag, &message)).await;
                }
                let heard = mouth.listen(Duration::from_millis(500)).await;
                assert!(heard.iter().all(|frame| !is_data(&unframe(frame).1)), "it hears data");
                answers.push(heard.iter().map(Vec::len).collect());
            }
        }
        answers
    };
    let ((), answers) = tokio::join!(edits, attack);
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.len() == 1), "{answers:?}");
    // It serves the DHT like anybody: what it holds there names neither the document nor its tag.
    until("the document is announced", || async {
        outsider.overlay.dht_stats().await.unwrap().providers_held > 0
    })
    .await;
    let held = format!("{:?}", outsider.disk);
    for secret in [doc.as_bytes(), leaked.as_bytes()] {
        let digits = format!("{secret:?}");
        assert!(!held.contains(digits.trim_matches(['[', ']'])), "its disk names the document");
    }
    assert!(alice.documents.status(doc).await.unwrap().peers.iter().all(|peer| peer.peer != outsider.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_writes_by_no_way_until_it_is_promoted_and_then_at_once() {
    let (alice, bob, doc) = pair(Role::Reader).await;
    let (node, speaker, mut at_alice) = member(&alice, doc, 9, Role::Reader).await;
    node.join(&bob.node).await;
    until("bob knows the reader", || async {
        bob.documents.members(doc).await.unwrap().iter().any(|(who, _)| *who == speaker.id())
    })
    .await;
    let mut at_bob = Mouth::open(&node, &bob).await;
    at_bob.session(&speaker).await;
    let before = alice.heads(doc).await;
    let change = speaker.change(&alice.saved(doc).await, 9, "forged", "x");
    let vouch = speaker.vouch(&speaker.key, doc, 7, &change);
    let push = speaker.push(vec![vouch], vec![change.raw_bytes().to_vec()]);
    for mouth in [&mut at_alice, &mut at_bob] {
        for _ in 0..20 {
            mouth.say(&push).await;
        }
        mouth.say(&speaker.hello()).await;
        mouth.hear(|message| matches!(message, Message::Challenge { .. })).await;
    }
    for honest in [&alice, &bob] {
        assert_eq!(honest.heads(doc).await, before);
    }
    let began = Instant::now();
    alice.documents.grant(doc, speaker.id(), Role::Writer).await.unwrap();
    at_alice.say(&push).await;
    // On disk too: where a node stands is what it has saved.
    until("its edit is everywhere", || async {
        let both = alice.has(doc, "forged").await && bob.has(doc, "forged").await;
        both && alice.heads(doc).await == bob.heads(doc).await && alice.heads(doc).await != before
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(at_bob.listen(Duration::from_millis(100)).await.len() < 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_is_no_change_is_sent_away_and_the_document_lives() {
    let (alice, bob, doc) = pair(Role::Writer).await;
    let (node, speaker, mut mouth) = member(&alice, doc, 9, Role::Writer).await;
    let mut change = speaker.change(&alice.saved(doc).await, 9, "damaged", "x").raw_bytes().to_vec();
    let good = speaker.change(&alice.saved(doc).await, 9, "damaged", "x");
    *change.last_mut().unwrap() ^= 0x55;
    let vouch = speaker.vouch(&speaker.key, doc, 7, &good);
    mouth.say(&speaker.push(vec![vouch], vec![change])).await;
    mouth.ended().await;
    until("it is no peer any more", || async {
        !alice.node.peers().await.contains(&node.id())
            && alice.documents.status(doc).await.unwrap().peers.iter().all(|peer| peer.peer != node.id())
    })
    .await;
    alice.edit(doc, "after").await;
    until("bob has it", || async { bob.has(doc, "after").await }).await;
    assert!(!alice.has(doc, "damaged").await);
}

/// Edits of one node until the other has them: the second slowest of a hundred.
async fn latency(from: &Honest, to: &Honest, doc: DocId, name: &str) -> Duration {
    latency_of(from, to, doc, |number| put(&format!("{name} {number}"), "x")).await
}

/// The same for any edits.
async fn latency_of(from: &Honest, to: &Honest, doc: DocId, edit: impl Fn(usize) -> Edit) -> Duration {
    let mut took = Vec::new();
    let mut events = to.documents.events();
    for number in 0..100 {
        let began = Instant::now();
        let after = from.documents.edit(doc, None, edit(number)).await.unwrap().after;
        let arrived = async {
            loop {
                if let Ok(Event::Changed { after: now, .. }) = events.recv().await
                    && now == after
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.expect("an edit did not arrive");
        took.push(began.elapsed());
    }
    took.sort();
    took[98]
}

/// A character into one of the sections of a text.
fn type_into(section: usize) -> Edit {
    Box::new(move |tx| {
        let broken = |error: automerge::AutomergeError| error.to_string();
        let (_, sections) = tx.get(automerge::ROOT, "sections").map_err(broken)?.ok_or("no sections")?;
        let at = section % tx.length(&sections);
        let (_, text) = tx.get(&sections, at).map_err(broken)?.ok_or("no section")?;
        tx.splice_text(&text, 7, 0, "x").map_err(broken)
    })
}

/// With so many kilobytes: `WATTLE_TEXT_KB=10240`.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_one_section_of_megabytes_is_at_the_other_node_in_a_moment() {
    let kilobytes = size("WATTLE_TEXT_KB", 64);
    let (alice, bob) = (Honest::start(1).await, Honest::start(2).await);
    bob.node.join(&alice.node).await;
    let line = "a line of sixty-four bytes, so that it is easy to count them all\n";
    let text = line.repeat((kilobytes << 10) / line.len());
    let mut steps = wattle_pad::create_in_steps("big".to_owned(), text).unwrap();
    let import =
        move |tx: &mut automerge::transaction::Transaction<'_>| steps(tx).map_err(|error| error.to_string());
    let doc = alice.documents.create_in_steps(Box::new(import)).await.unwrap();
    let (access, bearer) = alice.documents.invite(doc, Role::Writer, None, None).await.unwrap();
    bob.documents.join(access, Some(bearer), Some(alice.node.id())).await.unwrap();
    // A megabyte takes some two seconds.
    let patience = PATIENCE + Duration::from_millis(kilobytes as u64 * 6);
    until_within(patience, "bob has the document", || async {
        !bob.heads(doc).await.is_empty() && bob.heads(doc).await == alice.heads(doc).await
    })
    .await;
    let slow = latency_of(&alice, &bob, doc, |number| type_into(number * 7)).await;
    let held = resident_bytes() >> 20;
    println!("{kilobytes} KiB: the second slowest of 100 edits took {slow:?}; both nodes hold {held} MiB");
    // A build for tests is up to twenty times slower than the one that ships.
    let within = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 50 });
    assert!(slow <= within, "{slow:?}");
    assert!(held <= 800, "{held} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_made_up_tags_cost_others_neither_time_nor_memory() {
    let (alice, bob, doc) = pair(Role::Writer).await;
    let outsider = Node::start(9).await;
    outsider.join(&alice.node).await;
    let quiet = latency(&bob, &alice, doc, "quiet").await;
    let opened = outsider.overlay.open_channel(alice.node.id(), ChannelKind::Documents).await;
    let (mut sender, mut receiver) = opened.unwrap().split();
    let before = resident_bytes();
    let flood = async {
        for number in 0..10_000_u32 {
            let mut tag = [0xee; 16];
            tag[..4].copy_from_slice(&number.to_be_bytes());
            let hello = frame(&DocTag::from_bytes(tag), &Message::Hello { nonce: ByteArray::new([3; 16]) });
            sender.send(&hello).await.unwrap();
            // Ten thousand in less than ten seconds.
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    };
    let answers = async {
        let mut answers = 0;
        while answers < 10_000 {
            receiver.next().await.unwrap().unwrap();
            answers += 1;
        }
    };
    let ((), (), busy) = tokio::join!(flood, answers, latency(&bob, &alice, doc, "busy"));
    let grown = resident_bytes().saturating_sub(before) >> 20;
    assert!(grown <= 20, "memory grew by {grown} MiB");
    assert_eq!(alice.documents.list().await.len(), 1);
    // Of two cores that other tests use too: what is asked is that it is no multiple.
    assert!(busy <= quiet * 2 + Duration::from_millis(100), "{busy:?} instead of {quiet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_can_be_looked_for_as_soon_as_it_is_made() {
    let (alice, other) = (Honest::start(1).await, Node::start(3).await);
    other.join(&alice.node).await;
    let doc = alice.documents.create(put("title", "a document")).await.unwrap();
    let (access, _bearer) = alice.documents.invite(doc, Role::Reader, None, None).await.unwrap();
    let key = ProviderKey::of_document(other.overlay.network(), &access.read.tag());
    until("the document is announced", || async {
        let found = other.overlay.find_providers(key, 1, PATIENCE).await;
        found.is_ok_and(|found| found.contains(&alice.node.id()))
    })
    .await;
}

/// Queries of one kind that a node's DHT has ended.
async fn queries(node: &Honest, kind: &str) -> u64 {
    let stats = node.node.overlay.dht_stats().await.unwrap();
    stats.queries.iter().filter(|row| row.kind == kind).map(|row| row.count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dht_is_told_once_of_each_document_and_asked_for_none_that_a_member_brings() {
    let (alice, bob) = (Honest::start(1).await, Honest::start(2).await);
    bob.node.join(&alice.node).await;
    let first = alice.documents.create(put("title", "first")).await.unwrap();
    alice.invite(&bob, first, Role::Writer).await;
    alice.until_equal(&bob, first).await;
    let looked = queries(&bob, "find_providers").await;
    for _ in 0..10 {
        let doc = alice.documents.create(put("title", "a document")).await.unwrap();
        alice.invite(&bob, doc, Role::Writer).await;
        alice.until_equal(&bob, doc).await;
    }
    until("all are announced", async || queries(&bob, "provide").await == 11).await;
    let bob = bob.restart_documents().await;
    // It stands behind all others.
    let last = bob.documents.create(put("title", "last")).await.unwrap();
    let (access, _bearer) = bob.documents.invite(last, Role::Reader, None, None).await.unwrap();
    let key = ProviderKey::of_document(alice.node.overlay.network(), &access.read.tag());
    until("the last is announced", async || {
        let found = alice.node.overlay.find_providers(key, 1, PATIENCE).await;
        found.is_ok_and(|found| found.contains(&bob.node.id())) && queries(&bob, "provide").await >= 12
    })
    .await;
    assert_eq!(queries(&bob, "provide").await, 12, "what was announced is announced again");
    assert_eq!(queries(&bob, "find_providers").await, looked, "the DHT is asked for what a member brings");
}
