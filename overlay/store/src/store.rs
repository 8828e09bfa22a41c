//! The open store: reads, group commit, and the one failure that ends it.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use wattle_types::{KeyRange, Table, Write};

use crate::failure::Failure;
use crate::lock::{Lock, Owner};
use crate::open::{self, OpenError};
use crate::tables::{Entry, NotCommitted, Tables};

/// Batches that wait for the writer. When it is full, [`Store::commit`] waits: the disk sets the pace.
const QUEUE_BATCHES: usize = 128;

/// Bytes of keys and values in one batch. With a full queue that is 128 MiB; a batch of ours is some
/// kilobytes.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes of one key. The longest of ours is a record key with a peer behind it, 300 bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Writes in one batch.
pub const BATCH_WRITES_MAX: usize = 16 * 1024;

/// A transaction takes no further batch once it has this many bytes, so that a burst does not delay its first
/// batch much.
const GROUP_BYTES: usize = 4 << 20;

/// Bytes that stay free. Every commit writes anew the pages on the way to what it changes, and the bookkeeping
/// of the database with them.
const SPARE_BYTES: u64 = 256 << 10;

/// How often the log says that the disk is full.
const TELL_FULL_EVERY: Duration = Duration::from_secs(60);

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The caller's fault: the batch is over a cap. Nothing changed and the store goes on. To do: split it.
    #[error("a batch with {got} {what} is over the limit of {max}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// The cap.
        max: usize,
    },
    /// No space, or no quota, is left on the disk. Nothing of the batch is there; the store goes on, reads
    /// included, and batches that fit are committed. To do: tell whoever can free space, and try again later.
    #[error("no space is left on the disk of {file} for a batch of {bytes} bytes")]
    Full {
        /// The database.
        file: PathBuf,
        /// Keys and values of the batch.
        bytes: usize,
    },
    /// The disk's fault, now or earlier: the store has stopped. Whether this batch is there after the next
    /// start is open, unless the [`Failure`] says. To do: stop the node; what the batch was to promise must
    /// not be promised.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// The data directory, open and locked. Dropping it finishes the batches that are queued, closes the database
/// and releases the lock; that waits for the disk.
pub struct Store {
    dir: PathBuf,
    tables: Arc<Tables>,
    failed: watch::Sender<Option<Failure>>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Batch>>,
    /// `None` only while dropping.
    writer: Option<JoinHandle<()>>,
    // Last, since fields are dropped in order: the directory is free only when the database is closed.
    lock: Mutex<Lock>,
}

/// Writes that are applied together, and who waits for it.
struct Batch {
    writes: Vec<Write>,
    bytes: usize,
    done: oneshot::Sender<Result<(), (CommitError, Vec<Write>)>>,
}

impl Batch {
    /// About what it needs on the disk: its bytes as they fill pages, and some of a page for every write. Too
    /// little for some, and then the database finds out; too much would refuse what fits.
    fn needs(&self) -> u64 {
        let bytes = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        let writes = u64::try_from(self.writes.len()).unwrap_or(u64::MAX);
        bytes.saturating_mul(2).saturating_add(writes.saturating_mul(1024))
    }

    /// Whether it only frees space. Such a one is tried on the fullest disk: it is the way out.
    fn only_removes(&self) -> bool {
        self.writes.iter().all(|write| !matches!(write, Write::Put { .. }))
    }
}

impl Store {
    /// Opens the data directory, making it at the first start. Blocks on the disk; the database is read once
    /// in full, to verify its checksums.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is not held afterwards.
    pub fn open(dir: &Path, owner: Owner) -> Result<Self, OpenError> {
        let (lock, tables) = open::open(dir, owner)?;
        Self::start(dir, lock, tables).map_err(|source| OpenError::Io { path: dir.to_owned(), source })
    }

    fn start(dir: &Path, lock: Lock, tables: Tables) -> io::Result<Self> {
        let tables = Arc::new(tables);
        let failed = watch::Sender::new(None);
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let writer = std::thread::Builder::new().name("wattle-store".to_owned()).spawn({
            let (tables, failed) = (Arc::clone(&tables), failed.clone());
            // It logs where whoever opened it does.
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            move || tracing::dispatcher::with_default(&dispatch, || write(&tables, batches, &failed))
        })?;
        let lock = Mutex::new(lock);
        Ok(Self { dir: dir.to_owned(), tables, failed, queue: Some(queue), writer: Some(writer), lock })
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on takes what a full disk takes, or again whatever fits: a fault on purpose.
    pub fn pretend_full(&self, full: bool) {
        self.tables.pretend_full(full);
    }

    /// Whether it pretends that the disk is full.
    #[must_use]
    pub fn pretends_full(&self) -> bool {
        self.tables.pretends_full()
    }

    /// The value of a key, as of the last commit. Reads the disk when the page is not in memory.
    ///
    /// # Errors
    /// The [`Failure`] that stopped the store, which a failed read does too.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.read(|tables| tables.get(table, key))
    }

    /// All entries of a table in the order of their keys, as of the last commit. Holds the whole table in
    /// memory and reads the disk: for the start.
    ///
    /// # Errors
    /// The [`Failure`] that stopped the store, which a failed read does too.
    pub fn scan(&self, table: Table) -> Result<Vec<Entry>, Failure> {
        self.read(|tables| tables.range(table, &KeyRange::all(), usize::MAX))
    }

    /// The first entries of a range in the order of their keys, as of the last commit, `limit` at most. To
    /// read on: [`KeyRange::after`] the last key. Reads the disk when the pages are not in memory.
    ///
    /// # Errors
    /// The [`Failure`] that stopped the store, which a failed read does too.
    pub fn range(&self, table: Table, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, Failure> {
        self.read(|tables| tables.range(table, range, limit))
    }

    /// Applies the writes in order, all or none, and resolves when they are on disk. Batches of callers who
    /// wait at the same time share a transaction.
    ///
    /// Waits while the queue is full. Not undone by cancellation: a batch whose future is dropped may be
    /// applied.
    ///
    /// Where they do not fit together on a disk that is full, each is tried alone: a batch may be refused and
    /// a later one committed.
    ///
    /// # Errors
    /// [`CommitError`]; after [`CommitError::Failed`] nothing is acknowledged any more.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.commit_or_return(writes).await.map_err(|(error, _writes)| error)
    }

    /// The same; writes that found no space come back, to be tried again.
    ///
    /// # Errors
    /// [`CommitError`]; the writes are all there with [`CommitError::Full`], and may be gone with another.
    pub async fn commit_or_return(&self, writes: Vec<Write>) -> Result<(), (CommitError, Vec<Write>)> {
        let bytes = match check(&writes) {
            Ok(bytes) => bytes,
            Err(error) => return Err((error, writes)),
        };
        let stopped = || Err((self.stopped().into(), Vec::new()));
        let (done, outcome) = oneshot::channel();
        // The writer ends, and takes the queue with it, only by a failure or a panic; it reports both.
        let Some(queue) = &self.queue else { return stopped() };
        if queue.send(Batch { writes, bytes, done }).await.is_err() {
            return stopped();
        }
        outcome.await.unwrap_or_else(|_dropped| stopped())
    }

    /// Resolves when the store has stopped, at once if it has; never while it works or after it was closed in
    /// good order. The node selects on this and ends.
    pub fn failed(&self) -> impl Future<Output = Failure> + Send + use<> {
        let mut failed = self.failed.subscribe();
        async move {
            match failed.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
                Ok(Some(failure)) => failure,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// Changes what others on this machine are told about this process, such as a port that is known only
    /// now.
    ///
    /// # Errors
    /// What the system said. Others may see nothing or the old text; the store itself goes on.
    pub fn update_owner(&self, change: impl FnOnce(&mut Owner)) -> io::Result<()> {
        let lock: MutexGuard<'_, Lock> = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        { lock }.update(change)
    }

    /// Finishes the queued batches, closes the database and releases the lock. Waits for the disk: from async
    /// code call it in `spawn_blocking`.
    pub fn close(self) {
        drop(self);
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> Result<T, Failure>) -> Result<T, Failure> {
        if let Some(failure) = self.failed.borrow().clone() {
            return Err(failure);
        }
        read(&self.tables).inspect_err(|failure| fail(&self.failed, failure))
    }

    fn stopped(&self) -> Failure {
        let failure = Failure::Disk { file: self.dir.clone(), why: "the writer has ended".to_owned() };
        fail(&self.failed, &failure);
        self.failed.borrow().clone().unwrap_or(failure)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // Ignored because a panic of the writer has been printed, and every caller has had its error.
            drop(writer.join());
        }
    }
}

/// Records the first failure; later ones are its consequences.
fn fail(failed: &watch::Sender<Option<Failure>>, failure: &Failure) {
    failed.send_if_modified(|known| {
        let first = known.is_none();
        if first {
            tracing::error!(%failure, "the store stops: nothing is acknowledged from here on");
            *known = Some(failure.clone());
        }
        first
    });
}

/// The bytes of a batch, if it is within the caps.
fn check(writes: &[Write]) -> Result<usize, CommitError> {
    let within =
        |what, got, max| if got > max { Err(CommitError::TooLarge { what, got, max }) } else { Ok(()) };
    within("writes", writes.len(), BATCH_WRITES_MAX)?;
    let mut bytes = 0_usize;
    for write in writes {
        let (key, other) = match write {
            Write::Put { key, value, .. } => (key.len(), value.len()),
            Write::Remove { key, .. } => (key.len(), 0),
            Write::RemoveRange { range, .. } => {
                let to = range.to().map_or(0, <[u8]>::len);
                within("bytes in a key", to, KEY_BYTES_MAX)?;
                (range.from().len(), to)
            }
        };
        within("bytes in a key", key, KEY_BYTES_MAX)?;
        bytes = bytes.saturating_add(key).saturating_add(other);
    }
    within("bytes", bytes, BATCH_BYTES_MAX)?;
    Ok(bytes)
}

/// The writer thread: all waiting batches in one transaction, then the answers.
fn write(tables: &Tables, mut batches: mpsc::Receiver<Batch>, failed: &watch::Sender<Option<Failure>>) {
    let mut told_full: Option<Instant> = None;
    while let Some(first) = batches.blocking_recv() {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES
            && group.len() < QUEUE_BATCHES
            && let Ok(batch) = batches.try_recv()
        {
            bytes += batch.bytes;
            group.push(batch);
        }
        let known = failed.borrow().clone();
        let outcomes = match known {
            // Not tried again: see `Failure`.
            Some(failure) => vec![Err(NotCommitted::Failed(failure)); group.len()],
            None => commit(tables, &group),
        };
        let is_full = outcomes.contains(&Err(NotCommitted::Full));
        if is_full && told_full.is_none_or(|at| at.elapsed() >= TELL_FULL_EVERY) {
            tracing::error!(file = %tables.file().display(), "the disk is full: what does not fit is refused");
            told_full = Some(Instant::now());
        }
        for (batch, outcome) in group.into_iter().zip(outcomes) {
            let outcome = outcome.map_err(|refusal| match refusal {
                NotCommitted::Full => {
                    CommitError::Full { file: tables.file().to_owned(), bytes: batch.bytes }
                }
                NotCommitted::Failed(failure) => {
                    fail(failed, &failure);
                    CommitError::Failed(failure)
                }
            });
            let outcome = outcome.map_err(|error| (error, batch.writes));
            // Ignored because a caller who no longer waits needs no answer.
            drop(batch.done.send(outcome));
        }
    }
}

/// Commits a group together, or each batch alone where there is no space for all.
fn commit(tables: &Tables, group: &[Batch]) -> Vec<Result<(), NotCommitted>> {
    let together =
        if has_space(tables, group) { commit_together(tables, group) } else { Err(NotCommitted::Full) };
    if together != Err(NotCommitted::Full) || group.len() == 1 {
        return vec![together; group.len()];
    }
    let mut outcomes: Vec<Result<(), NotCommitted>> = Vec::new();
    // Each batch that the database itself finds no space for costs opening it anew. So after one only those of
    // half its size are tried.
    let mut most = u64::MAX;
    for batch in group {
        let alone = std::slice::from_ref(batch);
        let outcome = match outcomes.last() {
            Some(Err(NotCommitted::Failed(failure))) => Err(NotCommitted::Failed(failure.clone())),
            _ if batch.needs() > most || !has_space(tables, alone) => Err(NotCommitted::Full),
            _ => commit_together(tables, alone).inspect_err(|_| most = batch.needs() / 2),
        };
        outcomes.push(outcome);
    }
    outcomes
}

fn commit_together(tables: &Tables, group: &[Batch]) -> Result<(), NotCommitted> {
    tables.commit(&group.iter().flat_map(|batch| &batch.writes).collect::<Vec<_>>())
}

/// Whether it looks as if a group fits. Where that cannot be told, the database finds out.
fn has_space(tables: &Tables, group: &[Batch]) -> bool {
    let needs = group.iter().map(Batch::needs).fold(SPARE_BYTES, u64::saturating_add);
    tables.free_bytes().is_none_or(|free| free >= needs) || group.iter().all(Batch::only_removes)
}

#[cfg(test)]
mod tests;
