#![allow(clippy::unwrap_used)]

use super::*;

const FIFO: u64 = 0xff8;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn refused_read_is_all_ones_at_its_width() {
    let mut harness = Harness::new(Scratch::new());

    assert_eq!(harness.read(bar0(0x1000, Width::B2)), 0xffff);
    assert_eq!(
        harness.try_read(bar0(0x1000, Width::B2)),
        Err(AccessError::NoRegister(bar0(0x1000, Width::B2)))
    );
}

#[test]
fn written_value_is_cut_to_the_width() {
    let mut harness = Harness::new(Scratch::new());

    harness.write(bar0(0, Width::B1), 0x1ff).unwrap();

    assert_eq!(harness.read(bar0(0, Width::B4)), 0xff);
}

#[test]
#[should_panic(expected = "outside of the 8192 bytes")]
fn access_across_the_end_of_a_bar_is_the_tests_mistake() {
    Harness::new(Scratch::new()).read(bar0(8190, Width::B4));
}

#[test]
#[should_panic(expected = "outside of the 0 bytes")]
fn access_to_a_missing_bar_is_the_tests_mistake() {
    let at = Register::new(Space::Bar(BarIndex::B3), 0, Width::B4);

    Harness::new(Scratch::new()).read(at);
}

#[test]
fn consecutive_block_moves_on_and_fixed_block_stays() {
    let mut harness = Harness::new(Scratch::new());

    harness
        .write_block(
            bar0(4, Width::B2),
            BlockMode::Consecutive,
            &[1, 2, 3, 4, 5, 6],
        )
        .unwrap();
    harness
        .write_block(bar0(FIFO, Width::B2), BlockMode::Fixed, &[1, 2, 3, 4])
        .unwrap();

    assert_eq!(harness.read(bar0(4, Width::B8)), 0x0605_0403_0201);
    assert_eq!(
        harness.read_block(bar0(6, Width::B2), BlockMode::Consecutive, 2),
        [3, 4, 5, 6]
    );
    assert_eq!(harness.read(bar0(FIFO, Width::B2)), 0x0201);
    assert_eq!(harness.read(bar0(FIFO, Width::B2)), 0x0403);
}

#[test]
fn failed_element_of_a_block_is_all_ones_and_the_others_are_read() {
    let mut harness = Harness::new(Scratch::new());
    harness.write(bar0(FIFO, Width::B2), 0x0201).unwrap();

    let data = harness.read_block(bar0(FIFO, Width::B2), BlockMode::Fixed, 2);

    assert_eq!(data, [1, 2, 0xff, 0xff]);
}

#[test]
fn failed_element_of_a_written_block_is_reported_after_the_others() {
    let mut harness = Harness::new(Scratch::new());

    let outcome = harness.write_block(bar0(FIFO - 2, Width::B2), BlockMode::Consecutive, &[7; 6]);

    // The second element goes to the FIFO, the third hits nothing.
    let missing = bar0(FIFO + 2, Width::B2);
    assert_eq!(outcome, Err(AccessError::NoRegister(missing)));
    assert_eq!(harness.read(bar0(FIFO - 2, Width::B2)), 0x0707);
    assert_eq!(harness.read(bar0(FIFO, Width::B2)), 0x0707);
}

#[test]
fn block_with_half_an_element_is_refused_whole() {
    let mut harness = Harness::new(Scratch::new());
    let at = bar0(0, Width::B4);

    let outcome = harness.write_block(at, BlockMode::Consecutive, &[1; 6]);

    assert_eq!(outcome, Err(AccessError::BlockLength { at, length: 6 }));
    assert_eq!(harness.read(at), 0);
}

#[test]
fn notify_from_another_thread_is_delivered_once() {
    let mut harness = Harness::new(Scratch::new());
    let handle = harness.device().handle.clone().unwrap();

    let thread = std::thread::spawn(move || handle.notify());

    assert!(harness.wait_notified(LIMIT));
    assert!(!harness.deliver());
    assert_eq!(harness.device().notified, 1);
    thread.join().unwrap();
}

#[test]
fn wait_without_a_notify_says_so() {
    let mut harness = Harness::new(Scratch::new());

    assert!(!harness.wait_notified(Duration::ZERO));
    assert_eq!(harness.device().notified, 0);
}
