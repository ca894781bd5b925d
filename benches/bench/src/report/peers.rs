//! What a comparison of vfio-user servers found.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::Table;
use serde::Serialize;

use super::Setup;
use super::table::{add_row, heading, micros, table};
use crate::peers::{POSTED_WRITES, PeerPath, PeerWay, ServerKind};
use crate::stats::{Series, Spread, Summary, as_f64};

/// The crate's release, as `Cargo.lock` has it.
const VFIO_USER_VERSION: &str = "0.1.7";

/// All figures of one run. Times are in nanoseconds; the member's name says so.
#[derive(Debug, Serialize)]
pub(crate) struct PeersReport {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    /// Writes without a reply of each path in a round.
    pub(crate) posted_writes_per_round: u32,
    pub(crate) peers: Vec<Peer>,
    /// In the order of the table; the first is our server with our client.
    pub(crate) paths: Vec<PeerPathReport>,
}

/// An implementation.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Missing: its executable does not say.
    pub(crate) version: Option<&'static str>,
    /// Where it comes from, with which flags it was built.
    pub(crate) build: String,
    /// Whether its executable was there.
    pub(crate) given: bool,
    /// The executable, if it is not this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<PathBuf>,
}

/// One path. What is missing was not measured on it.
#[derive(Debug, Serialize)]
pub(crate) struct PeerPathReport {
    pub(crate) name: String,
    pub(crate) way: PeerWay,
    /// A read of 1 byte of a BAR; of the yardstick, 32 bytes there and back.
    pub(crate) read: Option<Timed>,
    /// A write of 1 byte of a BAR, with its reply.
    pub(crate) write: Option<Timed>,
    /// A read of 4 bytes of configuration space.
    pub(crate) config_read: Option<Timed>,
    /// A write of 1 byte of a BAR without a reply, issued without a pause until the server has done all.
    pub(crate) posted_write: Option<Sustained>,
}

/// What is timed one by one.
#[derive(Debug, Serialize)]
pub(crate) struct Timed {
    pub(crate) ns: Summary,
    /// Its median over that of our server with our client, round by round.
    pub(crate) to_ours: Option<Spread>,
}

/// What is timed all together.
#[derive(Debug, Serialize)]
pub(crate) struct Sustained {
    /// Each.
    pub(crate) ns: Spread,
    pub(crate) to_ours: Option<Spread>,
}

impl PeersReport {
    /// The figures of `paths`; the first is what the others are compared with.
    pub(crate) fn new(setup: Setup, libvfio_user: Option<&Path>, paths: &[PeerPath]) -> Self {
        let ours = paths.first();
        let report = |path| ours.map(|ours| PeerPathReport::new(path, ours));
        Self {
            peers: peers(&setup, libvfio_user),
            setup,
            posted_writes_per_round: POSTED_WRITES,
            paths: paths.iter().filter_map(report).collect(),
        }
    }

    /// One JSON object, over several lines.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// A table, and who is in it.
    pub(crate) fn text(&self) -> String {
        let mut text = heading(&self.setup);
        for peer in &self.peers {
            let version = peer.version.map_or(String::new(), |v| format!(" {v}"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}{version}: {}", peer.name, peer.build);
        }
        let _ = write!(
            text,
            "as many writes and config reads, and {} posted writes; one access outstanding\n\n{}\n",
            self.posted_writes_per_round,
            figures(&self.paths).trim_fmt()
        );
        text
    }
}

fn peers(setup: &Setup, libvfio_user: Option<&Path>) -> Vec<Peer> {
    let flags = if setup.optimised {
        "built into this program, with optimisation"
    } else {
        "built into this program, without optimisation"
    };
    let built_in = |kind: ServerKind, version| Peer {
        name: kind.as_str(),
        version: Some(version),
        build: flags.to_owned(),
        given: true,
        program: None,
    };
    vec![
        built_in(ServerKind::Potemkin, setup.version),
        built_in(ServerKind::Crate, VFIO_USER_VERSION),
        Peer {
            name: ServerKind::LibvfioUser.as_str(),
            version: None,
            build: libvfio_user.map_or("not given, not measured".to_owned(), |path| {
                format!("{}, version and flags as it was built", path.display())
            }),
            given: libvfio_user.is_some(),
            program: libvfio_user.map(Path::to_owned),
        },
    ]
}

impl PeerPathReport {
    fn new(path: &PeerPath, ours: &PeerPath) -> Self {
        Self {
            name: path.way.to_string(),
            way: path.way,
            read: Timed::new(&path.reads, &ours.reads),
            write: Timed::new(&path.writes, &ours.writes),
            config_read: Timed::new(&path.config_reads, &ours.config_reads),
            posted_write: Sustained::new(&path.posted_ns, &ours.posted_ns),
        }
    }
}

impl Timed {
    fn new(own: &Series, ours: &Series) -> Option<Self> {
        (!own.is_empty()).then(|| Self {
            ns: own.summary(),
            to_ours: own.ratio_to(ours),
        })
    }

    /// Two times, and the ratio.
    fn cells(timed: Option<&Self>) -> [String; 3] {
        let Some(Self { ns, to_ours }) = timed else {
            return Default::default();
        };
        let time = |nanos| micros(as_f64(nanos));
        [time(ns.p50), time(ns.p99), ratio(to_ours.as_ref())]
    }
}

impl Sustained {
    fn new(own: &[f64], ours: &[f64]) -> Option<Self> {
        Some(Self {
            ns: Spread::of(own.to_vec())?,
            to_ours: Spread::of_ratios(own, ours),
        })
    }

    fn cells(sustained: Option<&Self>) -> [String; 2] {
        let Some(Self { ns, to_ours }) = sustained else {
            return Default::default();
        };
        [micros(ns.median), ratio(to_ours.as_ref())]
    }
}

fn ratio(to_ours: Option<&Spread>) -> String {
    to_ours.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))
}

fn figures(paths: &[PeerPathReport]) -> Table {
    let mut table = table(&[
        "SERVER (CLIENT), US EACH",
        "read p50",
        "p99",
        "/ ours",
        "write p50",
        "p99",
        "/ ours",
        "config p50",
        "p99",
        "/ ours",
        "posted",
        "/ ours",
    ]);
    for path in paths {
        let timed = [&path.read, &path.write, &path.config_read];
        let cells = timed
            .into_iter()
            .flat_map(|timed| Timed::cells(timed.as_ref()))
            .chain(Sustained::cells(path.posted_write.as_ref()));
        add_row(&mut table, &path.name, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::machine::{Machine, Placement};
    use crate::peers::GuestKind;
    use crate::stats::Latencies;

    fn round(nanos: u64) -> Latencies {
        let mut round = Latencies::new();
        round.record(Duration::from_nanos(nanos));
        round
    }

    fn path(server: ServerKind, factor: u64) -> PeerPath {
        let client = GuestKind::Potemkin;
        let mut path = PeerPath::of_figures(PeerWay::VfioUser { server, client });
        path.reads.add_round(&round(10_000 * factor));
        path.writes.add_round(&round(11_000 * factor));
        path.config_reads.add_round(&round(12_000 * factor));
        path.posted_ns.push(as_f64(3_000 * factor));
        path
    }

    fn report(libvfio_user: Option<&Path>) -> PeersReport {
        let setup = Setup {
            tool: "potemkin-bench",
            version: "0.0.0",
            measurement: "peers",
            optimised: true,
            machine: Machine {
                cpus: 2,
                cpu_model: "Some CPU".to_owned(),
                kernel: "6.0".to_owned(),
            },
            placement: Placement::OneCpu(0),
            rounds: 1,
            warm_up_rounds: 0,
            reads_per_round: 1,
        };
        let mut yardstick = PeerPath::of_figures(PeerWay::Unix);
        yardstick.reads.add_round(&round(8_000));
        let paths = [
            path(ServerKind::Potemkin, 1),
            path(ServerKind::Crate, 2),
            yardstick,
        ];
        PeersReport::new(setup, libvfio_user, &paths)
    }

    fn words(text: &str, start: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn table_has_each_path_with_its_ratio_to_ours() {
        let text = report(None).text();

        assert!(
            text.contains("all processes on CPU 0") && text.contains("vfio_user 0.1.7: built"),
            "{text}"
        );
        assert_eq!(
            words(&text, "vfio_user (potemkin)")[2..],
            [
                "20.0", "20.0", "2.00", "22.0", "22.0", "2.00", "24.0", "24.0", "2.00", "6.0",
                "2.00"
            ]
        );
        assert_eq!(words(&text, "UNIX socket")[2..], ["8.0", "8.0", "0.80"]);
    }

    #[test]
    fn libvfio_user_is_named_whether_given_or_not() {
        let absent = report(None);
        assert!(absent.text().contains("libvfio-user: not given"));
        let json = serde_json::to_value(&absent).unwrap();
        assert_eq!(json["peers"][2]["given"], false);

        let given = report(Some(Path::new("/x/server")));
        assert!(given.text().contains("libvfio-user: /x/server"));
        let json = serde_json::to_value(&given).unwrap();
        assert_eq!(json["peers"][2]["program"], "/x/server");
    }

    #[test]
    fn json_leaves_out_no_figure_and_makes_up_none() {
        let json = serde_json::to_value(report(None)).unwrap();

        let theirs = &json["paths"][1];
        assert_eq!(theirs["way"]["server"], "vfio_user");
        assert_eq!(theirs["read"]["ns"]["count"], 1);
        assert_eq!(theirs["write"]["ns"]["count"], 1);
        assert_eq!(theirs["posted_write"]["to_ours"]["median"], 2.0);
        assert_eq!(theirs["posted_write"]["ns"]["median"], 6_000.0);
        assert!(json["paths"][2]["write"].is_null(), "{json}");
    }

    #[test]
    fn version_of_the_crate_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = format!("name = \"vfio_user\"\nversion = \"{VFIO_USER_VERSION}\"");
        assert!(lock.contains(&entry));
    }
}
