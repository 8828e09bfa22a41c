//! Round trips.
use crate::*;
use std::time::Duration;
pub(crate) async fn ping(
    _overlay: &Overlay,
    _peer: wattle_types::NodeId,
    timeout: Duration,
) -> Result<Pong, PingError> {
    Err(PingError::Timeout(timeout))
}
