//! Files that only this user may read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::files::{create_whole, shell_word};

/// Why a secret file was not created or read. The caller's fault, or their machine's; no file was changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// There is a file already; it is never overwritten. To do: use it, or move it away.
    #[error("{path} exists and is not overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{path} does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link: whoever may change the link chooses the secret. To do: name the file itself.
    #[error(
        "{path} is a symbolic link, which a secret file may not be; give the path of the file itself: readlink -f {}",
        shell_word(path)
    )]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A directory, pipe or device. To do: name a plain file.
    #[error("{path} is not a plain file")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The file is another user's, who can change it. To do: take it over.
    #[error(
        "{path} belongs to user {owner} and this program runs as user {user}; take it over: chown {user} {}",
        shell_word(path)
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others may read, write or run it. To do: the `chmod` in the message; if others use this machine, count the secret as
    /// known and replace it.
    #[error("{path} is open to others (mode {mode:04o}); close it: chmod 600 {}", shell_word(path))]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is larger than its kind can be.
    #[error("{path} has {got} bytes where at most {max} are expected")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// The cap.
        max: usize,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Creates a file that only this user may read (mode 0600, whatever the umask), whole and durable when this returns.
///
/// # Errors
/// [`SecretFileError::Exists`] when the name is taken, even by a dangling link; [`SecretFileError::Io`] otherwise.
pub fn create_secret_file(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    create_whole(path, bytes, 0o600).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretFileError::Exists { path: path.to_owned() },
        _ => SecretFileError::Io { path: path.to_owned(), source },
    })
}

/// Reads a secret file of at most `max` bytes, if nobody else can have read or changed it. The buffer is wiped when dropped.
///
/// # Errors
/// A [`SecretFileError`] for each way in which the file is not this user's alone.
pub fn read_secret_file(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let io = |source| SecretFileError::Io { path: path.to_owned(), source };
    // Checked on the open file, so that it cannot be exchanged in between. NONBLOCK: opening a pipe must not wait.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) => return Err(not_opened(path, error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile { path: path.to_owned() });
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(SecretFileError::ForeignOwner { path: path.to_owned(), owner, user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::OpenToOthers { path: path.to_owned(), mode });
    }
    // One byte more than allowed shows a file that grew. The capacity is never exceeded: growing would leave an unwiped copy.
    let mut bytes = Zeroizing::new(vec![0; max.saturating_add(1)]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    if length > max {
        let got = metadata.len().max(length as u64);
        return Err(SecretFileError::TooLarge { path: path.to_owned(), got, max });
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn not_opened(path: &Path, error: io::Error) -> SecretFileError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => SecretFileError::Missing { path },
        // O_NOFOLLOW reports a link as ELOOP (Linux, macOS) or EMLINK (FreeBSD); looking again tells the person for sure.
        _ if std::fs::symlink_metadata(&path).is_ok_and(|it| it.is_symlink()) => {
            SecretFileError::Symlink { path }
        }
        // A socket cannot be opened at all.
        _ if std::fs::symlink_metadata(&path).is_ok_and(|it| !it.is_file()) => {
            SecretFileError::NotAFile { path }
        }
        _ => SecretFileError::Io { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn with_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create_secret_file(&path, b"hush").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_created_secret_is_for_its_owner_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create_secret_file(&path, b"hush").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(*read_secret_file(&path, 4).unwrap(), b"hush");
    }

    #[test]
    fn a_secret_open_to_others_is_refused_with_the_command_that_closes_it() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
            let (_dir, path) = with_file(mode);
            let error = read_secret_file(&path, 100).unwrap_err();
            assert!(matches!(error, SecretFileError::OpenToOthers { mode: found, .. } if found == mode));
            assert!(error.to_string().ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        }
        for mode in [0o600, 0o400] {
            let (_dir, path) = with_file(mode);
            read_secret_file(&path, 100).unwrap();
        }
    }

    #[test]
    fn a_secret_behind_a_symbolic_link_is_refused() {
        let (dir, path) = with_file(0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read_secret_file(&link, 100), Err(SecretFileError::Symlink { .. })));
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(read_secret_file(&dangling, 100), Err(SecretFileError::Symlink { .. })));
        assert!(matches!(create_secret_file(&dangling, b"x"), Err(SecretFileError::Exists { .. })));
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn what_is_no_plain_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read_secret_file(dir.path(), 100), Err(SecretFileError::NotAFile { .. })));
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(matches!(read_secret_file(&pipe, 100), Err(SecretFileError::NotAFile { .. })));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(read_secret_file(&socket, 100), Err(SecretFileError::NotAFile { .. })));
    }

    #[test]
    fn a_secret_of_another_user_is_refused() {
        let (_dir, path) = with_file(0o600);
        let user = rustix::process::geteuid();
        let other = user.as_raw() + 1;
        if std::os::unix::fs::chown(&path, Some(other), None).is_err() {
            // Not root: any root-owned file closed to others cannot even be opened, so there is nothing to show.
            assert_ne!(std::env::var("WATTLE_TEST_ALL").as_deref(), Ok("1"), "chown needs root");
            return;
        }
        let error = read_secret_file(&path, 100).unwrap_err();
        assert!(matches!(error, SecretFileError::ForeignOwner { owner, .. } if owner == other), "{error}");
        assert!(error.to_string().contains(&format!("chown {} ", user.as_raw())), "{error}");
    }

    #[test]
    fn a_secret_larger_than_its_kind_is_refused() {
        let (_dir, path) = with_file(0o600);
        assert!(matches!(read_secret_file(&path, 3), Err(SecretFileError::TooLarge { got: 4, max: 3, .. })));
    }

    #[test]
    fn an_existing_secret_is_never_overwritten() {
        let (_dir, path) = with_file(0o600);
        assert!(matches!(create_secret_file(&path, b"new"), Err(SecretFileError::Exists { .. })));
        assert_eq!(*read_secret_file(&path, 100).unwrap(), b"hush");
    }
}
