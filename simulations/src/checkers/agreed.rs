//! I8 of whole nodes, by what each of them reports of all: the same view, no slot claimed, and nothing
//! without its copies, but for what is published at this moment. And every slot has one owner.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::api::{NodeReport, NodeState, ServingState};
use orbweb::protocol::ids::Slot;
use orbweb::protocol::peer::SlotRange;

use crate::cluster::Cluster;
use crate::cluster::setup::name;

pub(crate) async fn check(cluster: &Cluster, quiet: bool) -> anyhow::Result<()> {
    one_owner(cluster)?;
    let mut names: Vec<String> = cluster.running().into_iter().map(name).collect();
    names.sort_unstable();
    for node in cluster.running() {
        let reports = cluster.facts(node)?.cluster().await;
        check_reports(&name(node), &names, &reports, quiet)?;
    }
    Ok(())
}

/// What one node says of itself and of all others that it knows, if these nodes run.
pub(crate) fn check_reports(
    asked: &str,
    names: &[String],
    reports: &[NodeReport],
    quiet: bool,
) -> anyhow::Result<()> {
    let mut known: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    known.sort_unstable();
    ensure!(known == names, "I8: {asked} knows {known:?}, there are {names:?}");
    for report in reports {
        well(report, quiet).map_err(|e| e.context(format!("as {asked} sees it")))?;
        let (theirs, ours) = (&report.view_hash, &reports[0].view_hash);
        ensure!(theirs == ours, "I8: {} has another view than {asked}", report.name);
    }
    Ok(())
}

/// Slot by slot, as each node says for itself. Where in addition nobody has something to claim, the
/// owner is the one that the placement names.
fn one_owner(cluster: &Cluster) -> anyhow::Result<()> {
    let mut owners: BTreeMap<Slot, Vec<String>> = BTreeMap::new();
    for node in cluster.running() {
        for slot in cluster.owned(node)?.into_iter().flat_map(SlotRange::iter) {
            owners.entry(slot).or_default().push(name(node));
        }
    }
    for slot in (0..cluster.setup.slots).map(Slot) {
        let owners = owners.remove(&slot).unwrap_or_default();
        ensure!(owners.len() == 1, "I8: {slot:?} is owned by {owners:?}");
    }
    ensure!(owners.is_empty(), "I8: owned, but not there: {owners:?}");
    Ok(())
}

fn well(report: &NodeReport, quiet: bool) -> anyhow::Result<()> {
    let name = &report.name;
    ensure!(report.state == NodeState::Up, "I8: {name} is {}", report.state);
    ensure!(report.serving == ServingState::Full, "I8: {name} serves {:?}", report.serving);
    let claiming = report.slots_claiming;
    ensure!(claiming == 0, "I8: {name} claims {claiming} slots");
    let short = report.slots_under_replicated;
    ensure!(short == 0, "I8: {name} has {short} slots with too few copies");
    let astray = report.slots_astray;
    ensure!(!quiet || astray == 0, "I8: {name} holds what the owners of {astray} slots may lack");
    let uncommitted = report.changes_uncommitted;
    ensure!(
        !quiet || uncommitted == 0,
        "I8: {name} has {uncommitted} changes that wait for copies"
    );
    Ok(())
}
