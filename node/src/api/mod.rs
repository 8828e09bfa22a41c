//! The local API: one router, served on a Unix socket and on loopback TCP.

pub mod documents;
