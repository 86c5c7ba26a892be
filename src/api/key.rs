//! The key that opens the server API.
use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use crate::config::SecretText;

/// Lets a request pass that carries one of the keys: `X-API-Key: KEY` or `Authorization: apikey KEY`.
pub(super) fn check_key(keys: &[SecretText], headers: &HeaderMap) -> Result<(), ApiError> {
    if keys.is_empty() {
        return Err(ApiError::Unauthorized("no API key is configured (`api.keys`)"));
    }
    let Some(given) = given_key(headers) else {
        return Err(ApiError::Unauthorized("the header X-API-Key is missing"));
    };
    // Every key is compared to its end, so that the time taken tells nothing about them.
    let equal = keys.iter().fold(Choice::from(0), |found, key| {
        found | key.expose().as_bytes().ct_eq(given.as_bytes())
    });
    if equal.into() { Ok(()) } else { Err(ApiError::Unauthorized("the API key is wrong")) }
}

fn given_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("apikey").then_some(key)
}
