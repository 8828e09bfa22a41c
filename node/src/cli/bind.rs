//! `doc bind`: a file and a document in step, both ways.
//!
//! The *base* is the version at which both were last equal. What differs between base and file is what somebody
//! did to the file: it goes to the document as an edit of the base, so it merges with what came meanwhile. What
//! differs between base and document goes to the file, in one step and only in place of a file that is equal to
//! the base. Whatever somebody writes at the same moment is found in the file that was replaced, and is an edit
//! of the base too.
//!
//! A small state file remembers the base. It is written before anything is sent or replaced, so that a kill at
//! any moment neither loses nor doubles an edit.

mod file;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hyper::Method;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::client::{Answer, Lines, part};
use super::doc::content;
use super::documents::BindLine;
use super::errors::{Failure, advise, of_io};
use super::output::Meaning;
use super::past::{called, is_away, wait_for};
use super::routes;
use super::session::Session;
use super::table::{fill, tame};
use super::values::clock;
use crate::api::documents::{
    Bytes, DocAuthor, DocContentDocument, DocEditDocument, DocHistoryDocument, DocTextRequest, ErrorDocument,
};
use crate::exit::ErrorCode;
use file::Replaced;
use state::{Sent, State};

/// How often the file is looked at where notifications come: some file systems send none.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked at where none can come.
const LOOK_OFTEN: Duration = Duration::from_millis(400);
/// Rounds of one meeting of file and document; who writes faster than that is waited for.
const ROUNDS_MAX: usize = 50;
/// How long a file that was replaced is looked at: an editor may still be writing to it.
const LATE: Duration = Duration::from_secs(5);
/// Notifications that wait; more say nothing new.
const NOTICES_MAX: usize = 16;

/// Keep a local file and a document in step, both ways
#[derive(Args)]
pub(super) struct Bind {
    /// The file; made when there is none
    file: PathBuf,
    /// An id or a title
    doc: String,
    /// Bring them together once, and end
    #[arg(long)]
    once: bool,
    /// Which one to begin with where both have a text of their own
    #[arg(long, value_name = "WHICH")]
    from: Option<From>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// The file's text becomes the document's; the old one stays in its history
    File,
    /// The document's text becomes the file's; the old one is kept beside it
    Doc,
}

/// The version at which file and document were last equal, and its text.
#[derive(Clone)]
struct Base {
    heads: Vec<String>,
    text: String,
}

/// A binding.
struct Binding<'a> {
    session: &'a Session,
    id: String,
    title: String,
    /// The real file, whatever links lead to it.
    file: PathBuf,
    /// What the user calls it.
    shown: String,
    state_file: PathBuf,
    base: Base,
    /// The right to keep a file of this name.
    _claim: std::fs::File,
    /// The lock on the file that stands at the path.
    lock: Option<std::fs::File>,
    /// The file that was replaced last, what it held then, and on which base.
    late: Option<(Replaced, Base, Instant)>,
}

pub(super) async fn bind(session: &Session, args: &Bind) -> Result<(), Failure> {
    let doc = content(session, &args.doc, None, None).await?.document;
    let Some(text) = doc.text.clone() else {
        return Err(ErrorDocument::new(ErrorCode::Usage, "this document has no text, only fields")
            .hint("wattle doc export <id> --format json")
            .into());
    };
    let mut binding = Binding::open(session, args, &doc, text)?;
    binding.begin(args.from).await?;
    let equal = binding.meet().await?;
    if !equal && args.once {
        let message = format!("{} was changed again and again meanwhile; nothing is lost", binding.shown);
        return Err(ErrorDocument::new(ErrorCode::Failed, message).hint("try again").into());
    }
    binding.say(&BindLine::Bound {
        ts: Timestamp::now(),
        file: binding.shown.clone(),
        id: binding.id.clone(),
        title: binding.title.clone(),
        heads: binding.base.heads.clone(),
    })?;
    if args.once {
        return Ok(());
    }
    session.out.note("kept in step from now on (Ctrl-C stops)");
    binding.keep().await
}

impl<'a> Binding<'a> {
    /// Finds or makes the file, and takes its lock.
    fn open(
        session: &'a Session,
        args: &Bind,
        doc: &DocContentDocument,
        text: String,
    ) -> Result<Self, Failure> {
        let shown = args.file.display().to_string();
        let heads = doc.heads.clone();
        let mut made = false;
        let absolute = std::path::absolute(&args.file).map_err(|error| of_io("find", &args.file, &error))?;
        if absolute.symlink_metadata().is_err() {
            wattle_store::create_file(&absolute, text.as_bytes())
                .map_err(|error| of_io("create", &args.file, &error))?;
            made = true;
        }
        let file = std::fs::canonicalize(&absolute).map_err(|error| of_io("open", &args.file, &error))?;
        if !file.is_file() {
            return Err(ErrorDocument::new(ErrorCode::Usage, format!("{shown} is no file")).into());
        }
        let paths = session.paths()?;
        let claim = state::claim(&paths, &file)?.ok_or_else(|| taken(&shown))?;
        let lock = file::lock(&file, &shown)?;
        let state_file = state::place(&paths, &file, &doc.id)?;
        let binding = Self {
            session,
            id: doc.id.clone(),
            title: doc.title.clone(),
            file,
            shown,
            state_file,
            base: Base { heads, text },
            _claim: claim,
            lock: Some(lock),
            late: None,
        };
        if made {
            session.out.note(&format!("{} was not there: made from the document", binding.shown));
            binding.save(None, None)?;
        }
        Ok(binding)
    }

    /// Finds the base: what the state file remembers, or what both are equal at.
    async fn begin(&mut self, from: Option<From>) -> Result<(), Failure> {
        let current = self.base.clone();
        let text = self.text_of(&self.read()?.unwrap_or_default())?;
        if text == current.text {
            return self.save(None, None);
        }
        if let Some(state) = state::read(&self.state_file, &self.id)
            && let Some(base) = self.recall(state, &text).await?
        {
            self.base = base;
            return Ok(());
        }
        match from {
            _ if current.text.is_empty() => Ok(()),
            _ if text.is_empty() => self.begin_with(current).await,
            Some(From::File) => Ok(()),
            Some(From::Doc) => self.begin_with(current).await,
            None => Err(self.differs(&current.text, &text)),
        }
    }

    /// Puts the document's text in the place of the file's, which is kept beside it.
    async fn begin_with(&mut self, current: Base) -> Result<(), Failure> {
        let swapped = wattle_store::swap_file(&self.file, current.text.as_bytes())
            .map_err(|error| of_io("write", Path::new(&self.shown), &error))?;
        self.lock = Some(swapped.new);
        let held = Replaced::new(swapped.old).settled(false).await;
        let held = held.map_err(|error| of_io("read", Path::new(&self.shown), &error))?;
        if !held.is_empty() {
            let kept = file::keep_beside(&self.file, &held)?;
            self.session.out.note(&format!("what was in {} is in {}", self.shown, kept.display()));
        }
        self.base = current;
        self.save(None, None)
    }

    fn differs(&self, doc: &str, text: &str) -> Failure {
        let message = format!("{} and the document have different texts and were never bound", self.shown);
        let (added, removed) = wattle_pad::lines_changed(doc, text);
        ErrorDocument::new(ErrorCode::Conflict, message)
            .detail("the file", format!("has {added} lines that the document has not, and lacks {removed}"))
            .detail("keep it", "--from file   (the document's text stays in its history)")
            .detail("replace it", "--from doc    (the file's text is kept beside it)")
            .into()
    }

    /// The base that the state file speaks of. Of two that it may be, after a kill in the middle, the one that is
    /// nearer to the file.
    async fn recall(&self, state: State, text: &str) -> Result<Option<Base>, Failure> {
        let mut versions = vec![state.heads];
        versions.extend(state.next);
        if let Some(Sent { at, text_b64: Bytes(sent) }) = state.sent {
            // Whether it arrived or not, it is made once.
            let edited = self.send(at, sent).await?;
            versions.push(edited.change.map_or(edited.after, |change| vec![change]));
        }
        let mut bases = BTreeMap::new();
        for heads in versions {
            let at = heads.join(",");
            match content(self.session, &self.id, None, Some(&at)).await {
                Ok(Answer { document, .. }) => {
                    let base = Base { heads, text: document.text.unwrap_or_default() };
                    let (added, removed) = wattle_pad::lines_changed(&base.text, text);
                    bases.insert(added + removed, base);
                }
                // A version that was taken out of the document.
                Err(Failure::Error(error)) if error.code == ErrorCode::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(bases.pop_first().map(|(_, base)| base))
    }

    /// Brings both together, until nothing is left to do; says whether they are equal.
    async fn meet(&mut self) -> Result<bool, Failure> {
        for _ in 0..ROUNDS_MAX {
            self.look_late().await?;
            let found = self.read_settled().await?;
            if let Some(bytes) = &found {
                let text = self.text_of(bytes)?;
                self.relock()?;
                if text != self.base.text {
                    self.push(text).await?;
                }
            }
            let doc = content(self.session, &self.id, None, None).await?.document;
            let text = doc.text.unwrap_or_default();
            if text == self.base.text && found.is_some() {
                if doc.heads != self.base.heads {
                    self.base.heads = doc.heads;
                    self.save(None, None)?;
                }
                return Ok(true);
            }
            if found.is_none() {
                self.make_again(doc.heads, text)?;
            } else if self.read()?.is_some_and(|bytes| bytes == self.base.text.as_bytes()) {
                self.pull(doc.heads, text).await?;
            }
        }
        Ok(false)
    }

    /// Gives the document what was done to the file.
    async fn push(&mut self, text: String) -> Result<(), Failure> {
        self.base = self.edit(self.base.clone(), text, None).await?;
        self.save(None, None)
    }

    /// Makes an edit of a base in the document, and gives the version that it made. It is remembered before it is
    /// sent, so that it is made once, whatever happens.
    async fn edit(&self, on: Base, text: String, next: Option<Vec<String>>) -> Result<Base, Failure> {
        let bytes = text.clone().into_bytes();
        self.save(next, Some(Sent { at: on.heads.clone(), text_b64: Bytes(bytes.clone()) }))?;
        let edited = match self.send(on.heads, bytes).await {
            Ok(edited) => edited,
            Err(failure) => {
                if !is_away(&failure) {
                    // What the node refuses now, it would refuse again; the file keeps it.
                    self.save(None, None)?;
                }
                return Err(failure);
            }
        };
        let heads = edited.change.map_or(edited.after, |change| vec![change]);
        self.say(&BindLine::ToDocument {
            ts: Timestamp::now(),
            file: self.shown.clone(),
            id: self.id.clone(),
            heads: heads.clone(),
            lines_added: edited.lines_added,
            lines_removed: edited.lines_removed,
        })?;
        Ok(Base { heads, text })
    }

    async fn send(&self, at: Vec<String>, text: Vec<u8>) -> Result<DocEditDocument, Failure> {
        let request = DocTextRequest { at, text_b64: Bytes(text) };
        let answer =
            self.session.client()?.post::<DocEditDocument>(&routes::doc(&self.id, "text"), &request).await?;
        Ok(answer.document)
    }

    /// Gives the file what others did to the document.
    async fn pull(&mut self, heads: Vec<String>, text: String) -> Result<(), Failure> {
        self.save(Some(heads.clone()), None)?;
        let before = self.base.clone();
        let (added, removed) = wattle_pad::lines_changed(&before.text, &text);
        let swapped = wattle_store::swap_file(&self.file, text.as_bytes())
            .map_err(|error| of_io("write", Path::new(&self.shown), &error))?;
        self.lock = Some(swapped.new);
        let mut old = Replaced::new(swapped.old);
        let held = old.settled(!before.text.is_empty()).await;
        let held = held.map_err(|error| of_io("read", Path::new(&self.shown), &error))?;
        let mut late = before.clone();
        if held != before.text.as_bytes() {
            // Somebody was faster than the swap: that is an edit of what the file held before.
            late = self.edit_late(late, &held, Some(heads.clone())).await?;
        }
        self.late = Some((old, late, Instant::now()));
        self.base = Base { heads: heads.clone(), text };
        self.save(None, None)?;
        self.say(&BindLine::ToFile {
            ts: Timestamp::now(),
            file: self.shown.clone(),
            id: self.id.clone(),
            heads,
            lines_added: crate::node::count(added),
            lines_removed: crate::node::count(removed),
            by: self.authors_since(&before.heads).await,
        })
    }

    /// What was written to a file that has been replaced is an edit of what that one held.
    async fn edit_late(&self, on: Base, held: &[u8], next: Option<Vec<String>>) -> Result<Base, Failure> {
        if let Ok(text) = wattle_pad::text_of(held) {
            return self.edit(on, text.to_owned(), next).await;
        }
        let kept = file::keep_beside(&self.file, held)?;
        self.session.out.note(&format!("what was just written is no text; it is in {}", kept.display()));
        Ok(on)
    }

    /// Looks whether somebody still wrote to the file that was replaced last.
    async fn look_late(&mut self) -> Result<(), Failure> {
        let Some((mut old, mut on, since)) = self.late.take() else { return Ok(()) };
        let news = old.news().await.map_err(|error| of_io("read", Path::new(&self.shown), &error))?;
        if let Some(held) = news {
            on = self.edit_late(on, &held, None).await?;
            self.save(None, None)?;
        }
        if since.elapsed() < LATE {
            self.late = Some((old, on, since));
        }
        Ok(())
    }

    /// The file is gone: it is made again from the document.
    fn make_again(&mut self, heads: Vec<String>, text: String) -> Result<(), Failure> {
        match wattle_store::create_file(&self.file, text.as_bytes()) {
            Ok(()) => {
                self.session.out.note(&format!("{} was gone: made from the document", self.shown));
                self.base = Base { heads, text };
                self.save(None, None)
            }
            // Somebody made it first: it is read in the next round.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(of_io("create", Path::new(&self.shown), &error).into()),
        }
    }

    async fn authors_since(&self, heads: &[String]) -> Vec<DocAuthor> {
        let route = routes::doc(&self.id, &format!("history?limit=100&since={}", part(&heads.join(","))));
        let Ok(client) = self.session.client() else { return Vec::new() };
        let told = client.get::<DocHistoryDocument>(&route).await;
        let steps = told.map(|told| told.document.steps).unwrap_or_default();
        let others = steps.into_iter().filter_map(|step| step.author.or(step.brought_by));
        let others: BTreeMap<_, _> =
            others.filter(|author| !author.me).map(|author| (author.id, author)).collect();
        others.into_values().collect()
    }

    /// Keeps them together until Ctrl-C.
    async fn keep(mut self) -> Result<(), Failure> {
        let (sender, mut notices) = mpsc::channel(NOTICES_MAX);
        let watcher = file::watcher(&self.file, sender);
        if watcher.is_none() {
            self.session.out.note("this system sends no notifications: the file is looked at instead");
        }
        let mut look = tokio::time::interval(if watcher.is_some() { LOOK_EVERY } else { LOOK_OFTEN });
        let (mut lines, mut away) = (None, false);
        loop {
            let met = match self.follow(&mut lines).await {
                Ok(()) => self.meet().await,
                Err(failure) => Err(failure),
            };
            match met {
                Ok(_) => away = false,
                Err(failure) if is_away(&failure) => {
                    if !away {
                        self.session.out.note("the node is away; waiting for it (Ctrl-C stops)");
                    }
                    (lines, away) = (None, true);
                    wait_for(&self.session.client()?).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            let Some(changes) = &mut lines else { continue };
            tokio::select! {
                _ = notices.recv(), if watcher.is_some() => while notices.try_recv().is_ok() {},
                _ = look.tick() => {}
                line = changes.next() => if !matches!(line, Ok(Some(_))) {
                    lines = None;
                },
            }
        }
    }

    /// Follows the changes of the document from the base on, unless it does already.
    async fn follow(&self, lines: &mut Option<Lines>) -> Result<(), Failure> {
        if lines.is_none() {
            let since = part(&self.base.heads.join(","));
            let route = routes::doc(&self.id, &format!("changes?since={since}"));
            *lines = Some(self.session.client()?.stream(Method::GET, &route, None::<&()>).await?);
        }
        Ok(())
    }

    fn text_of(&self, bytes: &[u8]) -> Result<String, Failure> {
        let text = wattle_pad::text_of(bytes).map_err(|error| {
            ErrorDocument::new(ErrorCode::Usage, format!("{} is {error}", self.shown))
                .detail("nothing", "was changed, neither the file nor the document")
        })?;
        Ok(text.to_owned())
    }

    fn read(&self) -> Result<Option<Vec<u8>>, Failure> {
        file::read(&self.file).map_err(|error| of_io("read", Path::new(&self.shown), &error).into())
    }

    /// The file once nobody is in the middle of writing it.
    async fn read_settled(&self) -> Result<Option<Vec<u8>>, Failure> {
        let read = file::read_settled(&self.file, !self.base.text.is_empty()).await;
        read.map_err(|error| of_io("read", Path::new(&self.shown), &error).into())
    }

    /// An editor that replaces the file leaves the lock with the old one.
    fn relock(&mut self) -> Result<(), Failure> {
        let same = self.lock.as_ref().is_some_and(|lock| file::is_at(lock, &self.file));
        if !same {
            self.lock = Some(file::lock(&self.file, &self.shown)?);
        }
        Ok(())
    }

    fn save(&self, next: Option<Vec<String>>, sent: Option<Sent>) -> Result<(), Failure> {
        let state = State::new(&self.file, &self.id, self.base.heads.clone(), next, sent);
        state::write(&self.state_file, &state)
    }

    fn say(&self, line: &BindLine) -> Result<(), Failure> {
        let out = &self.session.out;
        if out.json {
            return out.document(line);
        }
        let (ts, text) = match line {
            BindLine::Bound { ts, file, title, .. } => {
                let title = if title.is_empty() { tame(&self.id) } else { format!("\"{}\"", tame(title)) };
                (ts, format!("{} and {title} are equal", tame(file)))
            }
            BindLine::ToDocument { ts, lines_added, lines_removed, .. } => {
                (ts, format!("{} +{lines_added} -{lines_removed} lines", fill("file -> document", 18)))
            }
            BindLine::ToFile { ts, lines_added, lines_removed, by, .. } => {
                let by: Vec<String> = by.iter().map(called).collect();
                let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
                (ts, format!("{} +{lines_added} -{lines_removed} lines{by}", fill("document -> file", 18)))
            }
        };
        if out.quiet {
            return Ok(());
        }
        out.line(&format!("{}  {text}", out.paint(Meaning::Faint, &clock(*ts))))
    }
}

/// Another process has the file.
fn taken(shown: &str) -> Failure {
    let message = format!("another process keeps {shown} in step with a document");
    let document = ErrorDocument::new(ErrorCode::Conflict, message);
    advise(document, "find it", "ps aux | grep 'doc bind'", "and stop it first").into()
}
