//! Routes about the members of the network.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use utoipa::IntoParams;
use wattle_swim::{Event, MemberView, Reach, Reason, RemoveError, Signed, State as Standing, View, Why};
use wattle_types::NodeId;

use super::super::documents::{
    ErrorDocument, Member, MemberChange, MemberLine, MemberReach, MemberReason, MemberState, MembersDocument,
    MembersLeaveDocument, MembersLeaveSchema, MembersRemoveDocument, MembersRemoveRequest,
    MembersRemoveSchema, MembersSchema, MembersStatus, NodeEvent,
};
use super::super::extract::{Json, Parameters, STREAM_LINES_MAX, json_lines};
use super::super::failure::ApiFailure;
use super::super::names::resolve_peer;
use crate::clock::timestamp;
use crate::exit::ErrorCode;
use crate::members::Told;
use crate::node::{Node, count, millis};

type Result<T> = std::result::Result<T, ApiFailure>;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersQuery {
    /// Only members that stand there.
    #[param(inline)]
    status: Option<MemberState>,
    /// Only members with this tag: `key=value`, or `key` for any value.
    tag: Option<String>,
}

/// Who is a member, and who is well.
#[utoipa::path(get, path = "/members", tag = "members", params(MembersQuery),
    responses((status = 200, body = MembersDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<MembersQuery>,
) -> Result<Answer<MembersDocument>> {
    let view = node.members.measured().await;
    let own = view.own.iter().map(|record| own_member(&node, record));
    let others = view.members.iter().map(|member| other_member(&node, member));
    let wanted = |member: &Member| {
        query.status.is_none_or(|state| member.state == state)
            && query.tag.as_deref().is_none_or(|tag| has_tag(member, tag))
    };
    let members = own.chain(others).filter(wanted).collect();
    let counts = counts(&node, &view).await;
    Ok(Answer(MembersDocument { schema: MembersSchema::V1, version: view.version, counts, members }))
}

fn has_tag(member: &Member, tag: &str) -> bool {
    match tag.split_once('=') {
        Some((key, value)) => member.tags.get(key).is_some_and(|has| has == value),
        None => member.tags.contains_key(tag),
    }
}

/// How many members stand where.
pub(super) async fn counts(node: &Node, view: &View) -> MembersStatus {
    let standing =
        |state: Standing| count(view.members.iter().filter(|member| member.state == state).count());
    let health = node.members.health().await.map(|health| health.status.health);
    MembersStatus {
        alive: standing(Standing::Alive).saturating_add(u64::from(view.own.is_some())),
        suspect: standing(Standing::Suspect),
        faulty: standing(Standing::Faulty),
        left: standing(Standing::Left),
        health: health.unwrap_or_default().into(),
        self_suspect: view.self_suspect,
    }
}

fn own_member(node: &Node, record: &Signed) -> Member {
    let since = timestamp(node.started_at);
    Member {
        incarnation: record.claim().incarnation().to_string(),
        since,
        myself: true,
        ..member(node, record)
    }
}

fn other_member(node: &Node, seen: &MemberView) -> Member {
    Member {
        state: state(seen.state),
        since: timestamp(seen.since),
        incarnation: seen.incarnation.to_string(),
        rtt_ms: seen.rtt.map(millis),
        estimate_ms: seen.estimate.map(millis),
        accusers: seen.accusers.clone(),
        ..member(node, &seen.record)
    }
}

/// What a record says of its author.
fn member(node: &Node, record: &Signed) -> Member {
    let id = record.author();
    let described = record.description();
    Member {
        id,
        name: node.names.of(id),
        label: described.map(|it| it.name.clone()).filter(|name| !name.is_empty()),
        state: MemberState::Alive,
        since: Timestamp::UNIX_EPOCH,
        incarnation: String::new(),
        rtt_ms: None,
        estimate_ms: None,
        addresses: described.map(|it| it.addresses.clone()).unwrap_or_default(),
        udp_port: described.map(|it| it.udp_port).unwrap_or_default(),
        reach: described.map_or(MemberReach::Public, |it| reach(it.reach)),
        anchors: described.map(|it| it.anchors.clone()).unwrap_or_default(),
        roles: described.map(|it| it.roles.iter().cloned().collect()).unwrap_or_default(),
        tags: described.map(|it| it.tags.clone()).unwrap_or_default(),
        accusers: Vec::new(),
        myself: false,
    }
}

const fn state(state: Standing) -> MemberState {
    match state {
        Standing::Alive => MemberState::Alive,
        Standing::Suspect => MemberState::Suspect,
        Standing::Faulty => MemberState::Faulty,
        Standing::Left => MemberState::Left,
        Standing::Removed => MemberState::Removed,
    }
}

const fn reach(reach: Reach) -> MemberReach {
    match reach {
        Reach::Public => MemberReach::Public,
        Reach::Punched => MemberReach::Punched,
        Reach::Anchored => MemberReach::Anchored,
    }
}

const fn reason(reason: Reason) -> MemberReason {
    match reason {
        Reason::Joined => MemberReason::Joined,
        Reason::Remembered => MemberReason::Remembered,
        Reason::NoAnswer => MemberReason::NoAck,
        Reason::Accused => MemberReason::Accused,
        Reason::RanOut => MemberReason::RanOut,
        Reason::Certified => MemberReason::Certified,
        Reason::Refuted => MemberReason::Refuted,
        Reason::Spoke => MemberReason::Spoke,
        Reason::Restarted => MemberReason::Restarted,
        Reason::Left => MemberReason::Left,
        Reason::Removed => MemberReason::Removed,
    }
}

/// What happens among the members from now on, as JSON Lines.
#[utoipa::path(get, path = "/members/follow", tag = "members",
    responses((status = 200, body = MemberLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn follow(State(node): State<Arc<Node>>) -> Response {
    let events = node.members.events();
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    tokio::spawn(async move { forward(&node, events, &sender).await });
    json_lines(lines)
}

async fn forward(node: &Node, mut events: broadcast::Receiver<Told>, sender: &mpsc::Sender<MemberLine>) {
    loop {
        let told = tokio::select! {
            told = events.recv() => told,
            () = sender.closed() => return,
            () = node.stop.cancelled() => Err(RecvError::Closed),
        };
        let ends = matches!(told, Err(RecvError::Closed));
        let line = match told {
            Ok(told) => line(node, &told),
            Err(RecvError::Lagged(lost)) => Some(MemberLine::Gap { ts: Timestamp::now(), lost }),
            Err(RecvError::Closed) => {
                let error = ApiFailure::from(wattle_net::Stopped).into_document();
                Some(MemberLine::Error { ts: Timestamp::now(), error })
            }
        };
        let Some(line) = line else { continue };
        if sender.send(line).await.is_err() || ends {
            return;
        }
    }
}

/// As an event of the node; nothing for what nobody outside needs to know.
pub(crate) fn event(node: &Node, told: &Told) -> Option<NodeEvent> {
    match line(node, told)? {
        MemberLine::Member { id: peer, change, ts: _ } => Some(NodeEvent::Member { peer, change }),
        MemberLine::DuplicateIdentity { id, name, ts: _ } => {
            Some(NodeEvent::DuplicateIdentity { peer: id, name })
        }
        MemberLine::SelfSuspect { begins, ts: _ } => Some(NodeEvent::SelfSuspect { begins }),
        MemberLine::Gap { .. } | MemberLine::Error { .. } => None,
    }
}

fn line(node: &Node, told: &Told) -> Option<MemberLine> {
    let ts = timestamp(told.at);
    Some(match &told.event {
        Event::MemberChanged { member, from, to, incarnation, why, .. } => {
            let change = MemberChange {
                name: called(node, *member),
                from: from.map(state),
                to: state(*to),
                incarnation: incarnation.to_string(),
                reporter: reporter(node, *member, why),
                reason: reason(why.reason),
                accusers: why.accusers.clone(),
                indirect: why.helpers.clone(),
            };
            MemberLine::Member { ts, id: *member, change }
        }
        Event::DuplicateIdentity { member } => {
            MemberLine::DuplicateIdentity { ts, id: *member, name: called(node, *member) }
        }
        Event::SelfSuspect { begins } => MemberLine::SelfSuspect { ts, begins: *begins },
        Event::Described { .. }
        | Event::Forgotten { .. }
        | Event::Started { .. }
        | Event::CannotStart { .. }
        | Event::Left => return None,
    })
}

/// Who said so: the first accuser of one that is accused, the member of itself else.
fn reporter(node: &Node, member: NodeId, why: &Why) -> NodeId {
    match why.reason {
        Reason::NoAnswer | Reason::RanOut => why.accusers.first().copied().unwrap_or(node.overlay.id()),
        Reason::Accused | Reason::Certified | Reason::Removed => {
            why.accusers.first().copied().unwrap_or(member)
        }
        Reason::Joined
        | Reason::Remembered
        | Reason::Refuted
        | Reason::Spoke
        | Reason::Restarted
        | Reason::Left => member,
    }
}

/// Its petname here, else what it calls itself.
pub(super) fn called(node: &Node, id: NodeId) -> Option<String> {
    let own = || {
        let view = node.members.view();
        let member = view.members.iter().find(|member| member.id == id)?;
        member.record.description().map(|described| described.name.clone()).filter(|name| !name.is_empty())
    };
    node.names.of(id).or_else(own)
}

/// Leave the members: others are told that this node goes, and no longer wait for it. It goes on running, and is a
/// member again when it starts again.
#[utoipa::path(post, path = "/members/leave", tag = "members",
    responses((status = 200, body = MembersLeaveDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn leave(State(node): State<Arc<Node>>) -> Answer<MembersLeaveDocument> {
    node.members.leave().await;
    Answer(MembersLeaveDocument { schema: MembersLeaveSchema::V1, id: node.overlay.id() })
}

/// Remove a member that is gone for good: from the list here, and from every other member's. It comes back when it
/// runs again.
#[utoipa::path(post, path = "/members/remove", tag = "members", request_body = MembersRemoveRequest,
    responses((status = 200, body = MembersRemoveDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Json(request): Json<MembersRemoveRequest>,
) -> Result<Answer<MembersRemoveDocument>> {
    let id = resolve_peer(&node, &request.peer).await?;
    let name = called(&node, id);
    let removed = node.members.remove(id).await;
    removed.map_err(|error| remove_failure(error, &node.names.shown(id)))?;
    Ok(Answer(MembersRemoveDocument { schema: MembersRemoveSchema::V1, id, name }))
}

fn remove_failure(error: RemoveError, whom: &str) -> ApiFailure {
    match error {
        RemoveError::Unknown => {
            ApiFailure::new(ErrorCode::NotFound, format!("{whom} is no member")).hint("wattle members")
        }
        RemoveError::Myself => {
            ApiFailure::usage("that is this node itself").hint("wattle members leave, or wattle stop")
        }
        RemoveError::StillThere(Standing::Suspect) => {
            let message = format!("{whom} is suspect: whether it is gone is not decided yet");
            ApiFailure::new(ErrorCode::Conflict, message).hint("wattle members --watch tells when it is")
        }
        RemoveError::StillThere(_) => {
            ApiFailure::new(ErrorCode::Conflict, format!("{whom} is alive, and only who is gone is removed"))
                .hint(format!(
                    "stop that node first; to keep it away from this one: wattle peers block {whom}"
                ))
        }
        RemoveError::NotTakingPart => {
            let message = "this node has left the members, or has not joined them yet";
            ApiFailure::new(ErrorCode::Conflict, message).hint("wattle stop, then wattle run")
        }
        RemoveError::NotOnDisk => {
            let message =
                format!("the disk did not take that {whom} is removed: a restart may bring it back");
            ApiFailure::new(ErrorCode::Failed, message).hint("wattle doctor")
        }
    }
}
