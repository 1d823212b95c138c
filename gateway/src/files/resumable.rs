//! Uploads that come in pieces and may be broken off, on any gateway: each piece is an object of its own and counts once
//! chat-service knows of it; when all bytes are there they are put together.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::StatusCode;
use parlance_proto::{chat, files as wire};
use service_kit::id::FileId;
use uuid::Uuid;

use super::{
    Keeper, Part, Store, kind, picture,
    upload::{Body, rejected, stopping, too_large_to_strip},
    writer::PART,
};
use crate::{error::Problem, frame::Code, services::Services};

/// Bytes after which a piece is stored and counted: what is lost at most when a gateway dies. With what is read at once beyond
/// them it is no more than one part, so that an object store gets it in one request.
const PIECE: u64 = (PART - 1024 * 1024) as u64;

/// Where something is received, and whose it is.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) actor: chat::Actor,
    pub(crate) file: FileId,
    /// Bytes that have come before.
    pub(crate) start: i64,
    /// Bytes that are still missing.
    pub(crate) missing: u64,
}

/// What a sender says that the bytes of one request come to.
pub(crate) struct Checksum {
    pub(crate) algorithm: &'static digest::Algorithm,
    pub(crate) expected: Vec<u8>,
}

impl Checksum {
    /// That of no body: the status is of the tus protocol.
    fn mismatch() -> Problem {
        let status = StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST);
        Problem::new(Code::BadRequest, "Upload-Checksum: these are not the bytes that it says; send them again")
            .with_status(status)
    }
}

impl Keeper {
    /// Stores and counts what comes. What has come before it was broken off counts too, unless a checksum says what the
    /// whole has to be.
    ///
    /// # Errors
    /// What the client is told. How much counts is asked for then.
    pub(crate) async fn receive(
        &self,
        services: &Services,
        piece: Piece,
        checksum: Option<Checksum>,
        body: impl Stream<Item = Result<Bytes, Problem>> + Unpin + Send,
    ) -> Result<(), Problem> {
        let mut body = Body::new(body, piece.missing);
        let mut receiving = Receiving { keeper: self, services, piece, uncounted: Vec::new() };
        let mut sum = checksum.as_ref().map(|checksum| digest::Context::new(checksum.algorithm));
        loop {
            let ended = receiving.store_one(&mut body, sum.as_mut()).await;
            match (&ended, sum.is_some()) {
                (Ok(false), true) => {}
                (_, false) => receiving.count().await?,
                (Ok(true), true) => {
                    let whole = sum.take().map(digest::Context::finish);
                    let matches =
                        checksum.zip(whole).is_some_and(|(checksum, whole)| whole.as_ref() == checksum.expected);
                    if !matches {
                        receiving.forget().await;
                        return Err(Checksum::mismatch());
                    }
                    return receiving.count().await;
                }
                (Err(_), true) => receiving.forget().await,
            }
            if ended? {
                return Ok(());
            }
        }
    }

    /// Puts the pieces together when all bytes have come, and says what the file is. Doing it twice at once is harmless.
    ///
    /// # Errors
    /// When the store or chat-service fails: asking for the upload again goes on.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        services: &Services,
        actor: chat::Actor,
        file: FileId,
        progress: wire::ProgressReply,
    ) -> Result<(), Problem> {
        if progress.expires_at.is_none() || progress.offset < progress.length {
            return Ok(());
        }
        let length = u64::try_from(progress.length).unwrap_or_default();
        let mut body = Body::new(together(self.store.clone(), file, progress.pieces), length);
        let (head, is_whole) = body.head().await?;
        let media_type = kind::of_head(&head, is_whole);
        let stored = match self.check_type(media_type) {
            Ok(()) => self.put_together(file, media_type, body, head, length).await?,
            Err(_) => Err(rejected(format!("{media_type} is not taken here"))),
        };
        match stored {
            Ok(size) => self.settle(services, actor, file, media_type, size).await?,
            Err(found) => {
                let (actor, media_type, id) = (Some(actor), media_type.to_owned(), file.to_wire());
                self.finish(services, file, wire::FinishRequest { actor, file: id, media_type, ..found }).await?
            }
        };
        if let Err(error) = self.store.remove_pieces(file).await {
            tracing::warn!(file.id = %file, error = format!("{error:#}"), "pieces stay until their file goes");
        }
        Ok(())
    }
}

impl Keeper {
    /// Stores what the pieces come to, and tells how many bytes that is, or why it is not taken. Whoever does so at the same
    /// moment stores the same, whatever comes first: what a camera has added is taken out before, or the slower one would
    /// bring it back to a file that others read already.
    async fn put_together(
        &self,
        file: FileId,
        media_type: &str,
        mut body: Body<impl Stream<Item = Result<Bytes, Problem>> + Unpin>,
        head: Bytes,
        length: u64,
    ) -> Result<Result<u64, wire::FinishRequest>, Problem> {
        let Some(format) = picture::format_of(media_type).filter(|_| self.strip_exif) else {
            return body.store(self, file, head).await.map(Ok);
        };
        if length > picture::MOST_BYTES {
            return Ok(Err(too_large_to_strip()));
        }
        let Ok(_turn) = self.decoding.acquire().await else { return Err(stopping()) };
        let (bytes, most) = (body.whole(head).await?, self.max_pixels);
        match tokio::task::spawn_blocking(move || picture::strip(bytes, format, most)).await {
            Ok(Ok(bare)) => {
                let size = bare.len() as u64;
                self.store.write_whole(file, Part::Original, bare).await?;
                Ok(Ok(size))
            }
            Ok(Err(reason)) => Ok(Err(rejected(reason))),
            // See where pictures are looked at.
            Err(error) if error.is_panic() => Ok(Err(rejected("the picture cannot be read".to_owned()))),
            Err(_) => Err(stopping()),
        }
    }
}

/// The bytes of these pieces, one after the other.
fn together(store: Store, file: FileId, pieces: Vec<wire::Piece>) -> BoxStream<'static, Result<Bytes, Problem>> {
    let read = move |piece: wire::Piece| {
        let store = store.clone();
        async move {
            let object = Uuid::from_slice(&piece.object).unwrap_or_default();
            let length = u64::try_from(piece.length).unwrap_or_default();
            let bytes = store.read(file, Part::Piece(object), 0..length).await?;
            Ok::<_, Problem>(bytes.map_err(|error| {
                tracing::error!(error = %error, "a piece of a file cannot be read");
                Problem::new(Code::Unavailable, "the store of the files does not answer; send it again")
            }))
        }
    };
    stream::iter(pieces).then(read).try_flatten().boxed()
}

/// One request that brings bytes.
struct Receiving<'a> {
    keeper: &'a Keeper,
    services: &'a Services,
    piece: Piece,
    /// Stored, and not known to chat-service yet.
    uncounted: Vec<(Uuid, u64)>,
}

impl Receiving<'_> {
    /// Stores one piece. Tells whether that was all.
    async fn store_one(
        &mut self,
        body: &mut Body<impl Stream<Item = Result<Bytes, Problem>> + Unpin + Send>,
        mut sum: Option<&mut digest::Context>,
    ) -> Result<bool, Problem> {
        let Some(mut next) = body.next().await? else { return Ok(true) };
        let object = Uuid::now_v7();
        let mut writer = self.keeper.store.write(self.piece.file, Part::Piece(object)).await?;
        let mut length = 0;
        let ended = loop {
            length += next.len() as u64;
            if let Some(sum) = &mut sum {
                sum.update(&next);
            }
            if let Err(problem) = writer.push(next).await {
                writer.abort().await;
                return Err(problem);
            }
            if length >= PIECE {
                break Ok(false);
            }
            match body.next().await {
                Ok(Some(bytes)) => next = bytes,
                Ok(None) => break Ok(true),
                Err(problem) => break Err(problem),
            }
        };
        writer.finish().await?;
        self.uncounted.push((object, length));
        ended
    }

    /// Has what is stored counted.
    async fn count(&mut self) -> Result<(), Problem> {
        if self.uncounted.is_empty() {
            return Ok(());
        }
        let piece = |(object, length): &(Uuid, u64)| wire::Piece {
            object: Bytes::copy_from_slice(object.as_bytes()),
            length: i64::try_from(*length).unwrap_or(i64::MAX),
        };
        let request = wire::AddPiecesRequest {
            actor: Some(self.piece.actor.clone()),
            file: self.piece.file.to_wire(),
            start: self.piece.start,
            pieces: self.uncounted.iter().map(piece).collect(),
        };
        match self.services.files.clone().add_pieces(request).await {
            Ok(reply) => {
                self.piece.start = reply.into_inner().offset;
                self.uncounted.clear();
                Ok(())
            }
            Err(status) => {
                // Whether they count is not known when no answer came: then they stay, for the sweep.
                let is_refused = matches!(
                    status.code(),
                    tonic::Code::Aborted
                        | tonic::Code::AlreadyExists
                        | tonic::Code::NotFound
                        | tonic::Code::InvalidArgument
                        | tonic::Code::FailedPrecondition
                );
                if is_refused {
                    self.forget().await;
                }
                Err(status.into())
            }
        }
    }

    /// Removes what is stored and does not count.
    async fn forget(&mut self) {
        for (object, _) in std::mem::take(&mut self.uncounted) {
            self.keeper.store.remove_one(self.piece.file, Part::Piece(object)).await;
        }
    }
}
