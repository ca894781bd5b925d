//! A client that goes from one process to another. Here both are one: what is saved becomes text, and descriptors are adopted by their numbers.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_vfio_server::{
    Bundle, Ended, Inherited, Options, Paused, SavedClient, SavedListener, Server,
};
use potemkin_vfio_user::message::{
    DmaMap, IrqAction, IrqData, IrqIndex, Protection, RegionAccess, SetIrqs,
};
use potemkin_vfio_user::{Client, Command};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use support::{Device, MSIX_VECTORS, Raw, Seen, message, patient, reg};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

const RW: Protection = Protection::READ_WRITE;
const PAGE: u64 = 4096;

/// What is done to a client while it is saved.
type Change = Box<dyn FnOnce(&mut SavedClient) + Send>;

/// A server that goes to another process when it is told to.
struct Moving {
    directory: TempDir,
    moves: Option<mpsc::UnboundedSender<(Change, oneshot::Sender<bool>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Moving {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(directory.path().join("device.sock"), Options::default());
        let server = server.unwrap();
        let (moves, wanted) = mpsc::unbounded_channel();
        Self {
            directory,
            moves: Some(moves),
            thread: Some(std::thread::spawn(|| serve(server, wanted))),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("device.sock")
    }

    /// Whether the client was restored.
    fn go(&self, change: impl FnOnce(&mut SavedClient) + Send + 'static) -> bool {
        let (done, waits) = oneshot::channel();
        let moves = self.moves.as_ref().unwrap();
        moves.send((Box::new(change), done)).unwrap();
        waits.blocking_recv().unwrap()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.moves.take();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(server: Server, mut wanted: mpsc::UnboundedReceiver<(Change, oneshot::Sender<bool>)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let mut server = server;
        let (mut saved, mut inherited, mut told) = (None, Inherited::default(), None);
        loop {
            // The function's registers are not what is tested here.
            let device = Device::new(Arc::new(Seen::default()));
            let client = server.restore(&*device, saved.as_ref(), &mut inherited);
            // What nobody has taken is closed.
            drop(std::mem::take(&mut inherited));
            if let Some(told) = told.take() {
                let _: Result<(), bool> = oneshot::Sender::send(told, client.is_ok());
            }
            let client = client.unwrap_or_default();
            let mut next = None;
            let pause = async { next = wanted.recv().await };
            let never = std::future::pending();
            let ended = server.serve_from(&*device, client, never, pause).await;
            let Ended::Paused(client) = ended.unwrap() else {
                unreachable!("there is no shutdown");
            };
            let Some((change, done)) = next else { return };
            let listener;
            (saved, inherited, listener) = save(&server, &client, change);
            told = Some(done);
            drop(client);
            // Its name stays.
            let path = server.path().to_owned();
            std::mem::forget(server);
            let options = Options::default();
            server = Server::adopt(path, options, &listener, &mut inherited).unwrap();
        }
    });
}

fn save<F: potemkin_vfio_server::Function>(
    server: &Server,
    client: &Paused<'_, F>,
    change: Change,
) -> (Option<SavedClient>, Inherited, SavedListener) {
    let mut bundle = Bundle::default();
    let listener = server.save(&mut bundle).unwrap();
    let mut saved = client.save(&mut bundle).unwrap();
    if let Some(saved) = &mut saved {
        change(saved);
    }
    let text = serde_json::to_string(&saved).unwrap();
    let numbers = bundle.numbers();
    std::mem::forget(bundle);
    let inherited = Inherited::adopt(numbers).unwrap();
    (serde_json::from_str(&text).unwrap(), inherited, listener)
}

fn memory(pages: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(pages * PAGE).unwrap();
    file
}

fn events(count: usize) -> Vec<OwnedFd> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    (0..count).map(|_| eventfd(0, flags).unwrap()).collect()
}

fn taken(event: &OwnedFd) -> u64 {
    let mut counter = [0; 8];
    match rustix::io::read(event, &mut counter) {
        Ok(_) => u64::from_ne_bytes(counter),
        Err(_) => 0,
    }
}

fn wait_for(event: &OwnedFd) -> u64 {
    poll(&mut [PollFd::new(event, PollFlags::IN)], None).unwrap();
    taken(event)
}

fn set(
    client: &mut Client,
    (index, start, count): (IrqIndex, u32, u32),
    (action, data): (IrqAction, IrqData<'_>),
    events: &[OwnedFd],
) {
    let set = SetIrqs {
        index,
        action,
        start,
        count,
        data,
    };
    let fds: Vec<BorrowedFd<'_>> = events.iter().map(AsFd::as_fd).collect();
    client.set_irqs(&set, &fds).unwrap();
}

fn connect(client: &mut Client, index: IrqIndex, start: u32, events: &[OwnedFd]) {
    let count = events.len() as u32;
    let eventfd = (IrqAction::Trigger, IrqData::Eventfd);
    set(client, (index, start, count), eventfd, events);
}

fn write(client: &mut Client, register: u64, value: u32) {
    client
        .region_write(0, register, &value.to_ne_bytes(), false)
        .unwrap();
}

#[test]
fn interrupts_stay_connected_masked_and_pending() {
    let server = Moving::start();
    let mut client = patient(&server.path());
    let vectors = events(usize::from(MSIX_VECTORS));
    for (start, events) in (0..).step_by(16).zip(vectors.chunks(16)) {
        connect(&mut client, IrqIndex::Msix, start, events);
    }
    let none = IrqData::None;
    set(
        &mut client,
        (IrqIndex::Msix, 5, 1),
        (IrqAction::Mask, none),
        &[],
    );
    write(&mut client, reg::MSIX, 5);
    let [line, unmask]: [OwnedFd; 2] = events(2).try_into().unwrap();
    connect(&mut client, IrqIndex::Intx, 0, std::slice::from_ref(&line));
    let by_eventfd = (IrqAction::Unmask, IrqData::Eventfd);
    let unmasks = std::slice::from_ref(&unmask);
    set(&mut client, (IrqIndex::Intx, 0, 1), by_eventfd, unmasks);
    write(&mut client, reg::INTX, 1);
    assert_eq!(taken(&line), 1);

    for _ in 0..2 {
        assert!(server.go(|_| ()));
    }

    write(&mut client, reg::MSIX, 39);
    assert_eq!(wait_for(&vectors[39]), 1);
    assert_eq!(taken(&vectors[5]), 0);
    set(
        &mut client,
        (IrqIndex::Msix, 5, 1),
        (IrqAction::Unmask, none),
        &[],
    );
    assert_eq!(wait_for(&vectors[5]), 1, "it was pending");
    // The level is up, and masked since it was delivered.
    assert_eq!(taken(&line), 0);
    rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(wait_for(&line), 1);
}

#[test]
fn windows_stay_in_their_files() {
    let server = Moving::start();
    let mut client = patient(&server.path());
    let done = events(1);
    connect(&mut client, IrqIndex::Msix, 0, &done);
    let (one, other) = (memory(4), memory(1));
    for (address, file, offset) in [
        (0x10_0000, &one, 0),
        (0x20_0000, &one, 2 * PAGE),
        (0x30_0000, &other, 0),
    ] {
        let file = Some((file.as_fd(), offset));
        client.dma_map(address, PAGE, RW, file).unwrap();
    }
    client.dma_map(0x40_0000, PAGE, RW, None).unwrap();

    assert!(server.go(|saved| assert_eq!((saved.windows.len(), saved.files.len()), (4, 2))));

    one.write_all_at(b"guest", 2 * PAGE + 8).unwrap();
    client
        .region_write(0, reg::DMA_ADDRESS, &0x20_0008_u64.to_ne_bytes(), false)
        .unwrap();
    write(&mut client, reg::DMA_LEN, 5);
    write(&mut client, reg::DMA_GO, 1);
    assert_eq!(wait_for(&done[0]), 1);
    let mut data = [0; 5];
    client.region_read(2, 0, &mut data).unwrap();
    assert_eq!(&data, b"guest");
    // They are there still.
    assert!(client.dma_map(0x40_0000, PAGE, RW, None).is_err());
}

#[test]
fn half_a_message_and_its_descriptors_go_along() {
    let server = Moving::start();
    let mut client = Raw::connect(&server.path());
    client.negotiate();
    let mut payload = Vec::new();
    let map = DmaMap {
        protection: RW,
        offset: 0,
        address: 0,
        size: PAGE,
    };
    map.encode(&mut payload);
    let bytes = message(9, Command::DmaMap, &payload);
    let file = memory(1);
    for cut in [1, 15, 16, 20, bytes.len() - 1] {
        client.send_with(&bytes[..cut], &[file.as_fd()]);
        // It is received, if it was not before.
        std::thread::sleep(Duration::from_millis(5));
        assert!(server.go(|_| ()));
        client.send(&bytes[cut..]);
        let (header, _) = client.reply().unwrap();
        // The second time the window is there.
        assert_eq!((header.id, header.failed), (9, cut != 1));
    }
}

#[test]
fn no_request_is_lost_by_moves_in_between() {
    let server = Moving::start();
    let path = server.path();
    let guest = std::thread::spawn(move || {
        let mut client = patient(&path);
        for value in 0..20_000_u32 {
            let posted = value % 3 != 0;
            client
                .region_write(0, 0x10, &value.to_ne_bytes(), posted)
                .unwrap();
        }
    });
    let mut moves = 0;
    while !guest.is_finished() {
        assert!(server.go(|_| ()));
        moves += 1;
    }
    guest.join().unwrap();
    assert!(moves > 1);
}

#[test]
fn without_a_client_the_next_one_is_served() {
    let server = Moving::start();
    assert!(server.go(|_| ()));

    let mut client = patient(&server.path());

    let mut word = [0; 4];
    client.region_read(0, 0, &mut word).unwrap();
}

#[test]
fn a_client_that_cannot_be_is_refused_and_disconnected() {
    let bad: [fn(&mut SavedClient); 9] = [
        |saved| saved.socket = 1_000_000,
        |saved| saved.limit = 0,
        |saved| saved.limit = u32::MAX,
        |saved| drop(saved.irqs.vectors.pop()),
        |saved| saved.irqs.vectors[2][0].trigger = Some(saved.files[0]),
        |saved| saved.windows[0].size = u64::MAX,
        |saved| saved.windows[0].file = Some(7),
        |saved| saved.windows[0].offset = PAGE,
        |saved| saved.input.fds = vec![(3, 0)],
    ];
    for (index, change) in bad.into_iter().enumerate() {
        let server = Moving::start();
        let mut client = Raw::connect(&server.path());
        client.negotiate();
        let mut payload = Vec::new();
        let map = DmaMap {
            protection: RW,
            offset: 0,
            address: 0,
            size: PAGE,
        };
        map.encode(&mut payload);
        let file = memory(1);
        client.ask(Command::DmaMap, &payload, &[file.as_fd()]);

        assert!(!server.go(change), "{index}");

        assert_eq!(client.until_closed(), 0);
        let mut next = patient(&server.path());
        next.region_read(0, 0, &mut [0; 4]).unwrap();
    }
}

#[test]
fn a_client_that_has_not_agreed_on_a_version_may_do_so_later() {
    let server = Moving::start();
    let mut client = Raw::connect(&server.path());
    std::thread::sleep(Duration::from_millis(5));
    assert!(server.go(|_| ()));

    client.negotiate();

    let mut payload = Vec::new();
    let access = RegionAccess {
        region: 0,
        offset: 0,
        count: 4,
    };
    access.encode(&mut payload);
    let (header, _) = client.ask(Command::RegionRead, &payload, &[]);
    assert!(!header.failed);
}
