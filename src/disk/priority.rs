//! Which threads the kernel lets run first: cores before the threads of long statements.
//!
//! A core sleeps when it has nothing to do. When something comes in while the processor belongs to a thread
//! that is busy with a long statement, waiting for the end of that thread's slice (3 ms) is ten times what
//! the request itself takes. So the busy threads count for less. (Shorter slices for the cores were tried:
//! they cost an INSERT a sixth more of the processor under load, and gained nothing.) It needs no privilege.

#![expect(unsafe_code, reason = "the scheduler is told by a system call")]

/// How much less a long statement's thread counts than a core, as `nice` has it: about a tenth.
const NICENESS: libc::c_int = 10;
/// Let the cores go first: the calling thread runs what takes long.
pub fn give_way() {
    // SAFETY: the call takes three numbers; zero is the calling thread. It fails only for what may not be
    // done, and then the thread counts as much as a core.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}
