//! What clients did and saw, as curves over time.
use super::canvas::Canvas;
use crate::cluster::history::{History, TALLY_MS, Tally};

/// Of a chart.
const HEIGHT: f64 = 62.0;
/// A point of a curve is of so many tallies.
const TALLIES: usize = 2;

/// One of the numbers of a tally, and how it looks.
struct Curve {
    class: &'static str,
    of: fn(&Tally) -> u32,
}

struct Chart {
    title: &'static str,
    more: &'static str,
    curves: &'static [Curve],
}

const CHARTS: [Chart; 3] = [
    Chart {
        title: "publications",
        more: "a second; line: sent, filled: acknowledged, red: refused",
        curves: &[
            Curve { class: "filled", of: |tally| tally.acknowledged },
            Curve { class: "curve", of: |tally| tally.sent },
            Curve { class: "bad", of: |tally| tally.refused },
        ],
    },
    Chart {
        title: "deliveries",
        more: "a second; what clients received, answers to those who came back included",
        curves: &[Curve { class: "filled", of: |tally| tally.received }],
    },
    Chart {
        title: "clients",
        more: "a second; filled: positions resumed, line: connections, red: gaps announced",
        curves: &[
            Curve { class: "filled", of: |tally| tally.resumed },
            Curve { class: "curve", of: |tally| tally.connections },
            Curve { class: "bad", of: |tally| tally.gaps },
        ],
    },
];

pub(super) fn draw(history: &History, canvas: &mut Canvas) {
    let every_ms = TALLY_MS * TALLIES as u64;
    let a_second = 1_000.0 / every_ms as f64;
    for Chart { title, more, curves } in CHARTS {
        let values = |curve: &Curve| {
            let sums = history.tallies.chunks(TALLIES);
            sums.map(|of| f64::from(of.iter().map(curve.of).sum::<u32>()) * a_second).collect()
        };
        let curves: Vec<(&str, Vec<f64>)> = curves.iter().map(|c| (c.class, values(c))).collect();
        let most = curves.iter().flat_map(|(_, values)| values).fold(1.0, |a: f64, b| a.max(*b));
        canvas.title(title, &format!("{more}; up to {most:.0}"));
        canvas.row("", HEIGHT, |canvas, y, height| {
            canvas.bar("ground", (0, canvas.end_ms()), (y, height), title);
            for (class, values) in &curves {
                canvas.curve(class, (every_ms, values), most, (y, height));
            }
        });
    }
}
