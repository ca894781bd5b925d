//! Guest memory for a server that has no descriptor for it.

use rustix::io::Errno;

use crate::error::DecodeError;
use crate::message::DmaAccess;
use crate::{Command, Header};

/// Guest memory, by guest-physical address.
pub trait GuestMemory: Send {
    /// Fills `out` from memory at `address`.
    ///
    /// # Errors
    ///
    /// An error number for the server when any of it is not memory that it may read.
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Errno>;

    /// Puts `data` into memory at `address`.
    ///
    /// # Errors
    ///
    /// An error number for the server when any of it is not memory that it may write.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Errno>;
}

/// Carries out the server's request and appends the reply to `out`.
pub(super) fn answer(
    memory: Option<&mut (dyn GuestMemory + 'static)>,
    header: &Header,
    payload: &[u8],
    limit: u32,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    if let Err(errno) = try_answer(memory, header, payload, limit, out) {
        out.truncate(start);
        header.error_reply(errno).encode(out);
    }
}

fn try_answer(
    memory: Option<&mut (dyn GuestMemory + 'static)>,
    header: &Header,
    payload: &[u8],
    limit: u32,
    out: &mut Vec<u8>,
) -> Result<(), Errno> {
    let errno = |error: DecodeError| error.errno();
    match header.known_command() {
        Some(command @ Command::DmaRead) => {
            let access = DmaAccess::decode(command.name(), payload, limit).map_err(errno)?;
            header.reply(DmaAccess::LEN + access.count).encode(out);
            access.encode(out);
            let data = out.len();
            out.resize(data + access.count as usize, 0);
            memory
                .ok_or(Errno::FAULT)?
                .read(access.address, &mut out[data..])
        }
        Some(command @ Command::DmaWrite) => {
            let (access, data) =
                DmaAccess::decode_with_data(command.name(), payload, limit).map_err(errno)?;
            memory.ok_or(Errno::FAULT)?.write(access.address, data)?;
            header.reply(DmaAccess::LEN).encode(out);
            access.encode(out);
            Ok(())
        }
        _ => Err(Errno::NOTSUP),
    }
}
