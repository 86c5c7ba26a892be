//! `orbweb secret`: a secret for a cluster.
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Twice the strength that links ask for.
const SECRET_BYTES: usize = 32;

pub(super) fn secret(out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    writeln!(out, "{}", draw()?)?;
    Ok(ExitCode::SUCCESS)
}

/// 32 random bytes in base64.
pub(super) fn draw() -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.ok().context("the system gives no random bytes")?;
    Ok(STANDARD.encode(bytes))
}
