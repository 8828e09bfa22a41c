//! Topics: publish, subscribe, ask and answer.

use std::io::BufRead as _;
use std::path::PathBuf;

use base64::Engine as _;
use clap::{Args, Subcommand};
use hyper::Method;
use tokio::sync::mpsc;

use super::client::{Answer, Client, cut_off, read_line};
use super::errors::{Failure, advise, of_io};
use super::output::Meaning;
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, tame, tame_text};
use super::values::{Span, clock, short};
use crate::api::documents::{
    Bytes, ErrorDocument, PublishDocument, PublishRequest, TopicLine, TopicMessageLine, TopicQuestionRequest,
    TopicReplyDocument, TopicsDocument,
};
use crate::exit::ErrorCode;

/// Publish and subscribe
#[derive(Args)]
pub(super) struct Topic {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    Pub(Pub),
    Sub(Sub),
    List(List),
    Request(Request),
    Reply(Reply),
}

/// Publish messages
#[derive(Args)]
struct Pub {
    /// Words joined by dots: sensors.kitchen
    topic: String,
    /// The message; `-` (or nothing) reads stdin, one message a line
    #[arg(allow_hyphen_values = true)]
    message: Option<String>,
    /// Messages on stdin end with a zero byte instead of a line end
    #[arg(short = '0', long)]
    null: bool,
    /// Publish it N times
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Wait D between messages
    #[arg(short, long, value_name = "D")]
    interval: Option<Span>,
    /// Publish a file as one message
    #[arg(short, long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
}

/// Print messages as they arrive
#[derive(Args)]
struct Sub {
    /// Topics; `*` stands for one word, a last `>` for the rest (quote them)
    #[arg(required = true)]
    topic: Vec<String>,
    /// Stop after N messages; then --timeout applies
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Payloads only, each followed by a line end
    #[arg(long)]
    raw: bool,
}

/// List the topics this node follows or publishes to
#[derive(Args)]
struct List {
    /// Show the peers of each mesh
    #[arg(long)]
    mesh: bool,
}

/// Ask on a topic and print the first answer
#[derive(Args)]
struct Request {
    /// Where to ask
    topic: String,
    /// The question; `-` reads stdin
    #[arg(allow_hyphen_values = true)]
    message: String,
}

/// Answer requests on a topic with the output of a command
#[derive(Args)]
pub(super) struct Reply {
    /// Where to answer; wildcards allowed
    pub(super) topic: String,
    /// Run by `sh -c` for each request: the request is its stdin, its stdout the answer
    #[arg(long, value_name = "CMD")]
    pub(super) exec: String,
    /// Stop after N answers
    #[arg(short, long, value_name = "N")]
    pub(super) count: Option<u64>,
}

pub(super) async fn topic(session: &Session, args: Topic) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Pub(args) => publish(session, &args).await,
        TopicCommand::Sub(args) => subscribe(session, &args).await,
        TopicCommand::List(args) => list(session, &args).await,
        TopicCommand::Request(args) => request(session, &args).await,
        TopicCommand::Reply(args) => super::reply::reply(session, &args).await,
    }
}

/// Publishes one payload.
pub(super) async fn publish_one(
    client: &Client,
    topic: &str,
    payload: Vec<u8>,
) -> Result<Answer<PublishDocument>, Failure> {
    let request = PublishRequest { data_b64: Bytes(payload) };
    client.post(&routes::topic(topic, "messages"), &request).await
}

/// What became of the messages published so far.
#[derive(Default)]
struct Tally {
    sent: u64,
    unheard: u64,
}

async fn publish(session: &Session, args: &Pub) -> Result<(), Failure> {
    let client = session.client()?;
    let mut tally = Tally::default();
    if let Some(file) = &args.file {
        let payload = std::fs::read(file).map_err(|error| of_io("read", file, &error))?;
        repeat(session, &client, args, payload, &mut tally).await?;
    } else if let Some(message) = args.message.as_deref().filter(|message| *message != "-") {
        repeat(session, &client, args, message.as_bytes().to_vec(), &mut tally).await?;
    } else {
        publish_stdin(session, &client, args, &mut tally).await?;
    }
    if tally.unheard == 0 {
        return Ok(());
    }
    let which = if tally.unheard == tally.sent {
        "nobody".to_owned()
    } else {
        format!("nobody ({} of {})", tally.unheard, tally.sent)
    };
    session.out.warn(&format!(
        "{which} is subscribed to {}; peers and topics: wattle peers, wattle topic list",
        args.topic
    ));
    Err(ErrorCode::Partial.into())
}

async fn publish_stdin(
    session: &Session,
    client: &Client,
    args: &Pub,
    tally: &mut Tally,
) -> Result<(), Failure> {
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        session.out.note("one message a line; Ctrl-D ends it");
    }
    let end = if args.null { 0 } else { b'\n' };
    let mut messages = stdin_messages(end, AHEAD);
    while let Some(message) = messages.recv().await {
        let message = message
            .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot read stdin: {error}")))?;
        repeat(session, client, args, message, tally).await?;
    }
    Ok(())
}

/// Messages that are read ahead.
const AHEAD: usize = 16;

/// The messages on stdin, read by a thread of its own: a read cannot be cancelled, and Ctrl-C must not wait
/// for one. So many are read ahead, so that a fast pipe waits for the network.
pub(super) fn stdin_messages(end: u8, ahead: usize) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, messages) = mpsc::channel(ahead);
    std::thread::spawn(move || {
        for message in std::io::stdin().lock().split(end) {
            if sender.blocking_send(message).is_err() {
                return;
            }
        }
    });
    messages
}

async fn repeat(
    session: &Session,
    client: &Client,
    args: &Pub,
    payload: Vec<u8>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    for _ in 0..args.count {
        if let Some(pause) = args.interval.and_then(Span::some)
            && tally.sent > 0
        {
            tokio::time::sleep(pause).await;
        }
        let answer = publish_one(client, &args.topic, payload.clone()).await?;
        tally.sent += 1;
        let heard = answer.document.mesh_peers + answer.document.local;
        tally.unheard += u64::from(heard == 0);
        session.show(&answer, |answer| {
            let here = if answer.local > 0 { format!(", {} here", answer.local) } else { String::new() };
            let (bytes, peers) = (answer.bytes, answer.mesh_peers);
            let text = format!("published {bytes} B to {}, {peers} mesh peers{here}\n", tame(&answer.topic));
            Shown { text, ids: Vec::new() }
        })?;
    }
    Ok(())
}

async fn subscribe(session: &Session, args: &Sub) -> Result<(), Failure> {
    let mut lines =
        session.client()?.stream(Method::GET, &routes::messages(&args.topic), None::<&()>).await?;
    let mut got = 0;
    let work = async {
        while args.count.is_none_or(|count| got < count) {
            let Some(raw) = lines.next().await? else { return Err(cut_off()) };
            if session.out.json {
                session.out.raw(&raw)?;
            }
            match read_line::<TopicLine>(&raw)? {
                TopicLine::Subscribed { patterns, .. } => {
                    session.out.detail(&format!("following {}", patterns.join(", ")));
                }
                TopicLine::Message(message) => {
                    got += 1;
                    if !session.out.json {
                        print_message(session, args, &message)?;
                    }
                }
                TopicLine::Gap { lost, .. } => {
                    session.out.warn(&format!("{lost} messages were lost: this reader is too slow"));
                }
                TopicLine::Error { error, .. } => return Err(error.into()),
            }
        }
        Ok(())
    };
    let (Some(count), Some(limit)) = (args.count, session.timeout()) else { return work.await };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_elapsed) => {
            let message = format!("timed out after {} waiting for {count} messages", short(limit));
            let document = ErrorDocument::new(ErrorCode::Timeout, message)
                .detail("got", format!("{got} on {}", args.topic.join(", ")));
            Err(advise(document, "who is there", "wattle topic list --mesh", "").into())
        }
    }
}

fn print_message(session: &Session, args: &Sub, message: &TopicMessageLine) -> Result<(), Failure> {
    let payload = &message.data_b64.0;
    if args.raw {
        return session.out.bytes(&[payload, b"\n".as_slice()].concat());
    }
    let from = message.name.as_deref().map_or_else(|| format!("..{}", message.from.short()), tame);
    session.out.line(&format!(
        "{} {} {from} {} B  {}",
        session.out.paint(Meaning::Faint, &clock(message.ts)),
        session.out.paint(Meaning::Strong, &tame(&message.topic)),
        message.bytes,
        payload_text(payload)
    ))
}

/// A payload on one line of a terminal; what is no text is shown as base64.
pub(super) fn payload_text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => tame(text.strip_suffix('\n').unwrap_or(text)),
        Err(_not_text) => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(payload)),
    }
}

async fn list(session: &Session, args: &List) -> Result<(), Failure> {
    let answer = session.client()?.get::<TopicsDocument>(routes::TOPICS).await?;
    session.show(&answer, |answer| {
        let ids = answer.topics.iter().map(|topic| topic.root.clone()).collect();
        if answer.topics.is_empty() {
            let text = session.commands("no topics yet   (follow one: wattle topic sub dev)\n");
            return Shown { text, ids };
        }
        let mut table = Table::new(&["TOPIC", "FOLLOWED HERE", ">MESH", ">SUBSCRIBERS", ">IN", ">OUT"]);
        for topic in &answer.topics {
            let patterns: Vec<String> = topic.patterns.iter().map(|each| tame(&each.pattern)).collect();
            let patterns = if patterns.is_empty() { "not followed".to_owned() } else { patterns.join(", ") };
            table.row([
                tame(&topic.root),
                patterns,
                topic.mesh.len().to_string(),
                topic.subscribers.to_string(),
                topic.received.to_string(),
                topic.published.to_string(),
            ]);
        }
        let mut text = table.render();
        for topic in answer.topics.iter().filter(|topic| args.mesh && !topic.mesh.is_empty()) {
            let mesh: Vec<String> = topic.mesh.iter().map(|peer| format!("..{}", peer.short())).collect();
            text.push_str(&format!("mesh of {}: {}\n", tame(&topic.root), mesh.join(", ")));
        }
        Shown { text, ids }
    })
}

async fn request(session: &Session, args: &Request) -> Result<(), Failure> {
    let payload = if args.message == "-" { session.stdin().await? } else { args.message.as_bytes().to_vec() };
    let question = TopicQuestionRequest { data_b64: Bytes(payload), timeout_ms: session.timeout_ms() };
    let path = routes::topic(&args.topic, "request");
    let answer = session.client()?.post::<TopicReplyDocument>(&path, &question).await?;
    if session.out.json {
        return session.out.raw(&answer.raw);
    }
    let (reply, from) = (&answer.document, who(&answer.document.from, &answer.document.name));
    if session.out.terminal {
        session.out.line(&tame_text(String::from_utf8_lossy(&reply.data_b64.0).trim_end_matches('\n')))?;
    } else {
        session.out.bytes(&reply.data_b64.0)?;
    }
    session.out.note(&format!("{} B from {from} in {} ms", reply.bytes, reply.took_ms));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_on_one_line() {
        assert_eq!(payload_text(b"{\"t\":21.5}\n"), "{\"t\":21.5}");
        assert_eq!(payload_text(&[0xff, 0]), "base64:/wA=");
        assert_eq!(payload_text(b"a\nb"), "a\u{fffd}b");
    }
}
