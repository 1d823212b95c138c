//! Files: one is sent in one request, read in whole or in part, and described.

mod serve;

use axum::{
    Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, header};
use multer::{Field, Multipart};
use parlance_proto::{files as wire, v1};
use service_kit::id::FileId;

use super::{
    Edge,
    reply::{Answer, created, ok},
    request::{Path, idempotency_key},
};
use crate::{
    error::Problem,
    files::{self, Origin, clean_name},
    frame::Code,
    json,
    token::Caller,
};

/// Bytes around the file in a multipart body: boundaries and headers of the part.
const AROUND_THE_FILE: u64 = 16 * 1024;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/files", post(send))
        .route("/v1/files/{file}", get(read))
        .route("/v1/files/{file}/info", get(info))
}

/// The file of a multipart body: its one part `file`.
async fn send(State(edge): State<Edge>, caller: Caller, headers: HeaderMap, body: Body) -> Answer {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(media).map_err(|_| {
        Problem::new(Code::UnsupportedMedia, "the body must be multipart/form-data with one part `file`")
    })?;
    let idempotency_key = idempotency_key(&headers)?;
    let keeper = edge.files.keeper()?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > keeper.max_bytes + AROUND_THE_FILE) {
        return Err(Problem::new(Code::TooLarge, format!("file: is larger than {} bytes", keeper.max_bytes)));
    }
    let most = length.map_or(keeper.max_bytes, |length| length.min(keeper.max_bytes));
    // On a task of its own: when the client goes away, this handler is gone too, and somebody must clean up.
    let (tasks, services) = (keeper.tasks.clone(), edge.services.clone());
    let uploading = tasks.spawn(async move {
        let mut parts = Multipart::new(body.into_data_stream(), boundary);
        let file = parts.next_field().await.map_err(|error| unreadable(&error))?;
        let file = file.filter(|part| part.name() == Some("file")).ok_or_else(one_part)?;
        let name = clean_name(file.file_name());
        let origin = Origin { actor: caller.actor, name, most, idempotency_key };
        files::upload(keeper, services, origin, Box::pin(content(file, parts))).await
    });
    let file = uploading.await.map_err(|_| Problem::new(Code::Internal, "internal error"))??;
    created(&json::File::from(&file))
}

/// The bytes of a part that must be the last one.
fn content(part: Field<'static>, mut parts: Multipart<'static>) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
    let end = stream::once(async move {
        match parts.next_field().await {
            Ok(None) => None,
            Ok(Some(_)) => Some(Err(one_part())),
            Err(error) => Some(Err(unreadable(&error))),
        }
    });
    part.map(|bytes| bytes.map_err(|error| unreadable(&error))).chain(end.filter_map(std::future::ready))
}

fn one_part() -> Problem {
    Problem::new(Code::BadRequest, "file: must be the one part of the body")
}

/// A body that is cut off or is not what its header says.
fn unreadable(error: &multer::Error) -> Problem {
    tracing::debug!(error = %error, "a multipart body could not be read");
    Problem::new(Code::BadRequest, "file: the body ended too early, or is not multipart/form-data")
}

async fn known(edge: &Edge, caller: Caller, path: &Path) -> Result<(FileId, v1::File), Problem> {
    let file = FileId(path.uuid("file")?);
    let request = wire::FileRequest { actor: Some(caller.actor), file: file.to_wire() };
    let readable = edge.services.files.clone().get(request).await?.into_inner();
    Ok((file, readable.file.unwrap_or_default()))
}

async fn info(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let (_, file) = known(&edge, caller, &path).await?;
    ok(&json::File::from(&file))
}

async fn read(State(edge): State<Edge>, caller: Caller, path: Path, headers: HeaderMap) -> Answer {
    let (id, file) = known(&edge, caller, &path).await?;
    serve::original(&*edge.files.keeper()?, id, &file, &headers).await
}
