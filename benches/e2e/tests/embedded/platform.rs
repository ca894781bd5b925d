//! A platform function: `uart`, a serial port at fixed ports, without PCI.

use std::sync::{Arc, Mutex};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_front_core::VcpuAccess;
use potemkin_pci::{AddressKind, BarIndex, Mapping, Space, Width};
use potemkin_service::admin::AttachRequest;
use potemkin_transport::TransportKind::{self, Grpc, Quic};

use crate::{
    LIMIT, ROLE,
    kit::{Signal, embed},
};

const UART: &str = "uart-0";
const PORT: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = PORT + 1;

fn stack(transport: TransportKind) -> Stack {
    let options = StackOptions {
        host_extra: format!("[[devices]]\nid = \"{UART}\"\nkind = \"uart\"\n"),
        ..StackOptions::on(transport)
    };
    Stack::start(ROLE, &options).unwrap()
}

#[test]
fn a_vmm_has_it_at_its_ports_with_its_line_and_gives_it_back() {
    for transport in [Quic, Grpc] {
        let stack = stack(transport);
        let (function, vmm, signals) = embed(&stack, transport, UART);
        let device = function.device();
        let ports = Mapping {
            kind: AddressKind::Port,
            address: PORT.into(),
            size: 8,
            space: Space::Bar(BarIndex::B0),
        };
        assert_eq!(*vmm.mapped.lock().unwrap(), [ports], "{transport}");
        let heard = || signals.recv_timeout(LIMIT).unwrap();

        assert!(device.pio_write(INTERRUPT_ENABLE, Width::B1, &[1]));
        let frames = device.session().counters().round_trips;
        assert!(device.pio_write(PORT, Width::B1, b"hello"));
        assert_eq!(
            device.session().counters().round_trips,
            frames + 1,
            "REP OUTS"
        );
        assert_eq!(heard(), Signal::Level(true), "what is sent comes back");
        let mut back = [0; 5];
        assert!(device.pio_read(PORT, Width::B1, &mut back));

        assert_eq!(&back, b"hello", "{transport}");
        assert_eq!(heard(), Signal::Level(false));
        drop(function);
        assert!(vmm.mapped.lock().unwrap().is_empty());
        drop(embed(&stack, transport, UART));
    }
}

#[test]
fn one_in_memory_is_mapped_there_and_its_writes_are_posted() {
    const ADDRESS: u64 = 0xfedc_0000;
    for transport in [Quic, Grpc] {
        let options = StackOptions {
            host_extra: format!(
                "[[devices]]\nid = \"{UART}\"\nkind = \"uart\"\noptions = {{ address = {ADDRESS} }}\n"
            ),
            ..StackOptions::on(transport)
        };
        let stack = Stack::start(ROLE, &options).unwrap();
        let (function, vmm, signals) = embed(&stack, transport, UART);
        let device = function.device();
        let memory = Mapping {
            kind: AddressKind::Memory,
            address: ADDRESS,
            size: 8,
            space: Space::Bar(BarIndex::B0),
        };
        assert_eq!(*vmm.mapped.lock().unwrap(), [memory], "{transport}");

        let trips = device.session().counters().round_trips;
        assert!(device.mmio_write(ADDRESS + 1, &[1]));
        for byte in b"hi" {
            assert!(device.mmio_write(ADDRESS, &[*byte]));
        }
        assert_eq!(device.session().counters().round_trips, trips, "posted");
        assert_eq!(signals.recv_timeout(LIMIT).unwrap(), Signal::Level(true));
        let mut back = [0; 2];
        for byte in back.chunks_mut(1) {
            assert!(device.mmio_read(ADDRESS, byte));
        }

        assert_eq!(&back, b"hi", "{transport}");
        assert!(!device.mmio_read(ADDRESS + 8, &mut [0]), "its end");
        assert!(!device.pio_read(0, Width::B1, &mut [0]));
        drop(function);
        assert!(vmm.mapped.lock().unwrap().is_empty());
    }
}

#[test]
fn what_it_ignores_ends_at_the_agent_and_the_rest_is_not_its() {
    let stack = stack(Quic);
    let (function, ..) = embed(&stack, Quic, UART);
    let device = function.device();
    let frames = device.session().counters().frames_sent;

    let mut out = [0; 1];
    assert!(device.pio_read(0x80, Width::B1, &mut out));
    assert_eq!(out, [0xff]);
    assert!(device.pio_write(0x80, Width::B1, &[0x55]));
    assert!(!device.pio_read(0x2f8, Width::B1, &mut out));
    assert!(!device.mmio_read(PORT.into(), &mut out));
    let mut across = [0; 4];
    assert!(
        !device.pio_read(PORT + 6, Width::B4, &mut across),
        "its end"
    );
    device.config_read_blocking(0, &mut across);

    assert_eq!(across, [0xff; 4], "it has no configuration space");
    assert_eq!(device.session().counters().frames_sent, frames);
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn accesses_of_a_logged_range_are_shown_to_who_asks_for_them() {
    let stack = stack(Quic);
    let (function, ..) = embed(&stack, Quic, UART);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("potemkin::access=debug")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();

    tracing::subscriber::with_default(subscriber, || {
        assert!(function.device().pio_write(0x80, Width::B1, &[0x5a]));
        assert!(function.device().pio_write(PORT + 7, Width::B1, &[1]));
    });

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 1, "one range is logged: {log}");
    assert!(log.contains("0x80") && log.contains("[5a]"), "{log}");
}

#[test]
fn a_vfio_user_socket_refuses_it_and_leaves_it_free() {
    let stack = stack(Quic);
    let request = AttachRequest {
        name: "vm".to_owned(),
        device: Some(UART.to_owned()),
        selector: None,
        socket: stack.dir().join("vm.sock"),
        after_loss: None,
    };

    let refused = stack.admin().attach(request).unwrap_err().to_string();

    assert!(refused.contains("platform function"), "{refused}");
    let listed = stack.operator(&["devices"]).unwrap().stdout;
    let line = listed.lines().find(|line| line.contains(UART)).unwrap();
    assert!(line.contains("platform") && line.contains("free"), "{line}");
    drop(embed(&stack, Quic, UART));
}
