//! Routes about settings and the log.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;

use super::super::documents::{
    ConfigDocument, ErrorDocument, LogLevelDocument, LogLevelRequest, LogLevelSchema, LogLine, LogSeverity,
    LogsDocument, LogsSchema,
};
use super::super::extract::{Json, Parameters, STREAM_LINES_MAX, json_lines};
use super::super::failure::ApiFailure;
use crate::node::Node;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigQuery {
    /// Only the keys below this one, such as `p2p`.
    key: Option<String>,
}

/// The settings the node runs with, and where each comes from.
#[utoipa::path(get, path = "/config", tag = "admin", params(ConfigQuery),
    responses((status = 200, body = ConfigDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn config(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<ConfigQuery>,
) -> Answer<ConfigDocument> {
    Answer(node.config.document(query.key.as_deref()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// Only lines at least this bad.
    level: Option<LogSeverity>,
    /// Only the lines of the last so many milliseconds.
    since_ms: Option<u64>,
    /// Go on with new lines: the answer is then JSON Lines.
    #[serde(default)]
    follow: bool,
}

impl LogsQuery {
    fn wants(&self, line: &LogLine, now: Timestamp) -> bool {
        let bad_enough = self.level.is_none_or(|level| line.level >= level);
        let late_enough = self.since_ms.is_none_or(|ms| {
            let span = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
            now.duration_since(line.ts) <= span
        });
        bad_enough && late_enough
    }
}

/// The newest lines of the log.
#[utoipa::path(get, path = "/logs", tag = "admin", params(LogsQuery),
    responses((status = 200, body = LogsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn logs(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<LogsQuery>,
) -> Response {
    let ring = Arc::clone(node.telemetry.lines());
    let now = Timestamp::now();
    let mut unread = ring.after(0);
    let mut seen = ring.newest().max(unread.lines.last().map_or(0, |line| line.id));
    unread.lines.retain(|line| query.wants(line, now));
    if !query.follow {
        return Answer(LogsDocument { schema: LogsSchema::V1, lines: unread.lines }).into_response();
    }
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    let (mut news, stop) = (ring.watch(), node.stop.clone());
    tokio::spawn(async move {
        let mut next = unread.lines;
        loop {
            for line in next {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            news.mark_unchanged();
            let unread = ring.after(seen);
            seen = unread.lines.last().map_or(seen, |line| line.id);
            next = unread
                .lines
                .into_iter()
                .filter(|line| query.level.is_none_or(|level| line.level >= level))
                .collect();
            if next.is_empty() {
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                    () = stop.cancelled() => return,
                }
            }
        }
    });
    json_lines(lines)
}

/// What is logged now.
#[utoipa::path(get, path = "/logs/level", tag = "admin",
    responses((status = 200, body = LogLevelDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn log_level(State(node): State<Arc<Node>>) -> Answer<LogLevelDocument> {
    Answer(LogLevelDocument { schema: LogLevelSchema::V1, level: node.telemetry.filter(), before: None })
}

/// Change what is logged from now on.
#[utoipa::path(post, path = "/logs/level", tag = "admin", request_body = LogLevelRequest,
    responses((status = 200, body = LogLevelDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn set_log_level(
    State(node): State<Arc<Node>>,
    Json(request): Json<LogLevelRequest>,
) -> Result<Answer<LogLevelDocument>, ApiFailure> {
    let before = Some(node.telemetry.set_filter(&request.level).map_err(ApiFailure::usage)?);
    Ok(Answer(LogLevelDocument { schema: LogLevelSchema::V1, level: request.level, before }))
}
