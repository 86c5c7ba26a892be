//! Rows of a picture over an axis of time, as SVG.
use std::fmt::Write as _;

use super::span::Time;

/// Widths, in pixels.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
const WIDTH: f64 = 1_340.0;
/// Heights of rows.
pub(super) const THIN: f64 = 15.0;
pub(super) const ROW: f64 = 24.0;
/// Between two rows.
const APART: f64 = 3.0;
/// Of a letter, about.
const LETTER: f64 = 6.2;
/// Ticks of the axis are so far apart at least.
const TICK_LEAST: f64 = 60.0;
const TICKS_MS: [u64; 7] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000];

pub(super) struct Canvas {
    end_ms: u64,
    y: f64,
    /// Where there is room for the next name of a moment.
    named_to: f64,
    /// What is behind the rest: the lines of the axis.
    behind: String,
    body: String,
}

impl Canvas {
    pub(super) fn new(end_ms: u64) -> Self {
        let (behind, body) = (String::new(), String::new());
        Self { end_ms: end_ms.max(1), y: 4.0, named_to: 0.0, behind, body }
    }

    pub(super) fn end_ms(&self) -> u64 {
        self.end_ms
    }

    fn x(&self, at_ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * at_ms as f64 / self.end_ms as f64
    }

    fn ticks(&self) -> impl Iterator<Item = u64> + use<> {
        let apart = |every: &u64| self.x(*every) - LEFT >= TICK_LEAST;
        let every = TICKS_MS.into_iter().find(apart).unwrap_or(TICKS_MS[TICKS_MS.len() - 1]);
        (0..=self.end_ms).step_by(every as usize)
    }

    /// The seconds.
    pub(super) fn axis(&mut self) {
        self.y += 12.0;
        for tick in self.ticks() {
            let (x, y) = (self.x(tick), self.y);
            let seconds = tick as f64 / 1_000.0;
            self.put(&format!("<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\">{seconds} s</text>"));
        }
        self.y += 6.0;
    }

    /// What the next rows are.
    pub(super) fn title(&mut self, title: &str, more: &str) {
        self.y += 16.0;
        let (title, more) = (escaped(title), escaped(more));
        let y = self.y;
        self.put(&format!(
            "<text class=\"title\" x=\"0\" y=\"{y}\">{title} <tspan class=\"more\">{more}</tspan></text>"
        ));
        self.y += 7.0;
    }

    /// A row with a name, drawn from its upper edge.
    pub(super) fn row(&mut self, name: &str, height: f64, draw: impl FnOnce(&mut Self, f64, f64)) {
        let (y, middle) = (self.y, self.y + height / 2.0 + 4.0);
        let right = LEFT - 8.0;
        let name = escaped(name);
        self.put(&format!("<text class=\"name\" x=\"{right}\" y=\"{middle}\">{name}</text>"));
        draw(self, y, height);
        self.y += height + APART;
    }

    /// A bar over some time; what it is shows under the pointer.
    pub(super) fn bar(&mut self, class: &str, time: Time, (y, height): (f64, f64), what: &str) {
        let (x, to) = (self.x(time.0), self.x(time.1));
        let width = (to - x).max(1.0);
        let (from, to, what) = (time.0, time.1, escaped(what));
        self.put(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"><title>{what}, {from} to {to} ms</title></rect>"
        ));
    }

    /// Text in a bar, if there is room for it.
    pub(super) fn within(&mut self, time: Time, y: f64, text: &str) {
        let (x, to) = (self.x(time.0), self.x(time.1));
        if text.chars().count() as f64 * LETTER < to - x - 4.0 {
            let (x, y, text) = (x + 4.0, y - 4.0, escaped(text));
            self.put(&format!("<text class=\"within\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
        }
    }

    /// Text behind a bar, or before it where there is no room behind.
    pub(super) fn beside(&mut self, time: Time, y: f64, text: &str) {
        let (x, to) = (self.x(time.0), self.x(time.1));
        let room = text.chars().count() as f64 * LETTER + 8.0 < WIDTH - RIGHT - to;
        let (x, anchor) = if room { (to + 5.0, "start") } else { (x - 5.0, "end") };
        let (y, text) = (y - 4.0, escaped(text));
        self.put(&format!(
            "<text class=\"beside\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A mark at a moment of a row.
    pub(super) fn sign(&mut self, class: &str, at_ms: u64, y: f64, sign: &str, what: &str) {
        let (x, sign, what) = (self.x(at_ms), escaped(sign), escaped(what));
        self.put(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{sign}\
             <title>{what}, {at_ms} ms</title></text>"
        ));
    }

    /// A line through all rows so far, with its name on top.
    pub(super) fn line(&mut self, class: &str, at_ms: u64, name: &str) {
        let (x, y, name) = (self.x(at_ms), self.y, escaped(name));
        let line = format!(
            "<path class=\"moment {class}\" d=\"M{x:.1} 22V{y:.1}\"><title>{name} {at_ms} ms</title></path>"
        );
        self.put(&line);
        if !name.is_empty() && x >= self.named_to {
            self.named_to = x + (name.chars().count() as f64 + 1.0) * LETTER;
            let y = y + 12.0;
            self.put(&format!(
                "<text class=\"moment {class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>"
            ));
        }
    }

    /// A curve of values, each for so many milliseconds, up to `most`.
    pub(super) fn curve(
        &mut self,
        class: &str,
        (every_ms, values): (u64, &[f64]),
        most: f64,
        (y, height): (f64, f64),
    ) {
        let bottom = y + height;
        let mut path = format!("M{:.1} {bottom:.1}", self.x(0));
        for (from_ms, value) in (0..).step_by(every_ms as usize).zip(values) {
            let top = bottom - height * (value / most).min(1.0);
            let to = self.x((from_ms + every_ms).min(self.end_ms));
            let _never_fails = write!(path, "V{top:.1}H{to:.1}");
        }
        self.put(&format!("<path class=\"{class}\" d=\"{path}V{bottom:.1}\"/>"));
    }

    fn put(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    pub(super) fn finish(mut self) -> String {
        let height = self.y + 18.0;
        for tick in self.ticks() {
            let (x, to) = (self.x(tick), self.y);
            let _never_fails =
                writeln!(self.behind, "<path class=\"grid\" d=\"M{x:.1} 22V{to:.1}\"/>");
        }
        let Self { behind, body, .. } = self;
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" role=\"img\">\n\
             {PATTERNS}{behind}{body}</svg>"
        )
    }
}

/// Stripes for what isn't as it should be, so that it doesn't depend on colours alone.
const PATTERNS: &str = "<defs><pattern id=\"stripes\" width=\"6\" height=\"6\" \
    patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" \
    class=\"stripe-ground\"/><rect width=\"3\" height=\"6\" class=\"stripe\"/></pattern></defs>\n";

/// Text as HTML and SVG want it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
