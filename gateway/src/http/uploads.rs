//! Resumable uploads: the tus protocol 1.0.0 with creation, termination, expiration and checksum. The id of an upload is that
//! of its file.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{head, options},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parlance_proto::files as wire;
use service_kit::id::FileId;

use super::{
    Edge,
    reply::Answer,
    request::{Path, idempotency_key},
};
use crate::{
    error::Problem,
    files::{Checksum, Piece, clean_name},
    frame::Code,
    token::Caller,
};

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,termination,expiration,checksum";
const ALGORITHMS: &str = "sha256,sha1";
const MEDIA_TYPE: &str = "application/offset+octet-stream";

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

pub(super) fn routes() -> Router<Edge> {
    let version = |mut response: Response| async {
        set(&mut response, TUS_RESUMABLE, VERSION);
        response
    };
    Router::new()
        .route("/v1/uploads", options(able).post(create))
        .route("/v1/uploads/{upload}", options(able).merge(head(progress)).patch(append).delete(terminate))
        .layer(map_response(version))
}

/// What this server can do; nobody has to be logged in to ask.
async fn able(State(edge): State<Edge>) -> Answer {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set(&mut response, TUS_VERSION, VERSION);
    set(&mut response, TUS_EXTENSION, EXTENSIONS);
    set(&mut response, TUS_CHECKSUM_ALGORITHM, ALGORITHMS);
    set(&mut response, TUS_MAX_SIZE, &edge.files.keeper()?.max_bytes.to_string());
    Ok(response)
}

async fn create(State(edge): State<Edge>, caller: Caller, headers: HeaderMap) -> Answer {
    check_version(&headers)?;
    let length = number(&headers, &UPLOAD_LENGTH)?;
    let name = clean_name(file_name(&headers)?.as_deref());
    let idempotency_key = idempotency_key(&headers)?;
    if length == 0 {
        return Err(Problem::new(Code::BadRequest, "Upload-Length: must be at least 1"));
    }
    let most = edge.files.keeper()?.max_bytes;
    if length > most {
        return Err(Problem::new(Code::TooLarge, format!("Upload-Length: is above {most} bytes")));
    }
    let begin = wire::BeginRequest {
        actor: Some(caller.actor.clone()),
        name,
        most: i64::try_from(length).unwrap_or(i64::MAX),
        idempotency_key,
        resumable: true,
    };
    let begun = edge.services.files.clone().begin(begin).await?.into_inner();
    let file = FileId::from_wire(&begun.file, "file")?;
    let mut response = told(StatusCode::CREATED, &ask(&edge, &caller, file).await?);
    set(&mut response, header::LOCATION, &format!("/v1/uploads/{file}"));
    Ok(response)
}

/// How far an upload is. One that has all its bytes is put together now when that did not happen before.
async fn progress(State(edge): State<Edge>, caller: Caller, path: Path, headers: HeaderMap) -> Answer {
    check_version(&headers)?;
    let file = FileId(path.uuid("upload")?);
    let progress = complete(&edge, &caller, file).await?;
    let mut response = told(StatusCode::OK, &progress);
    set(&mut response, UPLOAD_LENGTH, &progress.length.to_string());
    set(&mut response, header::CACHE_CONTROL, "no-store");
    if let Some(known) = &progress.file {
        set(&mut response, UPLOAD_METADATA, &format!("filename {}", STANDARD.encode(&known.name)));
    }
    Ok(response)
}

async fn append(State(edge): State<Edge>, caller: Caller, path: Path, headers: HeaderMap, body: Body) -> Answer {
    check_version(&headers)?;
    let file = FileId(path.uuid("upload")?);
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes() != MEDIA_TYPE.as_bytes()) {
        return Err(Problem::new(Code::UnsupportedMedia, format!("the body must be {MEDIA_TYPE}")));
    }
    let offset = number(&headers, &UPLOAD_OFFSET)?;
    let checksum = checksum(&headers)?;
    let known = ask(&edge, &caller, file).await?;
    if u64::try_from(known.offset) != Ok(offset) {
        return Err(Problem::new(Code::Conflict, format!("Upload-Offset: the upload is at {}", known.offset)));
    }
    let missing = u64::try_from(known.length - known.offset).unwrap_or_default();
    let piece = Piece { actor: caller.actor.clone(), file, start: known.offset, missing };
    let keeper = edge.files.keeper()?;
    // On a task of its own: when the client goes away, this handler is gone too, and what has come is to count.
    let (receiver, services) = (Arc::clone(&keeper), edge.services.clone());
    let receiving = keeper.tasks.spawn(async move {
        let body = body.into_data_stream().map_err(|_| Problem::new(Code::BadRequest, "the body ended too early"));
        receiver.receive(&services, piece, checksum, body).await
    });
    receiving.await.map_err(|_| Problem::new(Code::Internal, "internal error"))??;
    Ok(told(StatusCode::NO_CONTENT, &complete(&edge, &caller, file).await?))
}

async fn terminate(State(edge): State<Edge>, caller: Caller, path: Path, headers: HeaderMap) -> Answer {
    check_version(&headers)?;
    let file = FileId(path.uuid("upload")?);
    let request = wire::FileRequest { actor: Some(caller.actor), file: file.to_wire() };
    edge.services.files.clone().abort(request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn ask(edge: &Edge, caller: &Caller, file: FileId) -> Result<wire::ProgressReply, Problem> {
    let request = wire::FileRequest { actor: Some(caller.actor.clone()), file: file.to_wire() };
    Ok(edge.services.files.clone().progress(request).await?.into_inner())
}

/// How far it is, put together when all is there.
async fn complete(edge: &Edge, caller: &Caller, file: FileId) -> Result<wire::ProgressReply, Problem> {
    let progress = ask(edge, caller, file).await?;
    if progress.offset < progress.length || progress.expires_at.is_none() {
        return Ok(progress);
    }
    let (keeper, services, actor) = (edge.files.keeper()?, edge.services.clone(), caller.actor.clone());
    let tasks = keeper.tasks.clone();
    let completing = tasks.spawn(async move { keeper.complete(&services, actor, file, progress).await });
    let completed = completing.await.map_err(|_| Problem::new(Code::Internal, "internal error"))?;
    let now = ask(edge, caller, file).await?;
    if now.expires_at.is_some() {
        completed?;
    }
    // Else it is complete, also when somebody else was faster and has removed the pieces that were to be read.
    Ok(now)
}

fn told(status: StatusCode, progress: &wire::ProgressReply) -> Response {
    let mut response = status.into_response();
    set(&mut response, UPLOAD_OFFSET, &progress.offset.to_string());
    if let Some(until) = progress.expires_at.and_then(|until| u64::try_from(until).ok()) {
        set(&mut response, UPLOAD_EXPIRES, &httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(until)));
    }
    response
}

fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(&TUS_RESUMABLE).is_some_and(|version| version.as_bytes() == VERSION.as_bytes()) {
        return Ok(());
    }
    let detail = format!("Tus-Resumable: must be {VERSION}");
    Err(Problem::new(Code::BadRequest, detail).with_status(StatusCode::PRECONDITION_FAILED))
}

/// A header that is a number of bytes.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let value = headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|value| value.bytes().all(|b| b.is_ascii_digit()));
    let number = value.and_then(|value| value.parse().ok()).filter(|number| *number <= i64::MAX as u64);
    number.ok_or_else(|| Problem::new(Code::BadRequest, format!("{name}: must be a number of bytes")))
}

/// `filename` of `Upload-Metadata`: pairs of a key and a text in base64, with commas between.
fn file_name(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(&UPLOAD_METADATA) else { return Ok(None) };
    let unreadable = || Problem::new(Code::BadRequest, "upload-metadata: must be keys with values in base64");
    let value = value.to_str().map_err(|_| unreadable())?;
    for pair in value.split(',') {
        let (key, text) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        if key == "filename" {
            let bytes = STANDARD.decode(text).map_err(|_| unreadable())?;
            return String::from_utf8(bytes).map(Some).map_err(|_| unreadable());
        }
    }
    Ok(None)
}

/// `Upload-Checksum`: an algorithm and a sum in base64.
fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    let Some(value) = headers.get(&UPLOAD_CHECKSUM) else { return Ok(None) };
    let unreadable =
        || Problem::new(Code::BadRequest, format!("upload-checksum: must be one of {ALGORITHMS} and a sum in base64"));
    let (algorithm, sum) = value.to_str().ok().and_then(|value| value.trim().split_once(' ')).ok_or_else(unreadable)?;
    let algorithm = match algorithm {
        "sha256" => &digest::SHA256,
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        _ => return Err(unreadable()),
    };
    let expected = STANDARD.decode(sum).map_err(|_| unreadable())?;
    Ok(Some(Checksum { algorithm, expected }))
}

/// Sets a header. The values here are visible ASCII.
fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
