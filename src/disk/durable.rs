//! A write and the `fdatasync` behind it as one operation: an `io_uring` of its own, in which the second follows the first.
//!
//! Done one after the other through the executor's ring they put the core to sleep and wake it twice; for a client that waits
//! for each write, that was a fifth of what it waits for. The executor has no operation for both, but it can wait until another ring has a
//! completion: so it sleeps once.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;

use glommio::io::DmaBuffer;
use glommio::io::PollableFd;
use io_uring::IoUring;
use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::types::FsyncFlags;

/// Entries of the ring; two are used.
const N_ENTRIES: u32 = 2;
/// What tells the completions apart.
const WRITE: u64 = 1;
const SYNC: u64 = 2;

/// What failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DurableError {
    #[error("write: {0}")]
    Write(io::Error),
    /// The bytes that were written, and that should have been.
    #[error("wrote {0} of {1} bytes")]
    Short(usize, usize),
    #[error("sync: {0}")]
    Sync(io::Error),
    #[error("use an io_uring: {0}")]
    Ring(io::Error),
}

/// The ring. One write at a time; after [`DurableError::Ring`] none any more, since nobody knows what the kernel still does.
#[expect(missing_debug_implementations, reason = "a ring has nothing to show")]
pub struct Durable {
    ring: PollableFd<IoUring>,
    /// A write that succeeds has no completion of its own (Linux 5.17).
    is_write_silent: bool,
    /// What is being written: the kernel reads it until both have completed. Never freed if that is not seen.
    in_flight: Option<ManuallyDrop<DmaBuffer>>,
}

/// How the two ended, as far as they have.
#[derive(Default)]
struct Ends {
    write: Option<i32>,
    sync: Option<i32>,
}

impl Durable {
    /// A ring for the executor that this runs on. Without `interrupts`, what completes waits until the core enters the
    /// kernel (Linux 5.19): for a core that does not spin.
    pub fn new(interrupts: bool) -> Result<Self, DurableError> {
        let plain = || IoUring::new(N_ENTRIES);
        let waiting =
            || IoUring::builder().setup_coop_taskrun().build(N_ENTRIES).or_else(|_| plain());
        let ring = if interrupts { plain() } else { waiting() }.map_err(DurableError::Ring)?;
        let is_write_silent = ring.params().is_feature_skip_cqe_on_success();
        let to_io = |error: glommio::GlommioError<()>| DurableError::Ring(error.into());
        let ring = PollableFd::new(ring).map_err(to_io)?;
        Ok(Self { ring, is_write_silent, in_flight: None })
    }

    /// Write all of `buffer` at `offset` of `file`, and then sync the file's data.
    ///
    /// Whoever drops the future before its end loses the buffer's memory and may not use this again; the file must not
    /// be closed then before the process ends, since the kernel looks its number up once more for the sync.
    pub async fn write(
        &mut self,
        file: &impl AsRawFd,
        buffer: DmaBuffer,
        offset: u64,
    ) -> Result<(), DurableError> {
        if self.in_flight.is_some() {
            return Err(DurableError::Ring(io::Error::other("an earlier write has not ended")));
        }
        let size = buffer.len();
        let buffer = self.in_flight.insert(ManuallyDrop::new(buffer));
        let length = u32::try_from(size).expect("a batch has a bound");
        let file = Fd(file.as_raw_fd());
        let silent = if self.is_write_silent { Flags::SKIP_SUCCESS } else { Flags::empty() };
        let write = opcode::Write::new(file, buffer.as_ptr(), length).offset(offset);
        let write = write.build().flags(Flags::IO_LINK | silent).user_data(WRITE);
        let sync = opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC);
        let sync = sync.build().user_data(SYNC);
        // SAFETY: the buffer stays until both have completed, and is never freed if this does not see them
        // complete; the file is open as long as this borrows it.
        // JUSTIFICATION: the executor has no operation for both, and the ring's crate takes addresses.
        #[expect(unsafe_code, reason = "the kernel reads memory by its address")]
        let pushed = unsafe { self.ring.get_mut().submission().push_multiple(&[write, sync]) };
        pushed.map_err(|error| DurableError::Ring(io::Error::other(error)))?;
        let submitted = self.ring.get_ref().submit().map_err(DurableError::Ring)?;
        if submitted != 2 {
            return Err(DurableError::Ring(io::Error::other(
                "the kernel took one of two operations",
            )));
        }
        let ends = self.completed(size).await?;
        if let Some(buffer) = self.in_flight.take() {
            drop(ManuallyDrop::into_inner(buffer));
        }
        ends.check(size)
    }

    /// Wait for both. A write that succeeds may say nothing, and one that fails says it for both.
    async fn completed(&mut self, size: usize) -> Result<Ends, DurableError> {
        let mut ends = Ends::default();
        loop {
            while let Some(completion) = self.ring.get_mut().completion().next() {
                let end =
                    if completion.user_data() == WRITE { &mut ends.write } else { &mut ends.sync };
                *end = Some(completion.result());
            }
            let has_ended = match ends {
                Ends { write: Some(_), sync: Some(_) } => true,
                Ends { write: None, sync: Some(_) } | Ends { write: Some(_), sync: None } => {
                    self.is_write_silent
                }
                Ends { write: None, sync: None } => false,
            };
            if has_ended {
                if self.is_write_silent && ends.write.is_none() {
                    ends.write = i32::try_from(size).ok();
                }
                return Ok(ends);
            }
            let ready = self.ring.readable().await;
            ready.map_err(|error| DurableError::Ring(error.into()))?;
        }
    }
}

impl Ends {
    /// Whether `size` bytes were written and synced.
    fn check(&self, size: usize) -> Result<(), DurableError> {
        let failed = |result: i32| io::Error::from_raw_os_error(-result);
        let written = self.write.unwrap_or(-libc::EIO);
        match usize::try_from(written) {
            Err(_) => return Err(DurableError::Write(failed(written))),
            Ok(n) if n != size => return Err(DurableError::Short(n, size)),
            Ok(_) => {}
        }
        match self.sync {
            Some(result) if result >= 0 => Ok(()),
            Some(result) => Err(DurableError::Sync(failed(result))),
            None => Err(DurableError::Sync(failed(-libc::ECANCELED))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    use glommio::LocalExecutorBuilder;
    use glommio::Placement;

    use super::*;

    const SIZE: usize = 8192;

    fn buffer(byte: u8) -> DmaBuffer {
        let mut buffer = glommio::allocate_dma_buffer(SIZE);
        buffer.as_bytes_mut().fill(byte);
        buffer
    }

    #[test]
    fn it_writes_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut options = File::options();
        let file = options.write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path);
        let file = file.unwrap();
        let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
        builder.make().unwrap().run(async {
            // Kernels before 5.17 tell of both.
            for is_write_silent in [true, false] {
                let mut durable = Durable::new(false).unwrap();
                durable.is_write_silent &= is_write_silent;
                for nth in 0..100_u8 {
                    let offset = u64::from(nth % 4) * SIZE as u64;
                    durable.write(&file, buffer(nth), offset).await.unwrap();
                    let at = usize::from(nth % 4) * SIZE;
                    assert_eq!(fs::read(&path).unwrap()[at..at + SIZE], [nth; SIZE]);
                }
                // The kernel refuses what it was opened for, and what is not aligned.
                let readable = File::open(&path).unwrap();
                let error = durable.write(&readable, buffer(0), 0).await.unwrap_err();
                assert!(matches!(error, DurableError::Write(_)), "{error}");
                let error = durable.write(&file, buffer(0), 7).await.unwrap_err();
                assert!(matches!(error, DurableError::Write(_)), "{error}");
                let full = File::options().write(true).open("/dev/full").unwrap();
                let error = durable.write(&full, buffer(0), 0).await.unwrap_err();
                assert!(error.to_string().starts_with("write: No space left"), "{error}");
                // What cannot be synced is written nevertheless, which proves nothing.
                let null = File::options().write(true).open("/dev/null").unwrap();
                let error = durable.write(&null, buffer(0), 0).await.unwrap_err();
                assert!(matches!(error, DurableError::Sync(_)), "{error}");
                // It goes on after a failure.
                durable.write(&file, buffer(200), 0).await.unwrap();
                assert_eq!(fs::read(&path).unwrap()[0], 200);
            }
        });
    }
}
