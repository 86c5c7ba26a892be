//! The one address that real SDKs are given: each connection goes to a node that is up, as behind any
//! load balancer that isn't sticky.
use std::net::SocketAddr;

use anyhow::Context as _;
use rand::rngs::StdRng;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::doors::TcpDoors;
use super::hosts::own_address;
use crate::cluster::doors::Doors as _;

/// Binds a port, and goes on until the run ends.
pub(super) async fn start(doors: TcpDoors, random: StdRng) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((own_address(), 0)).await.context("the balancer")?;
    let address = listener.local_addr()?;
    spawn_local(accept(listener, doors, random));
    Ok(address)
}

async fn accept(listener: TcpListener, doors: TcpDoors, mut random: StdRng) {
    while let Ok((client, from)) = listener.accept().await {
        let Some(node) = doors.choose(None, &mut random) else { continue };
        let doors = doors.clone();
        spawn_local(async move { carry(client, doors, node, from).await });
    }
}

/// Until one side ends it, or it is cut; neither needs to be told more than that.
async fn carry(mut client: TcpStream, doors: TcpDoors, node: usize, from: SocketAddr) {
    let Ok((mut server, cut)) = doors.dial(node, from).await else { return };
    let carried = copy_bidirectional(&mut client, &mut server);
    let _ended = cut.run_until_cancelled(carried).await;
}
