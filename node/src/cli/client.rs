//! HTTP to the node: over its Unix socket, or to `--api http://...` with a token.
//!
//! One connection a request. That the node is not running is known from the failed connect, so it is said at
//! once. A reply that is an error carries a `wattle.error/1`, which becomes the error of the command.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::errors::{Failure, advise, of_io};
use super::session::Session;
use crate::api::documents::ErrorDocument;
use crate::exit::ErrorCode;
use crate::paths::{NodeName, Paths};

/// The largest document read whole. A stream has no limit, but each of its lines has this one.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// How long to wait beyond the time that the node itself was given: it ends first and says what it reached.
const GRACE: Duration = Duration::from_secs(2);

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`.
    Http(String),
}

/// A client of one node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: At,
    token: Option<String>,
    program: String,
    paths: Paths,
    timeout: Option<Duration>,
}

/// What the node answered: the document as it is for `--json`, and what this program understands of it.
pub(crate) struct Answer<T> {
    pub(crate) raw: String,
    pub(crate) document: T,
}

impl<T: Serialize> Answer<T> {
    /// An answer that this program gave itself.
    pub(crate) fn own(document: T) -> Result<Self, Failure> {
        let raw = serde_json::to_string(&document).map_err(|error| strange(&error))?;
        Ok(Self { raw, document })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

impl Client {
    pub(crate) fn of(session: &Session) -> Result<Self, Failure> {
        let here = Self::here(session)?;
        match &session.globals.api {
            Some(text) => Ok(Self { at: read_at(text)?, ..here }),
            None => Ok(here),
        }
    }

    /// For the node of this machine, wherever `--api` points: the one that was just started.
    pub(crate) fn here(session: &Session) -> Result<Self, Failure> {
        let paths = session.paths()?;
        let at = At::Unix(paths.socket.clone());
        let token = session.globals.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self { at, token, program: session.program(), paths, timeout: session.timeout() })
    }

    /// For a node of this machine by its socket.
    pub(crate) fn to(paths: Paths, program: String, timeout: Option<Duration>) -> Self {
        Self { at: At::Unix(paths.socket.clone()), token: None, program, paths, timeout }
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Sends a document and awaits another.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// One request with one document as its answer, within `--timeout`.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer<T>, Failure> {
        let work = async {
            let response = self.send(method, path, body).await?;
            let bytes = whole(response.into_body()).await?;
            let document = serde_json::from_slice(&bytes).map_err(|error| strange(&error))?;
            let raw = String::from_utf8(bytes.to_vec()).map_err(|error| strange(&error))?;
            Ok(Answer { raw, document })
        };
        self.within(work, path).await
    }

    /// Whether somebody listens where the node should be.
    pub(crate) async fn answers(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// A request answered by a stream. Only its beginning has a time limit.
    pub(crate) async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Lines, Failure> {
        let response = self.within(self.send(method, path, body), path).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new(), read: 0 })
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        path: &str,
    ) -> Result<T, Failure> {
        let Some(limit) = self.timeout else { return work.await };
        match tokio::time::timeout(limit.saturating_add(GRACE), work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ErrorDocument::new(
                ErrorCode::Timeout,
                format!(
                    "timed out after {}: the node took the request but did not answer",
                    super::values::short(limit)
                ),
            )
            .detail("asked", path)
            .detail("give it more", "--timeout 2m, or 0 for no limit")
            .into()),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, Failure> {
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) =
            http1::handshake(io).await.map_err(|error| broken(&self.paths.node, &error))?;
        // Ignored because the response tells when the connection breaks.
        drop(tokio::spawn(async move { drop(connection.await) }));
        let request = self.request(method, path, body)?;
        let response =
            sender.send_request(request).await.map_err(|error| broken(&self.paths.node, &error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.at {
            At::Unix(_) => "localhost",
            At::Http(host) => host,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json, application/x-ndjson, text/event-stream")
            .header("wattle-version", env!("CARGO_PKG_VERSION"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| strange(&error))?
            }
            None => Vec::new(),
        };
        request.body(Full::new(Bytes::from(bytes))).map_err(|error| strange(&error))
    }

    async fn connect(&self) -> Result<Pin<Box<dyn Duplex>>, Failure> {
        match &self.at {
            At::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::pin(stream)),
                Err(error) => Err(no_node(&self.paths, path, &self.program, &error).into()),
            },
            At::Http(host) => match TcpStream::connect(host).await {
                Ok(stream) => Ok(Box::pin(stream)),
                Err(error) => {
                    let message = format!("no node answers at http://{host}: {error}");
                    Err(ErrorDocument::new(ErrorCode::NoNode, message)
                        .detail("maybe", "the port is another: `wattle status` on that machine shows it")
                        .into())
                }
            },
        }
    }
}

/// The node does not answer on its socket: where we looked, how to start it, which others run.
pub(crate) fn no_node(paths: &Paths, socket: &Path, program: &str, error: &std::io::Error) -> ErrorDocument {
    use std::io::ErrorKind;
    let (code, seen) = match error.kind() {
        ErrorKind::NotFound => (ErrorCode::NoNode, "absent".to_owned()),
        ErrorKind::ConnectionRefused => (ErrorCode::NoNode, "left over: nobody listens".to_owned()),
        ErrorKind::PermissionDenied => (ErrorCode::Denied, "not yours".to_owned()),
        _ => (ErrorCode::NoNode, error.to_string()),
    };
    let node = &paths.node;
    let message = if code == ErrorCode::Denied {
        format!("the socket of node \"{node}\" belongs to somebody else")
    } else {
        format!("node \"{node}\" is not running")
    };
    let looked = format!("{} ({seen})", socket.display());
    let mut document = ErrorDocument::new(code, message).detail("looked for", looked);
    if code == ErrorCode::NoNode {
        let (start, background) = match super::testnet::restart_of(program) {
            Some(restart) => (restart, String::new()),
            None => (format!("{program} run"), format!("(or in the background: {program} run -d)")),
        };
        document = advise(document, "start it", &start, &background);
    }
    // Those of a testnet are named otherwise, and `testnet status` shows them.
    let beside = if program.starts_with("wattle -t ") { Vec::new() } else { paths.nodes_seen() };
    let others: Vec<String> = beside
        .into_iter()
        .filter(|other| other != node && runs(paths, other))
        .map(|name| name.to_string())
        .collect();
    if let Some(first) = others.first() {
        let names: Vec<String> = others.iter().map(|name| format!("{name} (running)")).collect();
        document =
            document.detail("other nodes", format!("{:<19} use: wattle -n {first} status", names.join(", ")));
    }
    document
}

/// Whether somebody listens on the socket of another node of the same place.
fn runs(paths: &Paths, other: &NodeName) -> bool {
    let home = paths.home.as_deref();
    Paths::new(&crate::paths::Environment::of_process(), other.clone(), home)
        .is_ok_and(|paths| std::os::unix::net::UnixStream::connect(&paths.socket).is_ok())
}

/// A streamed answer, read line by line: JSON Lines, or the `data:` lines of server-sent events.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    read: usize,
}

impl Lines {
    /// The next object; `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            while let Some(length) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.read..self.read + length];
                let value = parse_line(line);
                self.read += length + 1;
                if let Some(value) = value? {
                    return Ok(Some(value));
                }
            }
            self.buffer.drain(..self.read);
            self.read = 0;
            if self.buffer.len() > DOCUMENT_BYTES_MAX {
                return Err(strange(&"a line longer than 64 MiB"));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return parse_line(&std::mem::take(&mut self.buffer)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_broken)) => {
                    return Err(ErrorDocument::new(ErrorCode::NoNode, "the node went away").into());
                }
            }
        }
    }
}

/// One line of a stream: an object, or nothing (blank lines, comments and the other fields of an event).
fn parse_line(line: &[u8]) -> Result<Option<String>, Failure> {
    let line = line.trim_ascii();
    let line = match line.strip_prefix(b"data:") {
        Some(data) => data.trim_ascii_start(),
        None if line.starts_with(b"{") => line,
        None => return Ok(None),
    };
    String::from_utf8(line.to_vec()).map(Some).map_err(|error| strange(&error))
}

/// A line of a stream as the type it should be.
pub(crate) fn read_line<T: DeserializeOwned>(raw: &str) -> Result<T, Failure> {
    serde_json::from_str(raw).map_err(|error| strange(&error))
}

/// The stream ended before it said how it ended.
pub(crate) fn cut_off() -> Failure {
    ErrorDocument::new(ErrorCode::NoNode, "the node stopped answering before it was done").into()
}

async fn whole(body: Incoming) -> Result<Bytes, Failure> {
    match http_body_util::Limited::new(body, DOCUMENT_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(strange(&error)),
    }
}

/// An answer that says no: the error document inside, or what the status alone tells.
async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let bytes = match whole(response.into_body()).await {
        Ok(bytes) => bytes,
        Err(failure) => return failure,
    };
    if let Ok(document) = serde_json::from_slice::<ErrorDocument>(&bytes) {
        return document.into();
    }
    let exit = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
            ErrorCode::Denied
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => ErrorCode::Usage,
        _ => ErrorCode::Failed,
    };
    let text = String::from_utf8_lossy(&bytes);
    let said = super::table::tame(text.lines().next().unwrap_or_default());
    ErrorDocument::new(exit, format!("the node answered {status}: {said}")).into()
}

fn strange(error: &impl std::fmt::Display) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot understand the node: {error}"))
        .detail("maybe", "the node is of another version: compare with `wattle version`")
        .into()
}

fn broken(node: &NodeName, error: &hyper::Error) -> Failure {
    ErrorDocument::new(ErrorCode::NoNode, format!("the connection to node \"{node}\" broke: {error}"))
        .detail("maybe", "it is stopping, or something else listens there")
        .into()
}

fn read_at(text: &str) -> Result<At, Failure> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(At::Unix(PathBuf::from(path)));
    }
    let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains('/') => {
            let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            Ok(At::Http(if port { host.to_owned() } else { format!("{host}:80") }))
        }
        _ => Err(ErrorDocument::new(ErrorCode::Usage, format!("`{text}` is no API address"))
            .detail("use", "unix:/path/api.sock or http://127.0.0.1:7711")
            .into()),
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| of_io("read the token file", path, &error))?;
    Ok(text.trim().to_owned())
}

/// `text` as one part of a path or query: everything but unreserved characters is percent-encoded.
pub(crate) fn part(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_as_lines_or_as_events() {
        let read = |line: &[u8]| parse_line(line).ok().flatten();
        assert_eq!(read(b"{\"a\":1}\r").as_deref(), Some("{\"a\":1}"));
        assert_eq!(read(b"data: {\"a\":1}").as_deref(), Some("{\"a\":1}"));
        assert_eq!(read(b"event: peer"), None);
        assert_eq!(read(b": keep-alive"), None);
        assert!(read_line::<serde_json::Value>("{broken").is_err());
    }

    #[test]
    fn api_addresses_are_sockets_or_http() {
        let at = |text: &str| read_at(text).ok();
        assert_eq!(at("unix:/run/x.sock"), Some(At::Unix("/run/x.sock".into())));
        assert_eq!(at("http://127.0.0.1:7711/"), Some(At::Http("127.0.0.1:7711".into())));
        assert_eq!(at("http://node.lan"), Some(At::Http("node.lan:80".into())));
        for bad in ["https://a", "/run/x.sock", "http://", "http://a/b", ""] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_part_of_a_path_cannot_end_it() {
        assert_eq!(part("a/b?c d&ü"), "a%2Fb%3Fc%20d%26%C3%BC");
    }
}
