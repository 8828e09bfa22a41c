//! What the tests and benchmarks of the whole share: overlays of many nodes in one process, strangers that
//! attack them, and real binaries.

pub mod binary;
pub mod documents;
pub mod fuzz;
pub mod honest;
pub mod hostile;
pub mod liar;
pub mod local;
pub mod member;
pub mod overlay;
pub mod records;
pub mod tally;
pub mod village;
pub mod watch;
