//! Whole files, replaced or created in one step.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

/// Replaces the file at `path` by one with these bytes and exactly this mode: a reader, or a restart after a
/// power cut, sees the old content or the new, never a part. A symbolic link is followed, so a linked
/// configuration stays linked.
///
/// A kill can leave `.NAME.HEX.tmp` beside the file; nothing reads it and it may be removed.
///
/// # Errors
/// What the system said; the file is as it was. Only when the last step fails, making the new name durable,
/// the new content may be in place already.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let temporary = write_temporary(&target, bytes, Some(mode))?;
    std::fs::rename(&temporary.0, &target)?;
    sync_parent(&target)
}

/// Creates the file at `path` with these bytes; its name appears with the whole content or not at all.
///
/// `O_EXCL` with two names: the content is made durable under a temporary one and then linked to its own,
/// which fails when that exists. Creating the file under its own name first would leave an empty one behind a
/// kill.
pub(crate) fn create_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A dangling symbolic link counts as existing: link(2) does not follow it.
    link_whole(path, bytes, Some(mode))
}

/// Creates a file of the user's at `path` with these bytes, whole or not at all, and with the mode that the
/// umask leaves.
///
/// # Errors
/// What the system said, [`io::ErrorKind::AlreadyExists`] where there is one; nothing changed.
pub fn create_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    link_whole(path, bytes, None)
}

/// Replaces a file of the user's, or creates it, as [`write_atomically`] does; its mode stays.
///
/// # Errors
/// As [`write_atomically`].
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) => write_atomically(path, bytes, found.permissions().mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_file(path, bytes),
        Err(error) => Err(error),
    }
}

fn link_whole(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let temporary = write_temporary(path, bytes, mode)?;
    std::fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    sync_parent(path)
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file to be renamed or removed.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Ignored because it is gone after a rename, and a leftover is harmless.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A file beside `target` with these bytes, and exactly this mode or the one that the umask leaves.
pub(crate) fn write_temporary(target: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<Temporary> {
    let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let suffix = HEXLOWER.encode(&random);
    let path = parent(target).join(format!(".{}.{suffix}.tmp", name.to_string_lossy()));
    let first = if mode.is_some() { 0o600 } else { 0o666 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(first).open(&path)?;
    let temporary = Temporary(path);
    // Exactly this mode, whatever the umask; set before the first byte is there to be read.
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

/// A path as one word of a shell command.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    if !text.is_empty() && text.chars().all(|it| it.is_ascii_alphanumeric() || "/._-+@:,=".contains(it)) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_exactly_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.json");
        write_atomically(&path, b"one", 0o644).unwrap();
        write_atomically(&path, b"2", 0o666).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(names(dir.path()), ["api.json"]);
    }

    #[test]
    fn a_linked_file_stays_linked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.toml");
        let link = dir.path().join("config.toml");
        std::fs::write(&real, "a = 1").unwrap();
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        write_atomically(&link, b"a = 2", 0o644).unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"a = 2");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir_all(path.join("inside")).unwrap();
        write_atomically(&path, b"x", 0o600).unwrap_err();
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn creating_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("once");
        create_whole(&path, b"first", 0o600).unwrap();
        let error = create_whole(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["once"]);
    }

    #[test]
    fn a_file_of_the_user_is_created_once_and_replaced_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.md");
        replace_file(&path, b"first").unwrap();
        assert_eq!(create_file(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace_file(&path, b"third").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["notes.md"]);
    }

    #[test]
    fn a_path_with_blanks_or_quotes_is_one_shell_word() {
        assert_eq!(shell_word(Path::new("/a/b.key")), "/a/b.key");
        assert_eq!(shell_word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
