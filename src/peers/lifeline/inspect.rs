//! Calling at a peer's door: to have a lifeline, or to see who is there after one ended. Returns
//! what it found; what that means is decided elsewhere.
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::proof::{self, Purpose, Unproven};
use super::{Door, Finding, Lifelines};
use crate::peers::link::PROBE_TIMEOUT;
use crate::protocol::ids::NodeId;

/// Longest time for a connection and both proofs. A door that stays silent for longer says nothing
/// that gossip doesn't say by then.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Calls at a door that opens and is shut before a proof: a process in its last moments closes its
/// lifelines before its listener, or the other way round.
const CALLS_MAX: u32 = 4;
/// Pause before the second call, doubling: the kernel needs microseconds for the rest of a process.
const CALL_PAUSE: Duration = Duration::from_millis(2);
/// How long a link may take to answer a ping, beside its round-trip times: a busy process that is
/// alive is scheduled by then, and else the refused connection must still be explained.
/// Tests, which expect an answer, run beside whatever else keeps their machine busy.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 250 } else { 50 });

/// Who is behind a door.
pub(super) struct Met {
    pub(super) stream: TcpStream,
    pub(super) node: NodeId,
    /// What they take this connection for.
    pub(super) purpose: Purpose,
}

/// Why nobody was met.
#[derive(Debug, Error)]
pub(super) enum NotMet {
    /// No process listens.
    #[error("nobody listens")]
    Refused,
    /// No connection, for another reason.
    #[error("no connection: {0}")]
    Unreached(io::Error),
    /// A connection without a proof.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// Not in time.
    #[error("no proof in time")]
    Late,
}

/// Connects and exchanges proofs.
pub(super) async fn call(
    lifelines: &Lifelines,
    address: SocketAddr,
    peer: &NodeId,
    purpose: Purpose,
) -> Result<Met, NotMet> {
    let met = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => NotMet::Refused,
            _ => NotMet::Unreached(error),
        })?;
        let me = &lifelines.mesh.config.node;
        let (node, purpose) = proof::claim(&mut stream, &lifelines.keys, me, peer, purpose).await?;
        Ok(Met { stream, node, purpose })
    };
    timeout(CALL_TIMEOUT, met).await.unwrap_or(Err(NotMet::Late))
}

/// Looks who is behind a peer's door, and whether its link still answers.
pub(super) async fn inspect(lifelines: &Lifelines, address: SocketAddr, peer: &NodeId) -> Finding {
    let (door, link_answers) =
        tokio::join!(knock(lifelines, address, peer), link_answers(lifelines, peer));
    Finding { node: peer.clone(), door, link_answers }
}

async fn knock(lifelines: &Lifelines, address: SocketAddr, peer: &NodeId) -> Door {
    for attempt in 0..CALLS_MAX {
        match call(lifelines, address, peer, Purpose::Ask).await {
            Ok(met) => return Door::Opened(met.node.incarnation),
            Err(NotMet::Refused) => return Door::Refused,
            Err(NotMet::Unproven(Unproven::Broken(_))) => sleep(CALL_PAUSE * (1 << attempt)).await,
            Err(NotMet::Unreached(error)) if error.kind() == ErrorKind::ConnectionReset => {
                sleep(CALL_PAUSE * (1 << attempt)).await;
            }
            Err(_) => return Door::Unclear,
        }
    }
    Door::Unclear
}

async fn link_answers(lifelines: &Lifelines, peer: &NodeId) -> bool {
    let link = lifelines.mesh.registry.routes().link(peer.incarnation).cloned();
    let Some(link) = link else { return false };
    let patience = ANSWER_TIMEOUT + 2 * link.connection.rtt();
    link.answers_within(patience.min(PROBE_TIMEOUT)).await
}
