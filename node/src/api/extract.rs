//! Reads requests and writes streams, with the same errors as everything else.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::documents::ErrorDocument;
use super::failure::ApiFailure;
use crate::exit::ErrorCode;

/// Largest body of a request: a topic message of 128 KiB in base64 is 175 KiB.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body about a document: its longest text, or an Automerge file of 16 MiB, in base64.
pub(super) const DOCUMENT_BODY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Longest time for a whole body; it comes from this machine.
const BODY_READ_MAX: Duration = Duration::from_secs(10);
/// Longest wait that a caller may ask for: what is longer than a day is a mistake in units.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Lines that wait for a slow reader of a stream.
pub(super) const STREAM_LINES_MAX: usize = 64;

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let read = tokio::time::timeout(BODY_READ_MAX, Bytes::from_request(request, state)).await;
        let Ok(read) = read else {
            let error =
                ErrorDocument::new(ErrorCode::Timeout, "the body of the request did not arrive in 10s");
            return Err(ApiFailure::with_status(StatusCode::REQUEST_TIMEOUT, error));
        };
        let bytes = read.map_err(|rejection| {
            ApiFailure::with_status(
                rejection.status(),
                ErrorDocument::new(
                    ErrorCode::Usage,
                    format!("the body cannot be read: {}", rejection.body_text()),
                ),
            )
        })?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|error| ApiFailure::usage(format!("the body is wrong: {error}")))
    }
}

/// The one variable part of a path, percent-decoded.
pub(super) struct Part(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Part {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(part)) => Ok(Self(part)),
            Err(rejection) => Err(ApiFailure::usage(format!("the path is wrong: {}", rejection.body_text()))),
        }
    }
}

/// The query of a URL.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(ApiFailure::usage(format!("the query is wrong: {}", rejection.body_text())))
            }
        }
    }
}

/// How long to wait: what was asked for, else the default. 0 is as long as possible.
pub(super) fn timeout(asked_ms: Option<u64>, default: Duration) -> Duration {
    match asked_ms {
        None => default,
        Some(0) => TIMEOUT_MAX,
        Some(ms) => Duration::from_millis(ms).min(TIMEOUT_MAX),
    }
}

/// Answers with what arrives on the channel, one JSON object a line, until its sender is dropped.
pub(super) fn json_lines<T: Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response {
    let stream = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let mut bytes = serde_json::to_vec(&line).unwrap_or_else(|error| {
            // This cannot happen because the lines are plain data with text keys.
            format!("{{\"type\":\"error\",\"error\":\"{error}\"}}").into_bytes()
        });
        bytes.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(bytes), lines))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response
}
