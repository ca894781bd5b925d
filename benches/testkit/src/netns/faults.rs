//! Links that lose or slow down what passes.

use super::Netns;
use crate::Result;

impl Netns {
    /// Drops from now on what comes in by an interface, without a word to who sent it: with one end of a link, one direction is cut.
    pub fn drop_incoming(&self, interface: &str) -> Result<()> {
        let rules = format!(
            "table inet {0} {{ chain input {{ type filter hook prerouting priority -300; iifname \"{interface}\" drop; }}; }}",
            table(interface)
        );
        self.run("nft", [rules]).map(drop)
    }

    /// Ends what [`Netns::drop_incoming`] began.
    pub fn accept_incoming(&self, interface: &str) -> Result<()> {
        self.run("nft", ["delete", "table", "inet", &table(interface)])
            .map(drop)
    }

    /// Sends not more than so much by an interface from now on; what cannot wait is dropped.
    pub fn limit_rate(&self, interface: &str, kilobits_per_second: u32) -> Result<()> {
        let rate = format!("{kilobits_per_second}kbit");
        let limit = ["tbf", "rate", &rate, "burst", "8kb", "latency", "100ms"];
        let at = ["qdisc", "replace", "dev", interface, "root"];
        self.run("tc", [&at[..], &limit[..]].concat()).map(drop)
    }

    /// Ends what [`Netns::limit_rate`] began.
    pub fn unlimit_rate(&self, interface: &str) -> Result<()> {
        self.run("tc", ["qdisc", "del", "dev", interface, "root"])
            .map(drop)
    }
}

fn table(interface: &str) -> String {
    format!("cut-{interface}")
}
