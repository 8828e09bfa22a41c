//! Many entries of the ordered log in one request.

use std::sync::Arc;
use std::time::Instant;

use axum::Json as Answer;
use axum::extract::State;
use wattle_order::Digest;

use super::super::documents::{
    ErrorDocument, OrderSubmissionState, OrderSubmissionsDocument, OrderSubmissionsRequest,
    OrderSubmissionsSchema, OrderSubmitted, OrderWait,
};
use super::super::extract::Json;
use super::super::failure::ApiFailure;
use super::order::{Patience, behind_the_log, entry, lately, log, no_quorum, quorum, submit_failure};
use crate::node::{Node, count, whole_millis};
use crate::order::Fate;

type Result<T> = std::result::Result<T, ApiFailure>;

/// Entries of one request.
const ENTRIES_MAX: usize = 1024;

/// Append many entries; what becomes of each is told. Where one of them cannot be an entry, or too few validators are
/// there to order any, none is submitted.
#[utoipa::path(post, path = "/order/submissions", tag = "order", request_body = OrderSubmissionsRequest,
    responses((status = 200, body = OrderSubmissionsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn submit(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderSubmissionsRequest>,
) -> Result<Answer<OrderSubmissionsDocument>> {
    let began = Instant::now();
    let log = log(&node)?;
    let OrderSubmissionsRequest { entries: given, wait, timeout_ms } = request;
    if given.is_empty() || given.len() > ENTRIES_MAX {
        return Err(ApiFailure::usage(format!(
            "{} entries; one request has 1 to {ENTRIES_MAX}",
            given.len()
        )));
    }
    let mut entries = Vec::new();
    for (number, one) in given.into_iter().enumerate() {
        let which = |failure: ApiFailure| failure.detail("which", format!("number {number}, from 0"));
        let whole = entry(one.app, &one.data_b64.0, one.salt, one.until_ms).map_err(which)?;
        let checked = node.apps.check(&whole.entry().app, &whole.entry().data).await;
        checked.map_err(|reject| which(reject.into()))?;
        entries.push(Arc::new(whole));
    }
    let seen = lately(&log).await?;
    let standing = quorum(&node, &log, &seen).await?;
    if !standing.holds {
        let nothing = "your entries were NOT accepted; wattle order status tells when they will be";
        return Err(no_quorum(&node, &standing).detail("", nothing));
    }
    let first = entries.iter().map(|entry| entry.entry().until).min();
    if let Some(failure) = first.and_then(|until| behind_the_log(&seen, until)) {
        return Err(failure);
    }
    let hashes: Vec<Digest> = entries.iter().map(|entry| entry.transaction()).collect();
    let fates = log.submit_all(entries).await.map_err(submit_failure)?;
    let mut patience = Patience::new(&node, &log, timeout_ms);
    let mut given_up: Option<String> = None;
    let mut submitted = Vec::new();
    for (hash, fate) in hashes.into_iter().zip(fates) {
        let said = match fate {
            Err(why) => Outcome::refused(why.to_string()),
            Ok(_) if wait == OrderWait::Accept => Outcome::State(OrderSubmissionState::Accepted, None),
            Ok(mut fate) => match &given_up {
                // What is known by now is told all the same.
                Some(why) => fate.try_recv().map_or_else(|_| Outcome::unknown(why), Outcome::of),
                None => match patience.fate(&mut fate).await {
                    Ok(fate) => Outcome::of(fate),
                    Err(failure) => {
                        let why = failure.into_document().message;
                        let said = Outcome::unknown(&why);
                        given_up = Some(why);
                        said
                    }
                },
            },
        };
        submitted.push(said.of_entry(hash));
    }
    let done = [OrderSubmissionState::Ordered, OrderSubmissionState::Accepted];
    let failed = submitted.iter().filter(|entry| !done.contains(&entry.state)).count();
    Ok(Answer(OrderSubmissionsDocument {
        schema: OrderSubmissionsSchema::V1,
        entries: submitted,
        failed: count(failed),
        took_ms: whole_millis(began.elapsed()),
    }))
}

/// What became of one entry.
enum Outcome {
    At(crate::order::Place),
    State(OrderSubmissionState, Option<String>),
}

impl Outcome {
    fn refused(why: String) -> Self {
        Self::State(OrderSubmissionState::Refused, Some(why))
    }

    fn unknown(why: &str) -> Self {
        Self::State(OrderSubmissionState::Unknown, Some(why.to_owned()))
    }

    fn of(fate: Fate) -> Self {
        match fate {
            Fate::Ordered(place) => Self::At(place),
            Fate::Expired => Self::refused("it was not ordered in its time, and never will be".to_owned()),
            Fate::Unknown => {
                Self::unknown("it may have been ordered before this node went on from a snapshot")
            }
        }
    }

    fn of_entry(self, hash: Digest) -> OrderSubmitted {
        let entry = hash.to_string();
        match self {
            Self::At(place) => {
                let (height, index) = (Some(place.height.0), Some(u64::from(place.index)));
                OrderSubmitted { state: OrderSubmissionState::Ordered, entry, height, index, why: None }
            }
            Self::State(state, why) => OrderSubmitted { state, entry, height: None, index: None, why },
        }
    }
}
