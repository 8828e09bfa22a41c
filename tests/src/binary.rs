//! The real binary, run as a user runs it: in a home of its own, with nothing else of the machine's
//! configuration.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where the `wattle` of this build is; builds it when a test of this package alone was asked for.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn wattle() -> PathBuf {
    // The test is target/PROFILE/deps/NAME-HASH; the binary lies two levels up.
    let test = std::env::current_exe().unwrap_or_default();
    let profile = test.parent().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    let binary = profile.join("wattle");
    if !binary.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "wattle"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the binary could not be built");
    }
    binary
}

/// Whether a test that needs `what` may pass without having run: on a user's machine yes, with a word about
/// it; where `WATTLE_TEST_ALL` is set no.
///
/// # Panics
/// Where `WATTLE_TEST_ALL` is set.
#[expect(clippy::print_stderr, reason = "whoever runs the tests must see what did not run")]
pub fn did_not_run(what: &str) {
    eprintln!("did not run: {what}");
    assert!(std::env::var_os("WATTLE_TEST_ALL").is_none(), "did not run, and WATTLE_TEST_ALL is set: {what}");
}

/// A home of one machine: what is `~`, `$XDG_RUNTIME_DIR` and the rest for the nodes on it.
#[derive(Debug)]
pub struct Machine {
    home: tempfile::TempDir,
    namespace: Option<String>,
}

impl Machine {
    /// An empty home on this machine, or in a network namespace.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without a home cannot go on")]
    pub fn new(namespace: Option<&str>) -> Self {
        let home = tempfile::Builder::new().prefix("wattle-").tempdir().expect("a temporary directory");
        Self { home, namespace: namespace.map(str::to_owned) }
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A command with this home and no other environment but the path.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(wattle());
                command
            }
            None => Command::new(wattle()),
        };
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home()).env("XDG_RUNTIME_DIR", self.home().join("run"));
        // Ignored because it exists from the second call on.
        std::fs::create_dir_all(self.home().join("run")).unwrap_or_default();
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::expect_used, reason = "a test whose binary does not start cannot go on")]
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command starts")
    }

    /// Runs a command with `--json` that must succeed, and reads its document.
    ///
    /// # Panics
    /// When it fails, with what it said.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "wattle {} failed: {said}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A number in the metrics of a node; none where there is no such series.
    ///
    /// # Panics
    /// When the node does not answer.
    #[expect(clippy::expect_used, reason = "a test whose node does not answer cannot go on")]
    #[must_use]
    pub fn metric(&self, node: &str, series: &str) -> Option<f64> {
        let socket = self.home().join(format!("run/wattle/{node}/api.sock"));
        let mut stream = UnixStream::connect(socket).expect("the node is there");
        let request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("the node listens");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.find_map(|line| line.strip_prefix(&format!("wattle_{series} "))?.parse().ok())
    }

    /// Starts a node and waits until it answers.
    ///
    /// # Panics
    /// When it is not ready in 20 s.
    #[expect(clippy::expect_used, reason = "a test whose node does not start cannot go on")]
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Node {
        let name = match arguments {
            ["-n", name, ..] => (*name).to_owned(),
            _ => "default".to_owned(),
        };
        let log = std::fs::File::create(self.home().join(format!("{name}.log"))).expect("a log file");
        let errors = log.try_clone().expect("a log file");
        let mut command = self.command(&[arguments, &["run"]].concat());
        let child = command.stdout(log).stderr(errors).spawn().expect("the node starts");
        let node = Node { child, name };
        let ready = self.run(&["-n", &node.name, "wait", "--ready", "--timeout", "20s"]);
        let log = std::fs::read_to_string(self.home().join(format!("{}.log", node.name))).unwrap_or_default();
        assert!(ready.status.success(), "{} is not ready: {log}", node.name);
        node
    }
}

/// A running node; it is killed when it is dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    name: String,
}

impl Node {
    /// Its name on its machine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Memory that it holds now, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        crate::hostile::resident_bytes_of(&self.child.id().to_string())
    }

    /// Holds it up where it is, or lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    #[expect(clippy::expect_used, reason = "a test whose node is gone cannot go on")]
    pub fn pause(&self, paused: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).expect("the node runs");
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        // Ignored because a node that has ended already is as dead as it should be.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks every 25 ms until `condition` holds; how long that took.
///
/// # Panics
/// When it does not hold within `patience`.
pub fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
    begun.elapsed()
}
