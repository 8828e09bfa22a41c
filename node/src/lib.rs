//! The wattle node: everything around the overlay that a person or a program touches.
//!
//! `config` says what the node should do, `run` wires the overlay to the disk, to the local API and to the
//! machine, `api` is the one door for programs (the command line is one of them), and `cli` is the door for
//! people.
//!
//! # Invariants
//!
//! * **N1 one door.** Whatever the command line or the dashboard can do goes through [`api`]; nothing else
//!   holds an overlay.
//! * **N2 one guard.** Every request of a browser or a TCP client passes `api::guard` before anything reads
//!   its body.
//! * **N3 one catalogue.** Every failure leaves as an [`api::documents::ErrorDocument`] with a code of
//!   [`exit::ErrorCode`].

pub mod api;
pub mod apps;
pub mod cli;
pub mod clock;
pub mod config;
pub mod documents;
mod driver;
pub mod exit;
pub mod faults;
pub mod health;
pub mod liveness;
pub mod members;
pub mod metrics;
pub mod neighbours;
pub mod node;
pub mod order;
pub mod paths;
pub mod ports;
pub mod ring;
pub mod run;
pub mod telemetry;
