//! Where a measurement ran, and on which CPUs.

use std::fs;
use std::num::NonZero;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// What figures depend on besides the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// CPUs that this process might use before it was pinned.
    pub(crate) cpus: usize,
    /// As `/proc/cpuinfo` has it; empty: it does not say.
    pub(crate) cpu_model: String,
    /// The kernel's release.
    pub(crate) kernel: String,
}

/// Which CPUs the processes of a measurement use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// As the kernel places them.
    Free,
    /// All on this one.
    OneCpu(usize),
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, NonZero::get),
            cpu_model: cpu_model(&cpuinfo).to_owned(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Pins the calling thread to the first CPU that it may use. Threads and processes that it starts from then on are pinned with
/// it: an affinity is inherited.
pub(crate) fn pin_to_one_cpu() -> rustix::io::Result<Placement> {
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu));
    let first = first.ok_or(rustix::io::Errno::INVAL)?;
    let mut only = CpuSet::new();
    only.set(first);
    sched_setaffinity(None, &only)?;
    Ok(Placement::OneCpu(first))
}

fn cpu_model(cpuinfo: &str) -> &str {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or("", |(_, model)| model.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn cpu_model_is_what_stands_behind_the_colon() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n";

        assert_eq!(cpu_model(cpuinfo), "Some CPU @ 2.00GHz");
        assert_eq!(cpu_model("processor\t: 0\n"), "");
    }

    #[test]
    fn threads_of_a_pinned_thread_are_pinned() {
        // Not on the test's own thread, so that other tests keep their CPUs.
        let pinned = std::thread::spawn(|| {
            let placement = pin_to_one_cpu().unwrap();
            let set = std::thread::spawn(|| sched_getaffinity(None).unwrap());
            (placement, set.join().unwrap())
        });

        let (placement, set) = pinned.join().unwrap();

        let Placement::OneCpu(cpu) = placement else {
            panic!("{placement:?}");
        };
        assert_eq!(set.count(), 1);
        assert!(set.is_set(cpu));
    }
}
