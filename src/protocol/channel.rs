//! Channel names and what a channel may do.
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ids::Slot;

/// Longest channel name in bytes, as Centrifuge servers have it.
pub const CHANNEL_BYTES_MAX: usize = 255;

/// Why a channel name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// No name at all.
    #[error("the channel name is empty")]
    Empty,
    /// Too long.
    #[error("the channel name has {0} bytes; at most {CHANNEL_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// A channel's name: `name`, `namespace:name`, `name#user1,user2` (user-limited), `#user` (that
/// user's inbox) or `@user` (whether that user is connected).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks a name from outside.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        match name.len() {
            0 => Err(ChannelError::Empty),
            n if n > CHANNEL_BYTES_MAX => Err(ChannelError::TooLong(n)),
            _ => Ok(Self(name.into())),
        }
    }

    /// The inbox of a user.
    pub fn inbox(user: &str) -> Result<Self, ChannelError> {
        Self::parse(&format!("#{user}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user whose inbox this is, if it is one: `#user`, a single name behind the sign.
    pub fn inbox_user(&self) -> Option<&str> {
        self.0.strip_prefix('#').filter(|user| !user.is_empty() && !user.contains(','))
    }

    /// The user whose status this channel tells, if it is such a channel: `@user`.
    pub fn status_user(&self) -> Option<&str> {
        self.0.strip_prefix('@').filter(|user| !user.is_empty() && !user.contains(','))
    }

    /// The user whose inbox or status this channel is.
    pub fn user(&self) -> Option<&str> {
        self.inbox_user().or(self.status_user())
    }

    /// Of an inbox, the channel of its user's status.
    pub fn status_of_inbox(&self) -> Self {
        Self(format!("@{}", self.inbox_user().unwrap_or_default()).into())
    }

    /// Of a status channel, its user's inbox.
    pub fn inbox_of_status(&self) -> Self {
        Self(format!("#{}", self.status_user().unwrap_or_default()).into())
    }

    /// Whether `user` may know this channel by its name: true unless the name limits its users.
    pub fn admits(&self, user: &str) -> bool {
        if self.status_user().is_some() {
            return true;
        }
        match self.0.split_once('#') {
            Some((_, users)) => !user.is_empty() && users.split(',').any(|u| u == user),
            None => true,
        }
    }

    /// The namespace in front of the first `:`, if any.
    pub fn namespace(&self) -> Option<&str> {
        if self.status_user().is_some() {
            return None;
        }
        let plain = self.0.split_once('#').map_or(&*self.0, |(plain, _)| plain);
        plain.split_once(':').map(|(namespace, _)| namespace)
    }

    /// What the ring hashes: the user id of an inbox or a status channel, else the name.
    pub fn key(&self) -> &str {
        self.user().unwrap_or(&self.0)
    }

    /// The slot in a cluster of `slots` slots.
    pub fn slot(&self, slots: u16) -> Slot {
        Slot::of(self.key(), slots)
    }
}

impl TryFrom<String> for Channel {
    type Error = ChannelError;
    fn try_from(name: String) -> Result<Self, ChannelError> {
        Self::parse(&name)
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> Self {
        channel.0.as_ref().to_owned()
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What the owner must know of a channel's configuration. It travels with each request, so that an
/// owner needs no configuration of its own for channels and nodes may be reconfigured one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ChannelOptions {
    /// Publications kept; 0 = ephemeral, at most once.
    pub history_size: u32,
    /// How long they are kept, in milliseconds.
    pub history_ttl_ms: u64,
    /// Whether the owner keeps who is subscribed.
    pub presence: bool,
    /// Whether subscribers learn of others joining and leaving.
    pub join_leave: bool,
}

impl ChannelOptions {
    /// Whether the channel has a stream: numbered, kept, resumable publications.
    pub fn is_stream(&self) -> bool {
        self.history_size > 0 && self.history_ttl_ms > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_lies_in_the_slot_of_its_user() {
        let inbox = Channel::inbox("alice").expect("a short name");
        assert_eq!(inbox.key(), "alice");
        assert_eq!(inbox.inbox_user(), Some("alice"));
        assert!(inbox.admits("alice") && !inbox.admits("bob") && !inbox.admits(""));
    }

    #[test]
    fn a_status_lies_in_the_slot_of_its_user_and_is_for_others() {
        let status = Channel::parse("@team:alice#1").expect("a short name");
        assert_eq!((status.status_user(), status.namespace()), (Some("team:alice#1"), None));
        let inbox = Channel::inbox("team:alice#1").expect("a short name");
        assert_eq!((status.inbox_of_status(), inbox.status_of_inbox()), (inbox, status.clone()));
        assert_eq!(status.key(), "team:alice#1");
        assert!(status.admits("bob"));
        assert_eq!(Channel::parse("@a,b").expect("a short name").status_user(), None);
    }

    #[test]
    fn user_limited_channels_admit_the_named() {
        let channel = Channel::parse("dm:x#a,b").expect("a short name");
        assert!(channel.admits("a") && channel.admits("b") && !channel.admits("c"));
        assert_eq!(channel.namespace(), Some("dm"));
        assert_eq!(channel.inbox_user(), None);
    }

    #[test]
    fn names_have_limits() {
        assert_eq!(Channel::parse(""), Err(ChannelError::Empty));
        assert!(Channel::parse(&"x".repeat(255)).is_ok());
        assert_eq!(Channel::parse(&"x".repeat(256)), Err(ChannelError::TooLong(256)));
    }
}
