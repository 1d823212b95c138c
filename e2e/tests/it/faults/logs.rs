//! Neither tokens nor passwords nor texts get into a log, however much is logged.

use std::path::Path;

use e2e::OwnCluster;
use parlance_client::frame::Range;
use parlance_client::{Code, Draft};
use serde_json::json;
use uuid::Uuid;

use super::super::is_refused;

fault_stories!([("RUST_LOG", "debug")]; no_secret_and_no_text_is_logged);

async fn no_secret_and_no_text_is_logged(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let canary = |what: &str| format!("canary-{what}-{}", Uuid::new_v4().simple());
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("logs", &[&bob]).await.id;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let (text, posted, edited, draft) = (canary("text"), canary("posted"), canary("edited"), canary("draft"));
    let (wrong, new) = (canary("wrong"), canary("password"));

    let sent = desk.sends(room, &text).await;
    let meta = Draft { meta: Some(json!({ "note": canary("meta") })), ..Draft::text(&posted) };
    alice.api.post_message(room, &meta).await.unwrap();
    desk.connection.edit(room, sent.seq, &edited).await.unwrap();
    let own = parlance_client::api::OwnSettings { draft: Some(draft.clone()), ..Default::default() };
    alice.api.patch_own(room, &own).await.unwrap();
    bob.api_at(1).history(room, Range::default()).await.unwrap();
    // What is refused is where a careless server explains itself.
    is_refused(desk.connection.send(room, &Draft::text(format!("{text}\0"))).await, Code::BadRequest);
    is_refused(stack.api(1).login(&alice.username, &wrong, None).await, Code::Unauthenticated);
    is_refused(stack.api(0).with_token(&format!("{}x", alice.token())).me().await, Code::Unauthenticated);
    is_refused(alice.api.change_password(&wrong, &new).await, Code::Forbidden);
    alice.api.change_password(&alice.password, &new).await.unwrap();
    let login = stack.api(1).login(&alice.username, &new, None).await.unwrap();
    let renewed = stack.api(0).refresh(&login.tokens.refresh_token, Some(Uuid::new_v4())).await.unwrap();
    // A service that dies with messages on its way complains most.
    cluster.kills("chat-service", 0).await;
    let last = canary("last");
    desk.sends(room, &last).await;
    bobs.receives(&last).await;

    let mut secrets = vec![text, posted, edited, draft, wrong, new, "canary-".to_owned(), alice.password.clone()];
    for tokens in [&alice.login.tokens, &bob.login.tokens, &login.tokens, &renewed] {
        // The signature alone is enough to know the token by, wherever its beginning was cut off.
        secrets.extend(tokens.access_token.rsplit('.').next().map(str::to_owned));
        secrets.push(tokens.refresh_token.clone());
    }
    let logs = [logs(cluster.dir()), logs(&cluster.dir().join("services"))].concat();
    let names: Vec<_> = logs.iter().map(|(name, _)| name.as_str()).collect();
    assert!(["gateway-1.log", "chat-service-1.log", "postgres.log"].iter().all(|n| names.contains(n)), "{names:?}");
    assert!(logs.iter().any(|(name, text)| name == "gateway-1.log" && text.contains("DEBUG")), "it was asked for more");
    for (name, log) in &logs {
        for line in log.lines() {
            let found = secrets.iter().find(|secret| line.contains(&***secret));
            assert_eq!(found, None, "in {name}: {line}");
        }
    }
}

/// The logs in a folder: name and text.
fn logs(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            (path.file_name().unwrap().to_string_lossy().into_owned(), text)
        })
        .collect()
}
