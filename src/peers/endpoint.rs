//! Accepts and dials connections on the one endpoint, and reports those that came to nothing.
//!
//! Every source answers a Retry first: it costs one round trip in the life of a link, and then
//! limits a source are limits on somebody who really receives at that address.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connecting, Incoming, VarInt};
use tokio::time::timeout;

use super::Mesh;
use super::gate::Permit;
use super::greeting::greet;
use super::identity::Side;
use super::link::Link;
use super::refusal::{Failure, Unmet, report};
use crate::protocol::link::{CloseCode, Refusal};

/// For the handshake, both hellos and a probe of an older node of the same name.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until the node closes.
pub(super) async fn accept(mesh: Arc<Mesh>) {
    loop {
        let incoming = tokio::select! {
            incoming = mesh.endpoint.accept() => incoming,
            () = mesh.stop.cancelled() => return,
        };
        match incoming {
            Some(incoming) => admit(&mesh, incoming),
            None => return,
        }
    }
}

fn admit(mesh: &Arc<Mesh>, incoming: Incoming) {
    if !incoming.remote_address_validated() {
        mesh.counters.retries.add(1);
        if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
        return;
    }
    let address = incoming.remote_address();
    let Some(permit) = mesh.gate.enter(address.ip()) else {
        mesh.counters.turned_away.add(1);
        incoming.refuse();
        return;
    };
    match incoming.accept() {
        Ok(connecting) => {
            mesh.tasks.spawn(receive(mesh.clone(), connecting, address, permit));
        }
        Err(error) => tracing::debug!(%address, %error, "link.failed"),
    }
}

async fn receive(mesh: Arc<Mesh>, connecting: Connecting, address: SocketAddr, permit: Permit) {
    let met = meet(&mesh, connecting, Side::Acceptor).await;
    let Err(failure) = met else { return };
    report(&mesh, Side::Acceptor, address, &failure).await;
    if failure.unmet != Unmet::Refusing(Refusal::AlreadyLinked) {
        mesh.stop.run_until_cancelled(permit.penalise()).await;
    }
}

/// Dials an address once.
pub(super) async fn dial(mesh: &Arc<Mesh>, address: SocketAddr) -> Result<Arc<Link>, Failure> {
    mesh.counters.dials.add(1);
    let met = match mesh.endpoint.connect(address, &mesh.server_name) {
        Ok(connecting) => meet(mesh, connecting, Side::Dialler).await,
        Err(error) => Err(Failure { peer: None, unmet: Unmet::Failed(error.to_string()) }),
    };
    if let Err(failure) = &met {
        report(mesh, Side::Dialler, address, failure).await;
    }
    met
}

/// Handshake and hellos, in time or not at all.
async fn meet(mesh: &Arc<Mesh>, connecting: Connecting, side: Side) -> Result<Arc<Link>, Failure> {
    let deadline = tokio::time::Instant::now() + GREETING_TIMEOUT;
    let late = Failure { peer: None, unmet: Unmet::Late };
    let connection = match timeout(GREETING_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|e| Failure { peer: None, unmet: e.into() })?,
        Err(_) => return Err(late),
    };
    match tokio::time::timeout_at(deadline, greet(mesh, &connection, side)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(failure)) => {
            // No effect on a connection that was closed with its reason.
            connection.close(VarInt::from_u32(CloseCode::Invalid as u32), b"no greeting");
            Err(failure)
        }
        Err(_) => {
            let code = CloseCode::Late;
            connection.close(VarInt::from_u32(code as u32), code.to_string().as_bytes());
            Err(late)
        }
    }
}
