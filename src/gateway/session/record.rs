//! What a user's record means for a connection: subscriptions that begin and end with it, and the
//! methods by which clients keep attributes.
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::delivery::event::{Ask, Recover};
use crate::protocol::channel::Channel;
use crate::protocol::client::Push;
use crate::protocol::client::command::RpcRequest;
use crate::protocol::codes::{ErrorCode, Unsubscribe};
use crate::protocol::user::UserChange;

use super::{Effects, Expects, Phase, Refusal, Scene, Session, State};
use crate::gateway::rules::CHANNELS_MAX;

/// The methods by which a client reads and changes its user's attributes.
pub(super) const METHODS: [&str; 3] = ["session_get", "session_set", "session_delete"];

/// Arguments of the methods.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments<'a> {
    key: Option<Arc<str>>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// Result of `session_get`.
#[derive(Serialize)]
struct Attributes<'a> {
    attributes: BTreeMap<&'a str, &'a RawValue>,
}

impl Session {
    /// Begins and ends server-side subscriptions so that they are those of the record: `channels`.
    /// Those of the token and of the client's own stay.
    pub(in crate::gateway) fn follow_record(
        &mut self,
        channels: &[Channel],
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let mut claimed = std::mem::take(&mut self.claimed);
        let gone = self.recorded.iter().filter(|channel| !channels.contains(channel));
        for channel in gone.cloned().collect::<Vec<_>>() {
            self.end_recorded(&channel, scene, effects);
        }
        for channel in channels {
            let from = claimed.remove(channel).unwrap_or(Recover::No);
            self.begin_recorded(channel, from, scene, effects);
        }
        // The client was told that it has these; before the connect reply leaving them out does.
        if self.is_connected() {
            let told = claimed.iter().filter(|(_, from)| matches!(from, Recover::From(_)));
            for (channel, _) in told.filter(|(c, _)| !self.subscriptions.contains_key(*c)) {
                let channel = channel.as_str();
                self.push(effects, &Push::Unsubscribe { channel, why: Unsubscribe::Server });
            }
        }
        self.finish_connect_if_ready(scene, effects);
    }

    fn begin_recorded(
        &mut self,
        channel: &Channel,
        from: Recover,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let known = self.subscriptions.contains_key(channel);
        if known || self.subscriptions.len() >= CHANNELS_MAX || scene.rules.of(channel).is_none() {
            return;
        }
        self.recorded.insert(channel.clone());
        if let Phase::Connecting(connecting) = &mut self.phase {
            connecting.waiting += 1;
        }
        if self.ask_server_side(channel.clone(), from, scene, effects).is_err() {
            if let Phase::Connecting(connecting) = &mut self.phase {
                connecting.waiting -= 1;
            }
            if let Some(subscription) = self.subscriptions.get_mut(channel) {
                subscription.state = State::Unready { from: Box::new(from) };
            }
        }
    }

    fn end_recorded(&mut self, channel: &Channel, scene: Scene<'_>, effects: &mut Effects) {
        self.recorded.remove(channel);
        let Some(subscription) = self.subscriptions.remove(channel) else { return };
        if let Phase::Connecting(connecting) = &mut self.phase {
            connecting.waiting -= usize::from(matches!(subscription.state, State::Asked { .. }));
            connecting.leave_out(channel);
        } else {
            let (name, why) = (channel.as_str(), Unsubscribe::Server);
            self.push(effects, &Push::Unsubscribe { channel: name, why });
        }
        self.let_go(channel.clone(), scene, effects);
    }

    /// A method on the attributes of the client's own user.
    pub(super) fn session_method(
        &mut self,
        id: u32,
        request: &RpcRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let allowed = scene.rules.allow_sessions || scene.rules.channels.dev;
        if !allowed || self.user.is_empty() {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let inbox = Channel::inbox(&self.user).map_err(|_| ErrorCode::BadRequest)?;
        let options = scene.rules.of(&inbox).map(|n| n.options()).unwrap_or_default();
        let data = request.data.map_or("{}", |data| data.get());
        let arguments = serde_json::from_str(data).map_err(|_| ErrorCode::BadRequest)?;
        let ask = session_ask(&request.method, arguments)?;
        self.ask(inbox, options, ask, Expects::Rpc { id }, effects)
    }
}

fn session_ask(method: &str, arguments: Arguments<'_>) -> Result<Ask, ErrorCode> {
    let change = match (method, arguments) {
        ("session_get", Arguments { key, value: None }) => return Ok(Ask::Attributes(key)),
        ("session_set", Arguments { key: Some(key), value: Some(value) }) => {
            UserChange::Set { key, value: on_one_line(value) }
        }
        ("session_delete", Arguments { key: Some(key), value: None }) => UserChange::Delete { key },
        _ => return Err(ErrorCode::BadRequest),
    };
    change.check().map_err(|_| ErrorCode::LimitExceeded)?;
    Ok(Ask::Change(change))
}

/// JSON frames end at line breaks, which in JSON text are never more than white space.
fn on_one_line(json: &RawValue) -> Bytes {
    Bytes::from(json.get().replace(['\n', '\r'], " "))
}

/// Attributes as the methods return them.
pub(super) fn attributes_json(attributes: &[(Arc<str>, Bytes)]) -> String {
    let pairs = attributes.iter();
    let pairs =
        pairs.filter_map(|(key, value)| Some((&**key, serde_json::from_slice(value).ok()?)));
    let result = Attributes { attributes: pairs.collect() };
    serde_json::to_string(&result).unwrap_or_default()
}
