//! A host's first message becomes typed values here. Of its devices the broken ones are set aside, with the reason.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use potemkin_proto::{descriptor, v1};
use tonic::Status;

use super::door::{id, labels, malformed, versions};
use super::live;
use crate::core::{Hello, Offer, RejectCause, Rejected};
use crate::ids::{DeviceId, Incarnation, check_name};

/// The most devices of one host (control.proto, `HostHello.devices`).
const DEVICES_MAX: usize = 1024;
/// The highest epoch that a host may report: no device comes to so many in its life, and ours can grow from there.
pub(super) const EPOCH_MAX: u64 = 1 << 62;
/// The most of a malformed device id that is repeated to its sender, in characters.
const SHOWN_ID_LENGTH_MAX: usize = 63;

pub(super) fn hello(hello: v1::HostHello) -> Result<Hello, Status> {
    let version = versions(hello.version_min, hello.version_max)?;
    let incarnation = id("incarnation", &hello.incarnation, Incarnation::from_slice)?;
    let data_address = data_address(&hello.data_address)?;
    if hello.devices.len() > DEVICES_MAX {
        let problem = format!("{} are more than {DEVICES_MAX}", hello.devices.len());
        return Err(malformed("devices", &problem));
    }
    let sessions = live::sessions(hello.sessions, &hello.devices)?;
    let (offers, rejected) = offers(hello.devices);
    Ok(Hello {
        version,
        incarnation,
        data_address,
        offers,
        rejected,
        sessions,
    })
}

fn data_address(text: &str) -> Result<SocketAddr, Status> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| malformed("data_address", "is not \"IP:port\""))?;
    if address.ip().is_unspecified() || address.port() == 0 {
        let problem = format!("{address} is nowhere that a broker could dial");
        return Err(malformed("data_address", &problem));
    }
    Ok(address)
}

fn offers(devices: Vec<v1::DeviceOffer>) -> (Vec<Offer>, Vec<Rejected>) {
    let mut seen = HashSet::new();
    let (mut offers, mut rejected) = (Vec::new(), Vec::new());
    for device in devices {
        let shown: String = device.device_id.chars().take(SHOWN_ID_LENGTH_MAX).collect();
        match offer(device, &mut seen) {
            Ok(offer) => offers.push(offer),
            Err(reason) => rejected.push(Rejected {
                device: shown,
                cause: RejectCause::Malformed,
                reason,
            }),
        }
    }
    (offers, rejected)
}

fn offer(offer: v1::DeviceOffer, seen: &mut HashSet<DeviceId>) -> Result<Offer, String> {
    let device = DeviceId::parse(&offer.device_id).map_err(|bad| format!("device_id: {bad}"))?;
    if !seen.insert(device.clone()) {
        return Err("device_id: the host offers it twice".to_owned());
    }
    check_name(&offer.class).map_err(|bad| format!("class: {bad}"))?;
    let labels = labels(offer.labels).map_err(|problem| format!("labels: {problem}"))?;
    if offer.highest_epoch > EPOCH_MAX {
        return Err(format!("highest_epoch: it is above {EPOCH_MAX}"));
    }
    let checked = check_descriptor(offer.descriptor)?;
    Ok(Offer {
        device,
        class: offer.class.into(),
        labels,
        descriptor: Arc::new(checked.descriptor),
        vendor_id: checked.vendor_id,
        device_code: checked.device_code,
        highest_epoch: offer.highest_epoch,
    })
}

/// A descriptor that was found good: as it is kept, and its vendor and device codes.
struct Checked {
    descriptor: v1::DeviceDescriptor,
    vendor_id: u16,
    device_code: u16,
}

fn check_descriptor(message: Option<v1::DeviceDescriptor>) -> Result<Checked, String> {
    let message = message.ok_or_else(|| "descriptor: it is missing".to_owned())?;
    let good = descriptor::decode(message).map_err(|bad| format!("descriptor.{bad}"))?;
    Ok(Checked {
        // Written anew, and not kept as it came: that would hold on to the memory of the host's whole message.
        descriptor: (&good).into(),
        vendor_id: good.vendor_id(),
        device_code: good.device_id(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{descriptor, device_offer};

    fn good_hello() -> v1::HostHello {
        v1::HostHello {
            version_min: 1,
            version_max: 1,
            incarnation: vec![1; 16].into(),
            data_address: "192.0.2.7:7641".into(),
            devices: vec![device_offer("edu-0")],
            sessions: Vec::new(),
        }
    }

    fn refused(change: impl FnOnce(&mut v1::HostHello), field: &str) {
        let mut message = good_hello();
        change(&mut message);
        let status = hello(message).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(
            status.message().starts_with(&format!("{field}:")),
            "{}",
            status.message()
        );
    }

    /// The reason for which the one device of a hello is rejected, while another is taken.
    fn rejected(change: impl FnOnce(&mut v1::DeviceOffer)) -> String {
        let mut message = good_hello();
        change(&mut message.devices[0]);
        message.devices.push(device_offer("edu-good"));
        let mut hello = hello(message).unwrap();
        assert_eq!(hello.offers.len(), 1);
        assert_eq!(hello.offers[0].device.as_str(), "edu-good");
        hello.rejected.remove(0).reason
    }

    #[test]
    fn a_good_hello_is_read() {
        let hello = hello(good_hello()).unwrap();
        assert_eq!(hello.rejected, []);
        let offer = &hello.offers[0];
        assert_eq!((offer.vendor_id, offer.device_code), (0x1234, 0x11e8));
        assert_eq!(*offer.descriptor, descriptor());
    }

    #[test]
    fn malformed_hellos_are_refused_by_field() {
        refused(|h| h.version_min = 2, "version_min");
        refused(|h| h.incarnation = vec![1; 15].into(), "incarnation");
        refused(|h| h.data_address = "host:7641".into(), "data_address");
        refused(|h| h.data_address = "0.0.0.0:7641".into(), "data_address");
        refused(|h| h.data_address = "192.0.2.7:0".into(), "data_address");
        refused(
            |h| {
                h.devices = (0..1025)
                    .map(|n| device_offer(&format!("edu-{n}")))
                    .collect()
            },
            "devices",
        );
    }

    #[test]
    fn broken_devices_are_rejected_by_field_and_the_others_taken() {
        let reasons = [
            (rejected(|d| d.device_id = "Edu".into()), "device_id:"),
            (rejected(|d| d.class = String::new()), "class:"),
            (
                rejected(|d| {
                    d.labels.insert(String::new(), String::new());
                }),
                "labels:",
            ),
            (rejected(|d| d.highest_epoch = u64::MAX), "highest_epoch:"),
            (rejected(|d| d.descriptor = None), "descriptor:"),
        ];
        for (reason, field) in reasons {
            assert!(reason.starts_with(field), "{reason}");
        }
    }

    #[test]
    fn a_broken_descriptor_is_rejected_with_the_field_in_it() {
        let reason = rejected(|d| {
            d.descriptor.as_mut().unwrap().bars[0].size = 3;
        });
        assert!(reason.starts_with("descriptor.bars[0]"), "{reason}");
    }

    #[test]
    fn a_device_that_comes_twice_is_rejected_the_second_time() {
        let mut message = good_hello();
        message.devices.push(device_offer("edu-0"));
        let hello = hello(message).unwrap();
        assert_eq!(hello.offers.len(), 1);
        assert!(hello.rejected[0].reason.contains("twice"));
    }
}
