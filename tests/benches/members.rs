//! Who finds out first that a node is dead: nodes of ours beside agents of serf, one system after the other on the
//! same machine.
//!
//! `cargo bench -p wattle-tests --bench members -- [--nodes 50] [--rounds 10] [--idle 60] [--frozen 60] [--dead 0]
//! [--only wattle] [--words]`. Needs root, for a network namespace whose loopback carries nothing else, and `serf`
//! (Debian's package) unless `--only wattle`. `--frozen` seconds go to each of three rhythms in which a fifth of the
//! nodes stands still; `--dead` nodes are killed at once at the end, of ours as of theirs, and started again one after
//! the other. Of ours that must take at most 11 s until all survivors list the same, and 3 s until everybody says that
//! one is back: else the benchmark fails. `--words` prints what each node says of each that is killed, and when.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and ends where it fails")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use wattle_tests::binary::Machine;
use wattle_tests::hostile::resident_bytes_of;

/// How long a verdict, or all of them to start, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a fifth of the nodes stands still, and how long it runs between.
const RHYTHMS: [(u64, u64); 3] = [(1, 1), (4, 1), (16, 1)];

/// How long until all of ours list the same when many die at once, and say that one is back.
const AGREED_WITHIN: Duration = Duration::from_secs(11);
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// What an interface adds to a packet of IP.
const ETHERNET_BYTES: u64 = 14;

/// What UDP and IP add to what we count ourselves.
const UDP_IP_BYTES: f64 = 28.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Wattle,
    Serf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    Suspect,
    Failed,
}

/// One node says something of another.
#[derive(Debug)]
struct Report {
    at: Instant,
    reporter: usize,
    /// How its system names it.
    about: String,
    verdict: Verdict,
    /// What it says besides.
    line: String,
}

struct Plan {
    nodes: usize,
    rounds: usize,
    idle: Duration,
    frozen: Duration,
    dead: usize,
    words: bool,
    systems: Vec<System>,
}

impl Plan {
    fn of_arguments() -> Self {
        let words: Vec<String> = std::env::args().collect();
        let number = |name: &str, otherwise: u64| {
            let at = words.iter().position(|word| word == name);
            at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
        };
        let size = |name: &str, otherwise: u64| usize::try_from(number(name, otherwise)).unwrap();
        let ours_alone = words.iter().any(|word| word == "--only");
        Self {
            nodes: size("--nodes", 50),
            rounds: size("--rounds", 10),
            idle: Duration::from_secs(number("--idle", 60)),
            frozen: Duration::from_secs(number("--frozen", 60)),
            dead: size("--dead", 0),
            words: words.iter().any(|word| word == "--words"),
            systems: if ours_alone { vec![System::Wattle] } else { vec![System::Wattle, System::Serf] },
        }
    }
}

/// A network namespace with nothing but loopback; gone when it is dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("wattle-bench-{}", std::process::id());
        for words in [vec!["netns", "add", &name], vec!["-n", &name, "link", "set", "lo", "up"]] {
            let made = Command::new("ip").args(words).status();
            assert!(made.is_ok_and(|status| status.success()), "a network namespace needs root and iproute2");
        }
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Ignored because nothing can be done about one that stays.
        drop(Command::new("ip").args(["netns", "delete", &self.0]).status());
    }
}

struct Cluster<'a> {
    system: System,
    machine: &'a Machine,
    namespace: &'a str,
    words: bool,
    /// Who was killed and does not run again yet.
    down: BTreeSet<usize>,
    children: Vec<Child>,
    /// How the system names each.
    names: Vec<String>,
    sender: Sender<Report>,
    reports: Receiver<Report>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Ignored because it may be dead already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl<'a> Cluster<'a> {
    /// Starts all and waits until everybody sees everybody; says how long that took.
    fn start(system: System, machine: &'a Machine, namespace: &'a str, plan: &Plan) -> (Self, Duration) {
        let (sender, reports) = mpsc::channel();
        let (nodes, words) = (plan.nodes, plan.words);
        let (children, names, down) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut cluster = Self { system, machine, namespace, words, down, children, names, sender, reports };
        if system == System::Wattle {
            let listen = r#"["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]"#;
            for at in 0..nodes {
                for (key, value) in [("api.listen", "off"), ("p2p.mdns", "false"), ("p2p.listen", listen)] {
                    assert!(machine.run(&["-n", &name(at), "config", "set", key, value]).status.success());
                }
            }
        }
        let begun = Instant::now();
        for at in 0..nodes {
            let child = cluster.launch(at);
            cluster.children.push(child);
        }
        match system {
            System::Wattle => (0..nodes).for_each(|at| cluster.wait_for_all(at, nodes)),
            // It says on its standard output who joined, itself among them.
            System::Serf => cluster.wait_for_joins(nodes),
        }
        let took = begun.elapsed();
        for at in 0..nodes {
            let id = match system {
                System::Serf => name(at),
                System::Wattle => {
                    let status = machine.json(&["-n", &name(at), "status"]);
                    status["node"]["id"].as_str().unwrap().to_owned()
                }
            };
            cluster.names.push(id);
            cluster.listen(at);
        }
        (cluster, took)
    }

    fn launch(&self, at: usize) -> Child {
        match self.system {
            System::Wattle => {
                let mut command = self.machine.command(&["-n", &name(at), "run"]);
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            }
            System::Serf => {
                let address = |at: usize| format!("127.0.1.{}", at + 1);
                let mut command = Command::new("ip");
                command.args(["netns", "exec", self.namespace, "serf", "agent", "-profile", "lan"]);
                command.args(["-node", &name(at), "-bind", &format!("{}:7946", address(at))]);
                command.args(["-rpc-addr", &format!("{}:7373", address(at))]);
                command.args(["-retry-join", &format!("{}:7946", address(usize::from(at == 0)))]);
                command.args(["-retry-interval", "1s"]);
                let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
                self.read(at, child.stdout.take().unwrap(), of_serf);
                child
            }
        }
    }

    fn wait_for_all(&self, at: usize, nodes: usize) {
        let begun = Instant::now();
        let sees_all = || match self.system {
            System::Wattle => self.counts(at).is_some_and(|counts| counts["alive"] == nodes),
            System::Serf => {
                let address = format!("127.0.1.{}:7373", at + 1);
                let words = ["serf", "members", "-status", "alive", "-rpc-addr", &address];
                let listed = Command::new("ip").args(["netns", "exec", self.namespace]).args(words).output();
                listed.is_ok_and(|it| it.stdout.split(|byte| *byte == b'\n').count() == nodes + 1)
            }
        };
        while !sees_all() {
            assert!(begun.elapsed() < PATIENCE, "{} does not see all {nodes}", name(at));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_joins(&self, nodes: usize) {
        let begun = Instant::now();
        let mut joined: BTreeSet<(usize, String)> = BTreeSet::new();
        while joined.len() < nodes * nodes {
            let report = self.reports.recv_timeout(PATIENCE.saturating_sub(begun.elapsed()));
            let report = report.unwrap_or_else(|_| panic_of(&BTreeSet::new()));
            if report.verdict == Verdict::Alive {
                joined.insert((report.reporter, report.about));
            }
        }
    }

    /// How many members a node of ours lists in each state, once it answers.
    fn counts(&self, at: usize) -> Option<serde_json::Value> {
        let text = self.get(at, "/api/v1/members")?;
        let body = text.split_once("\r\n\r\n")?.1;
        let (begin, end) = (body.find('{')?, body.rfind('}')?);
        let document: serde_json::Value = serde_json::from_str(body.get(begin..=end)?).ok()?;
        Some(document["counts"].clone())
    }

    fn get(&self, at: usize, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket(at)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Hears what a node of ours says from now on; serf says it on its standard output.
    fn listen(&self, at: usize) {
        if self.system == System::Wattle {
            let mut stream = UnixStream::connect(self.socket(at)).unwrap();
            let request = "GET /api/v1/events?topics=members HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            self.read(at, stream, of_wattle);
        }
    }

    fn read(
        &self,
        reporter: usize,
        from: impl Read + Send + 'static,
        read: fn(&str) -> Option<(String, Verdict)>,
    ) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let at = Instant::now();
                let Some((about, verdict)) = read(&line) else { continue };
                if sender.send(Report { at, reporter, about, verdict, line }).is_err() {
                    return;
                }
            }
        });
    }

    fn socket(&self, at: usize) -> std::path::PathBuf {
        self.machine.home().join(format!("run/wattle/{}/api.sock", name(at)))
    }

    /// Of these nodes, when the first and the last of the others said so.
    fn until_all_say(&self, subjects: &[usize], verdict: Verdict, since: Instant) -> (Duration, Duration) {
        let names: BTreeSet<&str> = subjects.iter().map(|at| self.names[*at].as_str()).collect();
        let mut waiting: BTreeSet<(usize, &str)> = BTreeSet::new();
        let silent = |at: &usize| subjects.contains(at) || self.down.contains(at);
        for reporter in (0..self.children.len()).filter(|at| !silent(at)) {
            waiting.extend(names.iter().map(|name| (reporter, *name)));
        }
        let (mut first, mut last) = (None, since);
        while !waiting.is_empty() {
            let left = PATIENCE.saturating_sub(since.elapsed());
            let report = self.reports.recv_timeout(left);
            let report = report.unwrap_or_else(|_| panic_of(&waiting));
            let word = names.get(report.about.as_str()).map(|name| (report.reporter, *name));
            if self.words && word.is_some() {
                let after = report.at.duration_since(since);
                println!("{after:>10.1?} {:>4} {}", name(report.reporter), report.line);
            }
            if report.verdict == verdict && word.is_some_and(|word| waiting.remove(&word)) {
                first.get_or_insert(report.at);
                last = report.at;
            }
        }
        (first.unwrap_or(since).duration_since(since), last.duration_since(since))
    }

    fn kill(&mut self, subjects: &[usize]) -> (Duration, Duration) {
        self.reports.try_iter().for_each(drop);
        let since = Instant::now();
        for at in subjects {
            self.children[*at].kill().unwrap();
            self.children[*at].wait().unwrap();
            self.down.insert(*at);
        }
        self.until_all_say(subjects, Verdict::Failed, since)
    }

    /// Kills many at once, waits until all survivors list the same, and starts each again.
    fn kill_many(&mut self, dead: usize) -> Vec<(String, f64)> {
        let victims: Vec<usize> = (1..=dead).collect();
        let begun = Instant::now();
        let (first, last) = self.kill(&victims);
        let mut rows = vec![
            (format!("{dead} killed at once, the first word, s"), first.as_secs_f64()),
            (format!("{dead} killed at once, the last word, s"), last.as_secs_f64()),
        ];
        if self.system == System::Wattle {
            let nodes = self.children.len();
            let agrees = |counts: serde_json::Value| {
                counts["alive"] == nodes - dead && counts["faulty"] == dead && counts["suspect"] == 0
            };
            for at in (0..nodes).filter(|at| !victims.contains(at)) {
                while !self.counts(at).is_some_and(agrees) {
                    let counts = self.counts(at);
                    assert!(begun.elapsed() < PATIENCE, "{} lists {counts:?}", name(at));
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let took = begun.elapsed();
            assert!(took <= AGREED_WITHIN, "all survivors list the same after {took:?}");
            rows.push((format!("{dead} killed at once, all list the same, s"), took.as_secs_f64()));
        }
        let backs: Vec<Duration> = victims.iter().map(|victim| self.again(*victim)).collect();
        let slowest = backs.into_iter().max().unwrap_or_default();
        assert!(self.system == System::Serf || slowest <= BACK_WITHIN, "one is back after {slowest:?}");
        rows.push((format!("{dead} started again, the slowest, s"), slowest.as_secs_f64()));
        rows
    }

    /// Starts one again: how long until everybody says that it is alive.
    fn again(&mut self, at: usize) -> Duration {
        self.reports.try_iter().for_each(drop);
        let since = Instant::now();
        self.children[at] = self.launch(at);
        let (_, last) = self.until_all_say(&[at], Verdict::Alive, since);
        self.down.remove(&at);
        self.wait_for_all(at, self.children.len() - self.down.len());
        self.listen(at);
        last
    }

    /// Bytes that crossed the loopback, without what is Ethernet's.
    fn bytes(&self) -> u64 {
        let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", self.children[0].id())).unwrap();
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
        let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
        fields[0] - fields[1] * ETHERNET_BYTES
    }

    /// Bytes of packets between members, with the headers of UDP and IP; ours alone can tell them from the rest.
    fn member_bytes(&self) -> Option<f64> {
        if self.system == System::Serf {
            return None;
        }
        let of = |at: usize| {
            let text = self.get(at, "/metrics").unwrap();
            let value = |what: &str| {
                let line = text.lines().find(|line| line.contains(what) && line.contains("\"sent\""));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap()
            };
            value("members_datagrams_bytes_total") + value("members_datagrams_total") * UDP_IP_BYTES
        };
        Some((0..self.children.len()).map(of).sum())
    }

    /// Processor time of all, in seconds.
    fn cpu(&self) -> f64 {
        let of = |child: &Child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
        };
        self.children.iter().map(of).sum()
    }

    /// A fifth stands still and runs in turns: false words about the others, those among them that one of the others
    /// said, and the bytes a second of a node.
    fn freeze(&self, (still, runs): (u64, u64), span: Duration) -> (usize, usize, f64) {
        let frozen: Vec<usize> = (0..self.children.len()).step_by(5).collect();
        let all = |what: &str| {
            for at in &frozen {
                let pid = self.children[*at].id().to_string();
                assert!(Command::new("kill").args([what, &pid]).status().unwrap().success());
            }
        };
        self.reports.try_iter().for_each(drop);
        let (begun, before) = (Instant::now(), self.bytes());
        while begun.elapsed() < span {
            all("-STOP");
            std::thread::sleep(Duration::from_secs(still));
            all("-CONT");
            std::thread::sleep(Duration::from_secs(runs));
        }
        let each =
            (self.bytes() - before) as f64 / self.children.len() as f64 / begun.elapsed().as_secs_f64();
        let healthy = |name: &str| !frozen.iter().any(|at| self.names[*at] == name);
        let failed = self.reports.try_iter().filter(|report| report.verdict == Verdict::Failed);
        let lies: Vec<usize> =
            failed.filter(|report| healthy(&report.about)).map(|report| report.reporter).collect();
        let at_healthy = lies.iter().filter(|reporter| !frozen.contains(reporter)).count();
        for at in 0..self.children.len() {
            self.wait_for_all(at, self.children.len());
        }
        (lies.len(), at_healthy, each)
    }
}

fn name(at: usize) -> String {
    format!("n{at}")
}

#[expect(clippy::panic, reason = "a benchmark ends where it fails")]
fn panic_of(waiting: &BTreeSet<(usize, &str)>) -> Report {
    panic!("{} words never came, one of them by {:?}", waiting.len(), waiting.first());
}

/// A line of serf's: `2026/11/26 00:00:00 [INFO] serf: EventMemberFailed: n3 127.0.1.4`.
fn of_serf(line: &str) -> Option<(String, Verdict)> {
    let (_, event) = line.split_once("serf: EventMember")?;
    let (what, about) = event.split_once(": ")?;
    let verdict = match what {
        "Join" => Verdict::Alive,
        "Failed" => Verdict::Failed,
        _ => return None,
    };
    Some((about.split(' ').next()?.to_owned(), verdict))
}

/// A line of our events.
fn of_wattle(line: &str) -> Option<(String, Verdict)> {
    let event: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
    let verdict = match event["to"].as_str()? {
        "alive" => Verdict::Alive,
        "suspect" => Verdict::Suspect,
        "faulty" => Verdict::Failed,
        _ => return None,
    };
    Some((event["peer"].as_str()?.to_owned(), verdict))
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64()
}

fn measure(system: System, plan: &Plan) -> Vec<(String, f64)> {
    let namespace = Namespace::new();
    let machine = Machine::new(Some(&namespace.0));
    let (mut cluster, full) = Cluster::start(system, &machine, &namespace.0, plan);
    let mut rows = vec![("all see all, s".to_owned(), full.as_secs_f64())];
    std::thread::sleep(Duration::from_secs(10));
    let each = |value: f64| value / plan.nodes as f64 / plan.idle.as_secs_f64();
    let (bytes, member_bytes, cpu) = (cluster.bytes(), cluster.member_bytes(), cluster.cpu());
    std::thread::sleep(plan.idle);
    let resident: u64 = cluster.children.iter().map(|it| resident_bytes_of(&it.id().to_string())).sum();
    rows.push((
        "idle, bytes a second and node, everything".to_owned(),
        each((cluster.bytes() - bytes) as f64),
    ));
    let member_bytes = cluster.member_bytes().zip(member_bytes).map(|(after, before)| after - before);
    let all = (cluster.bytes() - bytes) as f64;
    rows.push(("idle, bytes a second and node, membership".to_owned(), each(member_bytes.unwrap_or(all))));
    rows.push(("idle, CPU of a node, %".to_owned(), each(cluster.cpu() - cpu) * 100.0));
    rows.push(("resident, MiB a node".to_owned(), resident as f64 / plan.nodes as f64 / 1_048_576.0));
    let (mut firsts, mut lasts, mut backs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let victim = 1 + round * 7 % (plan.nodes - 1);
        let (first, last) = cluster.kill(&[victim]);
        firsts.push(first);
        lasts.push(last);
        backs.push(cluster.again(victim));
    }
    rows.push(("kill -9, the first says so, s, median".to_owned(), median(&mut firsts)));
    rows.push(("kill -9, the last says so, s, median".to_owned(), median(&mut lasts)));
    rows.push(("started again, the last says so, s, median".to_owned(), median(&mut backs)));
    for rhythm in RHYTHMS.iter().filter(|_| !plan.frozen.is_zero()) {
        let (lies, at_healthy, bytes) = cluster.freeze(*rhythm, plan.frozen);
        let of = |what: &str| format!("a fifth frozen {}:{}, {what}", rhythm.0, rhythm.1);
        rows.push((of("false words about the others"), lies as f64));
        rows.push((of("of those at the others"), at_healthy as f64));
        rows.push((of("bytes a second and node"), bytes));
    }
    if plan.dead > 0 {
        rows.extend(cluster.kill_many(plan.dead));
    }
    rows
}

fn main() {
    let plan = Plan::of_arguments();
    let tables: Vec<Vec<(String, f64)>> = plan.systems.iter().map(|system| measure(*system, &plan)).collect();
    println!("{} nodes, {} kills, {:?} idle", plan.nodes, plan.rounds, plan.idle);
    println!("{:<50} {:>10} {:>10} {:>7}", "", "wattle", "serf", "ratio");
    for (at, (what, ours)) in tables.first().into_iter().flatten().enumerate() {
        match tables.get(1).and_then(|rows| rows.get(at)) {
            Some((_, theirs)) => println!("{what:<50} {ours:>10.2} {theirs:>10.2} {:>7.2}", ours / theirs),
            None => println!("{what:<50} {ours:>10.2}"),
        }
    }
}
