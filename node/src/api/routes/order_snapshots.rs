//! Routes about the ordered log in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;

use super::super::documents::{
    ErrorDocument, OrderArchive, OrderArchiveRow, OrderCertified, OrderRestoreDocument, OrderRestoreRequest,
    OrderRestoreSchema, OrderSnapshotDocument, OrderSnapshotRequest, OrderSnapshotSchema,
    OrderSnapshotsDocument, OrderSnapshotsSchema,
};
use super::super::extract::Json;
use super::super::failure::ApiFailure;
use super::order::{disk_failure, join_failure, log, role};
use crate::clock::timestamp;
use crate::exit::ErrorCode;
use crate::node::Node;
use crate::order::{ArchiveError, Archived, BadArchive, CompactError, FileOrDir, RestoreError, archives};

type Result<T> = std::result::Result<T, ApiFailure>;

/// What is begun is done, also when whoever asked has gone: half of it would be worse.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|_stopped| wattle_net::Stopped.into())
}

fn dir(node: &Node) -> PathBuf {
    node.paths.data_dir.join("snapshots")
}

fn archive(archived: &Archived) -> OrderArchive {
    OrderArchive {
        file: archived.file.display().to_string(),
        bytes: archived.bytes,
        chain: archived.chain.to_string(),
        height: archived.height.0,
        state_height: archived.base.0,
        time: timestamp(archived.time),
    }
}

fn absolute(file: &str) -> Result<PathBuf> {
    let path = PathBuf::from(file);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(ApiFailure::usage(format!("{file} is no whole path: the node does not know from where on")))
}

/// The logs in files that this node wrote, and the state that it gives others.
#[utoipa::path(get, path = "/order/snapshots", tag = "order",
    responses((status = 200, body = OrderSnapshotsDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Answer<OrderSnapshotsDocument>> {
    let log = log(&node)?;
    let dir = dir(&node);
    let found = tokio::task::spawn_blocking(move || archives(&dir)).await;
    let found = found.map_err(|_stopped| ApiFailure::from(wattle_net::Stopped))?;
    let found = found.map_err(|error| ApiFailure::new(ErrorCode::Failed, error.to_string()))?;
    let row = |(path, archived): &(PathBuf, std::result::Result<Archived, BadArchive>)| match archived {
        Ok(archived) => OrderArchiveRow::Archive(archive(archived)),
        Err(why) => OrderArchiveRow::Damaged { file: path.display().to_string(), why: why.to_string() },
    };
    let certified = log.snapshot().await.map_err(disk_failure)?;
    Ok(Answer(OrderSnapshotsDocument {
        schema: OrderSnapshotsSchema::V1,
        snapshots: found.iter().map(row).collect(),
        certified: certified.map(|(height, bytes)| OrderCertified { height: height.0, bytes }),
        first: log.first().await.map_err(disk_failure)?.0,
    }))
}

/// Write the log into a file: the newest state for which a quorum vouches, and every block behind it.
#[utoipa::path(post, path = "/order/snapshots", tag = "order", request_body = OrderSnapshotRequest,
    responses((status = 200, body = OrderSnapshotDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderSnapshotRequest>,
) -> Result<Answer<OrderSnapshotDocument>> {
    let log = log(&node)?;
    let to = match &request.file {
        Some(file) => FileOrDir::File(absolute(file)?),
        None => FileOrDir::Dir(dir(&node)),
    };
    let (order, of) = (node.order.clone(), Arc::clone(&log));
    let archived = to_its_end(async move { order.archive(&of, to).await }).await?.map_err(archive_failure)?;
    let removed = if request.compact {
        let (order, of) = (node.order.clone(), Arc::clone(&log));
        let compacted = to_its_end(async move { order.compact(&of).await }).await?;
        compacted.map_err(|error: CompactError| {
            ApiFailure::new(ErrorCode::Failed, error.to_string())
                .detail("the file", format!("{} is whole", archived.file.display()))
        })?
    } else {
        (0, log.first().await.map_err(disk_failure)?)
    };
    Ok(Answer(OrderSnapshotDocument {
        schema: OrderSnapshotSchema::V1,
        snapshot: archive(&archived),
        removed: removed.0,
        first: removed.1.0,
    }))
}

fn archive_failure(error: ArchiveError) -> ApiFailure {
    match error {
        ArchiveError::Disk(error) => disk_failure(error),
        ArchiveError::File(error) => {
            ApiFailure::new(ErrorCode::Failed, format!("the file cannot be written: {error}"))
        }
    }
}

/// Go on from a file. All of it is checked before anything changes.
#[utoipa::path(post, path = "/order/snapshots/restore", tag = "order", request_body = OrderRestoreRequest,
    responses((status = 200, body = OrderRestoreDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn restore(
    State(node): State<Arc<Node>>,
    Json(request): Json<OrderRestoreRequest>,
) -> Result<Answer<OrderRestoreDocument>> {
    let file = absolute(&request.file)?;
    let (order, from) = (node.order.clone(), file.clone());
    let restored = to_its_end(async move { order.restore(from).await }).await?;
    let log = restored.map_err(|error| restore_failure(&file, error))?;
    let first = log.first().await.map_err(disk_failure)?;
    Ok(Answer(OrderRestoreDocument {
        schema: OrderRestoreSchema::V1,
        chain: log.chain().to_string(),
        role: role(&log),
        height: log.tip().borrow().0,
        first: first.0,
    }))
}

fn restore_failure(file: &Path, error: RestoreError) -> ApiFailure {
    let file = file.display();
    match error {
        RestoreError::Join(error) => join_failure(error),
        RestoreError::Bad(BadArchive::Unreadable(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            ApiFailure::new(ErrorCode::NotFound, format!("there is no file {file}"))
                .hint("wattle order snapshot list")
        }
        RestoreError::Bad(BadArchive::Unreadable(error)) => {
            ApiFailure::new(ErrorCode::Failed, format!("{file} cannot be read: {error}"))
        }
        RestoreError::Bad(why) => ApiFailure::new(ErrorCode::Invalid, format!("invalid: {file}: {why}")),
        RestoreError::NotAhead { .. } => {
            ApiFailure::new(ErrorCode::Conflict, format!("there is nothing to restore: {error}"))
                .hint("wattle order status")
        }
        RestoreError::InPart { .. } => {
            ApiFailure::new(ErrorCode::Failed, format!("not all was taken: {error}"))
                .detail("the rest", "comes from those who keep the log")
                .hint("wattle order status")
        }
    }
}
