//! The one stream of events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as Frame, KeepAlive};
use futures::stream::{self, Stream, StreamExt as _};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::super::documents::{ErrorDocument, EventLine, EventTopic, NodeEvent};
use super::super::extract::Parameters;
use super::super::failure::ApiFailure;
use crate::node::Node;
use crate::ring::Ring;

/// A comment line this often tells a reader that a quiet stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Comma-separated: peers, members, dht, node. All when absent.
    topics: Option<String>,
    /// Begin after the event with this id; with what happens from now on when absent.
    since: Option<u64>,
}

/// What happens, as server-sent events. Ids grow by one; an event of type `gap` says how many were missed. A
/// reader that comes back with `Last-Event-ID` goes on where it was.
#[utoipa::path(get, path = "/events", tag = "node", params(EventsQuery),
    responses((status = 200, body = EventLine, content_type = "text/event-stream"),
        (status = "default", body = ErrorDocument)))]
pub(super) async fn events(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, ApiFailure> {
    let topics = read_topics(query.topics.as_deref())?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let since = last.or(query.since).unwrap_or_else(|| node.events.newest());
    let reader = Reader { ring: Arc::clone(&node.events), news: node.events.watch(), seen: since };
    let stop = node.stop.clone();
    let frames = reader
        .lines()
        .take_until(async move {
            // The last events of a stopping node are still worth sending.
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        })
        .filter(move |line| std::future::ready(is_wanted(line, &topics)))
        .map(|line| Ok(frame(&line)));
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn read_topics(text: Option<&str>) -> Result<Vec<EventTopic>, ApiFailure> {
    let Some(text) = text else { return Ok(EventTopic::ALL.to_vec()) };
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            EventTopic::ALL.into_iter().find(|topic| topic.name() == name).ok_or_else(|| {
                ApiFailure::usage(format!("`{name}` is no topic of events")).hint("peers, members, dht, node")
            })
        })
        .collect()
}

fn is_wanted(line: &EventLine, topics: &[EventTopic]) -> bool {
    topics.contains(&line.topic) || matches!(line.event, NodeEvent::Gap { .. })
}

fn frame(line: &EventLine) -> Frame {
    let data = serde_json::to_string(line).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    Frame::default().id(line.id.to_string()).event(line.event.name()).data(data)
}

struct Reader {
    ring: Arc<Ring<EventLine>>,
    news: watch::Receiver<u64>,
    seen: u64,
}

impl Reader {
    fn lines(self) -> impl Stream<Item = EventLine> {
        stream::unfold(self, |mut reader| async move {
            loop {
                reader.news.mark_unchanged();
                let unread = reader.ring.after(reader.seen);
                let mut lines = unread.lines;
                if unread.lost > 0 {
                    // The gap takes the place of the last event that is gone, so that ids stay without holes.
                    let id = unread.first.saturating_sub(1);
                    let event = NodeEvent::Gap { lost: unread.lost };
                    lines.insert(0, EventLine { id, ts: Timestamp::now(), topic: event.topic(), event });
                }
                if let Some(last) = lines.last() {
                    reader.seen = last.id;
                    return Some((stream::iter(lines), reader));
                }
                // A number from before a restart is beyond the newest one: start over with what comes.
                reader.seen = reader.seen.min(reader.ring.newest());
                reader.news.changed().await.ok()?;
            }
        })
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(ring: &Ring<EventLine>) {
        ring.push(|id| {
            let event = NodeEvent::Table { size: id };
            EventLine { id, ts: Timestamp::UNIX_EPOCH, topic: event.topic(), event }
        });
    }

    #[tokio::test]
    async fn ids_grow_by_one_and_a_slow_reader_gets_a_gap_in_their_place() {
        let ring = Arc::new(Ring::new(3));
        let reader = |seen| Reader { ring: Arc::clone(&ring), news: ring.watch(), seen };
        for _ in 0..5 {
            push(&ring);
        }
        let mut lines = Box::pin(reader(0).lines());
        let gap = lines.next().await.unwrap();
        assert_eq!((gap.id, gap.event), (2, NodeEvent::Gap { lost: 2 }));
        for id in 3..=5 {
            assert_eq!(lines.next().await.unwrap().id, id);
        }
        push(&ring);
        assert_eq!(lines.next().await.unwrap().id, 6);

        let mut resumed = Box::pin(reader(4).lines());
        assert_eq!(resumed.next().await.unwrap().id, 5);
    }

    #[test]
    fn an_unknown_topic_is_refused() {
        assert!(read_topics(Some("peers,weather")).is_err());
        assert_eq!(read_topics(Some("dht")).unwrap(), [EventTopic::Dht]);
    }
}
