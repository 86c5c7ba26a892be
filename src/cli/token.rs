//! `orbweb token`: a connect token, as the operator's own service would issue them.
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use humantime_serde::re::humantime;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::Value;

use super::flags::ConfigFlag;
use crate::config::Surroundings;

#[derive(Args, Debug)]
pub(super) struct TokenFlags {
    #[command(flatten)]
    file: ConfigFlag,
    /// The user id (`sub`)
    #[arg(long, value_name = "ID")]
    user: String,
    /// How long the token is valid
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// What others see of the user, as JSON
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    /// A channel that the server subscribes the user to; repeatable
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
}

/// The claims of a connect token.
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
}

pub(super) fn token(
    flags: &TokenFlags,
    around: &Surroundings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let config = flags.file.load(around)?;
    let Some(secret) = config.token.hmac_secret else {
        bail!("`token.hmac_secret` is not set: give it by --config or ORBWEB_TOKEN_HMAC_SECRET");
    };
    let info = flags.info.as_deref().map(serde_json::from_str).transpose();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let claims = Claims {
        sub: &flags.user,
        iat: now,
        exp: now.saturating_add(flags.ttl.as_secs()),
        info: info.context("--info is not JSON")?,
        channels: &flags.channels,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?;
    writeln!(out, "{token}")?;
    Ok(ExitCode::SUCCESS)
}
