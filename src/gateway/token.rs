//! Connect tokens: JWT signed with HS256 and a configured secret. Read at connect and refresh.
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;

/// Seconds by which the clock of whoever signs tokens may differ from ours.
pub const LEEWAY_SECONDS: u64 = 30;
/// Longest user id in bytes: `#USER` must be a channel name.
pub const USER_BYTES_MAX: usize = 254;

/// Why a token isn't accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Its time is over: the client should get a new one.
    #[error("the token has expired")]
    Expired,
    /// Signature, form or content is wrong.
    #[error("the token is not a valid JWT of this server")]
    Invalid,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The user id; empty = anonymous.
    pub user: String,
    /// When it ends, in seconds of the Unix epoch.
    pub expires: Option<u64>,
    /// JSON for others to see; empty = none.
    pub info: Bytes,
    /// Channels that the server subscribes the connection to.
    pub channels: Vec<String>,
}

#[derive(Deserialize)]
struct RawClaims {
    #[serde(default)]
    sub: String,
    exp: Option<u64>,
    nbf: Option<u64>,
    info: Option<serde_json::Value>,
    #[serde(default)]
    channels: Vec<String>,
}

/// Verifies tokens. The algorithm is fixed here and never taken from a token's header.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenVerifier")
    }
}

impl TokenVerifier {
    /// For tokens signed with this secret.
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked below, against the time that the caller gives.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { key: DecodingKey::from_secret(secret), validation }
    }

    /// Checks signature and times; `now` in seconds of the Unix epoch.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let token = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation)
            .map_err(|_| TokenError::Invalid)?;
        let claims = token.claims;
        if claims.exp.is_some_and(|exp| exp.saturating_add(LEEWAY_SECONDS) <= now) {
            return Err(TokenError::Expired);
        }
        let early = claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY_SECONDS));
        if early || claims.sub.len() > USER_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let info = claims.info.filter(|info| !info.is_null());
        Ok(Claims {
            user: claims.sub,
            expires: claims.exp,
            info: info.map(|info| Bytes::from(info.to_string())).unwrap_or_default(),
            channels: claims.channels,
        })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    fn sign(algorithm: Algorithm, claims: &Value, secret: &[u8]) -> String {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("a plain object")
    }

    #[test]
    fn claims_are_read() {
        let token = sign(
            Algorithm::HS256,
            &json!({"sub":"u","exp":1000,"info":{"n":1},"channels":["a"],"aud":"x"}),
            b"k",
        );
        let claims = TokenVerifier::new(b"k").verify(&token, 990).expect("valid");
        assert_eq!(claims.user, "u");
        assert_eq!(claims.expires, Some(1000));
        assert_eq!(claims.info, "{\"n\":1}");
        assert_eq!(claims.channels, ["a"]);
    }

    #[test]
    fn expiry_has_a_leeway() {
        let token = sign(Algorithm::HS256, &json!({"sub":"u","exp":1000}), b"k");
        let verifier = TokenVerifier::new(b"k");
        assert!(verifier.verify(&token, 1029).is_ok());
        assert_eq!(verifier.verify(&token, 1030), Err(TokenError::Expired));
    }

    #[test]
    fn foreign_tokens_are_invalid() {
        let verifier = TokenVerifier::new(b"k");
        let claims = json!({"sub":"u"});
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ1In0.";
        for token in [
            sign(Algorithm::HS256, &claims, b"other"),
            sign(Algorithm::HS384, &claims, b"k"),
            sign(Algorithm::HS256, &json!({"sub":"u","nbf":2000}), b"k"),
            sign(Algorithm::HS256, &json!({"sub":"u".repeat(255)}), b"k"),
            sign(Algorithm::HS256, &json!({"sub":7}), b"k"),
            unsigned.to_owned(),
            "x".to_owned(),
            String::new(),
        ] {
            assert_eq!(verifier.verify(&token, 1000), Err(TokenError::Invalid), "{token}");
        }
    }
}
