//! The users and rooms of a run, made through the public API and taken back at its end.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use parlance_client::api::NewRoom;
use parlance_client::wire::RoomKind;
use parlance_client::{Api, RoomId, UserId};
use reqwest::Method;
use tokio::runtime::{Builder, Runtime};

use crate::plan::Plan;
use crate::progress;

/// Calls at a time: registration is slow by design, and more of them would only wait for each other.
const AT_ONCE: usize = 4;

/// Somebody who takes part.
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) api: Api,
}

impl User {
    pub(crate) fn token(&self) -> &str {
        self.api.token().unwrap_or_default()
    }
}

/// The runtime for everything but the load itself.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Registers so many users, spread over the URLs in turn.
pub(crate) async fn users(urls: &[String], run: u32, count: usize) -> anyhow::Result<Vec<User>> {
    progress(format_args!("registering {count} users"));
    let apis = urls.iter().map(|url| Api::new(url)).collect::<Result<Vec<_>, _>>()?;
    let register = |number: usize| {
        let api = apis[number % apis.len()].clone();
        async move {
            let name = format!("lt-{run:08x}-{number}");
            let login = api.register(&name, &format!("{name}-password"), None).await?;
            anyhow::Ok(User { id: login.user.id, api: api.with_token(&login.tokens.access_token) })
        }
    };
    stream::iter(0..count).map(register).buffered(AT_ONCE).try_collect().await.context("cannot register")
}

/// Makes the rooms of a plan, each with all its members; the first of them owns it.
pub(crate) async fn rooms(plan: &Plan, users: &[User]) -> anyhow::Result<Vec<RoomId>> {
    progress(format_args!("making {} rooms of {}", plan.rooms, plan.members));
    let make = |room: usize| {
        let owner = &users[plan.user(room, 0)];
        let members = (1..plan.members).map(|slot| users[plan.user(room, slot)].id).collect();
        let new = NewRoom { kind: RoomKind::Group, name: format!("load {room}"), topic: None, members };
        async move { Ok::<_, parlance_client::Error>(owner.api.create_room(&new).await?.id) }
    };
    stream::iter(0..plan.rooms).map(make).buffered(AT_ONCE).try_collect().await.context("cannot make a room")
}

/// The present number of each room.
pub(crate) async fn seqs(plan: &Plan, users: &[User], rooms: &[RoomId]) -> anyhow::Result<Vec<u64>> {
    let ask = |(at, room): (usize, &RoomId)| {
        let (api, room) = (&users[plan.user(at, 0)].api, *room);
        async move { Ok::<_, parlance_client::Error>(api.room(room).await?.seq) }
    };
    stream::iter(rooms.iter().enumerate()).map(ask).buffered(AT_ONCE).try_collect().await.context("cannot read a room")
}

/// Archives the rooms and logs everybody out. What fails is told and left.
pub(crate) async fn clean_up(plan: Option<&Plan>, users: &[User], rooms: &[RoomId]) {
    let archive = |(at, room): (usize, &RoomId)| {
        let api = users[plan.map_or(0, |plan| plan.user(at, 0))].api.clone();
        let path = format!("/v1/rooms/{room}");
        async move { api.call(Method::DELETE, &path, None).await.map(drop) }
    };
    let archived: Vec<_> = stream::iter(rooms.iter().enumerate()).map(archive).buffered(AT_ONCE).collect().await;
    let logout = |user: &User| {
        let api = user.api.clone();
        async move { api.logout().await }
    };
    let left: Vec<_> = stream::iter(users).map(logout).buffered(AT_ONCE).collect().await;
    if let Some(error) = archived.into_iter().chain(left).find_map(Result::err) {
        progress(format_args!("not everything could be cleaned up: {error}"));
    }
}
