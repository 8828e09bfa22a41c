//! Rooms on real nodes, as people and scripts use them: invite, talk, part, come together, crash.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod home;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use home::Home;
use serde_json::Value;

impl Home {
    fn pipe(&self, words: &[&str], stdin: &str) -> Output {
        let mut child = self.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The newest messages at a node, once there are so many.
    fn tail(&self, node: &str, count: usize) -> Vec<Value> {
        let count = count.to_string();
        let words = ["-n", node, "chat", "tail", "dev", "-c", &count, "--json", "--timeout", "20s"];
        self.ok(&words).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn room(&self, node: &str) -> Value {
        serde_json::from_str(&self.ok(&["-n", node, "room", "info", "dev", "--json"])).unwrap()
    }

    fn nicks(&self, node: &str) -> Vec<String> {
        let room = self.room(node);
        let members = room["room"]["members"].as_array().unwrap();
        members.iter().map(|member| member["nick"].as_str().unwrap().to_owned()).collect()
    }

    fn until(&self, what: &str, within: Duration, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < within, "waited {within:?} in vain: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["text"].as_str().unwrap()).collect()
}

/// Two nodes in #dev.
fn together() -> Home {
    let home = Home::with(&["alice", "bob"]);
    home.ok(&["-n", "alice", "room", "new", "dev"]);
    let ticket = home.ok(&["-n", "alice", "invite", "--room", "dev", "-q"]).trim().to_owned();
    home.ok(&["-n", "bob", "join", &ticket]);
    home
}

#[test]
fn a_friend_is_invited_with_one_ticket() {
    let home = Home::with(&["alice"]);
    home.ok(&["-n", "alice", "room", "new", "#dev"]);
    let ticket = home.ok(&["-n", "alice", "invite", "--room", "dev", "-q"]).trim().to_owned();
    assert!(ticket.len() <= 200, "{} characters: {ticket}", ticket.len());
    // Bob has nothing yet: no key, no config, no node that runs.
    home.set_up("bob");
    let began = Instant::now();
    let joined = home.ok(&["-n", "bob", "join", &ticket, "--as", "bobby"]);
    assert!(joined.contains("entered #dev"), "{joined}");
    for node in ["alice", "bob"] {
        home.until("both nicks are listed", Duration::from_secs(5), |home| {
            let nicks = home.nicks(node);
            nicks.contains(&"alice".to_owned()) && nicks.contains(&"bobby".to_owned())
        });
    }
    // Within it a node started; a busy machine is given more than the three seconds of a quiet one.
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());

    // A name that its owner gave is stronger than what a peer calls itself.
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "peers", "name", &bob, "robert"]);
    assert!(home.nicks("alice").contains(&"robert".to_owned()), "{:?}", home.nicks("alice"));
    assert!(home.nicks("bob").contains(&"bobby".to_owned()), "{:?}", home.nicks("bob"));

    for at in (9..ticket.len()).step_by(31).chain([ticket.len() - 1]) {
        let mut damaged = ticket.clone().into_bytes();
        damaged[at] = if damaged[at] == b'q' { b'p' } else { b'q' };
        let output = home.wattle(&["-n", "bob", "join", &String::from_utf8(damaged).unwrap()]);
        assert_eq!(output.status.code(), Some(9), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("ticket is damaged"), "{output:?}");
    }
    let nobody = home.wattle(&["-n", "alice", "invite", "--room", "dev", "--uses", "0"]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    let once = home.ok(&["-n", "alice", "invite", "--room", "dev", "--uses", "1"]);
    assert!(once.contains("(7 days, 1 use)"), "{once}");
    let brief = home.ok(&["-n", "alice", "invite", "--room", "dev", "--expires", "1s", "-q"]);
    std::thread::sleep(Duration::from_millis(1100));
    let output = home.wattle(&["-n", "bob", "join", brief.trim()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(stderr.contains("expired") && stderr.contains("20"), "{stderr}");
}

#[test]
fn scripts_talk_through_pipes() {
    let home = together();
    let hears = home.command(&["-n", "bob", "chat", "tail", "dev", "-c", "2", "--json"]);
    let hears = { hears }.stdout(Stdio::piped()).spawn().unwrap();
    let sent = home.pipe(&["-n", "alice", "chat", "send", "dev", "-"], "a\nb\n");
    assert!(sent.status.success());
    let heard = hears.wait_with_output().unwrap();
    assert!(heard.status.success());
    let lines: Vec<Value> = String::from_utf8(heard.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(texts(&lines), ["a", "b"]);
    for line in &lines {
        let at = |name: &str| line[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let took = at("received").duration_since(at("sent"));
        assert!(took <= jiff::SignedDuration::from_millis(500), "{line} took {took}");
    }
    let alice = home.ok(&["-n", "alice", "id", "-q"]).trim().to_owned();
    for line in &lines {
        assert_eq!(
            (&line["type"], &line["room"], &line["from"]),
            (&"message".into(), &"dev".into(), &alice.as_str().into())
        );
    }
    assert_eq!(lines[1]["parents"][0], lines[0]["id"]);
    let plain = home.ok(&["-n", "bob", "chat", "tail", "dev"]);
    let fields: Vec<Vec<&str>> = plain.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((fields[0][1], fields[0][2], fields[1][2]), ("alice", "a", "b"), "{plain}");
    // Fewer than were asked for are no error, unless somebody said how long to wait for them.
    assert_eq!(home.ok(&["-n", "bob", "chat", "tail", "dev", "-c", "9"]), plain);
    let waited = home.wattle(&["-n", "bob", "chat", "tail", "dev", "-c", "9", "--timeout", "300ms"]);
    assert_eq!(waited.status.code(), Some(5), "{waited:?}");
    for (words, stdin) in [(&["chat", "send", "dev", "-"][..], ""), (&["chat", "send", "dev"], "\n \n")] {
        let nothing = home.pipe(&[&["-n", "alice"], words].concat(), stdin);
        assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    }
    let acked = home.ok(&["-n", "alice", "chat", "send", "dev", "c", "--wait-ack", "1", "--json"]);
    let acked: Value = serde_json::from_str(&acked).unwrap();
    assert_eq!((&acked["acks"], &acked["mark"]), (&1.into(), &"everyone".into()), "{acked}");
    let nobody =
        home.wattle(&["-n", "alice", "chat", "send", "dev", "d", "--wait-ack", "2", "--timeout", "1s"]);
    assert!(matches!(nobody.status.code(), Some(5 | 10)), "{nobody:?}");
}

#[test]
fn who_was_away_catches_up_and_what_came_late_is_marked() {
    let home = together();
    home.pipe(&["-n", "alice", "chat", "send", "dev"], "hello");
    assert_eq!(texts(&home.tail("bob", 1)), ["hello"]);
    let bob = home.ok(&["-n", "bob", "id", "-q"]).trim().to_owned();
    home.ok(&["-n", "alice", "peers", "block", &bob]);
    home.until("bob is gone", Duration::from_secs(5), |home| {
        home.room("alice")["room"]["members"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["here"] == true)
            .count()
            == 1
    });
    let offline: String = (0..3).map(|number| format!("from bob {number}\n")).collect();
    home.pipe(&["-n", "bob", "chat", "send", "dev"], &offline);
    let many: String = (0..20).map(|number| format!("from alice {number}\n")).collect();
    home.pipe(&["-n", "alice", "chat", "send", "dev"], &many);
    assert_eq!(home.tail("bob", 4).last().unwrap()["mark"], "local", "nobody has it yet");
    std::thread::sleep(Duration::from_secs(6));
    home.ok(&["-n", "alice", "peers", "unblock", &bob]);
    home.ok(&["-n", "alice", "connect", &bob]);
    home.until("bob has all", Duration::from_secs(3), |home| home.room("bob")["room"]["messages"] == 24);
    home.until("alice has all", Duration::from_secs(3), |home| home.room("alice")["room"]["messages"] == 24);
    let (alices, bobs) = (home.tail("alice", 24), home.tail("bob", 24));
    assert_eq!(texts(&alices), texts(&bobs), "both see one order");
    let late = alices.iter().filter(|message| message["late"] == true);
    assert_eq!(texts(&late.cloned().collect::<Vec<_>>()), ["from bob 0", "from bob 1", "from bob 2"]);
    home.until("bob knows that alice has them", Duration::from_secs(5), |home| {
        home.tail("bob", 24)
            .iter()
            .filter(|message| message["own"] == true)
            .all(|it| it["mark"] == "everyone")
    });
}

#[test]
fn as_many_of_the_newest_are_printed_as_were_asked_for_however_many_that_are() {
    let home = together();
    let said: Vec<String> = (0..620).map(|number| format!("message {number}")).collect();
    home.pipe(&["-n", "alice", "chat", "send", "dev", "-q"], &said.join("\n"));
    assert_eq!(texts(&home.tail("alice", 610)), said[10..]);
    // Fewer than were asked for: what there is.
    let all = home.ok(&["-n", "alice", "chat", "tail", "dev", "-c", "1000"]);
    assert_eq!(all.lines().count(), said.len());
}

#[test]
fn what_was_said_survives_kill_9() {
    let home = together();
    let said: Vec<String> = (0..30).map(|number| format!("message {number}")).collect();
    let sent = home.pipe(&["-n", "alice", "chat", "send", "dev", "-q"], &said.join("\n"));
    assert_eq!(String::from_utf8(sent.stdout).unwrap().lines().count(), 30, "an id each");
    let status: Value = serde_json::from_str(&home.ok(&["-n", "alice", "status", "--json"])).unwrap();
    let pid = status["pid"].as_u64().or_else(|| status["node"]["pid"].as_u64());
    let pid = pid.unwrap_or_else(|| panic!("no pid in {status}")).to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    home.until("alice is gone", Duration::from_secs(5), |home| {
        !home.wattle(&["-n", "alice", "id"]).status.success() || !Path::new(&format!("/proc/{pid}")).exists()
    });
    home.run("alice");
    assert_eq!(texts(&home.tail("alice", 30)), said);
    let export = home.path().join("dev.txt").display().to_string();
    home.ok(&["-n", "alice", "room", "export", "dev", "-o", &export]);
    assert_eq!(std::fs::read_to_string(&export).unwrap().lines().count(), 30);
    let nowhere = home.path().join("no/such/dev.txt").display().to_string();
    let output = home.wattle(&["-n", "alice", "room", "export", "dev", "-o", &nowhere]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(4) && !stderr.contains("at path"), "{stderr}");
    home.ok(&["-n", "alice", "room", "leave", "dev"]);
    let output = home.wattle(&["-n", "alice", "chat", "tail", "dev"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
