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
mod order_changes;
mod order_snapshots;
mod order_submissions;
mod pad;
mod past;
mod peers;
mod register;
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
use axum::routing::MethodRouter;
use tracing::Instrument as _;
use utoipa::openapi::HttpMethod;
use utoipa::{OpenApi as _, Path as _};
use utoipa_axum::PathItemExt as _;
use utoipa_axum::router::OpenApiRouter;

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

/// A handler under the path and the methods that its `#[utoipa::path]` names.
struct Route<S> {
    path: String,
    handler: MethodRouter<S>,
    /// Makes what the description of the API says of it. Of all routes that is 3 MB in small pieces, so a node makes it
    /// when somebody asks for it.
    describe: fn() -> OpenApiRouter<S>,
}

macro_rules! routes {
    ($($module:ident :: $handler:ident),+ $(,)?) => {
        pastey::paste! {
            [$({
                type Said = $module::[<__path_ $handler>];
                let add = |router: MethodRouter<_>, method: HttpMethod| {
                    router.on(method.to_method_filter(), $module::$handler)
                };
                Route {
                    path: Said::path(),
                    handler: Said::methods().into_iter().fold(MethodRouter::new(), add),
                    describe: || OpenApiRouter::new().routes(utoipa_axum::routes!($module::$handler)),
                }
            }),+]
        }
    };
}

fn gate_routes() -> impl IntoIterator<Item = Route<Arc<Gate>>> {
    routes![
        gate::version,
        gate::session,
        gate::session_code,
        gate::tokens,
        gate::new_token,
        gate::revoke_token,
    ]
}

fn node_routes() -> impl IntoIterator<Item = Route<Arc<Node>>> {
    routes![
        status::status,
        status::id,
        status::health,
        status::wait,
        status::stop,
        events::events,
        admin::config,
        admin::logs,
        admin::log_level,
        admin::set_log_level,
        peers::peers,
        peers::connect,
        peers::disconnect,
        peers::block,
        peers::name,
        peers::ping,
        peers::invite,
        peers::join,
        members::list,
        members::follow,
        members::leave,
        members::remove,
        faults::show,
        faults::set,
        dht::get,
        dht::put,
        dht::provide,
        dht::stop_providing,
        dht::find_providers,
        dht::find_peer,
        dht::closest,
        dht::trace,
        dht::table,
        dht::stats,
        rooms::list,
        rooms::create,
        rooms::room,
        rooms::messages,
        rooms::say,
        rooms::follow,
        rooms::nick,
        rooms::topic,
        rooms::typing,
        rooms::leave,
        topics::list,
        topics::subscribe,
        topics::publish,
        topics::request,
    ]
    .into_iter()
    .chain(order_routes())
}

/// Routes about the ordered log.
fn order_routes() -> impl IntoIterator<Item = Route<Arc<Node>>> {
    routes![
        order::join,
        order::list,
        order::submit,
        order::get,
        order::follow,
        order::status,
        order::validators,
        order::verify,
        order_submissions::submit,
        order_changes::approve,
        order_snapshots::list,
        order_snapshots::create,
        order_snapshots::restore,
        register::list,
        register::read,
        register::append,
    ]
}

/// Routes about documents: a whole text, or a file, is one body.
fn document_routes() -> impl IntoIterator<Item = Route<Arc<Node>>> {
    routes![
        docs::list,
        docs::create,
        docs::one,
        docs::join,
        past::import,
        docs::content,
        docs::text,
        docs::field,
        docs::share,
        docs::members,
        docs::remove,
        docs::forget,
        past::history,
        past::diff,
        past::changes,
        past::export,
        sync::sync,
    ]
}

/// What probes and scrapers ask for, where they expect it.
fn open_gate_routes() -> impl IntoIterator<Item = Route<Arc<Gate>>> {
    routes![gate::healthz]
}

fn open_node_routes() -> impl IntoIterator<Item = Route<Arc<Node>>> {
    routes![status::readyz, status::metrics]
}

fn router_of<S: Clone + Send + Sync + 'static>(routes: impl IntoIterator<Item = Route<S>>) -> Router<S> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(&route.path, route.handler))
}

fn described<S>(routes: impl IntoIterator<Item = Route<S>>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.into_iter().fold(OpenApiRouter::new(), |all, route| all.merge((route.describe)()))
}

/// The description of the API: OpenAPI 3.1, as committed in `node/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let gate = OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/v1", described(gate_routes()))
        .merge(described(open_gate_routes()))
        .into_openapi();
    let node = OpenApiRouter::new()
        .nest("/api/v1", described(node_routes().into_iter().chain(document_routes())))
        .merge(described(open_node_routes()))
        .into_openapi();
    gate.merge_from(node).merge_from(crate::cli::documents::Documents::openapi())
}

/// The whole API.
pub fn router(node: Arc<Node>, gate: Arc<Gate>) -> Router {
    let documents = router_of(document_routes()).layer(DefaultBodyLimit::max(DOCUMENT_BODY_BYTES_MAX));
    let routes = Router::new()
        .nest("/api/v1", router_of(node_routes()).merge(documents))
        .merge(router_of(open_node_routes()));
    let metrics = Arc::clone(&node.metrics);
    finish(gate_router(&gate).merge(routes.with_state(node)), gate, Some(metrics))
}

/// The part of the API that needs no overlay: tokens, sessions, version. With the guard before it, as in the
/// whole.
pub fn gate_only(gate: Arc<Gate>) -> Router {
    finish(gate_router(&gate), gate, None)
}

fn gate_router(gate: &Arc<Gate>) -> Router {
    let routes = Router::new().nest("/api/v1", router_of(gate_routes())).merge(router_of(open_gate_routes()));
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
