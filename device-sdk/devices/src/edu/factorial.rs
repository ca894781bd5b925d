//! The thread that computes factorials.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use potemkin_sdk::DeviceHandle;

/// `n!` modulo 2^32.
pub(super) fn factorial(n: u32) -> u32 {
    let mut product = 1u32;
    for factor in 1..=n {
        product = product.wrapping_mul(factor);
        // From 34! on every factorial is a multiple of 2^32: without this a guest could keep the thread busy for seconds.
        if product == 0 {
            break;
        }
    }
    product
}

/// Computes one factorial at a time on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    desk: Arc<Desk>,
}

impl Worker {
    /// Starts the thread, which calls `handle.notify()` for each answer.
    pub(super) fn start(handle: DeviceHandle) -> io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let at_work = Arc::clone(&desk);
        thread::Builder::new()
            .name("edu-factorial".into())
            .spawn(move || work(&at_work, &handle))?;
        Ok(Self { desk })
    }

    /// Asks for the factorial of `n`, in place of whatever was asked for before.
    pub(super) fn ask(&self, n: u32) {
        let mut paper = self.desk.paper();
        paper.asked = Some(n);
        paper.answer = None;
        paper.question += 1;
        self.desk.changed.notify_one();
    }

    /// Forgets the question, and an answer that has not been taken.
    pub(super) fn cancel(&self) {
        let mut paper = self.desk.paper();
        paper.asked = None;
        paper.answer = None;
        paper.question += 1;
    }

    /// The answer to the newest question, once.
    pub(super) fn take(&self) -> Option<u32> {
        self.desk.paper().answer.take()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.desk.paper().closed = true;
        self.desk.changed.notify_one();
    }
}

/// Shared by the device and the thread. Held for a few instructions by either.
#[derive(Debug, Default)]
struct Desk {
    paper: Mutex<Paper>,
    /// There is a question, or the desk is closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Paper {
    asked: Option<u32>,
    answer: Option<u32>,
    /// Counts questions, so that an answer to an older one is recognised.
    question: u64,
    closed: bool,
}

impl Desk {
    fn paper(&self) -> MutexGuard<'_, Paper> {
        self.paper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a question; `None` when the desk is closed.
    fn question(&self) -> Option<(u64, u32)> {
        let mut paper = self.paper();
        loop {
            if paper.closed {
                return None;
            }
            if let Some(n) = paper.asked.take() {
                return Some((paper.question, n));
            }
            paper = self
                .changed
                .wait(paper)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// False when the question has been withdrawn meanwhile.
    fn answer(&self, question: u64, answer: u32) -> bool {
        let mut paper = self.paper();
        let current = paper.question == question;
        if current {
            paper.answer = Some(answer);
        }
        current
    }
}

fn work(desk: &Desk, handle: &DeviceHandle) {
    while let Some((question, n)) = desk.question() {
        if desk.answer(question, factorial(n)) {
            handle.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use potemkin_sdk::Interrupts;
    use potemkin_sdk::hosting::Wake;

    use super::*;

    struct Bell(Mutex<mpsc::Sender<()>>);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }

    #[test]
    fn factorials_are_modulo_2_to_the_32() {
        let expected = [
            (0, 1),
            (1, 1),
            (5, 120),
            (12, 479_001_600),
            (13, 1_932_053_504),
        ];
        for (n, product) in expected {
            assert_eq!(factorial(n), product, "{n}!");
        }
        assert_eq!(factorial(33), 0x8000_0000);
        assert_eq!(factorial(34), 0);
        assert_eq!(factorial(u32::MAX), 0);
    }

    #[test]
    fn answer_is_taken_once() {
        let (tx, rung) = mpsc::channel();
        let (handle, _end) = DeviceHandle::new(Bell(Mutex::new(tx)), Interrupts::default());
        let worker = Worker::start(handle).unwrap();

        worker.ask(6);
        rung.recv().unwrap();

        assert_eq!(worker.take(), Some(720));
        assert_eq!(worker.take(), None);
    }

    #[test]
    fn answer_to_a_withdrawn_question_is_dropped() {
        let worker = Worker {
            desk: Arc::new(Desk::default()),
        };
        worker.ask(6);
        let (question, n) = worker.desk.question().unwrap();

        worker.cancel();

        assert!(!worker.desk.answer(question, factorial(n)));
        assert_eq!(worker.take(), None);
    }

    #[test]
    fn dropped_worker_ends_its_thread() {
        let (tx, rung) = mpsc::channel();
        let (handle, end) = DeviceHandle::new(Bell(Mutex::new(tx)), Interrupts::default());
        let worker = Worker::start(handle).unwrap();
        drop(end);

        drop(worker);

        // The thread held the last handle, and with it the sender.
        assert_eq!(rung.recv(), Err(mpsc::RecvError));
    }
}
