//! Where a node keeps its files.

use std::path::PathBuf;

/// The paths of one node.
#[derive(Clone, Debug)]
pub struct Paths;

impl Paths {
    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from("/nonexistent")
    }
}
