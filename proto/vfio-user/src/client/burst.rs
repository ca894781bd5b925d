//! Many posted writes in few system calls.

use super::Client;
use super::error::ClientError;
use crate::Command;

/// Bytes after which a burst goes out: one socket buffer of the kernel's, so that a send wakes the server once.
const SEND_AT: usize = 32 << 10;

/// One write of a burst: region, offset, data.
pub type BurstWrite<'a> = (u32, u64, &'a [u8]);

impl Client {
    /// Posts the writes in order, many to a system call. There is no reply, so no error of the server's either.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: a write has an impossible length, and then none of the burst was sent; or the socket failed.
    pub fn write_burst(&mut self, writes: &[BurstWrite<'_>]) -> Result<(), ClientError> {
        for &(region, offset, data) in writes {
            self.access(region, offset, data.len())?;
        }
        for &(region, offset, data) in writes {
            let access = self.access(region, offset, data.len())?;
            self.connection.begin(Command::RegionWrite, true, |out| {
                access.encode(out);
                out.extend_from_slice(data);
            });
            if self.connection.output_len() >= SEND_AT {
                self.connection.send_output(&[])?;
            }
        }
        self.connection.send_output(&[])
    }
}
