//! How a device is reached.
#![allow(unsafe_code, reason = "the paths come as C strings")]

use std::{
    ffi::{OsStr, c_char},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, SystemTime},
};

use potemkin_front_core::{AfterLoss, DEFAULT_DEADLINE, RemoteOptions, RemoteUrl};
use potemkin_transport::{Role, TlsMaterial};

use crate::{
    POTEMKIN_AFTER_LOSS_REMOVE, POTEMKIN_AFTER_LOSS_RESET,
    boundary::{Versioned, text},
    failure::OpenError,
};

/// Deadlines that are allowed.
const DEADLINE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(60);

/// Who this VMM is, whom it trusts, and how long it waits. Set it to zero, then fill it in. Nothing of it is kept by the library.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Options {
    /// `sizeof(struct potemkin_options)`.
    pub size: usize,
    /// PEM file: the authorities that the broker's certificate may come from.
    pub ca_file: *const c_char,
    /// PEM file: our certificate, which must be an agent's, and those between it and the authority.
    pub cert_file: *const c_char,
    /// PEM file: its private key.
    pub key_file: *const c_char,
    /// How long a piece of an access may stay unanswered, in milliseconds, before the session is lost: 50 to 60000, or 0 for 1000. So
    /// long a vCPU waits for a host that is silent, once ("Waiting", above).
    pub deadline_ms: u32,
    /// What comes after a session that is lost: `POTEMKIN_AFTER_LOSS_REMOVE` or `POTEMKIN_AFTER_LOSS_RESET`.
    pub after_loss: u32,
}

// SAFETY: `repr(C)`, begins with its size; pointers and numbers may be 0.
unsafe impl Versioned for Options {
    const FIRST: usize = 40;
}

impl Options {
    /// Reads the files and checks them.
    ///
    /// # Safety
    /// The strings are null or end with a zero byte.
    pub(crate) unsafe fn remote(&self, url: &RemoteUrl) -> Result<RemoteOptions, OpenError> {
        let after_loss = match self.after_loss {
            POTEMKIN_AFTER_LOSS_REMOVE => AfterLoss::Remove,
            POTEMKIN_AFTER_LOSS_RESET => AfterLoss::Reset,
            _ => return Err(OpenError::Option("after_loss is no such policy")),
        };
        let deadline = match self.deadline_ms {
            0 => DEFAULT_DEADLINE,
            ms => Duration::from_millis(ms.into()),
        };
        if !DEADLINE.contains(&deadline) {
            return Err(OpenError::Option("deadline_ms is not within 50 to 60000"));
        }
        // SAFETY: as the caller promises.
        let tls = unsafe { self.tls()? };
        Ok(RemoteOptions {
            after_loss,
            ..url.options(tls, deadline)
        })
    }

    /// # Safety
    /// As above.
    unsafe fn tls(&self) -> Result<TlsMaterial, OpenError> {
        // SAFETY: as the caller promises.
        let path = |pointer, missing| unsafe {
            text(pointer)
                .map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
                .ok_or(OpenError::Option(missing))
        };
        let ca = path(self.ca_file, "ca_file is null")?;
        let cert = path(self.cert_file, "cert_file is null")?;
        let key = path(self.key_file, "key_file is null")?;
        let tls = TlsMaterial::load(ca, cert, key)?;
        let identity = tls.identity();
        if identity.role() != Role::Agent {
            return Err(OpenError::Role(identity.clone()));
        }
        tls.check_time(SystemTime::now())?;
        Ok(tls)
    }
}
