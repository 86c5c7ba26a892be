//! What concerns more than one knob: contradictions, which are errors, and warnings.
use std::time::Duration;

use super::error::Problem;
use super::{Config, Namespace};

/// Longest name of a namespace: it is part of every channel name.
const NAMESPACE_BYTES_MAX: usize = 64;

impl Config {
    /// What contradicts what; empty if nothing does.
    pub(super) fn conflicts(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.mesh_conflicts(&mut found);
        self.client_conflicts(&mut found);
        for name in self.channels.namespaces.keys() {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.bytes().all(allowed) {
                found.push(format!(
                    "the namespace {name:?} must have a name of 1 to {NAMESPACE_BYTES_MAX} letters, digits, dashes and underscores"
                ));
            }
        }
        channel_conflicts("channels", &self.channels.plain, &mut found);
        channel_conflicts("inbox", &self.channels.inbox, &mut found);
        for (name, namespace) in &self.channels.namespaces {
            channel_conflicts(&format!("namespaces.{name}"), namespace, &mut found);
        }
        found.into_iter().map(Problem::Conflict).collect()
    }

    /// What is allowed but hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.dev {
            found.push("`dev` is on: everybody may be every user and do everything".to_owned());
        } else if self.token.hmac_secret.is_none() && !self.client.allow_anonymous {
            found.push(
                "no client can connect: set `token.hmac_secret` or `client.allow_anonymous`, or try `--dev`"
                    .to_owned(),
            );
        }
        found
    }

    fn mesh_conflicts(&self, found: &mut Vec<String>) {
        let named = [
            ("join", !self.join.is_empty()),
            ("mesh_listen", self.mesh_listen.is_some()),
            ("mesh_advertise", self.mesh_advertise.is_some()),
            ("tls.ca", self.tls.ca.is_some()),
            ("previous_secret", self.previous_secret.is_some()),
            ("previous_secret_file", self.previous_secret_file.is_some()),
        ];
        for (key, _) in named.iter().filter(|(_, set)| *set && !self.has_secret()) {
            found.push(format!(
                "`{key}` ({}) needs the cluster's secret: make one with `orbweb secret` and give it to every node by `secret_file` (or ORBWEB_SECRET)",
                self.origin(key)
            ));
        }
        for (text, file, both) in [
            ("secret", "secret_file", self.secret.is_some() && self.secret_file.is_some()),
            (
                "previous_secret",
                "previous_secret_file",
                self.previous_secret.is_some() && self.previous_secret_file.is_some(),
            ),
        ] {
            if both {
                found.push(format!("`{text}` and `{file}` exclude each other: give one of them"));
            }
        }
        if self.secret.is_some() && self.secret == self.previous_secret {
            found.push("`previous_secret` is the same as `secret`: drop it".to_owned());
        }
        let tls = [&self.tls.ca, &self.tls.cert, &self.tls.key];
        if tls.iter().any(|file| file.is_some()) && tls.iter().any(|file| file.is_none()) {
            found.push(
                "`tls.ca`, `tls.cert` and `tls.key` go together: give all or none".to_owned(),
            );
        }
        let unspecified = self.mesh_advertise.as_ref().and_then(|mesh| mesh.literal());
        if unspecified.is_some_and(|address| address.ip().is_unspecified()) {
            found.push(
                "`mesh_advertise` must be an address that peers can dial, not the unspecified one that `mesh_listen` may have"
                    .to_owned(),
            );
        }
    }

    fn client_conflicts(&self, found: &mut Vec<String>) {
        let (client, listen) = (&self.client, self.listen);
        if self.dev && !listen.ip().is_loopback() && !self.dev_anywhere {
            found.push(format!(
                "`dev` lets everybody be every user, and `listen` is {listen}, which others can reach: listen on 127.0.0.1, or say `dev_anywhere` (--dev-anywhere)"
            ));
        }
        if self.dev_anywhere && !self.dev {
            found.push("`dev_anywhere` means nothing without `dev`".to_owned());
        }
        let session = &self.session;
        if session.ttl <= session.offline_after {
            let (ttl, after) = (shown(session.ttl), shown(session.offline_after));
            found.push(format!(
                "`session.ttl` ({ttl}) must be longer than `session.offline_after` ({after})"
            ));
        }
        if client.pong_timeout >= client.ping_interval {
            let (pong, ping) = (shown(client.pong_timeout), shown(client.ping_interval));
            found.push(format!(
                "`client.pong_timeout` ({pong}) must be shorter than `client.ping_interval` ({ping})"
            ));
        }
    }
}

fn channel_conflicts(group: &str, options: &Namespace, found: &mut Vec<String>) {
    let sized = options.history_size > 0;
    let timed = options.history_ttl > Duration::ZERO;
    let size_set = format!("`{group}.history_size` ({})", options.history_size);
    let ttl_set = format!("`{group}.history_ttl` ({})", shown(options.history_ttl));
    if sized && !timed {
        found.push(format!("{size_set} needs `{group}.history_ttl`"));
    }
    if timed && !sized {
        found.push(format!("{ttl_set} needs `{group}.history_size`; with 0 nothing is kept"));
    }
    for (key, set, need, given) in [
        ("recovery", options.recovery, "history_size", sized),
        ("allow_history", options.allow_history, "history_size", sized),
        ("allow_presence", options.allow_presence, "presence", options.presence),
    ] {
        if set && !given {
            found.push(format!("`{group}.{key}` needs `{group}.{need}`"));
        }
    }
}

fn shown(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}
