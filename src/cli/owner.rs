//! `orbweb owner`: where a user or channel lives.
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::target::TargetFlags;
use crate::api::Located;
use crate::config::Surroundings;

#[derive(Args, Debug)]
pub(super) struct OwnerFlags {
    /// A channel's name, or a user id (also as `#user`)
    key: String,
    #[command(flatten)]
    target: TargetFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn owner(
    flags: &OwnerFlags,
    around: &Surroundings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let target = flags.target.target(around)?;
    let located: Located = target.call("owner", &json!({ "key": flags.key }))?;
    if flags.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&located)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let owner = located.owner.map_or("none".to_owned(), |node| node.to_string());
    let successors: Vec<String> = located.successors.iter().map(ToString::to_string).collect();
    let successors = if successors.is_empty() { "none".to_owned() } else { successors.join(", ") };
    writeln!(out, "slot        {}", located.slot.0)?;
    writeln!(out, "owner       {owner}")?;
    writeln!(out, "successors  {successors}")?;
    Ok(ExitCode::SUCCESS)
}
