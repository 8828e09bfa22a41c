//! The DHT.
pub(crate) mod trace;
