//! A driver in a Linux guest takes MSI and MSI-X interrupts, and does DMA through the guest's own IOMMU: what it maps and unmaps reaches
//! the agent as `DMA_MAP` and `DMA_UNMAP` while the device works.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_e2e::{Stack, StackOptions, guest_with_iommu};
use potemkin_testkit::guest::compile;
use potemkin_transport::TransportKind::{self, Grpc, Quic};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);
const ROUNDS: u64 = 300;

#[test]
fn a_driver_takes_msi_and_does_dma_through_its_iommu_over_quic() {
    a_driver_takes_msi_and_does_dma_through_its_iommu(Quic);
}

#[test]
fn a_driver_takes_msi_and_does_dma_through_its_iommu_over_grpc() {
    a_driver_takes_msi_and_does_dma_through_its_iommu(Grpc);
}

fn a_driver_takes_msi_and_does_dma_through_its_iommu(kind: TransportKind) {
    let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
    let socket = stack.attach("vm").socket;
    let folder = tempfile::tempdir().unwrap();
    let find = compile("edu_user", folder.path()).unwrap();
    let program = compile("edu_vfio", folder.path()).unwrap();
    let script = format!(
        "f=$(edu_user find | sed -n 's/RESULT function //p'); \
         echo 1234 11e8 >/sys/bus/pci/drivers/vfio-pci/new_id; edu_vfio $f {ROUNDS}"
    );
    let guest = guest_with_iommu(&script, &socket)
        .file("/bin/edu_user", &find)
        .file("/bin/edu_vfio", &program);

    let report = guest.run(LIMIT).unwrap();

    assert_eq!(report.status, 0, "{}", report.console);
    let results = report.results();
    assert_eq!(results["dma_rounds"], ROUNDS.to_string());
    // One for each transfer: of the rounds, of the many pages, and of the refusals.
    let interrupts = ROUNDS * 2 + 2 + 2;
    let line: Vec<_> = results["interrupts"].split_whitespace().collect();
    assert_eq!(line[1], interrupts.to_string(), "{line:?}");
    assert!(line[2].contains("PCI-MSI"), "{line:?}");
    let counters = stack.status("vm").counters;
    assert_eq!(counters.interrupts, interrupts);
    assert_eq!(counters.dma_bytes_read, ROUNDS * 4_096);
    assert_eq!(counters.dma_bytes_written, (ROUNDS + 2) * 4_096);
    assert_eq!(counters.dma_refused, 2);
}

/// Of `order`, that its program takes.
const VECTORS: u64 = 8;

#[test]
fn a_driver_takes_many_msix_vectors_each_after_its_data_over_quic() {
    a_driver_takes_many_msix_vectors_each_after_its_data(Quic);
}

#[test]
fn a_driver_takes_many_msix_vectors_each_after_its_data_over_grpc() {
    a_driver_takes_many_msix_vectors_each_after_its_data(Grpc);
}

fn a_driver_takes_many_msix_vectors_each_after_its_data(kind: TransportKind) {
    let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(64)).unwrap();
    let socket = stack.attach_device("vm", Stack::ORDER).socket;
    let folder = tempfile::tempdir().unwrap();
    let program = compile("order_vfio", folder.path()).unwrap();
    let script = format!(
        "cd /sys/bus/pci/drivers/vfio-pci; echo 1234 0d3e >new_id; order_vfio $(echo 0000:*) {ROUNDS}"
    );
    let guest = guest_with_iommu(&script, &socket).file("/bin/order_vfio", &program);

    let report = guest.run(LIMIT).unwrap();

    assert_eq!(report.status, 0, "{}", report.console);
    assert_eq!(report.results()["message_rounds"], ROUNDS.to_string());
    let lines = report.console.lines().map(str::trim);
    let lines = lines.filter_map(|line| line.strip_prefix("RESULT interrupts "));
    // The rounds before the reset and those after it, over all vectors in turn.
    let taken: Vec<u64> = lines
        .map(|line| {
            assert!(line.contains("PCI-MSIX"), "{line:?}");
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        })
        .collect();
    let expected = (0..VECTORS).map(|vector| 2 * (ROUNDS - vector).div_ceil(VECTORS));
    assert_eq!(taken, expected.collect::<Vec<_>>(), "{}", report.console);
    let counters = stack.status("vm").counters;
    assert_eq!(counters.interrupts, 2 * ROUNDS);
    assert_eq!(counters.dma_bytes_written, 2 * ROUNDS * 4_096);
    assert_eq!(counters.dma_refused, 0);
}
