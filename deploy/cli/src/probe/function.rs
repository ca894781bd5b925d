//! The function under probe, and what was done to it.

use potemkin_vfio_user::client::BurstWrite;
use potemkin_vfio_user::{Client, ClientError};
use serde::Serialize;

/// VFIO's region index of configuration space; BARs have their own numbers.
pub(crate) const CONFIG_REGION: u32 = 7;

/// What a guest can do to a function.
pub(crate) trait Function {
    /// Reads from a region.
    fn read(&mut self, region: u32, offset: u64, out: &mut [u8]) -> Result<(), ClientError>;
    /// Writes to a region and waits until it is done.
    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError>;
    /// Posts writes, many at a time.
    fn post(&mut self, writes: &[BurstWrite<'_>]) -> Result<(), ClientError>;
    /// The size of a region; 0: there is none.
    fn region_size(&mut self, region: u32) -> Result<u64, ClientError>;
}

impl Function for Client {
    fn read(&mut self, region: u32, offset: u64, out: &mut [u8]) -> Result<(), ClientError> {
        self.region_read(region, offset, out)
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        self.region_write(region, offset, data, false)
    }

    fn post(&mut self, writes: &[BurstWrite<'_>]) -> Result<(), ClientError> {
        self.write_burst(writes)
    }

    fn region_size(&mut self, region: u32) -> Result<u64, ClientError> {
        Ok(self.region_info(region)?.size)
    }
}

/// Accesses by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Accesses {
    pub(crate) config_reads: u64,
    pub(crate) config_writes: u64,
    pub(crate) bar_reads: u64,
    pub(crate) bar_writes: u64,
}

impl Accesses {
    pub(crate) fn total(&self) -> u64 {
        self.config_reads + self.config_writes + self.bar_reads + self.bar_writes
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            config_reads: self.config_reads - earlier.config_reads,
            config_writes: self.config_writes - earlier.config_writes,
            bar_reads: self.bar_reads - earlier.bar_reads,
            bar_writes: self.bar_writes - earlier.bar_writes,
        }
    }
}

/// A function with typed, counted accesses.
pub(crate) struct Guest<'a> {
    function: &'a mut dyn Function,
    pub(crate) accesses: Accesses,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(function: &'a mut dyn Function) -> Self {
        Self {
            function,
            accesses: Accesses::default(),
        }
    }

    pub(crate) fn region_size(&mut self, region: u32) -> Result<u64, ClientError> {
        self.function.region_size(region)
    }

    fn config<const N: usize>(&mut self, offset: u16) -> Result<[u8; N], ClientError> {
        let mut bytes = [0; N];
        self.accesses.config_reads += 1;
        self.function
            .read(CONFIG_REGION, offset.into(), &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn config_u8(&mut self, offset: u16) -> Result<u8, ClientError> {
        self.config(offset).map(u8::from_le_bytes)
    }

    pub(crate) fn config_u16(&mut self, offset: u16) -> Result<u16, ClientError> {
        self.config(offset).map(u16::from_le_bytes)
    }

    pub(crate) fn config_u32(&mut self, offset: u16) -> Result<u32, ClientError> {
        self.config(offset).map(u32::from_le_bytes)
    }

    fn set_config(&mut self, offset: u16, bytes: &[u8]) -> Result<(), ClientError> {
        self.accesses.config_writes += 1;
        self.function.write(CONFIG_REGION, offset.into(), bytes)
    }

    pub(crate) fn set_config_u16(&mut self, offset: u16, value: u16) -> Result<(), ClientError> {
        self.set_config(offset, &value.to_le_bytes())
    }

    pub(crate) fn set_config_u32(&mut self, offset: u16, value: u32) -> Result<(), ClientError> {
        self.set_config(offset, &value.to_le_bytes())
    }

    /// Reads up to 8 bytes of a BAR.
    pub(crate) fn bar(&mut self, bar: u8, offset: u64, width: usize) -> Result<u64, ClientError> {
        let mut bytes = [0; 8];
        self.accesses.bar_reads += 1;
        self.function
            .read(bar.into(), offset, &mut bytes[..width.min(8)])?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn bar_u32(&mut self, bar: u8, offset: u64) -> Result<u32, ClientError> {
        let value = self.bar(bar, offset, 4)?;
        Ok(u32::try_from(value).expect("four bytes are a u32"))
    }

    /// Posts one write, as a VMM does for a guest's store to a memory BAR.
    pub(crate) fn post_u32(&mut self, bar: u8, offset: u64, value: u32) -> Result<(), ClientError> {
        self.post_all_u32(bar, offset, &[value])
    }

    /// Posts writes to the same register, as fast as the socket takes them.
    pub(crate) fn post_all_u32(
        &mut self,
        bar: u8,
        offset: u64,
        values: &[u32],
    ) -> Result<(), ClientError> {
        self.accesses.bar_writes += values.len() as u64;
        let bytes: Vec<[u8; 4]> = values.iter().map(|value| value.to_le_bytes()).collect();
        let writes: Vec<BurstWrite<'_>> = bytes
            .iter()
            .map(|bytes| (bar.into(), offset, bytes.as_slice()))
            .collect();
        self.function.post(&writes)
    }
}
