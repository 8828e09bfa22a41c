//! Rule B, and what a snapshot is made of.

use std::sync::Arc;
use std::time::Duration;

use wattle_order::limits::ENTRY_LIFE_MAX_MS;
use wattle_order::{
    Base, Certified, Digest, Header, Height, Message, Qc, Record, Rules, SafetyRecord, Seat, Seen, Seq,
    Signers,
};
use wattle_types::cbor;

use crate::saved::Saved;
use crate::world::{Options, Random, World};
use crate::{SECOND, faults, seeds};

fn options(seed: u64) -> Options {
    let rules = faults::skipping();
    Options { payload: Some(64), load_us: 100_000, rules, loss: 20, ..Options::new(seed, 4) }
}

/// What the log stands on behind each block of a place, by its height.
fn bases(world: &World, place: usize) -> Vec<Base> {
    let mut bases = vec![Base::of_epoch(&world.committee, Digest::default())];
    for applied in &world.places[place].chain {
        let next = bases.last().unwrap().after(&world.committee, &applied.block);
        bases.push(next.unwrap_or_else(|| world.fail("a committed block does not stand on the one before")));
    }
    bases
}

/// The commits that a place has on disk.
fn commits(world: &World, place: usize) -> Vec<(Height, Qc, wattle_order::Root)> {
    let commit = |(_, record): &(Seq, Record)| match record {
        Record::Commit { height, proof, root, .. } => Some((*height, (**proof).clone(), (**root).clone())),
        _ => None,
    };
    world.places[place].disk.log.iter().filter_map(commit).collect()
}

/// Gives a place what a snapshot of another has, and starts it.
fn start_on_snapshot(world: &mut World, place: usize, of: usize, height: u64) {
    let base = bases(world, of)[height as usize].clone();
    let (_, proof, _) = commits(world, of).into_iter().find(|(at, ..)| at.0 >= height).unwrap();
    let safety = Record::Safety(Box::new(SafetyRecord::fresh(&world.committee)));
    let (blocks, proof, root) = (Vec::new(), Box::new(proof), Box::new(base.root));
    let commit = Record::Commit { blocks, height: Height(height), proof, root };
    let chain = world.places[of].chain[..height as usize].to_vec();
    let here = &mut world.places[place];
    here.chain = chain;
    here.disk.base = height as usize;
    here.disk.log = vec![(Seq(1), safety), (Seq(2), commit)];
    here.disk.synced = 0;
    here.disk.have_synced(2);
    world.start(place);
}

#[test]
fn what_a_log_stands_on_is_the_same_whoever_computes_it_and_however_blocks_were_committed() {
    for seed in seeds(3) {
        let mut world = World::new(Options { loss: 100, ..options(seed) });
        // Leaders fail, so that schedules differ from turn to turn.
        for place in [1, 2, 3, 1] {
            world.run(2 * SECOND);
            world.crash(place);
            world.run(2 * SECOND);
            world.start(place);
        }
        world.run(2 * SECOND);
        for place in 0..4 {
            let (bases, commits) = (bases(&world, place), commits(&world, place));
            assert!(commits.len() > 50, "{}", commits.len());
            for (height, _, root) in commits {
                if height.0 as usize >= bases.len() {
                    continue;
                }
                assert_eq!(bases[height.0 as usize].root, root, "at {height}, place {place}, seed {seed:#x}");
            }
        }
    }
}

/// Every proof of a snapshot that a log's blocks give.
fn certified(world: &World) -> Vec<Certified> {
    let place = &world.places[0];
    let (saved, commits) = (place.saved.as_ref().unwrap(), commits(world, 0));
    let mut all = Vec::new();
    for applied in &place.chain {
        let header = applied.block.header();
        let snapshots = saved.manifests.iter().rev();
        let Some(manifest) = snapshots.into_iter().find(|it| it.base.height() <= header.executed.height)
        else {
            continue;
        };
        let Some((last, commit, _)) = commits.iter().find(|(at, ..)| *at >= header.height) else { continue };
        let links: Vec<Header> = place.chain[header.height.0 as usize..last.0 as usize]
            .iter()
            .map(|applied| applied.block.header().clone())
            .collect();
        all.push(Certified {
            chain: world.committee.chain(),
            manifest: manifest.clone(),
            vouched: saved.vouched[&header.executed.height.0],
            epochs: Vec::new(),
            header: header.clone(),
            links,
            commit: commit.clone(),
        });
    }
    all
}

/// A proof that is none: a bit elsewhere, or parts of another.
fn mutate(draw: &mut Random, one: &Certified, other: &Certified) -> Option<Certified> {
    let mut changed = one.clone();
    match draw.below(10) {
        0 => changed.manifest = other.manifest.clone(),
        1 => changed.vouched = other.vouched,
        2 => std::mem::swap(&mut changed.vouched.0, &mut changed.vouched.1),
        3 => changed.header = other.header.clone(),
        4 => changed.links = other.links.clone(),
        5 => changed.commit = other.commit.clone(),
        // 2f signatures.
        6 => {
            let seats: Vec<Seat> = changed.commit.signers.seats().take(2).collect();
            changed.commit.signatures.truncate(2);
            changed.commit.signers = Signers::of(seats);
        }
        7 => changed.manifest.bytes += draw.below(3),
        _ => {
            let mut bytes = cbor::encode(one);
            let bit = draw.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            changed = cbor::decode(&bytes, bytes.len()).ok()?;
        }
    }
    (changed != *one).then_some(changed)
}

#[test]
fn a_snapshot_is_proven_with_the_genesis_alone_and_a_mutated_one_never() {
    let mut world = World::new(Options { payload: None, load_us: 5_000, loss: 150, ..options(12) });
    for place in &mut world.places {
        place.saved = Some(Saved::new(&world.committee));
    }
    world.run(4 * SECOND);
    assert!(world.places.iter().all(|place| place.alarms.is_empty()), "all vouch for the same");
    let all = certified(&world);
    let manifests: std::collections::BTreeSet<Digest> = all.iter().map(|it| it.manifest.digest()).collect();
    assert!(manifests.len() > 3 && all.iter().any(|it| !it.links.is_empty()), "{}", manifests.len());
    let (genesis, mut seen) = (Arc::clone(&world.committee), Seen::new());
    for one in &all {
        assert_eq!(one.check(&genesis, &mut seen), Ok(()));
    }
    // A state that lies ahead of what the block vouches for.
    let (first, last) = (&all[0], all.last().unwrap());
    let ahead = Certified { manifest: last.manifest.clone(), ..first.clone() };
    assert!(ahead.check(&genesis, &mut seen).is_err());
    let mut draw = Random(12);
    let mut refused = 0;
    while refused < 10_000 {
        let one = &all[draw.below(all.len() as u64) as usize];
        let other = &all[draw.below(all.len() as u64) as usize];
        if let Some(changed) = mutate(&mut draw, one, other) {
            // A certificate for a later block may commit the same.
            let same = Certified { commit: one.commit.clone(), ..changed.clone() } == *one;
            if same && changed.commit.data == one.commit.data {
                let fewer = changed.commit.signatures.len() < one.commit.signatures.len();
                if fewer && genesis.is_quorum(changed.commit.signers.seats()) {
                    continue;
                }
            }
            if all.contains(&changed) {
                continue;
            }
            assert!(changed.check(&genesis, &mut seen).is_err(), "{changed:?}");
        }
        refused += 1;
    }
}

#[test]
fn who_begins_on_a_snapshot_votes_and_orders_nothing_before_all_that_it_does_not_know_is_over() {
    for seed in seeds(2) {
        // Everybody has its turn, whatever became of the last one.
        let rules = Rules { skip_blocks: 0, ..faults::skipping() };
        let mut world = World::new(Options { rules, keep: true, ..options(seed) });
        world.crash(3);
        world.run(10 * SECOND);
        let height = world.places[0].height() - 5;
        world.sent.clear();
        start_on_snapshot(&mut world, 3, 0, height);
        let (old, base) = (1, world.places[3].chain.last().unwrap().block.header().time);
        let over = base.after(Duration::from_millis(ENTRY_LIFE_MAX_MS));
        let votes = |world: &World| world.places[3].core.as_ref().unwrap().counts().votes;
        // What was ordered before is handed in again, to the one that cannot know.
        for _ in 0..20 {
            world.hand_to(3, old);
            world.run(2 * SECOND);
            assert_eq!(votes(&world), 0, "seed {seed:#x}");
        }
        let mine = world.committee.seat(&world.places[3].id);
        let leads =
            |message: &Message| matches!(message, Message::Proposal(it) if Some(it.header().author) == mine);
        assert!(!world.sent.drain(..).any(|message| leads(&message)), "it led, seed {seed:#x}");
        assert!(world.places[3].height() > height + 100, "it follows: {}", world.places[3].height());
        let time = |world: &World| world.places[3].chain.last().unwrap().block.header().time;
        assert!(world.within(200 * SECOND, |world| time(world) > over), "the log goes on");
        world.run(10 * SECOND);
        assert!(votes(&world) > 20, "{} votes, seed {seed:#x}", votes(&world));
        let blocks = world.places[0].chain.iter().rev().take(60);
        let led = blocks.filter(|applied| Some(applied.block.header().author) == mine).count();
        assert!(led > 5, "it led {led} of the last 60 blocks");
        for place in &world.places {
            assert!(place.alarms.is_empty() && place.misbehaved.is_empty(), "{:?}", place.misbehaved);
        }
    }
}
