//! `config show`: the effective configuration as TOML, secrets masked, with the origin of each value.
use std::fmt::Write as _;

use super::knobs::{CHANNEL_KNOBS, KNOBS};
use super::{Config, Namespace};

impl Config {
    /// The configuration as a file that, but for the secrets, would give the same one.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for knob in KNOBS {
            let (table, name) = knob.key.split_once('.').unwrap_or(("", knob.key));
            if table != section {
                section = table;
                line(&mut text, format_args!("\n[{section}]"));
            }
            match knob.get(self) {
                Some(value) => self.value(&mut text, name, knob.key, &value),
                None => line(&mut text, format_args!("# {name} is not set")),
            }
        }
        self.group(&mut text, "channels", &self.channels.plain);
        self.group(&mut text, "inbox", &self.channels.inbox);
        for (name, namespace) in &self.channels.namespaces {
            self.group(&mut text, &format!("namespaces.{name}"), namespace);
        }
        text
    }

    fn group(&self, text: &mut String, table: &str, group: &Namespace) {
        line(text, format_args!("\n[{table}]"));
        for knob in CHANNEL_KNOBS {
            let value = knob.get(group).expect("options of channels always have a value");
            self.value(text, knob.key, &format!("{table}.{}", knob.key), &value);
        }
    }

    fn value(&self, text: &mut String, name: &str, key: &str, value: &toml::Value) {
        match self.origins.get(key) {
            Some(origin) => line(text, format_args!("{name} = {value} # {origin}")),
            None => line(text, format_args!("{name} = {value}")),
        }
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("writing to a string never fails");
}
