//! The users and rooms of a run, made through the public API and taken back at its end.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use parlance_client::api::NewRoom;
use parlance_client::wire::RoomKind;
use parlance_client::{Api, Error, RoomId, UserId};
use reqwest::Method;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::check::Head;
use crate::lines::Lines;
use crate::plan::Cast;
use crate::pool::Address;
use crate::progress;

/// Calls at a time: registration is slow by design, and more of them would only wait for each other.
const AT_ONCE: usize = 4;
/// How old an access token may be at the start of a run; it lives ten minutes.
const FRESH: Duration = Duration::from_secs(90);
/// Users registered between two lines of progress.
const TELL_EVERY: usize = 500;

/// Somebody who takes part.
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) api: Api,
    refresh_token: String,
    since: Instant,
}

impl User {
    pub(crate) fn token(&self) -> &str {
        self.api.token().unwrap_or_default()
    }
}

/// Which rooms they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rooms {
    Groups,
    /// Of two, each with one user of their own.
    Direct,
}

/// Everybody and everything that takes part.
pub(crate) struct Scene {
    pub(crate) urls: Vec<String>,
    pub(crate) cast: Cast,
    pub(crate) users: Vec<User>,
    pub(crate) rooms: Vec<RoomId>,
    kind: Rooms,
    runtime: Runtime,
}

impl Scene {
    /// Registers the users and makes the rooms. What was made before a failure stays.
    pub(crate) fn set(urls: &[String], cast: Cast, kind: Rooms) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let users = runtime.block_on(users(urls, cast.users))?;
        let mut scene = Self { urls: urls.to_vec(), cast, users, rooms: vec![], kind, runtime };
        progress(format_args!("making {} rooms of {}", cast.rooms, cast.members));
        match scene.runtime.block_on(scene.make_rooms()) {
            Ok(rooms) => scene.rooms = rooms,
            Err(error) => {
                scene.clear();
                return Err(error).context("cannot make a room");
            }
        }
        Ok(scene)
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where everybody connects, with tokens that last for a run.
    pub(crate) fn addresses(&mut self) -> anyhow::Result<Vec<Address>> {
        let Self { runtime, users, .. } = self;
        runtime.block_on(freshen(users))?;
        let cast = self.cast;
        let address = |connection: usize| Address {
            url: self.urls[cast.url_of(connection, self.urls.len())].clone(),
            source: None,
            token: self.users[cast.user_of(connection)].token().into(),
        };
        Ok((0..cast.connections()).map(address).collect())
    }

    /// Connects everybody.
    pub(crate) fn connect(&mut self) -> anyhow::Result<Lines> {
        progress(format_args!("opening {} connections", self.cast.connections()));
        let addresses = self.addresses()?;
        Lines::open(&self.urls, addresses)
    }

    /// Where each room stands.
    pub(crate) fn heads(&self) -> anyhow::Result<Vec<Head>> {
        let ask = |(at, room): (usize, &RoomId)| {
            let (api, room) = (self.owner(at).api.clone(), *room);
            async move {
                let room = api.room(room).await?;
                Ok::<_, Error>(Head { seq: room.seq, rev: room.rev })
            }
        };
        let heads = stream::iter(self.rooms.iter().enumerate()).map(ask).buffered(AT_ONCE).try_collect();
        self.runtime.block_on(heads).context("cannot read a room")
    }

    /// From now on everybody calls here.
    pub(crate) fn move_to(&mut self, url: &str) {
        self.users.iter_mut().for_each(|user| user.api = user.api.at(url));
    }

    /// Archives the rooms and logs everybody out. What fails is told and left.
    pub(crate) fn clear(&mut self) {
        progress("cleaning up");
        let Self { runtime, users, .. } = self;
        if let Err(error) = runtime.block_on(freshen(users)) {
            progress(format_args!("not everything can be cleaned up: {error:#}"));
        }
        // The room of two stays: it is theirs for ever.
        let rooms = if self.kind == Rooms::Groups { &self.rooms[..] } else { &[] };
        let archive = |(at, room): (usize, &RoomId)| {
            let (api, path) = (self.owner(at).api.clone(), format!("/v1/rooms/{room}"));
            async move { api.call(Method::DELETE, &path, None).await.map(drop) }
        };
        let archived: Vec<_> =
            self.runtime.block_on(stream::iter(rooms.iter().enumerate()).map(archive).buffered(AT_ONCE).collect());
        if let Some(error) = archived.into_iter().find_map(Result::err) {
            progress(format_args!("not every room could be archived: {error}"));
        }
        self.runtime.block_on(log_out(&self.users));
    }

    fn owner(&self, room: usize) -> &User {
        &self.users[self.cast.user(room, 0)]
    }

    /// Each room with all its members; the first of them owns it.
    async fn make_rooms(&self) -> Result<Vec<RoomId>, Error> {
        let cast = self.cast;
        let make = |room: usize| {
            let (api, kind) = (&self.owner(room).api, self.kind);
            let members: Vec<_> = (1..cast.members).map(|slot| self.users[cast.user(room, slot)].id).collect();
            async move {
                match kind {
                    Rooms::Direct => api.direct(members[0]).await.map(|answer| answer.body.id),
                    Rooms::Groups => group(api, &format!("load {room}"), members).await,
                }
            }
        };
        stream::iter(0..cast.rooms).map(make).buffered(AT_ONCE).try_collect().await
    }
}

/// The runtime for everything but the load itself.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A group with all these members.
pub(crate) async fn group(api: &Api, name: &str, members: Vec<UserId>) -> Result<RoomId, Error> {
    let new = NewRoom { kind: RoomKind::Group, name: name.to_owned(), topic: None, members };
    Ok(api.create_room(&new).await?.id)
}

/// Registers so many users, spread over the URLs in turn.
pub(crate) async fn users(urls: &[String], count: usize) -> anyhow::Result<Vec<User>> {
    let run = Uuid::new_v4().as_fields().0;
    let apis = urls.iter().map(|url| Api::new(url)).collect::<Result<Vec<_>, _>>()?;
    let register = |number: usize| {
        let api = apis[number % apis.len()].clone();
        async move {
            if number.is_multiple_of(TELL_EVERY) {
                progress(format_args!("registering users: {number} of {count}"));
            }
            let name = format!("lt-{run:08x}-{number}");
            let login = api.register(&name, &format!("{name}-password"), None).await?;
            anyhow::Ok(User {
                id: login.user.id,
                api: api.with_token(&login.tokens.access_token),
                refresh_token: login.tokens.refresh_token,
                since: Instant::now(),
            })
        }
    };
    stream::iter(0..count).map(register).buffered(AT_ONCE).try_collect().await.context("cannot register")
}

/// Exchanges the tokens that would not last for a run.
pub(crate) async fn freshen(users: &mut [User]) -> anyhow::Result<()> {
    let freshen = |user: &mut User| {
        let (api, token) = (user.api.clone(), user.refresh_token.clone());
        let is_fresh = user.since.elapsed() < FRESH;
        async move { if is_fresh { Ok(None) } else { api.refresh(&token, Some(Uuid::new_v4())).await.map(Some) } }
    };
    let calls: Vec<_> = users.iter_mut().map(freshen).collect();
    let tokens: Vec<_> = stream::iter(calls).buffered(AT_ONCE).try_collect().await.context("cannot refresh a token")?;
    for (user, tokens) in users.iter_mut().zip(tokens) {
        if let Some(tokens) = tokens {
            user.api = user.api.with_token(&tokens.access_token);
            user.refresh_token = tokens.refresh_token;
            user.since = Instant::now();
        }
    }
    Ok(())
}

/// What fails is told and left.
pub(crate) async fn log_out(users: &[User]) {
    let logout = |user: &User| {
        let api = user.api.clone();
        async move { api.logout().await }
    };
    let left: Vec<_> = stream::iter(users).map(logout).buffered(AT_ONCE).collect().await;
    if let Some(error) = left.into_iter().find_map(Result::err) {
        progress(format_args!("not everybody could be logged out: {error}"));
    }
}
