//! Counts the bytes of each peer, and when the last one passed: a thin layer around every substream.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

/// Bytes of one peer.
#[derive(Debug)]
struct Counters {
    begun: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// When the last byte passed: microseconds since `begun`.
    last: AtomicU64,
}

impl Counters {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { begun: Instant::now(), received: zero(), sent: zero(), last: zero() }
    }

    fn add(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }
}

/// The counters of every peer that a connection exists to, accepted by the swarm or not: each lives as long
/// as its connections do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Mutex<HashMap<PeerId, Weak<Counters>>>>);

/// The map is swept when it has doubled since the last sweep, and not below this.
const SWEEP_AT: usize = 256;

impl Traffic {
    /// Counts what passes through a connection.
    pub(crate) fn count(&self, peer: PeerId, muxer: StreamMuxerBox) -> StreamMuxerBox {
        let counters = self.counters(peer);
        StreamMuxerBox::new(Counted { inner: muxer, counters })
    }

    /// Bytes received from and sent to a peer.
    pub(crate) fn of(&self, peer: &PeerId) -> (u64, u64) {
        let counters = self.lock().get(peer).and_then(Weak::upgrade);
        counters.map_or((0, 0), |counters| {
            (counters.received.load(Ordering::Relaxed), counters.sent.load(Ordering::Relaxed))
        })
    }

    /// Since the last byte from or to a peer; zero when there is no connection to it.
    pub(crate) fn quiet(&self, peer: &PeerId) -> Duration {
        let counters = self.lock().get(peer).and_then(Weak::upgrade);
        counters.map_or(Duration::ZERO, |counters| {
            let last = Duration::from_micros(counters.last.load(Ordering::Relaxed));
            counters.begun.elapsed().saturating_sub(last)
        })
    }

    fn counters(&self, peer: PeerId) -> Arc<Counters> {
        let mut all = self.lock();
        if let Some(counters) = all.get(&peer).and_then(Weak::upgrade) {
            return counters;
        }
        if all.len() >= SWEEP_AT && all.len() == all.capacity() {
            all.retain(|_, counters| counters.strong_count() > 0);
        }
        let counters = Arc::new(Counters::new());
        all.insert(peer, Arc::downgrade(&counters));
        counters
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Weak<Counters>>> {
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

impl AsyncRead for Counted<SubstreamBox> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.counters.add(&this.counters.received, read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Counted<SubstreamBox> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buffer))?;
        this.counters.add(&this.counters.sent, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_with_a_thousand_keys_leaves_nothing_behind() {
        let traffic = Traffic::default();
        let kept = PeerId::random();
        let counters = traffic.counters(kept);
        counters.add(&counters.received, 7);
        for _ in 0..10_000 {
            drop(traffic.counters(PeerId::random()));
        }
        assert!(traffic.lock().len() <= 4 * SWEEP_AT, "{} entries", traffic.lock().len());
        assert_eq!(traffic.of(&kept), (7, 0));
        assert!(Arc::ptr_eq(&counters, &traffic.counters(kept)));
    }
}
