//! The machine of membership with a simulated network, disks and clock.
//!
//! The invariants that are checked after every step are in `world.rs`: M3 (order of
//! incarnations), persist before send, sizes, and who is held faulty though it is well (M2). M1, M4, M5 and M6
//! are asserted by the tests that are about them.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod basics;
mod faults;
mod hostile;
mod removal;
mod rules;
mod world;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
