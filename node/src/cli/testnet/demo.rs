//! `testnet demo`: what a partition does and what heals, in the commands that anybody could type.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::state::{NetName, Place};
use crate::api::documents::ErrorDocument;
use crate::cli::errors::Failure;
use crate::cli::output::Meaning;
use crate::cli::session::Session;
use crate::exit::ErrorCode;

/// How long people can look at a split before it is healed.
const LOOK: Duration = Duration::from_secs(2);

struct Demo<'a> {
    session: &'a Session,
    net: &'a NetName,
}

pub(super) fn demo(session: &Session, args: &super::Demo) -> Result<(), Failure> {
    let net = args.name.clone().unwrap_or_else(NetName::usual);
    let demo = Demo { session, net: &net };
    let played = demo.play();
    let made = Place::of(session, net.clone())?.directory.exists();
    if made
        && !args.keep
        && !matches!(&played, Err(Failure::Error(error)) if error.code == ErrorCode::Conflict)
    {
        demo.show(&["testnet", "down", "--name", net.as_str()])?;
    }
    played
}

impl Demo<'_> {
    fn play(&self) -> Result<(), Failure> {
        let net = self.net.as_str();
        self.show(&["testnet", "up", "5", "--validators", "4", "--name", net])?;
        self.say("a document and a room, and everybody in them");
        self.show(&["-t", &self.at(0), "doc", "new", "plan"])?;
        self.show(&["-t", &self.at(0), "room", "new", "talk"])?;
        let doc = self.quietly(&["-t", &self.at(0), "doc", "share", "plan", "-q"])?;
        let room = self.quietly(&["-t", &self.at(0), "invite", "--room", "talk", "-q"])?;
        for node in 1..5 {
            self.quietly(&["-t", &self.at(node), "doc", "join", doc.trim()])?;
            self.quietly(&["-t", &self.at(node), "join", room.trim()])?;
        }
        self.say("two of five are cut off, and both sides go on with documents and chat");
        self.show(&["testnet", "partition", "--name", net, "0,1", "2,3,4"])?;
        self.show(&["-t", &self.at(0), "doc", "set", "plan", "where", "the harbour"])?;
        self.show(&["-t", &self.at(3), "doc", "set", "plan", "when", "at noon"])?;
        self.show(&["-t", &self.at(1), "chat", "send", "talk", "can anybody hear us?"])?;
        self.show(&["-t", &self.at(4), "chat", "send", "talk", "we are three here"])?;
        self.say("one log for all needs three of its four validators: one side has them");
        self.show(&["-t", &self.at(3), "order", "submit", "we can decide"])?;
        self.show_refused(&["-t", &self.at(0), "order", "submit", "we cannot", "--timeout", "10s"])?;
        std::thread::sleep(LOOK);
        self.say("healed: everything is everywhere, or the report says what is not");
        self.show(&["testnet", "heal", "--name", net])?;
        self.report()
    }

    fn at(&self, node: u32) -> String {
        format!("{}/{node}", self.net)
    }

    fn say(&self, text: &str) {
        if !self.session.out.json {
            self.session.out.note(&format!("\n# {text}"));
        }
    }

    fn command(&self, words: &[&str]) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        if let Some(home) = &self.session.globals.home {
            command.arg("--home").arg(home);
        }
        command.args(words).stdin(Stdio::null());
        Ok(command)
    }

    /// A command as one would type it, printed.
    fn type_in(&self, words: &[&str]) -> Result<String, Failure> {
        let typed = words
            .iter()
            .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() });
        let typed = typed.collect::<Vec<_>>().join(" ");
        if !self.session.out.json {
            self.session.out.line(&self.session.out.paint(Meaning::Strong, &format!("$ wattle {typed}")))?;
        }
        Ok(typed)
    }

    /// Runs a command as one would type it, with what it prints.
    fn show(&self, words: &[&str]) -> Result<(), Failure> {
        let typed = self.type_in(words)?;
        let output = self.command(words)?.output().map_err(failed)?;
        if !self.session.out.json {
            self.session.out.bytes(&output.stdout)?;
        }
        ended(&typed, &output)
    }

    /// Runs a command that cannot do what it is asked to, for want of others; with what it says.
    fn show_refused(&self, words: &[&str]) -> Result<(), Failure> {
        let typed = self.type_in(words)?;
        let output = self.command(words)?.output().map_err(failed)?;
        if output.status.code() == Some(i32::from(ErrorCode::NoQuorum.exit())) {
            if !self.session.out.json {
                self.session.out.bytes(&output.stderr)?;
            }
            return Ok(());
        }
        ended(&typed, &output)?;
        let message = format!("`wattle {typed}` was done, and no quorum was there to do it");
        Err(ErrorDocument::new(ErrorCode::Partial, message).into())
    }

    fn quietly(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.command(words)?.output().map_err(failed)?;
        ended(&words.join(" "), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The report is the demo's own: with its document, its exit status, and all the time healing needs.
    fn report(&self) -> Result<(), Failure> {
        let place = Place::of(self.session, self.net.clone())?;
        let document = super::report::of(self.session, &place, Duration::from_secs(60))?;
        self.session.show_own(&document, |document| crate::cli::session::Shown {
            text: super::report::text_of(self.session, document),
            ids: Vec::new(),
        })?;
        if document.pass { Ok(()) } else { Err(ErrorCode::Partial.into()) }
    }
}

fn failed(error: std::io::Error) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot start myself: {error}")).into()
}

/// What went wrong in a command is what went wrong here.
fn ended(typed: &str, output: &Output) -> Result<(), Failure> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let code = ErrorCode::ALL.into_iter().find(|code| Some(i32::from(code.exit())) == output.status.code());
    let first = said.lines().next().unwrap_or("it said nothing");
    let message = format!("`wattle {typed}` failed: {}", first.strip_prefix("error: ").unwrap_or(first));
    Err(ErrorDocument::new(code.unwrap_or(ErrorCode::Failed), message).into())
}
