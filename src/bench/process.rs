//! What a process has cost, from `/proc`, and which process listens on a port.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// Units of processor time in `/proc`, on every Linux there is (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A process on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its id.
    pub pid: u32,
}

impl Process {
    /// This one.
    pub(super) fn own() -> Self {
        Self { pid: std::process::id() }
    }

    /// The one that listens on a port of this machine, if it may be looked at.
    pub(super) fn listening_on(address: SocketAddr) -> Option<Self> {
        if !address.ip().is_loopback() && !address.ip().is_unspecified() {
            return None;
        }
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|it| fs::read_to_string(it).ok());
        let socket = tables.iter().flatten().find_map(|it| listening_socket(it, address.port()))?;
        let link = format!("socket:[{socket}]");
        let mut pids = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            let mut links = descriptors.flatten().filter_map(|it| fs::read_link(it.path()).ok());
            links.any(|it| it.as_os_str() == link.as_str())
        })
        .map(|pid| Self { pid })
    }

    /// Processor time of all its threads so far, user and system, to within 10 ms.
    pub(super) fn cpu(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let ticks = ticks(&stat)?;
        Some(Duration::from_secs(ticks) / u32::try_from(TICKS_PER_SECOND).ok()?)
    }
}

/// The inode of the socket that listens on a port, by a table of the kernel.
fn listening_socket(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_ours = fields.nth(1)?.ends_with(&port) && fields.nth(1)? == LISTEN;
        if is_ours { fields.nth(5)?.parse().ok() } else { None }
    })
}

/// User and system time of a line of `stat`. The second field is a name and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_listener_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(Process::listening_on(address), Some(Process::own()));
        drop(listener);
        assert_eq!(Process::listening_on(address), None);
        assert_eq!(Process::listening_on("192.0.2.1:80".parse().unwrap()), None);
    }

    #[test]
    fn a_line_of_stat_is_read_from_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 a S"), None);
        assert!(Process::own().cpu().is_some());
    }
}
