//! Connections that came to nothing: why, who is told, and whether this node can never enter. Called
//! after every greeting that failed; closes nothing itself.
use std::net::SocketAddr;

use quinn::{ConnectionError, VarInt};
use thiserror::Error;

use super::identity::Side;
use super::{Mesh, PeerEvent};
use crate::protocol::ids::NodeId;
use crate::protocol::link::{CloseCode, Hello, Refusal};

/// Processes whose ages differ by less started at the same moment: more than a hello travels, less
/// than anybody needs to start a second node by mistake.
const SAME_MOMENT_MS: u64 = 250;
/// QUIC's codes for TLS alerts start here (RFC 9001, section 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// The alert for "no protocol name in common".
const NO_APPLICATION_PROTOCOL: u64 = 0x178;

/// Why a connection didn't become a link.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum Unmet {
    /// This node refuses, and says so.
    #[error("refused: {0}")]
    Refusing(Refusal),
    /// The other node refuses.
    #[error("refused by the peer: {0}")]
    Refused(Refusal),
    /// No complete hello in time.
    #[error("no complete hello in time")]
    Late,
    /// This node is closing.
    #[error("this node is closing")]
    Closing,
    /// The connection failed, or carried what no node sends.
    #[error("{0}")]
    Failed(String),
}

impl From<ConnectionError> for Unmet {
    fn from(error: ConnectionError) -> Self {
        let tls = |code: u64| match code {
            NO_APPLICATION_PROTOCOL => {
                Some(Refusal::Other("no version of the link protocol in common".to_owned()))
            }
            code => TLS_ALERTS.contains(&code).then_some(Refusal::Secret),
        };
        let text = error.to_string();
        let unmet = match error {
            ConnectionError::TransportError(e) => tls(e.code.into()).map(Self::Refusing),
            ConnectionError::ConnectionClosed(e) => tls(e.error_code.into()).map(Self::Refused),
            ConnectionError::ApplicationClosed(close)
                if close.error_code == VarInt::from_u32(CloseCode::Refused as u32) =>
            {
                Some(Self::Refused(Refusal::decode(&close.reason)))
            }
            _ => None,
        };
        unmet.unwrap_or(Self::Failed(text))
    }
}

/// The peer as far as its hello came, and what failed.
pub(super) struct Failure {
    pub(super) peer: Option<Box<Hello>>,
    pub(super) unmet: Unmet,
}

/// Counts, logs once a source, and tells the node if it is the one that was refused.
pub(super) async fn report(mesh: &Mesh, side: Side, address: SocketAddr, failure: &Failure) {
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
    /// Whether a refusal means that this node can never enter: it has the lesser right to a name,
    /// or it dialled a cluster of another configuration before it was ever part of this one.
    pub(super) fn is_fatal(&self, side: Side, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::DuplicateName { holder, age_ms, links, .. } => {
                holder.name == self.config.node.name && self.yields_name(holder, *age_ms, *links)
            }
            Refusal::Version { .. }
            | Refusal::Cluster { .. }
            | Refusal::Slots { .. }
            | Refusal::Copies { .. } => side == Side::Dialler && !self.was_linked(),
            _ => false,
        }
    }

    /// Of two nodes with one name the one with working links stays, then the older, then (of two
    /// that started at the same moment) the one with the greater incarnation.
    fn yields_name(&self, holder: &NodeId, age_ms: u64, links: u32) -> bool {
        let (mine, theirs) = (self.registry.count() > 0, links > 0);
        if mine != theirs {
            return theirs;
        }
        let age = self.age_ms();
        if age.abs_diff(age_ms) >= SAME_MOMENT_MS {
            return age < age_ms;
        }
        self.config.node.incarnation < holder.incarnation
    }

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
