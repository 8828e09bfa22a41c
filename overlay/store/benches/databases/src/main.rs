//! Which embedded database: the same durable writes through each candidate, every measurement in a fresh process.
//!
//! With no argument it runs every measurement `ROUNDS` times, interleaving the candidates so that a busy machine slows
//! all of them alike, and prints one row of medians per candidate. Each measurement re-runs this binary as
//! `databases <measurement> <candidate> <dir>`, because memory and a kill -9 belong to a process.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the store does most: a key like a hash, a value like a small signed record.
const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 256;
const SINGLE_COMMITS: u64 = 200;
const GROUP: u64 = 64;
const GROUP_COMMITS: u64 = 60;
const FILL_ENTRIES: u64 = 20_480;
const ROUNDS: usize = 7;
const DAMAGED_ENTRIES: u64 = 2048;
const FLIPS: u64 = 100;
const CACHE_BYTES: usize = 16 << 20;
const CANDIDATES: [&str; 5] = ["redb-1pc", "redb-2pc", "redb-2pc-verify", "fjall", "sqlite"];

/// One database under test. A commit returns when its writes are on disk.
trait Candidate {
    fn commit(&mut self, numbers: std::ops::Range<u64>) -> Result<()>;
    fn get(&self, number: u64) -> Result<Option<Vec<u8>>>;

    fn has(&self, number: u64) -> Result<bool> {
        match self.get(number)? {
            Some(found) if found != value(number) => Err("another value".into()),
            found => Ok(found.is_some()),
        }
    }
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    // Spread like hashes: an odd multiplier permutes the numbers.
    let mut key = [0; KEY_BYTES];
    for (at, chunk) in key.chunks_mut(8).enumerate() {
        let lane = number.wrapping_add(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&lane.to_be_bytes());
    }
    key
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    // Not compressible, as signatures and hashes are not.
    let mut value = [0; VALUE_BYTES];
    let mut state = number | 1;
    for byte in &mut value {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    value
}

struct Redb {
    database: redb::Database,
    two_phase: bool,
}

const REDB_TABLE: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("t");

impl Candidate for Redb {
    fn commit(&mut self, numbers: std::ops::Range<u64>) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(self.two_phase);
        {
            let mut table = transaction.open_table(REDB_TABLE)?;
            for number in numbers {
                table.insert(&key(number)[..], &value(number)[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, number: u64) -> Result<Option<Vec<u8>>> {
        use redb::ReadableDatabase;
        Ok(self
            .database
            .begin_read()?
            .open_table(REDB_TABLE)?
            .get(&key(number)[..])?
            .map(|value| value.value().to_vec()))
    }
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Candidate for Fjall {
    fn commit(&mut self, numbers: std::ops::Range<u64>) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncAll));
        for number in numbers {
            batch.insert(&self.keyspace, key(number), value(number));
        }
        Ok(batch.commit()?)
    }

    fn get(&self, number: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.keyspace.get(key(number))?.map(|value| value.to_vec()))
    }
}

struct Sqlite(rusqlite::Connection);

impl Candidate for Sqlite {
    fn commit(&mut self, numbers: std::ops::Range<u64>) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO t VALUES (?1, ?2)")?;
            for number in numbers {
                insert.execute((key(number), value(number)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, number: u64) -> Result<Option<Vec<u8>>> {
        use rusqlite::OptionalExtension;
        let mut select = self.0.prepare_cached("SELECT v FROM t WHERE k = ?1")?;
        Ok(select.query_row((key(number),), |row| row.get(0)).optional()?)
    }
}

fn open(candidate: &str, dir: &Path) -> Result<Box<dyn Candidate>> {
    Ok(match candidate {
        "redb-1pc" | "redb-2pc" | "redb-2pc-verify" => {
            let database = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(candidate.ends_with("verify"))
                .create(dir.join("t.redb"))?;
            Box::new(Redb { database, two_phase: candidate != "redb-1pc" })
        }
        "fjall" => {
            let database = fjall::Database::builder(dir).cache_size(CACHE_BYTES as u64).open()?;
            let keyspace = database.keyspace("t", fjall::KeyspaceCreateOptions::default)?;
            Box::new(Fjall { database, keyspace })
        }
        "sqlite" => {
            let connection = rusqlite::Connection::open(dir.join("t.sqlite"))?;
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
                 CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;",
            )?;
            Box::new(Sqlite(connection))
        }
        other => return Err(format!("no candidate {other}").into()),
    })
}

/// Median microseconds of `commits` commits of `group` writes each.
fn time_commits(candidate: &mut dyn Candidate, commits: u64, group: u64) -> Result<f64> {
    let mut micros = Vec::new();
    for commit in 0..commits {
        let start = Instant::now();
        candidate.commit(commit * group..(commit + 1) * group)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut micros))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn peak_memory_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

fn disk_kib(dir: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let mut kib = 0.0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        kib += if metadata.is_dir() { disk_kib(&entry.path())? } else { metadata.blocks() as f64 / 2.0 };
    }
    Ok(kib)
}

/// The measuring half: one measurement in this process.
fn measure(measurement: &str, candidate: &str, dir: &Path) -> Result<()> {
    match measurement {
        "single" => println!("{}", time_commits(&mut *open(candidate, dir)?, SINGLE_COMMITS, 1)?),
        "group" => println!("{}", time_commits(&mut *open(candidate, dir)?, GROUP_COMMITS, GROUP)?),
        "fill" => {
            time_commits(&mut *open(candidate, dir)?, FILL_ENTRIES / 256, 256)?;
            println!("{}", peak_memory_kib()?);
        }
        "open" => {
            let start = Instant::now();
            let found = open(candidate, dir)?.has(0)?;
            println!("{}", start.elapsed().as_secs_f64() * 1e3);
            assert!(found, "entry 0 is lost");
        }
        "write-until-killed" => {
            let mut database = open(candidate, dir)?;
            for number in FILL_ENTRIES.. {
                database.commit(number..number + 1)?;
                println!("{number}");
                std::io::stdout().flush()?;
            }
        }
        "check" => {
            let mut last = String::new();
            std::io::stdin().read_to_string(&mut last)?;
            let start = Instant::now();
            let database = open(candidate, dir)?;
            database.has(0)?;
            println!("{}", start.elapsed().as_secs_f64() * 1e3);
            for number in FILL_ENTRIES..=last.trim().parse()? {
                assert!(database.has(number)?, "acknowledged write {number} is lost");
            }
        }
        "write-and-die" => {
            let mut database = open(candidate, dir)?;
            for first in (0..DAMAGED_ENTRIES).step_by(64) {
                database.commit(first..first + 64)?;
            }
            // As after a kill: nothing is closed.
            println!("0");
            std::process::exit(0);
        }
        "audit" => {
            let database = open(candidate, dir)?;
            let mut wrong = 0;
            for number in 0..DAMAGED_ENTRIES {
                match database.get(number)? {
                    Some(found) if found == value(number) => {}
                    _ => wrong += 1,
                }
            }
            println!("{wrong}");
        }
        other => return Err(format!("no measurement {other}").into()),
    }
    Ok(())
}

fn command(measurement: &str, candidate: &str, dir: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([measurement, candidate])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(command)
}

fn run(measurement: &str, candidate: &str, dir: &Path, input: &str) -> Result<f64> {
    let mut child = command(measurement, candidate, dir)?.spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{measurement} of {candidate} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Kills a writer with SIGKILL once it has acknowledged some writes, and says which was acknowledged last.
fn kill_a_writer(candidate: &str, dir: &Path) -> Result<String> {
    let mut child = command("write-until-killed", candidate, dir)?.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let start = Instant::now();
    let mut last = lines.next().ok_or("the writer wrote nothing")??;
    while start.elapsed() < Duration::from_millis(300) {
        last = lines.next().ok_or("the writer ended")??;
    }
    child.kill()?;
    child.wait()?;
    Ok(lines.map_while(|line| line.ok()).last().unwrap_or(last))
}

/// Files below `dir`, in one fixed order.
fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut entries = std::fs::read_dir(dir)?.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    let mut all = Vec::new();
    for path in entries {
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

/// One flipped byte in each of [`FLIPS`] copies of a database that was not closed: how many copies were refused, and how many
/// opened and answered every read, yet with entries missing or other values.
fn damage(candidate: &str) -> Result<(u64, u64)> {
    let parent = std::env::current_exe()?.parent().ok_or("no parent")?.to_owned();
    let whole = tempfile::tempdir_in(&parent)?;
    run("write-and-die", candidate, whole.path(), "")?;
    let originals: Vec<_> = files(whole.path())?
        .into_iter()
        .map(|path| Ok((std::fs::read(&path)?, path)))
        .collect::<Result<_>>()?;
    let places: Vec<(usize, usize)> = originals
        .iter()
        .enumerate()
        .filter(|(_, (_, path))| !path.extension().is_some_and(|it| it == "sqlite-shm"))
        .flat_map(|(file, (bytes, _))| {
            (0..bytes.len()).filter(|&at| bytes[at] != 0).map(move |at| (file, at))
        })
        .collect();
    let (mut refused, mut silent) = (0, 0);
    for flip in 0..FLIPS {
        let (flipped, at) = places[(flip * places.len() as u64 / FLIPS) as usize];
        let copy = tempfile::tempdir_in(&parent)?;
        for (file, (bytes, path)) in originals.iter().enumerate() {
            let target = copy.path().join(path.strip_prefix(whole.path())?);
            std::fs::create_dir_all(target.parent().ok_or("no parent")?)?;
            let mut bytes = bytes.clone();
            if file == flipped {
                bytes[at] ^= 0x10;
            }
            std::fs::write(target, bytes)?;
        }
        match run("audit", candidate, copy.path(), "") {
            Ok(wrong) => silent += u64::from(wrong > 0.0),
            Err(_) => refused += 1,
        }
    }
    Ok((refused, silent))
}

fn round(candidate: &str) -> Result<[f64; 6]> {
    let parent = std::env::current_exe()?.parent().ok_or("no parent")?.to_owned();
    let fresh = || tempfile::tempdir_in(&parent);
    let single = run("single", candidate, fresh()?.path(), "")?;
    let group = run("group", candidate, fresh()?.path(), "")?;
    let full = fresh()?;
    let memory = run("fill", candidate, full.path(), "")?;
    let disk = disk_kib(full.path())?;
    let open = run("open", candidate, full.path(), "")?;
    let last = kill_a_writer(candidate, full.path())?;
    let recover = run("check", candidate, full.path(), &last)?;
    Ok([single, group, open, recover, disk / 1024.0, memory / 1024.0])
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [measurement, candidate, dir] = &arguments[..] {
        return measure(measurement, candidate, Path::new(dir));
    }
    let mut results = vec![Vec::new(); CANDIDATES.len()];
    for number in 0..ROUNDS {
        for (candidate, rounds) in CANDIDATES.iter().zip(&mut results) {
            eprintln!("round {number}: {candidate}");
            rounds.push(round(candidate)?);
        }
    }
    println!(
        "| candidate | 1 write/commit, us | 64 writes/commit, us | open, ms | open after kill -9, ms | disk, MiB | peak memory, MiB | {FLIPS} flips: refused | silently wrong |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (candidate, rounds) in CANDIDATES.iter().zip(&results) {
        let column = |at: usize| median(&mut rounds.iter().map(|round| round[at]).collect::<Vec<_>>());
        let (refused, silent) = damage(candidate)?;
        println!(
            "| {candidate} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {refused} | {silent} |",
            column(0),
            column(1),
            column(2),
            column(3),
            column(4),
            column(5)
        );
    }
    Ok(())
}
