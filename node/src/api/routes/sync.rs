//! The WebSocket over which programs and pages edit documents by the protocol of automerge-repo.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use wattle_docs::repo::FRAME_BYTES_MAX;

use super::super::documents::ErrorDocument;
use super::super::failure::ApiFailure;
use super::super::guard::token_protocol;
use crate::documents::clients::{self, SOCKETS_MAX};
use crate::exit::ErrorCode;
use crate::node::Node;

/// Bytes over the limit that are read so that their sender can be told; of more not even the first is.
const TOLD_BYTES: usize = 1 << 20;

/// A WebSocket on which automerge-repo is spoken, version 1: this node is the sync server. A token may come as
/// the subprotocol `wattle.token.TOKEN`.
#[utoipa::path(get, path = "/docs/sync", tag = "docs",
    responses((status = 101, description = "A WebSocket"), (status = "default", body = ErrorDocument)))]
pub(super) async fn sync(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let mut upgrade = upgrade.map_err(|rejection| {
        ApiFailure::usage(format!("this route is a WebSocket: {}", rejection.body_text()))
            .hint("give its URL, with ws:// in front, to a WebSocketClientAdapter of automerge-repo")
    })?;
    let Some(place) = node.documents.place() else {
        let message = format!("{SOCKETS_MAX} programs are connected already");
        let error = ErrorDocument::new(ErrorCode::Failed, message).hint("close some of them");
        return Err(ApiFailure::with_status(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    // Who asks for a subprotocol gives up when none is chosen.
    if let Some(protocol) = token_protocol(&headers).and_then(|name| HeaderValue::from_str(name).ok()) {
        upgrade.set_selected_protocol(protocol);
    }
    let bytes = FRAME_BYTES_MAX.saturating_add(TOLD_BYTES);
    let upgrade = upgrade.max_message_size(bytes).max_frame_size(bytes);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (documents, stop) = (node.documents.clone(), node.stop.clone());
        clients::serve(socket, documents, node.overlay.id(), stop).await;
        drop(place);
    }))
}
