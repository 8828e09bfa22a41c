//! Members of this process over real sockets, as they run in the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wattle::members::{About, Members, Start, Told};
use wattle_store::{Owner, Store};
use wattle_swim::{Reach, State, Timing};
use wattle_types::NodeId;

use crate::overlay::{Node, PATIENCE, fail};

/// A member as it runs in the binary, but for what else a node has.
pub struct Member {
    /// Its overlay.
    pub node: Node,
    /// Its membership.
    pub members: Members,
    /// What it told since it started.
    pub told: broadcast::Receiver<Told>,
    timing: Timing,
    stop: DropGuard,
    tasks: TaskTracker,
    dir: tempfile::TempDir,
}

impl Member {
    /// Starts member `number`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(number: u32, timing: Timing) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| fail(&error.to_string()));
        Self::start_in(Node::start(number).await, dir, timing).await
    }

    async fn start_in(node: Node, dir: tempfile::TempDir, timing: Timing) -> Self {
        let store = Store::open(&dir.path().join("data"), Owner::this_process("test"));
        let store = Arc::new(store.unwrap_or_else(|error| fail(&error.to_string())));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let about = About {
            name: String::new(),
            reach: Reach::Public,
            roles: BTreeSet::new(),
            tags: BTreeMap::new(),
            external: Vec::new(),
        };
        let (overlay, key) = (&node.overlay, &node.key);
        let begun = Instant::now();
        let (members, [told, _]) = loop {
            let (about, timing) = (about.clone(), timing.clone());
            let start = Start { overlay, store: &store, key, about, timing, port: 0, faults: None };
            match Members::start(start, &stop, &tasks).await {
                Ok(started) => break started,
                // The run before has ended, and its listener is about to.
                Err(_) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => fail(&error),
            }
        };
        Self { node, members, told, timing, stop: stop.drop_guard(), tasks, dir }
    }

    /// Says goodbye, ends, and starts again with what is on its disk.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(self) -> Self {
        let Self { node, members, timing, stop, tasks, dir, .. } = self;
        drop((stop, members));
        tasks.close();
        tasks.wait().await;
        Self::start_in(node, dir, timing).await
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// How many of these it sees alive.
    #[must_use]
    pub fn sees(&self, ids: &[NodeId]) -> usize {
        let view = self.members.view();
        view.members.iter().filter(|it| it.state == State::Alive && ids.contains(&it.id)).count()
    }
}
