//! Linux guests.

use std::path::Path;

use potemkin_testkit::{Vmm, guest::Guest};
use serde_json::json;

/// A guest with vfio-pci behind an IOMMU, and the function behind this socket.
#[must_use]
pub fn guest_with_iommu(script: &str, socket: &Path) -> Guest {
    // Only in caching mode does the guest say what it maps, and QEMU tells the device.
    let iommu = json!({ "driver": "intel-iommu", "intremap": "on", "caching-mode": true });
    Guest::new(&Vmm::from_env(), script)
        .module("vfio_iommu_type1")
        .module("vfio-pci")
        // The kernel's early look at the timer fails on a machine that has other work too, and behind an IOMMU that is a panic.
        .kernel_arguments("intel_iommu=on no_timer_check")
        .machine(|machine| machine.device(iommu).vfio_user("remote", socket))
}
