//! From a QUIC connection to a link: both hellos, their checks, and which of several links to a
//! name stays. Used by dialling and accepting alike.
//!
//! Of each pair the lesser node id is the *arbiter*: it alone decides which of two connections
//! stays, after the other has accepted, so both ends keep the same one and neither flaps.
use std::sync::Arc;

use quinn::rustls::pki_types::CertificateDer;
use quinn::{Connection, VarInt};

use super::Mesh;
use super::frames::{FrameReader, Wire};
use super::identity::Side;
use super::lanes::{self, LINK_STREAM, OwnStream};
use super::link::{Link, LinkEnd};
use super::refusal::{Failure, Unmet};
use super::registry::Installed;
use super::tls::CertifiedNode;
use crate::protocol::link::{
    Accept, CloseCode, Hello, LINK_FRAME_BYTES_MAX, LinkFrame, PROOFS_MAX, Refusal,
};

/// Exported from the TLS session for the proofs (RFC 8446, section 7.5).
const EXPORT_LABEL: &[u8] = b"EXPORTER-orbweb-hello";
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
        let accept = LinkFrame::Accept(Accept { version });
        let dialled = self.side == Side::Dialler;
        let link = Link::new(hello, version, dialled, self.connection.clone());
        // From `take_place` to the spawn nothing waits: a link that was entered always runs.
        let before = if self.mesh.config.node < hello.node {
            self.accepted(&mut own, version).await?;
            link.push_control(&accept).map_err(|_| failed("no room for an accept"))?;
            self.take_place(&link, hello, true).await?
        } else {
            self.free_name(hello).await?;
            write(&mut own, &accept).await?;
            self.accepted(&mut own, version).await?;
            self.take_place(&link, hello, false).await?
        };
        self.mesh.links.spawn(lanes::run(self.mesh.clone(), link.clone(), own, before));
        Ok(link)
    }

    /// Sends our hello and waits for the other.
    async fn exchange(&self, peer: &mut Option<Box<Hello>>) -> Result<OwnStream, Unmet> {
        let mut send = lanes::open(self.connection, LINK_STREAM).await.map_err(failed)?;
        let hello = self.mesh.hello(self.export(self.side)?);
        let hello = Wire::control(&LinkFrame::Hello(Box::new(hello))).map_err(failed)?;
        let mut chunks = [hello.head, hello.body];
        send.write_all_chunks(&mut chunks).await.map_err(|e| failed(LinkEnd::from(e)))?;
        let mut stream = self.connection.accept_uni().await?;
        if lanes::first_byte(&mut stream).await.map_err(failed)? != LINK_STREAM {
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
        let (oldest, newest) = (*config.versions.start(), *config.versions.end());
        let Some(version) = hello.common_version(oldest, newest) else {
            let yours = (hello.version_min, hello.version_max);
            return refuse(Refusal::Version { yours, ours: (oldest, newest) });
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

    /// Waits for the other's accept, which has to name the version that we chose.
    async fn accepted(&self, own: &mut OwnStream, ours: u16) -> Result<(), Unmet> {
        let frame = own.receive.one().await.map_err(failed)?;
        match LinkFrame::decode(&frame).map_err(failed)? {
            LinkFrame::Accept(Accept { version }) if version == ours => Ok(()),
            LinkFrame::Accept(Accept { version: yours }) => {
                Err(Unmet::Refusing(Refusal::Accepted { yours, ours }))
            }
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
                Installed::After(before) => {
                    self.mesh.linked_once();
                    old.iter().for_each(|old| old.displace());
                    return Ok(before);
                }
                Installed::Changed => {}
                Installed::Closing => return Err(Unmet::Closing),
            }
        }
    }
}

async fn write(own: &mut OwnStream, frame: &LinkFrame) -> Result<(), Unmet> {
    let wire = Wire::control(frame).map_err(failed)?;
    let mut chunks = [wire.head, wire.body];
    own.send.write_all_chunks(&mut chunks).await.map_err(|e| failed(LinkEnd::from(e)))
}

/// Says hello and accepts with any version, as a node would that chooses otherwise.
#[cfg(test)]
pub(super) async fn accept_with(
    mesh: &Arc<Mesh>,
    connection: &Connection,
    version: u16,
) -> Result<OwnStream, Unmet> {
    let greeting = Greeting { mesh, connection, side: Side::Dialler };
    let mut own = greeting.exchange(&mut None).await?;
    write(&mut own, &LinkFrame::Accept(Accept { version })).await?;
    Ok(own)
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
