//! What a host says of itself when it registers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use potemkin_proto::v1::{self, DeviceDescriptor, DeviceOffer, HostHello};
use potemkin_session::ids::Incarnation;

use crate::live::LiveSession;
use crate::pool::Pool;
use crate::served::Served;
use potemkin_session::{VERSION, VERSION_MIN};

pub(super) fn hello(
    pool: &Pool,
    incarnation: Incarnation,
    data_address: SocketAddr,
    live: &[LiveSession],
) -> HostHello {
    HostHello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        incarnation: incarnation.to_bytes(),
        data_address: data_address.to_string(),
        devices: pool.iter().map(|served| offer(served)).collect(),
        sessions: live.iter().map(session).collect(),
    }
}

/// A session that lives here, as brokers are told of it.
pub(super) fn session(live: &LiveSession) -> v1::LiveSession {
    v1::LiveSession {
        session_id: live.session.to_bytes().to_vec().into(),
        device_id: live.device.clone(),
        epoch: live.epoch.0,
        agent: live.agent.as_str().to_owned(),
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
    use potemkin_session::ids::{Epoch, SessionId};

    use super::*;

    #[test]
    fn hello_offers_every_device_with_its_highest_epoch_and_tells_of_sessions() {
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

        let live = [LiveSession {
            session: SessionId::from_bytes([9; 16]),
            device: "edu-0".into(),
            epoch: Epoch(7),
            agent: "spiffe://potemkin.dev/agent/dev".parse().unwrap(),
        }];
        let address = "192.0.2.1:7641".parse().unwrap();
        let hello = hello(&pool, incarnation, address, &live);

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
        let told = &hello.sessions[0];
        assert_eq!(told.session_id, [9; 16].as_slice());
        assert_eq!((told.device_id.as_str(), told.epoch), ("edu-0", 7));
        assert_eq!(told.agent, "spiffe://potemkin.dev/agent/dev");
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let ip = source_ip_towards("127.0.0.1:7640".parse().unwrap()).unwrap();

        assert!(ip.is_loopback());
    }
}
