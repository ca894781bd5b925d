//! The path of a VMM beside a front agent: region reads over a vfio-user socket.

use std::path::Path;
use std::time::Instant;

use potemkin_vfio_user::{Client, ClientError};

use crate::accesses::{
    BAR0_REGION, COMMAND, COMMAND_MEMORY, CONFIG_REGION, IDENTIFICATION, check_identification,
};
use crate::error::BenchError;
use crate::probe::Probe;
use crate::stats::Latencies;

/// A client of one function's socket.
#[derive(Debug)]
pub(crate) struct Vfio {
    path: String,
    client: Client,
}

impl Vfio {
    pub(crate) fn connect(path: &str, socket: &Path) -> Result<Self, BenchError> {
        let connect = || {
            let mut client = Client::connect(socket)?;
            client.region_write(CONFIG_REGION, COMMAND.into(), &COMMAND_MEMORY, false)?;
            Ok(client)
        };
        let client = connect().map_err(|source| failed(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            client,
        })
    }
}

impl Probe for Vfio {
    fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        for _ in 0..reads {
            let mut value = [0; 4];
            let start = Instant::now();
            let read = self
                .client
                .region_read(BAR0_REGION, IDENTIFICATION, &mut value);
            latencies.record(start.elapsed());
            read.map_err(|source| failed(&self.path, source))?;
            check_identification(&self.path, value)?;
        }
        Ok(latencies)
    }
}

fn failed(path: &str, source: ClientError) -> BenchError {
    BenchError::Vfio {
        path: path.to_owned(),
        source,
    }
}
