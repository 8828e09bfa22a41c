//! The two doors of the API: a Unix socket for this user and those that the config names, loopback TCP for
//! browsers and other programs.
//!
//! Bounds: 256 connections through each door (the next ones wait in the kernel's backlog), so that who floods
//! the one that anybody on this machine can knock at does not close the other to its owner; 10 s for the
//! headers of a request, some 32 KiB of headers; over TCP 30 s for a write to get on, so that nobody keeps a
//! place by asking and never reading. Bodies are bounded where they are read. A connection that became a
//! WebSocket gives its place back and has one of those that `documents::clients` counts.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::guard::Door;
use super::impatient::Impatient;

/// Connections through one door.
const CONNECTIONS_MAX: usize = 256;
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Longest time in which a TCP client reads nothing of an answer. On the socket a person may have paused the
/// pager that reads.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// What a connection may still send when the node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Serves one router through both doors until `stop`.
#[derive(Clone)]
pub struct Server {
    router: Router,
    stop: CancellationToken,
    socket_connections: Arc<Semaphore>,
    tcp_connections: Arc<Semaphore>,
    unread_max: Duration,
}

impl Server {
    /// Nothing listens yet.
    #[must_use]
    pub fn new(router: Router, stop: CancellationToken) -> Self {
        let room = || Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (socket_connections, tcp_connections) = (room(), room());
        Self { router, stop, socket_connections, tcp_connections, unread_max: UNREAD_MAX }
    }

    /// The same with another patience for TCP clients that do not read.
    #[must_use]
    pub fn unread_max(self, unread_max: Duration) -> Self {
        Self { unread_max, ..self }
    }

    /// Lets in this user, root, and the users of `allow_uids`.
    pub async fn serve_socket(self, socket: Socket, own_uid: u32, allow_uids: Vec<u32>) {
        let warned = AtomicBool::new(false);
        while let Some((stream, permit)) =
            self.accept(&self.socket_connections, || async { Ok(socket.listener.accept().await?.0) }).await
        {
            let uid = stream.peer_cred().map(|who| who.uid());
            match uid {
                Ok(uid) if may_enter(uid, own_uid, &allow_uids) => self.spawn(stream, Door::Socket, permit),
                Ok(uid) if !warned.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(uid, "refused another user on the API socket; see api.allow_uids");
                }
                Ok(uid) => tracing::debug!(uid, "refused another user on the API socket"),
                Err(error) => tracing::warn!(%error, "cannot tell who connects to the API socket"),
            }
        }
    }

    /// Lets everybody on this machine knock; the guard asks for a token.
    pub async fn serve_tcp(self, listener: TcpListener) {
        let Ok(address) = listener.local_addr() else { return };
        let door = Door::Tcp { port: address.port() };
        while let Some((stream, permit)) =
            self.accept(&self.tcp_connections, || async { Ok(listener.accept().await?.0) }).await
        {
            // What is told is told at once. Ignored because a connection that is gone is found so when it is read.
            drop(stream.set_nodelay(true));
            self.spawn(Impatient::new(stream, self.unread_max), door, permit);
        }
    }

    /// The next connection, once there is room for it; `None` when the node stops.
    async fn accept<S, F>(
        &self,
        room: &Arc<Semaphore>,
        mut accept: impl FnMut() -> F,
    ) -> Option<(S, OwnedSemaphorePermit)>
    where
        F: Future<Output = io::Result<S>>,
    {
        let next = async {
            let permit = Arc::clone(room).acquire_owned().await.ok()?;
            loop {
                match accept().await {
                    Ok(stream) => return Some((stream, permit)),
                    Err(error) => {
                        // Mostly too many open files: waiting lets some close.
                        tracing::warn!(%error, "cannot accept an API connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            next = next => next,
        }
    }

    fn spawn<S>(&self, stream: S, door: Door, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inner = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(door);
            inner.call(request)
        });
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_MAX)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an API connection ended");
            }
            drop(permit);
        });
    }
}

fn may_enter(uid: u32, own_uid: u32, allow_uids: &[u32]) -> bool {
    // Root can read our memory anyway: refusing it would only look like safety.
    uid == own_uid || uid == 0 || allow_uids.contains(&uid)
}

/// The Unix socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket, replacing one that a killed process left. The caller holds the lock of the data
    /// directory, so no other process of this node can be using it. At a `shared` one everybody may knock;
    /// [`Server::serve_socket`] decides who gets in.
    ///
    /// # Errors
    /// What the system said.
    pub fn bind(path: &Path, shared: bool) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else can write to the directory, so that these steps concern the same file.
        let listener = UnixListener::bind(path)?;
        let mode = if shared { 0o666 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Ignored because the next start replaces a socket that is left over.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Ports tried after a busy default one.
const PORTS_TRIED: u16 = 100;

/// Binds the TCP door: there, or for a default address on the next free port.
///
/// # Errors
/// What the system said of the first address.
pub async fn bind_tcp(address: SocketAddr, or_next: bool) -> io::Result<TcpListener> {
    let first = TcpListener::bind(address).await;
    match first {
        Err(error) if or_next && error.kind() == io::ErrorKind::AddrInUse => {
            for step in 1..=PORTS_TRIED {
                let Some(port) = address.port().checked_add(step.saturating_mul(10)) else { break };
                match TcpListener::bind(SocketAddr::new(address.ip(), port)).await {
                    Ok(listener) => return Ok(listener),
                    Err(other) if other.kind() == io::ErrorKind::AddrInUse => {}
                    Err(other) => return Err(other),
                }
            }
            Err(error)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_root_and_the_allowed_enter_by_the_socket() {
        assert!(may_enter(1000, 1000, &[]));
        assert!(may_enter(0, 1000, &[]));
        assert!(may_enter(7, 1000, &[7]));
        assert!(!may_enter(8, 1000, &[7]));
        assert!(!may_enter(1000, 0, &[]));
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_process_is_replaced_and_ours_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }
}
