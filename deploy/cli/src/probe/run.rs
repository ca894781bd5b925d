//! The stages of a probe.

use potemkin_service::admin::DeviceStatus;
use potemkin_vfio_user::ClientError;

use super::checks::Checks;
use super::counters::{CounterSource, between};
use super::enumerate::{FunctionReport, enumerate, restore};
use super::function::{Function, Guest};
use super::measure::{Effort, Latency, measure};
use super::report::{Agent, Report, Stage, Value};
use super::{Options, ProbeError, ReadSpec, edu};

pub(super) fn run(
    function: &mut dyn Function,
    counters: Option<CounterSource>,
    options: &Options,
) -> Result<Report, ProbeError> {
    let mut stages = Stages {
        guest: Guest::new(function),
        counters,
        done: Vec::new(),
    };
    let mut checks = Checks::default();
    let agent = stages.look()?.map(Agent::from);
    let function = stages.run("enumeration", |guest| {
        Ok((enumerate(guest, &mut checks)?, None))
    })?;
    let driven = drive(&mut stages, &function, &mut checks, options);
    // Also after a failure: whoever comes next finds the function as it was.
    let restored = stages.run("restore", |guest| Ok((restore(guest, &function)?, None)));
    // A device that was lost meanwhile explains whatever else went wrong.
    stages.expect_attached()?;
    let values = driven?;
    restored?;
    Ok(Report {
        function,
        agent,
        stages: stages.done,
        values,
        checks,
    })
}

fn drive(
    stages: &mut Stages<'_>,
    function: &FunctionReport,
    checks: &mut Checks,
    options: &Options,
) -> Result<Vec<Value>, ProbeError> {
    let effort = Effort {
        samples: options.samples,
        limit: options.limit,
    };
    stages.measure("config reads", effort, |guest, _| {
        guest.config_u32(0).map(drop)
    })?;
    if function.is_edu() {
        drive_edu(stages, checks, effort, options.burst)?;
        return Ok(Vec::new());
    }
    options
        .reads
        .iter()
        .map(|spec| read_register(stages, function, *spec, effort))
        .collect()
}

fn drive_edu(
    stages: &mut Stages<'_>,
    checks: &mut Checks,
    effort: Effort,
    burst: u32,
) -> Result<(), ProbeError> {
    stages.run("edu registers", |guest| {
        Ok((edu::drive(guest, checks, effort.limit)?, None))
    })?;
    stages.measure("BAR reads", effort, |guest, _| {
        guest.bar_u32(edu::BAR, edu::LIVENESS).map(drop)
    })?;
    stages.run("posted writes, then a read", |guest| {
        let latency = measure(effort, |count| {
            guest.post_u32(edu::BAR, edu::LIVENESS, count)
        })?;
        check_last_write(guest, checks, "posted writes", latency.samples)?;
        Ok(((), Some(latency)))
    })?;
    let values: Vec<u32> = (0..burst).collect();
    stages.run("burst of writes, then a read", |guest| {
        guest.post_all_u32(edu::BAR, edu::LIVENESS, &values)?;
        check_last_write(guest, checks, "the burst", burst.into())?;
        Ok(((), None))
    })
}

/// Writes of 0, 1, 2 and so on to the liveness register went before: a read must find the last of them applied.
fn check_last_write(
    guest: &mut Guest<'_>,
    checks: &mut Checks,
    what: &str,
    writes: u64,
) -> Result<(), ClientError> {
    let answer = guest.bar_u32(edu::BAR, edu::LIVENESS)?;
    let last = u32::try_from(writes - 1).unwrap_or(u32::MAX);
    checks.add(
        &format!("edu: a read finds the last of {what} applied"),
        answer == !last,
        || format!("{answer:#010x}, wanted {:#010x}", !last),
    );
    Ok(())
}

fn read_register(
    stages: &mut Stages<'_>,
    function: &FunctionReport,
    spec: ReadSpec,
    effort: Effort,
) -> Result<Value, ProbeError> {
    let size = function.bar(spec.bar).map_or(0, |bar| bar.size);
    let width = u64::from(spec.width);
    if spec.offset.checked_add(width).is_none_or(|end| end > size) {
        return Err(ProbeError::Read {
            spec,
            problem: format!("BAR {} has {size} bytes", spec.bar),
        });
    }
    let mut value = 0;
    let name = format!("reads of {spec}");
    stages.measure(&name, effort, |guest, _| {
        value = guest.bar(spec.bar, spec.offset, spec.width.into())?;
        Ok(())
    })?;
    Ok(Value {
        register: spec.to_string(),
        value,
    })
}

/// Runs stages and notes what each did, here and at the agent.
struct Stages<'a> {
    guest: Guest<'a>,
    counters: Option<CounterSource>,
    done: Vec<Stage>,
}

impl<'a> Stages<'a> {
    fn look(&mut self) -> Result<Option<DeviceStatus>, ProbeError> {
        self.counters
            .as_mut()
            .map(CounterSource::device)
            .transpose()
    }

    fn expect_attached(&mut self) -> Result<(), ProbeError> {
        self.counters
            .as_mut()
            .map_or(Ok(()), CounterSource::expect_attached)
    }

    fn run<T>(
        &mut self,
        name: &str,
        stage: impl FnOnce(&mut Guest<'a>) -> Result<(T, Option<Latency>), ProbeError>,
    ) -> Result<T, ProbeError> {
        let counted = self.look()?;
        let accesses = self.guest.accesses;
        let (result, latency) = stage(&mut self.guest)?;
        let remote = match (counted, self.look()?) {
            (Some(before), Some(after)) => Some(between(&before.counters, &after.counters)),
            _ => None,
        };
        self.done.push(Stage {
            name: name.to_owned(),
            accesses: self.guest.accesses.since(&accesses),
            remote,
            latency,
        });
        Ok(result)
    }

    fn measure(
        &mut self,
        name: &str,
        effort: Effort,
        mut access: impl FnMut(&mut Guest<'a>, u32) -> Result<(), ClientError>,
    ) -> Result<(), ProbeError> {
        self.run(name, |guest| {
            let latency = measure(effort, |count| access(guest, count))?;
            Ok(((), Some(latency)))
        })
    }
}
