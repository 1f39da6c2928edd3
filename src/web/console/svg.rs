//! Charts, drawn here as SVG: no script, no style but classes, and the figures in a table beneath.
//!
//! All places are written in per cent of the width and in pixels of the height, so that a chart fills a phone and a
//! wide screen alike while its letters keep their size. Colours come from the style sheet by class (`s0` to `s7`),
//! which has them for light and dark. Nothing is told by colour alone: each part has its words as a title, the legend
//! stands in the order of the parts, and the table has every figure.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::report::html::escaped;

/// Series that are drawn apart: as many as there are colours that people tell apart. The rest is drawn as one.
pub const SERIES_MAX: usize = 8;
/// Places beside each other that are drawn; of more, several share one.
pub const PLACES_MAX: usize = 92;
/// Bars beneath each other: what a phone shows without scrolling far. The table has all of them.
pub const BARS_MAX: usize = 12;
/// What the rest of the series is called.
const OTHERS: &str = "others";
/// Height of the part with columns or lines, in pixels.
const PLOT: u64 = 160;
/// Room above it for half a line of letters.
const ABOVE: u64 = 8;
/// Room beneath it for the names of places.
const BELOW: u64 = 22;
/// Room for one bar with its words above it.
const BAR_ROW: u64 = 36;
/// Where the plot begins, in thousandths of a per cent: the axis has its figures before.
const LEFT: u64 = 10_000;
/// The whole width, in thousandths of a per cent.
const WHOLE: u64 = 100_000;
/// The widest column, in thousandths of a per cent.
const COLUMN_MAX: u64 = 9_000;
/// Lines with more points than this are drawn without dots.
const DOTS_MAX: usize = 40;
/// Names of places along the axis, at most: more would touch each other on a phone.
const NAMES_MAX: usize = 4;

/// Figures, by place (a day, a label) and by series (a member, a verdict).
#[derive(Clone, Debug, Default)]
pub struct Chart {
    id: &'static str,
    title: String,
    note: String,
    key: String,
    places: Vec<String>,
    series: Vec<Series>,
    bare: bool,
}

#[derive(Clone, Debug, Default)]
struct Series {
    name: String,
    values: Vec<u64>,
}

/// A finished chart: a `<figure>` that may stand in a page as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn(String);

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every text in it went through [`escaped`] when it was drawn.
impl HtmlSafe for Drawn {}

impl Chart {
    /// An empty chart. `id` is its own on its page, `title` stands above it, `note` says what it counts.
    pub fn new(id: &'static str, title: impl Into<String>, note: impl Into<String>) -> Self {
        Self { id, title: title.into(), note: note.into(), ..Self::default() }
    }

    /// What the places are (`day`), and their names in order.
    #[must_use]
    pub fn over(self, key: impl Into<String>, places: Vec<String>) -> Self {
        Self { key: key.into(), places, ..self }
    }

    /// One more series: a value for each place. What is missing is 0, what is too much is left out.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, mut values: Vec<u64>) -> Self {
        values.resize(self.places.len(), 0);
        self.series.push(Series { name: name.into(), values });
        self
    }

    /// Without a heading and a table: the page that it stands in has both, with the same figures.
    #[must_use]
    pub fn only_drawn(self) -> Self {
        Self { bare: true, ..self }
    }

    /// Columns beside each other, in which the series stand on top of one another: for counts by day.
    pub fn stacked(&self) -> Drawn {
        self.figure(columns)
    }

    /// A line for each series: for values that are no parts of a whole.
    pub fn lines(&self) -> Drawn {
        self.figure(polylines)
    }

    /// A bar for each place, the greatest first, in which the series stand behind one another: for counts by label.
    pub fn bars(&self) -> Drawn {
        self.whole(&self.greatest(), bars)
    }

    fn figure(&self, draw: impl Fn(&Self, &mut String)) -> Drawn {
        self.whole(&self.together(), draw)
    }

    /// Heading, drawing, legend and table; `drawn` is what fits into the drawing, the table has everything.
    fn whole(&self, drawn: &Self, draw: impl Fn(&Self, &mut String)) -> Drawn {
        let mut out = String::with_capacity(8 * 1024);
        let (id, title, note) = (self.id, escaped(&self.title), escaped(&self.note));
        if self.bare {
            push(&mut out, format_args!("<figure class=\"chart\" id=\"{id}\" aria-label=\"{title}\">"));
        } else {
            push(&mut out, format_args!("<figure class=\"chart\" id=\"{id}\"><figcaption>{title}</figcaption>"));
            push(&mut out, format_args!("<p class=\"hint\">{note}</p>"));
        }
        if drawn.most() == 0 {
            push(&mut out, format_args!("<p class=\"muted\">Nothing to draw: every figure is 0.</p>"));
        } else {
            if drawn.series.len() > 1 {
                legend(drawn, &mut out);
            }
            draw(drawn, &mut out);
        }
        if !self.bare {
            self.table(&mut out);
        }
        out.push_str("</figure>");
        Drawn(out)
    }

    /// The greatest sum of a place: how high the axis must reach if series are stacked.
    fn most(&self) -> u64 {
        (0..self.places.len()).map(|place| self.sum(place)).max().unwrap_or_default()
    }

    fn sum(&self, place: usize) -> u64 {
        self.series.iter().fold(0, |sum, series| sum.saturating_add(series.values[place]))
    }

    /// At most [`PLACES_MAX`] places and [`SERIES_MAX`] series: neighbours share a place, the last series one name.
    fn together(&self) -> Self {
        let each = self.places.len().div_ceil(PLACES_MAX).max(1);
        let name = |places: &[String]| match places {
            [] => String::new(),
            [one] => one.clone(),
            [first, .., last] => format!("{first} to {last}"),
        };
        let add = |values: &[u64]| values.iter().fold(0, |sum: u64, value| sum.saturating_add(*value));
        let series = self
            .few_series()
            .into_iter()
            .map(|series| Series { values: series.values.chunks(each).map(add).collect(), name: series.name });
        Self { places: self.places.chunks(each).map(name).collect(), series: series.collect(), ..self.clone() }
    }

    fn few_series(&self) -> Vec<Series> {
        if self.series.len() <= SERIES_MAX {
            return self.series.clone();
        }
        let (shown, rest) = self.series.split_at(SERIES_MAX - 1);
        let sum = |place| rest.iter().fold(0, |sum: u64, series| sum.saturating_add(series.values[place]));
        let others = Series { name: OTHERS.into(), values: (0..self.places.len()).map(sum).collect() };
        shown.iter().cloned().chain([others]).collect()
    }

    /// The places with the greatest sums, at most [`BARS_MAX`], none that is empty.
    fn greatest(&self) -> Self {
        let mut order: Vec<_> = (0..self.places.len()).filter(|place| self.sum(*place) > 0).collect();
        order.sort_by_key(|place| std::cmp::Reverse(self.sum(*place)));
        order.truncate(BARS_MAX);
        let series = self.few_series().into_iter().map(|series| Series {
            values: order.iter().map(|place| series.values[*place]).collect(),
            name: series.name,
        });
        let places = order.iter().map(|place| self.places[*place].clone()).collect();
        Self { places, series: series.collect(), ..self.clone() }
    }

    /// Every figure, as given.
    fn table(&self, out: &mut String) {
        let (title, key) = (escaped(&self.title), escaped(&self.key));
        push(
            out,
            format_args!(
                "<details class=\"figures\"><summary>Figures</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures: {title}\">"
            ),
        );
        push(out, format_args!("<table class=\"table\"><thead><tr><th scope=\"col\">{key}</th>"));
        for series in &self.series {
            push(out, format_args!("<th scope=\"col\" class=\"num\">{}</th>", escaped(&series.name)));
        }
        out.push_str("</tr></thead><tbody>");
        for (place, name) in self.places.iter().enumerate() {
            push(out, format_args!("<tr><th scope=\"row\">{}</th>", escaped(name)));
            for series in &self.series {
                push(out, format_args!("<td class=\"num\">{}</td>", shown(series.values[place])));
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div></details>");
    }
}

fn push(out: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    fmt::Write::write_fmt(out, line).unwrap_or_default();
}

/// `1 234`, with narrow spaces, as everywhere on the pages.
fn shown(count: u64) -> String {
    super::pieces::count(count)
}

/// The part that `value` is of `most`, in `room`: rounded down, but what is there is seen.
fn scaled(value: u64, most: u64, room: u64) -> u64 {
    let wide = u128::from(value) * u128::from(room) / u128::from(most.max(1));
    u64::try_from(wide).unwrap_or(room).min(room).max(u64::from(value > 0))
}

/// Thousandths of a per cent, as SVG writes them.
fn percent(thousandths: u64) -> String {
    format!("{}.{:03}%", thousandths / 1_000, thousandths % 1_000)
}

/// A step of 1, 2 or 5 times a power of ten that reaches `most` in at most four of them, and how many it takes.
fn steps(most: u64) -> (u64, u64) {
    let mut power = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            let count = most.div_ceil(step);
            if count <= 4 {
                return (step, count.max(1));
            }
        }
        power = power.saturating_mul(10);
    }
}

/// A figure of the axis: `500`, `20k`, `5M`; exact, for steps have one digit that is not 0.
fn brief(count: u64) -> String {
    for (unit, name) in [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if count >= unit && count.is_multiple_of(unit) {
            return format!("{}{name}", count / unit);
        }
    }
    count.to_string()
}

fn legend(chart: &Chart, out: &mut String) {
    out.push_str("<ul class=\"legend\">");
    for (at, series) in chart.series.iter().enumerate() {
        let sum = series.values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
        push(
            out,
            format_args!(
                "<li class=\"key-{at}\">{} <span class=\"num\">{}</span></li>",
                escaped(&series.name),
                shown(sum)
            ),
        );
    }
    out.push_str("</ul>");
}

/// Opens the drawing, with a title and a description for who does not see it.
fn open(chart: &Chart, height: u64, out: &mut String) {
    let (id, title) = (chart.id, escaped(&chart.title));
    push(
        out,
        format_args!(
            "<svg class=\"plot\" width=\"100%\" height=\"{height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\"><title id=\"{id}-title\">{title}</title><desc id=\"{id}-desc\">{}</desc>",
            escaped(&told(chart))
        ),
    );
}

/// The chart in a sentence.
fn told(chart: &Chart) -> String {
    let sums = chart.series.iter().map(|series| {
        let sum = series.values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
        format!("{} {}", series.name, shown(sum))
    });
    let greatest = (0..chart.places.len()).max_by_key(|place| chart.sum(*place));
    let greatest = greatest.map(|place| format!(" Most at {}: {}.", chart.places[place], shown(chart.sum(place))));
    let sums: Vec<_> = sums.collect();
    format!("In all: {}.{} All figures are in the table beneath.", sums.join(", "), greatest.unwrap_or_default())
}

/// Grid, figures at the left, names of places beneath. Gives the value at the top.
fn axes(chart: &Chart, most: u64, out: &mut String) -> u64 {
    let (step, count) = steps(most);
    let top = step.saturating_mul(count);
    for at in 0..=count {
        let y = ABOVE + PLOT - PLOT * at / count;
        let class = if at == 0 { "axis" } else { "gridline" };
        push(
            out,
            format_args!(
                "<line class=\"{class}\" x1=\"{}\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/><text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                percent(LEFT),
                percent(LEFT - 1_200),
                y + 4,
                brief(step.saturating_mul(at))
            ),
        );
    }
    let every = chart.places.len().div_ceil(NAMES_MAX).max(1);
    for (at, name) in chart.places.iter().enumerate().step_by(every) {
        let (x, y) = (percent(left_of(at, chart.places.len())), ABOVE + PLOT + 16);
        let name = name.split(" to ").next().unwrap_or_default();
        push(out, format_args!("<text class=\"tick\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(name)));
    }
    top
}

fn left_of(place: usize, places: usize) -> u64 {
    LEFT + (WHOLE - LEFT) * place as u64 / places.max(1) as u64
}

fn columns(chart: &Chart, out: &mut String) {
    open(chart, ABOVE + PLOT + BELOW, out);
    let top = axes(chart, chart.most(), out);
    for place in 0..chart.places.len() {
        let (x, next) = (left_of(place, chart.places.len()), left_of(place + 1, chart.places.len()));
        // An eighth of the room stays free, so that columns stand apart; a few days are columns too, and not walls.
        let width = ((next - x) * 7 / 8).min(COLUMN_MAX);
        let (x, width) = (percent(x + (next - x - width) / 2), percent(width));
        let mut below = 0_u64;
        for (at, series) in chart.series.iter().enumerate().filter(|(_, series)| series.values[place] > 0) {
            let foot = scaled(below, top, PLOT);
            below = below.saturating_add(series.values[place]);
            let height = scaled(below, top, PLOT).saturating_sub(foot).max(1);
            let y = ABOVE + PLOT - (foot + height).min(PLOT);
            let words = words(chart, place, series);
            push(
                out,
                format_args!(
                    "<rect class=\"s{at}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{words}</title></rect>"
                ),
            );
        }
    }
    out.push_str("</svg>");
}

/// `2026-11-20: acme 14`, escaped.
fn words(chart: &Chart, place: usize, series: &Series) -> String {
    escaped(&format!("{}: {} {}", chart.places[place], series.name, shown(series.values[place])))
}

fn polylines(chart: &Chart, out: &mut String) {
    open(chart, ABOVE + PLOT + BELOW, out);
    let most = chart.series.iter().flat_map(|series| series.values.iter().copied()).max().unwrap_or_default();
    let top = axes(chart, most, out);
    let places = chart.places.len();
    let x = |place: usize| {
        let left = left_of(place, places);
        percent(left + (left_of(place + 1, places) - left) / 2)
    };
    let y = |value: u64| ABOVE + PLOT - scaled(value, top, PLOT);
    for (at, series) in chart.series.iter().enumerate() {
        for (place, pair) in series.values.windows(2).enumerate() {
            let (from, to) = (y(pair[0]), y(pair[1]));
            push(
                out,
                format_args!(
                    "<line class=\"line s{at}\" x1=\"{}\" y1=\"{from}\" x2=\"{}\" y2=\"{to}\"/>",
                    x(place),
                    x(place + 1)
                ),
            );
        }
        if places > DOTS_MAX {
            continue;
        }
        for (place, value) in series.values.iter().enumerate() {
            let words = words(chart, place, series);
            push(
                out,
                format_args!(
                    "<circle class=\"dot s{at}\" cx=\"{}\" cy=\"{}\" r=\"3\"><title>{words}</title></circle>",
                    x(place),
                    y(*value)
                ),
            );
        }
    }
    out.push_str("</svg>");
}

fn bars(chart: &Chart, out: &mut String) {
    open(chart, BAR_ROW * chart.places.len() as u64, out);
    let most = chart.most();
    for (place, name) in chart.places.iter().enumerate() {
        let y = BAR_ROW * place as u64;
        let (text, bar) = (y + 14, y + 20);
        let (name, sum) = (escaped(&shortened(name)), shown(chart.sum(place)));
        push(
            out,
            format_args!(
                "<text class=\"name\" x=\"0\" y=\"{text}\">{name}</text><text class=\"value\" x=\"100%\" y=\"{text}\" text-anchor=\"end\">{sum}</text>"
            ),
        );
        push(out, format_args!("<rect class=\"track\" x=\"0\" y=\"{bar}\" width=\"100%\" height=\"8\" rx=\"2\"/>"));
        let mut before = 0_u64;
        for (at, series) in chart.series.iter().enumerate().filter(|(_, series)| series.values[place] > 0) {
            let from = scaled(before, most, WHOLE);
            before = before.saturating_add(series.values[place]);
            let width = scaled(before, most, WHOLE).saturating_sub(from);
            let (x, width, words) = (percent(from), percent(width), words(chart, place, series));
            push(
                out,
                format_args!(
                    "<rect class=\"s{at}\" x=\"{x}\" y=\"{bar}\" width=\"{width}\" height=\"8\"><title>{words}</title></rect>"
                ),
            );
        }
    }
    out.push_str("</svg>");
}

/// Characters of a name that fit beside its figure on a phone.
const NAME_CHARS_MAX: usize = 44;

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS_MAX - 1).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Chart {
        let days = (1..=4).map(|day| format!("2026-11-0{day}")).collect();
        Chart::new("per-day", "Entries per day", "by member")
            .over("day", days)
            .with("acme", vec![0, 3, 1_200, 7])
            .with("bolt", vec![5, 0, 34])
    }

    /// What stands between `open` and `close`, each time.
    fn between<'t>(text: &'t str, open: &str, close: &str) -> Vec<&'t str> {
        text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
    }

    #[test]
    fn the_table_has_every_figure_that_is_drawn() {
        for drawn in [two().stacked(), two().lines(), two().bars()] {
            let html = drawn.to_string();
            let cells = between(&html, "<td class=\"num\">", "</td>");
            assert_eq!(cells, ["0", "5", "3", "0", "1\u{202f}200", "34", "7", "0"]);
            let titles = between(&html, "><title>", "</title>");
            for (place, member, value) in
                [(2, "acme", "3"), (3, "acme", "1\u{202f}200"), (1, "bolt", "5"), (3, "bolt", "34")]
            {
                let words = format!("2026-11-0{place}: {member} {value}");
                assert!(titles.contains(&words.as_str()), "{words} in {titles:?}");
            }
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        let hostile = "<script>alert(1)</script>\" onload=\"x";
        let chart = Chart::new("c", hostile, hostile).over(hostile, vec![hostile.into()]).with(hostile, vec![1]);
        let chart = chart.with("b", vec![1]);
        for html in [chart.stacked(), chart.lines(), chart.bars()].map(|drawn| drawn.to_string()) {
            assert!(!html.contains("<script") && !html.contains("\" onload"), "{html}");
        }
    }

    #[test]
    fn nothing_in_it_breaks_the_policy_of_the_pages() {
        for html in [two().stacked(), two().lines(), two().bars()].map(|drawn| drawn.to_string()) {
            for forbidden in [" style=", "<style", "<script", "href", "http", "url("] {
                assert!(!html.contains(forbidden), "{forbidden} in {html}");
            }
        }
    }

    #[test]
    fn many_series_and_many_days_are_drawn_together_and_told_apart() {
        let days: Vec<_> = (0..400).map(|day| format!("day {day}")).collect();
        let mut chart = Chart::new("c", "t", "n").over("day", days);
        for member in 0..20 {
            chart = chart.with(format!("m{member}"), vec![1; 400]);
        }
        let drawn = chart.together();
        assert!(drawn.places.len() <= PLACES_MAX && drawn.series.len() == SERIES_MAX);
        let sum = |chart: &Chart| (0..chart.places.len()).map(|place| chart.sum(place)).sum::<u64>();
        assert_eq!(sum(&drawn), sum(&chart));
        let html = chart.stacked().to_string();
        assert_eq!(between(&html, "<td class=\"num\">", "</td>").len(), 8_000);
        assert!(html.contains(">others <"), "the rest is named");
    }

    #[test]
    fn bars_are_the_greatest_first_and_the_table_keeps_the_order() {
        let labels: Vec<_> = (0..20).map(|label| format!("label-{label:02}")).collect();
        let html = Chart::new("c", "t", "n").over("label", labels).with("new", (0..20).collect()).bars().to_string();
        let names = between(&html, "<text class=\"name\" x=\"0\" y=\"", "</text>");
        assert_eq!(names.len(), BARS_MAX);
        assert!(names[0].ends_with("label-19") && names[11].ends_with("label-08"), "{names:?}");
        assert!(html.contains("width=\"100.000%\""), "the greatest fills the room");
        assert_eq!(between(&html, "<th scope=\"row\">", "</th>")[0], "label-00");
    }

    #[test]
    fn axes_have_round_steps_that_reach_the_greatest() {
        for (most, expected) in [
            (1, (1, 1)),
            (4, (1, 4)),
            (5, (2, 3)),
            (17, (5, 4)),
            (20, (5, 4)),
            (21, (10, 3)),
            (1_234, (500, 3)),
            (u64::MAX, (5_000_000_000_000_000_000, 4)),
        ] {
            assert_eq!(steps(most), expected, "{most}");
        }
        assert_eq!([0, 500, 1_000, 20_000, 1_500, 5_000_000].map(brief), ["0", "500", "1k", "20k", "1500", "5M"]);
    }

    #[test]
    fn what_is_there_is_seen_and_nothing_leaves_the_drawing() {
        let days = vec!["a".into(), "b".into()];
        let html = Chart::new("c", "t", "n").over("day", days).with("x", vec![1, u64::MAX]).stacked().to_string();
        let heights = between(&html, " height=\"", "\"");
        assert!(heights.contains(&"1"), "{heights:?}");
        assert!(heights.iter().all(|height| height.parse::<u64>().unwrap() <= ABOVE + PLOT + BELOW), "{heights:?}");
    }

    #[test]
    fn where_nothing_is_there_it_is_said() {
        let html = Chart::new("c", "t", "n").over("day", vec!["a".into()]).with("x", vec![0]).stacked().to_string();
        assert!(html.contains("every figure is 0") && !html.contains("<svg"), "{html}");
    }
}
