//! Members with a valid key that lie, and outsiders that forge.

use std::sync::Arc;

use wattle_swim::{
    Body, Claim, Event, Incarnation, Input, Message, Packet, RawClaim, Rumor, ShortId, Signed, State,
};
use wattle_types::NetworkName;

use crate::world::{Options, World, describe, key};
use crate::{MILLI, SECOND};

/// One that accuses everyone, to everyone, all the time, and answers probes meanwhile.
fn accuse_all(world: &mut World, liars: &[usize], begun: wattle_types::Time, seconds: u32) {
    let count = world.nodes.len();
    while world.now.since(begun) < seconds * SECOND {
        for liar in liars {
            for subject in (0..count).filter(|it| !liars.contains(it)) {
                let claim = world.accusation(*liar, subject, *liar);
                for to in (0..count).filter(|it| !liars.contains(it)) {
                    world.say(*liar, to, vec![Rumor::Claim(Arc::clone(&claim))]);
                }
            }
        }
        world.run(500 * MILLI);
    }
}

/// Acceptance 9: one liar removes nobody, costs each victim a refutation in ten seconds, and loses its score.
#[test]
fn a_member_that_accuses_everyone_removes_nobody() {
    let mut world = World::new(16, Options::new(31));
    let begun = world.now;
    accuse_all(&mut world, &[5], begun, 40);
    assert_eq!(world.verdicts, 0);
    for victim in (0..16).filter(|it| *it != 5) {
        let counts = world.swim(victim).status().counts;
        assert!(counts.refuted <= 5, "n{victim} refuted {} times in 40 s", counts.refuted);
        assert!(counts.over_quota > 500, "the rest did not count: {counts:?}");
        let blamed = world.nodes[victim].misbehaved.iter().find(|(_, peer, _)| *peer == world.nodes[5].id);
        assert!(blamed.is_some_and(|(at, ..)| at.since(begun) < 15 * SECOND), "n{victim} blames it soon");
    }
    assert!(world.nodes.iter().flat_map(|it| &it.misbehaved).all(|(_, peer, _)| *peer == world.nodes[5].id));
    let suspects = world.swim(0).status().counts.suspected;
    assert!(suspects <= 3 * 5, "only so many were ever suspect: {suspects}");
}

/// Acceptance 9: liars that are a quorum can make a certificate, and cannot answer for its subject.
#[test]
fn three_liars_with_certificates_remove_nobody_who_answers() {
    let mut world = World::new(16, Options::new(32));
    let liars = [3, 7, 11];
    for _ in 0..40 {
        for subject in (0..16).filter(|it| !liars.contains(it)) {
            let claims: Vec<Arc<Signed>> =
                liars.iter().map(|liar| world.accusation(*liar, subject, *liar)).collect();
            for to in (0..16).filter(|it| !liars.contains(it)) {
                world.say(3, to, vec![Rumor::Dead(claims.clone())]);
            }
        }
        world.run(500 * MILLI);
    }
    assert_eq!(world.verdicts, 0);
    let sum = |of: &dyn Fn(usize) -> u64| (0..16).filter(|it| !liars.contains(it)).map(of).sum::<u64>();
    assert!(sum(&|node| world.swim(node).status().counts.refuted) > 0, "the accused refuted");
    let chances = sum(&|node| world.swim(node).status().counts.chances_taken);
    assert_eq!(chances, 0, "before anybody thought of a last chance");
    assert!(world.until(15 * SECOND, &mut |world| world.all_see_all()).is_some());
}

/// What comes over a stream that says of these that some accuse them, as what they are at a node.
fn accused_by(world: &World, at: usize, accusers: &[usize], subjects: &[usize]) -> Input {
    let entry = |subject: usize| wattle_swim::Entry {
        record: Arc::clone(world.swim(at).record(&world.nodes[subject].id).unwrap()),
        since: None,
        accusations: accusers.iter().map(|accuser| world.accusation(*accuser, subject, at)).collect(),
        removal: None,
        age_s: 600,
    };
    let records = subjects.iter().map(|subject| entry(*subject)).collect();
    let from = world.nodes[accusers[0]].id;
    Input::Message { from, message: Message::Records { records, want: Vec::new() } }
}

/// A quorum of liars whose words come over streams, where no quota is, and who first spend with the accused what it
/// refutes in ten seconds. What keeps it is that it refutes, not that a last ping gets through a bad network.
#[test]
fn liars_that_accuse_by_streams_and_spend_refutations_first_remove_nobody() {
    for (loss, connected) in [(300, 0), (0, 100)] {
        let mut world = World::new(7, Options { loss, connected, ..Options::new(44) });
        let (liars, honest) = ([5, 6], [0, 1, 2, 3, 4]);
        for _ in 0..60 {
            for subject in honest {
                for liar in liars {
                    let claim = world.accusation(liar, subject, subject);
                    world.say(liar, subject, vec![Rumor::Claim(claim)]);
                }
            }
            world.run(250 * MILLI);
            for node in honest {
                let others: Vec<usize> = honest.into_iter().filter(|it| *it != node).collect();
                let lie = accused_by(&world, node, &liars, &others);
                world.handle(node, lie);
            }
            world.run(250 * MILLI);
        }
        assert!(world.false_positives.is_empty(), "loss {loss}: {:?}", world.false_positives);
        for node in honest {
            let counts = world.swim(node).status().counts;
            assert!(counts.suspected > 0 && counts.repeated > 0, "it heard them: {counts:?}");
            assert!(loss > 0 || counts.chances_taken == 0, "nobody needed a last chance: {counts:?}");
            assert!(counts.refuted <= 40, "and nobody refuted more than once a second: {counts:?}");
        }
    }
}

/// An accuser that was refuted is not believed again at once, whichever way its word comes.
#[test]
fn an_accuser_that_was_refuted_is_not_believed_again_by_stream_at_once() {
    let mut world = World::new(12, Options::new(45));
    let before = world.accusation(1, 9, 0);
    world.say(1, 0, vec![Rumor::Claim(before)]);
    world.run(SECOND);
    let refuted = world.swim(0).standing(&world.nodes[9].id).unwrap();
    assert_eq!(refuted, (State::Alive, world.swim(9).incarnation()));
    let suspected = world.swim(0).status().counts.suspected;
    let lie = accused_by(&world, 0, &[1], &[9]);
    world.handle(0, lie.clone());
    let counts = world.swim(0).status().counts;
    assert_eq!((counts.suspected, counts.repeated), (suspected, 1), "not yet");
    world.run(10 * SECOND);
    world.handle(0, lie);
    assert_eq!(world.swim(0).status().counts.suspected, suspected + 1, "ten seconds later it may be true");
}

/// Keys are free: who refuted whatever they sign would refute without end.
#[test]
fn what_strangers_say_over_a_stream_need_not_be_refuted() {
    let mut world = World::new(6, Options::new(46));
    let (me, from) = (world.nodes[0].id, world.nodes[1].id);
    let record = Arc::clone(world.swim(0).record(&me).unwrap());
    for stranger in 100..140 {
        let claim = Claim::Suspect { subject: me, incarnation: world.swim(0).incarnation() };
        let claim = Signed::seal(&key(stranger), &NetworkName::default(), &claim).unwrap();
        let (record, accusations) = (Arc::clone(&record), vec![Arc::new(claim)]);
        let entry = wattle_swim::Entry { record, since: None, accusations, removal: None, age_s: 0 };
        let message = Message::Records { records: vec![entry], want: Vec::new() };
        world.handle(0, Input::Message { from, message });
    }
    assert_eq!(world.swim(0).status().counts.refuted, 0);
}

/// Acceptance 8 d: a certificate needs a quorum of different members that are alive here.
#[test]
fn a_certificate_without_a_quorum_is_a_few_accusations() {
    let mut world = World::new(12, Options::new(33));
    let one = world.accusation(1, 9, 0);
    let stranger = key(77);
    let claim = Claim::Suspect { subject: world.nodes[9].id, incarnation: world.swim(9).incarnation() };
    let forged = Arc::new(Signed::seal(&stranger, &NetworkName::default(), &claim).unwrap());
    let doubled = vec![Arc::clone(&one), Arc::clone(&one), Arc::clone(&one), forged];
    world.say(1, 0, vec![Rumor::Dead(doubled)]);
    let counts = world.swim(0).status().counts;
    assert_eq!((counts.thin_certificates, counts.suspected), (1, 1));
    let suspect = world.swim(0).view().members.into_iter().find(|it| it.id == world.nodes[9].id).unwrap();
    assert_eq!((suspect.state, suspect.accusers), (State::Suspect, vec![world.nodes[1].id]));
    world.run(20 * SECOND);
    assert_eq!(world.verdicts, 0);
}

/// Over streams no quota counts the same accuser twice.
#[test]
fn one_accuser_three_times_is_no_quorum_over_a_stream() {
    let mut world = World::new(12, Options::new(33));
    let lie = accused_by(&world, 0, &[1, 1, 1], &[9]);
    world.handle(0, lie);
    let counts = world.swim(0).status().counts;
    assert_eq!((counts.thin_certificates, counts.suspected), (1, 1));
}

/// Acceptance 8 c: what another's key did not sign never gets in, and a stranger's word counts for nothing.
#[test]
fn a_claim_that_its_author_did_not_sign_is_refused() {
    let world = World::new(4, Options::new(34));
    let network = NetworkName::default();
    let claim = Claim::Leave { incarnation: world.swim(2).incarnation() };
    let signed = Signed::seal(&key(77), &network, &claim).unwrap();
    let RawClaim::Own { incarnation, leaves, signature, .. } = RawClaim::of(&signed) else {
        panic!("its own")
    };
    let stolen = RawClaim::Own { author: world.nodes[2].id, incarnation, leaves, signature };
    assert!(Signed::open(stolen.envelope(), &network).is_err());
    let elsewhere: NetworkName = "elsewhere".parse().unwrap();
    assert!(Signed::open(signed.envelope().clone(), &elsewhere).is_err(), "nor one of another network");
    let itself = Claim::Suspect { subject: key(77).node_id(), incarnation };
    assert!(Signed::seal(&key(77), &network, &itself).is_none(), "nor does anybody accuse itself");
}

/// The hole that made a liar's word last: an accusation of an incarnation that its subject never had.
#[test]
fn an_incarnation_that_only_an_accuser_knows_is_not_believed() {
    let mut world = World::new(12, Options::new(35));
    let subject = world.nodes[9].id;
    let known = world.swim(0).standing(&subject).unwrap();
    for ahead in [1, 1000, u64::from(u32::MAX) << 31] {
        let incarnation = Incarnation::from_u64(known.1.as_u64() + ahead);
        let claim = world.sign(1, &Claim::Suspect { subject, incarnation });
        world.say(1, 0, vec![Rumor::Claim(claim)]);
        world.run(2 * SECOND);
        assert_eq!(world.swim(0).standing(&subject), Some(known));
    }
    assert_eq!(world.swim(0).status().counts.unproven, 3);
    assert_eq!(world.swim(9).status().counts.refuted, 0, "nor need it refute that");
}

/// The hole of foca: a verdict on an incarnation that is past removes nobody.
#[test]
fn what_was_said_of_an_earlier_incarnation_is_stale() {
    let mut world = World::new(12, Options::new(36));
    let old: Vec<Arc<Signed>> = [1, 2, 3].iter().map(|it| world.accusation(*it, 9, 9)).collect();
    world.say(1, 9, vec![Rumor::Claim(Arc::clone(&old[0]))]);
    world.run(3 * SECOND);
    let refuted = world.swim(0).standing(&world.nodes[9].id).unwrap();
    assert_eq!(refuted, (State::Alive, world.swim(9).incarnation()));
    for _ in 0..20 {
        for to in (0..12).filter(|it| *it != 9) {
            world.say(1, to, vec![Rumor::Dead(old.clone()), Rumor::Claim(Arc::clone(&old[1]))]);
        }
        world.run(SECOND);
    }
    assert_eq!(world.verdicts, 0);
    assert_eq!(world.swim(0).status().counts.suspected, world.swim(0).status().counts.cleared);
    assert_eq!(world.swim(0).standing(&world.nodes[9].id), Some(refuted), "it did not even have to answer");
}

/// Only who is alive beyond doubt accuses: a suspect, faulty or unknown one does not.
#[test]
fn an_accuser_must_be_alive_itself() {
    let mut world = World::new(12, Options::new(37));
    world.crash(5);
    world.until(15 * SECOND, &mut |world| world.all_see(5, State::Faulty)).unwrap();
    let claim = world.accusation(5, 9, 0);
    let suspected = world.swim(0).status().counts.suspected;
    world.say(1, 0, vec![Rumor::Claim(claim)]);
    let counts = world.swim(0).status().counts;
    assert_eq!((counts.untrusted, counts.suspected), (1, suspected));
}

/// Acceptance 14: a leave that is replayed after the leaver came back is of an incarnation that is past.
#[test]
fn a_replayed_leave_does_not_send_away_who_came_back() {
    let mut world = World::new(8, Options::new(38));
    let leave = world.sign(4, &Claim::Leave { incarnation: world.swim(4).incarnation() });
    let late = world.sign(4, &Claim::Refute { incarnation: world.swim(4).incarnation() });
    world.handle(4, Input::Leave);
    world.run(3 * SECOND);
    world.crash(4);
    assert!(world.all_see(4, State::Left));
    // What it sent before, and arrives late, does not bring it back.
    world.say(1, 0, vec![Rumor::Claim(late)]);
    assert_eq!(world.state(0, 4), Some(State::Left));
    world.nodes[4].seeds = vec![world.nodes[0].id];
    world.start(4);
    world.until(5 * SECOND, &mut |world| world.all_see(4, State::Alive)).unwrap();
    world.say(1, 0, vec![Rumor::Claim(leave)]);
    world.run(5 * SECOND);
    assert!(world.all_see(4, State::Alive));
    assert_eq!(world.verdicts, 0);
}

/// Whoever leaves does not answer accusations any more: a refutation would bring it back.
#[test]
fn a_leaver_that_is_accused_meanwhile_still_leaves() {
    let mut world = World::new(8, Options::new(41));
    let accusation = world.accusation(1, 4, 4);
    world.handle(4, Input::Leave);
    world.say(1, 4, vec![Rumor::Claim(accusation)]);
    world.run(3 * SECOND);
    assert!((0..8).filter(|it| *it != 4).all(|it| world.state(it, 4) == Some(State::Left)));
}

/// Nobody makes another ping a third without end, nor learns more by packets than it asks in a while.
#[test]
fn what_a_member_makes_another_send_is_bounded() {
    let mut world = World::new(8, Options::new(42));
    world.crash(5);
    let (from, incarnation) = (world.nodes[1].id, world.swim(1).incarnation());
    let target = ShortId::of(&world.nodes[5].id);
    let before = world.nodes[0].packets;
    for sequence in 0..500 {
        let body = Body::PingRequest { sequence, target, patience_ms: 5000 };
        let packet = Packet { stamp: incarnation.stamp(), body, rumors: Vec::new() };
        world.handle(0, Input::Packet { from, packet });
    }
    assert_eq!(world.nodes[0].packets - before, 4, "pings for one other member");
    let before = world.nodes[0].packets;
    for _ in 0..500 {
        world.say(1, 0, vec![Rumor::Ask(target)]);
    }
    assert_eq!(world.nodes[0].packets - before, 20, "answers at once");
    let before = world.swim(0).status().counts.syncs;
    for _ in 0..500 {
        for other in 1..8 {
            let sender = ShortId::of(&world.nodes[other].id);
            world.handle(0, Input::Unreadable { sender });
        }
    }
    assert_eq!(world.swim(0).status().counts.syncs - before, 7, "one greeting for each");
}

/// One that sends without end is read for its share only: what others say meanwhile is heard, and the processor has
/// time.
#[test]
fn who_sends_without_end_is_not_read_on_and_others_are() {
    let mut world = World::new(8, Options::new(43));
    let accusation = world.accusation(1, 5, 5);
    let stamp = world.swim(1).incarnation().stamp();
    let rumors = vec![Rumor::Claim(accusation)];
    let bytes = Packet { stamp, body: Body::Gossip, rumors }.encode();
    for _ in 0..5 {
        for _ in 0..1000 {
            world.send_packet(1, 0, bytes.clone());
        }
        world.run(SECOND);
    }
    let unread = world.swim(0).status().counts.unread;
    assert!((4200..=4260).contains(&unread), "256 at once and 128 a second are read: {unread}");
    for node in 1..8 {
        assert_eq!(world.swim(node).status().counts.unread, 0, "n{node} had no more than it could read");
    }
    assert_eq!((world.verdicts, world.swim(0).status().counts.failed), (0, 0));
    world.run(3 * SECOND);
    world.crash(1);
    assert!(world.until(15 * SECOND, &mut |world| world.all_see(1, State::Faulty)).is_some());
}

/// Who introduces another as itself over a stream is blamed, and nothing is learned.
#[test]
fn nobody_joins_in_anothers_name() {
    let mut world = World::new(3, Options::new(39));
    let other = key(50);
    let claim = Claim::Alive { incarnation: Incarnation::of_epoch(9), description: describe(50, [1; 32], 1) };
    let record = Arc::new(Signed::seal(&other, &NetworkName::default(), &claim).unwrap());
    let from = world.nodes[1].id;
    world.handle(0, Input::Message { from, message: Message::Hello { record, root: 0 } });
    assert_eq!(world.swim(0).standing(&other.node_id()), None);
    assert_eq!(world.nodes[0].misbehaved.len(), 1);
}

/// The table is bounded: a flood of newcomers pushes out who left or failed, and nobody who is alive.
#[test]
fn a_flood_of_newcomers_pushes_out_nobody_who_is_alive() {
    let mut world = World::empty(1, Options { members_max: 20, ..Options::new(40) });
    world.start(0);
    world.run(SECOND);
    let mut claims = Vec::new();
    for newcomer in 1..60 {
        let description = describe(newcomer, [1; 32], 1);
        let claim = Claim::Alive { incarnation: Incarnation::of_epoch(9), description };
        claims.push(Arc::new(Signed::seal(&key(newcomer), &NetworkName::default(), &claim).unwrap()));
    }
    let entry = |record: &Arc<Signed>| wattle_swim::Entry {
        record: Arc::clone(record),
        since: None,
        accusations: Vec::new(),
        removal: None,
        age_s: 0,
    };
    let from = key(1).node_id();
    let records = claims.iter().map(entry).collect();
    world.handle(0, Input::Message { from, message: Message::Records { records, want: Vec::new() } });
    assert_eq!(world.swim(0).status().live, 21);
    assert_eq!(world.swim(0).status().counts.refused, 39);
    let leave = Claim::Leave { incarnation: Incarnation::of_epoch(9) };
    let gone = wattle_swim::Entry {
        since: Some(Arc::new(Signed::seal(&key(3), &NetworkName::default(), &leave).unwrap())),
        ..entry(&claims[2])
    };
    let records = vec![gone, entry(&claims[58])];
    world.handle(0, Input::Message { from, message: Message::Records { records, want: Vec::new() } });
    assert_eq!(world.state_of(0, &key(3).node_id()), None, "who left made room");
    assert_eq!(world.state_of(0, &key(59).node_id()), Some(State::Alive));
    world.swim(0).check_invariants();
    let forgotten = world.nodes[0].events.iter().any(|(_, it)| matches!(it, Event::Forgotten { .. }));
    assert!(forgotten);
}
