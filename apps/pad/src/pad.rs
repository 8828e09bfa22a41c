//! The app: each question becomes a read or an edit of one document, which runs where the document is.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use automerge::transaction::Transaction;
use automerge::{ActorId, Automerge, ChangeHash};
use serde_json::Value as Json;
use wattle_app::{
    Answer as Did, App, AppEvent, AppId, Authors, CallError, CallId, Context, Reject, RejectCode, Request,
    RequestId,
};
use wattle_types::{DocId, NodeId, cbor};

use crate::ask::{Answer, Ask, Hash, Refusal};
use crate::file::is_automerge;
use crate::{FileFormat, PadError, Path, Telling};

/// This app.
pub const ID: AppId = AppId("pad/1");

/// Bytes of a question: the largest file that the API takes, and what is around it.
const ASK_BYTES_MAX: usize = 32 << 20;

/// What a call is for.
enum Asked {
    /// Its answer is the answer.
    Read(RequestId),
    /// It makes a document. What refused it is there, if that was pad.
    Make(RequestId, Shared<Refusal>),
    /// It reads the text that was edited.
    Base { request: RequestId, doc: DocId, text: Arc<String>, base: Shared<Result<Base, Refusal>> },
    /// It changes a document: so many lines.
    Change(RequestId, Shared<(usize, usize)>),
}

/// What an edited text began as.
struct Base {
    text: String,
    at: Vec<ChangeHash>,
    /// The change that made the edit already, and the version now.
    made: Option<(ChangeHash, Vec<Hash>)>,
}

/// The text that somebody saved, which is still needed where it came from.
struct Written(Arc<String>);

impl AsRef<str> for Written {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What a read or an edit leaves behind where the document is.
struct Shared<T>(Arc<Mutex<Option<T>>>);

impl<T> Shared<T> {
    fn new() -> (Self, Self) {
        let shared = Arc::new(Mutex::new(None));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Text and fields of documents, for who asks.
#[derive(Default)]
pub struct Pad {
    asked: BTreeMap<CallId, Asked>,
}

impl App for Pad {
    fn id(&self) -> AppId {
        ID
    }

    // Documents that name no app are for people. It is told of them and keeps nothing: all that it knows it reads.
    fn kind(&self) -> &'static str {
        ""
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>) {
        if let AppEvent::Done { call, result } = event
            && let Some(asked) = self.asked.remove(&call)
        {
            self.done(asked, result, cx);
        }
    }

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        let id = request.id;
        match cbor::decode::<Ask>(&request.body, ASK_BYTES_MAX) {
            Ok(ask) => {
                if let Err(error) = self.ask(id, ask, cx) {
                    reply(id, Err(error.into()), cx);
                }
            }
            Err(error) => {
                let text = format!("pad does not understand this: {error}");
                cx.reply(id, Err(Reject::new(RejectCode::Usage, text)));
            }
        }
    }
}

fn reply(request: RequestId, answer: Result<Answer, Refusal>, cx: &mut Context<'_>) {
    cx.reply(request, Ok(cbor::encode(&answer)));
}

fn hashes(heads: &[ChangeHash]) -> Vec<Hash> {
    heads.iter().map(|head| head.0).collect()
}

fn title(doc: &Automerge) -> String {
    crate::title(doc).unwrap_or_default()
}

impl Pad {
    fn ask(&mut self, request: RequestId, ask: Ask, cx: &mut Context<'_>) -> Result<(), PadError> {
        match ask {
            Ask::New { title, text } => {
                let text = crate::text_of(&text)?.to_owned();
                self.make(request, cx, crate::create_in_steps(title, text)?);
            }
            Ask::Import { name, title, bytes } => self.import(request, name, title, bytes, cx),
            Ask::Content { doc, at, path: None } if at.is_empty() => {
                let call = cx.show(doc);
                self.asked.insert(call, Asked::Read(request));
            }
            Ask::Content { doc, at, path } => {
                let path: Option<Path> = path.map(|path| path.parse()).transpose()?;
                self.read(request, doc, cx, move |automerge, _| content(automerge, &at, path.as_ref()));
            }
            Ask::Write { doc, at, text } => {
                let text = crate::text_of(&text)?.to_owned();
                self.write(request, doc, at, text, cx);
            }
            Ask::Set { doc, path, json } => {
                let path: Path = path.parse()?;
                let (told, _lines) = Shared::new();
                let edit = move |tx: &mut Transaction<'_>| {
                    let value: Json = serde_json::from_str(&json).map_err(|error| error.to_string())?;
                    crate::set(tx, &path, &value).map_err(|error| error.to_string())
                };
                let call = cx.edit(doc, None, Box::new(edit));
                self.asked.insert(call, Asked::Change(request, told));
            }
            Ask::History { doc, since, limit, each } => {
                self.read(request, doc, cx, move |automerge, authors| {
                    let since = crate::version(automerge, &since)?;
                    let telling = Telling { since: since.as_deref(), until: None, limit, each };
                    let steps = crate::steps(automerge, telling, |actor| authors.of(actor))?;
                    let heads = hashes(&automerge.get_heads());
                    Ok(Answer::History { title: title(automerge), heads, steps })
                });
            }
            Ask::News { doc, since, limit } => {
                self.read(request, doc, cx, move |automerge, authors| {
                    news(automerge, authors, &since, limit)
                });
            }
            Ask::Version { doc, at } => self.read(request, doc, cx, move |automerge, _| {
                let at = match crate::version(automerge, &at) {
                    // It was taken out meanwhile: go on from here.
                    Err(PadError::NoSuchChange { .. }) => None,
                    at => at?,
                };
                let heads = hashes(&at.unwrap_or_else(|| automerge.get_heads()));
                Ok(Answer::Version { title: title(automerge), heads })
            }),
            Ask::Difference { doc, before, after, limit } => {
                self.read(request, doc, cx, move |automerge, authors| {
                    difference(automerge, authors, &before, &after, limit)
                });
            }
            Ask::Export { doc, format } => {
                self.read(request, doc, cx, move |automerge, _| export(automerge, format));
            }
        }
        Ok(())
    }

    /// Reads a document: the answer is made where it is.
    fn read(
        &mut self,
        request: RequestId,
        doc: DocId,
        cx: &mut Context<'_>,
        read: impl FnOnce(&Automerge, &dyn Authors) -> Result<Answer, PadError> + Send + 'static,
    ) {
        let read =
            Box::new(move |automerge: &Automerge, authors: &dyn Authors| encode(read(automerge, authors)));
        let call = cx.read(doc, read);
        self.asked.insert(call, Asked::Read(request));
    }

    fn make(
        &mut self,
        request: RequestId,
        cx: &mut Context<'_>,
        mut steps: impl FnMut(&mut Transaction<'_>) -> Result<ControlFlow<()>, PadError> + Send + 'static,
    ) {
        let (here, there) = Shared::new();
        let call = cx.create_in_steps(Box::new(move |tx| steps(tx).map_err(|error| tell(&there, error))));
        self.asked.insert(call, Asked::Make(request, here));
    }

    fn import(
        &mut self,
        request: RequestId,
        name: String,
        title: Option<String>,
        bytes: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
        if is_automerge(&bytes) {
            let (here, there) = Shared::new();
            let call = cx.import(
                bytes,
                Box::new(move |tx| {
                    let content = crate::FileContent::Automerge;
                    crate::import(tx, &content, title.as_deref(), &stem).map_err(|error| tell(&there, error))
                }),
            );
            self.asked.insert(call, Asked::Make(request, here));
        } else {
            self.make(request, cx, crate::import_in_steps(name, title, stem, bytes));
        }
    }

    /// Reads the text that was edited; what differs is then an edit of that version.
    fn write(
        &mut self,
        request: RequestId,
        doc: DocId,
        at: Option<Vec<Hash>>,
        text: String,
        cx: &mut Context<'_>,
    ) {
        let (base, there) = Shared::new();
        let (text, new, me) = (Arc::new(text.clone()), text, cx.me());
        let read = move |automerge: &Automerge, authors: &dyn Authors| {
            there.put(base_of(automerge, authors, at, &new, me).map_err(Refusal::from));
            Vec::new()
        };
        let call = cx.read(doc, Box::new(read));
        self.asked.insert(call, Asked::Base { request, doc, text, base });
    }

    fn done(&mut self, asked: Asked, result: Result<Did, CallError>, cx: &mut Context<'_>) {
        match (asked, result) {
            (Asked::Read(request), Ok(Did::Read(answer))) => cx.reply(request, Ok(answer)),
            (Asked::Make(request, _), Ok(Did::Created { doc })) => {
                reply(request, Ok(Answer::Made { doc }), cx);
            }
            (Asked::Make(request, refused), Err(error)) => {
                let refusal = match error {
                    CallError::Malformed(why) => PadError::Damaged { why }.into(),
                    error => refused.take().unwrap_or(Refusal::Call(error)),
                };
                reply(request, Err(refusal), cx);
            }
            (Asked::Base { request, doc, text, base }, Ok(_)) => match base.take() {
                Some(Ok(base)) => self.change(request, doc, base, text, cx),
                Some(Err(refusal)) => reply(request, Err(refusal), cx),
                None => reply(request, Err(PadError::NoText.into()), cx),
            },
            (Asked::Change(request, lines), Ok(Did::Edited { before, after })) => {
                let (lines_added, lines_removed) = lines.take().unwrap_or_default();
                let change = after.iter().find(|head| !before.contains(head)).copied();
                reply(request, Ok(Answer::Written { before, after, change, lines_added, lines_removed }), cx);
            }
            (
                Asked::Read(request)
                | Asked::Make(request, _)
                | Asked::Base { request, .. }
                | Asked::Change(request, _),
                result,
            ) => {
                let other = || CallError::Refused("an answer of another kind".to_owned());
                let error = result.err().unwrap_or_else(other);
                reply(request, Err(error.into()), cx);
            }
        }
    }

    fn change(&mut self, request: RequestId, doc: DocId, base: Base, new: Arc<String>, cx: &mut Context<'_>) {
        let Base { text: base, at, made } = base;
        if let Some((made, heads)) = made {
            let (lines_added, lines_removed) = crate::lines_changed(&base, &new);
            let (before, after) = (heads.clone(), heads);
            let change = Some(made.0);
            return reply(
                request,
                Ok(Answer::Written { before, after, change, lines_added, lines_removed }),
                cx,
            );
        }
        let (here, there) = Shared::new();
        let done = move |change: crate::TextChange| there.put((change.lines_added, change.lines_removed));
        let mut steps = crate::change_text_in_steps(base, Written(new), done);
        let steps = Box::new(move |tx: &mut Transaction<'_>| steps(tx).map_err(|error| error.to_string()));
        let call = cx.edit_in_steps(doc, Some(hashes(&at)), steps);
        self.asked.insert(call, Asked::Change(request, here));
    }
}

/// Leaves behind why; the documents are told in words.
fn tell(there: &Shared<Refusal>, error: PadError) -> String {
    let text = error.to_string();
    there.put(error.into());
    text
}

fn base_of(
    automerge: &Automerge,
    authors: &dyn Authors,
    at: Option<Vec<Hash>>,
    new: &str,
    me: NodeId,
) -> Result<Base, PadError> {
    let is_mine = |actor: &ActorId| authors.of(actor) == Some(me);
    let at = at.map(|at| at.into_iter().map(ChangeHash).collect::<Vec<_>>());
    let made = match &at {
        Some(at) => crate::made_already(automerge, at, new, is_mine)?,
        None => None,
    };
    let heads = automerge.get_heads();
    let made = made.map(|made| (made, hashes(&heads)));
    let at = at.unwrap_or(heads);
    Ok(Base { text: crate::text(automerge, Some(&at))?.unwrap_or_default(), at, made })
}

fn encode(answer: Result<Answer, PadError>) -> Vec<u8> {
    cbor::encode(&answer.map_err(Refusal::from))
}

/// The form of [`shown`]: another one means that what a node kept of an earlier build is not shown.
pub const SHOWN_FORM: u32 = 1;

/// What a document shows at first, as the answer to who asks for its content.
#[must_use]
pub fn shown(automerge: &Automerge) -> Vec<u8> {
    encode(content(automerge, "", None))
}

fn content(automerge: &Automerge, at: &str, path: Option<&Path>) -> Result<Answer, PadError> {
    let at = crate::version(automerge, at)?;
    let heads = hashes(&at.clone().unwrap_or_else(|| automerge.get_heads()));
    let at = at.as_deref();
    let (text, value) = match path {
        Some(path) => (None, crate::get(automerge, path, at)?),
        None => (crate::text(automerge, at)?, fields(crate::to_json(automerge, at)?)),
    };
    Ok(Answer::Content { title: title(automerge), heads, text, json: value.to_string() })
}

/// The fields beside title and text.
fn fields(mut all: Json) -> Json {
    if let Some(map) = all.as_object_mut() {
        map.remove("title");
        map.remove("sections");
        if map.is_empty() {
            return Json::Null;
        }
    }
    all
}

fn news(
    automerge: &Automerge,
    authors: &dyn Authors,
    since: &[Hash],
    limit: usize,
) -> Result<Answer, PadError> {
    let heads = hashes(&automerge.get_heads());
    let since: Vec<ChangeHash> = since.iter().map(|hash| ChangeHash(*hash)).collect();
    let telling = Telling { since: Some(&since), until: None, limit, each: false };
    match crate::steps(automerge, telling, |actor| authors.of(actor)) {
        Err(PadError::UnknownVersion(_)) => Ok(Answer::News { heads, steps: None }),
        steps => Ok(Answer::News { heads, steps: Some(steps?) }),
    }
}

fn difference(
    automerge: &Automerge,
    authors: &dyn Authors,
    before: &str,
    after: &str,
    limit: usize,
) -> Result<Answer, PadError> {
    let old = crate::version(automerge, before)?;
    let old = old.ok_or_else(|| PadError::NotAVersion { text: before.to_owned() })?;
    let new = crate::version(automerge, after)?.unwrap_or_else(|| automerge.get_heads());
    let lines = crate::difference(automerge, &old, &new)?;
    let between = |since, until| {
        let telling = Telling { since: Some(since), until: Some(until), limit, each: false };
        crate::steps(automerge, telling, |actor| authors.of(actor))
    };
    let (steps, without) = (between(&old, &new)?, between(&new, &old)?);
    let (before, after) = (hashes(&old), hashes(&new));
    Ok(Answer::Difference { title: title(automerge), before, after, lines, steps, without })
}

fn export(automerge: &Automerge, format: FileFormat) -> Result<Answer, PadError> {
    let bytes = crate::export(automerge, format)?;
    Ok(Answer::Exported { title: title(automerge), heads: hashes(&automerge.get_heads()), bytes })
}
