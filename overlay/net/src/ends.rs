//! Ends the substreams of a connection that this side closes: a thin layer around Yamux.
//!
//! Yamux tells the holders of substreams when the other side closes the connection or when it breaks. When this
//! side closes it, it forgets them: whoever reads from one then waits for ever. A channel to a peer that was
//! blocked would look open until somebody had something to send over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{FusedFuture as _, Shared};
use futures::{AsyncRead, AsyncWrite, FutureExt as _, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

/// A connection.
pub(crate) struct Ending<M> {
    inner: M,
    /// Dropped when the connection is closed here.
    open: Option<oneshot::Sender<()>>,
    closed: Shared<oneshot::Receiver<()>>,
}

/// A substream of one.
pub(crate) struct EndingStream<S> {
    inner: S,
    closed: Shared<oneshot::Receiver<()>>,
}

impl<M: Unpin> Ending<M> {
    pub(crate) fn new(inner: M) -> Self {
        let (open, closed) = oneshot::channel();
        Self { inner, open: Some(open), closed: closed.shared() }
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut M> {
        Pin::new(&mut self.get_mut().inner)
    }

    fn wrap<S>(&self, inner: S) -> EndingStream<S> {
        EndingStream { inner, closed: self.closed.clone() }
    }
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for Ending<M> {
    type Substream = EndingStream<M::Substream>;
    type Error = M::Error;

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

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.open = None;
        self.inner().poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.inner().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for EndingStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What had arrived is read to its end.
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buffer) {
            return Poll::Ready(read);
        }
        if this.closed.is_terminated() || this.closed.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed here")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EndingStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}
