//! Routes about shared documents.

use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use wattle_docs::{DocError, DocStatus, Event, Refusal, Role};
use wattle_pad::{Answer as Told, Ask, Hash};
use wattle_types::{DocAccess, DocId, NodeId, Ticket, TicketDocument, UnixTime};

use super::super::documents::{
    Doc, DocContentDocument, DocContentSchema, DocDocument, DocDoneDocument, DocDoneSchema, DocEditDocument,
    DocEditSchema, DocFieldRequest, DocJoinRequest, DocMember, DocMembersDocument, DocMembersSchema,
    DocNewRequest, DocPeer, DocRemoveRequest, DocRole, DocSchema, DocShareRequest, DocTextRequest,
    DocTicketDocument, DocTicketSchema, DocsDocument, DocsSchema, ErrorDocument,
};
use super::super::extract::{Json, Parameters, Part, timeout};
use super::super::failure::ApiFailure;
use super::super::names::{read_ticket, resolve_peer};
use super::pad::{ask, failure, texts, unexpected, unknown};
use super::peers::ticket_endpoints;
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::{Node, count};

type Result<T> = std::result::Result<T, ApiFailure>;

/// How long a ticket to a document lets in, when nothing is said.
const TICKET_LIVES: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a document may take to arrive, when nothing is said.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// Longest reference to a document that anybody types.
const REFERENCE_BYTES_MAX: usize = 512;

const fn role_word(role: Role) -> DocRole {
    match role {
        Role::Reader => DocRole::Reader,
        Role::Writer => DocRole::Writer,
        Role::Admin => DocRole::Admin,
    }
}

const fn role_of(word: DocRole) -> Role {
    match word {
        DocRole::Reader => Role::Reader,
        DocRole::Writer => Role::Writer,
        DocRole::Admin => Role::Admin,
    }
}

fn doc(node: &Node, status: &DocStatus) -> Doc {
    Doc {
        id: status.doc.to_string(),
        title: status.label.title.clone(),
        bytes: status.bytes,
        heads: texts(&status.heads),
        role: status.role.map(role_word),
        members: count(status.members),
        since: timestamp(status.since),
        peers: (status.peers.iter())
            .map(|peer| DocPeer {
                id: peer.peer,
                name: node.names.of(peer.peer),
                in_sync: peer.in_sync,
                heads_missing: count(peer.heads_unknown),
            })
            .collect(),
    }
}

/// Which document somebody means: an id, or a title that only one has.
pub(super) async fn resolve(node: &Node, text: &str) -> Result<DocStatus> {
    let text = text.trim();
    if text.len() > REFERENCE_BYTES_MAX {
        return Err(ApiFailure::usage("that is too long for the id or the title of a document"));
    }
    let known = async |id| node.documents.status(id).await.ok_or_else(|| unknown(node, id));
    if let Ok(id) = text.parse::<DocId>() {
        return known(id).await;
    }
    let mut named = node.documents.called(text);
    match (named.pop(), named.len()) {
        (Some(found), 0) => known(found).await,
        (Some(_), more) => Err(ApiFailure::usage(format!("{} documents are called `{text}`", more + 1))
            .hint("wattle doc list")
            .detail("say which", "by its id, `automerge:...`")),
        (None, _) => {
            Err(ApiFailure::new(ErrorCode::NotFound, format!("no document here is called `{text}`"))
                .hint("wattle doc list"))
        }
    }
}

/// Make a document; it is on disk when this answers.
#[utoipa::path(post, path = "/docs", tag = "docs", request_body = DocNewRequest,
    responses((status = 200, body = DocDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Json(request): Json<DocNewRequest>,
) -> Result<Answer<DocDocument>> {
    let text = request.text_b64.map(|bytes| bytes.0).unwrap_or_default();
    made(&node, Ask::New { title: request.title, text }).await
}

/// Lets pad make a document.
pub(super) async fn made(node: &Node, question: Ask) -> Result<Answer<DocDocument>> {
    match ask(node, question).await? {
        Told::Made { doc } => answer(node, doc).await,
        _ => Err(unexpected()),
    }
}

pub(super) async fn answer(node: &Node, id: DocId) -> Result<Answer<DocDocument>> {
    Ok(Answer(DocDocument { schema: DocSchema::V1, doc: doc_of(node, id).await? }))
}

/// The documents here.
#[utoipa::path(get, path = "/docs", tag = "docs",
    responses((status = 200, body = DocsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Answer<DocsDocument>> {
    let docs = node.documents.list().await.iter().map(|status| doc(&node, status)).collect();
    Ok(Answer(DocsDocument { schema: DocsSchema::V1, docs }))
}

/// One document at a glance.
#[utoipa::path(get, path = "/docs/{doc}", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn one(State(node): State<Arc<Node>>, Part(which): Part) -> Result<Answer<DocDocument>> {
    let status = resolve(&node, &which).await?;
    Ok(Answer(DocDocument { schema: DocSchema::V1, doc: doc(&node, &status) }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentQuery {
    /// A path such as `a.b[3].c`.
    path: Option<String>,
    /// A version: changes in hexadecimal, or beginnings of them, separated by commas.
    at: Option<String>,
}

fn heads_of<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Option<Vec<Hash>>> {
    let heads = texts.map(str::trim).filter(|text| !text.is_empty());
    let heads: Vec<Hash> = heads
        .map(|text| {
            let hash = text.parse().map(|hash: ChangeHash| hash.0);
            hash.map_err(|_no_hash| ApiFailure::usage(format!("`{text}` is not a version of a document")))
        })
        .collect::<Result<_>>()?;
    Ok(Some(heads).filter(|heads| !heads.is_empty()))
}

/// What is in a document, now or at a version.
#[utoipa::path(get, path = "/docs/{doc}/content", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title"), ContentQuery),
    responses((status = 200, body = DocContentDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn content(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Parameters(query): Parameters<ContentQuery>,
) -> Result<Answer<DocContentDocument>> {
    let status = resolve(&node, &which).await?;
    let at = query.at.unwrap_or_default();
    match ask(&node, Ask::Content { doc: status.doc, at, path: query.path }).await? {
        Told::Content { title, heads, text, json } => Ok(Answer(DocContentDocument {
            schema: DocContentSchema::V1,
            id: status.doc.to_string(),
            title,
            heads: texts(&heads),
            text,
            value: serde_json::from_str(&json).map_err(|_not_json| unexpected())?,
        })),
        _ => Err(unexpected()),
    }
}

/// Bring an edited text in: only what differs from the version that was edited is changed.
#[utoipa::path(post, path = "/docs/{doc}/text", tag = "docs", request_body = DocTextRequest,
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocEditDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn text(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<DocTextRequest>,
) -> Result<Answer<DocEditDocument>> {
    let status = resolve(&node, &which).await?;
    let at = heads_of(request.at.iter().map(String::as_str))?;
    let question = Ask::Write { doc: status.doc, at, text: request.text_b64.0 };
    edited(&status, ask(&node, question).await?)
}

/// A change that pad made.
fn edited(status: &DocStatus, told: Told) -> Result<Answer<DocEditDocument>> {
    let Told::Written { before, after, change, lines_added, lines_removed } = told else {
        return Err(unexpected());
    };
    Ok(Answer(DocEditDocument {
        schema: DocEditSchema::V1,
        id: status.doc.to_string(),
        before: texts(&before),
        after: texts(&after),
        change: change.map(|change| ChangeHash(change).to_string()),
        lines_added: count(lines_added),
        lines_removed: count(lines_removed),
        peers: count(status.peers.len()),
    }))
}

/// Change one field.
#[utoipa::path(post, path = "/docs/{doc}/fields", tag = "docs", request_body = DocFieldRequest,
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocEditDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn field(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<DocFieldRequest>,
) -> Result<Answer<DocEditDocument>> {
    let status = resolve(&node, &which).await?;
    let question = Ask::Set { doc: status.doc, path: request.path, json: request.value.to_string() };
    edited(&status, ask(&node, question).await?)
}

/// Make a ticket that leads to a document.
#[utoipa::path(post, path = "/docs/{doc}/tickets", tag = "docs", request_body = DocShareRequest,
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocTicketDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn share(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<DocShareRequest>,
) -> Result<Answer<DocTicketDocument>> {
    let status = resolve(&node, &which).await?;
    let lives = request.expires_ms.map_or(TICKET_LIVES, Duration::from_millis);
    if lives < Duration::from_secs(1) {
        return Err(ApiFailure::usage("a ticket works for at least a second"));
    }
    let (endpoints, warnings) = ticket_endpoints(&node).await?;
    let expires = unix_now().after(lives);
    let (access, bearer) = grant_ticket(&node, status.doc, request.role, expires, request.uses).await?;
    let ticket = Ticket {
        network: node.overlay.network().clone(),
        network_key: node.network_key.clone(),
        document: Some(TicketDocument { access, bearer }),
        inviter: node.overlay.id(),
        endpoints,
        expires,
    };
    Ok(Answer(DocTicketDocument {
        schema: DocTicketSchema::V1,
        id: status.doc.to_string(),
        title: status.label.title,
        ticket: ticket.to_text(&node.key),
        role: request.role,
        expires: timestamp(expires),
        warnings,
    }))
}

/// Grants whoever will hold a ticket its role.
pub(super) async fn grant_ticket(
    node: &Node,
    doc: DocId,
    role: DocRole,
    expires: UnixTime,
    uses: Option<u32>,
) -> Result<(DocAccess, [u8; 16])> {
    if role == DocRole::Admin {
        return Err(ApiFailure::usage("a ticket makes readers and writers, no admins"));
    }
    if uses == Some(0) {
        return Err(ApiFailure::usage("a ticket lets in somebody at least once"));
    }
    node.documents.invite(doc, role_of(role), Some(expires), uses).await.map_err(failure)
}

/// Takes up the document that a ticket leads to; answers when it is here.
pub(super) async fn open_ticket(
    node: &Node,
    document: TicketDocument,
    inviter: NodeId,
    timeout_ms: Option<u64>,
) -> Result<DocId> {
    let mut events = node.documents.events();
    let TicketDocument { access, bearer } = document;
    let id = node.documents.join(access, Some(bearer), Some(inviter)).await.map_err(failure)?;
    let within = timeout(timeout_ms, ARRIVES_WITHIN);
    let mut unknown = false;
    match tokio::time::timeout(within, arrival(node, id, inviter, &mut events, &mut unknown)).await {
        Ok(Ok(())) => Ok(id),
        Ok(Err(refused)) => {
            leave_nothing(node, id).await;
            Err(refused)
        }
        Err(_elapsed) => {
            let why = if unknown {
                "whoever made the ticket was not reached, and other members have not heard of it"
            } else {
                "nobody who holds the document was reached"
            };
            Err(ApiFailure::new(ErrorCode::Timeout, why)
                .detail("it is kept", "and arrives when a member is reachable: wattle doc list"))
        }
    }
}

/// A document that is here, as answers show it.
pub(super) async fn doc_of(node: &Node, id: DocId) -> Result<Doc> {
    let status = node.documents.status(id).await.ok_or_else(|| failure(DocError::Unknown(id)))?;
    Ok(doc(node, &status))
}

/// Use a ticket to a document; answers when the document is here.
#[utoipa::path(post, path = "/docs/join", tag = "docs", request_body = DocJoinRequest,
    responses((status = 200, body = DocDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn join(
    State(node): State<Arc<Node>>,
    Json(request): Json<DocJoinRequest>,
) -> Result<Answer<DocDocument>> {
    if let Ok(id) = request.ticket.trim().parse::<DocId>() {
        let status = node.documents.status(id).await.ok_or_else(|| an_id_alone(id))?;
        return Ok(Answer(DocDocument { schema: DocSchema::V1, doc: doc(&node, &status) }));
    }
    if request.ticket.trim().starts_with("automerge:") {
        let message = "that is no id of a document: a letter is missing or wrong";
        return Err(ApiFailure::new(ErrorCode::Invalid, message).hint("copy the whole id once more"));
    }
    let ticket = read_ticket(&node, &request.ticket)?;
    let Some(document) = ticket.document else {
        return Err(ApiFailure::usage("this ticket leads into a network, not to a document")
            .hint("wattle join <ticket>"));
    };
    if ticket.inviter == node.overlay.id() {
        return Err(ApiFailure::new(ErrorCode::Conflict, "this node made the ticket itself")
            .hint("give it to somebody else"));
    }
    let addresses = ticket.endpoints.iter().flat_map(wattle_net::Address::of_endpoint).collect();
    node.overlay.candidate(ticket.inviter, addresses, wattle_net::Source::Asked).await?;
    let id = open_ticket(&node, document, ticket.inviter, request.timeout_ms).await?;
    answer(&node, id).await
}

/// Who has a document's id has no right to it, and nobody to ask.
fn an_id_alone(id: DocId) -> ApiFailure {
    ApiFailure::new(ErrorCode::NotFound, format!("no document {id} here, and an id alone opens nothing"))
        .detail("why", "a document is private: who is let in, and where it is, stands in a ticket")
        .detail("ask for", "a ticket: who has the document types `wattle doc share <id>`")
}

/// After a refusal: a document of which nothing ever arrived is not kept.
async fn leave_nothing(node: &Node, id: DocId) {
    let empty = |status: DocStatus| status.heads.is_empty() && status.members == 0;
    if node.documents.status(id).await.is_some_and(empty)
        && let Err(error) = node.documents.forget(id).await
    {
        tracing::warn!(%error, "a document that this node was not let into is still listed");
    }
}

/// Waits until a document has content, or a member says no. Another member than the inviter may not have heard of
/// the ticket yet: that it knows nobody of this name is no answer, and only taken note of.
async fn arrival(
    node: &Node,
    id: DocId,
    inviter: NodeId,
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    unknown: &mut bool,
) -> Result<()> {
    loop {
        if node
            .documents
            .status(id)
            .await
            .is_some_and(|status| !status.heads.is_empty() && status.role.is_some())
        {
            return Ok(());
        }
        match events.recv().await {
            Ok(Event::Refused { doc, peer, why: Refusal::NotAMember }) if doc == id && peer != inviter => {
                *unknown = true;
            }
            Ok(Event::Refused { doc, why, .. }) if doc == id => {
                return Err(ApiFailure::new(ErrorCode::Denied, format!("not let in: {why}"))
                    .detail("ask for", "a new ticket: wattle doc share <id>"));
            }
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                return Err(ApiFailure::new(ErrorCode::NoNode, "the node is stopping").hint("wattle run"));
            }
        }
    }
}

/// Who may do what with a document.
#[utoipa::path(get, path = "/docs/{doc}/members", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocMembersDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn members(
    State(node): State<Arc<Node>>,
    Part(which): Part,
) -> Result<Answer<DocMembersDocument>> {
    let status = resolve(&node, &which).await?;
    let members = node.documents.members(status.doc).await.unwrap_or_default();
    let member = |(id, role)| DocMember {
        id,
        name: node.names.of(id),
        role: role_word(role),
        me: id == node.overlay.id(),
        here: id == node.overlay.id() || status.peers.iter().any(|peer| peer.peer == id),
    };
    Ok(Answer(DocMembersDocument {
        schema: DocMembersSchema::V1,
        id: status.doc.to_string(),
        members: members.into_iter().map(member).collect(),
    }))
}

/// Remove somebody from a document.
#[utoipa::path(post, path = "/docs/{doc}/remove", tag = "docs", request_body = DocRemoveRequest,
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Part(which): Part,
    Json(request): Json<DocRemoveRequest>,
) -> Result<Answer<DocDoneDocument>> {
    let status = resolve(&node, &which).await?;
    let who = resolve_peer(&node, &request.peer).await?;
    node.documents.remove(status.doc, who).await.map_err(failure)?;
    Ok(done(status))
}

/// Forget a document here; others keep theirs.
#[utoipa::path(post, path = "/docs/{doc}/forget", tag = "docs",
    params(("doc" = String, Path, description = "An id or a title")),
    responses((status = 200, body = DocDoneDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn forget(
    State(node): State<Arc<Node>>,
    Part(which): Part,
) -> Result<Answer<DocDoneDocument>> {
    let status = resolve(&node, &which).await?;
    node.documents.forget(status.doc).await.map_err(failure)?;
    Ok(done(status))
}

fn done(status: DocStatus) -> Answer<DocDoneDocument> {
    let (id, title) = (status.doc.to_string(), status.label.title);
    Answer(DocDoneDocument { schema: DocDoneSchema::V1, id, title })
}
