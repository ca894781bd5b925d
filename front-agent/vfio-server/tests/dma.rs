//! DMA windows, with a descriptor and by message.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use potemkin_vfio_server::{MAX_DMA_FILES, MAX_DMA_WINDOWS};
use potemkin_vfio_user::message::{
    DmaAccess, DmaMap, DmaUnmap, IrqAction, IrqData, IrqIndex, Protection, RegionAccess, SetIrqs,
};
use potemkin_vfio_user::{Client, ClientError, Command, Errno, GuestMemory, Header};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use support::{Running, Seen, reg};

const RW: Protection = Protection::READ_WRITE;
const PAGE: u64 = 4096;

fn memory(pages: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(pages * PAGE).unwrap();
    file
}

fn errno(result: Result<(), ClientError>) -> Errno {
    match result {
        Err(ClientError::Refused { errno, .. }) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

fn window(address: u64, size: u64) -> DmaUnmap {
    DmaUnmap::Range { address, size }
}

/// Connects MSI-X vector 0, which fires when a transfer is done.
fn done_eventfd(client: &mut Client) -> OwnedFd {
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let connect = SetIrqs {
        index: IrqIndex::Msix,
        start: 0,
        count: 1,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    client.set_irqs(&connect, &[eventfd.as_fd()]).unwrap();
    eventfd
}

fn start(client: &mut Client, direction: u32, address: u64, len: u32) {
    client
        .region_write(0, reg::DMA_ADDRESS, &address.to_ne_bytes(), false)
        .unwrap();
    client
        .region_write(0, reg::DMA_LEN, &len.to_ne_bytes(), false)
        .unwrap();
    client
        .region_write(0, reg::DMA_GO, &direction.to_ne_bytes(), false)
        .unwrap();
}

fn result(client: &mut Client) -> u32 {
    let mut result = [0; 4];
    client.region_read(0, reg::DMA_GO, &mut result).unwrap();
    u32::from_ne_bytes(result)
}

#[test]
fn the_device_reads_and_writes_the_file_of_a_window_at_its_offset() {
    let server = Running::start();
    let mut client = server.client();
    let memory = memory(4);
    memory
        .write_all_at(b"from the guest", 2 * PAGE + 8)
        .unwrap();
    client
        .dma_map(0x10_0000, 2 * PAGE, RW, Some((memory.as_fd(), 2 * PAGE)))
        .unwrap();
    let done = done_eventfd(&mut client);

    start(&mut client, 1, 0x10_0008, 14);
    rustix::io::read(&done, &mut [0; 8]).unwrap();
    let mut back = [0; 14];
    client.region_read(2, 0, &mut back).unwrap();
    assert_eq!(
        (&back[..], result(&mut client)),
        (&b"from the guest"[..], 0x100)
    );

    start(&mut client, 2, 0x10_1000, 14);
    rustix::io::read(&done, &mut [0; 8]).unwrap();
    memory.read_exact_at(&mut back, 3 * PAGE).unwrap();
    assert_eq!(&back, b"from the guest");
}

#[test]
fn overlapping_windows_are_refused() {
    let server = Running::start();
    let mut client = server.client();
    client.dma_map(4 * PAGE, 4 * PAGE, RW, None).unwrap();

    for (address, size) in [(4, 4), (3, 2), (7, 1), (5, 1), (0, 16), (0, 5), (7, 9)] {
        let result = client.dma_map(address * PAGE, size * PAGE, RW, None);
        assert_eq!(errno(result), Errno::EXIST, "{size} pages at {address}");
    }
    client.dma_map(3 * PAGE, PAGE, RW, None).unwrap();
    client.dma_map(8 * PAGE, PAGE, RW, None).unwrap();
    assert_eq!(Seen::get(&server.seen.windows), 3);
}

#[test]
fn a_range_withdraws_the_windows_in_it_and_cuts_none() {
    let server = Running::start();
    let mut client = server.client();
    client.dma_map(4 * PAGE, 4 * PAGE, RW, None).unwrap();
    client.dma_map(16 * PAGE, PAGE, RW, None).unwrap();
    client.dma_map(17 * PAGE, PAGE, RW, None).unwrap();

    for (address, size) in [(4, 3), (5, 3), (3, 4), (0, 5), (7, 20)] {
        let cut = client.dma_unmap(window(address * PAGE, size * PAGE));
        assert_eq!(errno(cut), Errno::INVAL, "{size} pages at {address}");
    }
    assert_eq!(Seen::get(&server.seen.windows), 3, "nothing was taken out");
    client.dma_unmap(window(8 * PAGE, 8 * PAGE)).unwrap();
    assert_eq!(Seen::get(&server.seen.windows), 3, "nothing was there");

    client.dma_unmap(window(16 * PAGE, 8 * PAGE)).unwrap();
    assert_eq!(Seen::get(&server.seen.windows), 1);
    // As QEMU does when a guest's IOMMU is turned off: up to the end of the address space.
    client.dma_unmap(window(0, 1 << 63)).unwrap();
    client.dma_unmap(window(1 << 63, 1 << 63)).unwrap();

    assert_eq!(Seen::get(&server.seen.windows), 0);
    client.dma_map(5 * PAGE, PAGE, RW, None).unwrap();
}

#[test]
fn all_windows_are_withdrawn_at_once() {
    let server = Running::start();
    let mut client = server.client();
    for page in 0..10 {
        client.dma_map(page * PAGE, PAGE, RW, None).unwrap();
    }

    client.dma_unmap(DmaUnmap::All).unwrap();

    assert_eq!(Seen::get(&server.seen.windows), 0);
    client.dma_map(0, 10 * PAGE, RW, None).unwrap();
}

#[test]
fn windows_of_a_client_that_left_are_withdrawn() {
    let server = Running::start();
    let mut client = server.client();
    let memory = memory(1);
    client
        .dma_map(0, PAGE, RW, Some((memory.as_fd(), 0)))
        .unwrap();
    drop(client);

    let mut next = server.client();

    assert_eq!(Seen::get(&server.seen.windows), 0);
    next.dma_map(0, PAGE, RW, None).unwrap();
}

#[test]
fn a_file_that_ends_before_its_window_is_refused() {
    let server = Running::start();
    let mut client = server.client();
    let memory = memory(4);

    for (offset, size) in [
        (0, 5 * PAGE),
        (4 * PAGE, 1),
        (PAGE, 4 * PAGE),
        (1 << 40, PAGE),
    ] {
        let result = client.dma_map(0, size, RW, Some((memory.as_fd(), offset)));
        assert_eq!(errno(result), Errno::INVAL, "{size} bytes at {offset}");
    }
    client
        .dma_map(0, 4 * PAGE, RW, Some((memory.as_fd(), 0)))
        .unwrap();
}

#[test]
fn a_descriptor_that_is_no_file_is_refused() {
    let server = Running::start();
    let mut client = server.client();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let zero = File::open("/dev/zero").unwrap();

    for fd in [pipe.as_fd(), eventfd.as_fd(), zero.as_fd()] {
        assert_eq!(
            errno(client.dma_map(0, PAGE, Protection::READ, Some((fd, 0)))),
            Errno::INVAL
        );
    }
}

#[test]
fn a_file_opened_for_appending_is_refused() {
    let server = Running::start();
    let mut client = server.client();
    let file = memory(1);
    let flags = fcntl_getfl(&file).unwrap();
    fcntl_setfl(&file, flags | OFlags::APPEND).unwrap();

    let refused = client.dma_map(0, PAGE, RW, Some((file.as_fd(), 0)));

    assert_eq!(errno(refused), Errno::INVAL);
}

#[test]
fn a_file_opened_for_less_than_the_window_allows_is_refused() {
    let server = Running::start();
    let mut client = server.client();
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(PAGE).unwrap();
    let read_only = File::open(named.path()).unwrap();
    let write_only = File::options().write(true).open(named.path()).unwrap();

    assert_eq!(
        errno(client.dma_map(0, PAGE, RW, Some((read_only.as_fd(), 0)))),
        Errno::ACCESS
    );
    assert_eq!(
        errno(client.dma_map(0, PAGE, RW, Some((write_only.as_fd(), 0)))),
        Errno::ACCESS
    );
    client
        .dma_map(0, PAGE, Protection::READ, Some((read_only.as_fd(), 0)))
        .unwrap();
}

#[test]
fn ranges_that_overflow_are_refused() {
    let server = Running::start();
    let mut client = server.client();

    assert_eq!(
        errno(client.dma_map(u64::MAX - 100, PAGE, RW, None)),
        Errno::INVAL
    );
    assert_eq!(errno(client.dma_map(0, 0, RW, None)), Errno::INVAL);
    assert_eq!(errno(client.dma_unmap(window(u64::MAX, 2))), Errno::INVAL);
}

#[test]
fn more_windows_than_the_bound_are_refused() {
    let server = Running::start();
    let mut client = server.client();
    let pages = u64::try_from(MAX_DMA_WINDOWS).unwrap();

    for page in 0..pages {
        client.dma_map(page * PAGE, PAGE, RW, None).unwrap();
    }
    let one_more = client.dma_map(pages * PAGE, PAGE, RW, None);
    assert_eq!(errno(one_more), Errno::NOSPC);

    client.dma_unmap(window(0, PAGE)).unwrap();
    client.dma_map(pages * PAGE, PAGE, RW, None).unwrap();
}

#[test]
fn windows_in_more_files_than_the_bound_are_refused() {
    let server = Running::start();
    let mut client = server.client();
    let files = u64::try_from(MAX_DMA_FILES).unwrap();
    let one = memory(1);
    let mut map = |page, file: &File| {
        let file = Some((file.as_fd(), 0));
        client.dma_map(page * PAGE, PAGE, RW, file)
    };

    // As behind a guest's IOMMU: a window a page, all of one file.
    for page in 0..2 * files {
        map(page, &one).unwrap();
    }
    for page in 2 * files..3 * files - 1 {
        map(page, &memory(1)).unwrap();
    }
    assert_eq!(errno(map(3 * files, &memory(1))), Errno::NOSPC);
    map(3 * files, &one).unwrap();

    client.dma_unmap(window(2 * files * PAGE, PAGE)).unwrap();
    let file = memory(1);
    client
        .dma_map(2 * files * PAGE, PAGE, RW, Some((file.as_fd(), 0)))
        .unwrap();
}

#[test]
fn a_window_that_the_function_refuses_does_not_exist() {
    let server = Running::start();
    let mut client = server.client();
    client
        .region_write(0, reg::REFUSE_WINDOWS, &1_u32.to_ne_bytes(), false)
        .unwrap();

    assert_eq!(errno(client.dma_map(0, PAGE, RW, None)), Errno::NOMEM);

    client
        .region_write(0, reg::REFUSE_WINDOWS, &0_u32.to_ne_bytes(), false)
        .unwrap();
    client.dma_map(0, PAGE, RW, None).unwrap();
}

#[test]
fn two_descriptors_for_one_window_are_refused() {
    let server = Running::start();
    let mut raw = server.raw();
    raw.negotiate();
    let memory = memory(1);
    let mut payload = Vec::new();
    DmaMap {
        protection: RW,
        offset: 0,
        address: 0,
        size: PAGE,
    }
    .encode(&mut payload);

    let (header, _) = raw.ask(Command::DmaMap, &payload, &[memory.as_fd(), memory.as_fd()]);

    assert!(header.failed);
    assert_eq!(header.error, Errno::INVAL.raw_os_error().cast_unsigned());
}

#[test]
fn descriptors_go_with_their_own_message_when_many_are_received_at_once() {
    let server = Running::start();
    let mut raw = server.raw();
    raw.negotiate();
    let (short, long) = (memory(1), memory(2));
    let map = |address: u64, pages: u64| {
        let mut payload = Vec::new();
        DmaMap {
            protection: RW,
            offset: 0,
            address,
            size: pages * PAGE,
        }
        .encode(&mut payload);
        support::message(1, Command::DmaMap, &payload)
    };

    // As QEMU does: one behind the other, without waiting, some with a descriptor.
    raw.send(&map(0x10_0000, 100));
    raw.send_with(&map(0x20_0000, 1), &[short.as_fd()]);
    raw.send(&map(0x30_0000, 100));
    raw.send_with(&map(0x40_0000, 2), &[long.as_fd()]);
    raw.send(&map(0x50_0000, 100));

    for _ in 0..5 {
        let (header, _) = raw.reply().unwrap();
        assert!(!header.failed, "a descriptor has gone to the wrong window");
    }
}

/// Guest memory below 2 MiB; what was never written cannot be read.
#[derive(Clone)]
struct Guest(Arc<Mutex<Vec<Option<u8>>>>);

impl Guest {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![None; 2 << 20])))
    }

    fn written(&self) -> Vec<u8> {
        self.0.lock().unwrap().iter().copied().flatten().collect()
    }
}

fn range(address: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(address).unwrap();
    start..start + len
}

impl GuestMemory for Guest {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        let memory = self.0.lock().unwrap();
        let source = memory.get(range(address, out.len())).ok_or(Errno::FAULT)?;
        for (out, byte) in out.iter_mut().zip(source) {
            *out = byte.ok_or(Errno::FAULT)?;
        }
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.lock().unwrap();
        let place = memory
            .get_mut(range(address, data.len()))
            .ok_or(Errno::FAULT)?;
        for (byte, &new) in place.iter_mut().zip(data) {
            *byte = Some(new);
        }
        Ok(())
    }
}

#[test]
fn memory_without_a_descriptor_is_read_and_written_by_message() {
    let server = Running::start();
    let mut client = server.client();
    let guest = Guest::new();
    client.set_memory(guest.clone());
    client.dma_map(0, 1 << 30, RW, None).unwrap();
    let done = done_eventfd(&mut client);
    client
        .region_write(2, 0, b"from the device", false)
        .unwrap();

    start(&mut client, 2, 0x8000, 15);
    client.serve().unwrap();
    rustix::io::read(&done, &mut [0; 8]).unwrap();
    assert_eq!(guest.written(), b"from the device");

    client.region_write(2, 0, &[0; 15], false).unwrap();
    start(&mut client, 1, 0x8000, 15);
    client.serve().unwrap();
    rustix::io::read(&done, &mut [0; 8]).unwrap();
    let mut back = [0; 15];
    client.region_read(2, 0, &mut back).unwrap();
    assert_eq!((&back, result(&mut client)), (b"from the device", 0x100));
}

#[test]
fn memory_that_the_client_refuses_is_an_error_for_the_function() {
    let server = Running::start();
    let mut client = server.client();
    client.set_memory(Guest::new());
    let done = done_eventfd(&mut client);

    for (direction, address) in [(1, 0x1000), (2, 1 << 32)] {
        start(&mut client, direction, address, 8);
        client.serve().unwrap();
        rustix::io::read(&done, &mut [0; 8]).unwrap();
        assert_eq!(result(&mut client), 0x200);
    }
}

#[test]
fn a_refusal_without_an_error_number_is_an_error_for_the_function() {
    let server = Running::start();
    for error in [0, 4096, u32::MAX] {
        let mut raw = server.raw();
        raw.negotiate();
        raw.ask(Command::RegionWrite, &region_write(reg::DMA_LEN, 8), &[]);
        raw.ask(Command::RegionWrite, &region_write(reg::DMA_GO, 1), &[]);
        let (request, _) = raw.reply().expect("the server asks for memory");
        assert_eq!(request.known_command(), Some(Command::DmaRead));

        let mut refusal = Vec::new();
        Header {
            error,
            ..request.error_reply(Errno::INVAL)
        }
        .encode(&mut refusal);
        raw.send(&refusal);

        let access = RegionAccess {
            offset: reg::DMA_GO,
            region: 0,
            count: 4,
        };
        let mut payload = Vec::new();
        access.encode(&mut payload);
        loop {
            let (_, payload) = raw.ask(Command::RegionRead, &payload, &[]);
            match u32::from_ne_bytes(payload[16..].try_into().unwrap()) {
                // The transfer's own task has not run yet.
                1 => std::thread::yield_now(),
                done => break assert_eq!(done, 0x200, "{error}"),
            }
        }
    }
}

fn region_write(register: u64, value: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    RegionAccess {
        offset: register,
        region: 0,
        count: 4,
    }
    .encode(&mut payload);
    payload.extend_from_slice(&value.to_ne_bytes());
    payload
}

#[test]
fn a_reply_that_contradicts_its_request_ends_the_connection() {
    let server = Running::start();
    for (address, count, data) in [(8, 8, 8), (0, 7, 7), (0, 8, 7), (0, 8, 9)] {
        let mut raw = server.raw();
        raw.negotiate();
        raw.ask(Command::RegionWrite, &region_write(reg::DMA_LEN, 8), &[]);
        raw.ask(Command::RegionWrite, &region_write(reg::DMA_GO, 1), &[]);
        let (request, _) = raw.reply().expect("the server asks for memory");

        let mut reply = Vec::new();
        request.reply(DmaAccess::LEN + data).encode(&mut reply);
        DmaAccess { address, count }.encode(&mut reply);
        reply.extend(vec![0; data as usize]);
        raw.send(&reply);

        assert_eq!(raw.until_closed(), 0);
    }
    assert!(server.client().device_info().is_ok());
}

#[test]
fn a_long_transfer_goes_in_messages_of_the_negotiated_size() {
    let server = Running::start();
    let mut client = server.client();
    let guest = Guest::new();
    client.set_memory(guest.clone());
    let done = done_eventfd(&mut client);
    let len = (1 << 16) + 5;

    start(&mut client, 2, 0, len);
    client.serve().unwrap();
    client.serve().unwrap();
    rustix::io::read(&done, &mut [0; 8]).unwrap();

    assert_eq!(guest.written().len(), len as usize);
    assert_eq!(result(&mut client), 0x100);
}

#[test]
fn a_client_that_leaves_ends_the_transfers_that_wait_for_it() {
    let server = Running::start();
    let mut client = server.client();
    for _ in 0..20 {
        start(&mut client, 1, 0, 8);
    }
    drop(client);

    let mut next = server.client();
    let done = done_eventfd(&mut next);
    start(&mut next, 1, 0, 8);
    next.serve().unwrap();
    rustix::io::read(&done, &mut [0; 8]).unwrap();

    assert_eq!(result(&mut next), 0x200);
}
