//! A lookup, walked hop by hop.
use crate::*;
use std::time::Duration;
use tokio::sync::mpsc;
pub(crate) async fn walk(
    overlay: &Overlay,
    target: TraceTarget,
    _timeout: Duration,
    _steps: mpsc::Sender<TraceEvent>,
) -> Result<TraceReport, DhtError> {
    overlay.nearest(target).await?;
    Err(DhtError::Alone)
}
