//! A front agent that is upgraded in place while its guest drives the device without a pause: no access fails, none is lost or repeated, and
//! interrupts and DMA go on.
//!
//! `POTEMKIN_UPGRADES`: upgrades on each transport. `POTEMKIN_UPGRADES_REPORT`: a file for the results, JSON.

use std::{
    env, fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use potemkin_e2e::{
    Stack, StackOptions,
    guest::{
        BUS_MASTER, Guest, IO_DECODE, LIMIT, MEMORY_DECODE, PORTS, RAM, await_signal, events, take,
    },
};
use potemkin_service::admin::{
    AdminClient, AdminError, AfterLoss, AttachRequest, DeviceState, DeviceStatus, Upgraded,
};
use potemkin_testkit::{Process, Spawn};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use potemkin_vfio_user::{
    ClientError, Errno, GuestMemory,
    message::{IrqAction, IrqData, IrqIndex, Protection, SetIrqs},
};
use rustix::process::Signal;
use serde_json::json;

use crate::ROLE;

const VECTORS: u16 = 16;
/// Slots of the messenger's ring, and vectors that it uses; the others are the guest's.
const SLOTS: u32 = 8;
const STRIDE: u32 = 128;
const BLOCK_BYTES: u32 = 64;
const DEFAULT_UPGRADES: u64 = 3;

/// An agent whose program can be replaced, and a guest of it.
struct Scene {
    stack: Stack,
    front: Process,
    program: PathBuf,
}

impl Scene {
    fn start(kind: TransportKind) -> (Self, Guest) {
        let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(VECTORS)).unwrap();
        let program = stack.dir().join("program");
        symlink(ROLE, &program).unwrap();
        let front = stack.front_from(&program, "new").unwrap();
        let attached = stack.attach_by("new", "vm", Stack::ORDER).unwrap();
        let guest = Guest::connect(&attached.socket);
        let scene = Self {
            stack,
            front,
            program,
        };
        (scene, guest)
    }

    fn admin(&self) -> AdminClient {
        AdminClient::connect(&self.stack.admin_socket_of("new"), LIMIT).unwrap()
    }

    fn status(&self) -> DeviceStatus {
        self.admin().status().unwrap().devices.remove(0)
    }

    fn replace_program(&self, with: &str) {
        let beside = self.stack.dir().join("program.next");
        symlink(with, &beside).unwrap();
        fs::rename(beside, &self.program).unwrap();
    }
}

/// What a guest does all the time, and what it has counted.
struct Load<'a> {
    guest: &'a mut Guest,
    events: Vec<OwnedFd>,
    /// Last number that the order checker got, and the last ticket.
    order: u64,
    ticket: u32,
    /// Rounds of the messenger that came.
    rounds: u64,
    accesses: u64,
    longest: Duration,
}

impl<'a> Load<'a> {
    fn new(guest: &'a mut Guest) -> Self {
        let events = events(VECTORS.into());
        guest.enable_msix();
        guest.listen(0, &events);
        guest.write8(0x68, 0);
        guest.write8(0x100, RAM);
        guest.write4(0x108, STRIDE);
        guest.write4(0x10c, SLOTS);
        guest.write4(0x110, BLOCK_BYTES);
        guest.write4(0x114, SLOTS);
        guest.write8(0x118, u64::MAX);
        guest.write4(0x130, 1);
        Self {
            guest,
            events,
            order: 0,
            ticket: 0,
            rounds: 0,
            accesses: 0,
            longest: Duration::ZERO,
        }
    }

    /// A few accesses of each kind, all checked.
    fn step(&mut self) {
        for _ in 0..4 {
            self.order += 1;
            self.timed(|load| load.guest.write8(0x60, load.order));
        }
        self.order += 1;
        let number = u32::try_from(self.order & 0xffff_ffff).unwrap();
        self.timed(|load| load.guest.write(PORTS, 4, &number.to_le_bytes()));
        let ticket = self.timed(|load| load.guest.read4(0x18));
        assert_eq!(ticket, self.ticket + 1, "a read that counts");
        self.ticket = ticket;
        self.take_rounds();
    }

    fn timed<R>(&mut self, access: impl FnOnce(&mut Self) -> R) -> R {
        let begin = Instant::now();
        let result = access(self);
        self.accesses += 1;
        self.longest = self.longest.max(begin.elapsed());
        result
    }

    /// Takes what the messenger has done: with each interrupt its block is there.
    fn take_rounds(&mut self) {
        let before = self.rounds;
        loop {
            let slot = self.rounds % u64::from(SLOTS);
            if take(&self.events[usize::try_from(slot).unwrap()]) == 0 {
                break;
            }
            let mut word = [0; 8];
            self.guest.peek(RAM + slot * u64::from(STRIDE), &mut word);
            assert_eq!(u64::from_le_bytes(word), self.rounds, "data of a round");
            self.rounds += 1;
        }
        if self.rounds > before {
            self.guest.write8(0x120, self.rounds);
        }
    }

    /// An interrupt of the guest's own comes once, and the messenger goes on.
    fn check_interrupts(&mut self) {
        self.guest.write4(0x4c, 12);
        assert_eq!(await_signal(&self.events[12]), 1);
        let rounds = self.rounds;
        let begin = Instant::now();
        while self.rounds == rounds {
            self.step();
            assert!(begin.elapsed() < LIMIT, "the messenger stands still");
        }
    }

    /// Nothing was lost and nothing came twice.
    fn conclude(&mut self) {
        assert_eq!(self.guest.read8(0x70), self.order, "accesses");
        assert_eq!(self.guest.read8(0x78), 0, "gaps");
        assert_eq!(self.guest.read8(0x80), 0, "repeats");
        assert_eq!(self.guest.read4(0x20) & 0b1100, 0, "status");
        assert_eq!(self.guest.read4(0x130), 1, "the messenger runs");
    }
}

/// Upgrades while the guest goes on; what the agent said.
fn upgrade_under_load(scene: &Scene, load: &mut Load<'_>, upgrades: u64) -> Vec<Upgraded> {
    let (done, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let operator = scope.spawn(|| {
            let mut said = Vec::new();
            for _ in 0..upgrades {
                // The guest works between two upgrades, and finds its interrupts.
                let from = steps.load(Ordering::SeqCst);
                while steps.load(Ordering::SeqCst) < from + 50 && !done.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                said.push(scene.admin().upgrade().unwrap());
            }
            said
        });
        let _done = Done(&done);
        while !operator.is_finished() {
            load.step();
            if steps.fetch_add(1, Ordering::SeqCst) % 25 == 0 {
                load.check_interrupts();
            }
        }
        operator.join().unwrap()
    })
}

/// Whoever waits hears of the end, panics and all.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_access_fails_while_the_agent_is_upgraded() {
    let upgrades = env::var("POTEMKIN_UPGRADES").map_or(DEFAULT_UPGRADES, |text| {
        text.parse().expect("POTEMKIN_UPGRADES is a number")
    });
    let mut results = Vec::new();
    for kind in [Quic, Grpc] {
        let (scene, mut guest) = Scene::start(kind);
        let (pid, before) = (scene.front.pid(), scene.status());
        let mut load = Load::new(&mut guest);
        load.check_interrupts();

        let said = upgrade_under_load(&scene, &mut load, upgrades);

        load.check_interrupts();
        load.conclude();
        let after = scene.status();
        assert_eq!(scene.front.pid(), pid);
        assert_eq!(after.state, DeviceState::Live, "{kind}: {:?}", after.reason);
        assert_eq!(
            (&after.session, after.epoch),
            (&before.session, before.epoch)
        );
        assert_eq!(after.counters.resumes, upgrades, "{kind}");
        assert_eq!(after.counters.dma_refused, 0, "{kind}");
        assert!(said.iter().all(|upgraded| upgraded.devices == 1));
        let log = scene.front.log().unwrap();
        assert_eq!(
            log.matches("the other program takes over").count() as u64,
            upgrades
        );
        let stood: Vec<_> = said.iter().map(|upgraded| upgraded.stood_ms).collect();
        results.push(json!({
            "transport": kind.to_string(), "upgrades": upgrades, "accesses": load.accesses, "failed": 0,
            "longest_access_ms": load.longest.as_secs_f64() * 1e3, "stood_ms": stood,
            "interrupts_with_data": load.rounds, "debug": cfg!(debug_assertions),
        }));
        println!("{}", results[results.len() - 1]);
    }
    if let Some(path) = env::var_os("POTEMKIN_UPGRADES_REPORT") {
        fs::write(path, format!("{}\n", json!(results))).unwrap();
    }
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_everything_goes_on() {
    let (scene, mut guest) = Scene::start(Quic);
    let mut load = Load::new(&mut guest);
    load.step();
    for (program, complaint) in [
        ("/nonexistent/potemkin-front", "cannot be run"),
        ("/bin/true", "no front agent"),
        ("/bin/false", "cannot take over"),
    ] {
        scene.replace_program(program);
        let refused = scene.admin().upgrade().unwrap_err();

        assert!(
            matches!(&refused, AdminError::Refused(why) if why.contains(complaint)),
            "{program}: {refused}"
        );
        load.step();
    }
    assert_eq!(scene.status().counters.resumes, 0, "nothing stood still");

    scene.replace_program(ROLE);
    scene.admin().upgrade().unwrap();
    load.check_interrupts();
    load.conclude();
}

#[test]
fn a_signal_upgrades_too_and_one_that_comes_meanwhile_does_no_harm() {
    let (mut scene, mut guest) = Scene::start(Quic);
    let mut load = Load::new(&mut guest);
    for _ in 0..20 {
        scene.front.signal(Signal::USR2).unwrap();
        load.step();
    }
    scene.front.wait_log("upgraded", LIMIT).unwrap();

    load.check_interrupts();
    load.conclude();
    assert!(scene.front.is_running().unwrap());
}

#[test]
fn intx_keeps_its_level_and_its_mask() {
    let (scene, mut guest) = Scene::start(Quic);
    let line = events(1);
    let intx = |guest: &mut Guest, action, data, fds: &[BorrowedFd<'_>]| {
        let set = SetIrqs {
            index: IrqIndex::Intx,
            action,
            start: 0,
            count: 1,
            data,
        };
        guest.client.set_irqs(&set, fds).unwrap();
    };
    intx(
        &mut guest,
        IrqAction::Trigger,
        IrqData::Eventfd,
        &[line[0].as_fd()],
    );
    guest.write4(0x44, 0b100);
    guest.write4(0x48, 0b100);
    assert_eq!(await_signal(&line[0]), 1);
    scene.admin().upgrade().unwrap();
    guest.read4(0);
    assert_eq!(take(&line[0]), 0, "masked since it was delivered");

    // The level is up still.
    intx(&mut guest, IrqAction::Unmask, IrqData::None, &[]);
    assert_eq!(await_signal(&line[0]), 1);

    guest.write4(0x40, 0b100);
    intx(&mut guest, IrqAction::Unmask, IrqData::None, &[]);
    guest.read4(0);
    scene.admin().upgrade().unwrap();
    guest.read4(0);
    assert_eq!(take(&line[0]), 0, "it is low");
    guest.write4(0x48, 0b100);
    assert_eq!(await_signal(&line[0]), 1);
}

/// Memory that only the client itself can reach.
#[derive(Clone, Default)]
struct Hidden(Arc<Mutex<Vec<u8>>>);

impl GuestMemory for Hidden {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        let at = usize::try_from(address - HIDDEN).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Errno> {
        let at = usize::try_from(address - HIDDEN).unwrap();
        self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

const HIDDEN: u64 = 0x100_0000;

#[test]
fn dma_by_message_goes_on_in_its_order() {
    let (scene, mut guest) = Scene::start(Quic);
    let hidden = Hidden(Arc::new(Mutex::new(vec![0; 4096])));
    guest.client.set_memory(hidden.clone());
    guest
        .client
        .dma_map(HIDDEN, 4096, Protection::READ_WRITE, None)
        .unwrap();
    let events = events(VECTORS.into());
    guest.enable_msix();
    guest.listen(0, &events);
    guest.write8(0x100, HIDDEN);
    guest.write4(0x108, STRIDE);
    guest.write4(0x10c, SLOTS);
    guest.write4(0x110, BLOCK_BYTES);
    guest.write4(0x114, SLOTS);
    guest.write8(0x118, u64::MAX);
    guest.write4(0x130, 1);
    guest
        .client
        .set_timeout(Some(Duration::from_millis(20)))
        .unwrap();

    let mut rounds = 0_u64;
    thread::scope(|scope| {
        let operator = scope.spawn(|| {
            for _ in 0..DEFAULT_UPGRADES {
                scene.admin().upgrade().unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        });
        let begin = Instant::now();
        while !operator.is_finished() || rounds < 200 {
            assert!(begin.elapsed() < LIMIT, "{rounds} rounds");
            match guest.client.serve() {
                Ok(()) | Err(ClientError::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
            let slot = rounds % u64::from(SLOTS);
            if take(&events[usize::try_from(slot).unwrap()]) == 1 {
                let at = usize::try_from(slot * u64::from(STRIDE)).unwrap();
                let word = hidden.0.lock().unwrap()[at..at + 8].to_vec();
                assert_eq!(word, rounds.to_le_bytes(), "data of a round");
                rounds += 1;
                guest.write8(0x120, rounds);
            }
        }
    });
    assert_eq!(scene.status().counters.dma_refused, 0);
}

#[test]
fn a_device_that_is_lost_stays_so_and_one_that_is_detached_is_given_back() {
    let (mut scene, mut guest) = Scene::start(Quic);
    let other = scene.stack.attach_by("new", "other", Stack::DEVICE);
    assert!(other.is_ok());
    scene.admin().upgrade().unwrap();
    scene.admin().detach("other").unwrap();
    // It is free again.
    scene.stack.attach("again");

    scene.stack.host.kill().unwrap();
    assert_eq!(guest.read4(0x18), u32::MAX);
    assert_eq!(scene.status().state, DeviceState::Lost);
    let reason = scene.status().reason;
    scene.admin().upgrade().unwrap();

    assert_eq!(guest.read4(0x18), u32::MAX);
    let status = scene.status();
    assert_eq!((status.state, status.reason), (DeviceState::Lost, reason));

    let socket = scene.stack.dir().join("vm.sock");
    let admin = scene.stack.admin_socket_of("new");
    assert!(socket.exists() && admin.exists());
    assert!(scene.front.terminate(LIMIT).unwrap().success());
    assert!(!socket.exists() && !admin.exists());
    assert!(!scene.stack.dir().join("new.ready").exists());
}

#[test]
fn a_function_that_is_latched_failed_stays_so_until_its_guest_resets_it() {
    let (scene, guest) = Scene::start(Quic);
    drop(guest);
    scene.admin().detach("vm").unwrap();
    let socket = scene.stack.dir().join("kept.sock");
    let request = AttachRequest {
        name: "kept".to_owned(),
        device: Some(Stack::ORDER.to_owned()),
        selector: None,
        socket: socket.clone(),
        after_loss: Some(AfterLoss::Reset),
    };
    let session = scene.admin().attach(request).unwrap().session;
    let mut guest = Guest::connect(&socket);
    assert_eq!(guest.read4(0x18), 1);
    let ended = scene
        .stack
        .operator(&["sessions", "end", &session])
        .unwrap();
    ended.success().unwrap();
    let await_state = |state| {
        let begin = Instant::now();
        while scene.status().state != state {
            assert!(begin.elapsed() < LIMIT, "{:?}", scene.status());
            thread::sleep(Duration::from_millis(5));
        }
    };
    await_state(DeviceState::AwaitingReset);

    scene.admin().upgrade().unwrap();

    assert_eq!(scene.status().state, DeviceState::AwaitingReset);
    assert_ne!(guest.read4(0x18), 1);
    guest.client.reset().unwrap();
    guest.command(IO_DECODE | MEMORY_DECODE | BUS_MASTER);
    guest.await_answer();
    await_state(DeviceState::Live);
    assert_eq!(guest.read4(0x18), 1, "as after a reset");
    scene.admin().upgrade().unwrap();
    assert_eq!(guest.read4(0x18), 2);
}

#[test]
fn a_state_that_nobody_handed_over_ends_a_start_with_a_word() {
    let stack = Stack::start(ROLE, &StackOptions::on(Quic)).unwrap();
    for (value, complaint) in [
        ("x", "not the number of a descriptor"),
        ("0", "not inherited"),
        ("900", "not inherited"),
    ] {
        let config = stack.dir().join("front.toml");
        let output = Spawn::new(ROLE)
            .arg("front")
            .arg("--config")
            .arg(&config)
            .env("POTEMKIN_FRONT__ADMIN_SOCKET", stack.admin_socket_of("odd"))
            .env("POTEMKIN_FRONT_UPGRADE_STATE", value)
            .run(LIMIT)
            .unwrap();

        assert_eq!(output.status.code(), Some(1), "{value}");
        assert!(output.stderr.contains(complaint), "{}", output.stderr);
    }
}

#[test]
fn what_an_agent_waits_for_it_waits_for_after_an_upgrade() {
    let (scene, _guest) = Scene::start(Quic);
    let socket = |name: &str| scene.stack.dir().join(name);
    let devices = format!(
        "[[devices]]\nname = \"later\"\ndevice = \"nobody-0\"\nsocket = \"{}\"\n",
        Path::new(&socket("later.sock")).display()
    );
    scene.stack.configure_front("patient", &devices).unwrap();
    let front = scene.stack.start_front("patient").unwrap();
    let admin = scene.stack.dir().join("patient-admin.sock");
    let admin = || AdminClient::connect(&admin, LIMIT).unwrap();
    let states = || -> Vec<_> {
        let devices = admin().status().unwrap().devices;
        devices.into_iter().map(|d| (d.name, d.state)).collect()
    };
    let waiting = [("later".to_owned(), DeviceState::Waiting)];
    assert_eq!(states(), waiting);

    let mut operator = admin();
    assert_eq!(operator.upgrade().unwrap().devices, 0);
    // The same connection goes on.
    operator.status().unwrap();

    let begin = Instant::now();
    while states() != waiting {
        assert!(begin.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(10));
    }
    drop(front);
}
