//! The addresses behind the configured seeds. Names are looked up again and again, so that seeds
//! may start late and move; literals never are.
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::config::MembershipConfig;

/// Most seeds of a node; two or three are enough.
pub const SEEDS_MAX: usize = 64;
/// Most addresses taken from one name: a headless service may list every node.
pub const ADDRESSES_MAX: usize = 64;
/// How often names are looked up.
pub const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);
/// A lookup that takes longer has failed.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a lookup.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
/// Looks up `HOST:PORT`.
pub type Resolver = Arc<dyn Fn(String) -> Lookup + Send + Sync>;

/// Looks names up as the operating system does.
pub fn system_resolver() -> Resolver {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) }))
}

/// A seed as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seed {
    /// A literal.
    Address(SocketAddr),
    /// `HOST:PORT`, to be looked up.
    Name(String),
}

impl FromStr for Seed {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let named = (1..=253).contains(&host.len()) && host.bytes().all(allowed);
        let numbered = port.parse::<u16>().is_ok_and(|port| port != 0);
        if named && numbered { Ok(Self::Name(text.to_owned())) } else { Err(()) }
    }
}

/// What is known of the seeds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seeds {
    /// Addresses that aren't this node's own, sorted.
    pub addresses: Vec<SocketAddr>,
    /// Whether there is a seed that isn't this node itself, as far as is known: a name that
    /// couldn't be looked up yet is taken for somebody else.
    pub foreign: bool,
}

impl Seeds {
    /// What is known before anything was looked up.
    pub(super) fn literal(seeds: &[Seed], config: &MembershipConfig) -> Self {
        Self::of(
            seeds.iter().map(|seed| match seed {
                Seed::Address(address) => Some(vec![*address]),
                Seed::Name(_) => None,
            }),
            config,
        )
    }

    /// From the answers of all seeds; `None` = not known yet.
    fn of(
        answers: impl Iterator<Item = Option<Vec<SocketAddr>>>,
        config: &MembershipConfig,
    ) -> Self {
        let mut seeds = Self::default();
        for answer in answers {
            seeds.foreign |= answer.is_none();
            let addresses = answer.into_iter().flatten().take(ADDRESSES_MAX);
            seeds.addresses.extend(addresses.filter(|&address| !config.is_me(address)));
        }
        seeds.addresses.sort_unstable();
        seeds.addresses.dedup();
        seeds.foreign |= !seeds.addresses.is_empty();
        seeds
    }
}

/// Starts looking names up, if there are any, and tells what is known.
pub(super) fn watch(
    seeds: Vec<Seed>,
    known: Seeds,
    config: &MembershipConfig,
    stop: CancellationToken,
) -> watch::Receiver<Seeds> {
    let (tx, rx) = watch::channel(known);
    if seeds.iter().any(|seed| matches!(seed, Seed::Name(_))) {
        let config = config.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(look_up_for_ever(seeds, config, tx)).await;
        });
    }
    rx
}

async fn look_up_for_ever(seeds: Vec<Seed>, config: MembershipConfig, tx: watch::Sender<Seeds>) {
    let mut answers: Vec<Option<Vec<SocketAddr>>> = vec![None; seeds.len()];
    let mut tick = interval(LOOKUP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let lookups = seeds.iter().map(|seed| look_up(seed, &config.resolver));
        let found = futures_util::future::join_all(lookups).await;
        for (seed, (answer, found)) in seeds.iter().zip(answers.iter_mut().zip(found)) {
            match found {
                Ok(addresses) => *answer = Some(addresses),
                // What was known stays: a name server that is down takes no seed away.
                Err(error) => tracing::warn!(?seed, %error, "seed.unresolved"),
            }
        }
        let known = Seeds::of(answers.iter().cloned(), &config);
        tx.send_if_modified(|seeds| {
            let changed = *seeds != known;
            *seeds = known;
            changed
        });
    }
}

async fn look_up(seed: &Seed, resolver: &Resolver) -> io::Result<Vec<SocketAddr>> {
    match seed {
        Seed::Address(address) => Ok(vec![*address]),
        Seed::Name(name) => match timeout(LOOKUP_TIMEOUT, resolver(name.clone())).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_host_and_port() {
        let parse = |text: &str| text.parse::<Seed>();
        assert_eq!(parse("[::1]:7400"), Ok(Seed::Address(([0, 0, 0, 0, 0, 0, 0, 1], 7400).into())));
        assert_eq!(parse("a.example:7400"), Ok(Seed::Name("a.example:7400".to_owned())));
        for text in ["", "a", "a:", ":1", "a:0", "a:70000", "a b:1", "udp://a:1"] {
            assert_eq!(parse(text), Err(()), "{text:?} was accepted");
        }
    }
}
