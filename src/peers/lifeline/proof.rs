//! What goes over a lifeline, all of it: a nonce, then each end's name with a proof that it knows
//! the cluster's secret. A proof covers both nonces, both nodes, who dialled and what for, so none
//! can be used twice, elsewhere, or by the other end. A stranger learns nothing of us.
//!
//! ```text
//! acceptor → dialler   magic, nonce
//! dialler → acceptor   purpose, nonce, expected node, own node, proofs
//! acceptor → dialler   purpose, own node, proofs
//! ```
use std::io;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::peers::identity::{ProofKeys, Side};
use crate::protocol::ids::{Incarnation, NODE_NAME_BYTES_MAX, NodeId};
use crate::protocol::link::PROOFS_MAX;

/// What a node says first, so that others than nodes are recognised; the last byte is the version.
const MAGIC: [u8; 8] = *b"lifelin\x01";
const NONCE_BYTES: usize = 32;
/// HMAC-SHA256.
const PROOF_BYTES: usize = 32;

type Nonce = [u8; NONCE_BYTES];

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To be held: its end is a hint.
    Keep,
    /// To see who is there: its end says nothing.
    Ask,
}

/// Why a connection proved nothing.
#[derive(Debug, Error)]
pub(super) enum Unproven {
    /// It ended before.
    #[error("it ended before a proof: {0}")]
    Broken(#[from] io::Error),
    /// What came is nothing that a node says.
    #[error("no node of this version speaks like that")]
    Garbled,
    /// No secret of ours made its proofs.
    #[error("its proof is wrong")]
    Wrong,
}

/// A node that proved itself to an acceptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Caller {
    pub(super) node: NodeId,
    /// Whom it dialled.
    pub(super) expected: NodeId,
    pub(super) purpose: Purpose,
}

/// What both ends know of a connection and nobody can bring about twice.
struct Session {
    challenge: Nonce,
    nonce: Nonce,
}

impl Session {
    /// What one end's proof covers beside that end itself; every part has a fixed or stated length.
    fn covered(&self, side: Side, purpose: Purpose, other: &NodeId) -> Vec<u8> {
        let label = side.label();
        let mut covered = vec![label.len() as u8];
        covered.extend_from_slice(label);
        covered.push(purpose.byte());
        covered.extend_from_slice(&self.challenge);
        covered.extend_from_slice(&self.nonce);
        put_node(&mut covered, other);
        covered
    }
}

/// The dialler's part: proves `me` to whoever is there, and returns who that is and what it takes
/// the connection for.
pub(super) async fn claim<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    keys: &ProofKeys,
    me: &NodeId,
    expected: &NodeId,
    purpose: Purpose,
) -> Result<(NodeId, Purpose), Unproven> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(Unproven::Garbled);
    }
    let mut session = Session { challenge: [0; NONCE_BYTES], nonce: rand::random() };
    stream.read_exact(&mut session.challenge).await?;

    let mut claim = vec![purpose.byte()];
    claim.extend_from_slice(&session.nonce);
    put_node(&mut claim, expected);
    put_node(&mut claim, me);
    put_proofs(&mut claim, keys.prove(&session.covered(Side::Dialler, purpose, expected), me));
    stream.write_all(&claim).await?;

    let purpose = read_purpose(stream).await?;
    let node = read_node(stream).await?;
    let proofs = read_proofs(stream).await?;
    let covered = session.covered(Side::Acceptor, purpose, me);
    if !keys.verify(&covered, &node, &proofs) {
        return Err(Unproven::Wrong);
    }
    Ok((node, purpose))
}

/// The acceptor's part: lets the caller prove itself, asks `decide` what to take the connection
/// for, and proves `me` in turn.
pub(super) async fn challenge<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    keys: &ProofKeys,
    me: &NodeId,
    decide: impl FnOnce(&Caller) -> Purpose,
) -> Result<(Caller, Purpose), Unproven> {
    let challenge: Nonce = rand::random();
    stream.write_all(&[&MAGIC[..], &challenge].concat()).await?;

    let purpose = read_purpose(stream).await?;
    let mut session = Session { challenge, nonce: [0; NONCE_BYTES] };
    stream.read_exact(&mut session.nonce).await?;
    let expected = read_node(stream).await?;
    let node = read_node(stream).await?;
    let proofs = read_proofs(stream).await?;
    if !keys.verify(&session.covered(Side::Dialler, purpose, &expected), &node, &proofs) {
        return Err(Unproven::Wrong);
    }

    let caller = Caller { node, expected, purpose };
    let purpose = decide(&caller);
    let mut answer = vec![purpose.byte()];
    put_node(&mut answer, me);
    let covered = session.covered(Side::Acceptor, purpose, &caller.node);
    put_proofs(&mut answer, keys.prove(&covered, me));
    stream.write_all(&answer).await?;
    Ok((caller, purpose))
}

impl Purpose {
    fn byte(self) -> u8 {
        match self {
            Self::Keep => 1,
            Self::Ask => 2,
        }
    }
}

async fn read_purpose(stream: &mut (impl AsyncRead + Unpin)) -> Result<Purpose, Unproven> {
    match stream.read_u8().await? {
        1 => Ok(Purpose::Keep),
        2 => Ok(Purpose::Ask),
        _ => Err(Unproven::Garbled),
    }
}

fn put_node(bytes: &mut Vec<u8>, node: &NodeId) {
    let name = node.name.as_str().as_bytes();
    bytes.extend_from_slice(&node.incarnation.0.to_le_bytes());
    bytes.push(name.len() as u8); // at most NODE_NAME_BYTES_MAX
    bytes.extend_from_slice(name);
}

async fn read_node(stream: &mut (impl AsyncRead + Unpin)) -> Result<NodeId, Unproven> {
    let incarnation = Incarnation(stream.read_u128_le().await?);
    let mut name = [0; NODE_NAME_BYTES_MAX];
    let length = usize::from(stream.read_u8().await?);
    let name = name.get_mut(..length).ok_or(Unproven::Garbled)?;
    stream.read_exact(name).await?;
    let name = std::str::from_utf8(name).map_err(|_| Unproven::Garbled)?;
    Ok(NodeId { name: name.parse().map_err(|_| Unproven::Garbled)?, incarnation })
}

fn put_proofs(bytes: &mut Vec<u8>, proofs: Vec<Bytes>) {
    bytes.push(proofs.len() as u8); // one a secret
    proofs.iter().for_each(|proof| bytes.extend_from_slice(proof));
}

async fn read_proofs(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<Bytes>, Unproven> {
    let count = usize::from(stream.read_u8().await?);
    if count > PROOFS_MAX {
        return Err(Unproven::Garbled);
    }
    let mut proofs = vec![0; count * PROOF_BYTES];
    stream.read_exact(&mut proofs).await?;
    Ok(proofs.chunks(PROOF_BYTES).map(Bytes::copy_from_slice).collect())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::peers::{Credentials, Secret};

    fn node(name: &str, incarnation: u128) -> NodeId {
        NodeId { name: name.parse().unwrap(), incarnation: Incarnation(incarnation) }
    }

    fn keys(secret: &Secret) -> ProofKeys {
        ProofKeys::new(&Credentials::new(secret.clone()), "lifeline proof", "test")
    }

    /// What `a` and `b` say to each other, each with keys of its own.
    async fn meet(
        a: &ProofKeys,
        b: &ProofKeys,
    ) -> (Result<(NodeId, Purpose), Unproven>, Result<(Caller, Purpose), Unproven>) {
        let (mut one, mut other): (DuplexStream, DuplexStream) = duplex(64);
        let dialler =
            async move { claim(&mut one, a, &node("a", 1), &node("b", 2), Purpose::Keep).await };
        let acceptor =
            async move { challenge(&mut other, b, &node("b", 3), |_| Purpose::Ask).await };
        tokio::join!(dialler, acceptor)
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_and_what_it_wants() {
        let keys = keys(&Secret::generate());
        let (met, caller) = meet(&keys, &keys).await;
        assert_eq!(met.unwrap(), (node("b", 3), Purpose::Ask));
        let (node_a, expected) = (node("a", 1), node("b", 2));
        let caller_a = Caller { node: node_a, expected, purpose: Purpose::Keep };
        assert_eq!(caller.unwrap(), (caller_a, Purpose::Ask));
    }

    #[tokio::test]
    async fn another_secret_proves_nothing() {
        let (a, b) = (keys(&Secret::generate()), keys(&Secret::generate()));
        let (met, caller) = meet(&a, &b).await;
        assert!(matches!(met, Err(Unproven::Broken(_))), "the acceptor said nothing");
        assert!(matches!(caller, Err(Unproven::Wrong)));
    }

    #[tokio::test]
    async fn the_secret_before_is_as_good_while_it_is_accepted() {
        let (old, new) = (Secret::generate(), Secret::generate());
        let both =
            Credentials { previous_secret: Some(old.clone()), ..Credentials::new(new.clone()) };
        let both = ProofKeys::new(&both, "lifeline proof", "test");
        for one in [keys(&old), keys(&new)] {
            assert!(meet(&one, &both).await.0.is_ok() && meet(&both, &one).await.1.is_ok());
        }
        assert!(meet(&keys(&old), &keys(&new)).await.1.is_err());
    }

    #[tokio::test]
    async fn a_proof_that_is_played_back_proves_nothing() {
        let keys = keys(&Secret::generate());
        let session = |nonce| Session { challenge: [1; NONCE_BYTES], nonce };
        let (a, b) = (node("a", 1), node("b", 2));
        let covered = session([2; NONCE_BYTES]).covered(Side::Dialler, Purpose::Keep, &b);
        let proofs = keys.prove(&covered, &a);
        assert!(keys.verify(&covered, &a, &proofs));
        for (nonce, side, purpose, other, own) in [
            ([3; NONCE_BYTES], Side::Dialler, Purpose::Keep, &b, &a),
            ([2; NONCE_BYTES], Side::Acceptor, Purpose::Keep, &b, &a),
            ([2; NONCE_BYTES], Side::Dialler, Purpose::Ask, &b, &a),
            ([2; NONCE_BYTES], Side::Dialler, Purpose::Keep, &node("c", 2), &a),
            ([2; NONCE_BYTES], Side::Dialler, Purpose::Keep, &b, &b),
        ] {
            let covered = session(nonce).covered(side, purpose, other);
            assert!(!keys.verify(&covered, own, &proofs), "{side:?} {purpose:?} {other} {own}");
        }
    }

    #[tokio::test]
    async fn what_no_node_says_is_not_read_on() {
        let keys = keys(&Secret::generate());
        for said in [
            [&[0_u8][..], &[0; 99]].concat(),
            // A name of 65 bytes.
            [&[1_u8][..], &[7; NONCE_BYTES], &[0; 16], &[65], &[b'x'; 65]].concat(),
        ] {
            let (mut one, mut other) = duplex(1024);
            one.write_all(&said).await.unwrap();
            let met = challenge(&mut other, &keys, &node("b", 2), |_| Purpose::Keep).await;
            assert!(matches!(met, Err(Unproven::Garbled)));
        }
        let (mut one, mut other) = duplex(1024);
        one.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let met = claim(&mut other, &keys, &node("a", 1), &node("b", 2), Purpose::Keep).await;
        assert!(matches!(met, Err(Unproven::Garbled)));
    }
}
