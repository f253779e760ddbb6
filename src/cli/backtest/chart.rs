//! The chart of one component as SVG: lanes of known events and alarms, and a panel for each metric on the same time axis.
//!
//! Colours are names: the page's style sheet gives each of them a value for light and dark.

use anyhow::Context as _;
use plotters::{
    chart::{ChartBuilder, ChartContext, LabelAreaPosition},
    coord::{Shift, types::RangedCoordf64},
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, PathElement, Rectangle, Text, TriangleMarker},
    prelude::{Cartesian2d, SVGBackend},
    series::LineSeries,
    style::{
        Color as _, IntoFont as _, RGBColor, ShapeStyle, TRANSPARENT,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    labels::Label,
    sample::Sample,
    time::{format, is_date},
    walk::{Drawing, Episode, Episodes, Forecasted, Summary},
};
use crate::analyze::forecast::Ceilings;

pub(super) const TEXT: RGBColor = RGBColor(0x10, 0x10, 0x10);
const GRID: RGBColor = RGBColor(0xE0, 0xE0, 0xE0);
const AXIS: RGBColor = RGBColor(0x90, 0x90, 0x90);
pub(super) const LINE: RGBColor = RGBColor(0x1F, 0x6F, 0xB4);
pub(super) const SOON: RGBColor = RGBColor(0xC0, 0x39, 0x2B);
pub(super) const KNOWN: RGBColor = RGBColor(0x7A, 0x7A, 0x7B);
pub(super) const LEAK: RGBColor = RGBColor(0xB7, 0x79, 0x1F);
pub(super) const ALARM: RGBColor = RGBColor(0xE0, 0x5A, 0x2B);
pub(super) const ACT: RGBColor = RGBColor(0xC0, 0x39, 0x2C);
pub(super) const FIRST: RGBColor = RGBColor(0xE6, 0x8A, 0x00);
pub(super) const LAST: RGBColor = RGBColor(0x7B, 0x3F, 0xB5);

const WIDTH: u32 = 1000;
const LEFT: u32 = 76;
const RIGHT: u32 = 10;
const LANE: u32 = 18;
const PANEL: u32 = 104;
const TITLE: u32 = 18;
const AXIS_HEIGHT: u32 = 24;
const FONT: &str = "sans-serif";
/// Most of the width after the last row.
const AHEAD: f64 = 0.3;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The data of one component's chart.
pub(super) struct Picture<'a> {
    pub drawing: &'a Drawing,
    pub summary: &'a Summary,
    pub labels: &'a [Label],
    pub ceilings: &'a Ceilings,
}

/// The time axis, in a unit with readable ticks.
struct Axis {
    start: f64,
    end: f64,
    origin: f64,
    unit: f64,
    dates: bool,
}

impl Axis {
    fn of(picture: &Picture<'_>) -> Option<Self> {
        let (start, last) = picture.summary.span?;
        let known = picture.labels.iter().map(|label| label.end);
        let failures = bands(picture.summary).into_iter().filter_map(|(forecasted, _)| {
            let time = forecasted.forecast.time_to_failure?;
            Some(forecasted.t + time.latest.min(1.5 * time.seconds))
        });
        let wanted = known.chain(failures).filter(|end| end.is_finite()).fold(last, f64::max);
        let end = wanted.min(last + AHEAD * (last - start).max(60.0)).max(start + 1.0);
        let dates = is_date(start);
        let unit = match end - start {
            span if span > 4.0 * 86_400.0 => 86_400.0,
            span if span > 4.0 * 3600.0 => 3600.0,
            _ => 60.0,
        };
        let origin = if dates { (start / 86_400.0).floor() * 86_400.0 } else { 0.0 };
        Some(Self { start, end, origin, unit, dates })
    }

    fn x(&self, t: f64) -> f64 {
        (t.clamp(self.start, self.end) - self.origin) / self.unit
    }

    fn tick(&self, x: f64) -> String {
        if self.dates {
            return format(self.origin + x * self.unit, if self.unit > 3600.0 { "%m-%d %Hh" } else { "%d. %H:%M" });
        }
        let unit = match self.unit {
            unit if unit > 3600.0 => "d",
            unit if unit > 60.0 => "h",
            _ => "min",
        };
        format!("{} {unit}", (x * 100.0).round() / 100.0)
    }
}

/// The forecasts that are drawn as bands: at the first alarm and at the last row.
pub(super) fn bands(summary: &Summary) -> Vec<(&Forecasted, RGBColor)> {
    let first = summary.first_alarm.as_ref();
    let last = summary.last.as_ref().filter(|last| first.is_none_or(|first| first.t < last.t));
    first.map(|first| (first, FIRST)).into_iter().chain(last.map(|last| (last, LAST))).collect()
}

/// The elements of an `<svg>`, and its width and height.
pub(super) fn draw(picture: &Picture<'_>) -> anyhow::Result<(String, u32, u32)> {
    let axis = Axis::of(picture).context("nothing was measured")?;
    let metrics: Vec<&(String, Sample)> =
        picture.drawing.metrics.iter().filter(|(_, sample)| !sample.is_empty()).collect();
    let lanes = lanes(picture);
    let panels = metrics.len() as u32 + 1;
    let top = lanes.len() as u32 * LANE;
    let height = top + panels * (PANEL + TITLE) + AXIS_HEIGHT;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        for (row, lane) in lanes.iter().enumerate() {
            draw_lane(&root, &axis, row as u32 * LANE, lane)?;
        }
        let mut y = top;
        for (name, sample) in metrics {
            let ceiling = picture.ceilings.get(name).copied();
            let range = value_range(sample.range(), ceiling);
            let mut panel = panel(&root, &axis, y, range, name, false)?;
            if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling <= range.1) {
                let ends = (axis.x(axis.start), axis.x(axis.end));
                dashes(&mut panel, (ends.0, ceiling), (ends.1, ceiling), 80, SOON.stroke_width(1))?;
            }
            backdrop(&mut panel, &axis, picture, range)?;
            lines(&mut panel, &axis, sample, LINE)?;
            y += PANEL + TITLE;
        }
        let range = (0.0, 1.0);
        let mut panel = panel(&root, &axis, y, range, "probability of a failure", true)?;
        backdrop(&mut panel, &axis, picture, range)?;
        lines(&mut panel, &axis, &picture.drawing.probability, LINE)?;
        lines(&mut panel, &axis, &picture.drawing.soon, SOON)?;
        let mark = |episode: &Episode| (axis.x(episode.start), 0.92);
        let (alarms, acts) = (&picture.summary.alarms.list, &picture.summary.acts.list);
        panel.draw_series(alarms.iter().map(|alarm| TriangleMarker::new(mark(alarm), 6, ALARM.filled())))?;
        panel.draw_series(acts.iter().map(|act| Circle::new(mark(act), 5, ACT.filled())))?;
        root.present()?;
    }
    // The page has its own outer element, with a title and a description.
    let inner = svg.find('>').map_or("", |end| &svg[end + 1..]);
    let inner = inner.trim_end().strip_suffix("</svg>").unwrap_or(inner).trim();
    Ok((inner.to_owned(), WIDTH, height))
}

/// A name, and spans of time with a text.
struct Lane {
    name: &'static str,
    color: RGBColor,
    spans: Vec<(f64, f64, String)>,
}

fn lanes(picture: &Picture<'_>) -> Vec<Lane> {
    let summary = picture.summary;
    let episodes = |name, color, episodes: &Episodes| Lane {
        name,
        color,
        spans: episodes.list.iter().map(|episode| (episode.start, episode.end, String::new())).collect(),
    };
    let known = Lane {
        name: "known",
        color: KNOWN,
        spans: picture.labels.iter().map(|label| (label.start, label.end, label.kind.replace('_', " "))).collect(),
    };
    let all = [
        known,
        episodes("leak", LEAK, &summary.leaks),
        episodes("alarm", ALARM, &summary.alarms),
        episodes("action", ACT, &summary.acts),
    ];
    all.into_iter().filter(|lane| !lane.spans.is_empty()).collect()
}

fn draw_lane(root: &Area<'_>, axis: &Axis, top: u32, lane: &Lane) -> anyhow::Result<()> {
    let top = top as i32;
    let inside = f64::from(WIDTH - LEFT - RIGHT);
    let share = |t: f64| (t.clamp(axis.start, axis.end) - axis.start) / (axis.end - axis.start);
    let pixel = |t: f64| LEFT as i32 + (share(t) * inside).round() as i32;
    let style = |color: &RGBColor, h: HPos| (FONT, 12).into_font().color(color).pos(Pos::new(h, VPos::Center));
    let middle = top + LANE as i32 / 2;
    root.draw(&Text::new(lane.name, (LEFT as i32 - 6, middle), style(&TEXT, HPos::Right)))?;
    let mut free = i32::MIN;
    for (start, end, words) in &lane.spans {
        // A moment is visible too.
        let (from, to) = (pixel(*start), pixel(*end).max(pixel(*start) + 3));
        root.draw(&Rectangle::new([(from, top + 3), (to, top + LANE as i32 - 3)], lane.color.mix(0.45).filled()))?;
        let wide = words.chars().count() as i32 * 7;
        let right_of = to + 4 + wide > (WIDTH - RIGHT) as i32;
        let begins = match (to - from >= wide + 8, right_of) {
            (true, _) => from + 4,
            (false, false) => to + 4,
            (false, true) => from - 4 - wide,
        };
        if !words.is_empty() && begins >= free {
            root.draw(&Text::new(words.as_str(), (begins, middle), style(&TEXT, HPos::Left)))?;
            free = begins + wide + 6;
        }
    }
    Ok(())
}

/// The range of a metric's axis.
fn value_range((low, high): (f64, f64), ceiling: Option<f64>) -> (f64, f64) {
    let top = match ceiling {
        Some(ceiling) if high >= 0.4 * ceiling => high.max(ceiling),
        _ => high,
    };
    // A constant line needs some room, too.
    if top <= low {
        let room = if top == 0.0 { 1.0 } else { top.abs() / 10.0 };
        return (if low == 0.0 { 0.0 } else { low - room }, top + room);
    }
    // From zero, unless the chart would be mostly empty.
    let bottom = if low >= 0.0 && low < 0.6 * top { 0.0 } else { low };
    let room = (top - bottom).max(top.abs() * 1e-3).max(1e-9) * 0.06;
    (if bottom == 0.0 { 0.0 } else { bottom - room }, top + room)
}

fn panel<'a>(
    root: &Area<'a>,
    axis: &Axis,
    top: u32,
    (low, high): (f64, f64),
    name: &str,
    bottom: bool,
) -> anyhow::Result<Panel<'a>> {
    let below = if bottom { AXIS_HEIGHT } else { 0 };
    let area = root.clone().shrink((0, top), (WIDTH, TITLE + PANEL + below));
    let title = (FONT, 13).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Bottom));
    area.draw(&Text::new(name.to_owned(), (LEFT as i32, TITLE as i32 - 3), title))?;
    let mut panel = ChartBuilder::on(&area)
        .margin_top(TITLE)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(axis.x(axis.start)..axis.x(axis.end), low..high)?;
    let tick = |x: &f64| axis.tick(*x);
    panel
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(if bottom { 9 } else { 0 })
        .y_labels(4)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style((FONT, 12).into_font().color(&TEXT))
        .x_label_formatter(&tick)
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    Ok(panel)
}

/// A number in at most seven characters or so.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let rounded = if scaled.abs() >= 1.0 || scaled == 0.0 {
        (scaled * 100.0).round() / 100.0
    } else {
        let digits = 10_f64.powf(3.0 - scaled.abs().log10().floor());
        (scaled * digits).round() / digits
    };
    format!("{rounded}{unit}")
}

/// Known events, and the forecast times of a failure.
fn backdrop(panel: &mut Panel<'_>, axis: &Axis, picture: &Picture<'_>, (low, high): (f64, f64)) -> anyhow::Result<()> {
    let column =
        |from: f64, to: f64, style: ShapeStyle| Rectangle::new([(axis.x(from), low), (axis.x(to), high)], style);
    // A label of the whole recording would only darken the chart; its lane shows it.
    let (first, last) = picture.summary.span.unwrap_or_default();
    let share = 0.02 * (last - first);
    let whole = |label: &Label| label.start <= first + share && label.end >= last - share;
    for label in picture.labels.iter().filter(|label| !whole(label)) {
        if label.end > label.start {
            panel.draw_series([column(label.start, label.end, KNOWN.mix(0.10).filled())])?;
        } else {
            panel.draw_series([upright(axis, label.start, low, high, KNOWN.stroke_width(2))])?;
        }
    }
    for (Forecasted { t, forecast }, color) in bands(picture.summary) {
        panel.draw_series([upright(axis, *t, low, high, color.stroke_width(1))])?;
        let Some(time) = forecast.time_to_failure else { continue };
        let (earliest, latest) = (t + time.earliest, t + time.latest);
        if earliest < axis.end {
            panel.draw_series([column(earliest, latest, color.mix(0.16).filled())])?;
        }
        let median = t + time.seconds;
        if median <= axis.end {
            dashes(panel, (axis.x(median), low), (axis.x(median), high), 12, color.stroke_width(2))?;
        }
    }
    Ok(())
}

fn upright(axis: &Axis, t: f64, low: f64, high: f64, style: ShapeStyle) -> PathElement<(f64, f64)> {
    PathElement::new(vec![(axis.x(t), low), (axis.x(t), high)], style)
}

/// A dashed line.
fn dashes(
    panel: &mut Panel<'_>,
    from: (f64, f64),
    to: (f64, f64),
    count: u32,
    style: ShapeStyle,
) -> anyhow::Result<()> {
    let at = |share: f64| (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
    let dash =
        |place: u32| vec![at(f64::from(place) / f64::from(count)), at((f64::from(place) + 0.6) / f64::from(count))];
    panel.draw_series((0..count).map(|place| PathElement::new(dash(place), style)))?;
    Ok(())
}

fn lines(panel: &mut Panel<'_>, axis: &Axis, sample: &Sample, color: RGBColor) -> anyhow::Result<()> {
    for line in sample.lines() {
        if let [(t, value)] = line[..] {
            panel.draw_series([Circle::new((axis.x(t), value), 1, color.filled())])?;
        } else {
            let points = line.into_iter().map(|(t, value)| (axis.x(t), value));
            panel.draw_series(LineSeries::new(points, color.stroke_width(1)))?;
        }
    }
    Ok(())
}
