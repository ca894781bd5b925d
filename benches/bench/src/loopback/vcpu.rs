//! The path of a VMM without an async runtime: the vCPU thread blocks, and another thread drives the session.

use std::time::Duration;

use potemkin_front_core::{BackgroundFunction, NoBus, RemoteOptions, Target};
use tokio::runtime::Runtime;

use crate::accesses::{Accesses, Blocking};
use crate::error::BenchError;
use crate::probe::{Burst, Probe, Writer};
use crate::stats::Latencies;

/// An attached function with its session on a thread in the background; the thread that measures stands for the vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    path: String,
    function: BackgroundFunction,
    /// Runs the measurement's futures, which are ready at once: the accesses in them block by themselves.
    runtime: Runtime,
}

impl Vcpu {
    /// Attaches the device `id`.
    pub(crate) fn attach(
        path: &str,
        options: RemoteOptions,
        id: String,
    ) -> Result<Self, BenchError> {
        let function =
            BackgroundFunction::attach(options, Target::Device(id), NoBus).map_err(|source| {
                BenchError::Background {
                    path: path.to_owned(),
                    source,
                }
            })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(BenchError::io("cannot make a runtime"))?;
        let vcpu = Self {
            path: path.to_owned(),
            function,
            runtime,
        };
        vcpu.runtime.block_on(vcpu.accesses().enable());
        Ok(vcpu)
    }

    fn accesses(&self) -> Accesses<'_, Blocking<'_>> {
        Accesses {
            path: &self.path,
            guest: Blocking(self.function.device()),
        }
    }
}

impl Probe for Vcpu {
    fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError> {
        self.runtime.block_on(self.accesses().reads(reads))
    }

    fn writer(&mut self) -> Option<&mut dyn Writer> {
        Some(self)
    }
}

impl Writer for Vcpu {
    fn burst(&mut self) -> Result<Burst, BenchError> {
        self.runtime.block_on(self.accesses().burst())
    }

    fn sustained(&mut self) -> Result<Duration, BenchError> {
        self.runtime.block_on(self.accesses().sustained())
    }

    fn config_reads(&mut self) -> Result<Duration, BenchError> {
        self.runtime.block_on(self.accesses().config_reads())
    }
}
