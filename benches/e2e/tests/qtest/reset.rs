//! Function-level reset by the PCI Express capability, through QEMU.

use potemkin_testkit::qemu::pci::Pci;
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    await_answer, capability, machine_with_order,
    msix::{Msix, expect},
};

#[test]
fn a_function_level_reset_puts_registers_back_and_the_device_works_again() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        let express = capability(&mut vm, &msix.order, 0x10);
        let order = msix.order.clone();
        msix.aim(&mut vm, 0, false);
        msix.aim(&mut vm, 1, true);
        msix.enable(&mut vm);
        msix.fire(&mut vm, 0);
        expect(&mut vm, 0);
        order
            .write(vm.qtest(), 0, 0x10, 8, 0x1122_3344_5566_7788)
            .unwrap();
        order.write(vm.qtest(), 2, 0x20, 4, 7).unwrap();
        order.write(vm.qtest(), 1, 0, 2, 5).unwrap();
        // Pending, and gone with the reset.
        msix.fire(&mut vm, 1);

        let mut pci = Pci::new(vm.qtest());
        let control = pci.config_read_u16(order.address, express + 8).unwrap();
        pci.config_write_u16(order.address, express + 8, control | 0x8000)
            .unwrap();

        let control = pci.config_read_u16(order.address, express + 8).unwrap();
        assert_eq!(control & 0x8000, 0, "{kind}");
        pci.config_write_u16(order.address, 4, 7).unwrap();
        await_answer(vm.qtest(), &order);
        assert_eq!(order.read(vm.qtest(), 0, 0x10, 8).unwrap(), 0, "{kind}");
        assert_eq!(order.read(vm.qtest(), 2, 0x20, 4).unwrap(), 0, "{kind}");
        assert_eq!(order.read(vm.qtest(), 0, 0x58, 4).unwrap(), 0, "the FIFO");
        assert_eq!(order.read(vm.qtest(), 1, 8, 4).unwrap(), 1, "the ticket");
        assert_eq!(
            order.read(vm.qtest(), 4, 0x1000, 8).unwrap(),
            0,
            "pending bits"
        );

        // As a guest restores it: MSI-X, the table, the vectors.
        msix.enable(&mut vm);
        msix.aim(&mut vm, 0, false);
        msix.aim(&mut vm, 1, false);
        for vector in [1, 0] {
            msix.fire(&mut vm, vector);
            expect(&mut vm, u32::try_from(vector).unwrap());
        }
        order.write(vm.qtest(), 0, 0x10, 8, 5).unwrap();
        assert_eq!(order.read(vm.qtest(), 0, 0x10, 8).unwrap(), 5, "{kind}");
    }
}
