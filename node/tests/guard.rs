//! Attacks on the API through real sockets: what a hostile page, program or user of this machine can send.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use wattle::api::documents::{ErrorDocument, Role, TokenDocument, TokensDocument};
use wattle::api::{Access, Gate, Guard, Needs, Server, Socket, bind_tcp, cookie_name, gate_only, needed};
use wattle::clock::unix_now;
use wattle::exit::ErrorCode;
use wattle::paths::{Environment, NodeName, Paths};
use wattle_store::{Owner, Store};
use wattle_types::NodeId;

/// The part of the API that needs no overlay, behind the real guard and the real listeners.
struct Api {
    access: Arc<Access>,
    id: NodeId,
    address: SocketAddr,
    socket: std::path::PathBuf,
    stop: CancellationToken,
    _home: tempfile::TempDir,
}

/// Shorter than the product's, so that a test can wait for it.
const UNREAD_MAX: Duration = Duration::from_secs(2);

struct Answer {
    status: u16,
    head: String,
    body: String,
    /// The body as it came.
    bytes: Vec<u8>,
}

impl Answer {
    fn error(&self) -> ErrorDocument {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Api {
    async fn start() -> Self {
        let own_uid = rustix::process::geteuid().as_raw();
        Self::start_for(own_uid, &[]).await
    }

    async fn start_for(uid: u32, allowed: &[u32]) -> Self {
        let home = tempfile::tempdir().unwrap();
        // Everybody may enter; what keeps others out is below.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = Environment::of_process();
        let paths = Paths::new(&environment, NodeName::default(), Some(home.path())).unwrap();
        paths.prepare_runtime(!allowed.is_empty()).unwrap();
        let store = Arc::new(Store::open(&home.path().join("data"), Owner::this_process("test")).unwrap());
        let access = Arc::new(Access::open(store).unwrap());
        let id = NodeId::from_public_key([7; 32]);
        let guard = Guard::new(Arc::clone(&access), id, vec!["node.home".to_owned()], false);
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let gate = Gate { guard: Arc::new(guard), id, url: Some(format!("http://{address}")) };
        let stop = CancellationToken::new();
        let server = Server::new(gate_only(Arc::new(gate)), stop.clone()).unread_max(UNREAD_MAX);
        let socket = paths.socket;
        let bound = Socket::bind(&socket, !allowed.is_empty()).unwrap();
        tokio::spawn(server.clone().serve_socket(bound, uid, allowed.to_vec()));
        tokio::spawn(server.serve_tcp(tcp));
        Self { access, id, address, socket, stop, _home: home }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.address.port())
    }

    fn admin(&self) -> String {
        format!("Authorization: Bearer {}", self.access.admin_token(unix_now()).unwrap().secret)
    }

    /// Sends a request with exactly these header lines.
    async fn tcp(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        send(TcpStream::connect(self.address).await.unwrap(), request, headers, body).await
    }

    fn tokens(&self) -> usize {
        self.access.tokens(unix_now()).len()
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text.push_str(&format!("\r\n{body}"));
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let bytes = answer.get(end + 4..).unwrap_or_default().to_vec();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Answer { status, head: head.to_ascii_lowercase(), body, bytes }
}

const JSON: &str = "Content-Type: application/json";
const NEW_TOKEN: &str = r#"{"role":"admin"}"#;

#[tokio::test]
async fn a_foreign_host_name_is_misdirected_even_with_a_token() {
    let api = Api::start().await;
    let (admin, port) = (api.admin(), api.address.port());
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("localhost:{port}@evil.example"),
        String::new(),
    ] {
        for path in ["/api/v1/tokens", "/healthz", "/nothing"] {
            let answer = api.tcp(&format!("GET {path}"), &[&format!("Host: {host}"), &admin], "").await;
            assert_eq!(answer.status, 421, "{host} {path}: {}", answer.body);
            assert_eq!(answer.error().code, ErrorCode::Denied);
        }
    }
    let twice = [format!("Host: {}", api.host()), "Host: evil.example".to_owned(), admin.clone()];
    let twice: Vec<&str> = twice.iter().map(String::as_str).collect();
    assert!(matches!(api.tcp("GET /api/v1/tokens", &twice, "").await.status, 400 | 421));
    assert!(matches!(api.tcp("GET /api/v1/tokens", &[&admin], "").await.status, 400 | 421));
    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), format!("Node.Home:{port}")] {
        let answer = api.tcp("GET /api/v1/tokens", &[&format!("Host: {host}"), &admin], "").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_even_with_the_cookie() {
    let api = Api::start().await;
    let (code, _) = api.access.login_code(unix_now()).unwrap();
    let (session, _) = api.access.sign_in(&code, unix_now()).await.unwrap();
    let cookie = format!("Cookie: other=1; {}={session}", cookie_name(api.id));
    let host = format!("Host: {}", api.host());
    let own = format!("Origin: http://{}", api.host());
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Origin: https://127.0.0.1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for request in ["POST /api/v1/tokens", "GET /api/v1/tokens", "OPTIONS /api/v1/tokens"] {
            let answer = api.tcp(request, &[&host, &cookie, foreign, JSON], NEW_TOKEN).await;
            assert_eq!(answer.status, 403, "{foreign} {request}: {}", answer.body);
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
    assert_eq!(api.tokens(), 1, "only the session itself");
    let ours = [host.as_str(), &cookie, &own, "Sec-Fetch-Site: same-origin", JSON];
    assert_eq!(api.tcp("POST /api/v1/tokens", &ours, NEW_TOKEN).await.status, 200);
    assert_eq!(api.tokens(), 2);
}

#[tokio::test]
async fn a_form_cannot_change_anything() {
    let api = Api::start().await;
    let (admin, host) = (api.admin(), format!("Host: {}", api.host()));
    for kind in [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: text/plain",
        "Content-Type: text/plain; application/json",
        "X-None: x",
    ] {
        let answer = api.tcp("POST /api/v1/tokens", &[&host, &admin, kind], NEW_TOKEN).await;
        assert_eq!(answer.status, 415, "{kind}: {}", answer.body);
    }
    assert_eq!(api.tokens(), 1, "only the admin token itself");
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_told() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    let now = unix_now();
    let brief = api.access.new_token(Role::Admin, None, Some(Duration::ZERO), now).await.unwrap();
    let expired = format!("Authorization: Bearer {}", brief.secret);
    let basic = "Authorization: Basic YTpi".to_owned();
    let long = format!("Authorization: Bearer {}", "x".repeat(4000));
    let other_node = format!("Cookie: {}=x", cookie_name(NodeId::from_public_key([8; 32])));
    for credentials in [
        "X-None: x",
        &expired,
        "Authorization: Bearer",
        "Authorization: Bearer x",
        &basic,
        &long,
        &other_node,
    ] {
        let answer = api.tcp("GET /api/v1/tokens", &[&host, credentials], "").await;
        assert_eq!(answer.status, 401, "{credentials}");
        let error = answer.error();
        assert_eq!((error.code, error.exit), (ErrorCode::Denied, 7));
    }
    assert_eq!(api.tcp("GET /api/v1/nothing", &[&host], "").await.status, 401, "not even which paths exist");
    assert_eq!(api.tcp("GET /healthz", &[&host], "").await.status, 200);
}

#[tokio::test]
async fn a_token_does_what_its_role_allows_and_no_more() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    for role in [Role::Read, Role::User] {
        let token = api.access.new_token(role, None, None, unix_now()).await.unwrap();
        let bearer = format!("Authorization: Bearer {}", token.secret);
        assert_eq!(api.tcp("GET /api/v1/version", &[&host, &bearer], "").await.status, 200);
        for request in [
            "GET /api/v1/tokens",
            "POST /api/v1/tokens",
            "POST /api/v1/tokens/revoke",
            "POST /api/v1/session/code",
        ] {
            let answer = api.tcp(request, &[&host, &bearer, JSON], NEW_TOKEN).await;
            assert_eq!(answer.status, 403, "{role} {request}");
            assert!(answer.error().message.contains("admin"), "{}", answer.body);
        }
    }
    assert_eq!(api.tokens(), 2);
}

#[tokio::test]
async fn a_sign_in_link_works_once_and_its_cookie_is_closed_to_scripts_and_other_sites() {
    let api = Api::start().await;
    let (host, own) = (format!("Host: {}", api.host()), format!("Origin: http://{}", api.host()));
    let (code, _) = api.access.login_code(unix_now()).unwrap();
    let body = format!(r#"{{"code":"{code}"}}"#);
    let first = api.tcp("POST /api/v1/session", &[&host, &own, JSON], &body).await;
    assert_eq!(first.status, 200, "{}", first.body);
    let cookie = first.head.lines().find(|line| line.starts_with("set-cookie")).unwrap().to_owned();
    for part in ["httponly", "samesite=strict", "path=/", &cookie_name(api.id).to_ascii_lowercase()] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let second = api.tcp("POST /api/v1/session", &[&host, &own, JSON], &body).await;
    assert_eq!((second.status, second.error().code), (403, ErrorCode::Denied));
}

#[tokio::test]
async fn every_answer_forbids_frames_sniffing_and_foreign_scripts() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    for (request, host) in
        [("GET /healthz", host.as_str()), ("GET /x", &host), ("GET /healthz", "Host: evil.example")]
    {
        let answer = api.tcp(request, &[host], "").await;
        for header in [
            "content-security-policy: default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.contains(header), "{header}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn bodies_and_headers_that_are_too_large_are_refused() {
    let api = Api::start().await;
    let (admin, host) = (api.admin(), format!("Host: {}", api.host()));
    let large = format!(r#"{{"role":"read","label":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(api.tcp("POST /api/v1/tokens", &[&host, &admin, JSON], &large).await.status, 413);
    let wrong = api.tcp("POST /api/v1/tokens", &[&host, &admin, JSON], r#"{"role":"god"}"#).await;
    assert_eq!((wrong.status, wrong.error().code), (400, ErrorCode::Usage));
    let header = format!("GET /healthz HTTP/1.1\r\n{host}\r\nX-Large: {}\r\n\r\n", "x".repeat(400_000));
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    // Ignored because the other side may hang up in the middle, which is as good a refusal.
    drop(stream.write_all(header.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(api.tokens(), 1);
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_cut_off() {
    let api = Api::start().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").await.unwrap();
    let mut answer = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    assert!(cut.is_ok(), "still open after 15 s");
}

#[tokio::test]
async fn the_socket_needs_no_token_but_still_refuses_forms() {
    let api = Api::start().await;
    let connect = || UnixStream::connect(&api.socket);
    let made =
        send(connect().await.unwrap(), "POST /api/v1/tokens", &["Host: localhost", JSON], NEW_TOKEN).await;
    let token: TokenDocument = serde_json::from_str(&made.body).unwrap();
    let listed = send(connect().await.unwrap(), "GET /api/v1/tokens", &["Host: localhost"], "").await;
    let listed: TokensDocument = serde_json::from_str(&listed.body).unwrap();
    assert_eq!(listed.tokens[0].id, token.id);
    assert!(!serde_json::to_string(&listed).unwrap().contains(&token.token));
    let form = send(connect().await.unwrap(), "POST /api/v1/tokens", &["Host: localhost"], NEW_TOKEN).await;
    assert_eq!(form.status, 415);
}

/// Becoming another user takes root, so others see only the check that needs no second user.
#[test]
fn another_user_is_let_in_by_the_socket_only_when_the_config_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if rustix::process::geteuid().is_root() {
        let api = runtime.block_on(Api::start_for(12_345, &[54_322]));
        expect_status("200", 54_322, &api.socket);
        expect_status("000", 54_321, &api.socket);
        let closed = runtime.block_on(Api::start_for(12_345, &[]));
        expect_status("000", 54_322, &closed.socket);
    } else {
        let stranger = rustix::process::geteuid().as_raw().wrapping_add(1);
        let api = runtime.block_on(Api::start_for(stranger, &[]));
        let answer = runtime.block_on(async {
            let mut stream = UnixStream::connect(&api.socket).await.unwrap();
            // Ignored because the other side may have hung up already, which is the point.
            drop(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            answer
        });
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Asks as another user. The status "000" stands for no answer.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn expect_status(expected: &str, uid: u32, socket: &Path) {
    use std::os::unix::process::CommandExt as _;
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", "--unix-socket"]);
    curl.arg(socket).arg("http://localhost/healthz").uid(uid).gid(uid);
    let Ok(output) = curl.output() else {
        eprintln!("did not run: there is no curl");
        assert!(
            std::env::var_os("WATTLE_TEST_ALL").is_none(),
            "WATTLE_TEST_ALL is set, and there is no curl"
        );
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "user {uid}");
}

#[tokio::test]
async fn who_asks_and_never_reads_loses_the_connection() {
    let api = Api::start().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", api.host()).repeat(1000);
    let flood = async {
        loop {
            if let Err(error) = stream.write_all(request.as_bytes()).await {
                return error;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), flood).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn strangers_who_take_every_place_of_the_port_leave_the_socket_to_its_owner() {
    let api = Api::start().await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        strangers.push(stream);
    }
    for _ in 0..3 {
        let asked = async {
            let stream = UnixStream::connect(&api.socket).await.unwrap();
            send(stream, "GET /api/v1/version", &["Host: localhost"], "").await
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
        assert_eq!(answer.map(|answer| answer.status), Ok(200), "the owner is locked out");
    }
}

#[test]
fn what_is_in_a_document_needs_more_than_the_right_to_look_at_the_node() {
    for what in ["content", "history", "diff", "changes", "export"] {
        let path = format!("/api/v1/docs/{{doc}}/{what}");
        assert_eq!(needed(&Method::GET, &path), Needs::Role(Role::User), "{path}");
    }
    assert_eq!(
        needed(&Method::GET, "/api/v1/docs/{doc}"),
        Needs::Role(Role::Read),
        "who has it, not what is in it"
    );
    for path in ["/api/v1/docs/import", "/api/v1/docs/{doc}/text"] {
        assert_eq!(needed(&Method::POST, path), Needs::Role(Role::User), "{path}");
    }
}

#[test]
fn who_is_a_member_is_for_all_to_see_and_for_an_admin_to_change() {
    for path in ["/api/v1/members", "/api/v1/members/follow"] {
        assert_eq!(needed(&Method::GET, path), Needs::Role(Role::Read), "{path}");
    }
    for path in ["/api/v1/members/leave", "/api/v1/members/remove"] {
        assert_eq!(needed(&Method::POST, path), Needs::Role(Role::Admin), "{path}");
    }
}

#[test]
fn what_harms_a_node_is_for_an_admin_to_see_and_to_ask_for() {
    for method in [Method::GET, Method::POST] {
        assert_eq!(needed(&method, "/api/v1/faults"), Needs::Role(Role::Admin), "{method}");
    }
}

#[test]
fn the_log_is_read_and_written_by_users_watched_by_all_and_joined_by_an_admin() {
    for path in ["/api/v1/order/status", "/api/v1/order/validators"] {
        assert_eq!(needed(&Method::GET, path), Needs::Role(Role::Read), "{path}");
    }
    let read = ["/api/v1/order/entries", "/api/v1/order/entries/{at}", "/api/v1/order/follow"];
    for path in read.into_iter().chain(["/api/v1/registers", "/api/v1/registers/{register}"]) {
        assert_eq!(needed(&Method::GET, path), Needs::Role(Role::User), "{path}");
    }
    for path in ["/api/v1/order/entries", "/api/v1/order/verify", "/api/v1/registers/{register}"] {
        assert_eq!(needed(&Method::POST, path), Needs::Role(Role::User), "{path}");
    }
    assert_eq!(needed(&Method::POST, "/api/v1/order/join"), Needs::Role(Role::Admin));
}

/// The files that the page loads, as it names them.
async fn assets(api: &Api) -> Vec<String> {
    let host = format!("Host: {}", api.host());
    let index = api.tcp("GET /", &[&host], "").await.body;
    index.split('"').filter(|text| text.starts_with("/assets/")).map(str::to_owned).collect()
}

#[tokio::test]
async fn whoever_is_on_this_machine_gets_the_page_and_nothing_of_the_node() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    let index = api.tcp("GET /", &[&host], "").await;
    assert_eq!(index.status, 200, "{}", index.body);
    for header in ["content-type: text/html; charset=utf-8", "cache-control: no-cache"] {
        assert!(index.head.contains(header), "{}", index.head);
    }
    for place in ["/docs/automerge:2Ty8bZ", "/docs", "/nowhere", "/apiary"] {
        let answer = api.tcp(&format!("GET {place}"), &[&host], "").await;
        assert_eq!((answer.status, answer.body), (200, index.body.clone()), "{place}");
    }
    for file in ["/assets/nothing.js", "/../Cargo.toml", "/assets/../../Cargo.toml", "/x.wasm.br"] {
        let answer = api.tcp(&format!("GET {file}"), &[&host], "").await;
        assert_eq!(answer.status, 404, "{file}: {}", answer.body);
    }
    for request in ["GET /api", "GET /api/", "GET /api/v1/nothing", "POST /", "PUT /docs/x"] {
        let answer = api.tcp(request, &[&host, JSON], "{}").await;
        assert_eq!(answer.status, 401, "{request}: {}", answer.body);
    }
    assert_eq!(api.tcp("GET /", &["Host: evil.example"], "").await.status, 421);
}

#[tokio::test]
async fn a_browser_keeps_the_files_of_the_page_and_asks_for_its_index_alone() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    let assets = assets(&api).await;
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in &assets {
        let answer = api.tcp(&format!("GET {asset}"), &[&host], "").await;
        assert_eq!(answer.status, 200, "{asset}");
        let kind = match asset.rsplit('.').next().unwrap() {
            "js" => "text/javascript",
            "css" => "text/css",
            _ => "image/svg+xml",
        };
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{asset}: {}", answer.head);
        assert!(answer.head.contains("immutable"), "{asset}: {}", answer.head);
    }
    for file in ["/", &assets[0]] {
        let first = api.tcp(&format!("GET {file}"), &[&host], "").await;
        let etag = first.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
        let again = api.tcp(&format!("GET {file}"), &[&host, &format!("If-None-Match: {etag}")], "").await;
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{file}");
        let other = api.tcp(&format!("GET {file}"), &[&host, "If-None-Match: \"0\""], "").await;
        assert_eq!(other.body, first.body, "{file}");
    }
}

#[tokio::test]
async fn what_is_kept_compressed_is_whole_for_who_does_not_take_it_so() {
    let api = Api::start().await;
    let host = format!("Host: {}", api.host());
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/dist/assets");
    let mut names =
        std::fs::read_dir(dist).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.find_map(|name| Some(name.strip_suffix(".wasm.br")?.to_owned())).unwrap();
    let request = format!("GET /assets/{name}.wasm");
    let mut sizes = Vec::new();
    for (takes, compressed) in [
        ("Accept-Encoding: gzip, deflate, br, zstd", true),
        ("Accept-Encoding: gzip", false),
        ("Accept-Encoding: br;q=0", false),
        ("X-None: x", false),
    ] {
        let answer = api.tcp(&request, &[&host, takes], "").await;
        assert_eq!(answer.status, 200, "{takes}");
        assert!(answer.head.contains("content-type: application/wasm"), "{}", answer.head);
        assert!(answer.head.contains("vary: accept-encoding"), "{}", answer.head);
        assert_eq!(answer.head.contains("content-encoding: br"), compressed, "{takes}: {}", answer.head);
        assert_eq!(answer.bytes.starts_with(b"\0asm"), !compressed, "{takes}");
        sizes.push(answer.bytes.len());
    }
    assert!(sizes[0] * 4 < sizes[1], "{sizes:?}");
    assert_eq!(sizes[1..], [sizes[1]; 3]);
}
