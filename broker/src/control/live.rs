//! What a host tells of its sessions becomes typed values here.
//!
//! Whatever is wrong refuses the message as a whole, and not one session: a host that does not know who uses its devices
//! has lost its way, and nothing else that it says can be relied on.

use std::collections::HashSet;

use potemkin_proto::v1;
use tonic::Status;

use super::door::{agent, id, malformed};
use super::offer::EPOCH_MAX;
use super::{name, random};
use crate::core::LiveSession;
use crate::ids::{ClaimId, DeviceId, SessionId};

/// The sessions of a hello, each on one of its devices.
pub(super) fn sessions(
    sessions: Vec<v1::LiveSession>,
    devices: &[v1::DeviceOffer],
) -> Result<Vec<LiveSession>, Status> {
    let mut free: HashSet<&str> = devices.iter().map(|d| d.device_id.as_str()).collect();
    let mut ids = HashSet::new();
    let mut found = Vec::new();
    for (index, live) in sessions.into_iter().enumerate() {
        let field = format!("sessions[{index}]");
        let live = session(live, &field)?;
        if !free.remove(live.device.as_str()) {
            let problem = format!(
                "{} is not offered, or has another session already",
                live.device
            );
            return Err(malformed(&format!("{field}.device_id"), &problem));
        }
        if !ids.insert(live.session) {
            let problem = format!("{} lives on another device already", live.session);
            return Err(malformed(&format!("{field}.session_id"), &problem));
        }
        found.push(live);
    }
    Ok(found)
}

/// One session; `field` is where it stands in its message.
pub(super) fn session(live: v1::LiveSession, field: &str) -> Result<LiveSession, Status> {
    let within = |name: &str| format!("{field}.{name}");
    let device = DeviceId::parse(&live.device_id)
        .map_err(|bad| malformed(&within("device_id"), &bad.to_string()))?;
    if !(1..=EPOCH_MAX).contains(&live.epoch) {
        let problem = format!("{} is not from 1 to {EPOCH_MAX}", live.epoch);
        return Err(malformed(&within("epoch"), &problem));
    }
    let agent = agent(&live.agent)
        .map_err(|status| Status::new(status.code(), format!("{field}.{}", status.message())))?;
    Ok(LiveSession {
        session: id(
            &within("session_id"),
            &live.session_id,
            SessionId::from_slice,
        )?,
        device,
        epoch: live.epoch,
        agent: name(&agent),
        claim: ClaimId(random()?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{device_offer, live_session};

    fn refused(change: impl FnOnce(&mut Vec<v1::LiveSession>), field: &str) {
        let devices = [device_offer("edu-0"), device_offer("edu-1")];
        let mut told = vec![live_session("edu-0", 1, 3), live_session("edu-1", 2, 3)];
        change(&mut told);
        let status = sessions(told, &devices).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let message = status.message();
        assert!(message.starts_with(&format!("{field}:")), "{message}");
    }

    #[test]
    fn good_sessions_are_read() {
        let devices = [device_offer("edu-0"), device_offer("edu-1")];
        let told = vec![live_session("edu-1", 7, 3)];

        let read = sessions(told, &devices).unwrap();

        assert_eq!(read.len(), 1);
        assert_eq!(read[0].session, SessionId(7));
        assert_eq!(read[0].device.as_str(), "edu-1");
        assert_eq!(&*read[0].agent, "spiffe://potemkin.dev/agent/dev");
        assert_eq!(read[0].epoch, 3);
    }

    #[test]
    fn broken_sessions_are_refused_by_field() {
        refused(
            |s| s[1].session_id = vec![1; 15].into(),
            "sessions[1].session_id",
        );
        refused(|s| s[1].device_id = "Edu".into(), "sessions[1].device_id");
        refused(|s| s[0].epoch = 0, "sessions[0].epoch");
        refused(|s| s[0].epoch = u64::MAX, "sessions[0].epoch");
        refused(|s| s[0].agent = "vm7".into(), "sessions[0].agent");
        refused(
            |s| s[0].agent = "spiffe://potemkin.dev/host/a".into(),
            "sessions[0].agent",
        );
    }

    #[test]
    fn a_device_has_one_session_and_is_offered_beside_it() {
        refused(|s| s[1].device_id = "edu-0".into(), "sessions[1].device_id");
        refused(|s| s[1].device_id = "edu-7".into(), "sessions[1].device_id");
        refused(
            |s| s[1].session_id = s[0].session_id.clone(),
            "sessions[1].session_id",
        );
    }
}
