//! Saying in the DHT what this node holds: one document after the other, until each was taken up.
//!
//! A node that comes by a thousand documents at once would ask more of the DHT than it does at a time, and be
//! refused by whoever is to remember them. So they wait here, and go at a pace that everybody keeps up with. What was
//! taken up in an earlier run is not said again: the DHT repeats it by itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use wattle_net::Overlay;
use wattle_types::{DocTag, ProviderKey};

use super::SEEK_MAX;

/// Between two announcements where many wait. Each costs a lookup and a question to twenty peers, here and there, and
/// nobody waits for it: who was invited, and who is a member, is reached without.
const PAUSE: Duration = Duration::from_millis(100);
/// So many go without a pause after a while without any.
const BURST: u32 = 16;
/// Announcements under way. One to peers that do not answer takes as long as a lookup.
const AT_ONCE: usize = 16;
/// Before one that was not taken up is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What is still to be said. At most the documents of this node: each stands here once.
#[derive(Clone, Default)]
pub(super) struct Announcements(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    tags: Mutex<VecDeque<DocTag>>,
    more: Notify,
}

impl Announcements {
    pub(super) fn add(&self, tag: DocTag) {
        let mut tags = self.0.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if !tags.contains(&tag) {
            tags.push_back(tag);
        }
        self.0.more.notify_one();
    }

    pub(super) fn remove(&self, tag: &DocTag) {
        self.0.tags.lock().unwrap_or_else(PoisonError::into_inner).retain(|it| it != tag);
    }

    async fn next(&self) -> DocTag {
        loop {
            let next = self.0.tags.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(tag) => return tag,
                None => self.0.more.notified().await,
            }
        }
    }

    /// Announces until `stop`.
    pub(super) async fn run(self, overlay: Overlay, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut due = Instant::now();
        loop {
            let next = async { (self.next().await, Arc::clone(&places).acquire_owned().await) };
            let (tag, place) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => next,
            };
            let key = ProviderKey::of_document(overlay.network(), &tag);
            if overlay.is_providing(key).await.unwrap_or(true) {
                continue;
            }
            let (overlay, waiting) = (overlay.clone(), self.clone());
            tokio::spawn(async move {
                let announced = overlay.provide(key, SEEK_MAX).await;
                drop(place);
                // Whom nobody heard repeats it by itself once it was taken up.
                if !overlay.is_providing(key).await.unwrap_or(true) {
                    tracing::debug!(error = ?announced.err(), "a document was not announced yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                    waiting.add(tag);
                }
            });
            let now = Instant::now();
            due = due.max(now.checked_sub(PAUSE * BURST).unwrap_or(now)) + PAUSE;
            tokio::time::sleep_until(due.into()).await;
        }
    }
}
