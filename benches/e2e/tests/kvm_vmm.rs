//! The example VMM on KVM: guest instructions whose exits go straight into the front device, against a real broker and host.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{Output, Spawn, certs::Role};
use potemkin_transport::TransportKind::{Grpc, Quic};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const VMM: &str = env!("CARGO_BIN_EXE_kvm_vmm");
const LIMIT: Duration = Duration::from_secs(60);

/// What the guest says when all is well.
const SEEN: &str = "\
guest: device and vendor 0x11e81234
guest: selected by 0x80001800
guest: BAR 0 sizes as 0xfff00000
guest: BAR 0 is at 0x00100000
guest: identification 0x010000ed
guest: liveness 0xedcba987
guest: factorial of 10 is 0x00375f00
guest: interrupt status 0x00000100
guest: interrupt status 0x00000000
guest: a copy came back by way of DMA.\r
";

#[test]
fn a_guest_on_kvm_finds_places_and_drives_the_function() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let folder = stack.certs.folder();
        let url = format!(
            "potemkin://{}/?class=edu&label.zone=a&transport={kind}",
            stack.broker_address
        );

        let output = Spawn::new(VMM).arg("--tls").arg(folder).arg(url).run(LIMIT);

        let output = output.and_then(Output::success).unwrap();
        assert_eq!(output.stdout, SEEN, "{kind}: {}", output.stderr);
        let told = &output.stderr;
        assert!(told.contains("attached edu-0"), "{kind}: {told}");
        assert!(told.contains("INTx is high"), "{kind}: {told}");
        assert!(told.contains("INTx is low"), "{kind}: {told}");
        assert!(told.contains("config_reads_remote: 0"), "{kind}: {told}");
        assert!(
            told.contains("bytes_written: 16, bytes_read: 16, refused: 0"),
            "{kind}: {told}"
        );
    }
}

/// What it says of an `order`.
const STRINGS: &str = "\
guest: device and vendor 0x0d3e1234
guest: selected by 0x80001800
guest: BAR 1 is at 0x0000c001
guest: the FIFO gave back what one REP OUTS had put into it.
";

#[test]
fn a_string_goes_into_a_port_of_the_function_and_comes_back_as_one_access() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(1)).unwrap();
        let url = format!(
            "potemkin://{}/{}?transport={kind}",
            stack.broker_address,
            Stack::ORDER
        );

        let output = Spawn::new(VMM).arg("--tls").arg(stack.certs.folder());
        let output = output.arg(url).run(LIMIT).and_then(Output::success);

        let output = output.unwrap();
        assert_eq!(output.stdout, STRINGS, "{kind}: {}", output.stderr);
        let told = &output.stderr;
        // KVM hands out REP INS at once and REP OUTS element by element.
        assert!(told.contains("bar_reads: 1,"), "{kind}: {told}");
    }
}

#[test]
fn what_is_wrong_is_told_before_any_guest_runs() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let url = format!("potemkin://{}/absent-0", stack.broker_address);
    let host = stack.certs.role(Role::Host);

    let absent = Spawn::new(VMM).arg("--tls").arg(stack.certs.folder());
    let absent = absent.arg(&url).run(LIMIT).unwrap();
    let wrong = Spawn::new(VMM).arg("--ca").arg(&host.ca).arg("--cert");
    let wrong = wrong.arg(&host.cert).arg("--key").arg(&host.key);
    let wrong = wrong.arg(&url).run(LIMIT).unwrap();
    let help = Spawn::new(VMM).arg("--help").run(LIMIT).unwrap();

    assert_eq!(absent.status.code(), Some(1));
    assert!(absent.stderr.contains("absent-0"), "{}", absent.stderr);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(wrong.stdout.is_empty() && !wrong.stderr.is_empty());
    assert!(help.stdout.contains("Examples"), "{}", help.stdout);
}
