//! Programs at the WebSocket of a real node: who gets in, what is refused and how, what it costs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use automerge::sync::{Message as SyncMessage, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{Automerge, ROOT, ReadDoc as _};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use wattle_docs::repo::{DocumentId, Ephemeral, Message, PeerId, PeerMetadata, ProtocolVersion, Sync};
use wattle_types::DocId;

const PATIENCE: Duration = Duration::from_secs(20);
const PATH: &str = "/api/v1/docs/sync";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A home with one node that also listens on TCP.
struct Home {
    home: tempfile::TempDir,
    url: String,
}

impl Home {
    fn new() -> Self {
        let mut home = Self { home: tempfile::tempdir().unwrap(), url: String::new() };
        home.ok(&["config", "set", "api.listen", "127.0.0.1:0"]);
        let (quic, tcp) = ("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0");
        home.ok(&["run", "-d", "--no-mdns", "--listen", quic, "--listen", tcp]);
        let status: Value = serde_json::from_str(&home.ok(&["status", "--json"])).unwrap();
        home.url = status["api"]["url"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
        home
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
        command.args(["--home", &self.path().display().to_string()]).args(words).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn token(&self, role: &str) -> String {
        self.ok(&["token", "new", "--role", role, "-q"]).trim().to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    fn docs(&self) -> Vec<Value> {
        let docs: Value = serde_json::from_str(&self.ok(&["doc", "list", "--json"])).unwrap();
        docs["docs"].as_array().unwrap().clone()
    }

    /// Opens a WebSocket over TCP with these headers.
    async fn tcp(&self, path: &str, headers: &[(&str, &str)]) -> Result<Opened, Error> {
        let host = self.url.trim_start_matches("http://");
        let stream = TcpStream::connect(host).await.unwrap();
        open(Box::new(stream), &format!("ws://{host}{path}"), headers).await
    }

    /// Opens one over the Unix socket.
    async fn socket(&self) -> Result<Opened, Error> {
        let status = self.status();
        let socket = status["api"]["socket"].as_str().unwrap().trim_start_matches("unix:").to_owned();
        let stream = UnixStream::connect(socket).await.unwrap();
        open(Box::new(stream), &format!("ws://localhost{PATH}"), &[]).await
    }

    fn admin(&self) -> String {
        let status = self.status();
        let socket = status["api"]["socket"].as_str().unwrap().trim_start_matches("unix:").to_owned();
        assert!(Path::new(&socket).exists(), "{status}");
        let found = walk(self.path(), "api.token").expect("the admin token");
        format!("Authorization: Bearer {}", std::fs::read_to_string(found).unwrap().trim())
    }

    /// One request over TCP; the whole answer.
    async fn http(&self, request: &str, headers: &[&str], body: &str) -> String {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.unwrap();
        let length = body.len();
        let mut text = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        text.push_str(&format!("Content-Length: {length}\r\n"));
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The cookie of a browser that used a sign-in link.
    async fn sign_in(&self) -> String {
        let json = "Content-Type: application/json";
        let code = self.http("POST /api/v1/session/code", &[&self.admin(), json], "{}").await;
        let body: Value = serde_json::from_str(code.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let body = format!("{{\"code\":{}}}", body["code"]);
        let answer = self.http("POST /api/v1/session", &[json], &body).await;
        let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Bytes of memory that the node holds.
    fn rss(&self) -> u64 {
        let status = self.status();
        let pid = status["pid"].as_u64().or_else(|| status["node"]["pid"].as_u64()).unwrap();
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    async fn program(&self, name: &str) -> Program {
        let mut program = Program::new(self.socket().await.unwrap().0, name);
        program.join().await;
        program
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for node in ["default", "bob"] {
            // Ignored because a test may have stopped it, or never started it.
            drop(self.run(&["-n", node, "stop", "--timeout", "5s"]));
        }
    }
}

fn walk(directory: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries.flatten().map(|entry| entry.path()).find_map(|path| match path.file_name() {
        Some(found) if found == name => Some(path),
        _ if path.is_dir() => walk(&path, name),
        _ => None,
    })
}

type Opened = (WebSocketStream<Box<dyn Stream>>, Response<Option<Vec<u8>>>);

async fn open(stream: Box<dyn Stream>, url: &str, headers: &[(&str, &str)]) -> Result<Opened, Error> {
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    tokio_tungstenite::client_async(request, stream).await
}

/// The status of a handshake that was refused, and what was said.
fn refused(outcome: Result<Opened, Error>) -> (u16, Value) {
    match outcome {
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// A program that speaks automerge-repo by hand.
struct Program {
    socket: WebSocketStream<Box<dyn Stream>>,
    name: PeerId,
    server: PeerId,
}

impl Program {
    fn new(socket: WebSocketStream<Box<dyn Stream>>, name: &str) -> Self {
        Self { socket, name: name.parse().unwrap(), server: "nobody".parse().unwrap() }
    }

    async fn send(&mut self, message: &Message) {
        self.socket.send(Frame::Binary(message.encode().into())).await.unwrap();
    }

    /// The next message; none when the connection was closed.
    async fn next(&mut self) -> Option<Message> {
        let next = async {
            loop {
                match self.socket.next().await? {
                    Ok(Frame::Binary(bytes)) => return Some(Message::decode(&bytes).unwrap()),
                    Ok(Frame::Ping(_) | Frame::Pong(_)) => {}
                    Ok(Frame::Close(_)) | Err(_) => return None,
                    Ok(other) => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("nothing came in {PATIENCE:?}"))
    }

    async fn join(&mut self) {
        let versions = vec![ProtocolVersion::one()];
        let metadata = PeerMetadata { storage: None, ephemeral: true };
        self.send(&Message::Join { sender: self.name.clone(), metadata, versions }).await;
        let Some(Message::Peer { sender, target, metadata, .. }) = self.next().await else {
            panic!("no peer")
        };
        assert_eq!(target, self.name);
        assert!(!metadata.ephemeral && metadata.storage.is_some(), "what is stored here stays");
        self.server = sender;
    }

    fn sync(&self, document: &DocumentId, data: Vec<u8>) -> Sync {
        let (sender, target) = (self.name.clone(), self.server.clone());
        Sync { sender, target, document: document.clone(), data }
    }

    /// Says what there is to say and hears the answers, until `done`.
    async fn talk(
        &mut self,
        document: &DocumentId,
        automerge: &mut Automerge,
        state: &mut State,
        done: impl Fn(&Automerge, &State) -> bool,
    ) {
        loop {
            if let Some(message) = automerge.generate_sync_message(state) {
                self.send(&Message::Sync(self.sync(document, message.encode()))).await;
            }
            if done(automerge, state) {
                return;
            }
            match self.next().await {
                Some(Message::Sync(sync)) if sync.document == *document => {
                    let message = SyncMessage::decode(&sync.data).unwrap();
                    automerge.receive_sync_message(state, message).unwrap();
                }
                Some(Message::Sync(_) | Message::Ephemeral(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What it is told before it is sent away.
    async fn sent_away(&mut self) -> String {
        loop {
            match self.next().await {
                Some(Message::Error { reason, .. }) => {
                    assert!(self.next().await.is_none(), "the connection is still open");
                    return reason;
                }
                Some(_) => {}
                None => panic!("closed without a word"),
            }
        }
    }
}

fn name(doc: &DocId) -> DocumentId {
    doc.to_string().trim_start_matches("automerge:").parse().unwrap()
}

fn first_message() -> Vec<u8> {
    Automerge::new().generate_sync_message(&mut State::new()).unwrap().encode()
}

fn acknowledged(automerge: &Automerge, state: &State) -> bool {
    state.their_heads.as_ref() == Some(&automerge.get_heads())
}

#[tokio::test]
async fn a_token_by_header_or_subprotocol_a_session_or_the_socket_lets_in() {
    let home = Home::new();
    let (user, read) = (home.token("user"), home.token("read"));
    let protocol = format!("wattle.token.{user}");
    let bearer = format!("Bearer {user}");
    let own = home.url.clone();

    let (_, response) = home.tcp(PATH, &[("Authorization", &bearer)]).await.unwrap();
    assert!(!response.headers().contains_key("sec-websocket-protocol"));
    let asked = ("Sec-WebSocket-Protocol", protocol.as_str());
    let (socket, response) = home.tcp(PATH, &[asked, ("Origin", &own)]).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol.as_str());
    let mut program = Program::new(socket, "page");
    program.join().await;
    home.socket().await.unwrap();

    // A page that signed in: a cookie, and the browser's own headers.
    let cookie = home.sign_in().await;
    home.tcp(PATH, &[("Cookie", &cookie), ("Origin", &own), ("Sec-Fetch-Site", "same-origin")])
        .await
        .unwrap();

    let wrong = "wattle.token.guess";
    let reader = format!("wattle.token.{read}");
    let evil = "http://evil.example";
    for (headers, status) in [
        (vec![], 401),
        (vec![("Sec-WebSocket-Protocol", wrong)], 401),
        (vec![("Sec-WebSocket-Protocol", "chat")], 401),
        (vec![("Authorization", "Bearer guess"), asked], 401),
        (vec![("Sec-WebSocket-Protocol", reader.as_str())], 403),
        (vec![asked, ("Origin", evil)], 403),
        (vec![("Cookie", cookie.as_str()), ("Origin", evil)], 403),
        (vec![("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![asked, ("Host", "evil.example")], 421),
    ] {
        let (got, body) = refused(home.tcp(PATH, &headers).await);
        assert_eq!(got, status, "{headers:?}: {body}");
        assert_eq!(body["code"], "denied", "{headers:?}: {body}");
    }
    // The subprotocol opens this door and no other.
    assert_eq!(refused(home.tcp("/api/v1/docs", &[asked]).await).0, 401);
    let plain = home.http(&format!("GET {PATH}"), &[&format!("Authorization: {bearer}")], "").await;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("WebSocketClientAdapter"), "{plain}");
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_why_and_sent_away() {
    let home = Home::new();
    let mine: DocId = DocId::from_bytes([1; 16]);
    let other_version: ProtocolVersion = "2".parse().unwrap();
    let join = |versions| Message::Join {
        sender: "page".parse().unwrap(),
        metadata: PeerMetadata::default(),
        versions,
    };
    let early = Message::Leave { sender: "page".parse().unwrap() };
    for (frame, reason) in [
        (Frame::Binary(join(vec![other_version]).encode().into()), "version 1"),
        (Frame::Binary(early.encode().into()), "first message"),
        (Frame::Binary(vec![0xff; 40].into()), "malformed"),
        (Frame::Text("{}".into()), "binary"),
        (Frame::Binary(vec![0; (16 << 20) + 1].into()), "over the 16777216 allowed"),
    ] {
        let mut program = Program::new(home.socket().await.unwrap().0, "page");
        program.socket.send(frame).await.unwrap_or_default();
        let said = program.sent_away().await;
        assert!(said.to_lowercase().contains(reason), "{reason}: {said}");
    }
    // What is much too large is not read to its end.
    let mut program = Program::new(home.socket().await.unwrap().0, "page");
    program.socket.send(Frame::Binary(vec![0; 64 << 20].into())).await.unwrap_err();

    let mut program = home.program("page").await;
    let mut sync = program.sync(&name(&mine), first_message());
    sync.sender = "somebody else".parse().unwrap();
    program.send(&Message::Sync(sync)).await;
    assert!(program.sent_away().await.contains("did not join"));

    // A document that lives on while one that edits it sends nonsense.
    let mut honest = home.program("honest").await;
    let (mut automerge, mut state) = (Automerge::new(), State::new());
    put(&mut automerge, "a");
    honest.talk(&name(&mine), &mut automerge, &mut state, acknowledged).await;
    let mut message = first_message();
    message.extend(vec![0x85; 300]);
    let mut hostile = home.program("hostile").await;
    hostile.send(&Message::Sync(hostile.sync(&name(&mine), message))).await;
    let said = hostile.sent_away().await;
    assert!(said.contains("refused") && said.contains(&mine.to_string()), "{said}");
    put(&mut automerge, "b");
    honest.talk(&name(&mine), &mut automerge, &mut state, acknowledged).await;
    assert_eq!(home.docs().len(), 1);
}

#[tokio::test]
async fn a_document_made_by_a_program_is_the_nodes_and_another_program_hears_of_edits_and_presence() {
    let home = Home::new();
    let doc = DocId::from_bytes([1; 16]);
    let (mut one, mut other) = (home.program("one").await, home.program("other").await);
    let (mut mine, mut state) = (Automerge::new(), State::new());
    put(&mut mine, "a");
    one.talk(&name(&doc), &mut mine, &mut state, acknowledged).await;
    assert_eq!(home.docs()[0]["id"], doc.to_string());
    let (mut theirs, mut their_state) = (Automerge::new(), State::new());
    let request = theirs.generate_sync_message(&mut their_state).unwrap().encode();
    other.send(&Message::Request(other.sync(&name(&doc), request))).await;
    let has = |key: &'static str| {
        move |automerge: &Automerge, _: &State| automerge.get(ROOT, key).unwrap().is_some()
    };
    other.talk(&name(&doc), &mut theirs, &mut their_state, has("a")).await;
    put(&mut mine, "b");
    one.talk(&name(&doc), &mut mine, &mut state, acknowledged).await;
    other.talk(&name(&doc), &mut theirs, &mut their_state, has("b")).await;
    home.ok(&["doc", "set", &doc.to_string(), "c", "3"]);
    one.talk(&name(&doc), &mut mine, &mut state, has("c")).await;
    // Presence reaches the other once, and not the one who said it, who passes it on as automerge-repo does.
    for count in [1, 2, 2, 3] {
        let said = Ephemeral {
            sender: one.name.clone(),
            target: one.server.clone(),
            document: name(&doc),
            count,
            session: "run".parse().unwrap(),
            data: vec![1],
        };
        one.send(&Message::Ephemeral(said)).await;
    }
    let mut counts = Vec::new();
    while counts.last() != Some(&3) {
        match other.next().await {
            Some(Message::Ephemeral(heard)) => {
                assert_eq!((heard.sender.as_str(), heard.target.as_str()), ("one", "other"));
                counts.push(heard.count);
            }
            Some(Message::Sync(_)) => {}
            unexpected => panic!("{unexpected:?}"),
        }
    }
    assert_eq!(counts, [1, 2, 3]);
    other.send(&Message::Leave { sender: other.name.clone() }).await;
    assert!(other.next().await.is_none(), "who leaves is let go");
}

#[tokio::test]
async fn made_up_ids_are_answered_at_once_and_cost_nothing() {
    let home = Home::new();
    let mut program = home.program("page").await;
    let rss = |home: &Home| home.rss();
    let mut before = 0;
    for round in 0..6_u8 {
        if round == 1 {
            before = rss(&home);
        }
        let began = Instant::now();
        for number in 0..2000_u16 {
            let mut id = [round; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let document = name(&DocId::from_bytes(id));
            program.send(&Message::Request(program.sync(&document, first_message()))).await;
            let Some(Message::Unavailable { document: lacking, .. }) = program.next().await else {
                panic!("no answer")
            };
            assert_eq!(lacking, document);
        }
        assert!(began.elapsed() < PATIENCE, "2000 answers took {:?}", began.elapsed());
    }
    let grown = rss(&home).saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes more after 10,000 made-up ids");
    assert!(home.docs().is_empty());
    // An id of another kind is as little here.
    let odd: DocumentId = "not-one-of-ours".parse().unwrap();
    program.send(&Message::Request(program.sync(&odd, first_message()))).await;
    assert!(matches!(program.next().await, Some(Message::Unavailable { .. })));
}

#[tokio::test]
async fn a_document_that_was_joined_and_is_not_here_is_looked_for_first_and_told_of_when_it_comes() {
    let home = Home::new();
    let (quic, tcp) = ("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0");
    let bob = ["-n", "bob", "run", "-d", "--no-mdns", "--listen", quic, "--listen", tcp];
    home.ok(&["-n", "bob", "config", "set", "api.listen", "off"]);
    home.ok(&bob);
    home.ok(&["-n", "bob", "doc", "new", "notes"]);
    let ticket = home.ok(&["-n", "bob", "doc", "share", "notes", "-q"]);
    home.ok(&["-n", "bob", "stop"]);
    let joined = home.run(&["doc", "join", ticket.trim(), "--timeout", "1s"]);
    assert_eq!(joined.status.code(), Some(5), "{}", String::from_utf8_lossy(&joined.stderr));
    let doc: DocId = home.docs()[0]["id"].as_str().unwrap().parse().unwrap();

    let mut program = home.program("page").await;
    let began = Instant::now();
    program.send(&Message::Request(program.sync(&name(&doc), first_message()))).await;
    match program.next().await {
        Some(Message::Unavailable { document, .. }) => {
            assert_eq!(document, name(&doc));
            assert!(began.elapsed() > Duration::from_secs(1), "said after {:?}", began.elapsed());
        }
        other => panic!("{other:?}"),
    }
    // When it comes after all, the program is told without asking again.
    home.ok(&bob);
    let told = program.next().await;
    let Some(Message::Sync(sync)) = told else { panic!("{told:?}") };
    assert!(!SyncMessage::decode(&sync.data).unwrap().heads.is_empty());
    home.ok(&["-n", "bob", "stop", "--timeout", "5s"]);
}

#[tokio::test]
async fn there_are_places_for_64_programs_and_one_that_goes_makes_room() {
    let home = Home::new();
    let mut programs = Vec::new();
    for _ in 0..64 {
        programs.push(home.socket().await.unwrap());
    }
    let (status, body) = refused(home.socket().await);
    assert_eq!(status, 503);
    assert!(body["message"].as_str().unwrap().contains("64 programs"), "{body}");
    // The API itself is open to all meanwhile.
    home.status();
    drop(programs.pop());
    let began = Instant::now();
    while home.socket().await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_does_not_join_is_sent_away() {
    let home = Home::new();
    let mut program = Program::new(home.socket().await.unwrap().0, "page");
    assert!(program.sent_away().await.contains("join"));
}

#[tokio::test]
async fn a_stopping_node_says_goodbye() {
    let home = Home::new();
    let mut program = home.program("page").await;
    let stopped = async {
        loop {
            match program.socket.next().await {
                Some(Ok(Frame::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let stop = async {
        home.http("POST /api/v1/stop", &[&home.admin(), "Content-Type: application/json"], "{}").await;
    };
    let (code, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(stopped, stop) }).await.unwrap();
    assert_eq!(code, 1001);
}

fn put(automerge: &mut Automerge, key: &str) {
    let mut transaction = automerge.transaction();
    transaction.put(ROOT, key, "x").unwrap();
    transaction.commit();
}
