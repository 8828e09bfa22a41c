//! Every configuration we ship is valid and says what it promises.

#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use wattle::config::{Config, Settings, Sources, defaults_toml};
use wattle_net::{DhtMode, Profile};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)
}

fn settings(name: &str) -> Settings {
    let path = shipped(name);
    let loaded = Config::load(&Sources { files: vec![&path], ..Sources::default() });
    loaded.unwrap_or_else(|problems| panic!("{name}: {problems}")).settings
}

#[test]
fn the_reference_configuration_is_the_defaults_with_every_key() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(shipped("node.toml"), defaults_toml()).unwrap();
    }
    let committed = std::fs::read_to_string(shipped("node.toml")).unwrap_or_default();
    assert!(committed == defaults_toml(), "keys changed: UPDATE=1 cargo test -p wattle --test configs");
    assert_eq!(settings("node.toml"), Config::load(&Sources::default()).unwrap().settings);
}

#[test]
fn the_example_configurations_are_valid() {
    let lan = settings("lan.toml");
    assert_eq!((lan.profile, lan.mdns), (Profile::Lan, true));
    let internet = settings("internet.toml");
    assert_eq!((internet.profile, internet.mdns, internet.dht_mode), (Profile::Wan, false, DhtMode::Server));
    assert!(!internet.bootstrap.is_empty());
}

#[test]
fn the_example_testnet_can_be_applied() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
    command.args(["testnet", "apply", "--dry-run", "--json"]).arg(shipped("testnet.toml"));
    let output = command.env_clear().env("HOME", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["did"], serde_json::json!(["up 5 --validators 4", "links"]));
    assert_eq!(document["faults"].as_array().map(Vec::len), Some(4));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was done");
}

#[test]
fn every_toml_file_we_ship_is_checked_here() {
    let mut names: Vec<String> = std::fs::read_dir(shipped(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    assert_eq!(names, ["internet.toml", "lan.toml", "node.toml", "testnet.toml"]);
}

#[test]
fn the_systemd_unit_waits_for_ready_and_is_hardened() {
    let unit = std::fs::read_to_string(shipped("wattle.service")).unwrap();
    for line in
        ["Type=notify", "NoNewPrivileges=yes", "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}
