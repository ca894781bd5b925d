//! Interrupts: how a client connects, masks and receives them.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use potemkin_vfio_user::message::{IrqAction, IrqData, IrqIndex, SetIrqs};
use potemkin_vfio_user::{Client, ClientError, Errno};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use support::{MSI_VECTORS, MSIX_VECTORS, Running, reg};

const BAR0: u32 = 0;

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

/// Its counter, which is set back; 0 if it was not signalled.
fn taken(eventfd: &OwnedFd) -> u64 {
    let mut counter = [0; 8];
    match rustix::io::read(eventfd, &mut counter) {
        Ok(_) => u64::from_ne_bytes(counter),
        Err(Errno::AGAIN) => 0,
        Err(errno) => panic!("{errno}"),
    }
}

fn wait_for(eventfd: &OwnedFd) -> u64 {
    poll(&mut [PollFd::new(eventfd, PollFlags::IN)], None).unwrap();
    taken(eventfd)
}

fn set(
    index: IrqIndex,
    start: u32,
    count: u32,
    action: IrqAction,
    data: IrqData<'_>,
) -> SetIrqs<'_> {
    SetIrqs {
        index,
        start,
        count,
        action,
        data,
    }
}

fn connect(client: &mut Client, index: IrqIndex, start: u32, eventfds: &[&OwnedFd]) {
    let fds: Vec<BorrowedFd<'_>> = eventfds.iter().map(|fd| fd.as_fd()).collect();
    let count = u32::try_from(fds.len()).unwrap();
    client
        .set_irqs(
            &set(index, start, count, IrqAction::Trigger, IrqData::Eventfd),
            &fds,
        )
        .unwrap();
}

fn act(client: &mut Client, index: IrqIndex, vector: u32, action: IrqAction) {
    client
        .set_irqs(&set(index, vector, 1, action, IrqData::None), &[])
        .unwrap();
}

fn write(client: &mut Client, register: u64, value: u32) {
    client
        .region_write(BAR0, register, &value.to_ne_bytes(), false)
        .unwrap();
}

fn read(client: &mut Client, register: u64) -> u32 {
    let mut value = [0; 4];
    client.region_read(BAR0, register, &mut value).unwrap();
    u32::from_ne_bytes(value)
}

fn errno(result: Result<(), ClientError>) -> Errno {
    match result {
        Err(ClientError::Refused { errno, .. }) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_message_interrupt_signals_the_eventfd_of_its_vector_only() {
    let server = Running::start();
    for (index, register) in [(IrqIndex::Msi, reg::MSI), (IrqIndex::Msix, reg::MSIX)] {
        let mut client = server.client();
        let eventfds = [new_eventfd(), new_eventfd(), new_eventfd()];
        connect(&mut client, index, 1, &eventfds.each_ref());

        write(&mut client, register, 2);
        write(&mut client, register, 2);
        write(&mut client, register, 3);

        assert_eq!(eventfds.each_ref().map(taken), [0, 2, 1], "{index:?}");
    }
}

#[test]
fn a_vector_above_the_functions_own_goes_nowhere() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(
        &mut client,
        IrqIndex::Msix,
        u32::from(MSIX_VECTORS) - 1,
        &[&eventfd],
    );

    write(&mut client, reg::MSIX, u32::from(MSIX_VECTORS));
    write(&mut client, reg::MSIX, u32::MAX);

    assert_eq!(taken(&eventfd), 0);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Msix, 5, &[&eventfd]);
    act(&mut client, IrqIndex::Msix, 5, IrqAction::Mask);

    write(&mut client, reg::MSIX, 5);
    write(&mut client, reg::MSIX, 5);
    assert_eq!(
        (taken(&eventfd), read(&mut client, reg::MSIX_PENDING)),
        (0, 1 << 5)
    );

    act(&mut client, IrqIndex::Msix, 5, IrqAction::Unmask);
    assert_eq!(
        (taken(&eventfd), read(&mut client, reg::MSIX_PENDING)),
        (1, 0)
    );
}

#[test]
fn a_vector_that_fires_while_all_are_reconnected_is_not_lost() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Msix, 0, &[&eventfd]);
    client
        .set_irqs(
            &set(IrqIndex::Msix, 0, 0, IrqAction::Trigger, IrqData::None),
            &[],
        )
        .unwrap();

    write(&mut client, reg::MSIX, 0);
    assert_eq!(taken(&eventfd), 0);
    connect(&mut client, IrqIndex::Msix, 0, &[&eventfd]);

    assert_eq!(taken(&eventfd), 1);
}

#[test]
fn a_reset_forgets_what_is_pending_and_keeps_what_is_connected() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Msix, 0, &[&eventfd]);
    act(&mut client, IrqIndex::Msix, 0, IrqAction::Mask);
    write(&mut client, reg::MSIX, 0);

    client.reset().unwrap();
    act(&mut client, IrqIndex::Msix, 0, IrqAction::Unmask);
    assert_eq!(taken(&eventfd), 0);

    write(&mut client, reg::MSIX, 0);
    assert_eq!(taken(&eventfd), 1);
}

#[test]
fn a_disconnected_vector_signals_nobody() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Msix, 3, &[&eventfd]);

    client
        .set_irqs(
            &set(IrqIndex::Msix, 3, 1, IrqAction::Trigger, IrqData::Eventfd),
            &[],
        )
        .unwrap();
    write(&mut client, reg::MSIX, 3);

    assert_eq!(taken(&eventfd), 0);
}

#[test]
fn a_replaced_eventfd_is_closed() {
    let server = Running::start();
    let mut client = server.client();
    let (old, new) = (new_eventfd(), new_eventfd());
    connect(&mut client, IrqIndex::Msix, 3, &[&old]);

    connect(&mut client, IrqIndex::Msix, 3, &[&new]);
    write(&mut client, reg::MSIX, 3);

    assert_eq!((taken(&old), taken(&new)), (0, 1));
}

#[test]
fn booleans_choose_whom_an_action_concerns() {
    let server = Running::start();
    let mut client = server.client();
    let eventfds = [new_eventfd(), new_eventfd(), new_eventfd()];
    connect(&mut client, IrqIndex::Msi, 0, &eventfds.each_ref());

    client
        .set_irqs(
            &set(
                IrqIndex::Msi,
                0,
                3,
                IrqAction::Trigger,
                IrqData::Bool(&[1, 0, 255]),
            ),
            &[],
        )
        .unwrap();
    assert_eq!(eventfds.each_ref().map(taken), [1, 0, 1]);

    client
        .set_irqs(
            &set(
                IrqIndex::Msi,
                0,
                3,
                IrqAction::Mask,
                IrqData::Bool(&[0, 1, 0]),
            ),
            &[],
        )
        .unwrap();
    for vector in 0..3 {
        write(&mut client, reg::MSI, vector);
    }
    assert_eq!(eventfds.each_ref().map(taken), [1, 0, 1]);

    client
        .set_irqs(
            &set(
                IrqIndex::Msi,
                0,
                3,
                IrqAction::Unmask,
                IrqData::Bool(&[0, 1, 0]),
            ),
            &[],
        )
        .unwrap();
    assert_eq!(eventfds.each_ref().map(taken), [0, 1, 0]);
}

#[test]
fn intx_masks_itself_and_comes_again_while_its_level_is_up() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Intx, 0, &[&eventfd]);

    write(&mut client, reg::INTX, 1);
    assert_eq!(taken(&eventfd), 1);
    act(&mut client, IrqIndex::Intx, 0, IrqAction::Unmask);
    assert_eq!(taken(&eventfd), 1, "the level is still up");
    write(&mut client, reg::INTX, 0);
    act(&mut client, IrqIndex::Intx, 0, IrqAction::Unmask);
    assert_eq!(taken(&eventfd), 0, "the level is down");
    write(&mut client, reg::INTX, 1);
    assert_eq!(taken(&eventfd), 1);
}

#[test]
fn intx_that_rises_while_masked_comes_with_the_unmasking() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    connect(&mut client, IrqIndex::Intx, 0, &[&eventfd]);
    act(&mut client, IrqIndex::Intx, 0, IrqAction::Mask);

    write(&mut client, reg::INTX, 1);
    assert_eq!(taken(&eventfd), 0);
    act(&mut client, IrqIndex::Intx, 0, IrqAction::Unmask);

    assert_eq!(taken(&eventfd), 1);
}

#[test]
fn intx_that_is_up_comes_when_its_eventfd_is_connected() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();

    write(&mut client, reg::INTX, 1);
    connect(&mut client, IrqIndex::Intx, 0, &[&eventfd]);

    assert_eq!(taken(&eventfd), 1);
}

#[test]
fn intx_is_unmasked_through_an_eventfd_without_a_message() {
    let server = Running::start();
    let mut client = server.client();
    let (trigger, unmask) = (new_eventfd(), new_eventfd());
    connect(&mut client, IrqIndex::Intx, 0, &[&trigger]);
    let by_eventfd = set(IrqIndex::Intx, 0, 1, IrqAction::Unmask, IrqData::Eventfd);
    client.set_irqs(&by_eventfd, &[unmask.as_fd()]).unwrap();
    write(&mut client, reg::INTX, 1);
    assert_eq!(taken(&trigger), 1);

    for _ in 0..3 {
        rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(wait_for(&trigger), 1);
    }
}

#[test]
fn unplug_is_asked_for_and_errors_are_reported_on_their_own_eventfds() {
    let server = Running::start();
    let mut client = server.client();
    let (error, request) = (new_eventfd(), new_eventfd());
    connect(&mut client, IrqIndex::Err, 0, &[&error]);
    connect(&mut client, IrqIndex::Req, 0, &[&request]);

    write(&mut client, reg::EVENT, 0);
    assert_eq!((taken(&error), taken(&request)), (0, 1));
    write(&mut client, reg::EVENT, 1);
    assert_eq!((taken(&error), taken(&request)), (1, 0));
}

#[test]
fn impossible_combinations_are_refused_and_change_nothing() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    let fd = eventfd.as_fd();
    let vectors = u32::from(MSI_VECTORS);
    use IrqAction::{Mask, Trigger, Unmask};
    use IrqData::{Eventfd, None};
    use IrqIndex::{Err, Intx, Msi, Req};

    let refused: [(SetIrqs<'_>, &[BorrowedFd<'_>]); 13] = [
        (set(Msi, 0, vectors + 1, Mask, None), &[]),
        (set(Msi, vectors, 1, Mask, None), &[]),
        (set(Msi, 0, u32::MAX, Trigger, None), &[]),
        (set(Msi, 0, 2, Trigger, Eventfd), &[fd]),
        (set(Msi, 0, 1, Trigger, Eventfd), &[fd, fd]),
        (set(Msi, 0, 1, Trigger, None), &[fd]),
        (set(Msi, 0, 1, Mask, Eventfd), &[fd]),
        (set(Msi, 0, 1, Unmask, Eventfd), &[fd]),
        (set(Err, 0, 1, Mask, None), &[]),
        (set(Req, 0, 1, Unmask, None), &[]),
        (set(Intx, 0, 2, Trigger, None), &[]),
        (set(Msi, 0, 0, Mask, None), &[]),
        (set(Msi, 0, 0, Trigger, Eventfd), &[]),
    ];
    for (set, fds) in refused {
        assert_eq!(errno(client.set_irqs(&set, fds)), Errno::INVAL, "{set:?}");
    }

    write(&mut client, reg::MSI, 0);
    assert_eq!(taken(&eventfd), 0);
}

#[test]
fn descriptors_that_are_not_eventfds_are_refused_with_all_that_came_along() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = new_eventfd();
    let file = tempfile::tempfile().unwrap();

    let connect = set(IrqIndex::Msi, 0, 2, IrqAction::Trigger, IrqData::Eventfd);
    let result = client.set_irqs(&connect, &[eventfd.as_fd(), file.as_fd()]);
    write(&mut client, reg::MSI, 0);

    assert_eq!(errno(result), Errno::INVAL);
    assert_eq!(taken(&eventfd), 0);
}

#[test]
fn interrupts_of_a_client_that_left_are_not_the_next_ones() {
    let server = Running::start();
    let eventfd = new_eventfd();
    let mut first = server.client();
    connect(&mut first, IrqIndex::Msix, 0, &[&eventfd]);
    drop(first);

    let mut second = server.client();
    write(&mut second, reg::MSIX, 0);

    assert_eq!(taken(&eventfd), 0);
    assert_eq!(read(&mut second, reg::MSIX_PENDING), 1);
}

#[test]
fn a_client_that_fills_its_blocking_eventfd_stops_nobody() {
    let server = Running::start();
    let mut client = server.client();
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    connect(&mut client, IrqIndex::Msix, 0, &[&eventfd]);
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();

    write(&mut client, reg::MSIX, 0);

    assert_eq!(read(&mut client, 0), 0);
}
