//! Measuring one kind of access.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use potemkin_vfio_user::ClientError;
use serde::Serialize;

/// The longest time that is told apart from longer ones, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Times of single accesses, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    pub(crate) samples: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
}

/// How often, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) samples: u32,
    pub(crate) limit: Duration,
}

/// Times `access` again and again; it is told how often it was called before.
pub(crate) fn measure(
    effort: Effort,
    mut access: impl FnMut(u32) -> Result<(), ClientError>,
) -> Result<Latency, ClientError> {
    let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3)
        .expect("the bounds are constants that a histogram can have");
    let end = Instant::now() + effort.limit;
    for count in 0..effort.samples {
        let start = Instant::now();
        access(count)?;
        let now = Instant::now();
        let ns = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
        times.saturating_record(ns);
        if now >= end {
            break;
        }
    }
    Ok(Latency {
        samples: times.len(),
        p50_ns: times.value_at_quantile(0.5),
        p90_ns: times.value_at_quantile(0.9),
        p99_ns: times.value_at_quantile(0.99),
        p999_ns: times.value_at_quantile(0.999),
        max_ns: times.max(),
    })
}
