//! From a QUIC connection to a link: both hellos, their checks, and which of several links to a
//! name stays. Used by dialling and accepting alike.
//!
//! Of each pair the lesser node id is the *arbiter*: it alone decides which of two connections
//! stays, after the other has accepted, so both ends keep the same one and neither flaps.
use std::sync::Arc;

use quinn::rustls::pki_types::CertificateDer;
use quinn::{Connection, ConnectionError, VarInt};
use thiserror::Error;

use super::Mesh;
use super::frames::{FrameError, FrameReader, Wire};
use super::identity::Side;
use super::link::{self, LINK_STREAM, Link, LinkEnd, OwnStream};
use super::registry::Installed;
use super::tls::CertifiedNode;
use crate::protocol::ids::NodeId;
use crate::protocol::link::{
    Accept, CloseCode, Hello, LINK_FRAME_BYTES_MAX, LinkFrame, PROOFS_MAX, PROTOCOL_MAX,
    PROTOCOL_MIN, Refusal,
};

/// Exported from the TLS session for the proofs (RFC 8446, section 7.5).
const EXPORT_LABEL: &[u8] = b"EXPORTER-orbweb-hello";
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

/// Makes a link of a connection and starts it.
pub(super) async fn greet(
    mesh: &Arc<Mesh>,
    connection: &Connection,
    side: Side,
) -> Result<Arc<Link>, Failure> {
    let mut peer = None;
    let greeted = Greeting { mesh, connection, side }.run(&mut peer).await;
    greeted.map_err(|unmet| {
        // What the peer said in closing beats whatever broke here because of it.
        let unmet = match (unmet, connection.close_reason()) {
            (Unmet::Failed(_), Some(reason)) => reason.into(),
            (unmet, _) => unmet,
        };
        if let Unmet::Refusing(refusal) = &unmet {
            connection.close(VarInt::from_u32(CloseCode::Refused as u32), &refusal.encode());
        }
        Failure { peer, unmet }
    })
}

struct Greeting<'a> {
    mesh: &'a Arc<Mesh>,
    connection: &'a Connection,
    side: Side,
}

impl Greeting<'_> {
    async fn run(&self, peer: &mut Option<Box<Hello>>) -> Result<Arc<Link>, Unmet> {
        let mut own = self.exchange(peer).await?;
        let Some(hello) = peer.as_deref() else { return Err(Unmet::Late) };
        let version = self.check(hello)?;
        let accept =
            Wire::control(&LinkFrame::Accept(Accept { version })).map_err(FrameError::from);
        let accept = accept.map_err(failed)?;
        let arbiter = self.mesh.config.node < hello.node;
        let link = Link::new(hello, self.side == Side::Dialler, self.connection.clone());
        let old = if arbiter {
            self.accepted(&mut own).await?;
            let old = self.take_place(&link, hello, arbiter).await?;
            // If this can't be written the connection is gone, and the link ends at once.
            let _ = write(&mut own, &accept).await;
            old
        } else {
            self.free_name(hello).await?;
            write(&mut own, &accept).await?;
            self.accepted(&mut own).await?;
            self.take_place(&link, hello, arbiter).await?
        };
        self.mesh.links.spawn(link::run(self.mesh.clone(), link.clone(), own, old));
        Ok(link)
    }

    /// Sends our hello and waits for the other.
    async fn exchange(&self, peer: &mut Option<Box<Hello>>) -> Result<OwnStream, Unmet> {
        let mut send = link::open(self.connection, LINK_STREAM).await.map_err(failed)?;
        let hello = self.mesh.hello(self.export(self.side)?);
        let hello = Wire::control(&LinkFrame::Hello(Box::new(hello))).map_err(failed)?;
        send.write_all_chunks(&mut [hello.head, hello.body]).await.map_err(failed)?;
        let mut stream = self.connection.accept_uni().await?;
        if link::first_byte(&mut stream).await.map_err(failed)? != LINK_STREAM {
            return Err(Unmet::Failed("its first stream is not the link's own".to_owned()));
        }
        let mut receive = FrameReader::new(stream, LINK_FRAME_BYTES_MAX);
        let frame = receive.one().await.map_err(failed)?;
        match LinkFrame::decode(&frame).map_err(failed)? {
            LinkFrame::Hello(hello) => *peer = Some(hello),
            _ => return Err(Unmet::Failed("its first frame is not a hello".to_owned())),
        }
        Ok(OwnStream { send, receive })
    }

    fn export(&self, side: Side) -> Result<[u8; 32], Unmet> {
        let mut exported = [0; 32];
        self.connection
            .export_keying_material(&mut exported, EXPORT_LABEL, side.label())
            .map_err(|_| Unmet::Failed("no keys can be exported from the session".to_owned()))?;
        Ok(exported)
    }

    /// Everything about a hello that needs no look at other links.
    fn check(&self, hello: &Hello) -> Result<u16, Unmet> {
        let config = &self.mesh.config;
        let refuse = |refusal| Err(Unmet::Refusing(refusal));
        let Some(version) = hello.common_version(PROTOCOL_MIN, PROTOCOL_MAX) else {
            let yours = (hello.version_min, hello.version_max);
            return refuse(Refusal::Version { yours, ours: (PROTOCOL_MIN, PROTOCOL_MAX) });
        };
        if hello.cluster != config.cluster {
            let (yours, ours) = (hello.cluster.clone(), config.cluster.clone());
            return refuse(Refusal::Cluster { yours, ours });
        }
        let proofs = &hello.proofs[..hello.proofs.len().min(PROOFS_MAX)];
        let exported = self.export(self.side.other())?;
        if !self.mesh.proofs.verify(&exported, &hello.node, proofs) {
            return refuse(Refusal::Secret);
        }
        let certified = self.certified()?;
        if !certified.fits(&hello.node) {
            let (hello, certificate) = (hello.node.to_string(), certified.to_string());
            return refuse(Refusal::Identity { hello, certificate });
        }
        if hello.slots != config.slots {
            return refuse(Refusal::Slots { yours: hello.slots, ours: config.slots });
        }
        if hello.copies != config.copies {
            return refuse(Refusal::Copies { yours: hello.copies, ours: config.copies });
        }
        if hello.node.incarnation == config.node.incarnation {
            return refuse(Refusal::Myself(hello.node.incarnation));
        }
        if hello.node.name == config.node.name {
            let (theirs, links) = (config.advertise, self.mesh.registry.count() as u32);
            return refuse(Refusal::DuplicateName {
                holder: config.node.clone(),
                yours: hello.advertise,
                theirs,
                age_ms: self.mesh.age_ms(),
                links,
            });
        }
        Ok(version)
    }

    fn certified(&self) -> Result<CertifiedNode, Unmet> {
        let identity = self.connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| Unmet::Failed("it has no certificate".to_owned()))?;
        CertifiedNode::read(leaf)
            .map_err(|error| Unmet::Refusing(Refusal::Other(error.to_string())))
    }

    async fn accepted(&self, own: &mut OwnStream) -> Result<(), Unmet> {
        let frame = own.receive.one().await.map_err(failed)?;
        match LinkFrame::decode(&frame).map_err(failed)? {
            LinkFrame::Accept(_) => Ok(()),
            _ => Err(Unmet::Failed("its second frame is not an accept".to_owned())),
        }
    }

    /// Refuses a newcomer while another incarnation of its name answers; one that doesn't goes.
    async fn free_name(&self, hello: &Hello) -> Result<(), Unmet> {
        let old = self.mesh.registry.by_name(&hello.node.name);
        let Some(old) = old.filter(|old| old.id != hello.node) else { return Ok(()) };
        if old.answers().await {
            return Err(taken(&old, hello));
        }
        old.displace();
        Ok(())
    }

    /// Enters the link; a link that was there before stays if its node answers, except when the
    /// arbiter at the other end has decided already.
    async fn take_place(
        &self,
        link: &Arc<Link>,
        hello: &Hello,
        arbiter: bool,
    ) -> Result<Option<Arc<Link>>, Unmet> {
        let registry = &self.mesh.registry;
        loop {
            let old = registry.by_name(&link.id.name);
            if let Some(old) = &old {
                let same = old.id == link.id;
                if (arbiter || !same) && old.answers().await {
                    return Err(if same {
                        Unmet::Refusing(Refusal::AlreadyLinked)
                    } else {
                        taken(old, hello)
                    });
                }
            }
            match registry.install(link, old.as_ref()) {
                Installed::Yes => {
                    self.mesh.linked_once();
                    old.iter().for_each(|old| old.displace());
                    return Ok(old);
                }
                Installed::Changed => {}
                Installed::Closing => return Err(Unmet::Closing),
            }
        }
    }
}

async fn write(own: &mut OwnStream, wire: &Wire) -> Result<(), Unmet> {
    let mut chunks = [wire.head.clone(), wire.body.clone()];
    own.send.write_all_chunks(&mut chunks).await.map_err(|e| failed(LinkEnd::from(e)))
}

fn taken(old: &Link, hello: &Hello) -> Unmet {
    Unmet::Refusing(Refusal::DuplicateName {
        holder: old.id.clone(),
        yours: hello.advertise,
        theirs: old.address,
        age_ms: old.peer_age_ms(),
        links: 1,
    })
}

fn failed(error: impl ToString) -> Unmet {
    Unmet::Failed(error.to_string())
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
}

/// Processes whose ages differ by less started at the same moment: more than a hello travels, less
/// than anybody needs to start a second node by mistake.
const SAME_MOMENT_MS: u64 = 250;
