//! The machine of documents with a simulated network, disks and clock.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

mod broken_feeds;
mod clients;
mod disk;
mod feeds;
mod replicas;
mod rights;
mod shown;
mod two_stories;
mod world;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
