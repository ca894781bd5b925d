//! Who may offer which devices, and who may claim which. What no rule allows is denied.

use potemkin_service::config::BadValue;
use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;

/// `[policy]`: the rules, in no particular order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What hosts may offer.
    pub offer: Vec<OfferRule>,
    /// What agents may claim and attach.
    pub claim: Vec<ClaimRule>,
}

/// Allows hosts to offer devices.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRule {
    /// Identity of the host; a `*` at the end stands for any rest of the last segment.
    pub host: String,
    /// Device ids; a `*` at the end of one stands for any rest.
    pub devices: Vec<String>,
}

/// Allows agents to claim devices: those whose id *and* class are listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// Identity of the agent; a `*` at the end stands for any rest of the last segment.
    pub agent: String,
    /// Device ids; a `*` at the end of one stands for any rest. Left out: any.
    #[serde(default = "anything")]
    pub devices: Vec<String>,
    /// Classes; a `*` at the end of one stands for any rest. Left out: any.
    #[serde(default = "anything")]
    pub classes: Vec<String>,
}

impl Policy {
    /// Refuses patterns that can never match as meant.
    pub fn check(&self) -> Result<(), BadValue> {
        for (index, rule) in self.offer.iter().enumerate() {
            let key = |field| format!("policy.offer[{index}].{field}");
            check_identity(key("host"), "host", &rule.host)?;
            check_all(&key("devices"), &rule.devices)?;
        }
        for (index, rule) in self.claim.iter().enumerate() {
            let key = |field| format!("policy.claim[{index}].{field}");
            check_identity(key("agent"), "agent", &rule.agent)?;
            check_all(&key("devices"), &rule.devices)?;
            check_all(&key("classes"), &rule.classes)?;
        }
        Ok(())
    }

    /// May `host` offer this device?
    #[must_use]
    pub fn may_offer(&self, host: &str, device: &DeviceId) -> bool {
        self.offer
            .iter()
            .any(|rule| identity_fits(&rule.host, host) && any_fits(&rule.devices, device.as_str()))
    }

    /// May `agent` claim this device? `class` is `None` when the device is not known: then its id alone decides.
    #[must_use]
    pub fn may_claim(&self, agent: &str, device: &DeviceId, class: Option<&str>) -> bool {
        self.claim.iter().any(|rule| {
            identity_fits(&rule.agent, agent)
                && any_fits(&rule.devices, device.as_str())
                && class.is_none_or(|class| any_fits(&rule.classes, class))
        })
    }
}

fn anything() -> Vec<String> {
    vec!["*".to_owned()]
}

/// `spiffe://<trust domain>/<role>/<name>`, whose name may end with a star.
fn check_identity(key: String, role: &str, pattern: &str) -> Result<(), BadValue> {
    check_star(&key, pattern)?;
    let segments: Vec<_> = pattern.split('/').collect();
    match segments[..] {
        ["spiffe:", "", domain, found, name]
            if !domain.is_empty() && !name.is_empty() && found == role =>
        {
            Ok(())
        }
        _ => Err(bad(
            key,
            pattern,
            &format!("must be spiffe://<trust domain>/{role}/<name>"),
        )),
    }
}

fn check_all(key: &str, patterns: &[String]) -> Result<(), BadValue> {
    let mut patterns = patterns.iter().enumerate();
    patterns.try_for_each(|(index, pattern)| check_star(&format!("{key}[{index}]"), pattern))
}

fn check_star(key: &str, pattern: &str) -> Result<(), BadValue> {
    let head = pattern.strip_suffix('*').unwrap_or(pattern);
    if pattern.is_empty() {
        Err(bad(key, pattern, "is empty"))
    } else if head.contains('*') {
        Err(bad(key, pattern, "has a * that is not at its end"))
    } else {
        Ok(())
    }
}

fn bad(key: impl Into<String>, pattern: &str, problem: &str) -> BadValue {
    BadValue::new(key, format!("{pattern:?} {problem}"))
}

fn any_fits(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, text))
}

fn fits(pattern: &str, text: &str) -> bool {
    rest_of_match(pattern, text).is_some()
}

/// As [`fits`], but `*` does not stand for a slash: it must not let a name reach into another role's.
fn identity_fits(pattern: &str, identity: &str) -> bool {
    rest_of_match(pattern, identity).is_some_and(|rest| !rest.contains('/'))
}

/// What the pattern's `*` stands for, if the pattern fits.
fn rest_of_match<'a>(pattern: &str, text: &'a str) -> Option<&'a str> {
    match pattern.strip_suffix('*') {
        Some(head) => text.strip_prefix(head),
        None => (pattern == text).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AGENT: &str = "spiffe://potemkin.dev/agent/a";
    const HOST: &str = "spiffe://potemkin.dev/host/h";

    fn id(text: &str) -> DeviceId {
        DeviceId::parse(text).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    fn claim_rule(agent: &str, devices: &[&str], classes: &[&str]) -> Policy {
        Policy {
            claim: vec![ClaimRule {
                agent: agent.into(),
                devices: strings(devices),
                classes: strings(classes),
            }],
            ..Policy::default()
        }
    }

    fn offer_rule(host: &str, devices: &[&str]) -> Policy {
        Policy {
            offer: vec![OfferRule {
                host: host.into(),
                devices: strings(devices),
            }],
            ..Policy::default()
        }
    }

    #[test]
    fn without_rules_everything_is_denied() {
        let policy = Policy::default();
        assert!(!policy.may_offer(HOST, &id("edu-0")));
        assert!(!policy.may_claim(AGENT, &id("edu-0"), Some("edu")));
    }

    #[test]
    fn a_rule_allows_what_its_patterns_fit_and_nothing_else() {
        let policy = claim_rule(AGENT, &["edu-*"], &["edu"]);
        assert!(policy.may_claim(AGENT, &id("edu-0"), Some("edu")));
        assert!(!policy.may_claim(AGENT, &id("nvme-0"), Some("edu")));
        assert!(!policy.may_claim(AGENT, &id("edu-0"), Some("nvme")));
        assert!(!policy.may_claim("spiffe://potemkin.dev/agent/b", &id("edu-0"), Some("edu")));
    }

    #[test]
    fn an_unknown_class_leaves_the_decision_to_the_id() {
        let policy = claim_rule(AGENT, &["edu-*"], &["edu"]);
        assert!(policy.may_claim(AGENT, &id("edu-9"), None));
        assert!(!policy.may_claim(AGENT, &id("nvme-9"), None));
    }

    #[test]
    fn a_star_in_an_identity_does_not_stand_for_a_slash() {
        let policy = offer_rule("spiffe://potemkin.dev/host/*", &["*"]);
        assert!(policy.may_offer(HOST, &id("edu-0")));
        assert!(!policy.may_offer("spiffe://potemkin.dev/host/h/x", &id("edu-0")));
        assert!(!policy.may_offer("spiffe://potemkin.dev/agent/h", &id("edu-0")));
        assert!(!policy.may_offer("spiffe://other.dev/host/h", &id("edu-0")));
    }

    #[test]
    fn a_rule_without_devices_and_classes_fits_any() {
        let policy: Policy = toml::from_str(&format!("[[claim]]\nagent = {AGENT:?}\n")).unwrap();
        assert!(policy.may_claim(AGENT, &id("edu-0"), Some("edu")));
    }

    #[test]
    fn patterns_that_cannot_mean_anything_are_refused() {
        let star_inside = claim_rule(AGENT, &["e*u"], &["*"]);
        assert!(star_inside.check().unwrap_err().to_string().contains("e*u"));
        let not_spiffe = offer_rule("host/h", &["*"]);
        assert!(
            not_spiffe
                .check()
                .unwrap_err()
                .to_string()
                .contains("spiffe://")
        );
        let wrong_role = claim_rule(HOST, &["*"], &["*"]);
        assert!(
            wrong_role
                .check()
                .unwrap_err()
                .to_string()
                .contains("/agent/")
        );
        assert!(offer_rule("spiffe://*", &["*"]).check().is_err());
        assert!(
            claim_rule("spiffe://potemkin.dev/agent/*", &["*"], &["*"])
                .check()
                .is_ok()
        );
    }
}
