//! The files of a node as the command line needs them while no node runs: its key, its network's key, its
//! config.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table};
use wattle_store::{KeyError, SecretFileError, create_secret_file, load_or_create_key, read_secret_file};
use wattle_types::{NetworkKey, SecretKey};

use super::errors::{Failure, advise, of_io};
use crate::api::documents::ErrorDocument;
use crate::config::{self, Config, Key, Override, Sources};
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// Longer than any key file.
const KEY_FILE_BYTES_MAX: usize = 4096;

/// A path as a person writes it: `~/..` below the home directory.
pub(super) fn tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

/// Makes a directory that only this user can enter.
pub(super) fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| of_io("create", path, &error).into())
}

/// The key of this node, made when there is none.
pub(super) fn own_key(paths: &Paths) -> Result<SecretKey, Failure> {
    private_dir(&paths.data_dir)?;
    let (key, _created) = load_or_create_key(&paths.key_file()).map_err(|error| of_key(&error))?;
    Ok(key)
}

/// The key of this node, which must be there: nothing is made.
pub(super) fn read_key(paths: &Paths, program: &str) -> Result<SecretKey, Failure> {
    let file = paths.key_file();
    if file.symlink_metadata().is_err() {
        let message = format!("node \"{}\" has no key yet", paths.node);
        let document = ErrorDocument::new(ErrorCode::NotFound, message)
            .detail("looked for", format!("{} (absent)", tilde(&file)));
        return Err(advise(document, "make it", &format!("{program} init"), "(run does it too)").into());
    }
    let (key, _created) = load_or_create_key(&file).map_err(|error| of_key(&error))?;
    Ok(key)
}

/// Reads a key from `file` and makes it the key of this node.
pub(super) fn import_key(paths: &Paths, file: &Path, force: bool) -> Result<SecretKey, Failure> {
    if file.symlink_metadata().is_err() {
        return Err(
            ErrorDocument::new(ErrorCode::NotFound, format!("{} does not exist", file.display())).into()
        );
    }
    let (key, _created) = load_or_create_key(file).map_err(|error| of_key(&error))?;
    let bytes = read_secret_file(file, KEY_FILE_BYTES_MAX).map_err(|error| of_secret(&error))?;
    private_dir(&paths.data_dir)?;
    retire_key(paths, force)?;
    create_secret_file(&paths.key_file(), &bytes).map_err(|error| of_secret(&error))?;
    Ok(key)
}

/// Moves the key of this node aside, never away: it may be all that is left of an identity.
pub(super) fn retire_key(paths: &Paths, force: bool) -> Result<(), Failure> {
    let own = paths.key_file();
    if own.symlink_metadata().is_err() {
        return Ok(());
    }
    if let Some(owner) = wattle_store::read_owner(&paths.data_dir) {
        let message = format!("node \"{}\" is running (pid {})", paths.node, owner.pid);
        return Err(
            advise(ErrorDocument::new(ErrorCode::Conflict, message), "stop it", "wattle stop", "").into()
        );
    }
    if !force {
        let message = format!("node \"{}\" has a key already: {}", paths.node, tilde(&own));
        let document = ErrorDocument::new(ErrorCode::Conflict, message);
        return Err(
            advise(document, "replace it", "--force", "(the old key is kept beside the new one)").into()
        );
    }
    let mut number = 1;
    loop {
        let aside = own.with_extension(format!("key.old{number}"));
        match std::fs::hard_link(&own, &aside) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(of_io("keep the old key as", &aside, &error).into()),
        }
    }
    std::fs::remove_file(&own).map_err(|error| of_io("replace", &own, &error).into())
}

/// Copies the key of this node into a new file that only this user can read.
pub(super) fn export_key(paths: &Paths, to: &Path, program: &str) -> Result<SecretKey, Failure> {
    let key = read_key(paths, program)?;
    let bytes = read_secret_file(&paths.key_file(), KEY_FILE_BYTES_MAX).map_err(|error| of_secret(&error))?;
    create_secret_file(to, &bytes).map_err(|error| of_secret(&error))?;
    Ok(key)
}

/// The key of this node's private network, made when there is none.
pub(super) fn own_network_key(paths: &Paths) -> Result<(), Failure> {
    if paths.network_key_file().symlink_metadata().is_ok() {
        return Ok(());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("no random bytes: {error}")))?;
    write_network_key(paths, &NetworkKey::from_bytes(bytes))
}

/// Stores the key of a private network. Another one that is there already is a conflict.
pub(super) fn write_network_key(paths: &Paths, key: &NetworkKey) -> Result<(), Failure> {
    private_dir(&paths.data_dir)?;
    let file = paths.network_key_file();
    match create_secret_file(&file, format!("{}\n", key.to_hex()).as_bytes()) {
        Ok(()) => Ok(()),
        Err(SecretFileError::Exists { .. }) => {
            let bytes = read_secret_file(&file, KEY_FILE_BYTES_MAX).map_err(|error| of_secret(&error))?;
            let there = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<NetworkKey>().ok());
            if there.as_ref() == Some(key) {
                return Ok(());
            }
            let message = format!("node \"{}\" has the key of another private network", paths.node);
            let document = ErrorDocument::new(ErrorCode::Conflict, message).detail("key", tilde(&file));
            Err(advise(document, "another node", "wattle -n NAME join TICKET", "").into())
        }
        Err(error) => Err(of_secret(&error).into()),
    }
}

fn of_key(error: &KeyError) -> Failure {
    match error {
        KeyError::File(error) => of_secret(error).into(),
        KeyError::Damaged { .. } => ErrorDocument::new(ErrorCode::Invalid, error.to_string()).into(),
        KeyError::NoRandomness(_) => ErrorDocument::new(ErrorCode::Failed, error.to_string()).into(),
    }
}

fn of_secret(error: &SecretFileError) -> ErrorDocument {
    let code = match error {
        SecretFileError::Exists { .. } => ErrorCode::Conflict,
        SecretFileError::Missing { .. } => ErrorCode::NotFound,
        SecretFileError::TooLarge { .. } => ErrorCode::Invalid,
        SecretFileError::Symlink { .. }
        | SecretFileError::NotAFile { .. }
        | SecretFileError::ForeignOwner { .. }
        | SecretFileError::OpenToOthers { .. } => ErrorCode::Denied,
        SecretFileError::Io { .. } => ErrorCode::Failed,
    };
    ErrorDocument::new(code, error.to_string())
}

/// The configuration in force for the next start.
pub(super) fn load_config(paths: &Paths) -> Result<Config, Failure> {
    load_config_with(paths, Vec::new())
}

/// The same, with what flags say.
pub(super) fn load_config_with(paths: &Paths, overrides: Vec<Override>) -> Result<Config, Failure> {
    let files = paths.system_config_file.iter().chain([&paths.config_file]).map(PathBuf::as_path).collect();
    let sources = Sources { files, variables: config::variables(), overrides, ..Sources::default() };
    Config::load(&sources).map_err(|problems| problems.document().into())
}

/// A config file being edited; its comments and order stay.
pub(super) struct Edit {
    document: DocumentMut,
}

impl Edit {
    /// Sets `section.name` to a value given as text.
    pub(super) fn set(&mut self, key: &str, text: &str) -> Result<(), Failure> {
        let known = known(key)?;
        if text.starts_with(['[', '"', '\'']) {
            // TOML as it would stand in the file; the check of the whole says whether it is the right kind.
            return self.put(key, text);
        }
        let value = config::Value::parse(known.kind, text).map_err(|expected| {
            ErrorDocument::new(ErrorCode::Usage, format!("`{key}` cannot be `{text}`: {expected}"))
        })?;
        self.put(key, &value.to_toml())
    }

    /// Adds texts to a list, each at most once.
    pub(super) fn add(&mut self, key: &str, texts: &[String]) -> Result<(), Failure> {
        let (section, name) = split(key);
        let there = self.document.get(section).and_then(|section| section.get(name));
        let mut all: Vec<String> = there
            .and_then(Item::as_array)
            .map(|array| array.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        for text in texts {
            if !all.contains(text) {
                all.push(text.clone());
            }
        }
        let array: toml_edit::Array = all.into_iter().collect();
        self.put(key, &array.to_string())
    }

    fn put(&mut self, key: &str, toml: &str) -> Result<(), Failure> {
        let (section, name) = split(key);
        let mut value: toml_edit::Value = toml.trim().parse().map_err(|error| {
            ErrorDocument::new(ErrorCode::Usage, format!("`{key}` cannot be `{toml}`: {error}"))
        })?;
        let table = self.document.entry(section).or_insert_with(|| Item::Table(Table::new()));
        let Some(table) = table.as_table_like_mut() else {
            return Err(ErrorDocument::new(
                ErrorCode::Usage,
                format!("`{section}` is no section in the file"),
            )
            .into());
        };
        // What stood around the old value, a comment on its line above all, stands around the new one.
        if let Some(old) = table.get(name).and_then(Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        table.insert(name, Item::Value(value));
        Ok(())
    }
}

fn split(key: &str) -> (&str, &str) {
    key.split_once('.').unwrap_or((key, ""))
}

/// The key of that name, or the error that suggests another.
pub(super) fn known(key: &str) -> Result<&'static Key, Failure> {
    if let Some(known) = Key::named(key) {
        return Ok(known);
    }
    let mut document = ErrorDocument::new(ErrorCode::Usage, format!("unknown key `{key}`"));
    if let Some(nearest) = Key::nearest(key) {
        document = document.detail("", format!("did you mean `{nearest}`?")).hint(nearest);
    }
    Err(advise(document, "every key", "wattle config defaults", "").into())
}

/// Edits the config file of a node: nothing is written unless the whole is valid afterwards.
pub(super) fn edit_config(
    paths: &Paths,
    edit: impl FnOnce(&mut Edit) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let file = &paths.config_file;
    let parent = file.parent().unwrap_or(file);
    private_dir(parent)?;
    // Two edits at once would each write the file without the other's change.
    let _turn = take_turn(parent).map_err(|error| of_io("lock", parent, &error))?;
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(of_io("read", file, &error).into()),
    };
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let message = format!("{} is not valid TOML: {}", tilde(file), error.message());
        advise(ErrorDocument::new(ErrorCode::Usage, message), "see", "wattle config check", "")
    })?;
    let mut edited = Edit { document };
    edit(&mut edited)?;
    let text = edited.document.to_string();
    check_text(paths, &text)?;
    wattle_store::write_atomically(file, text.as_bytes(), 0o600)
        .map_err(|error| of_io("write", file, &error).into())
}

/// Waits until nobody else edits files in this directory; the turn ends when the handle is dropped, or with the
/// process.
fn take_turn(directory: &Path) -> std::io::Result<std::fs::File> {
    let handle = std::fs::File::open(directory)?;
    rustix::fs::flock(&handle, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(handle)
}

/// Checks the text of a config file before it takes the place of the one that works.
fn check_text(paths: &Paths, text: &str) -> Result<(), Failure> {
    let draft = Some((paths.config_file.as_path(), text));
    let sources = Sources {
        files: paths.system_config_file.as_deref().into_iter().collect(),
        draft,
        ..Sources::default()
    };
    Config::load(&sources)
        .map(drop)
        .map_err(|problems| problems.document().detail("", "nothing was changed").into())
}
