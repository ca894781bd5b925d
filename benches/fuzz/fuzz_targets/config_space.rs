//! A guest's reads and writes of configuration space, on functions that a host may describe.
//!
//! Whatever the descriptor: it is refused, or nothing that a guest does panics; read-only bits stay; what decodes lies inside of its
//! space and at its address; addresses are multiples of sizes; a reset is a power-on.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use potemkin_pci::{
    Bar, BarIndex, Capability, ConfigSpace, Descriptor, DescriptorBuilder, MsixPlace, MsixTable,
    Space,
    capability::{capabilities, id},
    decode_memory, decode_port,
};
use potemkin_proto::{descriptor, v1::DeviceDescriptor};
use prost::Message;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    described: Described<'a>,
    steps: Vec<Step>,
}

/// A host's descriptor, encoded.
#[derive(Debug, Arbitrary)]
enum Described<'a> {
    /// One of ours.
    Ours,
    /// The same with some bytes changed: most of these are descriptors.
    Patched(Vec<(u16, u8)>),
    Bytes(&'a [u8]),
}

impl Described<'_> {
    fn get(&self) -> Option<Descriptor> {
        let decode = |bytes: &[u8]| descriptor::decode(DeviceDescriptor::decode(bytes).ok()?).ok();
        match self {
            Self::Ours => Some(ours()),
            Self::Bytes(bytes) => decode(bytes),
            Self::Patched(patches) => {
                let mut bytes = DeviceDescriptor::from(&ours()).encode_to_vec();
                for &(at, byte) in patches {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] = byte;
                }
                decode(&bytes)
            }
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Step {
    Write {
        offset: u16,
        data: Few,
    },
    /// At a register that matters.
    Program {
        register: u8,
        value: u32,
    },
    Read {
        offset: u16,
        length: u8,
    },
    Decode {
        address: u64,
        length: u8,
        delta: i8,
    },
    Port {
        port: u16,
        length: u8,
    },
    InterruptStatus(bool),
    Msi(u8),
    MsixAccess {
        offset: u16,
        data: Few,
        write: bool,
    },
    MsixSignal(u16),
    Reset,
}

#[derive(Debug, Arbitrary)]
struct Few {
    bytes: [u8; 8],
    length: u8,
}

impl Few {
    fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length % 9)]
    }
}

/// Something of everything.
fn ours() -> Descriptor {
    DescriptorBuilder::new(0x1234, 0x5678)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .bar(BarIndex::B1, Bar::io(16))
        .bar(BarIndex::B2, Bar::memory64(1 << 40).prefetchable())
        .bar(BarIndex::B4, Bar::memory_below_1m(4096))
        .rom(vec![0x55; 4096])
        .capability(Capability::power_management())
        .capability(Capability::msi(4, true).expect("four is a power of two"))
        .capability(Capability::pci_express_endpoint(true))
        .capability(
            Capability::msix(65, (BarIndex::B0, 0), (BarIndex::B0, 0x800)).expect("they fit"),
        )
        .extended_config()
        .intx_pin(1)
        .build()
        .expect("a valid descriptor")
}

fuzz_target!(|input: Input<'_>| {
    let Some(descriptor) = input.described.get() else {
        return;
    };
    let mut config = ConfigSpace::new(&descriptor);
    let mut msix = MsixTable::new(&descriptor);
    for step in &input.steps {
        take(&mut config, step);
        if let Some(table) = &mut msix {
            take_msix(table, config.msix_open(), step);
        }
        check(&config);
    }
    config.reset();
    let (mut after, mut fresh) = ([0; 4096], [0; 4096]);
    let _ = config.read(0, &mut after);
    let _ = ConfigSpace::new(&descriptor).read(0, &mut fresh);
    assert_eq!(after, fresh, "a reset is a power-on");
});

fn take(config: &mut ConfigSpace, step: &Step) {
    match *step {
        Step::Write { offset, ref data } => {
            let _ = config.write(offset, data.get());
        }
        Step::Program { register, value } => {
            const REGISTERS: [u16; 8] = [0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30];
            let register = REGISTERS[usize::from(register) % REGISTERS.len()];
            let _ = config.write(register, &value.to_le_bytes());
        }
        Step::Read { offset, length } => {
            let mut out = vec![0; length.into()];
            let volatile = config.read(offset, &mut out);
            assert!(volatile.range().end <= out.len());
            let host = out.clone();
            config.merge_volatile(offset, &mut out, &host);
            assert_eq!(out, host);
        }
        Step::Decode {
            address,
            length,
            delta,
        } => {
            found(config, address, length.into());
            let bars: Vec<_> = config.bar_addresses().map(|(_, _, base)| base).collect();
            for base in bars {
                found(
                    config,
                    base.wrapping_add_signed(delta.into()),
                    length.into(),
                );
            }
        }
        Step::Port { port, length } => {
            if let Some((space, offset)) = decode_port(config, port, length.into()) {
                assert!(config.io_enabled());
                inside(config, space, offset, length.into());
            }
        }
        Step::InterruptStatus(pending) => config.set_interrupt_status(pending),
        Step::Msi(vector) => {
            let _ = config.signal_msi(vector.into());
            // Each time one less is due.
            assert!((0..=32).any(|_| config.next_due_msi().is_none()));
        }
        Step::MsixAccess { .. } | Step::MsixSignal(_) => {}
        Step::Reset => config.reset(),
    }
}

fn take_msix(table: &mut MsixTable, open: bool, step: &Step) {
    match *step {
        Step::MsixAccess {
            offset,
            ref data,
            write,
        } => {
            let place = MsixPlace::Table(offset.into());
            if write {
                table.write(place, data.get());
            } else {
                let mut out = data.bytes;
                table.read(place, &mut out);
                table.read(MsixPlace::Pending(offset.into()), &mut out);
            }
        }
        Step::MsixSignal(vector) => {
            let sent = table.signal(vector, open).is_some();
            assert!(open || !sent);
        }
        _ => {}
    }
    let due = (0..=table.vectors()).any(|_| table.next_due(open).is_none());
    assert!(due, "each vector is due once");
}

fn found(config: &ConfigSpace, address: u64, length: u64) {
    if let Some((space, offset)) = decode_memory(config, address, length) {
        assert!(config.memory_enabled());
        inside(config, space, offset, length);
        let base = match space {
            Space::Bar(index) => config.bar_address(index),
            _ => config.rom_address(),
        };
        assert_eq!(base.map(|base| base + offset), Some(address));
    }
}

fn inside(config: &ConfigSpace, space: Space, offset: u64, length: u64) {
    let size = config.descriptor().space_size(space);
    assert!(offset < size && length <= size - offset);
}

fn check(config: &ConfigSpace) {
    let descriptor = config.descriptor();
    for (_, bar, base) in config.bar_addresses() {
        assert!(base.is_multiple_of(bar.size));
        assert!(base.checked_add(bar.size - 1).is_some());
    }
    let mapped: Vec<_> = config.mappings().collect();
    for (index, one) in mapped.iter().enumerate() {
        assert!(mapped[..index].iter().all(|other| !other.overlaps(one)));
        assert_eq!(one.size, descriptor.space_size(one.space));
        assert_eq!(one.offset_of(one.address), Some(0));
    }
    let image = descriptor.config_image();
    let mut now = vec![0; image.len()];
    let _ = config.read(0, &mut now);
    // Its pending bits are the function's to change.
    let mut msi = capabilities(image).filter_map(Result::ok);
    let msi = msi.find(|found| found.id == id::MSI);
    let pending = msi.map_or(0..0, |msi| msi.offset + 0x10..msi.offset + 0x18);
    let classes = descriptor
        .writable()
        .iter()
        .zip(descriptor.write_one_to_clear());
    for (at, (writable, clears)) in classes.enumerate() {
        // BARs and the ROM register have bits of their own, and the status register shows INTx.
        if !(0x10..0x28).contains(&at)
            && !(0x30..0x34).contains(&at)
            && at != 6
            && !pending.contains(&at)
        {
            let fixed = !(writable | clears);
            assert_eq!(now[at] & fixed, image[at] & fixed, "at {at:#x}");
        }
    }
}
