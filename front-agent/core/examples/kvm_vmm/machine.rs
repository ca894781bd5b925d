//! A machine of one vCPU, some memory and a host bridge.

use std::{
    error::Error,
    io::{self, Write as _},
    sync::Arc,
};

use kvm_bindings::{KVM_EXIT_IO_IN, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use potemkin_front_core::{FrontDevice, Outcome, block_on};
use potemkin_pci::Width;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use crate::{
    guest::{CONSOLE, ENTRY, NUMBER, image},
    pci::HostBridge,
};

/// Memory from address 0 on, in bytes; what is above it is the bus.
const RAM_BYTES: usize = 0x8_0000;

/// A machine that is set up and has not run yet. The fields' order is the order of their end: the vCPU before its memory.
pub(crate) struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
    bridge: HostBridge,
    device: Arc<FrontDevice>,
}

/// What an exit comes to.
enum Next {
    Run,
    Ports,
    Halted,
}

/// A port instruction, as `kvm_run` has it. `REP INS` gives several elements at once; `REP OUTS` one an exit, as KVM's emulator does
/// it (Linux, `arch/x86/kvm/emulate.c`: `em_out` passes a count of 1, `pio_in_emulated` reads ahead).
#[derive(Debug, Clone, Copy)]
struct PortAccess {
    input: bool,
    port: u16,
    width: Width,
    count: usize,
    /// From the beginning of `kvm_run`, in bytes.
    data_at: usize,
}

impl Machine {
    /// Loads the guest; gives the device all of its memory.
    pub(crate) fn new(device: Arc<FrontDevice>) -> Result<Self, Box<dyn Error>> {
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)])?;
        memory.write_slice(image(), GuestAddress(ENTRY))?;
        device.map_guest_memory(&memory)?;

        let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
        let vm = kvm.create_vm()?;
        add_memory(&vm, &memory)?;
        let vcpu = vm.create_vcpu(0)?;
        start_at_entry(&vcpu)?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _memory: memory,
            bridge: HostBridge::new(Arc::clone(&device)),
            device,
        })
    }

    /// Runs the guest until it halts. Gives the number of exits.
    pub(crate) fn run(&mut self) -> Result<u64, Box<dyn Error>> {
        let mut exits = 0;
        loop {
            exits += 1;
            match self.step()? {
                Next::Run => {}
                Next::Ports => self.ports()?,
                Next::Halted => return Ok(exits),
            }
        }
    }

    /// To the next exit. Memory accesses are answered here: the device decodes them, on this thread.
    fn step(&mut self) -> Result<Next, Box<dyn Error>> {
        match self.vcpu.run()? {
            VcpuExit::MmioRead(address, data) => {
                let outcome = block_on(self.device.memory_read(address, data));
                if outcome == Outcome::NotDecoded {
                    data.fill(0xff);
                }
                Ok(Next::Run)
            }
            VcpuExit::MmioWrite(address, data) => {
                block_on(self.device.memory_write(address, data));
                Ok(Next::Run)
            }
            VcpuExit::IoIn(..) | VcpuExit::IoOut(..) => Ok(Next::Ports),
            VcpuExit::Hlt => Ok(Next::Halted),
            other => Err(format!("the guest failed: {other:?}").into()),
        }
    }

    /// Answers a port instruction. One of several elements goes to the device as one access.
    fn ports(&mut self) -> Result<(), Box<dyn Error>> {
        let access = self.port_access()?;
        let bytes = access.width.bytes() * access.count;
        let mut data = vec![0; bytes];
        if access.input {
            self.port_read(access, &mut data);
            self.port_data(access.data_at, bytes).copy_from_slice(&data);
        } else {
            data.copy_from_slice(self.port_data(access.data_at, bytes));
            self.port_write(access, &data)?;
        }
        Ok(())
    }

    fn port_read(&self, access: PortAccess, data: &mut [u8]) {
        let (port, width) = (access.port, access.width);
        let mut elements = data.chunks_mut(width.bytes());
        if elements.all(|element| self.bridge.read(port, element)) {
            return;
        }
        let outcome = block_on(self.device.port_string_read(port, width, data));
        if outcome == Outcome::NotDecoded {
            data.fill(0xff);
        }
    }

    fn port_write(&mut self, access: PortAccess, data: &[u8]) -> io::Result<()> {
        let (port, width) = (access.port, access.width);
        if port == CONSOLE || port == NUMBER {
            return print(port, data);
        }
        let mut elements = data.chunks(width.bytes());
        if !elements.all(|element| self.bridge.write(port, element)) {
            block_on(self.device.port_string_write(port, width, data));
        }
        Ok(())
    }

    #[allow(unsafe_code, reason = "kvm_run is a union")]
    fn port_access(&mut self) -> Result<PortAccess, Box<dyn Error>> {
        let run = self.vcpu.get_kvm_run();
        // SAFETY: the exit was one of port I/O, so this is the part of the union that KVM has filled in.
        let io = unsafe { run.__bindgen_anon_1.io };
        let width = Width::from_bytes(io.size.into());
        Ok(PortAccess {
            input: u32::from(io.direction) == KVM_EXIT_IO_IN,
            port: io.port,
            width: width.ok_or("a port access of no width")?,
            count: usize::try_from(io.count)?,
            data_at: usize::try_from(io.data_offset)?,
        })
    }

    /// Where KVM has put the elements, or waits for them.
    #[allow(
        unsafe_code,
        reason = "the data stands behind kvm_run, in the same mapping"
    )]
    fn port_data(&mut self, at: usize, bytes: usize) -> &mut [u8] {
        let run: *mut u8 = std::ptr::from_mut(self.vcpu.get_kvm_run()).cast();
        // SAFETY: KVM gave offset, size and count for this exit, and keeps them within the mapping that `run` begins; nobody
        // else uses it while the vCPU does not run.
        unsafe { std::slice::from_raw_parts_mut(run.add(at), bytes) }
    }
}

#[allow(unsafe_code, reason = "the guest's memory is ours to promise")]
fn add_memory(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Box<dyn Error>> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: RAM_BYTES as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0))?.addr() as u64,
    };
    // SAFETY: the mapping has these bytes and lives as long as the machine.
    unsafe { vm.set_user_memory_region(region)? };
    Ok(())
}

/// Real mode, all segments at 0.
fn start_at_entry(vcpu: &VcpuFd) -> Result<(), Box<dyn Error>> {
    let mut segments = vcpu.get_sregs()?;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    vcpu.set_sregs(&segments)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = ENTRY;
    // Bit 1 is always set.
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    Ok(())
}

/// The console: text as it comes, numbers with the end of their line.
fn print(port: u16, data: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (port, data.try_into()) {
        (NUMBER, Ok(number)) => writeln!(out, "{:#010x}", u32::from_le_bytes(number))?,
        _ => out.write_all(data)?,
    }
    out.flush()
}
