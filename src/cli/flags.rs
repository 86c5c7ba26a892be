//! The flags that set configuration. Values are checked where all layers are: in `config`.
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::config::layers::Flag;
use crate::config::{Config, Layers, Surroundings};

/// Where the configuration file is.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct ConfigFlag {
    /// Configuration file (TOML); also ORBWEB_CONFIG
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigFlag {
    /// The configuration without further flags.
    pub(super) fn load(&self, around: &Surroundings) -> anyhow::Result<Config> {
        let layers = Layers { file: self.config.clone(), flags: Vec::new() };
        Ok(Config::load(&layers, around)?)
    }
}

/// Flags of a node. Each overrides ORBWEB_NAME_OF_FLAG, which overrides the file.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct ServeFlags {
    #[command(flatten)]
    pub(super) file: ConfigFlag,
    /// This node's name, unique in the cluster [default: made of the host's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address for clients and HTTP [default: 127.0.0.1:8000]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// How others reach that address
    #[arg(long, value_name = "URL")]
    client_url: Option<String>,
    /// Address for peers, UDP [default: 0.0.0.0:7400 if there is a secret, else none]
    #[arg(long, value_name = "IP[:PORT]")]
    mesh_listen: Option<String>,
    /// How peers reach that address
    #[arg(long, value_name = "HOST[:PORT]")]
    mesh_advertise: Option<String>,
    /// A peer to ask for the way into its cluster; repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    join: Vec<String>,
    /// File with the cluster's secret; or ORBWEB_SECRET. `orbweb secret` makes one
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// The cluster's name [default: orbweb]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Nodes that a part of the cluster must see to serve undegraded [default: 2]
    #[arg(long, value_name = "1-5")]
    copies: Option<String>,
    /// How long an orderly stop may take [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Authority for peers' certificates, in place of the one derived from the secret
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// This node's certificate for peers
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// What is logged [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Development mode: everybody may be every user and do everything; loopback only
    #[arg(long)]
    dev: bool,
    /// Development mode on addresses outside loopback
    #[arg(long)]
    dev_anywhere: bool,
    /// Any key of the configuration, such as namespaces.chat.presence=true; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Exit when standard input ends: the demo's nodes go with it, however it ends
    #[arg(long, hide = true)]
    pub(super) stop_with_stdin: bool,
}

impl ServeFlags {
    /// The configuration with these flags on top.
    pub(super) fn load(&self, around: &Surroundings) -> anyhow::Result<Config> {
        let layers = Layers { file: self.file.config.clone(), flags: self.given()? };
        Ok(Config::load(&layers, around)?)
    }

    /// The flags that were given, as values of keys.
    fn given(&self) -> anyhow::Result<Vec<Flag>> {
        let mut given = Vec::new();
        for assignment in &self.set {
            let (key, value) = assignment
                .split_once('=')
                .with_context(|| format!("--set {assignment:?} is not of the form KEY=VALUE"))?;
            given.push(flag(key, "--set", value));
        }
        for (key, name, value) in [
            ("name", "--name", &self.name),
            ("listen", "--listen", &self.listen),
            ("client_url", "--client-url", &self.client_url),
            ("mesh_listen", "--mesh-listen", &self.mesh_listen),
            ("mesh_advertise", "--mesh-advertise", &self.mesh_advertise),
            ("secret_file", "--secret-file", &self.secret_file),
            ("cluster", "--cluster", &self.cluster),
            ("copies", "--copies", &self.copies),
            ("drain_timeout", "--drain-timeout", &self.drain_timeout),
            ("tls.ca", "--tls-ca", &self.tls_ca),
            ("tls.cert", "--tls-cert", &self.tls_cert),
            ("tls.key", "--tls-key", &self.tls_key),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ] {
            given.extend(value.as_ref().map(|value| flag(key, name, value)));
        }
        given.extend(self.join.iter().map(|seed| flag("join", "--join", seed)));
        given.extend(self.dev.then(|| flag("dev", "--dev", "true")));
        given.extend(self.dev_anywhere.then(|| flag("dev_anywhere", "--dev-anywhere", "true")));
        Ok(given)
    }
}

fn flag(key: &str, name: &str, value: &str) -> Flag {
    Flag { key: key.to_owned(), flag: name.to_owned(), value: value.to_owned() }
}
