//! Routes about rooms and their messages: questions to the chat app.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use utoipa::IntoParams;
use wattle_app::{Reject, RejectCode};
use wattle_chat::{Answer as ChatAnswer, Ask, Happened, Kept, KeptId, Kind, Mark, Message, PAGE_MAX, Said};
use wattle_net::{PathKind, PeerInfo, Transport};
use wattle_types::{DocId, Hlc, NodeId, PostId, PostLink, UnixTime, cbor};

use super::super::documents::{
    ChatMessage, ErrorDocument, MarkRow, MessageKind, MessageMark, NickRequest, Room, RoomDocument,
    RoomDoneDocument, RoomDoneSchema, RoomLine, RoomMember, RoomMessagesDocument, RoomMessagesSchema,
    RoomNewRequest, RoomSchema, RoomTopicRequest, RoomsDocument, RoomsSchema, SaidDocument, SaidSchema,
    SayRequest,
};
use super::super::extract::{Json, Parameters, Part, STREAM_LINES_MAX, json_lines, timeout};
use super::super::failure::ApiFailure;
use crate::apps::Told;
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::Node;
use crate::paths::NodeName;

type Result<T> = std::result::Result<T, ApiFailure>;

/// Messages in one answer, when nothing is said.
const PAGE: usize = 50;
/// How long chat may take to hear of a document that is here.
const HEARS_WITHIN: Duration = Duration::from_secs(2);
/// How long a message may take to reach as many as was asked, when nothing is said.
const REACHES_WITHIN: Duration = Duration::from_secs(30);

impl From<Reject> for ApiFailure {
    fn from(reject: Reject) -> Self {
        let code = match reject.code {
            RejectCode::Usage => return Self::usage(reject.text),
            RejectCode::NotSaved => {
                let document = ErrorDocument::new(ErrorCode::Failed, reject.text);
                return Self::with_status(StatusCode::INSUFFICIENT_STORAGE, document);
            }
            RejectCode::NotFound => ErrorCode::NotFound,
            RejectCode::Conflict => ErrorCode::Conflict,
            RejectCode::Denied => ErrorCode::Denied,
            RejectCode::Later => ErrorCode::Timeout,
            RejectCode::Failed => ErrorCode::Failed,
        };
        let failure = Self::new(code, reject.text);
        if code == ErrorCode::NotFound { failure.hint("wattle room list") } else { failure }
    }
}

async fn ask(node: &Node, question: Ask) -> Result<ChatAnswer> {
    match node.apps.ask(wattle_chat::ID, &question).await {
        // Whatever went wrong then: it may be done all the same, and whoever asked should ask again.
        Err(_) if node.stop.is_cancelled() => Err(wattle_net::Stopped.into()),
        answer => Ok(answer?),
    }
}

fn unexpected() -> ApiFailure {
    ApiFailure::new(ErrorCode::Failed, "chat gave an answer of another kind")
}

pub(super) async fn find(node: &Node, room: String) -> Result<wattle_chat::Room> {
    match ask(node, Ask::Room { room }).await? {
        ChatAnswer::Room(room) => Ok(room),
        _ => Err(unexpected()),
    }
}

/// Gives this node a nick in the room whose document just came, if it is a room's; gives the room's name.
///
/// Chat hears of a document a moment after the documents do.
pub(super) async fn enter(node: &Node, doc: DocId, nick: Option<String>) -> Result<Option<String>> {
    let kind = node.documents.status(doc).await.map(|status| status.label.kind);
    if kind.as_deref() != Some(wattle_chat::KIND) {
        let why = "a nick is for a room, and this ticket leads to a document";
        return if nick.is_some() { Err(ApiFailure::usage(why)) } else { Ok(None) };
    }
    let mut events = node.apps.events();
    let heard = async {
        loop {
            if let Ok(room) = find(node, doc.to_string()).await {
                return Some(room);
            }
            if matches!(events.recv().await, Err(RecvError::Closed)) {
                return None;
            }
        }
    };
    let heard = tokio::time::timeout(HEARS_WITHIN, heard).await.ok().flatten();
    let room = heard.ok_or_else(|| {
        ApiFailure::new(ErrorCode::Timeout, "the room is here, and chat has not heard of it yet")
            .hint("wattle room list")
    })?;
    match nick {
        Some(nick) => drop(ask(node, Ask::Nick { room: doc.to_string(), nick }).await?),
        None => introduce(node, &room).await,
    }
    Ok(Some(room.name))
}

/// What to call a member: this node's word for it, its own, what it calls itself on this machine, or its short id.
/// What others call themselves must not hide the name that this node's owner gave. This node is called what others
/// call it.
fn called(node: &Node, id: NodeId, nick: &str) -> String {
    let given = node.names.of(id).or_else(|| Some(nick.to_owned()).filter(|nick| !nick.is_empty()));
    let known = given.or_else(|| node.names.label(id));
    known.unwrap_or_else(|| format!("..{}", id.short()))
}

/// Calls this node by its name in a room where it has said nothing: so it is called the same on all sides. A node
/// without a name of its own stays what its id says.
async fn introduce(node: &Node, room: &wattle_chat::Room) {
    let me = node.overlay.id();
    let nameless = room.members.iter().all(|member| member.id != me || member.nick.is_empty());
    if !nameless || !room.may_write || node.paths.node.as_str() == NodeName::DEFAULT {
        return;
    }
    let question = Ask::Nick { room: room.doc.to_string(), nick: node.paths.node.to_string() };
    if let Err(error) = ask(node, question).await {
        tracing::debug!(?error, "a room was entered without a nick");
    }
}

fn room_row(node: &Node, room: wattle_chat::Room, peers: &[PeerInfo]) -> Room {
    let member = |member: wattle_chat::Member| {
        let info = peers.iter().find(|info| info.peer == member.id);
        RoomMember {
            id: member.id,
            nick: called(node, member.id, &member.nick),
            me: member.id == node.overlay.id(),
            here: member.here,
            in_sync: member.in_sync,
            path: info.map(|info| {
                let transport = if info.path.transport == Transport::Quic { "quic" } else { "tcp" };
                match info.path.kind {
                    PathKind::Direct => format!("direct {transport}"),
                    PathKind::Relayed { .. } => "relayed".to_owned(),
                }
            }),
            rtt_ms: info.and_then(|info| info.rtt).map(|rtt| rtt.as_secs_f64() * 1000.0),
        }
    };
    Room {
        name: room.name,
        id: room.doc.to_string(),
        topic: room.topic,
        since: timestamp(room.since),
        may_write: room.may_write,
        members: room.members.into_iter().map(member).collect(),
        messages: room.posts,
        messages_missing: room.posts_missing,
    }
}

async fn room_document(node: &Node, room: wattle_chat::Room) -> Result<Answer<RoomDocument>> {
    let peers = node.overlay.status().await?.peers;
    Ok(Answer(RoomDocument { schema: RoomSchema::V1, room: room_row(node, room, &peers) }))
}

const fn mark_word(mark: Mark) -> MessageMark {
    match mark {
        Mark::Local => MessageMark::Local,
        Mark::Reached => MessageMark::Reached,
        Mark::Everyone => MessageMark::Everyone,
    }
}

fn message_row(node: &Node, room: &str, message: Message) -> ChatMessage {
    ChatMessage {
        room: room.to_owned(),
        id: message.id.to_string(),
        from: message.from,
        nick: called(node, message.from, &message.nick),
        own: message.from == node.overlay.id(),
        sent: timestamp(message.written),
        hlc: format!("{:016x}", message.at.bits()),
        parents: message.parents.iter().map(ToString::to_string).collect(),
        received: timestamp(message.received),
        late: message.late,
        forked: message.forked,
        kind: match message.kind {
            Kind::Text => MessageKind::Text,
            Kind::Action => MessageKind::Action,
            Kind::Deleted => MessageKind::Deleted,
            Kind::Unknown => MessageKind::Unknown,
        },
        text: message.text,
        edited: message.edited,
        mark: message.mark.map(mark_word),
        acks: message.mark.map(|_| message.acks),
    }
}

fn place_text(link: PostLink) -> String {
    format!("{:016x}-{}", link.at.bits(), link.id)
}

fn read_place(text: &str) -> Result<PostLink> {
    let parts =
        text.split_once('-').and_then(|(at, id)| Some(PostLink { at: read_hlc(at)?, id: id.parse().ok()? }));
    parts.ok_or_else(|| ApiFailure::usage("`before` is a place that an answer named"))
}

/// The rooms here.
#[utoipa::path(get, path = "/rooms", tag = "chat",
    responses((status = 200, body = RoomsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Answer<RoomsDocument>> {
    let ChatAnswer::Rooms(rooms) = ask(&node, Ask::Rooms).await? else { return Err(unexpected()) };
    let peers = node.overlay.status().await?.peers;
    let rooms = rooms.into_iter().map(|room| room_row(&node, room, &peers)).collect();
    Ok(Answer(RoomsDocument { schema: RoomsSchema::V1, rooms }))
}

/// Make a room; it is on disk when this answers.
#[utoipa::path(post, path = "/rooms", tag = "chat", request_body = RoomNewRequest,
    responses((status = 200, body = RoomDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Json(request): Json<RoomNewRequest>,
) -> Result<Answer<RoomDocument>> {
    match ask(&node, Ask::New { name: request.name }).await? {
        ChatAnswer::Room(room) => {
            introduce(&node, &room).await;
            room_document(&node, room).await
        }
        _ => Err(unexpected()),
    }
}

/// One room and who is in it.
#[utoipa::path(get, path = "/rooms/{room}", tag = "chat",
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn room(State(node): State<Arc<Node>>, Part(room): Part) -> Result<Answer<RoomDocument>> {
    let room = find(&node, room).await?;
    room_document(&node, room).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct MessagesQuery {
    /// How many, at most 500; 50 when absent.
    limit: Option<usize>,
    /// Before which: `before` of an answer. The newest of all when absent.
    before: Option<String>,
}

/// The newest messages of a room, in order.
#[utoipa::path(get, path = "/rooms/{room}/messages", tag = "chat",
    params(("room" = String, Path, description = "A name or an id"), MessagesQuery),
    responses((status = 200, body = RoomMessagesDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn messages(
    State(node): State<Arc<Node>>,
    Part(room): Part,
    Parameters(query): Parameters<MessagesQuery>,
) -> Result<Answer<RoomMessagesDocument>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiFailure::usage(format!("`limit` is 1 to {PAGE_MAX}")));
    }
    let before = query.before.as_deref().map(read_place).transpose()?;
    let name = find(&node, room.clone()).await?.name;
    match ask(&node, Ask::Messages { room, before, limit }).await? {
        ChatAnswer::Messages { messages, before } => Ok(Answer(RoomMessagesDocument {
            schema: RoomMessagesSchema::V1,
            messages: messages.into_iter().map(|message| message_row(&node, &name, message)).collect(),
            room: name,
            before: before.map(place_text),
        })),
        _ => Err(unexpected()),
    }
}

fn said_of(request: &SayRequest) -> Result<Said> {
    let id = |text: &String| text.parse::<PostId>().map_err(ApiFailure::usage);
    match (&request.edits, &request.deletes) {
        (Some(_), Some(_)) => Err(ApiFailure::usage("a message is changed or taken back, not both")),
        (Some(of), None) => Ok(Said::Edit { of: id(of)?, text: request.text.clone() }),
        (None, Some(of)) => Ok(Said::Delete { of: id(of)? }),
        (None, None) if request.action => Ok(Said::Action(request.text.clone())),
        (None, None) => Ok(Said::Text(request.text.clone())),
    }
}

fn read_hlc(text: &str) -> Option<Hlc> {
    u64::from_str_radix(text, 16).ok().map(Hlc::from_bits)
}

/// The question for something that is said once, or for anything else.
fn saying(room: DocId, request: &SayRequest) -> Result<Ask> {
    let (room, said) = (room.to_string(), said_of(request)?);
    let Some(once) = &request.once else { return Ok(Ask::Say { room, said }) };
    let (action, text) = match said {
        Said::Text(text) => (false, text),
        Said::Action(text) => (true, text),
        Said::Kept(_) | Said::Edit { .. } | Said::Delete { .. } => {
            return Err(ApiFailure::usage("`once` is for what is said, not for what changes it"));
        }
    };
    let id = Some(&once.id).filter(|id| id.len() == 16).and_then(|id| u64::from_str_radix(id, 16).ok());
    let id = KeptId(id.ok_or_else(|| ApiFailure::usage("`once.id` is 16 hexadecimal digits"))?);
    let after = match once.after.as_deref() {
        Some(text) => {
            Some(read_hlc(text).ok_or_else(|| ApiFailure::usage("`once.after` is the `hlc` of a message"))?)
        }
        None => None,
    };
    let written = once.written.map_or_else(unix_now, |at| {
        UnixTime::from_millis(u64::try_from(at.as_millisecond()).unwrap_or_default())
    });
    Ok(Ask::SayOnce { room, kept: Kept { id, written, action, text }, after })
}

/// Say something; it is on disk when this answers, and at as many members as was asked.
#[utoipa::path(post, path = "/rooms/{room}/messages", tag = "chat", request_body = SayRequest,
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = SaidDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn say(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<SayRequest>,
) -> Result<Answer<SaidDocument>> {
    let room = find(&node, which).await?;
    let question = saying(room.doc, &request)?;
    let mut events = node.apps.events();
    let ChatAnswer::Said { id } = ask(&node, question).await? else { return Err(unexpected()) };
    let mut reached = (Mark::Local, 0);
    if let Some(wanted) = request.wait_acks.filter(|wanted| *wanted > 0) {
        let within = timeout(request.timeout_ms, REACHES_WITHIN);
        let wait = reaches(&mut events, id, wanted, &mut reached);
        // Ignored because the answer says how far it came.
        drop(tokio::time::timeout(within, wait).await);
    }
    Ok(Answer(SaidDocument {
        schema: SaidSchema::V1,
        room: room.name,
        id: id.to_string(),
        mark: mark_word(reached.0),
        acks: reached.1,
    }))
}

/// Watches a message until it came to so many.
async fn reaches(events: &mut broadcast::Receiver<Told>, id: PostId, wanted: u64, reached: &mut (Mark, u64)) {
    while reached.1 < wanted {
        match events.recv().await {
            Ok(told) => {
                if let Some(Happened::Marks { marks, .. }) = happened(&told)
                    && let Some(mark) = marks.into_iter().find(|mark| mark.id == id)
                {
                    *reached = (mark.mark, mark.acks);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn happened(told: &Told) -> Option<Happened> {
    if told.app != wattle_chat::ID {
        return None;
    }
    cbor::decode(&told.event, told.event.len()).ok()
}

/// What this node is called in a room.
#[utoipa::path(post, path = "/rooms/{room}/nick", tag = "chat", request_body = NickRequest,
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn nick(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<NickRequest>,
) -> Result<Answer<RoomDoneDocument>> {
    let room = find(&node, which).await?;
    ask(&node, Ask::Nick { room: room.doc.to_string(), nick: request.nick }).await?;
    Ok(done(room.name, room.doc))
}

/// What a room is about.
#[utoipa::path(post, path = "/rooms/{room}/topic", tag = "chat", request_body = RoomTopicRequest,
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn topic(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<RoomTopicRequest>,
) -> Result<Answer<RoomDoneDocument>> {
    let room = find(&node, which).await?;
    ask(&node, Ask::Topic { room: room.doc.to_string(), topic: request.topic }).await?;
    Ok(done(room.name, room.doc))
}

/// Tell the others that somebody is typing.
#[utoipa::path(post, path = "/rooms/{room}/typing", tag = "chat",
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn typing(
    State(node): State<Arc<Node>>,
    Part(which): Part,
) -> Result<Answer<RoomDoneDocument>> {
    let room = find(&node, which).await?;
    ask(&node, Ask::Typing { room: room.doc.to_string() }).await?;
    Ok(done(room.name, room.doc))
}

/// Leave a room: forget it here; others keep theirs.
#[utoipa::path(post, path = "/rooms/{room}/leave", tag = "chat",
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn leave(
    State(node): State<Arc<Node>>,
    Part(which): Part,
) -> Result<Answer<RoomDoneDocument>> {
    let room = find(&node, which).await?;
    let forgotten = node.documents.forget(room.doc).await;
    forgotten.map_err(|error| Reject::from(wattle_weave::to_error(error)))?;
    Ok(done(room.name, room.doc))
}

fn done(name: String, doc: DocId) -> Answer<RoomDoneDocument> {
    Answer(RoomDoneDocument { schema: RoomDoneSchema::V1, name, id: doc.to_string() })
}

/// What happens in a room, as JSON Lines. The first line is the room as it is now.
#[utoipa::path(get, path = "/rooms/{room}/follow", tag = "chat",
    params(("room" = String, Path, description = "A name or an id")),
    responses((status = 200, body = RoomLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn follow(State(node): State<Arc<Node>>, Part(which): Part) -> Result<Response> {
    // Subscribed before the room is read: nothing is missed between.
    let events = node.apps.events();
    let room = find(&node, which).await?;
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    tokio::spawn(async move { forward(&node, room, events, &sender).await });
    Ok(json_lines(lines))
}

async fn forward(
    node: &Node,
    room: wattle_chat::Room,
    mut events: broadcast::Receiver<Told>,
    sender: &mpsc::Sender<RoomLine>,
) {
    let doc = room.doc;
    let mut next = Some(Ok(Happened::Room(room.clone())));
    let mut room = room;
    loop {
        let line = match next {
            Some(Ok(happened)) => {
                if let Happened::Room(now) = &happened {
                    room = now.clone();
                }
                line(node, &room, happened).await
            }
            Some(Err(lost)) => RoomLine::Gap { ts: Timestamp::now(), lost },
            None => {
                let error = ApiFailure::from(wattle_net::Stopped).into_document();
                RoomLine::Error { ts: Timestamp::now(), error }
            }
        };
        let ends = matches!(line, RoomLine::Error { .. } | RoomLine::Left { .. });
        if sender.send(line).await.is_err() || ends {
            return;
        }
        next = loop {
            let told = tokio::select! {
                told = events.recv() => told,
                () = sender.closed() => return,
                () = node.stop.cancelled() => break None,
            };
            match told {
                Ok(told) => {
                    if let Some(happened) = happened(&told).filter(|it| room_of(it) == doc) {
                        break Some(Ok(happened));
                    }
                }
                Err(RecvError::Lagged(lost)) => break Some(Err(lost)),
                Err(RecvError::Closed) => break None,
            }
        };
    }
}

const fn room_of(happened: &Happened) -> DocId {
    match happened {
        Happened::Said(message) => message.room,
        Happened::Room(room) => room.doc,
        Happened::Changed { room, .. }
        | Happened::Marks { room, .. }
        | Happened::Typing { room, .. }
        | Happened::Left { room }
        | Happened::Forked { room, .. } => *room,
    }
}

async fn line(node: &Node, room: &wattle_chat::Room, happened: Happened) -> RoomLine {
    let ts = Timestamp::now();
    let nick = |id: NodeId| {
        let own = room.members.iter().find(|member| member.id == id).map(|member| member.nick.as_str());
        called(node, id, own.unwrap_or_default())
    };
    match happened {
        Happened::Room(now) => {
            // Ignored because a node that stops has no peers to show.
            let peers = node.overlay.status().await.map(|status| status.peers).unwrap_or_default();
            RoomLine::Room { ts, room: room_row(node, now, &peers) }
        }
        Happened::Said(message) => RoomLine::Message { ts, message: message_row(node, &room.name, message) },
        Happened::Changed { of, from, text, .. } => RoomLine::Changed { ts, of: of.to_string(), from, text },
        Happened::Marks { marks, .. } => {
            let row = |mark: wattle_chat::MarkOf| MarkRow {
                id: mark.id.to_string(),
                mark: mark_word(mark.mark),
                acks: mark.acks,
            };
            RoomLine::Marks { ts, marks: marks.into_iter().map(row).collect() }
        }
        Happened::Typing { from, .. } => RoomLine::Typing { ts, from, nick: nick(from) },
        Happened::Forked { from, .. } => RoomLine::Forked { ts, from, nick: nick(from) },
        Happened::Left { .. } => RoomLine::Left { ts },
    }
}
