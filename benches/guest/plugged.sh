#!/bin/sh
# What a guest does at each event of its kernel (busybox's uevent starts it, with the event in the environment). Once uio_pci_generic has
# taken a function of edu, a program reads its identification and has a page moved both ways, with an interrupt each. Once vfio-pci has taken
# an order, a program reads its ROM and has pages written, with MSI-X for each.
#
# Lines: "PLUGGED PASS" or "PLUGGED FAIL" after what the program said; "REMOVED"; "LISTENING" at the first event of a CPU.
case $ACTION:$SUBSYSTEM:$PCI_ID in
bind:pci:1234:11E8) if edu_uio "$PCI_SLOT_NAME" 1; then echo PLUGGED PASS; else echo PLUGGED FAIL; fi ;;
bind:pci:1234:0D3E) if order_vfio "$PCI_SLOT_NAME" 16; then echo PLUGGED PASS; else echo PLUGGED FAIL; fi ;;
remove:pci:1234:11E8) echo REMOVED ;;
change:cpu:*) [ -e /run/listening ] || echo LISTENING ; : >/run/listening ;;
esac
