//! What the device starts itself: its order, its bounds, and what a new DMA generation does to it.

use bytes::Bytes;

use super::pair::{Pair, at, completed};
use crate::{
    access::{DmaError, Extent, MAX_DMA_BYTES, Status, Vector},
    credit::{DMA_READ_WINDOW, DMA_WRITE_WINDOW, MESSAGE_WINDOW},
    front::{DmaRead, DmaWrite, FrontEvent, Revocation},
    host::{Generations, Work},
};

impl Pair {
    /// Moves everything both ways, without a device, until nothing moves.
    fn exchange(&mut self) {
        loop {
            let forward = self.sent();
            let reverse: Vec<_> = std::iter::from_fn(|| self.host.poll_transmit()).collect();
            if forward.is_empty() && reverse.is_empty() {
                return;
            }
            for frame in forward {
                self.host.handle_frame(frame).unwrap();
            }
            for frame in reverse {
                self.front.handle_frame(frame).unwrap();
            }
        }
    }

    fn events(&mut self) -> Vec<FrontEvent> {
        self.exchange();
        std::iter::from_fn(|| self.front.poll_event()).collect()
    }

    /// The next DMA write, taken.
    fn take_write(&mut self) -> Option<DmaWrite> {
        self.exchange();
        match self.front.poll_event()? {
            FrontEvent::DmaWrite(write) => {
                self.front.dma_written(&write, Ok(()));
                Some(write)
            }
            other => panic!("{other:?}"),
        }
    }

    fn take_read(&mut self) -> DmaRead {
        self.exchange();
        match self.front.poll_event() {
            Some(FrontEvent::DmaRead(read)) => read,
            other => panic!("{other:?}"),
        }
    }

    fn work_once(&mut self) -> Option<Work> {
        self.exchange();
        let work = self.host.next_work()?;
        self.host.complete(Status::Ok, &[]);
        Some(work)
    }
}

fn msi(vector: u16) -> FrontEvent {
    FrontEvent::Interrupt {
        generation: 0,
        vector: Vector::Msi(vector),
    }
}

#[test]
fn an_interrupt_follows_the_dma_write_and_goes_before_the_completion() {
    let mut pair = Pair::live();
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.exchange();
    assert!(matches!(pair.host.next_work(), Some(Work::Access(_))));

    // What the device does while it answers.
    pair.host.dma_write(0, 0x1000, Bytes::from_static(b"data"));
    pair.host.raise(0, Vector::Msi(3));
    pair.host.set_intx(true);
    pair.host.complete(Status::Ok, &[0; 4]);

    let events = pair.events();
    assert!(
        matches!(&events[0], FrontEvent::DmaWrite(w) if w.address == 0x1000 && &w.data[..] == b"data")
    );
    assert_eq!(
        events[1..],
        [msi(3), FrontEvent::Intx(true), completed(read, &[0; 4])]
    );
}

#[test]
fn a_long_write_is_split_and_arrives_whole_and_in_order() {
    let mut pair = Pair::live();
    let data: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[1]).collect();

    pair.host.dma_write(0, 0x1000, data.clone().into());

    let mut arrived = Vec::new();
    while let Some(write) = pair.take_write() {
        assert_eq!(write.address, 0x1000 + arrived.len() as u64);
        assert!(write.data.len() <= MAX_DMA_BYTES);
        arrived.extend_from_slice(&write.data);
    }
    assert_eq!(arrived, data);
    assert_eq!(pair.host.dma_backlog(), 0);
}

#[test]
fn writes_wait_for_room_at_the_agent_and_hold_up_what_follows() {
    let mut pair = Pair::live();
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    pair.host.dma_write(0, 0, vec![1; 2 * window].into());
    pair.host.raise(0, Vector::Msix(1));

    let first = pair.events();
    assert!(first.iter().all(|e| matches!(e, FrontEvent::DmaWrite(_))));
    assert!(pair.host.dma_backlog() >= window);
    let mut last = None;
    for event in first {
        let FrontEvent::DmaWrite(write) = event else {
            unreachable!()
        };
        pair.front.dma_written(&write, Ok(()));
    }
    loop {
        pair.exchange();
        match pair.front.poll_event() {
            Some(FrontEvent::DmaWrite(write)) => pair.front.dma_written(&write, Ok(())),
            Some(event) => last = Some(event),
            None => break,
        }
    }
    assert!(matches!(
        last,
        Some(FrontEvent::Interrupt {
            vector: Vector::Msix(1),
            ..
        })
    ));
}

#[test]
fn a_read_is_put_together_from_its_pieces() {
    let mut pair = Pair::live();
    pair.host.dma_read(0, 0x2000, MAX_DMA_BYTES + 10, 77);

    let first = pair.take_read();
    let second = pair.take_read();
    let now = pair.now;
    pair.front
        .answer_dma_read(now, &first, Ok(vec![1; MAX_DMA_BYTES].into()));
    assert_eq!(pair.work_once(), None);
    pair.front
        .answer_dma_read(now, &second, Ok(vec![2; 10].into()));

    let Some(Work::DmaRead { tag: 77, outcome }) = pair.work_once() else {
        panic!("the read is over");
    };
    let data = outcome.unwrap();
    assert_eq!(data.len(), MAX_DMA_BYTES + 10);
    assert_eq!(data[MAX_DMA_BYTES - 1..MAX_DMA_BYTES + 1], [1, 2]);
    assert_eq!(pair.host.dma_backlog(), 0);
}

#[test]
fn a_failed_piece_fails_the_read() {
    let mut pair = Pair::live();
    pair.host.dma_read(0, 0x2000, 4, 1);
    let read = pair.take_read();

    let now = pair.now;
    pair.front
        .answer_dma_read(now, &read, Err(DmaError::Direction));

    assert_eq!(
        pair.work_once(),
        Some(Work::DmaRead {
            tag: 1,
            outcome: Err(DmaError::Direction)
        })
    );
}

#[test]
fn a_dma_read_is_answered_while_an_access_waits() {
    let mut pair = Pair::live();
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.exchange();
    assert!(matches!(pair.host.next_work(), Some(Work::Access(_))));
    pair.host.dma_read(0, 0, 4, 5);

    let read = pair.take_read();
    let now = pair.now;
    pair.front
        .answer_dma_read(now, &read, Ok(vec![9; 4].into()));
    pair.exchange();

    pair.host.complete(Status::Ok, &[1; 4]);
    assert!(matches!(
        pair.work_once(),
        Some(Work::DmaRead {
            tag: 5,
            outcome: Ok(_)
        })
    ));
}

#[test]
fn a_failed_write_is_reported_once_for_many() {
    let mut pair = Pair::live();
    for _ in 0..3 {
        pair.host.dma_write(0, 0, Bytes::from_static(b"x"));
    }
    let events = pair.events();
    for event in &events {
        let FrontEvent::DmaWrite(write) = event else {
            panic!("{event:?}");
        };
        pair.front.dma_written(write, Err(DmaError::Range));
    }

    assert_eq!(
        pair.work_once(),
        Some(Work::DmaWriteFailed(DmaError::Range))
    );
    assert_eq!(pair.work_once(), None);
}

#[test]
fn nothing_older_is_sent_after_bus_mastering_was_turned_off() {
    let mut pair = Pair::live();
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    pair.host.dma_write(0, 0, vec![1; 2 * window].into());
    pair.host.dma_read(0, 0, 4, 8);
    pair.host.raise(0, Vector::Msi(0));
    let on_their_way = pair.events().len();

    let now = pair.now;
    assert_eq!(pair.front.revoke(now, Revocation::BusMasterOff), 1);
    assert_eq!(pair.work_once(), Some(Work::BusMasterOff));

    assert!(on_their_way > 0);
    let generations = Generations {
        newest: 1,
        floor: 1,
    };
    assert_eq!(pair.host.generations(), generations);
    assert_eq!(
        pair.work_once(),
        Some(Work::DmaRead {
            tag: 8,
            outcome: Err(DmaError::Disabled)
        })
    );
    pair.host.dma_write(0, 0, Bytes::from_static(b"late"));
    pair.host.raise(0, Vector::Msi(0));
    assert_eq!(pair.events(), []);
    assert_eq!(pair.host.dma_backlog(), 0);
}

#[test]
fn after_a_reset_the_device_hears_of_no_older_read() {
    let mut pair = Pair::live();
    pair.host.dma_read(0, 0, 4, 8);
    let read = pair.take_read();

    let now = pair.now;
    pair.front.reset(now);
    pair.front
        .answer_dma_read(now, &read, Err(DmaError::Disabled));

    assert_eq!(pair.work_once(), Some(Work::Reset));
    assert_eq!(pair.work_once(), None);
    assert_eq!(pair.host.dma_backlog(), 0);
}

#[test]
fn a_level_from_before_a_reset_is_not_shown() {
    let mut pair = Pair::live();
    pair.host.set_intx(true);
    let now = pair.now;
    pair.front.reset(now);
    assert_eq!(pair.events(), []);

    // The reset lowers it, and the device raises it anew.
    assert_eq!(pair.host.next_work(), Some(Work::Reset));
    pair.host.set_intx(false);
    pair.host.complete(Status::Ok, &[]);
    assert_eq!(pair.events(), [FrontEvent::Intx(false)]);
    pair.host.set_intx(true);

    assert_eq!(pair.events(), [FrontEvent::Intx(true)]);
}

#[test]
fn an_unmapped_window_is_told_before_the_next_access_and_by_itself_sends_nothing() {
    let mut pair = Pair::live();
    let now = pair.now;
    assert_eq!(pair.front.revoke(now, Revocation::Unmapped), 1);
    assert_eq!(pair.front.revoke(now, Revocation::Unmapped), 2);
    assert_eq!(pair.sent().len(), 0);

    pair.write(0, 1);
    assert!(matches!(pair.work_once(), Some(Work::Access(_))));

    let generations = Generations {
        newest: 2,
        floor: 0,
    };
    assert_eq!(pair.host.generations(), generations);
}

#[test]
fn a_storm_of_interrupts_coalesces_and_loses_none() {
    let mut pair = Pair::live();
    for round in 0..10_000_u16 {
        pair.host.raise(0, Vector::Msix(round % 700));
        pair.host.set_intx(round % 2 == 0);
    }
    pair.host.set_intx(true);
    let mut frames = Vec::new();
    frames.extend(std::iter::from_fn(|| pair.host.poll_transmit()));
    let mut vectors = std::collections::BTreeSet::new();
    let mut count = 0;
    let mut level = false;
    loop {
        for frame in frames.drain(..) {
            pair.front.handle_frame(frame).unwrap();
        }
        while let Some(event) = pair.front.poll_event() {
            count += 1;
            match event {
                FrontEvent::Interrupt { vector, .. } => {
                    vectors.insert(vector);
                }
                FrontEvent::Intx(now) => level = now,
                other => panic!("{other:?}"),
            }
        }
        let acknowledgements = pair.sent();
        if acknowledgements.is_empty() {
            break;
        }
        for frame in acknowledgements {
            pair.host.handle_frame(frame).unwrap();
        }
        frames.extend(std::iter::from_fn(|| pair.host.poll_transmit()));
    }
    assert_eq!(vectors.len(), 700, "each vector came");
    assert!(level, "the last level came");
    assert!(count < 700 + 2 * usize::try_from(MESSAGE_WINDOW).unwrap());
}

/// As many interrupts as may be unacknowledged are under way: later ones wait together.
fn crowded() -> Pair {
    let mut pair = Pair::live();
    for _ in 0..MESSAGE_WINDOW {
        pair.host.raise(0, Vector::Msix(0));
    }
    pair
}

/// What comes behind those.
fn behind_the_crowd(pair: &mut Pair) -> Vec<FrontEvent> {
    let mut events = Vec::new();
    loop {
        pair.exchange();
        let Some(event) = pair.front.poll_event() else {
            break;
        };
        if let FrontEvent::DmaWrite(write) = &event {
            pair.front.dma_written(write, Ok(()));
        }
        events.push(event);
    }
    events.split_off(MESSAGE_WINDOW as usize)
}

fn kinds(events: &[FrontEvent]) -> Vec<&'static str> {
    let kind = |event: &FrontEvent| match event {
        FrontEvent::DmaWrite(_) => "write",
        FrontEvent::Interrupt { .. } => "vector",
        FrontEvent::Intx(true) => "high",
        FrontEvent::Intx(false) => "low",
        other => panic!("{other:?}"),
    };
    events.iter().map(kind).collect()
}

#[test]
fn a_level_that_waits_keeps_its_place_behind_the_data() {
    let mut pair = crowded();
    pair.host.raise(0, Vector::Msix(1));
    pair.host.dma_write(0, 0, Bytes::from_static(b"data"));
    pair.host.set_intx(true);

    let events = behind_the_crowd(&mut pair);

    assert_eq!(kinds(&events), ["vector", "write", "high"]);
}

#[test]
fn the_last_level_is_the_last_that_comes() {
    let mut pair = crowded();
    pair.host.raise(0, Vector::Msix(1));
    pair.host.dma_write(0, 0, Bytes::from_static(b"data"));
    pair.host.set_intx(true);
    pair.host.dma_write(0, 0, Bytes::from_static(b"data"));
    pair.host.set_intx(false);

    let events = behind_the_crowd(&mut pair);
    assert_eq!(kinds(&events), ["vector", "write", "write", "low"]);

    // And with room for the first change by itself.
    let mut pair = crowded();
    pair.host.raise(0, Vector::Msix(1));
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    pair.host.dma_write(0, 0, vec![0; 2 * window].into());
    pair.exchange();
    pair.host.set_intx(true);
    for _ in 0..MESSAGE_WINDOW {
        pair.host.raise(0, Vector::Msix(0));
    }
    pair.host.dma_write(0, 0, Bytes::from_static(b"data"));
    pair.host.set_intx(false);

    let events = behind_the_crowd(&mut pair);
    assert_eq!(kinds(&events).last(), Some(&"low"));
}

#[test]
fn a_write_that_a_reset_made_void_is_no_failure_of_what_comes_after() {
    for off in [false, true] {
        let mut pair = Pair::live();
        for _ in 0..2 {
            pair.host.dma_write(0, 0, Bytes::from_static(b"x"));
        }
        let events = pair.events();
        let [FrontEvent::DmaWrite(first), FrontEvent::DmaWrite(second)] = &events[..] else {
            panic!("{events:?}");
        };

        pair.front.dma_written(first, Err(DmaError::Range));
        if off {
            pair.front.revoke(pair.now, Revocation::BusMasterOff);
        } else {
            pair.front.reset(pair.now);
        }
        pair.front.dma_written(second, Err(DmaError::Disabled));

        let told = [pair.work_once(), pair.work_once()];
        let revoked = if off { Work::BusMasterOff } else { Work::Reset };
        assert_eq!(told, [Some(revoked), None]);
    }
}

#[test]
fn a_long_dma_read_holds_up_no_answer_and_no_acknowledgement() {
    let mut pair = Pair::live();
    // Twice what may be unanswered.
    let length = 2 * usize::try_from(DMA_READ_WINDOW).unwrap() * 64;
    pair.host.dma_read(0, 0, length, 1);
    pair.exchange();
    assert!(pair.host.dma_backlog() > length / 2, "pieces wait");

    pair.write(0, 1);
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    let frames = pair.sent();
    for answer in pair.deliver(frames) {
        pair.front.handle_frame(answer).unwrap();
    }

    let events: Vec<_> = std::iter::from_fn(|| pair.front.poll_event()).collect();
    assert_eq!(events.last(), Some(&completed(read, &[0, 1, 2, 3])));
    assert_eq!(pair.front.acknowledged(), read);
}

#[test]
fn a_dma_read_goes_behind_the_writes_before_it() {
    let mut pair = Pair::live();
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    pair.host.dma_write(0, 0, vec![1; 2 * window].into());
    pair.host.dma_read(0, 0, 4, 1);

    let mut last = None;
    while last.is_none() {
        pair.exchange();
        match pair.front.poll_event() {
            Some(FrontEvent::DmaWrite(write)) => pair.front.dma_written(&write, Ok(())),
            other => last = other,
        }
    }

    assert!(matches!(last, Some(FrontEvent::DmaRead(_))), "{last:?}");
    assert_eq!(pair.front.poll_event(), None);
}

#[test]
fn reverse_items_are_encoded_as_in_the_schema() {
    use potemkin_proto::v1;
    use prost::Message;

    let mut pair = Pair::live();
    pair.host.dma_write(0, 1 << 40, Bytes::from_static(b"abc"));
    pair.host.dma_read(0, 0x1000, 64, 1);
    pair.host.raise(0, Vector::Msi(1));
    pair.host.raise(0, Vector::Msix(2_047));
    pair.host.set_intx(true);

    let frame = pair.host.poll_transmit().unwrap();

    let decoded = v1::Frame::decode(frame.clone()).unwrap();
    assert_eq!(decoded.encode_to_vec(), frame);
    let header = decoded.header.unwrap();
    assert_eq!(
        (header.dma_writes, header.dma_reads, header.interrupts),
        (1, 1, 3)
    );
}
