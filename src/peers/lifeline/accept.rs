//! The listener of lifelines: who comes in proves itself in time, within limits a source, or is
//! closed. Holds lines of linked nodes only, one each.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::proof::{self, Caller, Purpose};
use super::{Lifelines, PROOF_TIMEOUT, hold};
use crate::peers::gate::Permit;

/// Pause after a failed accept, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for as long as it is let.
pub(super) async fn accept(lifelines: Arc<Lifelines>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => admit(&lifelines, stream, from.ip()),
            Err(error) => {
                tracing::debug!(%error, "lifeline.not_accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(lifelines: &Arc<Lifelines>, stream: TcpStream, from: IpAddr) {
    let mesh = &lifelines.mesh;
    let Some(permit) = lifelines.gate.enter(from) else {
        mesh.counters.lifelines_turned_away.add(1);
        return;
    };
    let received = receive(lifelines.clone(), stream, from, permit);
    mesh.tasks.spawn(mesh.stop.clone().run_until_cancelled_owned(received));
}

async fn receive(lifelines: Arc<Lifelines>, mut stream: TcpStream, from: IpAddr, permit: Permit) {
    let me = &lifelines.mesh.config.node;
    let decide = |caller: &Caller| lifelines.purpose_for(caller);
    let proved = proof::challenge(&mut stream, &lifelines.keys, me, decide);
    match timeout(PROOF_TIMEOUT, proved).await {
        Ok(Ok((caller, Purpose::Keep))) => {
            drop(permit);
            if let Some(address) = lifelines.address(&caller.node) {
                hold(&lifelines, stream, &caller.node, address).await;
            }
        }
        Ok(Ok((_, Purpose::Ask))) => {}
        failed => {
            drop(stream);
            tracing::debug!(%from, ?failed, "lifeline.refused");
            lifelines.mesh.counters.lifelines_refused.add(1);
            permit.penalise().await;
        }
    }
}

impl Lifelines {
    /// A line is held with a linked node that dialled this very process.
    fn purpose_for(&self, caller: &Caller) -> Purpose {
        let known =
            self.address(&caller.node).is_some() && caller.expected == self.mesh.config.node;
        match caller.purpose {
            Purpose::Keep if known && !self.mesh.lifelines.is_full() => Purpose::Keep,
            _ => Purpose::Ask,
        }
    }
}
