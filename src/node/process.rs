//! What the process takes of the machine. Asking is a handful of system calls, and counting open files takes a
//! while: never on a core.

use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What it takes now; none is what the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Processor time of all threads so far.
    pub(super) cpu: Option<Duration>,
    /// Bytes in memory.
    pub(super) resident_bytes: Option<u64>,
    /// Open files, sockets among them.
    pub(super) open_files: Option<u64>,
}

impl Process {
    /// Ask the system.
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        Self {
            cpu: cpu_time(),
            resident_bytes: status.and_then(|it| resident_bytes(&it)),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|it| it.count() as u64),
        }
    }
}

/// Bytes that a process has in memory, from its `/proc/<pid>/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn cpu_time() -> Option<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    // SAFETY: the place is valid and large enough.
    // JUSTIFICATION: /proc/self/stat, the safe way, tells it in hundredths of a second; this is in microseconds.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if failed != 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    // SAFETY: it began as zeroes, which are numbers, and the call has filled it.
    // JUSTIFICATION: as above.
    let usage = unsafe { usage.assume_init() };
    Some([usage.ru_utime, usage.ru_stime].into_iter().map(duration).sum())
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let before = Process::now();
        assert!(before.resident_bytes > Some(1 << 20), "{before:?}");
        assert!(before.open_files >= Some(3), "{before:?}");
        let file = fs::File::open("/dev/null").unwrap();
        assert!(before.cpu > Some(Duration::ZERO), "{before:?}");
        drop(file);
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let status = "Name:\tdebros\nVmHWM:\t  9 kB\nVmRSS:\t    5120 kB\nThreads:\t9\n";
        assert_eq!(resident_bytes(status), Some(5 << 20));
        assert_eq!(resident_bytes("Name:\tdebros\n"), None);
        assert_eq!(resident_bytes("VmRSS: many kB"), None);
    }
}
