//! How users want to be shown: stored until they choose again, and there with each hello.

use futures_util::future;
use parlance_proto::{
    chat,
    v1::PresenceState::{self, Away, Dnd, Invisible, Online},
};
use service_kit::on_tx;
use tonic::{Code, Response, Status};

use crate::{Person, Service, refused, stories};

stories! {
    a_choice_is_there_with_each_hello_until_changed
    gateways_read_many_at_once
    the_same_again_is_no_new_choice
    of_choices_at_once_each_has_a_version_of_its_own
    a_choice_is_later_than_the_one_before_whatever_the_clock_says
    only_a_standing_session_chooses_and_only_what_there_is
}

async fn tries(service: &Service, person: &Person, state: PresenceState) -> Result<Response<chat::Choice>, Status> {
    let request = chat::ChooseRequest { actor: person.actor.clone(), state: state.into() };
    service.accounts().choose(request).await
}

async fn chooses(service: &Service, person: &Person, state: PresenceState) -> chat::Choice {
    let choice = tries(service, person, state).await.unwrap().into_inner();
    assert_eq!(choice.state(), state);
    choice
}

async fn hello(service: &Service, person: &Person) -> Option<chat::Choice> {
    let request = chat::HelloRequest { actor: person.actor.clone(), ..Default::default() };
    service.sync().hello(request).await.unwrap().into_inner().choice
}

async fn read(service: &Service, people: &[&Person]) -> Vec<chat::Choice> {
    let users = people.iter().map(|person| person.wire()).collect();
    service.sync().choices(chat::ChoicesRequest { users }).await.unwrap().into_inner().items
}

async fn a_choice_is_there_with_each_hello_until_changed(service: &Service) {
    let [maja, other] = service.people().await;
    assert_eq!(hello(service, &maja).await, None);
    let invisible = chooses(service, &maja, Invisible).await;
    assert_eq!(hello(service, &maja).await, Some(invisible));
    assert_eq!(hello(service, &other).await, None, "it is of one user");
    let online = chooses(service, &maja, Online).await;
    assert!(online.version > invisible.version);
    assert_eq!(hello(service, &maja).await, Some(online));
}

async fn gateways_read_many_at_once(service: &Service) {
    let [maja, noor, never] = service.people().await;
    let (dnd, invisible) = (chooses(service, &maja, Dnd).await, chooses(service, &noor, Invisible).await);
    let nothing = chat::Choice::default();
    assert_eq!(read(service, &[&noor, &never, &maja, &noor]).await, [invisible, nothing, dnd, invisible]);
    assert_eq!(read(service, &[]).await, []);
}

async fn the_same_again_is_no_new_choice(service: &Service) {
    let [maja] = service.people().await;
    let online = chooses(service, &maja, Online).await;
    assert_eq!(chooses(service, &maja, Online).await, online, "as each time that a client was idle");
}

async fn of_choices_at_once_each_has_a_version_of_its_own(service: &Service) {
    let [maja] = service.people().await;
    let wanted = [Dnd, Invisible].into_iter().cycle().take(16);
    let mut made = future::join_all(wanted.map(|state| chooses(service, &maja, state))).await;
    made.sort_by_key(|choice| choice.version);
    // The same choice twice in a row may have been one.
    made.dedup();
    assert!(made.is_sorted_by(|one, next| one.version < next.version), "{made:?}");
    assert_eq!(read(service, &[&maja]).await, [*made.last().unwrap()], "the latest one stands");
}

async fn a_choice_is_later_than_the_one_before_whatever_the_clock_says(service: &Service) {
    let [maja] = service.people().await;
    chooses(service, &maja, Dnd).await;
    let ahead = 9_000_000_000_000_i64;
    let mut tx = service.db.begin().await.unwrap();
    on_tx!(&mut tx, c => sqlx::query("update choices set version = $2 where user_id = $1")
        .bind(maja.id)
        .bind(ahead)
        .execute(c)
        .await
        .map(|_| ()))
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(chooses(service, &maja, Invisible).await.version, ahead + 1);
}

async fn only_a_standing_session_chooses_and_only_what_there_is(service: &Service) {
    let [maja] = service.people().await;
    assert!(refused(tries(service, &maja, Away).await, Code::InvalidArgument).starts_with("state:"));
    service.accounts().logout(maja.actor()).await.unwrap();
    refused(tries(service, &maja, Dnd).await, Code::Unauthenticated);
    assert_eq!(read(service, &[&maja]).await, [chat::Choice::default()]);
}
