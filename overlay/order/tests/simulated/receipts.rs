//! Receipts of a log whose validators changed, for both verifiers.

use std::io::Write as _;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;
use wattle_order::{
    EpochProof, Header, Payload, Qc, Receipt, Record, Seat, Seen, Signers, Tree, transaction_hash,
};
use wattle_types::cbor;

use crate::epochs::{change, with_followers};
use crate::world::{Options, Random, World};
use crate::{MILLI, SECOND};

/// A log of three epochs, and the receipt of every transaction that one of its places can give.
fn receipts() -> (World, Vec<Receipt>) {
    let mut world = with_followers(Options { load_us: 40_000, loss: 10, ..Options::new(16, 4) });
    world.run(600 * MILLI);
    change(&mut world, 0, 3..7, 2);
    world.run(SECOND);
    change(&mut world, 3, 0..4, 3);
    world.run(SECOND);
    let mut receipts = Vec::new();
    let mut proofs: Vec<EpochProof> = Vec::new();
    let chain = &world.places[0].chain;
    let mut done = 0;
    let mut next = |count: usize| -> Vec<Header> {
        done += count;
        chain[done - count..done].iter().map(|applied| applied.block.header().clone()).collect()
    };
    for (_, record) in &world.places[0].disk.log {
        match record {
            Record::Commit { blocks, proof, .. } => {
                receipts.extend(of_blocks(&world, &proofs, &next(blocks.len()), &[], proof));
            }
            Record::Epoch { blocks, proof, .. } => {
                receipts.extend(of_blocks(&world, &proofs, &next(blocks.len()), &proof.links, &proof.commit));
                proofs.push((**proof).clone());
            }
            _ => {}
        }
    }
    (world, receipts)
}

fn of_blocks(
    world: &World,
    proofs: &[EpochProof],
    headers: &[Header],
    beyond: &[Header],
    commit: &Qc,
) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for (place, header) in headers.iter().enumerate() {
        let payload = &world.places[0].chain[header.height.0 as usize - 1].block.block.payload;
        let Payload::Inline(transactions) = payload else { continue };
        let links: Vec<Header> = headers[place + 1..].iter().chain(beyond).cloned().collect();
        let tree = Tree::of(transactions.iter().map(|transaction| transaction_hash(transaction)).collect());
        for index in 0..transactions.len() {
            let end = (links.clone(), commit.clone());
            let chain = world.committee.chain();
            receipts.extend(Receipt::new(chain, proofs.to_vec(), (header, payload), (0, index), &tree, end));
        }
    }
    receipts
}

/// A receipt that is not one: a bit elsewhere, or parts of another.
fn mutate(draw: &mut Random, receipt: &Receipt, other: &Receipt) -> Option<Receipt> {
    let mut changed = receipt.clone();
    match draw.below(10) {
        0 => changed.in_batch = other.in_batch.clone(),
        1 => std::mem::swap(&mut changed.in_batch, &mut changed.in_block),
        2 => changed.epochs = other.epochs.clone(),
        3 => changed.commit = other.commit.clone(),
        4 => changed.header = other.header.clone(),
        // 2f signatures: the first is gone, and its bit too.
        5 => {
            changed.commit.signatures.remove(0);
            let first = changed.commit.signers.seats().next().unwrap();
            let rest: Vec<Seat> = changed.commit.signers.seats().filter(|seat| *seat != first).collect();
            changed.commit.signers = Signers::of(rest);
        }
        // One signer counts twice.
        6 => {
            let first = changed.commit.signatures[0];
            *changed.commit.signatures.last_mut().unwrap() = first;
        }
        7 => changed.links = other.links.clone(),
        _ => {
            let mut bytes = cbor::encode(receipt);
            let bit = draw.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            changed = cbor::decode(&bytes, bytes.len()).ok()?;
        }
    }
    (changed != *receipt).then_some(changed)
}

/// Whether a mutation took one signature from four, which leaves a receipt as good as before.
fn is_as_good(world: &World, changed: &Receipt, original: &Receipt) -> bool {
    let quorum = world.committee.is_quorum(changed.commit.signers.seats());
    let fewer = changed.commit.signatures.len() + 1 == original.commit.signatures.len();
    let same = Receipt { commit: original.commit.clone(), ..changed.clone() } == *original;
    same && fewer && quorum
}

/// A16.
#[test]
fn genuine_receipts_verify_with_the_genesis_alone_and_mutated_ones_never() {
    let (world, receipts) = receipts();
    let genesis = Arc::clone(&world.committee);
    let mut seen = Seen::new();
    let epochs: std::collections::BTreeSet<u64> =
        receipts.iter().map(|receipt| receipt.header.epoch.0).collect();
    assert_eq!(epochs, [1, 2, 3].into());
    for receipt in &receipts {
        let position = receipt.verify(&genesis, &mut seen).unwrap();
        assert_eq!(position.height, receipt.header.height);
    }
    let mut draw = Random(16);
    let mut refused = 0;
    while refused < 10_000 {
        let one = &receipts[draw.below(receipts.len() as u64) as usize];
        let other = &receipts[draw.below(receipts.len() as u64) as usize];
        let Some(changed) = mutate(&mut draw, one, other) else {
            refused += 1;
            continue;
        };
        if receipts.contains(&changed) || is_as_good(&world, &changed, one) {
            continue;
        }
        assert!(changed.verify(&genesis, &mut seen).is_err(), "{changed:?}");
        refused += 1;
    }
}

/// The text of a receipt with a letter elsewhere, or without one. Not all of that says something else.
fn garbled(draw: &mut Random, text: &str) -> String {
    const LETTERS: &[u8] = b"0123456789abcdefBF\"{}[]:,.-+ eE\\";
    let mut bytes = text.as_bytes().to_vec();
    let mut below = |count: usize| draw.below(count as u64) as usize;
    let (at, other, letter) = (below(bytes.len()), below(bytes.len()), LETTERS[below(LETTERS.len())]);
    match below(4) {
        0 => bytes[at] = letter,
        1 => bytes.insert(at, letter),
        2 => bytes.swap(at, other),
        _ => drop(bytes.remove(at)),
    }
    String::from_utf8(bytes).unwrap()
}

/// A receipt out of a text that says nothing but what the receipt does, as the node reads it.
fn read(text: &str) -> Result<Receipt, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let receipt = Receipt::deserialize(&value).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(&receipt).map_err(|error| error.to_string())?;
    if again == value {
        Ok(receipt)
    } else {
        Err("it says more than a receipt does, or otherwise".to_owned())
    }
}

/// A16: another program, in another language, says the same of each. Half of what is changed is the receipt, and half
/// its text, of which both read some as what it was before and none as anything else.
#[test]
fn the_python_verifier_agrees_about_genuine_receipts_and_ten_thousand_changed_ones() {
    const CHANGED: usize = 10_000;
    let python = Command::new("python3").arg("--version").output();
    if python.is_err() {
        assert!(option_env!("WATTLE_TEST_ALL").is_none(), "did not run: python3 is not here");
        return;
    }
    let (world, receipts) = receipts();
    let mut draw = Random(61);
    let text = |receipt: &Receipt| serde_json::to_string(receipt).unwrap();
    let mut lines: Vec<String> = receipts.iter().step_by(6).map(text).collect();
    let genuine = lines.len();
    while lines.len() < genuine + CHANGED {
        let one = &receipts[draw.below(receipts.len() as u64) as usize];
        let other = &receipts[draw.below(receipts.len() as u64) as usize];
        if draw.below(2) == 0 {
            let changed = mutate(&mut draw, one, other);
            let changed = changed.filter(|new| !receipts.contains(new) && !is_as_good(&world, new, one));
            lines.extend(changed.as_ref().map(text));
        } else {
            let before = text(one);
            lines.push(garbled(&mut draw, &before));
        }
    }
    let said = ask_python(&world, &lines);
    assert_eq!(said.len(), lines.len());
    let mut seen = Seen::new();
    let mut sound = 0;
    for (line, said) in lines.iter().zip(&said) {
        let verified = read(line).and_then(|receipt| {
            let position = receipt.verify(&world.committee, &mut seen).map_err(|why| why.to_string())?;
            assert!(receipts.contains(&receipt), "it says something else, and holds: {line}");
            let (epoch, height) = (position.epoch, position.height);
            Ok(format!("ok {epoch} {height} {} {}", position.batch, position.index))
        });
        match verified {
            Ok(expected) => assert_eq!(*said, expected, "{line}"),
            Err(why) => assert!(said.starts_with("no "), "{said}, and here {why}: {line}"),
        }
        sound += usize::from(said.starts_with("ok"));
    }
    assert!(
        genuine >= 10 && (genuine..genuine + CHANGED / 20).contains(&sound),
        "{sound} hold, {genuine} genuine"
    );
}

fn ask_python(world: &World, lines: &[String]) -> Vec<String> {
    let here = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_receipt.py");
    let genesis = serde_json::to_string(&world.genesis).unwrap();
    let mut child = Command::new("python3")
        .arg(&here)
        .arg(&genesis)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It answers when it has read all, so neither side waits for the other.
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        writeln!(stdin, "{line}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
