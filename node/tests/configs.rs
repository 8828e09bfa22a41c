//! Every configuration we ship is valid and says what it promises.

#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

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
    let testnet = settings("testnet.toml");
    assert!(testnet.listen.iter().all(|address| address.ip().is_some_and(|ip| ip.is_loopback())));
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
