//! Routes that need no overlay: who may come in, and which program this is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use wattle_types::NodeId;

use super::super::access::{SESSION_LIVES, TokenError};
use super::super::documents::{
    ErrorDocument, LoginCodeDocument, LoginCodeSchema, Role, SessionDocument, SessionRequest, SessionSchema,
    TokenDocument, TokenNewRequest, TokenRevokeRequest, TokenRevokedDocument, TokenRevokedSchema,
    TokenSchema, TokensDocument, TokensSchema, VersionDocument, VersionSchema,
};
use super::super::extract::Json;
use super::super::failure::ApiFailure;
use super::super::guard::Guard;
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;

/// What these routes need.
pub struct Gate {
    /// Who may come in.
    pub guard: Arc<Guard>,
    /// The node.
    pub id: NodeId,
    /// `http://127.0.0.1:7711`, when TCP is on.
    pub url: Option<String>,
}

/// Which program answers.
#[utoipa::path(get, path = "/version", tag = "node", responses((status = 200, body = VersionDocument)))]
pub(super) async fn version() -> axum::Json<VersionDocument> {
    axum::Json(VersionDocument {
        schema: VersionSchema::V1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    })
}

/// Make a code that signs a browser in once.
#[utoipa::path(post, path = "/session/code", tag = "admin",
    responses((status = 200, body = LoginCodeDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn session_code(
    State(gate): State<Arc<Gate>>,
) -> Result<axum::Json<LoginCodeDocument>, ApiFailure> {
    let (code, expires) = gate.guard.access().login_code(unix_now())?;
    let url = gate.url.as_ref().map(|url| format!("{url}/#k={code}"));
    Ok(axum::Json(LoginCodeDocument { schema: LoginCodeSchema::V1, code, url, expires: timestamp(expires) }))
}

/// Exchange a code for a session cookie.
#[utoipa::path(post, path = "/session", tag = "admin", request_body = SessionRequest,
    responses((status = 200, body = SessionDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn session(
    State(gate): State<Arc<Gate>>,
    Json(request): Json<SessionRequest>,
) -> Result<Response, ApiFailure> {
    let signed_in = gate.guard.access().sign_in(&request.code, unix_now()).await;
    let (secret, ends) = signed_in.map_err(|error| match error {
        TokenError::NotFound(_) => {
            let message = "the sign-in link was used already, or is older than a minute";
            ApiFailure::new(ErrorCode::Denied, message).hint("wattle ui")
        }
        other => other.into(),
    })?;
    let cookie = format!(
        "{}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}",
        gate.guard.cookie(),
        SESSION_LIVES.as_secs()
    );
    let document = SessionDocument {
        schema: SessionSchema::V1,
        id: gate.id,
        role: Role::Admin,
        expires: timestamp(ends),
    };
    let mut response = axum::Json(document).into_response();
    let cookie = HeaderValue::from_str(&cookie)
        .map_err(|error| ApiFailure::new(ErrorCode::Failed, error.to_string()))?;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// List the tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "admin",
    responses((status = 200, body = TokensDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn tokens(State(gate): State<Arc<Gate>>) -> axum::Json<TokensDocument> {
    let tokens = gate.guard.access().tokens(unix_now());
    axum::Json(TokensDocument { schema: TokensSchema::V1, tokens })
}

/// Make a token.
#[utoipa::path(post, path = "/tokens", tag = "admin", request_body = TokenNewRequest,
    responses((status = 200, body = TokenDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn new_token(
    State(gate): State<Arc<Gate>>,
    Json(request): Json<TokenNewRequest>,
) -> Result<axum::Json<TokenDocument>, ApiFailure> {
    if request
        .label
        .as_ref()
        .is_some_and(|label| label.chars().count() > 64 || label.chars().any(char::is_control))
    {
        return Err(ApiFailure::usage("a label has at most 64 characters, and no control characters"));
    }
    let now = unix_now();
    let lives = request.expires_ms.map(Duration::from_millis);
    let token = gate.guard.access().new_token(request.role, request.label, lives, now).await?;
    Ok(axum::Json(TokenDocument {
        schema: TokenSchema::V1,
        id: token.id,
        role: request.role,
        token: token.secret,
        expires: lives.map(|span| timestamp(now.after(span))),
    }))
}

/// Revoke a token.
#[utoipa::path(post, path = "/tokens/revoke", tag = "admin", request_body = TokenRevokeRequest,
    responses((status = 200, body = TokenRevokedDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn revoke_token(
    State(gate): State<Arc<Gate>>,
    Json(request): Json<TokenRevokeRequest>,
) -> Result<axum::Json<TokenRevokedDocument>, ApiFailure> {
    gate.guard.access().revoke(&request.id).await?;
    Ok(axum::Json(TokenRevokedDocument { schema: TokenRevokedSchema::V1, id: request.id }))
}

/// The process answers: for a container's liveness probe.
#[utoipa::path(get, path = "/healthz", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The description of this API.
pub(super) async fn openapi_json() -> Response {
    match super::openapi().to_pretty_json() {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => ApiFailure::new(ErrorCode::Failed, error.to_string()).into_response(),
    }
}
