//! Frames over one stream: `length ‖ bytes`, each half for one task.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::time::Instant;
use unsigned_varint::{decode, encode};
use wattle_types::limits::CHANNEL_FRAME_BYTES_MAX;

use super::places::Place;
use crate::Misbehaviour;
use crate::translate::deepest;

/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024;
/// A batch is written out in parts of this size.
const WRITE_BYTES: usize = 64 * 1024;
/// A frame that has begun goes on within this time.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The caller's fault. Nothing of this frame was sent, the frames before it were; the channel goes on.
    #[error("a frame of {got} bytes is over the limit of {max}")]
    TooLarge {
        /// Bytes offered.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The channel has ended: either side closed it, or the connection was lost. What was sent last may not
    /// have arrived. To do: open another one.
    #[error("the channel has ended")]
    Ended,
}

/// Why a channel ended otherwise than by being closed. It is gone; nothing else changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The peer's fault, which is reported as [`Misbehaviour::BadFrame`].
    #[error("a frame of {announced} bytes is over the limit of {max}")]
    TooLarge {
        /// Bytes announced.
        announced: u64,
        /// Bytes allowed.
        max: usize,
    },
    /// The peer's fault, which is reported as [`Misbehaviour::BadFrame`].
    #[error("the length of a frame is malformed")]
    Malformed,
    /// The peer stopped in the middle of a frame, or the path to it is dead.
    #[error("nothing came for {0:?} in the middle of a frame")]
    Stalled(Duration),
    /// The stream ended in the middle of a frame: the peer was stopped, or gave up sending it.
    #[error("the channel ended in the middle of a frame")]
    Cut,
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

/// What both halves hold.
pub(super) struct Core {
    /// `None` once the channel has ended.
    open: Mutex<Option<(Box<dyn Pipe>, Place)>>,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Core {
    /// Polls the stream. `None` when the channel has ended, whichever half found out.
    fn poll<T>(
        &self,
        half: &AtomicWaker,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut dyn Pipe>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<Option<io::Result<T>>> {
        half.register(cx.waker());
        match self.open.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some((pipe, _)) => poll(Pin::new(&mut **pipe), cx).map(Some),
            None => Poll::Ready(None),
        }
    }

    /// Ends the channel, after what is left to send. Both halves learn of it at once.
    pub(super) fn end(&self, left: Vec<u8>) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.reader.wake();
        self.writer.wake();
        let Some((mut pipe, place)) = open else { return };
        // Without a runtime the connection is gone, and nothing is left to say.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let closing = async {
                pipe.write_all(&left).await?;
                pipe.close().await
            };
            if !matches!(tokio::time::timeout(CLOSE_TIMEOUT, closing).await, Ok(Ok(()))) {
                tracing::trace!("a channel did not end in good order");
            }
            // Not before: a peer that opens one after the other would occupy more than its share.
            drop(place);
        });
    }

    fn complain(&self, why: &ReceiveError) {
        if let Some((_, place)) = self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            place.complain(Misbehaviour::BadFrame(why.to_string()));
        }
    }
}

/// The two halves of a channel over a stream.
pub(super) fn over(pipe: Box<dyn Pipe>, place: Place) -> (ChannelSender, ChannelReceiver) {
    let core = Arc::new_cyclic(|core| {
        // Otherwise the node has stopped meanwhile, and the stream is reset.
        let open = place.belongs_to(Weak::clone(core)).then_some((pipe, place));
        Core { open: Mutex::new(open), reader: AtomicWaker::new(), writer: AtomicWaker::new() }
    });
    let sender = ChannelSender { core: Arc::clone(&core), waiting: Vec::new(), written: 0 };
    let buffer = vec![0; READ_BYTES].into_boxed_slice();
    let receiver =
        ChannelReceiver { core, buffer, filled: 0, frame: None, heard: Instant::now(), stall_max: STALL_MAX };
    (sender, receiver)
}

/// The half that sends. Dropping it ends the channel once everything sent is on its way.
pub struct ChannelSender {
    core: Arc<Core>,
    /// Frames not yet given to the stream, from `written` on.
    waiting: Vec<u8>,
    written: usize,
}

impl ChannelSender {
    /// Sends a frame. Waits as long as the other side does not read. When the future is dropped, the frame is
    /// sent in part or not at all, and the next one sends the rest first: the order stays.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        self.send_all([frame]).await
    }

    /// Sends frames one after the other and flushes once. As [`Self::send`] otherwise; of a batch that was
    /// dropped half-way, frames that were not begun are not sent.
    ///
    /// # Errors
    /// [`SendError`]; with [`SendError::TooLarge`] the frames before that one are sent, those after it not.
    pub async fn send_all<T: AsRef<[u8]>>(
        &mut self,
        frames: impl IntoIterator<Item = T>,
    ) -> Result<(), SendError> {
        let mut outcome = Ok(());
        for frame in frames {
            if self.waiting.len() >= WRITE_BYTES {
                self.write_out().await?;
            }
            outcome = self.append(frame.as_ref());
            if outcome.is_err() {
                break;
            }
        }
        self.write_out().await?;
        let core = &self.core;
        let flushed = poll_fn(|cx| core.poll(&core.writer, cx, |pipe, cx| pipe.poll_flush(cx))).await;
        self.done(flushed)?;
        outcome
    }

    fn append(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if frame.len() > CHANNEL_FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { got: frame.len(), max: CHANNEL_FRAME_BYTES_MAX });
        }
        self.waiting.extend_from_slice(encode::usize(frame.len(), &mut encode::usize_buffer()));
        self.waiting.extend_from_slice(frame);
        Ok(())
    }

    async fn write_out(&mut self) -> Result<(), SendError> {
        while let Some(rest) = self.waiting.get(self.written..).filter(|rest| !rest.is_empty()) {
            let core = &self.core;
            let wrote = poll_fn(|cx| core.poll(&core.writer, cx, |pipe, cx| pipe.poll_write(cx, rest))).await;
            let wrote = match wrote {
                Some(Ok(0)) => Some(Err(io::ErrorKind::WriteZero.into())),
                other => other,
            };
            self.written = self.written.saturating_add(self.done(wrote)?);
        }
        self.written = 0;
        self.waiting.clear();
        // A large frame was an exception.
        self.waiting.shrink_to(WRITE_BYTES);
        Ok(())
    }

    fn done<T>(&self, outcome: Option<io::Result<T>>) -> Result<T, SendError> {
        match outcome {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => {
                tracing::debug!(%error, "a channel broke while sending");
                self.core.end(Vec::new());
                Err(SendError::Ended)
            }
            None => Err(SendError::Ended),
        }
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.waiting);
        left.drain(..self.written);
        self.core.end(left);
    }
}

/// A frame of which a part has arrived.
struct Frame {
    bytes: Vec<u8>,
    length: usize,
}

/// The half that receives. Dropping it ends the channel.
pub struct ChannelReceiver {
    core: Arc<Core>,
    /// What was read and belongs to no frame yet is at the front, `filled` bytes.
    buffer: Box<[u8]>,
    filled: usize,
    frame: Option<Frame>,
    /// When the last byte came.
    heard: Instant,
    stall_max: Duration,
}

impl ChannelReceiver {
    /// The next frame; `None` when the channel has ended, and for ever after. Cancel safe.
    ///
    /// # Errors
    /// [`ReceiveError`] once, when it ended otherwise than by being closed.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, ReceiveError>> {
        loop {
            let step = match self.take() {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => self.fill().await,
                Err(error) => {
                    self.core.complain(&error);
                    Err(error)
                }
            };
            let end = match step {
                Ok(true) => continue,
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            };
            self.core.end(Vec::new());
            self.filled = 0;
            self.frame = None;
            return end;
        }
    }

    /// Moves what was read into the frame; the frame, when it is whole.
    fn take(&mut self) -> Result<Option<Vec<u8>>, ReceiveError> {
        let unread = self.buffer.get(..self.filled).unwrap_or_default();
        let (length, mut rest, mut bytes) = match self.frame.take() {
            Some(frame) => (frame.length, unread, frame.bytes),
            None => match decode::u64(unread) {
                Ok((announced, rest)) => (frame_length(announced)?, rest, Vec::new()),
                Err(decode::Error::Insufficient) => return Ok(None),
                Err(_) => return Err(ReceiveError::Malformed),
            },
        };
        let missing = length.saturating_sub(bytes.len());
        if let Some((part, after)) = rest.split_at_checked(missing.min(rest.len())) {
            extend(&mut bytes, part, length);
            rest = after;
        }
        let left = rest.len();
        self.buffer.copy_within(self.filled.saturating_sub(left)..self.filled, 0);
        self.filled = left;
        if bytes.len() == length {
            return Ok(Some(bytes));
        }
        self.frame = Some(Frame { bytes, length });
        Ok(None)
    }

    /// Reads on; false when the channel has ended in good order.
    async fn fill(&mut self) -> Result<bool, ReceiveError> {
        let begun = self.frame.is_some() || self.filled > 0;
        let core = &self.core;
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = poll_fn(|cx| core.poll(&core.reader, cx, |pipe, cx| pipe.poll_read(cx, room)));
        let read = if begun {
            let deadline = self.heard + self.stall_max;
            let stalled = |_elapsed| ReceiveError::Stalled(self.stall_max);
            tokio::time::timeout_at(deadline, read).await.map_err(stalled)?
        } else {
            read.await
        };
        match read {
            None => Ok(false),
            Some(Ok(0)) if begun => Err(ReceiveError::Cut),
            Some(Ok(0)) => Ok(false),
            Some(Ok(read)) => {
                self.filled = self.filled.saturating_add(read);
                self.heard = Instant::now();
                Ok(true)
            }
            Some(Err(error)) => Err(ReceiveError::Lost(deepest(&error))),
        }
    }

    /// Memory held for a frame that is not whole.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.frame.as_ref().map_or(0, |frame| frame.bytes.capacity())
    }

    #[cfg(test)]
    pub(super) fn stalling_after(&mut self, stall_max: Duration) {
        self.stall_max = stall_max;
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        self.core.end(Vec::new());
    }
}

fn frame_length(announced: u64) -> Result<usize, ReceiveError> {
    let length = usize::try_from(announced).ok().filter(|length| *length <= CHANNEL_FRAME_BYTES_MAX);
    length.ok_or(ReceiveError::TooLarge { announced, max: CHANNEL_FRAME_BYTES_MAX })
}

/// Appends a part of a frame. What is set aside is at most twice what has arrived, and at most the frame.
fn extend(bytes: &mut Vec<u8>, part: &[u8], length: usize) {
    let needed = bytes.len().saturating_add(part.len());
    if needed > bytes.capacity() {
        let room = bytes.capacity().saturating_mul(2).min(length).max(needed);
        bytes.reserve_exact(room.saturating_sub(bytes.len()));
    }
    bytes.extend_from_slice(part);
}
