//! A chat-service that knows keys and takes notes, in front of which the whole edge can be built.

use std::sync::Arc;

use gateway::{files::Files, http::Edge, limit::Limits, services::Services, token::Tokens};
use service_kit::{
    auth::Signer,
    clock,
    id::{SessionId, UserId},
    rpc,
    tasks::Tasks,
};
use tonic::service::Routes;

use crate::{fake_rooms::Noted, stage::accounts::Keys};

pub(crate) fn signer() -> Signer {
    Signer::from_pem(&Signer::generate_pem().expect("a key")).expect("a key")
}

/// A token of somebody, issued so many milliseconds ago for a minute.
pub(crate) fn token(signer: &Signer, age_ms: i64) -> String {
    signer.sign(UserId::generate(), SessionId::generate(), clock::now_ms() - age_ms, 60).expect("a token")
}

/// An edge before that service, with this key published.
pub(crate) async fn edge(signer: &Signer, limits: bool) -> (Edge, Arc<Keys>, Noted) {
    let keys = Keys::of(signer);
    let noted = Noted::default();
    let mut routes = Routes::builder();
    keys.serve(&mut routes);
    noted.serve(&mut routes);
    // The other two are never there.
    let nowhere = rpc::connect("http://127.0.0.1:9").expect("a URL");
    let services = Services::new(&rpc::in_process(routes.routes(), &Tasks::new()), &nowhere, &nowhere);
    let tokens = Tokens::new(services.accounts.clone());
    tokens.load().await;
    let edge = Edge {
        services,
        tokens,
        limits: Limits::new(limits),
        files: Files::default(),
        allowed_origins: vec!["https://chat.example".to_owned()].into(),
        trusted_proxies: Vec::new().into(),
    };
    (edge, keys, noted)
}
