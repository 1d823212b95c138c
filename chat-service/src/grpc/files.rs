//! The calls about files.

use std::sync::Arc;

use bytes::Bytes;
use parlance_proto::{chat, files as wire, files::files_server, v1};
use service_kit::{fault::Fault, id::FileId};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    App,
    accounts::detached,
    actor::Actor,
    files::{
        self, Begun, Found, New, held,
        pieces::{self, Piece, Progress},
        sweep,
    },
};

/// Answers `parlance.files.v1.Files`.
pub(crate) struct Files(Arc<App>);

impl Files {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

fn id(bytes: &[u8]) -> Result<FileId, Fault> {
    FileId::from_wire(bytes, "file")
}

/// A file to be shown, nothing for none; absent when it stays.
pub(super) fn avatar(given: Option<&Bytes>) -> Result<Option<Option<FileId>>, Fault> {
    let read = |given: &Bytes| match given.is_empty() {
        true => Ok(None),
        false => FileId::from_wire(given, "avatar").map(Some),
    };
    given.map(read).transpose()
}

fn told(progress: Progress) -> wire::ProgressReply {
    let (is_pending, offset, length) = (progress.is_pending(), progress.offset(), progress.file.size);
    let piece =
        |piece: Piece| wire::Piece { object: Bytes::copy_from_slice(piece.object.as_bytes()), length: piece.length };
    wire::ProgressReply {
        offset,
        length,
        expires_at: progress.expires_at.filter(|_| is_pending),
        pieces: if is_pending { progress.pieces.into_iter().map(piece).collect() } else { Vec::new() },
        file: Some(progress.file.into_wire()),
    }
}

#[tonic::async_trait]
impl files_server::Files for Files {
    async fn begin(&self, request: Request<wire::BeginRequest>) -> Result<Response<wire::BeginReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let new =
            New { name: call.name, most: call.most, idempotency_key: call.idempotency_key, resumable: call.resumable };
        let reply = match files::begin(&self.0, actor, new).await? {
            Begun::Fresh(file) => wire::BeginReply { file: file.to_wire(), made: None },
            Begun::Made(row) => wire::BeginReply { file: row.id.to_wire(), made: Some(row.into_wire()) },
        };
        Ok(Response::new(reply))
    }

    async fn finish(&self, request: Request<wire::FinishRequest>) -> Result<Response<v1::File>, Status> {
        let call = request.into_inner();
        // The session may have ended while the bytes came; what they are is still written down.
        let actor = call.actor.map(|actor| Actor::from_wire(Some(actor))).transpose()?;
        let file = id(&call.file)?;
        let found = Found {
            media_type: call.media_type,
            size: call.size,
            width: call.width,
            height: call.height,
            blurhash: call.blurhash,
            thumbnails: i16::try_from(call.thumbnails).map_err(|_| Fault::bad_request("thumbnails: is not known"))?,
            rejected: call.rejected,
        };
        let app = Arc::clone(&self.0);
        let row = detached(&self.0, async move { files::finish(&app, actor, file, found).await }).await?;
        Ok(Response::new(row.into_wire()))
    }

    async fn hold(&self, request: Request<wire::HoldRequest>) -> Result<Response<v1::File>, Status> {
        let call = request.into_inner();
        let (actor, file) = (Actor::from_wire(call.actor)?, id(&call.file)?);
        let (app, media_type, size) = (Arc::clone(&self.0), call.media_type, call.size);
        let row = detached(&self.0, async move { held::hold(&app, actor, file, &media_type, size).await }).await?;
        Ok(Response::new(row.into_wire()))
    }

    async fn take_held(&self, request: Request<wire::TakeHeldRequest>) -> Result<Response<wire::HeldList>, Status> {
        let call = request.into_inner();
        let taken = held::take(&self.0, call.limit, call.lease_ms).await?.into_iter();
        let told =
            |held: held::Held| wire::Held { file: held.id.to_wire(), media_type: held.media_type, size: held.size };
        Ok(Response::new(wire::HeldList { files: taken.map(told).collect() }))
    }

    async fn progress(&self, request: Request<wire::FileRequest>) -> Result<Response<wire::ProgressReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        Ok(Response::new(told(pieces::progress(&self.0, actor, id(&call.file)?).await?)))
    }

    async fn add_pieces(
        &self,
        request: Request<wire::AddPiecesRequest>,
    ) -> Result<Response<wire::ProgressReply>, Status> {
        let call = request.into_inner();
        let (actor, file) = (Actor::from_wire(call.actor)?, id(&call.file)?);
        let new = call.pieces.iter().map(|piece| {
            let object = Uuid::from_slice(&piece.object).map_err(|_| Fault::bad_request("pieces: an id is none"))?;
            Ok(Piece { object, length: piece.length })
        });
        let (start, new) = (call.start, new.collect::<Result<Vec<_>, Fault>>()?);
        let app = Arc::clone(&self.0);
        let progress = detached(&self.0, async move { pieces::add(&app, actor, file, start, new).await }).await?;
        Ok(Response::new(told(progress)))
    }

    async fn abort(&self, request: Request<wire::FileRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let (actor, file) = (Actor::from_wire(call.actor)?, id(&call.file)?);
        files::abort(&self.0, actor, file).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn get(&self, request: Request<wire::FileRequest>) -> Result<Response<wire::Readable>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let row = files::get(&self.0, actor, id(&call.file)?).await?;
        let thumbnails = row.thumbnails.into();
        Ok(Response::new(wire::Readable { file: Some(row.into_wire()), thumbnails }))
    }

    async fn take_dead(&self, request: Request<wire::TakeDeadRequest>) -> Result<Response<wire::DeadList>, Status> {
        let files = sweep::take(&self.0, request.into_inner().limit).await?;
        Ok(Response::new(wire::DeadList { files: files.into_iter().map(FileId::to_wire).collect() }))
    }

    async fn removed(&self, request: Request<wire::DeadList>) -> Result<Response<chat::Empty>, Status> {
        let files = request.into_inner().files.iter().map(|file| id(file)).collect::<Result<Vec<_>, _>>()?;
        sweep::removed(&self.0, &files).await?;
        Ok(Response::new(chat::Empty {}))
    }
}
