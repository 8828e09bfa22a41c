//! What is said about the ordered log: frames of validators, questions and answers of who follows it, entries, and
//! the files that people hand to each other.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use wattle::order::receipts::{self, ReceiptFile};
use wattle_order::limits::{ENTRY_BYTES_MAX, MESSAGE_BYTES_MAX, RANGE_BLOCKS_MAX};
use wattle_order::payloads::{self, Payloads};
use wattle_order::{
    Checker, Committee, Config, Core, Digest, Entry, Genesis, Height, Message, Proposal, Recovered, Rejected,
    Rules, Seen, Signature, Tc, Timeout, To, Validator, Validators, Vote, catch_up,
};
use wattle_types::{Domain, Machine as _, NetworkName, NodeId, Outbox, Time, UnixTime, cbor};
use wattle_weave::order::{Answer, Ask, Frame, Input, Log, Machines, Output};

use super::members::key;
use super::parts;

/// When the log began, and the clock of its validators.
const CREATED: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// A log of the validators 1 to 4, so that what they sign in the corpus holds.
static GENESIS: LazyLock<Genesis> = LazyLock::new(|| {
    let list = (1..=4).map(|seed| Validator { id: key(seed).node_id(), weight: 1 }).collect();
    #[expect(clippy::expect_used, reason = "without validators there is nothing to fuzz")]
    let validators = Validators::new(list).expect("four validators");
    Genesis { network: NetworkName::default(), validators, rules: Rules::default(), created: CREATED }
});

static COMMITTEE: LazyLock<Arc<Committee>> = LazyLock::new(|| Arc::new(Committee::genesis(&GENESIS)));

/// A validator of a log, with a disk that does its work at once.
struct Keeper {
    log: Log,
    now: Time,
    checker: Checker,
    seen: Seen,
    /// What else came of what it was told.
    told: Vec<Output>,
}

impl Keeper {
    fn new(who: u8, committee: &Arc<Committee>) -> Self {
        let me = key(who).node_id();
        let span = Duration::from_secs(1);
        let catching = catch_up::Config { me, answer_within: span, rest: span };
        let machines = Machines {
            core: Core::new(Config::lan(), key(who), Recovered::none(Arc::clone(committee))),
            payloads: Payloads::new(
                payloads::Config::lan(me),
                Arc::clone(committee),
                &payloads::Below::epoch(committee),
            ),
            catch_up: catch_up::CatchUp::new(catching, Arc::clone(committee)),
        };
        let start = (committee.anchor().height, Digest::default());
        let (log, checker) = (Log::new(machines, start, None), Checker::new(Arc::clone(committee)));
        let mut keeper = Self { log, now: Time::ZERO, checker, seen: Seen::new(), told: Vec::new() };
        keeper.step(Input::Payloads(payloads::Input::Clock(CREATED)));
        keeper.step(Input::Wake);
        keeper
    }

    /// Gives the machines an input, and lets their disk work.
    fn step(&mut self, input: Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.log.handle(self.now, input, &mut out);
            for output in out.drain().collect::<Vec<_>>() {
                match output {
                    Output::Persist { seq, .. } => {
                        todo.push(Input::Core(wattle_order::Input::Persisted { upto: seq }));
                    }
                    Output::Store { seq, .. } => {
                        todo.push(Input::Payloads(payloads::Input::Persisted { upto: seq }));
                    }
                    Output::Load { batch } => {
                        todo.push(Input::Payloads(payloads::Input::Loaded { batch, content: None }));
                    }
                    other => self.told.push(other),
                }
            }
        }
        self.log.check_invariants();
    }

    /// What was said to whom, as it travels.
    fn says(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut said = Vec::new();
        for output in self.told.drain(..) {
            said.extend(match output {
                Output::Send { to, message } => {
                    Some((to, Frame::Message(Box::new((*message).clone())).encode()))
                }
                Output::Say { to, message } => Some((to, Frame::Payload(message).encode())),
                _ => None,
            });
        }
        assert!(said.iter().all(|(_, frame)| frame.len() <= MESSAGE_BYTES_MAX), "what is sent can be read");
        said
    }

    /// What a validator's channel brings, as the binary reads it; whether it may go on.
    fn hears(&mut self, from: NodeId, frame: Frame) -> bool {
        match frame {
            Frame::Hello(_) => true,
            Frame::Payload(message) => {
                self.step(Input::Payloads(payloads::Input::Received { from, message }));
                true
            }
            Frame::Message(message) => match self.checker.check(&mut self.seen, *message) {
                Ok(message) => {
                    self.step(Input::Core(wattle_order::Input::Received { from, message }));
                    true
                }
                Err(Rejected::OtherEpoch { got: epoch, .. }) => {
                    self.step(Input::Core(wattle_order::Input::OtherEpoch { from, epoch }));
                    true
                }
                Err(_) => false,
            },
        }
    }

    /// Some of what follows.
    fn live_on(&mut self) {
        for _ in 0..4 {
            self.now = self.log.deadline().unwrap_or(self.now).max(self.now);
            self.step(Input::Wake);
        }
        self.says();
    }
}

/// The validator that lies: it signs whatever the input says in its name.
const LIAR: u8 = 4;

/// A frame as the liar would send it: what it says in its own name is signed.
fn signed(frame: Frame) -> Frame {
    let Frame::Message(message) = frame else { return frame };
    let seat = COMMITTEE.seat(&key(LIAR).node_id());
    Frame::Message(Box::new(match *message {
        Message::Proposal(proposal) if Some(proposal.header().author) == seat => {
            let mut block = proposal.block;
            block.header.payload = block.payload.root();
            block.header.stored = block.payload.stored();
            block.header.qc = block.qc.digest();
            block.header.tc = block.tc.as_ref().map(Tc::digest);
            block.header.parent = block.qc.data.block;
            let signature = sign(Domain::OrderProposal, &block.header.id());
            Message::Proposal(Proposal::unchecked(block, signature))
        }
        Message::Vote(vote) if Some(vote.voter) == seat => Message::Vote(voted(vote)),
        Message::Timeout(timeout) if Some(timeout.author) == seat => {
            let own = |vote: &Vote| Some(vote.voter) == seat;
            let vote = timeout.vote.map(|vote| if own(&vote) { voted(vote) } else { vote });
            let signature = sign(Domain::OrderTimeout, &timeout.data);
            Message::Timeout(Timeout { signature, vote, ..timeout })
        }
        other => other,
    }))
}

fn voted(vote: Vote) -> Vote {
    Vote { signature: sign(Domain::OrderVote, &vote.data), ..vote }
}

fn sign<T: Serialize>(domain: Domain, what: &T) -> Signature {
    let body = cbor::encode(&(COMMITTEE.chain(), what));
    Signature::from_bytes(key(LIAR).sign(domain, COMMITTEE.network(), &body))
}

/// Frames of validators 2 to 4, each behind a byte that says who speaks and whether time passes before, and its length.
pub(super) fn log_frames(bytes: &[u8]) {
    let mut keeper = Keeper::new(1, &COMMITTEE);
    for (who, bytes) in parts(bytes) {
        if who & 0x80 != 0 {
            keeper.live_on();
        }
        let who = 2 + (who & 0x7f) % 3;
        let Ok(frame) = Frame::decode(bytes) else { continue };
        assert_eq!(frame.encode(), bytes, "a frame has one spelling");
        let frame = if who == LIAR { signed(frame) } else { frame };
        if !keeper.hears(key(who).node_id(), frame) {
            break;
        }
    }
    keeper.live_on();
}

/// A question of who follows the log.
pub(super) fn log_ask(bytes: &[u8]) {
    let Ok(ask) = Ask::decode(bytes) else { return };
    assert_eq!(ask.encode(), bytes, "a question has one spelling");
    match ask {
        Ask::Range { range, .. } => {
            let answer = catch_up::Answer::of(&range, &[], None);
            assert!(answer.blocks.is_empty() && answer.end.is_none(), "nothing comes of nothing");
        }
        Ask::Submit { entries, .. } => {
            for bytes in &entries {
                if let Ok(entry) = Entry::decode(bytes) {
                    assert_eq!(entry.encode(), **bytes, "an entry has one spelling");
                    assert!(
                        bytes.len() <= ENTRY_BYTES_MAX && !entry.data.is_empty(),
                        "an entry has its limits"
                    );
                }
            }
            let mut keeper = Keeper::new(1, &COMMITTEE);
            let message = payloads::Message::Entries(entries);
            keeper.step(Input::Payloads(payloads::Input::Received { from: key(9).node_id(), message }));
            keeper.live_on();
        }
        Ask::Blocks { .. } | Ask::Batch { .. } | Ask::Snapshot { .. } | Ask::Piece { .. } => {}
    }
}

/// What a keeper answers to who follows.
pub(super) fn log_answer(bytes: &[u8]) {
    let Ok(answer) = Answer::decode(bytes) else { return };
    assert_eq!(answer.encode(), bytes, "an answer has one spelling");
    let mut keeper = Keeper::new(1, &COMMITTEE);
    let (blocks, end) = match answer {
        Answer::Blocks { blocks, end, .. } => (blocks, end.map(|end| *end)),
        Answer::Range(catch_up::Answer { blocks, end }) => (blocks, end),
        Answer::Far(proof) => {
            let _known = keeper.seen.check_qc(&COMMITTEE, &proof);
            return;
        }
        Answer::Batch(Some(entries)) => {
            if let Ok(batch) = payloads::Batch::read(entries) {
                let again = payloads::Batch::decode(&batch.encode());
                assert_eq!(again.map(|batch| batch.digest()), Ok(batch.digest()), "a batch can be kept");
            }
            return;
        }
        Answer::Snapshot(Some(certified)) => {
            let holds = certified.check(&COMMITTEE, &mut keeper.seen);
            assert!(holds.is_err() || certified.chain == COMMITTEE.chain(), "it is of this log");
            return;
        }
        Answer::Batch(None)
        | Answer::Taken
        | Answer::Refused(_)
        | Answer::Compacted(_)
        | Answer::Snapshot(None)
        | Answer::Piece(_) => return,
    };
    let heights: Vec<Height> = blocks.iter().map(|block: &Proposal| block.header().height).collect();
    let Some(end) = end else { return };
    if let Ok(blocks) = keeper.checker.check_chain(&mut keeper.seen, blocks, &end) {
        assert!(heights.windows(2).all(|pair| pair[0] < pair[1]), "a chain ascends");
        let some = blocks.into_iter().take(RANGE_BLOCKS_MAX).collect();
        keeper.step(Input::Core(wattle_order::Input::Synced { blocks: some }));
        keeper.live_on();
    }
}

/// A genesis as a file that somebody was given: a log begins with it and turns over.
pub(super) fn genesis(bytes: &[u8]) {
    let Ok(genesis) = serde_json::from_slice::<Genesis>(bytes) else { return };
    let written = serde_json::to_vec(&genesis).unwrap_or_default();
    assert_eq!(
        serde_json::from_slice::<Genesis>(&written).ok(),
        Some(genesis.clone()),
        "it survives its text"
    );
    let again = cbor::decode::<Genesis>(&cbor::encode(&genesis), 64 * 1024);
    assert_eq!(again.ok().map(|again| again.chain()), Some(genesis.chain()), "it names one log");
    let mut keeper = Keeper::new(1, &Arc::new(Committee::genesis(&genesis)));
    keeper.live_on();
}

/// A receipt as a file that somebody was given.
pub(super) fn receipt(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(sound) = receipts::check(&COMMITTEE, &value) else { return };
    let file = ReceiptFile::new(sound.receipt, &sound.entry.encode());
    assert_eq!(serde_json::to_value(&file).ok(), Some(value), "a receipt says what it proves and no more");
}
