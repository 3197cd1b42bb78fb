//! Which threads the kernel lets run first: cores before the threads of long statements.
//!
//! A core sleeps when it has nothing to do. When something comes in while the processor belongs to a thread
//! that is busy with a long statement, waiting for the end of that thread's slice (3 ms) is ten times what
//! the request itself takes. So the busy threads count for less, and cores ask for short slices, which the
//! scheduler (EEVDF, Linux 6.12 and later) gives at once. Nothing here needs a privilege, and where it is
//! refused a thread is as any other.

#![expect(unsafe_code, reason = "the scheduler is told by system calls")]

/// How much less a long statement's thread counts than a core, as `nice` has it: about a tenth.
const NICENESS: libc::c_int = 10;
/// The slice of a core, in nanoseconds: the shortest there is.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of the kernel, first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Let the cores go first: the calling thread runs what takes long.
pub fn give_way() {
    // SAFETY: the call takes three numbers; zero is the calling thread. It fails only for what may not be
    // done, and then the thread counts as much as a core.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Be woken at once: the calling thread is a core.
pub fn be_prompt() {
    const SIZE: u32 = 48;
    const { assert!(size_of::<SchedAttr>() == SIZE as usize) };
    let attr = SchedAttr {
        size: SIZE,
        policy: 0,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of the structure; zero is the calling thread. An older kernel
    // takes no notice of the slice.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}
