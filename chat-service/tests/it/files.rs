//! What is known of files: how much they take, when they are to be removed, and that every step can be done again.

use parlance_proto::{
    files::{BeginRequest, DeadList, FileRequest, FinishRequest, TakeDeadRequest, files_client::FilesClient},
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
    assert_eq!(finish(service, &alice, &file, 901).await.unwrap_err(), Code::InvalidArgument);
    let ready = finish(service, &alice, &file, 300).await.unwrap();
    assert_eq!((ready.size, ready.state()), (300, v1::FileState::Ready));
    assert_eq!(finish(service, &alice, &file, 300).await.unwrap(), ready, "said twice");
    begin(service, &alice, 700).await.unwrap();
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
