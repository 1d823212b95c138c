//! The `Accounts` service: calls and answers turned into and from what [`crate::accounts`] takes and gives.

use std::sync::Arc;

use parlance_proto::{
    chat::{self, accounts_server},
    v1,
};
use service_kit::{
    fault::Fault,
    id::{SessionId, UserId},
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::files::avatar;
use crate::{
    App,
    accounts::detached,
    accounts::{
        blocks, choice,
        login::{self, Grant, Newcomer},
        profile::{self, Patch, Profile},
        refresh::{self, Tokens},
        sessions,
    },
    actor::Actor,
    error::Result,
    page::Page,
};

/// Answers the calls of `Accounts`.
pub(crate) struct Accounts {
    app: Arc<App>,
}

impl Accounts {
    /// On top of this service's state.
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn set_block(&self, request: chat::BlockRequest, on: bool) -> Result<Response<chat::Empty>, Status> {
        let user = UserId::from_wire(&request.user, "user")?;
        let actor = Actor::standing(&self.app, request.actor).await?;
        let app = Arc::clone(&self.app);
        detached(&self.app, async move { blocks::set(&app, actor, user, on).await }).await?;
        Ok(Response::new(chat::Empty {}))
    }
}

#[tonic::async_trait]
impl accounts_server::Accounts for Accounts {
    async fn register(&self, request: Request<chat::RegisterRequest>) -> Result<Response<chat::Grant>, Status> {
        let chat::RegisterRequest { username, password, display_name, device } = request.into_inner();
        let grant = login::register(&self.app, Newcomer { username, password, display_name, device }).await?;
        Ok(Response::new(grant_to_wire(grant)))
    }

    async fn login(&self, request: Request<chat::LoginRequest>) -> Result<Response<chat::Grant>, Status> {
        let request = request.into_inner();
        let grant = login::login(&self.app, &request.username, request.password, request.device).await?;
        Ok(Response::new(grant_to_wire(grant)))
    }

    async fn refresh(&self, request: Request<chat::RefreshRequest>) -> Result<Response<chat::Tokens>, Status> {
        let request = request.into_inner();
        let attempt = request.attempt.as_deref().map(attempt_from_wire).transpose()?;
        let tokens = refresh::refresh(&self.app, &request.refresh_token, attempt).await?;
        Ok(Response::new(tokens_to_wire(tokens)))
    }

    async fn logout(&self, request: Request<chat::Actor>) -> Result<Response<chat::Empty>, Status> {
        // Whether the session stands is decided by ending it.
        let actor = Actor::from_wire(Some(request.into_inner()))?;
        sessions::logout(&self.app, actor).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn list_sessions(
        &self,
        request: Request<chat::ListSessionsRequest>,
    ) -> Result<Response<chat::SessionList>, Status> {
        let request = request.into_inner();
        let page = Page::from_wire(request.page)?;
        let actor = Actor::standing(&self.app, request.actor).await?;
        let (sessions, next_cursor) = sessions::list(&self.app, actor, &page).await?;
        let items = sessions.into_iter().map(|session| session_to_wire(session, actor)).collect();
        Ok(Response::new(chat::SessionList { items, next_cursor }))
    }

    async fn revoke_session(
        &self,
        request: Request<chat::RevokeSessionRequest>,
    ) -> Result<Response<chat::Empty>, Status> {
        let request = request.into_inner();
        let session = SessionId::from_wire(&request.session, "session")?;
        let actor = Actor::standing(&self.app, request.actor).await?;
        sessions::revoke(&self.app, actor, session).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn change_password(
        &self,
        request: Request<chat::ChangePasswordRequest>,
    ) -> Result<Response<chat::Empty>, Status> {
        let chat::ChangePasswordRequest { actor, old, new } = request.into_inner();
        let actor = Actor::standing(&self.app, actor).await?;
        login::change_password(&self.app, actor, old, new).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn get_me(&self, request: Request<chat::Actor>) -> Result<Response<chat::Profile>, Status> {
        let actor = Actor::standing(&self.app, Some(request.into_inner())).await?;
        Ok(Response::new(profile_to_wire(profile::get_me(&self.app, actor).await?)))
    }

    async fn patch_me(&self, request: Request<chat::PatchMeRequest>) -> Result<Response<chat::Profile>, Status> {
        let chat::PatchMeRequest { actor, display_name, receipts, presence, avatar: file } = request.into_inner();
        let actor = Actor::standing(&self.app, actor).await?;
        let patch =
            Patch { display_name, show_receipts: receipts, show_presence: presence, avatar: avatar(file.as_ref())? };
        let app = Arc::clone(&self.app);
        let profile = detached(&self.app, async move { profile::patch_me(&app, actor, patch).await }).await?;
        Ok(Response::new(profile_to_wire(profile)))
    }

    async fn get_user(&self, request: Request<chat::GetUserRequest>) -> Result<Response<v1::User>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        Actor::standing(&self.app, request.actor).await?;
        Ok(Response::new(profile::get_user(&self.app, user).await?.into_wire()))
    }

    async fn find_users(&self, request: Request<chat::FindUsersRequest>) -> Result<Response<chat::UserList>, Status> {
        let request = request.into_inner();
        let page = Page::from_wire(request.page)?;
        Actor::standing(&self.app, request.actor).await?;
        let (users, next_cursor) = profile::find(&self.app, &request.query, &page).await?;
        let items = users.into_iter().map(|user| user.into_wire()).collect();
        Ok(Response::new(chat::UserList { items, next_cursor }))
    }

    async fn block(&self, request: Request<chat::BlockRequest>) -> Result<Response<chat::Empty>, Status> {
        self.set_block(request.into_inner(), true).await
    }

    async fn unblock(&self, request: Request<chat::BlockRequest>) -> Result<Response<chat::Empty>, Status> {
        self.set_block(request.into_inner(), false).await
    }

    async fn list_blocks(&self, request: Request<chat::ListBlocksRequest>) -> Result<Response<chat::UserList>, Status> {
        let request = request.into_inner();
        let page = Page::from_wire(request.page)?;
        let actor = Actor::standing(&self.app, request.actor).await?;
        let (users, next_cursor) = blocks::list(&self.app, actor, &page).await?;
        let items = users.into_iter().map(|user| user.into_wire()).collect();
        Ok(Response::new(chat::UserList { items, next_cursor }))
    }

    async fn keys(&self, _: Request<chat::Empty>) -> Result<Response<chat::KeySet>, Status> {
        Ok(Response::new(chat::KeySet { jwks: self.app.signer.jwks() }))
    }

    async fn check(&self, request: Request<chat::Actor>) -> Result<Response<chat::Empty>, Status> {
        Actor::standing(&self.app, Some(request.into_inner())).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn choose(&self, request: Request<chat::ChooseRequest>) -> Result<Response<chat::Choice>, Status> {
        let request = request.into_inner();
        let state = choice::State::from_wire(request.state())?;
        let actor = Actor::standing(&self.app, request.actor).await?;
        Ok(Response::new(choice::choose(&self.app, actor, state).await?.to_wire()))
    }
}

fn attempt_from_wire(bytes: &[u8]) -> Result<Uuid, Fault> {
    Uuid::from_slice(bytes).map_err(|_| Fault::bad_request("attempt: not a UUID"))
}

fn tokens_to_wire(tokens: Tokens) -> chat::Tokens {
    chat::Tokens {
        access_token: tokens.access_token,
        expires_in_s: tokens.expires_in_s,
        refresh_token: tokens.refresh_token,
    }
}

fn grant_to_wire(grant: Grant) -> chat::Grant {
    chat::Grant {
        user: Some(grant.user.into_wire()),
        tokens: Some(tokens_to_wire(grant.tokens)),
        session: grant.session.to_wire(),
    }
}

fn session_to_wire(session: sessions::Session, actor: Actor) -> chat::Session {
    chat::Session {
        id: session.id.to_wire(),
        device: session.device,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        current: session.id == actor.session,
    }
}

fn profile_to_wire(profile: Profile) -> chat::Profile {
    chat::Profile {
        user: Some(profile.user.into_wire()),
        privacy: Some(chat::Privacy { receipts: profile.show_receipts, presence: profile.show_presence }),
    }
}
