//! Driving the educational device (QEMU's `docs/specs/edu.rst`): identification, liveness, factorial.

use std::time::{Duration, Instant};

use super::ProbeError;
use super::checks::Checks;
use super::function::Guest;

/// The device's one BAR.
pub(crate) const BAR: u8 = 0;
/// Read-only: 0xRRrr00ed, major and minor version.
const IDENTIFICATION: u64 = 0x00;
/// Reads the complement of what was written.
pub(crate) const LIVENESS: u64 = 0x04;
/// Write a number, read its factorial once it is computed.
const FACTORIAL: u64 = 0x08;
/// Status: bit 0 while computing, bit 7 to raise an interrupt at the end.
const STATUS: u64 = 0x20;
const STATUS_COMPUTING: u32 = 0x01;

/// Drives each register that needs neither DMA nor interrupts.
pub(crate) fn drive(
    guest: &mut Guest<'_>,
    checks: &mut Checks,
    limit: Duration,
) -> Result<(), ProbeError> {
    // Its low half is fixed: all-ones come from nobody.
    let id = present(guest.bar_u32(BAR, IDENTIFICATION)?)?;
    checks.add("edu: identification", id & 0xffff == 0x00ed, || {
        format!("{id:#010x}, wanted 0x____00ed")
    });
    for pattern in [0x0000_0000, 0xffff_ffff, 0x5aa5_c33c] {
        guest.post_u32(BAR, LIVENESS, pattern)?;
        let answer = guest.bar_u32(BAR, LIVENESS)?;
        checks.add(
            &format!("edu: liveness of {pattern:#010x}"),
            answer == !pattern,
            || format!("{answer:#010x}, wanted {:#010x}", !pattern),
        );
    }
    for n in [0, 5, 12] {
        let answer = factorial(guest, n, limit)?;
        let wanted: u32 = (1..=n).product();
        checks.add(&format!("edu: {n}!"), answer == wanted, || {
            format!("{answer}, wanted {wanted}")
        });
    }
    Ok(())
}

/// What a register that is never all-ones holds.
fn present(value: u32) -> Result<u32, ProbeError> {
    match value {
        u32::MAX => Err(ProbeError::AllOnes),
        value => Ok(value),
    }
}

fn factorial(guest: &mut Guest<'_>, n: u32, limit: Duration) -> Result<u32, ProbeError> {
    let deadline = Instant::now() + limit;
    // No interrupt at the end.
    guest.post_u32(BAR, STATUS, 0)?;
    guest.post_u32(BAR, FACTORIAL, n)?;
    // Most of its bits are reserved: all-ones are not its own either, but those of a device that was lost meanwhile.
    while present(guest.bar_u32(BAR, STATUS)?)? & STATUS_COMPUTING != 0 {
        if Instant::now() >= deadline {
            return Err(ProbeError::Stuck { n, limit });
        }
    }
    Ok(guest.bar_u32(BAR, FACTORIAL)?)
}
