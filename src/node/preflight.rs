//! What must be true of the machine before anything starts: one clear sentence each if it is not.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use glommio::LocalExecutorBuilder;
use glommio::Placement;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tracing::warn;

use crate::config::address::HostPort;
use crate::limits;
use crate::node::BootError;

/// Rings of an executor; each registers its I/O memory once.
const RINGS: u64 = 3;
/// glommio does not start with less.
const MEMLOCK_MIN: u64 = 512 << 10;
/// Files of the process itself: logs, rings, eventfds, listeners, libraries.
const FILES_OF_OUR_OWN: u64 = 64;
/// Files of a core: ring and log files.
const FILES_PER_SHARD: u64 = 32;
/// Files of an open database: itself, its `-wal`, its `-shm`, and the checkpointer's.
const FILES_PER_DATABASE: u64 = 5;
const BACKLOG: i32 = 1024;
/// A port may stay busy for some milliseconds after its process is gone.
const BIND_TRIES: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(25);

/// What SQLite reads from the environment: `localtime` must be the same everywhere, and temporary files lie
/// in the data directory, where none survives a start. Where that is.
pub(super) fn environment(data_dir: &Path) -> Result<PathBuf, BootError> {
    let dir = data_dir.join("sqlite-tmp");
    let unusable = |source| BootError::DataDir { path: dir.clone(), source };
    std::fs::create_dir_all(&dir).map_err(unusable)?;
    for file in std::fs::read_dir(&dir).map_err(unusable)? {
        std::fs::remove_file(file.map_err(unusable)?.path()).map_err(unusable)?;
    }
    // SAFETY: nothing but the main thread runs yet, so nobody reads the environment meanwhile.
    #[expect(unsafe_code, reason = "SQLite and libc read these variables and nothing else")]
    unsafe {
        std::env::set_var("TZ", "UTC");
        std::env::set_var("SQLITE_TMPDIR", &dir);
    }
    Ok(dir)
}

/// No huge pages: the allocator asks for them, and then a few kilobytes in use keep two megabytes resident.
/// An idle node has 12 MB resident with small pages, 38 MB with huge ones.
pub(super) fn small_pages() {
    // SAFETY: this option takes numbers only, and concerns only how memory is mapped.
    #[expect(unsafe_code, reason = "no crate here has prctl")]
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result != 0 {
        tracing::debug!("huge pages cannot be switched off; more memory will be resident");
    }
}

/// Processors that this process may use.
pub(super) fn cpus() -> Vec<usize> {
    // SAFETY: `cpu_set_t` is a plain bit set, for which all zeroes is the empty set.
    #[expect(unsafe_code, reason = "no crate here has sched_getaffinity")]
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the kernel writes at most `size` bytes into `set`, which has them.
    #[expect(unsafe_code, reason = "no crate here has sched_getaffinity")]
    let result = unsafe { libc::sched_getaffinity(0, size, &raw mut set) };
    if result != 0 {
        return vec![0];
    }
    let max = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: `cpu` is below CPU_SETSIZE.
    #[expect(unsafe_code, reason = "no crate here has sched_getaffinity")]
    let is_set = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    (0..max).filter(is_set).collect()
}

/// Whether `io_uring` works here at all. A container's seccomp policy is the usual reason why not.
pub(super) fn io_uring(io_memory: usize) -> Result<(), BootError> {
    let probe = LocalExecutorBuilder::new(Placement::Unbound).io_memory(io_memory).make();
    match probe {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            if text.contains("MemLock") {
                return Err(BootError::Memlock { has: memlock(), needs: MEMLOCK_MIN });
            }
            Err(BootError::IoUring(text))
        }
    }
}

/// Whether enough memory may be locked for the rings, and enough files opened. How many of them each core may have
/// for large results.
pub(super) fn resources(
    n_shards: u16,
    io_memory: u64,
    open_databases: u64,
    connections: u64,
) -> Result<usize, BootError> {
    let needs = (u64::from(n_shards) * RINGS * io_memory).max(MEMLOCK_MIN);
    let has = memlock();
    if has < MEMLOCK_MIN || (!is_root() && has < needs) {
        return Err(BootError::Memlock { has, needs });
    }
    let least = FILES_OF_OUR_OWN
        + u64::from(n_shards) * FILES_PER_SHARD
        + open_databases.min(16) * FILES_PER_DATABASE;
    let spools = u64::from(n_shards) * limits::SPOOLS_MAX as u64;
    let wanted = least + open_databases * FILES_PER_DATABASE + connections + spools;
    let has = raise_open_files(wanted);
    if has < least {
        return Err(BootError::OpenFiles { has, needs: least });
    }
    if has < wanted {
        warn!(
            has,
            wanted, "fewer files may be open than the limits of the configuration add up to"
        );
    }
    Ok(spools_of_core(has - least, wanted - least))
}

/// What large results may have if there are `has` of `wanted` files: as large a part of theirs as the others of
/// their own, but one at least.
fn spools_of_core(has: u64, wanted: u64) -> usize {
    let all = limits::SPOOLS_MAX as u64;
    let granted = (all * has.min(wanted)).checked_div(wanted).unwrap_or(all);
    usize::try_from(granted.max(1)).unwrap_or(limits::SPOOLS_MAX)
}

fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    #[expect(unsafe_code, reason = "no crate here has geteuid")]
    unsafe {
        libc::geteuid() == 0
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct it is given.
    #[expect(unsafe_code, reason = "no crate here has getrlimit")]
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(result, 0, "the resource exists");
    limit
}

fn memlock() -> u64 {
    limit(libc::RLIMIT_MEMLOCK).rlim_cur
}

/// Raise the soft limit as far as is wanted and allowed. What it is then.
fn raise_open_files(wanted: u64) -> u64 {
    let mut now = limit(libc::RLIMIT_NOFILE);
    if now.rlim_cur < wanted {
        let before = now.rlim_cur;
        now.rlim_cur = wanted.min(now.rlim_max);
        // SAFETY: the kernel only reads the struct.
        #[expect(unsafe_code, reason = "no crate here has setrlimit")]
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now) };
        if result != 0 {
            return before;
        }
    }
    now.rlim_cur
}

/// The gateway's listeners, one per core on the same port; the kernel spreads connections over them.
///
/// The address is bound once without sharing first, so that a port in use is an error.
pub(super) fn listeners(
    address: &HostPort,
    n_shards: u16,
) -> Result<(SocketAddr, Vec<TcpListener>), BootError> {
    let in_use = |source| BootError::Port { address: address.to_string(), source };
    let resolved = address.socket_addrs().map_err(in_use)?;
    let mut bound = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for wanted in resolved {
        bound = socket(wanted).and_then(|it| bind_patiently(&it, wanted).map(|()| it));
        // A kernel without IPv6 has the older kind of address.
        let is_no_such_kind = bound.as_ref().is_err_and(|error| {
            let code = error.raw_os_error();
            code == Some(libc::EAFNOSUPPORT) || code == Some(libc::EADDRNOTAVAIL)
        });
        if !is_no_such_kind {
            break;
        }
    }
    let first = bound.map_err(in_use)?;
    let bound = first.local_addr().map_err(in_use)?;
    let bound = bound.as_socket().expect("a TCP socket has an IP address");
    drop(first);
    let share = || -> io::Result<TcpListener> {
        let socket = socket(bound)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    let listeners = (0..n_shards).map(|_| share()).collect::<io::Result<_>>();
    Ok((bound, listeners.map_err(in_use)?))
}

/// The kernel may take a moment to close what a node that was just killed had open.
#[expect(clippy::disallowed_methods, reason = "nothing runs yet that could be held up")]
fn bind_patiently(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    for _ in 0..BIND_TRIES {
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(BIND_PAUSE);
            }
            other => return other,
        }
    }
    socket.bind(&address.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a node that has just stopped must not keep the port; one that listens does.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Take the lock of a data directory; it is held until the file is closed, at the latest by the kernel.
pub(super) fn lock(data_dir: &Path) -> Result<std::fs::File, BootError> {
    let unusable = |source| BootError::DataDir { path: data_dir.to_owned(), source };
    std::fs::create_dir_all(data_dir).map_err(unusable)?;
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(data_dir.join("lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(BootError::Locked(data_dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_get_their_part_of_the_files_that_there_are() {
        let all = limits::SPOOLS_MAX;
        let cases = [(0, 0, all), (9, 0, all), (900, 900, all), (450, 900, all / 2), (0, 900, 1)];
        for (has, wanted, want) in cases {
            assert_eq!(spools_of_core(has, wanted), want, "{has} of {wanted}");
        }
    }
}
