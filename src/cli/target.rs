//! The node that a command asks, over its HTTP API.
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::flags::ConfigFlag;
use crate::api::Readiness;
use crate::config::Surroundings;

/// How long a node may take to answer; it may ask its peers meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Debug, Default)]
pub(super) struct TargetFlags {
    #[command(flatten)]
    file: ConfigFlag,
    /// The node to ask [default: the one that the configuration describes, on this machine]
    #[arg(long, value_name = "URL", env = "ORBWEB_NODE")]
    node: Option<String>,
    /// Key of its API [default: the first of `api.keys`]
    #[arg(long, value_name = "KEY", env = "ORBWEB_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// A node to ask.
pub(super) struct Target {
    url: String,
    key: Option<String>,
    agent: ureq::Agent,
}

/// A reply of the API.
#[derive(Deserialize)]
struct Reply<T> {
    result: Option<T>,
    error: Option<ReplyError>,
}

#[derive(Deserialize)]
struct ReplyError {
    message: String,
}

impl TargetFlags {
    pub(super) fn target(&self, around: &Surroundings) -> anyhow::Result<Target> {
        // Who names the node needs no sound configuration of its own.
        let config = match (self.file.load(around), &self.node, &self.file.config) {
            (Ok(config), ..) => config,
            (Err(_), Some(_), None) => crate::config::Config::default(),
            (Err(error), ..) => return Err(error),
        };
        let own = || {
            let mut listen = config.listen;
            if listen.ip().is_unspecified() {
                listen.set_ip(match listen.is_ipv4() {
                    true => std::net::Ipv4Addr::LOCALHOST.into(),
                    false => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            format!("http://{listen}")
        };
        let url = self.node.clone().unwrap_or_else(own);
        let configured = config.api.keys.first().map(|key| key.expose().to_owned());
        Target::new(&url, self.api_key.clone().or(configured))
    }
}

impl Target {
    /// A node by its URL, with or without `http://`.
    pub(super) fn new(url: &str, key: Option<String>) -> anyhow::Result<Self> {
        if url.starts_with("https://") {
            bail!("{url}: only http:// is spoken here; ask the node itself, behind its proxy");
        }
        let url = url.trim_end_matches('/');
        let url = if url.starts_with("http://") { url.to_owned() } else { format!("http://{url}") };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None);
        Ok(Self { url, key, agent: config.build().into() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the node is ready; needs no key.
    pub(super) fn readiness(&self) -> anyhow::Result<Readiness> {
        let mut response = self
            .agent
            .get(format!("{}/readyz", self.url))
            .call()
            .with_context(|| format!("{} does not answer", self.url))?;
        let readiness = response.body_mut().read_json();
        readiness.with_context(|| format!("{} is not an Orbweb node", self.url))
    }

    /// Calls a method of the API.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let Some(key) = &self.key else {
            bail!("the API needs a key: --api-key, ORBWEB_API_KEY or `api.keys`");
        };
        let mut response = self
            .agent
            .post(format!("{}/api/{method}", self.url))
            .header("x-api-key", key)
            .send_json(body)
            .with_context(|| format!("{} does not answer", self.url))?;
        let reply: Reply<T> = response
            .body_mut()
            .read_json()
            .with_context(|| format!("{} is not an Orbweb node", self.url))?;
        match reply {
            Reply { error: Some(error), .. } => bail!("{}: {}", self.url, error.message),
            Reply { result: Some(result), .. } => Ok(result),
            Reply { .. } => bail!("{} answered neither result nor error", self.url),
        }
    }
}
