//! Connecting: credentials, the server-side subscriptions, the connect reply, new credentials.
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::delivery::event::{Ask, Recover, Reply as CoreReply};
use crate::protocol::channel::Channel;
use crate::protocol::client::command::{ConnectRequest, RefreshRequest};
use crate::protocol::client::{ConnectResult, PublicationFields, Push, Reply, SubscribeResult};
use crate::protocol::codes::{Disconnect, ErrorCode};
use crate::protocol::ids::{ClientId, Position};
use crate::protocol::message::Publication;
use crate::protocol::user::UserState;

use super::subscribe::{place_before, recover, status_json};
use super::{Effects, Expects, Kind, Phase, Refusal, Scene, Session, State, Subscription};
use crate::gateway::rules::CHANNELS_MAX;
use crate::gateway::token::{Claims, TokenError, USER_BYTES_MAX};

/// A connect command that waits for its server-side subscriptions.
#[derive(Debug)]
pub(super) struct Connecting {
    id: u32,
    pub(super) waiting: usize,
    ready: Vec<ServerSide>,
}

impl Connecting {
    /// A subscription isn't to be in the reply after all.
    pub(super) fn leave_out(&mut self, channel: &Channel) {
        self.ready.retain(|ready| ready.channel != *channel);
    }
}

/// One server-side subscription of a connect reply.
#[derive(Debug)]
struct ServerSide {
    channel: Channel,
    from: Recover,
    position: Option<Position>,
    was_recovering: bool,
    recovered: bool,
    publications: Vec<Publication>,
    data: String,
}

#[derive(Deserialize)]
struct DevData {
    #[serde(default)]
    user: String,
}

impl Session {
    pub(super) fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.phase = Phase::Failed;
        let claims = self.authenticate(request, scene)?;
        let channels = server_side_channels(&claims, scene)?;
        if !claims.user.is_empty() {
            self.claimed = claimed(request, &channels);
        }
        self.user = claims.user.into();
        self.conn_info = claims.info;
        self.expires = claims.expires;
        self.javascript = request.name == "js";
        let connecting = Connecting { id, waiting: channels.len(), ready: Vec::new() };
        self.phase = Phase::Connecting(Box::new(connecting));
        for channel in channels {
            let from = request.subs.get(channel.as_str()).map_or(Recover::No, recover);
            self.ask_server_side(channel, from, scene, effects)?;
        }
        self.finish_connect_if_ready(scene, effects);
        Ok(())
    }

    fn authenticate(
        &self,
        request: &ConnectRequest<'_>,
        scene: Scene<'_>,
    ) -> Result<Claims, Refusal> {
        let invalid = Refusal::Close(Disconnect::InvalidToken);
        let claims = if !request.token.is_empty() {
            let tokens = scene.rules.tokens.as_ref().ok_or(invalid)?;
            match tokens.verify(&request.token, scene.unix_seconds()) {
                Ok(claims) => claims,
                Err(TokenError::Expired) => return Err(ErrorCode::TokenExpired.into()),
                Err(TokenError::Invalid) => return Err(invalid),
            }
        } else if scene.rules.channels.dev {
            let data = request.data.and_then(|data| serde_json::from_str(data.get()).ok());
            let data_user = data.map(|data: DevData| data.user);
            let user = self.query_user.as_deref().map(str::to_owned).or(data_user);
            Claims { user: user.unwrap_or_default(), ..Claims::default() }
        } else if scene.rules.allow_anonymous {
            Claims::default()
        } else {
            // SDKs take this code as final: without credentials, trying again changes nothing.
            return Err(invalid);
        };
        // A comma would make the inbox's name that of a channel of several users.
        if claims.user.contains(',') || claims.user.len() > USER_BYTES_MAX {
            return Err(invalid);
        }
        Ok(claims)
    }

    /// Asks for a server-side subscription that continues `from`.
    pub(super) fn ask_server_side(
        &mut self,
        channel: Channel,
        from: Recover,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(namespace) = scene.rules.of(&channel) else {
            return Err(ErrorCode::UnknownChannel.into());
        };
        self.attempts += 1;
        let attempt = self.attempts;
        let state = State::Asked { attempt, from: Box::new(from) };
        let subscription = Subscription { state, kind: Kind::ServerSide };
        self.subscriptions.insert(channel.clone(), subscription);
        let ask = Ask::Subscribe {
            client: self.client,
            info: (namespace.presence || namespace.join_leave).then(|| self.info()),
            recover: from,
        };
        let expects = Expects::ServerSide { channel: channel.clone(), attempt };
        self.ask(channel, namespace.options(), ask, expects, effects)
    }

    pub(super) fn server_side_subscribed(
        &mut self,
        channel: Channel,
        attempt: u64,
        reply: CoreReply,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&channel) else { return };
        let State::Asked { attempt: current, from } = &subscription.state else { return };
        let from = **from;
        if *current != attempt {
            return;
        }
        let CoreReply::Subscribed { position, recovered, publications, user } = reply else {
            // Not ready, or not known to be: the client keeps its position meanwhile.
            subscription.state = State::Unready { from: Box::new(from) };
            self.settle(None, scene, effects);
            return;
        };
        subscription.state = State::Active;
        effects.joined.push((channel.clone(), Kind::ServerSide));
        if let UserState::Subscriptions(channels) = &user
            && channel.inbox_user() == Some(&self.user)
        {
            self.follow_record(channels, scene, effects);
        }
        let data = status_json(&user);
        let recoverable = scene.rules.of(&channel).is_some_and(|n| n.recovery);
        let position = position.filter(|_| recoverable);
        let was_recovering = from != Recover::No;
        let subscribed =
            ServerSide { channel, from, position, was_recovering, recovered, publications, data };
        self.settle(Some(subscribed), scene, effects);
    }

    /// One server-side subscription is answered: in time for the connect reply, or late.
    fn settle(&mut self, ready: Option<ServerSide>, scene: Scene<'_>, effects: &mut Effects) {
        if let Phase::Connecting(connecting) = &mut self.phase {
            connecting.waiting -= 1;
            connecting.ready.extend(ready);
            self.finish_connect_if_ready(scene, effects);
        } else if let Some(late) = ready {
            self.push_late(&late, effects);
        }
    }

    fn push_late(&self, late: &ServerSide, effects: &mut Effects) {
        let channel = late.channel.as_str();
        let told = match late.from {
            Recover::From(_) if !late.recovered => {
                // The client was told that it had missed nothing.
                effects.close = Some(Disconnect::InsufficientState);
                return;
            }
            Recover::From(from) => late.position.is_some_and(|top| top.epoch == from.epoch),
            Recover::No | Recover::Unknown => false,
        };
        if !told {
            let position = place_before(late.position, &late.publications);
            let data = late.data.as_bytes();
            let result = SubscribeResult { position, data, ..SubscribeResult::default() };
            self.push(effects, &Push::Subscribe { channel, result });
        }
        for publication in &late.publications {
            let publication = PublicationFields::from(publication);
            self.push(effects, &Push::Publication { channel, publication });
        }
    }

    pub(super) fn finish_connect_if_ready(&mut self, scene: Scene<'_>, effects: &mut Effects) {
        let Phase::Connecting(connecting) = &self.phase else { return };
        if connecting.waiting == 0 {
            self.finish_connect(scene, effects);
        }
    }

    /// Answers the connect command with what there is. A subscription that isn't ready is told to
    /// have missed nothing, because SDKs forget those that are left out, with their positions; what
    /// it missed is pushed later. One without a position has nothing to forget and is left out.
    pub(in crate::gateway) fn finish_connect(&mut self, scene: Scene<'_>, effects: &mut Effects) {
        let Phase::Connecting(connecting) = std::mem::replace(&mut self.phase, Phase::Connected)
        else {
            return;
        };
        let mut subs: Vec<(&str, SubscribeResult<'_>)> = Vec::new();
        for ready in &connecting.ready {
            let result = SubscribeResult {
                position: place_before(ready.position, &ready.publications),
                was_recovering: ready.was_recovering,
                recovered: ready.recovered,
                publications: &ready.publications,
                data: ready.data.as_bytes(),
            };
            subs.push((ready.channel.as_str(), result));
        }
        for (channel, subscription) in &self.subscriptions {
            let (State::Unready { from } | State::Asked { from, .. }) = &subscription.state else {
                continue;
            };
            subs.extend(kept(channel, **from));
        }
        // What the record would have said of these is still to come.
        subs.extend(self.claimed.iter().filter_map(|(channel, from)| kept(channel, *from)));
        let result = ConnectResult {
            client: self.client,
            version: &scene.rules.version,
            ttl: self.ttl(scene),
            subs,
            ping: scene.rules.times.ping_interval.as_secs(),
            pong: true,
            session: ClientId(rand::random()),
            node: scene.rules.node.as_str(),
            time_ms: scene.unix_ms,
        };
        self.format.reply(&mut effects.replies, connecting.id, &Reply::Connect(result));
        effects.connected = true;
    }

    /// Whether [`Session::retry_unready`] has something to do.
    pub(in crate::gateway) fn has_unready(&self) -> bool {
        self.is_connected()
            && self.subscriptions.values().any(|s| matches!(s.state, State::Unready { .. }))
    }

    /// Asks again for the server-side subscriptions that weren't ready.
    pub(in crate::gateway) fn retry_unready(&mut self, scene: Scene<'_>, effects: &mut Effects) {
        let unready: Vec<_> = self
            .subscriptions
            .iter()
            .filter_map(|(channel, subscription)| match &subscription.state {
                State::Unready { from } => Some((channel.clone(), **from)),
                _ => None,
            })
            .collect();
        for (channel, from) in unready {
            if self.ask_server_side(channel.clone(), from, scene, effects).is_err()
                && let Some(subscription) = self.subscriptions.get_mut(&channel)
            {
                subscription.state = State::Unready { from: Box::new(from) };
            }
        }
    }

    /// Seconds until the credentials must be refreshed.
    fn ttl(&self, scene: Scene<'_>) -> Option<u64> {
        self.expires.map(|expires| expires.saturating_sub(scene.unix_seconds()).max(1))
    }

    pub(super) fn refresh(
        &mut self,
        id: u32,
        request: &RefreshRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let tokens = scene.rules.tokens.as_ref().ok_or(Disconnect::InvalidToken)?;
        let claims = match tokens.verify(&request.token, scene.unix_seconds()) {
            Ok(claims) if *claims.user == *self.user => claims,
            // SDKs end for good on an error here, but get a new token when they connect again.
            Err(TokenError::Expired) => return Err(Disconnect::Expired.into()),
            _ => return Err(Disconnect::InvalidToken.into()),
        };
        self.expires = claims.expires;
        self.conn_info = claims.info;
        let ttl = self.ttl(scene);
        let version = &scene.rules.version;
        self.reply(effects, id, &Reply::Refresh { client: self.client, version, ttl });
        Ok(())
    }
}

/// A subscription that isn't ready, told to have missed nothing if the client has a position in it.
fn kept(channel: &Channel, from: Recover) -> Option<(&str, SubscribeResult<'static>)> {
    let Recover::From(position) = from else { return None };
    let result = SubscribeResult {
        position: Some(position),
        was_recovering: true,
        recovered: true,
        ..SubscribeResult::default()
    };
    Some((channel.as_str(), result))
}

/// The positions that a client has of channels beside those that are known to be its own.
fn claimed(request: &ConnectRequest<'_>, known: &[Channel]) -> BTreeMap<Channel, Recover> {
    let channels = request.subs.iter().filter_map(|(name, subscribe)| {
        let channel = Channel::parse(name).ok()?;
        (!known.contains(&channel)).then(|| (channel, recover(subscribe)))
    });
    channels.take(CHANNELS_MAX).collect()
}

/// The user's inbox and what the token names, each once.
fn server_side_channels(claims: &Claims, scene: Scene<'_>) -> Result<Vec<Channel>, Refusal> {
    let mut channels = Vec::new();
    if !claims.user.is_empty() {
        channels.push(Channel::inbox(&claims.user).map_err(|_| ErrorCode::BadRequest)?);
    }
    for name in &claims.channels {
        let channel = Channel::parse(name).map_err(|_| ErrorCode::BadRequest)?;
        if scene.rules.of(&channel).is_none() {
            return Err(ErrorCode::UnknownChannel.into());
        }
        if !channels.contains(&channel) {
            channels.push(channel);
        }
        if channels.len() > CHANNELS_MAX {
            return Err(ErrorCode::LimitExceeded.into());
        }
    }
    Ok(channels)
}
