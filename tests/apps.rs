//! Apps on four simulated nodes: the one that `apps/README.md` writes, and chat.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use wattle_app::AppId;
use wattle_chat::{Answer, Ask, Chat, Happened, Kind, Mark, Message, Said};
use wattle_tests::tally::Tally;
use wattle_tests::village::Village;
use wattle_types::{DocId, PostId, cbor};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_app_of_the_readme_is_the_one_that_is_tested() {
    let readme = include_str!("../apps/README.md");
    assert!(
        readme.contains(include_str!("src/tally.rs")),
        "apps/README.md shows another app than tests/src/tally.rs"
    );
}

#[test]
fn an_app_of_fifty_lines_counts_the_same_on_four_nodes() {
    let tally = AppId("tally/1");
    let mut village = Village::new(4, || Box::new(Tally::default()));
    let doc = village.ask(0, tally, Vec::new()).unwrap();
    village.invite_all(DocId::from_bytes(doc.clone().try_into().unwrap()));
    village.wait(SECOND);
    for node in 0..4 {
        village.ask(node, tally, doc.clone()).unwrap();
    }
    village.wait(10 * SECOND);
    for node in 0..4 {
        let last = village.told.iter().rfind(|(of, _)| *of == node).unwrap();
        assert_eq!(last.1, 4u64.to_be_bytes(), "node {node}");
    }
    let unknown = village.ask(1, tally, vec![9; 16]).unwrap_err();
    assert!(unknown.text.contains("no document"), "{unknown}");
}

struct Room(Village);

impl Room {
    fn new() -> Self {
        let mut room = Self(Village::new(4, || Box::new(Chat::new())));
        let Answer::Room(made) = room.ask(0, &Ask::New { name: "#dev".to_owned() }).unwrap() else {
            panic!()
        };
        room.0.invite_all(made.doc);
        room.0.wait(SECOND);
        room
    }

    fn ask(&mut self, node: usize, ask: &Ask) -> Result<Answer, wattle_app::Reject> {
        let answer = self.0.ask(node, wattle_chat::ID, cbor::encode(ask))?;
        Ok(cbor::decode(&answer, answer.len()).unwrap())
    }

    fn say(&mut self, node: usize, said: Said) -> PostId {
        match self.ask(node, &Ask::Say { room: "dev".to_owned(), said }) {
            Ok(Answer::Said { id }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn page(
        &mut self,
        node: usize,
        before: Option<wattle_types::PostLink>,
        limit: usize,
    ) -> (Vec<Message>, Option<wattle_types::PostLink>) {
        match self.ask(node, &Ask::Messages { room: "dev".to_owned(), before, limit }).unwrap() {
            Answer::Messages { messages, before } => (messages, before),
            other => panic!("{other:?}"),
        }
    }

    fn texts(&mut self, node: usize) -> Vec<String> {
        self.page(node, None, 500).0.into_iter().map(|message| message.text).collect()
    }
}

#[test]
fn a_message_is_seen_by_all_and_its_author_learns_of_it() {
    let mut room = Room::new();
    let id = room.say(2, Said::Text("hello".to_owned()));
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        let (messages, before) = room.page(node, None, 10);
        assert_eq!((messages.len(), before), (1, None), "node {node}");
        assert_eq!(
            (messages[0].id, messages[0].from, messages[0].text.as_str()),
            (id, room.0.id(2), "hello")
        );
        let mark = if node == 2 { Some(Mark::Everyone) } else { None };
        assert_eq!(
            (messages[0].mark, messages[0].acks),
            (mark, if node == 2 { 3 } else { 0 }),
            "node {node}"
        );
    }
    let heard = room.0.heard::<Happened>(1);
    assert!(heard.iter().any(|it| matches!(it, Happened::Said(message) if message.id == id)), "{heard:?}");
}

#[test]
fn an_author_edits_and_takes_back_what_is_its_own_and_nothing_else() {
    let mut room = Room::new();
    let first = room.say(1, Said::Text("helo".to_owned()));
    let second = room.say(1, Said::Text("oops".to_owned()));
    room.0.wait(5 * SECOND);
    room.say(1, Said::Edit { of: first, text: "hello".to_owned() });
    room.say(1, Said::Delete { of: second });
    // Somebody else's word about it changes nothing, whenever it comes.
    room.say(3, Said::Edit { of: first, text: "I am a fool".to_owned() });
    room.say(3, Said::Delete { of: first });
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        let (messages, _) = room.page(node, None, 10);
        let shown: Vec<_> = messages.iter().map(|it| (it.text.as_str(), it.kind, it.edited)).collect();
        assert_eq!(shown, [("hello", Kind::Text, true), ("", Kind::Deleted, true)], "node {node}");
    }
}

#[test]
fn pages_show_what_was_edited_much_later() {
    let mut room = Room::new();
    let first = room.say(0, Said::Text("first".to_owned()));
    for number in 0..30 {
        room.say(1, Said::Text(number.to_string()));
    }
    room.say(0, Said::Edit { of: first, text: "first, edited".to_owned() });
    room.0.wait(5 * SECOND);
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let (messages, more) = room.page(3, before, 7);
        assert!(messages.len() <= 7);
        all.splice(0..0, messages.into_iter().map(|message| message.text));
        before = more;
        if before.is_none() {
            break;
        }
    }
    let expected: Vec<String> =
        std::iter::once("first, edited".to_owned()).chain((0..30).map(|it| it.to_string())).collect();
    assert_eq!(all, expected);
    // A place deep in the room is answered as if everything newer had been read before.
    let mut other = Room::new();
    let first = other.say(0, Said::Text("first".to_owned()));
    let second = other.say(0, Said::Text("second".to_owned()));
    other.say(0, Said::Edit { of: first, text: "changed".to_owned() });
    other.0.wait(5 * SECOND);
    let place = other.page(0, None, 10).0.into_iter().find(|message| message.id == second).unwrap().link();
    assert_eq!(other.page(2, Some(place), 10).0[0].text, "changed");
}

#[test]
fn nicks_and_topics_reach_everyone() {
    let mut room = Room::new();
    let name = "dev".to_owned();
    room.ask(1, &Ask::Nick { room: name.clone(), nick: "bob".to_owned() }).unwrap();
    room.ask(2, &Ask::Topic { room: name.clone(), topic: "the release".to_owned() }).unwrap();
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        let Answer::Room(seen) = room.ask(node, &Ask::Room { room: name.clone() }).unwrap() else { panic!() };
        assert_eq!((seen.name.as_str(), seen.topic.as_str(), seen.members.len()), ("dev", "the release", 4));
        let bob = room.0.id(1);
        assert_eq!(seen.members.iter().find(|member| member.id == bob).unwrap().nick, "bob", "node {node}");
        assert!(seen.members.iter().all(|member| member.here && member.in_sync), "node {node}: {seen:?}");
    }
    room.ask(0, &Ask::Typing { room: name }).unwrap();
    room.0.wait(SECOND);
    let alice = room.0.id(0);
    let typing = |it: &Happened| matches!(it, Happened::Typing { from, .. } if *from == alice);
    assert!(room.0.heard::<Happened>(3).iter().any(typing));
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let mut room = Room::new();
    let say = |said| Ask::Say { room: "dev".to_owned(), said };
    for (ask, words) in [
        (Ask::New { name: "dev".to_owned() }, "already"),
        (Ask::New { name: "a b".to_owned() }, "letters"),
        (Ask::New { name: String::new() }, "letters"),
        (Ask::Room { room: "ops".to_owned() }, "no room"),
        (say(Said::Text(" \n".to_owned())), "nothing to say"),
        (say(Said::Text("x".repeat(20_000))), "20000 bytes"),
        (Ask::Nick { room: "dev".to_owned(), nick: "x".repeat(33) }, "32 characters"),
    ] {
        let refused = room.ask(1, &ask).unwrap_err();
        assert!(refused.text.contains(words), "{ask:?}: {refused}");
    }
    assert!(room.texts(0).is_empty());
    let garbage = room.0.ask(0, wattle_chat::ID, vec![0xff; 9]).unwrap_err();
    assert!(garbage.text.contains("understand"), "{garbage}");
    let nobody = room.0.ask(0, AppId("nothing/1"), Vec::new()).unwrap_err();
    assert!(nobody.text.contains("no app"), "{nobody}");
}
