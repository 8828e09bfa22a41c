//! What an app is and what it may do.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ActorId, Automerge, ROOT, ReadDoc as _, ScalarValue, Value};
use serde::{Deserialize, Serialize};
use wattle_types::{DocId, FeedId, Liveness, NodeId, PostId, PostLink, Posted, UnixTime};

use crate::ordered::{Corrupt, LogQuota, Position, Receipt};

/// An app and the version of what it stores and says: `chat/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub &'static str);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A caller's question, answered by [`Context::reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A call of an app, answered by [`AppEvent::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What somebody asks an app: from the command line, the API or a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be named in the reply.
    pub id: RequestId,
    /// In the app's own form.
    pub body: Vec<u8>,
}

/// A change of a document: it runs inside a transaction, or says why it cannot.
pub type Edit = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<(), String> + Send>;

/// A long change of a document: it is called with a new transaction until it breaks off, and each becomes a change of
/// its own, on top of the one before. All of them are saved, or none is. What is inserted in one step is best 64 KiB.
pub type Steps = Box<dyn FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, String> + Send>;

/// A question to a document and to who vouches for its changes; the answer is bytes of the app's choice.
pub type Read = Box<dyn FnOnce(&Automerge, &dyn Authors) -> Vec<u8> + Send>;

/// Whose word stands for the changes of a document.
pub trait Authors {
    /// Who vouches for the changes of an editing session, or did until it was removed.
    fn of(&self, actor: &ActorId) -> Option<NodeId>;
}

/// A document at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocInfo {
    /// Which.
    pub doc: DocId,
    /// What people call it.
    pub title: String,
    /// When it came here.
    pub since: UnixTime,
    /// Whether this node may write it.
    pub may_write: bool,
    /// Who shares it, this node among them.
    pub members: Vec<NodeId>,
    /// Of those, who is connected now, and whether it holds exactly what this node holds.
    pub here: BTreeMap<NodeId, bool>,
    /// Entries of its feeds that are here.
    pub posts: u64,
    /// Entries that connected members are known to have and that are not here.
    pub posts_missing: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppEvent {
    /// What a call came to.
    Done {
        /// Which.
        call: CallId,
        /// The answer.
        result: Result<Answer, CallError>,
    },
    /// A document is here, or something about it changed; told at the start for every document.
    Doc(DocInfo),
    /// What is in a document changed.
    Changed {
        /// Which.
        doc: DocId,
    },
    /// A document is gone from here.
    Forgotten {
        /// Which.
        doc: DocId,
    },
    /// Entries of feeds are on disk.
    FeedGrew {
        /// Of which document.
        doc: DocId,
        /// Which.
        posts: Vec<Posted>,
    },
    /// An author signed two entries for one place: its feed ends there.
    FeedForked {
        /// Of which document.
        doc: DocId,
        /// Whose.
        feed: FeedId,
    },
    /// A member holds this node's entries up to one.
    Reached {
        /// Of which document.
        doc: DocId,
        /// Who.
        peer: NodeId,
        /// Which of this node's feeds.
        feed: FeedId,
        /// The last that it has.
        seq: u64,
    },
    /// A member says something that nobody keeps.
    Signal {
        /// Of which document.
        doc: DocId,
        /// Who.
        from: NodeId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A node of the network is there in another way than before; told to every app.
    Member {
        /// Who.
        member: NodeId,
        /// How.
        liveness: Liveness,
    },
    /// The time of [`Context::wake_at`] came.
    Wake,
}

/// What an app calls for.
pub enum Call {
    /// Make a document.
    Create {
        /// What it holds at first.
        edit: Edit,
    },
    /// Make a document that begins with more than one change takes.
    CreateInSteps {
        /// What it holds at first.
        steps: Steps,
    },
    /// Make a document that goes on with the history in a file of Automerge.
    Import {
        /// The file.
        bytes: Vec<u8>,
        /// What is changed of it.
        edit: Edit,
    },
    /// Change a document.
    Edit {
        /// Which.
        doc: DocId,
        /// The heads that the change was made on; none is the current state.
        at: Option<Vec<[u8; 32]>>,
        /// The change.
        edit: Edit,
    },
    /// Change a document by more than one change takes.
    EditInSteps {
        /// Which.
        doc: DocId,
        /// The heads that the changes were made on; none is the current state.
        at: Option<Vec<[u8; 32]>>,
        /// The changes.
        steps: Steps,
    },
    /// Read a document.
    Read {
        /// Which.
        doc: DocId,
        /// The question.
        read: Read,
    },
    /// What a document shows at first: as this node's documents are set up to keep it, which is sooner there than a
    /// large document is read.
    Show {
        /// Which.
        doc: DocId,
    },
    /// Append to this node's feed of a document.
    Append {
        /// Which.
        doc: DocId,
        /// What it says.
        body: Vec<u8>,
    },
    /// Read the newest entries of a document's feeds before one.
    Page {
        /// Which.
        doc: DocId,
        /// Before which; none for the newest of all.
        before: Option<PostLink>,
        /// How many at most.
        limit: usize,
    },
    /// Tell the members that are connected something that nobody keeps.
    Signal {
        /// Of which document.
        doc: DocId,
        /// What.
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { .. } => f.write_str("Create"),
            Self::CreateInSteps { .. } => f.write_str("CreateInSteps"),
            Self::Import { bytes, .. } => write!(f, "Import({} bytes)", bytes.len()),
            Self::Edit { doc, .. } => write!(f, "Edit({doc})"),
            Self::EditInSteps { doc, .. } => write!(f, "EditInSteps({doc})"),
            Self::Read { doc, .. } => write!(f, "Read({doc})"),
            Self::Show { doc } => write!(f, "Show({doc})"),
            Self::Append { doc, body } => write!(f, "Append({doc}, {} bytes)", body.len()),
            Self::Page { doc, limit, .. } => write!(f, "Page({doc}, {limit})"),
            Self::Signal { doc, bytes } => write!(f, "Signal({doc}, {} bytes)", bytes.len()),
        }
    }
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A document was made, and is on disk.
    Created {
        /// Which.
        doc: DocId,
    },
    /// A change is on disk.
    Edited {
        /// The heads before it.
        before: Vec<[u8; 32]>,
        /// The heads after it.
        after: Vec<[u8; 32]>,
    },
    /// What was read.
    Read(Vec<u8>),
    /// An entry is on disk.
    Appended {
        /// Its name.
        post: PostId,
    },
    /// Entries, in order.
    Page(Vec<Posted>),
    /// An entry stands in the ordered log, and was applied here.
    Ordered {
        /// Where.
        at: Position,
        /// What came of it.
        receipt: Receipt,
    },
    /// Done.
    Done,
}

/// Why a call came to nothing. Unless said otherwise nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CallError {
    /// No such document here.
    #[error("no document {0} here")]
    Unknown(DocId),
    /// This node's role does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// The document or the edit says why.
    #[error("{0}")]
    Refused(String),
    /// The document has not arrived from any peer.
    #[error("the document has not arrived yet")]
    NotHere,
    /// Too much waits. To do: try again.
    #[error("too many requests wait for the document")]
    Busy,
    /// The caller's fault: bytes that are no document.
    #[error("no document: {0}")]
    Malformed(String),
    /// The app did more than its quota allows. To do: wait.
    #[error("the app did too much at once: try again in a second")]
    OverQuota,
    /// The disk's fault: what was asked is not saved and was taken back.
    #[error("not saved: {0}")]
    NotSaved(String),
    /// The disk's fault: what is stored cannot be read.
    #[error("what is stored of the document is damaged: {0}")]
    Damaged(String),
    /// The ordered log went past its time. To do: propose it again.
    #[error("{0}")]
    NotOrdered(String),
}

/// Whose fault a refused request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectCode {
    /// What was asked makes no sense.
    Usage,
    /// What it is about is not here.
    NotFound,
    /// It is there already, or changed meanwhile.
    Conflict,
    /// Whoever asks may not.
    Denied,
    /// It may go well later.
    Later,
    /// The disk is full or broken.
    NotSaved,
    /// Anything else.
    Failed,
}

/// Why an app did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Reject {
    /// Of which kind.
    pub code: RejectCode,
    /// In words.
    pub text: String,
}

impl Reject {
    /// A refusal.
    #[must_use]
    pub fn new(code: RejectCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<CallError> for Reject {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Unknown(_) | CallError::NotHere => RejectCode::NotFound,
            CallError::NotAllowed(_) => RejectCode::Denied,
            CallError::Refused(_) | CallError::Malformed(_) => RejectCode::Usage,
            CallError::Busy | CallError::OverQuota | CallError::NotOrdered(_) => RejectCode::Later,
            CallError::NotSaved(_) => RejectCode::NotSaved,
            CallError::Damaged(_) => RejectCode::Failed,
        };
        Self::new(code, error.to_string())
    }
}

/// An app.
pub trait App: Send {
    /// Which.
    fn id(&self) -> AppId;

    /// The kind of documents that it hears of.
    fn kind(&self) -> &'static str;

    /// Something happened.
    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>);

    /// Somebody asks something: answered now, or later by its id.
    fn request(&mut self, request: Request, cx: &mut Context<'_>);

    /// What it may do in the ordered log; none for an app that has no state there. Every replica of a log runs the
    /// same of these.
    fn in_log(&self) -> Option<LogQuota> {
        None
    }

    /// Whether an entry is worth ordering: cheap, and of the entry alone.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, _data: &[u8]) -> Result<(), Reject> {
        Err(Reject::new(RejectCode::Usage, format!("{} orders nothing", self.id())))
    }

    /// Applies an entry of the log. The same log makes the same state and the same receipts everywhere: no clock but
    /// the position's, no randomness, nothing that this node alone knows.
    ///
    /// # Errors
    /// Why the entry changed nothing.
    fn apply(&mut self, _at: Position, _data: &[u8]) -> Receipt {
        Err(Reject::new(RejectCode::Usage, format!("{} orders nothing", self.id())))
    }

    /// The digest of its state in the log.
    fn digest(&self) -> [u8; 32] {
        [0; 32]
    }

    /// The bytes of its state in the log, for its quota.
    fn stored(&self) -> u64 {
        0
    }

    /// Its state in the log: the same bytes on every replica behind the same block (O4).
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Goes on from such a state instead of its own.
    ///
    /// # Errors
    /// [`Corrupt`]: the bytes are none, and nothing changed.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        if bytes.is_empty() { Ok(()) } else { Err(Corrupt::new(self.id(), "it has no state in the log")) }
    }
}

/// What an app does through its context.
pub(crate) enum Effect {
    Call(CallId, Call),
    Propose(CallId, Vec<u8>),
    Reply(RequestId, Result<Vec<u8>, Reject>),
    Emit(Vec<u8>),
    WakeAt(UnixTime),
}

/// All that an app may do.
pub struct Context<'a> {
    pub(crate) me: NodeId,
    pub(crate) now: UnixTime,
    pub(crate) calls: &'a mut u64,
    pub(crate) draws: &'a mut dyn FnMut() -> [u8; 32],
    pub(crate) effects: Vec<Effect>,
}

impl Context<'_> {
    /// This node.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// The wall clock.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// Random bytes: from the node's seed, never twice the same.
    pub fn random(&mut self) -> [u8; 32] {
        (self.draws)()
    }

    /// Makes a document.
    pub fn create(&mut self, edit: Edit) -> CallId {
        self.call(Call::Create { edit })
    }

    /// Makes a document that begins with more than one change takes.
    pub fn create_in_steps(&mut self, steps: Steps) -> CallId {
        self.call(Call::CreateInSteps { steps })
    }

    /// Makes a document that goes on with the history in a file of Automerge.
    pub fn import(&mut self, bytes: Vec<u8>, edit: Edit) -> CallId {
        self.call(Call::Import { bytes, edit })
    }

    /// Changes a document, on its current state or on the state at some heads.
    pub fn edit(&mut self, doc: DocId, at: Option<Vec<[u8; 32]>>, edit: Edit) -> CallId {
        self.call(Call::Edit { doc, at, edit })
    }

    /// Changes a document by more than one change takes.
    pub fn edit_in_steps(&mut self, doc: DocId, at: Option<Vec<[u8; 32]>>, steps: Steps) -> CallId {
        self.call(Call::EditInSteps { doc, at, steps })
    }

    /// Reads a document.
    pub fn read(&mut self, doc: DocId, read: Read) -> CallId {
        self.call(Call::Read { doc, read })
    }

    /// Asks what a document shows at first.
    pub fn show(&mut self, doc: DocId) -> CallId {
        self.call(Call::Show { doc })
    }

    /// Appends to this node's feed of a document.
    pub fn append(&mut self, doc: DocId, body: Vec<u8>) -> CallId {
        self.call(Call::Append { doc, body })
    }

    /// Reads the newest entries of a document's feeds before one, or the newest of all.
    pub fn page(&mut self, doc: DocId, before: Option<PostLink>, limit: usize) -> CallId {
        self.call(Call::Page { doc, before, limit })
    }

    /// Tells the members that are connected something that nobody keeps.
    pub fn signal(&mut self, doc: DocId, bytes: Vec<u8>) -> CallId {
        self.call(Call::Signal { doc, bytes })
    }

    /// Asks for an entry of this app to be ordered. Answered by [`Answer::Ordered`] when it was applied here, or by why
    /// it was not ordered.
    pub fn propose(&mut self, data: Vec<u8>) -> CallId {
        *self.calls += 1;
        let id = CallId(*self.calls);
        self.effects.push(Effect::Propose(id, data));
        id
    }

    /// Answers a request.
    pub fn reply(&mut self, request: RequestId, answer: Result<Vec<u8>, Reject>) {
        self.effects.push(Effect::Reply(request, answer));
    }

    /// Tells whoever watches the app.
    pub fn emit(&mut self, event: Vec<u8>) {
        self.effects.push(Effect::Emit(event));
    }

    /// Asks for [`AppEvent::Wake`] at a time; the earliest that was asked for holds.
    pub fn wake_at(&mut self, at: UnixTime) {
        self.effects.push(Effect::WakeAt(at));
    }

    fn call(&mut self, call: Call) -> CallId {
        *self.calls += 1;
        let id = CallId(*self.calls);
        self.effects.push(Effect::Call(id, call));
        id
    }
}

/// Where a document says which app it is for.
const KIND: &str = "app";
/// Bytes of a kind that are believed.
const KIND_BYTES_MAX: usize = 64;

/// Which app a document is for, as its creator wrote it; empty where nothing is written.
#[must_use]
pub fn kind_of(doc: &Automerge) -> String {
    match doc.get(ROOT, KIND) {
        Ok(Some((Value::Scalar(value), _))) => match value.as_ref() {
            ScalarValue::Str(kind) if kind.len() <= KIND_BYTES_MAX => kind.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Writes which app a document is for.
///
/// # Errors
/// Why the document does not take it.
pub fn set_kind(tx: &mut Transaction<'_>, kind: &str) -> Result<(), String> {
    tx.put(ROOT, KIND, kind).map_err(|error| error.to_string())
}
