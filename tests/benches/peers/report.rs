//! What all runs found: medians over the rounds, ratios within them, as a table and as JSON.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::measure::Run;
use crate::options::Options;
use crate::scenario::{Scenario, Work};
use crate::systems::Kind;
use crate::usage;

/// All runs so far.
pub(crate) struct Report {
    systems: Vec<Kind>,
    seconds: u32,
    rounds: u32,
    load_before: f64,
    scenarios: Vec<Scenario>,
    runs: BTreeMap<(&'static str, Kind), Vec<Run>>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            systems: options.system.clone(),
            seconds: options.seconds,
            rounds: options.rounds,
            load_before: usage::load(),
            scenarios: options.scenarios(),
            runs: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, scenario: &Scenario, system: Kind, run: Run) {
        self.runs.entry((scenario.name, system)).or_default().push(run);
    }

    /// One scenario's rows.
    pub(crate) fn table(&self, scenario: &Scenario) -> String {
        let mut head = vec!["".to_owned(), unit(scenario).to_owned(), "from – to".to_owned()];
        head.extend(self.systems.iter().map(|system| format!("÷ {system}")));
        head.extend(columns(scenario).map(str::to_owned));
        let mut rows = vec![head];
        for &system in &self.systems {
            let costs = self.costs(scenario, system);
            let (least, most) = (least(&costs), most(&costs));
            let mut row = vec![
                system.to_string(),
                figure(median(&costs)),
                format!("{} – {}", figure(least), figure(most)),
            ];
            row.extend(
                self.systems.iter().map(|&other| figure(self.ratio(scenario, system, other))),
            );
            row.extend(cells(scenario, self.runs(scenario, system)));
            rows.push(row);
        }
        format!(
            "\n{}: {} ({} clients)\n{}",
            scenario.name,
            scenario.title,
            scenario.members,
            aligned(&rows)
        )
    }

    /// Everything, with each run.
    pub(crate) fn json(&self) -> Result<String> {
        let done = |scenario: &&Scenario| !self.costs(scenario, self.systems[0]).is_empty();
        let scenarios = self.scenarios.iter().filter(done).map(|scenario| {
            let systems = self.systems.iter().map(|&system| {
                let ratios = self.systems.iter().map(|&other| {
                    (other.to_string(), rounded(self.ratio(scenario, system, other)))
                });
                let runs = self.runs(scenario, system);
                json!({
                    "system": system.to_string(),
                    "cost": rounded(median(&self.costs(scenario, system))),
                    "ratios": ratios.collect::<BTreeMap<_, _>>(),
                    "exact": runs.iter().all(exact),
                    "runs": runs.iter().map(|run| run_json(scenario, run)).collect::<Vec<_>>(),
                })
            });
            json!({
                "name": scenario.name,
                "title": scenario.title,
                "clients": scenario.members,
                "unit": unit(scenario),
                "systems": systems.collect::<Vec<_>>(),
            })
        });
        let cores = std::thread::available_parallelism()?.get();
        let all = json!({
            "machine": {"cores": cores, "load_before": self.load_before, "load_after": usage::load()},
            "seconds": self.seconds,
            "rounds": self.rounds,
            "scenarios": scenarios.collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }

    /// Where Orbweb's deliveries weren't those expected; empty if they all were.
    pub(crate) fn short_of_deliveries(&self) -> String {
        let short = |(key, runs): (&(&str, Kind), &Vec<Run>)| {
            let bad = runs.iter().find(|run| !exact(run))?;
            matches!(key.1, Kind::Orbweb | Kind::OrbwebOne).then(|| {
                let Run { missing, surplus, closed, .. } = bad;
                format!("{}: {missing} missing, {surplus} too many, {closed} closed", key.0)
            })
        };
        self.runs.iter().filter_map(short).collect::<Vec<_>>().join("; ")
    }

    fn runs(&self, scenario: &Scenario, system: Kind) -> &[Run] {
        self.runs.get(&(scenario.name, system)).map_or(&[], Vec::as_slice)
    }

    fn costs(&self, scenario: &Scenario, system: Kind) -> Vec<f64> {
        self.runs(scenario, system).iter().map(|run| cost(scenario, run)).collect()
    }

    /// The median of the rounds' ratios: what slows a machine down slows the whole round.
    fn ratio(&self, scenario: &Scenario, system: Kind, other: Kind) -> f64 {
        let (own, others) = (self.costs(scenario, system), self.costs(scenario, other));
        median(&own.iter().zip(&others).map(|(own, other)| own / other).collect::<Vec<_>>())
    }
}

fn exact(run: &Run) -> bool {
    run.missing == 0 && run.surplus == 0 && run.closed == 0
}

/// What is compared.
fn cost(scenario: &Scenario, run: &Run) -> f64 {
    match scenario.work {
        Work::Traffic { .. } if scenario.one_to_one() => run.cpu_us / run.publications as f64,
        Work::Traffic { .. } => run.cpu_us / run.received as f64,
        Work::Saturate => f64::from(run.highest_rate.unwrap_or_default()),
        Work::Idle => run.memory_bytes.unwrap_or_default() as f64 / 1024.0 / run.clients as f64,
        Work::Connect => run.cpu_us / run.clients as f64,
        Work::Churn { .. } => mib(run.memory_bytes.unwrap_or_default()),
    }
}

fn unit(scenario: &Scenario) -> &'static str {
    match scenario.work {
        Work::Traffic { .. } if scenario.one_to_one() => "CPU µs a message",
        Work::Traffic { .. } => "CPU µs a delivery",
        Work::Saturate => "messages a second, more is better",
        Work::Idle => "KiB a connection",
        Work::Connect => "CPU µs a connect",
        Work::Churn { .. } => "MiB at the end",
    }
}

fn columns(scenario: &Scenario) -> impl Iterator<Item = &'static str> {
    let columns: &[&str] = match scenario.work {
        Work::Traffic { .. } | Work::Saturate => {
            &["p50 ms", "p99 ms", "p99.9 ms", "received", "expected", ""]
        }
        Work::Idle => &["% of a core", ""],
        Work::Connect => &["a second", "a second a core", ""],
        Work::Churn { .. } => &["connections", "MiB at the ends of twelfths", ""],
    };
    columns.iter().copied()
}

fn cells(scenario: &Scenario, runs: &[Run]) -> Vec<String> {
    let middle =
        |of: &dyn Fn(&Run) -> f64| figure(median(&runs.iter().map(of).collect::<Vec<_>>()));
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    let note = if runs.iter().all(exact) {
        String::new()
    } else {
        let (missing, surplus) = (sum(|run| run.missing), sum(|run| run.surplus));
        format!(
            "NOT EXACT: {missing} missing, {surplus} too many, {} closed",
            sum(|run| run.closed)
        )
    };
    let mut cells = match scenario.work {
        Work::Traffic { .. } | Work::Saturate => vec![
            middle(&|run| run.latency.map_or(f64::NAN, |latency| f64::from(latency.p50_us) / 1e3)),
            middle(&|run| run.latency.map_or(f64::NAN, |latency| f64::from(latency.p99_us) / 1e3)),
            middle(&|run| run.latency.map_or(f64::NAN, |latency| f64::from(latency.p999_us) / 1e3)),
            sum(|run| run.received).to_string(),
            sum(|run| run.expected).to_string(),
        ],
        Work::Idle => vec![middle(&|run| run.cpu_us / run.elapsed_s / 1e4)],
        Work::Connect => vec![
            middle(&|run| run.clients as f64 / run.elapsed_s),
            middle(&|run| run.clients as f64 / run.cpu_us * 1e6),
        ],
        Work::Churn { .. } => {
            let last = runs.last().map(|run| run.memory_by_time.as_slice()).unwrap_or_default();
            let twelfths = last.iter().map(|&bytes| figure(mib(bytes))).collect::<Vec<_>>();
            vec![sum(|run| run.clients).to_string(), twelfths.join(" ")]
        }
    };
    cells.push(note);
    cells
}

fn run_json(scenario: &Scenario, run: &Run) -> Value {
    let mut found = json!({
        "cost": rounded(cost(scenario, run)),
        "cpu_us": run.cpu_us,
        "generator_cpu_us": run.generator_cpu_us,
        "elapsed_s": rounded(run.elapsed_s),
        "clients": run.clients,
        "closed": run.closed,
        "load": run.load,
    });
    if let Some(bytes) = run.memory_bytes {
        found["memory_bytes"] = bytes.into();
    }
    if !run.memory_by_time.is_empty() {
        found["memory_by_time"] = json!(run.memory_by_time);
    }
    if let Some(rate) = run.highest_rate {
        found["highest_rate"] = rate.into();
    }
    if run.expected > 0 {
        found["publications"] = run.publications.into();
        found["expected"] = run.expected.into();
        found["received"] = run.received.into();
        found["missing"] = run.missing.into();
        found["surplus"] = run.surplus.into();
    }
    if let Some(latency) = run.latency {
        found["latency_us"] =
            json!({"p50": latency.p50_us, "p99": latency.p99_us, "p999": latency.p999_us});
    }
    found
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Three digits that tell something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Columns side by side: the first and the last to the left, figures to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let padded = if column == 0 || column + 1 == columns {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
            line.push_str(&padded);
        }
        // Writing into a string doesn't fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
