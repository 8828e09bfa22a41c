use super::*;

fn load(text: &str) -> Result<Config, Problems> {
    Config::load(&Sources { draft: Some(("config.toml".as_ref(), text)), ..Sources::default() })
}

fn problem(text: &str) -> (String, usize, usize, Option<String>) {
    let problem = load(text).unwrap_err().0.remove(0);
    let Origin::File { line, column, .. } = problem.origin else { panic!("{problem:?}") };
    (problem.message, line, column, problem.hint)
}

#[test]
fn every_default_is_valid_and_of_its_kind() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.values.len(), KEYS.len());
    assert!(config.settings.listen_is_default);
    assert_eq!(config.settings.api.listen, ApiListen::Default("127.0.0.1:7711".parse().unwrap()));
}

#[test]
fn the_reference_file_says_every_default_and_changes_nothing() {
    let reference = defaults_toml();
    assert_eq!(load(&reference).unwrap().settings, Config::load(&Sources::default()).unwrap().settings);
    let uncommented: String = reference
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let spelled = load(&uncommented).unwrap();
    assert!(
        spelled.values.iter().all(|(_, _, origin)| matches!(origin, Origin::File { .. })),
        "{uncommented}"
    );
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let (message, line, column, hint) = problem("# c\n[p2p]\nmdns = true\n  lisen = []\n");
    assert_eq!((message.as_str(), line, column), ("unknown key `p2p.lisen`", 4, 3));
    assert_eq!(hint.as_deref(), Some("did you mean `p2p.listen`?"));
    let (message, line, column, hint) = problem("[netwrk]\nname = 'x'\n");
    assert_eq!((message.as_str(), line, column), ("unknown section `netwrk`", 1, 2));
    assert_eq!(hint.as_deref(), Some("did you mean `[network]`?"));
}

#[test]
fn a_wrong_value_is_named_with_its_place_and_what_was_expected() {
    let (message, line, column, _) = problem("[p2p]\nmdns = \"yes\"\n");
    assert_eq!((message.as_str(), line, column), ("`p2p.mdns` must be true or false, not string,", 2, 8));
    let (message, ..) = problem("[connections]\nidle_after = \"fast\"\n");
    assert!(message.contains("500ms") && message.contains("fast"), "{message}");
    let (message, line, ..) = problem("[p2p]\nlisten = [\"nonsense\"]\n");
    assert!(message.contains("nonsense") && line == 2, "{message}");
    let (_, line, column, _) = problem("[p2p]\nmdns = \n");
    assert_eq!((line, column), (2, 8));
    let (message, ..) = problem("[p2p]\nprofile = \"wlan\"\n");
    assert!(message.contains("\"lan\", \"wan\""), "{message}");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (text, part) in [
        ("[connections]\nlow_water = 100\n", "below low_water"),
        ("[network]\nprivate = true\n[p2p]\nlisten = [\"/ip4/0.0.0.0/udp/1/quic-v1\"]\n", "QUIC"),
        ("[network]\nkey_file = \"/k\"\n", "only a private network"),
        ("[api]\nlisten = \"0.0.0.0:7711\"\n", "this machine only"),
        ("[p2p]\nbootstrap = [\"/ip4/10.0.0.1/tcp/1\"]\n", "whom to expect"),
        ("[p2p]\nlisten = []\n", "listen somewhere"),
        ("[log]\nlevel = \"loud=loud=loud\"\n", "log.level"),
        ("[telemetry]\notlp_endpoint = \"ftp://x\"\n", "http://"),
    ] {
        let message = load(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    let private = load("[network]\nprivate = true\n").unwrap().settings;
    assert!(private.listen.iter().all(|address| !address.is_quic()) && !private.listen.is_empty());
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = load("[p2p]\na = 1\nmdns = 3\n[x]\n").unwrap_err();
    assert_eq!(problems.0.len(), 3, "{problems}");
}

#[test]
fn flags_win_over_the_environment_over_files_over_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let (system, node) = (directory.path().join("system.toml"), directory.path().join("node.toml"));
    std::fs::write(&system, "[network]\nname = \"system\"\n[log]\nlevel = \"warn\"\n[p2p]\nmdns = false\n")
        .unwrap();
    std::fs::write(&node, "[network]\nname = \"node\"\n[log]\nlevel = \"debug\"\n").unwrap();
    let sources = Sources {
        files: vec![&system, &node],
        variables: vec![
            ("WATTLE_LOG_LEVEL".to_owned(), "trace".to_owned()),
            ("WATTLE_LOG".to_owned(), "error".to_owned()),
            ("WATTLE_NODE".to_owned(), "x".to_owned()),
            ("WATTLE_P2P_PROFILE".to_owned(), "lan".to_owned()),
        ],
        overrides: vec![Override { key: "p2p.profile", values: vec!["wan".to_owned()], flag: "--profile" }],
        draft: None,
    };
    let config = Config::load(&sources).unwrap();
    let origin = |name| config.document(Some(name)).values.remove(0).origin;
    assert_eq!(config.settings.network.as_str(), "node");
    assert_eq!(config.settings.log_level, "trace");
    assert!(origin("network.name").ends_with("node.toml:2:1"));
    assert!(origin("p2p.mdns").ends_with("system.toml:6:1"));
    assert_eq!(origin("log.level"), "env WATTLE_LOG_LEVEL");
    assert_eq!(origin("p2p.profile"), "flag --profile");
    assert_eq!(origin("api.listen"), "default");
    assert_eq!(config.files, [system, node]);
}

#[test]
fn a_misspelled_variable_of_ours_is_refused() {
    let variables = vec![("WATTLE_P2P_LISEN".to_owned(), "x".to_owned())];
    let problems = Config::load(&Sources { variables, ..Sources::default() }).unwrap_err();
    assert_eq!(problems.0[0].hint.as_deref(), Some("did you mean `WATTLE_P2P_LISTEN`?"));
}

#[test]
fn durations_are_read_and_shown_as_people_write_them() {
    for (text, millis) in
        [("500ms", 500), ("20s", 20_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)]
    {
        assert_eq!(layers::parse_duration(text), Some(std::time::Duration::from_millis(millis)), "{text}");
    }
    for bad in ["", "5", "-5s", "5 parsecs", "s", "99999999999999999999d"] {
        assert_eq!(layers::parse_duration(bad), None, "{bad}");
    }
}
