//! Whether directories and files named by a configuration can be used.
//!
//! Nothing is created here: a missing directory is fine as long as it can be created later. Whether a
//! directory is writable is found out by creating a file in it and removing it again, since permission
//! bits alone do not tell (read-only mounts, ACLs, quotas).

use std::fs;
use std::io;
use std::path::Path;

/// The file by which writability is probed.
const PROBE: &str = ".write_test";

/// Whether `path` is, or can become, a directory that we can write to.
pub(super) fn check_directory(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(it) if !it.is_dir() => Err("path exists but is not a directory".to_owned()),
        Ok(_) => probe(path).map_err(|error| format!("directory not writable: {error}")),
        Err(error) if is_absent(&error) => check_parent(path),
        Err(error) => Err(format!("cannot access path: {}", describe("stat", path, &error))),
    }
}

/// Whether the nearest directory above `path` that exists can be written to.
pub(super) fn check_parent(path: &Path) -> Result<(), String> {
    let refuse = |what: String| Err(format!("parent directory not writable: {what}"));
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match fs::metadata(parent) {
            Ok(it) if !it.is_dir() => return refuse("path is not a directory".to_owned()),
            Ok(_) => {
                return probe(parent).or_else(|it| refuse(format!("directory not writable: {it}")));
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let what = describe("stat", parent, &error);
                return refuse(format!("cannot access directory: {what}"));
            }
        }
    }
    refuse("path is not a directory".to_owned())
}

/// Whether `path` is a file that we can read.
pub(super) fn check_readable(path: &Path) -> Result<(), String> {
    let read = fs::File::open(path).and_then(|it| it.metadata());
    match read {
        Ok(it) if it.is_dir() => Err(format!("read {}: is a directory", path.display())),
        Ok(_) => Ok(()),
        Err(error) => Err(describe("open", path, &error)),
    }
}

/// An error of the system as Go prints it: `open /x: permission denied`.
pub(super) fn describe(operation: &str, path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    let what = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("{operation} {}: {what}", path.display())
}

fn probe(directory: &Path) -> Result<(), String> {
    let path = directory.join(PROBE);
    let tell = |error: io::Error| describe("open", &path, &error);
    fs::File::create(&path).map_err(tell)?;
    // Another process that probes at this moment may have removed it already.
    fs::remove_file(&path)
        .or_else(|error| if is_absent(&error) { Ok(()) } else { Err(tell(error)) })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_needs_an_ancestor_that_can_be_written_to() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, want) in [
            (scratch.path().to_owned(), Ok(())),
            (scratch.path().join("new"), Ok(())),
            (scratch.path().join("new/and/deeper"), Ok(())),
            (file.clone(), Err("path exists but is not a directory")),
            (file.join("below"), Err("parent directory not writable: path is not a directory")),
            // Nobody can create files there, root included.
            (
                "/proc/sys/kernel/debros".into(),
                Err("parent directory not writable: directory not writable: open ..."),
            ),
        ] {
            let got = check_directory(&path).map_err(|it| match it.split_once(": open ") {
                Some((before, _)) => format!("{before}: open ..."),
                None => it,
            });
            assert_eq!(got, want.map_err(str::to_owned), "{}", path.display());
        }
        assert!(!scratch.path().join("new").exists(), "checking creates nothing");
        assert!(!scratch.path().join(PROBE).exists(), "the probe is removed");
    }

    #[test]
    fn system_errors_read_as_they_did() {
        assert_eq!(
            check_readable(Path::new("/nowhere/at/all")).unwrap_err(),
            "open /nowhere/at/all: no such file or directory"
        );
    }
}
