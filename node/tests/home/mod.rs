//! A home of its own with nodes in the background; all that run are stopped at the end, whatever happens.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where nodes keep everything.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    /// A home in which these run.
    pub(crate) fn with(nodes: &[&str]) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for node in nodes {
            home.set_up(node);
            home.run(node);
        }
        home
    }

    /// Lets a node be found by its neighbours on this machine only. Everything is in its configuration, so that it
    /// starts the same again.
    pub(crate) fn set_up(&self, node: &str) {
        for (key, value) in [
            // One has a page, for the commands that lead there.
            ("api.listen", if node == "default" { "127.0.0.1:0" } else { "off" }),
            // Quiet by default; some tests want lines to read back.
            ("log.level", "info"),
            ("p2p.mdns", "false"),
            ("p2p.listen", "[\"/ip4/127.0.0.1/udp/0/quic-v1\", \"/ip4/127.0.0.1/tcp/0\"]"),
        ] {
            self.ok(&["-n", node, "config", "set", key, value]);
        }
    }

    /// Starts a node in the background.
    pub(crate) fn run(&self, node: &str) {
        // Wherever --api points: what is started is here.
        self.ok(&["-n", node, "--api", "http://127.0.0.1:1", "run", "-d"]);
    }

    /// A command in this home, with nothing of this process around it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
        command.args(["--home", &self.path().display().to_string()]).args(words).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("EDITOR", "true");
        command.stdin(Stdio::null());
        command
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a command to its end.
    pub(crate) fn wattle(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it printed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.wattle(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Ok(nodes) = std::fs::read_dir(self.path().join("run")) else { return };
        for node in nodes.filter_map(Result::ok).filter_map(|node| node.file_name().into_string().ok()) {
            self.wattle(&["-n", &node, "stop", "--timeout", "5s"]);
        }
    }
}
