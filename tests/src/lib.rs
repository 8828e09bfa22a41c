//! What the tests and benchmarks of the whole share: overlays of many nodes in one process, and strangers that attack them.

pub mod hostile;
pub mod overlay;
pub mod records;
