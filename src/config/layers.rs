//! From file, environment and flags to one [`Config`]: flags override environment override file
//! override defaults. Called once by the command line; collects all problems before it gives up.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::{ConfigError, Origin, Problem};
use super::files::read_limited;
use super::knobs::{CHANNEL_KNOBS, ENV_PREFIX, KNOBS, Knob};
use super::secret::MASK;
use super::setting::Raw;
use super::{Config, Namespace};
use crate::protocol::ids::NODE_NAME_BYTES_MAX;

/// Keys below this likeness (0 to 1) aren't suggested for an unknown one.
const LIKENESS_MIN: f64 = 0.6;
/// The port that isn't made part of a node's default name.
const UNNAMED_PORT: u16 = 8000;

/// What the command line gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layers {
    /// The configuration file; `ORBWEB_CONFIG` is taken if there is none.
    pub file: Option<PathBuf>,
    /// Values given by flags; a key given twice makes the list longer, or overrides.
    pub flags: Vec<Flag>,
}

/// One value given by a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// The key that it sets.
    pub key: String,
    /// The flag as the operator wrote it, for error messages.
    pub flag: String,
    /// The value.
    pub value: String,
}

/// What a process finds around itself: brought by the caller, so that tests have their own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The host's name.
    pub host: String,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { environment: texts.collect(), host }
    }

    /// A variable, unless it is empty: compose files set empty ones for "not given".
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }
}

impl Config {
    /// Applies the layers and checks the result. Names the secret's files but doesn't read them;
    /// that is [`Config::read_secrets`].
    pub fn load(layers: &Layers, around: &Surroundings) -> Result<Self, ConfigError> {
        let mut loader = Loader { config: Self::default(), problems: Vec::new() };
        let file = layers.file.clone();
        let file = file.or_else(|| around.variable("ORBWEB_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            loader.file(&path)?;
        }
        loader.environment(around);
        loader.flags(&layers.flags);
        loader.finish(&around.host)
    }
}

/// A configuration on its way.
struct Loader {
    config: Config,
    problems: Vec<Problem>,
}

impl Loader {
    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = read_limited("config", path)?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        self.table("", &table, &Origin::File(path.to_owned()));
        Ok(())
    }

    /// Sets what a table holds; `prefix` ends with a dot unless it is the root.
    fn table(&mut self, prefix: &str, table: &Table, origin: &Origin) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                Value::Table(inner) if is_section(&key) => {
                    if let Some(namespace) = key.strip_prefix("namespaces.") {
                        self.config.channels.namespaces.entry(namespace.to_owned()).or_default();
                    }
                    self.table(&format!("{key}."), inner, origin);
                }
                _ => self.set(&key, Raw::Toml(value), origin.clone()),
            }
        }
    }

    fn environment(&mut self, around: &Surroundings) {
        // Unknown variables aren't errors: orchestrators set some of their own (ORBWEB_PORT, …) for
        // a service of this name.
        for (knob, value) in
            KNOBS.iter().filter_map(|knob| Some((knob, around.variable(&knob.env())?)))
        {
            self.set(knob.key, Raw::Text(value), Origin::Environment(knob.env()));
        }
        for (group, knob) in ["channels", "inbox"]
            .into_iter()
            .flat_map(|group| CHANNEL_KNOBS.iter().map(move |knob| (group, knob)))
        {
            let key = format!("{group}.{}", knob.key);
            let name = format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "_"));
            if let Some(value) = around.variable(&name) {
                self.set(&key, Raw::Text(value), Origin::Environment(name.clone()));
            }
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        let mut joined: BTreeMap<&str, (String, &str)> = BTreeMap::new();
        for flag in flags {
            let list = matches!(flag.key.as_str(), "join" | "api.keys" | "client.allowed_origins");
            match joined.get_mut(flag.key.as_str()) {
                Some((value, _)) if list => *value = format!("{value},{}", flag.value),
                _ => {
                    joined.insert(&flag.key, (flag.value.clone(), &flag.flag));
                }
            }
        }
        for (key, (value, flag)) in joined {
            self.set(key, Raw::Text(&value), Origin::Flag(flag.to_owned()));
        }
    }

    /// Sets one key, or notes why not.
    fn set(&mut self, key: &str, raw: Raw<'_>, origin: Origin) {
        let (done, allowed, secret) = if let Some(knob) = KNOBS.iter().find(|knob| knob.key == key)
        {
            (knob.set(&mut self.config, raw), knob.allowed, knob.secret())
        } else if let Some((knob, group)) = self.channel_knob(key) {
            (knob.set(group, raw), knob.allowed, false)
        } else if is_section(key) {
            (false, "a table of keys", false)
        } else {
            let nearest = nearest(key);
            self.problems.push(Problem::UnknownKey { key: key.to_owned(), origin, nearest });
            return;
        };
        if done {
            self.config.origins.insert(key.to_owned(), origin);
        } else {
            let value = if secret { MASK.to_owned() } else { raw.shown() };
            let (key, allowed) = (key.to_owned(), allowed.to_owned());
            self.problems.push(Problem::WrongValue { key, value, origin, allowed });
        }
    }

    /// The knob of a group of channels, and the group; a namespace begins when it is first named.
    fn channel_knob(&mut self, key: &str) -> Option<(&'static Knob<Namespace>, &mut Namespace)> {
        let (group, name) = key.rsplit_once('.')?;
        let knob = CHANNEL_KNOBS.iter().find(|knob| knob.key == name)?;
        let channels = &mut self.config.channels;
        let group = match group {
            "channels" => &mut channels.plain,
            "inbox" => &mut channels.inbox,
            _ => {
                let namespace = group.strip_prefix("namespaces.")?;
                channels.namespaces.entry(namespace.to_owned()).or_default()
            }
        };
        Some((knob, group))
    }

    fn finish(mut self, host: &str) -> Result<Config, ConfigError> {
        if !self.config.origins.contains_key("name") {
            let suffix = match self.config.listen.port() {
                UNNAMED_PORT => String::new(),
                port => format!("-{port}"),
            };
            self.config.name =
                default_name(host, &suffix).parse().expect("made of allowed characters only");
        }
        self.config.settle_secrets();
        self.config.complete_channels();
        self.problems.extend(self.config.conflicts());
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigError::Invalid(self.problems))
        }
    }
}

/// Whether a key is a table of keys.
fn is_section(key: &str) -> bool {
    let prefix = format!("{key}.");
    let namespace = key.strip_prefix("namespaces.").is_some_and(|name| !name.contains('.'));
    namespace
        || matches!(key, "channels" | "inbox" | "namespaces")
        || KNOBS.iter().any(|knob| knob.key.starts_with(&prefix))
}

/// The known key that looks most like an unknown one.
fn nearest(key: &str) -> Option<String> {
    let wanted = key.replace('-', "_");
    let group = key.rsplit_once('.').map_or("channels", |(group, _)| group);
    let channel_keys = CHANNEL_KNOBS.iter().map(|knob| format!("{group}.{}", knob.key));
    KNOBS
        .iter()
        .map(|knob| knob.key.to_owned())
        .chain(channel_keys)
        .map(|known| (strsim::normalized_damerau_levenshtein(&wanted, &known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// A node name made of the host's: what isn't allowed in one becomes a dash.
fn default_name(host: &str, suffix: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let room = NODE_NAME_BYTES_MAX - suffix.len();
    let host: String = host.chars().map(|c| if allowed(c) { c } else { '-' }).take(room).collect();
    let host = if host.is_empty() { "orbweb" } else { &host };
    format!("{host}{suffix}")
}
