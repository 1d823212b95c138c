//! What is known of files: how much they take, when they are to be removed, and that every step can be done again.

use parlance_proto::{
    files::{
        BeginRequest, DeadList, FileRequest, FinishRequest, HoldRequest, TakeDeadRequest, TakeHeldRequest,
        files_client::FilesClient,
    },
    v1,
};
use service_kit::{on_tx, rpc::Client};
use tonic::Code;

use crate::{Person, Service, stories};

stories! {
    a_file_takes_what_it_is_and_not_what_was_kept_free
    everybody_together_takes_no_more_than_there_is
    an_upload_that_never_ends_is_handed_out_until_it_is_removed
    a_file_is_its_owners
    a_held_file_is_pending_until_a_gateway_says_what_it_is
    a_held_file_that_nobody_finishes_is_handed_out_later_and_later
    a_held_file_can_be_given_up_and_its_time_can_be_over
    the_bytes_of_a_rejected_file_are_removed_by_somebody
}

pub(crate) fn files(service: &Service) -> FilesClient<Client> {
    FilesClient::new(service.client.clone())
}

pub(crate) async fn begin(service: &Service, who: &Person, most: i64) -> Result<bytes::Bytes, Code> {
    let request = BeginRequest { actor: Some(who.actor()), name: "a".to_owned(), most, ..BeginRequest::default() };
    files(service).begin(request).await.map(|reply| reply.into_inner().file).map_err(|status| status.code())
}

pub(crate) async fn finish(service: &Service, who: &Person, file: &bytes::Bytes, size: i64) -> Result<v1::File, Code> {
    let request = FinishRequest {
        actor: Some(who.actor()),
        file: file.clone(),
        media_type: "text/plain".to_owned(),
        size,
        ..FinishRequest::default()
    };
    files(service).finish(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

pub(crate) async fn get(service: &Service, who: &Person, file: &bytes::Bytes) -> Result<v1::File, Code> {
    let request = FileRequest { actor: Some(who.actor()), file: file.clone() };
    let readable = files(service).get(request).await.map_err(|status| status.code())?;
    Ok(readable.into_inner().file.expect("a file"))
}

pub(crate) async fn dead(service: &Service) -> Vec<bytes::Bytes> {
    files(service).take_dead(TakeDeadRequest { limit: 10 }).await.unwrap().into_inner().files
}

/// Lets the time of a file be over.
pub(crate) async fn time_passes(service: &Service) {
    let mut tx = service.db.begin().await.unwrap();
    on_tx!(&mut tx, c => sqlx::query("update files set expires_at = 1").execute(c).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

async fn a_file_takes_what_it_is_and_not_what_was_kept_free(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    assert_eq!(begin(service, &alice, 1001).await.unwrap_err(), Code::FailedPrecondition);
    let file = begin(service, &alice, 900).await.unwrap();
    assert_eq!(begin(service, &alice, 200).await.unwrap_err(), Code::FailedPrecondition, "900 are kept free");
    assert_eq!(finish(service, &alice, &file, 965).await.unwrap_err(), Code::InvalidArgument);
    let ready = finish(service, &alice, &file, 300).await.unwrap();
    assert_eq!((ready.size, ready.state()), (300, v1::FileState::Ready));
    assert_eq!(finish(service, &alice, &file, 300).await.unwrap(), ready, "said twice");
    let file = begin(service, &alice, 600).await.unwrap();
    assert_eq!(finish(service, &alice, &file, 640).await.unwrap().size, 640, "what was taken out left a note");
    assert_eq!(begin(service, &alice, 61).await.unwrap_err(), Code::FailedPrecondition, "60 are left");
    begin(service, &alice, 60).await.unwrap();
}

async fn everybody_together_takes_no_more_than_there_is(service: &Service) {
    let crowd = service.crowd(3).await;
    begin(service, &crowd[0], 1000).await.unwrap();
    begin(service, &crowd[1], 900).await.unwrap();
    assert_eq!(begin(service, &crowd[2], 101).await.unwrap_err(), Code::FailedPrecondition);
    begin(service, &crowd[2], 100).await.unwrap();
}

async fn an_upload_that_never_ends_is_handed_out_until_it_is_removed(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    let file = begin(service, &alice, 1000).await.unwrap();
    assert!(dead(service).await.is_empty());
    time_passes(service).await;
    assert_eq!(dead(service).await, std::slice::from_ref(&file));
    assert!(dead(service).await.is_empty(), "it is being removed");
    assert_eq!(finish(service, &alice, &file, 10).await.unwrap_err(), Code::NotFound, "too late");
    assert_eq!(get(service, &alice, &file).await.unwrap_err(), Code::NotFound);
    time_passes(service).await;
    assert_eq!(dead(service).await, std::slice::from_ref(&file), "whoever took it has said nothing");
    for _ in 0..2 {
        files(service).removed(DeadList { files: vec![file.clone()] }).await.unwrap();
    }
    begin(service, &alice, 1000).await.unwrap();
}

async fn a_file_is_its_owners(service: &Service) {
    let [alice, eve]: [Person; 2] = service.crowd(2).await.try_into().ok().unwrap();
    let file = begin(service, &alice, 10).await.unwrap();
    assert_eq!(get(service, &alice, &file).await.unwrap().state(), v1::FileState::Pending);
    assert_eq!(finish(service, &eve, &file, 10).await.unwrap_err(), Code::NotFound);
    let abort = FileRequest { actor: Some(eve.actor()), file: file.clone() };
    assert_eq!(files(service).abort(abort).await.unwrap_err().code(), Code::NotFound);
    finish(service, &alice, &file, 10).await.unwrap();
    assert_eq!(get(service, &eve, &file).await.unwrap_err(), Code::NotFound);
}

async fn hold(service: &Service, who: &Person, file: &bytes::Bytes, size: i64) -> Result<v1::File, Code> {
    let media_type = "text/plain".to_owned();
    let request = HoldRequest { actor: Some(who.actor()), file: file.clone(), media_type, size };
    files(service).hold(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

async fn take(service: &Service, limit: i64) -> Vec<bytes::Bytes> {
    let taken = files(service).take_held(TakeHeldRequest { limit, lease_ms: 60_000 }).await.unwrap().into_inner();
    taken.files.into_iter().map(|held| held.file).collect()
}

/// As a gateway does that has taken it.
async fn says(service: &Service, file: &bytes::Bytes, rejected: Option<&str>) -> Result<v1::File, Code> {
    let (media_type, rejected) = ("text/plain".to_owned(), rejected.map(str::to_owned));
    let request = FinishRequest { file: file.clone(), media_type, size: 304, rejected, ..FinishRequest::default() };
    files(service).finish(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

/// How long until a file is to be taken up, in milliseconds. Lets that time be over.
async fn is_due(service: &Service) -> Option<i64> {
    let mut tx = service.db.begin().await.unwrap();
    let (due,): (Option<i64>,) =
        on_tx!(&mut tx, c => sqlx::query_as("select max(due_at) from files").fetch_one(c).await).unwrap();
    let past = "update files set due_at = 1 where due_at is not null";
    on_tx!(&mut tx, c => sqlx::query(past).execute(c).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
    due.map(|due| due - service_kit::clock::now_ms())
}

async fn a_held_file_is_pending_until_a_gateway_says_what_it_is(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    let key = Some("the key".to_owned());
    let upload = BeginRequest {
        actor: Some(alice.actor()),
        name: "a".to_owned(),
        most: 900,
        idempotency_key: key,
        resumable: false,
    };
    let file = files(service).begin(upload.clone()).await.unwrap().into_inner().file;
    assert_eq!(files(service).begin(upload.clone()).await.unwrap_err().code(), Code::AlreadyExists, "it is coming");
    assert_eq!(says(service, &file, None).await.unwrap().state(), v1::FileState::Pending, "nobody holds it");
    assert_eq!(hold(service, &alice, &file, 965).await.unwrap_err(), Code::InvalidArgument);
    let held = hold(service, &alice, &file, 300).await.unwrap();
    assert_eq!((held.state(), held.size, &*held.media_type), (v1::FileState::Pending, 300, "text/plain"));
    assert_eq!(hold(service, &alice, &file, 200).await.unwrap(), held, "said twice");
    begin(service, &alice, 700).await.expect("only what it takes counts");
    assert_eq!(files(service).begin(upload.clone()).await.unwrap().into_inner().made, Some(held.clone()));

    assert_eq!(finish(service, &alice, &file, 300).await.unwrap(), held, "its upload has no say in it any more");
    assert!(take(service, 0).await.is_empty());
    assert_eq!(take(service, 10).await, std::slice::from_ref(&file));
    assert!(take(service, 10).await.is_empty(), "somebody is at it");
    let ready = says(service, &file, None).await.unwrap();
    assert_eq!((ready.state(), ready.size), (v1::FileState::Ready, 304), "what was taken out left a note");
    assert_eq!(says(service, &file, Some("too late")).await.unwrap(), ready, "the first word counts");
    assert_eq!(is_due(service).await, None);
    assert_eq!(files(service).begin(upload).await.unwrap().into_inner().made, Some(ready));
}

async fn a_held_file_that_nobody_finishes_is_handed_out_later_and_later(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    let file = begin(service, &alice, 900).await.unwrap();
    hold(service, &alice, &file, 300).await.unwrap();
    for times in 1..4 {
        assert_eq!(take(service, 10).await, std::slice::from_ref(&file));
        let due = is_due(service).await.unwrap();
        assert!((due - times * 60_000).abs() < 10_000, "{due} ms the {times}. time");
    }
}

async fn a_held_file_can_be_given_up_and_its_time_can_be_over(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    for is_given_up in [true, false] {
        let file = begin(service, &alice, 1000).await.unwrap();
        hold(service, &alice, &file, 1000).await.unwrap();
        if is_given_up {
            let abort = FileRequest { actor: Some(alice.actor()), file: file.clone() };
            files(service).abort(abort).await.unwrap();
        } else {
            time_passes(service).await;
        }
        assert_eq!(dead(service).await, std::slice::from_ref(&file));
        assert!(take(service, 10).await.is_empty());
        assert_eq!(says(service, &file, None).await.unwrap_err(), Code::NotFound, "too late");
        files(service).removed(DeadList { files: vec![file] }).await.unwrap();
    }
}

async fn the_bytes_of_a_rejected_file_are_removed_by_somebody(service: &Service) {
    let [alice]: [Person; 1] = service.crowd(1).await.try_into().ok().unwrap();
    let file = begin(service, &alice, 1000).await.unwrap();
    hold(service, &alice, &file, 1000).await.unwrap();
    let rejected = says(service, &file, Some("a virus")).await.unwrap();
    assert_eq!(
        (rejected.state(), rejected.size, rejected.reason.as_deref()),
        (v1::FileState::Rejected, 0, Some("a virus"))
    );
    assert!(dead(service).await.is_empty(), "whoever said so is at it");
    for _ in 0..2 {
        is_due(service).await.expect("something is left to do");
        assert_eq!(dead(service).await, std::slice::from_ref(&file));
        assert!(dead(service).await.is_empty(), "it is being removed");
    }
    files(service).removed(DeadList { files: vec![file.clone()] }).await.unwrap();
    assert_eq!(is_due(service).await, None);
    assert_eq!(get(service, &alice, &file).await.unwrap(), rejected, "its owner still sees why");
    begin(service, &alice, 1000).await.expect("it takes no room");
}
