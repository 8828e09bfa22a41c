//! Counts the bytes of each peer: a thin layer around every substream.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

/// Bytes of one peer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
}

/// The counters of every connected peer. An entry lives as long as a connection to its peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Mutex<HashMap<PeerId, Arc<Counters>>>>);

impl Traffic {
    /// Counts what passes through a connection.
    pub(crate) fn count(&self, peer: PeerId, muxer: StreamMuxerBox) -> StreamMuxerBox {
        let counters = Arc::clone(self.lock().entry(peer).or_default());
        StreamMuxerBox::new(Counted { inner: muxer, counters })
    }

    /// Bytes received from and sent to a peer.
    pub(crate) fn of(&self, peer: &PeerId) -> (u64, u64) {
        let counters = self.lock().get(peer).map(Arc::clone).unwrap_or_default();
        (counters.received.load(Ordering::Relaxed), counters.sent.load(Ordering::Relaxed))
    }

    /// The last connection to a peer ended.
    pub(crate) fn forget(&self, peer: &PeerId) {
        self.lock().remove(peer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Arc<Counters>>> {
        // A map of counters cannot be left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, or a substream of one, whose bytes are counted.
struct Counted<T> {
    inner: T,
    counters: Arc<Counters>,
}

impl Counted<StreamMuxerBox> {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut StreamMuxerBox> {
        Pin::new(&mut self.get_mut().inner)
    }

    fn wrap(&self, stream: SubstreamBox) -> Counted<SubstreamBox> {
        Counted { inner: stream, counters: Arc::clone(&self.counters) }
    }
}

impl StreamMuxer for Counted<StreamMuxerBox> {
    type Substream = Counted<SubstreamBox>;
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.inner().poll(cx)
    }
}

fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl AsyncRead for Counted<SubstreamBox> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        add(&this.counters.received, read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Counted<SubstreamBox> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buffer))?;
        add(&this.counters.sent, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}
