//! How the process ends, for scripts and supervisors.

use std::process::ExitCode;

/// The exit codes of every subcommand. They are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped by SIGINT or SIGTERM.
    Success = 0,
    /// The configuration is wrong, or the start failed for a reason without a code of its own; what was asked for was
    /// refused; a benchmark found a row missing.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The server that is to be measured cannot be reached, or refuses what is needed.
    Unreachable = 68,
    /// The kernel offers no usable `io_uring`.
    IoUring = 69,
    /// There are fewer cores than shards.
    Cores = 70,
    /// The limit of locked memory or of open files is too low.
    ResourceLimit = 71,
    /// The data directory cannot be used.
    DataDir = 73,
    /// Another process has the data directory.
    Locked = 75,
    /// Somebody else listens on the port.
    PortInUse = 76,
}

impl Exit {
    /// The number that the parent process sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_do_not_change() {
        for (exit, want) in [
            (Exit::Success, 0),
            (Exit::Failure, 1),
            (Exit::Usage, 2),
            (Exit::Unreachable, 68),
            (Exit::IoUring, 69),
            (Exit::Cores, 70),
            (Exit::ResourceLimit, 71),
            (Exit::DataDir, 73),
            (Exit::Locked, 75),
            (Exit::PortInUse, 76),
        ] {
            assert_eq!(exit.code(), want, "{exit:?}");
        }
    }
}
