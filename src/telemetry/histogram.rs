//! A histogram of durations that costs two additions an observation and can be read: the page's history needs percentiles of
//! ten seconds, which no exposition gives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Calls, from an echo to a task of a day; seconds, as all bounds.
pub(crate) const CALL: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0,
    86_400.0,
];
/// Runs of one agent: there may be a hundred of these.
pub(crate) const AGENT: &[f64] = &[0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0];
/// What ends within the moment: searches, requests, writes, round trips.
pub(crate) const FAST: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// The way of a record through the mesh.
pub(crate) const SPREAD: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0];

/// Durations, counted by size. A clone counts into the same.
#[derive(Clone)]
pub(crate) struct Histogram(Arc<Inner>);

struct Inner {
    bounds: &'static [f64],
    /// One more than bounds: what is longer than all.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    bounds: &'static [f64],
    counts: Vec<u64>,
}

impl Histogram {
    /// Nothing counted yet; the bounds rise.
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Inner { bounds, counts, sum_ns: AtomicU64::new(0) }))
    }

    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = self.0.bounds.partition_point(|bound| *bound < seconds);
        self.0.counts[at].fetch_add(1, Relaxed);
        self.0.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Adds all of another one with equal bounds.
    pub(crate) fn add(&self, other: &Histogram) {
        for (own, theirs) in self.0.counts.iter().zip(&other.0.counts) {
            own.fetch_add(theirs.load(Relaxed), Relaxed);
        }
        self.0.sum_ns.fetch_add(other.0.sum_ns.load(Relaxed), Relaxed);
    }

    pub(crate) fn read(&self) -> Reading {
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed)).collect();
        Reading { bounds: self.0.bounds, counts }
    }

    fn sum(&self) -> f64 {
        self.0.sum_ns.load(Relaxed) as f64 / 1e9
    }
}

impl Reading {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted since an earlier reading of the same histogram.
    pub(crate) fn since(&self, earlier: &Reading) -> Reading {
        let counts = self.counts.iter().zip(&earlier.counts);
        Reading { bounds: self.bounds, counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect() }
    }

    /// Both together; of histograms with equal bounds.
    pub(crate) fn and(&self, other: &Reading) -> Reading {
        let counts = self.counts.iter().zip(&other.counts).map(|(one, other)| one + other).collect();
        Reading { bounds: self.bounds, counts }
    }

    /// The duration in seconds that this share of all does not exceed, taken as evenly spread within its bucket; none of
    /// nothing. What is longer than all bounds is told as the greatest of them.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let mut below = 0.0;
        for (at, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let lower = at.checked_sub(1).map_or(0.0, |before| self.bounds[before]);
                let upper = self.bounds.get(at).copied().unwrap_or(lower);
                return Some(lower + (upper - lower) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.read())
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Reading { bounds, counts } = self.read();
        let above = std::iter::once(f64::INFINITY);
        let buckets: Vec<(f64, u64)> =
            bounds.iter().copied().chain(above).zip(counts.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum(), counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: impl IntoIterator<Item = u64>) -> Histogram {
        let histogram = Histogram::new(FAST);
        ms.into_iter().for_each(|ms| histogram.observe(Duration::from_millis(ms)));
        histogram
    }

    #[test]
    fn a_percentile_lies_in_the_bucket_that_holds_it() {
        let reading = of(1..=100).read();
        for (share, lower, upper) in
            [(0.5, 0.025, 0.05), (0.95, 0.05, 0.1), (0.99, 0.05, 0.1), (1.0, 0.05, 0.1)]
        {
            let told = reading.quantile(share).unwrap();
            assert!((lower..=upper).contains(&told), "{share}: {told}");
        }
        assert_eq!(of([]).read().quantile(0.5), None);
        assert_eq!(of([60_000]).read().quantile(0.5), Some(5.0), "longer than all bounds");
    }

    #[test]
    fn what_came_since_an_earlier_reading_is_told_apart() {
        let histogram = of([1; 1_000]);
        let earlier = histogram.read();
        histogram.observe(Duration::from_millis(200));
        let since = histogram.read().since(&earlier);
        assert_eq!(since.count(), 1);
        assert!(since.quantile(0.5).unwrap() > 0.1);
        assert_eq!(earlier.and(&since), histogram.read());
    }
}
