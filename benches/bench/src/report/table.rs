//! The report for people.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table};

use super::{PathReport, PostedWrites, Report, Setup};
use crate::machine::Placement;
use crate::stats::{Spread, as_f64};

pub(super) fn render(report: &Report) -> String {
    let mut text = heading(&report.setup);
    text.push('\n');
    text.push_str(&reads(&report.paths).trim_fmt());
    text.push('\n');
    if let Some(writes) = writes(&report.paths) {
        text.push('\n');
        text.push_str(&writes.trim_fmt());
        text.push('\n');
    }
    text
}

pub(super) fn heading(setup: &Setup) -> String {
    let machine = &setup.machine;
    let placement = match setup.placement {
        Placement::Free => format!("processes on any of {} CPUs", machine.cpus),
        Placement::OneCpu(cpu) => format!("all processes on CPU {cpu}"),
    };
    let mut text = format!(
        "{} {} {}: {placement}; {} rounds of {} reads\n",
        setup.tool, setup.version, setup.measurement, setup.rounds, setup.reads_per_round
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}, Linux {}", machine.cpu_model, machine.kernel);
    if !setup.optimised {
        text.push_str("built without optimisation: these figures say little\n");
    }
    text
}

fn reads(paths: &[PathReport]) -> Table {
    let mut table = table(&[
        "READ", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "/ relay", "range",
    ]);
    for path in paths {
        let read = &path.read_ns;
        let times = [read.p50, read.p90, read.p99, read.p99_9, read.max];
        let ratio = path.read_to_relay.as_ref();
        let figures = times
            .map(|nanos| micros(as_f64(nanos)))
            .into_iter()
            .chain([ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))])
            .chain([ratio.map_or_else(String::new, range)]);
        add_row(&mut table, &path.name, figures);
    }
    table
}

pub(super) fn range(ratio: &Spread) -> String {
    format!("{:.2}-{:.2}", ratio.min, ratio.max)
}

fn writes(paths: &[PathReport]) -> Option<Table> {
    let mut table = table(&[
        "POSTED WRITES",
        "issue ns",
        "sustained ns",
        "1000 + read us",
        "frames",
        "round trips",
        "config read ns",
    ]);
    for path in paths {
        let Some(writes) = &path.posted_writes else {
            continue;
        };
        let config_read = path.config_read_ns.as_ref();
        let figures = write_figures(writes)
            .into_iter()
            .chain([config_read.map_or_else(String::new, |read| format!("{:.1}", read.median))]);
        add_row(&mut table, &path.name, figures);
    }
    (!table.is_empty()).then_some(table)
}

fn write_figures(writes: &PostedWrites) -> [String; 5] {
    [
        format!("{:.0}", writes.issue_ns.median),
        format!("{:.0}", writes.sustained_ns.median),
        micros(writes.burst_ns.median),
        writes.burst_frames_sent_max.to_string(),
        writes.burst_round_trips_max.to_string(),
    ]
}

pub(super) fn micros(nanos: f64) -> String {
    format!("{:.1}", nanos / 1e3)
}

/// A table whose first column has names and the others figures.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().enumerate().map(|(index, name)| {
        let alignment = alignment(index);
        Cell::new(name).set_alignment(alignment)
    }));
    for index in 0..columns.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            column.set_cell_alignment(alignment(index));
        }
    }
    table
}

fn alignment(column: usize) -> CellAlignment {
    match column {
        0 => CellAlignment::Left,
        _ => CellAlignment::Right,
    }
}

pub(super) fn add_row(table: &mut Table, name: &str, figures: impl Iterator<Item = String>) {
    table.add_row(std::iter::once(name.to_owned()).chain(figures));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::{Client, Transport};
    use crate::error::BenchError;
    use crate::machine::Machine;
    use crate::path::{Path, Way};
    use crate::probe::{Burst, Probe};
    use crate::stats::Latencies;

    #[derive(Debug)]
    struct Nothing;

    impl Probe for Nothing {
        fn read_round(&mut self, _: u32) -> Result<Latencies, BenchError> {
            Ok(Latencies::new())
        }
    }

    fn path(way: Way, read_ns: u64) -> Path {
        let mut path = Path::new(way, Nothing);
        let mut round = Latencies::new();
        round.record(Duration::from_nanos(read_ns));
        path.reads.add_round(&round);
        path
    }

    fn report() -> Report {
        let setup = Setup {
            tool: "potemkin-bench",
            version: "0.0.0",
            measurement: "loopback",
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
        let way = Way::Potemkin {
            client: Client::Library,
            transport: Transport::Quic,
            host_transport: Transport::Quic,
        };
        let mut quic = path(way, 1_500);
        quic.writes.bursts.push(Burst {
            issued: Duration::from_micros(25),
            answered: Duration::from_micros(130),
            frames_sent: 3,
            frames_received: 2,
            round_trips: 1,
        });
        quic.writes.sustained_ns.push(150.0);
        quic.writes.config_read_ns.push(9.5);
        Report::new(setup, &[path(Way::Relay, 1_000), quic])
    }

    #[test]
    fn tables_show_each_path_with_its_ratio_to_the_relay() {
        let text = report().text();

        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "potemkin-bench 0.0.0 loopback: all processes on CPU 0; 1 rounds of 1 reads",
                "Some CPU, Linux 6.0"
            ]
        );
        let words = |start: &str| -> Vec<_> {
            let line = lines.iter().find(|line| line.starts_with(start));
            line.map_or_else(Vec::new, |line| line.split_whitespace().collect())
        };
        assert_eq!(words("plain TCP relay")[8..], ["1.00", "1.00-1.00"]);
        assert_eq!(
            words("quic library")[2..],
            ["1.5", "1.5", "1.5", "1.5", "1.5", "1.50", "1.50-1.50"]
        );
        assert_eq!(
            lines.last().map(|line| line.split_whitespace().collect()),
            Some(vec![
                "quic", "library", "25", "150", "130.0", "3", "1", "9.5"
            ])
        );
    }

    #[test]
    fn json_has_every_figure_under_its_name() {
        let json = serde_json::to_value(report()).unwrap_or_default();

        assert_eq!(json["version"], "0.0.0");
        assert_eq!(json["machine"]["cpus"], 2);
        assert_eq!(json["placement"]["one_cpu"], 0);
        assert_eq!(json["paths"][0]["way"]["kind"], "relay");
        let quic = &json["paths"][1];
        assert_eq!(quic["way"]["transport"], "quic");
        assert_eq!(quic["read_ns"]["count"], 1);
        assert_eq!(quic["read_ns"]["p99_9"], 1_500);
        assert_eq!(quic["read_to_relay"]["median"], 1.5);
        assert_eq!(quic["posted_writes"]["burst_frames_sent_max"], 3);
        assert_eq!(quic["config_read_ns"]["median"], 9.5);
    }
}
