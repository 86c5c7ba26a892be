//! What is wrong with a configuration. Nothing was started when one of these is returned.
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value came from; later ones override earlier ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl Origin {
    /// Which layer it belongs to; a higher one overrides a lower one.
    pub fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// No knob has this key.
    #[error("unknown key `{key}` ({origin}){}", suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// Where.
        origin: Origin,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The knob doesn't take this value.
    #[error("`{key}` is {value} ({origin}), but must be {allowed}")]
    WrongValue {
        /// The knob.
        key: String,
        /// What was written; a mask for secrets.
        value: String,
        /// Where.
        origin: Origin,
        /// What it takes.
        allowed: String,
    },
    /// Two knobs contradict each other, or one needs another.
    #[error("{0}")]
    Conflict(String),
}

/// Suggests the nearest known key.
fn suggestion(key: Option<&str>) -> String {
    key.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

/// Why there is no configuration.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// A file couldn't be read.
    #[error("cannot read {}, which `{key}` names: {reason}", .path.display())]
    Unreadable {
        /// The knob or flag that names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file isn't TOML.
    #[error("{} is not TOML: {reason}", .path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// Everything that is wrong with the values.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}
