//! Where the bytes are: a folder, or an object store by its URL. A file is a few objects under its id.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path,
};
use service_kit::id::FileId;
use uuid::Uuid;

use crate::{error::Problem, frame::Code};

/// How long the store may take for one step.
const STEP: Duration = Duration::from_secs(30);
/// Bytes that are written to a folder at once.
const FOLDER_CHUNK: usize = 64 * 1024;

/// Folder of the pieces of a file.
const PIECES: &str = "pieces";

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The bytes as they came.
    Original,
    /// A piece of what is still coming.
    Piece(Uuid),
    /// A picture made smaller, to so many pixels on its longest side.
    Thumbnail(u32),
}

impl Part {
    fn name(self) -> String {
        match self {
            Self::Original => "original".to_owned(),
            Self::Piece(id) => id.to_string(),
            Self::Thumbnail(side) => side.to_string(),
        }
    }

    /// The folder that it is in, below that of the file.
    fn folder(self) -> Option<&'static str> {
        matches!(self, Self::Piece(_)).then_some(PIECES)
    }
}

/// Where the bytes are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The folder, when it is one.
    folder: Option<PathBuf>,
    /// Bytes that are written at once.
    chunk: usize,
}

/// An object that is being written. One that is dropped half way was never there.
pub(crate) struct Writer {
    upload: Box<dyn MultipartUpload>,
    waiting: Vec<Bytes>,
    length: usize,
    chunk: usize,
}

impl Store {
    /// Opens the store of this URL.
    pub(crate) fn connect(url: &str) -> anyhow::Result<Self> {
        let folder = url.strip_prefix("file:").context("PARLANCE_FILES_URL: must begin with file:")?;
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        std::fs::create_dir_all(folder).context("PARLANCE_FILES_URL: cannot make the folder")?;
        let objects = LocalFileSystem::new_with_prefix(folder).context("PARLANCE_FILES_URL: cannot use the folder")?;
        // What was answered as stored survives the loss of power.
        let objects = Arc::new(objects.with_fsync(true));
        Ok(Self { objects, folder: Some(folder.into()), chunk: FOLDER_CHUNK })
    }

    fn path(file: FileId, part: Part) -> Path {
        let parts = [Some(file.to_string()), part.folder().map(str::to_owned), Some(part.name())];
        Path::from_iter(parts.into_iter().flatten())
    }

    /// Begins to write a part.
    pub(crate) async fn write(&self, file: FileId, part: Part) -> Result<Writer, Problem> {
        let upload = in_time(self.objects.put_multipart(&Self::path(file, part))).await?;
        Ok(Writer { upload, waiting: Vec::new(), length: 0, chunk: self.chunk })
    }

    /// Reads these bytes of a part.
    pub(crate) async fn read(
        &self,
        file: FileId,
        part: Part,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, Problem> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let path = Self::path(file, part);
        Ok(in_time(self.objects.get_opts(&path, options)).await?.into_stream())
    }

    /// Reads all of a part. Tells how many bytes that is.
    pub(crate) async fn read_all(
        &self,
        file: FileId,
        part: Part,
    ) -> Result<(u64, BoxStream<'static, object_store::Result<Bytes>>), Problem> {
        let path = Self::path(file, part);
        let object = in_time(self.objects.get(&path)).await?;
        Ok((object.meta.size, object.into_stream()))
    }

    /// The whole of a part that is known to be small enough for memory.
    pub(crate) async fn read_whole(&self, file: FileId, part: Part) -> Result<Bytes, Problem> {
        let path = Self::path(file, part);
        in_time(async { self.objects.get(&path).await?.bytes().await }).await
    }

    /// Writes a part that is in memory.
    pub(crate) async fn write_whole(&self, file: FileId, part: Part, bytes: Bytes) -> Result<(), Problem> {
        in_time(self.objects.put(&Self::path(file, part), bytes.into())).await.map(drop)
    }

    /// Removes one part. When that fails it stays until the file goes.
    pub(crate) async fn remove_one(&self, file: FileId, part: Part) {
        if let Err(problem) = in_time(self.objects.delete(&Self::path(file, part))).await {
            tracing::debug!(code = ?problem.code(), "a part of a file could not be removed");
        }
    }

    /// Removes all that there is of a file. Nothing there is fine.
    pub(crate) async fn remove(&self, file: FileId) -> anyhow::Result<()> {
        self.remove_below(&file.to_string()).await
    }

    /// Removes all pieces of a file that is whole.
    pub(crate) async fn remove_pieces(&self, file: FileId) -> anyhow::Result<()> {
        self.remove_below(&format!("{file}/{PIECES}")).await
    }

    async fn remove_below(&self, path: &str) -> anyhow::Result<()> {
        let prefix = Path::from(path);
        let removing = async {
            let paths = self.objects.list(Some(&prefix)).map_ok(|object| object.location);
            let mut removed = self.objects.delete_stream(Box::pin(paths));
            while let Some(path) = removed.try_next().await.or_else(gone)? {
                tracing::debug!(object = %path, "removed an object");
            }
            if let Some(folder) = &self.folder {
                // With what a crash has left of half an object, which the listing does not show.
                match tokio::fs::remove_dir_all(folder.join(path)).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(STEP, removing).await?
    }
}

/// An object that went meanwhile is what was wanted.
fn gone(error: object_store::Error) -> anyhow::Result<Option<Path>> {
    match error {
        object_store::Error::NotFound { .. } => Ok(None),
        error => Err(error.into()),
    }
}

impl Writer {
    /// Adds bytes. Waits for the store when enough have come together.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.length += bytes.len();
        self.waiting.push(bytes);
        if self.length >= self.chunk { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        self.length = 0;
        let payload: PutPayload = std::mem::take(&mut self.waiting).into_iter().collect();
        in_time(self.upload.put_part(payload)).await
    }

    /// Makes the object be there, whole.
    pub(crate) async fn finish(mut self) -> Result<(), Problem> {
        if self.length > 0 {
            self.flush().await?;
        }
        in_time(self.upload.complete()).await.map(drop)
    }

    /// Takes back what was written.
    pub(crate) async fn abort(mut self) {
        // What stays behind is found by the sweep.
        if let Err(problem) = in_time(self.upload.abort()).await {
            tracing::debug!(code = ?problem.code(), "half an object could not be taken back");
        }
    }
}

/// An answer of the store in time. What went wrong is logged here.
async fn in_time<T>(step: impl Future<Output = object_store::Result<T>>) -> Result<T, Problem> {
    let unavailable = || Problem::new(Code::Unavailable, "the store of the files does not answer; send it again");
    match tokio::time::timeout(STEP, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(object_store::Error::NotFound { .. })) => {
            Err(Problem::new(Code::NotFound, "there is no such file, or you may not read it"))
        }
        Ok(Err(error)) => {
            tracing::error!(error = %error, "the store of the files failed");
            Err(unavailable())
        }
        Err(_) => {
            tracing::error!("the store of the files took too long");
            Err(unavailable())
        }
    }
}
