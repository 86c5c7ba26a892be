//! The methods of the server API that concern channels: checks, one question to the cores each, and
//! the answer in `cent`'s words. Clients' permissions don't bind the API; channels' options do.
use std::sync::Arc;

use futures_util::future::join_all;
use serde::Serialize;

use super::Api;
use super::content::Content;
use super::error::{ApiError, ErrorBody};
use super::words;
use crate::config::Namespace;
use crate::delivery::event::{Ask, History, Reply};
use crate::ownership::stream::READ_LEN_MAX;
use crate::protocol::channel::Channel;
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::Position;
use crate::protocol::message::Message;

/// Channels of one broadcast: far below what may wait for the cores at once.
pub const BROADCAST_CHANNELS_MAX: usize = 1000;
/// Publications in one answer, as many as a stream gives at once; callers page on with `since`.
pub const HISTORY_MAX: u32 = READ_LEN_MAX as u32;

/// One channel's share of a broadcast.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Result(words::Place),
    Error(ErrorBody),
}

/// Result of `broadcast`, in the order of its channels.
#[derive(Serialize)]
pub(super) struct BroadcastResult {
    responses: Vec<Outcome>,
}

impl Api {
    pub(super) async fn publish(&self, call: words::Publish) -> Result<words::Place, ApiError> {
        let channel = call.channel.clone();
        let content = Content::from(call);
        let skip_history = content.skip_history;
        let message = content.into_message(self.wall)?;
        self.publish_to(&channel, skip_history, message).await
    }

    pub(super) async fn broadcast(
        &self,
        mut call: words::Broadcast,
    ) -> Result<BroadcastResult, ApiError> {
        let channels = std::mem::take(&mut call.channels);
        if channels.is_empty() {
            return Err(ApiError::BadRequest("`channels` is empty".to_owned()));
        }
        if channels.len() > BROADCAST_CHANNELS_MAX {
            let given = channels.len();
            return Err(ApiError::LimitExceeded(format!(
                "{given} channels; at most {BROADCAST_CHANNELS_MAX} are allowed"
            )));
        }
        let content = Content::from(call);
        let skip_history = content.skip_history;
        let message = content.into_message(self.wall)?;
        let each = channels.iter().map(|channel| async {
            match self.publish_to(channel, skip_history, message.clone()).await {
                Ok(place) => Outcome::Result(place),
                Err(error) => Outcome::Error(error.body()),
            }
        });
        Ok(BroadcastResult { responses: join_all(each).await })
    }

    async fn publish_to(
        &self,
        name: &str,
        skip_history: bool,
        (message, key): (Arc<Message>, Option<Arc<str>>),
    ) -> Result<words::Place, ApiError> {
        let (channel, options) = self.channel(name)?;
        if channel.status_user().is_some() {
            return Err(ApiError::BadRequest(format!(
                "`{name}` tells whether a user is connected: nothing can be published to it"
            )));
        }
        // An unnumbered publication would have no place among the numbered ones of a stream.
        if skip_history && options.options().is_stream() {
            return Err(ApiError::NotAvailable(format!(
                "`skip_history` is not supported for channels with history, such as `{name}`"
            )));
        }
        if key.is_some() && !options.options().is_stream() {
            return Err(ApiError::NotAvailable(format!(
                "`idempotency_key` is not supported for channels without history, such as `{name}`"
            )));
        }
        match self.asker.ask(channel, options.options(), Ask::Publish { message, key }).await? {
            Reply::Published { position, copies } => Ok(words::Place::new(position, copies)),
            reply => Err(mismatch(&reply)),
        }
    }

    pub(super) async fn presence(
        &self,
        call: words::OfChannel,
    ) -> Result<words::PresenceResult, ApiError> {
        let (channel, options) = self.channel_with_presence(&call.channel)?;
        match self.asker.ask(channel, options.options(), Ask::Presence).await? {
            Reply::Presence(clients) => Ok(clients.into()),
            reply => Err(mismatch(&reply)),
        }
    }

    pub(super) async fn presence_stats(
        &self,
        call: words::OfChannel,
    ) -> Result<words::StatsResult, ApiError> {
        let (channel, options) = self.channel_with_presence(&call.channel)?;
        match self.asker.ask(channel, options.options(), Ask::PresenceStats).await? {
            Reply::PresenceStats { clients, users } => {
                Ok(words::StatsResult { num_clients: clients, num_users: users })
            }
            reply => Err(mismatch(&reply)),
        }
    }

    pub(super) async fn history(
        &self,
        call: words::History,
    ) -> Result<words::HistoryResult, ApiError> {
        let (channel, options) = self.channel(&call.channel)?;
        if !options.options().is_stream() {
            return Err(without(&call.channel, "history"));
        }
        // A negative limit means "all"; an absent one only asks for the position.
        let limit = match u32::try_from(call.limit) {
            Ok(limit) => limit.min(HISTORY_MAX),
            Err(_) => HISTORY_MAX,
        };
        let since = match call.since {
            Some(since) => Some(self.position(&channel, options, &since).await?),
            None => None,
        };
        let wanted = History { limit, since, reverse: call.reverse };
        let (publications, top) = self.read(channel, options, wanted).await?;
        Ok(words::HistoryResult {
            publications: publications.into_iter().map(words::Publication::from).collect(),
            offset: top.offset,
            epoch: top.epoch.to_string(),
        })
    }

    async fn read(
        &self,
        channel: Channel,
        options: &Namespace,
        wanted: History,
    ) -> Result<(Vec<crate::protocol::message::Publication>, Position), ApiError> {
        match self.asker.ask(channel, options.options(), Ask::History(wanted)).await? {
            Reply::History { publications, position } => Ok((publications, position)),
            reply => Err(mismatch(&reply)),
        }
    }

    /// The position that a caller means: without an epoch, one of the current epoch.
    async fn position(
        &self,
        channel: &Channel,
        options: &Namespace,
        since: &words::Since,
    ) -> Result<Position, ApiError> {
        if !since.epoch.is_empty() {
            let epoch = since.epoch.parse().map_err(|_| ApiError::UnknownPosition)?;
            return Ok(Position { epoch, offset: since.offset });
        }
        let nothing = History { limit: 0, since: None, reverse: false };
        let (_, top) = self.read(channel.clone(), options, nothing).await?;
        Ok(Position { epoch: top.epoch, offset: since.offset })
    }

    fn channel_with_presence(&self, name: &str) -> Result<(Channel, &Namespace), ApiError> {
        let (channel, options) = self.channel(name)?;
        if options.presence { Ok((channel, options)) } else { Err(without(name, "presence")) }
    }

    pub(super) fn channel(&self, name: &str) -> Result<(Channel, &Namespace), ApiError> {
        let channel =
            Channel::parse(name).map_err(|error| ApiError::BadRequest(error.to_string()))?;
        let options = self.channels.of(&channel);
        let options = options.ok_or_else(|| ApiError::UnknownChannel(name.to_owned()))?;
        Ok((channel, options))
    }
}

fn without(channel: &str, feature: &str) -> ApiError {
    ApiError::NotAvailable(format!("`{channel}` has no {feature} by its configuration"))
}

/// The cores answered another question than was asked: an error of ours.
pub(super) fn mismatch(reply: &Reply) -> ApiError {
    tracing::error!(?reply, "api.reply.mismatched");
    ApiError::Refused(ErrorCode::Internal)
}
