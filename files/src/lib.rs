//! Reading files that a user names; and whether the system has room for open files and threads ([`room`]);
//! files that tell whether they are what was written ([`sealed`]); and libraries that panic on some ([`guard`]); and folders that go
//! with their process ([`aside`]).
//!
//! A name may stand for a pipe that nobody writes to, for a device that never ends, or for a sparse file of a terabyte.
//! Whoever reads such a file whole waits for ever, or takes all memory. So what is read here is a regular file, of a size
//! that the caller states.

pub mod aside;
pub mod guard;
pub mod room;
pub mod sealed;

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// One mebibyte.
pub const MEBIBYTE: u64 = 1 << 20;

/// Most bytes of a text that somebody writes by hand or a tool keeps small: configurations, profiles, certificates.
pub const SMALL: u64 = 16 * MEBIBYTE;

/// Most bytes of a file of data that is read whole: data sets, traces, calibrations, tables.
pub const DATA: u64 = 1024 * MEBIBYTE;

/// A digest in lower-case hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a regular file of at most `most` bytes. The error says what else it is, or how large.
pub fn open(path: &Path, most: u64) -> io::Result<File> {
    // Opening a pipe would wait for its writer, so the name is looked at first.
    check(&fs::metadata(path)?, most)?;
    let file = File::open(path)?;
    check(&file.metadata()?, most)?;
    Ok(file)
}

/// The contents of a regular file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path, most)?;
    let len = file.metadata()?.len();
    let mut contents = Vec::new();
    // A size that the system cannot give is an error here, and the end of the process in `read_to_end`.
    contents.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX))?;
    // Some files know no size before they are read, and some grow meanwhile.
    file.take(most.saturating_add(1)).read_to_end(&mut contents)?;
    let found = contents.len() as u64;
    if found > most { Err(too_large(found, most)) } else { Ok(contents) }
}

fn check(metadata: &fs::Metadata, most: u64) -> io::Result<()> {
    let kind = metadata.file_type();
    // The system itself says best what is wrong with a folder.
    if !kind.is_file() && !kind.is_dir() {
        let reason = format!("it is {}, and only regular files are read", name_of(kind));
        return Err(io::Error::new(ErrorKind::InvalidInput, reason));
    }
    if kind.is_file() && metadata.len() > most { Err(too_large(metadata.len(), most)) } else { Ok(()) }
}

fn too_large(found: u64, most: u64) -> io::Error {
    let reason = format!("it has {found} bytes, and at most {most} are read");
    io::Error::new(ErrorKind::FileTooLarge, reason)
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    match kind {
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    }
}

#[cfg(not(unix))]
fn name_of(_: FileType) -> &'static str {
    "no file"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("five");
        fs::write(&path, b"12345").expect("written");
        assert_eq!(read(&path, 5).expect("small enough"), b"12345");
        let error = read(&path, 4).expect_err("too large");
        assert_eq!(error.to_string(), "it has 5 bytes, and at most 4 are read");
        assert_eq!(read(&folder.path().join("none"), 4).expect_err("missing").kind(), ErrorKind::NotFound);
        let error = read(folder.path(), 4).expect_err("a folder");
        assert!(error.raw_os_error().is_some(), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_regular_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let error = read(&pipe, 4).expect_err("a pipe");
        assert_eq!(error.to_string(), "it is a pipe, and only regular files are read");
        let error = read(Path::new("/dev/zero"), 4).expect_err("a device");
        assert_eq!(error.to_string(), "it is a device, and only regular files are read");
        // A file whose size is not known beforehand is read all the same, and no further than allowed.
        assert!(!read(Path::new("/proc/self/status"), 1 << 16).expect("small").is_empty());
        let error = read(Path::new("/proc/self/status"), 4).expect_err("too large");
        assert_eq!(error.to_string(), "it has 5 bytes, and at most 4 are read");
    }
}
