use std::time::Duration;

use wattle_types::SecretKey;

use super::*;
use crate::ordered::{ANSWER_BYTES_MAX, ENTRY_BYTES_MAX, LogQuota, Ordered, Position, Receipt};

/// Says how much it was asked.
struct Echo(&'static str);

impl App for Echo {
    fn id(&self) -> AppId {
        AppId(self.0)
    }

    fn kind(&self) -> &'static str {
        self.0
    }

    fn handle(&mut self, _event: AppEvent, _cx: &mut Context<'_>) {}

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        cx.reply(request.id, Ok(request.body.len().to_be_bytes().to_vec()));
    }
}

const SMALL: AppId = AppId("small/1");
const LARGE: AppId = AppId("large/1");

fn host() -> Host {
    let started = UnixTime::from_millis(1_000_000);
    let me = SecretKey::from_bytes(&[1; 32]).node_id();
    let config = Config { me, seed: [0; 32], started, quota: Quota { bytes_per_second: 1000 } };
    let mut host = Host::new(config, vec![Box::new(Echo(SMALL.0))]);
    host.register(Box::new(Echo(LARGE.0)), Quota { bytes_per_second: 1 << 20 });
    host
}

/// Asks with so many bytes; whether it was taken.
fn ask(host: &mut Host, after: Duration, app: AppId, bytes: usize) -> Result<(), RejectCode> {
    let mut out = Outbox::new();
    let input = Input::Request { id: RequestId(1), app, body: vec![0; bytes] };
    host.handle(Time::ZERO.after(after), input, &mut out);
    match out.drain().next().unwrap() {
        Output::Reply { answer, .. } => answer.map(drop).map_err(|reject| reject.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_an_app_for_more_than_its_quota_is_told_to_wait() {
    let mut host = host();
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 1500), Ok(()));
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 1500), Err(RejectCode::Later));
    assert_eq!(ask(&mut host, Duration::ZERO, LARGE, 1500), Ok(()), "each app has its own");
    assert_eq!(ask(&mut host, Duration::from_millis(1100), SMALL, 1500), Ok(()));
}

#[test]
fn what_is_more_than_a_quota_by_itself_is_taken_after_a_rest() {
    let mut host = host();
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 50_000), Ok(()));
    assert_eq!(ask(&mut host, Duration::from_secs(1), SMALL, 50_000), Err(RejectCode::Later));
    assert_eq!(ask(&mut host, Duration::from_secs(3), SMALL, 50_000), Ok(()));
}

/// Keeps what it is told in the log, as much as it may.
#[derive(Default)]
struct Kept {
    said: Vec<Vec<u8>>,
    quota: LogQuota,
}

const KEPT: AppId = AppId("kept/1");

impl App for Kept {
    fn id(&self) -> AppId {
        KEPT
    }

    fn kind(&self) -> &'static str {
        KEPT.0
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>) {
        if let AppEvent::Done { result, .. } = event {
            cx.emit(format!("{result:?}").into_bytes());
        }
    }

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        cx.propose(request.body);
    }

    fn in_log(&self) -> Option<LogQuota> {
        Some(self.quota)
    }

    fn check(&self, data: &[u8]) -> Result<(), Reject> {
        if data == b"bad" { Err(Reject::new(RejectCode::Usage, "it is bad")) } else { Ok(()) }
    }

    fn apply(&mut self, _at: Position, data: &[u8]) -> Receipt {
        self.said.push(data.to_vec());
        Ok(vec![0; 2 * ANSWER_BYTES_MAX])
    }

    fn digest(&self) -> [u8; 32] {
        keyed(&[0; 32], &self.said.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn stored(&self) -> u64 {
        self.said.iter().map(|said| said.len() as u64).sum()
    }
}

fn replica(quota: LogQuota, started: u64) -> Host {
    let me = SecretKey::from_bytes(&[1; 32]).node_id();
    let started = UnixTime::from_millis(started);
    let config = Config { me, seed: [0; 32], started, quota: Quota { bytes_per_second: 1000 } };
    Host::new(config, vec![Box::new(Echo(SMALL.0)), Box::new(Kept { said: Vec::new(), quota })])
}

/// A block with so many entries of so many bytes.
fn block(height: u64, millis: u64, count: u64, bytes: usize) -> OrderedBlock {
    let ordered = |index| Ordered {
        app: KEPT.to_string(),
        transaction: [index as u8; 32],
        index,
        data: vec![7; bytes],
    };
    OrderedBlock {
        height: Height(height),
        time: UnixTime::from_millis(millis),
        entries: (0..count).map(ordered).collect(),
    }
}

/// Applies a block; what came of it.
fn order(host: &mut Host, now: Time, block: OrderedBlock) -> Result<Executed, NotNext> {
    let mut out = Outbox::new();
    host.handle(now, Input::Order(block), &mut out);
    let executed = out.drain().find_map(|output| match output {
        Output::Executed(executed) => Some(executed),
        _ => None,
    });
    executed.unwrap()
}

fn codes(executed: &Executed) -> Vec<Option<RejectCode>> {
    executed.outcomes.iter().map(|outcome| outcome.receipt.as_ref().err().map(|reject| reject.code)).collect()
}

#[test]
fn o1_quotas_in_the_log_are_counted_in_the_blocks_times_and_alike_on_every_replica() {
    let quota = LogQuota { entries_per_second: 2, bytes_per_second: 1000, stored_bytes: 10_000 };
    let (mut one, mut other) = (replica(quota, 1), replica(quota, 999_999));
    let (taken, later) = (None, Some(RejectCode::Later));
    let steps = [
        (block(1, 5_000, 6, 10), vec![taken, taken, taken, taken, later, later]),
        (block(2, 5_400, 1, 10), vec![later]),
        (block(3, 5_600, 2, 10), vec![taken, later]),
        (block(4, 60_000, 1, 2_001), vec![later]),
        (block(5, 60_000, 2, 1_500), vec![taken, later]),
    ];
    for (step, expected) in steps {
        let executed = order(&mut one, Time::ZERO, step.clone()).unwrap();
        assert_eq!(codes(&executed), expected, "{:?}", step.height);
        // The other one is somewhere else, at another time of its own.
        let late = Time::ZERO.after(Duration::from_secs(77));
        assert_eq!(order(&mut other, late, step), Ok(executed));
    }
}

#[test]
fn o1_an_app_keeps_no_more_than_it_may_and_answers_with_no_more_than_is_kept() {
    let quota = LogQuota { stored_bytes: 1_000, ..LogQuota::default() };
    let mut host = replica(quota, 1);
    let executed = order(&mut host, Time::ZERO, block(1, 1, 3, 400)).unwrap();
    assert_eq!(codes(&executed), [None, None, Some(RejectCode::NotSaved)]);
    let answer = executed.outcomes[0].receipt.as_ref().unwrap();
    assert_eq!(answer.len(), ANSWER_BYTES_MAX);
    let large = order(&mut host, Time::ZERO, block(2, 2, 1, ENTRY_BYTES_MAX + 1)).unwrap();
    assert_eq!(codes(&large), [Some(RejectCode::Usage)]);
}

#[test]
fn o2_what_entries_came_to_is_part_of_the_root_and_so_is_an_app_that_is_not_here() {
    let mut host = replica(LogQuota::default(), 1);
    let mut refusing = replica(LogQuota { stored_bytes: 0, ..LogQuota::default() }, 1);
    let before = host.state().1;
    let mut unknown = block(1, 1, 1, 10);
    unknown.entries[0].app = "other/1".to_owned();
    let executed = order(&mut host, Time::ZERO, unknown.clone()).unwrap();
    assert_eq!(codes(&executed), [Some(RejectCode::NotFound)]);
    assert_ne!(executed.root, before, "that it came to nothing is agreed as well");
    assert_eq!(order(&mut refusing, Time::ZERO, unknown), Ok(executed));
    let next = block(2, 2, 1, 10);
    let one = order(&mut host, Time::ZERO, next.clone()).unwrap();
    let other = order(&mut refusing, Time::ZERO, next).unwrap();
    assert_ne!(one.root, other.root, "one applied it, and the other did not");
}

/// What the app was told of its proposals, and what left the host for the log.
fn told(out: &mut Outbox<Output>) -> (Vec<String>, Vec<(CallId, Vec<u8>)>) {
    let (mut said, mut proposed) = (Vec::new(), Vec::new());
    for output in out.drain() {
        match output {
            Output::Emit { event, .. } => said.push(String::from_utf8(event).unwrap()),
            Output::Propose { call, data, .. } => proposed.push((call, data)),
            _ => {}
        }
    }
    (said, proposed)
}

#[test]
fn an_app_proposes_what_it_would_apply_within_its_quota() {
    let mut host = replica(LogQuota::default(), 1);
    let mut out = Outbox::new();
    let ask = |body: Vec<u8>| Input::Request { id: RequestId(1), app: KEPT, body };
    host.handle(Time::ZERO, ask(b"good".to_vec()), &mut out);
    let (said, proposed) = told(&mut out);
    assert!(said.is_empty() && proposed.iter().map(|(_, data)| data.as_slice()).eq([b"good"]));
    host.handle(Time::ZERO, ask(b"bad".to_vec()), &mut out);
    host.handle(Time::ZERO, ask(vec![7; 1_000]), &mut out);
    assert!(told(&mut out).1.is_empty(), "neither leaves");
    assert_eq!(host.deadline(), Some(Time::ZERO));
    host.handle(Time::ZERO, Input::Wake, &mut out);
    assert_eq!(told(&mut out).0, ["Err(Refused(\"it is bad\"))", "Err(OverQuota)"]);
    assert_eq!(host.check(KEPT.0, b"bad").unwrap_err().code, RejectCode::Usage);
    let stateless = host.check(SMALL.0, b"x").unwrap_err();
    assert_eq!(stateless.code, RejectCode::NotFound, "it has no state in the log");
}

#[test]
fn who_proposes_hears_once_what_that_came_to_or_that_it_was_not_ordered() {
    let mut host = replica(LogQuota::default(), 1);
    let mut out = Outbox::new();
    let ask = |body: &[u8]| Input::Request { id: RequestId(1), app: KEPT, body: body.to_vec() };
    host.handle(Time::ZERO, ask(b"one"), &mut out);
    host.handle(Time::ZERO, ask(b"other"), &mut out);
    let (_, proposed) = told(&mut out);
    let (one, other) = (proposed[0].0, proposed[1].0);
    host.handle(Time::ZERO, Input::Handed { call: one, transaction: [0; 32] }, &mut out);
    host.handle(Time::ZERO, Input::Handed { call: other, transaction: [1; 32] }, &mut out);
    host.handle(Time::ZERO, Input::Done { call: other, result: Err(CallError::Busy) }, &mut out);
    assert_eq!(told(&mut out).0, ["Err(Busy)"]);
    // Both are ordered all the same.
    host.handle(Time::ZERO, Input::Order(block(3, 5, 2, 3)), &mut out);
    let said = told(&mut out).0;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("Ok(Ordered { at: Position { height: Height(3), index: 0"), "{said:?}");
    // Done once is done.
    host.handle(Time::ZERO, Input::Done { call: one, result: Err(CallError::Busy) }, &mut out);
    assert!(told(&mut out).0.is_empty());
}
