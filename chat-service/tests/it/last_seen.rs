//! When users were last seen: taken over from presence-service, never moved back, shown to who may see it.

use std::sync::{Arc, Mutex};

use parlance_proto::{
    chat,
    presence::{
        ChooseReply, ChooseRequest, Seen, SeenList, SeenStoredReply, StatesReply, StatesRequest, TakeSeenRequest,
        presence_server::{Presence, PresenceServer},
    },
};
use service_kit::{id::UserId, on_db};
use tonic::{Request, Response, Status, service::Routes};

use crate::{Person, Replica, Service, Setup, chat_world::eventually, stories};

stories! {
    it_is_stored_and_shown_to_who_may_see_it
    it_never_moves_back
    a_presence_service_that_is_away_is_asked_again
    what_could_not_be_confirmed_comes_again_and_changes_nothing
}

/// A presence-service that hands out what a story tells it to.
#[derive(Clone, Default)]
struct Double(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Batches that wait; each comes again until it is confirmed.
    batches: Vec<Vec<Seen>>,
    taken: usize,
    away: bool,
    /// Confirming does not get through.
    deaf: bool,
}

impl Double {
    /// These are handed out, in this order, in one batch.
    fn hands_out(&self, seen: &[(&Person, i64)]) {
        let batch = seen.iter().map(|(person, at)| Seen { user: person.wire(), at: *at }).collect();
        self.0.lock().unwrap().batches.push(batch);
    }

    async fn is_rid_of_everything(&self) {
        eventually("the confirmation", async || self.0.lock().unwrap().batches.is_empty().then_some(())).await;
    }

    fn taken(&self) -> usize {
        self.0.lock().unwrap().taken
    }

    async fn is_asked(&self, times: usize) {
        eventually("being asked", async || (self.taken() >= times).then_some(())).await;
    }

    fn is(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    /// A replica that asks this one.
    async fn asked_by_a_replica(&self, service: &Service) -> Replica {
        let setup = Setup { presence: Some(Routes::new(PresenceServer::new(self.clone()))), ..Setup::default() };
        Replica::start(service.database.url(), service.bus.clone(), setup).await
    }
}

#[tonic::async_trait]
impl Presence for Double {
    async fn take_seen(&self, _: Request<TakeSeenRequest>) -> Result<Response<SeenList>, Status> {
        let mut state = self.0.lock().unwrap();
        state.taken += 1;
        if state.away {
            return Err(Status::unavailable("the presence store is away"));
        }
        let items = state.batches.first().cloned().unwrap_or_default();
        Ok(Response::new(SeenList { items, more: state.batches.len() > 1 }))
    }

    async fn seen_stored(&self, request: Request<SeenList>) -> Result<Response<SeenStoredReply>, Status> {
        let mut state = self.0.lock().unwrap();
        if state.deaf {
            return Err(Status::unavailable("the presence store is away"));
        }
        assert_eq!(request.into_inner().items, state.batches.remove(0));
        Ok(Response::new(SeenStoredReply {}))
    }

    async fn states(&self, _: Request<StatesRequest>) -> Result<Response<StatesReply>, Status> {
        Err(Status::unimplemented("only gateways do this"))
    }

    async fn choose(&self, _: Request<ChooseRequest>) -> Result<Response<ChooseReply>, Status> {
        Err(Status::unimplemented("only gateways do this"))
    }
}

/// What the database has.
async fn stored(service: &Service, person: &Person) -> Option<i64> {
    on_db!(&service.db, p => sqlx::query_scalar("select at from last_seen where user_id = $1")
        .bind(person.id)
        .fetch_optional(p)
        .await
        .unwrap())
}

/// Whom this one may watch, and when they were last seen.
async fn watches(service: &Service, viewer: &Person, others: &[&Person]) -> Vec<(UserId, i64)> {
    let users = others.iter().map(|person| person.wire()).collect();
    let request = chat::WatchableRequest { actor: viewer.actor.clone(), users };
    let reply = service.sync().watchable(request).await.unwrap().into_inner();
    assert_eq!(reply.users.len(), reply.last_seen.len());
    reply.users.iter().map(|user| UserId::from_wire(user, "user").unwrap()).zip(reply.last_seen).collect()
}

async fn it_is_stored_and_shown_to_who_may_see_it(service: &Service) {
    let [maja, friend, shy, stranger, unseen] = service.people().await;
    service.group(&maja, [&friend, &shy, &unseen]).await;
    for hider in [&maja, &shy] {
        let patch = chat::PatchMeRequest { actor: hider.actor.clone(), presence: Some(false), ..Default::default() };
        service.accounts().patch_me(patch).await.unwrap();
    }
    let double = Double::default();
    double.hands_out(&[(&stranger, 4_000), (&friend, 2_000), (&shy, 3_000), (&maja, 1_000)]);
    let replica = double.asked_by_a_replica(service).await;
    double.is_rid_of_everything().await;

    let everybody = [&maja, &friend, &shy, &stranger, &unseen];
    let hers = watches(service, &maja, &everybody).await;
    assert_eq!(hers, [(maja.id, 1_000), (friend.id, 2_000), (unseen.id, 0)], "one's own, whatever one hides");
    let his = watches(service, &friend, &everybody).await;
    assert_eq!(his, [(friend.id, 2_000), (unseen.id, 0)]);
    assert_eq!(watches(service, &stranger, &everybody).await, [(stranger.id, 4_000)]);
    replica.stop().await;
}

async fn it_never_moves_back(service: &Service) {
    let [maja, other] = service.people().await;
    let double = Double::default();
    double.hands_out(&[(&maja, 5_000), (&other, 1_000)]);
    double.hands_out(&[(&other, 2_000), (&maja, 4_000)]);
    // Twice in one batch, in either order.
    double.hands_out(&[(&other, 3_000), (&other, 2_500), (&maja, 1), (&maja, 4_999)]);
    let replica = double.asked_by_a_replica(service).await;
    double.is_rid_of_everything().await;
    assert_eq!((stored(service, &maja).await, stored(service, &other).await), (Some(5_000), Some(3_000)));
    replica.stop().await;
}

async fn a_presence_service_that_is_away_is_asked_again(service: &Service) {
    let [maja] = service.people().await;
    let double = Double::default();
    double.is(|state| state.away = true);
    double.hands_out(&[(&maja, 1_000)]);
    let replica = double.asked_by_a_replica(service).await;
    double.is_asked(2).await;
    assert_eq!(stored(service, &maja).await, None);
    double.is(|state| state.away = false);
    double.is_rid_of_everything().await;
    assert_eq!(stored(service, &maja).await, Some(1_000));
    replica.stop().await;
}

async fn what_could_not_be_confirmed_comes_again_and_changes_nothing(service: &Service) {
    let [maja] = service.people().await;
    let double = Double::default();
    double.is(|state| state.deaf = true);
    double.hands_out(&[(&maja, 1_000)]);
    let replica = double.asked_by_a_replica(service).await;
    double.is_asked(3).await;
    assert_eq!(stored(service, &maja).await, Some(1_000));
    double.is(|state| state.deaf = false);
    double.is_rid_of_everything().await;
    assert_eq!(stored(service, &maja).await, Some(1_000));
    replica.stop().await;
}
