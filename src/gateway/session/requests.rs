//! Commands beside subscriptions: publish, presence, history, methods.
use std::sync::Arc;

use bytes::Bytes;

use crate::config::channels::Namespace;
use crate::delivery::event::{Ask, History, Reply as CoreReply};
use crate::protocol::channel::Channel;
use crate::protocol::client::Reply;
use crate::protocol::client::command::{
    ChannelRequest, HistoryRequest, PublishRequest, RpcRequest,
};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::Position;
use crate::protocol::message::{Message, Publication};

use super::record::{METHODS, attributes_json};
use super::subscribe::refusal;
use super::{Effects, Expects, Refusal, Scene, Session, channel};
use crate::gateway::rules::{HISTORY_BYTES_MAX, HISTORY_MAX};

/// Which node is this? Every node has this method.
const METHOD_NODE: &str = "orbweb.node";

/// A history request that waits for the epoch that holds.
pub(super) struct Since {
    pub(super) offset: u64,
    pub(super) limit: u32,
    pub(super) reverse: bool,
}

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: &PublishRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let channel = channel(&request.channel)?;
        let namespace = scene.rules.of(&channel).ok_or(ErrorCode::UnknownChannel)?;
        // Nobody but its user is ever subscribed to an inbox, so `allow_publish` alone decides there.
        let inbox = channel.inbox_user().is_some();
        let member = if inbox { !self.user.is_empty() } else { self.is_subscriber(&channel) };
        if !namespace.allow_publish || !member {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let data = request.data.ok_or(ErrorCode::BadRequest)?;
        let message = Arc::new(Message {
            data: Bytes::copy_from_slice(data.get().as_bytes()),
            info: Some(self.info()),
            tags: Default::default(),
            time_ms: scene.unix_ms,
        });
        let ask = Ask::Publish { message, key: None };
        self.ask(channel, namespace.options(), ask, Expects::Publish { id }, effects)
    }

    pub(super) fn presence(
        &mut self,
        id: u32,
        request: &ChannelRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let (channel, namespace) = self.present(request, scene)?;
        self.ask(channel, namespace.options(), Ask::Presence, Expects::Presence { id }, effects)
    }

    pub(super) fn presence_stats(
        &mut self,
        id: u32,
        request: &ChannelRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let (channel, namespace) = self.present(request, scene)?;
        let expects = Expects::PresenceStats { id };
        self.ask(channel, namespace.options(), Ask::PresenceStats, expects, effects)
    }

    fn present(
        &self,
        request: &ChannelRequest<'_>,
        scene: Scene<'_>,
    ) -> Result<(Channel, Namespace), Refusal> {
        let channel = channel(&request.channel)?;
        let namespace = scene.rules.of(&channel).ok_or(ErrorCode::UnknownChannel)?;
        if !namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !namespace.allow_presence || !self.is_subscriber(&channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok((channel, namespace))
    }

    pub(super) fn history(
        &mut self,
        id: u32,
        request: &HistoryRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let channel = channel(&request.channel)?;
        let namespace = scene.rules.of(&channel).ok_or(ErrorCode::UnknownChannel)?;
        if !namespace.options().is_stream() {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !namespace.allow_history || !self.is_subscriber(&channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let limit = u32::try_from(request.limit).map_or(HISTORY_MAX, |n| n.min(HISTORY_MAX));
        let limit = if request.limit > i64::from(HISTORY_MAX) { HISTORY_MAX } else { limit };
        let (offset, epoch) =
            request.since.as_ref().map_or((0, ""), |since| (since.offset, since.epoch.as_ref()));
        let reverse = request.reverse;
        let mut wanted = History { limit, since: None, reverse };
        let mut expects = Expects::History { id };
        if !epoch.is_empty() {
            let epoch = epoch.parse().map_err(|_| ErrorCode::UnrecoverablePosition)?;
            wanted.since = Some(Position { epoch, offset });
        } else if offset > 0 {
            wanted = History { limit: 0, since: None, reverse: false };
            expects =
                Expects::HistoryEpoch { id, channel: channel.clone(), offset, limit, reverse };
        }
        self.ask(channel, namespace.options(), Ask::History(wanted), expects, effects)
    }

    /// The epoch is known: asks for the history behind the offset.
    pub(super) fn history_epoch(
        &mut self,
        id: u32,
        channel: Channel,
        since: Since,
        reply: CoreReply,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let asked = match (&reply, scene.rules.of(&channel)) {
            (CoreReply::History { position, .. }, Some(namespace)) => {
                let Since { offset, limit, reverse } = since;
                let since = Some(Position { offset, ..*position });
                let ask = Ask::History(History { limit, since, reverse });
                self.ask(channel, namespace.options(), ask, Expects::History { id }, effects)
            }
            _ => Err(refusal(&reply).into()),
        };
        if asked.is_err() {
            let code = match asked {
                Err(Refusal::Error(code)) => code,
                _ => ErrorCode::Internal,
            };
            self.reply(effects, id, &Reply::Error(code));
        }
    }

    pub(super) fn rpc(
        &mut self,
        id: u32,
        request: &RpcRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if METHODS.contains(&&*request.method) {
            return self.session_method(id, request, scene, effects);
        }
        if request.method != METHOD_NODE {
            return Err(ErrorCode::MethodNotFound.into());
        }
        let answer = serde_json::json!({ "node": scene.rules.node.as_str() }).to_string();
        self.reply(effects, id, &Reply::Rpc(answer.as_bytes()));
        Ok(())
    }

    /// Passes an answer of the cores on to the client.
    pub(super) fn answer(&self, id: u32, reply: CoreReply, effects: &mut Effects) {
        let (code, json);
        let reply = match &reply {
            CoreReply::Published { .. } => Reply::Publish,
            CoreReply::Changed { copies } => {
                json = serde_json::json!({ "copies": copies }).to_string();
                Reply::Rpc(json.as_bytes())
            }
            CoreReply::Attributes(attributes) => {
                json = attributes_json(attributes);
                Reply::Rpc(json.as_bytes())
            }
            CoreReply::Presence(clients) => Reply::Presence(clients),
            &CoreReply::PresenceStats { clients, users } => Reply::PresenceStats { clients, users },
            CoreReply::History { publications, position } => {
                Reply::History { publications: fitting(publications), position: *position }
            }
            refused => {
                code = refusal(refused);
                Reply::Error(code)
            }
        };
        self.reply(effects, id, &reply);
    }
}

/// The first publications that fit into one reply, and at least one.
fn fitting(publications: &[Publication]) -> &[Publication] {
    let mut bytes = 0;
    let fits = publications.iter().take(HISTORY_MAX as usize).take_while(|publication| {
        let first = bytes == 0;
        bytes += publication.bytes();
        first || bytes <= HISTORY_BYTES_MAX
    });
    let fitting = fits.count();
    &publications[..fitting]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{Epoch, StreamEpoch};
    use crate::protocol::message::{Message, TAG_BYTES_MAX};

    #[test]
    fn tags_fill_a_history_as_payloads_do() {
        let tags = [("t".to_owned(), "v".repeat(TAG_BYTES_MAX - 1))].into();
        let message = Arc::new(Message { data: "1".into(), tags, ..Message::default() });
        let epoch = StreamEpoch { epoch: Epoch::NONE, index: 0 };
        let publication = |offset| Publication { epoch, offset, message: message.clone() };
        let publications: Vec<Publication> = (1..=300).map(publication).collect();
        let fits = fitting(&publications);
        assert!(fits.iter().map(Publication::bytes).sum::<usize>() <= HISTORY_BYTES_MAX);
        assert!((fits.len() + 1) * publications[0].bytes() > HISTORY_BYTES_MAX, "as many as fit");
    }
}
