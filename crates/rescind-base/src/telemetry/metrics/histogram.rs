//! A histogram that is updated without a lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};
use rescind_verifier::follow::usage::PerCore;

/// In microseconds: from a verification in memory up to a wait for the end of a lease.
const DURATIONS: [u64; 20] = [
    5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];
const NUMBERS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// The most buckets that a histogram has.
const MOST: usize = DURATIONS.len() + 1;

/// Counts of values up to each bound. Clones share the same counts.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: Box<[u64]>,
    /// The number of counted units in one reported unit.
    unit: f64,
    parts: PerCore<Part>,
}

/// What the threads of one core have counted.
#[derive(Debug)]
struct Part {
    /// One count for each bound, and one for larger values. There may be more than are used.
    counts: [AtomicU64; MOST],
    sum: AtomicU64,
}

impl Histogram {
    /// A histogram of durations, counted in nanoseconds and reported in seconds.
    pub fn of_durations() -> Histogram {
        Histogram::new(DURATIONS.map(|microseconds| 1000 * microseconds), 1e9)
    }

    /// A histogram of numbers up to some hundreds.
    pub fn of_numbers() -> Histogram {
        Histogram::new(NUMBERS, 1.0)
    }

    fn new(bounds: impl Into<Box<[u64]>>, unit: f64) -> Histogram {
        let part = || Part { counts: [const { AtomicU64::new(0) }; MOST], sum: AtomicU64::new(0) };
        Histogram(Arc::new(Buckets { bounds: bounds.into(), unit, parts: PerCore::new(part) }))
    }

    /// Counts a number.
    pub fn count(&self, number: u64) {
        let Buckets { bounds, parts, .. } = &*self.0;
        let Part { counts, sum } = parts.own();
        counts[bounds.partition_point(|&bound| bound < number)].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(number, Ordering::Relaxed);
    }

    /// What a histogram of durations has counted so far.
    pub fn durations(&self) -> Durations {
        Durations(std::array::from_fn(|i| self.0.total(|part| &part.counts[i])))
    }

    /// Counts a duration.
    pub fn took(&self, duration: Duration) {
        self.count(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Buckets {
    /// The sum over the cores.
    fn total(&self, of: impl Fn(&Part) -> &AtomicU64) -> u64 {
        self.parts.parts().map(|part| of(part).load(Ordering::Relaxed)).sum()
    }
}

/// The counts of a histogram of durations: one for each bound, and one for larger values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations([u64; MOST]);

impl Durations {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Durations) -> Durations {
        Durations(std::array::from_fn(|i| self.0[i].saturating_sub(earlier.0[i])))
    }

    /// The duration that this part of those counted did not exceed, estimated as if those of one bucket were spread evenly
    /// over it. `None`: nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().sum();
        let rank = part * total as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (&count, micros) in self.0.iter().zip(DURATIONS) {
            let (count, upper) = (count as f64, micros as f64);
            if count > 0.0 && below + count >= rank {
                let micros = lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
            (below, lower) = (below + count, upper);
        }
        // How much longer they took was not counted.
        (total > 0).then(|| Duration::from_micros(DURATIONS[MOST - 2]))
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { bounds, unit, .. } = &*self.0;
        let bounds = bounds.iter().map(|&bound| bound as f64 / unit).chain([f64::INFINITY]);
        let buckets: Vec<_> =
            bounds.zip(0..).map(|(bound, i)| (bound, self.0.total(|part| &part.counts[i]))).collect();
        // The sum may be slightly newer than the counts.
        let sum = self.0.total(|part| &part.sum) as f64 / unit;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    fn text(histogram: &Histogram) -> String {
        let mut registry = Registry::default();
        registry.register("h", "Help", histogram.clone());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_value_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::of_durations();
        for micros in [0, 5, 6, 7, 1_000_000, 10_000_001] {
            histogram.took(Duration::from_micros(micros));
        }
        let text = text(&histogram);
        for line in [
            "# TYPE h histogram",
            "h_sum 11.000019",
            "h_count 6",
            "h_bucket{le=\"0.000005\"} 2",
            "h_bucket{le=\"0.00001\"} 4",
            "h_bucket{le=\"0.5\"} 4",
            "h_bucket{le=\"1.0\"} 5",
            "h_bucket{le=\"10.0\"} 5",
            "h_bucket{le=\"+Inf\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn numbers_are_told_as_they_are() {
        let histogram = Histogram::of_numbers();
        for number in [1, 3, 256] {
            histogram.count(number);
        }
        let text = text(&histogram);
        for line in
            ["h_sum 260.0", "h_bucket{le=\"1.0\"} 1", "h_bucket{le=\"4.0\"} 2", "h_bucket{le=\"256.0\"} 3"]
        {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_it_falls_into() {
        let histogram = Histogram::of_durations();
        assert_eq!(histogram.durations().quantile(0.5), None);
        (0..98).for_each(|_| histogram.took(Duration::from_micros(1500)));
        let before = histogram.durations();
        (0..2).for_each(|_| histogram.took(Duration::from_secs(60)));
        let all = histogram.durations();
        let within = |duration: Duration, from, to| {
            assert!((from..=to).contains(&duration.as_micros()), "{duration:?}");
        };
        within(all.quantile(0.5).unwrap(), 1001, 2000);
        // Longer than the last bound.
        within(all.quantile(0.99).unwrap(), 10_000_000, 10_000_000);
        within(all.since(&before).quantile(0.01).unwrap(), 10_000_000, 10_000_000);
        within(before.quantile(1.0).unwrap(), 2000, 2000);
    }

    #[test]
    fn nothing_is_lost_when_many_write() {
        let histogram = Histogram::of_numbers();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|i| histogram.count(i % 300)));
            }
        });
        assert!(text(&histogram).contains("h_count 40000\n"));
    }
}
