//! Register in its host, on two replicas of one log.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

use serde_bytes::ByteBuf;
use wattle_app::{
    CallId, Config, Corrupt, Executed, Height, Host, Input, NotNext, Ordered, OrderedBlock, Output, Position,
    Quota, Reject, RejectCode, RequestId,
};
use wattle_register::{Answer, Ask, Change, ID, LINE_BYTES_MAX, Register};
use wattle_types::{ContentHash, Machine as _, Outbox, SecretKey, Time, UnixTime, cbor};

struct Replica {
    host: Host,
    out: Vec<Output>,
}

impl Replica {
    fn new(number: u8) -> Self {
        let me = SecretKey::from_bytes(&[number; 32]).node_id();
        // Nothing of its own may show in the log: another clock and another seed.
        let started = UnixTime::from_millis(1_000_000 * u64::from(number));
        let config = Config { me, seed: [number; 32], started, quota: Quota::default() };
        Self { host: Host::new(config, vec![Box::new(Register::new())]), out: Vec::new() }
    }

    fn input(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.host.handle(Time::ZERO, input, &mut out);
        self.out.extend(out.drain());
    }

    fn ask(&mut self, id: u64, ask: &Ask) {
        self.input(Input::Request { id: RequestId(id), app: ID, body: cbor::encode(ask) });
    }

    /// Takes the first output that is meant.
    fn take<T>(&mut self, meant: impl Fn(&Output) -> Option<T>) -> Option<T> {
        let (place, found) =
            self.out.iter().enumerate().find_map(|(place, output)| Some((place, meant(output)?)))?;
        self.out.remove(place);
        Some(found)
    }

    fn answer(&mut self, id: u64) -> Option<Result<Answer, Reject>> {
        let answer = self.take(|output| match output {
            Output::Reply { request, answer } if *request == RequestId(id) => Some(answer.clone()),
            _ => None,
        });
        answer.map(|answer| answer.map(|bytes| cbor::decode(&bytes, 1 << 26).unwrap()))
    }

    fn proposed(&mut self) -> Option<(CallId, Vec<u8>)> {
        self.take(|output| match output {
            Output::Propose { call, data, .. } => Some((*call, data.clone())),
            _ => None,
        })
    }

    fn order(&mut self, block: &OrderedBlock) -> Result<Executed, NotNext> {
        self.input(Input::Order(block.clone()));
        let executed = self.take(|output| match output {
            Output::Executed(executed) => Some(executed.clone()),
            _ => None,
        });
        executed.unwrap()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(Height, [u8; 32]), Corrupt> {
        self.input(Input::Restore(bytes.to_vec()));
        let restored = self.take(|output| match output {
            Output::Restored(restored) => Some(restored.clone()),
            _ => None,
        });
        restored.unwrap()
    }

    /// The lines of a register, from a number on.
    fn read(&mut self, register: &str, from: Option<u64>, limit: usize) -> Vec<Vec<u8>> {
        self.ask(99, &Ask::Read { register: register.to_owned(), from, limit });
        match self.answer(99).unwrap() {
            Ok(Answer::Lines { lines, .. }) => lines.into_iter().map(|line| line.line.into_vec()).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn append(register: &str, line: &[u8]) -> Vec<u8> {
    cbor::encode(&Change::Append { register: register.to_owned(), line: ByteBuf::from(line.to_vec()) })
}

fn hash(data: &[u8]) -> [u8; 32] {
    *ContentHash::of(data).as_bytes()
}

fn block(height: u64, entries: &[Vec<u8>]) -> OrderedBlock {
    let ordered = |(index, data): (u64, &Vec<u8>)| Ordered {
        app: ID.to_string(),
        transaction: hash(data),
        index,
        data: data.clone(),
    };
    let entries = (0..).zip(entries).map(ordered).collect();
    OrderedBlock { height: Height(height), time: UnixTime::from_millis(1000 * height), entries }
}

#[test]
fn g1_who_appends_hears_the_number_and_every_replica_reads_the_same() {
    let (mut one, mut other) = (Replica::new(1), Replica::new(2));
    let line = ByteBuf::from(b"first".to_vec());
    one.ask(1, &Ask::Append { register: "births".to_owned(), line });
    assert_eq!(one.answer(1), None, "it is not ordered yet");
    let (call, data) = one.proposed().unwrap();
    one.input(Input::Handed { call, transaction: hash(&data) });
    let ordered = block(1, &[append("births", b"zeroth"), data]);
    let executed = one.order(&ordered).unwrap();
    assert_eq!(other.order(&ordered), Ok(executed), "one log, one state");
    let at = Position { height: Height(1), index: 1, time: UnixTime::from_millis(1000) };
    assert_eq!(one.answer(1), Some(Ok(Answer::Appended { number: 1, at })));
    for replica in [&mut one, &mut other] {
        assert_eq!(replica.read("births", None, 10), [b"zeroth".to_vec(), b"first".to_vec()]);
    }
}

#[test]
fn lines_are_read_from_a_number_on_and_else_the_newest() {
    let mut replica = Replica::new(1);
    let lines: Vec<Vec<u8>> = (0..20u8).map(|line| append("a", &[line])).collect();
    replica.order(&block(1, &lines)).unwrap();
    assert_eq!(replica.read("a", None, 3), [[17], [18], [19]]);
    assert_eq!(replica.read("a", Some(4), 2), [[4], [5]]);
    assert!(replica.read("a", Some(20), 2).is_empty());
    replica.ask(1, &Ask::Read { register: "b".to_owned(), from: None, limit: 1 });
    assert_eq!(replica.answer(1).unwrap().unwrap_err().code, RejectCode::NotFound);
    replica.ask(2, &Ask::List);
    let Some(Ok(Answer::List(all))) = replica.answer(2) else { panic!("no list") };
    assert!(all.iter().map(|one| (one.register.as_str(), one.count)).eq([("a", 20)]));
}

#[test]
fn what_makes_no_sense_is_refused_at_once_and_changes_nothing_when_it_is_ordered_all_the_same() {
    let mut replica = Replica::new(1);
    let (long, large) = ("n".repeat(65), vec![7; LINE_BYTES_MAX + 1]);
    let bad: [(&str, &[u8]); 4] = [("", b"x"), ("no spaces", b"x"), (&long, b"x"), ("a", &large)];
    for (register, line) in bad {
        let ask = Ask::Append { register: register.to_owned(), line: ByteBuf::from(line.to_vec()) };
        replica.ask(1, &ask);
        assert_eq!(replica.answer(1).unwrap().unwrap_err().code, RejectCode::Usage, "{register}");
        assert_eq!(replica.proposed(), None);
        assert!(replica.host.check(ID.0, &append(register, line)).is_err());
    }
    assert_eq!(replica.host.check(ID.0, &append("a", b"x")), Ok(()));
    assert_eq!(replica.host.check("other/1", b"x").unwrap_err().code, RejectCode::NotFound);
    let ordered = block(1, &[b"no change".to_vec(), append("", b"x"), append("a", b"x")]);
    let executed = replica.order(&ordered).unwrap();
    let good: Vec<bool> = executed.outcomes.iter().map(|outcome| outcome.receipt.is_ok()).collect();
    assert_eq!(good, [false, false, true]);
    assert_eq!(replica.read("a", None, 10), [b"x".to_vec()]);
}

#[test]
fn another_line_or_another_order_is_another_state() {
    let state = |entries: &[Vec<u8>]| Replica::new(1).order(&block(1, entries)).unwrap().root;
    let both = [append("a", b"1"), append("a", b"2")];
    let turned = [append("a", b"2"), append("a", b"1")];
    assert_ne!(state(&both), state(&turned));
    assert_ne!(state(&both), state(&both[..1]));
    assert_ne!(state(&[append("a", b"1")]), state(&[append("b", b"1")]));
    assert_eq!(state(&both), state(&both));
}

#[test]
fn o3_blocks_are_applied_ascending_and_each_once() {
    let mut replica = Replica::new(1);
    let third = block(3, &[append("a", b"3")]);
    replica.order(&third).unwrap();
    let state = replica.host.state();
    for height in [3, 2] {
        let again = replica.order(&block(height, &[append("a", b"more")]));
        assert_eq!(again, Err(NotNext { got: Height(height), applied: Height(3) }));
    }
    assert_eq!(replica.read("a", None, 10), [b"3".to_vec()]);
    assert_eq!(replica.host.state(), state);
}

#[test]
fn o4_a_snapshot_makes_the_state_again_and_one_with_a_bit_elsewhere_makes_none() {
    let mut one = Replica::new(1);
    for height in 1..4 {
        one.order(&block(height, &[append("b", b"same"), append("a", &[height as u8])])).unwrap();
    }
    let snapshot = one.host.snapshot();
    let mut other = Replica::new(2);
    assert_eq!(other.restore(&snapshot), Ok(one.host.state()));
    assert_eq!(other.read("a", None, 10), one.read("a", None, 10));
    let next = block(4, &[append("a", b"more")]);
    assert_eq!(one.order(&next), other.order(&next), "both go on alike");
    let before = other.host.state();
    for bit in 0..snapshot.len() * 8 {
        let mut bad = snapshot.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let restored = other.restore(&bad);
        assert!(restored.is_err(), "bit {bit} elsewhere: {restored:?}");
        assert_eq!(other.host.state(), before, "nothing changed");
    }
}
