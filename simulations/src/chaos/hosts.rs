//! One host a node: network namespaces with one address each, on a switch that this process is on, too.
//! What goes from one node to another is cut off and lost where it arrives, by `nft`; clients, who come
//! from this process, reach every node all the time.
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cluster::conditions::{Conditions, Cut};

const CLIENT_PORT: u16 = 8_000;
const MESH_PORT: u16 = 7_400;
/// The last byte of this process's address.
const OWN: u8 = 254;

/// See the module.
pub(super) struct Hosts {
    number: usize,
    conditions: Conditions,
}

impl Hosts {
    /// In a network of its own that nothing is in yet.
    pub(super) async fn make(number: usize) -> anyhow::Result<Self> {
        // Names of namespaces are files, and these are nobody else's.
        run("mkdir -p /run/netns").await?;
        run("mount -t tmpfs chaos /run/netns").await?;
        run("ip link set lo up").await?;
        run("ip link add switch type bridge").await?;
        run(&format!("ip address add {}/24 dev switch", own_address())).await?;
        run("ip link set switch up").await?;
        for node in 0..number {
            let (host, address) = (name(node), address(node));
            run(&format!("ip netns add {host}")).await?;
            run(&format!("ip link add port{node} type veth peer name eth0 netns {host}")).await?;
            run(&format!("ip link set port{node} master switch up")).await?;
            run(&format!("ip -n {host} address add {address}/24 dev eth0")).await?;
            run(&format!("ip -n {host} link set eth0 up")).await?;
            run(&format!("ip -n {host} link set lo up")).await?;
        }
        Ok(Self { number, conditions: Conditions::default() })
    }

    /// Cuts a part off from the rest.
    pub(super) async fn cut(&mut self, part: &[usize], cut: Cut) -> anyhow::Result<()> {
        self.conditions.cut(part, self.number, cut);
        self.apply().await
    }

    /// Two can't reach each other.
    pub(super) async fn cut_link(&mut self, one: usize, other: usize) -> anyhow::Result<()> {
        self.conditions.cut_link(one, other);
        self.apply().await
    }

    /// Of a hundred packets between nodes so many get lost.
    pub(super) async fn lose(&mut self, percent: u64) -> anyhow::Result<()> {
        self.conditions.weather.loss = 100 * percent as u32;
        self.apply().await
    }

    /// Everything goes everywhere again.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.conditions = Conditions::default();
        self.apply().await
    }

    async fn apply(&self) -> anyhow::Result<()> {
        for node in 0..self.number {
            let rules = self.rules(node);
            let mut nft = Command::new("ip")
                .args(["netns", "exec", &name(node), "nft", "-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let mut input = nft.stdin.take().context("a pipe to nft")?;
            input.write_all(rules.as_bytes()).await?;
            drop(input);
            let done = nft.wait_with_output().await?;
            let complained = String::from_utf8_lossy(&done.stderr);
            ensure!(done.status.success(), "nft: {complained} of\n{rules}");
        }
        Ok(())
    }

    /// What a host lets in, in place of what it did, in one step.
    fn rules(&self, node: usize) -> String {
        let others = (0..self.number).filter(|other| *other != node);
        let mut lines: Vec<String> = others
            .clone()
            .filter(|other| self.conditions.cuts.contains(&(*other, node)))
            .map(|other| format!("ip saddr {} drop", address(other)))
            .collect();
        let loss = self.conditions.weather.loss;
        if loss > 0 {
            let chance = format!("numgen random mod 10000 < {loss} drop");
            lines.extend(others.map(|other| format!("ip saddr {} {chance}", address(other))));
        }
        let hook = "type filter hook input priority 0; policy accept;";
        format!(
            "add table inet chaos\ndelete table inet chaos\n\
             table inet chaos {{\nchain input {{\n{hook}\n{}\n}}\n}}\n",
            lines.join("\n")
        )
    }
}

/// A host has the name of its node.
fn name(node: usize) -> String {
    crate::cluster::setup::name(node)
}

/// What a command on the host of a node begins with.
pub(super) fn on(node: usize) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &name(node)]);
    command
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, node as u8 + 1)
}

/// Where this process is on the switch.
pub(super) fn own_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, OWN)
}

pub(super) fn client_address(node: usize) -> SocketAddr {
    (address(node), CLIENT_PORT).into()
}

pub(super) fn mesh_address(node: usize) -> SocketAddr {
    (address(node), MESH_PORT).into()
}

/// Runs a command of words without spaces, which must succeed.
async fn run(words: &str) -> anyhow::Result<()> {
    let mut command = words.split(' ');
    let program = command.next().unwrap_or_default();
    let done = Command::new(program)
        .args(command)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("{words}: {program} doesn't start"))?;
    ensure!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
