//! The house rules that no compiler checks: layers, sizes, words, and that documents name what exists.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on: crates of ours, and for the pure ones every library by name.
struct Layer {
    name: &'static str,
    ours: &'static [&'static str],
    libraries: Option<&'static [&'static str]>,
}

const LAYERS: [Layer; 13] = [
    Layer {
        name: "wattle-types",
        ours: &[],
        // bs58 and data-encoding spell ids and tickets, serde_bytes is CBOR's byte strings, zeroize wipes
        // keys.
        libraries: Some(&[
            "blake3",
            "bs58",
            "ciborium",
            "data-encoding",
            "ed25519-dalek",
            "serde",
            "serde_bytes",
            "thiserror",
            "zeroize",
        ]),
    },
    Layer {
        name: "wattle-docs",
        ours: &["wattle-types"],
        // miniz_oxide and sha2 bound and check automerge's bytes before automerge has them.
        libraries: Some(&[
            "automerge",
            "ciborium",
            "litemap",
            "miniz_oxide",
            "serde",
            "serde_bytes",
            "sha2",
            "thiserror",
        ]),
    },
    Layer {
        name: "wattle-swim",
        ours: &["wattle-types"],
        libraries: Some(&["blake3", "serde", "serde_bytes", "thiserror"]),
    },
    Layer {
        name: "wattle-order",
        ours: &["wattle-types"],
        // data-encoding writes hashes for people.
        libraries: Some(&["blake3", "data-encoding", "serde", "serde_bytes", "thiserror"]),
    },
    Layer {
        name: "wattle-app",
        ours: &["wattle-types"],
        // serde_bytes is CBOR's byte strings, in snapshots.
        libraries: Some(&["automerge", "serde", "serde_bytes", "thiserror"]),
    },
    Layer {
        name: "wattle-weave",
        ours: &["wattle-app", "wattle-docs", "wattle-order", "wattle-swim", "wattle-types"],
        // automerge for the name of an editing session, which docs and apps both say; the others for entries of the log
        // and for what its keepers ask each other.
        libraries: Some(&["automerge", "serde", "serde_bytes", "thiserror"]),
    },
    Layer {
        name: "wattle-chat",
        ours: &["wattle-app", "wattle-types"],
        libraries: Some(&["automerge", "serde"]),
    },
    Layer {
        name: "wattle-register",
        ours: &["wattle-app", "wattle-types"],
        // serde_bytes is CBOR's byte strings.
        libraries: Some(&["serde", "serde_bytes"]),
    },
    Layer { name: "wattle-net", ours: &["wattle-types"], libraries: None },
    Layer { name: "wattle-store", ours: &["wattle-types"], libraries: None },
    Layer {
        name: "wattle-pad",
        ours: &["wattle-app", "wattle-types"],
        // serde_bytes is CBOR's byte strings, similar compares texts, unicode-segmentation says what people see
        // as one character.
        libraries: Some(&[
            "automerge",
            "serde",
            "serde_bytes",
            "serde_json",
            "similar",
            "thiserror",
            "unicode-segmentation",
        ]),
    },
    Layer {
        name: "wattle",
        ours: &[
            "wattle-types",
            "wattle-net",
            "wattle-store",
            "wattle-docs",
            "wattle-order",
            "wattle-swim",
            "wattle-app",
            "wattle-weave",
            "wattle-chat",
            "wattle-pad",
            "wattle-register",
        ],
        libraries: None,
    },
    Layer {
        name: "wattle-tests",
        ours: &[
            "wattle-types",
            "wattle-net",
            "wattle-store",
            "wattle-docs",
            "wattle-order",
            "wattle-swim",
            "wattle-app",
            "wattle-weave",
            "wattle-chat",
            "wattle-pad",
            "wattle-register",
            "wattle",
        ],
        libraries: None,
    },
];

/// Everything that may stand at the top.
const TOP: [&str; 12] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "apps",
    "configs",
    "node",
    "overlay",
    "tests",
];

const FILE_LINES_MAX: usize = 800;
const LINE_COLUMNS_MAX: usize = 120;
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// All of the built page, which is committed so that building wattle needs no Node.
const PAGE_BYTES_MAX: u64 = 1536 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file that git tracks or would track.
fn files() -> Vec<PathBuf> {
    let git = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(git).current_dir(root()).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn metadata() -> Value {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_crate_depends_only_on_the_layers_below_it() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let known: BTreeSet<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let layer = LAYERS.iter().find(|layer| layer.name == name);
        let layer = layer.unwrap_or_else(|| panic!("{name} has no row in the layer table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if known.contains(other) {
                assert!(layer.ours.contains(&other), "{name} must not depend on {other}");
            } else if let (Some(libraries), false) = (layer.libraries, for_tests) {
                assert!(libraries.contains(&other), "{name} is pure; {other} is not on its list");
            }
            let names_libp2p = other.starts_with("libp2p") && !["wattle-net", "wattle-tests"].contains(&name);
            assert!(!names_libp2p, "only wattle-net names libp2p, not {name}");
        }
    }
}

#[test]
fn files_and_lines_have_a_size_that_people_read() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        for (number, line) in text.lines().enumerate() {
            // A sentence for people is not cut where the code would like it.
            let columns = if line.contains('"') { 0 } else { line.chars().count() };
            assert!(columns <= LINE_COLUMNS_MAX, "{}:{} has {columns} columns", path.display(), number + 1);
        }
    }
    let page = root().join("node/ui/dist");
    let (built, written): (Vec<_>, Vec<_>) = files().into_iter().partition(|path| path.starts_with(&page));
    let bytes: u64 = built.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= PAGE_BYTES_MAX, "the page has {bytes} bytes");
    for path in written {
        let lock = path.file_name().is_some_and(|name| name == "Cargo.lock" || name == "package-lock.json");
        let bytes = fs::metadata(&path).unwrap().len();
        assert!(lock || bytes <= FILE_BYTES_MAX, "{} has {bytes} bytes", path.display());
    }
}

#[test]
fn no_banned_word_is_in_the_code() {
    // Spelled in halves, so that this file does not name what it bans.
    let everywhere = [
        ("FIX", "ME"),
        ("XX", "X"),
        ("unimple", "mented!"),
        ("to", "do!("),
        ("unbounded", "_channel"),
        ("#[ig", "nore"),
        ("should", "_panic"),
        ("#[al", "low("),
    ];
    for (path, text) in rust_files() {
        for (one, other) in everywhere {
            let word = format!("{one}{other}");
            assert!(!text.contains(&word), "{} contains {word}", path.display());
        }
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        let pure =
            ["overlay/types/", "overlay/docs/src/", "overlay/swim/src/", "overlay/order/src/", "apps/"]
                .iter()
                .any(|pure| place.starts_with(pure));
        for word in ["HashMap", "HashSet", "SystemTime", "Instant"] {
            assert!(!pure || !text.contains(word), "{place} is pure and contains {word}");
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = name.starts_with('.') || name == "target" || TOP.contains(&name.as_str());
        assert!(known, "{name} does not belong at the top level");
    }
}

#[test]
fn every_path_that_a_document_names_exists() {
    for document in ["ARCHITECTURE.md", "README.md", "overlay/adr/0001-database.md"] {
        let Ok(text) = fs::read_to_string(root().join(document)) else { continue };
        for quoted in text.split('`').skip(1).step_by(2) {
            let ours = ["overlay/", "node/", "tests/", "configs/", "apps/"];
            let is_path =
                ours.iter().any(|start| quoted.starts_with(start)) && !quoted.contains(['*', ' ', '<']);
            let path = quoted.split(':').next().unwrap_or_default();
            assert!(!is_path || root().join(path).exists(), "{document} names {path}, which does not exist");
        }
    }
}

#[test]
fn the_commands_that_readme_names_are_those_that_are_tested() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let test = readme.lines().find(|line| line.starts_with("cargo test")).unwrap();
    let command = test.split('#').next().unwrap().trim();
    assert!(ci.lines().any(|line| line == command), "CI does not run `{command}`");
}

#[test]
fn no_machine_of_ours_is_named() {
    // Spelled in halves, so that this file does not name what it bans.
    let hosts = [
        ("index.crates", ".io"),
        ("static.crates", ".io"),
        ("registry.npmjs", ".org"),
        ("deb.debian", ".org"),
        ("files.pythonhosted", ".org"),
    ];
    let words = hosts.map(|(one, other)| format!("{one}{other}"));
    for path in files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} names {word}", path.display());
        }
        let here = format!("{}/", root().display());
        assert!(!text.contains(&here), "{} names a path of this machine", path.display());
    }
}
