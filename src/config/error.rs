//! What is wrong with a configuration, and the report a person gets.

use std::fmt::Write;

/// Why there is no configuration. All of it is for the operator to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to open config file: {0}")]
    Open(String),
    /// The file is empty (`EOF`) or not YAML.
    #[error("invalid config: {0}")]
    Syntax(String),
    /// The file is YAML, but not a configuration that may run.
    #[error("invalid config: {} errors", unread.len() + broken.len())]
    Invalid {
        /// Whose configuration: the first word of the report.
        what: &'static str,
        /// Unknown keys and values of the wrong type, with their lines.
        unread: Vec<String>,
        /// Rules that do not hold, each with the path of its key.
        broken: Vec<String>,
    },
}

impl ConfigError {
    /// Whether nothing is wrong but that a data directory cannot be used.
    pub fn is_about_directories_only(&self) -> bool {
        let Self::Invalid { unread, broken, .. } = self else { return false };
        let is_directory = |it: &String| {
            let of_ours =
                it.starts_with("node.data_dir: ") || it.starts_with("database.data_dir: ");
            of_ours && !it.ends_with("must not be empty")
        };
        unread.is_empty() && broken.iter().all(is_directory)
    }

    /// The whole story, several lines, ending with a newline; for standard error.
    pub fn report(&self) -> String {
        let Self::Invalid { what, unread, broken } = self else {
            return format!("Configuration load error: {self}\n");
        };
        let mut report = String::new();
        if !unread.is_empty() {
            report += "Configuration load error: invalid config: yaml: unmarshal errors:\n";
            for it in unread {
                writeln!(report, "  {it}").expect("a String takes all");
            }
        }
        if !broken.is_empty() {
            let n = broken.len();
            writeln!(report, "\n{what} errors ({n}):").expect("a String takes all");
            for it in broken {
                writeln!(report, "  - {it}").expect("a String takes all");
            }
            report += "\nPlease fix the configuration and try again.\n";
        }
        report
    }
}
