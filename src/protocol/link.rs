//! Control frames of a link, before and beside the frames of the cores: hello, accept, refusal,
//! ping, gossip. Named MessagePack, so that versions can mix: unknown fields are skipped.
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ids::{Incarnation, NodeId};

/// The protocol's name in TLS; a change that no negotiation could bridge gets a new one.
pub const ALPN: &[u8] = b"orbweb/1";
/// The oldest version of peer frames that this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest version of peer frames that this build speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// Longest gossip message: chitchat caps a delta at 65,507 bytes, and a digest of 1,000 nodes adds
/// 56,000.
pub const GOSSIP_BYTES_MAX: usize = 192 << 10;
/// Longest control frame: a gossip message and its envelope.
pub const LINK_FRAME_BYTES_MAX: usize = GOSSIP_BYTES_MAX + (4 << 10);
/// Proofs in a hello: one a secret, and two during a rotation; a few more are tolerated.
pub const PROOFS_MAX: usize = 4;

/// A frame of a link's own stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LinkFrame {
    /// Who I am. The first frame in both directions.
    Hello(Box<Hello>),
    /// Your hello is fine. The second frame; the link is up when both were sent.
    Accept(Accept),
    /// Answer me.
    Ping {
        /// Comes back in the answer.
        number: u64,
    },
    /// The answer to a ping, and to all before it.
    Pong {
        /// The ping's number.
        number: u64,
    },
    /// A message between the gossip of both nodes.
    Gossip(Bytes),
}

/// Who a node is and which cluster it belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version of peer frames that it speaks.
    pub version_min: u16,
    /// The newest version of peer frames that it speaks.
    pub version_max: u16,
    /// Name and incarnation; the certificate has to agree.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// Slots of the cluster.
    pub slots: u16,
    /// Copies of each entry.
    pub copies: u8,
    /// Where other nodes reach it.
    pub advertise: SocketAddr,
    /// Where clients reach it.
    #[serde(default)]
    pub url: Option<String>,
    /// How long the process runs, in milliseconds: of two nodes with one name the younger yields.
    #[serde(default)]
    pub age_ms: u64,
    /// How many working links it has.
    #[serde(default)]
    pub links: u32,
    /// Proofs that it knows the cluster's secret, one a secret that it accepts.
    pub proofs: Vec<Bytes>,
}

impl Hello {
    /// The newest version that both speak.
    pub fn common_version(&self, min: u16, max: u16) -> Option<u16> {
        let newest = self.version_max.min(max);
        (newest >= self.version_min && newest >= min).then_some(newest)
    }
}

/// A hello was checked and found fine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// The version of peer frames that will be spoken.
    pub version: u16,
}

/// How a node closes a link: the application's error code of QUIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CloseCode {
    /// The node is leaving.
    Shutdown = 0,
    /// The hello was refused; the reason is an encoded [`Refuse`].
    Refused = 1,
    /// A frame broke a limit or couldn't be read.
    Invalid = 2,
    /// Another link to the same node took its place.
    Replaced = 3,
    /// No complete hello in time.
    Late = 4,
    /// The other end is taken for dead; if it reads this, it isn't, and a new link says so.
    Dead = 5,
}

/// Why a link is refused, seen from the side that refuses: "yours" is the other's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// No common version.
    #[error("protocol versions {} to {} are yours, {} to {} are ours: none in common", .yours.0, .yours.1, .ours.0, .ours.1)]
    Version {
        /// Oldest and newest of the refused.
        yours: (u16, u16),
        /// Oldest and newest of the refusing.
        ours: (u16, u16),
    },
    /// Each side chooses the newest version that both speak, so an accept that names another one
    /// comes from a node that would misread what it is sent.
    #[error("you accept with protocol version {yours}, the newest in common is {ours}")]
    Accepted {
        /// What the refused accepted with.
        yours: u16,
        /// What the refusing accepts with.
        ours: u16,
    },
    /// Two clusters.
    #[error("your cluster is named {yours:?}, ours {ours:?}")]
    Cluster {
        /// The refused node's.
        yours: String,
        /// The refusing node's.
        ours: String,
    },
    /// The ring has another number of slots.
    #[error("your cluster has slots = {yours}, ours has slots = {ours}")]
    Slots {
        /// The refused node's.
        yours: u16,
        /// The refusing node's.
        ours: u16,
    },
    /// Another number of copies.
    #[error("your cluster keeps copies = {yours}, ours keeps copies = {ours}")]
    Copies {
        /// The refused node's.
        yours: u8,
        /// The refusing node's.
        ours: u8,
    },
    /// The certificate or the proof doesn't come from our secret.
    #[error("your secret or certificate authority is not ours")]
    Secret,
    /// The certificate is for somebody else.
    #[error("you say that you are {hello}, your certificate says {certificate}")]
    Identity {
        /// The node of the hello.
        hello: String,
        /// The node of the certificate.
        certificate: String,
    },
    /// Another node has this name and answers.
    #[error("node name {} is taken: by {yours}, and by {theirs}, which answers", .holder.name)]
    DuplicateName {
        /// The node that keeps the name.
        holder: NodeId,
        /// Address of the refused node.
        yours: SocketAddr,
        /// Address of the node that keeps the name.
        theirs: SocketAddr,
        /// How long the node that keeps the name runs.
        age_ms: u64,
        /// Working links that it is known to have.
        links: u32,
    },
    /// There is a working link already.
    #[error("you and I have a working link already")]
    AlreadyLinked,
    /// A node dialled itself.
    #[error("you are {0}, and so am I")]
    Myself(Incarnation),
    /// A reason that this build doesn't know.
    #[error("{0}")]
    Other(String),
}

/// A refusal as it travels: its text serves those who don't know the reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refuse {
    /// The reason as text.
    pub text: String,
    /// The reason.
    pub reason: Refusal,
}

/// What [`Refuse`] has in every version.
#[derive(Deserialize)]
struct RefuseText {
    text: String,
}

impl Refusal {
    /// The same difference seen from the other side.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Version { yours, ours } => Self::Version { yours: ours, ours: yours },
            Self::Accepted { yours, ours } => Self::Accepted { yours: ours, ours: yours },
            Self::Cluster { yours, ours } => Self::Cluster { yours: ours, ours: yours },
            Self::Slots { yours, ours } => Self::Slots { yours: ours, ours: yours },
            Self::Copies { yours, ours } => Self::Copies { yours: ours, ours: yours },
            other => other,
        }
    }

    /// As the reason of a close.
    pub fn encode(&self) -> Vec<u8> {
        let refuse = Refuse { text: self.to_string(), reason: self.clone() };
        rmp_serde::to_vec_named(&refuse).unwrap_or_default()
    }

    /// From the reason of a close.
    pub fn decode(reason: &[u8]) -> Self {
        if let Ok(refuse) = rmp_serde::from_slice::<Refuse>(reason) {
            return refuse.reason;
        }
        let text = rmp_serde::from_slice::<RefuseText>(reason).map(|refuse| refuse.text);
        Self::Other(text.unwrap_or_else(|_| "no reason that could be read".to_owned()))
    }
}

/// Why a control frame could not be read or written.
#[derive(Debug, Error)]
pub enum LinkFrameError {
    /// Not a control frame that this build knows.
    #[error("a control frame could not be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A frame of ours that can't be written.
    #[error("a control frame could not be written: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl LinkFrame {
    /// The frame as named MessagePack.
    pub fn encode(&self) -> Result<Vec<u8>, LinkFrameError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// Reads a frame; unknown fields are skipped, unknown kinds are errors that a reader may skip.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkFrameError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "it is leaving",
            Self::Refused => "refused",
            Self::Invalid => "a frame broke a limit or could not be read",
            Self::Replaced => "another link took its place",
            Self::Late => "no complete hello in time",
            Self::Dead => "the other end is taken for dead",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 3,
            node: NodeId { name: "a".parse().unwrap(), incarnation: Incarnation(7) },
            cluster: "demo".into(),
            slots: 16384,
            copies: 2,
            advertise: "127.0.0.1:7400".parse().unwrap(),
            url: Some("ws://127.0.0.1:8000".into()),
            age_ms: 5,
            links: 1,
            proofs: vec![Bytes::from_static(&[1; 32])],
        }
    }

    #[test]
    fn a_hello_survives_encoding() {
        let frame = LinkFrame::Hello(Box::new(hello()));
        assert_eq!(LinkFrame::decode(&frame.encode().unwrap()).unwrap(), frame);
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        #[derive(Serialize)]
        enum Later {
            Accept { colour: &'static str, version: u16 },
        }
        let bytes = rmp_serde::to_vec_named(&Later::Accept { colour: "red", version: 1 }).unwrap();
        assert_eq!(LinkFrame::decode(&bytes).unwrap(), LinkFrame::Accept(Accept { version: 1 }));
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(hello().common_version(2, 5), Some(3));
        assert_eq!(hello().common_version(1, 1), Some(1));
        assert_eq!(hello().common_version(4, 5), None);
    }

    #[test]
    fn an_unknown_reason_keeps_its_text() {
        #[derive(Serialize)]
        struct Later {
            text: &'static str,
            reason: &'static str,
        }
        let bytes = rmp_serde::to_vec_named(&Later { text: "too blue", reason: "Blue" }).unwrap();
        assert_eq!(Refusal::decode(&bytes), Refusal::Other("too blue".into()));
        let slots = Refusal::Slots { yours: 1, ours: 2 };
        assert_eq!(Refusal::decode(&slots.encode()), slots);
    }
}
