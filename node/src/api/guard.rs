//! The one place where a request is let in or turned away, before anything reads its body.
//!
//! 1. **Rebinding.** Over TCP, `Host` must be a name of this API with its port, else 421: a page of another
//!    site cannot make a browser talk to us under a name of its own (DNS rebinding).
//! 2. **Cross-site.** A present `Origin` must be our own, and `Sec-Fetch-Site` not `cross-site` or
//!    `same-site`, else 403.
//! 3. **Forms.** What changes something has `Content-Type: application/json`, else 415: no HTML form can send
//!    that, and a script that wants to must ask first, which rule 2 refuses.
//! 4. **Who.** Over TCP a bearer token or the session cookie, else 401; over the Unix socket the kernel said
//!    who it is, and only this user and `api.allow_uids` get that far. A WebSocket may bring its token as the
//!    subprotocol `wattle.token.TOKEN`, because scripts cannot give it headers.
//! 5. **Rights.** The role must cover what the route needs ([`needed`]), else 403.
//!
//! Answers carry no CORS headers, so no page of another origin can read one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, ORIGIN,
    REFERRER_POLICY, SEC_WEBSOCKET_PROTOCOL, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use wattle_types::NodeId;

use super::access::Access;
use super::documents::{ErrorDocument, Role};
use super::failure::ApiFailure;
use crate::clock::unix_now;
use crate::exit::ErrorCode;

/// Nothing from elsewhere, no inline script, no frame. Automerge is WebAssembly.
const CONTENT_SECURITY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'; \
                                base-uri 'none'; form-action 'none'; object-src 'none'";

/// What a subprotocol with a token begins with.
const TOKEN_PROTOCOL: &str = "wattle.token.";
/// The only route that becomes a WebSocket.
const SOCKET_PATH: &str = "/api/v1/docs/sync";

/// Through which door a request came. The listener puts one into every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The Unix socket; the listener has checked the user.
    Socket,
    /// Loopback TCP on this port.
    Tcp {
        /// Our port.
        port: u16,
    },
}

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it tells nothing that a stranger may not know.
    Nothing,
    /// A role.
    Role(Role),
    /// A role, unless `metrics.open_on_loopback`.
    Metrics,
}

/// The rules, and what they need to know.
pub struct Guard {
    access: Arc<Access>,
    host_names: Vec<String>,
    metrics_open: bool,
    cookie: String,
    warned: [AtomicBool; 5],
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    CrossSite,
    NotJson,
    Unknown,
    Rights { needed: Role, role: Role },
}

impl Guard {
    /// The guard of one node.
    #[must_use]
    pub fn new(access: Arc<Access>, node: NodeId, host_names: Vec<String>, metrics_open: bool) -> Self {
        Self { access, host_names, metrics_open, cookie: cookie_name(node), warned: Default::default() }
    }

    /// Who may use the API.
    #[must_use]
    pub const fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The name of the session cookie.
    #[must_use]
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    fn check(&self, door: Door, path: &str, request: &Request) -> Result<(), Refusal> {
        let (method, headers) = (request.method(), request.headers());
        if let Door::Tcp { port } = door {
            let host = self.own_host(request, port).ok_or(Refusal::Host)?;
            check_site(headers, &host)?;
        }
        if changes(method) && !is_json(headers) {
            return Err(Refusal::NotJson);
        }
        let Door::Tcp { .. } = door else { return Ok(()) };
        let needed = match needed(method, path) {
            Needs::Nothing => return Ok(()),
            Needs::Metrics if self.metrics_open => return Ok(()),
            Needs::Metrics => Role::Read,
            Needs::Role(role) => role,
        };
        let role = self.role(headers, path == SOCKET_PATH).ok_or(Refusal::Unknown)?;
        if role >= needed { Ok(()) } else { Err(Refusal::Rights { needed, role }) }
    }

    /// The `Host` of the request, when it is exactly one and ours.
    fn own_host(&self, request: &Request, port: u16) -> Option<String> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
        let host = host.to_str().ok()?.to_ascii_lowercase();
        let agrees =
            request.uri().authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(&host));
        let suffix = format!(":{port}");
        let name = host.strip_suffix(&suffix)?;
        let ours = matches!(name, "localhost" | "127.0.0.1" | "[::1]")
            || self.host_names.iter().any(|own| own.eq_ignore_ascii_case(name));
        (agrees && ours).then_some(host)
    }

    fn role(&self, headers: &HeaderMap, is_socket: bool) -> Option<Role> {
        let now = unix_now();
        if let Some(value) = headers.get(AUTHORIZATION) {
            let secret = value.to_str().ok()?.strip_prefix("Bearer ")?;
            return self.access.token_role(secret.trim(), now);
        }
        if let Some(protocol) = token_protocol(headers).filter(|_| is_socket) {
            return self.access.token_role(protocol.strip_prefix(TOKEN_PROTOCOL)?, now);
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, secret) = pairs.find(|(name, _)| *name == self.cookie)?;
        self.access.session_role(secret, now)
    }

    fn refuse(&self, refusal: Refusal, request: &Request) -> Response {
        let (index, status, error) = match refusal {
            Refusal::Host => (0, StatusCode::MISDIRECTED_REQUEST, host_error()),
            Refusal::CrossSite => (1, StatusCode::FORBIDDEN, cross_site_error()),
            Refusal::NotJson => (2, StatusCode::UNSUPPORTED_MEDIA_TYPE, not_json_error()),
            Refusal::Unknown => (3, StatusCode::UNAUTHORIZED, unknown_error()),
            Refusal::Rights { needed, role } => (4, StatusCode::FORBIDDEN, rights_error(needed, role)),
        };
        let first = self.warned.get(index).is_some_and(|warned| !warned.swap(true, Ordering::Relaxed));
        let path = request.uri().path();
        if first {
            let more = "further ones of this kind are logged at debug";
            tracing::warn!(status = status.as_u16(), path, "refused a request: {}; {more}", error.message);
        } else {
            tracing::debug!(status = status.as_u16(), path, "refused a request: {}", error.message);
        }
        ApiFailure::with_status(status, error).into_response()
    }
}

/// The subprotocol among those that a WebSocket asks for that carries a token.
pub(super) fn token_protocol(headers: &HeaderMap) -> Option<&str> {
    let asked = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    asked.flat_map(|value| value.split(',')).map(str::trim).find(|name| name.starts_with(TOKEN_PROTOCOL))
}

/// The name of a node's session cookie. Cookies are shared between ports, so it carries the node.
#[must_use]
pub fn cookie_name(node: NodeId) -> String {
    let text = node.to_string();
    format!("wattle_{}", text.get(text.len().saturating_sub(8)..).unwrap_or_default())
}

/// What people wrote: more than the right to look at the node.
const LOOKS_AT_CONTENT: &[&str] = &[
    "/topics/messages",
    "/dht/records/{key}",
    "/docs/{doc}/content",
    "/docs/{doc}/history",
    "/docs/{doc}/diff",
    "/docs/{doc}/changes",
    "/docs/{doc}/export",
    "/docs/sync",
    "/rooms/{room}/messages",
    "/rooms/{room}/follow",
    "/order/entries",
    "/order/entries/{at}",
    "/order/follow",
    "/registers",
    "/registers/{register}",
];

/// How the node does, and what there is.
const LOOKS_AT_THE_NODE: &[&str] = &[
    "/docs",
    "/docs/{doc}",
    "/docs/{doc}/members",
    "/rooms",
    "/rooms/{room}",
    "/status",
    "/id",
    "/health",
    "/wait",
    "/events",
    "/peers",
    "/members",
    "/members/follow",
    "/order/status",
    "/order/validators",
    "/topics",
    "/dht/table",
    "/dht/stats",
    "/version",
    "/openapi.json",
];

/// What changes something that a user may change.
const USES: &[&str] = &[
    "/peers/connect",
    "/peers/disconnect",
    "/peers/name",
    "/ping",
    "/tickets",
    "/join",
    "/dht/provide",
    "/dht/stop-providing",
    "/dht/find-providers",
    "/dht/find-peer",
    "/dht/closest",
    "/dht/trace",
    "/topics/{topic}/messages",
    "/topics/{topic}/request",
    "/docs",
    "/docs/join",
    "/docs/import",
    "/docs/{doc}/text",
    "/docs/{doc}/fields",
    "/docs/{doc}/tickets",
    "/docs/{doc}/remove",
    "/docs/{doc}/forget",
    "/rooms",
    "/rooms/{room}/messages",
    "/rooms/{room}/nick",
    "/rooms/{room}/topic",
    "/rooms/{room}/typing",
    "/rooms/{room}/leave",
    "/order/entries",
    "/order/submissions",
    "/order/verify",
    "/registers/{register}",
];

/// What a route needs, by its method and its pattern. Whatever is not listed needs an admin.
#[must_use]
pub fn needed(method: &Method, path: &str) -> Needs {
    let rest = path.strip_prefix("/api/v1").unwrap_or(path);
    let role = match method.as_str() {
        "GET" | "HEAD" if ["/healthz", "/readyz"].contains(&rest) => return Needs::Nothing,
        "POST" if rest == "/session" => return Needs::Nothing,
        "GET" | "HEAD" if rest == "/metrics" => return Needs::Metrics,
        "GET" | "HEAD" if is_page(path) => return Needs::Nothing,
        "GET" | "HEAD" if LOOKS_AT_CONTENT.contains(&rest) => Role::User,
        "GET" | "HEAD" if LOOKS_AT_THE_NODE.contains(&rest) => Role::Read,
        "PUT" if rest == "/dht/records/{key}" => Role::User,
        "POST" if USES.contains(&rest) => Role::User,
        _ => Role::Admin,
    };
    Needs::Role(role)
}

/// The middleware: checks, and puts the security headers on every answer, refusals included.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let pattern = request.extensions().get::<MatchedPath>();
    let path = pattern.map_or_else(|| request.uri().path().to_owned(), |path| path.as_str().to_owned());
    // A request without a door did not come through a listener of ours; it is treated as the most dangerous
    // kind.
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Tcp { port: 0 });
    let mut response = match guard.check(door, &path, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => guard.refuse(refusal, &request),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a path is of the page, whose files are the same in every node and tell nothing of this one.
pub(super) fn is_page(path: &str) -> bool {
    path.strip_prefix("/api").is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn check_site(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let own = format!("http://{host}");
    let foreign =
        headers.get_all(ORIGIN).iter().any(|origin| !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()));
    // Other ports of this machine are the same site, and no friends.
    let elsewhere = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if foreign || elsewhere { Err(Refusal::CrossSite) } else { Ok(()) }
}

fn host_error() -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Denied, "the API is not asked for under its own name")
        .hint("use http://127.0.0.1 with its port, or add the name to api.host_names")
}

fn cross_site_error() -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Denied, "requests from pages of other sites are refused")
}

fn not_json_error() -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Usage, "what changes something must have Content-Type: application/json")
        .hint("curl -H 'Content-Type: application/json' -d '{}'")
}

fn unknown_error() -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Denied, "no token, or one that is not valid any more")
        .hint("--token-file FILE, or the Unix socket, which needs none")
}

fn rights_error(needed: Role, role: Role) -> ErrorDocument {
    ErrorDocument::new(
        ErrorCode::Denied,
        format!("this needs the role {needed}, and the token has the role {role}"),
    )
    .hint(format!("wattle token new --role {needed}"))
}
