//! Publishes the devices' counters to Prometheus.

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use potemkin_service::admin::{DeviceState, DeviceStatus, Status};

use crate::agent::Agent;

/// The counters live with the data path, unshared; so often they are copied to where a scrape finds them.
const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn publish(agent: Arc<Agent>) {
    describe();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let status = agent.status();
        let waiting = count(&status, |state| state == DeviceState::Waiting);
        let attached = count(&status, |state| state != DeviceState::Waiting);
        gauge!("potemkin_front_devices").set(attached);
        gauge!("potemkin_front_devices_waiting").set(waiting);
        status.devices.iter().for_each(publish_device);
    }
}

fn count(status: &Status, wanted: impl Fn(DeviceState) -> bool) -> f64 {
    let devices = status.devices.iter().filter(|device| wanted(device.state));
    f64::from(u32::try_from(devices.count()).unwrap_or(u32::MAX))
}

fn publish_device(device: &DeviceStatus) {
    let name = device.name.clone();
    let live = device.state == DeviceState::Live;
    gauge!("potemkin_front_session_live", "name" => name.clone()).set(f64::from(u8::from(live)));
    let interrupted = device.state == DeviceState::Interrupted;
    gauge!("potemkin_front_session_interrupted", "name" => name.clone())
        .set(f64::from(u8::from(interrupted)));
    for (what, state) in [
        (
            "potemkin_front_session_reattaching",
            DeviceState::Reattaching,
        ),
        (
            "potemkin_front_function_awaiting_reset",
            DeviceState::AwaitingReset,
        ),
    ] {
        let is = device.state == state;
        gauge!(what, "name" => name.clone()).set(f64::from(u8::from(is)));
    }
    let counters = &device.counters;
    for (what, value) in [
        ("config_read", counters.config_reads),
        ("config_write", counters.config_writes),
        ("bar_read", counters.bar_reads),
        ("bar_write", counters.bar_writes),
    ] {
        counter!("potemkin_front_accesses_total", "name" => name.clone(), "kind" => what)
            .absolute(value);
    }
    for (direction, frames, bytes) in [
        ("sent", counters.frames_sent, counters.bytes_sent),
        (
            "received",
            counters.frames_received,
            counters.bytes_received,
        ),
    ] {
        counter!("potemkin_front_frames_total", "name" => name.clone(), "direction" => direction)
            .absolute(frames);
        counter!("potemkin_front_bytes_total", "name" => name.clone(), "direction" => direction)
            .absolute(bytes);
    }
    for (direction, bytes) in [
        ("to_guest", counters.dma_bytes_written),
        ("from_guest", counters.dma_bytes_read),
    ] {
        counter!("potemkin_front_dma_bytes_total", "name" => name.clone(), "direction" => direction)
            .absolute(bytes);
    }
    counter!("potemkin_front_dma_refused_total", "name" => name.clone())
        .absolute(counters.dma_refused);
    counter!("potemkin_front_interrupts_total", "name" => name.clone())
        .absolute(counters.interrupts);
    counter!("potemkin_front_resumes_total", "name" => name.clone()).absolute(counters.resumes);
    counter!("potemkin_front_dials_total", "name" => name.clone()).absolute(counters.dials);
    counter!("potemkin_front_round_trips_total", "name" => name).absolute(counters.round_trips);
}

fn describe() {
    describe_gauge!("potemkin_front_devices", "Devices attached to this agent");
    describe_gauge!(
        "potemkin_front_devices_waiting",
        "Devices of the configuration that are not attached yet"
    );
    describe_gauge!(
        "potemkin_front_session_live",
        "1 while the device's session is live, 0 while it is not"
    );
    describe_gauge!(
        "potemkin_front_session_interrupted",
        "1 while another path is dialled for the device's session, 0 while it is not"
    );
    describe_gauge!(
        "potemkin_front_session_reattaching",
        "1 while the device's session is lost and the device is being attached again, 0 while it is not"
    );
    describe_gauge!(
        "potemkin_front_function_awaiting_reset",
        "1 while the device is attached again and its guest has not reset it, 0 while it is not"
    );
    describe_counter!(
        "potemkin_front_resumes_total",
        "Times that the device's session went on over another path"
    );
    describe_counter!(
        "potemkin_front_dials_total",
        "Connections that were begun to resume the device's session, whatever became of them"
    );
    describe_counter!(
        "potemkin_front_accesses_total",
        "The guest's accesses, by kind"
    );
    describe_counter!(
        "potemkin_front_dma_bytes_total",
        "Bytes that devices moved by DMA, by direction"
    );
    describe_counter!(
        "potemkin_front_dma_refused_total",
        "DMA items that moved nothing"
    );
    describe_counter!(
        "potemkin_front_interrupts_total",
        "Interrupts that guests got"
    );
    describe_counter!(
        "potemkin_front_frames_total",
        "Frames between the agent and its broker, by direction"
    );
    describe_counter!(
        "potemkin_front_bytes_total",
        "Bytes of frames between the agent and its broker, by direction"
    );
    describe_counter!(
        "potemkin_front_round_trips_total",
        "Times that the guest waited for the device host"
    );
}
