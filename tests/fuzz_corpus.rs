//! Every input that fuzzing found worth keeping, and every crash it ever found, runs again.

use std::fs;
use std::path::Path;

use wattle_tests::fuzz::TARGETS;

#[test]
fn every_kept_input_decodes_or_is_refused_without_a_panic() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut replayed = 0;
    for (name, target) in TARGETS {
        for kind in ["corpus", "crashes"] {
            let Ok(inputs) = fs::read_dir(here.join(kind).join(name)) else { continue };
            for input in inputs {
                target(&fs::read(input.unwrap().path()).unwrap());
                replayed += 1;
            }
        }
    }
    assert!(replayed >= 2 * TARGETS.len(), "only {replayed} inputs: the corpus is gone");
}
