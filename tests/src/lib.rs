//! What the tests and benchmarks of the whole share: overlays of many nodes in one process.

pub mod binary;
pub mod fuzz;
pub mod overlay;
