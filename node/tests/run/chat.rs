//! The chat in a real terminal: tmux draws what it prints, and is asked what a person would see.
//!
//! Needs tmux; without it these tests say that they did not run, and with `WATTLE_TEST_ALL` they fail.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Running, run};

/// How long anything may take on a machine that runs other tests as well.
const DEADLINE: Duration = Duration::from_secs(30);

/// A terminal with a shell in it.
struct Terminal {
    socket: String,
    /// Where the nodes are, and where the files of this terminal are.
    home: std::path::PathBuf,
    at: std::path::PathBuf,
}

impl Terminal {
    /// `None`, with a line on stderr, where there is no tmux.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    fn start(home: &Path, at: &Path, width: u16, height: u16) -> Option<Self> {
        if !Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
        {
            eprintln!("did not run: there is no tmux");
            assert!(
                std::env::var_os("WATTLE_TEST_ALL").is_none(),
                "WATTLE_TEST_ALL is set, and there is no tmux"
            );
            return None;
        }
        let socket = at.join("tmux.sock").display().to_string();
        let terminal = Self { socket, home: home.to_path_buf(), at: at.to_path_buf() };
        let program = Path::new(env!("CARGO_BIN_EXE_wattle")).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = format!(
            "env -i HOME='{}' PATH='{program}:{path}' TERM=tmux-256color LC_ALL=C.UTF-8 TZ=UTC PS1='$ ' sh",
            home.display()
        );
        let shell = format!("cd '{}' && {shell}", at.display());
        let (width, height) = (width.to_string(), height.to_string());
        let words = ["-u", "-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, &shell];
        terminal.tmux(&words);
        terminal.until("a prompt", |screen| screen.starts_with('$'));
        Some(terminal)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn line(&self, text: &str) {
        self.types(text);
        self.key("Enter");
    }

    fn paste(&self, text: &str) {
        self.tmux(&["set-buffer", text]);
        self.tmux(&["paste-buffer", "-p"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What tmux knows of the terminal.
    fn asks(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format]).trim_end().to_owned()
    }

    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < DEADLINE, "waited for {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// A frame is drawn before the cursor is set, so this waits too.
    fn until_cursor(&self, place: &str) {
        self.until(place, |_screen| self.asks("#{cursor_x},#{cursor_y}") == place);
    }

    /// Opens the chat; the mode of the terminal before and after it and its process are kept in files.
    fn chat(&self, environment: &str, words: &str) {
        let chat = format!("wattle --home {} {words}", self.home.display());
        std::fs::write(
            self.at.join("chat.sh"),
            format!("stty -a > before; sh -c 'echo $$ > pid; exec {chat}'; echo exit=$?; stty -a > after; echo over\n"),
        )
        .unwrap();
        self.line(&format!("clear; {environment} sh chat.sh"));
    }

    /// Waits until the shell is back, and checks that the terminal is as it was; gives what is on it.
    fn is_as_before(&self) -> String {
        let screen = self.until("the shell", |screen| screen.lines().any(|line| line == "over"));
        let read = |name: &str| std::fs::read_to_string(self.at.join(name)).unwrap();
        assert_eq!(read("after"), read("before"));
        assert_eq!(self.asks("#{alternate_on} #{cursor_flag}"), "0 1");
        screen
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.at.join("pid")).unwrap();
        let sent = Command::new("kill").args([signal, pid.trim()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ignored because a server that is gone is what this wants.
        drop(Command::new("tmux").args(["-S", &self.socket, "kill-server"]).stderr(Stdio::null()).status());
    }
}

/// A node with a room.
fn node_with_room(home: &Path) -> Running {
    let node = run(home, "alice");
    let (status, room) = node.call("POST /api/v1/rooms", r#"{"name":"dev"}"#);
    assert_eq!(status, 200, "{room}");
    node
}

fn say(node: &Running, text: &str) {
    let body = serde_json::json!({ "text": text }).to_string();
    let (status, said) = node.call("POST /api/v1/rooms/dev/messages", &body);
    assert_eq!(status, 200, "{said}");
}

fn said(node: &Running) -> Vec<String> {
    let (_, page) = node.call("GET /api/v1/rooms/dev/messages?limit=100", "");
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

/// A line is shown before the node has it: waits until it has.
fn until_said(node: &Running, texts: &[&str]) {
    let begun = Instant::now();
    while said(node) != texts {
        assert!(begun.elapsed() < DEADLINE, "{:?}", said(node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn wide_characters_are_shown_in_their_columns_and_the_cursor_follows_them() {
    let home = tempfile::tempdir().unwrap();
    let node = node_with_room(home.path());
    let Some(terminal) = Terminal::start(home.path(), home.path(), 80, 24) else { return };
    terminal.chat("", "-n alice chat dev");
    terminal.until_shows("nothing was said here yet");
    terminal.types("中文");
    terminal.until_shows("> 中文");
    terminal.until_cursor("6,22");
    terminal.types("👩‍🚀e\u{301}x");
    terminal.key("Left");
    terminal.key("Left");
    terminal.key("BSpace");
    terminal.until_shows("> 中文e\u{301}x");
    terminal.until_cursor("6,22");
    terminal.key("C-e");
    terminal.key("Enter");
    let screen = terminal.until_shows("you     中文e\u{301}x");
    // The mark stands at the right of the messages, whatever the width of what is before it.
    let line = screen.lines().find(|line| line.contains("中文")).unwrap();
    assert!(line.contains("()|") || line.contains("*)|"), "{line}");
    until_said(&node, &["中文e\u{301}x"]);

    say(&node, "the wind is a person who never comes in but knocks at every window of the house");
    terminal.until_shows("the wind is");
    terminal.types("字");
    terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    terminal.until("40 columns", |screen| {
        let whole = screen.starts_with(" #dev") && screen.contains("you the wind is");
        whole && screen.contains("> 字") && !screen.contains("-- rooms")
    });
    terminal.until_cursor("4,10");
    terminal.tmux(&["resize-window", "-x", "10", "-y", "4"]);
    terminal.until("hardly a window", |screen| screen.contains("20x6"));
    // The size that `stty` saw before.
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.until_shows("> 字");
    terminal.key("C-c");
    assert!(terminal.is_as_before().contains("exit=0"));
}

#[test]
fn a_paste_asks_and_goes_as_one_message() {
    let home = tempfile::tempdir().unwrap();
    let node = node_with_room(home.path());
    let Some(terminal) = Terminal::start(home.path(), home.path(), 80, 24) else { return };
    terminal.chat("", "-n alice chat dev");
    terminal.until_shows("nothing was said here yet");
    terminal.paste("one\n\ttwo\n\u{1b}[31mthree\nfour\n五\n");
    terminal.until_shows("send 5 lines? y/n");
    assert!(said(&node).is_empty());
    terminal.key("y");
    terminal.until("five rows", |screen| screen.contains("you     one") && screen.contains("五"));
    until_said(&node, &["one\n\ttwo\n[31mthree\nfour\n五"]);
    terminal.line("/quit");
    assert!(terminal.is_as_before().contains("exit=0"));
}

#[test]
fn however_the_chat_ends_the_terminal_is_as_before() {
    let home = tempfile::tempdir().unwrap();
    let _node = node_with_room(home.path());
    let Some(terminal) = Terminal::start(home.path(), home.path(), 80, 24) else { return };
    let ends = |environment: &str, end: &dyn Fn(), expected: &str| {
        terminal.chat(environment, "-n alice chat dev");
        terminal.until_shows("/help");
        assert_eq!(terminal.asks("#{alternate_on}"), "1");
        end();
        let screen = terminal.is_as_before();
        assert!(screen.contains(expected), "{expected}: {screen}");
        screen
    };
    ends("", &|| terminal.line("/quit"), "exit=0");
    ends("", &|| terminal.key("C-c"), "exit=0");
    for (signal, expected) in [("-TERM", "exit=143"), ("-HUP", "exit=129"), ("-INT", "exit=130")] {
        ends("", &|| terminal.signal(signal), expected);
    }
    let screen = ends("WATTLE_TEST_PANIC=now", &|| terminal.line("now"), "exit=101");
    assert!(screen.contains("a panic that a test asked for"), "it can be read: {screen}");
    let screen = ends("WATTLE_TEST_PANIC_TASK=now", &|| terminal.line("now"), "exit=1");
    assert!(screen.contains("a panic that a test asked for"), "it can be read: {screen}");
    let typed = || {
        terminal.types("a draft");
        terminal.until_shows("> a draft");
        terminal.signal("-TERM");
    };
    ends("", &typed, "not sent to #dev: a draft");
}

#[test]
fn a_chat_whose_node_does_not_come_back_ends_and_what_was_sent_meanwhile_goes_with_the_next() {
    let home = tempfile::tempdir().unwrap();
    let mut node = node_with_room(home.path());
    say(&node, "before");
    let Some(terminal) = Terminal::start(home.path(), home.path(), 100, 24) else { return };
    terminal.chat("", "-n alice chat dev --timeout 6s");
    terminal.until_shows("you     before");
    node.signal(rustix::process::Signal::KILL);
    node.end();
    terminal.until_shows("the node is away");
    terminal.until_shows("what you send is kept");
    terminal.line("do not lose me");
    terminal.line("/me waits");
    terminal.until("both wait", |screen| {
        screen.contains("you     do not lose me") && screen.contains("* you waits")
    });
    terminal.types("a draft");
    let screen = terminal.is_as_before();
    assert!(screen.contains("exit=3") && screen.contains("not sent to #dev: a draft"), "{screen}");
    assert!(screen.contains("2 texts for #dev wait on this machine"), "{screen}");
    assert!(!screen.contains("not sent to #dev: do not"), "{screen}");

    let node = run(home.path(), "alice");
    assert_eq!(said(&node), ["before"]);
    terminal.chat("", "-n alice chat dev");
    until_said(&node, &["before", "do not lose me", "waits"]);
    terminal.until("both were sent", |screen| screen.matches("()").count() == 4);
    terminal.key("C-c");
    assert!(!terminal.is_as_before().contains("wait on this machine"));
    // Nothing is left that would go again.
    terminal.chat("", "-n alice chat dev");
    terminal.until_shows("do not lose me");
    terminal.line("last");
    until_said(&node, &["before", "do not lose me", "waits", "last"]);
}

/// Waits until so many texts are on disk that no node has.
fn until_kept(home: &Path, count: usize) {
    fn kept(directory: &Path) -> usize {
        let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
        let of = |path: std::path::PathBuf| match path.is_dir() {
            true => kept(&path),
            false => usize::from(path.extension().is_some_and(|extension| extension == "json")),
        };
        entries.map(of).sum()
    }
    let begun = Instant::now();
    while kept(&home.join("state/nodes/bob/outbox")) != count {
        assert!(begun.elapsed() < DEADLINE, "{count} texts are not on disk");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Offline and back (journey J10): the node is off, its owner goes on writing, even in a chat that is killed.
#[test]
fn what_is_written_while_the_node_is_off_is_sent_once_when_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let (alice, mut bob) = (node_with_room(home.path()), run(home.path(), "bob"));
    let_in(&alice, &bob);
    let Some(terminal) = Terminal::start(home.path(), home.path(), 100, 40) else { return };
    terminal.chat("", "-n bob chat dev");
    terminal.until_shows("* alice");
    bob.signal(rustix::process::Signal::TERM);
    bob.end();
    terminal.until_shows("the node is away");
    for number in 0..3 {
        terminal.line(&format!("written offline {number}"));
        terminal.until("it waits", |screen| {
            screen.lines().any(|line| line.contains(&format!("offline {number}")) && line.contains("()"))
        });
    }
    until_kept(home.path(), 3);
    // Each will have waited for longer than what counts as late, however long it took to type them.
    let written = Instant::now();
    (0..20).for_each(|number| say(&alice, &format!("from alice {number}")));
    // The chat is killed, and what it had not sent goes with the next one.
    terminal.signal("-KILL");
    terminal.until("the shell", |screen| screen.contains("over"));
    terminal.types("stty sane; printf '\\033[?1049l'; echo sane");
    terminal.key("C-j");
    terminal.until("a terminal", |screen| screen.lines().any(|line| line == "sane"));
    std::thread::sleep(Duration::from_secs(6).saturating_sub(written.elapsed()));
    let mut bob = run(home.path(), "bob");
    bob.connected();
    let connected = Instant::now();
    let has_all = |node: &Running| said(node).iter().filter(|text| text.starts_with("from alice")).count();
    while has_all(&bob) < 20 {
        assert!(connected.elapsed() < Duration::from_secs(3), "bob has {:?}", said(&bob));
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.chat("", "-n bob chat dev");
    let own = |screen: &str, mark: &str| {
        (0..3).all(|number| {
            let own = |line: &&str| line.contains(&format!("offline {number}"));
            screen.lines().find(own).is_some_and(|line| line.contains(mark))
        })
    };
    let screen = terminal.until("everyone has them", |screen| own(screen, "(**)"));
    assert!(screen.contains("from alice 0") && screen.contains("from alice 19"), "{screen}");
    let (_, page) = alice.call("GET /api/v1/rooms/dev/messages?limit=100", "");
    let late = page["messages"].as_array().unwrap().iter().filter(|message| message["late"] == true);
    let late: Vec<_> = late.map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(late, ["written offline 0", "written offline 1", "written offline 2"]);
    assert_eq!((said(&alice).len(), said(&alice)), (23, said(&bob)));
}

/// Kills of one run; the long run takes another number: `WATTLE_KILLS=200`.
fn kills() -> u64 {
    std::env::var("WATTLE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[test]
fn what_a_program_says_once_is_there_once_however_often_the_node_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let mut node = node_with_room(home.path());
    let (mut expected, mut answered) = (Vec::new(), 0);
    let say = |socket: &Path, number: u64, again: bool| {
        let mut once = serde_json::json!({ "id": format!("{number:016x}") });
        if again {
            once["after"] = "0".into();
        }
        let body = serde_json::json!({ "text": number.to_string(), "once": once }).to_string();
        crate::documents::try_call(socket, "POST /api/v1/rooms/dev/messages", &body)
    };
    let mut draw = 0x0dd_u64;
    for kill in 0..kills() {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let socket = node.socket();
        // The first of them are answered, and the node dies in the middle of another.
        let tried = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut numbers = (1000 * kill)..;
                numbers.find(|number| say(&socket, *number, false).is_none())
            });
            std::thread::sleep(Duration::from_millis(5 + (draw >> 33) % 60));
            node.signal(rustix::process::Signal::KILL);
            node.end();
            sender.join().unwrap().unwrap()
        });
        node = run(home.path(), "alice");
        answered += tried - 1000 * kill;
        expected.extend((1000 * kill..=tried).map(|number| number.to_string()));
        // Whatever became of the last, and of the one before: both are asked for again, twice.
        for number in [tried.saturating_sub(1).max(1000 * kill), tried, tried] {
            let begun = Instant::now();
            while say(&node.socket(), number, true).is_none_or(|(status, _)| status != 200) {
                assert!(begun.elapsed() < DEADLINE, "{number} is not taken");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let (_, page) = node.call("GET /api/v1/rooms/dev/messages?limit=500", "");
        let texts =
            page["messages"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap().to_owned());
        let texts: Vec<String> = texts.collect();
        assert!(expected.ends_with(&texts) && !texts.is_empty(), "kill {kill}: {texts:?}");
    }
    assert!(answered > 0, "nothing was said before a kill");
}

/// Lets the second node into the room of the first.
fn let_in(host: &Running, guest: &Running) {
    let (status, ticket) = host.call("POST /api/v1/docs/dev/tickets", r#"{"role":"writer"}"#);
    assert_eq!(status, 200, "{ticket}");
    let ticket = serde_json::json!({ "ticket": ticket["ticket"] }).to_string();
    let (status, joined) = guest.call("POST /api/v1/docs/join", &ticket);
    assert_eq!(status, 200, "{joined}");
}

#[test]
fn two_people_talk_and_a_killed_chat_opens_with_the_whole_history() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (node_with_room(home.path()), run(home.path(), "bob"));
    let_in(&alice, &bob);
    let there = home.path().join("there");
    std::fs::create_dir(&there).unwrap();
    let Some(here) = Terminal::start(home.path(), home.path(), 100, 24) else { return };
    let Some(there) = Terminal::start(home.path(), &there, 80, 24) else { return };
    here.chat("", "-n alice chat dev");
    there.chat("", "-n bob chat dev");
    here.until_shows("* bob");
    there.until_shows("* alice");
    there.types("我");
    here.until_shows("-- bob is typing --");
    there.line("們今天晚上");
    here.until_shows("bob     我們今天晚上");
    there.until("everyone has it", |screen| screen.contains("(**)|"));
    here.line("/me waves");
    there.until_shows("* alice waves");
    here.paste("1\n2\n3\n4\n5\n");
    here.until_shows("send 5 lines? y/n");
    here.key("y");
    there.until("five rows", |screen| screen.contains("alice   1") && screen.contains("       5"));

    there.signal("-KILL");
    here.line("while you were away");
    there.until("the shell", |screen| screen.contains("over"));
    // Nobody can give a terminal back when killed: this is what `reset` does.
    there.types("stty sane; printf '\\033[?1049l'; echo sane");
    there.key("C-j");
    there.until("a terminal", |screen| screen.lines().any(|line| line == "sane"));
    there.chat("", "-n bob chat dev");
    let screen = there.until_shows("while you were away");
    for text in ["you     我們今天晚上", "* alice waves", "alice   1"] {
        assert!(screen.contains(text), "{text}: {screen}");
    }
}
