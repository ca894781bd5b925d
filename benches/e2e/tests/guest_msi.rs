//! A driver in a Linux guest takes MSI interrupts, and does DMA through the guest's own IOMMU: what it maps and unmaps reaches the
//! agent as `DMA_MAP` and `DMA_UNMAP` while the device works.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    guest::{Guest, compile},
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use serde_json::json;

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
    // Only in caching mode does the guest say what it maps, and QEMU tells the device.
    let iommu = json!({ "driver": "intel-iommu", "intremap": "on", "caching-mode": true });
    let guest = Guest::new(&Vmm::from_env(), &script)
        .file("/bin/edu_user", &find)
        .file("/bin/edu_vfio", &program)
        .module("vfio_iommu_type1")
        .module("vfio-pci")
        .kernel_arguments("intel_iommu=on")
        .machine(|machine| machine.device(iommu).vfio_user("remote", &socket));

    let report = guest.run(LIMIT).unwrap();

    assert_eq!(report.status, 0, "{}", report.console);
    let results = report.results();
    assert_eq!(results["dma_rounds"], ROUNDS.to_string());
    // One for each transfer, those that were refused too.
    let interrupts = ROUNDS * 2 + 2;
    let line: Vec<_> = results["interrupts"].split_whitespace().collect();
    assert_eq!(line[1], interrupts.to_string(), "{line:?}");
    assert!(line[2].contains("PCI-MSI"), "{line:?}");
    let counters = stack.status("vm").counters;
    assert_eq!(counters.interrupts, interrupts);
    assert_eq!(counters.dma_bytes_read, ROUNDS * 4_096);
    assert_eq!(counters.dma_bytes_written, ROUNDS * 4_096);
    assert_eq!(counters.dma_refused, 2);
}
