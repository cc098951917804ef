//! Many runs in few numbers: means with Student's interval, Wilson's interval of a share, bands of curves.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::lab::measure::{Better, CURVE_MAX};
use crate::lab::results::{Band, Summary};

/// Of a normal distribution, 95 % lie within this many standard deviations.
const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Sums up a metric's values, each with its seed. None without values.
pub(super) fn summary(metric: &str, values: &[(u64, f64)]) -> Option<Summary> {
    let runs = values.len() as f64;
    let mean = values.iter().map(|(_, value)| value).sum::<f64>() / runs;
    let is_worse = |a: f64, b: f64| if Better::of(metric) == Better::More { a < b } else { a > b };
    // Of equal values the first seed stays, so that equal runs make equal documents.
    let worst =
        values.iter().copied().reduce(|worst, it| if is_worse(it.1, worst.1) { it } else { worst })?;
    let half = half_interval(mean, values);
    let fold = |pick: fn(f64, f64) -> f64| values.iter().map(|(_, value)| *value).reduce(pick);
    Some(Summary {
        mean,
        low: mean - half,
        high: mean + half,
        min: fold(f64::min)?,
        max: fold(f64::max)?,
        worst_seed: worst.0,
    })
}

/// Half of Student's 95 % interval of the mean; 0 where one value says nothing of it.
fn half_interval(mean: f64, values: &[(u64, f64)]) -> f64 {
    let freedom = values.len() as f64 - 1.0;
    let squares: f64 = values.iter().map(|(_, value)| (value - mean).powi(2)).sum();
    if squares == 0.0 {
        return 0.0;
    }
    match StudentsT::new(0.0, 1.0, freedom) {
        // Two-sided: 2.5 % are left out at each end.
        Ok(student) => student.inverse_cdf(0.975) * (squares / freedom / (freedom + 1.0)).sqrt(),
        Err(_) => 0.0,
    }
}

/// Wilson's 95 % interval of a share: `hits` of `all`.
pub(super) fn wilson(hits: usize, all: usize) -> (f64, f64) {
    // Not share ± z·s: that has no width at none and at all, which are common here.
    let (share, all, z) = (hits as f64 / all as f64, all as f64, NORMAL_95);
    let middle = share + z * z / (2.0 * all);
    let half = z * (share * (1.0 - share) / all + z * z / (4.0 * all * all)).sqrt();
    let scale = 1.0 + z * z / all;
    // Rounding must not leave the range of a share.
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// Percentiles over the curves of runs at common points: whole rounds; in time, closer together the earlier they are,
/// because a spread that takes a tenth of a second may have a tail of minutes.
pub(super) fn bands(curves: &[&[(f64, f64)]], by_round: bool) -> Vec<Band> {
    let ends = curves.iter().filter_map(|curve| curve.last()).map(|(x, _)| *x);
    let Some(end) = ends.reduce(f64::max).filter(|end| end.is_finite()) else { return Vec::new() };
    // A spread of more rounds than a curve has points leaves out the same number between any two.
    let round = (end / CURVE_MAX as f64).ceil().max(1.0);
    let points = if by_round {
        (end / round).round() as usize + 1
    } else if end > 0.0 {
        CURVE_MAX
    } else {
        1
    };
    let band = |at: usize| {
        let x = if by_round { at as f64 * round } else { end * (at as f64 / (CURVE_MAX - 1) as f64).powi(2) };
        let mut shares: Vec<f64> = curves.iter().filter_map(|curve| share_at(curve, x)).collect();
        shares.sort_by(f64::total_cmp);
        let of = |share| quantile(&shares, share).map(rounded);
        Some(Band { x: rounded(x), p5: of(0.05)?, p50: of(0.5)?, p95: of(0.95)? })
    };
    (0..points).filter_map(band).collect()
}

/// Between the sorted values too, so that a band of few runs is not as wide on one side as the other is narrow.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

/// Between two points of a curve lies a straight line, beyond its ends what they say.
fn share_at(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    // The point before then lies below `x`, so the two differ and can be divided by.
    let after = curve.partition_point(|(at, _)| *at < x);
    let before = after.checked_sub(1).and_then(|before| curve.get(before));
    match (before, curve.get(after)) {
        (Some((x0, y0)), Some((x1, y1))) => Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0)),
        (Some((_, y)), None) | (None, Some((_, y))) => Some(*y),
        (None, None) => None,
    }
}

/// Six decimals are more than a chart shows, and keep a document small.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    #[test]
    fn the_interval_of_a_mean_is_students() {
        // The textbook's 1, 2, 3, 4, 5: t(4) = 2.7764, s = 1.5811.
        let values: Vec<(u64, f64)> = (1..=5).map(|seed| (seed, seed as f64)).collect();
        let summary = summary("rounds", &values).unwrap();
        assert!(close(summary.mean, 3.0) && close(summary.high - summary.mean, 1.963_24), "{summary:?}");
        assert_eq!((summary.min, summary.max, summary.worst_seed), (1.0, 5.0, 5));
    }

    #[test]
    fn less_coverage_and_more_rounds_are_worse() {
        let values = [(7, 0.5), (8, 0.4), (9, 0.4)];
        assert_eq!(summary("coverage", &values).unwrap().worst_seed, 8);
        assert_eq!(summary("rounds", &values).unwrap().worst_seed, 7);
    }

    #[test]
    fn one_run_has_no_interval() {
        let one = summary("rounds", &[(1, 4.0)]).unwrap();
        assert_eq!((one.low, one.mean, one.high), (4.0, 4.0, 4.0));
        assert_eq!(summary("rounds", &[]), None);
    }

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // Newcombe 1998, table I, method 3: 81 of 263, and 0 of 20.
        let (low, high) = wilson(81, 263);
        assert!(close(low, 0.255_3) && close(high, 0.366_2), "{low} {high}");
        let (low, high) = wilson(0, 20);
        assert!(low == 0.0 && close(high, 0.161_1), "{low} {high}");
        assert_eq!(wilson(20, 20).1, 1.0);
    }

    #[test]
    fn curves_of_different_lengths_meet_at_common_points() {
        let (short, long) = ([(0.0, 0.0), (2.0, 1.0)], [(0.0, 0.0), (4.0, 1.0)]);
        let bands = bands(&[&short, &long], true);
        assert_eq!(bands.iter().map(|it| it.x).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        // 0.25 and 0.5 there, then 0.75 and 1.
        assert_eq!((bands[1].p5, bands[1].p50, bands[1].p95), (0.2625, 0.375, 0.4875));
        assert_eq!((bands[3].p5, bands[3].p50, bands[3].p95), (0.7625, 0.875, 0.9875));
        assert_eq!((bands[4].p5, bands[4].p95), (1.0, 1.0));
    }

    #[test]
    fn a_band_in_time_has_as_many_points_as_a_curve_may() {
        let curve = [(0.0, 0.001), (123.4, 0.5), (333.3, 1.0)];
        let bands = bands(&[&curve], false);
        assert_eq!((bands.len(), bands[0].p50, bands[CURVE_MAX - 1].p50), (CURVE_MAX, 0.001, 1.0));
        assert!(bands.is_sorted_by(|a, b| a.x < b.x && a.p50 <= b.p50));
        assert!(super::bands(&[&[]], true).is_empty());
    }
}
