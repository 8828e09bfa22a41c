//! Rooms from the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::Client;
use super::errors::{Failure, of_io};
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown};
use super::table::{Table, tame};
use super::values::millis;
use crate::api::documents::{
    ChatMessage, ErrorDocument, Room as RoomRow, RoomDocument, RoomDoneDocument, RoomLine,
    RoomMessagesDocument, RoomNewRequest, RoomsDocument,
};
use crate::exit::ErrorCode;

/// Messages asked for at once when all are wanted.
const PAGE: usize = 500;

/// Rooms: where people chat
#[derive(Args)]
pub(super) struct Room {
    #[command(subcommand)]
    command: RoomCommand,
}

#[derive(Subcommand)]
enum RoomCommand {
    New(New),
    List(List),
    Info(Info),
    Members(Members),
    Leave(Leave),
    Export(Export),
}

/// Make a room
#[derive(Args)]
struct New {
    /// Its name: letters, digits, `-`, `_` and `.`
    name: String,
}

/// Rooms here
#[derive(Args)]
struct List {}

/// One room: topic, members, messages
#[derive(Args)]
struct Info {
    /// A name or an id
    room: String,
}

/// Who is in a room, and who is here now
#[derive(Args)]
struct Members {
    /// A name or an id
    room: String,
}

/// Leave a room: forget it here; others keep theirs
#[derive(Args)]
struct Leave {
    /// A name or an id
    room: String,
}

/// Save all messages, as JSON Lines or as text
#[derive(Args)]
struct Export {
    /// A name or an id
    room: String,
    /// Write to FILE, which must not exist, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn room(session: &Session, args: Room) -> Result<(), Failure> {
    match args.command {
        RoomCommand::New(args) => new(session, &args).await,
        RoomCommand::List(_) => list(session).await,
        RoomCommand::Info(args) => info(session, &args.room).await,
        RoomCommand::Members(args) => members(session, &args.room).await,
        RoomCommand::Leave(args) => leave(session, &args.room).await,
        RoomCommand::Export(args) => export(session, &args).await,
    }
}

async fn new(session: &Session, args: &New) -> Result<(), Failure> {
    let request = RoomNewRequest { name: args.name.clone() };
    let answer = session.client()?.post::<RoomDocument>(routes::ROOMS, &request).await?;
    session.show(&answer, |answer| {
        let name = tame(&answer.room.name);
        let wattle = session.program();
        let text = format!(
            "#{name} is made\n  invite     {wattle} invite --room {name}\n  talk       {wattle} chat {name}\n"
        );
        Shown { text, ids: vec![answer.room.id.clone()] }
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<RoomsDocument>(routes::ROOMS).await?;
    session.show(&answer, |answer| Shown {
        text: if answer.rooms.is_empty() {
            session.commands(
                "no rooms here\n  make one     wattle room new dev\n  enter one    wattle join <ticket>\n",
            )
        } else {
            // Two people may have made rooms of one name: only the id tells them apart.
            let named = |name: &str| answer.rooms.iter().filter(|room| room.name == name).count();
            let mut table = Table::new(&["room", ">messages", "here", "topic"]);
            for room in &answer.rooms {
                let missing = if room.messages_missing == 0 {
                    String::new()
                } else {
                    format!(" (+{} to come)", room.messages_missing)
                };
                table.row([
                    if named(&room.name) > 1 {
                        format!("#{} {}", tame(&room.name), tame(&room.id))
                    } else {
                        format!("#{}", tame(&room.name))
                    },
                    format!("{}{missing}", room.messages),
                    here(room),
                    tame(&room.topic),
                ]);
            }
            table.render()
        },
        ids: answer.rooms.iter().map(|room| room.id.clone()).collect(),
    })
}

/// How many are here, this node among them.
fn here(room: &RoomRow) -> String {
    let here = room.members.iter().filter(|member| member.here).count();
    format!("{here} of {}", room.members.len())
}

async fn info(session: &Session, room: &str) -> Result<(), Failure> {
    let answer = session.client()?.get::<RoomDocument>(&routes::room(room, "")).await?;
    session.show(&answer, |answer| {
        let room = &answer.room;
        let topic = if room.topic.is_empty() { "none".to_owned() } else { tame(&room.topic) };
        let synced = room.members.iter().filter(|member| member.here && !member.me);
        let (synced, others) =
            synced.fold((0, 0), |(synced, all), member| (synced + u32::from(member.in_sync), all + 1));
        let text = format!(
            "#{}\ntopic      {topic}\nmembers    {} here\nmessages   {} here, {} to come\nsynced     with {synced} of {others}\nid         {}\n",
            tame(&room.name),
            here(room),
            room.messages,
            room.messages_missing,
            tame(&room.id),
        );
        Shown { text, ids: vec![room.id.clone()] }
    })
}

async fn members(session: &Session, room: &str) -> Result<(), Failure> {
    let answer = session.client()?.get::<RoomDocument>(&routes::room(room, "")).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&["nick", "id", "state", "path", ">rtt"]);
        for member in &answer.room.members {
            let state = match (member.me, member.here, member.in_sync) {
                (true, ..) => "this node",
                (false, true, true) => "here, in sync",
                (false, true, false) => "here",
                (false, false, _) => "offline",
            };
            table.row([
                tame(&member.nick),
                format!("..{}", member.id.short()),
                state.to_owned(),
                member.path.clone().unwrap_or_default(),
                member.rtt_ms.map(millis).unwrap_or_default(),
            ]);
        }
        let ids = answer.room.members.iter().map(|member| member.id.to_string()).collect();
        Shown { text: table.render(), ids }
    })
}

async fn leave(session: &Session, room: &str) -> Result<(), Failure> {
    let path = routes::room(room, "/leave");
    let answer = session.client()?.post::<RoomDoneDocument>(&path, &serde_json::json!({})).await?;
    session.show(&answer, |answer| Shown {
        text: format!(
            "left #{}; what was said in it is forgotten here\n  this node may come back by any ticket, as what it \
             was, until an admin removes it\n",
            tame(&answer.name)
        ),
        ids: vec![answer.id.clone()],
    })
}

/// A page of messages, the newest before a place.
pub(super) async fn page(
    client: &Client,
    room: &str,
    limit: usize,
    before: Option<&str>,
) -> Result<RoomMessagesDocument, Failure> {
    let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
    let path = format!("{}?limit={limit}{before}", routes::room(room, "/messages"));
    Ok(client.get::<RoomMessagesDocument>(&path).await?.document)
}

/// Every message of a room, in order.
pub(super) async fn all(client: &Client, room: &str) -> Result<Vec<ChatMessage>, Failure> {
    newest(client, room, usize::MAX).await
}

/// The newest messages of a room, in order.
pub(super) async fn newest(client: &Client, room: &str, count: usize) -> Result<Vec<ChatMessage>, Failure> {
    let (mut pages, mut left) = (Vec::new(), count);
    let mut before: Option<String> = None;
    loop {
        let page = page(client, room, left.min(PAGE), before.as_deref()).await?;
        left = left.saturating_sub(page.messages.len());
        pages.push(page.messages);
        before = page.before;
        if before.is_none() || left == 0 {
            return Ok(pages.into_iter().rev().flatten().collect());
        }
    }
}

async fn export(session: &Session, args: &Export) -> Result<(), Failure> {
    let messages = all(&session.client()?, &args.room).await?;
    let lines: String = messages.iter().map(|message| format!("{}\n", line_of(session, message))).collect();
    let Some(file) = &args.output else { return session.out.text(&lines) };
    write_new(file, lines.as_bytes())?;
    session.out.note(&format!("{} messages are in {}", messages.len(), file.display()));
    Ok(())
}

/// Writes a file that was not there, whole or not at all.
pub(super) fn write_new(file: &std::path::Path, bytes: &[u8]) -> Result<(), Failure> {
    match wattle_store::create_file(file, bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} is there already", file.display());
            Err(ErrorDocument::new(ErrorCode::Conflict, message).hint("another name after -o").into())
        }
        Err(error) => Err(of_io("write", file, &error).into()),
    }
}

/// A message on one line: JSON, or `time TAB nick TAB text`.
pub(super) fn line_of(session: &Session, message: &ChatMessage) -> String {
    if session.out.json {
        let line = RoomLine::Message { ts: message.received, message: message.clone() };
        return serde_json::to_string(&line).unwrap_or_default();
    }
    plain(message)
}

/// `time TAB nick TAB text`.
pub(super) fn plain(message: &ChatMessage) -> String {
    // Always as wide, so that lines can be sorted and cut.
    let sent = message.sent.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    format!("{sent}\t{}\t{}", one_line(&message.nick), one_line(&spoken(message)))
}

/// A message for a person at a terminal.
pub(super) fn shown(session: &Session, message: &ChatMessage) -> String {
    let time = super::values::clock(message.sent);
    let late = if message.late { " (late)" } else { "" };
    let forked = if message.forked { " (its author signed another in its place)" } else { "" };
    format!(
        "{} {}  {}{}",
        session.out.paint(Meaning::Faint, &time),
        session.out.paint(Meaning::Strong, &tame(&message.nick)),
        one_line(&spoken(message)),
        session.out.paint(Meaning::Faint, &format!("{late}{forked}")),
    )
}

/// What a message says, in words.
fn spoken(message: &ChatMessage) -> String {
    use crate::api::documents::MessageKind;
    match message.kind {
        MessageKind::Text => message.text.clone(),
        MessageKind::Action => format!("* {}", message.text),
        MessageKind::Deleted => "(taken back)".to_owned(),
        MessageKind::Unknown => "(from a newer wattle: update to read it)".to_owned(),
    }
}

/// On one line, with nothing that drives a terminal: a line end and a tab are spelled.
fn one_line(text: &str) -> String {
    let spelled = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
    tame(&spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(one_line("C:\\new"), "C:\\\\new");
        assert!(!one_line("\u{1b}[2J").contains('\u{1b}'));
    }
}
