//! The route by which the validators of the ordered log change.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use wattle_order::limits::APPROVAL_LIFE_MS;
use wattle_order::payloads::NotTaken;
use wattle_order::{APPROVALS_APP, Approval, Change, Committee, InvalidEntry, Validator, Validators};
use wattle_types::NodeId;

use super::super::documents::{
    ErrorDocument, OrderChange, OrderChangeDocument, OrderChangeRequest, OrderChangeSchema,
};
use super::super::extract::Json;
use super::super::failure::ApiFailure;
use super::order::{Patience, Waiting, check_quorum, entry, lately, log, submit_failure};
use crate::clock::unix_now;
use crate::exit::ErrorCode;
use crate::node::{Node, count};
use crate::order::{self, SubmitError};

type Result<T> = std::result::Result<T, ApiFailure>;

/// How long an approval counts, and so how long it may wait to be ordered: less than it could, for clocks differ.
const LIFE: Duration = Duration::from_millis(APPROVAL_LIFE_MS / 4 * 3);

/// As others are told of it.
pub(super) fn row(committee: &Committee, change: &Change) -> OrderChange {
    let Change { next, approved } = change;
    let votes = approved.iter().filter(|id| committee.seat(id).is_some());
    let ids = next.list().iter().map(|validator| validator.id);
    OrderChange {
        validators: ids.clone().collect(),
        approved: approved.iter().copied().collect(),
        votes: count(votes.count()),
        quorum: count(order::needed(committee)),
        missing: ids.filter(|id| !approved.contains(id)).collect(),
    }
}

/// Who stays keeps what its vote counts, and who joins counts once.
fn set(committee: &Committee, ids: &[NodeId]) -> Result<Validators> {
    let weight = |id: &NodeId| committee.seat(id).map_or(1, |seat| committee.weight(seat));
    let list = ids.iter().map(|id| Validator { id: *id, weight: weight(id) }).collect();
    Validators::new(list).map_err(ApiFailure::usage)
}

/// Approve the validators of the next epoch. It counts for a minute, and with the same word of a quorum of those who
/// vote, and of everybody who is to vote then, they change.
#[utoipa::path(post, path = "/order/changes", tag = "order", request_body = OrderChangeRequest,
    responses((status = 200, body = OrderChangeDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn approve(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderChangeRequest>,
) -> Result<Answer<OrderChangeDocument>> {
    let log = log(&node)?;
    let (committee, me) = (log.committee(), node.overlay.id());
    let epoch = committee.epoch().0;
    if request.epoch != epoch {
        let message = format!("the log is in epoch {epoch}, and what is to end is epoch {}", request.epoch);
        return Err(ApiFailure::new(ErrorCode::Conflict, message).hint("wattle order status"));
    }
    let next = set(&committee, &request.validators)?;
    let joins = next.list().iter().any(|validator| validator.id == me);
    let votes = committee.seat(&me).is_some();
    if !votes && !joins {
        let message = "this node votes neither now nor then, so its word counts for nothing";
        return Err(ApiFailure::usage(message).hint("say it on a node that does"));
    }
    check_quorum(&node, "nothing was approved").await?;
    let wanted = Change { next, approved: std::collections::BTreeSet::new() };
    let known = |changes: &[Change]| changes.iter().find(|it| it.next == wanted.next).cloned();
    let before = known(&lately(&log).await?.changes);
    // Who joins is heard once somebody who votes wants it.
    let heard = votes || before.is_some();
    if heard {
        let until = unix_now().after(LIFE);
        let approval = Approval::sign(node.order.key(), &committee, wanted.next.clone(), until);
        let whole = entry(Some(APPROVALS_APP.to_owned()), &approval.encode(), None, Some(until.as_millis()))?;
        let waiting = Waiting { hash: whole.transaction(), until };
        let fate = log.submit(Arc::new(whole)).await.map_err(|error| match error {
            // A moment ago it would have: whoever wanted it said otherwise, or they changed.
            SubmitError::NotTaken(NotTaken::Invalid(why @ InvalidEntry::Approval)) => {
                ApiFailure::new(ErrorCode::Conflict, why.to_string()).hint("wattle order status")
            }
            error => submit_failure(error),
        })?;
        waiting.wait(Patience::new(&node, &log, request.timeout_ms), fate).await?;
    }
    let changes = log.view().await.map(|view| view.changes).unwrap_or_default();
    Ok(Answer(OrderChangeDocument {
        schema: OrderChangeSchema::V1,
        epoch,
        heard,
        change: row(&committee, &known(&changes).unwrap_or(wanted)),
    }))
}
