//! The machine of membership with a simulated network, disks and clock.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

mod basics;
mod world;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
