//! The past of shared documents, and documents as files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::client::{Answer, Client, cut_off, part, read_line};
use super::errors::{Failure, advise, of_io};
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown};
use super::table::{Table, fill, tame};
use super::values::{bytes, clock};
use crate::api::documents::{
    Bytes, DocAuthor, DocDiffDocument, DocDiffLine, DocDocument, DocExportDocument, DocFormat,
    DocHistoryDocument, DocImportRequest, DocLine, DocStep, ErrorDocument, VersionDocument,
};
use crate::exit::ErrorCode;

/// Digits of a change as it is shown: enough to name it, few enough to type.
const DIGITS: usize = 8;
/// How often a node that went away is looked for.
const AGAIN: Duration = Duration::from_millis(500);

/// Who changed what, when
#[derive(Args)]
pub(super) struct History {
    /// An id or a title
    doc: String,
    /// The newest N steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u64,
    /// Every change by itself; without, what somebody did in one go is one step
    #[arg(long)]
    each: bool,
}

/// What differs between two versions, and who made it so
#[derive(Args)]
pub(super) struct Diff {
    /// An id or a title
    doc: String,
    /// The old version, as `doc history` prints it
    a: String,
    /// The new version; the current one without it
    b: Option<String>,
}

/// Print changes as they arrive
#[derive(Args)]
pub(super) struct Watch {
    /// An id or a title
    doc: String,
    /// Stop after N
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
}

/// Save as a file
#[derive(Args)]
pub(super) struct Export {
    /// An id or a title
    doc: String,
    /// Where to; stdout without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the file is; by its ending without, and automerge where that says nothing
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

/// Make a document of a file: Automerge with its history, JSON, or text
#[derive(Args)]
pub(super) struct Import {
    /// The file; what it is shows its content
    file: PathBuf,
    /// What people call it; what the file says, or else its name, without
    #[arg(long, value_name = "TITLE")]
    title: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Everything, with the history
    Automerge,
    /// The text alone
    Text,
    /// Fields and text, without the history
    Json,
}

/// A change as people type it.
pub(super) fn short(change: &str) -> &str {
    change.get(..DIGITS).unwrap_or(change)
}

/// Somebody, in a sentence.
pub(super) fn called(author: &DocAuthor) -> String {
    match &author.name {
        _ if author.me => "you".to_owned(),
        Some(name) => tame(name),
        None => format!("..{}", author.id.short()),
    }
}

/// Who made a step.
pub(super) fn maker(step: &DocStep) -> String {
    match (&step.author, &step.brought_by) {
        (Some(author), _) => called(author),
        (None, Some(by)) => format!("unknown (from {})", called(by)),
        (None, None) => "unknown".to_owned(),
    }
}

/// What a step did: `+3 -1 lines, tea`.
pub(super) fn what(step: &DocStep) -> String {
    let (added, removed) = (step.lines_added.unwrap_or(0), step.lines_removed.unwrap_or(0));
    let mut parts = Vec::new();
    if added > 0 || removed > 0 {
        parts.push(format!("+{added} -{removed} lines"));
    }
    parts.extend(step.fields.iter().map(|field| tame(field)));
    if parts.is_empty() {
        parts.push(step.message.as_deref().map_or_else(
            || if step.lines_added.is_some() { "nothing to see".to_owned() } else { "changes".to_owned() },
            tame,
        ));
    }
    parts.join(", ")
}

/// A local time as tables show it.
fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

pub(super) async fn history(session: &Session, args: &History) -> Result<(), Failure> {
    let query = format!("history?limit={}&each={}", args.limit, args.each);
    let answer = session.client()?.get::<DocHistoryDocument>(&of_doc(&args.doc, &query)).await?;
    session.show(&answer, |answer| {
        let ids = answer.steps.iter().map(|step| step.version.clone()).collect();
        let mut table = Table::new(&["version", "when", "who", "what", ""]);
        for step in &answer.steps {
            let changes = if step.changes > 1 { format!("{} changes", step.changes) } else { String::new() };
            table.row([short(&step.version).to_owned(), when(step.ended), maker(step), what(step), changes]);
        }
        let mut text = table.render();
        if answer.more {
            text.push_str("older ones: --limit\n");
        }
        Shown { text, ids }
    })
}

/// A route of one document with a query.
fn of_doc(doc: &str, query: &str) -> String {
    routes::doc(doc, query)
}

pub(super) async fn diff(session: &Session, args: &Diff) -> Result<(), Failure> {
    let mut query = format!("diff?before={}", part(&args.a));
    if let Some(after) = &args.b {
        query.push_str(&format!("&after={}", part(after)));
    }
    let answer = session.client()?.get::<DocDiffDocument>(&of_doc(&args.doc, &query)).await?;
    session.show(&answer, |answer| Shown { text: diff_text(session, answer), ids: answer.after.clone() })
}

fn diff_text(session: &Session, diff: &DocDiffDocument) -> String {
    let heads = |heads: &[String]| {
        let heads: Vec<&str> = heads.iter().map(|head| short(head)).collect();
        if heads.is_empty() { "nothing".to_owned() } else { heads.join(",") }
    };
    let title = format!("{} -> {}", heads(&diff.before), heads(&diff.after));
    let mut text = format!("{}\n", session.out.paint(Meaning::Strong, &title));
    for (steps, label) in [(&diff.steps, ""), (&diff.without, "without  ")] {
        for step in steps {
            let row = format!(
                "{label}{}  {}  {} by {}",
                short(&step.version),
                when(step.ended),
                what(step),
                maker(step)
            );
            text.push_str(&format!("{}\n", session.out.paint(Meaning::Faint, &row)));
        }
    }
    if diff.lines.is_empty() {
        text.push_str("no difference\n");
    }
    for line in &diff.lines {
        text.push_str(&diff_line(session, line));
        text.push('\n');
    }
    text
}

fn diff_line(session: &Session, line: &DocDiffLine) -> String {
    let paint = |meaning, text: &str| session.out.paint(meaning, text);
    match line {
        DocDiffLine::Text { path, old_line, new_line } => {
            let path = path.as_ref().map(|path| format!(" {}", tame(path))).unwrap_or_default();
            paint(Meaning::Faint, &format!("@@ -{old_line} +{new_line} @@{path}"))
        }
        DocDiffLine::Kept { text } => format!(" {}", tame(text)),
        DocDiffLine::Removed { text } => paint(Meaning::Bad, &format!("-{}", tame(text))),
        DocDiffLine::Added { text } => paint(Meaning::Good, &format!("+{}", tame(text))),
        DocDiffLine::Field { path, old, new } => {
            let value = |value: &Option<String>| value.as_deref().map_or("(nothing)".to_owned(), tame);
            let change = format!("{} -> {}", value(old), value(new));
            format!("{}: {change}", paint(Meaning::Strong, &tame(path)))
        }
        DocDiffLine::Cut => paint(Meaning::Doubtful, "... and more"),
    }
}

pub(super) async fn watch(session: &Session, args: &Watch) -> Result<(), Failure> {
    let client = session.client()?;
    let mut since = String::new();
    let mut told = 0;
    let mut first = true;
    while args.count.is_none_or(|count| told < count) {
        let query = format!("changes?since={}", part(&since));
        let mut lines = match client.stream(Method::GET, &of_doc(&args.doc, &query), None::<&()>).await {
            Ok(lines) => lines,
            Err(failure) if !first && is_away(&failure) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        while args.count.is_none_or(|count| told < count) {
            let raw = match lines.next().await {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                Err(failure) if is_away(&failure) => break,
                Err(failure) => return Err(failure),
            };
            match read_line::<DocLine>(&raw)? {
                DocLine::Error { error, .. } if error.code == ErrorCode::NoNode => break,
                DocLine::Error { error, .. } => return Err(error.into()),
                DocLine::Watching { heads, .. } if !first => since = heads.join(","),
                line => {
                    first = false;
                    told += u64::from(matches!(line, DocLine::Changed { .. }));
                    since = show_line(session, &raw, &line)?;
                }
            }
        }
        if args.count.is_none_or(|count| told < count) {
            session.out.note("the node went away; waiting for it (Ctrl-C stops)");
            wait_for(&client).await;
        }
    }
    Ok(())
}

/// Waits until somebody answers where the node was. One that stops may answer for a moment.
pub(super) async fn wait_for(client: &Client) {
    tokio::time::sleep(AGAIN).await;
    while !client.answers().await {
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a failure only says that the node is not here.
pub(super) fn is_away(failure: &Failure) -> bool {
    matches!(failure, Failure::Error(error) if error.code == ErrorCode::NoNode)
}

/// Shows a line of a watch; gives the version it told.
fn show_line(session: &Session, raw: &str, line: &DocLine) -> Result<String, Failure> {
    if session.out.json {
        session.out.raw(raw)?;
    }
    let (ts, text, heads) = match line {
        DocLine::Watching { id, title, heads, .. } => {
            let name = if title.is_empty() { tame(id) } else { format!("\"{}\"", tame(title)) };
            session.out.note(&format!("watching {name} (Ctrl-C stops)"));
            return Ok(heads.join(","));
        }
        DocLine::Changed { ts, heads, step, .. } if session.out.quiet => (ts, step.version.clone(), heads),
        DocLine::Changed { ts, heads, step, .. } => {
            let text = format!("{} by {}", what(step), maker(step));
            (ts, format!("{}  {}", fill(&text, 32), short(&step.version)), heads)
        }
        DocLine::TakenOut { ts, heads, .. } => {
            (ts, "what somebody wrote who was removed is gone".to_owned(), heads)
        }
        DocLine::Error { .. } => return Err(cut_off()),
    };
    if !session.out.json {
        let ts = if session.out.quiet { String::new() } else { format!("{}  ", clock(*ts)) };
        session.out.line(&format!("{}{text}", session.out.paint(Meaning::Faint, &ts)))?;
    }
    Ok(heads.join(","))
}

/// What a file is by its ending.
fn by_ending(file: Option<&Path>) -> DocFormat {
    let ending = file.and_then(Path::extension).and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "json" => DocFormat::Json,
        "txt" | "text" | "md" | "markdown" | "adoc" | "rst" | "org" | "tex" | "html" => DocFormat::Text,
        _ => DocFormat::Automerge,
    }
}

pub(super) async fn export(session: &Session, args: &Export) -> Result<(), Failure> {
    let format = match args.format {
        Some(Format::Automerge) => DocFormat::Automerge,
        Some(Format::Text) => DocFormat::Text,
        Some(Format::Json) => DocFormat::Json,
        None => by_ending(args.output.as_deref()),
    };
    let file = args.output.as_deref().filter(|file| file.as_os_str() != "-");
    if file.is_none() && format == DocFormat::Automerge && session.out.terminal && !session.out.json {
        let message = "an Automerge file is nothing for a terminal";
        return Err(ErrorDocument::new(ErrorCode::Usage, message)
            .detail("to a file", "-o notes.automerge")
            .detail("readable", "--format text, or --format json")
            .into());
    }
    let route = of_doc(&args.doc, &format!("export?format={}", format.word()));
    let answer = session.client()?.get::<DocExportDocument>(&route).await?;
    let data = answer.document.data_b64.as_ref().map(|data| data.0.as_slice()).unwrap_or_default();
    let Some(file) = file else {
        return if session.out.json { session.out.raw(&answer.raw) } else { session.out.bytes(data) };
    };
    write(file, data, args.force)?;
    let written =
        DocExportDocument { data_b64: None, file: Some(file.display().to_string()), ..answer.document };
    session.show(&Answer::own(written)?, |written| {
        let history = if format == DocFormat::Automerge { "with its history" } else { "without its history" };
        let text = format!("wrote {}: {} B of {}, {history}\n", file.display(), written.bytes, format.word());
        Shown { text, ids: vec![file.display().to_string()] }
    })
}

/// Writes a file of the user's: whole or not at all, and over another only when that was said.
fn write(file: &Path, data: &[u8], force: bool) -> Result<(), Failure> {
    if force {
        return wattle_store::replace_file(file, data).map_err(|error| of_io("write", file, &error).into());
    }
    let written = if file.symlink_metadata().is_ok() {
        Err(ErrorKind::AlreadyExists.into())
    } else {
        wattle_store::create_file(file, data)
    };
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let message = format!("{} exists already; nothing was written", file.display());
            advise(ErrorDocument::new(ErrorCode::Conflict, message), "replace it", "--force", "").into()
        }
        _ => of_io("write", file, &error).into(),
    })
}

pub(super) async fn import(session: &Session, args: &Import) -> Result<(), Failure> {
    let client = session.client()?;
    // Before the file: without a node nothing comes of it, whatever is in it.
    client.get::<VersionDocument>(routes::VERSION).await?;
    let (name, data) = if args.file.as_os_str() == "-" {
        ("imported".to_owned(), session.stdin().await?)
    } else {
        let data = std::fs::read(&args.file).map_err(|error| of_io("read", &args.file, &error))?;
        let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
        (name.unwrap_or_default(), data)
    };
    let request = DocImportRequest { name, title: args.title.clone(), data_b64: Bytes(data) };
    let answer = client.post::<DocDocument>(routes::DOCS_IMPORT, &request).await?;
    session.show(&answer, |answer| {
        let (doc, wattle) = (&answer.doc, session.program());
        let text = format!(
            "imported \"{}\": {}\n  id         {}\n  read it    {wattle} doc show {}\n  history    {wattle} doc history {}\n",
            tame(&doc.title),
            bytes(doc.bytes),
            tame(&doc.id),
            tame(&doc.id),
            tame(&doc.id),
        );
        Shown { text, ids: vec![doc.id.clone()] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_types::NodeId;

    fn step() -> DocStep {
        DocStep {
            version: "4f1c8e2a9b".to_owned(),
            before: Vec::new(),
            author: None,
            brought_by: None,
            began: None,
            ended: None,
            changes: 1,
            message: None,
            lines_added: Some(3),
            lines_removed: Some(1),
            fields: Vec::new(),
        }
    }

    #[test]
    fn a_step_is_told_as_people_say_it() {
        let bob = DocAuthor { id: NodeId::from_public_key([7; 32]), name: Some("bob".to_owned()), me: false };
        assert_eq!(what(&step()), "+3 -1 lines");
        let fields = DocStep { lines_added: Some(0), lines_removed: Some(0), ..step() };
        assert_eq!(what(&DocStep { fields: vec!["tea".to_owned()], ..fields.clone() }), "tea");
        assert_eq!(what(&DocStep { message: Some("imported".to_owned()), ..fields.clone() }), "imported");
        assert_eq!(what(&fields), "nothing to see");
        assert_eq!(maker(&DocStep { author: Some(bob.clone()), ..step() }), "bob");
        assert_eq!(maker(&DocStep { brought_by: Some(bob.clone()), ..step() }), "unknown (from bob)");
        assert_eq!(called(&DocAuthor { me: true, ..bob }), "you");
        assert_eq!(short("4f1c8e2a9b"), "4f1c8e2a");
    }

    #[test]
    fn an_export_is_what_the_ending_says_and_keeps_everything_where_it_says_nothing() {
        let format = |name: &str| by_ending(Some(Path::new(name)));
        assert_eq!(format("notes.md"), DocFormat::Text);
        assert_eq!(format("notes.JSON"), DocFormat::Json);
        assert_eq!([format("notes.automerge"), format("notes"), by_ending(None)], [DocFormat::Automerge; 3]);
    }
}
