//! What routes ask of pad, and how its refusals leave.

use automerge::ChangeHash;
use axum::http::StatusCode;
use wattle_app::CallError;
use wattle_docs::DocError;
use wattle_pad::{Answer, Ask, Hash, Refusal};
use wattle_types::DocId;

use super::super::documents::ErrorDocument;
use super::super::failure::ApiFailure;
use crate::exit::ErrorCode;
use crate::node::Node;

type Result<T> = std::result::Result<T, ApiFailure>;

/// Asks pad.
pub(super) async fn ask(node: &Node, question: Ask) -> Result<Answer> {
    let asked = node.apps.ask::<_, std::result::Result<Answer, Refusal>>(wattle_pad::ID, &question).await;
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        // Whoever asked comes again when the node is back; what else went wrong meanwhile is no answer.
        Err(_) | Ok(Err(_)) if node.stop.is_cancelled() => Err(stopping()),
        Ok(Err(refusal)) => Err(refused(refusal)),
        Err(reject) => Err(reject.into()),
    }
}

/// The node cannot answer any more.
pub(super) fn stopping() -> ApiFailure {
    ApiFailure::new(ErrorCode::NoNode, "the node is stopping").hint("wattle run")
}

/// No such document here, unless nobody is there to say so.
pub(super) fn unknown(node: &Node, doc: DocId) -> ApiFailure {
    if node.stop.is_cancelled() { stopping() } else { failure(DocError::Unknown(doc)) }
}

/// What pad answers to something else.
pub(super) fn unexpected() -> ApiFailure {
    ApiFailure::new(ErrorCode::Failed, "pad gave an answer of another kind")
}

/// A version, as people read it.
pub(super) fn texts(heads: &[Hash]) -> Vec<String> {
    heads.iter().map(|head| ChangeHash(*head).to_string()).collect()
}

fn refused(refusal: Refusal) -> ApiFailure {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoSuchVersion(_) => {
            ApiFailure::new(ErrorCode::NotFound, text).hint("wattle doc history <id>")
        }
        Refusal::NotAVersion(_) => ApiFailure::usage(text).hint("wattle doc history <id>"),
        Refusal::NotFound(_) => ApiFailure::new(ErrorCode::NotFound, text),
        Refusal::Damaged(_) => ApiFailure::new(ErrorCode::Invalid, text).detail("nothing", "was made of it"),
        Refusal::Refused(_) => ApiFailure::usage(text),
        Refusal::Call(error) => call_failure(error),
    }
}

/// What the documents refuse a route.
pub(super) fn failure(error: DocError) -> ApiFailure {
    call_failure(wattle_weave::to_error(error))
}

/// What the documents refuse an app.
fn call_failure(error: CallError) -> ApiFailure {
    let text = error.to_string();
    match error {
        CallError::Unknown(_) => ApiFailure::new(ErrorCode::NotFound, text).hint("wattle doc list"),
        CallError::NotAllowed(_) => {
            ApiFailure::new(ErrorCode::Denied, text).detail("ask", "an admin: wattle doc members <id>")
        }
        CallError::Refused(_) => ApiFailure::usage(text),
        CallError::Malformed(_) => ApiFailure::new(ErrorCode::Invalid, text),
        CallError::NotHere => ApiFailure::new(ErrorCode::NotFound, text)
            .detail("it arrives", "when a member is reachable: wattle doc list"),
        CallError::Busy | CallError::OverQuota | CallError::NotOrdered(_) => {
            ApiFailure::new(ErrorCode::Timeout, text).hint("try again")
        }
        CallError::NotSaved(_) => ApiFailure::with_status(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorDocument::new(ErrorCode::Failed, text)
                .detail("nothing", "of it was kept; what was acknowledged before is on disk"),
        ),
        CallError::Damaged(_) => ApiFailure::new(ErrorCode::Failed, text),
    }
}
