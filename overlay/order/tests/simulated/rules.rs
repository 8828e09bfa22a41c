//! The rules one by one: a single validator, told exactly what makes each rule decide.

mod payload;
mod vectors;

use std::sync::Arc;

use serde_bytes::ByteBuf;
use wattle_order::{
    Alarm, Block, ChainEnd, Checker, Claim, CommitInfo, Committee, Config, Core, Digest, Evidence, Executed,
    Header, Height, Input, Message, Output, Payload, Proposal, Qc, Record, Recovered, Rejected, Round, Seat,
    Seen, Signature, Signers, Sound, Tc, Timeout, TimeoutData, To, Verdict, Vote, VoteData,
};
use wattle_types::{Domain, Machine as _, Outbox, SecretKey, Time, UnixTime, cbor};

use crate::world::{Options, World, keys};
use crate::{MILLI, SECOND};

/// One validator, and the keys of all.
struct Bench {
    keys: Vec<SecretKey>,
    committee: Arc<Committee>,
    checker: Checker,
    seen: Seen,
    core: Core,
    me: usize,
    config: Config,
    now: Time,
    log: Vec<Record>,
    verdict: Verdict,
    /// Records reach the disk at once.
    durable: bool,
}

const MAJORITY: [u16; 3] = [0, 1, 2];

impl Bench {
    /// The validator of a seat. Round r is led by seat r modulo 4.
    fn new(me: usize) -> Self {
        Self::with(me, Options::new(1, 4).config)
    }

    /// One of a log that rests for long, a second later.
    fn resting(me: usize) -> Self {
        let mut bench = Self::with(me, Config { idle: 30 * SECOND, ..Options::new(1, 4).config });
        bench.now = bench.now.after(SECOND);
        bench
    }

    fn with(me: usize, config: Config) -> Self {
        let world = World::new(Options::new(1, 4));
        let committee = world.committee;
        let keys = keys(4);
        let recovered = Recovered::none(Arc::clone(&committee));
        let core = Core::new(config.clone(), keys[me].clone(), recovered);
        let checker = Checker::new(Arc::clone(&committee));
        let now = Time::from_micros(1);
        let (seen, log, verdict, durable) = (Seen::new(), Vec::new(), Verdict::Valid, true);
        let mut bench = Self { keys, committee, checker, seen, core, me, config, now, log, verdict, durable };
        bench.input(Input::Wake);
        bench
    }

    /// Starts it again from its records.
    fn restart(&mut self) -> Vec<Output> {
        let records = self.log.clone();
        let recovered = Recovered::read(Arc::clone(&self.committee), &mut self.seen, records).unwrap();
        self.core = Core::new(self.config.clone(), self.keys[self.me].clone(), recovered);
        self.input(Input::Wake)
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut todo = vec![input];
        let mut outputs = Vec::new();
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.core.handle(self.now, input, &mut out);
            self.core.check_invariants();
            for output in out.drain() {
                match &output {
                    Output::Persist { seq, record } => {
                        self.log.push(record.clone());
                        if self.durable {
                            todo.push(Input::Persisted { upto: *seq });
                        }
                    }
                    Output::Validate { block } => {
                        todo.push(Input::Judged { block: block.id(), verdict: self.verdict });
                    }
                    Output::Build { round, .. } => {
                        let time = UnixTime::from_millis(2);
                        todo.push(Input::Built {
                            round: *round,
                            payload: Payload::empty(),
                            time,
                            next: None,
                        });
                    }
                    _ => {}
                }
                outputs.push(output);
            }
        }
        outputs
    }

    fn check(&mut self, message: Message) -> Result<Sound, Rejected> {
        self.checker.check(&mut self.seen, message)
    }

    fn tell(&mut self, from: u16, message: Message) -> Vec<Output> {
        let message = self.check(message).unwrap();
        let from = self.committee.id(Seat(from)).unwrap();
        self.input(Input::Received { from, message })
    }

    fn sign<T: serde::Serialize>(&self, seat: u16, domain: Domain, what: &T) -> Signature {
        let body = cbor::encode(&(self.committee.chain(), what));
        Signature::from_bytes(self.keys[usize::from(seat)].sign(domain, self.committee.network(), &body))
    }

    fn genesis(&self) -> Qc {
        Qc::genesis(&self.committee)
    }

    /// A block of a round, by its leader.
    fn block(&self, round: u64, height: u64, qc: &Qc, tc: Option<Tc>) -> Proposal {
        self.block_by((round % 4) as u16, round, height, qc, tc, Payload::empty())
    }

    fn block_by(
        &self,
        seat: u16,
        round: u64,
        height: u64,
        qc: &Qc,
        tc: Option<Tc>,
        payload: Payload,
    ) -> Proposal {
        let none: Vec<Evidence> = Vec::new();
        let evidence = blake3_of("wattle order evidence v1", &none);
        let header = Header {
            epoch: self.committee.epoch(),
            round: Round(round),
            height: Height(height),
            author: Seat(seat),
            parent: qc.data.block,
            qc: qc.digest(),
            tc: tc.as_ref().map(Tc::digest),
            payload: payload.root(),
            stored: payload.stored(),
            evidence,
            next: None,
            executed: Executed::default(),
            time: UnixTime::from_millis(2),
        };
        let signature = self.sign(seat, Domain::OrderProposal, &header.id());
        let block = Block { header, qc: qc.clone(), tc, payload, evidence: none, next: None };
        Proposal::unchecked(block, signature)
    }

    fn vote_data(&self, block: &Proposal) -> VoteData {
        let header = block.header();
        let parent = block.block.qc.data;
        let commit = CommitInfo {
            height: Height(header.height.0 - 1),
            block: parent.block,
            executed: Executed::default(),
        };
        let commits = header.round.follows(parent.round) && parent.round > Round(0);
        VoteData {
            epoch: header.epoch,
            round: header.round,
            block: header.id(),
            parent: parent.block,
            parent_round: parent.round,
            commit: commits.then_some(commit),
        }
    }

    fn qc(&self, block: &Proposal) -> Qc {
        self.qc_by(block, &MAJORITY)
    }

    fn qc_by(&self, block: &Proposal, seats: &[u16]) -> Qc {
        let data = self.vote_data(block);
        let signatures = seats.iter().map(|seat| self.sign(*seat, Domain::OrderVote, &data)).collect();
        Qc { data, signers: Signers::of(seats.iter().map(|seat| Seat(*seat))), signatures }
    }

    fn vote(&self, seat: u16, block: &Proposal) -> Message {
        let data = self.vote_data(block);
        Message::Vote(Vote { data, voter: Seat(seat), signature: self.sign(seat, Domain::OrderVote, &data) })
    }

    fn timeout_data(&self, round: u64, high: u64) -> TimeoutData {
        TimeoutData { epoch: self.committee.epoch(), round: Round(round), high_qc_round: Round(high) }
    }

    fn timeout(&self, seat: u16, round: u64, high_qc: &Qc, tc: Option<Tc>) -> Message {
        let data = self.timeout_data(round, high_qc.data.round.0);
        let signature = self.sign(seat, Domain::OrderTimeout, &data);
        let (author, high_qc) = (Seat(seat), high_qc.clone());
        Message::Timeout(Timeout { data, author, signature, high_qc, tc, vote: None, tick: 0 })
    }

    /// The first three say that a round took too long, and what they know.
    fn tc(&self, round: u64, highs: [u64; 3], high_qc: &Qc) -> Tc {
        let claim = |(seat, high): (u16, u64)| Claim {
            author: Seat(seat),
            high_qc_round: Round(high),
            signature: self.sign(seat, Domain::OrderTimeout, &self.timeout_data(round, high)),
        };
        let claims = (0u16..).zip(highs).map(claim).collect();
        Tc { epoch: self.committee.epoch(), round: Round(round), claims, high_qc: high_qc.clone() }
    }
}

/// A hash as the format has it: label, zero, canonical CBOR.
fn blake3_of<T: serde::Serialize>(label: &str, value: &T) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(label.as_bytes()).update(&[0]).update(&cbor::encode(value));
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// The votes among outputs, with whom they are for.
fn votes(outputs: &[Output]) -> Vec<(To, VoteData)> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message } => Some((*to, Arc::clone(message))),
        _ => None,
    });
    let vote = |(to, message): (To, Arc<Message>)| match &*message {
        Message::Vote(vote) => Some((to, vote.data)),
        _ => None,
    };
    sent.filter_map(vote).collect()
}

fn timeouts(outputs: &[Output]) -> Vec<TimeoutData> {
    let timeout = |output: &Output| match output {
        Output::Send { message, .. } => match &**message {
            Message::Timeout(timeout) => Some(timeout.data),
            _ => None,
        },
        _ => None,
    };
    outputs.iter().filter_map(timeout).collect()
}

fn commits(outputs: &[Output]) -> Vec<u64> {
    let commit = |output: &Output| match output {
        Output::Commit { blocks, .. } => blocks.iter().map(|block| block.header().round.0).collect(),
        _ => Vec::new(),
    };
    outputs.iter().flat_map(commit).collect()
}

#[test]
fn v_a_block_is_voted_for_once_and_the_same_vote_is_sent_again_when_it_comes_again() {
    let mut bench = Bench::new(3);
    let block = bench.block(1, 1, &bench.genesis(), None);
    let next = To::One(bench.committee.id(Seat(2)).unwrap());
    let expected = vec![(next, bench.vote_data(&block))];
    assert_eq!(votes(&bench.tell(1, Message::Proposal(block.clone()))), expected);
    assert_eq!(votes(&bench.tell(1, Message::Proposal(block))), expected);
    // V3, E1: the other block of the round gets none, and proves a liar.
    let payload = Payload::Inline(vec![ByteBuf::from(b"other".to_vec())]);
    let other = bench.block_by(1, 1, 1, &bench.genesis(), None, payload);
    let outputs = bench.tell(1, Message::Proposal(other));
    assert_eq!(votes(&outputs), []);
    assert!(outputs.iter().any(|output| matches!(output, Output::Evidence(_))));
}

#[test]
fn v1_only_the_leader_of_a_round_is_voted_for() {
    let mut bench = Bench::new(3);
    let block = bench.block_by(2, 1, 1, &bench.genesis(), None, Payload::empty());
    let outputs = bench.tell(2, Message::Proposal(block));
    assert_eq!(votes(&outputs), []);
    let author = bench.committee.id(Seat(2)).unwrap();
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Misbehaved { peer, .. } if *peer == author))
    );
}

#[test]
fn v2_a_block_of_another_round_than_the_current_is_not_voted_for() {
    let mut bench = Bench::new(3);
    let tc = bench.tc(1, [0, 0, 0], &bench.genesis());
    bench.tell(0, Message::Certificates { qc: bench.genesis(), tc: Some(tc) });
    let block = bench.block(1, 1, &bench.genesis(), None);
    assert_eq!(votes(&bench.tell(1, Message::Proposal(block))), []);
}

#[test]
fn v3_a_round_that_was_timed_out_takes_no_vote() {
    let mut bench = Bench::new(3);
    bench.now = bench.core.deadline().unwrap();
    assert_eq!(timeouts(&bench.input(Input::Wake)), [bench.timeout_data(1, 0)]);
    let block = bench.block(1, 1, &bench.genesis(), None);
    assert_eq!(votes(&bench.tell(1, Message::Proposal(block))), []);
}

#[test]
fn v4_a_block_stands_on_the_certificate_of_the_round_before_or_on_one_as_high_as_the_timeouts_claim() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&one), None);
    // Round 3 timed out, and one of three claims the certificate of round 2.
    let tc = bench.tc(3, [0, 2, 1], &bench.qc(&two));
    let low = bench.block(4, 2, &bench.qc(&one), Some(tc.clone()));
    let none = bench.block(4, 3, &bench.qc(&two), None);
    let both = bench.block(3, 3, &bench.qc(&two), Some(bench.tc(2, [1, 1, 1], &bench.qc(&one))));
    for unjust in [low, none, both] {
        assert_eq!(bench.check(Message::Proposal(unjust)), Err(Rejected::Inconsistent("block")));
    }
    bench.tell(1, Message::Proposal(one));
    bench.tell(2, Message::Proposal(two.clone()));
    let high = bench.block(4, 3, &bench.qc(&two), Some(tc));
    assert_eq!(votes(&bench.tell(0, Message::Proposal(high))).len(), 1);
}

#[test]
fn v5_a_child_that_comes_before_its_parent_is_voted_for_in_the_step_in_which_the_parent_comes() {
    // The votes of round 2 are for seat 3.
    let mut bench = Bench::new(0);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&one), None);
    let outputs = bench.tell(2, Message::Proposal(two.clone()));
    assert_eq!(votes(&outputs), []);
    let asks = |output: &Output| {
        let Output::Send { message, .. } = output else { return false };
        matches!(**message, Message::Fetch { block, .. } if block == one.header().id())
    };
    assert!(outputs.iter().any(asks));
    let outputs = bench.tell(1, Message::Blocks(vec![one]));
    assert_eq!(votes(&outputs).iter().map(|(_, data)| *data).collect::<Vec<_>>(), [bench.vote_data(&two)]);
}

#[test]
fn v6_what_the_application_calls_invalid_gets_no_vote_and_what_it_did_not_judge_waits() {
    let mut bench = Bench::new(3);
    bench.verdict = Verdict::Invalid;
    let block = bench.block(1, 1, &bench.genesis(), None);
    assert_eq!(votes(&bench.tell(1, Message::Proposal(block))), []);
    // A certificate for it says that a quorum thinks otherwise: an alarm, and no vote on top.
    bench.verdict = Verdict::Valid;
    let block = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&block), None);
    let outputs = bench.tell(2, Message::Proposal(two));
    assert_eq!(votes(&outputs), []);
    assert!(outputs.iter().any(|output| matches!(output, Output::Alarm(_))));
}

#[test]
fn p_nothing_signed_leaves_before_its_record_is_on_disk() {
    let mut bench = Bench::new(3);
    bench.durable = false;
    let block = bench.block(1, 1, &bench.genesis(), None);
    let outputs = bench.tell(1, Message::Proposal(block));
    assert_eq!(votes(&outputs), []);
    let upto = outputs.iter().filter_map(|output| match output {
        Output::Persist { seq, .. } => Some(*seq),
        _ => None,
    });
    let upto = upto.max().unwrap();
    let before = wattle_order::Seq(upto.0 - 1);
    assert_eq!(votes(&bench.input(Input::Persisted { upto: before })), []);
    assert_eq!(votes(&bench.input(Input::Persisted { upto })).len(), 1);
}

#[test]
fn c_a_certificate_commits_the_parent_only_if_their_rounds_are_consecutive_and_ancestors_first() {
    let mut bench = Bench::new(0);
    let one = bench.block(1, 1, &bench.genesis(), None);
    assert_eq!(commits(&bench.tell(1, Message::Proposal(one.clone()))), [0; 0]);
    let tc = bench.tc(2, [1, 1, 1], &bench.qc(&one));
    let three = bench.block(3, 2, &bench.qc(&one), Some(tc));
    assert_eq!(commits(&bench.tell(3, Message::Proposal(three.clone()))), [0; 0]);
    let tc = bench.tc(4, [3, 3, 1], &bench.qc(&three));
    let five = bench.block(5, 3, &bench.qc(&three), Some(tc));
    assert_eq!(commits(&bench.tell(1, Message::Proposal(five.clone()))), [0; 0], "3 does not follow 1");
    let six = bench.block(6, 4, &bench.qc(&five), None);
    assert_eq!(commits(&bench.tell(2, Message::Proposal(six.clone()))), [0; 0], "5 does not follow 3");
    let seven = bench.block(7, 5, &bench.qc(&six), None);
    assert_eq!(commits(&bench.tell(3, Message::Proposal(seven))), [1, 3, 5]);
    // The same certificate again commits nothing again.
    let again = Message::Certificates { qc: bench.qc(&six), tc: None };
    assert_eq!(commits(&bench.tell(1, again)), [0; 0]);
}

#[test]
fn r_any_message_brings_the_certificates_in_it_and_nothing_else_moves_the_round() {
    let mut bench = Bench::new(3);
    let round = |bench: &Bench| bench.core.status().round.0;
    let one = bench.block(1, 1, &bench.genesis(), None);
    bench.tell(1, Message::Proposal(one.clone()));
    bench.now = bench.now.after(60 * SECOND);
    bench.input(Input::Wake);
    assert_eq!(round(&bench), 1, "a clock moves no round");
    bench.tell(2, bench.vote(2, &bench.block(9, 9, &bench.genesis(), None)));
    assert_eq!(round(&bench), 1, "a vote moves no round");
    bench.tell(2, bench.timeout(2, 2, &bench.qc(&one), None));
    assert_eq!(round(&bench), 2, "a certificate in a timeout does");
    let tc = bench.tc(4, [1, 1, 0], &bench.qc(&one));
    bench.tell(2, bench.timeout(2, 5, &bench.genesis(), Some(tc)));
    assert_eq!(round(&bench), 5, "one that a round timed out too");
}

#[test]
fn t_f_plus_one_timeouts_are_joined_and_a_quorum_is_told_on_once() {
    let mut bench = Bench::new(3);
    let genesis = bench.genesis();
    assert_eq!(timeouts(&bench.tell(0, bench.timeout(0, 1, &genesis, None))), []);
    let outputs = bench.tell(1, bench.timeout(1, 1, &genesis, None));
    assert_eq!(timeouts(&outputs), [bench.timeout_data(1, 0)], "one of two is honest");
    // Its own is the third: a certificate.
    let told = |outputs: &[Output]| {
        let all = outputs.iter().filter(|output| {
            let Output::Send { to: To::All, message } = output else { return false };
            matches!(&**message, Message::Certificates { tc: Some(_), .. })
        });
        all.count()
    };
    assert_eq!((told(&outputs), bench.core.status().round), (1, Round(2)));
    assert_eq!(told(&bench.tell(2, bench.timeout(2, 1, &genesis, None))), 0);
}

#[test]
fn t_a_timeout_is_told_again_for_as_long_as_the_round_lasts_with_the_next_tick() {
    let mut bench = Bench::new(3);
    let mut ticks = Vec::new();
    for _ in 0..20 {
        bench.now = bench.core.deadline().unwrap();
        for output in bench.input(Input::Wake) {
            if let Output::Send { message, .. } = output
                && let Message::Timeout(timeout) = &*message
            {
                ticks.push(timeout.tick);
            }
        }
    }
    assert_eq!(ticks, (0..20).collect::<Vec<u32>>());
}

#[test]
fn t_a_certificate_that_hides_the_highest_claim_is_refused() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&one), None);
    for (highs, high_qc) in
        [([2, 1, 0], bench.qc(&one)), ([0, 0, 1], bench.qc(&two)), ([0, 1, 1], bench.genesis())]
    {
        let tc = bench.tc(3, highs, &high_qc);
        let message = Message::Certificates { qc: bench.genesis(), tc: Some(tc) };
        assert_eq!(bench.check(message), Err(Rejected::Inconsistent("timeout certificate")));
    }
}

#[test]
fn t_the_votes_in_timeouts_make_the_certificate_that_the_dead_collector_did_not() {
    let mut bench = Bench::new(0);
    let one = bench.block(1, 1, &bench.genesis(), None);
    bench.tell(1, Message::Proposal(one.clone()));
    bench.now = bench.core.deadline().unwrap();
    bench.input(Input::Wake);
    for seat in [1, 2] {
        let Message::Timeout(timeout) = bench.timeout(seat, 1, &bench.genesis(), None) else { continue };
        let Message::Vote(vote) = bench.vote(seat, &one) else { continue };
        bench.tell(seat, Message::Timeout(Timeout { vote: Some(vote), ..timeout }));
    }
    // The certificate of round 1, not that it timed out: the next block may build on it.
    assert_eq!(bench.core.status().round, Round(2));
    let two = bench.block(2, 2, &bench.qc(&one), None);
    assert_eq!(votes(&bench.tell(2, Message::Proposal(two))).len(), 1);
}

#[test]
fn after_a_restart_the_same_is_said_again_and_nothing_else() {
    let mut bench = Bench::new(3);
    let block = bench.block(1, 1, &bench.genesis(), None);
    let said = votes(&bench.tell(1, Message::Proposal(block)));
    assert_eq!(votes(&bench.restart()), said);
    bench.now = bench.core.deadline().unwrap();
    let timed_out = timeouts(&bench.input(Input::Wake));
    assert_eq!(timed_out, [bench.timeout_data(1, 0)]);
    // Told at once, not when the round would expire again.
    assert_eq!(timeouts(&bench.restart()), timed_out);
    // R: the round after a timeout certificate is the round after a restart, if anything was signed since.
    let tc = bench.tc(1, [0, 0, 0], &bench.genesis());
    bench.tell(0, Message::Certificates { qc: bench.genesis(), tc: Some(tc) });
    bench.now = bench.core.deadline().unwrap();
    bench.input(Input::Wake);
    bench.restart();
    assert_eq!(bench.core.status().round, Round(2));
}

#[test]
fn after_a_restart_a_leader_proposes_the_same_block() {
    let mut bench = Bench::new(1);
    let proposals = |outputs: &[Output]| -> Vec<Digest> {
        let proposal = |output: &Output| match output {
            Output::Send { message, .. } => match &**message {
                Message::Proposal(proposal) => Some(blake3_of("", &proposal.block)),
                _ => None,
            },
            _ => None,
        };
        outputs.iter().filter_map(proposal).collect()
    };
    bench.now = bench.now.after(60 * MILLI);
    let said = proposals(&bench.input(Input::Wake));
    assert_eq!(said.len(), 1);
    bench.now = bench.now.after(60 * MILLI);
    assert_eq!(proposals(&bench.restart()), said);
}

#[test]
fn certificates_without_a_quorum_of_distinct_validators_of_the_epoch_are_refused() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let whole = bench.qc(&one);
    let certificates = |qc: &Qc| Message::Certificates { qc: qc.clone(), tc: None };
    assert!(bench.check(certificates(&whole)).is_ok());
    let mut twice = whole.clone();
    twice.signatures[1] = twice.signatures[0];
    assert_eq!(bench.check(certificates(&twice)), Err(Rejected::Signature("certificate")));
    let two = bench.qc_by(&one, &[0, 1]);
    let stranger = Qc { signers: Signers::of([0, 1, 9].map(Seat)), ..whole.clone() };
    let short = Qc { signatures: whole.signatures[..2].to_vec(), ..whole.clone() };
    for less in [two, stranger, short] {
        assert_eq!(bench.check(certificates(&less)), Err(Rejected::Inconsistent("certificate")));
    }
    let tc = bench.tc(2, [1, 1, 0], &whole);
    let both = |tc: Tc| Message::Certificates { qc: Qc::genesis(&bench.committee), tc: Some(tc) };
    let mut repeated = tc.clone();
    repeated.claims[1] = repeated.claims[0];
    let mut fewer = tc.clone();
    fewer.claims.pop();
    let messages = [both(repeated), both(fewer)];
    assert!(bench.check(both(tc)).is_ok());
    for message in messages {
        let refused = bench.checker.check(&mut bench.seen, message);
        assert_eq!(refused, Err(Rejected::Inconsistent("timeout certificate")));
    }
}

#[test]
fn e_a_proof_that_proves_nothing_is_refused() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&one), None);
    let vote = |seat, block: &Proposal| match bench.vote(seat, block) {
        Message::Vote(vote) => vote,
        other => panic!("{other:?}"),
    };
    let claim = |seat: u16, round, high| Claim {
        author: Seat(seat),
        high_qc_round: Round(high),
        signature: bench.sign(seat, Domain::OrderTimeout, &bench.timeout_data(round, high)),
    };
    let header = (one.header().clone(), one.signature);
    let payload = Payload::Inline(vec![ByteBuf::from(b"other".to_vec())]);
    let other = bench.block_by(1, 1, 1, &bench.genesis(), None, payload);
    let other = (other.header().clone(), other.signature);
    let amnesia = |seat, round, high| {
        let claim = claim(seat, round, high);
        Evidence::Amnesia { vote: vote(2, &two), round: Round(round), claim }
    };
    let nothing = [
        Evidence::Proposals { one: header.clone(), other: header.clone() },
        Evidence::Proposals { one: header.clone(), other: (two.header().clone(), two.signature) },
        Evidence::Proposals { one: header.clone(), other: (other.0.clone(), header.1) },
        Evidence::Votes { one: vote(0, &one), other: vote(0, &one) },
        Evidence::Votes { one: vote(0, &one), other: vote(1, &one) },
        Evidence::Votes { one: vote(0, &one), other: vote(0, &two) },
        // It told its lock truthfully; of an earlier round; another said it.
        amnesia(2, 3, 1),
        amnesia(2, 1, 0),
        amnesia(1, 3, 0),
    ];
    let proofs = [Evidence::Proposals { one: header, other }, amnesia(2, 2, 0), amnesia(2, 3, 0)];
    for evidence in nothing {
        assert!(bench.check(Message::Evidence(evidence.clone())).is_err(), "{evidence:?}");
    }
    for evidence in proofs {
        assert!(bench.check(Message::Evidence(evidence.clone())).is_ok(), "{evidence:?}");
    }
}

#[test]
fn c_two_certificates_that_contradict_each_other_stop_the_node_with_both_as_proof() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let two = bench.block(2, 2, &bench.qc(&one), None);
    bench.tell(1, Message::Proposal(one));
    bench.tell(2, Message::Proposal(two.clone()));
    bench.tell(2, Message::Certificates { qc: bench.qc(&two), tc: None });
    // Two thirds lie.
    let payload = Payload::Inline(vec![ByteBuf::from(b"other".to_vec())]);
    let other = bench.block_by(1, 1, 1, &bench.genesis(), None, payload);
    let upon = bench.block(2, 2, &bench.qc(&other), None);
    let outputs = bench.tell(1, Message::Certificates { qc: bench.qc(&upon), tc: None });
    let alarm = |output: &Output| matches!(output, Output::Alarm(Alarm::Fork { .. }));
    assert!(outputs.iter().any(alarm) && bench.core.status().halted);
    let three = bench.block(3, 3, &bench.qc(&two), None);
    assert!(bench.tell(3, Message::Proposal(three)).is_empty());
    assert_eq!(bench.core.deadline(), None);
}

#[test]
fn b_one_author_cannot_fill_the_room_of_all_for_blocks_without_a_parent() {
    let mut bench = Bench::new(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let qc = bench.qc(&one);
    let honest = bench.block(2, 2, &qc, None);
    bench.tell(2, Message::Proposal(honest));
    for number in 0..100u8 {
        let payload = Payload::Inline(vec![ByteBuf::from(vec![number])]);
        let flood = bench.block_by(0, 2, 2, &qc, None, payload);
        bench.tell(0, Message::Proposal(flood));
    }
    assert_eq!(bench.core.kept().suspended, 1 + wattle_order::limits::SUSPENDED_PER_AUTHOR_MAX);
    // The honest one is still there, and voted for when its parent comes: its votes are for this seat.
    bench.tell(1, Message::Blocks(vec![one]));
    assert_eq!(bench.core.counts().votes, 1);
}

#[test]
fn b_while_the_disk_stands_still_nothing_piles_up_and_afterwards_the_node_goes_on() {
    let mut bench = Bench::new(3);
    bench.durable = false;
    let mut chain: Vec<Proposal> = Vec::new();
    for round in 1..=300 {
        let qc = chain.last().map_or_else(|| bench.genesis(), |last| bench.qc(last));
        let block = bench.block(round, round, &qc, None);
        bench.tell((round % 4) as u16, Message::Proposal(block.clone()));
        chain.push(block);
    }
    let records = bench.log.len() as u64;
    assert!(records < wattle_order::limits::UNPERSISTED_MAX + 8, "{records}");
    assert!(bench.core.kept().held < 300 && bench.core.status().height < Height(200));
    bench.durable = true;
    bench.input(Input::Persisted { upto: wattle_order::Seq(records) });
    assert!(bench.core.kept().held == 0);
    // By height, as whoever is far behind.
    let end = ChainEnd::Certified(Box::new(bench.qc(chain.last().unwrap())));
    let checked = bench.checker.check_chain(&mut bench.seen, chain, &end).unwrap();
    // By height, as whoever is far behind; what is too much for the disk at once is asked for again.
    let asks = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Behind { .. }));
    let outputs = bench.input(Input::Synced { blocks: checked.clone() });
    assert!(asks(&outputs));
    bench.input(Input::Synced { blocks: checked });
    assert!(bench.core.status().height >= Height(298), "{:?}", bench.core.status());
}

#[test]
fn b_who_was_far_behind_votes_as_soon_as_it_is_not_however_the_last_blocks_came() {
    let mut bench = Bench::new(3);
    let mut chain: Vec<Proposal> = Vec::new();
    for round in 1..=60 {
        let qc = chain.last().map_or_else(|| bench.genesis(), |last| bench.qc(last));
        chain.push(bench.block(round, round, &qc, None));
    }
    let far = bench.qc(&chain[58]);
    bench.tell(1, Message::Certificates { qc: far, tc: None });
    assert!(bench.core.status().syncing);
    // Some by height; the rest is told one by one, and nobody answers by height any more.
    let end = ChainEnd::Certified(Box::new(bench.qc(&chain[29])));
    let first = bench.checker.check_chain(&mut bench.seen, chain[..30].to_vec(), &end).unwrap();
    bench.input(Input::Synced { blocks: first });
    assert!(bench.core.status().syncing, "{:?}", bench.core.status());
    let mut voted = 0;
    for block in &chain[30..] {
        voted =
            votes(&bench.tell((block.header().round.0 % 4) as u16, Message::Proposal(block.clone()))).len();
    }
    assert!(!bench.core.status().syncing, "{:?}", bench.core.status());
    assert_eq!(voted, 1, "for the newest");
}

/// Attack 8: what comes with the certificate that ends an epoch counts for nothing in the next.
#[test]
fn a_timeout_certificate_whose_block_certificate_ends_the_epoch_moves_no_round_of_the_next() {
    let mut bench = Bench::new(3);
    let mut last = bench.block(1, 1, &bench.genesis(), None).block;
    last.next = Some(bench.committee.validators().clone());
    last.header.next = last.next.as_ref().map(wattle_order::Validators::digest);
    let signature = bench.sign(1, Domain::OrderProposal, &last.header.id());
    let last = Proposal::unchecked(last, signature);
    let two = bench.block(2, 2, &bench.qc(&last), None);
    bench.tell(1, Message::Proposal(last));
    bench.tell(2, Message::Proposal(two.clone()));
    let tc = bench.tc(3, [2, 2, 1], &bench.qc(&two));
    let outputs = bench.tell(0, Message::Certificates { qc: bench.genesis(), tc: Some(tc) });
    assert!(outputs.iter().any(|output| matches!(output, Output::EpochEnded { .. })));
    let status = bench.core.status();
    assert_eq!((status.epoch.0, status.round, status.height), (2, Round(1), Height(1)));
    // A8: a crash finds either epoch whole, because its last commit and its end are one record.
    let commits = bench.log.iter().filter(|record| matches!(record, Record::Commit { .. }));
    let ends =
        bench.log.iter().filter(|record| matches!(record, Record::Epoch { blocks, .. } if blocks.len() == 1));
    assert_eq!((commits.count(), ends.count()), (0, 1));
}

#[test]
fn v_a_block_that_nobody_gives_for_long_makes_no_one_stop_voting() {
    let mut bench = Bench::new(2);
    let one = bench.block(1, 1, &bench.genesis(), None);
    let qc = bench.qc(&one);
    bench.tell(1, Message::Certificates { qc: qc.clone(), tc: None });
    let mut asked_by_height = false;
    for _ in 0..100 {
        bench.now = bench.core.deadline().unwrap();
        let outputs = bench.input(Input::Wake);
        asked_by_height |= outputs.iter().any(|output| matches!(output, Output::Behind { .. }));
    }
    assert!(asked_by_height && !bench.core.status().syncing);
    bench.tell(1, Message::Proposal(one));
    let tc = bench.tc(2, [1, 1, 1], &qc);
    let three = bench.block(3, 2, &qc, Some(tc));
    assert_eq!(votes(&bench.tell(3, Message::Proposal(three))).len(), 1);
}

/// Rule K: one that starts waits for rounds that end. A log that rests ends its rest for it by the leader's block, and
/// for nobody who is no validator; the others go on resting, unless it is the leader that starts.
#[test]
fn k_a_rest_ends_for_a_validator_that_starts_by_the_leaders_word_or_for_the_leader() {
    let started = |bench: &mut Bench, from: &SecretKey| {
        let from = from.node_id();
        let outputs = bench.input(Input::Received { from, message: Sound::Started });
        let told = outputs.iter().any(|output| {
            let Output::Send { to: To::One(to), message } = output else { return false };
            *to == from && matches!(&**message, Message::Certificates { .. })
        });
        assert!(told, "whoever starts is told where the log is");
        outputs.iter().any(|output| matches!(output, Output::Build { .. }))
    };
    let (validators, stranger) = (keys(4), SecretKey::from_bytes(&[99; 32]));
    let mut leader = Bench::resting(1);
    assert!(!started(&mut leader, &stranger), "a stranger ends no rest");
    assert!(started(&mut leader, &validators[2]), "the leader proposes at once");

    let mut other = Bench::resting(3);
    let rests = other.core.deadline();
    assert!(rests > Some(other.now.after(20 * SECOND)), "{rests:?}");
    for from in [&stranger, &validators[2]] {
        started(&mut other, from);
        assert_eq!(other.core.deadline(), rests, "who does not lead goes on resting");
    }
    started(&mut other, &validators[1]);
    assert!(
        other.core.deadline() < Some(other.now.after(SECOND)),
        "the leader that has just started has a round"
    );
}

/// Who finds a block of its round on its disk knows that the rest is over: its leader had proposed.
#[test]
fn after_a_restart_a_round_that_had_begun_is_waited_for_no_longer_than_any() {
    let mut bench = Bench::resting(3);
    let one = bench.block(1, 1, &bench.genesis(), None);
    assert_eq!(votes(&bench.tell(1, Message::Proposal(one))).len(), 1);
    bench.now = bench.now.after(SECOND);
    bench.restart();
    assert!(bench.core.deadline() < Some(bench.now.after(SECOND)), "{:?}", bench.core.deadline());
    let mut fresh = Bench::resting(3);
    fresh.restart();
    assert!(fresh.core.deadline() > Some(fresh.now.after(20 * SECOND)), "{:?}", fresh.core.deadline());
}
