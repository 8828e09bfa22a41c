use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::draw::draw;
use super::super::model::{Mark, Place};
use super::*;

/// 2026-11-22 10:41 UTC.
const MORNING: i64 = 1_795_344_060;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(MORNING + minute * 60).unwrap()
}

fn room(name: &str, unread: u64) -> Room {
    let sync = Sync { have: 312, known: 312, with: 4, peers: 4 };
    Room { id: format!("id-{name}"), name: name.to_owned(), unread, here: 4, members: 5, sync, topic: None }
}

/// A message of minute `minute`, which is also its place.
fn message(minute: i64, nick: &str, text: &str) -> Message {
    let sent = at(minute);
    Message {
        id: format!("m{minute}-{nick}"),
        place: Place(u64::try_from(sent.as_millisecond()).unwrap(), nick.to_owned()),
        author: format!("12D3KooW{nick}"),
        nick: nick.to_owned(),
        own: nick == "alice",
        sent,
        kind: Kind::Text,
        text: text.to_owned(),
        edited: false,
        deleted: false,
        mark: Mark::Local,
        late: false,
        flagged: false,
    }
}

fn late(minute: i64, nick: &str, text: &str) -> Message {
    Message { late: true, ..message(minute, nick, text) }
}

fn member(nick: &str, presence: Presence, path: Option<&str>) -> Member {
    let path = path.map(str::to_owned);
    Member { id: format!("12D3KooW{nick}"), nick: nick.to_owned(), own: nick == "alice", presence, path }
}

struct Chat(Screen);

impl Chat {
    /// A room with two others, and a few messages.
    fn start(width: u16, height: u16) -> Self {
        let look = Look { color: false, zone: TimeZone::UTC };
        let mut chat = Self(Screen::new(look, at(3), (width, height)));
        chat.on(Event::Rooms(vec![room("dev", 0), room("ops", 2)]));
        assert_eq!(chat.on(Event::Open("id-dev".to_owned())), [Action::OpenRoom("id-dev".to_owned())]);
        let members = vec![
            member("dave", Presence::Behind, None),
            member("bob", Presence::Here, Some("1 ms")),
            member("alice", Presence::Here, None),
            member("carol", Presence::Here, Some("38 ms relay")),
            member("erin", Presence::Offline(Some(at(-60))), None),
        ];
        chat.on(Event::Members("id-dev".to_owned(), members));
        let mut mine = message(1, "alice", "yes, wattle ui -> Lookup");
        mine.mark = Mark::Everyone;
        chat.batch(vec![message(0, "bob", "did the lookup animation land?"), mine]);
        chat
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.0.on(event)
    }

    fn batch(&mut self, messages: Vec<Message>) {
        let room = "id-dev".to_owned();
        self.on(Event::Batch(Batch { room, messages, before: None, newest: true }));
    }

    fn arrive(&mut self, message: Message) {
        self.on(Event::Message("id-dev".to_owned(), Box::new(message)));
    }

    fn key(&mut self, code: KeyCode) -> Vec<Action> {
        self.on(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn control(&mut self, c: char) -> Vec<Action> {
        self.on(Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
    }

    /// Types a line; gives what was asked for beside telling that somebody types.
    fn types(&mut self, text: &str) -> Vec<Action> {
        let mut actions: Vec<Action> = text.chars().flat_map(|c| self.key(KeyCode::Char(c))).collect();
        actions.retain(|action| !matches!(action, Action::Typing(_)));
        actions
    }

    fn line(&mut self, text: &str) -> Vec<Action> {
        let mut actions = self.types(text);
        actions.extend(self.key(KeyCode::Enter));
        actions
    }

    /// What the window shows, and where the cursor is.
    fn screen(&self) -> (String, (u16, u16)) {
        let (width, height) = self.0.size;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(&self.0, frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let mut text = String::new();
        for y in 0..height {
            let mut x = 0;
            let mut line = String::new();
            while x < width {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                x += u16::try_from(super::super::text::columns(symbol).max(1)).unwrap();
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let cursor = terminal.get_cursor_position().unwrap();
        (text, (cursor.x, cursor.y))
    }

    fn text(&self) -> String {
        self.screen().0
    }

    fn status(&self) -> &str {
        self.0.status.as_ref().map_or("", |status| &status.text)
    }
}

#[track_caller]
fn shows(chat: &Chat, expected: &str) {
    let text = chat.text();
    let expected: String =
        expected.trim_matches('\n').lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert!(text == expected, "is:\n{text}\nexpected:\n{expected}");
}

#[test]
fn a_window_of_eighty_columns_shows_rooms_messages_and_members() {
    let mut chat = Chat::start(80, 12);
    chat.types("中文");
    shows(
        &chat,
        r"
 #dev  4 here                                  synced with 4 of 4, 312 messages
-- rooms |                                                  | * you  here
>#dev    |                                                  | * bob  1 ms
 #ops    |                                                  | * carol  38 ms re~
         |                                                  | ~ dave  fetching
         |                                                  |   erin  offline 1~
         |                                                  |
         | 10:41 bob     did the lookup animation land?     |
         | 10:42 you     yes, wattle ui -> Lookup       (**)|
--------------------------------------------------------------------------------
> 中文
 () not sent yet   (*) reached 1+ peer   (**) everyone here has it        /help
",
    );
    assert_eq!(chat.screen().1, (6, 10), "two wide characters after the prompt");
}

#[test]
fn a_narrow_window_shows_the_messages_alone() {
    let mut chat = Chat::start(40, 12);
    chat.arrive(message(2, "小林", "我們今天晚上一起去看電影好不好？然後吃飯。"));
    chat.on(Event::Typing("id-dev".to_owned(), "bob".to_owned()));
    shows(
        &chat,
        r"
 #dev  4 here                synced 4/4




10:41 bob did the lookup animation land?
10:42 you yes, wattle ui -> Lookup  (**)
10:43 小林 我們今天晚上一起去看電影好不
  好？然後吃飯。
-- bob is typing -----------------------
>
 /help  Ctrl-N next room  Ctrl-K search
",
    );
}

#[test]
fn messages_that_came_late_stand_in_their_place_and_a_line_leads_to_them() {
    let mut chat = Chat::start(112, 12);
    for minute in [-89, -88, -87] {
        chat.arrive(late(minute, "carol", "train, no signal"));
    }
    shows(
        &chat,
        r"
 #dev  4 here                                                                  synced with 4 of 4, 312 messages
-- rooms |                                                                               | * you  here
>#dev    | -- 3 late messages from carol (written 09:12-09:14 while offline) --          | * bob  1 ms
 #ops    | 09:12 carol ~ train, no signal                                                | * carol  38 ms relay
         | 09:13 carol ~ train, no signal                                                | ~ dave  fetching
         | 09:14 carol ~ train, no signal                                                |   erin  offline 1h03m
         | 10:41 bob     did the lookup animation land?                                  |
         | 10:42 you     yes, wattle ui -> Lookup                                    (**)|
         | -- Ctrl-G: 3 late messages from carol (written 09:12-09:14 while offline) --  |
----------------------------------------------------------------------------------------------------------------
>
 () not sent yet   (*) reached 1+ peer   (**) everyone here has it       /help  Ctrl-N next room  Ctrl-K search
",
    );
    assert!(chat.control('g').is_empty());
    assert_eq!(chat.0.found.as_deref(), Some("m-89-carol"));
}

#[test]
fn any_size_can_be_drawn() {
    let mut chat = Chat::start(80, 24);
    chat.arrive(message(2, "小林", "我們今天晚上一起去看電影好不好？"));
    chat.types("中文👨\u{200d}👩\u{200d}👧 a long line that needs several rows of the editor to be shown");
    for width in 0..130 {
        for height in [0, 1, 5, 6, 7, 12, 24] {
            chat.on(Event::Resize(width, height));
            if width == 0 || height == 0 {
                chat.key(KeyCode::PageUp);
                continue;
            }
            let (_, (x, y)) = chat.screen();
            assert!(x < width && y < height, "{width}x{height}: {x},{y}");
            chat.key(KeyCode::PageUp);
            chat.screen();
        }
    }
}

#[test]
fn a_peer_cannot_drive_the_terminal_by_any_name_or_text() {
    let evil = "a\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}z\r\u{200b}";
    let mut chat = Chat::start(100, 24);
    chat.arrive(Message { nick: evil.to_owned(), ..late(-20, "m", evil) });
    chat.arrive(Message { nick: evil.to_owned(), flagged: true, ..message(2, "n", evil) });
    chat.on(Event::Rooms(vec![room("dev", 0), room(evil, 1)]));
    chat.on(Event::Members("id-dev".to_owned(), vec![member(evil, Presence::Here, Some(evil))]));
    chat.on(Event::Typing("id-dev".to_owned(), evil.to_owned()));
    chat.on(Event::Failed(evil.to_owned()));
    let check = |chat: &Chat| {
        let text = chat.text();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}') && text.contains("a\u{fffd}]0;owned"), "{text}");
    };
    check(&chat);
    chat.on(Event::Link(Link::Down(evil.to_owned())));
    check(&chat);
    chat.line("/who");
    check(&chat);
    chat.key(KeyCode::Esc);
    chat.control('k');
    chat.types("owned");
    check(&chat);
}

#[test]
fn a_line_is_sent_and_its_mark_rises() {
    let mut chat = Chat::start(80, 24);
    let sent = chat.line("hello");
    let (room, text) = ("id-dev".to_owned(), "hello".to_owned());
    let after = message(1, "alice", "").place.0;
    assert_eq!(sent, [Action::Send { id: SendId(0), room, text, action: false, after }]);
    assert!(chat.0.editor.is_empty());
    let marked = |chat: &Chat| {
        let line = chat.text().lines().find(|line| line.contains("hello")).map(str::to_owned).unwrap();
        line.split('|').nth(1).unwrap().trim_end().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(marked(&chat), "()", "it is shown before the node has it");
    chat.on(Event::Sent(SendId(0)));
    chat.arrive(message(3, "alice", "hello"));
    for (mark, shown) in [(Mark::Reached, "(*)"), (Mark::Everyone, "(**)"), (Mark::Reached, "(**)")] {
        chat.on(Event::Mark("id-dev".to_owned(), "m3-alice".to_owned(), mark));
        assert_eq!(marked(&chat), shown);
    }
    assert_eq!(chat.text().matches("hello").count(), 1);
}

#[test]
fn actions_and_slashes_are_sent_as_meant() {
    let mut chat = Chat::start(80, 24);
    let texts: Vec<(String, bool)> = ["/me waves", "//join is a command"]
        .into_iter()
        .flat_map(|line| chat.line(line))
        .filter_map(|action| match action {
            Action::Send { text, action, .. } => Some((text, action)),
            _ => None,
        })
        .collect();
    assert_eq!(texts, [("waves".to_owned(), true), ("/join is a command".to_owned(), false)]);
    assert!(chat.line("/jion x").is_empty());
    assert!(chat.status().contains("did you mean /join?"), "{}", chat.status());
    assert_eq!(chat.0.editor.text(), "/jion x", "a mistake can be mended");
    chat.on(Event::Resize(40, 12));
    let text = chat.text();
    assert!(text.contains("did you mean") && text.contains("(to send it as text: //jion)"), "{text}");
}

#[test]
fn what_is_sent_while_the_node_is_away_waits_for_it() {
    let mut chat = Chat::start(80, 24);
    chat.on(Event::Link(Link::Down("it is not running".to_owned())));
    let text = chat.text();
    assert!(text.contains("the node is away (it is not running); trying again"), "{text}");
    assert_eq!(chat.line("do not lose me").len(), 1);
    assert!(chat.0.editor.is_empty() && chat.0.is_sending(), "the disk has not answered");
    assert_eq!(chat.0.unsent(), [("dev".to_owned(), "do not lose me".to_owned())]);
    chat.on(Event::Kept(SendId(0)));
    assert!(chat.text().contains("what you send is kept"), "{}", chat.text());
    assert!(chat.text().lines().any(|line| line.contains("do not lose me") && line.contains("()")));
    assert!(chat.0.unsent().is_empty() && !chat.0.is_sending(), "nobody waits for a node that is away");
    assert_eq!(chat.0.waiting().into_iter().collect::<Vec<_>>(), [("dev".to_owned(), 1)]);
    chat.on(Event::Link(Link::Up));
    assert!(!chat.text().contains("away") && chat.0.is_sending(), "{}", chat.text());
    chat.on(Event::Sent(SendId(0)));
    assert!(chat.0.waiting().is_empty() && !chat.text().contains("do not lose me"));
}

#[test]
fn what_an_earlier_chat_left_is_shown_with_its_time_until_the_node_has_it() {
    let mut chat = Chat::start(80, 24);
    let left = |id, room: &str, text: &str| Event::Waiting {
        id: SendId(id),
        room: format!("id-{room}"),
        text: text.to_owned(),
        action: false,
        written: at(-30),
    };
    chat.on(left(u64::MAX, "dev", "from the train"));
    chat.on(left(u64::MAX - 1, "ops", "elsewhere"));
    let text = chat.text();
    assert!(text.contains("10:11 you     from the train") && !text.contains("elsewhere"), "{text}");
    assert_eq!(chat.0.waiting().len(), 2);
    assert!(matches!(chat.line("new")[..], [Action::Send { id: SendId(0), .. }]));
    chat.on(Event::Sent(SendId(u64::MAX)));
    assert!(!chat.text().contains("from the train"));
    // Refused, it is given back like any other.
    chat.on(Event::NotSent(SendId(u64::MAX - 1), "no room".to_owned()));
    let elsewhere = ("ops".to_owned(), "elsewhere".to_owned());
    assert!(chat.0.unsent().contains(&elsewhere), "{:?}", chat.0.unsent());
}

#[test]
fn a_text_that_was_refused_comes_back_once() {
    let mut chat = Chat::start(80, 24);
    chat.line("first");
    chat.on(Event::NotSent(SendId(0), "the disk is full".to_owned()));
    assert_eq!(chat.0.editor.text(), "first");
    assert!(chat.status().starts_with("not sent: the disk is full"), "{}", chat.status());
    chat.key(KeyCode::Enter);
    chat.types("second");
    chat.on(Event::NotSent(SendId(1), "the disk is full".to_owned()));
    assert_eq!(chat.0.editor.text(), "second", "what is being written is not disturbed");
    assert!(chat.text().contains("-- not sent: the disk is full"), "{}", chat.text());
    assert_eq!(chat.0.unsent().len(), 2);
    chat.control('u');
    chat.key(KeyCode::Up);
    assert_eq!(chat.0.editor.text(), "first");
    assert_eq!(chat.0.unsent(), [("dev".to_owned(), "first".to_owned())]);
}

#[test]
fn a_text_that_seemed_lost_and_arrived_is_not_sent_twice() {
    let mut chat = Chat::start(80, 24);
    chat.line("once");
    chat.on(Event::NotSent(SendId(0), "the connection broke".to_owned()));
    assert_eq!(chat.0.editor.text(), "once");
    chat.arrive(message(3, "alice", "once"));
    assert!(chat.0.editor.is_empty());
    assert!(chat.status().contains("sent after all"));
}

#[test]
fn a_paste_of_several_lines_asks_before_it_is_sent() {
    let mut chat = Chat::start(80, 24);
    chat.types("code: ");
    assert!(chat.on(Event::Paste("a\r\n\tb\nc\nd\ne\n".to_owned())).is_empty());
    assert!(chat.text().contains("send 5 lines? y/n"), "{}", chat.text());
    assert!(chat.key(KeyCode::Enter).is_empty(), "Enter is no answer");
    assert!(chat.key(KeyCode::Char('n')).is_empty());
    assert_eq!(chat.0.editor.text(), "code: ");
    chat.on(Event::Paste("a\nb".to_owned()));
    chat.key(KeyCode::Char('e'));
    assert_eq!(chat.0.editor.text(), "code: a\nb");
    chat.control('u');
    chat.on(Event::Paste("a\n\tb".to_owned()));
    let sent = chat.key(KeyCode::Char('y'));
    assert!(matches!(&sent[..], [Action::Send { text, .. }] if text == "a\n\tb"), "{sent:?}");
    assert!(chat.on(Event::Paste("one line\n".to_owned())).len() <= 1);
    assert_eq!(chat.0.editor.text(), "one line");
}

#[test]
fn a_huge_paste_is_refused_with_its_size() {
    let mut chat = Chat::start(80, 24);
    chat.types("kept");
    chat.on(Event::Paste("x\n".repeat(1 << 20)));
    assert_eq!(chat.0.editor.text(), "kept");
    assert!(
        chat.status().contains("2.0MB") && chat.status().contains("nothing was pasted"),
        "{}",
        chat.status()
    );
}

#[test]
fn what_is_typed_in_a_room_stays_with_the_room() {
    let mut chat = Chat::start(80, 24);
    chat.types("for dev");
    assert_eq!(chat.control('n'), [Action::OpenRoom("id-ops".to_owned())]);
    assert!(chat.0.editor.is_empty() && chat.0.log.messages().is_empty());
    chat.types("for ops");
    chat.control('p');
    assert_eq!(chat.0.editor.text(), "for dev");
    let unsent = chat.0.unsent();
    let pair = |room: &str, text: &str| (room.to_owned(), text.to_owned());
    assert_eq!(unsent, [pair("ops", "for ops"), pair("dev", "for dev")]);
}

#[test]
fn messages_of_other_rooms_are_counted_until_they_are_looked_at() {
    let mut chat = Chat::start(80, 24);
    let mut ops = room("ops", 0);
    ops.sync.have += 2;
    chat.on(Event::Rooms(vec![room("dev", 0), ops]));
    assert!(chat.text().contains("#ops  2"), "{}", chat.text());
    chat.control('n');
    assert!(!chat.text().contains("#ops  2"), "{}", chat.text());
}

#[test]
fn up_recalls_what_was_sent_and_down_comes_back() {
    let mut chat = Chat::start(80, 24);
    chat.arrive(Message { kind: Kind::Action, ..message(2, "alice", "waves") });
    chat.types("draft");
    for expected in ["/me waves", "yes, wattle ui -> Lookup", "yes, wattle ui -> Lookup"] {
        chat.key(KeyCode::Up);
        assert_eq!(chat.0.editor.text(), expected);
    }
    chat.key(KeyCode::Down);
    chat.key(KeyCode::Down);
    assert_eq!(chat.0.editor.text(), "draft");
}

#[test]
fn the_window_stays_where_one_reads_while_messages_arrive() {
    let mut chat = Chat::start(80, 12);
    for minute in 2..60 {
        chat.arrive(message(minute, "bob", &format!("number {minute}")));
    }
    assert!(chat.text().contains("number 59"));
    chat.key(KeyCode::PageUp);
    let before = chat.text();
    assert!(!before.contains("number 59") && before.contains("older messages; PgDn"), "{before}");
    chat.arrive(message(61, "bob", "number 61"));
    chat.arrive(late(1, "carol", "late"));
    assert_eq!(chat.text(), before);
    chat.on(Event::Resize(60, 12));
    assert!(chat.text().contains("number 52"), "{}", chat.text());
    chat.key(KeyCode::Home);
    assert!(chat.text().contains("lookup animation"), "{}", chat.text());
    chat.key(KeyCode::End);
    assert!(chat.text().contains("number 61"));
    for _ in 0..20 {
        chat.key(KeyCode::PageUp);
    }
    for _ in 0..20 {
        chat.key(KeyCode::PageDown);
    }
    assert!(chat.0.anchor.is_none(), "at the end the newest are followed");
}

#[test]
fn reading_up_to_the_top_asks_for_what_is_older_once() {
    let mut chat = Chat::start(80, 12);
    let room = "id-dev".to_owned();
    let newest: Vec<Message> = (30..60).map(|minute| message(minute, "bob", "x")).collect();
    let batch = |messages, before: Option<&str>, newest| {
        Event::Batch(Batch { room: room.clone(), messages, before: before.map(str::to_owned), newest })
    };
    chat.on(Event::Open("id-ops".to_owned()));
    chat.on(Event::Open(room.clone()));
    chat.on(batch(newest, Some("place-30"), true));
    let older = Action::LoadOlder { room: room.clone(), before: "place-30".to_owned() };
    assert_eq!(chat.key(KeyCode::Home), [older]);
    assert!(chat.key(KeyCode::PageUp).is_empty(), "it is on its way");
    chat.on(batch((0..30).map(|minute| message(minute, "bob", "old")).collect(), None, false));
    assert_eq!(chat.0.log.messages().len(), 60);
    assert!(chat.key(KeyCode::Home).is_empty(), "that was all");
}

#[test]
fn after_a_break_what_is_missing_is_filled_in_or_the_log_begins_anew() {
    let mut chat = Chat::start(80, 24);
    let ids =
        |chat: &Chat| chat.0.log.messages().iter().map(|message| message.id.clone()).collect::<Vec<_>>();
    chat.batch(vec![message(1, "alice", "x"), message(5, "bob", "back")]);
    assert_eq!(ids(&chat), ["m0-bob", "m1-alice", "m5-bob"]);
    chat.batch((100..102).map(|minute| message(minute, "bob", "much later")).collect());
    assert_eq!(ids(&chat), ["m100-bob", "m101-bob"]);
}

#[test]
fn search_finds_and_goes_there() {
    let mut chat = Chat::start(80, 12);
    for minute in 2..60 {
        chat.arrive(message(minute, "bob", &format!("number {minute}")));
    }
    chat.control('k');
    chat.types("LOOKUP");
    let text = chat.text();
    assert!(text.contains("search: LOOKUP") && text.contains("2 found in 60 messages"), "{text}");
    chat.key(KeyCode::Up);
    chat.key(KeyCode::Enter);
    assert!(chat.text().contains("did the lookup animation land?"), "{}", chat.text());
    assert!(matches!(chat.0.mode, Mode::Write));
    chat.key(KeyCode::Esc);
    assert!(chat.text().contains("number 59"));
}

#[test]
fn edits_deletions_and_forks_are_shown() {
    let mut chat = Chat::start(100, 24);
    let changed = |author: &str, text: Option<&str>| Event::Changed {
        room: "id-dev".to_owned(),
        id: "m0-bob".to_owned(),
        author: format!("12D3KooW{author}"),
        text: text.map(str::to_owned),
    };
    chat.on(changed("carol", Some("forged")));
    assert!(!chat.text().contains("forged"), "only an author changes a message");
    chat.on(changed("bob", Some("did it land?")));
    assert!(chat.text().contains("did it land? (edited)"), "{}", chat.text());
    chat.on(changed("bob", None));
    assert!(chat.text().contains("(deleted)") && !chat.text().contains("land"), "{}", chat.text());
    chat.on(Event::Forked("id-dev".to_owned(), "12D3KooWbob".to_owned()));
    let text = chat.text();
    assert!(text.contains("bob!") && text.contains("-- bob signed two histories"), "{text}");
}

#[test]
fn progress_is_said_in_the_title() {
    let mut chat = Chat::start(112, 12);
    let title = |chat: &Chat| chat.text().lines().next().unwrap().to_owned();
    assert!(title(&chat).ends_with("synced with 4 of 4, 312 messages"), "{}", title(&chat));
    chat.on(Event::Sync("id-dev".to_owned(), Sync { have: 140, known: 312, with: 0, peers: 2 }));
    assert!(title(&chat).starts_with(" #dev  3 here"), "{}", title(&chat));
    assert!(
        title(&chat).ends_with("connecting... 2 peers, fetching 140 of 312 messages"),
        "{}",
        title(&chat)
    );
    chat.on(Event::Resize(40, 12));
    assert!(title(&chat).ends_with("fetching 140/312"), "{}", title(&chat));
}

#[test]
fn others_hear_that_somebody_types_now_and_then_and_never_of_commands() {
    let mut chat = Chat::start(80, 24);
    let typing = |chat: &mut Chat, c| chat.key(KeyCode::Char(c)).len();
    assert_eq!((typing(&mut chat, 'a'), typing(&mut chat, 'b')), (1, 0));
    chat.on(Event::Tick(at(4)));
    assert_eq!(typing(&mut chat, 'c'), 1);
    chat.control('u');
    chat.on(Event::Tick(at(5)));
    assert_eq!((typing(&mut chat, '/'), typing(&mut chat, 'm')), (0, 0));
    chat.on(Event::Typing("id-dev".to_owned(), "bob".to_owned()));
    assert!(chat.text().contains("-- bob is typing --"), "{}", chat.text());
    chat.on(Event::Tick(at(6)));
    assert!(!chat.text().contains("typing"), "{}", chat.text());
}

#[test]
fn commands_ask_for_what_they_name() {
    let mut chat = Chat::start(80, 24);
    let room = || "id-dev".to_owned();
    assert_eq!(chat.line("/nick 小林"), [Action::Nick { room: room(), nick: "小林".to_owned() }]);
    assert_eq!(chat.line("/invite"), [Action::Invite(room())]);
    assert_eq!(chat.line("/topic tea"), [Action::Topic { room: room(), topic: "tea".to_owned() }]);
    assert_eq!(chat.line("/export a.txt"), [Action::Export { room: room(), file: Some("a.txt".to_owned()) }]);
    assert_eq!(chat.line("/join wattle:1abc"), [Action::JoinTicket("wattle:1abc".to_owned())]);
    assert_eq!(chat.line("/join #OPS"), [Action::OpenRoom("id-ops".to_owned())]);
    assert!(chat.line("/join nowhere").is_empty() && chat.status().contains("no room nowhere here"));
    chat.control('u');
    assert!(chat.line("/leave").is_empty());
    assert_eq!(chat.key(KeyCode::Char('y')), [Action::LeaveRoom("id-ops".to_owned())]);
    assert_eq!(chat.line("/quit"), [Action::Quit]);
    chat.line("/help");
    assert!(chat.text().contains("/join TICKET") && chat.text().contains("Esc closes"), "{}", chat.text());
    chat.key(KeyCode::Esc);
    assert!(!chat.text().contains("/join TICKET"));
    assert_eq!(chat.control('l'), [Action::Redraw]);
    assert_eq!(chat.control('c'), [Action::Quit]);
}

#[test]
fn without_a_room_the_way_to_one_is_shown() {
    let look = Look { color: false, zone: TimeZone::UTC };
    let mut chat = Chat(Screen::new(look, at(0), (60, 12)));
    assert!(chat.text().contains("no room yet") && chat.text().contains("/join TICKET"), "{}", chat.text());
    assert!(chat.line("hello").is_empty());
    assert_eq!(chat.0.editor.text(), "hello");
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let colors = |color: bool| {
        let mut chat = Chat::start(80, 24);
        chat.0.look.color = color;
        chat.on(Event::Failed("no".to_owned()));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(&chat.0, frame)).unwrap();
        let cells = terminal.backend().buffer().content().iter();
        cells
            .filter(|cell| cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset)
            .count()
    };
    assert_eq!(colors(false), 0);
    assert!(colors(true) > 20);
}

#[test]
fn who_goes_offline_is_offline_since_then() {
    let mut chat = Chat::start(100, 24);
    let mut gone = |minute: i64| {
        chat.on(Event::Tick(at(minute)));
        chat.on(Event::Members("id-dev".to_owned(), vec![member("bob", Presence::Offline(None), None)]));
        chat.text()
    };
    gone(10);
    let text = gone(13);
    assert!(text.contains("bob  offline 3m"), "{text}");
}
