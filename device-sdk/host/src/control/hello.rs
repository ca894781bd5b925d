//! What a host says of itself when it registers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use potemkin_proto::v1::{DeviceDescriptor, DeviceOffer, HostHello};
use potemkin_session::VERSION;
use potemkin_session::ids::Incarnation;

use crate::pool::Pool;
use crate::served::Served;

pub(super) fn hello(pool: &Pool, incarnation: Incarnation, data_address: SocketAddr) -> HostHello {
    HostHello {
        version_min: VERSION,
        version_max: VERSION,
        incarnation: incarnation.to_bytes(),
        data_address: data_address.to_string(),
        devices: pool.iter().map(|served| offer(served)).collect(),
    }
}

fn offer(served: &Served) -> DeviceOffer {
    DeviceOffer {
        device_id: served.id.clone(),
        class: served.class.clone(),
        labels: served.labels.clone().into_iter().collect(),
        descriptor: Some(DeviceDescriptor::from(&served.descriptor)),
        highest_epoch: served.highest().0,
    }
}

/// The address that the kernel would send from. Nothing is sent: connecting a UDP socket only looks up the route.
pub(super) fn source_ip_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use potemkin_devices::Edu;
    use potemkin_session::ids::Epoch;

    use super::*;

    #[test]
    fn hello_offers_every_device_with_its_highest_epoch() {
        let served = |id: &str, epoch| {
            Served::new(
                id.into(),
                "edu".into(),
                BTreeMap::from([("zone".into(), "a".into())]),
                Box::new(Edu::new().unwrap()),
                Epoch(epoch),
            )
        };
        let pool = Pool::from_iter([served("edu-1", 0), served("edu-0", 7)]);
        let incarnation = Incarnation::from_bytes([7; 16]);

        let hello = hello(&pool, incarnation, "192.0.2.1:7641".parse().unwrap());

        assert_eq!(hello.data_address, "192.0.2.1:7641");
        assert_eq!(hello.incarnation.len(), 16);
        let offers: Vec<_> = hello
            .devices
            .iter()
            .map(|offer| (offer.device_id.as_str(), offer.highest_epoch))
            .collect();
        assert_eq!(offers, [("edu-0", 7), ("edu-1", 0)]);
        assert_eq!(hello.devices[0].labels["zone"], "a");
        let descriptor = hello.devices[0].descriptor.as_ref().unwrap();
        assert_eq!(descriptor.config_image[..4], [0x34, 0x12, 0xe8, 0x11]);
        assert_eq!(descriptor.bars.len(), 1);
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let ip = source_ip_towards("127.0.0.1:7640".parse().unwrap()).unwrap();

        assert!(ip.is_loopback());
    }
}
