//! Apps on four simulated nodes: the one that `apps/README.md` writes, and chat.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use wattle_app::AppId;
use wattle_chat::{Answer, Ask, Chat, Happened, Kept, KeptId, Kind, Mark, Message, Said};
use wattle_pad::{Ask as PadAsk, Pad, Refusal};
use wattle_tests::tally::Tally;
use wattle_tests::village::Village;
use wattle_types::{DocId, Hlc, PostId, UnixTime, cbor};

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
        Self::with_clocks([Duration::ZERO; 4])
    }

    fn with_clocks(clocks: [Duration; 4]) -> Self {
        let mut room = Self(Village::with_clocks(&clocks, || Box::new(Chat::new())));
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

    /// Says what a program kept, as one does that does not know what became of its first attempt.
    fn once(&mut self, node: usize, id: u64, written: UnixTime, text: &str, after: Option<Hlc>) -> PostId {
        let kept = Kept { id: KeptId(id), written, action: false, text: text.to_owned() };
        match self.ask(node, &Ask::SayOnce { room: "dev".to_owned(), kept, after }) {
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
    // Somebody else's word about it changes nothing, whoever it is and whenever it comes.
    let others = room.say(3, Said::Text("mine too".to_owned()));
    for (author, of) in [(1, first), (3, others)] {
        for other in (0..4).filter(|other| *other != author) {
            room.say(other, Said::Edit { of, text: "I am a fool".to_owned() });
            room.say(other, Said::Delete { of });
        }
    }
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        let (messages, _) = room.page(node, None, 10);
        let shown: Vec<_> = messages.iter().map(|it| (it.text.as_str(), it.kind, it.edited)).collect();
        let mine = ("mine too", Kind::Text, false);
        assert_eq!(shown, [("hello", Kind::Text, true), ("", Kind::Deleted, true), mine], "node {node}");
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
    // Nor does a node remember what it saw before it was restarted.
    other.0.restart(2, Box::new(Chat::new()));
    other.0.wait(SECOND);
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

#[test]
fn what_a_program_kept_is_said_once_also_after_a_restart_and_behind_a_thousand_messages() {
    let mut room = Room::new();
    let before = room.say(0, Said::Text("before".to_owned()));
    room.0.wait(SECOND);
    let after = room.page(1, None, 1).0[0].at;
    assert_eq!(room.page(1, None, 1).0[0].id, before);
    let written = UnixTime::from_millis(1_800_000_000_000);
    let first = room.once(1, 7, written, "kept", None);
    // The answer was lost: it is asked for again, by another program too, at once and after others spoke.
    assert_eq!(room.once(1, 7, written, "kept", Some(after)), first);
    for number in 0..1200 {
        room.say(0, Said::Text(number.to_string()));
    }
    room.0.restart(1, Box::new(Chat::new()));
    room.0.wait(5 * SECOND);
    assert_eq!(room.once(1, 7, written, "kept", Some(after)), first);
    room.0.restart(1, Box::new(Chat::new()));
    assert_eq!(room.once(1, 7, written, "kept", Some(Hlc::default())), first, "none is known before it");
    // Another number is another message, and so is the same number of somebody else.
    assert_ne!(room.once(1, 8, written, "kept", Some(after)), first);
    assert_ne!(room.once(2, 7, written, "kept", Some(after)), first);
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let (messages, more) = room.page(node, before, 500);
            all.splice(0..0, messages);
            before = more;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(all.len(), 1 + 1200 + 3, "node {node}");
        assert_eq!(all.iter().filter(|message| message.text == "kept").count(), 3, "node {node}");
    }
}

#[test]
fn two_programs_that_ask_for_one_kept_message_at_the_same_time_get_one_answer() {
    let mut room = Room::new();
    room.0.restart(0, Box::new(Chat::new()));
    let kept =
        Kept { id: KeptId(3), written: UnixTime::from_millis(0), action: true, text: "waves".to_owned() };
    let ask = Ask::SayOnce { room: "dev".to_owned(), kept, after: Some(Hlc::default()) };
    let answers = room.0.ask_all(0, wattle_chat::ID, vec![cbor::encode(&ask); 3]);
    let ids: Vec<Answer> =
        answers.into_iter().map(|it| it.unwrap()).map(|it| cbor::decode(&it, it.len()).unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(room.page(0, None, 10).0.iter().filter(|it| it.kind == Kind::Action).count(), 1);
}

#[test]
fn what_was_kept_long_is_late_and_says_when_it_was_written() {
    let mut room = Room::new();
    let earlier = room.0.clock(1);
    room.0.wait(60 * SECOND);
    let now = room.0.clock(1);
    let long = room.once(1, 1, earlier, "on the train", None);
    let short = room.once(1, 2, room.0.clock(1), "at once", None);
    // Nobody writes in the future.
    let ahead = room.once(1, 3, now.after(3600 * SECOND), "tomorrow", None);
    room.0.wait(5 * SECOND);
    let messages = room.page(3, None, 10).0;
    let of = |id| messages.iter().find(|message| message.id == id).unwrap();
    assert_eq!((of(long).late, of(long).written), (true, earlier));
    assert!(!of(short).late && !of(ahead).late);
    assert_eq!(of(ahead).written, of(ahead).at.wall());
    // Its place is where it was sent: what was read before it stays before it.
    assert!(messages.is_sorted_by_key(|message| message.at));
}

#[test]
fn clocks_a_minute_apart_change_nothing_in_the_order_of_a_talk() {
    let clocks = [0, 60, 0, 30].map(Duration::from_secs);
    let mut room = Room::with_clocks(clocks);
    let mut said = Vec::new();
    for round in 0..5 {
        for node in [1, 0, 3, 2] {
            let text = format!("{round} {node}");
            room.say(node, Said::Text(text.clone()));
            room.0.wait(SECOND);
            said.push(text);
        }
    }
    room.0.wait(5 * SECOND);
    for node in 0..4 {
        assert_eq!(room.texts(node), said, "node {node}: each had read what it answers to");
    }
}
struct Pads(Village);

impl Pads {
    /// Four nodes that share a document with this text.
    fn new(text: &str) -> (Self, DocId) {
        let mut pads = Self(Village::new(4, || Box::new(Pad::default())));
        let new = PadAsk::New { title: "notes".to_owned(), text: text.as_bytes().to_vec() };
        let Ok(wattle_pad::Answer::Made { doc }) = pads.ask(0, &new) else { panic!() };
        pads.0.invite_all(doc);
        pads.0.wait(SECOND);
        (pads, doc)
    }

    fn ask(&mut self, node: usize, ask: &PadAsk) -> Result<wattle_pad::Answer, Refusal> {
        let answer = self.0.ask(node, wattle_pad::ID, cbor::encode(ask)).unwrap();
        cbor::decode(&answer, answer.len()).unwrap()
    }

    fn text(&mut self, node: usize, doc: DocId) -> (String, Vec<wattle_pad::Hash>) {
        match self.ask(node, &PadAsk::Content { doc, at: String::new(), path: None }) {
            Ok(wattle_pad::Answer::Content { text, heads, .. }) => (text.unwrap(), heads),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pad_merges_what_two_write_apart_and_names_them_on_every_node() {
    let (mut pads, doc) = Pads::new("one\ntwo\n");
    let (text, heads) = pads.text(3, doc);
    assert_eq!(text, "one\ntwo\n");
    let write = |text: &str| PadAsk::Write { doc, at: Some(heads.clone()), text: text.as_bytes().to_vec() };
    let made = |answer| match answer {
        Ok(wattle_pad::Answer::Written { change, lines_added, .. }) => (change.unwrap(), lines_added),
        other => panic!("{other:?}"),
    };
    let first = made(pads.ask(1, &write("one!\ntwo\n")));
    made(pads.ask(2, &write("one\ntwo!\n")));
    assert_eq!(made(pads.ask(1, &write("one!\ntwo\n"))), first, "an edit whose answer got lost is made once");
    pads.0.wait(10 * SECOND);
    for node in 0..4 {
        assert_eq!(pads.text(node, doc).0, "one!\ntwo!\n", "node {node}");
        let history = PadAsk::History { doc, since: String::new(), limit: 10, each: false };
        let Ok(wattle_pad::Answer::History { steps, title, .. }) = pads.ask(node, &history) else { panic!() };
        let authors: std::collections::BTreeSet<_> = steps.iter().filter_map(|step| step.author).collect();
        assert_eq!((title.as_str(), authors.len()), ("notes", 3), "node {node}: {steps:?}");
    }
}

#[test]
fn a_file_that_pad_exports_becomes_a_document_with_the_same_history() {
    let (mut pads, doc) = Pads::new("one\n");
    let export = PadAsk::Export { doc, format: wattle_pad::FileFormat::Automerge };
    let Ok(wattle_pad::Answer::Exported { bytes, .. }) = pads.ask(1, &export) else { panic!() };
    let import = |bytes| PadAsk::Import { name: "copy.automerge".to_owned(), title: None, bytes };
    let Ok(wattle_pad::Answer::Made { doc: copy }) = pads.ask(2, &import(bytes.clone())) else { panic!() };
    assert_ne!(copy, doc);
    assert_eq!(pads.text(2, copy).0, "one\n");
    let broken = pads.ask(2, &import(bytes[..bytes.len() - 1].to_vec())).unwrap_err();
    assert!(matches!(broken, Refusal::Damaged(_)), "{broken:?}");
}

#[test]
fn pad_refuses_in_words_what_makes_no_sense() {
    let (mut pads, doc) = Pads::new("one\n");
    let at = |at: &str| PadAsk::Content { doc, at: at.to_owned(), path: None };
    assert!(matches!(pads.ask(0, &at("zebra")), Err(Refusal::NotAVersion(_))));
    assert!(matches!(pads.ask(0, &at("abcdef")), Err(Refusal::NoSuchVersion(_))));
    let set = PadAsk::Set { doc, path: "a..b".to_owned(), json: "1".to_owned() };
    assert!(matches!(pads.ask(0, &set), Err(Refusal::Refused(_))));
    let binary = PadAsk::Write { doc, at: None, text: vec![0xff; 9] };
    let refused = pads.ask(0, &binary).unwrap_err();
    assert!(refused.to_string().contains("not a text file"), "{refused}");
    let nobody = PadAsk::Content { doc: DocId::from_bytes([9; 16]), at: String::new(), path: None };
    let unknown = pads.ask(0, &nobody).unwrap_err();
    assert!(matches!(unknown, Refusal::Call(wattle_app::CallError::Unknown(_))), "{unknown:?}");
}
