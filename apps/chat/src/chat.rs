//! The app: rooms, their messages, and who asks for them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_app::{
    Answer as Did, App, AppEvent, AppId, CallError, CallId, Context, DocInfo, Reject, RejectCode, Request,
    RequestId,
};
use wattle_types::{DocId, Hlc, NodeId, PostId, PostLink, Posted, cbor};

use crate::ask::{Answer, Ask, Happened, Message, NICK_CHARS_MAX, PAGE_MAX, Room, TOPIC_BYTES_MAX};
use crate::room::{Facts, Known, facts, found, is_nick, set_nick, set_topic};
use crate::said::{Kept, KeptId, Said, check_name, clean_name};

/// This app.
pub const ID: AppId = AppId("chat/1");

/// The kind of documents that are rooms.
pub const KIND: &str = "chat/1";

/// Bytes of a question: what is too long for a message is still told so in words.
const ASK_BYTES_MAX: usize = 32 << 20;
/// Entries read at once while looking for edits.
const SCAN: usize = 512;
/// What is dated further ahead is shown when its time has come.
const AHEAD_MAX: Duration = Duration::from_secs(10 * 60);
/// Typing is told at most this often per room.
const TYPING_EVERY: Duration = Duration::from_secs(2);

/// What members tell each other that nobody keeps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Passing {
    Typing,
}

/// What a call is for.
enum Pending {
    Found { request: RequestId, name: String },
    Said { request: RequestId },
    Facts { doc: DocId },
    Plain { request: RequestId },
    Page(Paging),
    Once(Once),
    Kept { doc: DocId, id: KeptId },
    Passing,
}

/// What a program kept, while it is looked for whether the room has it already.
struct Once {
    request: RequestId,
    doc: DocId,
    after: Option<Hlc>,
    kept: Kept,
}

/// A page that is being put together.
struct Paging {
    request: RequestId,
    doc: DocId,
    before: Option<PostLink>,
    limit: usize,
    /// Entries between what was looked through and the page are looked through first.
    scanning: bool,
    asked: usize,
    /// The messages among what was read.
    posts: Vec<Posted>,
}

/// Chat.
#[derive(Default)]
pub struct Chat {
    rooms: BTreeMap<DocId, Known>,
    told: BTreeMap<DocId, Room>,
    typed: BTreeMap<DocId, wattle_types::UnixTime>,
    pending: BTreeMap<CallId, Pending>,
}

impl Chat {
    /// Chat without rooms: it hears of those that are here.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Which room somebody means: its name, with or without `#`, or its document's id.
    fn find(&self, text: &str) -> Result<&Known, Reject> {
        if let Ok(id) = text.parse::<DocId>() {
            let missing = || Reject::new(RejectCode::NotFound, format!("no room {id} here"));
            return self.rooms.get(&id).ok_or_else(missing);
        }
        let name = clean_name(text);
        let mut named = self.rooms.values().filter(|room| room.info.title == name);
        match (named.next(), named.next()) {
            (Some(room), None) => Ok(room),
            (Some(_), Some(_)) => {
                let why = format!("more than one room here is called `{name}`: say which by its id");
                Err(Reject::new(RejectCode::Usage, why))
            }
            (None, _) => Err(Reject::new(RejectCode::NotFound, format!("no room #{name} here"))),
        }
    }

    fn ask(&mut self, request: RequestId, ask: Ask, cx: &mut Context<'_>) -> Result<Option<Answer>, Reject> {
        let (call, pending) = match ask {
            Ask::Rooms => {
                let mut rooms: Vec<Room> = self.rooms.values().map(|room| room.room(cx.me())).collect();
                rooms.sort_by(|one, other| (&one.name, one.doc).cmp(&(&other.name, other.doc)));
                return Ok(Some(Answer::Rooms(rooms)));
            }
            Ask::Room { room } => return Ok(Some(Answer::Room(self.find(&room)?.room(cx.me())))),
            Ask::New { name } => {
                let name = clean_name(&name).to_owned();
                check_name(&name)?;
                if self.rooms.values().any(|room| room.info.title == name) {
                    return Err(Reject::new(RejectCode::Conflict, format!("a room #{name} is here already")));
                }
                let title = name.clone();
                let call = cx.create(Box::new(move |tx| found(tx, &title)));
                (call, Pending::Found { request, name })
            }
            Ask::Messages { room, before, limit } => {
                let doc = self.find(&room)?.info.doc;
                let limit = limit.clamp(1, PAGE_MAX);
                let paging =
                    Paging { request, doc, before, limit, scanning: true, asked: 0, posts: Vec::new() };
                self.turn(paging, cx);
                return Ok(None);
            }
            Ask::Say { room, said } => {
                said.check()?;
                let doc = self.find(&room)?.info.doc;
                (cx.append(doc, said.encode()), Pending::Said { request })
            }
            Ask::SayOnce { room, kept, after } => {
                Said::Kept(kept.clone()).check()?;
                let doc = self.find(&room)?.info.doc;
                self.say_once(Once { request, doc, after, kept }, cx);
                return Ok(None);
            }
            Ask::Nick { room, nick } => {
                let nick = nick.trim().to_owned();
                if nick.chars().count() > NICK_CHARS_MAX || !(nick.is_empty() || is_nick(&nick)) {
                    let why =
                        format!("a nick has at most {NICK_CHARS_MAX} characters, none of them invisible");
                    return Err(Reject::new(RejectCode::Usage, why));
                }
                let (doc, me) = (self.find(&room)?.info.doc, cx.me());
                let call = cx.edit(doc, None, Box::new(move |tx| set_nick(tx, &me, &nick)));
                (call, Pending::Plain { request })
            }
            Ask::Topic { room, topic } => {
                if topic.len() > TOPIC_BYTES_MAX {
                    let why = format!("a topic of {} bytes; at most {TOPIC_BYTES_MAX} are kept", topic.len());
                    return Err(Reject::new(RejectCode::Usage, why));
                }
                let doc = self.find(&room)?.info.doc;
                let call = cx.edit(doc, None, Box::new(move |tx| set_topic(tx, &topic)));
                (call, Pending::Plain { request })
            }
            Ask::Typing { room } => {
                let doc = self.find(&room)?.info.doc;
                let last = self.typed.get(&doc).copied();
                if last.is_none_or(|last| cx.now().since(last) >= TYPING_EVERY) {
                    self.typed.insert(doc, cx.now());
                    let call = cx.signal(doc, cbor::encode(&Passing::Typing));
                    self.pending.insert(call, Pending::Passing);
                }
                return Ok(Some(Answer::Done));
            }
        };
        self.pending.insert(call, pending);
        Ok(None)
    }

    /// Says what a program kept, unless the room has it: everything behind the place where it was tried before is
    /// looked through first.
    fn say_once(&mut self, once: Once, cx: &mut Context<'_>) {
        let Once { request, doc, after, ref kept } = once;
        let Some(room) = self.rooms.get_mut(&doc) else {
            return reply(cx, request, Err(CallError::Unknown(doc).into()));
        };
        if let Some(id) = room.kept(kept.id) {
            return reply(cx, request, Ok(Answer::Said { id }));
        }
        if let Some(waiting) = room.keeping.get_mut(&kept.id) {
            return waiting.push(request);
        }
        if let Some(after) = after
            && room.scanned.is_none_or(|scanned| scanned.at > after)
        {
            let call = cx.page(doc, room.scanned, SCAN);
            self.pending.insert(call, Pending::Once(once));
            return;
        }
        let id = kept.id;
        room.keeping.insert(id, vec![request]);
        let call = cx.append(doc, Said::Kept(once.kept).encode());
        self.pending.insert(call, Pending::Kept { doc, id });
    }

    /// Whoever asked for a kept message hears what came of it.
    fn on_kept(&mut self, doc: DocId, id: KeptId, outcome: &Result<PostId, Reject>, cx: &mut Context<'_>) {
        let waiting = self.rooms.get_mut(&doc).and_then(|room| room.keeping.remove(&id));
        for request in waiting.unwrap_or_default() {
            reply(cx, request, outcome.clone().map(|id| Answer::Said { id }));
        }
    }

    /// Reads on: first what lies between what was looked through and the page, then the page.
    fn turn(&mut self, mut paging: Paging, cx: &mut Context<'_>) {
        let Some(room) = self.rooms.get(&paging.doc) else {
            return reply(cx, paging.request, Err(CallError::Unknown(paging.doc).into()));
        };
        let reaches = |before| room.scanned.is_some_and(|scanned| scanned <= before);
        paging.scanning = paging.posts.is_empty() && paging.before.is_some_and(|before| !reaches(before));
        let from = if paging.scanning { room.scanned } else { paging.before };
        // Some entries are edits; a few more save a second look.
        paging.asked = if paging.scanning { SCAN } else { paging.limit + 8 };
        let call = cx.page(paging.doc, from, paging.asked);
        self.pending.insert(call, Pending::Page(paging));
    }

    fn on_page(&mut self, mut paging: Paging, posts: Vec<Posted>, cx: &mut Context<'_>) {
        let Some(room) = self.rooms.get_mut(&paging.doc) else {
            return reply(cx, paging.request, Err(CallError::Unknown(paging.doc).into()));
        };
        let whole = posts.len() < paging.asked;
        let first = posts.first().map(Posted::link);
        let limit = Hlc::at(cx.now().after(AHEAD_MAX));
        let messages = look_through(room, cx.me(), posts, whole, limit);
        if paging.scanning {
            return self.turn(paging, cx);
        }
        paging.posts.splice(0..0, messages);
        paging.before = first.or(paging.before);
        if paging.posts.len() < paging.limit && !whole {
            return self.turn(paging, cx);
        }
        let shown = paging.posts.iter().filter_map(|posted| room.message(cx.me(), posted));
        let mut messages: Vec<Message> = shown.collect();
        let surplus = messages.len().saturating_sub(paging.limit);
        messages.drain(..surplus);
        let more = !whole || surplus > 0;
        let before = messages.first().filter(|_| more).map(Message::link);
        reply(cx, paging.request, Ok(Answer::Messages { messages, before }));
    }

    /// More of the room was looked through for a kept message.
    fn on_looked(&mut self, once: Once, posts: Vec<Posted>, cx: &mut Context<'_>) {
        if let Some(room) = self.rooms.get_mut(&once.doc) {
            let whole = posts.len() < SCAN;
            look_through(room, cx.me(), posts, whole, Hlc::default());
        }
        self.say_once(once, cx);
    }

    fn on_done(&mut self, call: CallId, result: Result<Did, CallError>, cx: &mut Context<'_>) {
        let Some(pending) = self.pending.remove(&call) else { return };
        match (pending, result) {
            (Pending::Found { request, name }, Ok(Did::Created { doc })) => {
                let info = DocInfo {
                    doc,
                    title: name,
                    since: cx.now(),
                    may_write: true,
                    members: vec![cx.me()],
                    here: BTreeMap::new(),
                    posts: 0,
                    posts_missing: 0,
                };
                let room = self.rooms.entry(doc).or_insert_with(|| Known::new(info)).room(cx.me());
                reply(cx, request, Ok(Answer::Room(room)));
            }
            (Pending::Said { request }, Ok(Did::Appended { post })) => {
                reply(cx, request, Ok(Answer::Said { id: post }));
            }
            (Pending::Plain { request }, Ok(_)) => reply(cx, request, Ok(Answer::Done)),
            (Pending::Facts { doc }, Ok(Did::Read(bytes))) => {
                let facts = cbor::decode::<Facts>(&bytes, bytes.len()).ok();
                if let Some((room, facts)) = self.rooms.get_mut(&doc).zip(facts) {
                    room.facts = facts;
                    self.tell(doc, cx);
                }
            }
            (Pending::Page(paging), Ok(Did::Page(posts))) => self.on_page(paging, posts, cx),
            (Pending::Once(once), Ok(Did::Page(posts))) => self.on_looked(once, posts, cx),
            (Pending::Kept { doc, id }, result) => {
                let outcome = match result {
                    Ok(Did::Appended { post }) => Ok(post),
                    Ok(_) => Err(Reject::new(RejectCode::Failed, "an answer of another kind")),
                    Err(error) => Err(error.into()),
                };
                self.on_kept(doc, id, &outcome, cx);
            }
            (Pending::Facts { .. } | Pending::Passing, _) => {}
            (
                Pending::Found { request, .. }
                | Pending::Said { request }
                | Pending::Plain { request }
                | Pending::Once(Once { request, .. })
                | Pending::Page(Paging { request, .. }),
                Err(error),
            ) => reply(cx, request, Err(error.into())),
            (
                Pending::Found { request, .. }
                | Pending::Said { request }
                | Pending::Once(Once { request, .. })
                | Pending::Page(Paging { request, .. }),
                Ok(_),
            ) => {
                let why = Reject::new(RejectCode::Failed, "an answer of another kind");
                reply(cx, request, Err(why));
            }
        }
    }

    fn on_doc(&mut self, info: DocInfo, cx: &mut Context<'_>) {
        let doc = info.doc;
        match self.rooms.get_mut(&doc) {
            Some(room) => room.info = info,
            None => {
                self.rooms.insert(doc, Known::new(info));
                self.read_facts(doc, cx);
            }
        }
        self.tell_marks(doc, cx);
        self.tell(doc, cx);
    }

    fn read_facts(&mut self, doc: DocId, cx: &mut Context<'_>) {
        let call = cx.read(doc, Box::new(|automerge, _| cbor::encode(&facts(automerge))));
        self.pending.insert(call, Pending::Facts { doc });
    }

    fn on_posts(&mut self, doc: DocId, posts: &[Posted], cx: &mut Context<'_>) {
        let Some(room) = self.rooms.get_mut(&doc) else { return };
        let limit = Hlc::at(cx.now().after(AHEAD_MAX));
        for posted in posts {
            let said = Said::decode(&posted.post.body);
            if let Some(said) = &said {
                room.note(cx.me(), posted, said);
            }
            if posted.author == cx.me() {
                room.follow(posted);
            }
            let from = posted.author;
            let happened = match said {
                Some(Said::Edit { of, text }) => {
                    Some(Happened::Changed { room: doc, of, from, text: Some(text) })
                }
                Some(Said::Delete { of }) => Some(Happened::Changed { room: doc, of, from, text: None }),
                _ if posted.post.at > limit => None,
                _ => room.message(cx.me(), posted).map(Happened::Said),
            };
            if let Some(happened) = happened {
                emit(cx, &happened);
            }
        }
        self.tell_marks(doc, cx);
    }

    /// Tells whoever watches how a room is, if that changed; how much was said in it tells itself.
    fn tell(&mut self, doc: DocId, cx: &mut Context<'_>) {
        let Some(room) = self.rooms.get(&doc) else { return };
        let room = room.room(cx.me());
        let same = |told: &Room| Room { posts: room.posts, ..told.clone() } == room;
        if !self.told.get(&doc).is_some_and(same) {
            self.told.insert(doc, room.clone());
            emit(cx, &Happened::Room(room));
        }
    }

    fn tell_marks(&mut self, doc: DocId, cx: &mut Context<'_>) {
        let Some(room) = self.rooms.get_mut(&doc) else { return };
        let marks = room.marks();
        if !marks.is_empty() {
            emit(cx, &Happened::Marks { room: doc, marks });
        }
    }
}

/// Takes note of what entries change, and that the room was looked through so far; gives the messages among them.
fn look_through(room: &mut Known, me: NodeId, posts: Vec<Posted>, whole: bool, limit: Hlc) -> Vec<Posted> {
    let first = posts.first().map(Posted::link);
    let mut messages = Vec::new();
    for posted in posts {
        let said = Said::decode(&posted.post.body);
        if let Some(said) = &said {
            room.note(me, &posted, said);
        }
        if Known::is_message(said.as_ref()) && posted.post.at <= limit {
            messages.push(posted);
        }
    }
    let nothing = PostLink { at: Hlc::default(), id: PostId::from_bytes([0; 32]) };
    let reached = if whole { Some(nothing) } else { first };
    room.scanned = match (room.scanned, reached) {
        (Some(scanned), Some(reached)) => Some(scanned.min(reached)),
        (scanned, reached) => reached.or(scanned),
    };
    messages
}

fn reply(cx: &mut Context<'_>, request: RequestId, answer: Result<Answer, Reject>) {
    cx.reply(request, answer.map(|answer| cbor::encode(&answer)));
}

fn emit(cx: &mut Context<'_>, happened: &Happened) {
    cx.emit(cbor::encode(happened));
}

impl App for Chat {
    fn id(&self) -> AppId {
        ID
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>) {
        match event {
            AppEvent::Done { call, result } => self.on_done(call, result, cx),
            AppEvent::Doc(info) => self.on_doc(info, cx),
            AppEvent::Changed { doc } => {
                if self.rooms.contains_key(&doc) {
                    self.read_facts(doc, cx);
                }
            }
            AppEvent::Forgotten { doc } => {
                self.told.remove(&doc);
                if self.rooms.remove(&doc).is_some() {
                    emit(cx, &Happened::Left { room: doc });
                }
            }
            AppEvent::FeedGrew { doc, posts } => self.on_posts(doc, &posts, cx),
            AppEvent::FeedForked { doc, feed } => {
                emit(cx, &Happened::Forked { room: doc, from: feed.author });
            }
            AppEvent::Reached { doc, peer, feed, seq } => {
                if let Some(room) = self.rooms.get_mut(&doc) {
                    room.reached(peer, feed, seq);
                }
                self.tell_marks(doc, cx);
            }
            AppEvent::Signal { doc, from, bytes } => {
                let passing = cbor::decode::<Passing>(&bytes, bytes.len());
                if self.rooms.contains_key(&doc) && matches!(passing, Ok(Passing::Typing)) {
                    emit(cx, &Happened::Typing { room: doc, from });
                }
            }
            // Who is in a room is what its document's sessions say.
            AppEvent::Member { .. } | AppEvent::Wake => {}
        }
    }

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        let Ok(ask) = cbor::decode::<Ask>(&request.body, ASK_BYTES_MAX) else {
            let why = Reject::new(RejectCode::Usage, "a question that chat does not understand");
            return reply(cx, request.id, Err(why));
        };
        match self.ask(request.id, ask, cx) {
            Ok(None) => {}
            Ok(Some(answer)) => reply(cx, request.id, Ok(answer)),
            Err(why) => reply(cx, request.id, Err(why)),
        }
    }
}
