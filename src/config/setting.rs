//! How one value is read out of a file, a flag or the environment, and shown again.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use humantime_serde::re::humantime;
use toml::Value;

use super::address::{HostPort, ip_and_port};
use super::secret::{MASK, SecretText};
use super::{Degraded, LogFormat, MESH_PORT_DEFAULT};
use crate::protocol::ids::NodeName;

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// In a flag or the environment, where everything is text and lists have commas, or are written
    /// as in a file.
    Text(&'a str),
    /// In a file, where types count.
    Toml(&'a Value),
}

impl<'a> Raw<'a> {
    /// The text, if it is text.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text.trim()),
            Self::Toml(value) => value.as_str(),
        }
    }

    /// The value for error messages.
    pub fn shown(self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value) => value.to_string(),
        }
    }
}

/// A type that knobs can have.
pub trait Setting: Sized {
    /// What is allowed, for error messages: "must be …".
    const ALLOWED: &'static str;
    /// Reads a value; `None` if it isn't one.
    fn read(raw: Raw<'_>) -> Option<Self>;
    /// The value for `config show`; `None` if nothing is set.
    fn show(&self) -> Option<Value>;
}

impl Setting for bool {
    const ALLOWED: &'static str = "true or false";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            Raw::Toml(value) => value.as_bool(),
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),+) => { $(
        impl Setting for $kind {
            const ALLOWED: &'static str = "a whole number";

            fn read(raw: Raw<'_>) -> Option<Self> {
                match raw {
                    Raw::Text(text) => text.trim().parse().ok(),
                    Raw::Toml(value) => value.as_integer()?.try_into().ok(),
                }
            }

            fn show(&self) -> Option<Value> {
                Some(Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )+ };
}
whole_numbers!(u8, u16, u32, usize);

impl Setting for String {
    const ALLOWED: &'static str = "text";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text().map(str::to_owned)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.clone()))
    }
}

impl Setting for SecretText {
    const ALLOWED: &'static str = "text";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text().map(Self::new)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(MASK.to_owned()))
    }
}

impl Setting for PathBuf {
    const ALLOWED: &'static str = "the path of a file";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text().filter(|text| !text.is_empty()).map(Self::from)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.display().to_string()))
    }
}

impl Setting for Duration {
    const ALLOWED: &'static str = "a duration such as \"30s\", \"5m\" or \"500ms\"";

    fn read(raw: Raw<'_>) -> Option<Self> {
        humantime::parse_duration(raw.text()?).ok()
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(humantime::format_duration(*self).to_string()))
    }
}

impl Setting for NodeName {
    const ALLOWED: &'static str = "1 to 64 letters, digits, dots, dashes and underscores";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text()?.parse().ok()
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl Setting for SocketAddr {
    const ALLOWED: &'static str = "an IP address with a port, such as 127.0.0.1:8000";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text()?.parse().ok()
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

/// The address of the port for peers, which may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeshListen(pub SocketAddr);

impl Setting for MeshListen {
    const ALLOWED: &'static str =
        "an IP address with an optional port (default 7400), such as 0.0.0.0:7400";

    fn read(raw: Raw<'_>) -> Option<Self> {
        ip_and_port(raw.text()?, MESH_PORT_DEFAULT).map(Self)
    }

    fn show(&self) -> Option<Value> {
        self.0.show()
    }
}

impl Setting for HostPort {
    const ALLOWED: &'static str = "HOST:PORT or HOST (port 7400)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text()?.parse().ok()
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const ALLOWED: &'static str = T::ALLOWED;

    fn read(raw: Raw<'_>) -> Option<Self> {
        T::read(raw).map(Some)
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().and_then(T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const ALLOWED: &'static str = T::ALLOWED;

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text(text) => match toml_lists(text) {
                Some(parts) => parts.iter().map(|part| T::read(Raw::Toml(part))).collect(),
                None => text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| T::read(Raw::Text(part)))
                    .collect(),
            },
            Raw::Toml(value) => {
                value.as_array()?.iter().map(|part| T::read(Raw::Toml(part))).collect()
            }
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::Array(self.iter().filter_map(T::show).collect()))
    }
}

/// The values of a text such as `["a", "b"]`, or of several with commas between them, as flags that
/// are given more than once make them. `[::1]:7400` isn't one.
fn toml_lists(text: &str) -> Option<Vec<Value>> {
    let text = text.trim();
    if !text.starts_with('[') || !text.ends_with(']') {
        return None;
    }
    let mut table: toml::Table = format!("lists = [{text}]").parse().ok()?;
    let Some(Value::Array(lists)) = table.remove("lists") else { return None };
    let mut parts = Vec::new();
    for list in lists {
        let Value::Array(list) = list else { return None };
        parts.extend(list);
    }
    Some(parts)
}

impl Setting for Degraded {
    const ALLOWED: &'static str = "half, refuse or accept";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw.text()? {
            "half" => Some(Self::Half),
            "refuse" => Some(Self::Refuse),
            "accept" => Some(Self::Accept),
            _ => None,
        }
    }

    fn show(&self) -> Option<Value> {
        let word = match self {
            Self::Half => "half",
            Self::Refuse => "refuse",
            Self::Accept => "accept",
        };
        Some(Value::String(word.to_owned()))
    }
}

impl Setting for LogFormat {
    const ALLOWED: &'static str = "text or json";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw.text()? {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(if *self == Self::Json { "json" } else { "text" }.to_owned()))
    }
}
