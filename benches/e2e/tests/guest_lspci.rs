//! A Linux guest's `lspci -vvv` shows each function as its device describes it.

#![allow(clippy::unwrap_used)]

use std::{ops::Range, time::Duration};

use potemkin_devices::catalog::{self, Options};
use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{Vmm, guest::Guest};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);

/// A device, and what lspci is to say of it.
struct Shown {
    /// Its kind in the catalogue, as it is without options.
    kind: &'static str,
    /// Its id in the stack.
    device: &'static str,
    /// `vendor:device`, as lspci takes it.
    ids: &'static str,
    /// All that is said of its regions and capabilities, and whatever else is to be looked at; `*` stands for anything.
    lines: &'static [&'static str],
}

const SHOWN: &[Shown] = &[
    Shown {
        kind: "edu",
        device: Stack::DEVICE,
        ids: "1234:11e8",
        lines: &[
            "0000:*.0 00ff: 1234:11e8 (rev 10)",
            "Subsystem: 1234:11e8",
            "Interrupt: pin A routed to IRQ *",
            "Region 0: Memory at * (32-bit, non-prefetchable) [size=1M]",
            "Capabilities: [40] MSI: Enable- Count=1/1 Maskable- 64bit+",
            "Address: 0000000000000000  Data: 0000",
        ],
    },
    Shown {
        kind: "order",
        device: Stack::ORDER,
        ids: "1234:0d3e",
        lines: &[
            "0000:01:00.0 1200: 1234:0d3e (rev 01)",
            "Subsystem: 1234:0d3e",
            "Interrupt: pin A routed to IRQ *",
            "Region 0: Memory at * (32-bit, non-prefetchable) [size=4K]",
            "Region 1: I/O ports at * [size=16]",
            "Region 2: Memory at * (64-bit, prefetchable) [size=1M]",
            "Region 4: Memory at * (32-bit, non-prefetchable) [size=8K]",
            // Linux takes one below 1 MiB for one of 32 bits; its register says what it is.
            "Region 5: Memory at * (32-bit, non-prefetchable) [size=4K]",
            "20: 00 * 02 *0 * * 00 00 00 00 34 12 3e 0d",
            "Expansion ROM at * [disabled] [size=2K]",
            "Capabilities: [40] Power Management version 3",
            "Status: D0 NoSoftRst+ PME-Enable- DSel=0 DScale=0 PME-",
            "Capabilities: [48] MSI-X: Enable- Count=64 Masked-",
            "Vector table: BAR=4 offset=00000000",
            "PBA: BAR=4 offset=00001000",
            "Capabilities: [54] Express (v2) Endpoint, IntMsgNum 0",
            "ExtTag- AttnBtn- AttnInd- PwrInd- RBE+ FLReset+ *",
            "LnkCap:*Port #0, Speed 2.5GT/s, Width x1, ASPM not supported",
            "Capabilities: [c0] Vendor Specific Information: Len=0c <?>",
            "Capabilities: [100 v1] Device Serial Number 0d-3e-00-00-00-00-12-34",
            "Capabilities: [10c v1] Vendor Specific Information: ID=0d3e Rev=1 Len=00c <?>",
        ],
    },
];

/// What a kernel changes: command, BARs, ROM and interrupt line.
const CHANGED: [Range<usize>; 4] = [0x04..0x06, 0x10..0x28, 0x30..0x34, 0x3c..0x3d];

#[test]
fn lspci_shows_each_function_as_it_is_described() {
    for shown in SHOWN {
        let stack = Stack::start(ROLE, &StackOptions::default().with_order(64)).unwrap();
        let socket = stack.attach_device("vm", shown.device).socket;
        let script = format!("lspci -D -n -vvv -xxxx -d {}", shown.ids);
        let guest = Guest::new(&Vmm::from_env(), &script)
            .program("usr/bin/lspci")
            // On the root bus QEMU shows an endpoint as an integrated one.
            .machine(|machine| {
                machine
                    .root_port("rp0", 1)
                    .vfio_user_on("rp0", "remote", &socket)
            });

        let report = guest.run(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{}", report.console);
        let said: Vec<&str> = report.console.lines().map(str::trim).collect();
        check_text(shown, &said);
        check_dump(shown, &dump(&said));
    }
}

fn check_text(shown: &Shown, said: &[&str]) {
    for pattern in shown.lines {
        let found = said.iter().any(|line| matches(line, pattern));
        assert!(found, "no line {pattern:?} in {said:#?}");
    }
    let structures = ["Region ", "Expansion ROM", "Capabilities: ["];
    let is_structure = |line: &&&str| structures.iter().any(|start| line.starts_with(start));
    for line in said.iter().filter(is_structure) {
        let expected = shown.lines.iter().any(|pattern| matches(line, pattern));
        assert!(expected, "not described: {line:?}");
    }
    // It would like to say which of the guest's modules fit, of which there are none.
    let said = said.iter().filter(|line| !line.contains("libkmod"));
    for bad in ["denied", "nknown", "!!!", "lspci:", "invalid"] {
        let found = said.clone().find(|line| line.contains(bad));
        assert_eq!(found, None);
    }
}

/// The bytes in lines like `00: 34 12 e8 11 ...`.
fn dump(said: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in said {
        let Some((at, hex)) = line.split_once(": ") else {
            continue;
        };
        if usize::from_str_radix(at, 16) == Ok(bytes.len()) {
            let row = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16));
            bytes.extend(row.map_while(Result::ok));
        }
    }
    bytes
}

fn check_dump(shown: &Shown, dump: &[u8]) {
    let device = catalog::build(shown.kind, Options::default()).unwrap();
    let image = device.descriptor().config_image();
    assert_eq!(dump.len(), image.len(), "bytes of configuration space");
    let changed = |at: &usize| CHANGED.iter().any(|range| range.contains(at));
    for at in (0..dump.len()).filter(|at| !changed(at)) {
        assert_eq!(dump[at], image[at], "{}: byte {at:#x}", shown.kind);
    }
}

/// Whether the line is the pattern, in which `*` stands for anything.
fn matches(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return line == pattern;
    };
    let Some(line) = line.strip_prefix(start) else {
        return false;
    };
    let mut ends = (0..=line.len()).filter_map(|at| line.get(at..));
    ends.any(|end| matches(end, rest))
}
