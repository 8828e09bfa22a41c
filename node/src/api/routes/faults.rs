//! Routes about faults on purpose. Only a node that was started for a testnet has any.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use wattle_net::faults::Faults;

use super::super::documents::{ErrorDocument, FaultsDocument, FaultsRequest};
use super::super::extract::Json;
use super::super::failure::ApiFailure;
use crate::exit::ErrorCode;
use crate::faults;
use crate::node::Node;

type Result<T> = std::result::Result<T, ApiFailure>;

fn of_testnet(node: &Node) -> Result<&Faults> {
    node.faults.as_ref().ok_or_else(|| {
        ApiFailure::new(
            ErrorCode::Denied,
            "this node is not part of a testnet: it has no faults, and gets none",
        )
        .detail("why", "only nodes that `wattle testnet` starts can be told to do harm")
        .hint("`wattle testnet up 5`")
    })
}

/// The faults of this node, and what they did.
#[utoipa::path(get, path = "/faults", tag = "testnet",
    responses((status = 200, body = FaultsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn show(State(node): State<Arc<Node>>) -> Result<Answer<FaultsDocument>> {
    Ok(Answer(faults::document(of_testnet(&node)?, &node.store)))
}

/// Make these the faults of this node, and all there are.
#[utoipa::path(post, path = "/faults", tag = "testnet", request_body = FaultsRequest,
    responses((status = 200, body = FaultsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn set(
    State(node): State<Arc<Node>>,
    Json(request): Json<FaultsRequest>,
) -> Result<Answer<FaultsDocument>> {
    let own = of_testnet(&node)?;
    faults::set(own, &node.store, &request).map_err(ApiFailure::usage)?;
    let FaultsRequest { links, disk_full, clock_ms } = &request;
    tracing::info!(links = links.len(), disk_full, clock_ms, "the testnet set the faults of this node");
    Ok(Answer(faults::document(own, &node.store)))
}
