//! A Linux guest in an unmodified QEMU finds the function and drives it; agent, broker and host are in network namespaces of
//! their own.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_e2e::{Places, Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    guest::{Guest, compile},
    netns::Traffic,
};
use potemkin_transport::TransportKind::{Grpc, Quic};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);
const FRAMES: &str = "potemkin_broker_frames_total";

#[test]
fn a_guest_enumerates_without_a_frame_and_drives_the_device_in_another_namespace() {
    for kind in [Quic, Grpc] {
        let options = StackOptions {
            silent: true,
            ..StackOptions::on(kind)
        };
        let stack = Stack::start_in(ROLE, &options, Some(Places::new().unwrap())).unwrap();
        let attached = stack.attach("vm");
        let agent = &stack.places.as_ref().unwrap().agent;
        let folder = tempfile::tempdir().unwrap();
        let program = compile("edu_user", folder.path()).unwrap();
        // Firmware and kernel enumerate; then the guest dumps every function's configuration space, as lspci -xxx does. It waits for a
        // line before it touches the BAR.
        let mut guest = Guest::new(
            &Vmm::from_env(),
            "cat /sys/bus/pci/devices/*/config >/dev/null; edu_user find; read go; edu_user check && edu_user posted 1000",
        )
        .file("/bin/edu_user", &program)
        .machine(|machine| machine.stopped().vfio_user("remote", &attached.socket))
        .start()
        .unwrap();

        // QEMU has reset the function by now; what follows is firmware and kernel.
        let counter = agent.count(Places::UPLINK, Traffic::Port(stack.broker_address.port()));
        let counter = counter.unwrap();
        let quiet = counter
            .wait_silence(Duration::from_millis(500), LIMIT)
            .unwrap();
        let (frames, accesses) = (stack.broker_counter(FRAMES), stack.status("vm").counters);
        guest.vm.qmp.cont().unwrap();
        guest.wait_ready(LIMIT).unwrap();
        guest.wait_line("RESULT class", LIMIT).unwrap();

        let enumerated = stack.status("vm").counters;
        let reads = enumerated.config_reads - accesses.config_reads;
        assert!(reads > 100, "{kind}: {reads} config reads");
        assert_eq!(
            stack.broker_counter(FRAMES),
            frames,
            "{kind}: frames at the broker"
        );
        assert_eq!(
            counter.read().unwrap(),
            quiet,
            "{kind}: packets on the wire"
        );

        guest.send_line("go").unwrap();
        guest.wait_line("RESULT identification", LIMIT).unwrap();
        assert!(
            stack.broker_counter(FRAMES) > frames,
            "{kind}: the first BAR read"
        );
        assert!(
            counter.read().unwrap().packets() > quiet.packets(),
            "{kind}"
        );
        let report = guest.wait_power_off(LIMIT).unwrap();
        assert_eq!(report.status, 0, "{}", report.console);
        let results = report.results();
        assert_eq!(results["identification"], "0x010000ed");
        assert_eq!(results["liveness_12345678"], "0xedcba987");
        assert_eq!(results["factorial_12"], "479001600");
        assert_eq!(results["posted_answer"], "0xfffffc17");
        assert_eq!(results["bar0_size"], "0x100000");
    }
}

#[test]
fn a_guest_whose_host_dies_reads_all_ones_and_goes_on() {
    let mut stack =
        Stack::start_in(ROLE, &StackOptions::default(), Some(Places::new().unwrap())).unwrap();
    let attached = stack.attach("vm");
    let folder = tempfile::tempdir().unwrap();
    let program = compile("edu_user", folder.path()).unwrap();
    let mut guest = Guest::new(&Vmm::from_env(), "edu_user outage 120")
        .file("/bin/edu_user", &program)
        .machine(|machine| machine.vfio_user("remote", &attached.socket))
        .start()
        .unwrap();
    guest.wait_line("WATCHING", LIMIT).unwrap();

    // The link to the host goes down: nobody is told, so the deadline has to find out.
    let host = &stack.places.as_ref().unwrap().host;
    host.link_down(Places::UPLINK).unwrap();

    let report = guest.wait_power_off(LIMIT).unwrap();
    assert_eq!(report.status, 0, "{}", report.console);
    assert!(
        !report.console.contains("soft lockup"),
        "{}",
        report.console
    );
    stack.front.wait_log("session contained", LIMIT).unwrap();
}

#[test]
fn a_guests_driver_does_dma_and_takes_interrupts() {
    for kind in [Quic, Grpc] {
        let places = Some(Places::new().unwrap());
        let stack = Stack::start_in(ROLE, &StackOptions::on(kind), places).unwrap();
        let attached = stack.attach("vm");
        let folder = tempfile::tempdir().unwrap();
        let find = compile("edu_user", folder.path()).unwrap();
        let program = compile("edu_uio", folder.path()).unwrap();
        let script = "f=$(edu_user find | sed -n 's/RESULT function //p'); \
                      echo 1234 11e8 >/sys/bus/pci/drivers/uio_pci_generic/new_id; edu_uio $f 300";
        let guest = Guest::new(&Vmm::from_env(), script)
            .file("/bin/edu_user", &find)
            .file("/bin/edu_uio", &program)
            .module("uio_pci_generic")
            .machine(|machine| machine.vfio_user("remote", &attached.socket));

        let report = guest.run(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{kind}: {}", report.console);
        assert_eq!(report.results()["dma_rounds"], "300");
        let counters = stack.status("vm").counters;
        assert_eq!(counters.dma_bytes_read, 300 * 4_096, "{kind}");
        assert_eq!(counters.dma_bytes_written, 300 * 4_096, "{kind}");
        assert_eq!(counters.interrupts, 600, "{kind}");
        assert_eq!(counters.dma_refused, 0, "{kind}");
    }
}

/// Prints where Linux placed the BARs of `order`, its ROM by its BAR, and whether it can reset the function by itself.
const LOOK_AT_ORDER: &str = "d=$(dirname $(grep -l 0x0d3e /sys/bus/pci/devices/*/device)); \
    n=0; while read start end flags; do echo RESULT resource$n $start $flags; n=$((n+1)); done <$d/resource; \
    echo 1 >$d/rom; echo RESULT rom $(head -c 4 $d/rom | od -A n -t x1 | tr -d ' '); \
    echo RESULT class $(cat $d/class); \
    echo RESULT serial $(od -A n -t x1 -j 260 -N 8 $d/config | tr -d ' '); \
    echo RESULT reset $(cat $d/reset_method); echo 1 >$d/enable && echo 1 >$d/reset && echo RESULT command $(od -A n -t x1 -j 4 -N 1 $d/config)";

#[test]
fn a_guest_places_every_kind_of_bar_reads_the_rom_and_resets_the_function() {
    let stack = Stack::start(ROLE, &StackOptions::default().with_order(2048)).unwrap();
    let order = stack.attach_device("order", Stack::ORDER);

    let report = Guest::new(&Vmm::from_env(), LOOK_AT_ORDER)
        .machine(|machine| machine.vfio_user("remote", &order.socket))
        .run(LIMIT)
        .unwrap();

    assert_eq!(report.status, 0, "{}", report.console);
    let results = report.results();
    // Flags (include/linux/ioport.h): ports, memory, prefetchable, 64 bits; in the low four bits those of the BAR itself.
    for (bar, flags) in [
        (0, "0x0000000000040200"),
        (1, "0x0000000000040101"),
        (2, "0x000000000014220c"),
        (4, "0x0000000000040200"),
        (5, "0x0000000000040202"),
        (6, "0x0000000000046200"),
    ] {
        let resource = &results[format!("resource{bar}").as_str()];
        assert!(resource.ends_with(flags), "BAR {bar}: {resource}");
        assert!(!resource.starts_with("0x0000000000000000"), "BAR {bar}");
    }
    assert_eq!(results["rom"], "55aa04cb");
    assert_eq!(results["class"], "0x120000");
    assert_eq!(results["serial"], "3412000000003e0d");
    assert_eq!(results["reset"], "flr");
    // Restored after the reset: I/O and memory.
    assert_eq!(results["command"], "03");
}
