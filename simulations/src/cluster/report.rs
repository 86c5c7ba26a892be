//! A page that shows a run: nodes and their network, faults, who owns the busiest slots, what clients
//! did and saw, all over one axis of time. One file without scripts, readable in light and dark.
mod canvas;
mod charts;
mod lives;
mod owners;
mod span;

use super::course::Course;
use super::rest::{AGREE, READY};
use super::story::Mark;
use super::{Cluster, clock};
use canvas::{Canvas, escaped};

const STYLE: &str = include_str!("report/style.css");

/// The page of a run that is over, and of why it failed, if it did.
pub(super) fn page(
    (course, without): (&Course, Option<&str>),
    cluster: &Cluster,
    failure: Option<&anyhow::Error>,
) -> String {
    let marks = cluster.story.marks();
    let history = cluster.history.borrow();
    let mut canvas = Canvas::new(clock::now_ms());
    canvas.axis();
    faults(&marks, &mut canvas);
    lives::draw(&marks, &cluster.setup, &mut canvas);
    let broken = failure.map(|why| format!("{why:#}")).unwrap_or_default();
    owners::draw(&marks, &history, (&cluster.setup, &broken), &mut canvas);
    charts::draw(&history, &mut canvas);
    canvas.axis();
    moments(&marks, failure.is_some(), &mut canvas);
    let title = format!("{}, seed {}", course.scenario, course.seed);
    let (class, verdict) = match failure {
        None => ("passed", "passed".to_owned()),
        Some(_) => ("failed", format!("failed after {} ms: {broken}", clock::now_ms())),
    };
    let setup = &cluster.setup;
    let known = history.acknowledged() as u64 + history.refused;
    let unknown = (history.sent.len() as u64).saturating_sub(known);
    let sizes = format!(
        "{} nodes, {} copies, {} slots; {} clients in {} channels, of which each follows {}; {} \
         publications sent, {} acknowledged, {} refused, {} unknown; {} received; {} positions resumed, {} gaps",
        setup.nodes,
        setup.copies,
        setup.slots,
        setup.clients,
        setup.channels,
        setup.subscriptions,
        history.sent.len(),
        history.acknowledged(),
        history.refused,
        unknown,
        history.received(),
        history.resumed,
        history.gaps()
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n<p class=\"{class}\">{}</p>\n<p>{}</p>\n{}\n\
         <p><code>{}</code></p>\n<details><summary>What was told</summary><pre>{}</pre></details>\n\
         </html>\n",
        escaped(&verdict),
        escaped(&sizes),
        canvas.finish(),
        escaped(&crate::whole::command(course, without)),
        escaped(&told(&marks)),
    )
}

/// Each step of a plan while it lasts.
fn faults(marks: &[(u64, Mark)], canvas: &mut Canvas) {
    let began = marks.iter().filter_map(|(at, mark)| match mark {
        Mark::Began(step, what) => Some((*at, *step, what)),
        _ => None,
    });
    let began: Vec<_> = began.collect();
    if began.is_empty() {
        return;
    }
    canvas.title("faults", "the steps of the plan, by number");
    for (from, step, what) in began {
        let over = marks.iter().find_map(|(at, mark)| match mark {
            Mark::Over(other) if *other == step => Some(*at),
            _ => None,
        });
        let to = over.unwrap_or(canvas.end_ms());
        canvas.row(&step.to_string(), canvas::THIN, |canvas, y, height| {
            canvas.bar("fault", (from, to), (y, height), what);
            canvas.beside((from, to), y + height, what);
        });
    }
}

/// Lines through everything where something happened to all at once.
fn moments(marks: &[(u64, Mark)], failed: bool, canvas: &mut Canvas) {
    for (at, mark) in marks {
        match mark {
            Mark::Killed(_) => canvas.line("killed", *at, ""),
            Mark::ClientsCut => canvas.line("clients", *at, "clients cut"),
            Mark::Note(note) if note == AGREE => canvas.line("agreed", *at, "agree"),
            Mark::Note(note) if note == READY => canvas.line("agreed", *at, "ready"),
            _ => {}
        }
    }
    if failed {
        canvas.line("failure", canvas.end_ms(), "failed");
    }
}

fn told(marks: &[(u64, Mark)]) -> String {
    let mut lines = String::new();
    for (at, mark) in marks.iter().filter(|(_, mark)| !matches!(mark, Mark::Owns(..))) {
        lines.push_str(&format!("{at:>8} ms  {mark}\n"));
    }
    lines
}
