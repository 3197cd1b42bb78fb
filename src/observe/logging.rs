//! Where `tracing` events go: a line each, for people or as JSON, to standard output or a file.
//!
//! A line is written with one `write` call on an unbuffered descriptor, opened to append: lines of
//! several cores, or of several processes that share a file, do not mix, and nothing is lost in a buffer
//! when the process is killed. The call may block its core; at the levels that production runs at, lines
//! are rare.

use std::fs;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::Dispatch;
use tracing::Level;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time LEVEL target: message field=value`, in colour on a terminal.
    Console,
    /// A JSON object.
    Json,
}

/// What is logged, how, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The least important level that is written.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
    /// The file to append to, created with its directories if need be; else standard output.
    pub output_file: Option<PathBuf>,
}

/// Why there will be no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file, or standard output, cannot be opened.
    #[error("cannot open log file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Send all events of the process to where `options` says, from now on.
pub fn init(options: &Options) -> Result<(), LoggingError> {
    let dispatch = dispatch(options)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LoggingError::Twice)
}

/// Who receives events, without making it the process's own.
fn dispatch(options: &Options) -> Result<Dispatch, LoggingError> {
    let refuse = |path: &Path| {
        let path = path.to_owned();
        |source| LoggingError::Open { path, source }
    };
    let stdout = io::stdout();
    let file = if let Some(path) = &options.output_file {
        open(path).map_err(refuse(path))
    } else {
        let duplicate = stdout.as_fd().try_clone_to_owned();
        duplicate.map(File::from).map_err(refuse(Path::new("/dev/stdout")))
    }?;
    let is_terminal = options.output_file.is_none() && stdout.is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_max_level(options.level)
        .with_ansi(is_terminal)
        .with_writer(Arc::new(file));
    Ok(match options.format {
        Format::Console => Dispatch::new(builder.finish()),
        Format::Json => Dispatch::new(builder.json().flatten_event(true).finish()),
    })
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    File::options().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: Format, level: Level, before: &str) -> Vec<String> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("logs/node.log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        if !before.is_empty() {
            fs::write(&path, before).unwrap();
        }
        let options = Options { level, format, output_file: Some(path.clone()) };
        tracing::dispatcher::with_default(&dispatch(&options).unwrap(), || {
            tracing::info!(partition = 3, "became leader");
            tracing::debug!("two\nlines");
        });
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn events_are_lines_for_people() {
        let lines = logged(Format::Console, Level::INFO, "");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(" INFO "), "{lines:?}");
        assert!(lines[0].ends_with("became leader partition=3"), "{lines:?}");
        assert!(!lines[0].contains('\x1b'), "colour in a file: {lines:?}");
    }

    #[test]
    fn events_are_objects_for_machines() {
        let lines = logged(Format::Json, Level::DEBUG, "");
        let objects: Vec<serde_json::Value> =
            lines.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
        assert_eq!(objects.len(), 2, "{lines:?}");
        assert_eq!((&objects[0]["level"], &objects[0]["partition"]), (&"INFO".into(), &3.into()));
        assert_eq!(objects[0]["message"], "became leader");
        assert_eq!(objects[1]["message"], "two\nlines");
    }

    #[test]
    fn a_file_is_appended_to() {
        let lines = logged(Format::Console, Level::INFO, "from an earlier run\n");
        assert_eq!((lines.len(), lines[0].as_str()), (2, "from an earlier run"));
    }

    #[test]
    fn directories_are_created_and_what_cannot_be_opened_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b/node.log");
        let options =
            Options { level: Level::INFO, format: Format::Json, output_file: Some(path.clone()) };
        drop(dispatch(&options).unwrap());
        let options = Options { output_file: Some(path.join("c")), ..options };
        let error = dispatch(&options).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open log file {}", path.join("c").display()));
    }
}
