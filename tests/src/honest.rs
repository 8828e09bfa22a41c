//! A node as it runs but for its apps and its API: its overlay, its disk, its documents.

use std::path::Path;
use std::sync::Arc;

use automerge::Automerge;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wattle::documents::Documents;
use wattle_docs::Role;
use wattle_store::{Owner, Store};
use wattle_types::DocId;

use crate::documents::put;
use crate::overlay::{Node, fail, until};

/// A node with documents.
pub struct Honest {
    /// Its overlay.
    pub node: Node,
    /// Its documents.
    pub documents: Documents,
    stop: DropGuard,
    tasks: TaskTracker,
    dir: tempfile::TempDir,
}

fn started(node: &Node, dir: &Path) -> Result<(Documents, DropGuard, TaskTracker), String> {
    let store = Store::open(&dir.join("data"), Owner::this_process("test"));
    let store = Arc::new(store.map_err(|error| error.to_string())?);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    // No app runs here; what apps would be told is read and dropped.
    let (apps, mut told) = tokio::sync::mpsc::channel(64);
    tasks.spawn(async move { while told.recv().await.is_some() {} });
    let documents = Documents::start(&node.overlay, &store, &node.key, &stop, apps, &tasks)?;
    Ok((documents, stop.drop_guard(), tasks))
}

impl Honest {
    /// Starts node `number`.
    pub async fn start(number: u32) -> Self {
        Self::start_on(Node::start(number).await)
    }

    /// Starts documents on a node.
    pub fn start_on(node: Node) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| fail(&error.to_string()));
        let (documents, stop, tasks) = started(&node, dir.path()).unwrap_or_else(|error| fail(&error));
        Self { node, documents, stop, tasks, dir }
    }

    /// Stops its documents and starts them again with what is on its disk.
    pub async fn restart_documents(self) -> Self {
        let Self { node, documents, stop, tasks, dir } = self;
        drop((stop, documents));
        tasks.close();
        tasks.wait().await;
        let (documents, stop, tasks) = started(&node, dir.path()).unwrap_or_else(|error| fail(&error));
        Self { node, documents, stop, tasks, dir }
    }

    /// Stops its documents; its overlay goes on.
    pub async fn without_documents(self) -> Node {
        let Self { node, documents, stop, tasks, dir } = self;
        drop((stop, documents));
        tasks.close();
        tasks.wait().await;
        drop(dir);
        node
    }

    /// Changes a field of a document.
    pub async fn edit(&self, doc: DocId, name: &str) {
        let edited = self.documents.edit(doc, None, put(name, "x")).await;
        edited.map(drop).unwrap_or_else(|error| fail(&error.to_string()));
    }

    /// The heads of a document on disk.
    pub async fn heads(&self, doc: DocId) -> Vec<[u8; 32]> {
        self.documents.status(doc).await.map(|status| status.heads).unwrap_or_default()
    }

    /// A copy of a document.
    pub async fn saved(&self, doc: DocId) -> Automerge {
        let saved = self.documents.read(doc, Automerge::save).await.map_err(|error| error.to_string());
        let loaded = saved.and_then(|bytes| Automerge::load(&bytes).map_err(|error| error.to_string()));
        loaded.unwrap_or_else(|error| fail(&error))
    }

    /// Whether a document has a field.
    pub async fn has(&self, doc: DocId, name: &str) -> bool {
        let document = self.saved(doc).await;
        automerge::ReadDoc::get(&document, automerge::ROOT, name).is_ok_and(|value| value.is_some())
    }

    /// Lets another into a document.
    pub async fn invite(&self, other: &Self, doc: DocId, role: Role) {
        let invited = self.documents.invite(doc, role, None, None).await;
        let (access, bearer) = invited.unwrap_or_else(|error| fail(&error.to_string()));
        let joined = other.documents.join(access, Some(bearer), Some(self.node.id())).await;
        joined.map(drop).unwrap_or_else(|error| fail(&error.to_string()));
    }

    /// Waits until another holds exactly what this node holds of a document.
    pub async fn until_equal(&self, other: &Self, doc: DocId) {
        until("both have the document", || async {
            !other.heads(doc).await.is_empty() && other.heads(doc).await == self.heads(doc).await
        })
        .await;
    }
}
