//! The layer around a connection that delays its streams, holds them while they are cut, and breaks it after that.
//!
//! Each stream's writes go to a task of its own that carries them on when they are due: whoever writes need not wait
//! for it, as one need not with a long cable. What is on its way is bounded, as the window of a transport is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::io::ReadHalf;
use futures::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, FutureExt as _, StreamExt as _, ready,
};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::core::transport::Boxed;
use libp2p::{PeerId, Transport as _};
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use wattle_types::NodeId;

use super::{DEAD_AFTER, Faults};
use crate::behaviour::node_id;

/// How soon a cut that was healed is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a handshake waits for a cut to heal: as long as QUIC's does for an answer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Segments of one stream on their way.
const SEGMENTS_MAX: usize = 1024;
/// The most that is handled as one.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The transport with faults in it.
pub(crate) fn shape(
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    faults: Faults,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let admitted = transport.and_then(move |(peer, muxer), _endpoint| admit(faults, peer, muxer));
    admitted.boxed()
}

/// Lets a connection begin when it is not cut.
async fn admit(
    faults: Faults,
    id: PeerId,
    muxer: StreamMuxerBox,
) -> Result<(PeerId, StreamMuxerBox), io::Error> {
    let Some(peer) = node_id(&id) else { return Ok((id, muxer)) };
    let begun = Instant::now();
    while faults.cut_for(peer).is_some() {
        if begun.elapsed() >= HANDSHAKE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "cut off by the testnet"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut look = tokio::time::interval(LOOK_AGAIN * 10);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok((id, StreamMuxerBox::new(Shaped { inner: muxer, peer, faults, look })))
}

/// A connection.
struct Shaped {
    inner: StreamMuxerBox,
    peer: NodeId,
    faults: Faults,
    look: Interval,
}

impl Shaped {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut StreamMuxerBox> {
        Pin::new(&mut self.get_mut().inner)
    }

    fn wrap(&self, stream: SubstreamBox) -> ShapedStream {
        let (reader, writer) = stream.split();
        let (segments, waiting) = mpsc::channel(SEGMENTS_MAX);
        tokio::spawn(carry(self.faults.clone(), self.peer, writer, waiting));
        let (peer, faults) = (self.peer, self.faults.clone());
        let last = Instant::now();
        ShapedStream { reader, segments, last, closed: false, peer, faults, look: None, room: None }
    }
}

impl StreamMuxer for Shaped {
    type Substream = ShapedStream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(self.as_mut().inner().poll_inbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(self.as_mut().inner().poll_outbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner().poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        while self.look.poll_tick(cx).is_ready() {
            if self.faults.cut_for(self.peer).is_some_and(|cut| cut >= DEAD_AFTER) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "cut off by the testnet")));
            }
        }
        self.inner().poll(cx)
    }
}

/// What is on its way.
enum Segment {
    Bytes { due: Instant, bytes: Vec<u8> },
    Close { due: Instant },
}

/// A stream of a connection.
struct ShapedStream {
    reader: ReadHalf<SubstreamBox>,
    segments: mpsc::Sender<Segment>,
    /// When the last one written is due: nothing overtakes it.
    last: Instant,
    closed: bool,
    peer: NodeId,
    faults: Faults,
    look: Option<Pin<Box<Sleep>>>,
    /// Until the link has room again.
    room: Option<Pin<Box<Sleep>>>,
}

/// Carries what was written to the other side when it is due, in its order.
async fn carry(
    faults: Faults,
    peer: NodeId,
    mut writer: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Segment>,
) {
    let mut next = waiting.next().await;
    while let Some(segment) = next.take() {
        let (Segment::Bytes { due, .. } | Segment::Close { due }) = &segment;
        // What is due is carried now: the clock of the runtime would take another millisecond.
        if *due > Instant::now() {
            tokio::time::sleep_until((*due).into()).await;
        }
        while faults.is_cut_to(peer) {
            if faults.cut_for(peer).is_some_and(|cut| cut >= DEAD_AFTER) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let written = match segment {
            Segment::Bytes { bytes, .. } => writer.write_all(&bytes).await,
            Segment::Close { .. } => writer.close().await,
        };
        // Whoever writes learns of it: nobody takes its segments any more.
        if written.is_err() {
            return;
        }
        // What is due already goes into the same packet.
        let at_hand = waiting.next().now_or_never();
        let more = matches!(&at_hand, Some(Some(Segment::Bytes { due, .. })) if *due <= Instant::now());
        if !more && writer.flush().await.is_err() {
            return;
        }
        next = match at_hand {
            Some(next) => next,
            None => waiting.next().await,
        };
    }
}

impl ShapedStream {
    /// Takes one more segment, if there is room.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        segment: impl FnOnce(Instant) -> Segment,
    ) -> Poll<io::Result<()>> {
        let gone = |_gone| io::Error::from(io::ErrorKind::BrokenPipe);
        loop {
            if let Some(room) = &mut self.room {
                ready!(room.as_mut().poll(cx));
                self.room = None;
            }
            match self.faults.room_after(self.peer) {
                Duration::ZERO => break,
                wait => self.room = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
        ready!(self.segments.poll_ready(cx)).map_err(gone)?;
        self.last = self.last.max(self.faults.segment_due(self.peer, bytes));
        Poll::Ready(self.segments.start_send(segment(self.last)).map_err(gone))
    }
}

impl AsyncRead for ShapedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.faults.is_cut_from(this.peer) {
            let look = this.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_AGAIN)));
            ready!(look.as_mut().poll(cx));
            this.look = None;
        }
        Pin::new(&mut this.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ShapedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buffer.len().min(this.faults.segment_bytes(this.peer)).min(CHUNK_BYTES_MAX);
        let bytes = &buffer[..count];
        ready!(this.send(cx, count, |due| Segment::Bytes { due, bytes: bytes.to_vec() }))?;
        Poll::Ready(Ok(count))
    }

    /// What was written is on its way, and that is all one can know on this side of a cable.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            ready!(this.send(cx, 0, |due| Segment::Close { due }))?;
            this.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_without_faults_carries_at_once() {
        let (mut segments, waiting) = mpsc::channel(SEGMENTS_MAX);
        let faults = Faults::new(1);
        let peer = NodeId::from_public_key([1; 32]);
        for byte in 0..3 {
            let due = faults.segment_due(peer, 1);
            segments.start_send(Segment::Bytes { due, bytes: vec![byte] }).unwrap();
        }
        drop(segments);
        let mut carried = Vec::new();
        let done = carry(faults, peer, &mut carried, waiting).now_or_never();
        assert!(done.is_some(), "it waits, and for nothing");
        assert_eq!(carried, [0, 1, 2]);
    }
}
