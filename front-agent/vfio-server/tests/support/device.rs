//! A function whose registers are memory, with a few that do something.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use potemkin_pci::{BarIndex, Space};
use potemkin_vfio_server::{ClientControl, DmaWindow, Function, FunctionInfo, Region};
use potemkin_vfio_user::Errno;

pub const BAR0_SIZE: u64 = 4096;
pub const BAR2_SIZE: u64 = 2 << 20;
pub const BAR4_SIZE: u64 = 64;
pub const ROM_SIZE: u64 = 2048;
pub const ROM_BYTE: u8 = 0x5a;
pub const CONFIG_SIZE: u16 = 4096;
pub const MSI_VECTORS: u16 = 4;
pub const MSIX_VECTORS: u16 = 40;

/// Registers of BAR 0 that do something; the rest of it is memory. All have 4 bytes unless said otherwise.
pub mod reg {
    /// Write: fires that MSI-X vector. Read at this + 4: the pending bits of the first 32.
    pub const MSIX: u64 = 0xf00;
    pub const MSIX_PENDING: u64 = 0xf04;
    /// Write: fires that MSI vector.
    pub const MSI: u64 = 0xf08;
    /// Write: sets the level of INTx.
    pub const INTX: u64 = 0xf0c;
    /// Write 0: asks for unplug. Write 1: reports an error.
    pub const EVENT: u64 = 0xf10;
    /// 8 bytes: guest address of a transfer.
    pub const DMA_ADDRESS: u64 = 0xf20;
    /// Bytes of a transfer; its other end is the start of BAR 2.
    pub const DMA_LEN: u64 = 0xf28;
    /// Write 1: guest to BAR 2. Write 2: BAR 2 to guest. Done, it reads 0x100, or 0x200 for a failure, and MSI-X
    /// vector 0 fires.
    pub const DMA_GO: u64 = 0xf2c;
    /// Refuses every further DMA window while not 0.
    pub const REFUSE_WINDOWS: u64 = 0xf30;
}

/// What the function has heard, for tests on other threads.
#[derive(Default)]
pub struct Seen {
    pub posted: AtomicU64,
    pub waited: AtomicU64,
    pub ends_of_input: AtomicU64,
    pub resets: AtomicU64,
    pub connects: AtomicU64,
    pub disconnects: AtomicU64,
    pub windows: AtomicU64,
}

impl Seen {
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

pub struct Device {
    this: Weak<Self>,
    bar0: RefCell<Vec<u8>>,
    bar2: RefCell<Vec<u8>>,
    bar4: RefCell<Vec<u8>>,
    config: RefCell<Vec<u8>>,
    windows: RefCell<Vec<DmaWindow>>,
    control: RefCell<Option<ClientControl>>,
    seen: Arc<Seen>,
    inputs: Cell<u64>,
}

impl Device {
    pub fn new(seen: Arc<Seen>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            bar0: RefCell::new(memory(BAR0_SIZE)),
            bar2: RefCell::new(memory(BAR2_SIZE)),
            bar4: RefCell::new(memory(BAR4_SIZE)),
            config: RefCell::new(memory(CONFIG_SIZE.into())),
            windows: RefCell::default(),
            control: RefCell::default(),
            seen,
            inputs: Cell::new(0),
        })
    }

    fn bar(&self, space: Space) -> &RefCell<Vec<u8>> {
        match space {
            Space::Bar(BarIndex::B0) => &self.bar0,
            Space::Bar(BarIndex::B2) => &self.bar2,
            Space::Bar(BarIndex::B4) => &self.bar4,
            other => panic!("the server has let an access to {other} pass"),
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let at = usize::try_from(offset).unwrap();
        u32::from_ne_bytes(self.bar0.borrow()[at..at + 4].try_into().unwrap())
    }

    fn set_register(&self, offset: u64, value: u32) {
        let at = usize::try_from(offset).unwrap();
        self.bar0.borrow_mut()[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn control(&self) -> ClientControl {
        self.control
            .borrow()
            .clone()
            .expect("accesses come only from a client")
    }

    fn effect(&self, offset: u64) {
        let value = self.register(offset);
        let control = self.control();
        match offset {
            reg::MSIX => drop(control.trigger_msix(vector(value))),
            reg::MSI => drop(control.trigger_msi(vector(value))),
            reg::INTX => control.set_intx(value != 0),
            reg::EVENT if value == 0 => drop(control.request_unplug()),
            reg::EVENT => drop(control.report_fatal_error()),
            reg::DMA_GO => {
                let this = self.this.upgrade().unwrap();
                tokio::task::spawn_local(async move { this.transfer(&control, value).await });
            }
            _ => {}
        }
    }

    async fn transfer(&self, control: &ClientControl, direction: u32) {
        let low = u64::from(self.register(reg::DMA_ADDRESS));
        let address = low | u64::from(self.register(reg::DMA_ADDRESS + 4)) << 32;
        let len = usize::try_from(self.register(reg::DMA_LEN)).unwrap();
        let done = match direction {
            1 => self.read_guest(control, address, len).await,
            _ => self.write_guest(control, address, len).await,
        };
        self.set_register(reg::DMA_GO, if done { 0x100 } else { 0x200 });
        control.trigger_msix(0);
    }

    async fn read_guest(&self, control: &ClientControl, address: u64, len: usize) -> bool {
        let mut data = vec![0; len];
        let done = match self.file(address, len) {
            Some((file, offset)) => file.read_exact_at(&mut data, offset).is_ok(),
            None => control.dma_read(address, &mut data, || true).await.is_ok(),
        };
        self.bar2.borrow_mut()[..len].copy_from_slice(&data);
        done
    }

    async fn write_guest(&self, control: &ClientControl, address: u64, len: usize) -> bool {
        let data = self.bar2.borrow()[..len].to_vec();
        match self.file(address, len) {
            Some((file, offset)) => file.write_all_at(&data, offset).is_ok(),
            None => control.dma_write(address, &data, || true).await.is_ok(),
        }
    }

    /// The file behind a guest address, and where in it.
    fn file(&self, address: u64, len: usize) -> Option<(File, u64)> {
        let windows = self.windows.borrow();
        let end = address + len as u64;
        let window = windows
            .iter()
            .find(|window| window.address <= address && end <= window.address + window.size)?;
        let (fd, offset) = window.file.as_ref()?;
        Some((fd.try_clone().unwrap(), offset + (address - window.address)))
    }

    fn pending(&self) -> u32 {
        let control = self.control();
        (0..32).fold(0, |bits, vector| {
            bits | u32::from(control.msix_pending(vector)) << vector
        })
    }
}

fn memory(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size).unwrap()]
}

fn vector(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn place(offset: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + len
}

impl Function for Device {
    fn info(&self) -> FunctionInfo {
        let mut bars = [Region::NONE; BarIndex::COUNT];
        bars[0] = Region::read_write(BAR0_SIZE);
        bars[2] = Region::read_write(BAR2_SIZE);
        bars[4] = Region::read_write(BAR4_SIZE);
        FunctionInfo {
            bars,
            rom: Region::read_only(ROM_SIZE),
            config_size: CONFIG_SIZE,
            intx: true,
            msi_vectors: MSI_VECTORS,
            msix_vectors: MSIX_VECTORS,
        }
    }

    async fn config_read(&self, offset: u16, out: &mut [u8]) {
        let place = place(offset.into(), out.len());
        out.copy_from_slice(&self.config.borrow()[place]);
    }

    async fn config_write(&self, offset: u16, data: &[u8], _may_post: bool) {
        count(&self.seen.waited);
        let place = place(offset.into(), data.len());
        self.config.borrow_mut()[place].copy_from_slice(data);
    }

    async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) {
        if space == Space::Rom {
            let _ = place(offset, out.len());
            assert!(offset + out.len() as u64 <= ROM_SIZE);
            out.fill(ROM_BYTE);
            return;
        }
        if (space, offset) == (Space::Bar(BarIndex::B0), reg::MSIX_PENDING) {
            self.set_register(reg::MSIX_PENDING, self.pending());
        }
        let place = place(offset, out.len());
        out.copy_from_slice(&self.bar(space).borrow()[place]);
    }

    async fn region_write(&self, space: Space, offset: u64, data: &[u8], may_post: bool) {
        count(if may_post {
            &self.seen.posted
        } else {
            &self.seen.waited
        });
        let place = place(offset, data.len());
        self.bar(space).borrow_mut()[place].copy_from_slice(data);
        if space == Space::Bar(BarIndex::B0) && data.len() == 4 {
            self.effect(offset);
        }
    }

    fn end_of_input(&self) {
        count(&self.seen.ends_of_input);
        self.inputs.set(self.inputs.get() + 1);
    }

    fn reset(&self) {
        count(&self.seen.resets);
        self.bar0.borrow_mut().fill(0);
    }

    fn dma_map(&self, window: DmaWindow) -> Result<(), Errno> {
        if self.register(reg::REFUSE_WINDOWS) != 0 {
            return Err(Errno::NOMEM);
        }
        count(&self.seen.windows);
        self.windows.borrow_mut().push(window);
        Ok(())
    }

    fn dma_unmap(&self, address: u64, size: u64) {
        self.seen.windows.fetch_sub(1, Ordering::SeqCst);
        let mut windows = self.windows.borrow_mut();
        let at = windows
            .iter()
            .position(|window| (window.address, window.size) == (address, size));
        windows.swap_remove(at.expect("only what was mapped is unmapped"));
    }

    fn connected(&self, control: ClientControl) {
        assert!(self.windows.borrow().is_empty());
        assert!(control.is_connected());
        count(&self.seen.connects);
        *self.control.borrow_mut() = Some(control);
    }

    fn disconnected(&self) {
        assert!(self.windows.borrow().is_empty());
        // Kept: a stale handle must be harmless.
        assert!(!self.control().is_connected());
        count(&self.seen.disconnects);
    }
}
