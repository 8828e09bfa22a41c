//! One libFuzzer binary for all targets: `WATTLE_FUZZ=ticket fuzz corpus/ticket`.
#![no_main]

use std::sync::LazyLock;

use wattle_tests::fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("WATTLE_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, target)| *target).expect("WATTLE_FUZZ names a target")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
