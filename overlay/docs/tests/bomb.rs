//! A bomb is refused for what refusing costs: alone in its process, so that what is measured is its own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use wattle_docs::chunk::{ChunkError, RATIO_MAX, inspect, inspect_change};

const MIB: usize = 1024 * 1024;

/// A compressed change of about 194 KB that inflates to 200 MB of one letter.
fn bomb() -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    for _ in 0..200 {
        encoder.write_all(&vec![b'a'; MIB]).unwrap();
    }
    let deflated = encoder.finish().unwrap();
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 2];
    let mut rest = deflated.len();
    while rest > 0x7f {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes.extend(deflated);
    bytes
}

/// The most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// What this thread computed so far, in milliseconds: waiting for the processor is not counted.
fn cpu_ms() -> u64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    spent.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn a_bomb_is_refused_soon_and_without_memory() {
    let bomb = bomb();
    assert!(bomb.len() < 220_000, "{} bytes", bomb.len());
    let (peak_before, cpu_before) = (peak(), cpu_ms());
    let refused = inspect(&bomb).unwrap_err();
    let (cpu, grown) = (cpu_ms() - cpu_before, peak() - peak_before);
    assert!(matches!(refused, ChunkError::Ratio { max, deflated } if max == deflated * RATIO_MAX));
    assert_eq!(inspect_change(&bomb), Err(refused));
    assert!(cpu < 200, "{cpu} ms");
    assert!(grown < MIB, "{grown} bytes");
}
