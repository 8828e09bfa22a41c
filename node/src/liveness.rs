//! Brings what membership says of who is there to the overlay, the documents and the apps, as `wattle_weave::liveness`
//! routes it.

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::Overlay;
use wattle_types::Liveness;
use wattle_weave::liveness::{Caution, Change, to_apps};

use crate::apps::Apps;
use crate::documents::Documents;
use crate::members::{Members, Told};
use crate::node::Node;

/// Who is told.
pub struct Hearers {
    /// Dials, and keeps the routing table.
    pub overlay: Overlay,
    /// Look for those who share them.
    pub documents: Documents,
    /// Every one of them.
    pub apps: Apps,
}

/// Tells what `told` says, until `stop`. Who tells slowly misses some, and looks at the whole.
pub async fn tell(
    hearers: Hearers,
    members: Members,
    mut told: broadcast::Receiver<Told>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let mut caution = Caution::default();
    loop {
        let told = tokio::select! {
            told = told.recv() => told,
            () = stop.cancelled() => return,
        };
        let changes = match told {
            Ok(told) => caution.hear(&told.event),
            Err(RecvError::Lagged(_)) => caution.see(&members.view()),
            Err(RecvError::Closed) => return,
        };
        for change in changes {
            hearers.tell(change, &stop, &tasks).await;
        }
    }
}

impl Hearers {
    /// Those of a node.
    pub(crate) fn of(node: &Node) -> Self {
        let (overlay, documents, apps) = (node.overlay.clone(), node.documents.clone(), node.apps.clone());
        Self { overlay, documents, apps }
    }

    async fn tell(&self, change: Change, stop: &CancellationToken, tasks: &TaskTracker) {
        let Change { member, liveness, began_again } = change;
        self.documents.liveness(member, liveness).await;
        self.apps.hear(to_apps(change)).await;
        if self.overlay.liveness(member, liveness).await.is_err() {
            // A node that stops dials nobody.
            return;
        }
        if began_again && self.overlay.began_again(member).await.is_err() {
            return;
        }
        if liveness == Liveness::Away {
            let overlay = self.overlay.clone();
            // As many as there are connections wait for a ping; who has none is done at once.
            tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                if overlay.close_unless_it_answers(member).await.is_err() {
                    tracing::trace!("a node that stops closes its connections");
                }
            }));
        }
    }
}
