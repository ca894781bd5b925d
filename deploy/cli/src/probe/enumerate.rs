//! What a kernel does with a function that it has found: looks at all of it, places its BARs and switches it on.

use potemkin_pci::registers::{
    CACHE_LINE_SIZE, COMMAND, COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY, CONFIG_SIZE,
    EXTENDED_CONFIG_SIZE, HEADER_TYPE, INTERRUPT_LINE, INTERRUPT_PIN, LATENCY_TIMER, REVISION_ID,
    SUBSYSTEM_VENDOR_ID, VENDOR_ID,
};
use potemkin_vfio_user::ClientError;
use serde::Serialize;

use super::ProbeError;
use super::bars::{self, Kind, SizedBar, at};
use super::capabilities::{self, Capability};
use super::checks::Checks;
use super::function::{CONFIG_REGION, Guest};

/// What a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FunctionReport {
    pub(crate) vendor_id: u16,
    pub(crate) device_id: u16,
    pub(crate) subsystem_vendor_id: u16,
    pub(crate) subsystem_id: u16,
    pub(crate) revision: u8,
    /// Base class, sub-class, programming interface.
    pub(crate) class: u32,
    pub(crate) header_type: u8,
    /// 0: none, 1 to 4: A to D.
    pub(crate) interrupt_pin: u8,
    /// Bytes.
    pub(crate) config_size: u64,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) bars: Vec<SizedBar>,
    /// Bytes; 0: none.
    pub(crate) rom_size: u64,
    /// The command register as the probe found it.
    #[serde(skip)]
    original_command: u16,
}

impl FunctionReport {
    pub(crate) fn is_edu(&self) -> bool {
        (self.vendor_id, self.device_id) == (0x1234, 0x11e8)
    }

    pub(crate) fn bar(&self, index: u8) -> Option<&SizedBar> {
        self.bars.iter().find(|bar| bar.index == index)
    }
}

/// Enumerates the function and leaves it with memory (and I/O, if it has any) decoded and bus mastering on.
pub(crate) fn enumerate(
    guest: &mut Guest<'_>,
    checks: &mut Checks,
) -> Result<FunctionReport, ProbeError> {
    let config_size = guest.region_size(CONFIG_REGION)?;
    let id = guest.config_u32(at(VENDOR_ID))?;
    if id == u32::MAX || id & 0xffff == 0 {
        return Err(ProbeError::Absent);
    }
    let mut function = read_header(guest, id, config_size)?;
    function.capabilities = capabilities::walk(guest)?;
    if config_size >= EXTENDED_CONFIG_SIZE as u64 {
        function
            .capabilities
            .extend(capabilities::walk_extended(guest)?);
    }
    find_bars(guest, &mut function, checks)?;
    place_bars(guest, &mut function, checks)?;
    switch_on(guest, &function, checks)?;
    Ok(function)
}

fn read_header(
    guest: &mut Guest<'_>,
    id: u32,
    config_size: u64,
) -> Result<FunctionReport, ClientError> {
    let header_type = guest.config_u8(at(HEADER_TYPE))?;
    let class = guest.config_u32(at(REVISION_ID))?;
    guest.config_u8(at(CACHE_LINE_SIZE))?;
    guest.config_u8(at(LATENCY_TIMER))?;
    let subsystem = guest.config_u32(at(SUBSYSTEM_VENDOR_ID))?;
    guest.config_u8(at(INTERRUPT_LINE))?;
    let (vendor_id, device_id) = halves(id);
    let (subsystem_vendor_id, subsystem_id) = halves(subsystem);
    Ok(FunctionReport {
        vendor_id,
        device_id,
        subsystem_vendor_id,
        subsystem_id,
        revision: class.to_le_bytes()[0],
        class: class >> 8,
        header_type,
        interrupt_pin: guest.config_u8(at(INTERRUPT_PIN))?,
        config_size,
        capabilities: Vec::new(),
        bars: Vec::new(),
        rom_size: 0,
        original_command: guest.config_u16(at(COMMAND))?,
    })
}

/// Sizing must leave no trace in configuration space, and agree with what the VMM is told.
fn find_bars(
    guest: &mut Guest<'_>,
    function: &mut FunctionReport,
    checks: &mut Checks,
) -> Result<(), ClientError> {
    let before = dump(guest)?;
    (function.bars, function.rom_size) = bars::size_all(guest)?;
    let after = dump(guest)?;
    checks.add(
        "BAR sizing leaves configuration space as it was",
        before == after,
        || "it differs".to_owned(),
    );
    for bar in &function.bars {
        let region = guest.region_size(bar.index.into())?;
        checks.add(
            &format!("BAR {} has the size of its region", bar.index),
            region == bar.size,
            || format!("sizing gives {} bytes, the region has {region}", bar.size),
        );
    }
    Ok(())
}

/// All of conventional configuration space, as `lspci -xxx` reads it.
fn dump(guest: &mut Guest<'_>) -> Result<Vec<u32>, ClientError> {
    (0..at(CONFIG_SIZE))
        .step_by(4)
        .map(|offset| guest.config_u32(offset))
        .collect()
}

fn place_bars(
    guest: &mut Guest<'_>,
    function: &mut FunctionReport,
    checks: &mut Checks,
) -> Result<(), ClientError> {
    bars::choose_addresses(&mut function.bars);
    for bar in &function.bars {
        let Some(address) = bar.address else {
            continue;
        };
        let held = bars::assign(guest, bar, address)?;
        checks.add(
            &format!("BAR {} takes an address", bar.index),
            held == address,
            || format!("{address:#x} was written, {held:#x} is read"),
        );
    }
    Ok(())
}

fn switch_on(
    guest: &mut Guest<'_>,
    function: &FunctionReport,
    checks: &mut Checks,
) -> Result<(), ClientError> {
    let has_io = function.bars.iter().any(|bar| bar.kind == Kind::Io);
    let has_memory = function.bars.iter().any(|bar| bar.kind != Kind::Io);
    let mut command = COMMAND_BUS_MASTER;
    command |= if has_io { COMMAND_IO } else { 0 };
    command |= if has_memory { COMMAND_MEMORY } else { 0 };
    guest.set_config_u16(at(COMMAND), function.original_command | command)?;
    let held = guest.config_u16(at(COMMAND))?;
    checks.add(
        "decoding and bus mastering switch on",
        held & command == command,
        || format!("command register {held:#06x}, wanted {command:#06x}"),
    );
    Ok(())
}

/// Leaves the function as it was found: the command register first, so that nothing decodes while BARs move.
pub(crate) fn restore(guest: &mut Guest<'_>, function: &FunctionReport) -> Result<(), ClientError> {
    guest.set_config_u16(at(COMMAND), function.original_command)?;
    for bar in &function.bars {
        bars::assign(guest, bar, bar.original)?;
    }
    Ok(())
}

/// Low half, high half.
#[allow(clippy::cast_possible_truncation)] // Halves, on purpose.
fn halves(value: u32) -> (u16, u16) {
    (value as u16, (value >> 16) as u16)
}
