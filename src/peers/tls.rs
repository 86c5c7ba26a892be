//! TLS of the links: certificates derived from the secret or brought by the operator, and the
//! ordinary verification of rustls both ways. Called once at start; holds no verifier of its own.
use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{Credentials, OperatorPem, Secret};
use crate::protocol::ids::{Incarnation, NodeId, NodeName};
use crate::protocol::link::ALPN;

/// The name that every node's certificate is valid for. A dialler asks for a name below it that
/// says which secret it would like the certificate to come from.
pub(super) const SERVER_NAME: &str = "node.orbweb.internal";
/// What Ed25519's PKCS #8 form puts before the 32 bytes of the key (RFC 8410, section 7).
const PKCS8_ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why certificates could not be made or read.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file of the operator's.
    #[error("{option}: {cause}")]
    Pem {
        /// The option that names the file.
        option: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The operator's certificate is for another node.
    #[error("--tls-cert is for node {certificate:?}, this node is named {node:?}")]
    Name {
        /// The name in the certificate.
        certificate: String,
        /// The node's.
        node: String,
    },
    /// A certificate without a usable name.
    #[error(
        "a certificate names no node: its URI must be orbweb:NAME, or its common name a node's name"
    )]
    Nameless,
    /// Not a certificate.
    #[error("a certificate can't be read: {0}")]
    Unreadable(String),
    /// Making a certificate failed.
    #[error("a certificate can't be made: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS doesn't take what was made.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What a node needs to speak TLS.
pub(super) struct Tls {
    pub(super) server: rustls::ServerConfig,
    pub(super) client: rustls::ClientConfig,
    /// What a dialler asks for.
    pub(super) server_name: String,
}

impl Tls {
    /// Certificates and verification for one node.
    pub(super) fn new(credentials: &Credentials, node: &NodeId) -> Result<Self, TlsError> {
        let (leaves, roots, server_name) = match &credentials.operator {
            Some(pem) => {
                let (leaf, roots) = operator_leaf(pem, node)?;
                (vec![leaf], roots, SERVER_NAME.to_owned())
            }
            None => {
                let mut roots = RootCertStore::empty();
                let derive = |secret| derived_leaf(secret, node, &mut roots);
                let leaves = credentials.secrets().map(derive).collect::<Result<Vec<_>, _>>()?;
                let name = leaves[0].server_name.clone();
                (leaves, roots, name)
            }
        };
        let (roots, leaves) = (Arc::new(roots), Arc::new(Leaves(leaves)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls13 = [&rustls::version::TLS13];
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| TlsError::Pem { option: "--tls-ca", cause: e.to_string() })?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&tls13)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(leaves.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&tls13)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(leaves);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { server, client, server_name })
    }
}

/// A certificate of this node's, and how a peer says that it would like this one.
struct Leaf {
    key: Arc<CertifiedKey>,
    /// The server name by which a dialler asks for it.
    server_name: String,
    /// The authority's name, by which an acceptor asks for it.
    issuer: Vec<u8>,
}

/// This node's certificates, the preferred first. While secrets are rotated there are two, and each
/// peer gets the one that it trusts, so that one round of restarts suffices.
struct Leaves(Vec<Leaf>);

impl Leaves {
    fn pick(&self, wanted: impl Fn(&Leaf) -> bool) -> Option<Arc<CertifiedKey>> {
        let leaf = self.0.iter().find(|leaf| wanted(leaf)).or(self.0.first());
        leaf.map(|leaf| leaf.key.clone())
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaves({})", self.0.len())
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        self.pick(|leaf| leaf.server_name == name)
    }
}

impl ResolvesClientCert for Leaves {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.pick(|leaf| hints.iter().any(|hint| *hint == leaf.issuer))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The authority that a secret stands for signs a certificate for a key drawn now. The cluster's
/// name has no part in it: a wrong name is told by the hello, which can say both.
fn derived_leaf(
    secret: &Secret,
    node: &NodeId,
    roots: &mut RootCertStore,
) -> Result<Leaf, TlsError> {
    let id = u64::from_le_bytes(first_eight(&secret.derive("key id", &[])));
    let seed = secret.derive("certificate authority", &[]);
    let authority_key = KeyPair::try_from([&PKCS8_ED25519_PREFIX[..], &seed].concat())?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.serial_number = Some(SerialNumber::from(1));
    authority.distinguished_name = DistinguishedName::new();
    authority.distinguished_name.push(DnType::CommonName, format!("orbweb {id:016x}"));
    let mut own = RootCertStore::empty();
    own.add(authority.self_signed(&authority_key)?.der().clone())?;
    let issuer = own.subjects().first().map(|subject| subject.as_ref().to_vec());
    roots.extend(own.roots);

    let mut params =
        CertificateParams::new(vec![SERVER_NAME.to_owned(), format!("*.{SERVER_NAME}")])?;
    let uri = format!("orbweb:{}/{}", node.name, node.incarnation);
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    // As long for each: drawn from the key, one of 256 would be a byte shorter.
    let serial = [&[1][..], &node.incarnation.0.to_be_bytes()].concat();
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node.name.as_str());
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf_key = KeyPair::generate_for(&PKCS_ED25519)?;
    let leaf = params.signed_by(&leaf_key, &Issuer::new(authority, authority_key))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok(Leaf {
        key: certified(vec![leaf.der().clone()], private)?,
        server_name: format!("{id:016x}.{SERVER_NAME}"),
        issuer: issuer.unwrap_or_default(),
    })
}

fn operator_leaf(pem: &OperatorPem, node: &NodeId) -> Result<(Leaf, RootCertStore), TlsError> {
    let wrong =
        |option, cause: &dyn fmt::Display| TlsError::Pem { option, cause: cause.to_string() };
    let certificates = |option, pem: &[u8]| {
        let list = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match list.map_err(|e| wrong(option, &e))? {
            list if list.is_empty() => Err(wrong(option, &"no certificate in the file")),
            list => Ok(list),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("--tls-ca", &pem.ca)? {
        roots.add(authority).map_err(|e| wrong("--tls-ca", &e))?;
    }
    let chain = certificates("--tls-cert", &pem.cert)?;
    let named = CertifiedNode::read(&chain[0])?;
    if named.name != node.name {
        let certificate = named.name.to_string();
        return Err(TlsError::Name { certificate, node: node.name.to_string() });
    }
    let private = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|e| wrong("--tls-key", &e))?;
    let key = certified(chain, private).map_err(|e| wrong("--tls-key", &e))?;
    Ok((Leaf { key, server_name: SERVER_NAME.to_owned(), issuer: Vec::new() }, roots))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, private, &provider)?;
    Ok(Arc::new(certified))
}

pub(super) fn first_eight(key: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|i| key[i])
}

/// The node that a certificate is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CertifiedNode {
    pub(super) name: NodeName,
    /// Absent in certificates of an operator's, which outlive a process.
    pub(super) incarnation: Option<Incarnation>,
}

impl CertifiedNode {
    /// From the URI `orbweb:NAME/INCARNATION` or `orbweb:NAME`, else from the common name.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|e| TlsError::Unreadable(e.to_string()))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|e| TlsError::Unreadable(e.to_string()))?
            .map(|extension| extension.value.general_names.clone())
            .unwrap_or_default();
        let uri = names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("orbweb:"),
            _ => None,
        });
        if let Some(uri) = uri {
            return Self::parse(uri).ok_or(TlsError::Nameless);
        }
        let common = parsed.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok());
        let name = common.and_then(|name| name.parse().ok()).ok_or(TlsError::Nameless)?;
        Ok(Self { name, incarnation: None })
    }

    fn parse(uri: &str) -> Option<Self> {
        let (name, incarnation) = match uri.split_once('/') {
            Some((name, incarnation)) => (name, Some(incarnation.parse().ok()?)),
            None => (uri, None),
        };
        Some(Self { name: name.parse().ok()?, incarnation })
    }

    /// Whether the certificate is for this node.
    pub(super) fn fits(&self, node: &NodeId) -> bool {
        let incarnation = self.incarnation.is_none_or(|inc| inc == node.incarnation);
        self.name == node.name && incarnation
    }
}

impl fmt::Display for CertifiedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation {
            Some(incarnation) => write!(f, "{}@{incarnation:?}", self.name),
            None => self.name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId { name: name.parse().unwrap(), incarnation: Incarnation(5 << 100) }
    }

    #[test]
    fn a_derived_certificate_names_its_node() {
        let mut roots = RootCertStore::empty();
        let leaf = derived_leaf(&Secret::generate(), &node("a"), &mut roots).unwrap();
        let named = CertifiedNode::read(&leaf.key.cert[0]).unwrap();
        assert!(named.fits(&node("a")) && !named.fits(&node("b")));
        assert_eq!(named.incarnation, Some(Incarnation(5 << 100)));
    }

    #[test]
    fn derived_certificates_are_of_one_length_whatever_their_keys() {
        let secret = Secret::generate();
        let leaf = |_| derived_leaf(&secret, &node("a"), &mut RootCertStore::empty()).unwrap();
        let lengths: BTreeSet<usize> =
            (0..1_500).map(leaf).map(|leaf| leaf.key.cert[0].len()).collect();
        assert_eq!(lengths.len(), 1, "{lengths:?}");
    }

    #[test]
    fn one_secret_stands_for_one_authority() {
        let secret = Secret::generate();
        let issuer = |secret: &Secret| {
            derived_leaf(secret, &node("a"), &mut RootCertStore::empty()).unwrap().issuer
        };
        assert_eq!(issuer(&secret), issuer(&secret));
        assert_ne!(issuer(&secret), issuer(&Secret::generate()));
    }

    #[test]
    fn files_that_hold_no_certificate_are_named() {
        let pem = OperatorPem { ca: b"nothing".to_vec(), cert: vec![], key: vec![] };
        let Err(error) = operator_leaf(&pem, &node("a")) else { panic!("accepted") };
        assert_eq!(error.to_string(), "--tls-ca: no certificate in the file");
    }
}
