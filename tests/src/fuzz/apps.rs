//! What apps are told by who shares a document with this node, and what anybody writes to a log for them.

use serde_bytes::ByteBuf;
use wattle_app::{
    Answer as Did, App as _, AppEvent, Authors, Call, Config, DocInfo, Height, Host, Input, Output, Position,
    Quota, RequestId,
};
use wattle_chat::{Answer, Ask, Chat, ID, KIND};
use wattle_register::Register;
use wattle_types::{DocId, Hlc, Machine as _, NodeId, Outbox, Post, PostId, Posted, Time, UnixTime, cbor};

use super::members::key;
use super::parts;
use crate::overlay::fail;

const ROOM: DocId = DocId::from_bytes([7; 16]);
const STARTED: UnixTime = UnixTime::from_millis(1_800_000_000_000);

struct Nobody;

impl Authors for Nobody {
    fn of(&self, _actor: &automerge::ActorId) -> Option<NodeId> {
        None
    }
}

/// A host of chat with one room, and what was said in it.
struct Room {
    host: Host,
    said: Vec<Posted>,
    answers: Vec<Vec<u8>>,
}

impl Room {
    fn new() -> Self {
        let config =
            Config { me: key(1).node_id(), seed: [0; 32], started: STARTED, quota: Quota::default() };
        let host = Host::new(config, vec![Box::new(Chat::new())]);
        let mut room = Self { host, said: Vec::new(), answers: Vec::new() };
        let info = DocInfo {
            doc: ROOM,
            title: "dev".to_owned(),
            since: STARTED,
            may_write: true,
            members: vec![key(1).node_id(), key(2).node_id()],
            here: [(key(2).node_id(), true)].into(),
            posts: 0,
            posts_missing: 0,
        };
        room.event(AppEvent::Doc(info));
        room
    }

    fn event(&mut self, event: AppEvent) {
        self.handle(Input::Event { kind: Some(KIND.to_owned()), event });
    }

    fn handle(&mut self, input: Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.host.handle(Time::ZERO, input, &mut out);
            for output in out.drain() {
                match output {
                    Output::Reply { answer, .. } => self.answers.extend(answer),
                    Output::Call { call, what: Call::Read { read, .. }, .. } => {
                        let read = read(&automerge::Automerge::new(), &Nobody);
                        todo.push(Input::Done { call, result: Ok(Did::Read(read)) });
                    }
                    Output::Call { call, what: Call::Page { before, limit, .. }, .. } => {
                        let older = self.said.iter().filter(|it| before.is_none_or(|at| it.link() < at));
                        let mut page: Vec<Posted> = older.rev().take(limit).cloned().collect();
                        page.reverse();
                        todo.push(Input::Done { call, result: Ok(Did::Page(page)) });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What the other member of a room says, each behind a byte and its length; the byte says whether it is an entry of a
/// feed or something in passing.
pub(super) fn room(bytes: &[u8]) {
    let mut room = Room::new();
    let from = key(2).node_id();
    for (how, body) in parts(bytes) {
        if how % 2 == 1 {
            room.event(AppEvent::Signal { doc: ROOM, from, bytes: body.to_vec() });
            continue;
        }
        let number = room.said.len() as u64 + 1;
        let post = Post {
            doc: ROOM,
            feed: 0,
            seq: number,
            at: Hlc::at(UnixTime::from_millis(STARTED.as_millis() + number)),
            prev: None,
            seen: Vec::new(),
            body: ByteBuf::from(body),
        };
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let id = PostId::from_bytes(id);
        let posted = Posted { id, author: from, post, received: STARTED, late: false, forked: false };
        room.said.push(posted.clone());
        room.event(AppEvent::FeedGrew { doc: ROOM, posts: vec![posted] });
    }
    let ask = Ask::Messages { room: "dev".to_owned(), before: None, limit: 50 };
    room.handle(Input::Request { id: RequestId(1), app: ID, body: cbor::encode(&ask) });
    let answer = room.answers.pop().and_then(|answer| cbor::decode(&answer, answer.len()).ok());
    let Some(Answer::Messages { messages, .. }) = answer else { fail("a room can be read whatever is said") };
    assert!(messages.len() <= room.said.len(), "nobody says more than was said");
    assert!(messages.iter().all(|message| message.from == from), "nobody speaks in another's name");
}

/// What somebody wrote to a log for the register, each behind a byte and its length; with an odd byte it is a state.
pub(super) fn register(bytes: &[u8]) {
    let mut register = Register::new();
    for (height, (how, data)) in (1..).zip(parts(bytes)) {
        if how % 2 == 1 {
            let mut other = Register::new();
            if other.restore(data).is_ok() {
                assert_eq!(other.snapshot(), data, "a state has one spelling");
            }
            continue;
        }
        let before = register.digest();
        let may = register.check(data);
        let at = Position { height: Height(height), index: 0, time: STARTED };
        let receipt = register.apply(at, data);
        assert!(may.is_ok() || receipt.is_err(), "what is not taken is not applied");
        assert_eq!(
            receipt.is_err(),
            register.digest() == before,
            "what is applied shows, and nothing else does"
        );
    }
    let mut again = Register::new();
    assert!(again.restore(&register.snapshot()).is_ok(), "a state can be gone on from");
    assert_eq!((again.digest(), again.stored()), (register.digest(), register.stored()), "as it was");
}
