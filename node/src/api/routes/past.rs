//! Routes about the past of shared documents, and about documents as files.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use utoipa::IntoParams;
use wattle_docs::Event;
use wattle_pad::{Answer as Told, Ask, FileFormat, Hash, HistoryStep, PatchLine};
use wattle_types::{DocId, NodeId};

use super::super::documents::{
    Bytes, DocAuthor, DocDiffDocument, DocDiffLine, DocDiffSchema, DocDocument, DocExportDocument,
    DocExportSchema, DocFormat, DocHistoryDocument, DocHistorySchema, DocImportRequest, DocLine, DocStep,
    ErrorDocument,
};
use super::super::extract::{Json, Parameters, Part, STREAM_LINES_MAX, json_lines};
use super::super::failure::ApiFailure;
use super::docs::{made, resolve};
use super::pad::{ask, stopping, texts, unexpected, unknown};
use crate::clock::timestamp;
use crate::node::{Node, count};

type Result<T> = std::result::Result<T, ApiFailure>;

/// Steps of a history, when nothing is said.
const STEPS: usize = 20;
/// Steps in one answer, and those that a watcher is told at once.
const STEPS_MAX: usize = 1000;
/// How often a watcher looks whether the document is still here: its end is no event.
const LOOK_EVERY: Duration = Duration::from_secs(5);

fn author(node: &Node, id: NodeId) -> DocAuthor {
    DocAuthor { id, name: node.names.of(id), me: id == node.overlay.id() }
}

fn step(node: &Node, step: HistoryStep) -> DocStep {
    let touched = step.touched;
    DocStep {
        version: step.version.to_string(),
        before: step.before.iter().map(ToString::to_string).collect(),
        author: step.author.map(|id| author(node, id)),
        brought_by: step.brought_by.map(|id| author(node, id)),
        began: step.began.map(timestamp),
        ended: step.ended.map(timestamp),
        changes: count(step.changes),
        message: step.message,
        lines_added: touched.as_ref().map(|touched| count(touched.lines_added)),
        lines_removed: touched.as_ref().map(|touched| count(touched.lines_removed)),
        fields: touched.map(|touched| touched.fields).unwrap_or_default(),
    }
}

fn steps_of(node: &Node, steps: Vec<HistoryStep>) -> Vec<DocStep> {
    steps.into_iter().map(|one| step(node, one)).collect()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// The newest so many steps; 20 without.
    limit: Option<u64>,
    /// Every change by itself.
    #[serde(default)]
    each: bool,
    /// Only what came after this version: changes in hexadecimal, separated by commas.
    since: Option<String>,
}

/// Who changed a document, when, and what; the newest first. What somebody did in one go is one step.
#[utoipa::path(get, path = "/docs/{doc}/history", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title"), HistoryQuery),
    responses((status = 200, body = DocHistoryDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn history(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Parameters(query): Parameters<HistoryQuery>,
) -> Result<Answer<DocHistoryDocument>> {
    let status = resolve(&node, &which).await?;
    let limit = query.limit.map_or(STEPS, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if !(1..=STEPS_MAX).contains(&limit) {
        return Err(ApiFailure::usage(format!("a history has 1 to {STEPS_MAX} steps")));
    }
    let (each, since) = (query.each, query.since.unwrap_or_default());
    // One more, to know whether there are older ones.
    let question = Ask::History { doc: status.doc, since, limit: limit + 1, each };
    let Told::History { title, heads, mut steps } = ask(&node, question).await? else {
        return Err(unexpected());
    };
    let more = steps.len() > limit;
    steps.truncate(limit);
    Ok(Answer(DocHistoryDocument {
        schema: DocHistorySchema::V1,
        id: status.doc.to_string(),
        title,
        heads: texts(&heads),
        steps: steps_of(&node, steps),
        more,
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// The old version: changes in hexadecimal, or beginnings of them, separated by commas.
    before: String,
    /// The new version; the current one without.
    after: Option<String>,
}

/// What differs between two versions of a document, and who made it so.
#[utoipa::path(get, path = "/docs/{doc}/diff", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title"), DiffQuery),
    responses((status = 200, body = DocDiffDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn diff(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Parameters(query): Parameters<DiffQuery>,
) -> Result<Answer<DocDiffDocument>> {
    let status = resolve(&node, &which).await?;
    let (before, after) = (query.before, query.after.unwrap_or_default());
    let question = Ask::Difference { doc: status.doc, before, after, limit: STEPS_MAX };
    let Told::Difference { title, before, after, lines, steps, without } = ask(&node, question).await? else {
        return Err(unexpected());
    };
    Ok(Answer(DocDiffDocument {
        schema: DocDiffSchema::V1,
        id: status.doc.to_string(),
        title,
        before: texts(&before),
        after: texts(&after),
        steps: steps_of(&node, steps),
        without: steps_of(&node, without),
        lines: lines.into_iter().map(diff_line).collect(),
    }))
}

fn diff_line(line: PatchLine) -> DocDiffLine {
    match line {
        PatchLine::Text { path, old_line, new_line } => DocDiffLine::Text {
            path: Some(path).filter(|path| !path.is_empty()),
            old_line: count(old_line),
            new_line: count(new_line),
        },
        PatchLine::Kept(text) => DocDiffLine::Kept { text },
        PatchLine::Removed(text) => DocDiffLine::Removed { text },
        PatchLine::Added(text) => DocDiffLine::Added { text },
        PatchLine::Field { path, old, new } => DocDiffLine::Field { path, old, new },
        PatchLine::Cut => DocDiffLine::Cut,
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Begin after this version, as a line said it; with what comes from now on when absent.
    since: Option<String>,
}

/// Changes of a document as they arrive, as JSON Lines: who and what. A reader that was away goes on with
/// `since`, and misses nothing.
#[utoipa::path(get, path = "/docs/{doc}/changes", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title"), ChangesQuery),
    responses((status = 200, body = DocLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn changes(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Parameters(query): Parameters<ChangesQuery>,
) -> Result<Response> {
    let status = resolve(&node, &which).await?;
    // Before the first look, so that nothing falls between.
    let events = node.documents.events();
    let doc = status.doc;
    let at = query.since.unwrap_or_default();
    let Told::Version { title, heads: seen } = ask(&node, Ask::Version { doc, at }).await? else {
        return Err(unexpected());
    };
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    let first = DocLine::Watching { ts: Timestamp::now(), id: doc.to_string(), title, heads: texts(&seen) };
    tokio::spawn(async move {
        if sender.send(first).await.is_ok() {
            let error = watch(&node, doc, seen, events, &sender).await.into_document();
            // Ignored because this is the last line, read or not.
            drop(sender.send(DocLine::Error { ts: Timestamp::now(), error }).await);
        }
    });
    Ok(json_lines(lines))
}

/// Tells what is new against the last version that was told, whatever events were missed, until the reader goes
/// or the document does. Gives why it ended.
async fn watch(
    node: &Node,
    doc: DocId,
    mut seen: Vec<Hash>,
    mut events: Receiver<Event>,
    sender: &mpsc::Sender<DocLine>,
) -> ApiFailure {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        match news(node, doc, &mut seen).await {
            Ok(lines) => {
                for line in lines {
                    if sender.send(line).await.is_err() {
                        return stopping();
                    }
                }
            }
            Err(error) => return error,
        }
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Changed { doc: changed, .. }) if changed == doc => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return stopping(),
                },
                _ = look.tick() => {
                    if node.documents.status(doc).await.is_none() {
                        return unknown(node, doc);
                    }
                }
                () = sender.closed() => return stopping(),
                () = node.stop.cancelled() => return stopping(),
            }
        }
    }
}

/// What came since `seen`, the oldest first; `seen` is the current version then.
async fn news(node: &Node, doc: DocId, seen: &mut Vec<Hash>) -> Result<Vec<DocLine>> {
    let question = Ask::News { doc, since: seen.clone(), limit: STEPS_MAX };
    let Told::News { heads, steps } = ask(node, question).await? else { return Err(unexpected()) };
    let (ts, id, heads_now) = (Timestamp::now(), doc.to_string(), texts(&heads));
    seen.clone_from(&heads);
    let Some(steps) = steps else { return Ok(vec![DocLine::TakenOut { ts, id, heads: heads_now }]) };
    let lines = steps.into_iter().rev().map(|one| DocLine::Changed {
        ts,
        id: id.clone(),
        heads: heads_now.clone(),
        step: Box::new(step(node, one)),
    });
    Ok(lines.collect())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// What the bytes shall be.
    format: DocFormat,
}

/// A document as the bytes of a file.
#[utoipa::path(get, path = "/docs/{doc}/export", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title"), ExportQuery),
    responses((status = 200, body = DocExportDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn export(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Parameters(query): Parameters<ExportQuery>,
) -> Result<Answer<DocExportDocument>> {
    let status = resolve(&node, &which).await?;
    let format = query.format;
    let question = Ask::Export {
        doc: status.doc,
        format: match format {
            DocFormat::Automerge => FileFormat::Automerge,
            DocFormat::Text => FileFormat::Text,
            DocFormat::Json => FileFormat::Json,
        },
    };
    let Told::Exported { title, heads, bytes } = ask(&node, question).await? else {
        return Err(unexpected());
    };
    Ok(Answer(DocExportDocument {
        schema: DocExportSchema::V1,
        id: status.doc.to_string(),
        title,
        heads: texts(&heads),
        format,
        bytes: count(bytes.len()),
        data_b64: Some(Bytes(bytes)),
        file: None,
    }))
}

/// Make a document of a file: Automerge with its history, JSON, or text.
#[utoipa::path(post, path = "/docs/import", tag = "docs", request_body = DocImportRequest,
    responses((status = 200, body = DocDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn import(
    State(node): State<Arc<Node>>,
    Json(request): Json<DocImportRequest>,
) -> Result<Answer<DocDocument>> {
    let DocImportRequest { name, title, data_b64: Bytes(bytes) } = request;
    made(&node, Ask::Import { name, title, bytes }).await
}
