//! What all servers serve: the pins of libvfio-user's sample `gpio-pci-idio-16`, so that one client can ask all of them the same.

use std::io;

/// The region that is BAR 2, and the one that is configuration space (`VFIO_PCI_*_REGION_INDEX` in `linux/vfio.h`).
pub(super) const BAR2: u32 = 2;
pub(super) const CONFIG: u32 = 7;
pub(super) const REGIONS: u32 = 9;
/// Interrupt types, of which there are none (`VFIO_PCI_NUM_IRQS`).
pub(super) const IRQS: u32 = 5;
pub(super) const BAR2_BYTES: u16 = 0x100;
pub(super) const CONFIG_BYTES: u16 = 256;
/// One byte, written: each bit that is set counts its pin up.
pub(super) const OUTPUT: u64 = 0;
/// One byte, read: the bits of the pins whose count is a multiple of 3.
pub(super) const INPUT: u64 = 1;
/// The vendor and device id, as a config read gives them.
pub(super) const VENDOR_AND_DEVICE: u32 = 0x0dc8_494f;

/// Both regions; a client has them, too, to know what must be read.
#[derive(Debug)]
pub(super) struct Registers {
    /// Modulo 3.
    pins: [u8; 8],
    config: [u8; CONFIG_BYTES as usize],
}

impl Registers {
    pub(super) fn new() -> Self {
        let mut config = [0; CONFIG_BYTES as usize];
        config[..4].copy_from_slice(&VENDOR_AND_DEVICE.to_le_bytes());
        Self {
            pins: [0; 8],
            config,
        }
    }

    /// What [`INPUT`] reads.
    pub(super) fn input(&self) -> u8 {
        let bits = self.pins.iter().enumerate();
        bits.map(|(bit, &count)| u8::from(count == 0) << bit).sum()
    }

    /// A write of [`OUTPUT`].
    pub(super) fn output(&mut self, value: u8) {
        for (bit, count) in self.pins.iter_mut().enumerate() {
            *count = (*count + (value >> bit & 1)) % 3;
        }
    }

    /// Fills `out` from a region; an error where there is nothing.
    pub(super) fn read(&self, region: u32, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match (region, offset, out) {
            (BAR2, INPUT, [out]) => *out = self.input(),
            (CONFIG, offset, out) => {
                let rest = usize::try_from(offset).ok();
                let rest = rest.and_then(|start| self.config.get(start..));
                let bytes = rest.and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(bytes.ok_or_else(nothing)?);
            }
            _ => return Err(nothing()),
        }
        Ok(())
    }

    /// Writes `data` to a region; an error where there is nothing. Configuration space cannot be written.
    pub(super) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match (region, offset, data) {
            (BAR2, OUTPUT, &[value]) => self.output(value),
            _ => return Err(nothing()),
        }
        Ok(())
    }
}

fn nothing() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn input(registers: &Registers) -> u8 {
        let mut value = [0];
        registers.read(BAR2, INPUT, &mut value).unwrap();
        value[0]
    }

    #[test]
    fn a_pin_is_read_as_1_each_third_time() {
        let mut registers = Registers::new();
        assert_eq!(input(&registers), 0xff);

        registers.write(BAR2, OUTPUT, &[0x81]).unwrap();
        assert_eq!(input(&registers), 0x7e);
        registers.write(BAR2, OUTPUT, &[0x01]).unwrap();
        registers.write(BAR2, OUTPUT, &[0x01]).unwrap();
        assert_eq!(input(&registers), 0x7f);
    }

    #[test]
    fn ids_are_there_and_nothing_behind_the_end() {
        let mut registers = Registers::new();
        let mut value = [0; 4];

        registers.read(CONFIG, 0, &mut value).unwrap();
        assert_eq!(u32::from_le_bytes(value), VENDOR_AND_DEVICE);

        assert!(registers.read(CONFIG, 253, &mut value).is_err());
        assert!(registers.read(CONFIG, u64::MAX, &mut value).is_err());
        assert!(registers.read(BAR2, 0, &mut value).is_err());
        assert!(registers.write(0, 0, &value).is_err());
    }
}
