//! `orbweb status`: the nodes of a cluster as one of them sees them, and the health check of
//! containers. Exit code 0 = the node that was asked is ready.
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use humantime_serde::re::humantime;
use serde_json::json;

use super::target::TargetFlags;
use crate::api::{ClusterStatus, NodeReport, NodeState, Readiness, ServingState};
use crate::config::Surroundings;

#[derive(Args, Debug)]
pub(super) struct StatusFlags {
    #[command(flatten)]
    target: TargetFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only ask whether the node is ready; needs no key
    #[arg(long)]
    ready: bool,
}

const HEAD: [&str; 12] = [
    "NAME",
    "INCARNATION",
    "STATE",
    "SERVING",
    "SLOTS",
    "UNDER-REPLICATED",
    "LINKS",
    "PROTOCOL",
    "CONNS",
    "UPTIME",
    "VERSION",
    "ADDRESSES (clients, peers)",
];

pub(super) fn status(
    flags: &StatusFlags,
    around: &Surroundings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let target = flags.target.target(around)?;
    let readiness = target.readiness()?;
    let nodes = if flags.ready || !target.has_key() {
        None
    } else {
        Some(target.call::<ClusterStatus>("status", &json!({}))?.nodes)
    };
    if flags.json {
        write_json(&readiness, nodes.as_deref(), out)?;
    } else {
        write_readiness(target.url(), &readiness, out)?;
        match &nodes {
            Some(nodes) => write_nodes(nodes, out)?,
            None if flags.ready => {}
            None => writeln!(out, "to see the nodes, give a key: --api-key or `api.keys`")?,
        }
    }
    Ok(if readiness.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_json(
    readiness: &Readiness,
    nodes: Option<&[NodeReport]>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut whole = json!({ "ready": readiness.ready, "reasons": readiness.reasons });
    if let Some(nodes) = nodes {
        whole["views_agree"] = (views(nodes).len() < 2).into();
        whole["nodes"] = serde_json::to_value(nodes)?;
    }
    writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
    Ok(())
}

fn write_readiness(url: &str, readiness: &Readiness, out: &mut dyn Write) -> anyhow::Result<()> {
    if readiness.ready {
        writeln!(out, "{url} is ready")?;
    } else {
        writeln!(out, "{url} is not ready: {}", readiness.reasons.join("; "))?;
    }
    Ok(())
}

/// The human table, and warnings: what is held by too few nodes, and who disagrees on who is there.
pub(super) fn write_nodes(nodes: &[NodeReport], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(nodes.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEAD.len()).filter_map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    write_copies(nodes, out)?;
    let views = views(nodes);
    if views.len() > 1 {
        writeln!(out, "warning: nodes disagree on the view, so some are out of touch:")?;
        for (view, names) in views {
            writeln!(out, "  view {view}: {}", names.join(", "))?;
        }
    }
    Ok(())
}

/// Says where fewer nodes hold what was acknowledged than the cluster keeps copies.
fn write_copies(nodes: &[NodeReport], out: &mut dyn Write) -> anyhow::Result<()> {
    for node in nodes {
        let name = &node.name;
        if matches!(node.serving, ServingState::Standalone | ServingState::Degraded) {
            writeln!(
                out,
                "warning: {name} is {}: it acknowledges with fewer copies",
                node.serving
            )?;
        }
        let short = node.slots_under_replicated;
        if short > 0 {
            let unrepaired = node.slots_unrepaired;
            let repairs = match unrepaired {
                0 => "which more nodes are needed for".to_owned(),
                _ => format!("{unrepaired} of them being copied"),
            };
            writeln!(out, "warning: {name} has {short} slots with too few copies, {repairs}")?;
        }
        let astray = node.slots_astray;
        if astray > 0 {
            writeln!(out, "warning: {name} holds what the owners of {astray} slots may lack")?;
        }
    }
    Ok(())
}

fn row(node: &NodeReport) -> [String; HEAD.len()] {
    let slots = match node.slots_claiming {
        0 => node.slots_owned.to_string(),
        claiming => format!("{}+{claiming}", node.slots_owned),
    };
    let link = node.link_address.as_deref().unwrap_or("no peers");
    [
        node.name.to_string(),
        node.incarnation.to_string().chars().take(8).collect(),
        node.state.to_string(),
        node.serving.to_string(),
        slots,
        node.slots_under_replicated.to_string(),
        node.links.to_string(),
        protocol(node),
        node.connections.to_string(),
        humantime::format_duration(Duration::from_secs(node.uptime_s)).to_string(),
        node.version.clone(),
        format!("{}, {link}", node.client_url),
    ]
}

/// The versions that a node's links speak, with how many speak each if there are several.
fn protocol(node: &NodeReport) -> String {
    let versions = &node.link_versions;
    let counted = versions.iter().map(|(version, links)| format!("{version} ({links})"));
    match versions.keys().next() {
        None => "-".to_owned(),
        Some(version) if versions.len() == 1 => version.to_string(),
        Some(_) => counted.collect::<Vec<_>>().join(", "),
    }
}

/// The names of nodes in the ring, by the view that they have.
fn views(nodes: &[NodeReport]) -> BTreeMap<&str, Vec<&str>> {
    let mut views: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.state == NodeState::Up) {
        views.entry(&node.view_hash).or_default().push(node.name.as_str());
    }
    views
}
