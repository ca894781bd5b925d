//! Latencies, and how two paths compare.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told from longer ones, in nanoseconds.
const NANOS_MAX: u64 = 60_000_000_000;
/// Decimal digits that a histogram keeps.
const DIGITS: u8 = 3;

/// The latencies of one path in one round, or in all of them.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, DIGITS);
        Self(histogram.expect("the bounds are constants in the range that is documented"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    /// Half of the latencies are at most this, in nanoseconds.
    pub(crate) fn median_ns(&self) -> u64 {
        self.0.value_at_quantile(0.5)
    }

    fn add(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    fn summary(&self) -> Summary {
        Summary {
            count: self.0.len(),
            min: self.0.min(),
            mean: self.0.mean(),
            p50: self.median_ns(),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p99_9: self.0.value_at_quantile(0.999),
            max: self.0.max(),
        }
    }
}

/// The distribution of one path's latencies over all rounds that count, in nanoseconds, to three digits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Accesses measured.
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// One figure over the rounds: what is typical, and how far it strays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) p25: f64,
    pub(crate) p75: f64,
    pub(crate) max: f64,
}

/// A path's rounds.
#[derive(Debug)]
pub(crate) struct Series {
    all: Latencies,
    medians_ns: Vec<u64>,
}

impl Series {
    pub(crate) fn new() -> Self {
        Self {
            all: Latencies::new(),
            medians_ns: Vec::new(),
        }
    }

    pub(crate) fn add_round(&mut self, round: &Latencies) {
        self.all.add(round);
        self.medians_ns.push(round.median_ns());
    }

    pub(crate) fn summary(&self) -> Summary {
        self.all.summary()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.medians_ns.is_empty()
    }

    /// This path's medians over `base`'s, round by round: what drifts between rounds cancels out. `None` without rounds.
    pub(crate) fn ratio_to(&self, base: &Self) -> Option<Spread> {
        let pairs = self.medians_ns.iter().zip(&base.medians_ns);
        let ratios = pairs.map(|(&own, &base)| as_f64(own) / as_f64(base.max(1)));
        Spread::of(ratios.collect())
    }
}

impl Spread {
    /// Of `own` over `base`, round by round; `None` without rounds.
    pub(crate) fn of_ratios(own: &[f64], base: &[f64]) -> Option<Self> {
        Self::of(own.iter().zip(base).map(|(own, base)| own / base).collect())
    }

    /// Of one figure from each round; `None` without rounds.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&figures, 0.5)?,
            min: *figures.first()?,
            p25: quantile(&figures, 0.25)?,
            p75: quantile(&figures, 0.75)?,
            max: *figures.last()?,
        })
    }
}

/// The quantile of sorted figures, interpolated between neighbours.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * as_f64(last as u64);
    // `q` is within 0 and 1, so the place is an index.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    let weight = place - place.floor();
    Some(sorted[below] * (1.0 - weight) + sorted[above] * weight)
}

/// Nearest; counts and nanoseconds here are far below the 2^53 that are exact.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn round(latencies_ns: impl IntoIterator<Item = u64>) -> Latencies {
        let mut round = Latencies::new();
        for nanos in latencies_ns {
            round.record(Duration::from_nanos(nanos));
        }
        round
    }

    fn series(medians_ns: &[u64]) -> Series {
        let mut series = Series::new();
        for &nanos in medians_ns {
            series.add_round(&round([nanos]));
        }
        series
    }

    #[test]
    fn summary_of_1_to_1000_has_its_percentiles_to_three_digits() {
        let mut series = Series::new();
        series.add_round(&round(1..=500));
        series.add_round(&round(501..=1000));

        let summary = series.summary();

        assert_eq!(summary.count, 1000);
        assert_eq!((summary.min, summary.max), (1, 1000));
        assert_eq!((summary.p50, summary.p90), (500, 900));
        assert_eq!((summary.p99, summary.p99_9), (990, 999));
        assert!((summary.mean - 500.5).abs() < 1e-9);
    }

    #[test]
    fn latency_beyond_the_range_counts_as_the_longest() {
        let latencies = round([u64::MAX]);

        assert_eq!(latencies.summary().count, 1);
        assert!(latencies.summary().max >= NANOS_MAX);
    }

    #[test]
    fn ratio_compares_rounds_in_pairs_so_drift_cancels_out() {
        let base = series(&[100, 200, 400]);
        let path = series(&[150, 300, 600]);

        let ratio = path.ratio_to(&base).unwrap();

        assert_eq!((ratio.min, ratio.median, ratio.max), (1.5, 1.5, 1.5));
    }

    #[test]
    fn one_disturbed_round_moves_the_spread_and_not_the_median() {
        let base = series(&[100, 100, 100, 100, 100]);
        let path = series(&[120, 120, 120, 120, 900]);

        let ratio = path.ratio_to(&base).unwrap();

        assert_eq!((ratio.median, ratio.max), (1.2, 9.0));
        assert_eq!((ratio.p25, ratio.p75), (1.2, 1.2));
    }

    #[test]
    fn ratio_without_rounds_is_none() {
        assert_eq!(Series::new().ratio_to(&series(&[1])), None);
    }

    #[test]
    fn quantiles_between_two_figures_are_interpolated() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0]).unwrap();

        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 5.0));
        assert_eq!((spread.p25, spread.p75), (1.75, 4.25));
    }

    #[test]
    fn spread_of_one_figure_is_that_figure_and_of_none_is_none() {
        let spread = Spread::of(vec![7.0]).unwrap();

        assert_eq!((spread.min, spread.median, spread.max), (7.0, 7.0, 7.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
