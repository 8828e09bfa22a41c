//! The chat's side of the API: each question runs in a task of its own, and what comes of it is an event.
//! Nothing here waits for the screen, and the screen waits for nothing here.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::model::{
    Action, Batch, Event, Kind, Link, Mark, Member, Message, Page, Place, Presence, Room, SendId, Sync,
};
use super::outbox::{Letter, Outbox, forget};
use super::screen::OUTGOING_MAX;
use crate::api::documents::{
    self, ChatMessage, ErrorDocument, InviteDocument, InviteRequest, JoinDocument, JoinRequest, MessageKind,
    MessageMark, NickRequest, RoomDoneDocument, RoomLine, RoomTopicRequest, RoomsDocument, SaidDocument,
};
use crate::cli::client::{Client, read_line};
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::exit::ErrorCode;

/// Messages in one question.
const PAGE: usize = 200;
/// Rooms that are not open are looked at so often.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// A node that does not answer a short question in so long is away.
const POLL_MAX: Duration = Duration::from_secs(5);
/// A lost stream is asked for again after this, and then after twice as long each time.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A room that is not there for so long was left.
const MISSING_MAX: Duration = Duration::from_secs(5);
/// Commands that run at one time; more are refused.
const COMMANDS_MAX: usize = 16;

/// A text to send.
struct Send {
    id: SendId,
    room: String,
    text: String,
    action: bool,
    after: u64,
}

/// A text that is on disk.
struct Waiting {
    id: SendId,
    letter: Letter,
    file: PathBuf,
    /// The node may have it already.
    again: bool,
}

/// The tasks that talk to the node.
pub(super) struct Node {
    client: Client,
    events: mpsc::Sender<Event>,
    sends: mpsc::Sender<Send>,
    tasks: JoinSet<()>,
    /// The stream of the open room.
    following: Option<AbortHandle>,
    commands: JoinSet<()>,
}

impl Node {
    /// Begins to look after the rooms, and to send what an earlier chat left; what the screen must know of that.
    pub(super) fn start(
        client: &Client,
        events: mpsc::Sender<Event>,
        outbox: Outbox,
        left: Vec<(PathBuf, Letter)>,
    ) -> (Self, Vec<Event>) {
        // The screen counts from the other end.
        let ids = (0..=u64::MAX).rev().map(SendId);
        let left = ids.zip(left).map(|(id, (file, letter))| Waiting { id, letter, file, again: true });
        let left: Vec<Waiting> = left.collect();
        let known = left.iter().map(|Waiting { id, letter, .. }| Event::Waiting {
            id: *id,
            room: letter.room.clone(),
            text: letter.text.clone(),
            action: letter.action,
            written: letter.written,
        });
        let known = known.collect();
        // The screen holds back what is more.
        let (sends, queue) = mpsc::channel(OUTGOING_MAX);
        let (kept, waiting) = mpsc::channel(OUTGOING_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(poll(client.clone(), events.clone()));
        tasks.spawn(keep_each(outbox, events.clone(), queue, kept));
        tasks.spawn(send_each(client.clone(), events.clone(), left, waiting));
        let commands = JoinSet::new();
        (Self { client: client.clone(), events, sends, tasks, following: None, commands }, known)
    }

    /// Does what the screen asked for. Never waits; what cannot be begun is said.
    pub(super) fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::OpenRoom(room) => {
                if let Some(before) = self.following.take() {
                    before.abort();
                }
                let task = follow(self.client.clone(), self.events.clone(), room);
                self.following = Some(self.tasks.spawn(task));
                None
            }
            Action::Send { id, room, text, action, after } => {
                let full = self.sends.try_send(Send { id, room, text, action, after }).is_err();
                full.then(|| Event::NotSent(id, "too many texts wait for the node".to_owned()))
            }
            Action::Quit | Action::Redraw => None,
            command => {
                while self.commands.try_join_next().is_some() {}
                if self.commands.len() >= COMMANDS_MAX {
                    let typing = matches!(command, Action::Typing(_));
                    return (!typing)
                        .then(|| Event::Failed("the node is busy with the last commands".to_owned()));
                }
                let (client, events) = (self.client.clone(), self.events.clone());
                self.commands.spawn(async move {
                    if let Some(event) = command_event(&client, command).await {
                        tell(&events, event).await;
                    }
                });
                None
            }
        }
    }

    /// Whether a task panicked: what it was to do is not done any more.
    pub(super) fn is_broken(&mut self) -> bool {
        let panicked = |ended: Result<(), tokio::task::JoinError>| ended.is_err_and(|error| error.is_panic());
        let mut broken = false;
        for tasks in [&mut self.tasks, &mut self.commands] {
            while let Some(ended) = tasks.try_join_next() {
                broken |= panicked(ended);
            }
        }
        broken
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // Ignored because a chat that was closed wants no events.
    drop(events.send(event).await);
}

/// What went wrong, in one line.
fn why(failure: &Failure) -> String {
    match failure {
        Failure::Error(document) => document.message.clone(),
        Failure::Told(_) | Failure::Closed | Failure::Help(_) => "the command ended".to_owned(),
    }
}

fn is_away(failure: &Failure) -> bool {
    let Failure::Error(document) = failure else { return false };
    matches!(document.code, ErrorCode::NoNode | ErrorCode::Timeout)
}

/// Asks for the rooms again and again.
async fn poll(client: Client, events: mpsc::Sender<Event>) {
    let mut up = true;
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        let question = client.get::<RoomsDocument>(routes::ROOMS);
        let event = match tokio::time::timeout(POLL_MAX, question).await {
            Ok(Ok(answer)) => {
                if !std::mem::replace(&mut up, true) {
                    tell(&events, Event::Link(Link::Up)).await;
                }
                Event::Rooms(answer.document.rooms.iter().map(read_room).collect())
            }
            Ok(Err(failure)) if is_away(&failure) => {
                up = false;
                Event::Link(Link::Down(why(&failure)))
            }
            Ok(Err(failure)) => Event::Failed(why(&failure)),
            Err(_elapsed) => {
                up = false;
                Event::Link(Link::Down("it does not answer".to_owned()))
            }
        };
        tell(&events, event).await;
    }
}

/// Puts texts on disk, each before it is sent.
async fn keep_each(
    mut outbox: Outbox,
    events: mpsc::Sender<Event>,
    mut queue: mpsc::Receiver<Send>,
    kept: mpsc::Sender<Waiting>,
) {
    while let Some(Send { id, room, text, action, after }) = queue.recv().await {
        test_panic(&text);
        let keep = move || {
            let letter = Letter::new(room, text, action, after);
            let kept = letter.and_then(|letter| Ok((outbox.keep(&letter)?, letter)));
            (outbox, kept)
        };
        let Ok((back, outcome)) = tokio::task::spawn_blocking(keep).await else { return };
        outbox = back;
        match outcome {
            Ok((file, letter)) => {
                tell(&events, Event::Kept(id)).await;
                if kept.send(Waiting { id, letter, file, again: false }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let why = format!("it cannot be kept on this machine: {error}");
                tell(&events, Event::NotSent(id, why)).await;
            }
        }
    }
}

/// Sends texts one after another, so that they stand in the order in which they were typed: first what was left.
async fn send_each(
    client: Client,
    events: mpsc::Sender<Event>,
    left: Vec<Waiting>,
    mut queue: mpsc::Receiver<Waiting>,
) {
    for waiting in left {
        let outcome = send(&client, waiting).await;
        tell(&events, outcome).await;
    }
    while let Some(waiting) = queue.recv().await {
        let outcome = send(&client, waiting).await;
        tell(&events, outcome).await;
    }
}

/// Sends one text: again and again until a node that is there has it or refuses it.
async fn send(client: &Client, mut waiting: Waiting) -> Event {
    let mut wait = RETRY_FIRST;
    let mut missing = None;
    loop {
        let path = routes::room(&waiting.letter.room, "/messages");
        let request = waiting.letter.request(waiting.again);
        let event = match client.post::<SaidDocument>(&path, &request).await {
            Ok(_said) => Event::Sent(waiting.id),
            Err(failure) if is_away(&failure) || is_missing(&failure, &mut missing) => {
                waiting.again = true;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
                continue;
            }
            Err(failure) => Event::NotSent(waiting.id, why(&failure)),
        };
        forget(&waiting.file);
        return event;
    }
}

/// Whether the room may still come: a node that just began does not know its rooms yet.
fn is_missing(failure: &Failure, since: &mut Option<Instant>) -> bool {
    let gone = matches!(failure, Failure::Error(document) if document.code == ErrorCode::NotFound);
    gone && since.get_or_insert_with(Instant::now).elapsed() < MISSING_MAX
}

/// Lets a test see that a panic gives the terminal back. Not in the program that ships.
#[cfg(debug_assertions)]
fn test_panic(text: &str) {
    let wanted = std::env::var("WATTLE_TEST_PANIC_TASK").is_ok_and(|wanted| wanted == text);
    assert!(!wanted, "a panic that a test asked for");
}

#[cfg(not(debug_assertions))]
const fn test_panic(_text: &str) {}

/// Follows a room for as long as it is open: after a break from where the node is then.
async fn follow(client: Client, events: mpsc::Sender<Event>, room: String) {
    let mut wait = RETRY_FIRST;
    let mut down = false;
    loop {
        let before = Instant::now();
        match follow_once(&client, &events, &room, &mut down).await {
            Ok(()) => return,
            Err(failure) if is_away(&failure) => {
                // The first attempt to come back is made at once: a stream may end without the node ending.
                if before.elapsed() > RETRY_MAX {
                    wait = RETRY_FIRST;
                } else {
                    down = true;
                    tell(&events, Event::Link(Link::Down(why(&failure)))).await;
                }
            }
            Err(failure) => {
                tell(&events, Event::Failed(why(&failure))).await;
                if matches!(&failure, Failure::Error(document) if document.code == ErrorCode::NotFound) {
                    // It was left elsewhere; the list of rooms follows.
                    return;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// One connection; ends well when this node left the room.
async fn follow_once(
    client: &Client,
    events: &mpsc::Sender<Event>,
    room: &str,
    down: &mut bool,
) -> Result<(), Failure> {
    let mut lines = client.stream(Method::GET, &routes::room(room, "/follow"), None::<&()>).await?;
    if std::mem::replace(down, false) {
        tell(events, Event::Link(Link::Up)).await;
    }
    // The stream began before this question: what comes between is in both, and nothing is in neither.
    tell(events, Event::Batch(page(client, room, None).await?)).await;
    while let Some(raw) = lines.next().await? {
        let line = read_line::<RoomLine>(&raw)?;
        match line {
            RoomLine::Gap { .. } => tell(events, Event::Batch(page(client, room, None).await?)).await,
            RoomLine::Left { .. } => return Ok(()),
            RoomLine::Error { error, .. } => return Err(error.into()),
            line => {
                for event in read_events(room, line) {
                    tell(events, event).await;
                }
            }
        }
    }
    Err(crate::cli::client::cut_off())
}

async fn page(client: &Client, room: &str, before: Option<&str>) -> Result<Batch, Failure> {
    let answer = crate::cli::room::page(client, room, PAGE, before).await?;
    let messages = answer.messages.into_iter().map(read_message).collect();
    Ok(Batch { room: room.to_owned(), messages, before: answer.before, newest: before.is_none() })
}

/// Runs one command; gives what there is to say about it.
async fn command_event(client: &Client, action: Action) -> Option<Event> {
    let done = match action {
        Action::Typing(room) => {
            // Ignored because nobody misses it.
            drop(
                client
                    .post::<RoomDoneDocument>(&routes::room(&room, "/typing"), &serde_json::json!({}))
                    .await,
            );
            return None;
        }
        Action::LoadOlder { room, before } => page(client, &room, Some(&before)).await.map(Event::Batch),
        Action::Nick { room, nick } => {
            let request = NickRequest { nick: nick.clone() };
            let asked = client.post::<RoomDoneDocument>(&routes::room(&room, "/nick"), &request).await;
            asked.map(|done| Event::Done(format!("you are {nick} in #{} now", done.document.name)))
        }
        Action::Topic { room, topic } => {
            let request = RoomTopicRequest { topic };
            let asked = client.post::<RoomDoneDocument>(&routes::room(&room, "/topic"), &request).await;
            asked.map(|done| Event::Done(format!("#{} has a new topic", done.document.name)))
        }
        Action::LeaveRoom(room) => {
            let path = routes::room(&room, "/leave");
            let asked = client.post::<RoomDoneDocument>(&path, &serde_json::json!({})).await;
            asked.map(|done| Event::Done(format!("you left #{}", done.document.name)))
        }
        Action::JoinTicket(ticket) => join(client, ticket).await,
        Action::Invite(room) => invite(client, &room).await,
        Action::Export { room, file } => export(client, &room, file).await,
        Action::OpenRoom(_) | Action::Send { .. } | Action::Redraw | Action::Quit => return None,
    };
    Some(done.unwrap_or_else(|failure| Event::Failed(why(&failure))))
}

/// Uses a ticket: into a room, or, where it names none, into a network.
async fn join(client: &Client, ticket: String) -> Result<Event, Failure> {
    let request = JoinRequest { ticket, name: None, nick: None, timeout_ms: None };
    let joined = client.post::<JoinDocument>(routes::JOIN, &request).await?.document;
    match joined.doc.filter(|_| joined.room.is_some()) {
        Some(doc) => {
            let rooms = client.get::<RoomsDocument>(routes::ROOMS).await?.document.rooms;
            Ok(Event::Joined(doc.id, rooms.iter().map(read_room).collect()))
        }
        None => Ok(Event::Done(format!("joined network {}; the ticket leads into no room", joined.network))),
    }
}

/// Makes a ticket into a room, for whoever has it, to read and to write.
async fn invite(client: &Client, room: &str) -> Result<Event, Failure> {
    let request = InviteRequest { room: Some(room.to_owned()), ..InviteRequest::default() };
    let answer = client.post::<InviteDocument>(routes::TICKETS, &request).await?.document;
    let mut lines = vec![
        answer.ticket,
        String::new(),
        "They type /join and the ticket in their chat, or `wattle join` in a shell.".to_owned(),
        format!("It lets in whoever has it until {}: send it over a safe channel.", answer.expires),
    ];
    lines.extend(answer.warnings);
    Ok(Event::Page(Page { title: "a ticket for this room".to_owned(), lines }))
}

/// Writes the whole room into a new file.
async fn export(client: &Client, room: &str, file: Option<String>) -> Result<Event, Failure> {
    let messages = crate::cli::room::all(client, room).await?;
    let name = messages.first().map_or("room", |message| message.room.as_str());
    let file = PathBuf::from(file.unwrap_or_else(|| format!("{name}.txt")));
    let lines: String =
        messages.iter().map(|message| format!("{}\n", crate::cli::room::plain(message))).collect();
    let done = format!("{} messages are in {}", messages.len(), file.display());
    let write = move || crate::cli::room::write_new(&file, lines.as_bytes());
    let broken = |error| ErrorDocument::new(ErrorCode::Failed, format!("cannot write: {error}"));
    tokio::task::spawn_blocking(write).await.map_err(broken)??;
    Ok(Event::Done(done))
}

/// A room of the list.
pub(super) fn read_room(room: &documents::Room) -> Room {
    Room {
        id: room.id.clone(),
        name: room.name.clone(),
        topic: (!room.topic.is_empty()).then(|| room.topic.clone()),
        unread: 0,
        here: room.members.iter().filter(|member| member.here || member.me).count() as u64,
        members: room.members.len() as u64,
        sync: read_sync(room),
    }
}

fn read_sync(room: &documents::Room) -> Sync {
    let others = || room.members.iter().filter(|member| member.here && !member.me);
    Sync {
        have: room.messages,
        known: room.messages + room.messages_missing,
        with: others().filter(|member| member.in_sync).count() as u64,
        peers: others().count() as u64,
    }
}

fn read_member(member: &documents::RoomMember) -> Member {
    let here = member.here || member.me;
    let relay = member.path.as_deref() == Some("relayed");
    let path = match (member.rtt_ms, &member.path) {
        (Some(rtt), _) => Some(format!("{rtt:.0} ms{}", if relay { " relay" } else { "" })),
        (None, path) => path.clone(),
    };
    Member {
        id: member.id.to_string(),
        nick: member.nick.clone(),
        own: member.me,
        presence: match (here, member.in_sync || member.me) {
            (true, true) => Presence::Here,
            (true, false) => Presence::Behind,
            (false, _) => Presence::Offline(None),
        },
        path: path.filter(|_| !member.me),
    }
}

fn read_message(message: ChatMessage) -> Message {
    Message {
        place: Place(u64::from_str_radix(&message.hlc, 16).unwrap_or(0), message.id.clone()),
        id: message.id,
        author: message.from.to_string(),
        nick: message.nick,
        own: message.own,
        sent: message.sent,
        kind: match message.kind {
            MessageKind::Text | MessageKind::Deleted => Kind::Text,
            MessageKind::Action => Kind::Action,
            MessageKind::Unknown => Kind::Notice,
        },
        text: match message.kind {
            MessageKind::Unknown => "written by a newer version of wattle".to_owned(),
            _ => message.text,
        },
        edited: message.edited,
        deleted: message.kind == MessageKind::Deleted,
        mark: message.mark.map_or(Mark::Local, read_mark),
        late: message.late,
        flagged: message.forked,
    }
}

const fn read_mark(mark: MessageMark) -> Mark {
    match mark {
        MessageMark::Local => Mark::Local,
        MessageMark::Reached => Mark::Reached,
        MessageMark::Everyone => Mark::Everyone,
    }
}

/// What a line of the stream tells.
fn read_events(id: &str, line: RoomLine) -> Vec<Event> {
    let id = id.to_owned();
    match line {
        RoomLine::Room { room, .. } => {
            let members = room.members.iter().map(read_member).collect();
            vec![Event::Members(id.clone(), members), Event::Sync(id, read_sync(&room))]
        }
        RoomLine::Message { message, .. } => vec![Event::Message(id, Box::new(read_message(message)))],
        RoomLine::Changed { of, from, text, .. } => {
            vec![Event::Changed { room: id, id: of, author: from.to_string(), text }]
        }
        RoomLine::Marks { marks, .. } => {
            marks.into_iter().map(|row| Event::Mark(id.clone(), row.id, read_mark(row.mark))).collect()
        }
        RoomLine::Typing { nick, .. } => vec![Event::Typing(id, nick)],
        RoomLine::Forked { from, .. } => vec![Event::Forked(id, from.to_string())],
        RoomLine::Left { .. } | RoomLine::Gap { .. } | RoomLine::Error { .. } => Vec::new(),
    }
}
