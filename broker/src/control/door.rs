//! Requests become typed values here. What is malformed is refused with the field's name.

use std::collections::{BTreeMap, HashMap};

use potemkin_proto::v1;
use potemkin_transport::{Identity, Role};
use tonic::Status;

use crate::core::Target;
use crate::ids::{ClaimId, DeviceId, Incarnation, check_name};
use crate::{VERSION, VERSION_MIN, common_version};

/// The most labels of a device or a selector (control.proto, `DeviceOffer.labels`).
const LABELS_MAX: usize = 32;
/// The longest key or value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// An attach, checked.
#[derive(Debug)]
pub(super) struct Attach {
    /// The version that agent and broker share.
    pub(super) version: u32,
    pub(super) target: Target,
    /// The run of the agent's process that asks, if it says so.
    pub(super) incarnation: Option<Incarnation>,
}

pub(super) fn attach(request: v1::AttachRequest) -> Result<Attach, Status> {
    Ok(Attach {
        version: versions(request.version_min, request.version_max)?,
        incarnation: agent_incarnation(&request.agent_incarnation)?,
        target: attach_target(request)?,
    })
}

fn attach_target(request: v1::AttachRequest) -> Result<Target, Status> {
    if request.claim_id.is_empty() {
        return target(request.target);
    }
    if request.target.is_some() {
        return Err(malformed("target", "leave it out when claim_id is given"));
    }
    id("claim_id", &request.claim_id, ClaimId::from_slice).map(Target::Claim)
}

fn agent_incarnation(bytes: &[u8]) -> Result<Option<Incarnation>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    id("agent_incarnation", bytes, Incarnation::from_slice).map(Some)
}

/// An agent's identity.
pub(super) fn agent(text: &str) -> Result<Identity, Status> {
    let identity: Identity = text
        .parse()
        .map_err(|_| malformed("agent", "is not spiffe://<trust domain>/agent/<name>"))?;
    if identity.role() == Role::Agent {
        return Ok(identity);
    }
    let problem = format!("{identity} has the role {}", identity.role());
    Err(malformed("agent", &problem))
}

/// The version to speak with a peer; refuses one that has none in common with us.
pub(super) fn versions(min: u32, max: u32) -> Result<u32, Status> {
    if min > max {
        return Err(malformed("version_min", "is above version_max"));
    }
    common_version(min, max).ok_or_else(|| {
        let field = if min > VERSION {
            "version_min"
        } else {
            "version_max"
        };
        let problem = format!(
            "this broker speaks versions {VERSION_MIN} to {VERSION}, the peer {min} to {max}"
        );
        malformed(field, &problem)
    })
}

pub(super) fn target(target: Option<v1::Target>) -> Result<Target, Status> {
    match target.and_then(|t| t.kind) {
        None => Err(malformed("target", "names neither device_id nor selector")),
        Some(v1::target::Kind::DeviceId(text)) => DeviceId::parse(&text)
            .map(Target::Device)
            .map_err(|bad| malformed("target.device_id", &bad.to_string())),
        Some(v1::target::Kind::Selector(selector)) => fitting(selector),
    }
}

/// A 16-byte id.
pub(super) fn id<T>(
    field: &str,
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Status> {
    read(bytes).ok_or_else(|| {
        let problem = format!("has {} bytes where 16 are wanted", bytes.len());
        malformed(field, &problem)
    })
}

fn fitting(selector: v1::Selector) -> Result<Target, Status> {
    let class = match selector.class.as_str() {
        "" => None,
        class => {
            check_name(class)
                .map_err(|bad| malformed("target.selector.class", &bad.to_string()))?;
            Some(selector.class)
        }
    };
    let labels =
        labels(selector.labels).map_err(|problem| malformed("target.selector.labels", &problem))?;
    Ok(Target::Fitting { class, labels })
}

/// Labels within their bounds, or what is wrong with them.
pub(super) fn labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("{} are more than {LABELS_MAX}", labels.len()));
    }
    let too_long = |text: &String| text.len() > LABEL_BYTES_MAX;
    for (key, value) in &labels {
        if key.is_empty() {
            return Err("a key is empty".to_owned());
        }
        if too_long(key) || too_long(value) {
            let start: String = key.chars().take(16).collect();
            return Err(format!(
                "the key or the value of {start:?} has more than {LABEL_BYTES_MAX} bytes"
            ));
        }
    }
    Ok(labels.into_iter().collect())
}

pub(super) fn malformed(field: &str, problem: &str) -> Status {
    Status::invalid_argument(format!("{field}: {problem}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use potemkin_proto::v1::target::Kind;
    use tonic::Code;

    use super::*;

    fn wanted(kind: Kind) -> Option<v1::Target> {
        Some(v1::Target { kind: Some(kind) })
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().starts_with(&format!("{field}:")),
            "{}",
            status.message()
        );
    }

    #[test]
    fn version_ranges_must_overlap_ours() {
        assert_eq!(versions(1, 1).unwrap(), 1);
        assert_eq!(versions(0, 9).unwrap(), 2);
        refused(versions(3, 4), "version_min");
        refused(versions(0, 0), "version_max");
        refused(versions(2, 1), "version_min");
    }

    #[test]
    fn targets_are_read_or_refused_by_field() {
        assert!(matches!(
            target(wanted(Kind::DeviceId("edu-0".into()))),
            Ok(Target::Device(_))
        ));
        refused(target(None), "target");
        refused(target(Some(v1::Target { kind: None })), "target");
        refused(
            target(wanted(Kind::DeviceId("EDU".into()))),
            "target.device_id",
        );
        let class = v1::Selector {
            class: "no good".into(),
            ..v1::Selector::default()
        };
        refused(
            target(wanted(Kind::Selector(class))),
            "target.selector.class",
        );
    }

    #[test]
    fn labels_beyond_their_bounds_are_refused() {
        let many = (0..33).map(|n| (n.to_string(), String::new())).collect();
        let long_key = [("k".repeat(64), String::new())].into();
        let long_value = [("k".to_owned(), "v".repeat(64))].into();
        let no_key = [(String::new(), "v".to_owned())].into();
        for labels in [many, long_key, long_value, no_key] {
            let selector = v1::Selector {
                class: String::new(),
                labels,
            };
            refused(
                target(wanted(Kind::Selector(selector))),
                "target.selector.labels",
            );
        }
    }

    #[test]
    fn an_attach_names_a_claim_or_a_target_but_not_both() {
        let mut request = v1::AttachRequest {
            version_min: 1,
            version_max: 1,
            target: None,
            claim_id: vec![7; 16].into(),
            agent_incarnation: Vec::new().into(),
        };
        assert!(matches!(
            attach(request.clone()),
            Ok(Attach {
                version: 1,
                target: Target::Claim(_),
                incarnation: None
            })
        ));
        request.target = wanted(Kind::DeviceId("edu-0".into()));
        refused(attach(request.clone()), "target");
        request.target = None;
        request.claim_id = vec![7; 15].into();
        refused(attach(request), "claim_id");
    }

    #[test]
    fn an_agent_is_named_by_its_whole_identity() {
        assert!(agent("spiffe://potemkin.dev/agent/vm7").is_ok());
        refused(agent("vm7"), "agent");
        refused(agent("spiffe://potemkin.dev/agent/*"), "agent");
        refused(agent("spiffe://potemkin.dev/host/vm7"), "agent");
    }

    #[test]
    fn an_agents_incarnation_is_16_bytes_or_left_out() {
        let said = |bytes: usize| {
            attach(v1::AttachRequest {
                version_min: 1,
                version_max: 1,
                target: wanted(Kind::DeviceId("edu-0".into())),
                agent_incarnation: vec![5; bytes].into(),
                ..v1::AttachRequest::default()
            })
        };
        assert!(said(0).unwrap().incarnation.is_none());
        assert!(said(16).unwrap().incarnation.is_some());
        refused(said(15), "agent_incarnation");
        refused(said(17), "agent_incarnation");
    }
}
