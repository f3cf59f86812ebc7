//! The results: a table for people, JSON for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::scenario::Scenario;

/// All that was measured.
pub struct Report {
    /// In the order of the table.
    pub subjects: Vec<Dialect>,
    runs: u16,
    rows: Vec<Row>,
}

/// What was measured of one scenario. It is a column of the table, and a row while it comes in.
pub struct Row {
    name: &'static str,
    unit: &'static str,
    /// Of each subject the pairs: the floor's figure and its own.
    pairs: BTreeMap<Dialect, Vec<(f64, f64)>>,
    failures: Vec<String>,
}

impl Row {
    /// Nothing yet.
    pub fn new(scenario: &Scenario) -> Self {
        Self { name: scenario.name, unit: scenario.unit(), pairs: BTreeMap::new(), failures: Vec::new() }
    }

    /// Adds a pair, and tells those who wait.
    pub fn add(&mut self, subject: Dialect, (floor, own): (f64, f64)) {
        let (name, unit, who) = (self.name, self.unit, subject.name());
        eprintln!("{name:10}  floor {:>6}  {who:9} {:>6}  {unit}", figure(floor), figure(own));
        self.pairs.entry(subject).or_default().push((floor, own));
    }

    /// Notes that a pair could not be measured.
    pub fn fail(&mut self, subject: Dialect, error: &anyhow::Error) {
        let failure = format!("{} with {}: {error:#}", self.name, subject.name());
        eprintln!("{failure}");
        self.failures.push(failure);
    }

    fn floor(&self) -> Option<f64> {
        median(self.pairs.values().flatten().map(|(floor, _)| *floor))
    }

    /// A subject's figure, and its ratio to the floor, where the floor has used anything at all.
    fn of(&self, subject: Dialect) -> Option<(f64, Option<f64>)> {
        let pairs = self.pairs.get(&subject)?;
        let own = median(pairs.iter().map(|(_, own)| *own))?;
        let ratio = median(pairs.iter().filter(|(floor, _)| *floor > 0.0).map(|(floor, own)| own / floor));
        Some((own, ratio))
    }

    fn json(&self) -> Value {
        let subjects = self.pairs.iter().filter_map(|(&subject, pairs)| {
            let (own, ratio) = self.of(subject)?;
            Some((subject.name().to_owned(), json!({ "median": own, "ratio": ratio, "pairs": pairs })))
        });
        let subjects: serde_json::Map<_, _> = subjects.collect();
        json!({ "unit": self.unit, "floor": self.floor(), "subjects": subjects, "failures": self.failures })
    }
}

impl Report {
    /// Nothing yet.
    pub fn new(subjects: Vec<Dialect>, runs: u16) -> Self {
        Self { subjects, runs, rows: Vec::new() }
    }

    /// Adds a scenario.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether anything could not be measured.
    pub fn failed(&self) -> bool {
        self.rows.iter().any(|row| !row.failures.is_empty())
    }

    /// For programs.
    pub fn json(&self) -> String {
        let scenarios: serde_json::Map<_, _> = self.rows.iter().map(|row| (row.name.into(), row.json())).collect();
        format!("{:#}\n", json!({ "runs": self.runs, "scenarios": scenarios }))
    }

    /// For people, in Markdown: each median, and in brackets the median of the ratios to the floor.
    pub fn table(&self) -> String {
        let mut lines = vec![vec![String::new()], vec![String::new()], vec!["floor".to_owned()]];
        lines.extend(self.subjects.iter().map(|subject| vec![subject.name().to_owned()]));
        for row in &self.rows {
            lines[0].push(row.name.into());
            lines[1].push(row.unit.into());
            lines[2].push(figure_or_dash(row.floor()));
            for (line, &subject) in lines[3..].iter_mut().zip(&self.subjects) {
                let cell = |(own, ratio)| format!("{} ({})", figure(own), figure_or_dash(ratio));
                line.push(row.of(subject).map_or_else(|| figure_or_dash(None), cell));
            }
        }
        markdown(&lines)
    }
}

/// Aligned, with the first line as the head.
fn markdown(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("| {cell:>width$} ");
        }
        text += "|\n";
        if number == 0 {
            text.extend(widths.iter().map(|width| format!("|{}:", "-".repeat(width + 1))));
            text += "|\n";
        }
    }
    text
}

fn figure_or_dash(number: Option<f64>) -> String {
    number.map_or_else(|| "–".into(), figure)
}

/// With as many digits as mean something.
fn figure(number: f64) -> String {
    let digits = match number.abs() {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    }
}
