//! The machine of documents with a simulated network, disks and clock.

mod feeds;
mod replicas;
mod world;
