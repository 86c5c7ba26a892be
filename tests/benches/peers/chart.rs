//! The figures of a run as a picture: bars a scenario, each with its own scale.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

const WIDTH: u32 = 720;
/// Where bars begin; names stand left of it.
const LEFT: u32 = 110;
/// What is kept free for the figures right of the bars.
const RIGHT: u32 = 150;
const BAR: u32 = 16;
const ROW: u32 = 22;
const TITLE: u32 = 30;
const GAP: u32 = 14;
const MARGIN: u32 = 16;

#[derive(Deserialize)]
struct Figures {
    scenarios: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    title: String,
    unit: String,
    systems: Vec<Bar>,
}

#[derive(Deserialize)]
struct Bar {
    system: String,
    cost: Option<f64>,
    exact: bool,
}

/// Draws what `--json` wrote, one file below the other.
pub(crate) fn draw(svg: &Path, figures: &[PathBuf]) -> Result<()> {
    let mut groups = Vec::new();
    for file in figures {
        let name = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(name)?;
        let figures: Figures = serde_json::from_str(&text)
            .with_context(|| format!("{} isn't what --json writes", name()))?;
        groups.extend(figures.scenarios);
    }
    ensure!(!groups.is_empty(), "there is no scenario in it");
    std::fs::write(svg, picture(&groups)?).with_context(|| format!("{}", svg.display()))
}

fn picture(groups: &[Group]) -> Result<String> {
    let mut body = String::new();
    let mut top = MARGIN;
    for group in groups {
        write_group(&mut body, group, top)?;
        top += TITLE + ROW * group.systems.len() as u32 + GAP;
    }
    let height = top - GAP + MARGIN;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    ))
}

fn write_group(body: &mut String, group: &Group, top: u32) -> Result<()> {
    let line = top + 16;
    let (name, title, unit) = (escaped(&group.name), escaped(&group.title), escaped(&group.unit));
    writeln!(
        body,
        "<text x=\"{MARGIN}\" y=\"{line}\" fill=\"#1f2328\"><tspan font-weight=\"bold\">{name}</tspan> \
         {title} <tspan fill=\"#656d76\">({unit})</tspan></text>"
    )?;
    let most = group.systems.iter().filter_map(|bar| bar.cost).fold(0.0, f64::max);
    for (bar, number) in group.systems.iter().zip(0..) {
        write_bar(body, bar, most, top + TITLE + ROW * number)?;
    }
    Ok(())
}

fn write_bar(body: &mut String, bar: &Bar, most: f64, top: u32) -> Result<()> {
    let (name_end, line) = (LEFT - 8, top + 13);
    let system = escaped(&bar.system);
    writeln!(
        body,
        "<text x=\"{name_end}\" y=\"{line}\" text-anchor=\"end\" fill=\"#1f2328\">{system}</text>"
    )?;
    let cost = bar.cost.unwrap_or_default();
    let share = if most > 0.0 { cost / most } else { 0.0 };
    let length = (f64::from(WIDTH - LEFT - RIGHT) * share).max(1.0);
    let colour = match bar.system.as_str() {
        "orbweb" | "orbweb-one" => "#1a7f64",
        "floor" => "#c9d1d9",
        _ => "#8aa4c8",
    };
    let after = f64::from(LEFT) + length + 6.0;
    let short = if bar.exact { "" } else { " (deliveries missing)" };
    writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
         <text x=\"{after:.1}\" y=\"{line}\" fill=\"#1f2328\">{}{short}</text>",
        label(cost)
    )?;
    Ok(())
}

fn label(cost: f64) -> String {
    if cost >= 100.0 { format!("{cost:.0}") } else { format!("{cost:.1}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
