//! Looking for who else holds a document: one lookup at a time for each, and who waits for its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use wattle_docs::{Input, Replica};
use wattle_types::{DocId, DocTag, NodeId, ProviderKey};

use super::shard::{Inboxes, Item};
use super::switch::{Heard, Switch};
use super::{Documents, HOLDERS_MAX, SEEK_MAX, look_into};

/// How long who may hold a document has to be reached and to give it, after the lookup named it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// A lookup that ended without success is not repeated sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long a member that is here has to give a document before others are asked for it.
const BRINGS_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a document has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lookups that are asked of the DHT at once: a quarter of what it does at a time.
const LOOKUPS_MAX: usize = 64;

/// What is known of who should hold a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nobody is said to.
    Nobody,
    /// Somebody is said to, and is not here.
    Promised,
    /// Somebody who is said to is here.
    Reached,
}

/// The lookups of a node: at most one for each document here.
pub(super) struct Lookups {
    places: Arc<Semaphore>,
    running: BTreeMap<DocId, Vec<oneshot::Sender<()>>>,
    ended: BTreeMap<DocId, Instant>,
}

impl Default for Lookups {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { places, running: BTreeMap::new(), ended: BTreeMap::new() }
    }
}

impl Lookups {
    /// Says whether a lookup is to be started.
    fn begin(&mut self, doc: DocId) -> bool {
        let begins = !self.running.contains_key(&doc);
        if begins {
            self.running.insert(doc, Vec::new());
        }
        begins
    }

    /// Ends a lookup: who waits goes on.
    pub(super) fn ended(&mut self, doc: DocId) {
        self.running.remove(&doc);
        self.ended.retain(|_, at| at.elapsed() < LOOK_AGAIN);
        self.ended.insert(doc, Instant::now());
    }

    fn was_looked_for(&self, doc: &DocId) -> bool {
        self.ended.get(doc).is_some_and(|at| at.elapsed() < LOOK_AGAIN)
    }
}

/// Waits until a document has arrived, at most so long; says whether it has.
async fn arrives(inboxes: &Inboxes, doc: DocId, within: Duration) -> bool {
    let arrived = async {
        while let Some(inbox) = inboxes.home(&doc) {
            let is_here =
                move |replica: &Replica| replica.status(&doc).is_none_or(|status| !status.heads.is_empty());
            if look_into(inbox, is_here).await.unwrap_or(true) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(within, arrived).await.is_ok()
}

impl Documents {
    /// Waits until nobody looks any more for a document that has not arrived: it is here then, or was not to
    /// be had. Begins a lookup if none is running and the last was a while ago.
    pub(crate) async fn looked_for(&self, doc: DocId) {
        let awaited = move |replica: &Replica| {
            let awaited = replica.status(&doc).is_some_and(|status| status.heads.is_empty());
            replica.access(&doc).filter(|_| awaited).map(|access| access.read.tag())
        };
        let Some(tag) = self.look(doc, awaited).await.flatten() else { return };
        let (ended, wait) = oneshot::channel();
        if self.switch.send(Heard::LookFor { doc, tag, ended }).await.is_ok() {
            // Ignored because an end without a word is an end.
            drop(wait.await);
        }
    }
}

impl Switch {
    pub(super) fn look_for(&mut self, doc: DocId, tag: DocTag, ended: oneshot::Sender<()>) {
        if !self.lookups.running.contains_key(&doc) && !self.lookups.was_looked_for(&doc) {
            self.seek(doc, tag, Known::Promised);
        }
        if let Some(waiting) = self.lookups.running.get_mut(&doc) {
            waiting.retain(|other| !other.is_closed());
            waiting.push(ended);
        }
    }

    /// What is known of these, who should hold a document.
    pub(super) fn is_reached(&self, members: &[NodeId]) -> Known {
        match members {
            [] => Known::Nobody,
            members if members.iter().any(|member| self.links.is_open(member)) => Known::Reached,
            _ => Known::Promised,
        }
    }

    /// Looks for who else holds a document, unless somebody who is `known` brings it at once.
    pub(super) fn seek(&mut self, doc: DocId, tag: DocTag, known: Known) {
        if !self.lookups.begin(doc) {
            return;
        }
        let (overlay, heard, inboxes) = (self.overlay.clone(), self.heard.clone(), self.inboxes.clone());
        let key = ProviderKey::of_document(overlay.network(), &tag);
        let places = Arc::clone(&self.lookups.places);
        tokio::spawn(async move {
            if known == Known::Reached && arrives(&inboxes, doc, BRINGS_WITHIN).await {
                // Ignored because a switch that ended has nobody to tell.
                return drop(heard.send(Heard::Sought(doc)).await);
            }
            let place = places.acquire().await;
            let found = overlay.find_providers(key, HOLDERS_MAX, SEEK_MAX).await.unwrap_or_default();
            drop(place);
            let others: Vec<_> = found.into_iter().filter(|peer| *peer != overlay.id()).collect();
            let hope = known != Known::Nobody || !others.is_empty();
            for peer in others {
                if let Some(inbox) = inboxes.home(&doc) {
                    // Ignored because a machine that ended has nobody to tell.
                    drop(inbox.send(Item::Input(Input::Found { doc, peer })).await);
                }
                // Ignored because a switch that ended has nobody to tell.
                drop(heard.send(Heard::FoundAt(peer)).await);
            }
            if hope {
                arrives(&inboxes, doc, ARRIVES_WITHIN).await;
            }
            // Ignored because a switch that ended has nobody to tell.
            drop(heard.send(Heard::Sought(doc)).await);
        });
    }
}
