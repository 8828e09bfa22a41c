//! What a line means when Enter is pressed: words that chat users know from elsewhere.

use crate::config::nearest;

/// A line as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// To be sent as it is.
    Say(String),
    Command(Command),
    /// Not understood: what to say about it.
    Wrong(String),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A ticket, or the name of a room that is known here.
    Join(String),
    Invite,
    Nick(String),
    Me(String),
    Who,
    /// The topic of the room, or a new one.
    Topic(Option<String>),
    Search(String),
    Export(Option<String>),
    Leave,
    Quit,
    Help,
}

/// Every command: how it is typed, and what it does.
pub(super) const HELP: &[(&str, &str)] = &[
    ("/join TICKET", "enter a room with the ticket somebody gave you; /join dev opens a room you have"),
    ("/invite", "make a ticket for this room"),
    ("/nick NAME", "the name others see"),
    ("/me TEXT", "say what you do: * bob waves"),
    ("/who", "who is here, and how they are reached"),
    ("/topic [TEXT]", "what this room is about"),
    ("/search [TEXT]", "find a message; also Ctrl-K"),
    ("/export [FILE]", "write the whole room to a file"),
    ("/leave", "leave this room for good; asks first"),
    ("/quit", "close the chat; also Ctrl-C"),
    ("/help", "this page"),
];

/// Keys, for the same page.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("Ctrl-N Ctrl-P", "next and previous room"),
    ("PgUp PgDn", "older and newer messages; End on an empty line: the newest"),
    ("Up Down", "your last messages again"),
    ("Ctrl-A Ctrl-E", "begin and end of the line"),
    ("Ctrl-W Ctrl-U", "delete a word, delete to the begin; Ctrl-Y puts it back"),
    ("Alt-Enter", "a new line in the same message; also Ctrl-J"),
    ("Ctrl-G", "go to the messages that came late"),
    ("Ctrl-L", "draw everything anew"),
    ("Esc", "close what is open"),
    ("//text", "send a text that begins with a slash"),
    ("() (*) (**)", "only here; somebody else has it; everyone here has it"),
    ("~ !", "came late; its author signed two histories"),
];

/// Reads a line.
pub(super) fn read(line: &str) -> Typed {
    let Some(rest) = line.strip_prefix('/') else { return Typed::Say(line.to_owned()) };
    if rest.starts_with('/') {
        return Typed::Say(rest.to_owned());
    }
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let some = (!argument.is_empty()).then(|| argument.to_owned());
    let command = match (word.to_lowercase().as_str(), some) {
        // A ticket that was copied from two rows of a terminal is still one.
        ("join" | "j", Some(what)) => Command::Join(what.split_whitespace().collect()),
        ("nick", Some(name)) => Command::Nick(name),
        ("me", Some(text)) => Command::Me(text),
        (word @ ("join" | "j" | "nick" | "me"), None) => return Typed::Wrong(usage(word)),
        ("invite", _) => Command::Invite,
        ("who" | "names", _) => Command::Who,
        ("topic", topic) => Command::Topic(topic),
        ("search" | "find", text) => Command::Search(text.unwrap_or_default()),
        ("export", file) => Command::Export(file),
        ("leave" | "part", _) => Command::Leave,
        ("quit" | "q" | "exit", _) => Command::Quit,
        ("help" | "h" | "?", _) => Command::Help,
        (word, _) => return Typed::Wrong(unknown(word)),
    };
    Typed::Command(command)
}

fn names() -> impl Iterator<Item = &'static str> {
    HELP.iter().filter_map(|(typed, _)| typed.split(' ').next()?.strip_prefix('/'))
}

fn usage(word: &str) -> String {
    let word = if word == "j" { "join" } else { word };
    let typed = HELP.iter().find(|(typed, _)| typed.starts_with(&format!("/{word} ")));
    format!("type {}", typed.map_or("/help", |(typed, _)| typed))
}

fn unknown(word: &str) -> String {
    match nearest(word, names()) {
        _ if word.is_empty() => {
            "a command follows the slash: /help; to send the slash itself, type //".to_owned()
        }
        Some(near) => format!("no command /{word}: did you mean /{near}? (to send it as text: //{word})"),
        None => format!("no command /{word}; /help lists them (to send it as text: //{word})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_unless_it_begins_with_one_slash() {
        let say = |text: &str| Typed::Say(text.to_owned());
        assert_eq!(read("hello /world"), say("hello /world"));
        assert_eq!(read("//etc/hosts"), say("/etc/hosts"));
        assert_eq!(read("/me  waves "), Typed::Command(Command::Me("waves".to_owned())));
        assert_eq!(read("/QUIT"), Typed::Command(Command::Quit));
        assert_eq!(read("/topic"), Typed::Command(Command::Topic(None)));
        assert_eq!(read("/join wattle:1a\n bc"), Typed::Command(Command::Join("wattle:1abc".to_owned())));
    }

    #[test]
    fn a_mistake_says_what_was_meant() {
        let wrong = |line: &str| match read(line) {
            Typed::Wrong(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            wrong("/serch x"),
            "no command /serch: did you mean /search? (to send it as text: //serch)"
        );
        assert_eq!(
            wrong("/usr/bin/env"),
            "no command /usr/bin/env; /help lists them (to send it as text: //usr/bin/env)"
        );
        assert_eq!(wrong("/nick"), "type /nick NAME");
        assert!(wrong("/ hello").contains("//"));
    }

    #[test]
    fn every_command_of_the_help_page_is_understood() {
        for name in names() {
            assert_ne!(read(&format!("/{name} x")), Typed::Wrong(unknown(name)), "{name}");
        }
    }
}
