//! Files: one is sent in one request, read in whole or in part, and described.

mod incoming;
mod serve;

use axum::{
    Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, header};
use multer::{Field, Multipart};
use parlance_proto::{
    files::{self as wire, Thumbnails},
    v1,
};
use service_kit::id::FileId;

use self::incoming::{Incoming, Used};
use super::{
    Edge,
    reply::{Answer, created, ok},
    request::{Params, Path, idempotency_key},
};
use crate::{
    error::Problem,
    files::{self, Origin, SIDES, STALL, clean_name, stalled},
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
        .route("/v1/files/{file}/thumbnail", get(thumbnail))
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
    let (tasks, services) = (keeper.tasks.clone(), edge.services.clone());
    let used = Used::default();
    let body = Incoming::new(body, used.clone(), tasks.clone());
    if length.is_some_and(|length| length > keeper.max_bytes + AROUND_THE_FILE) {
        return Err(Problem::new(Code::TooLarge, format!("file: is larger than {} bytes", keeper.max_bytes)));
    }
    let most = length.map_or(keeper.max_bytes, |length| length.min(keeper.max_bytes));
    // On a task of its own: when the client goes away, this handler is gone too, and somebody must clean up.
    let uploading = tasks.spawn(async move {
        let mut parts = Multipart::new(body, boundary);
        let first = tokio::time::timeout(STALL, parts.next_field()).await.map_err(|_| stalled())?;
        let file = first.map_err(|error| unreadable(&error))?;
        let file = file.filter(|part| part.name() == Some("file")).ok_or_else(one_part)?;
        let name = clean_name(file.file_name());
        let origin = Origin { actor: caller.actor, name, most, idempotency_key };
        files::upload(keeper, services, origin, Box::pin(content(file, parts, used))).await
    });
    let file = uploading.await.map_err(|_| Problem::new(Code::Internal, "internal error"))??;
    created(&json::File::from(&file))
}

/// The bytes of a part that must be the last one.
fn content(
    part: Field<'static>,
    mut parts: Multipart<'static>,
    used: Used,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
    let end = stream::once(async move {
        match parts.next_field().await {
            Ok(None) => None,
            Ok(Some(_)) => Some(Err(one_part())),
            Err(error) => Some(Err(unreadable(&error))),
        }
    });
    let bytes = part.map(move |bytes| {
        let bytes = bytes.map_err(|error| unreadable(&error))?;
        used.add(bytes.len());
        Ok(bytes)
    });
    bytes.chain(end.filter_map(std::future::ready))
}

fn one_part() -> Problem {
    Problem::new(Code::BadRequest, "file: must be the one part of the body")
}

/// A body that is cut off or is not what its header says.
fn unreadable(error: &multer::Error) -> Problem {
    tracing::debug!(error = %error, "a multipart body could not be read");
    Problem::new(Code::BadRequest, "file: the body ended too early, or is not multipart/form-data")
}

async fn known(edge: &Edge, caller: Caller, path: &Path) -> Result<(FileId, v1::File, Thumbnails), Problem> {
    let file = FileId(path.uuid("file")?);
    let request = wire::FileRequest { actor: Some(caller.actor), file: file.to_wire() };
    let readable = edge.services.files.clone().get(request).await?.into_inner();
    let thumbnails = readable.thumbnails();
    Ok((file, readable.file.unwrap_or_default(), thumbnails))
}

async fn info(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let (_, file, _) = known(&edge, caller, &path).await?;
    ok(&json::File::from(&file))
}

async fn read(State(edge): State<Edge>, caller: Caller, path: Path, method: Method, mut headers: HeaderMap) -> Answer {
    let (id, file, _) = known(&edge, caller, &path).await?;
    let keeper = edge.files.keeper()?;
    if method == Method::HEAD {
        // A range is a matter of GET only (RFC 9110, 14.2).
        headers.remove(header::RANGE);
        return serve::described(id, &file, &headers);
    }
    if keeper.signed_urls {
        serve::elsewhere(&keeper, id, &file, &headers).await
    } else {
        serve::original(&keeper, id, &file, &headers).await
    }
}

async fn thumbnail(State(edge): State<Edge>, caller: Caller, path: Path, params: Params, headers: HeaderMap) -> Answer {
    let size = params.fields().opt_int("size", 1..=i64::MAX)?.unwrap_or(i64::MAX);
    let (id, file, thumbnails) = known(&edge, caller, &path).await?;
    let side = SIDES.into_iter().find(|side| i64::from(*side) <= size);
    let media_type = match thumbnails {
        Thumbnails::None => None,
        Thumbnails::Jpeg => Some("image/jpeg"),
        Thumbnails::Png => Some("image/png"),
    };
    let (Some(side), Some(media_type)) = (side, media_type) else {
        return Err(Problem::new(Code::NotFound, "there is no thumbnail of this size"));
    };
    serve::thumbnail(&*edge.files.keeper()?, id, &file, side, media_type, &headers).await
}
