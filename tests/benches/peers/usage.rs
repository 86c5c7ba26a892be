//! What processes use, as `/proc` tells it.
use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// CPU time of processes and all that they started, user and system, in microseconds.
pub(crate) fn cpu_us(roots: &[u32]) -> Result<f64> {
    let all = processes()?;
    Ok(micros(family(&all, roots).iter().map(|pid| all[pid].ticks).sum()))
}

/// CPU time of this process alone, in microseconds.
pub(crate) fn own_cpu_us() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let own = process(&stat).with_context(|| format!("/proc/self/stat: {stat}"))?;
    Ok(micros(own.ticks))
}

fn micros(ticks: u64) -> f64 {
    ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// Proportional memory of processes and all that they started, in bytes.
pub(crate) fn pss_bytes(roots: &[u32]) -> Result<u64> {
    family(&processes()?, roots).iter().map(|&pid| pss_of(pid)).sum()
}

/// The machine's load over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

struct Process {
    parent: u32,
    ticks: u64,
}

fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        found.insert(pid, process(&stat).with_context(|| format!("/proc/{pid}/stat: {stat}"))?);
    }
    Ok(found)
}

/// One line of `stat`: after the name, which may hold anything, field 3 and those behind it.
fn process(stat: &str) -> Option<Process> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // Its own time, and that of children that have ended and were waited for.
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    Some(Process { parent: number(4)?.try_into().ok()?, ticks })
}

fn family(all: &BTreeMap<u32, Process>, roots: &[u32]) -> Vec<u32> {
    let mut found: Vec<_> = roots.iter().copied().filter(|pid| all.contains_key(pid)).collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, each)| each.parent == parent).map(|(&pid, _)| pid));
        next += 1;
    }
    found
}

fn pss_of(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("{path} has no Pss"))? * 1024)
}
