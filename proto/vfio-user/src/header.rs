//! The 16-byte header of every message (specification: "Header").

use rustix::io::Errno;

use crate::MAX_MESSAGE;
use crate::error::{DecodeError, Reason};
use crate::wire::PutFields;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = LEN as usize;

const LEN: u32 = 16;

const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const FLAG_NO_REPLY: u32 = 1 << 4;
const FLAG_ERROR: u32 = 1 << 5;

/// What a message asks for or answers (specification: "Commands").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Command {
    /// Agree on a version and on limits; client to server, first.
    Version = 1,
    /// Announce guest memory; client to server.
    DmaMap = 2,
    /// Withdraw guest memory; client to server.
    DmaUnmap = 3,
    /// Number of regions and interrupt types; client to server.
    DeviceGetInfo = 4,
    /// Size and rights of one region; client to server.
    DeviceGetRegionInfo = 5,
    /// Descriptors that signal accesses to parts of a region; client to server.
    DeviceGetRegionIoFds = 6,
    /// Number and kind of one type's interrupts; client to server.
    DeviceGetIrqInfo = 7,
    /// Connect, mask, unmask or trigger interrupts; client to server.
    DeviceSetIrqs = 8,
    /// Read from a region; client to server.
    RegionRead = 9,
    /// Write to a region; client to server.
    RegionWrite = 10,
    /// Read guest memory; server to client.
    DmaRead = 11,
    /// Write guest memory; server to client.
    DmaWrite = 12,
    /// Reset the device; client to server.
    DeviceReset = 13,
    /// Several small region writes; client to server.
    RegionWriteMulti = 15,
}

impl Command {
    /// The command with this number, if it is one that this crate knows.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::DeviceGetInfo,
            5 => Self::DeviceGetRegionInfo,
            6 => Self::DeviceGetRegionIoFds,
            7 => Self::DeviceGetIrqInfo,
            8 => Self::DeviceSetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            11 => Self::DmaRead,
            12 => Self::DmaWrite,
            13 => Self::DeviceReset,
            15 => Self::RegionWriteMulti,
            _ => return None,
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Its name in the specification, without the `VFIO_USER_` prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "VERSION",
            Self::DmaMap => "DMA_MAP",
            Self::DmaUnmap => "DMA_UNMAP",
            Self::DeviceGetInfo => "DEVICE_GET_INFO",
            Self::DeviceGetRegionInfo => "DEVICE_GET_REGION_INFO",
            Self::DeviceGetRegionIoFds => "DEVICE_GET_REGION_IO_FDS",
            Self::DeviceGetIrqInfo => "DEVICE_GET_IRQ_INFO",
            Self::DeviceSetIrqs => "DEVICE_SET_IRQS",
            Self::RegionRead => "REGION_READ",
            Self::RegionWrite => "REGION_WRITE",
            Self::DmaRead => "DMA_READ",
            Self::DmaWrite => "DMA_WRITE",
            Self::DeviceReset => "DEVICE_RESET",
            Self::RegionWriteMulti => "REGION_WRITE_MULTI",
        }
    }
}

/// Whether a message asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// It asks.
    Command,
    /// It answers the command with the same id.
    Reply,
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who sends the command, echoed in the reply.
    pub id: u16,
    /// Number of the command; not checked, because an unknown one deserves a reply.
    pub command: u16,
    /// Length of the whole message in bytes, this header included: [`HEADER_LEN`] to [`MAX_MESSAGE`].
    pub size: u32,
    /// Command or reply.
    pub message_type: MessageType,
    /// In a command: the sender wants no reply.
    pub no_reply: bool,
    /// In a reply: the command failed, and `error` says how.
    pub failed: bool,
    /// In a failed reply an error number, possibly 0; else of no meaning.
    pub error: u32,
}

impl Header {
    /// The header of a command that carries `payload` bytes.
    #[must_use]
    pub fn command(id: u16, command: Command, payload: u32) -> Self {
        Self {
            id,
            command: command.code(),
            size: LEN.saturating_add(payload),
            message_type: MessageType::Command,
            no_reply: false,
            failed: false,
            error: 0,
        }
    }

    /// The header of the reply to this command, with `payload` bytes.
    #[must_use]
    pub fn reply(&self, payload: u32) -> Self {
        Self {
            size: LEN.saturating_add(payload),
            message_type: MessageType::Reply,
            no_reply: false,
            failed: false,
            error: 0,
            ..*self
        }
    }

    /// The header, which is also the whole, of the reply that this command has failed.
    #[must_use]
    pub fn error_reply(&self, errno: Errno) -> Self {
        let error = u32::try_from(errno.raw_os_error()).unwrap_or_default();
        Self {
            failed: true,
            error,
            ..self.reply(0)
        }
    }

    /// The error number of a failed reply; `EIO` for 0 and for what is no error number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        /// Linux has none above.
        const MAX_ERRNO: i32 = 4095;
        match i32::try_from(self.error) {
            Ok(errno @ 1..=MAX_ERRNO) => Errno::from_raw_os_error(errno),
            _ => Errno::IO,
        }
    }

    /// Reads the header at the front of `bytes`; `Ok(None)` if they are fewer than [`HEADER_LEN`].
    ///
    /// # Errors
    ///
    /// [`HeaderError`] when the size or the flags are impossible. Where the next message begins is unknown then.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        Self::decode_exact(bytes).map(Some)
    }

    fn decode_exact(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let flags = word(8);
        let header = Self {
            id: u16::from_ne_bytes([bytes[0], bytes[1]]),
            command: u16::from_ne_bytes([bytes[2], bytes[3]]),
            size: word(4),
            message_type: if flags & TYPE_MASK == TYPE_REPLY {
                MessageType::Reply
            } else {
                MessageType::Command
            },
            no_reply: flags & FLAG_NO_REPLY != 0,
            failed: flags & FLAG_ERROR != 0,
            error: word(12),
        };
        match Self::check(header.size, flags) {
            Ok(()) => Ok(header),
            Err(cause) => Err(HeaderError { header, cause }),
        }
    }

    fn check(size: u32, flags: u32) -> Result<(), DecodeError> {
        let fail = |field, reason| Err(DecodeError::new("header", field, reason));
        if size < LEN {
            return fail(
                "size",
                Reason::TooSmall {
                    found: size.into(),
                    least: LEN.into(),
                },
            );
        }
        if size > MAX_MESSAGE {
            return fail(
                "size",
                Reason::TooLarge {
                    found: size.into(),
                    most: MAX_MESSAGE.into(),
                },
            );
        }
        let known_type = matches!(flags & TYPE_MASK, TYPE_COMMAND | TYPE_REPLY);
        if !known_type || flags & !(TYPE_MASK | FLAG_NO_REPLY | FLAG_ERROR) != 0 {
            return fail("flags", Reason::Invalid(flags.into()));
        }
        Ok(())
    }

    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.id);
        out.put_u16(self.command);
        out.put_u32(self.size);
        let message_type = match self.message_type {
            MessageType::Command => TYPE_COMMAND,
            MessageType::Reply => TYPE_REPLY,
        };
        let no_reply = if self.no_reply { FLAG_NO_REPLY } else { 0 };
        let failed = if self.failed { FLAG_ERROR } else { 0 };
        out.put_u32(message_type | no_reply | failed);
        out.put_u32(self.error);
    }

    /// Length of what follows the header, in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        (self.size as usize).saturating_sub(HEADER_LEN)
    }

    /// The command, if this crate knows it.
    #[must_use]
    pub fn known_command(&self) -> Option<Command> {
        Command::from_code(self.command)
    }
}

/// A header with an impossible size or impossible flags.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{cause}")]
pub struct HeaderError {
    /// The header as it came: enough to address an error reply.
    pub header: Header,
    /// What is wrong with it.
    pub cause: DecodeError,
}
