//! `topic reply`: a command as a service on a topic.

use std::process::Stdio;

use hyper::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::client::{cut_off, read_line};
use super::errors::Failure;
use super::routes;
use super::session::{Session, who};
use super::table::tame;
use super::topic::{Reply, publish_one};
use super::values::clock;
use crate::api::documents::{TopicLine, TopicMessageLine};

/// The largest answer taken from a command: what a message may have (128 KiB).
const ANSWER_BYTES_MAX: usize = wattle_types::limits::TOPIC_PAYLOAD_BYTES_MAX;

/// One line of `topic reply --json`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ReplyLine {
    /// A request was answered.
    Answered {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Where it was asked.
        topic: String,
        /// Who asked.
        #[schema(value_type = String)]
        from: NodeId,
        /// Bytes of the answer.
        bytes: u64,
    },
    /// The command failed, and nothing was answered.
    Failed {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Where it was asked.
        topic: String,
        /// Who asked.
        #[schema(value_type = String)]
        from: NodeId,
        /// What the command said.
        message: String,
    },
}

/// Answers requests one after the other, until Ctrl-C or `--count`.
pub(super) async fn reply(session: &Session, args: &Reply) -> Result<(), Failure> {
    let client = session.client()?;
    let path = routes::messages(std::slice::from_ref(&args.topic));
    let mut lines = client.stream(Method::GET, &path, None::<&()>).await?;
    session.out.note(&format!("answering requests on {}; Ctrl-C stops", args.topic));
    let mut answered = 0;
    while args.count.is_none_or(|count| answered < count) {
        let Some(raw) = lines.next().await? else { return Err(cut_off()) };
        let message = match read_line::<TopicLine>(&raw)? {
            TopicLine::Message(message) => message,
            TopicLine::Subscribed { .. } => continue,
            TopicLine::Gap { lost, .. } => {
                session.out.warn(&format!("{lost} requests were lost: the command is too slow"));
                continue;
            }
            TopicLine::Error { error, .. } => return Err(error.into()),
        };
        // What asks for no answer is an ordinary message on the topic.
        let Some(reply_to) = message.reply_to.clone() else { continue };
        let line = match run(session, &args.exec, &message).await {
            Ok(answer) => {
                let bytes = answer.len() as u64;
                publish_one(&client, &reply_to, answer).await?;
                answered += 1;
                ReplyLine::Answered { ts: Timestamp::now(), topic: message.topic, from: message.from, bytes }
            }
            Err(why) => ReplyLine::Failed {
                ts: Timestamp::now(),
                topic: message.topic,
                from: message.from,
                message: why,
            },
        };
        show(session, &line, &message.name)?;
    }
    Ok(())
}

fn show(session: &Session, line: &ReplyLine, name: &Option<String>) -> Result<(), Failure> {
    if session.out.json {
        return session.out.document(line);
    }
    match line {
        ReplyLine::Answered { ts, topic, from, bytes } => {
            let (at, topic) = (clock(*ts), tame(topic));
            session.out.line(&format!("{at} {topic} answered {} with {bytes} B", who(from, name)))
        }
        ReplyLine::Failed { from, message, .. } => {
            session.out.warn(&format!("no answer for {}: {}", who(from, name), tame(message)));
            Ok(())
        }
    }
}

/// Runs the command with the payload as its stdin; gives what it wrote. The payload is never part of the command line.
async fn run(session: &Session, command: &str, message: &TopicMessageLine) -> Result<Vec<u8>, String> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env("WATTLE_TOPIC", &message.topic)
        .env("WATTLE_FROM", message.from.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run sh: {error}"))?;
    let mut stdin = child.stdin.take();
    let payload = message.data_b64.0.clone();
    let feed = async {
        if let Some(stdin) = &mut stdin {
            // Ignored because a command need not read its stdin.
            drop(stdin.write_all(&payload).await);
        }
        drop(stdin);
    };
    let work = async { tokio::join!(feed, child.wait_with_output()).1 };
    let ended = match session.timeout() {
        Some(limit) => {
            tokio::time::timeout(limit, work).await.map_err(|_elapsed| "the command took too long")?
        }
        None => work.await,
    };
    let output = ended.map_err(|error| format!("the command broke: {error}"))?;
    if !output.status.success() {
        return Err(format!("the command ended with {}", output.status));
    }
    if output.stdout.len() > ANSWER_BYTES_MAX {
        return Err(format!(
            "its answer has {} bytes; a message has at most {ANSWER_BYTES_MAX}",
            output.stdout.len()
        ));
    }
    Ok(output.stdout)
}
