//! Accepts and dials connections on the one endpoint, and reports those that came to nothing.
//!
//! Every source answers a Retry first: it costs one round trip in the life of a link, and then
//! limits a source are limits on somebody who really receives at that address.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connecting, Incoming, VarInt};
use tokio::time::timeout;

use super::gate::Permit;
use super::greeting::{Failure, Unmet, greet};
use super::identity::Side;
use super::link::Link;
use super::{Mesh, PeerEvent};
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

/// Counts, logs once a source, and tells the node if it is the one that was refused.
async fn report(mesh: &Mesh, side: Side, address: SocketAddr, failure: &Failure) {
    let peer = failure.peer.as_ref().map(|hello| hello.node.to_string()).unwrap_or_default();
    let (refusal, by_us) = match &failure.unmet {
        Unmet::Refusing(refusal) => (refusal, true),
        Unmet::Refused(refusal) => (refusal, false),
        unmet => {
            tracing::debug!(%address, peer, error = %unmet, "link.failed");
            return;
        }
    };
    if matches!(refusal, Refusal::AlreadyLinked | Refusal::Myself(_)) {
        tracing::debug!(%address, peer, reason = %refusal, "link.not_needed");
        return;
    }
    // A dialler of another cluster refuses our certificate before we see its own: it counts as
    // refused all the same.
    if by_us || side == Side::Acceptor {
        mesh.counters.refused.add(1);
    } else {
        mesh.counters.refused_by_peers.add(1);
    }
    // The port of a source that dials is of its own choosing; the port of a target is not.
    let source = match side {
        Side::Dialler => address,
        Side::Acceptor => SocketAddr::new(address.ip(), 0),
    };
    if mesh.refusals.is_new(source, refusal) {
        tracing::warn!(%address, peer, by_us, reason = %refusal, "link.refused");
    }
    let reason = if by_us { mesh.mirror(failure, refusal) } else { refusal.clone() };
    let fatal = mesh.is_fatal(side, &reason);
    let concerns_me = side == Side::Dialler && !(by_us && is_about_a_name(&reason));
    if fatal || concerns_me {
        mesh.event(PeerEvent::Refused { by: address, reason, fatal }).await;
    }
}

fn is_about_a_name(reason: &Refusal) -> bool {
    matches!(reason, Refusal::DuplicateName { .. })
}

impl Mesh {
    /// A difference is the same seen from both sides: whoever finds it first, the newcomer must
    /// know.
    fn mirror(&self, failure: &Failure, refusal: &Refusal) -> Refusal {
        match (refusal, &failure.peer) {
            (Refusal::DuplicateName { yours, theirs, holder, .. }, Some(hello))
                if *holder == self.config.node =>
            {
                Refusal::DuplicateName {
                    holder: hello.node.clone(),
                    yours: *theirs,
                    theirs: *yours,
                    age_ms: hello.age_ms,
                    links: hello.links,
                }
            }
            _ => refusal.clone().mirrored(),
        }
    }
}
