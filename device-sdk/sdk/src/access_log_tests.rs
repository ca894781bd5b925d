#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex, mpsc};

use super::*;
use crate::Width;
use crate::testing::{Scratch, bar0};

/// A writer that the test can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn accesses_are_logged_in_order_and_written_when_idle() {
    let out = Shared::default();
    let mut device = AccessLog::new(Scratch::new(), out.clone());

    device.write(bar0(8, Width::B4), 5).unwrap();
    device.read(bar0(8, Width::B4)).unwrap();
    assert_eq!(out.text(), "");
    device.idle();

    assert_eq!(
        out.text(),
        concat!(
            r#"{"n":1,"op":"write","space":"bar0","offset":8,"width":4,"value":5}"#,
            "\n",
            r#"{"n":2,"op":"read","space":"bar0","offset":8,"width":4,"value":5}"#,
            "\n",
        )
    );
}

#[test]
fn refused_access_is_logged_with_its_error_and_all_ones() {
    let out = Shared::default();
    let mut device = AccessLog::new(Scratch::new(), out.clone());

    device.read(bar0(0x1000, Width::B2)).unwrap_err();
    drop(device);

    assert_eq!(
        out.text(),
        concat!(
            r#"{"n":1,"op":"read","space":"bar0","offset":4096,"width":2,"value":65535,"#,
            r#""error":"no register at BAR 0, offset 0x1000"}"#,
            "\n",
        )
    );
}

#[test]
fn block_is_logged_element_by_element() {
    let out = Shared::default();
    let mut device = AccessLog::new(Scratch::new(), out.clone());

    device
        .write_block(bar0(0, Width::B2), BlockMode::Consecutive, &[1, 0, 2, 0])
        .unwrap();
    device
        .read_block(bar0(2, Width::B2), BlockMode::Fixed, &mut [0; 4])
        .unwrap();
    device.reset(ResetKind::Function);

    let lines: Vec<String> = out.text().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            r#"{"n":1,"op":"write","space":"bar0","offset":0,"width":2,"value":1}"#,
            r#"{"n":2,"op":"write","space":"bar0","offset":2,"width":2,"value":2}"#,
            r#"{"n":3,"op":"read","space":"bar0","offset":2,"width":2,"value":2}"#,
            r#"{"n":4,"op":"read","space":"bar0","offset":2,"width":2,"value":2}"#,
            r#"{"n":5,"op":"reset","kind":"function"}"#,
        ]
    );
}

#[test]
fn buffer_is_bounded() {
    let out = Shared::default();
    let mut device = AccessLog::new(Scratch::new(), out.clone());

    for _ in 0..2_000 {
        device.write(bar0(8, Width::B4), 5).unwrap();
    }

    assert!(out.text().len() > 2_000 * 60 - BUFFER_BYTES);
}

#[test]
fn failed_writer_is_reported_once_and_the_device_goes_on() {
    let (tx, errors) = mpsc::channel();
    let mut device = AccessLog::new(Scratch::new(), Full).on_error(move |error| {
        tx.send(error.kind()).unwrap();
    });

    device.write(bar0(8, Width::B4), 5).unwrap();
    device.idle();
    device.write(bar0(8, Width::B4), 6).unwrap();
    device.idle();

    assert_eq!(device.read(bar0(8, Width::B4)), Ok(6));
    assert_eq!(
        errors.iter().collect::<Vec<_>>(),
        [io::ErrorKind::StorageFull]
    );
}

#[test]
fn text_is_escaped_for_json() {
    assert_eq!(escaped("a \"b\" \\ \n"), r#"a \"b\" \\ \u000a"#);
}

#[test]
fn what_a_host_tells_of_dma_reaches_the_device_and_is_not_logged() {
    let out = Shared::default();
    let mut device = AccessLog::new(Scratch::new(), out.clone());

    device.dma_read_done(1, Ok(&[1]));
    device.dma_write_failed(DmaError::Range);
    device.bus_master_off();
    device.dma_ready();
    device.idle();

    assert_eq!(
        device.device.dma,
        ["read 1", "write failed", "off", "ready"]
    );
    assert_eq!(out.text(), "");
}
