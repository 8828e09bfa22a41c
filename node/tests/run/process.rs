//! A node in a process of its own, as the tests of the program use it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use wattle::api::documents::{EventLine, NodeEvent, ReadyLine};

/// A node in a process of its own; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    pub(crate) ready: ReadyLine,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ignored because a node that ended already is what most tests want.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn program(home: &Path, node: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
    for variable in ["WATTLE_NODE", "WATTLE_HOME", "WATTLE_API", "WATTLE_LOG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.arg("--home").arg(home).args(["-n", node]);
    command.env("WATTLE_P2P_MDNS", "false").env("WATTLE_P2P_LISTEN", LOOPBACK);
    command
}

/// Loopback only, so that tests never meet nodes of others.
pub(crate) const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0";

pub(crate) fn run(home: &Path, node: &str) -> Running {
    run_with(&mut program(home, node))
}

pub(crate) fn run_with(command: &mut Command) -> Running {
    started(command.args(["--json", "run"]))
}

/// A node whose command line is complete; it must have `--json`.
pub(crate) fn started(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Running { child, lines, ready }
}

impl Running {
    pub(crate) fn next_event(&mut self) -> EventLine {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) fn connected(&mut self) {
        while !matches!(self.next_event().event, NodeEvent::PeerConnected { .. }) {}
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.ready.api.strip_prefix("unix:").unwrap().into()
    }

    pub(crate) fn call(&self, request: &str, body: &str) -> (u16, Value) {
        let (status, body) = raw_call(&self.socket(), request, "", body);
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

pub(crate) fn raw_call(socket: &Path, request: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    // In one piece: a refusal may come, and the connection end, before the last piece of several.
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
