//! Shared documents from the command line.

use std::path::PathBuf;
use std::process::Command;

use clap::{Args, Subcommand};

use super::client::{Answer, part};
use super::errors::{Failure, of_io};
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, tame, tame_text};
use super::tickets::{how_often, long};
use super::values::{Span, as_ms, bytes};
use super::{bind, past, ui};
use crate::api::documents::{
    Bytes, Doc as DocRow, DocContentDocument, DocDocument, DocDoneDocument, DocEditDocument, DocFieldRequest,
    DocJoinRequest, DocMembersDocument, DocNewRequest, DocRemoveRequest, DocRole, DocShareRequest,
    DocTextRequest, DocTicketDocument, DocsDocument, ErrorDocument,
};
use crate::exit::ErrorCode;

/// Shared documents
#[derive(Args)]
pub(super) struct Doc {
    #[command(subcommand)]
    command: DocCommand,
}

#[derive(Subcommand)]
enum DocCommand {
    New(New),
    List(List),
    Show(Show),
    Edit(Edit),
    Set(Set),
    Open(ui::Open),
    History(past::History),
    Diff(past::Diff),
    Watch(past::Watch),
    Export(past::Export),
    Import(past::Import),
    Bind(bind::Bind),
    Share(Share),
    Join(Join),
    Members(Members),
    Remove(Remove),
    Rm(Rm),
}

/// Create a document, print its id
#[derive(Args)]
struct New {
    /// What people call it
    #[arg(default_value = "")]
    title: String,
    /// Begin with the text of FILE; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Documents here: size, role, who is in sync
#[derive(Args)]
struct List {}

/// Print text or JSON
#[derive(Args)]
struct Show {
    /// An id or a title
    doc: String,
    /// Only what is at a path, such as `a.b[3]`
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// As it was at a version that `doc history` prints
    #[arg(long, value_name = "VERSION")]
    at: Option<String>,
}

/// Edit in $EDITOR; your changes are merged, never overwrite
#[derive(Args)]
struct Edit {
    /// An id or a title
    doc: String,
}

/// Change one field
#[derive(Args)]
struct Set {
    /// An id or a title
    doc: String,
    /// Where, such as `a.b[3]`
    path: String,
    /// What: JSON, or else it is taken as text
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Make a ticket for a document
#[derive(Args)]
struct Share {
    /// An id or a title
    doc: String,
    /// Whoever uses it reads, and cannot write
    #[arg(long)]
    ro: bool,
    /// How long it lets in
    #[arg(short, long, value_name = "D", default_value = "7d")]
    expires: Span,
    /// How many it lets in
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// Show it as a QR code too
    #[arg(long)]
    qr: bool,
}

/// Open a document that a ticket leads to
#[derive(Args)]
struct Join {
    /// The text that begins with `wattle:`, or the id of one that is here; `-` reads stdin
    ticket: String,
}

/// Who may do what
#[derive(Args)]
struct Members {
    /// An id or a title
    doc: String,
}

/// Remove somebody from a document
#[derive(Args)]
struct Remove {
    /// An id or a title
    doc: String,
    /// A petname, short id or full id
    peer: String,
}

/// Forget a document here; others keep theirs
#[derive(Args)]
struct Rm {
    /// An id or a title
    doc: String,
}

pub(super) async fn doc(session: &Session, args: Doc) -> Result<(), Failure> {
    match args.command {
        DocCommand::New(args) => new(session, &args).await,
        DocCommand::List(_) => list(session).await,
        DocCommand::Show(args) => show(session, &args).await,
        DocCommand::Edit(args) => edit(session, &args).await,
        DocCommand::Set(args) => set(session, &args).await,
        DocCommand::Open(args) => ui::open(session, &args).await,
        DocCommand::History(args) => past::history(session, &args).await,
        DocCommand::Diff(args) => past::diff(session, &args).await,
        DocCommand::Watch(args) => past::watch(session, &args).await,
        DocCommand::Export(args) => past::export(session, &args).await,
        DocCommand::Import(args) => past::import(session, &args).await,
        DocCommand::Bind(args) => bind::bind(session, &args).await,
        DocCommand::Share(args) => share(session, &args).await,
        DocCommand::Join(args) => join(session, &args).await,
        DocCommand::Members(args) => members(session, &args).await,
        DocCommand::Remove(args) => remove(session, &args).await,
        DocCommand::Rm(args) => rm(session, &args).await,
    }
}

async fn new(session: &Session, args: &New) -> Result<(), Failure> {
    let text = match &args.from {
        None => None,
        Some(file) if file.as_os_str() == "-" => Some(session.stdin().await?),
        Some(file) => Some(std::fs::read(file).map_err(|error| of_io("read", file, &error))?),
    };
    let request = DocNewRequest { title: args.title.clone(), text_b64: text.map(Bytes) };
    let answer = session.client()?.post::<DocDocument>(routes::DOCS, &request).await?;
    session.show(&answer, |answer| Shown {
        text: format!("{}\n", tame(&answer.doc.id)),
        ids: vec![answer.doc.id.clone()],
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<DocsDocument>(routes::DOCS).await?;
    session.show(&answer, |answer| Shown {
        text: if answer.docs.is_empty() {
            session.commands(
                "no documents here\n  make one     wattle doc new notes\n  open one     wattle doc join <ticket>\n",
            )
        } else {
            table(&answer.docs)
        },
        ids: answer.docs.iter().map(|doc| doc.id.clone()).collect(),
    })
}

fn table(docs: &[DocRow]) -> String {
    let mut table = Table::new(&["title", "id", "size", "role", "members", "in sync"]);
    for doc in docs {
        table.row([
            if doc.title.is_empty() { "-".to_owned() } else { tame(&doc.title) },
            tame(&doc.id),
            bytes(doc.bytes),
            standing(doc.role, doc.members).to_owned(),
            doc.members.to_string(),
            in_sync(doc),
        ]);
    }
    table.render()
}

/// What this node may do. Who is no member and knows who is was one: others are told nothing.
fn standing(role: Option<DocRole>, members: u64) -> &'static str {
    match (role, members) {
        (Some(role), _) => role.word(),
        (None, 0) => "not let in yet",
        (None, _) => "no member any more",
    }
}

/// Who is here, and whether they hold the same.
fn in_sync(doc: &DocRow) -> String {
    let here = doc.peers.len();
    let synced = doc.peers.iter().filter(|peer| peer.in_sync).count();
    if here == 0 { "nobody is here".to_owned() } else { format!("{synced} of {here} here") }
}

pub(super) async fn content(
    session: &Session,
    doc: &str,
    path: Option<&str>,
    at: Option<&str>,
) -> Result<Answer<DocContentDocument>, Failure> {
    let query = [("path", path), ("at", at)];
    let query: Vec<String> =
        query.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", part(value?)))).collect();
    let route = format!("{}?{}", routes::doc(doc, "content"), query.join("&"));
    session.client()?.get::<DocContentDocument>(&route).await
}

async fn show(session: &Session, args: &Show) -> Result<(), Failure> {
    let answer = content(session, &args.doc, args.path.as_deref(), args.at.as_deref()).await?;
    if session.out.json {
        return session.out.raw(&answer.raw);
    }
    let document = &answer.document;
    let text = document.text.clone().unwrap_or_default();
    match &document.value {
        // A terminal is told what it gets as text; a pipe gets the bytes.
        value if value.is_null() && session.out.terminal => session.out.text(&tame_text(&text)),
        value if value.is_null() => session.out.bytes(text.as_bytes()),
        value => {
            let fields = serde_json::to_string_pretty(value).unwrap_or_default();
            let text = if text.is_empty() { String::new() } else { format!("{}\n\n", tame_text(&text)) };
            session.out.text(&format!("{text}{}\n", tame_text(&fields)))
        }
    }
}

async fn edit(session: &Session, args: &Edit) -> Result<(), Failure> {
    let answer = content(session, &args.doc, None, None).await?;
    let before = answer.document;
    let Some(text) = &before.text else {
        return Err(ErrorDocument::new(ErrorCode::Usage, "this document has no text, only fields")
            .hint("wattle doc set <id> <path> <value>")
            .into());
    };
    let edited = in_editor(session, &before.title, text)?;
    let unchanged = edited == text.as_bytes();
    let request = DocTextRequest { at: before.heads.clone(), text_b64: Bytes(edited) };
    let answer =
        session.client()?.post::<DocEditDocument>(&routes::doc(&before.id, "text"), &request).await?;
    session.show(&answer, |answer| {
        if unchanged {
            return Shown { text: "nothing was changed\n".to_owned(), ids: answer.after.clone() };
        }
        let merged =
            if answer.before == before.heads { "" } else { "; edits by others meanwhile were merged" };
        let text = format!(
            "saved: +{} -{} lines{merged}\nheads {} -> {}   {}\n",
            answer.lines_added,
            answer.lines_removed,
            short(&answer.before),
            short(&answer.after),
            if answer.peers == 0 {
                "nobody else is here".to_owned()
            } else {
                format!("sent to {}", answer.peers)
            }
        );
        Shown { text, ids: answer.after.clone() }
    })
}

/// Heads as people tell them apart.
fn short(heads: &[String]) -> String {
    let short: Vec<&str> = heads.iter().filter_map(|head| head.get(..4)).collect();
    if short.is_empty() { "nothing".to_owned() } else { format!("{}..", short.join("..,")) }
}

/// Lets $VISUAL or $EDITOR change a text, in a directory that only this user sees.
fn in_editor(session: &Session, title: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let editor = std::env::var("VISUAL").or_else(|_unset| std::env::var("EDITOR"));
    let editor = editor.ok().filter(|editor| !editor.trim().is_empty()).unwrap_or_else(|| "vi".to_owned());
    let dir = tempfile::Builder::new().prefix("wattle-").tempdir();
    let dir = dir.map_err(|error| {
        ErrorDocument::new(ErrorCode::Failed, format!("cannot make a directory: {error}"))
    })?;
    let name: String = title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).take(40).collect();
    let file = dir.path().join(if name.is_empty() { "document.md".to_owned() } else { format!("{name}.md") });
    std::fs::write(&file, text).map_err(|error| of_io("write", &file, &error))?;
    session.out.note(&format!("({editor}) save and leave it to bring your changes in"));
    // As git does: the variable is a command line, and the shell knows how to read one.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&file).status();
    let kept = |why: String| {
        ErrorDocument::new(ErrorCode::Failed, format!("the editor `{editor}` {why}; nothing was changed"))
            .detail("another", "EDITOR=nano wattle doc edit <id>")
    };
    let status = status.map_err(|error| kept(format!("did not start: {error}")))?;
    if !status.success() {
        return Err(kept(format!("ended with {status}")).into());
    }
    Ok(std::fs::read(&file).map_err(|error| of_io("read", &file, &error))?)
}

async fn set(session: &Session, args: &Set) -> Result<(), Failure> {
    let request = DocFieldRequest { path: args.path.clone(), value: wattle_pad::value_of(&args.value) };
    let answer =
        session.client()?.post::<DocEditDocument>(&routes::doc(&args.doc, "fields"), &request).await?;
    session.show(&answer, |answer| Shown {
        text: format!("saved: heads {} -> {}\n", short(&answer.before), short(&answer.after)),
        ids: answer.after.clone(),
    })
}

async fn share(session: &Session, args: &Share) -> Result<(), Failure> {
    let role = if args.ro { DocRole::Reader } else { DocRole::Writer };
    let request = DocShareRequest { role, expires_ms: Some(as_ms(args.expires.0)), uses: args.uses };
    let answer =
        session.client()?.post::<DocTicketDocument>(&routes::doc(&args.doc, "tickets"), &request).await?;
    for warning in &answer.document.warnings {
        session.out.warn(&tame(warning));
    }
    session.show(&answer, |answer| {
        let uses = how_often(args.uses);
        let mut text = format!(
            "Ticket for {} as a {} ({}, {uses}):\n  {}   ({} chars)\nWhoever has it is let in: send it over a safe channel.\nThey type:   wattle doc join {}\n",
            if answer.title.is_empty() { tame(&answer.id) } else { format!("\"{}\"", tame(&answer.title)) },
            answer.role.word(),
            long(args.expires.0),
            answer.ticket,
            answer.ticket.len(),
            answer.ticket,
        );
        if args.qr {
            text.push_str(&super::qr::render(&answer.ticket.to_uppercase()));
        }
        Shown { text, ids: vec![answer.ticket.clone()] }
    })
}

async fn join(session: &Session, args: &Join) -> Result<(), Failure> {
    let ticket = if args.ticket == "-" {
        String::from_utf8_lossy(&session.stdin().await?).trim().to_owned()
    } else {
        args.ticket.clone()
    };
    let by_id = ticket.parse::<wattle_types::DocId>().is_ok();
    let request = DocJoinRequest { ticket, timeout_ms: session.timeout_ms() };
    let answer = session.client()?.post::<DocDocument>(routes::DOCS_JOIN, &request).await?;
    session.show(&answer, |answer| {
        let doc = &answer.doc;
        let called = if doc.title.is_empty() { tame(&doc.id) } else { format!("\"{}\"", tame(&doc.title)) };
        let role = doc.role.map_or("member", DocRole::word);
        let joined = if by_id { "here already:" } else { "joined" };
        let text = format!(
            "{joined} {called} as a {role}: {}, {} members\n  id         {}\n  read it    {} doc show {}\n",
            bytes(doc.bytes),
            doc.members,
            tame(&doc.id),
            session.program(),
            tame(&doc.id),
        );
        Shown { text, ids: vec![doc.id.clone()] }
    })
}

async fn members(session: &Session, args: &Members) -> Result<(), Failure> {
    let answer = session.client()?.get::<DocMembersDocument>(&routes::doc(&args.doc, "members")).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&["member", "role", ""]);
        for member in &answer.members {
            let here = if member.me {
                "this node"
            } else if member.here {
                "here"
            } else {
                ""
            };
            table.row([who(&member.id, &member.name), member.role.word().to_owned(), here.to_owned()]);
        }
        let ids = answer.members.iter().map(|member| member.id.to_string()).collect();
        Shown { text: table.render(), ids }
    })
}

async fn remove(session: &Session, args: &Remove) -> Result<(), Failure> {
    let request = DocRemoveRequest { peer: args.peer.clone() };
    let answer =
        session.client()?.post::<DocDoneDocument>(&routes::doc(&args.doc, "remove"), &request).await?;
    session.show(&answer, |answer| Shown {
        text: "removed: what they wrote until now stays, what they write from now on is refused\n  what they read before, they keep\n".to_owned(),
        ids: vec![answer.id.clone()],
    })
}

async fn rm(session: &Session, args: &Rm) -> Result<(), Failure> {
    let answer = session
        .client()?
        .post::<DocDoneDocument>(&routes::doc(&args.doc, "forget"), &serde_json::json!({}))
        .await?;
    session.show(&answer, |answer| Shown {
        text: "forgotten here; other members keep theirs\n".to_owned(),
        ids: vec![answer.id.clone()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_removed_is_not_told_to_wait() {
        assert_eq!(standing(None, 0), "not let in yet");
        assert_eq!(standing(None, 2), "no member any more");
        assert_eq!(standing(Some(DocRole::Reader), 2), DocRole::Reader.word());
    }
}
