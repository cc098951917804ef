//! Charts as SVG files, for pages where no script runs: curves of the spread, a metric against a swept key or two.
//!
//! Equal results give equal bytes. Each has a light ground of its own, so that it reads the same on a dark page.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

use super::super::measure::Unit;
use super::super::results::{Answered, CellResult};
use super::text::slug;
use super::{brief, first_curves, first_metric, has_long_tail, plain, swept, values};

/// Pixels of a chart.
const SIZE: (u32, u32) = (760, 420);
/// Pixels above the legend, for the title.
const HEAD: u32 = 42;
/// Pixels of a row of the legend.
const ROW: u32 = 19;
/// Pixels of a character of the legend, rather too many.
const CHARACTER: u32 = 7;
/// Share of an axis that a curve must move before its next point is drawn.
const STEP: f64 = 1.0 / 300.0;
/// Pixels of a dash of theory, and of the gap behind it.
const DASH: f64 = 8.0;
const GAP: f64 = 6.0;
/// Ratio of greatest to least from which an axis is logarithmic.
const WIDE: f64 = 30.0;

const GROUND: RGBColor = RGBColor(252, 252, 250);
const FRAME: RGBColor = RGBColor(214, 214, 208);
const GRID: RGBColor = RGBColor(231, 231, 226);
const INK: RGBColor = RGBColor(23, 25, 27);
const SOFT: RGBColor = RGBColor(91, 97, 103);
const DEEP: RGBColor = RGBColor(11, 95, 102);
const HUES: [RGBColor; 6] = [
    RGBColor(11, 111, 119),
    RGBColor(184, 86, 15),
    RGBColor(91, 75, 181),
    RGBColor(163, 36, 106),
    RGBColor(77, 122, 18),
    RGBColor(31, 99, 184),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What there is to draw of a scenario.
pub(super) fn charts(answered: &Answered) -> Vec<(String, String)> {
    let keys = swept(answered);
    let mut charts = Vec::new();
    let mut add = |kind: &str, draw: &dyn Fn(&Area<'_>) -> Drawn| {
        let mut svg = String::new();
        // Drawing into memory fails on what has no place on an axis; such a chart is left out.
        if on_ground(&mut svg, draw).is_ok() {
            charts.push((format!("{}-{kind}", slug(&answered.name)), svg));
        }
    };
    if !first_curves(answered).is_empty() {
        add("spread", &|area| spread(answered, area));
    }
    if let Some(metric) = first_metric(answered) {
        match keys.as_slice() {
            [key] => add("sweep", &|area| sweep(answered, key, metric, area)),
            [down, across] => add("heat", &|area| heat(answered, down, across, metric, area)),
            _ => {}
        }
    }
    charts
}

fn on_ground(svg: &mut String, draw: &dyn Fn(&Area<'_>) -> Drawn) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&GROUND)?;
    let corner = (SIZE.0 as i32 - 1, SIZE.1 as i32 - 1);
    area.draw(&Rectangle::new([(0, 0), corner], FRAME))?;
    draw(&area)?;
    area.present()?;
    Ok(())
}

/// A line of a plot.
struct Line {
    label: String,
    hue: RGBColor,
    points: Vec<(f64, f64)>,
    /// Lower and upper bound along it.
    band: Vec<(f64, f64, f64)>,
    theory: Vec<(f64, f64)>,
    dots: bool,
}

fn spread(answered: &Answered, area: &Area<'_>) -> Drawn {
    let shown = first_curves(answered);
    // A logarithmic axis has no zero.
    let first = if has_long_tail(answered) { f64::MIN_POSITIVE } else { f64::NEG_INFINITY };
    let lines: Vec<Line> = shown
        .iter()
        .zip(HUES)
        .map(|(at, hue)| {
            let cell = &answered.cells[*at];
            let band = || cell.band.iter().filter(|it| it.x >= first);
            Line {
                label: brief(&cell.parameters),
                hue,
                points: band().map(|it| (it.x, it.p50)).collect(),
                band: band().map(|it| (it.x, it.p5, it.p95)).collect(),
                theory: cell.theory_curve.iter().copied().filter(|it| it.0 >= first).collect(),
                dots: false,
            }
        })
        .collect();
    let xs: Vec<f64> =
        lines.iter().flat_map(|line| line.points.iter().chain(&line.theory)).map(|it| it.0).collect();
    let (x, says) = match answered.axis.as_str() {
        "ms" => (Axis::over(&xs, Unit::Ms, 0.0), "time since it was written"),
        other => (Axis::over(&xs, Unit::Number, 0.0), other),
    };
    let mut y = Axis::over(&[0.0, 1.0], Unit::Share, 0.0);
    // The line of a full share would else lie in the frame.
    y.high = 1.04;
    let head = head(area, &format!("{}: share of nodes reached", answered.name), &lines, "5–95 % of runs")?;
    plot(area, head, says, &x, &y, &lines)
}

fn sweep(answered: &Answered, key: &str, metric: &str, area: &Area<'_>) -> Drawn {
    let mut cells: Vec<&CellResult> =
        answered.cells.iter().filter(|cell| cell.metrics.contains_key(metric)).collect();
    let place = |cell: &CellResult| cell.parameters.get(key).and_then(Value::as_f64);
    // A single word among the values, and none of them has a place as a number.
    let numbers = cells.iter().all(|cell| place(cell).is_some());
    if numbers {
        cells.sort_by(|a, b| place(a).unwrap_or_default().total_cmp(&place(b).unwrap_or_default()));
    }
    let placed = cells.iter().enumerate();
    let xs: Vec<f64> =
        placed.map(|(at, cell)| place(cell).filter(|_| numbers).unwrap_or(at as f64)).collect();
    let with = |of: fn(&CellResult, &str) -> Option<f64>| -> Vec<(f64, f64)> {
        xs.iter().zip(&cells).filter_map(|(x, cell)| Some((*x, of(cell, metric)?))).collect()
    };
    let low = with(|cell, metric| cell.metrics.get(metric).map(|it| it.low));
    let high = with(|cell, metric| cell.metrics.get(metric).map(|it| it.high));
    let lines = [Line {
        label: format!("mean of {metric}"),
        hue: HUES[0],
        points: with(|cell, metric| cell.metrics.get(metric).map(|it| it.mean)),
        band: low.iter().zip(&high).map(|(low, high)| (low.0, low.1, high.1)).collect(),
        theory: with(|cell, metric| cell.theory.get(metric).copied()),
        dots: true,
    }];
    let line = &lines[0];
    let ys: Vec<f64> =
        line.points.iter().chain(&line.theory).chain(&low).chain(&high).map(|it| it.1).collect();
    let mut x = Axis::over(&xs, Unit::Number, 0.04);
    let named = |cell: &&CellResult| cell.parameters.get(key).map(plain).unwrap_or_default();
    x.ticks = xs.iter().copied().zip(cells.iter().map(named)).collect();
    let head = head(area, &format!("{}: {metric}", answered.name), &lines, "95 % interval of the mean")?;
    plot(area, head, key, &x, &Axis::over(&ys, Unit::of(metric), 0.06), &lines)
}

/// Title, what the lines are, what band and dashes are; how many pixels that takes.
fn head(area: &Area<'_>, title: &str, lines: &[Line], band: &str) -> Drawn<u32> {
    area.draw(&Text::new(title.to_owned(), (20, 14), written(17, INK, HPos::Left)))?;
    let mut notes = vec![format!("band: {band}")];
    if lines.iter().any(|line| !line.theory.is_empty()) {
        notes.push("dashed: theory".to_owned());
    }
    let right = (SIZE.0 as i32 - 20, 17);
    area.draw(&Text::new(notes.join(", "), right, written(12, SOFT, HPos::Right)))?;
    let longest = lines.iter().map(|line| line.label.chars().count() as u32).max().unwrap_or_default();
    let wide = longest * CHARACTER + 40;
    // A label wider than the chart still needs a column.
    let columns = ((SIZE.0 - 40) / wide).max(1);
    let named: Vec<&Line> = lines.iter().filter(|line| !line.label.is_empty()).collect();
    for (at, line) in (0..).zip(&named) {
        let (x, y) = ((20 + at % columns * wide) as i32, (HEAD + at / columns * ROW) as i32 + 6);
        area.draw(&Rectangle::new([(x, y - 2), (x + 16, y + 2)], line.hue.filled()))?;
        area.draw(&Text::new(line.label.clone(), (x + 22, y - 6), written(12, INK, HPos::Left)))?;
    }
    Ok(HEAD + (named.len() as u32).div_ceil(columns) * ROW)
}

fn written(size: u32, hue: RGBColor, to: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&hue).pos(Pos::new(to, VPos::Top))
}

fn plot(area: &Area<'_>, head: u32, x_says: &str, x: &Axis, y: &Axis, lines: &[Line]) -> Drawn {
    let (_, below) = area.split_vertically(head);
    let mut chart = ChartBuilder::on(&below)
        .margin_right(28)
        .margin_bottom(10)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FRAME)
        .label_style(("sans-serif", 12).into_font().color(&SOFT))
        .x_desc(x_says)
        .draw()?;
    // All bands before any line, or one cell's band would cover another's line.
    for line in lines {
        let lower = line.band.iter().map(|it| (it.0, it.1));
        let upper = line.band.iter().map(|it| (it.0, it.2));
        let around: Vec<(f64, f64)> = thin(lower.collect(), x, y)
            .into_iter()
            .chain(thin(upper.collect(), x, y).into_iter().rev())
            .collect();
        chart.draw_series([Polygon::new(around, line.hue.mix(0.16))])?;
    }
    for line in lines {
        let points = thin(line.points.clone(), x, y);
        let theory = thin(line.theory.clone(), x, y);
        let theory: Vec<(i32, i32)> = theory.iter().map(|at| chart.backend_coord(at)).collect();
        for dash in dashes(&theory) {
            area.draw(&PathElement::new(dash, line.hue.stroke_width(2)))?;
        }
        if line.dots {
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, line.hue.filled())))?;
        }
        chart.draw_series(LineSeries::new(points, line.hue.stroke_width(2)))?;
    }
    Ok(())
}

/// Without the points that move a curve by less than can be seen; the one before a leap stays, and so does the last.
fn thin(points: Vec<(f64, f64)>, x: &Axis, y: &Axis) -> Vec<(f64, f64)> {
    let far = |a: &(f64, f64), b: &(f64, f64)| {
        let (across, up) = ((x.share(a.0) - x.share(b.0)).abs(), (y.share(a.1) - y.share(b.1)).abs());
        across > STEP && up > STEP || across > 12.0 * STEP || up > 3.0 * STEP
    };
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut skipped = None;
    for point in points {
        if kept.last().is_none_or(|last| far(last, &point)) {
            kept.extend(skipped.take());
            kept.push(point);
        } else {
            skipped = Some(point);
        }
    }
    kept.extend(skipped);
    kept
}

/// The dashes of a line, all in pixels. The library's own ask for a function that systems of before 2022 do not have.
fn dashes(line: &[(i32, i32)]) -> Vec<Vec<(i32, i32)>> {
    let mut dashes = Vec::new();
    let mut dash = Vec::from_iter(line.first().copied());
    let (mut drawn, mut left) = (true, DASH);
    for ends in line.windows(2) {
        let [from, to] = [ends[0], ends[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let (across, up) = (to.0 - from.0, to.1 - from.1);
        let length = (across * across + up * up).sqrt();
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let share = gone / length;
            let at = ((from.0 + across * share).round() as i32, (from.1 + up * share).round() as i32);
            dash.push(at);
            if drawn {
                dashes.push(std::mem::take(&mut dash));
            }
            drawn = !drawn;
            left = if drawn { DASH } else { GAP };
        }
        left -= length - gone;
        if drawn {
            dash.push(ends[1]);
        }
    }
    // A last point alone is no line.
    dashes.extend(Some(dash).filter(|dash| drawn && dash.len() > 1));
    dashes
}

/// An axis: its ends, as logarithms where it is logarithmic, and at which values it says what.
#[derive(Clone)]
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.share(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        if self.log { 10_f64.powf(self.low)..10_f64.powf(self.high) } else { self.low..self.high }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|(at, _)| at == value).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

impl Axis {
    /// Over all these values and a little more.
    fn over(values: &[f64], unit: Unit, more: f64) -> Axis {
        let bound = |start, pick: fn(f64, f64) -> f64| {
            values.iter().copied().filter(|it| it.is_finite()).fold(start, pick)
        };
        let (least, most) = (bound(f64::INFINITY, f64::min), bound(f64::NEG_INFINITY, f64::max));
        let log = least > 0.0 && most / least >= WIDE;
        let mut axis = Axis { low: 0.0, high: 1.0, log, ticks: Vec::new() };
        if least.is_finite() && most.is_finite() {
            (axis.low, axis.high) = (axis.place(least), axis.place(most));
        }
        // Values may all be equal, and an axis needs a length.
        let span = if axis.high > axis.low { axis.high - axis.low } else { axis.high.abs().max(1.0) * 0.1 };
        let ends = (axis.low - span * more, axis.high + span * more.max(f64::from(axis.high <= axis.low)));
        (axis.low, axis.high) = ends;
        let values = if log { decades(ends) } else { even(ends) };
        axis.ticks = values.into_iter().map(|value| (value, unit.show(value))).collect();
        axis
    }

    fn place(&self, value: f64) -> f64 {
        if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    /// How far along it a value lies, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (self.place(value) - self.low) / (self.high - self.low)
    }
}

/// Round numbers between the ends, some six.
fn even((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        // A step may come out a little below what it should be.
        [1.0, 2.0, 2.5, 5.0, 10.0].map(|it| it * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|at| at as f64 * step).collect()
}

/// One, two, five and their tenfolds between the ends, which are logarithms.
fn decades((low, high): (f64, f64)) -> Vec<f64> {
    let powers = low.floor() as i32..=high.ceil() as i32;
    // Beyond two decades labels of the twos and fives would run into each other.
    let steps: &[f64] = if high - low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    all.filter(|value| (low..=high).contains(&value.log10())).collect()
}

/// A square for each pair of values, darker for more.
fn heat(answered: &Answered, down: &str, across: &str, metric: &str, area: &Area<'_>) -> Drawn {
    let cells: Vec<&CellResult> =
        answered.cells.iter().filter(|cell| cell.metrics.contains_key(metric)).collect();
    let (rows, columns) = (values(&cells, down), values(&cells, across));
    let means: Vec<f64> = cells.iter().map(|cell| cell.metrics[metric].mean).collect();
    let scale = Axis::over(&means, Unit::of(metric), 0.0);
    area.draw(&Text::new(format!("{}: {metric}", answered.name), (20, 14), written(17, INK, HPos::Left)))?;
    let says = format!("{down} downwards, {across} to the right; darker is more");
    area.draw(&Text::new(says, (20, 40), written(12, SOFT, HPos::Left)))?;
    let (left, top) = (110, HEAD as i32 + 32);
    let wide = (SIZE.0 as i32 - left - 24) / columns.len().max(1) as i32;
    let high = ((SIZE.1 as i32 - top - 40) / rows.len().max(1) as i32).min(80);
    let middle = |size, hue, to| written(size, hue, to).pos(Pos::new(to, VPos::Center));
    for (row, value) in rows.iter().enumerate() {
        let at = (left - 12, top + row as i32 * high + high / 2);
        area.draw(&Text::new(plain(value), at, middle(12, SOFT, HPos::Right)))?;
    }
    for (column, value) in columns.iter().enumerate() {
        let at = (left + column as i32 * wide + wide / 2, top + rows.len() as i32 * high + 14);
        area.draw(&Text::new(plain(value), at, middle(12, SOFT, HPos::Center)))?;
    }
    for cell in &cells {
        let find =
            |all: &[&Value], key: &str| all.iter().position(|it| Some(*it) == cell.parameters.get(key));
        let (Some(row), Some(column)) = (find(&rows, down), find(&columns, across)) else { continue };
        let (x, y) = (left + column as i32 * wide, top + row as i32 * high);
        let mean = cell.metrics[metric].mean;
        let depth = scale.share(mean);
        // The least is a shade above the ground, which stands for no value at all.
        let hue = between(GROUND, DEEP, 0.06 + 0.94 * depth);
        area.draw(&Rectangle::new([(x + 1, y + 1), (x + wide - 2, y + high - 2)], hue.filled()))?;
        let ink = if depth > 0.5 { GROUND } else { INK };
        let text = Unit::of(metric).show(mean);
        area.draw(&Text::new(text, (x + wide / 2, y + high / 2), middle(13, ink, HPos::Center)))?;
    }
    Ok(())
}

fn between(from: RGBColor, to: RGBColor, share: f64) -> RGBColor {
    let part = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    RGBColor(part(from.0, to.0), part(from.1, to.1), part(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_round_corners_and_leave_gaps() {
        assert_eq!(dashes(&[(0, 0), (20, 0)]), [[(0, 0), (8, 0)], [(14, 0), (20, 0)]]);
        let round = dashes(&[(0, 0), (5, 0), (5, 30)]);
        assert_eq!(round[0], [(0, 0), (5, 0), (5, 3)]);
        assert_eq!(round[1..], [[(5, 9), (5, 17)], [(5, 23), (5, 30)]]);
        assert!(dashes(&[]).is_empty() && dashes(&[(3, 3)]).is_empty());
    }
}
