//! The report as one page: no script, nothing from elsewhere, the plots drawn here as SVG with their numbers in a table
//! beneath. It can be mailed, printed, and kept for ten years.

use super::Report;
use super::tables::{Cell, Plot, Table, tables};

/// Bars of a plot by rows: what a phone shows without scrolling far. The table beneath has all of them.
const BARS_MAX: usize = 12;
/// Columns of a plot by days: more than this and several days share one.
const COLUMNS_MAX: usize = 92;
/// Width of every plot in its own units; the page stretches it.
const WIDTH: u64 = 640;
/// Height of one bar with its gap.
const BAR: u64 = 22;
/// Where bars begin: names stand before.
const BAR_FROM: u64 = 200;
/// Room for the number behind a bar.
const BAR_TO: u64 = 70;
/// Height of one strip of columns.
const STRIP: u64 = 60;
/// Characters of a name in a plot.
const NAME_CHARS_MAX: usize = 26;
/// Rows of a table that stand on the page at once; longer ones are folded away.
const ROWS_SHOWN_MAX: usize = 40;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1c1e;--quiet:#5c6269;--paper:#fdfdfc;--line:#d9dcdf;--bar:#2f6f8f}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--quiet:#9aa2ab;--paper:#15171a;--line:#33383e;--bar:#6db3d3}}\
body{margin:0 auto;padding:1rem;max-width:52rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}\
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.15rem;margin:2.5rem 0 .25rem}p{margin:.25rem 0 .75rem;color:var(--quiet)}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.875rem}\
th,td{padding:.3rem .6rem .3rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}\
td{overflow-wrap:anywhere;min-width:4rem}th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
svg{display:block;width:100%;height:auto;margin:.5rem 0 1rem}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}\
svg .q{fill:var(--quiet)}svg rect{fill:var(--bar)}svg line{stroke:var(--line)}summary{cursor:pointer;color:var(--quiet)}\
@media print{details>*{display:block}}";

/// The page.
pub fn render(report: &Report) -> String {
    let title = format!("{}: transparency report", report.head.forum);
    let mut out = String::with_capacity(64 * 1024);
    push(&mut out, &["<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"]);
    push(&mut out, &["<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"]);
    // Whoever opens the page tells nobody, even if a name in it should have slipped through the escaping.
    push(
        &mut out,
        &["<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"],
    );
    push(&mut out, &["<title>", &escaped(&title), "</title>\n<style>", STYLE, "</style>\n</head>\n<body>\n"]);
    push(&mut out, &["<h1>", &escaped(&title), "</h1>\n<p>", &escaped(&report.head.from), " to "]);
    push(&mut out, &[&escaped(&report.head.to), if report.head.closed { "" } else { ", still open" }, "</p>\n"]);
    for table in tables(report) {
        section(&table, &mut out);
    }
    push(&mut out, &["</body>\n</html>\n"]);
    out
}

fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

fn section(table: &Table, out: &mut String) {
    push(out, &["<h2 id=\"", table.id, "\">", &escaped(table.title), "</h2>\n<p>", &escaped(table.note), "</p>\n"]);
    if table.rows.is_empty() {
        push(out, &["<p>None.</p>\n"]);
        return;
    }
    match table.plot {
        Plot::None => {}
        Plot::Rows => bars(table, out),
        Plot::Days => strips(table, out),
    }
    let folded = table.rows.len() > ROWS_SHOWN_MAX;
    if folded {
        push(out, &["<details><summary>", &table.rows.len().to_string(), " rows</summary>\n"]);
    }
    figures(table, out);
    push(out, &[if folded { "</details>\n" } else { "" }]);
}

fn figures(table: &Table, out: &mut String) {
    let class = |column: usize| match table.rows.first().and_then(|row| row.get(column)) {
        Some(Cell::Count(_) | Cell::Span(_)) => " class=\"n\"",
        _ => "",
    };
    push(out, &["<div class=\"scroll\"><table>\n<tr>"]);
    for (at, column) in table.columns.iter().enumerate() {
        push(out, &["<th", class(at), ">", &escaped(column), "</th>"]);
    }
    push(out, &["</tr>\n"]);
    for row in &table.rows {
        push(out, &["<tr>"]);
        for (at, cell) in row.iter().enumerate() {
            push(out, &["<td", class(at), ">", &escaped(&cell.shown()), "</td>"]);
        }
        push(out, &["</tr>\n"]);
    }
    push(out, &["</table></div>\n"]);
}

/// A bar for each row, the greatest first, by the first number of the row.
fn bars(table: &Table, out: &mut String) {
    let Some(column) = table.rows[0].iter().position(|cell| cell.number().is_some()) else { return };
    let value = |row: &Vec<Cell>| row.get(column).and_then(Cell::number).unwrap_or_default();
    let mut rows: Vec<_> = table.rows.iter().map(|row| (value(row), row[0].shown())).filter(|(n, _)| *n > 0).collect();
    rows.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    rows.truncate(BARS_MAX);
    let Some(most) = rows.first().map(|(value, _)| *value) else { return };
    let height = BAR * rows.len() as u64;
    open_svg(height, &format!("{}: {}", table.title, table.columns[column]), out);
    for (at, (value, name)) in (0_u64..).zip(&rows) {
        let (y, width) = (at * BAR, scaled(*value, most, WIDTH - BAR_FROM - BAR_TO));
        let (text_y, name) = (y + 15, escaped(&shortened(name)));
        let behind = BAR_FROM + width + 6;
        write(out, format_args!("<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text>", BAR_FROM - 8));
        write(out, format_args!("<rect x=\"{BAR_FROM}\" y=\"{}\" width=\"{width}\" height=\"16\"/>", y + 3));
        let value = Cell::Count(*value).shown();
        write(out, format_args!("<text class=\"q\" x=\"{behind}\" y=\"{text_y}\">{value}</text>"));
    }
    push(out, &["</svg>\n"]);
}

/// A strip of columns for each number of a day.
fn strips(table: &Table, out: &mut String) {
    let together = table.rows.len().div_ceil(COLUMNS_MAX).max(1);
    for (column, name) in table.columns.iter().enumerate().skip(1) {
        let value = |row: &Vec<Cell>| row.get(column).and_then(Cell::number).unwrap_or_default();
        let sums: Vec<u64> = table.rows.chunks(together).map(|days| days.iter().map(value).sum()).collect();
        let most = sums.iter().copied().max().unwrap_or_default();
        if most > 0 {
            strip(name, &sums, most, together, out);
        }
    }
}

fn strip(name: &str, sums: &[u64], most: u64, together: usize, out: &mut String) {
    let each = if together == 1 { "a day".to_owned() } else { format!("in {together} days") };
    let told = format!("{name}: at most {} {each}", Cell::Count(most).shown());
    open_svg(STRIP + 24, &told, out);
    write(out, format_args!("<text x=\"0\" y=\"13\">{}</text>", escaped(&told)));
    let pace = WIDTH / sums.len().max(1) as u64;
    for (at, sum) in (0_u64..).zip(sums) {
        let height = scaled(*sum, most, STRIP);
        let y = 20 + STRIP - height;
        if height > 0 {
            let width = pace.saturating_sub(1).max(1);
            write(out, format_args!("<rect x=\"{}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>", at * pace));
        }
    }
    write(out, format_args!("<line x1=\"0\" y1=\"{0}\" x2=\"{WIDTH}\" y2=\"{0}\"/>", 20 + STRIP));
    push(out, &["</svg>\n"]);
}

/// Every machine rounds as every other: down, but what is there is seen.
fn scaled(value: u64, most: u64, room: u64) -> u64 {
    let wide = u128::from(value) * u128::from(room) / u128::from(most.max(1));
    u64::try_from(wide).unwrap_or(room).max(u64::from(value > 0))
}

fn open_svg(height: u64, label: &str, out: &mut String) {
    let label = escaped(label);
    write(out, format_args!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">"));
}

fn write(out: &mut String, line: std::fmt::Arguments<'_>) {
    push(out, &[&line.to_string(), "\n"]);
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS_MAX - 1).chain(['…']).collect()
}

/// Text that stays text, in an element and in a quoted attribute. What a terminal or a browser would not show is shown
/// as what it is: names must not be able to pretend.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if steers(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that steer a terminal, turn the writing around, or are not seen.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        for (text, expected) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload=\"x", "&quot; onload=&quot;x"),
            ("a & 'b'", "a &amp; &#39;b&#39;"),
            ("evil\u{202e}txt\u{0}", "evil\u{fffd}txt\u{fffd}"),
            ("Café – Köln", "Café – Köln"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn plots_are_of_whole_units_and_show_what_is_there() {
        for (value, most, room, expected) in [
            (0, 10, 60, 0),
            (1, 1_000_000, 60, 1),
            (5, 10, 60, 30),
            (10, 10, 60, 60),
            (u64::MAX, u64::MAX, 60, 60),
            (0, 0, 60, 0),
        ] {
            assert_eq!(scaled(value, most, room), expected);
        }
        assert_eq!(shortened(&"ä".repeat(40)).chars().count(), NAME_CHARS_MAX);
    }
}
