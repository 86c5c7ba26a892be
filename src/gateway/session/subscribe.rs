//! Subscriptions of the client's own: begun, ended, and begun again when a stream turns.
use crate::delivery::event::{Ask, Recover, Reply as CoreReply};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::client::command::{
    ChannelRequest, FLAG_CHANNEL_COMPACTION, FLAG_REJECT_UNRECOVERED, SubscribeRequest,
};
use crate::protocol::client::{Push, Reply, SubscribeResult};
use crate::protocol::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::protocol::ids::Position;
use crate::protocol::message::Publication;
use crate::protocol::user::UserState;

use super::{Asked, Effects, Expects, Kind, Refusal, Scene, Session, State, Subscription, channel};
use crate::config::channels::Namespace;
use crate::gateway::rules::CHANNELS_MAX;

/// What is remembered of a subscribe command until the cores answer.
pub(super) struct AskedBy {
    pub(super) id: u32,
    pub(super) attempt: u64,
    pub(super) was_recovering: bool,
    pub(super) reject_unrecovered: bool,
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: u32,
        request: &SubscribeRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let channel = channel(&request.channel)?;
        if !matches!(request.delta.as_ref(), "" | "fossil") {
            return Err(Disconnect::BadRequest.into());
        }
        let namespace = self.may_subscribe(&channel, scene)?;
        let recoverable = namespace.recovery && namespace.options().is_stream();
        let kind = match (recoverable, self.javascript) {
            (false, _) => Kind::Plain,
            (true, true) if request.flag & FLAG_CHANNEL_COMPACTION != 0 => Kind::EpochAware,
            (true, _) => Kind::Resubscribing,
        };
        let from = if recoverable { recover(request) } else { Recover::No };
        self.attempts += 1;
        let attempt = self.attempts;
        let expects = Expects::Subscribe {
            id,
            channel: channel.clone(),
            attempt,
            was_recovering: from != Recover::No,
            reject_unrecovered: request.flag & FLAG_REJECT_UNRECOVERED != 0,
        };
        let ask = Ask::Subscribe {
            client: self.client,
            info: (namespace.presence || namespace.join_leave).then(|| self.info()),
            recover: from,
        };
        self.ask(channel.clone(), namespace.options(), ask, expects, effects)?;
        let subscription =
            Subscription { state: State::Asked { attempt, from: Box::new(from) }, kind };
        self.subscriptions.insert(channel, subscription);
        Ok(())
    }

    fn may_subscribe(
        &mut self,
        channel: &Channel,
        scene: Scene<'_>,
    ) -> Result<Namespace, ErrorCode> {
        match self.subscriptions.get(channel) {
            // It believes itself subscribed no more, and is right.
            Some(subscription) if !subscription.state.is_attached() => {}
            Some(_) => return Err(ErrorCode::AlreadySubscribed),
            None if self.subscriptions.len() >= CHANNELS_MAX => {
                // Those that never came again make room.
                self.subscriptions.retain(|_, subscription| subscription.state != State::Awaited);
                if self.subscriptions.len() >= CHANNELS_MAX {
                    return Err(ErrorCode::LimitExceeded);
                }
            }
            None => {}
        }
        let namespace = scene.rules.of(channel).ok_or(ErrorCode::UnknownChannel)?;
        // Inboxes are subscribed by the server alone.
        let inbox = channel.inbox_user().is_some();
        if inbox || !namespace.allow_subscribe || !channel.admits(&self.user) {
            return Err(ErrorCode::PermissionDenied);
        }
        Ok(namespace)
    }

    pub(super) fn subscribed(
        &mut self,
        channel: &Channel,
        asked: AskedBy,
        reply: CoreReply,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let id = asked.id;
        let Some(subscription) = self.subscriptions.get_mut(channel).filter(
            |s| matches!(s.state, State::Asked { attempt, .. } if attempt == asked.attempt),
        ) else {
            // Unsubscribed meanwhile; the owner knows.
            self.reply(effects, id, &Reply::Error(ErrorCode::Internal));
            return;
        };
        let (position, recovered, publications, user) = match reply {
            CoreReply::Subscribed { position, recovered, publications, user } => {
                (position, recovered, publications, user)
            }
            refused => {
                let code = refusal(&refused);
                return self.give_up(id, channel, code, scene, effects);
            }
        };
        if asked.reject_unrecovered && asked.was_recovering && !recovered {
            return self.give_up(id, channel, ErrorCode::UnrecoverablePosition, scene, effects);
        }
        subscription.state = State::Active;
        let kind = subscription.kind;
        effects.joined.push((channel.clone(), kind));
        let position = position.filter(|_| kind != Kind::Plain);
        let data = status_json(&user);
        let result = SubscribeResult {
            position: place_before(position, &publications),
            was_recovering: asked.was_recovering,
            recovered: asked.was_recovering && recovered,
            publications: &publications,
            data: data.as_bytes(),
        };
        self.reply(effects, id, &Reply::Subscribe(result));
    }

    fn give_up(
        &mut self,
        id: u32,
        channel: &Channel,
        code: ErrorCode,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        match self.subscriptions.get_mut(channel) {
            // The SDK tries again by itself.
            Some(subscription) if code.temporary() => subscription.state = State::Awaited,
            _ => drop(self.subscriptions.remove(channel)),
        }
        self.let_go(channel.clone(), scene, effects);
        self.reply(effects, id, &Reply::Error(code));
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: u32,
        request: &ChannelRequest<'_>,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let channel = channel(&request.channel)?;
        match self.subscriptions.get(&channel) {
            Some(Subscription { kind: Kind::ServerSide, .. }) => {
                return Err(ErrorCode::PermissionDenied.into());
            }
            Some(Subscription { state, .. }) => {
                let attached = state.is_attached();
                self.subscriptions.remove(&channel);
                if attached {
                    self.let_go(channel, scene, effects);
                }
            }
            None => {}
        }
        self.reply(effects, id, &Reply::Unsubscribe);
        Ok(())
    }

    /// Whether the client may do what subscribers may. Commands are carried out in their order, so
    /// a subscription that was asked for counts already.
    pub(super) fn is_subscriber(&self, channel: &Channel) -> bool {
        self.subscriptions.contains_key(channel)
    }

    /// The stream can't be continued under the position that the client holds: it gets nothing more
    /// of it until it subscribes again, as [`Session::tell_lapsed`] will make it do.
    pub(in crate::gateway) fn lapse(
        &mut self,
        channel: &Channel,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        subscription.state = State::Lapsed;
        self.let_go(channel.clone(), scene, effects);
    }

    /// Makes the client subscribe again, unless it has ended or renewed the subscription itself.
    pub(in crate::gateway) fn tell_lapsed(&mut self, channel: &Channel, effects: &mut Effects) {
        let lapsed = self.subscriptions.get_mut(channel).filter(|s| s.state == State::Lapsed);
        if let Some(subscription) = lapsed {
            subscription.state = State::Awaited;
            let why = Unsubscribe::InsufficientState;
            self.push(effects, &Push::Unsubscribe { channel: channel.as_str(), why });
        }
    }

    /// No more deliveries: here, and from the owner.
    pub(super) fn let_go(&self, channel: Channel, scene: Scene<'_>, effects: &mut Effects) {
        effects.left.push(channel.clone());
        if without(Rule::EndIsTold) {
            return;
        }
        // What was subscribed has a namespace: the configuration is fixed while a node runs.
        let options = scene.rules.of(&channel).map(|n| n.options()).unwrap_or_default();
        let ask = Ask::Unsubscribe { client: self.client };
        effects.asks.push(Asked { channel, options, ask, expects: None });
    }
}

/// The code of a reply that isn't the one that was hoped for.
pub(super) fn refusal(reply: &CoreReply) -> ErrorCode {
    match reply {
        CoreReply::Failed(code) => *code,
        _ => ErrorCode::Internal,
    }
}

/// The status of a user, as clients are told it in the answer to a subscription; empty if the channel
/// isn't a status channel.
pub(super) fn status_json(user: &UserState) -> String {
    match user {
        UserState::Status(status) => status.to_json(),
        UserState::Subscriptions(_) | UserState::None => String::new(),
    }
}

/// What a client wants to catch up on. An empty epoch was given by no node, nor was one of another
/// server or the `_` by which SDKs say that their state is no longer valid.
pub(super) fn recover(request: &SubscribeRequest<'_>) -> Recover {
    match request.epoch.parse() {
        _ if !request.recover => Recover::No,
        Ok(epoch) => Recover::From(Position { epoch, offset: request.offset }),
        Err(_) => Recover::Unknown,
    }
}

/// The position in front of the publications of the same reply: each of them moves the client on,
/// so one that fails in between continues where it was. All that lies before the first of them on
/// the path of the current epoch has been seen, else it would be among them.
pub(super) fn place_before(
    position: Option<Position>,
    publications: &[Publication],
) -> Option<Position> {
    let first = publications.first().map(|publication| publication.offset.saturating_sub(1));
    position.map(|top| Position { offset: first.unwrap_or(top.offset), ..top })
}
