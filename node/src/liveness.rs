//! Brings what membership says of who is there to the overlay, the documents and the apps, as `wattle_weave::liveness`
//! routes it.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_types::Liveness;
use wattle_weave::liveness::{Caution, Change, to_apps};

use crate::members::Told;
use crate::node::Node;

/// Tells, until `stop`. Who tells slowly misses some, and looks at the whole.
pub(crate) async fn tell(
    node: Arc<Node>,
    mut members: broadcast::Receiver<Told>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let mut caution = Caution::default();
    loop {
        let told = tokio::select! {
            told = members.recv() => told,
            () = stop.cancelled() => return,
        };
        let changes = match told {
            Ok(told) => caution.hear(&told.event),
            Err(RecvError::Lagged(_)) => caution.see(&node.members.view()),
            Err(RecvError::Closed) => return,
        };
        for change in changes {
            tell_one(&node, change, &stop, &tasks).await;
        }
    }
}

async fn tell_one(node: &Arc<Node>, change: Change, stop: &CancellationToken, tasks: &TaskTracker) {
    let Change { member, liveness } = change;
    node.documents.liveness(member, liveness).await;
    node.apps.hear(to_apps(change)).await;
    if node.overlay.liveness(member, liveness).await.is_err() {
        // A node that stops dials nobody.
        return;
    }
    if liveness == Liveness::Away {
        let overlay = node.overlay.clone();
        // As many as there are connections wait for a ping; who has none is done at once.
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            if overlay.close_unless_it_answers(member).await.is_err() {
                tracing::trace!("a node that stops closes its connections");
            }
        }));
    }
}
