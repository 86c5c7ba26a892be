//! The methods of the server API that concern users: what outlives their connections. Each is one
//! question to the owner of the user's inbox.
use serde_json::value::RawValue;

use super::Api;
use super::channels::mismatch;
use super::content::on_one_line;
use super::error::ApiError;
use super::words;
use crate::config::Namespace;
use crate::delivery::event::{Ask, Reply};
use crate::protocol::channel::Channel;
use crate::protocol::codes::ErrorCode;
use crate::protocol::user::UserChange;

impl Api {
    pub(super) async fn subscribe(
        &self,
        call: words::OfUserAndChannel,
    ) -> Result<words::Held, ApiError> {
        let (channel, _) = self.channel(&call.channel)?;
        if channel.inbox_user().is_some() {
            let text = "`channel` is an inbox: its user is subscribed to it anyway, nobody else is";
            return Err(ApiError::BadRequest(text.to_owned()));
        }
        self.change_user(&call.user, UserChange::Subscribe(channel)).await
    }

    pub(super) async fn unsubscribe(
        &self,
        call: words::OfUserAndChannel,
    ) -> Result<words::Held, ApiError> {
        // A channel whose namespace is configured no more can still be left.
        let channel = Channel::parse(&call.channel);
        let channel = channel.map_err(|error| ApiError::BadRequest(error.to_string()))?;
        self.change_user(&call.user, UserChange::Unsubscribe(channel)).await
    }

    pub(super) async fn session_set(
        &self,
        call: words::SessionSet,
    ) -> Result<words::Held, ApiError> {
        let (key, value) = (call.key.into(), on_one_line(&call.value));
        self.change_user(&call.user, UserChange::Set { key, value }).await
    }

    pub(super) async fn session_delete(
        &self,
        call: words::SessionDelete,
    ) -> Result<words::Held, ApiError> {
        self.change_user(&call.user, UserChange::Delete { key: call.key.into() }).await
    }

    pub(super) async fn session_get(
        &self,
        call: words::SessionGet,
    ) -> Result<words::AttributesResult, ApiError> {
        let (inbox, options) = self.inbox(&call.user)?;
        let ask = Ask::Attributes(call.key.map(Into::into));
        match self.asker.ask(inbox, options.options(), ask).await? {
            Reply::Attributes(attributes) => Ok(attributes.into()),
            reply => Err(mismatch(&reply)),
        }
    }

    pub(super) async fn user_status(&self, call: words::OfUser) -> Result<Box<RawValue>, ApiError> {
        let (inbox, _) = self.inbox(&call.user)?;
        let options = self.channels.status.options();
        match self.asker.ask(inbox.status_of_inbox(), options, Ask::Status).await? {
            // In the words that clients who watch get.
            Reply::Status(status) => RawValue::from_string(status.to_json())
                .map_err(|_| ApiError::Refused(ErrorCode::Internal)),
            reply => Err(mismatch(&reply)),
        }
    }

    async fn change_user(&self, user: &str, change: UserChange) -> Result<words::Held, ApiError> {
        let (inbox, options) = self.inbox(user)?;
        change.check().map_err(|limit| ApiError::LimitExceeded(limit.to_string()))?;
        match self.asker.ask(inbox, options.options(), Ask::Change(change)).await? {
            Reply::Changed { copies } => Ok(words::Held { copies }),
            reply => Err(mismatch(&reply)),
        }
    }

    fn inbox(&self, user: &str) -> Result<(Channel, &Namespace), ApiError> {
        let inbox = Channel::inbox(user).ok().filter(|inbox| inbox.inbox_user() == Some(user));
        let inbox = inbox.ok_or_else(|| {
            ApiError::BadRequest("`user` must be 1 to 254 bytes without a comma".to_owned())
        })?;
        let options = self.channels.of(&inbox);
        let options = options.ok_or_else(|| ApiError::UnknownChannel(inbox.to_string()))?;
        Ok((inbox, options))
    }
}
