//! Chat: on the whole terminal, and for scripts: say something, print what is said.
//!
//! The full screen is in the modules below. `model` is what the screen is told and what it asks for; `screen`
//! (with `keys`, `log`, `commands` and `editor`) is the state, a pure function of those events; `draw` and
//! `view` show it. What was typed and is not at the node is in files (`outbox`). `run` is the thin loop around it,
//! which owns the terminal (`terminal`), the signals and the tasks that talk to the node (`api`).

mod api;
mod commands;
mod draw;
mod editor;
mod keys;
mod log;
mod model;
mod outbox;
mod run;
mod screen;
mod terminal;
mod text;
mod view;

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use tokio::sync::mpsc;

use super::client::{Client, cut_off, read_line};
use super::errors::{Failure, advise};
use super::room::{line_of, newest, shown};
use super::routes;
use super::session::{Session, Shown};
use super::table::tame;
use super::values::short;
use crate::api::documents::{
    ChatMessage, ErrorDocument, MessageMark, RoomDocument, RoomLine, SaidDocument, SayRequest,
};
use crate::exit::ErrorCode;

/// Messages that are printed when nothing is said.
const TAIL: usize = 50;
/// How long fewer messages than were asked for are waited for when nobody said how long.
const TAIL_WAITS: Duration = Duration::from_secs(2);

/// Chat on the whole terminal; plain lines where there is none
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Chat {
    #[command(subcommand)]
    command: Option<ChatCommand>,
    /// The room to open: a name or an id
    room: Option<String>,
}

#[derive(Subcommand)]
enum ChatCommand {
    Send(Send),
    Tail(Tail),
}

/// Send and exit (for scripts and bots)
#[derive(Args)]
struct Send {
    /// A name or an id
    room: String,
    /// The message; `-` (or nothing) reads stdin, one message a line
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// As something done: `/me`
    #[arg(long)]
    me: bool,
    /// Wait until N members hold it
    #[arg(long, value_name = "N")]
    wait_ack: Option<u64>,
}

/// Print messages, and follow
#[derive(Args)]
struct Tail {
    /// A name or an id
    room: String,
    /// The newest N (50 when not given, with -f 0 too); where fewer are there, the next are waited for: 2 s, or
    /// --timeout
    #[arg(short, long, value_name = "N")]
    count: Option<usize>,
    /// Go on with what is said from now on
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn chat(session: &Session, args: Chat) -> Result<(), Failure> {
    match args.command {
        Some(ChatCommand::Send(args)) => send(session, &args).await,
        Some(ChatCommand::Tail(args)) => tail(session, &args).await,
        None => open(session, args.room).await,
    }
}

/// The full screen where there is a terminal that can show it, else what `tail -f` prints.
async fn open(session: &Session, room: Option<String>) -> Result<(), Failure> {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if session.out.terminal && !session.out.json && !dumb {
        return run::run(session, room.as_deref()).await;
    }
    let Some(room) = room else {
        let message = "which room? Without a terminal, chat prints the lines of one";
        let document = ErrorDocument::new(ErrorCode::Usage, message);
        return Err(advise(document, "rooms here", "wattle room list", "").into());
    };
    tail(session, &Tail { room, count: None, follow: true }).await
}

/// How many messages were sent, and how many of them reached fewer than was asked.
#[derive(Default)]
struct Tally {
    sent: u64,
    short: u64,
    unheard: u64,
}

async fn send(session: &Session, args: &Send) -> Result<(), Failure> {
    let client = session.client()?;
    // Whoever types is told at once that there is no such room, not after the first line.
    client.get::<RoomDocument>(&routes::room(&args.room, "")).await?;
    let mut tally = Tally::default();
    match args.text.as_deref().filter(|text| *text != "-") {
        Some(text) => say(session, &client, args, text.to_owned(), &mut tally).await?,
        None => {
            if std::io::stdin().is_terminal() {
                session.out.note("one message a line; Ctrl-D ends it");
            }
            let mut lines = stdin_lines();
            while let Some(line) = lines.recv().await {
                let line = line.map_err(|error| {
                    ErrorDocument::new(ErrorCode::Failed, format!("cannot read stdin: {error}"))
                })?;
                if !line.trim().is_empty() {
                    say(session, &client, args, line, &mut tally).await?;
                }
            }
            if tally.sent == 0 {
                let message = "nothing was sent: there was no message on stdin";
                let document = ErrorDocument::new(ErrorCode::Usage, message);
                return Err(advise(document, "say one", "wattle chat send ROOM TEXT", "").into());
            }
        }
    }
    let Some(wanted) = args.wait_ack.filter(|_| tally.short > 0) else { return Ok(()) };
    let message = format!(
        "{} of {} messages reached fewer than {wanted} members; they are kept and go on",
        tally.short, tally.sent
    );
    let code = if tally.unheard == tally.sent { ErrorCode::Timeout } else { ErrorCode::Partial };
    let who = format!("wattle room members {}", tame(&args.room));
    Err(ErrorDocument::new(code, message).detail("who is here", who).into())
}

async fn say(
    session: &Session,
    client: &Client,
    args: &Send,
    text: String,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let request = SayRequest {
        text,
        action: args.me,
        wait_acks: args.wait_ack,
        timeout_ms: session.timeout_ms(),
        ..SayRequest::default()
    };
    let answer = client.post::<SaidDocument>(&routes::room(&args.room, "/messages"), &request).await?;
    tally.sent += 1;
    let acks = answer.document.acks;
    tally.short += u64::from(args.wait_ack.is_some_and(|wanted| acks < wanted));
    tally.unheard += u64::from(acks == 0);
    session.show(&answer, |answer| {
        let came = match (answer.mark, answer.acks) {
            (MessageMark::Local, _) => "on its way".to_owned(),
            (MessageMark::Reached, acks) => format!("{acks} have it"),
            (MessageMark::Everyone, acks) => format!("everyone here has it ({acks})"),
        };
        let room = tame(&answer.room);
        Shown { text: format!("saved in #{room}; {came}\n"), ids: vec![answer.id.clone()] }
    })
}

/// The lines on stdin, read by a thread of its own: a read cannot be cancelled, and Ctrl-C must not wait for
/// one.
fn stdin_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn print(session: &Session, message: &ChatMessage) -> Result<(), Failure> {
    let plain = session.out.json || !session.out.terminal;
    let line = if plain { line_of(session, message) } else { shown(session, message) };
    session.out.line(&line)
}

async fn tail(session: &Session, args: &Tail) -> Result<(), Failure> {
    let client = session.client()?;
    let follow = args.follow || args.count.is_some();
    // Followed before the history is read: nothing is missed between.
    let path = routes::room(&args.room, "/follow");
    let mut lines = client.stream(Method::GET, &path, None::<&()>).await?;
    let history = newest(&client, &args.room, args.count.unwrap_or(TAIL).max(1)).await?;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for message in &history {
        // A page holds one at the least; who wants none of what was said wants what comes.
        if args.count != Some(0) {
            print(session, message)?;
        }
        seen.insert(message.id.clone());
    }
    if !follow {
        return Ok(());
    }
    let wanted = args.count.filter(|_| !args.follow);
    let work = async {
        while wanted.is_none_or(|wanted| seen.len() < wanted) {
            let Some(raw) = lines.next().await? else { return Err(cut_off()) };
            match read_line::<RoomLine>(&raw)? {
                RoomLine::Message { message, .. } if seen.insert(message.id.clone()) => {
                    print(session, &message)?;
                }
                RoomLine::Gap { lost, .. } => {
                    session.out.warn(&format!("{lost} events were lost: this reader is too slow"));
                }
                RoomLine::Left { .. } => {
                    let message = format!("this node left #{}", args.room);
                    return Err(ErrorDocument::new(ErrorCode::NotFound, message).into());
                }
                RoomLine::Error { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    };
    let within = if session.patient { session.timeout() } else { Some(TAIL_WAITS) };
    let (Some(wanted), Some(within)) = (wanted, within) else { return work.await };
    match tokio::time::timeout(within, work).await {
        Ok(result) => result,
        Err(_elapsed) if !session.patient => Ok(()),
        Err(_elapsed) => {
            let message = format!("timed out after {} waiting for {wanted} messages", short(within));
            let document = ErrorDocument::new(ErrorCode::Timeout, message);
            let who = format!("wattle room members {}", tame(&args.room));
            Err(document.detail("who is here", who).into())
        }
    }
}
