//! Nothing overtakes what the device did before it: neither an answer nor an acknowledgement.

use bytes::Bytes;

use super::pair::{Pair, at, completed};
use crate::{
    access::{Extent, Status, Vector},
    credit::{DMA_WRITE_WINDOW, MESSAGE_WINDOW},
    front::FrontEvent,
    host::Work,
};

impl Pair {
    /// Hands all that the host has ready to the front; what happened there, without anything going back.
    fn arrive(&mut self) -> Vec<FrontEvent> {
        for frame in std::iter::from_fn(|| self.host.poll_transmit()) {
            self.front.handle_frame(frame).unwrap();
        }
        std::iter::from_fn(|| self.front.poll_event()).collect()
    }

    /// Has the host take what the front has ready, and gives the next access.
    fn next_access(&mut self) {
        for frame in self.sent() {
            self.host.handle_frame(frame).unwrap();
        }
        assert!(matches!(self.host.next_work(), Some(Work::Access(_))));
    }
}

/// More than the agent has room for.
fn bulk() -> Bytes {
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    vec![1; 2 * window].into()
}

#[test]
fn an_answer_behind_dma_without_room_is_not_acknowledged_before_it_is_there() {
    let mut pair = Pair::live();
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.next_access();
    pair.host.dma_write(0, 0, bulk());
    pair.host.complete(Status::Ok, &[7; 4]);

    let first = pair.arrive();
    assert!(first.iter().all(|e| matches!(e, FrontEvent::DmaWrite(_))));
    assert_eq!(pair.front.acknowledged(), 0);

    let mut arrived = first;
    let mut others = Vec::new();
    while !arrived.is_empty() {
        for event in arrived {
            match event {
                FrontEvent::DmaWrite(write) => pair.front.dma_written(&write, Ok(())),
                other => others.push(other),
            }
        }
        for frame in pair.sent() {
            pair.host.handle_frame(frame).unwrap();
        }
        arrived = pair.arrive();
    }
    assert_eq!(others, [completed(read, &[7; 4])]);
    assert_eq!(pair.front.acknowledged(), read);
}

#[test]
fn a_posted_write_is_acknowledged_after_the_dma_that_it_caused() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.next_access();
    pair.host.dma_write(0, 0, bulk());
    pair.host.complete(Status::Ok, &[]);

    pair.arrive();

    assert_eq!(pair.front.acknowledged(), 0, "some of it has no room yet");
}

#[test]
fn an_answer_does_not_overtake_interrupts_that_have_no_room() {
    let mut pair = Pair::live();
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.next_access();
    let window = u16::try_from(MESSAGE_WINDOW).unwrap();
    for vector in 0..2 * window {
        pair.host.raise(0, Vector::Msix(vector));
    }
    pair.host.set_intx(true);
    pair.host.complete(Status::Ok, &[7; 4]);

    let first = pair.arrive();
    assert_eq!(first.len(), usize::from(window));
    let mut rest = Vec::new();
    loop {
        let acknowledgements = pair.sent();
        if acknowledgements.is_empty() {
            break;
        }
        for frame in acknowledgements {
            pair.host.handle_frame(frame).unwrap();
        }
        rest.extend(pair.arrive());
    }

    let answer = rest.pop();
    assert_eq!(answer, Some(completed(read, &[7; 4])));
    assert_eq!(rest.pop(), Some(FrontEvent::Intx(true)));
    assert_eq!(rest.len(), usize::from(window));
}

#[test]
fn a_vector_without_room_waits_for_the_data_of_its_last_raise() {
    let mut pair = Pair::live();
    let window = u16::try_from(MESSAGE_WINDOW).unwrap();
    for vector in 0..=window {
        pair.host.raise(0, Vector::Msix(vector));
    }
    pair.host.dma_write(0, 0x1000, Bytes::from_static(b"data"));
    pair.host.raise(0, Vector::Msix(window));

    let mut events = Vec::new();
    loop {
        events.extend(pair.arrive());
        let acknowledgements = pair.sent();
        if acknowledgements.is_empty() {
            break;
        }
        for frame in acknowledgements {
            pair.host.handle_frame(frame).unwrap();
        }
    }

    let last = |event: &FrontEvent| matches!(event, FrontEvent::Interrupt { vector: Vector::Msix(v), .. } if *v == window);
    assert_eq!(events.iter().filter(|event| last(event)).count(), 1);
    assert!(last(&events[events.len() - 1]), "behind its data");
}
