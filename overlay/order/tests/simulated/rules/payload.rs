//! Rules M1 to M6, one by one: one machine, told exactly what makes each rule decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_order::limits::{
    AUTHOR_BATCHES_MAX, BATCH_COUNT_MAX, ENTRY_BYTES_MAX, ENTRY_LIFE_MAX_MS, HANDED_MAX, INLINE_BYTES_MAX,
    WANTED_BATCHES_MAX,
};
use wattle_order::payloads::{
    Batch, Below, Bounds, Busy, Config, Input, Message, NotTaken, Output, Payloads, Room, SubmitId, Submitter,
};
use wattle_order::{
    BatchRef, Checked, Digest, Entry, InvalidEntry, Left, Payload, Proposal, Qc, Round, Seat, Sound, Verdict,
    Whole, batch_digest, transaction_hash,
};
use wattle_types::{Machine as _, NodeId, Outbox, Time, UnixTime};

use super::Bench;
use crate::carry::{entry, whole};

const NOW: u64 = 1_000_000;

struct Path {
    bench: Bench,
    machine: Payloads,
    now: Time,
    /// Batches reach the disk at once.
    durable: bool,
    persisted: Vec<(wattle_order::Seq, Arc<Batch>)>,
    expired: Vec<Digest>,
    qc: Qc,
    height: u64,
    round: u64,
}

fn config(me: NodeId) -> Config {
    Config { bounds: bounds(100, 1 << 20), ..Config::lan(me) }
}

fn bounds(entries: usize, bytes: usize) -> Bounds {
    Bounds { all: Room { entries, bytes }, peer: Room { entries: entries / 4, bytes: bytes / 4 } }
}

impl Path {
    /// The validator of seat 0.
    fn new() -> Self {
        Self::with(config)
    }

    fn with(config: impl Fn(NodeId) -> Config) -> Self {
        let bench = Bench::new(0);
        let me = bench.committee.id(Seat(0)).unwrap();
        let machine =
            Payloads::new(config(me), Arc::clone(&bench.committee), &Below::epoch(&bench.committee));
        let qc = bench.genesis();
        let mut path = Self {
            bench,
            machine,
            now: Time::from_micros(1),
            durable: true,
            persisted: Vec::new(),
            expired: Vec::new(),
            qc,
            height: 0,
            round: 0,
        };
        path.tell(Input::Clock(UnixTime::from_millis(NOW)));
        path.tell(Input::Wake);
        path
    }

    fn id(&self, seat: u16) -> NodeId {
        self.bench.committee.id(Seat(seat)).unwrap()
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        let (mut todo, mut outputs) = (vec![input], Vec::new());
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.machine.handle(self.now, input, &mut out);
            self.machine.check_invariants();
            for output in out.drain() {
                match &output {
                    Output::Persist { seq, batch } => {
                        self.persisted.push((*seq, Arc::clone(batch)));
                        if self.durable {
                            todo.push(Input::Persisted { upto: *seq });
                        }
                    }
                    Output::Load { batch } => todo.push(Input::Loaded { batch: *batch, content: None }),
                    Output::Expired { transaction } => self.expired.push(*transaction),
                    _ => {}
                }
                outputs.push(output);
            }
        }
        outputs
    }

    /// Time passes, and what is due is done.
    fn wait(&mut self, span: Duration) -> Vec<Output> {
        let (end, mut outputs) = (self.now.after(span), Vec::new());
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            outputs.extend(self.tell(Input::Wake));
        }
        self.now = end;
        outputs
    }

    fn hear(&mut self, from: u16, message: Message) -> Vec<Output> {
        let from = self.id(from);
        self.tell(Input::Received { from, message })
    }

    fn submit(&mut self, from: Submitter, entry: &Entry) -> Result<Digest, NotTaken> {
        self.submit_bytes(from, entry.encode())
    }

    fn submit_bytes(&mut self, from: Submitter, entry: Vec<u8>) -> Result<Digest, NotTaken> {
        let entry = Arc::new(Whole::read(ByteBuf::from(entry))?);
        let outputs = self.hand_in(from, entry);
        let answer =
            |output: Output| if let Output::Answer { result, .. } = output { Some(result) } else { None };
        outputs.into_iter().find_map(answer).unwrap()
    }

    fn hand_in(&mut self, from: Submitter, entry: Arc<Whole>) -> Vec<Output> {
        self.tell(Input::Submit { id: SubmitId(1), from, entry })
    }

    /// The next block on the chain, by its leader.
    fn propose(&mut self, payload: Payload) -> Checked<Proposal> {
        self.propose_at(payload, NOW)
    }

    fn propose_at(&mut self, payload: Payload, time: u64) -> Checked<Proposal> {
        self.round += 1;
        let seat = (self.round % 4) as u16;
        // The rounds between timed out.
        let (high, before) = (self.qc.data.round.0, self.round - 1);
        let tc = (before != high).then(|| self.bench.tc(before, [high; 3], &self.qc));
        let mut block = self.bench.block_by(seat, self.round, self.height + 1, &self.qc, tc, payload).block;
        block.header.time = UnixTime::from_millis(time);
        let committee = &self.bench.committee;
        let signer = crate::liars::Signer {
            key: &self.bench.keys[usize::from(seat)],
            checker: &self.bench.checker,
            seat: Seat(seat),
        };
        assert_eq!(committee.epoch(), block.header.epoch);
        let proposal = signer.propose(block);
        let Ok(Sound::Proposal(block)) = self.bench.check(wattle_order::Message::Proposal(proposal)) else {
            panic!("the block is none")
        };
        block
    }

    /// A block that the next stands on.
    fn extend(&mut self, block: &Checked<Proposal>) {
        self.qc = self.bench.qc(block);
        self.height += 1;
    }

    /// What is said of a block; nothing if it is not known yet.
    fn judge(&mut self, block: &Checked<Proposal>) -> Option<Verdict> {
        verdict(&self.tell(Input::Validate { block: block.clone() }))
    }

    /// A block that is looked at, and committed.
    fn commit(&mut self, payload: Payload) -> Vec<Output> {
        let block = self.propose(payload);
        assert_eq!(self.judge(&block), Some(Verdict::Valid));
        self.extend(&block);
        self.tell(Input::Commit { blocks: vec![block], proof: None, before: None })
    }

    fn build(&mut self) -> Payload {
        let parent = self.qc.data.block;
        let outputs = self.tell(Input::Build { round: Round(self.round + 1), parent });
        let built =
            |output: Output| if let Output::Built { payload, .. } = output { Some(payload) } else { None };
        outputs.into_iter().find_map(built).unwrap()
    }
}

fn verdict(outputs: &[Output]) -> Option<Verdict> {
    let judged =
        |output: &Output| if let Output::Judged { verdict, .. } = output { Some(*verdict) } else { None };
    outputs.iter().find_map(judged)
}

fn sent(outputs: &[Output]) -> Vec<&Message> {
    let mut sent = Vec::new();
    for output in outputs {
        if let Output::Send { message, .. } = output {
            sent.push(message);
        }
    }
    sent
}

fn a(number: u64) -> Entry {
    sized(number, 20)
}

fn sized(number: u64, bytes: usize) -> Entry {
    entry(number, bytes, UnixTime::from_millis(NOW + 60_000))
}

fn bytes(entries: &[Entry]) -> Vec<ByteBuf> {
    entries.iter().map(|entry| ByteBuf::from(entry.encode())).collect()
}

fn digest(entries: &[Entry]) -> Digest {
    let all = bytes(entries);
    batch_digest(all.iter().map(|bytes| bytes.as_slice()))
}

fn inline(entries: &[Entry]) -> Payload {
    Payload::Inline(bytes(entries))
}

fn by_batch(entries: &[Entry]) -> Payload {
    Payload::Batches(vec![BatchRef::whole(digest(entries))])
}

fn part(entries: &[Entry], skip: &[u16]) -> Payload {
    let places = (0u16..).zip(entries);
    let left: Vec<Entry> =
        places.filter(|(at, _)| !skip.contains(at)).map(|(_, entry)| entry.clone()).collect();
    let left = Some(Left { skip: skip.to_vec(), digest: digest(&left) });
    Payload::Batches(vec![BatchRef { batch: digest(entries), left }])
}

#[test]
fn m1_an_entry_stands_once_on_a_chain_and_may_stand_on_another() {
    let mut path = Path::new();
    let twice = path.propose(inline(&[a(1), a(1)]));
    assert_eq!(path.judge(&twice), Some(Verdict::Invalid), "twice in a block");
    let first = path.propose(inline(&[a(1)]));
    assert_eq!(path.judge(&first), Some(Verdict::Valid));
    let beside = path.propose(inline(&[a(1), a(2)]));
    assert_eq!(path.judge(&beside), Some(Verdict::Valid), "beside it, not on it");
    path.extend(&first);
    let above = path.propose(inline(&[a(2), a(1)]));
    assert_eq!(path.judge(&above), Some(Verdict::Invalid), "in a block that is not committed yet");
    path.tell(Input::Commit { blocks: vec![first], proof: None, before: None });
    let later = path.propose(inline(&[a(1)]));
    assert_eq!(path.judge(&later), Some(Verdict::Invalid), "in a committed block");
    assert_eq!(path.submit(Submitter::Here, &a(1)), Err(NotTaken::Ordered));
}

/// Its author may not have heard that it is here, and what is no block's goes from the disk in the end.
#[test]
fn m3_a_batch_that_is_ordered_is_not_taken_again_when_its_author_tells_it_again() {
    let mut path = Path::new();
    let content = |number: u64| vec![a(2 * number), a(2 * number + 1)];
    let mut outputs = Vec::new();
    // As many as push the first out of memory.
    for number in 0..=wattle_order::limits::SERVED_BATCHES_MAX as u64 + 1 {
        outputs.extend(path.hear(1, Message::Batch(bytes(&content(number)))));
        outputs.extend(path.commit(by_batch(&content(number))));
    }
    let first = digest(&content(0));
    outputs.extend(path.hear(1, Message::Batch(bytes(&content(0)))));
    outputs.extend(path.commit(inline(&[a(5000)])));
    let forgotten = |output: &Output| matches!(output, Output::Forget { batch } if *batch == first);
    assert!(!outputs.iter().any(forgotten), "a block that is committed has it");
}

#[test]
fn m1_an_entry_lives_at_its_blocks_time_or_stands_nowhere() {
    let mut path = Path::new();
    let until = |millis: u64| entry(1, 20, UnixTime::from_millis(millis));
    for (millis, expected) in [
        (NOW - 1, Verdict::Invalid),
        (NOW, Verdict::Valid),
        (NOW + ENTRY_LIFE_MAX_MS, Verdict::Valid),
        (NOW + ENTRY_LIFE_MAX_MS + 1, Verdict::Invalid),
    ] {
        let block = path.propose(inline(&[until(millis)]));
        assert_eq!(path.judge(&block), Some(expected), "{millis}");
    }
    let garbage = path.propose(Payload::Inline(vec![ByteBuf::from(b"no entry".to_vec())]));
    assert_eq!(path.judge(&garbage), Some(Verdict::Invalid));
}

#[test]
fn m1_what_is_remembered_goes_when_it_cannot_come_again() {
    let mut path = Path::new();
    path.commit(inline(&[entry(1, 20, UnixTime::from_millis(NOW + 10)), a(2)]));
    assert_eq!(path.machine.status().remembered, 2);
    let block = path.propose_at(inline(&[a(3)]), NOW + 11);
    assert_eq!(path.judge(&block), Some(Verdict::Valid));
    path.extend(&block);
    path.tell(Input::Commit { blocks: vec![block], proof: None, before: None });
    assert_eq!(path.machine.status().remembered, 2, "the first is forgotten, the third is new");
    let again = path.propose_at(inline(&[a(2)]), NOW + 12);
    assert_eq!(path.judge(&again), Some(Verdict::Invalid), "the second is not");
}

#[test]
fn m1_of_a_batch_exactly_that_is_left_out_which_stands_there_already() {
    let mut path = Path::new();
    let batch = [a(1), a(2), a(3)];
    path.hear(1, Message::Batch(bytes(&batch)));
    path.commit(inline(&[a(2)]));
    for (payload, expected, what) in [
        (by_batch(&batch), Verdict::Invalid, "all of it: one stands there"),
        (part(&batch, &[0, 1]), Verdict::Invalid, "more is left out than stands there"),
        (part(&batch, &[0]), Verdict::Invalid, "another is left out"),
        (part(&batch, &[1]), Verdict::Valid, "exactly that"),
        (part(&batch, &[1, 7]), Verdict::Invalid, "a place that it has not"),
    ] {
        let block = path.propose(payload);
        assert_eq!(path.judge(&block), Some(expected), "{what}");
    }
    let mut wrong = part(&batch, &[1]);
    if let Payload::Batches(batches) = &mut wrong {
        batches[0].left.as_mut().unwrap().digest = digest(&[a(1)]);
    }
    let block = path.propose(wrong);
    assert_eq!(path.judge(&block), Some(Verdict::Invalid), "another digest of what is left");
}

#[test]
fn m1_a_leader_leaves_out_what_stands_on_its_chain() {
    let mut path = Path::new();
    let batch: Vec<Entry> = (0..40).map(|number| sized(number, 2_000)).collect();
    path.hear(1, Message::Batch(bytes(&batch)));
    path.commit(inline(&batch[3..5]));
    assert_eq!(path.build(), part(&batch, &[3, 4]));
    let block = path.propose(part(&batch, &[3, 4]));
    assert_eq!(path.judge(&block), Some(Verdict::Valid));
    path.extend(&block);
    assert_eq!(path.build(), Payload::empty(), "nothing is left of it on top of that");
}

/// So it stands in one block: whoever removes the blocks before a snapshot removes what they order.
#[test]
fn m1_a_batch_waits_whole_until_all_of_it_may_stand_in_a_block() {
    let mut path = Path::new();
    let early = entry(99, 2_000, UnixTime::from_millis(NOW + ENTRY_LIFE_MAX_MS + 500));
    let mut batch: Vec<Entry> = (0..40).map(|number| sized(number, 2_000)).collect();
    batch[7] = early;
    path.hear(1, Message::Batch(bytes(&batch)));
    assert!(matches!(path.build(), Payload::Inline(_)), "no leader orders a part of it");
    for payload in [part(&batch, &[7]), by_batch(&batch)] {
        let block = path.propose(payload);
        assert_eq!(path.judge(&block), Some(Verdict::Invalid), "its time has not come");
    }
    let block = path.propose_at(by_batch(&batch), NOW + 500);
    assert_eq!(path.judge(&block), Some(Verdict::Valid));
}

#[test]
fn m1_a_batch_in_a_second_spelling_is_no_payload() {
    let well = |skip: Vec<u16>, same: bool| {
        let batch = Digest::from_bytes([1; 32]);
        let digest = Digest::from_bytes([if same { 1 } else { 2 }; 32]);
        Payload::Batches(vec![BatchRef { batch, left: Some(Left { skip, digest }) }]).is_within_limits()
    };
    assert!(well(vec![1, 5], false));
    assert!(
        !well(vec![], false) && !well(vec![5, 1], false) && !well(vec![1, 1], false) && !well(vec![1], true)
    );
    // What a block says of where it is stored is bound to its id.
    let whole = Payload::Batches(vec![BatchRef::whole(digest(&[a(1)]))]);
    let same = part(&[a(0), a(1)], &[0]);
    assert_eq!(whole.root(), same.root());
    assert_ne!(whole.stored(), same.stored());
}

#[test]
fn m2_what_is_over_the_room_is_refused_with_its_reason_and_nothing_else_is() {
    let mut path = Path::new();
    let peer = Submitter::Peer(path.id(2));
    for number in 0..25 {
        assert!(path.submit(peer, &a(number)).is_ok());
    }
    let busy = Err(NotTaken::Busy(Busy::Submitter { waiting: 25 }));
    assert_eq!(path.submit(peer, &a(25)), busy, "a quarter is a peer's share");
    assert!(path.submit(peer, &a(3)).is_ok(), "one that waits already is taken as that one");
    for number in 25..100 {
        assert!(path.submit(Submitter::Here, &a(number)).is_ok());
    }
    let full = Err(NotTaken::Busy(Busy::Entries { waiting: 100, max: 100 }));
    assert_eq!(path.submit(Submitter::Peer(path.id(3)), &a(100)), full);
    assert_eq!(path.machine.status().waiting.entries, 100);
    path.commit(inline(&(0..10).map(a).collect::<Vec<_>>()));
    assert_eq!(path.machine.status().waiting.entries, 90);
    assert!(path.submit(peer, &a(200)).is_ok(), "there is room again, for it too");
}

#[test]
fn m2_bytes_are_bounded_before_anything_is_read() {
    let mut path = Path::new();
    let got = ENTRY_BYTES_MAX + 1;
    let large = Err(NotTaken::Invalid(InvalidEntry::TooLarge { got, max: ENTRY_BYTES_MAX }));
    assert_eq!(path.submit_bytes(Submitter::Here, vec![0; got]), large);
    let peer = Submitter::Peer(path.id(2));
    for number in 0..4 {
        assert!(path.submit(peer, &sized(number, 60_000)).is_ok());
    }
    assert_eq!(path.submit(peer, &sized(9, 60_000)), Err(NotTaken::Busy(Busy::Submitter { waiting: 4 })));
    let over = entry(1, 20, UnixTime::from_millis(NOW - 1));
    assert!(matches!(path.submit(peer, &over), Err(NotTaken::Invalid(InvalidEntry::Expired { .. }))));
    let far = entry(1, 20, UnixTime::from_millis(NOW + ENTRY_LIFE_MAX_MS + 1));
    assert!(matches!(path.submit(peer, &far), Err(NotTaken::Invalid(InvalidEntry::TooFar { .. }))));
    let many = Message::Entries(bytes(&(0..=HANDED_MAX as u64).map(a).collect::<Vec<_>>()));
    assert!(matches!(path.hear(3, many)[..], [Output::Misbehaved { .. }, ..]));
}

#[test]
fn m2_first_come_first_served_and_an_abandoned_block_gives_back() {
    let mut path = Path::new();
    for number in [5, 1, 9, 3] {
        path.submit(Submitter::Here, &a(number)).unwrap();
    }
    let expected = inline(&[a(5), a(1), a(9), a(3)]);
    assert_eq!(path.build(), expected);
    // It is proposed, and another block of its height is committed.
    let lost = path.propose(expected);
    path.judge(&lost);
    let on_it = {
        path.extend(&lost);
        path.build()
    };
    assert_eq!(on_it, Payload::empty(), "not again on top of it");
    path.height -= 1;
    path.qc = path.bench.genesis();
    path.commit(inline(&[a(1)]));
    assert_eq!(path.build(), inline(&[a(5), a(9), a(3)]), "the rest waits as before");
}

#[test]
fn m2_what_is_over_its_time_goes_and_its_owner_hears() {
    let mut path = Path::new();
    let short = entry(1, 20, UnixTime::from_millis(NOW + 50));
    let peers = entry(2, 20, UnixTime::from_millis(NOW + 50));
    path.submit(Submitter::Here, &short).unwrap();
    path.submit(Submitter::Peer(path.id(2)), &peers).unwrap();
    path.submit(Submitter::Here, &a(3)).unwrap();
    path.wait(Duration::from_millis(49));
    assert!(path.expired.is_empty());
    path.wait(Duration::from_millis(5));
    assert_eq!(path.expired, [transaction_hash(&short.encode())]);
    assert_eq!(path.machine.status().waiting.entries, 1);
}

#[test]
fn m3_have_is_said_and_a_block_called_valid_only_when_the_batch_is_on_disk() {
    let mut path = Path::new();
    path.durable = false;
    let batch = [a(1), a(2)];
    let outputs = path.hear(1, Message::Batch(bytes(&batch)));
    assert!(sent(&outputs).is_empty(), "it is not on disk");
    assert!(sent(&path.hear(1, Message::Batch(bytes(&batch)))).is_empty(), "and is not when it comes again");
    let block = path.propose(by_batch(&batch));
    assert_eq!(path.judge(&block), None);
    let upto = path.persisted[0].0;
    let outputs = path.tell(Input::Persisted { upto });
    assert_eq!(sent(&outputs), [&Message::Have(digest(&batch))]);
    assert_eq!(verdict(&outputs), Some(Verdict::Valid));
}

#[test]
fn m3_after_the_disk_failed_nothing_is_stored_or_called_valid_that_needs_a_batch() {
    let mut path = Path::new();
    path.durable = false;
    let batch = [a(1)];
    path.hear(1, Message::Batch(bytes(&batch)));
    let block = path.propose(by_batch(&batch));
    path.tell(Input::NotPersisted);
    let upto = path.persisted[0].0;
    assert!(path.tell(Input::Persisted { upto }).is_empty());
    assert_eq!(path.judge(&block), None);
    assert!(path.hear(2, Message::Batch(bytes(&[a(2)]))).is_empty());
    let block = path.propose(inline(&[a(3)]));
    assert_eq!(path.judge(&block), Some(Verdict::Valid), "what is in the block itself needs no batch");
}

#[test]
fn m3_what_is_missing_is_asked_of_the_leader_and_then_of_the_others() {
    let mut path = Path::new();
    let batch = [a(1), a(2)];
    let block = path.propose(by_batch(&batch));
    assert_eq!(path.judge(&block), None);
    let asked = |outputs: &[Output]| -> Vec<NodeId> {
        let to = |output: &Output| match output {
            Output::Send { to: wattle_order::To::One(to), message: Message::Fetch(_) } => Some(*to),
            _ => None,
        };
        outputs.iter().filter_map(to).collect()
    };
    assert!(asked(&path.wait(Duration::from_millis(29))).is_empty(), "it may be under way");
    assert_eq!(asked(&path.wait(Duration::from_millis(2))), [path.id(1)], "its leader has it");
    let outputs = path.hear(1, Message::Lacks(digest(&batch)));
    assert_ne!(asked(&outputs), [path.id(1)], "who has it not is not asked again");
    assert_eq!(asked(&outputs).len(), 1);
    let rest = asked(&path.wait(Duration::from_millis(100)));
    assert_eq!(rest.len(), 1);
    let outputs = path.hear(3, Message::Fetched(bytes(&[a(7)])));
    assert_eq!((verdict(&outputs), path.persisted.len()), (None, 0), "what nobody asked for is not stored");
    let outputs = path.hear(3, Message::Fetched(bytes(&batch)));
    assert_eq!(verdict(&outputs), Some(Verdict::Valid));
    assert!(asked(&path.wait(Duration::from_secs(5))).is_empty());
}

#[test]
fn m3_a_batch_is_told_again_to_those_who_do_not_have_it() {
    let mut path = Path::new();
    path.submit(Submitter::Here, &a(1)).unwrap();
    path.hear(2, Message::Have(digest(&[a(1)])));
    let outputs = path.wait(Duration::from_millis(1_000));
    let to = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Batch(_) } => Some(*to),
        _ => None,
    });
    let one = wattle_order::To::One;
    assert_eq!(to.collect::<Vec<_>>(), [one(path.id(1)), one(path.id(3))]);
}

/// Who is missing may come back any moment; once a quorum has it that is only for the third's sake, and ends.
#[test]
fn m3_a_batch_that_cannot_be_ordered_is_told_again_often_and_one_that_can_not_for_ever() {
    let mut path = Path::new();
    path.submit(Submitter::Here, &a(1)).unwrap();
    let told_to_three = |path: &mut Path| {
        let outputs = path.wait(Duration::from_secs(30));
        let three = wattle_order::To::One(path.id(3));
        let told =
            |it: &&Output| matches!(it, Output::Send { to, message: Message::Batch(_) } if *to == three);
        outputs.iter().filter(told).count()
    };
    let often = told_to_three(&mut path);
    assert!((14..=30).contains(&often), "{often} times in 30 s");
    for have in [1, 2] {
        path.hear(have, Message::Have(digest(&[a(1)])));
    }
    assert_eq!(told_to_three(&mut path), 0, "it was told often enough");
}

#[test]
fn m4_one_authors_batches_fill_its_own_room_only() {
    let mut path = Path::new();
    for number in 0..=AUTHOR_BATCHES_MAX as u64 {
        path.hear(1, Message::Batch(bytes(&[a(number)])));
    }
    assert_eq!(path.machine.status().batches, AUTHOR_BATCHES_MAX);
    path.hear(2, Message::Batch(bytes(&[a(1000)])));
    assert_eq!(path.machine.status().batches, AUTHOR_BATCHES_MAX + 1);
    let many: Vec<Entry> = (0..=BATCH_COUNT_MAX as u64).map(a).collect();
    assert!(matches!(path.hear(3, Message::Batch(bytes(&many)))[..], [Output::Misbehaved { .. }]));
    let garbage = Message::Batch(vec![ByteBuf::from(b"no entry".to_vec())]);
    assert!(matches!(path.hear(3, garbage)[..], [Output::Misbehaved { .. }]));
}

/// Company would come too late for the first: what comes while it is under way goes together.
#[test]
fn an_entry_waits_for_company_while_another_batch_is_under_way_and_not_before() {
    let mut path = Path::new();
    let batches = |outputs: &[Output]| -> Vec<Message> {
        sent(outputs).into_iter().filter(|it| matches!(it, Message::Batch(_))).cloned().collect()
    };
    let outputs = path.hand_in(Submitter::Here, whole(&a(1)));
    assert_eq!(batches(&outputs), [Message::Batch(bytes(&[a(1)]))], "at once");
    assert!(batches(&path.hand_in(Submitter::Here, whole(&a(2)))).is_empty());
    assert!(batches(&path.wait(Duration::from_millis(4))).is_empty());
    assert!(batches(&path.hand_in(Submitter::Here, whole(&a(3)))).is_empty());
    let outputs = path.wait(Duration::from_millis(2));
    assert_eq!(batches(&outputs), [Message::Batch(bytes(&[a(2), a(3)]))], "together");
}

#[test]
fn m5_own_batches_are_ordered_when_a_quorum_has_them() {
    let mut path = Path::new();
    let entries: Vec<Entry> = (0..21).map(|number| sized(number, 2_000)).collect();
    for entry in &entries {
        path.submit(Submitter::Here, entry).unwrap();
    }
    path.wait(Duration::from_millis(11));
    // The first is under way alone.
    let entries = &entries[1..];
    assert!(matches!(path.build(), Payload::Inline(_)), "as much as goes into the block itself");
    path.hear(1, Message::Have(digest(entries)));
    assert!(matches!(path.build(), Payload::Inline(_)), "two have it");
    path.hear(3, Message::Have(digest(entries)));
    assert_eq!(path.build(), by_batch(entries), "three do");
}

#[test]
fn m5_batches_of_an_author_that_did_not_spread_one_are_left_out_for_a_while() {
    let mut path = Path::new();
    let batches: Vec<Vec<Entry>> =
        (0..3).map(|first| (0..20).map(|number| sized(first * 20 + number, 2_000)).collect()).collect();
    path.hear(1, Message::Batch(bytes(&batches[0])));
    path.hear(1, Message::Batch(bytes(&batches[1])));
    let named = |payload: &Payload| if let Payload::Batches(batches) = payload { batches.len() } else { 0 };
    assert_eq!(named(&path.build()), 2);
    path.hear(2, Message::Fetch(digest(&batches[0])));
    assert_eq!(named(&path.build()), 2, "one may lie");
    path.hear(3, Message::Fetch(digest(&batches[0])));
    assert_eq!(path.machine.status().late, [path.id(1)]);
    assert!(matches!(path.build(), Payload::Inline(_)), "only what goes into the block itself");
    path.hear(2, Message::Batch(bytes(&batches[2])));
    assert_eq!(path.build(), by_batch(&batches[2]), "others' are as before");
    for _ in 0..16 {
        path.commit(Payload::empty());
    }
    assert_eq!(named(&path.build()), 3, "it is given another try");
}

#[test]
fn m6_what_is_committed_is_told_in_order_and_whole() {
    let mut path = Path::new();
    let batch = [a(1), a(2)];
    let first = path.propose(by_batch(&batch));
    path.judge(&first);
    path.extend(&first);
    let second = path.propose(inline(&[a(3)]));
    path.judge(&second);
    let told = |outputs: &[Output]| -> Vec<(u64, Vec<u64>)> {
        let told = |output: &Output| match output {
            Output::Ordered { block, entries } => {
                let numbers =
                    entries.iter().map(|ordered| crate::carry::number(ordered.whole.entry())).collect();
                Some((block.header().height.0, numbers))
            }
            _ => None,
        };
        outputs.iter().filter_map(told).collect()
    };
    let outputs = path.tell(Input::Commit { blocks: vec![first, second], proof: None, before: None });
    assert!(told(&outputs).is_empty(), "the first is not whole");
    assert_eq!(path.machine.status().behind, 2);
    let outputs = path.hear(2, Message::Batch(bytes(&batch)));
    assert_eq!(told(&outputs), [(1, vec![1, 2]), (2, vec![3])]);
}

#[test]
fn m6_however_many_blocks_wait_each_batch_is_read_once_and_few_at_a_time() {
    let mut path = Path::new();
    let mut batches: BTreeMap<Digest, Arc<Batch>> = BTreeMap::new();
    let mut blocks = Vec::new();
    for height in 0..300 {
        let ordered: Vec<[Entry; 1]> = (0..4).map(|number| [a(height * 4 + number)]).collect();
        for entries in &ordered {
            batches.insert(digest(entries), Arc::new(Batch::read(bytes(entries)).unwrap()));
        }
        let parts = ordered.iter().map(|entries| BatchRef::whole(digest(entries))).collect();
        let block = path.propose(Payload::Batches(parts));
        path.extend(&block);
        blocks.push(block);
    }
    let (mut asked, mut seen, mut told) = (VecDeque::new(), BTreeSet::new(), 0);
    let mut outputs = path.tell(Input::Commit { blocks, proof: None, before: None });
    loop {
        for output in outputs {
            match output {
                Output::Load { batch } => {
                    assert!(seen.insert(batch), "it was read before");
                    asked.push_back(batch);
                }
                Output::Ordered { block, entries } => {
                    told += 1;
                    assert_eq!((block.header().height.0, entries.len()), (told, 4));
                }
                _ => {}
            }
        }
        assert!(asked.len() <= WANTED_BATCHES_MAX, "{} are read at once", asked.len());
        let Some(batch) = asked.pop_front() else { break };
        outputs = path.tell(Input::Loaded { batch, content: batches.get(&batch).cloned() });
    }
    assert_eq!((told, seen.len()), (300, 1200));
}

#[test]
fn v7_of_a_block_far_ahead_of_the_clock_nothing_is_said_until_the_clock_is_there() {
    let mut path = Path::new();
    let block = path.propose_at(inline(&[a(1)]), NOW + 5_000);
    assert_eq!(path.judge(&block), None);
    assert_eq!(verdict(&path.wait(Duration::from_millis(2_900))), None);
    assert_eq!(verdict(&path.wait(Duration::from_millis(200))), Some(Verdict::Valid));
}

#[test]
fn little_goes_inline_whoever_has_it_and_more_by_batches() {
    let mut path = Path::new();
    let half: Vec<Entry> = (0..8).map(|number| sized(number, 2_000)).collect();
    path.hear(1, Message::Batch(bytes(&half)));
    path.submit(Submitter::Here, &a(100)).unwrap();
    let mut all = half.clone();
    all.push(a(100));
    assert_eq!(path.build(), inline(&all));
    let more: Vec<Entry> = (20..40).map(|number| sized(number, 2_000)).collect();
    path.hear(2, Message::Batch(bytes(&more)));
    let expected = [digest(&half), digest(&more)].map(BatchRef::whole);
    assert_eq!(path.build(), Payload::Batches(expected.to_vec()));
    assert!(half.iter().chain(&more).map(|entry| entry.encode().len()).sum::<usize>() > INLINE_BYTES_MAX);
}
