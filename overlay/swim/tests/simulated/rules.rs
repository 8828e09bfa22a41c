//! One rule at a time, with packets written by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use wattle_swim::{
    Body, Claim, Event, Incarnation, Input, InvalidConfig, Packet, RawClaim, Reason, Rumor, Signed, State,
    Timing,
};
use wattle_types::NetworkName;

use crate::world::{Options, World, describe, key};
use crate::{MILLI, SECOND};

/// A group in which nothing happens but what a test does: nobody probes within the test's span.
fn still(count: usize, seed: u64) -> World {
    let timing = Timing {
        period: 500 * SECOND,
        fallback_timeout: 100 * SECOND,
        direct_timeout: SECOND,
        sync_every: 5000 * SECOND,
        suspicion: 500 * SECOND,
        gossip_every: 400 * SECOND,
        announce_every: 5000 * SECOND,
        ..Timing::lan()
    };
    World::new(count, Options { timing, ..Options::new(seed) })
}

fn why(world: &World, node: usize, subject: usize) -> Vec<(State, Reason)> {
    let id = world.nodes[subject].id;
    let changes = world.nodes[node].events.iter().filter_map(|(_, event)| match event {
        Event::MemberChanged { member, to, why, from: Some(_), .. } if *member == id => {
            Some((*to, why.reason))
        }
        _ => None,
    });
    changes.filter(|(_, reason)| *reason != Reason::Restarted).collect()
}

/// SWIM, section 4.2: Alive of a higher incarnation overrides Suspect; of the same it does not.
#[test]
fn refuted_suspicion_needs_a_higher_incarnation() {
    let mut world = still(12, 51);
    let accusation = world.accusation(1, 9, 0);
    world.say(1, 0, vec![Rumor::Claim(accusation)]);
    assert_eq!(world.state(0, 9), Some(State::Suspect));
    let same = world.sign(9, &Claim::Refute { incarnation: world.swim(9).incarnation() });
    world.say(1, 0, vec![Rumor::Claim(same)]);
    assert_eq!(world.state(0, 9), Some(State::Suspect), "the same incarnation refutes nothing");
    let higher = world.sign(9, &Claim::Refute { incarnation: world.swim(9).incarnation().next().unwrap() });
    world.say(1, 0, vec![Rumor::Claim(higher)]);
    assert_eq!(world.state(0, 9), Some(State::Alive));
    assert_eq!(why(&world, 0, 9), [(State::Suspect, Reason::Accused), (State::Alive, Reason::Refuted)]);
}

/// Faulty is refutable too, unlike in the paper: it takes a higher incarnation and nothing else.
#[test]
fn a_faulty_member_comes_back_by_a_higher_incarnation_only() {
    let mut world = World::new(12, Options::new(52));
    world.crash(9);
    world.until(15 * SECOND, &mut |world| world.all_see(9, State::Faulty)).unwrap();
    let incarnation = world.swim(0).standing(&world.nodes[9].id).unwrap().1;
    let same = world.sign(9, &Claim::Refute { incarnation });
    world.say(1, 0, vec![Rumor::Claim(same)]);
    assert_eq!(world.state(0, 9), Some(State::Faulty));
    let higher = world.sign(9, &Claim::Refute { incarnation: incarnation.next().unwrap() });
    world.say(1, 0, vec![Rumor::Claim(higher)]);
    assert_eq!(world.state(0, 9), Some(State::Alive));
}

/// A packet's incarnation is its sender's own word, even if the refutation was lost.
#[test]
fn a_packet_of_a_higher_incarnation_ends_a_suspicion() {
    let mut world = still(12, 53);
    let accusation = world.accusation(1, 9, 0);
    world.say(1, 0, vec![Rumor::Claim(accusation)]);
    let incarnation = world.swim(9).incarnation().next().unwrap();
    let packet = Packet { stamp: incarnation.stamp(), body: Body::Gossip, rumors: Vec::new() };
    let from = world.nodes[9].id;
    world.handle(0, Input::Packet { from, packet });
    assert_eq!(why(&world, 0, 9).last(), Some(&(State::Alive, Reason::Spoke)));
}

/// The accused answers at once, whoever asks, and not twice for the same accuser within ten seconds.
#[test]
fn an_accused_member_refutes_an_accuser_once_in_ten_seconds() {
    let mut world = still(12, 54);
    for expected in [1, 1, 1] {
        let accusation = world.accusation(1, 9, 9);
        world.say(1, 9, vec![Rumor::Claim(accusation)]);
        assert_eq!(world.swim(9).status().counts.refuted, expected);
        world.run(3 * SECOND);
    }
    let other = world.accusation(2, 9, 9);
    world.say(2, 9, vec![Rumor::Claim(other)]);
    assert_eq!(world.swim(9).status().counts.refuted, 2, "another accuser is another matter");
    world.run(8 * SECOND);
    let again = world.accusation(1, 9, 9);
    world.say(1, 9, vec![Rumor::Claim(again)]);
    assert_eq!(world.swim(9).status().counts.refuted, 3);
}

/// Distinct named accusers: one that says it many times is one.
#[test]
fn the_same_accuser_twice_is_one_accuser() {
    let mut world = still(12, 55);
    for _ in 0..5 {
        let accusation = world.accusation(1, 9, 0);
        world.say(2, 0, vec![Rumor::Claim(accusation)]);
    }
    let accusers = |world: &World| {
        world.swim(0).view().members.into_iter().find(|it| it.id == world.nodes[9].id).unwrap().accusers
    };
    assert_eq!(accusers(&world), [world.nodes[1].id]);
    let second = world.accusation(2, 9, 0);
    world.say(3, 0, vec![Rumor::Claim(second)]);
    assert_eq!(accusers(&world), [world.nodes[1].id, world.nodes[2].id]);
}

/// The suspect that answers its last chance is not faulty, whatever its accusers say.
#[test]
fn a_suspect_that_answers_its_last_chance_is_not_faulty() {
    let mut world = still(12, 56);
    // It hears everything and says nothing of its own accord: its refutations are lost on the way.
    let claims = [1, 2, 3].map(|accuser| world.accusation(accuser, 9, 0)).to_vec();
    world.say(1, 0, vec![Rumor::Dead(claims)]);
    assert_eq!(world.state(0, 9), Some(State::Suspect), "a certificate is no verdict");
    world.run(60 * SECOND);
    assert_eq!(world.verdicts, 0);
    assert!(world.swim(9).status().counts.refuted >= 1, "the ping told it of its accusers");
    let mut mute = still(12, 57);
    mute.crash(9);
    let claims = [1, 2, 3].map(|accuser| mute.accusation(accuser, 9, 0)).to_vec();
    mute.say(1, 0, vec![Rumor::Dead(claims)]);
    mute.run(20 * SECOND);
    assert_eq!(mute.state(0, 9), Some(State::Suspect), "a certificate of a moment cuts no suspicion short");
    mute.run(40 * SECOND);
    assert_eq!(mute.state(0, 9), Some(State::Faulty), "who does not answer is");
    assert_eq!(why(&mute, 0, 9).last(), Some(&(State::Faulty, Reason::Certified)));
}

/// A member that may have missed a refutation asks for it; and is told.
#[test]
fn an_accusation_of_an_unknown_incarnation_is_asked_about() {
    let mut world = World::new(12, Options::new(58));
    // n0 hears nothing of the refutation but by asking.
    let refutation =
        world.sign(9, &Claim::Refute { incarnation: world.swim(9).incarnation().next().unwrap() });
    world.say(9, 1, vec![Rumor::Claim(Arc::clone(&refutation))]);
    let incarnation = refutation.claim().incarnation();
    let claim = world.sign(1, &Claim::Suspect { subject: world.nodes[9].id, incarnation });
    world.say(1, 0, vec![Rumor::Claim(claim)]);
    assert_eq!(world.swim(0).status().counts.unproven, 1);
    world.run(5 * MILLI);
    assert_eq!(world.swim(0).standing(&world.nodes[9].id), Some((State::Alive, incarnation)));
}

/// A record that comes after the refutation that followed it still brings what it says.
#[test]
fn a_late_record_is_read_though_its_refutation_came_first() {
    let mut world = still(6, 59);
    let id = world.nodes[3].id;
    let first = world.swim(3).incarnation();
    let (second, third) = (first.next().unwrap(), first.next().unwrap().next().unwrap());
    let mut description = world.swim(3).record(&id).unwrap().description().unwrap().clone();
    description.name = "renamed".to_owned();
    let record = world.sign(3, &Claim::Alive { incarnation: second, description: description.clone() });
    let refutation = world.sign(3, &Claim::Refute { incarnation: third });
    world.say(1, 0, vec![Rumor::Claim(refutation), Rumor::Claim(record)]);
    assert_eq!(world.swim(0).standing(&id), Some((State::Alive, third)));
    assert_eq!(world.swim(0).record(&id).unwrap().description(), Some(&description));
    world.swim(0).check_invariants();
}

/// What a member said in passing cannot be shown to others: all keep the highest that it signed, or their tables
/// differ for as long as it is remembered.
#[test]
fn a_refutation_that_came_after_a_higher_word_is_kept_for_the_others() {
    let mut world = still(6, 61);
    let second = world.swim(3).incarnation().next().unwrap();
    let third = second.next().unwrap();
    let packet = Packet { stamp: third.stamp(), body: Body::Gossip, rumors: Vec::new() };
    let from = world.nodes[3].id;
    world.handle(0, Input::Packet { from, packet });
    let refutation = world.sign(3, &Claim::Refute { incarnation: second });
    let (checked, packet) = read(&world, 0, vec![Rumor::Claim(Arc::clone(&refutation))]);
    assert_eq!((checked, packet.rumors.len()), (1, 1), "a lower word that is signed is news");
    for hearer in [0, 1] {
        world.say(2, hearer, vec![Rumor::Claim(Arc::clone(&refutation))]);
    }
    assert_eq!(world.swim(0).standing(&from), Some((State::Alive, third)));
    assert_eq!(world.swim(1).standing(&from), Some((State::Alive, second)));
    assert_eq!(world.swim(0).root(), world.swim(1).root());
}

/// Who missed it the first time is not left to hear of a suspicion by its end.
#[test]
fn the_first_word_of_a_suspicion_is_told_once_more_halfway() {
    let mut world = still(12, 62);
    world.nodes[9].deaf = 1000;
    let accusation = world.accusation(1, 9, 0);
    for _ in 0..5 {
        // As often as it would have been told: it comes from everywhere.
        world.say(1, 0, vec![Rumor::Claim(Arc::clone(&accusation))]);
    }
    // The shortest suspicion is 557 s; the other accusers are told of a quarter before that.
    world.run(205 * SECOND);
    let waiting = world.swim(0).status().queue;
    world.run(5 * SECOND);
    assert_eq!((world.swim(0).status().queue, world.state(0, 9)), (waiting + 1, Some(State::Suspect)));
}

/// Of two runs of one epoch whoever came first stays, and all are told: neither can refute the other.
#[test]
fn the_other_run_of_an_epoch_does_not_take_its_place() {
    let mut world = still(6, 65);
    let id = world.nodes[3].id;
    let held = world.swim(0).record(&id).unwrap().clone();
    let incarnation = world.swim(3).incarnation().next().unwrap();
    let other = world.sign(3, &Claim::Alive { incarnation, description: describe(3, [9; 32], 1) });
    world.say(2, 0, vec![Rumor::Claim(other)]);
    assert_eq!(world.swim(0).record(&id), Some(&held));
    let doubled = Event::DuplicateIdentity { member: id };
    assert!(world.nodes[0].events.iter().any(|(_, event)| *event == doubled));
}

/// Who leaves decides nothing any more, and its table still holds together.
#[test]
fn a_suspicion_may_be_open_when_a_node_leaves() {
    let mut world = World::new(12, Options::new(63));
    world.nodes[9].deaf = 1000;
    let accusation = world.accusation(1, 9, 0);
    world.say(1, 0, vec![Rumor::Claim(accusation)]);
    world.handle(0, Input::Leave);
    world.run(3 * SECOND);
    assert!(world.nodes[0].events.iter().any(|(_, it)| *it == Event::Left));
    assert_eq!(world.state(0, 9), Some(State::Suspect));
    world.swim(0).check_invariants();
}

/// A refutation from a run whose record is not here says nothing yet: its key would be missing. It is asked for.
#[test]
fn a_refutation_of_an_unknown_run_is_asked_about() {
    let mut world = still(6, 60);
    let id = world.nodes[3].id;
    let known = world.swim(0).standing(&id);
    let epoch = Incarnation::of_epoch(world.swim(3).incarnation().epoch() + 1);
    let later = epoch.next().unwrap();
    let refutation = world.sign(3, &Claim::Refute { incarnation: later });
    world.say(2, 0, vec![Rumor::Claim(Arc::clone(&refutation))]);
    world.run(1100 * MILLI);
    assert_eq!(world.swim(0).standing(&id), known, "who was asked knows no more");
    let claim = Claim::Alive { incarnation: epoch, description: describe(3, [9; 32], 1) };
    let record = world.sign(3, &claim);
    world.say(2, 1, vec![Rumor::Claim(record), Rumor::Claim(Arc::clone(&refutation))]);
    world.say(1, 0, vec![Rumor::Claim(refutation)]);
    world.run(10 * MILLI);
    assert_eq!(world.swim(0).standing(&id), Some((State::Alive, later)));
}

/// A certificate circulates until it is refuted: who has just answered is not asked again for it.
#[test]
fn a_member_that_took_its_last_chance_is_left_alone_for_a_while() {
    let mut world = still(12, 65);
    // It answers, and says nothing of its own accord.
    world.crash(9);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let asks = Rc::clone(&asked);
    world.tap = Some(Box::new(move |from, to, bytes| {
        let packet = Packet::<RawClaim>::decode(bytes, &|_| None).unwrap();
        if let (0, 9, Body::Ping { sequence, .. }) = (from, to, packet.body) {
            asks.borrow_mut().push(sequence);
        }
    }));
    let claims = [1, 2, 3].map(|accuser| world.accusation(accuser, 9, 0)).to_vec();
    let (from, stamp) = (world.nodes[9].id, world.swim(0).standing(&world.nodes[9].id).unwrap().1.stamp());
    for _ in 0..1200 {
        world.say(1, 0, vec![Rumor::Dead(claims.clone())]);
        world.run(100 * MILLI);
        for sequence in asked.take() {
            let packet = Packet { stamp, body: Body::Ack { sequence, more: None }, rumors: Vec::new() };
            world.handle(0, Input::Packet { from, packet });
        }
    }
    assert_eq!(world.swim(0).status().counts.chances_taken, 1);
    assert_eq!(world.state(0, 9), Some(State::Suspect));
}

/// What a node makes of rumours that come by packet: how many signatures it checks, and how many it takes in.
fn read(world: &World, node: usize, rumors: Vec<Rumor<Arc<Signed>>>) -> (usize, Packet<Arc<Signed>>) {
    let (swim, network, mut checked) = (world.swim(node), NetworkName::default(), 0);
    let bytes = Packet { stamp: swim.incarnation().stamp(), body: Body::Gossip, rumors }.encode();
    let packet = Packet::decode(&bytes, &|short| swim.resolve(short)).unwrap();
    let opened = swim.open(packet, &mut |claim| {
        checked += 1;
        Signed::open(claim.envelope(), &network).map(Arc::new)
    });
    (checked, opened.unwrap())
}

/// What is here already was checked when it came, and what says nothing is left out.
#[test]
fn what_is_known_needs_no_signature_checked() {
    let mut world = still(12, 61);
    let accusation = Rumor::Claim(world.accusation(1, 9, 0));
    assert_eq!(read(&world, 0, vec![accusation.clone()]).0, 1);
    world.say(1, 0, vec![accusation.clone()]);
    let (checked, packet) = read(&world, 0, vec![accusation.clone()]);
    assert_eq!(
        (checked, packet.rumors),
        (0, vec![accusation.clone()]),
        "it is heard again, and not checked again"
    );
    let refutation =
        world.sign(9, &Claim::Refute { incarnation: world.swim(9).incarnation().next().unwrap() });
    let refutation = Rumor::Claim(refutation);
    assert_eq!(read(&world, 0, vec![refutation.clone()]).0, 1);
    world.say(1, 0, vec![refutation.clone()]);
    assert_eq!(read(&world, 0, vec![refutation]).0, 0);
    let (checked, packet) = read(&world, 0, vec![accusation]);
    assert_eq!((checked, packet.rumors), (0, vec![]), "what it refutes says nothing any more");
}

/// A forged copy of what is here has another signature, and is none.
#[test]
fn a_copy_with_another_signature_is_not_taken_for_what_is_here() {
    let mut world = still(12, 67);
    let accusation = world.accusation(1, 9, 0);
    world.say(1, 0, vec![Rumor::Claim(Arc::clone(&accusation))]);
    let (swim, network) = (world.swim(0), NetworkName::default());
    let mut refutation =
        RawClaim::of(&world.sign(9, &Claim::Refute { incarnation: world.swim(9).incarnation() }));
    if let RawClaim::Own { signature, incarnation, .. } = &mut refutation {
        signature[9] ^= 1;
        *incarnation = incarnation.next().unwrap();
    }
    let packet = Packet {
        stamp: swim.incarnation().stamp(),
        body: Body::Gossip,
        rumors: vec![Rumor::Claim(RawClaim::of(&accusation)), Rumor::Claim(refutation)],
    };
    let opened = swim.open(packet, &mut |claim| Signed::open(claim.envelope(), &network).map(Arc::new));
    assert!(opened.is_err());
}

/// A certificate ends a suspicion also where each of its accusers is known: who heard of them later would wait longer.
#[test]
fn a_certificate_of_accusers_that_are_known_decides_as_well() {
    let mut world = still(12, 66);
    world.crash(9);
    let claims = [1, 2, 3].map(|accuser| world.accusation(accuser, 9, 0));
    world.say(1, 0, claims.iter().map(|claim| Rumor::Claim(Arc::clone(claim))).collect());
    assert_eq!(world.state(0, 9), Some(State::Suspect));
    let (checked, packet) = read(&world, 0, vec![Rumor::Dead(claims.to_vec())]);
    assert_eq!(checked, 0);
    let from = world.nodes[1].id;
    world.handle(0, Input::Packet { from, packet });
    // A period before its time is over, which is nine minutes here.
    world.run(60 * SECOND);
    assert_eq!(why(&world, 0, 9).last(), Some(&(State::Faulty, Reason::Certified)));
}

/// The relations of a profile are held in the only constructor.
#[test]
fn times_that_do_not_fit_together_are_refused() {
    let build = |timing: Timing| {
        let now = wattle_types::UnixTime::from_millis(1);
        let description = describe(1, [0; 32], 1);
        wattle_swim::Config::new(key(1), NetworkName::default(), [0; 32], now, description, timing).map(drop)
    };
    for profile in [Timing::lan(), Timing::fast(), Timing::wan(), Timing::sim()] {
        assert_eq!(build(profile), Ok(()));
    }
    let slow = Timing { direct_timeout: 600 * MILLI, ..Timing::lan() };
    let late = Timing { fallback_timeout: SECOND, ..Timing::lan() };
    let brief = Timing { tombstone: 60 * SECOND, ..Timing::lan() };
    let rash = Timing { suspicion: SECOND / 2, ..Timing::lan() };
    for bad in [slow, late, brief, rash] {
        assert!(matches!(build(bad), Err(InvalidConfig::Timing(_))));
    }
    let mut description = describe(1, [0; 32], 1);
    description.tags.insert("k".to_owned(), "v".repeat(512));
    let now = wattle_types::UnixTime::from_millis(1);
    let built =
        wattle_swim::Config::new(key(1), NetworkName::default(), [0; 32], now, description, Timing::lan());
    assert!(matches!(built.map(drop), Err(InvalidConfig::Description(_))));
}

/// LHA-Probe: a node whose probes fail for want of helpers slows down.
#[test]
fn a_node_that_hears_nobody_probes_less() {
    let mut world = World::new(10, Options { connected: 0, ..Options::new(62) });
    world.run(10 * SECOND);
    let probes = |world: &World| world.swim(0).status().counts.probes;
    let before = probes(&world);
    world.run(20 * SECOND);
    let well = probes(&world) - before;
    world.nodes[0].deaf = 1000;
    world.run(10 * SECOND);
    let before = probes(&world);
    world.run(20 * SECOND);
    let deaf = probes(&world) - before;
    assert!(well >= 19 && deaf * 3 <= well, "{well} and {deaf} in 20 s");
    let doubts = world.nodes[0].events.iter().any(|(_, it)| *it == Event::SelfSuspect { begins: true });
    assert!(doubts, "and says that it doubts itself");
}

/// Some of those who hear of a suspicion look for themselves: a quorum is there long before it is needed.
#[test]
fn a_suspicion_is_looked_into_by_some_who_hear_of_it() {
    let mut world = World::new(40, Options { noticed: 0, ..Options::new(67) });
    world.run(5 * SECOND);
    let accusations = |world: &World| -> u64 {
        world.up().iter().map(|node| world.swim(*node).status().counts.accused).sum()
    };
    let mut soon = 0;
    for victim in [3, 13, 23, 33] {
        world.crash(victim);
        let before = accusations(&world);
        world.until(10 * SECOND, &mut |world| world.all_see(victim, State::Suspect)).unwrap();
        world.run(1300 * MILLI);
        soon += accusations(&world) - before;
        world.run(10 * SECOND);
    }
    assert!(soon >= 16, "{soon} accusers of four, within a period of when all knew of it");
}

/// A closed connection is a reason to look, and no evidence: who is well answers, who is not is suspect at once.
#[test]
fn a_member_that_the_edge_doubts_is_probed_at_once() {
    let mut world = World::new(12, Options::new(66));
    world.run(5 * SECOND);
    world.crash(9);
    let (well, dead, begun) = (world.nodes[8].id, world.nodes[9].id, world.now);
    for node in [1, 2, 3] {
        world.handle(node, Input::Doubt { peer: well });
        world.handle(node, Input::Doubt { peer: dead });
    }
    let suspect = world.until(SECOND, &mut |world| world.all_see(9, State::Suspect));
    assert!(suspect.is_some_and(|took| took < 600 * MILLI), "{suspect:?}");
    let took = world.until(10 * SECOND, &mut |world| world.all_see(9, State::Faulty));
    assert!(took.is_some_and(|_| world.now.since(begun) < 4800 * MILLI), "{took:?}");
    assert!(world.changes(1, 8, begun).is_empty());
    let probes = world.swim(1).status().counts.probes;
    for _ in 0..100 {
        world.handle(1, Input::Doubt { peer: well });
        world.run(10 * MILLI);
    }
    assert!(world.swim(1).status().counts.probes <= probes + 7, "doubting is bounded too");
}

/// Buddy: whoever probes a suspect tells it that it is one, though the rumour has run its course.
#[test]
fn a_probe_tells_the_suspect_that_it_is_one() {
    let mut world = World::new(6, Options::new(63));
    world.run(5 * SECOND);
    // Nothing of the suspect's own reaches n0, so that it is not told by the answer to its own probe.
    world.cut.insert((3, 0));
    let accusation = world.accusation(1, 3, 0);
    for teller in [1, 2, 4, 5] {
        world.say(teller, 0, vec![Rumor::Claim(Arc::clone(&accusation))]);
    }
    assert_eq!((world.state(0, 3), world.swim(0).status().queue), (Some(State::Suspect), 0));
    let told = |world: &World| world.swim(3).status().counts.refuted > 0;
    assert!(world.until(6 * SECOND, &mut |world| told(world)).is_some());
}

/// Gossip that a member missed is found by comparing tables.
#[test]
fn what_gossip_missed_is_found_by_comparing_tables() {
    let mut world = World::new(12, Options::new(64));
    world.run(5 * SECOND);
    let others: Vec<(usize, usize)> = (0..11).map(|node| (node, 11)).collect();
    world.cut.extend(others.iter().copied());
    world.handle(3, Input::Leave);
    world.run(2 * SECOND);
    world.crash(3);
    world.cut.clear();
    let took = world.until(20 * SECOND, &mut |world| world.state(11, 3) == Some(State::Left));
    assert!(took.is_some_and(|took| took < Duration::from_secs(20)), "{took:?}");
    assert_eq!(world.verdicts, 0);
}
