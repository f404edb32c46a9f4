//! Plots as SVG, coloured by the page's style sheet so that they follow its
//! light or dark scheme.

use maud::{Markup, html};

use super::scale::{Scale, label, ticks};
use crate::storm::analysis::Spread;
use crate::storm::report::figures::number;

/// Size in user units, and the margins for titles and labels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 52.0;
/// Of a line of the legend, and of a bar with its label.
const LEGEND: f64 = 18.0;
const BAR: f64 = 38.0;
/// Labels of the horizontal axis are at least so far apart.
const LABELS_APART: f64 = 34.0;
/// Colours of the style sheet.
const COLOURS: usize = 8;

/// One line.
pub(super) struct Series {
    pub(super) name: String,
    /// `(value of the axis, figure)`, ascending.
    pub(super) points: Vec<(f64, Spread)>,
    /// A law fitted to them.
    pub(super) law: Option<Law>,
}

/// A fitted curve, drawn from the first point to the last.
pub(super) struct Law {
    pub(super) name: String,
    pub(super) at: Box<dyn Fn(f64) -> f64>,
}

/// A plot of lines.
pub(super) struct Lines {
    /// Unique on the page.
    pub(super) id: String,
    pub(super) title: String,
    /// What it shows, in words, for those who do not see it.
    pub(super) description: String,
    /// With its unit.
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) series: Vec<Series>,
}

/// A plot of bars.
pub(super) struct Bars {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) description: String,
    /// With its unit.
    pub(super) label: String,
    /// Name, figure, and which colour it has.
    pub(super) rows: Vec<(String, Spread, usize)>,
}

/// The `svg` element around a plot, with what screen readers say of it.
fn svg(id: &str, title: &str, description: &str, height: f64, content: &Markup) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}")) role="img"
            aria-labelledby=(format!("{id}-title {id}-desc")) {
            title id=(format!("{id}-title")) { (title) }
            desc id=(format!("{id}-desc")) { (description) }
            text class="title" x="0" y="16" { (title) }
            (content)
        }
    }
}

impl Lines {
    pub(super) fn svg(&self) -> Markup {
        let mut values: Vec<f64> =
            self.series.iter().flat_map(|s| s.points.iter().map(|(x, _)| *x)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let x = Scale::of_values(&values, LEFT + 12.0, WIDTH - RIGHT - 12.0);
        let laws: Vec<Vec<(f64, f64)>> = self.series.iter().map(|s| s.law_points(&x)).collect();
        let highest = self.series.iter().flat_map(|s| s.points.iter().map(|(_, y)| y.max));
        let highest = highest.chain(laws.iter().flatten().map(|(_, y)| *y)).fold(0.0, f64::max);
        let marks = ticks(highest);
        let bottom = HEIGHT - BOTTOM;
        let y = Scale::from_zero(marks.last().copied().unwrap_or(1.0), bottom, TOP);
        let laws_named = self.series.iter().filter(|s| s.law.is_some()).count();
        #[expect(clippy::cast_precision_loss, reason = "a few lines")]
        let height = HEIGHT + LEGEND * (self.series.len() + laws_named) as f64;
        let logarithmic = if x.is_logarithmic() { ", logarithmic" } else { "" };
        svg(
            &self.id,
            &self.title,
            &self.description,
            height,
            &html! {
                @for mark in &marks {
                    (horizontal(y.place(*mark)))
                    text x=(p(LEFT - 8.0)) y=(p(y.place(*mark) + 4.0)) text-anchor="end" { (label(*mark)) }
                }
                @for value in labelled(&values, &x) {
                    text x=(p(x.place(value))) y=(p(bottom + 18.0)) text-anchor="middle" { (value) }
                }
                line class="axis" x1=(p(LEFT)) x2=(p(WIDTH - RIGHT)) y1=(p(bottom)) y2=(p(bottom)) {}
                text class="dim" x=(p(f64::midpoint(LEFT, WIDTH - RIGHT))) y=(p(bottom + 40.0))
                    text-anchor="middle" { (self.x_label) (logarithmic) }
                text class="dim" transform=(format!("translate(14 {}) rotate(-90)", p(f64::midpoint(TOP, bottom))))
                    text-anchor="middle" { (self.y_label) }
                @for (i, (series, law)) in self.series.iter().zip(&laws).enumerate() {
                    @if !law.is_empty() {
                        polyline class=(format!("law c{}", i % COLOURS))
                            points=(polyline(law.iter().map(|(n, v)| (x.place(*n), y.place(*v))))) {}
                    }
                    @if series.law.is_none() {
                        polyline class=(format!("line c{}", i % COLOURS))
                            points=(polyline(series.points.iter().map(|(n, v)| (x.place(*n), y.place(v.median))))) {}
                    }
                    @for (n, figure) in &series.points {
                        (whisker(i, x.place(*n), y.place(figure.min), y.place(figure.max)))
                    (marker(i, x.place(*n), y.place(figure.median)))
                    }
                }
                (self.legend())
            },
        )
    }

    /// Below the plot: a line for each series, and one for its law.
    fn legend(&self) -> Markup {
        let rows = self.series.iter().enumerate().flat_map(|(i, series)| {
            let law = series.law.as_ref().map(|law| (i, law.name.as_str(), true));
            std::iter::once((i, series.name.as_str(), false)).chain(law)
        });
        html! {
            @for (row, (i, name, law)) in rows.enumerate() {
                @let y = HEIGHT + LEGEND * row as f64 + 4.0;
                @if law {
                    line class=(format!("law c{}", i % COLOURS)) x1=(p(LEFT)) x2=(p(LEFT + 28.0)) y1=(p(y)) y2=(p(y)) {}
                } @else {
                    (marker(i, LEFT + 14.0, y))
                }
                text x=(p(LEFT + 38.0)) y=(p(y + 4.0)) { (name) }
            }
        }
    }
}

impl Series {
    /// Its law, from the first point to the last, as `(value, figure)`.
    fn law_points(&self, x: &Scale) -> Vec<(f64, f64)> {
        const PARTS: u32 = 80;
        let (Some(law), Some((first, _)), Some((last, _))) =
            (&self.law, self.points.first(), self.points.last())
        else {
            return Vec::new();
        };
        let values = (0..=PARTS).map(|part| x.value(f64::from(part) / f64::from(PARTS)));
        let within = values.filter(|value| (*first..=*last).contains(value));
        within.map(|value| (value, (law.at)(value))).collect()
    }
}

impl Bars {
    pub(super) fn svg(&self) -> Markup {
        let marks = ticks(self.rows.iter().map(|(_, figure, _)| figure.max).fold(0.0, f64::max));
        let x = Scale::from_zero(marks.last().copied().unwrap_or(1.0), 2.0, WIDTH - 70.0);
        #[expect(clippy::cast_precision_loss, reason = "a few bars")]
        let bottom = TOP + BAR * self.rows.len() as f64;
        svg(
            &self.id,
            &self.title,
            &self.description,
            bottom + 44.0,
            &html! {
                @for mark in &marks {
                    line class="grid" x1=(p(x.place(*mark))) x2=(p(x.place(*mark))) y1=(p(TOP - 8.0)) y2=(p(bottom)) {}
                    text x=(p(x.place(*mark))) y=(p(bottom + 16.0)) text-anchor=(if *mark == 0.0 { "start" } else { "middle" }) {
                        (label(*mark))
                    }
                }
                text class="dim" x=(p(x.place(0.0))) y=(p(bottom + 36.0)) { (self.label) }
                @for (i, (name, figure, colour)) in self.rows.iter().enumerate() {
                    @let top = TOP + BAR * i as f64;
                    @let middle = top + 22.0;
                    text x=(p(x.place(0.0))) y=(p(top + 10.0)) { (name) }
                    rect class=(format!("f{}", colour % COLOURS)) x=(p(x.place(0.0))) y=(p(middle - 7.0))
                        width=(p(x.place(figure.median) - x.place(0.0))) height="14" {}
                    line class="over" x1=(p(x.place(figure.min))) x2=(p(x.place(figure.max))) y1=(p(middle)) y2=(p(middle)) {}
                    @for end in [figure.min, figure.max] {
                        line class="over" x1=(p(x.place(end))) x2=(p(x.place(end))) y1=(p(middle - 4.0)) y2=(p(middle + 4.0)) {}
                    }
                    text x=(p(x.place(figure.max) + 8.0)) y=(p(middle + 4.0)) { (number(figure.median)) }
                }
            },
        )
    }
}

/// From the least to the largest, with ends that a marker does not hide.
fn whisker(series: usize, x: f64, least: f64, largest: f64) -> Markup {
    let (left, right) = (x - 7.0, x + 7.0);
    let path = format!(
        "M{} {}H{}M{} {}V{}M{} {}H{}",
        p(left),
        p(least),
        p(right),
        p(x),
        p(least),
        p(largest),
        p(left),
        p(largest),
        p(right)
    );
    html! { path class=(format!("whisker c{}", series % COLOURS)) d=(path) {} }
}

fn horizontal(y: f64) -> Markup {
    html! { line class="grid" x1=(p(LEFT)) x2=(p(WIDTH - RIGHT)) y1=(p(y)) y2=(p(y)) {} }
}

/// Values that have room for a label.
fn labelled(values: &[f64], x: &Scale) -> Vec<f64> {
    let mut last = f64::NEG_INFINITY;
    let far = |value: &&f64| {
        let place = x.place(**value);
        let far = place - last >= LABELS_APART;
        if far {
            last = place;
        }
        far
    };
    values.iter().filter(far).copied().collect()
}

/// Series differ by the form of their markers too, not by colour alone.
fn marker(series: usize, x: f64, y: f64) -> Markup {
    let class = format!("f{}", series % COLOURS);
    let polygon = |offsets: &[(f64, f64)]| {
        let points = polyline(offsets.iter().map(|(dx, dy)| (x + dx, y + dy)));
        html! { polygon class=(class) points=(points) {} }
    };
    match series % 4 {
        0 => html! { circle class=(class) cx=(p(x)) cy=(p(y)) r="4.5" {} },
        1 => polygon(&[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        2 => polygon(&[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]),
        _ => polygon(&[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
    }
}

fn polyline(points: impl Iterator<Item = (f64, f64)>) -> String {
    points.map(|(x, y)| format!("{},{}", p(x), p(y))).collect::<Vec<_>>().join(" ")
}

/// A place, to a tenth.
fn p(place: f64) -> String {
    format!("{place:.1}")
}
