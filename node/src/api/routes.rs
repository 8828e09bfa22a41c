//! Every route.

#![expect(
    unused_qualifications,
    reason = "the path attribute of utoipa qualifies the parameters it is given"
)]

mod admin;
mod dht;
mod docs;
mod events;
mod faults;
pub(super) mod gate;
pub(super) mod keys;
pub(super) mod members;
pub(super) mod order;
mod pad;
mod past;
mod peers;
mod rooms;
mod status;
mod sync;
mod topics;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::documents::{
    DocLine, ErrorDocument, EventLine, OrderLine, PingLine, RoomLine, TopicLine, TraceLine,
};
use super::extract::{BODY_BYTES_MAX, DOCUMENT_BODY_BYTES_MAX};
use super::failure::ApiFailure;
use super::guard;
use super::page;
use crate::exit::ErrorCode;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::telemetry::{continue_trace, read_traceparent};
use gate::Gate;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "wattle", description = "The local API of a wattle node", license(name = "MIT OR Apache-2.0")),
    components(schemas(
        DocLine, ErrorDocument, EventLine, OrderLine, PingLine, RoomLine, TopicLine, TraceLine
    )),
    tags(
        (name = "node", description = "The node itself"),
        (name = "peers", description = "People and paths"),
        (name = "members", description = "Who is in the network, and who is well"),
        (name = "dht", description = "The distributed hash table"),
        (name = "topics", description = "Publish and subscribe"),
        (name = "docs", description = "Shared documents"),
        (name = "chat", description = "Rooms and their messages"),
        (name = "testnet", description = "Faults on purpose, in the nodes of a testnet"),
        (name = "order", description = "The ordered log"),
        (name = "admin", description = "Settings, tokens, sessions, log"),
    )
)]
struct Description;

fn gate_routes() -> OpenApiRouter<Arc<Gate>> {
    OpenApiRouter::new()
        .routes(routes!(gate::version))
        .routes(routes!(gate::session))
        .routes(routes!(gate::session_code))
        .routes(routes!(gate::tokens, gate::new_token))
        .routes(routes!(gate::revoke_token))
}

fn node_routes() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(status::id))
        .routes(routes!(status::health))
        .routes(routes!(status::wait))
        .routes(routes!(status::stop))
        .routes(routes!(events::events))
        .routes(routes!(admin::config))
        .routes(routes!(admin::logs))
        .routes(routes!(admin::log_level, admin::set_log_level))
        .routes(routes!(peers::peers))
        .routes(routes!(peers::connect))
        .routes(routes!(peers::disconnect))
        .routes(routes!(peers::block))
        .routes(routes!(peers::name))
        .routes(routes!(peers::ping))
        .routes(routes!(peers::invite))
        .routes(routes!(peers::join))
        .routes(routes!(members::list))
        .routes(routes!(members::follow))
        .routes(routes!(members::leave))
        .routes(routes!(members::remove))
        .routes(routes!(faults::show, faults::set))
        .routes(routes!(dht::get, dht::put))
        .routes(routes!(dht::provide))
        .routes(routes!(dht::stop_providing))
        .routes(routes!(dht::find_providers))
        .routes(routes!(dht::find_peer))
        .routes(routes!(dht::closest))
        .routes(routes!(dht::trace))
        .routes(routes!(dht::table))
        .routes(routes!(dht::stats))
        .merge(document_routes())
        .merge(order_routes())
        .routes(routes!(rooms::list, rooms::create))
        .routes(routes!(rooms::room))
        .routes(routes!(rooms::messages, rooms::say))
        .routes(routes!(rooms::follow))
        .routes(routes!(rooms::nick))
        .routes(routes!(rooms::topic))
        .routes(routes!(rooms::typing))
        .routes(routes!(rooms::leave))
        .routes(routes!(topics::list))
        .routes(routes!(topics::subscribe))
        .routes(routes!(topics::publish))
        .routes(routes!(topics::request))
}

/// Routes about the ordered log.
fn order_routes() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::new()
        .routes(routes!(order::join))
        .routes(routes!(order::list, order::submit))
        .routes(routes!(order::get))
        .routes(routes!(order::follow))
        .routes(routes!(order::status))
        .routes(routes!(order::validators))
        .routes(routes!(order::verify))
}

/// Routes about documents: a whole text, or a file, is one body.
fn document_routes() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::new()
        .routes(routes!(docs::list, docs::create))
        .routes(routes!(docs::one))
        .routes(routes!(docs::join))
        .routes(routes!(past::import))
        .routes(routes!(docs::content))
        .routes(routes!(docs::text))
        .routes(routes!(docs::field))
        .routes(routes!(docs::share))
        .routes(routes!(docs::members))
        .routes(routes!(docs::remove))
        .routes(routes!(docs::forget))
        .routes(routes!(past::history))
        .routes(routes!(past::diff))
        .routes(routes!(past::changes))
        .routes(routes!(past::export))
        .routes(routes!(sync::sync))
        .layer(DefaultBodyLimit::max(DOCUMENT_BODY_BYTES_MAX))
}

/// What probes and scrapers ask for, where they expect it.
fn open_gate_routes() -> OpenApiRouter<Arc<Gate>> {
    OpenApiRouter::new().routes(routes!(gate::healthz))
}

fn open_node_routes() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::new().routes(routes!(status::readyz)).routes(routes!(status::metrics))
}

/// The description of the API: OpenAPI 3.1, as committed in `node/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let gate = OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/v1", gate_routes())
        .merge(open_gate_routes())
        .into_openapi();
    let node = OpenApiRouter::new().nest("/api/v1", node_routes()).merge(open_node_routes()).into_openapi();
    gate.merge_from(node).merge_from(crate::cli::documents::Documents::openapi())
}

/// The whole API.
pub fn router(node: Arc<Node>, gate: Arc<Gate>) -> Router {
    let routes = OpenApiRouter::new().nest("/api/v1", node_routes()).merge(open_node_routes());
    let (routes, _) = routes.split_for_parts();
    let metrics = Arc::clone(&node.metrics);
    finish(gate_router(&gate).merge(routes.with_state(node)), gate, Some(metrics))
}

/// The part of the API that needs no overlay: tokens, sessions, version. With the guard before it, as in the
/// whole.
pub fn gate_only(gate: Arc<Gate>) -> Router {
    finish(gate_router(&gate), gate, None)
}

fn gate_router(gate: &Arc<Gate>) -> Router {
    let routes = OpenApiRouter::new().nest("/api/v1", gate_routes()).merge(open_gate_routes());
    let (routes, _) = routes.split_for_parts();
    let description = axum::routing::get(gate::openapi_json);
    routes.route("/api/v1/openapi.json", description).with_state(Arc::clone(gate))
}

fn finish(router: Router, gate: Arc<Gate>, metrics: Option<Arc<Metrics>>) -> Router {
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_that_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(move |request, next| observe(metrics.clone(), request, next)))
        .layer(middleware::from_fn_with_state(Arc::clone(&gate.guard), guard::guard))
}

/// What no route is for: a file of the page, or nothing.
async fn nothing_here(request: Request) -> Response {
    if let Some(answer) = page::serve(&request) {
        return answer;
    }
    let message = format!("there is nothing at {}", request.uri().path());
    ApiFailure::new(ErrorCode::NotFound, message)
        .hint("GET /api/v1/openapi.json lists what there is")
        .into_response()
}

async fn not_that_method(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiFailure::with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorDocument::new(ErrorCode::Usage, message))
        .into_response()
}

/// One span and one count a request. The span is a child of the caller's (`traceparent`), and the parent of
/// whatever the overlay is asked and of messages that leave.
async fn observe(metrics: Option<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let pattern = request.extensions().get::<MatchedPath>();
    let path = pattern.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let span = tracing::info_span!("api", otel.name = format!("{method} {path}"), method, path);
    let caller = request.headers().get("traceparent").and_then(|text| read_traceparent(text.to_str().ok()?));
    if let Some(caller) = caller {
        continue_trace(&span, &caller);
    }
    let response = next.run(request).instrument(span).await;
    if let Some(metrics) = metrics {
        metrics.request(&method, &path, response.status().as_u16(), began.elapsed());
    }
    response
}
