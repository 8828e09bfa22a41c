//! Golden vectors: the bytes of everything of the log that travels, is stored, or is handed to somebody.
//!
//! A vector is a file under `tests/vectors/`: a line of hexadecimal, then the decoded value. Changing one changes what
//! older nodes understand: it needs a new version, and `UPDATE=1` to write the new file.

use std::fmt::Debug;
use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use wattle_order::catch_up::{Answer, Range};
use wattle_order::payloads::{self, Batch};
use wattle_order::{
    BatchRef, ChainEnd, Digest, Entry, EpochProof, Evidence, Left, Message, Payload, Receipt, Record, Round,
    Seat, Tree, Vote, transaction_hash,
};
use wattle_types::{Domain, UnixTime, cbor};

use super::Bench;

/// Holds a value's encoding to the vector `name`, and what the vector says to the value.
#[expect(clippy::disallowed_methods, reason = "it writes the vectors anew when it is told to")]
fn golden<T: Serialize + DeserializeOwned + Debug + PartialEq>(name: &str, value: &T) {
    let bytes = cbor::encode(value);
    let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(format!("{name}.v1.txt"));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = format!("{hex}\n{value:#?}\n");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(now == known, "{name} changed: that is a new wire version (UPDATE=1 writes it)");
    let decoded: T = cbor::decode(&bytes, bytes.len()).unwrap();
    assert_eq!(cbor::encode(&decoded), bytes);
}

fn entries() -> Vec<Entry> {
    let entry = |salt: u64| Entry {
        app: "register/1".to_owned(),
        data: ByteBuf::from(vec![salt as u8; 3]),
        until: UnixTime::from_millis(1_800_000_000_000),
        salt,
    };
    vec![entry(1), entry(2)]
}

fn transactions() -> Vec<ByteBuf> {
    entries().iter().map(|entry| ByteBuf::from(entry.encode())).collect()
}

fn batch() -> Batch {
    Batch::read(transactions()).unwrap()
}

/// The end of an epoch, with what proves it.
fn ended(bench: &Bench) -> EpochProof {
    let mut last = bench.block(1, 1, &bench.genesis(), None).block;
    let next = bench.committee.validators().clone();
    last.header.next = Some(next.digest());
    let header = last.header.clone();
    last.next = Some(next.clone());
    let signature = bench.sign(1, Domain::OrderProposal, &header.id());
    let last = wattle_order::Proposal::unchecked(last, signature);
    let behind = bench.block(2, 2, &bench.qc(&last), None);
    EpochProof { header, next, links: Vec::new(), commit: bench.qc(&behind) }
}

#[test]
fn what_travels_between_validators_is_spelled_as_ever() {
    let bench = Bench::new(0);
    let first = bench.block_by(1, 1, 1, &bench.genesis(), None, Payload::Inline(transactions()));
    let qc = bench.qc(&first);
    let tc = bench.tc(2, [1, 0, 0], &qc);
    let left = Left { skip: vec![0], digest: transaction_hash(b"left") };
    let batches =
        vec![BatchRef::whole(batch().digest()), BatchRef { batch: Digest::default(), left: Some(left) }];
    let third = bench.block_by(3, 3, 2, &qc, Some(tc.clone()), Payload::Batches(batches));
    golden("message_proposal_inline", &Message::Proposal(first.clone()));
    golden("message_proposal_batches", &Message::Proposal(third.clone()));
    golden("message_vote", &bench.vote(1, &first));
    golden("message_timeout", &bench.timeout(2, 3, &qc, Some(tc.clone())));
    golden("message_certificates", &Message::Certificates { qc: qc.clone(), tc: Some(tc) });
    golden("message_started", &Message::Started);
    golden("message_fetch", &Message::Fetch { block: first.header().id(), above: wattle_order::Height(7) });
    golden("message_blocks", &Message::Blocks(vec![first.clone()]));
    let vote = |block| {
        let data = bench.vote_data(block);
        Vote { data, voter: Seat(2), signature: bench.sign(2, Domain::OrderVote, &data) }
    };
    let evidence = Evidence::Votes { one: vote(&first), other: vote(&third) };
    golden("message_evidence_votes", &Message::Evidence(evidence));
    let headers = |block: &wattle_order::Proposal| (block.header().clone(), block.signature);
    let evidence = Evidence::Proposals { one: headers(&first), other: headers(&third) };
    golden("message_evidence_proposals", &Message::Evidence(evidence));
    let claim = bench.tc(2, [0, 0, 0], &bench.genesis()).claims[2];
    let evidence = Evidence::Amnesia { vote: vote(&third), round: Round(4), claim };
    golden("message_evidence_amnesia", &Message::Evidence(evidence));
    golden("message_epoch_ended", &Message::EpochEnded(ended(&bench)));
    golden("range", &Range { epoch: bench.committee.epoch(), above: wattle_order::Height(9), count: 64 });
    let end = Some(ChainEnd::Certified(Box::new(qc)));
    golden("range_answer", &Answer { blocks: vec![first], end });
    golden(
        "range_answer_epoch",
        &Answer { blocks: vec![], end: Some(ChainEnd::Epoch(Box::new(ended(&bench)))) },
    );
}

#[test]
fn what_travels_of_payloads_is_spelled_as_ever() {
    golden("entry", &entries()[0]);
    golden("payload_entries", &payloads::Message::Entries(transactions()));
    golden("payload_batch", &payloads::Message::Batch(transactions()));
    golden("payload_have", &payloads::Message::Have(batch().digest()));
    golden("payload_fetch", &payloads::Message::Fetch(batch().digest()));
    golden("payload_fetched", &payloads::Message::Fetched(transactions()));
    golden("payload_lacks", &payloads::Message::Lacks(batch().digest()));
    let stored = batch().encode();
    assert_eq!(Batch::decode(&stored).unwrap(), batch());
    golden("batch_stored", &transactions());
    assert_eq!(stored, cbor::encode(&transactions()));
}

#[test]
fn what_is_stored_and_handed_out_is_spelled_as_ever() {
    let mut bench = Bench::new(0);
    golden("genesis", &crate::world::World::new(crate::world::Options::new(1, 4)).genesis);
    let first = bench.block_by(1, 1, 1, &bench.genesis(), None, Payload::Inline(transactions()));
    let second = bench.block(2, 2, &bench.qc(&first), None);
    bench.tell(1, Message::Proposal(first.clone()));
    bench.tell(2, Message::Proposal(second.clone()));
    let third = bench.block(3, 3, &bench.qc(&second), None);
    bench.tell(3, Message::Proposal(third));
    let kind = |record: &&Record, which: fn(&Record) -> bool| which(record);
    let last = |which: fn(&Record) -> bool| bench.log.iter().rfind(|record| kind(record, which)).cloned();
    golden("record_safety", &last(|record| matches!(record, Record::Safety(_))).unwrap());
    golden("record_block", &last(|record| matches!(record, Record::Block(_))).unwrap());
    golden("record_commit", &last(|record| matches!(record, Record::Commit { .. })).unwrap());
    let chain = bench.committee.chain();
    let tree = Tree::of(transactions().iter().map(|bytes| transaction_hash(bytes)).collect());
    let commit = (Vec::new(), bench.qc(&second));
    let receipt =
        Receipt::new(chain, Vec::new(), (first.header(), &first.block.payload), (0, 1), &tree, commit)
            .unwrap();
    let genesis = Arc::clone(&bench.committee);
    assert!(receipt.verify(&genesis, &mut bench.seen).is_ok());
    golden("receipt", &receipt);
}
