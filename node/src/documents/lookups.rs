//! Looking for who else holds a document: one lookup at a time for each, and who waits for its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wattle_docs::{Input, Replica};
use wattle_types::{DocId, DocTag, ProviderKey};

use super::shard::Item;
use super::switch::{Heard, Switch};
use super::{Documents, HOLDERS_MAX, SEEK_MAX};

/// How long who may hold a document has to be reached and to give it, after the lookup named it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// A lookup that ended without success is not repeated sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The lookups of a node: at most one for each document here.
#[derive(Default)]
pub(super) struct Lookups {
    running: BTreeMap<DocId, Vec<oneshot::Sender<()>>>,
    ended: BTreeMap<DocId, Instant>,
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
            self.seek(doc, tag, true);
        }
        if let Some(waiting) = self.lookups.running.get_mut(&doc) {
            waiting.retain(|other| !other.is_closed());
            waiting.push(ended);
        }
    }

    /// Looks for who else holds a document. Where somebody is `known` who may, time is left to reach them.
    pub(super) fn seek(&mut self, doc: DocId, tag: DocTag, known: bool) {
        if !self.lookups.begin(doc) {
            return;
        }
        let (overlay, heard, inboxes) = (self.overlay.clone(), self.heard.clone(), self.inboxes.clone());
        let key = ProviderKey::of_document(overlay.network(), &tag);
        tokio::spawn(async move {
            let found = overlay.find_providers(key, HOLDERS_MAX, SEEK_MAX).await.unwrap_or_default();
            let others: Vec<_> = found.into_iter().filter(|peer| *peer != overlay.id()).collect();
            let hope = known || !others.is_empty();
            for peer in others {
                if let Some(inbox) = inboxes.home(&doc) {
                    // Ignored because a machine that ended has nobody to tell.
                    drop(inbox.send(Item::Input(Input::Found { doc, peer })).await);
                }
                // Ignored because a switch that ended has nobody to tell.
                drop(heard.send(Heard::FoundAt(peer)).await);
            }
            if hope {
                tokio::time::sleep(ARRIVES_WITHIN).await;
            }
            // Ignored because a switch that ended has nobody to tell.
            drop(heard.send(Heard::Sought(doc)).await);
        });
    }
}
