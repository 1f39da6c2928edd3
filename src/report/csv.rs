//! The report as CSV (RFC 4180): for each section a line with its name behind `# `, a line with its columns, its rows,
//! and an empty line. Times are whole milliseconds, moments are as in RFC 3339, what is absent is empty.

use super::Report;
use super::tables::{Cell, Table, tables};
use super::time::rfc3339;
use crate::replica::ids::TimeMs;

/// What ends a line.
const END: &str = "\r\n";

/// All sections of `report`.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    for table in tables(report) {
        section(&table, &mut out);
    }
    out
}

fn section(table: &Table, out: &mut String) {
    out.push_str("# ");
    out.push_str(table.id);
    out.push_str(END);
    let spans = |column: usize| table.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Span(_))));
    let names = (0..).zip(&table.columns);
    let columns = names.map(|(at, name)| if spans(at) { format!("{name} (ms)") } else { (*name).to_owned() });
    line(columns, out);
    for row in &table.rows {
        line(row.iter().map(value), out);
    }
    out.push_str(END);
}

/// One line of fields, quoted where they have to be.
pub fn line(fields: impl Iterator<Item = String>, out: &mut String) {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(&field));
    }
    out.push_str(END);
}

fn value(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => harmless(text),
        Cell::Count(count) => count.to_string(),
        Cell::Span(span) => span.map(|ms| ms.to_string()).unwrap_or_default(),
        Cell::Moment(at) => at.map(|at| rfc3339(TimeMs(at))).unwrap_or_default(),
    }
}

/// A name that a spreadsheet would take for a formula gets an apostrophe: names are chosen by others.
pub fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) || field.starts_with('#') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_fields_whatever_they_hold() {
        for (field, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("# x", "\"# x\""),
        ] {
            assert_eq!(quoted(field), expected);
        }
        for (text, expected) in [("=1+1", "'=1+1"), ("@x", "'@x"), ("-1", "'-1"), ("acme", "acme"), ("", "")] {
            assert_eq!(value(&Cell::Text(text.into())), expected);
        }
    }
}
