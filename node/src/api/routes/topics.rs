//! Routes about topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use utoipa::IntoParams;
use wattle_net::{Delivery, Subscription};
use wattle_types::{Topic, TopicPattern};

use super::super::documents::{
    Bytes, ErrorDocument, PublishDocument, PublishRequest, PublishSchema, TopicFollowers, TopicLine,
    TopicMessageLine, TopicQuestionRequest, TopicReplyDocument, TopicReplySchema, TopicRow, TopicsDocument,
    TopicsSchema,
};
use super::super::extract::{Json, Parameters, Part, STREAM_LINES_MAX, json_lines, timeout};
use super::super::failure::{ApiFailure, request_failure};
use crate::node::{Node, count, whole_millis};
use crate::telemetry::{continue_trace, current_trace};

type Result<T> = std::result::Result<T, ApiFailure>;

/// Patterns in one subscription.
const PATTERNS_MAX: usize = 64;

/// The topics this node follows or publishes to.
#[utoipa::path(get, path = "/topics", tag = "topics",
    responses((status = 200, body = TopicsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Answer<TopicsDocument>> {
    let topics = node.overlay.topics().await?;
    let row = |info: wattle_net::TopicInfo| TopicRow {
        root: info.root,
        patterns: (info.patterns.into_iter())
            .map(|(pattern, followers)| TopicFollowers {
                pattern: pattern.to_string(),
                followers: count(followers),
            })
            .collect(),
        mesh: info.mesh,
        subscribers: count(info.subscribers.len()),
        received: info.received,
        published: info.published,
    };
    Ok(Answer(TopicsDocument { schema: TopicsSchema::V1, topics: topics.into_iter().map(row).collect() }))
}

/// Publish one message. To answer a request, publish to its `reply_to`.
#[utoipa::path(post, path = "/topics/{topic}/messages", tag = "topics", request_body = PublishRequest,
    params(("topic" = String, Path, description = "Such as sensors.kitchen")),
    responses((status = 200, body = PublishDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn publish(
    State(node): State<Arc<Node>>,
    Part(topic): Part,
    Json(request): Json<PublishRequest>,
) -> Result<Answer<PublishDocument>> {
    let topic: Topic = topic.parse().map_err(ApiFailure::usage)?;
    let bytes = count(request.data_b64.0.len());
    let published = node.overlay.publish(topic.clone(), request.data_b64.0, current_trace()).await?;
    Ok(Answer(PublishDocument {
        schema: PublishSchema::V1,
        topic: topic.to_string(),
        bytes,
        mesh_peers: count(published.mesh_peers),
        local: count(published.local),
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscribeQuery {
    /// Comma-separated patterns such as `sensors.*,lamps.>`.
    patterns: String,
}

/// Messages as they arrive, as JSON Lines. The first line says that the subscription holds.
#[utoipa::path(get, path = "/topics/messages", tag = "topics", params(SubscribeQuery),
    responses((status = 200, body = TopicLine, content_type = "application/jsonl"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn subscribe(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<SubscribeQuery>,
) -> Result<Response> {
    let texts = query.patterns.split(',').map(str::trim).filter(|text| !text.is_empty());
    let patterns: Vec<TopicPattern> =
        texts.map(|text| text.parse().map_err(ApiFailure::usage)).collect::<Result<_>>()?;
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        return Err(ApiFailure::usage(format!("a subscription has 1 to {PATTERNS_MAX} patterns")));
    }
    let names = patterns.iter().map(ToString::to_string).collect();
    let subscription = node.overlay.subscribe(patterns).await?;
    let (sender, lines) = mpsc::channel(STREAM_LINES_MAX);
    tokio::spawn(async move {
        let first = TopicLine::Subscribed { ts: Timestamp::now(), patterns: names };
        if sender.send(first).await.is_ok() {
            forward(&node, subscription, &sender).await;
        }
    });
    Ok(json_lines(lines))
}

async fn forward(node: &Node, mut subscription: Subscription, sender: &mpsc::Sender<TopicLine>) {
    loop {
        let next = tokio::select! {
            next = subscription.next() => next,
            () = sender.closed() => return,
            () = node.stop.cancelled() => None,
        };
        let ts = Timestamp::now();
        let sent = match next {
            Some(Ok(delivery)) => {
                let span = tracing::info_span!("deliver", otel.name = "topic deliver", topic = %delivery.message.topic);
                if let Some(trace) = &delivery.message.trace {
                    continue_trace(&span, trace);
                }
                sender.send(TopicLine::Message(message(node, delivery, ts))).instrument(span).await
            }
            Some(Err(lagged)) => sender.send(TopicLine::Gap { ts, lost: lagged.0 }).await,
            None => {
                let error = ApiFailure::from(wattle_net::Stopped).into_document();
                // Ignored because this is the last line, read or not.
                drop(sender.send(TopicLine::Error { ts, error }).await);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn message(node: &Node, delivery: Delivery, ts: Timestamp) -> TopicMessageLine {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let Delivery { from, sequence, message } = delivery;
    TopicMessageLine {
        ts,
        topic: message.topic.to_string(),
        from,
        name: node.names.of(from),
        seq: sequence,
        bytes: count(message.payload.len()),
        data_b64: Bytes(message.payload.into_vec()),
        reply_to: message.reply_to.map(|topic| topic.to_string()),
        trace_id: message.trace.map(|trace| hex(trace.trace_id.as_slice())),
    }
}

/// Publish a question and wait for the first answer.
#[utoipa::path(post, path = "/topics/{topic}/request", tag = "topics", request_body = TopicQuestionRequest,
    params(("topic" = String, Path, description = "Such as sensors.kitchen")),
    responses((status = 200, body = TopicReplyDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn request(
    State(node): State<Arc<Node>>,
    Part(topic): Part,
    Json(request): Json<TopicQuestionRequest>,
) -> Result<Answer<TopicReplyDocument>> {
    let topic: Topic = topic.parse().map_err(ApiFailure::usage)?;
    let (began, limit) = (Instant::now(), timeout(request.timeout_ms, Duration::from_secs(10)));
    let asked = node.overlay.request(topic.clone(), request.data_b64.0, limit, current_trace()).await;
    let delivery = asked.map_err(|error| request_failure(error, topic.as_str()))?;
    Ok(Answer(TopicReplyDocument {
        schema: TopicReplySchema::V1,
        topic: topic.to_string(),
        from: delivery.from,
        name: node.names.of(delivery.from),
        bytes: count(delivery.message.payload.len()),
        data_b64: Bytes(delivery.message.payload.into_vec()),
        took_ms: whole_millis(began.elapsed()),
    }))
}
