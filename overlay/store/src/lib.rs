//! The disk owner: one data directory, one process on it, durable tables of bytes, and files for this user
//! alone.
//!
//! # What it does
//!
//! Makes what other crates decided to keep survive a kill, a power cut and a full disk, and says so when it
//! cannot. It knows tables, keys and values, never what they mean.
//!
//! # A data directory
//!
//! ```text
//! VERSION          the format and the first program that knows it: "1 wattle-0.1.0"
//! LOCK             held with flock by the running node; one line of JSON says who that is (Owner)
//! db/tables.redb   the tables (overlay/adr/0001-database.md says why redb)
//! identity.key     the secret key, where the node puts it (load_or_create_key)
//! ```
//!
//! # Steps of [`Store::open`]
//!
//! 1. Read `VERSION`. A newer format is refused before anything is touched, the lock included.
//! 2. Make the directory (0700) if there is none, and take the lock without waiting. Who holds it is part of
//!    the error.
//! 3. Read `VERSION` again: only under the lock does it stay as it is.
//! 4. Open the database and verify the checksum of every page. At the first start it is made under another
//!    name and renamed, and `VERSION` is written after it: a kill in between leaves what the next start takes
//!    up.
//! 5. Start the writer thread.
//!
//! # Steps of [`Store::commit`]
//!
//! 1. Check the caps, and queue the batch; when the queue is full, wait.
//! 2. The writer takes every batch that waits, up to a cap, and applies them in one transaction, in order.
//! 3. Where the disk looks too full for it, each batch is tried alone, and refused when it looks too full for
//!    that one.
//! 4. The transaction is flushed in two phases: data, then the byte that makes it current. When it finds no
//!    space all the same, the database is opened anew, as the last commit left it, and step 3 follows.
//! 5. Each batch is acknowledged.
//!
//! # Invariants
//!
//! * **S1 durable.** A commit that was acknowledged is there after any kill or power cut, if the disk keeps
//!   its word on fsync.
//! * **S2 whole.** A batch is there in full or not at all.
//! * **S3 one owner.** At most one process has the directory open; the system frees it when that process
//!   ends, however it ends, and no file is ever removed by hand.
//! * **S4 stopped is stopped.** After the first failure of the disk nothing is acknowledged and nothing is
//!   read, until the directory is opened anew; [`Store::failed`] tells the node.
//! * **S5 never wrong.** A damaged file is an error that names it; it is never a panic, and never other data
//!   than was committed. Damage done while the store is open is found at the next open. One bit of the
//!   database is outside every checksum, the one that says which of the two last commits is current: flipped
//!   in a file that was not closed, it brings back the whole state before the last commit.
//! * **S6 forward only.** A directory of a newer format is not touched, not even its timestamps.
//! * **S7 secrets are private.** A secret file has mode 0600 before its first byte; one that others can reach
//!   is not read; none is overwritten; buffers are wiped.
//! * **S8 full is not stopped.** A batch for which there is no space is refused whole; what was committed can
//!   be read meanwhile, and what fits is committed. A flush that fails, for whatever reason, is S4 and not
//!   this: the system may have dropped what was to be flushed.
//!
//! # Bounds
//!
//! A key has at most [`KEY_BYTES_MAX`] bytes, a batch [`BATCH_BYTES_MAX`] bytes and [`BATCH_WRITES_MAX`]
//! writes; 128 batches wait at most, so 128 MiB. The page cache has 16 MiB. A commit costs two fsyncs however
//! many batches share it. Opening reads the database once, and so does a commit that finds no space unforeseen;
//! one group does that some twenty times at most. Removing a range takes as long as it has entries.
//!
//! # Not here
//!
//! What a record means and when it expires; logs and metrics; backups; Windows (locks and modes are Unix's).
//! The database file does not shrink: freed pages are used again.

mod failure;
mod files;
mod key;
mod lock;
mod medium;
mod open;
mod secret;
mod store;
mod swap;
mod tables;
mod version;

pub use failure::Failure;
pub use files::{create_file, replace_file, write_atomically};
pub use key::{Created, KeyError, load_or_create_key};
pub use lock::{Owner, read_owner};
pub use open::OpenError;
pub use secret::{SecretFileError, create_secret_file, read_secret_file};
pub use store::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, CommitError, KEY_BYTES_MAX, Store};
pub use swap::{Swapped, lock_file, swap_file};
pub use tables::Entry;
pub use version::DATA_FORMAT;
