//! A user of a story, with a name to read and devices on any gateway.

use parlance_client::api::{Login, NewRoom};
use parlance_client::connection::Hello;
use parlance_client::session::Options;
use parlance_client::wire::{Room, RoomKind, User};
use parlance_client::{Api, Connection, RoomId, Session, Updates, UserId};

use crate::device::{Device, Held};
use crate::patience::within;
use crate::stack::Stack;

/// The password of everybody.
const PASSWORD: &str = "correct horse battery staple";

/// A registered user.
#[derive(Clone, Debug)]
pub struct Person {
    /// The full, random username.
    pub username: String,
    /// The password that registered.
    pub password: String,
    /// The answer to register or login.
    pub login: Login,
    /// REST at gateway 0 with this login's token.
    pub api: Api,
    stack: Stack,
}

impl Person {
    pub(crate) async fn registers(stack: &Stack, username: &str) -> Self {
        let anonymous = stack.api(0);
        let login = anonymous.register(username, PASSWORD, Some("harness")).await.expect("registers");
        let api = anonymous.with_token(&login.tokens.access_token);
        Self { username: username.to_owned(), password: PASSWORD.to_owned(), login, api, stack: stack.clone() }
    }

    /// The same user in a session of its own, as on another device.
    pub async fn logs_in_again(&self) -> Self {
        let anonymous = self.stack.api(0);
        let login = anonymous.login(&self.username, &self.password, Some("another")).await.expect("logs in");
        let api = anonymous.with_token(&login.tokens.access_token);
        Self { login, api, ..self.clone() }
    }

    /// The user's id.
    pub fn id(&self) -> UserId {
        self.login.user.id
    }

    /// The user as the server sees it.
    pub fn user(&self) -> &User {
        &self.login.user
    }

    /// The access token.
    pub fn token(&self) -> &str {
        &self.login.tokens.access_token
    }

    /// REST at another gateway.
    pub fn api_at(&self, gateway: usize) -> Api {
        self.api.at(self.stack.gateway(gateway))
    }

    /// A device that connects to a gateway for the first time.
    pub async fn on(&self, gateway: usize) -> Device {
        self.says_hello(gateway, Hello::new(self.token())).await
    }

    /// A device that comes back with what another one held.
    pub async fn resumes(&self, gateway: usize, before: &Held) -> Device {
        let hello = Hello {
            generation: Some(before.generation.clone()),
            rooms: before.rooms.clone(),
            ..Hello::new(self.token())
        };
        self.says_hello(gateway, hello).await
    }

    /// A device with a `hello` of one's own making.
    pub async fn says_hello(&self, gateway: usize, hello: Hello) -> Device {
        let hello = Hello { format: self.stack.format(), ..hello };
        let opening = Connection::open(self.stack.gateway(gateway), &hello);
        let opened = within("welcome", opening).await;
        let (connection, welcome, events) = opened.unwrap_or_else(|e| panic!("{} connects: {e}", self.username));
        Device::new(&self.username, connection, welcome, events)
    }

    /// A device that reconnects by itself, to any gateway, beginning with this one.
    pub fn stays_on(&self, gateways: &[usize]) -> (Session, Updates) {
        let urls = gateways.iter().map(|gateway| self.stack.gateway(*gateway).to_owned()).collect();
        let tokens = self.login.tokens.clone();
        let (api, format) = (self.api.clone(), self.stack.format());
        Session::start(Options { urls, spread: false, api, tokens, device: None, presence: true, format })
    }

    /// The direct room with somebody.
    pub async fn direct_with(&self, other: &Self) -> RoomId {
        self.api.direct(other.id()).await.expect("a direct room").body.id
    }

    /// A group with these members.
    pub async fn makes_a_group(&self, name: &str, members: &[&Self]) -> Room {
        self.makes(RoomKind::Group, name, members).await
    }

    /// A channel that anybody may join.
    pub async fn makes_a_channel(&self, name: &str) -> Room {
        self.makes(RoomKind::Channel, name, &[]).await
    }

    async fn makes(&self, kind: RoomKind, name: &str, members: &[&Self]) -> Room {
        let members = members.iter().map(|member| member.id()).collect();
        self.api.create_room(&NewRoom { kind, name: name.to_owned(), topic: None, members }).await.expect("a room")
    }
}
