//! Which format the data directory has: the file `VERSION`, one line `<number> wattle-<first version that knows it>`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::files::write_atomically;
use crate::open::OpenError;

/// The format of the data directory that this program reads and writes.
pub const DATA_FORMAT: u32 = 1;

const FILE: &str = "VERSION";

/// What this program writes: its format, and for the reader of an older program the first version that knows it.
const LINE: &str = "1 wattle-0.1.0\n";

const FILE_BYTES_MAX: u64 = 128;

/// Checks the format without touching anything: `true` when it is this program's, `false` when there is no file.
pub(crate) fn check(dir: &Path) -> Result<bool, OpenError> {
    let file = dir.join(FILE);
    let Some(bytes) = read(&file)? else { return Ok(false) };
    let invalid = |why: &'static str| OpenError::Version { file: file.clone(), why };
    let text = str::from_utf8(&bytes).map_err(|_not_text| invalid("it is not text"))?;
    let line = text.strip_suffix('\n').ok_or_else(|| invalid("it is not one whole line"))?;
    let (number, since) = line.split_once(' ').map_or((line, None), |(number, since)| (number, Some(since)));
    if number.is_empty() || !number.bytes().all(|it| it.is_ascii_digit()) || number.starts_with('0') {
        return Err(invalid("it does not start with a format number"));
    }
    let found = number.parse().map_err(|_too_large| invalid("its format number is out of range"))?;
    // The words go to a terminal: nothing but the characters of a version passes.
    let printable = |since: &str| since.bytes().all(|it| it.is_ascii_alphanumeric() || b".-+".contains(&it));
    let needs = since.map(|since| printable(since).then(|| since.to_owned()));
    match (found, needs) {
        (_, Some(None)) => Err(invalid("what follows the format number is not a program version")),
        (DATA_FORMAT, _) => Ok(true),
        (found, needs) => {
            Err(OpenError::Newer { dir: dir.to_owned(), found, known: DATA_FORMAT, needs: needs.flatten() })
        }
    }
}

/// Marks the directory as having this program's format. From here on it may hold data.
pub(crate) fn write(dir: &Path) -> Result<(), OpenError> {
    let file = dir.join(FILE);
    write_atomically(&file, LINE.as_bytes(), 0o600).map_err(|error| OpenError::from_io(&file, error))
}

fn read(file: &PathBuf) -> Result<Option<Vec<u8>>, OpenError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => {
            Err(OpenError::Version { file: file.clone(), why: "it is too long" })
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::from_io(file, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(content: &[u8]) -> Result<bool, OpenError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), content).unwrap();
        check(dir.path())
    }

    #[test]
    fn the_line_written_is_the_line_understood() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!check(dir.path()).unwrap());
        write(dir.path()).unwrap();
        assert!(check(dir.path()).unwrap());
        assert!(LINE.starts_with(&format!("{DATA_FORMAT} ")));
    }

    #[test]
    fn a_newer_format_says_what_was_found_known_and_needed() {
        let error = with(b"2 wattle-0.9.0\n").unwrap_err();
        assert!(
            matches!(&error, OpenError::Newer { found: 2, known: 1, needs: Some(needs), .. } if needs == "wattle-0.9.0")
        );
        assert!(error.to_string().contains("wattle-0.9.0"), "{error}");
        assert!(matches!(with(b"4294967295\n"), Err(OpenError::Newer { found: u32::MAX, needs: None, .. })));
    }

    #[test]
    fn a_damaged_version_file_is_refused() {
        let long = [b'1'; 4000];
        let cases: [&[u8]; 12] = [
            b"",
            b"\n",
            b"1",
            b"one\n",
            b"0\n",
            b"01\n",
            b"-1\n",
            b"1.0\n",
            b"4294967296\n",
            b"\xff\n",
            b"1 \x1b[2J\n",
            &long,
        ];
        for content in cases {
            assert!(matches!(with(content), Err(OpenError::Version { .. })), "{content:?}");
        }
    }
}
