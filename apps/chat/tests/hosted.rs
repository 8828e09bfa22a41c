//! Chat in its host, with a test's word for what the documents answer.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

use std::collections::BTreeMap;

use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ObjType, ROOT};
use serde_bytes::ByteBuf;
use wattle_app::{
    Answer as Did, AppEvent, Authors, Call, Config, DocInfo, Host, Input, Output, Quota, Reject, RequestId,
};
use wattle_chat::{Answer, Ask, Chat, ID, KIND, Kind, Mark, Message, Said};
use wattle_types::{
    DocId, Hlc, Machine as _, NodeId, Outbox, Post, PostId, Posted, SecretKey, Time, UnixTime, cbor,
};

const DOC: DocId = DocId::from_bytes([7; 16]);

fn node(number: u8) -> NodeId {
    SecretKey::from_bytes(&[number; 32]).node_id()
}

/// Nobody vouches for anything here.
struct Nobody;

impl Authors for Nobody {
    fn of(&self, _actor: &ActorId) -> Option<NodeId> {
        None
    }
}

/// A host of chat with one room, and what was said in it.
struct Room {
    host: Host,
    automerge: Automerge,
    said: Vec<Posted>,
    requests: u64,
    replies: BTreeMap<RequestId, Result<Vec<u8>, Reject>>,
}

impl Room {
    fn new(nicks: &[(NodeId, &str)]) -> Self {
        let mut automerge = Automerge::new();
        let mut tx = automerge.transaction();
        let map = tx.put_object(ROOT, "nicks", ObjType::Map).unwrap();
        for (node, nick) in nicks {
            tx.put(&map, node.to_string(), *nick).unwrap();
        }
        tx.commit();
        let started = UnixTime::from_millis(1_000_000);
        let config = Config { me: node(1), seed: [0; 32], started, quota: Quota::default() };
        let host = Host::new(config, vec![Box::new(Chat::new())]);
        let mut room = Self { host, automerge, said: Vec::new(), requests: 0, replies: BTreeMap::new() };
        room.here(&[]);
        room
    }

    /// These members are connected.
    fn here(&mut self, who: &[NodeId]) {
        let info = DocInfo {
            doc: DOC,
            title: "dev".to_owned(),
            since: UnixTime::from_millis(1_000_000),
            may_write: true,
            members: vec![node(1), node(2), node(3), node(4)],
            here: who.iter().map(|node| (*node, false)).collect(),
            posts: 0,
            posts_missing: 0,
        };
        self.event(AppEvent::Doc(info));
    }

    fn event(&mut self, event: AppEvent) {
        self.handle(Input::Event { kind: Some(KIND.to_owned()), event });
    }

    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Outbox::new();
            self.host.handle(Time::ZERO, input, &mut out);
            for output in out.drain() {
                match output {
                    Output::Reply { request, answer } => drop(self.replies.insert(request, answer)),
                    Output::Call { call, what: Call::Read { read, .. }, .. } => {
                        inputs.push(Input::Done {
                            call,
                            result: Ok(Did::Read(read(&self.automerge, &Nobody))),
                        });
                    }
                    Output::Call { call, what: Call::Page { before, limit, .. }, .. } => {
                        let older = self.said.iter().filter(|it| before.is_none_or(|at| it.link() < at));
                        let mut page: Vec<Posted> = older.rev().take(limit).cloned().collect();
                        page.reverse();
                        inputs.push(Input::Done { call, result: Ok(Did::Page(page)) });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Something is said; it comes here at once, or was here before.
    fn say(&mut self, author: NodeId, said: &Said, heard: bool) -> PostId {
        let number = self.said.len() as u64 + 1;
        let id = PostId::from_bytes([number as u8; 32]);
        let post = Post {
            doc: DOC,
            feed: 0,
            seq: number,
            at: Hlc::at(UnixTime::from_millis(1_000_000 + number)),
            prev: None,
            seen: Vec::new(),
            body: ByteBuf::from(cbor::encode(said)),
        };
        let received = UnixTime::from_millis(1_000_000);
        let posted = Posted { id, author, post, received, late: false, forked: false };
        self.said.push(posted.clone());
        if heard {
            self.event(AppEvent::FeedGrew { doc: DOC, posts: vec![posted] });
        }
        id
    }

    fn ask(&mut self, ask: &Ask) -> Answer {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.handle(Input::Request { id, app: ID, body: cbor::encode(ask) });
        let answer = self.replies.remove(&id).unwrap().unwrap();
        cbor::decode(&answer, answer.len()).unwrap()
    }

    fn page(&mut self, limit: usize) -> Vec<Message> {
        match self.ask(&Ask::Messages { room: "dev".to_owned(), before: None, limit }) {
            Answer::Messages { messages, .. } => messages,
            other => panic!("{other:?}"),
        }
    }

    fn nicks(&mut self) -> Vec<String> {
        match self.ask(&Ask::Room { room: "dev".to_owned() }) {
            Answer::Room(room) => room.members.into_iter().map(|member| member.nick).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

#[test]
fn anothers_edit_changes_nothing_and_hides_no_edit_of_the_author() {
    for heard in [true, false] {
        let mut room = Room::new(&[]);
        let one = room.say(node(2), &text("draft"), heard);
        let two = room.say(node(2), &text("regretted"), heard);
        room.say(node(2), &Said::Edit { of: one, text: "final".to_owned() }, heard);
        room.say(node(2), &Said::Delete { of: two }, heard);
        room.say(node(3), &Said::Edit { of: one, text: "forged".to_owned() }, heard);
        room.say(node(3), &Said::Delete { of: two }, heard);
        let page = room.page(10);
        assert_eq!(page.len(), 2);
        assert_eq!((page[0].text.as_str(), page[0].edited), ("final", true));
        assert_eq!((page[1].text.as_str(), page[1].kind), ("", Kind::Deleted));
    }
}

#[test]
fn an_edit_is_applied_to_a_page_far_before_it() {
    let mut room = Room::new(&[]);
    let one = room.say(node(2), &text("draft"), false);
    for number in 0..200 {
        room.say(node(2), &text(&number.to_string()), false);
    }
    room.say(node(2), &Said::Edit { of: one, text: "final".to_owned() }, false);
    let before = Some(room.said[5].link());
    let asked = Ask::Messages { room: "dev".to_owned(), before, limit: 10 };
    let Answer::Messages { messages, before } = room.ask(&asked) else { panic!("no page") };
    assert_eq!(messages[0].text, "final");
    assert_eq!(before, None);
}

#[test]
fn two_that_call_themselves_the_same_are_told_apart() {
    let mut room =
        Room::new(&[(node(1), "me"), (node(2), "alice"), (node(3), "Ali\u{200b}ce "), (node(4), "..8L8BQw")]);
    let tail = |number: u8| node(number).short();
    let expected = [
        "me".to_owned(),
        format!("alice..{}", tail(2)),
        format!("Ali\u{200b}ce ..{}", tail(3)),
        format!("..8L8BQw..{}", tail(4)),
    ];
    assert_eq!(room.nicks(), expected);
}

#[test]
fn a_nick_that_nobody_sees_or_that_turns_text_around_is_none() {
    let nicks = [(node(2), "\u{202e}ecila"), (node(3), "\u{200b}\u{2060}"), (node(4), "a\u{1b}[2J")];
    assert_eq!(Room::new(&nicks).nicks(), ["", "", "", ""]);
}

#[test]
fn a_mark_rises_with_those_who_hold_a_message_and_is_about_those_who_are_here() {
    let mut room = Room::new(&[]);
    room.here(&[]);
    room.say(node(1), &text("hello"), true);
    let mark = |room: &mut Room| (room.page(1)[0].mark, room.page(1)[0].acks);
    assert_eq!(mark(&mut room), (Some(Mark::Local), 0), "nobody is here, nobody has it");
    room.here(&[node(2), node(3)]);
    assert_eq!(mark(&mut room), (Some(Mark::Local), 0));
    let feed = room.said[0].feed();
    let reached = |peer| AppEvent::Reached { doc: DOC, peer, feed, seq: 1 };
    room.event(reached(node(2)));
    assert_eq!(mark(&mut room), (Some(Mark::Reached), 1));
    room.event(reached(node(3)));
    assert_eq!(mark(&mut room), (Some(Mark::Everyone), 2));
    room.say(node(1), &text("more"), true);
    assert_eq!(mark(&mut room), (Some(Mark::Local), 0));
}
