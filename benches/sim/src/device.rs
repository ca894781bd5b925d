//! The device: registers whose side effects make a lost, repeated or reordered access visible, and work that it does by DMA.

use std::collections::VecDeque;

use bytes::Bytes;
use potemkin_session::{
    access::{DmaError, Status, Vector},
    credit::MESSAGE_WINDOW,
};

use crate::{
    clock::Micros,
    oracle::VECTORS,
    plan::DevicePlan,
    rng::{Rng, mix},
};

/// Byte offsets in BAR 0.
pub(crate) mod register {
    /// Reads give a sum of all that was written since the last read, and clear it.
    pub(crate) const STATUS: u64 = 0x00;
    /// Each read pops a number; a write pushes one.
    pub(crate) const FIFO: u64 = 0x08;
    /// Writing a 1 clears that bit; everything else sets some.
    pub(crate) const CAUSE: u64 = 0x10;
    /// Written with what to do: DMA writes, then an interrupt.
    pub(crate) const DOORBELL: u64 = 0x18;
    /// Written with where a descriptor is: it is read by DMA, then what it asks for is done.
    pub(crate) const DESCRIPTOR: u64 = 0x20;
    /// Bit 0 is the level of INTx.
    pub(crate) const LEVEL: u64 = 0x28;
    /// Reads of it fail.
    pub(crate) const BROKEN: u64 = 0x30;
    /// 256 words without side effects.
    pub(crate) const SCRATCH: u64 = 0x800;
    pub(crate) const SCRATCH_END: u64 = 0x1000;
}

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_BYTES: usize = 24;

/// What the device starts.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Write {
        generation: u64,
        address: u64,
        data: Bytes,
    },
    Read {
        generation: u64,
        address: u64,
        length: usize,
        tag: u64,
    },
    Interrupt {
        generation: u64,
        vector: Vector,
    },
    Level(bool),
}

/// Work that goes on after its access.
#[derive(Debug, Clone, Copy)]
struct Job {
    due: Micros,
    generation: u64,
    what: u64,
    /// So many like it follow.
    more: u32,
}

#[derive(Debug)]
pub(crate) struct Device {
    plan: DevicePlan,
    rng: Rng,
    sum: u64,
    popped: u64,
    fifo: VecDeque<u64>,
    cause: u64,
    scratch: Vec<u64>,
    jobs: VecDeque<Job>,
    next_tag: u64,
    /// Generations of the descriptors asked for, oldest first, with their tags.
    reading: VecDeque<(u64, u64)>,
    pub(crate) effects: Vec<Effect>,
    /// A read's answer.
    pub(crate) answer: Vec<u8>,
}

/// Entries that the FIFO keeps.
const FIFO_MAX: usize = 64;

impl Device {
    pub(crate) fn new(plan: DevicePlan, rng: Rng) -> Self {
        Self {
            plan,
            rng,
            sum: 0,
            popped: 0,
            fifo: VecDeque::new(),
            cause: 0,
            scratch: vec![0; 256],
            jobs: VecDeque::new(),
            next_tag: 1,
            reading: VecDeque::new(),
            effects: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// As new, but for tags: none is used twice.
    pub(crate) fn reset(&mut self) {
        self.sum = 0;
        self.fifo.clear();
        self.cause = 0;
        self.scratch.fill(0);
        self.effects.clear();
        self.forget_work();
    }

    /// What was begun is void.
    pub(crate) fn forget_work(&mut self) {
        self.jobs.clear();
        self.reading.clear();
    }

    /// A read of `bytes`, in elements of `width`.
    pub(crate) fn read(&mut self, offset: u64, width: usize, bytes: usize) -> Status {
        self.answer.clear();
        if offset == register::BROKEN {
            self.sum = mix(self.sum ^ offset);
            return Status::DeviceError;
        }
        while self.answer.len() < bytes {
            let word = self.read_word(offset + self.answer.len() as u64);
            let element = word.to_le_bytes();
            self.answer.extend_from_slice(&element[..width]);
        }
        Status::Ok
    }

    fn read_word(&mut self, offset: u64) -> u64 {
        match offset {
            register::STATUS => std::mem::take(&mut self.sum),
            register::FIFO => {
                self.popped += 1;
                let made = mix(self.popped);
                self.fifo.pop_front().unwrap_or(made)
            }
            register::CAUSE => self.cause,
            register::SCRATCH..register::SCRATCH_END => self.scratch[Self::place(offset)],
            _ => offset,
        }
    }

    fn place(offset: u64) -> usize {
        usize::try_from((offset - register::SCRATCH) / 8).unwrap_or(0)
    }

    /// A write of this value, or of a block that is summed up in it.
    pub(crate) fn write(&mut self, offset: u64, value: u64, now: Micros, generation: u64) {
        self.sum = mix(self.sum ^ value ^ (offset << 48));
        self.cause |= 1 << (self.sum & 31);
        match offset {
            register::FIFO if self.fifo.len() < FIFO_MAX => self.fifo.push_back(value),
            register::CAUSE => self.cause &= !value,
            register::DOORBELL => self.work(now, generation, value),
            register::DESCRIPTOR => self.fetch(generation, value),
            register::LEVEL => self.effects.push(Effect::Level(value & 1 == 1)),
            register::SCRATCH..register::SCRATCH_END => self.scratch[Self::place(offset)] = value,
            _ => {}
        }
    }

    fn work(&mut self, now: Micros, generation: u64, what: u64) {
        if self.rng.chance(self.plan.later) {
            let due = now + self.rng.skewed(20_000);
            // In order: one that is due earlier waits for those before it.
            let due = self.jobs.back().map_or(due, |last| due.max(last.due));
            self.jobs.push_back(Job {
                due,
                generation,
                what,
                more: self.plan.more,
            });
        } else {
            self.carry_out(generation, what);
        }
    }

    fn fetch(&mut self, generation: u64, address: u64) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.reading.push_back((tag, generation));
        let length = DESCRIPTOR_BYTES;
        if tag.is_multiple_of(4) {
            // It marks the descriptor as taken, then looks at it again.
            let data = self.data(tag, length as u64);
            self.effects.push(Effect::Write {
                generation,
                address,
                data,
            });
        }
        self.effects.push(Effect::Read {
            generation,
            address,
            length,
            tag,
        });
    }

    /// The answer to a DMA read came. False: it is not the one that was asked for first.
    pub(crate) fn fetched(&mut self, tag: u64, outcome: &Result<Bytes, DmaError>) -> bool {
        let Some((first, generation)) = self.reading.front().copied() else {
            // Void since, and told as failed.
            return outcome.is_err();
        };
        if first != tag {
            return tag < first && outcome.is_err();
        }
        self.reading.pop_front();
        if let Ok(bytes) = outcome {
            let what = crate::rng::hash(bytes);
            self.carry_out(generation, what);
        }
        true
    }

    /// When a job is due.
    pub(crate) fn next_job(&self) -> Option<Micros> {
        self.jobs.front().map(|job| job.due)
    }

    /// Does what is due.
    pub(crate) fn run_jobs(&mut self, now: Micros) {
        while let Some(job) = self.jobs.front().copied().filter(|job| job.due <= now) {
            self.jobs.pop_front();
            self.carry_out(job.generation, job.what);
            self.follow(job);
        }
    }

    /// One job may lead to another: what comes from outside comes by itself.
    fn follow(&mut self, job: Job) {
        if let Some(more) = job.more.checked_sub(1) {
            let due = job.due + self.rng.below(15_000);
            let due = self.jobs.back().map_or(due, |last| due.max(last.due));
            let what = mix(job.what);
            self.jobs.push_back(Job {
                due,
                what,
                more,
                ..job
            });
        }
    }

    /// Some DMA writes, then an interrupt.
    fn carry_out(&mut self, generation: u64, what: u64) {
        for n in 0..what % 4 {
            let drawn = mix(what ^ n);
            let length = 1 + drawn % self.rng.skewed(self.plan.dma_max);
            let address = drawn % crate::agent::MEMORY_BYTES;
            let data = self.data(drawn, length);
            self.effects.push(Effect::Write {
                generation,
                address,
                data,
            });
        }
        let number = u16::try_from(what >> 8 & 0xff).unwrap_or(0) % VECTORS;
        let vector = Vector::Msi(number);
        self.effects.push(Effect::Interrupt { generation, vector });
        if self.plan.storms && what >> 16 & 3 == 0 {
            self.storm(generation, what, vector);
        }
        if self.plan.levels {
            self.effects.push(Effect::Level(what >> 20 & 1 == 1));
        }
    }

    /// More interrupts than may be under way: some have to wait together. Data comes between two of one vector.
    fn storm(&mut self, generation: u64, what: u64, vector: Vector) {
        for _ in 0..MESSAGE_WINDOW {
            self.effects.push(Effect::Interrupt { generation, vector });
        }
        for n in 0..3 {
            let drawn = mix(what ^ n);
            let data = self.data(drawn, 8);
            let address = drawn % crate::agent::MEMORY_BYTES;
            self.effects.push(Effect::Write {
                generation,
                address,
                data,
            });
            self.effects.push(Effect::Interrupt { generation, vector });
        }
    }

    fn data(&mut self, drawn: u64, length: u64) -> Bytes {
        let length = usize::try_from(length).unwrap_or(1);
        let mut data = Vec::with_capacity(length + 8);
        let mut word = drawn;
        while data.len() < length {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            data.extend_from_slice(&word.to_le_bytes());
        }
        data.truncate(length);
        data.into()
    }

    /// How long it takes beyond nothing before its n-th access of this turn.
    pub(crate) fn hesitation(&mut self, n: usize) -> Option<Micros> {
        let slow = self.plan.slow > 0
            && n.is_multiple_of(self.plan.steps)
            && self.rng.chance(self.plan.slow);
        slow.then(|| 1 + self.rng.below(self.plan.pause_max))
    }
}
