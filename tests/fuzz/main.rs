//! One libFuzzer binary for all targets: `WATTLE_FUZZ=ticket fuzz corpus/ticket`.
#![no_main]

use std::panic::PanicHookInfo;
use std::sync::LazyLock;

use wattle_tests::fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    // libFuzzer's hook ends the process at any panic. Those inside automerge are caught where they must be; one that
    // is not unwinds into libFuzzer, which ends it too.
    let hook = std::panic::take_hook();
    let is_automerge = |info: &PanicHookInfo<'_>| info.location().is_some_and(|at| at.file().contains("/automerge-"));
    std::panic::set_hook(Box::new(move |info| {
        if !is_automerge(info) {
            hook(info);
        }
    }));
    let wanted = std::env::var("WATTLE_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, target)| *target).expect("WATTLE_FUZZ names a target")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
