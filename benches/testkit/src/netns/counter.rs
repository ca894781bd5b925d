//! Packets that pass an interface, counted by nftables: evidence from below all of our code.

use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Netns;
use crate::{Error, Result};

/// Which packets to count. A port matches as source or as destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Every IPv4 and IPv6 packet but neighbour discovery and router solicitation, which nobody asked for.
    All,
    /// UDP from or to a port.
    Udp(u16),
    /// TCP from or to a port.
    Tcp(u16),
    /// UDP or TCP from or to a port.
    Port(u16),
}

impl Traffic {
    /// The condition of an nftables rule.
    fn condition(self) -> String {
        match self {
            Self::All => "meta l4proto != icmpv6".to_owned(),
            Self::Udp(port) => format!("meta l4proto udp th sport {port}"),
            Self::Tcp(port) => format!("meta l4proto tcp th sport {port}"),
            Self::Port(port) => format!("meta l4proto {{ tcp, udp }} th sport {port}"),
        }
    }

    /// The conditions whose union is this traffic; they exclude each other.
    fn conditions(self) -> Vec<String> {
        let from = self.condition();
        match self {
            Self::All => vec![from],
            Self::Udp(port) | Self::Tcp(port) | Self::Port(port) => {
                let protocol = from.split(" th ").next().unwrap_or_default();
                vec![
                    from.clone(),
                    format!("{protocol} th dport {port} th sport != {port}"),
                ]
            }
        }
    }
}

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that came in by the interface.
    pub received_packets: u64,
    /// Bytes of these, IP headers included.
    pub received_bytes: u64,
    /// Packets that went out by the interface.
    pub sent_packets: u64,
    /// Bytes of these, IP headers included.
    pub sent_bytes: u64,
}

impl Count {
    /// Packets in both directions.
    pub fn packets(self) -> u64 {
        self.received_packets + self.sent_packets
    }

    /// Bytes in both directions.
    pub fn bytes(self) -> u64 {
        self.received_bytes + self.sent_bytes
    }
}

/// A counter on an interface of a namespace; it lasts as long as the namespace.
#[derive(Debug)]
pub struct PacketCounter<'a> {
    netns: &'a Netns,
    table: String,
}

impl<'a> PacketCounter<'a> {
    pub(super) fn install(netns: &'a Netns, interface: &str, traffic: Traffic) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let table = format!("count{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        netns.run("nft", [ruleset(&table, interface, traffic)])?;
        Ok(Self { netns, table })
    }

    /// What has passed since the counter was made.
    pub fn read(&self) -> Result<Count> {
        let listing = self.netns.run(
            "nft",
            ["-j", "list", "counters", "table", "inet", &self.table],
        )?;
        parse(&listing.stdout)
    }

    /// Waits until nothing has passed for `silence`, so that late acknowledgements of what went before are not taken for traffic of
    /// what comes next. Returns the count then. Silence is no event: it can only be watched.
    ///
    /// # Errors
    /// When it does not fall silent within `limit`.
    pub fn wait_silence(&self, silence: Duration, limit: Duration) -> Result<Count> {
        let begin = Instant::now();
        let mut count = self.read()?;
        let mut since = begin;
        while since.elapsed() < silence {
            if begin.elapsed() > limit {
                let message = format!("{} is not silent after {limit:?}: {count:?}", self.table);
                return Err(Error::peer("nft", message));
            }
            std::thread::sleep(silence / 10);
            let now = self.read()?;
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
        Ok(count)
    }
}

/// Counted where a packet enters and leaves this namespace's own stack, or passes through it.
fn ruleset(table: &str, interface: &str, traffic: Traffic) -> String {
    let chain = |name: &str, hook: &str, key: &str, counter: &str| {
        let rules: String = traffic
            .conditions()
            .iter()
            .map(|condition| format!("{key} \"{interface}\" {condition} counter name {counter}\n"))
            .collect();
        format!("chain {name} {{\ntype filter hook {hook} priority -300\n{rules}}}\n")
    };
    let input = chain("i", "prerouting", "iifname", "received");
    let output = chain("o", "postrouting", "oifname", "sent");
    format!("table inet {table} {{\ncounter received {{ }}\ncounter sent {{ }}\n{input}{output}}}")
}

fn parse(json: &str) -> Result<Count> {
    let bad = |why: &str| Error::peer("nft", format!("{why} in {json}"));
    let value: Value = serde_json::from_str(json).map_err(|e| bad(&e.to_string()))?;
    let items = value["nftables"].as_array().ok_or_else(|| bad("no list"))?;
    let read = |name: &str| {
        let counter = items
            .iter()
            .map(|i| &i["counter"])
            .find(|c| c["name"] == name);
        let number = |key: &str| counter.and_then(|c| c[key].as_u64());
        number("packets")
            .zip(number("bytes"))
            .ok_or_else(|| bad(name))
    };
    let (received_packets, received_bytes) = read("received")?;
    let (sent_packets, sent_bytes) = read("sent")?;
    Ok(Count {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_counted_once_even_when_it_is_both_source_and_destination() {
        let text = ruleset("t", "veth0", Traffic::Udp(53));

        assert!(
            text.contains("iifname \"veth0\" meta l4proto udp th sport 53 counter name received\n")
        );
        assert!(text.contains(
            "iifname \"veth0\" meta l4proto udp th dport 53 th sport != 53 counter name received\n"
        ));
        assert_eq!(text.matches("counter name sent").count(), 2);
    }

    #[test]
    fn a_listing_gives_both_directions() {
        let json = r#"{"nftables":[{"metainfo":{}},{"counter":{"name":"received","packets":3,"bytes":180}},
            {"counter":{"name":"sent","packets":2,"bytes":90}}]}"#;

        let count = parse(json).unwrap();

        assert_eq!((count.packets(), count.bytes()), (5, 270));
        assert_eq!((count.received_packets, count.sent_bytes), (3, 90));
    }

    #[test]
    fn a_listing_without_the_counters_is_an_error() {
        let error = parse(r#"{"nftables":[{"metainfo":{}}]}"#).unwrap_err();

        assert!(error.to_string().contains("received"), "{error}");
    }
}
