//! Attacks on shared documents by a program of their own, one machine at a time: what an outsider learns, what
//! somebody without the right to write brings in.

#![expect(clippy::unwrap_used, reason = "a test's helper ends the test like the test itself")]

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::{Automerge, ReadDoc as _};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_docs::{Input, Role};
use wattle_tests::documents::{Act, Bearer, Desk, Message, STARTED, Speaker, frame, is_data, put, unframe};
use wattle_types::{
    DocAccess, DocId, DocTag, Envelope, NetworkName, NodeId, ReadSecret, SecretKey, Table, bearer_key, cbor,
};

const FREE: Bearer = Bearer { expires: None, uses: None };

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

/// A machine with a document, and a speaker that came in by a ticket.
fn shared(number: u8, role: Role) -> (Desk, DocId, Speaker) {
    let mut desk = Desk::new(key(1));
    let doc = desk.create();
    let speaker = admitted(&mut desk, doc, number, role);
    (desk, doc, speaker)
}

fn admitted(desk: &mut Desk, doc: DocId, number: u8, role: Role) -> Speaker {
    let (access, bearer) = desk.invite(doc, role, &FREE);
    let speaker = Speaker::new(key(number), access, Some(bearer));
    desk.meet(&speaker, speaker.redemption(speaker.id()));
    assert_eq!(role_of(desk, doc, speaker.id()), Some(role));
    speaker
}

fn role_of(desk: &Desk, doc: DocId, node: NodeId) -> Option<Role> {
    desk.replica.members(&doc).unwrap().role(&node)
}

fn heads(desk: &Desk, doc: DocId) -> Vec<[u8; 32]> {
    desk.replica.status(&doc).unwrap().heads
}

fn keys(desk: &mut Desk, doc: DocId) -> BTreeSet<String> {
    desk.read(doc).keys(automerge::ROOT).collect()
}

fn edit(desk: &mut Desk, doc: DocId, name: &str) {
    desk.ask(|request| Input::Edit { request, doc, at: None, edit: put(name, "x") }).unwrap();
}

/// Everything an outsider might say about a tag that it heard of, and what it cannot prove.
fn guesses(speaker: &Speaker) -> Vec<Message> {
    let (nonce, hash) = (ByteArray::new([3; 16]), ByteArray::new([5; 32]));
    let act = Act::Grant { to: speaker.id(), role: Role::Admin, bearer: None };
    let operation = speaker.operation(&speaker.key, 7, act);
    let redeem = Some(speaker.operation(&speaker.key, 0, Act::Redeem { member: speaker.id() }));
    vec![
        Message::Hello { nonce },
        Message::Challenge { nonce, asked: nonce, proof: hash },
        Message::Prove { asked: nonce, proof: hash, redeem: None },
        Message::Prove { asked: nonce, proof: hash, redeem },
        Message::Operations { hashes: vec![hash] },
        Message::Learn { operations: vec![operation] },
        Message::Summary { control: hash, heads: vec![hash], feeds: hash },
        Message::Want { heads: Vec::new(), clock: Vec::new() },
        Message::Part { transfer: 1, part: 0, parts: 1, bytes: ByteBuf::from(vec![1; 64]) },
        Message::Part { transfer: 1, part: 0, parts: 1, bytes: ByteBuf::from(vec![1; 4096]) },
        Message::More { transfer: 1, part: 1 },
    ]
}

#[test]
fn an_outsider_cannot_tell_a_document_that_is_here_from_one_that_is_not() {
    let (mut desk, doc, _) = shared(2, Role::Writer);
    let here = desk.replica.access(&doc).unwrap().read.tag();
    let access = DocAccess { id: doc, read: ReadSecret::from_bytes([0; 16]), owner: None };
    let outsider = Speaker::new(key(9), access, None);
    // A tag that is derived from the id, as a stranger might, is the tag of nothing.
    let of_id = ReadSecret::from_bytes(*doc.as_bytes()).tag();
    for guess in guesses(&outsider) {
        let mut answers = Vec::new();
        for tag in [here, of_id, DocTag::from_bytes([0xab; 16]), DocTag::from_bytes(*doc.as_bytes())] {
            desk.handle(Input::PeerUp { peer: outsider.id() });
            let back = desk.hears(outsider.id(), frame(&tag, &guess));
            edit(&mut desk, doc, "meanwhile");
            desk.wait(Duration::from_secs(60));
            let later = desk.sent.drain(..).filter(|(to, _)| *to == outsider.id()).map(|(_, frame)| frame);
            let back: Vec<Vec<u8>> = back.into_iter().chain(later).collect();
            assert!(back.iter().all(|frame| !is_data(&unframe(frame).1)), "{guess:?} is answered with data");
            let sent_away = std::mem::take(&mut desk.misbehaved);
            answers.push((back.iter().map(Vec::len).collect::<Vec<_>>(), sent_away));
        }
        for other in &answers[1..] {
            assert_eq!(answers[0], *other, "{guess:?} tells whether the document is here");
        }
    }
}

/// Anybody may say in the DHT that it holds a document: it is asked, and that is all.
#[test]
fn who_only_claims_to_hold_a_document_is_told_nothing() {
    let (mut desk, doc, member) = shared(2, Role::Writer);
    // A guest with a ticket that it has not used yet has the most to give away.
    let (access, bearer) = desk.invite(doc, Role::Writer, &FREE);
    let mut guest = Desk::new(key(3));
    let join = |request| Input::Join { request, access, bearer: Some(bearer), inviter: None };
    guest.ask(join).unwrap();
    let liar =
        Speaker::new(key(9), DocAccess { read: ReadSecret::from_bytes([0; 16]), ..member.access }, None);
    for desk in [&mut desk, &mut guest] {
        desk.handle(Input::PeerUp { peer: liar.id() });
        desk.handle(Input::Found { doc, peer: liar.id() });
        let hello = desk.sent.iter().rfind(|(to, _)| *to == liar.id()).unwrap().1.clone();
        let (tag, Message::Hello { nonce: asked }) = unframe(&hello) else { panic!("no hello") };
        for proof in [[1; 32], liar.access.read.proof(&[b"asked"])] {
            let (nonce, proof) = (ByteArray::new([5; 16]), ByteArray::new(proof));
            let told = desk.hears(liar.id(), frame(&tag, &Message::Challenge { nonce, asked, proof }));
            assert!(told.iter().all(|frame| !is_data(&unframe(frame).1)), "a wrong proof is answered");
        }
        desk.wait(Duration::from_secs(60));
        let told = desk.sent.drain(..).filter(|(to, frame)| *to == liar.id() && is_data(&unframe(frame).1));
        assert_eq!(told.count(), 0);
        let peers = desk.replica.status(&doc).unwrap().peers;
        assert!(peers.iter().all(|peer| peer.peer != liar.id()), "a liar has a session");
    }
}

#[test]
fn a_recorded_session_lets_nobody_in() {
    let (mut desk, doc, member) = shared(2, Role::Writer);
    // The whole session of a member, as it went over the wire, but for the challenge.
    desk.handle(Input::PeerUp { peer: member.id() });
    let challenge = desk.hears(member.id(), member.hello());
    let mut challenge = challenge.iter().map(|frame| unframe(frame).1);
    let challenge = challenge.rfind(|message| matches!(message, Message::Challenge { .. })).unwrap();
    let (prove, holds) = member.prove(desk.id(), &challenge, None);
    assert!(holds, "the machine proves the secret too");
    let want = member.frame(&Message::Want { heads: Vec::new(), clock: Vec::new() });
    let recorded = [member.hello(), prove, want];
    assert!(desk.hears(member.id(), recorded[1].clone()).iter().any(|frame| is_data(&unframe(frame).1)));
    assert!(!desk.hears(member.id(), recorded[2].clone()).is_empty());
    // By another node, and by the same key on another channel, as who stole neither could.
    for who in [key(9).node_id(), member.id()] {
        desk.handle(Input::PeerUp { peer: who });
        for frame in &recorded {
            let back = desk.hears(who, frame.clone());
            assert!(back.iter().all(|frame| !is_data(&unframe(frame).1)), "a recorded session works again");
        }
        edit(&mut desk, doc, "meanwhile");
        let told = desk.sent.drain(..).filter(|(to, frame)| *to == who && is_data(&unframe(frame).1));
        assert_eq!(told.count(), 0);
        desk.handle(Input::PeerDown { peer: who });
    }
}

#[test]
fn who_knows_the_secret_and_is_no_member_gets_refusals_and_hashes_only() {
    let (mut desk, doc, member) = shared(2, Role::Writer);
    let stranger = Speaker::new(key(9), member.access, None);
    let mut said = desk.meet(&stranger, None);
    for guess in guesses(&stranger) {
        said.extend(desk.hears(stranger.id(), stranger.frame(&guess)).iter().map(|frame| unframe(frame).1));
    }
    // What happens meanwhile is none of its business: neither edits nor who comes and goes.
    edit(&mut desk, doc, "secret");
    let to = key(7).node_id();
    desk.ask(|request| Input::Grant { request, doc, to, role: Role::Reader }).unwrap();
    desk.ask(|request| Input::Remove { request, doc, who: to }).unwrap();
    desk.wait(Duration::from_secs(60));
    said.extend(desk.sent.drain(..).filter(|(to, _)| *to == stranger.id()).map(|(_, it)| unframe(&it).1));
    let allowed = |message: &Message| {
        !is_data(message) || matches!(message, Message::Refused { .. } | Message::Operations { .. })
    };
    let told: Vec<_> = said.iter().filter(|message| !allowed(message)).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// A ticket for writers that lets nobody in any more, however it comes in.
#[test]
fn a_ticket_that_ran_out_lets_nobody_in_by_any_door() {
    for limits in [
        Bearer { expires: Some(STARTED.as_millis() + 1000), uses: None },
        Bearer { expires: None, uses: Some(1) },
    ] {
        let (mut desk, doc, _) = shared(2, Role::Reader);
        let (access, bearer) = desk.invite(doc, Role::Writer, &limits);
        let first = Speaker::new(key(3), access.clone(), Some(bearer));
        desk.meet(&first, first.redemption(first.id()));
        assert_eq!(role_of(&desk, doc, first.id()), Some(Role::Writer));
        desk.wait(Duration::from_secs(2));
        // The front door, and the one for operations that others are said to have let in.
        let late = Speaker::new(key(4), access.clone(), Some(bearer));
        let redemption = late.redemption(late.id()).unwrap();
        let said = desk.meet(&late, Some(redemption.clone()));
        assert!(matches!(said[..], [Message::Refused { .. }, ..]), "{said:?}");
        let admit = |by: &Speaker| {
            let redemption = ByteArray::new(redemption.hash());
            by.operation(&by.key, 0, Act::Admit { redemption })
        };
        let reader = Speaker::new(key(2), access.clone(), None);
        desk.meet(&reader, None);
        for (teller, operations) in [
            (&late, vec![redemption.clone()]),
            (&late, vec![redemption.clone(), admit(&late)]),
            (&reader, vec![redemption.clone()]),
            (&reader, vec![redemption.clone(), admit(&reader)]),
            (&reader, vec![admit(&reader), redemption.clone(), admit(&late)]),
        ] {
            if teller.id() == late.id() {
                desk.meet(&late, None);
            }
            desk.hears(teller.id(), teller.frame(&Message::Learn { operations }));
            assert_eq!(role_of(&desk, doc, late.id()), None, "{limits:?} let somebody in");
        }
        // A reader does not come to write by it either.
        let mine = reader.operation(&bearer_key(&bearer), 0, Act::Redeem { member: reader.id() });
        let admitted = Act::Admit { redemption: ByteArray::new(mine.hash()) };
        let admitted = reader.operation(&reader.key, 0, admitted);
        desk.hears(reader.id(), reader.frame(&Message::Learn { operations: vec![mine, admitted] }));
        assert_eq!(role_of(&desk, doc, reader.id()), Some(Role::Reader), "{limits:?}");
        let change = late.change(&desk.read(doc), 4, "late", "x");
        let before = heads(&desk, doc);
        for speaker in [&late, &reader] {
            let vouch = speaker.vouch(&speaker.key, doc, 9, &change);
            desk.hears(speaker.id(), speaker.push(vec![vouch], vec![change.raw_bytes().to_vec()]));
        }
        assert_eq!(heads(&desk, doc), before);
        // And whom it let in in time stays, after a restart too.
        assert_eq!(role_of(&desk.restarted(), doc, first.id()), Some(Role::Writer));
    }
}

/// Whoever holds a ticket can sign with its key, also in the name of somebody who is a member already.
#[test]
fn a_readers_ticket_that_is_redeemed_in_a_writers_name_takes_nothing_from_it() {
    let (mut desk, doc, writer) = shared(2, Role::Writer);
    let (access, bearer) = desk.invite(doc, Role::Reader, &FREE);
    let guest = Speaker::new(key(3), access, Some(bearer));
    desk.meet(&guest, guest.redemption(guest.id()));
    let redemptions = [writer.id(), desk.id()].map(|who| guest.redemption(who).unwrap());
    desk.hears(guest.id(), guest.frame(&Message::Learn { operations: redemptions.to_vec() }));
    assert_eq!(role_of(&desk, doc, writer.id()), Some(Role::Writer));
    assert_eq!(role_of(&desk, doc, desk.id()), Some(Role::Admin));
}

#[test]
fn a_flood_of_operations_by_a_ticket_takes_nothing_from_the_owner() {
    let (mut desk, doc, reader) = shared(2, Role::Reader);
    let bearer = bearer_key(reader.bearer.as_ref().unwrap());
    // What only admins may sign, at the last epoch there is; then as many guests as fit, and more.
    let last = [
        Act::Grant { to: reader.id(), role: Role::Writer, bearer: None },
        Act::Remove { who: desk.id(), cut: Vec::new(), feeds: Vec::new(), keep: Vec::new(), stays: None },
    ];
    let mut flood: Vec<Envelope> =
        last.into_iter().map(|act| reader.operation(&bearer, u32::MAX, act)).collect();
    for number in 0..5000_u32 {
        let mut guest = [0; 32];
        guest[..4].copy_from_slice(&number.to_be_bytes());
        let member = SecretKey::from_bytes(&guest).node_id();
        flood.push(reader.operation(&bearer, 0, Act::Redeem { member }));
    }
    for some in flood.chunks(400) {
        desk.hears(reader.id(), reader.frame(&Message::Learn { operations: some.to_vec() }));
    }
    // The owner removes, makes room for others and takes somebody back.
    let who = reader.id();
    desk.ask(|request| Input::Remove { request, doc, who }).unwrap();
    assert_eq!(role_of(&desk, doc, who), None);
    for role in [Role::Writer, Role::Reader] {
        desk.ask(|request| Input::Grant { request, doc, to: who, role }).unwrap();
        assert_eq!(role_of(&desk, doc, who), Some(role), "an epoch is used up");
    }
    assert_eq!(desk.misbehaved, []);
    // Whoever hears of all that hears it in frames that it takes, and keeps it.
    let guest = admitted(&mut desk, doc, 5, Role::Writer);
    let asked = guest.frame(&Message::Operations { hashes: Vec::new() });
    let told = desk.hears(guest.id(), asked);
    assert!(told.iter().all(|frame| frame.len() <= wattle_docs::FRAME_BYTES_MAX));
    let mut other = Desk::new(key(6));
    let access = guest.access.clone();
    other.ask(|request| Input::Join { request, access, bearer: None, inviter: None }).unwrap();
    let teller = Speaker::new(key(1), guest.access.clone(), None);
    other.meet(&teller, None);
    for frame in told {
        other.hears(teller.id(), frame);
    }
    assert_eq!(role_of(&other, doc, guest.id()), Some(Role::Writer));
    assert_eq!(role_of(&other.restarted(), doc, who), Some(Role::Reader));
}

/// Words for a change that hold for nobody.
fn forged(speaker: &Speaker, doc: DocId, change: &automerge::Change) -> Vec<(Envelope, &'static str)> {
    let owner = key(1);
    let elsewhere = Speaker { network: "elsewhere".parse::<NetworkName>().unwrap(), ..speaker.clone() };
    let mut tampered = cbor::encode(&speaker.vouch(&owner, doc, 1, change));
    *tampered.last_mut().unwrap() ^= 1;
    let mut renamed = cbor::encode(&speaker.vouch(&speaker.key, doc, 1, change));
    let at = renamed.windows(32).position(|some| some == speaker.id().public_key()).unwrap();
    renamed[at..at + 32].copy_from_slice(owner.node_id().public_key());
    let as_operation = speaker.operation(&owner, 1, Act::Redeem { member: speaker.id() });
    vec![
        (speaker.vouch(&speaker.key, doc, 1, change), "its own"),
        (speaker.vouch(&speaker.key, doc, u32::MAX, change), "its own, of another epoch"),
        (speaker.vouch(&owner, DocId::from_bytes([8; 16]), 1, change), "the owner's, for another document"),
        (elsewhere.vouch(&owner, doc, 1, change), "the owner's, in another network"),
        (cbor::decode(&tampered, 4096).unwrap(), "tampered with"),
        (cbor::decode(&renamed, 4096).unwrap(), "with another's name"),
        (as_operation, "an operation"),
    ]
}

#[test]
fn no_head_comes_from_who_may_not_write_whatever_stands_beside_it() {
    let (mut desk, doc, reader) = shared(2, Role::Reader);
    edit(&mut desk, doc, "honest");
    let before = (heads(&desk, doc), desk.disk.clone());
    let change = reader.change(&desk.read(doc), 2, "forged", "x");
    let chunk = change.raw_bytes().to_vec();
    let whole = {
        let mut document = desk.read(doc);
        document.apply_changes([change.clone()]).unwrap();
        document.save()
    };
    let mut tries: Vec<(Vec<Envelope>, &str)> =
        forged(&reader, doc, &change).into_iter().map(|(vouch, what)| (vec![vouch], what)).collect();
    tries.push((Vec::new(), "nothing"));
    for (vouches, what) in tries {
        for chunks in [vec![chunk.clone()], vec![whole.clone()], vec![whole.clone(), chunk.clone()]] {
            desk.hears(reader.id(), reader.push(vouches.clone(), chunks));
            desk.wait(Duration::from_secs(6));
            let changed = desk.disk.iter().filter(|(key, value)| before.1.get(key) != Some(value)).count();
            assert_eq!((heads(&desk, doc), changed), (before.0.clone(), 0), "a vouch that is {what} held");
            desk.meet(&reader, None);
        }
    }
    // Promoted, the same change holds within the same moment.
    desk.ask(|request| Input::Grant { request, doc, to: reader.id(), role: Role::Writer }).unwrap();
    let vouch = reader.vouch(&reader.key, doc, 2, &change);
    desk.hears(reader.id(), reader.push(vec![vouch], vec![chunk]));
    assert!(keys(&mut desk, doc).contains("forged"));
    assert_eq!(heads(&desk.restarted(), doc), heads(&desk, doc));
}

#[test]
fn a_colluding_writer_gets_nobody_elses_word_taken() {
    let (mut desk, doc, reader) = shared(2, Role::Reader);
    let writer = admitted(&mut desk, doc, 3, Role::Writer);
    let change = reader.change(&desk.read(doc), 2, "forged", "x");
    let mine = writer.change(&desk.read(doc), 3, "mine", "x");
    let words = vec![reader.vouch(&reader.key, doc, 1, &change), writer.vouch(&writer.key, doc, 1, &mine)];
    let chunks = vec![change.raw_bytes().to_vec(), mine.raw_bytes().to_vec()];
    desk.hears(writer.id(), writer.push(words, chunks));
    let keys = keys(&mut desk, doc);
    assert!(keys.contains("mine") && !keys.contains("forged"), "{keys:?}");
}

#[test]
fn what_a_removed_writer_makes_after_its_cut_holds_nowhere() {
    let (mut desk, doc, writer) = shared(2, Role::Writer);
    let push = |desk: &mut Desk, name: &str, epoch: u32| {
        let change = writer.change(&desk.read(doc), 2, name, "x");
        let vouch = writer.vouch(&writer.key, doc, epoch, &change);
        desk.hears(writer.id(), writer.push(vec![vouch], vec![change.raw_bytes().to_vec()]));
        change
    };
    push(&mut desk, "before", 1);
    desk.ask(|request| Input::Remove { request, doc, who: writer.id() }).unwrap();
    // With the epoch of then and of now, directly and by a reader's relay.
    let reader = admitted(&mut desk, doc, 4, Role::Reader);
    for epoch in [0, 1, 2, 9] {
        let change = push(&mut desk, "after", epoch);
        let vouch = writer.vouch(&writer.key, doc, epoch, &change);
        desk.hears(reader.id(), reader.push(vec![vouch], vec![change.raw_bytes().to_vec()]));
    }
    // Nor does it come back by its ticket, or by one that it kept for itself.
    desk.meet(&writer, writer.redemption(writer.id()));
    let redeem = writer.redemption(writer.id()).unwrap();
    let regrant = Act::Grant { to: writer.id(), role: Role::Writer, bearer: None };
    let operations = vec![redeem, writer.operation(&writer.key, 9, regrant)];
    desk.hears(writer.id(), writer.frame(&Message::Learn { operations }));
    push(&mut desk, "after", 9);
    for desk in [&mut desk.restarted(), &mut desk] {
        let keys = keys(desk, doc);
        assert!(keys.contains("before") && !keys.contains("after"), "{keys:?}");
        assert_eq!(role_of(desk, doc, writer.id()), None);
    }
}

#[test]
fn a_writer_that_tells_two_stories_does_not_set_honest_nodes_against_each_other() {
    let (mut desk, doc, writer) = shared(2, Role::Writer);
    let relay = admitted(&mut desk, doc, 3, Role::Writer);
    let document = desk.read(doc);
    let stories = ["one", "other"].map(|name| writer.change(&document, 2, name, "x"));
    let words = [0, 1].map(|story: usize| writer.vouch(&writer.key, doc, 1, &stories[story]));
    desk.hears(writer.id(), writer.push(vec![words[0].clone()], vec![stories[0].raw_bytes().to_vec()]));
    // An honest node that heard the other story passes it on.
    desk.hears(relay.id(), relay.push(vec![words[1].clone()], vec![stories[1].raw_bytes().to_vec()]));
    assert_eq!(desk.misbehaved, [], "who passes on what a writer vouched for is honest");
    // Who tells both itself is not.
    desk.hears(writer.id(), writer.push(vec![words[1].clone()], vec![stories[1].raw_bytes().to_vec()]));
    assert_eq!(desk.misbehaved.len(), 1);
    assert_eq!(desk.misbehaved[0].0, writer.id());
    assert!(keys(&mut desk, doc).contains("one"));
    let rows = desk.disk.keys().filter(|(table, _)| *table == Table::DocChanges).count();
    assert!(rows > 0 && keys(&mut desk.restarted(), doc).contains("one"));
}

/// D4. A change that automerge takes, saves, and cannot load again: stored by an older program, as it were.
#[test]
fn a_snapshot_that_does_not_read_back_is_not_used_and_the_records_stay() {
    let (mut desk, doc, writer) = shared(2, Role::Writer);
    let before = desk.read(doc);
    edit(&mut desk, doc, "replaced");
    let (head, record) = (heads(&desk, doc)[0], last_record(&desk));
    let mut change = writer.change(&before, 2, "broken", "x").raw_bytes().to_vec();
    // Behind the header and the length: one dependency, the actor, its number; then the number of the first
    // operation.
    let content = 9 + change[9..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    change[content + 1 + 32 + 1 + 16 + 1] = 1;
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&change[8..]);
    change[4..8].copy_from_slice(&hash[..4]);
    let broken = automerge::Change::from_bytes(change.clone()).unwrap();
    let vouches = vec![writer.vouch(&writer.key, doc, 1, &broken)];
    let payload = wattle_tests::documents::Payload { vouches, chunks: vec![ByteBuf::from(change)] };
    desk.disk.insert(record, cbor::encode(&payload));
    let tip = desk.disk.get_mut(&(Table::Docs, [doc.as_bytes().as_slice(), b"t"].concat())).unwrap();
    let at = tip.windows(32).position(|some| *some == head).unwrap();
    tip[at..at + 32].copy_from_slice(&broken.hash().0);

    let mut desk = desk.restarted();
    let read = |desk: &mut Desk| {
        let read: wattle_docs::Read = Box::new(|automerge, _| {
            let saved = Automerge::load(&automerge.save());
            assert!(saved.is_err(), "it does not read back");
            cbor::encode(&automerge.keys(automerge::ROOT).collect::<BTreeSet<String>>())
        });
        match desk.ask(|request| Input::Read { request, doc, read }).unwrap() {
            wattle_docs::Outcome::Read(bytes) => cbor::decode::<BTreeSet<String>>(&bytes, 1 << 20).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(read(&mut desk).contains("broken"));
    // More than a snapshot is due for.
    let mut noise = 1_u64;
    for number in 0..60 {
        // It does not pack well.
        let large: String = (0..4000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b' ' + (noise >> 58) as u8)
            })
            .collect();
        let edit = put(&format!("after {number}"), &large);
        desk.ask(|request| Input::Edit { request, doc, at: None, edit }).unwrap();
    }
    let count = |desk: &Desk, table: Table| desk.disk.keys().filter(|(of, _)| *of == table).count();
    assert_eq!(count(&desk, Table::DocSnapshots), 0);
    assert_eq!(count(&desk, Table::DocChanges), 62);
    assert_eq!(read(&mut desk.restarted()).len(), 62);
}

fn last_record(desk: &Desk) -> (Table, Vec<u8>) {
    desk.disk.keys().rfind(|(table, _)| *table == Table::DocChanges).unwrap().clone()
}

/// What a person may paste: megabytes of one letter, a table of blanks.
#[test]
fn text_that_packs_too_well_is_taken_by_who_gets_it() {
    let (mut desk, doc, speaker) = shared(2, Role::Reader);
    let blank = " ".repeat(3 << 20);
    desk.ask(|request| Input::Edit { request, doc, at: None, edit: put("blank", &blank) }).unwrap();
    let mut other = Desk::new(key(2));
    let access = speaker.access.clone();
    other.ask(|request| Input::Join { request, access, bearer: None, inviter: None }).unwrap();
    let teller = Speaker::new(key(1), speaker.access.clone(), None);
    for clock in [Vec::new(), vec![(ByteBuf::from(vec![1]), 1)]] {
        let (mut desk, mut other) = (desk.restarted(), other.restarted());
        desk.meet(&speaker, None);
        other.meet(&teller, None);
        let learn = desk.hears(speaker.id(), speaker.frame(&Message::Operations { hashes: Vec::new() }));
        for frame in learn {
            other.hears(teller.id(), frame);
        }
        // All of it, and change by change.
        let known = if clock.is_empty() { Vec::new() } else { vec![ByteArray::new([9; 32])] };
        let mut answer = desk.hears(speaker.id(), speaker.frame(&Message::Want { heads: known, clock }));
        while let Some(frame) = answer.pop() {
            let back = other.hears(teller.id(), frame);
            let more =
                back.iter().map(|frame| unframe(frame).1).find(|it| matches!(it, Message::More { .. }));
            if let Some(more) = more {
                answer = desk.hears(speaker.id(), speaker.frame(&more));
            }
        }
        assert_eq!(other.misbehaved, []);
        assert_eq!(heads(&other, doc), heads(&desk, doc));
    }
}

/// So many changes of a writer, each on the one before, in a frame of its own.
fn typed(desk: &mut Desk, doc: DocId, speaker: &Speaker, count: u32) -> Vec<(NodeId, Vec<u8>)> {
    let mut on = desk.read(doc);
    let mut frames = Vec::new();
    for number in 0..count {
        let change = speaker.change(&on, 7, &format!("key {number}"), "x");
        let vouch = speaker.vouch(&speaker.key, doc, 1, &change);
        frames.push((speaker.id(), speaker.push(vec![vouch], vec![change.raw_bytes().to_vec()])));
        on.apply_changes([change]).unwrap();
    }
    frames
}

fn times_changed(desk: &mut Desk) -> usize {
    let events = std::mem::take(&mut desk.events);
    events.iter().filter(|event| matches!(event, wattle_docs::Event::Changed { .. })).count()
}

#[test]
fn what_a_member_wrote_while_the_machine_was_busy_is_applied_and_written_as_one() {
    let (mut desk, doc, speaker) = shared(2, Role::Writer);
    let frames = typed(&mut desk, doc, &speaker, 50);
    let mut idle = desk.restarted();
    idle.meet(&speaker, None);
    times_changed(&mut idle);
    for (peer, frame) in frames.clone() {
        idle.hears(peer, frame);
    }
    assert_eq!(times_changed(&mut idle), 50, "what comes alone is applied at once");
    times_changed(&mut desk);
    desk.handle(Input::ReceivedTogether { frames });
    assert_eq!(times_changed(&mut desk), 1, "each change is applied and written by itself");
    assert_eq!((desk.misbehaved.len(), keys(&mut desk, doc).len()), (0, 51));
    let again = desk.restarted().read(doc).keys(automerge::ROOT).count();
    assert_eq!(again, 51, "what was written together is on disk");
}

#[test]
fn what_others_wrote_and_a_member_passes_on_is_judged_by_itself() {
    let (mut desk, doc, speaker) = shared(2, Role::Writer);
    let other = admitted(&mut desk, doc, 3, Role::Writer);
    let mut frames = typed(&mut desk, doc, &speaker, 2);
    let theirs = other.change(&desk.read(doc), 9, "theirs", "x");
    // The other writer never said this.
    let mut forged = cbor::encode(&other.vouch(&other.key, doc, 1, &theirs));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged: Envelope = cbor::decode(&forged, forged.len()).unwrap();
    let pushed = speaker.push(vec![forged], vec![theirs.raw_bytes().to_vec()]);
    frames.insert(1, (speaker.id(), pushed));
    desk.handle(Input::ReceivedTogether { frames });
    assert_eq!(desk.misbehaved.len(), 1);
    let here = keys(&mut desk, doc);
    assert!(here.contains("key 0"), "what came before is lost: {here:?}");
    assert!(!here.contains("theirs"), "a forged word was taken");
}

#[test]
fn a_document_that_is_not_in_use_is_put_away_when_memory_is_short() {
    let mut desk = Desk::new(key(1));
    let docs: Vec<DocId> = (0..2).map(|_| desk.create()).collect();
    // Of small ones a machine puts all but one away, however much memory there is.
    for doc in &docs {
        let long = put("long", &"x".repeat(70_000));
        desk.ask(|request| Input::Edit { request, doc: *doc, at: None, edit: long }).unwrap();
    }
    desk.wait(Duration::from_secs(2));
    edit(&mut desk, docs[0], "in use");
    let one = desk.replica.open_bytes() / 2;
    desk.handle(Input::Shed);
    let left = desk.replica.open_bytes();
    assert!(left > 0 && left < 2 * one, "{left} bytes instead of those of one document, about {one}");
    let loads = desk.loads;
    assert_eq!(keys(&mut desk, docs[0]).len(), 3);
    assert_eq!(desk.loads, loads, "the one in use was put away");
    assert_eq!(keys(&mut desk, docs[1]).len(), 2, "it is not what it was");
    assert_eq!(desk.loads, loads + 1);
}
