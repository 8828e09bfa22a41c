//! Topics.
use crate::*;
use std::time::Duration;
use wattle_types::{Topic, TraceContext};
pub(crate) async fn request(
    _overlay: &Overlay,
    _topic: Topic,
    _payload: Vec<u8>,
    timeout: Duration,
    _trace: Option<TraceContext>,
) -> Result<Delivery, RequestError> {
    Err(RequestError::Timeout { after: timeout, listeners: 0 })
}
