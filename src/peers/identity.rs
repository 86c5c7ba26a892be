//! What proves that a node belongs to the cluster: the secret, and the keys derived from it. Called
//! by [`super::tls`] and by whoever reads the configuration; never logs or shows a secret.
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::{hkdf, hmac};
use thiserror::Error;

use crate::protocol::ids::NodeId;

/// Bytes that `orbweb secret` draws.
pub const SECRET_BYTES: usize = 32;
/// Least bytes of a secret: 128 bits, since anyone who can open a connection sees a certificate
/// against which a weak secret could be guessed offline.
pub const SECRET_BYTES_MIN: usize = 16;
/// Longest secret in bytes; more adds nothing.
const SECRET_BYTES_MAX: usize = 1024;
/// Least distinct byte values of a secret: 16 random bytes have fewer once in 10^9 secrets.
const SECRET_DISTINCT_MIN: usize = 8;

/// Base64 with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a secret is refused. The text never contains the secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Not base64.
    #[error("the secret is not base64; make one with `orbweb secret`")]
    NotBase64,
    /// Too few bits.
    #[error(
        "the secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed; make one with `orbweb secret`"
    )]
    TooShort(usize),
    /// Too many bytes.
    #[error(
        "the secret has {0} bytes, at most {SECRET_BYTES_MAX} are allowed; make one with `orbweb secret`"
    )]
    TooLong(usize),
    /// A pattern rather than random bytes.
    #[error(
        "the secret repeats {0} byte values over and over, so it can be guessed; make one with `orbweb secret`"
    )]
    Repetitive(usize),
}

/// The secret that all nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Draws a new one.
    pub fn generate() -> Self {
        loop {
            let bytes: [u8; SECRET_BYTES] = rand::random();
            if let Ok(secret) = Self::check(bytes.to_vec()) {
                return secret;
            }
        }
    }

    /// Reads a secret as `orbweb secret` prints it; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = LENIENT.decode(text.trim()).map_err(|_| SecretError::NotBase64)?;
        Self::check(bytes)
    }

    fn check(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let mut seen = [false; 256];
        bytes.iter().for_each(|&byte| seen[usize::from(byte)] = true);
        let distinct = seen.iter().filter(|&&seen| seen).count();
        match bytes.len() {
            n if n < SECRET_BYTES_MIN => Err(SecretError::TooShort(n)),
            n if n > SECRET_BYTES_MAX => Err(SecretError::TooLong(n)),
            _ if distinct < SECRET_DISTINCT_MIN => Err(SecretError::Repetitive(distinct)),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The secret as text, for the operator who asked for it.
    pub fn reveal(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// A key for one purpose; each part of `info` counts with its length.
    pub(super) fn derive(&self, purpose: &str, info: &[&[u8]]) -> [u8; 32] {
        let mut context = Vec::new();
        for part in [&[purpose.as_bytes()], info].concat() {
            context.extend_from_slice(&(part.len() as u64).to_le_bytes());
            context.extend_from_slice(part);
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"orbweb");
        let mut key = [0; 32];
        salt.extract(&self.0)
            .expand(&[&context], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .map(|()| key)
            .unwrap_or_else(|_| unreachable!("32 bytes are a legal HKDF output"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// PEM files of an operator who has a certificate authority.
#[derive(Clone)]
pub struct OperatorPem {
    /// `--tls-ca`: certificates of the authorities whose nodes are let in.
    pub ca: Vec<u8>,
    /// `--tls-cert`: this node's certificate, then intermediates. Its subject alternative names are
    /// DNS `node.orbweb.internal` and URI `orbweb:NAME`; without the URI the common name counts.
    pub cert: Vec<u8>,
    /// `--tls-key`: its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for OperatorPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorPem(…)")
    }
}

/// Everything that a node proves itself with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The cluster's secret.
    pub secret: Secret,
    /// Another one that is accepted as well, while nodes change over one by one.
    pub previous_secret: Option<Secret>,
    /// Certificates of the operator's, in place of those derived from the secret.
    pub operator: Option<OperatorPem>,
}

impl Credentials {
    /// With a secret alone.
    pub fn new(secret: Secret) -> Self {
        Self { secret, previous_secret: None, operator: None }
    }

    /// The secrets that are accepted, the node's own first.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.secret).chain(&self.previous_secret)
    }
}

/// Which end of a connection a node is; a proof of one end is none of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }

    pub(super) fn label(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"dialler",
            Self::Acceptor => b"acceptor",
        }
    }
}

/// Keys that prove knowledge of the cluster's secret for one purpose, one a secret.
pub(super) struct ProofKeys(Vec<hmac::Key>);

impl ProofKeys {
    pub(super) fn new(credentials: &Credentials, purpose: &str, cluster: &str) -> Self {
        let key = |secret: &Secret| secret.derive(purpose, &[cluster.as_bytes()]);
        let keys = credentials.secrets().map(key);
        Self(keys.map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key)).collect())
    }

    /// Proofs of this node's for a session that both ends know and nobody can repeat, one a secret.
    pub(super) fn prove(&self, session: &[u8], node: &NodeId) -> Vec<bytes::Bytes> {
        let message = Self::message(session, node);
        let tag = |key| bytes::Bytes::copy_from_slice(hmac::sign(key, &message).as_ref());
        self.0.iter().map(tag).collect()
    }

    /// Whether one of the proofs was made with one of the secrets; compares in constant time.
    pub(super) fn verify(&self, session: &[u8], node: &NodeId, proofs: &[bytes::Bytes]) -> bool {
        let message = Self::message(session, node);
        let fits = |key, proof: &bytes::Bytes| hmac::verify(key, &message, proof).is_ok();
        self.0.iter().any(|key| proofs.iter().any(|proof| fits(key, proof)))
    }

    fn message(session: &[u8], node: &NodeId) -> Vec<u8> {
        let incarnation = node.incarnation.0.to_le_bytes();
        [session, &incarnation, node.name.as_str().as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_survives_text() {
        let secret = Secret::generate();
        assert_eq!(Secret::parse(&format!(" {}\n", secret.reveal())), Ok(secret.clone()));
        assert_eq!(Secret::parse(secret.reveal().trim_end_matches('=')), Ok(secret));
    }

    #[test]
    fn weak_secrets_are_refused_naming_the_command() {
        let weak = [
            ("no base64!", SecretError::NotBase64),
            (&STANDARD.encode([7; 15]), SecretError::TooShort(15)),
            (&STANDARD.encode([7; 32]), SecretError::Repetitive(1)),
            ("passwordpasswordpasswordpassword", SecretError::Repetitive(6)),
            (&STANDARD.encode([7; 1025]), SecretError::TooLong(1025)),
        ];
        for (text, error) in weak {
            assert!(error.to_string().contains("orbweb secret"), "{error}");
            assert_eq!(Secret::parse(text), Err(error));
        }
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let secret = Secret::generate();
        let shown = format!("{:?}", Credentials::new(secret.clone()));
        assert!(!shown.contains(&secret.reveal()), "{shown}");
    }

    #[test]
    fn keys_differ_by_purpose_and_info() {
        let secret = Secret::parse("AAECAwQFBgcICQoLDA0ODw==").unwrap();
        assert_ne!(secret.derive("a", &[b"bc"]), secret.derive("ab", &[b"c"]));
        assert_eq!(secret.derive("a", &[b"b"]), secret.derive("a", &[b"b"]));
    }
}
