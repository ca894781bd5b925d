//! Registers without DMA.

use super::*;

#[test]
fn identification_says_what_it_is() {
    let mut order = order();

    assert_eq!(read4(&mut order, 0x00), 0x5244_524f);
    assert_eq!(read4(&mut order, 0x04), 64);
    assert_eq!(read8(&mut order, 0x08), 1 << 20);
    assert_eq!(order.read(bar0(0x00, Width::B2)), 0xffff);
    assert!(order.write(bar0(0x00, Width::B4), 1).is_err());
    assert!(order.try_read(bar0(0xff8, Width::B8)).is_err());
}

#[test]
fn scratch_and_memory_keep_every_width() {
    let mut order = order();
    for (bar, base) in [(0, SCRATCH), (2, 0), (2, 0xf_fff8), (5, 0xff8)] {
        for width in Width::ALL {
            for offset in (0..8).step_by(width.bytes()) {
                let value = 0x8182_8384_8586_8788 & width.all_ones();
                order.write(at(bar, base + offset, width), value).unwrap();
                assert_eq!(order.read(at(bar, base + offset, width)), value);
            }
        }
    }
    // Memory, not registers: at any offset.
    order.write(at(2, 3, Width::B8), u64::MAX).unwrap();
    assert_eq!(order.read(at(2, 2, Width::B2)), 0xff86);
}

#[test]
fn the_msix_bar_holds_nothing_of_the_device() {
    let mut order = order();

    assert!(order.try_read(at(4, 0, Width::B4)).is_err());
    assert!(order.write(at(4, 0x1000, Width::B8), 1).is_err());
}

#[test]
fn each_read_of_the_ticket_is_a_new_one() {
    let mut order = order();

    assert_eq!(read4(&mut order, TICKET), 1);
    assert_eq!(order.read(at(1, 0x8, Width::B4)), 2);
    assert_eq!(read4(&mut order, TICKET), 3);
}

#[test]
fn status_and_events_are_cleared_by_reading_them() {
    let mut order = order();

    write4(&mut order, STATUS_SET, 0x30);
    write4(&mut order, STATUS_SET, 0x40);
    assert_eq!(read4(&mut order, STATUS), 0x70);
    assert_eq!(read4(&mut order, STATUS), 0);
    write4(&mut order, STATUS_SET, 1 << 31);
    assert_eq!(order.read(at(1, 0xc, Width::B4)), 1 << 31);
    assert_eq!(read4(&mut order, STATUS), 0);

    for width in Width::ALL {
        order.write(bar0(EVENT, width), 0).unwrap();
    }
    assert_eq!(read8(&mut order, EVENTS), 4);
    assert_eq!(read8(&mut order, EVENTS), 0);
}

#[test]
fn what_goes_into_the_fifo_comes_out_at_any_width() {
    let mut order = order();

    order
        .write(bar0(FIFO, Width::B8), 0x0807_0605_0403_0201)
        .unwrap();
    order.write(at(1, 0, Width::B2), 0x0a09).unwrap();
    assert_eq!(read4(&mut order, FIFO_LEVEL), 10);
    assert_eq!(order.read(at(1, 0, Width::B1)), 0x01);
    assert_eq!(order.read(bar0(FIFO, Width::B4)), 0x0504_0302);
    assert_eq!(
        order.read(bar0(FIFO, Width::B8)),
        u64::MAX,
        "only 5 are left"
    );
    assert_eq!(read4(&mut order, STATUS), 2);
    let block = order.read_block(at(1, 0, Width::B1), BlockMode::Fixed, 5);
    assert_eq!(block, [6, 7, 8, 9, 10]);
    assert_eq!(read4(&mut order, STATUS), 0);
}

#[test]
fn a_full_fifo_takes_no_more_and_a_cleared_one_is_empty() {
    let mut order = order();
    let data: Vec<u8> = (0..4095_u32).map(|n| n.to_le_bytes()[0]).collect();

    order
        .write_block(at(1, 0, Width::B1), BlockMode::Fixed, &data)
        .unwrap();
    assert!(order.write(bar0(FIFO, Width::B2), 1).is_err());
    assert_eq!(read4(&mut order, FIFO_LEVEL), 4095);
    assert_eq!(read4(&mut order, STATUS), 1);
    order.write(bar0(FIFO, Width::B1), 1).unwrap();
    assert_eq!(read4(&mut order, STATUS), 0);

    write4(&mut order, FIFO_CLEAR, 0);
    assert_eq!(read4(&mut order, FIFO_LEVEL), 0);
}

fn counts(order: &mut Harness<Order>) -> [u64; 4] {
    [ORDER_LAST, ORDER_ACCESSES, ORDER_GAPS, ORDER_REPEATS].map(|at| read8(order, at))
}

#[test]
fn numbers_in_order_are_neither_gaps_nor_repeats() {
    let mut order = order();
    for n in 1..=1000_u64 {
        let width = Width::ALL[usize::try_from(n % 4).unwrap()];
        let to = if n % 3 == 0 && width != Width::B8 {
            at(1, 0x4, width)
        } else {
            bar0(ORDER, width)
        };
        order.write(to, n).unwrap();
    }
    assert_eq!(counts(&mut order), [1000, 1000, 0, 0]);
    assert_eq!(read4(&mut order, STATUS), 0);
}

#[test]
fn gaps_and_repeats_are_counted_and_the_count_goes_on() {
    let mut order = order();

    for n in [1, 2, 2, 3, 5, 6, 4, 5] {
        write4(&mut order, ORDER, n);
    }

    assert_eq!(counts(&mut order), [5, 8, 2, 1]);
    assert_eq!(read4(&mut order, STATUS), 4);
    write8(&mut order, ORDER_LAST, 0x1_0000_00ff);
    assert_eq!(counts(&mut order), [0x1_0000_00ff, 0, 0, 0]);
    order.write(bar0(ORDER, Width::B1), 0).unwrap();
    assert_eq!(counts(&mut order), [0x1_0000_0100, 1, 0, 0]);
}

#[test]
fn intx_follows_what_is_both_raised_and_enabled() {
    let mut order = order();

    write4(&mut order, INTERRUPT_RAISE, 0x30);
    assert!(!order.intx());
    write4(&mut order, INTERRUPT_ENABLE, 0x10);
    assert!(order.intx());
    write4(&mut order, INTERRUPT_STATUS, 0x10);
    assert!(!order.intx());
    assert_eq!(
        read4(&mut order, INTERRUPT_STATUS),
        0x20,
        "only what was written as 1"
    );
    write4(&mut order, INTERRUPT_ENABLE, 0x20);
    assert!(order.intx());
    write4(&mut order, INTERRUPT_ENABLE, 0);
    assert!(!order.intx());
}

#[test]
fn a_vector_is_fired_by_its_number() {
    let mut order = order();

    write4(&mut order, VECTOR_RAISE, 0);
    write4(&mut order, VECTOR_RAISE, 63);
    assert_eq!(order.take_events(), [BusEvent::Msix(0), BusEvent::Msix(63)]);
    for none in [64, 65_536, 0xffff_ffff] {
        assert!(order.write(bar0(VECTOR_RAISE, Width::B4), none).is_err());
    }
    assert_eq!(order.take_events(), []);
}

#[test]
fn a_reset_leaves_nothing_behind() {
    let mut order = order();
    order.write(at(2, 0, Width::B8), 1).unwrap();
    order.write(at(5, 0, Width::B8), 1).unwrap();
    write4(&mut order, SCRATCH, 5);
    read4(&mut order, TICKET);
    write4(&mut order, STATUS_SET, 1);
    write4(&mut order, EVENT, 1);
    write4(&mut order, INTERRUPT_RAISE, 1);
    write4(&mut order, INTERRUPT_ENABLE, 1);
    write4(&mut order, FIFO, 1);
    write4(&mut order, ORDER, 7);
    write8(&mut order, 0x100, 0x1000);

    order.reset(ResetKind::Function);

    assert!(!order.intx());
    assert_eq!(order.read(at(2, 0, Width::B8)), 0);
    assert_eq!(order.read(at(5, 0, Width::B8)), 0);
    assert_eq!(read4(&mut order, TICKET), 1);
    for zero in [
        SCRATCH,
        STATUS,
        INTERRUPT_STATUS,
        INTERRUPT_ENABLE,
        FIFO_LEVEL,
    ] {
        assert_eq!(read4(&mut order, zero), 0, "{zero:#x}");
    }
    for zero in [EVENTS, ORDER_LAST, ORDER_ACCESSES, ORDER_GAPS, 0x100] {
        assert_eq!(read8(&mut order, zero), 0, "{zero:#x}");
    }
}

#[test]
fn its_own_reset_puts_everything_back_and_lowers_intx() {
    let mut order = order();
    write4(&mut order, INTERRUPT_ENABLE, 4);
    write4(&mut order, INTERRUPT_RAISE, 4);
    write4(&mut order, SCRATCH, 7);
    assert!(order.intx());

    write4(&mut order, RESET, 2);
    assert_eq!(read4(&mut order, SCRATCH), 7, "only 1 resets");
    write4(&mut order, RESET, 1);

    assert_eq!(read4(&mut order, SCRATCH), 0);
    assert_eq!(read4(&mut order, INTERRUPT_ENABLE), 0);
    assert!(!order.intx());
}
