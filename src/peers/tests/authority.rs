//! An operator's authority and the files that it makes for nodes.
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType,
};

use super::*;

/// An operator's authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "operator");
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Files of a node that is named in a URI or else by the common name.
    pub(crate) fn credentials(&self, name: &str, uri: bool, secret: &Secret) -> Credentials {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![tls::SERVER_NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, if uri { "whatever" } else { name });
        if uri {
            let uri = format!("orbweb:{name}").try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let operator = OperatorPem {
            ca: self.pem.clone(),
            cert: pem("CERTIFICATE", cert.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        };
        Credentials { operator: Some(operator), ..Credentials::new(secret.clone()) }
    }
}

fn pem(kind: &str, der: &[u8]) -> Vec<u8> {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n").into_bytes()
}
