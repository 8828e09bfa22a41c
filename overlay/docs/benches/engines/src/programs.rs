//! Goals about whole programs: each in a process of its own, beside the server that automerge-repo brings.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::report::{aside, goal, ms, percentile};
use crate::{Plan, Result, documents, theirs};

/// How long a program has to do what it is for.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(60);

/// A process with what it says; killed when dropped.
struct Program {
    child: Child,
    _input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { _input: child.stdin.take(), child, lines })
    }

    fn line<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let line = self.lines.next().ok_or("a program ended early")??;
        Ok(serde_json::from_str(&line)?)
    }

    /// What it holds in memory, in KiB.
    fn resident_kib(&self) -> Result<u64> {
        resident_kib(&self.child.id().to_string())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ignored because it may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the programs on automerge-repo are, if they can run.
fn interop() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../tests/interop");
    directory.join("node_modules/@automerge/automerge-repo").exists().then_some(directory)
}

/// A node, as a user runs it: the program that was named, or this one, which is the node when it is called `wattle`.
struct Wattle {
    binary: PathBuf,
    home: tempfile::TempDir,
    program: Option<Program>,
    port: u16,
}

impl Wattle {
    fn start(plan: &Plan) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let binary = plan.node.clone().map_or_else(std::env::current_exe, Ok)?;
        let mut node = Self { binary, home: plan.directory()?, program: None, port };
        node.ask(&["config", "set", "api.listen", &format!("127.0.0.1:{port}")])?;
        node.run()?;
        Ok(node)
    }

    fn run(&mut self) -> Result<()> {
        let mut command = self.command();
        let listen = "/ip4/127.0.0.1/tcp/0";
        self.program = Some(Program::start(
            command.args(["run", "--no-mdns", "--listen", listen]).stderr(Stdio::null()),
        )?);
        self.ask(&["wait", "--ready", "--timeout", "20s"])?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        let home = self.home.path();
        command.arg0("wattle").env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
        // Ignored because the command says so itself.
        drop(std::fs::create_dir_all(home.join("run")));
        command
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let output = self.command().args(words).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn resident_kib(&self) -> Result<u64> {
        self.program.as_ref().ok_or("no node runs")?.resident_kib()
    }
}

#[derive(Deserialize)]
struct Server {
    url: String,
}

#[derive(Deserialize)]
struct Latencies {
    made: usize,
    spans_ms: Vec<f64>,
}

fn javascript(directory: &Path, words: &[&str]) -> Result<Program> {
    Program::start(Command::new("node").current_dir(directory).args(words))
}

fn latencies(
    directory: &Path,
    documents: usize,
    rounds: usize,
    server: &[&str],
) -> Result<(Program, Latencies)> {
    let (documents, rounds) = (documents.to_string(), rounds.to_string());
    let words = [&["repo-latency.mjs", &documents, &rounds][..], server].concat();
    let mut program = javascript(directory, &words)?;
    let latencies = program.line()?;
    Ok((program, latencies))
}

/// Goal 1: an edit of one program on automerge-repo is seen by another, through one node and through their server.
pub fn isolated(plan: &Plan) -> Result<()> {
    let Some(directory) = interop() else {
        aside("1 did not run", "npm ci in tests/interop");
        return Ok(());
    };
    let rounds = plan.pick(200, 300);
    let node = Wattle::start(plan)?;
    let token = node.ask(&["token", "new", "--role", "user", "-q"])?;
    let ours = format!("ws://127.0.0.1:{}/api/v1/docs/sync", node.port);
    let mut server = javascript(&directory, &["repo-server.mjs"])?;
    let theirs: Server = server.line()?;
    let (_program, mine) = latencies(&directory, 1, rounds, &[&ours, &token])?;
    let (_program, yours) = latencies(&directory, 1, rounds, &[&theirs.url])?;
    let spans = |latencies: &Latencies| -> Vec<Duration> {
        latencies.spans_ms.iter().map(|span| Duration::from_secs_f64(span / 1e3)).collect()
    };
    let (mine, yours) = (spans(&mine), spans(&yours));
    for (percent, wanted) in [(50, 0.6), (99, 0.5)] {
        let (mine, yours) = (ms(percentile(&mine, percent)), ms(percentile(&yours, percent)));
        let what =
            format!("1 edit of a program seen by another, p{percent} (theirs: automerge-repo's server)");
        let (ours, theirs) = (format!("{mine:.2} ms"), format!("{yours:.2} ms"));
        goal(&what, &ours, &theirs, mine / yours, &format!("<= {wanted} x"), mine / yours <= wanted);
    }
    Ok(())
}

/// Goal 7: what a node holds in memory with many documents, closed and open.
pub async fn memory(plan: &Plan) -> Result<()> {
    let documents = plan.pick(200, 1000);
    let mut node = Wattle::start(plan)?;
    let empty = node.resident_kib()?;
    let Some(directory) = interop() else {
        aside("7 did not run", "npm ci in tests/interop");
        return Ok(());
    };
    let token = node.ask(&["token", "new", "--role", "user", "-q"])?;
    let url = format!("ws://127.0.0.1:{}/api/v1/docs/sync", node.port);
    let (program, made) = latencies(&directory, documents, 1, &[&url, &token])?;
    until_all_are_there(&node, made.made).await?;
    let open = node.resident_kib()?;
    drop(program);
    node.program = None;
    node.run()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let closed = node.resident_kib()?;

    let mut server = javascript(&directory, &["repo-server.mjs"])?;
    let started: Server = server.line()?;
    let server_empty = server.resident_kib()?;
    let (_program, _made) = latencies(&directory, documents, 1, &[&started.url])?;
    let server_open = server.resident_kib()?;
    let samod = samod_kib(documents).await?;

    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let what = format!("7 a node with {documents} closed documents (beside: without any)");
    goal(
        &what,
        &mib(closed),
        &mib(empty),
        closed as f64 / empty as f64,
        "<= 40 MB",
        closed * 1024 <= 40_000_000,
    );
    let each = open.saturating_sub(empty) as f64 / documents as f64;
    let what = format!("7 an open small document of {documents} (theirs: samod)");
    let (ours, theirs) = (format!("{each:.1} KiB"), format!("{samod:.1} KiB"));
    goal(&what, &ours, &theirs, each / samod, "<= 0.5 x", each <= samod / 2.0);
    let ratio = open as f64 / server_open as f64;
    let what = format!("7 the whole process with {documents} open (theirs: automerge-repo's server)");
    goal(&what, &mib(open), &mib(server_open), ratio, "<= 0.2 x", ratio <= 0.2);
    aside("automerge-repo's server without documents", &mib(server_empty));
    Ok(())
}

async fn until_all_are_there(node: &Wattle, documents: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let list: serde_json::Value = serde_json::from_str(&node.ask(&["doc", "list", "--json"])?)?;
        let count = list["docs"].as_array().map_or(0, Vec::len);
        if count >= documents {
            return Ok(());
        }
        if begun.elapsed() > PROGRAM_PATIENCE {
            return Err(format!("only {count} of {documents} documents are at the node").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What one open document costs samod, in a process of its own.
async fn samod_kib(documents: usize) -> Result<f64> {
    let program = std::env::current_exe()?;
    let mut holder = Program::start(Command::new(program).args(["--hold-samod", &documents.to_string()]))?;
    let before: u64 = holder.line()?;
    let after: u64 = holder.line()?;
    Ok(after.saturating_sub(before) as f64 / documents as f64)
}

/// The process that [`samod_kib`] asks: holds documents, and says what it holds in memory before and after.
pub async fn hold_samod(documents: usize) -> Result<()> {
    let repository = theirs::repository().await;
    println!("{}", resident_kib("self")?);
    let mut held = Vec::new();
    for _ in 0..documents {
        held.push(documents::their_small(&repository).await?);
    }
    println!("{}", resident_kib("self")?);
    drop(held);
    Ok(())
}

/// What a process holds in memory.
fn resident_kib(process: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
