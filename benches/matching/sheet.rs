//! Figures side by side with what limits them and what is aimed at.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// At most this value.
    Most(f64),
    /// At least this share of the limit, in percent.
    Share(f64),
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    list: String,
    what: String,
    value: f64,
    unit: &'static str,
    /// The same work if nothing but this part of the machine took time, in the same unit.
    limit: Option<(&'static str, f64)>,
    aim: Option<Aim>,
}

impl Row {
    /// How near the figure is to its limit, in percent: 100 is at the limit, whether more is better or less.
    fn share(&self) -> Option<f64> {
        let (_, limit) = self.limit?;
        let more_is_better = self.unit.ends_with("/s");
        Some(100.0 * if more_is_better { self.value / limit } else { limit / self.value })
    }

    fn is_met(&self) -> Option<bool> {
        match self.aim? {
            Aim::Most(most) => Some(self.value <= most),
            Aim::Share(least) => self.share().map(|share| share >= least),
        }
    }

    fn aim(&self) -> String {
        let met = if self.is_met() == Some(false) { " MISSED" } else { "" };
        match self.aim {
            Some(Aim::Most(most)) => format!("<= {} {}{met}", short(most), self.unit),
            Some(Aim::Share(least)) => format!(">= {least} % of it{met}"),
            None => String::new(),
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    rows: Vec<Row>,
}

impl Sheet {
    /// A figure; `of` and `aim` add to it.
    pub(crate) fn row(
        &mut self,
        list: impl Into<String>,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> &mut Self {
        self.rows.push(Row { list: list.into(), what: what.into(), value, unit, limit: None, aim: None });
        self
    }

    /// What limits the last figure, in its unit.
    pub(crate) fn of(&mut self, limit: &'static str, value: f64) -> &mut Self {
        self.last(|row| row.limit = Some((limit, value)))
    }

    /// What the last figure should be.
    pub(crate) fn aim(&mut self, aim: Aim) -> &mut Self {
        self.last(|row| row.aim = Some(aim))
    }

    fn last(&mut self, change: impl FnOnce(&mut Row)) -> &mut Self {
        if let Some(row) = self.rows.last_mut() {
            change(row);
        }
        self
    }

    /// What is not as it should be.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| row.is_met() == Some(false));
        missed
            .map(|row| format!("{}: {} is {} {}, {}", row.list, row.what, short(row.value), row.unit, row.aim()))
            .collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["list", "what", "measured", "limit of this machine", "of it", "aim"]);
        for row in &self.rows {
            table.add_row([
                row.list.clone(),
                row.what.clone(),
                format!("{} {}", short(row.value), row.unit),
                row.limit.map_or_else(String::new, |(what, value)| format!("{} {} ({what})", short(value), row.unit)),
                row.share().map_or_else(String::new, |share| format!("{share:.0} %")),
                row.aim(),
            ]);
        }
        for column in [2, 4] {
            table.column_mut(column).into_iter().for_each(|column| {
                column.set_cell_alignment(CellAlignment::Right);
            });
        }
        table
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "list": row.list, "what": row.what, "value": row.value, "unit": row.unit,
                "limit": row.limit.map(|(_, value)| value), "share": row.share(), "met": row.is_met(),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

/// Three digits that say something.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0 => "0".into(),
        _ => format!("{value:.2}"),
    }
}
