//! The machines woven together: whose output is whose input.
//!
//! # What it does
//!
//! No lane knows another, and no lane knows the apps. They meet here, in pure functions that the binary and a
//! simulation use alike: what an app calls for becomes the documents' input ([`to_docs`]), what that came to
//! becomes the app's answer ([`to_answer`]), and what happens to documents becomes the apps' events
//! ([`to_apps`]). A node's documents are several machines, so that a large one holds up no other: [`Shards`] says
//! which of them hears of what, and [`shards`] tells the walk. What membership tells of who is there goes to the
//! overlay, the documents and the apps by [`liveness`]; [`order`] is what an entry of the log is.
//!
//! # Not here
//!
//! Tasks, channels and who waits for whom: the drivers.

pub mod liveness;
pub mod order;
pub mod shards;

pub use shards::{Documents, Route, Shards, follows, split};

use wattle_app::{Answer, AppEvent, Call, CallError, DocInfo, Input as AppInput};
use wattle_docs::{Authors, DocError, DocStatus, Event, Input, Outcome, Replica, RequestId, Role};
use wattle_types::{DocId, NodeId};

/// A call of an app, as the documents' input. A page is read from the disk as [`wattle_docs::FeedLog`] says; what
/// the machine does of it is to know that the document is here.
///
/// # Errors
/// [`CallError::Malformed`]: a file to go on with is none. To read it may take long.
pub fn to_docs(request: RequestId, call: Call) -> Result<Input, CallError> {
    Ok(match call {
        Call::Create { edit } => Input::Create { request, history: None, edit },
        Call::Import { bytes, edit } => {
            let history = wattle_docs::chunk::load(&bytes).map_err(CallError::Malformed)?;
            Input::Create { request, history: Some(Box::new(history)), edit }
        }
        Call::CreateInSteps { steps } => Input::CreateInSteps { request, steps },
        Call::EditInSteps { doc, at, steps } => Input::EditInSteps { request, doc, at, steps },
        Call::Edit { doc, at, edit } => Input::Edit { request, doc, at, edit },
        Call::Read { doc, read } => {
            Input::Read { request, doc, read: Box::new(move |doc, authors| read(doc, &Vouched(authors))) }
        }
        Call::Show { doc } => Input::Show { request, doc },
        Call::Append { doc, body } => Input::Append { request, doc, body },
        Call::Signal { doc, bytes } => Input::Signal { request, doc, bytes },
        Call::Page { doc, .. } => Input::Read { request, doc, read: Box::new(|_, _| Vec::new()) },
    })
}

/// Who vouches for what, as apps ask.
struct Vouched<'a>(&'a Authors<'a>);

impl wattle_app::Authors for Vouched<'_> {
    fn of(&self, actor: &automerge::ActorId) -> Option<NodeId> {
        self.0.of(actor)
    }
}

/// What a call came to, as the app is told.
///
/// # Errors
/// What the machine refused, in the app's words.
pub fn to_answer(outcome: Result<Outcome, DocError>) -> Result<Answer, CallError> {
    match outcome {
        Ok(Outcome::Opened { doc }) => Ok(Answer::Created { doc }),
        Ok(Outcome::Edited { before, after }) => Ok(Answer::Edited { before, after }),
        Ok(Outcome::Read(bytes)) => Ok(Answer::Read(bytes)),
        Ok(Outcome::Appended { post }) => Ok(Answer::Appended { post }),
        Ok(Outcome::Invited { .. } | Outcome::Synced { .. } | Outcome::Done) => Ok(Answer::Done),
        Err(error) => Err(to_error(error)),
    }
}

/// What the machine refused, in the app's words.
#[must_use]
pub fn to_error(error: DocError) -> CallError {
    match error {
        DocError::Unknown(doc) => CallError::Unknown(doc),
        DocError::NotAllowed { .. } => CallError::NotAllowed(error.to_string()),
        DocError::Refused(why) => CallError::Refused(why),
        DocError::NotHere => CallError::NotHere,
        DocError::Busy => CallError::Busy,
        DocError::NotSaved(why) => CallError::NotSaved(why),
        DocError::Damaged(why) => CallError::Damaged(why),
    }
}

/// A document at a glance, as apps see it.
#[must_use]
pub fn to_info(replica: &Replica, status: DocStatus) -> DocInfo {
    let members = replica.members(&status.doc).into_iter().flat_map(|members| members.iter());
    DocInfo {
        doc: status.doc,
        title: status.label.title,
        since: status.since,
        may_write: status.role >= Some(Role::Writer),
        members: members.map(|(node, _)| node).collect(),
        here: status.peers.iter().map(|peer| (peer.peer, peer.in_sync)).collect(),
        posts: status.posts,
        posts_missing: status.posts_missing,
    }
}

/// What apps hear at the start: every document that is here.
#[must_use]
pub fn at_start(replica: &Replica) -> Vec<AppInput> {
    let tell = |status: DocStatus| AppInput::Event {
        kind: Some(status.label.kind.clone()),
        event: AppEvent::Doc(to_info(replica, status)),
    };
    replica.list().into_iter().map(tell).collect()
}

/// Which document an event is about.
#[must_use]
pub const fn doc_of(event: &Event) -> &DocId {
    match event {
        Event::Changed { doc, .. }
        | Event::FeedGrew { doc, .. }
        | Event::FeedForked { doc, .. }
        | Event::Reached { doc, .. }
        | Event::Signal { doc, .. }
        | Event::PeersChanged { doc }
        | Event::Forgotten { doc }
        | Event::MembersChanged { doc }
        | Event::Ephemeral { doc, .. }
        | Event::InSync { doc, .. }
        | Event::Refused { doc, .. } => doc,
    }
}

fn to_its_app(replica: &Replica, doc: &DocId, event: AppEvent) -> Vec<AppInput> {
    let kind = replica.label(doc).map(|label| label.kind.clone());
    kind.map(|kind| AppInput::Event { kind: Some(kind), event }).into_iter().collect()
}

/// What happened to a document, for the apps of its kind.
#[must_use]
pub fn to_apps(replica: &Replica, event: &Event) -> Vec<AppInput> {
    let (doc, told) = match event {
        Event::Changed { doc, .. } => (doc, Some(AppEvent::Changed { doc: *doc })),
        Event::FeedGrew { doc, posts } => (doc, Some(AppEvent::FeedGrew { doc: *doc, posts: posts.clone() })),
        Event::FeedForked { doc, feed } => (doc, Some(AppEvent::FeedForked { doc: *doc, feed: *feed })),
        // How the document is at a glance does not change with these.
        Event::Reached { doc, peer, feed, seq } => {
            let event = AppEvent::Reached { doc: *doc, peer: *peer, feed: *feed, seq: *seq };
            return to_its_app(replica, doc, event);
        }
        Event::Signal { doc, from, bytes } => {
            let event = AppEvent::Signal { doc: *doc, from: *from, bytes: bytes.clone() };
            return to_its_app(replica, doc, event);
        }
        Event::MembersChanged { doc }
        | Event::PeersChanged { doc }
        | Event::InSync { doc, .. }
        | Event::Refused { doc, .. } => (doc, None),
        // What programs say to each other is theirs.
        Event::Ephemeral { .. } => return Vec::new(),
        Event::Forgotten { doc } => {
            return vec![AppInput::Event { kind: None, event: AppEvent::Forgotten { doc: *doc } }];
        }
    };
    let Some(status) = replica.status(doc) else { return Vec::new() };
    let kind = Some(status.label.kind.clone());
    let info = AppEvent::Doc(to_info(replica, status));
    let events = [info].into_iter().chain(told);
    events.map(|event| AppInput::Event { kind: kind.clone(), event }).collect()
}
