//! Where the files of a node are.
//!
//! | what | default | with `--home DIR` |
//! | --- | --- | --- |
//! | config | `~/.config/wattle/nodes/NODE/config.toml` | `DIR/config/nodes/NODE/config.toml` |
//! | data | `~/.local/share/wattle/nodes/NODE/` | `DIR/data/nodes/NODE/` |
//! | log | `~/.local/state/wattle/nodes/NODE/wattle.log` | `DIR/state/nodes/NODE/wattle.log` |
//! | runtime | `$XDG_RUNTIME_DIR/wattle/NODE/` | `DIR/run/NODE/` |
//! | testnets | `~/.local/state/wattle/testnets/NAME/`, each a `--home` of its nodes | `DIR/state/testnets/NAME/` |
//!
//! Without `XDG_RUNTIME_DIR` the runtime directory is `/tmp/wattle-UID`, owned by that user and closed to
//! others. The path of a Unix socket has at most 107 bytes (`sun_path`, unix(7)); below a deep `--home` the
//! socket alone moves to a short place that every process computes the same way. With `--home` the system's
//! `/etc/wattle/config.toml` is not read and nodes below other homes are not neighbours: a testnet or a test
//! stays by itself.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use wattle_types::ContentHash;

/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last one a zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The name of a node on this machine. It becomes part of paths, so it has no separators and no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// Why a text is no node name. Caller error; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a node name: 1 to 32 letters, digits, `-`, `_` or `.`, starting with a letter or digit"
)]
pub struct InvalidNodeName(pub String);

impl NodeName {
    /// The name of a node nobody named.
    pub const DEFAULT: &'static str = "default";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NodeName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sized = (1..=32).contains(&text.len());
        let spelled = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if sized && spelled && starts {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidNodeName(text.to_owned()))
        }
    }
}

/// How commands for a node begin, as one would type them: `wattle -n bob`.
#[must_use]
pub fn program(node: &str, home: Option<&Path>) -> String {
    let mut text = "wattle".to_owned();
    if node != NodeName::DEFAULT {
        text.push_str(&format!(" -n {node}"));
    }
    if let Some(home) = home {
        text.push_str(&format!(" --home {}", home.display()));
    }
    text
}

/// What of the process decides where files are. Read once, at the edge.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// The effective user.
    pub uid: u32,
}

impl Environment {
    /// The environment of this process. Relative paths in it are ignored, as the XDG specification asks.
    #[must_use]
    pub fn of_process() -> Self {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(|value: OsString| PathBuf::from(value))
                .filter(|path| path.is_absolute())
        };
        Self {
            home: absolute("HOME"),
            config_home: absolute("XDG_CONFIG_HOME"),
            data_home: absolute("XDG_DATA_HOME"),
            state_home: absolute("XDG_STATE_HOME"),
            runtime_dir: absolute("XDG_RUNTIME_DIR"),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

/// Why the files of a node have no place, or no safe one. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `HOME` nor the XDG variables are set.
    #[error("neither HOME nor {0} is set: use --home DIR")]
    NoHome(&'static str),
    /// A directory could not be made or looked at.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime directory is a link, another user's, or open to others.
    #[error("{path} is not safe to use: {why}", path = path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Where the files of one node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The node.
    pub node: NodeName,
    /// `--home`, when it was given.
    pub home: Option<PathBuf>,
    /// The node's config file; it may be absent.
    pub config_file: PathBuf,
    /// The system's config file, unless `--home` was given; it may be absent.
    pub system_config_file: Option<PathBuf>,
    /// The data directory: key, tables, admin token.
    pub data_dir: PathBuf,
    /// Where `run -d` writes the log.
    pub log_file: PathBuf,
    /// The runtime directories of all nodes: one directory a node.
    pub runtime_root: PathBuf,
    /// The runtime directory of this node.
    pub runtime_dir: PathBuf,
    /// The Unix socket of the API.
    pub socket: PathBuf,
    uid: u32,
}

impl Paths {
    /// The paths of a node; nothing is created.
    ///
    /// # Errors
    /// [`PathsError::NoHome`] when the environment says too little.
    pub fn new(environment: &Environment, node: NodeName, home: Option<&Path>) -> Result<Self, PathsError> {
        let below = |xdg: &Option<PathBuf>, variable, fallback: &str| match (home, xdg, &environment.home) {
            (_, Some(xdg), _) => Ok(xdg.join("wattle")),
            (_, None, Some(user)) => Ok(user.join(fallback).join("wattle")),
            (_, None, None) => Err(PathsError::NoHome(variable)),
        };
        let (config, data, state, runtime_root) = match home {
            Some(home) => {
                let home = std::path::absolute(home)
                    .map_err(|source| PathsError::Io { path: home.to_owned(), source })?;
                (home.join("config"), home.join("data"), home.join("state"), home.join("run"))
            }
            None => (
                below(&environment.config_home, "XDG_CONFIG_HOME", ".config")?,
                below(&environment.data_home, "XDG_DATA_HOME", ".local/share")?,
                below(&environment.state_home, "XDG_STATE_HOME", ".local/state")?,
                short_runtime_root(environment),
            ),
        };
        let of_node = |base: &Path| base.join("nodes").join(node.as_str());
        let runtime_dir = runtime_root.join(node.as_str());
        Ok(Self {
            config_file: of_node(&config).join("config.toml"),
            system_config_file: home.is_none().then(|| PathBuf::from("/etc/wattle/config.toml")),
            data_dir: of_node(&data),
            log_file: of_node(&state).join("wattle.log"),
            socket: socket_path(environment, &runtime_dir),
            home: home.map(Path::to_owned),
            node,
            runtime_root,
            runtime_dir,
            uid: environment.uid,
        })
    }

    /// The node's secret key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.data_dir.join("identity.key")
    }

    /// The key of the private network, unless the config names another file.
    #[must_use]
    pub fn network_key_file(&self) -> PathBuf {
        self.data_dir.join("network.key")
    }

    /// The admin token for TCP clients.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.data_dir.join("api.token")
    }

    /// How programs on this machine reach the running node: a
    /// [`RuntimeDocument`](crate::api::documents::RuntimeDocument).
    #[must_use]
    pub fn api_file(&self) -> PathBuf {
        self.runtime_dir.join("api.json")
    }

    /// How other nodes on this machine find this one.
    #[must_use]
    pub fn neighbour_file(&self) -> PathBuf {
        self.runtime_dir.join("neighbour.json")
    }

    /// Where this user's testnets are: a directory each.
    #[must_use]
    pub fn testnets_dir(&self) -> PathBuf {
        // The log is STATE/nodes/NODE/wattle.log.
        self.log_file.ancestors().nth(3).unwrap_or(&self.log_file).join("testnets")
    }

    /// The user whose files these are.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The names of the nodes that have a runtime directory, running or left over from a crash.
    #[must_use]
    pub fn nodes_seen(&self) -> Vec<NodeName> {
        let Ok(entries) = std::fs::read_dir(&self.runtime_root) else { return Vec::new() };
        let mut names: Vec<NodeName> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        names
    }

    /// Makes the runtime directories, mode 0700, and checks that nobody else can read or write them. `shared`:
    /// others may pass through those above the socket (0711), which lets them knock at it and see nothing.
    ///
    /// # Errors
    /// [`PathsError::Unsafe`] when somebody else could: then no socket may be put there.
    pub fn prepare_runtime(&self, shared: bool) -> Result<(), PathsError> {
        make_private(&self.runtime_root, self.uid)?;
        make_private(&self.runtime_dir, self.uid)?;
        let Some(parent) = self.socket.parent() else { return Ok(()) };
        let Some(root) = parent.parent() else { return Ok(()) };
        make_private(root, self.uid)?;
        make_private(parent, self.uid)?;
        let set_mode = |path: &Path, mode| {
            let done = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
            done.map_err(|source| PathsError::Io { path: path.to_owned(), source })
        };
        if shared {
            // Never taken back: it is the root of this user's other nodes too.
            set_mode(root, 0o711)?;
        }
        set_mode(parent, if shared { 0o711 } else { 0o700 })
    }
}

fn short_runtime_root(environment: &Environment) -> PathBuf {
    match &environment.runtime_dir {
        Some(runtime) => runtime.join("wattle"),
        None => PathBuf::from(format!("/tmp/wattle-{}", environment.uid)),
    }
}

fn socket_path(environment: &Environment, runtime_dir: &Path) -> PathBuf {
    let socket = runtime_dir.join("api.sock");
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return socket;
    }
    let hash = ContentHash::of(runtime_dir.as_os_str().as_bytes()).to_string();
    let short: String = hash.chars().take(16).collect();
    // The dot keeps it from being taken for a node: node names start with a letter or digit.
    let beside = short_runtime_root(environment).join(format!(".{short}")).join("api.sock");
    if beside.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return beside;
    }
    PathBuf::from(format!("/tmp/wattle-{}/.{short}/api.sock", environment.uid))
}

/// The mode bits with which others could list or change a directory.
pub(crate) const OTHERS_SEE: u32 = 0o066;

fn make_private(path: &Path, uid: u32) -> Result<(), PathsError> {
    let io_error = |source| PathsError::Io { path: path.to_owned(), source };
    let unsafe_because = |why: String| PathsError::Unsafe { path: path.to_owned(), why };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
    let found = std::fs::symlink_metadata(path).map_err(io_error)?;
    if !found.is_dir() {
        return Err(unsafe_because("it is not a directory".to_owned()));
    }
    if found.uid() != uid {
        return Err(unsafe_because(format!("it belongs to uid {}, not to {uid}", found.uid())));
    }
    if found.mode() & OTHERS_SEE != 0 {
        return Err(unsafe_because(format!("its mode is {:04o}, and must be 0700", found.mode() & 0o7777)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment {
            home: Some("/home/ann".into()),
            runtime_dir: Some("/run/user/1000".into()),
            uid: 1000,
            ..Environment::default()
        }
    }

    #[test]
    fn files_go_where_the_xdg_specification_says() {
        let paths = Paths::new(&environment(), NodeName::default(), None).unwrap();
        assert_eq!(paths.config_file, Path::new("/home/ann/.config/wattle/nodes/default/config.toml"));
        assert_eq!(paths.key_file(), Path::new("/home/ann/.local/share/wattle/nodes/default/identity.key"));
        assert_eq!(paths.log_file, Path::new("/home/ann/.local/state/wattle/nodes/default/wattle.log"));
        assert_eq!(paths.socket, Path::new("/run/user/1000/wattle/default/api.sock"));
        let bare = Environment { uid: 7, ..Environment::default() };
        assert!(matches!(Paths::new(&bare, NodeName::default(), None), Err(PathsError::NoHome(_))));
        let no_runtime = Environment { runtime_dir: None, ..environment() };
        let paths = Paths::new(&no_runtime, NodeName::default(), None).unwrap();
        assert_eq!(paths.socket, Path::new("/tmp/wattle-1000/default/api.sock"));
    }

    #[test]
    fn everything_is_below_home_but_a_socket_whose_path_is_too_long() {
        let paths = Paths::new(&environment(), NodeName::default(), Some(Path::new("/srv/w"))).unwrap();
        for path in [&paths.config_file, &paths.data_dir, &paths.log_file, &paths.socket] {
            assert!(path.starts_with("/srv/w"), "{}", path.display());
        }
        assert_eq!(paths.system_config_file, None);

        let deep = PathBuf::from(format!("/srv/{}", "deep/".repeat(30)));
        let paths = Paths::new(&environment(), NodeName::default(), Some(&deep)).unwrap();
        assert!(paths.data_dir.starts_with(&deep));
        assert!(paths.socket.starts_with("/run/user/1000/wattle"), "{}", paths.socket.display());
        assert!(paths.socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        let again = Paths::new(&environment(), NodeName::default(), Some(&deep)).unwrap();
        assert_eq!(paths.socket, again.socket);
        let other = Paths::new(&environment(), "bob".parse().unwrap(), Some(&deep)).unwrap();
        assert_ne!(paths.socket, other.socket);
    }

    #[test]
    fn a_node_name_never_leaves_its_directory() {
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "ä", &"a".repeat(33)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert_eq!("bob-2.test".parse::<NodeName>().unwrap().as_str(), "bob-2.test");
    }

    #[test]
    fn a_runtime_directory_open_to_others_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { uid: rustix::process::geteuid().as_raw(), ..environment() };
        let paths = Paths::new(&environment, NodeName::default(), Some(home.path())).unwrap();
        for (shared, expected) in [(false, 0o700), (true, 0o711), (true, 0o711), (false, 0o700)] {
            paths.prepare_runtime(shared).unwrap();
            let mode = std::fs::metadata(&paths.runtime_dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, expected);
        }

        std::fs::set_permissions(&paths.runtime_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(paths.prepare_runtime(false), Err(PathsError::Unsafe { .. })));

        let linked = Paths::new(&environment, "linked".parse().unwrap(), Some(home.path())).unwrap();
        std::os::unix::fs::symlink(home.path(), &linked.runtime_dir).unwrap();
        assert!(matches!(linked.prepare_runtime(false), Err(PathsError::Unsafe { .. })));
    }
}
