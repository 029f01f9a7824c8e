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

const MICROSECOND: u64 = 1000;
const MILLISECOND: u64 = 1000 * MICROSECOND;
const SECOND: u64 = 1000 * MILLISECOND;

/// In nanoseconds: from a verification in memory up to a wait for the end of a lease.
const DURATIONS: [u64; 20] = [
    5 * MICROSECOND,
    10 * MICROSECOND,
    20 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    200 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2 * MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    20 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    200 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
];
const NUMBERS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Counts of values up to each bound. Clones share the same counts.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// The number of counted units in one reported unit.
    unit: f64,
    /// One count for each bound, and one for larger values.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// A histogram of durations, reported in seconds.
    pub fn of_durations() -> Histogram {
        Histogram::new(&DURATIONS, SECOND as f64)
    }

    /// A histogram of numbers up to some hundreds.
    pub fn of_numbers() -> Histogram {
        Histogram::new(&NUMBERS, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Buckets { bounds, unit, counts, sum: AtomicU64::new(0) }))
    }

    /// Counts a number.
    pub fn count(&self, number: u64) {
        let Buckets { bounds, counts, sum, .. } = &*self.0;
        counts[bounds.partition_point(|&bound| bound < number)].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a duration.
    pub fn took(&self, duration: Duration) {
        self.count(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { bounds, unit, counts, sum } = &*self.0;
        let bounds = bounds.iter().map(|&bound| bound as f64 / unit).chain([f64::INFINITY]);
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        // The sum may be slightly newer than the counts.
        let sum = sum.load(Ordering::Relaxed) as f64 / unit;
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
