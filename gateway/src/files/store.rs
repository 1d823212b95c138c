//! Where the bytes are: a folder, or an object store by its URL. A file is a few objects under its id.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::Method;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt,
    local::LocalFileSystem,
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use service_kit::id::FileId;
use uuid::Uuid;

use super::{
    place::{Kind, Objects, Place},
    writer::{InFolder, InParts, Turns, Writer},
};
use crate::{error::Problem, frame::Code};

/// How long the store may take for one step.
pub(super) const STEP: Duration = Duration::from_secs(30);
/// How long a signed URL is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);

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
    /// What the names of all objects begin with.
    prefix: Path,
    place: Where,
}

#[derive(Clone, Debug)]
enum Where {
    Folder(PathBuf),
    Bucket {
        signer: Arc<dyn Signer>,
        /// Whether a signed URL can say with which headers it is answered.
        signs_headers: bool,
        /// Of all uploads.
        turns: Arc<Turns>,
    },
}

impl Store {
    /// Opens the store of this place. A folder is made; an object store is not asked whether it is there.
    pub(crate) fn open(place: &Place) -> anyhow::Result<Self> {
        match &place.0 {
            Kind::Folder(folder) => {
                std::fs::create_dir_all(folder).context("PARLANCE_FILES_URL: cannot make the folder")?;
                let objects =
                    LocalFileSystem::new_with_prefix(folder).context("PARLANCE_FILES_URL: cannot use the folder")?;
                // What was answered as stored survives the loss of power.
                let objects = Arc::new(objects.with_fsync(true));
                Ok(Self { objects, prefix: Path::default(), place: Where::Folder(folder.clone()) })
            }
            Kind::Objects(Objects { store, signer, prefix, signs_headers }) => {
                let (signer, turns) = (Arc::clone(signer), Arc::default());
                let place = Where::Bucket { signer, signs_headers: *signs_headers, turns };
                Ok(Self { objects: Arc::clone(store), prefix: prefix.clone(), place })
            }
        }
    }

    fn path(&self, file: FileId, part: Part) -> Path {
        let parts = [Some(file.to_string()), part.folder().map(str::to_owned), Some(part.name())];
        self.below(parts.into_iter().flatten())
    }

    fn below(&self, parts: impl IntoIterator<Item = String>) -> Path {
        parts.into_iter().fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Asks whether the store is there, and whether this process may use it: what there is of a file that there is not.
    pub(super) async fn probe(&self, patience: Duration) -> anyhow::Result<()> {
        let nobody = self.below([FileId(Uuid::nil()).to_string()]);
        let asked = tokio::time::timeout(patience, self.objects.list(Some(&nobody)).try_next()).await?;
        asked.map_err(|error| anyhow!(said(&error)))?;
        Ok(())
    }

    /// Begins to write a part.
    pub(crate) async fn write(&self, file: FileId, part: Part) -> Result<Writer, Problem> {
        let path = self.path(file, part);
        match &self.place {
            Where::Folder(_) => {
                let upload = in_time(self.objects.put_multipart(&path)).await?;
                Ok(Writer::Folder(InFolder::new(upload)))
            }
            Where::Bucket { turns, .. } => {
                Ok(Writer::Objects(InParts::new(Arc::clone(&self.objects), path, Arc::clone(turns))))
            }
        }
    }

    /// A URL by which anybody who has it may read a part for a while, answered with these headers where the store can do so.
    /// Where it cannot, it answers as with bytes that it knows nothing of.
    pub(crate) async fn sign(
        &self,
        file: FileId,
        part: Part,
        media_type: &str,
        disposition: &str,
    ) -> Result<String, Problem> {
        let Where::Bucket { signer, signs_headers, .. } = &self.place else { return Err(unavailable()) };
        let mut options = SignedUrlOptions::new();
        if *signs_headers {
            let headers = [
                ("response-content-type", media_type),
                ("response-content-disposition", disposition),
                ("response-cache-control", "private, no-cache"),
            ];
            options = options.with_query(headers);
        }
        let path = self.path(file, part);
        let url = in_time(signer.signed_url_opts(Method::GET, &path, SIGNED_FOR, &options)).await?;
        Ok(url.into())
    }

    /// Reads these bytes of a part.
    pub(crate) async fn read(
        &self,
        file: FileId,
        part: Part,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, Problem> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let path = self.path(file, part);
        Ok(in_time(self.objects.get_opts(&path, options)).await?.into_stream())
    }

    /// Reads all of a part. Tells how many bytes that is.
    pub(crate) async fn read_all(
        &self,
        file: FileId,
        part: Part,
    ) -> Result<(u64, BoxStream<'static, object_store::Result<Bytes>>), Problem> {
        let path = self.path(file, part);
        let object = in_time(self.objects.get(&path)).await?;
        Ok((object.meta.size, object.into_stream()))
    }

    /// The whole of a part that is known to be small enough for memory.
    pub(crate) async fn read_whole(&self, file: FileId, part: Part) -> Result<Bytes, Problem> {
        let path = self.path(file, part);
        in_time(async { self.objects.get(&path).await?.bytes().await }).await
    }

    /// Writes a part that is in memory.
    pub(crate) async fn write_whole(&self, file: FileId, part: Part, bytes: Bytes) -> Result<(), Problem> {
        put_in_time(self.objects.put(&self.path(file, part), bytes.into())).await.map(drop)
    }

    /// Removes one part. When that fails it stays until the file goes.
    pub(crate) async fn remove_one(&self, file: FileId, part: Part) {
        if let Err(problem) = in_time(self.objects.delete(&self.path(file, part))).await {
            tracing::debug!(code = ?problem.code(), "a part of a file could not be removed");
        }
    }

    /// Removes all that there is of a file. Nothing there is fine.
    pub(crate) async fn remove(&self, file: FileId) -> anyhow::Result<()> {
        self.remove_below(&[&file.to_string()]).await
    }

    /// Removes all pieces of a file that is whole.
    pub(crate) async fn remove_pieces(&self, file: FileId) -> anyhow::Result<()> {
        self.remove_below(&[&file.to_string(), PIECES]).await
    }

    async fn remove_below(&self, parts: &[&str]) -> anyhow::Result<()> {
        let prefix = self.below(parts.iter().map(|part| (*part).to_owned()));
        let removing = async {
            // Listed to the end first: a listing that fails, as of a bucket that is not there, must not pass for an empty one.
            let listed = self.objects.list(Some(&prefix)).map_ok(|object| object.location).try_collect().await;
            let paths: Vec<Path> = listed.map_err(|error| anyhow!(said(&error)))?;
            let paths = stream::iter(paths).map(Ok).boxed();
            let mut removed = self.objects.delete_stream(paths);
            while let Some(path) = removed.next().await {
                match path {
                    Ok(path) => tracing::debug!(object = %path, "removed an object"),
                    // An object that went meanwhile is what was wanted.
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(anyhow!(said(&error))),
                }
            }
            if let Where::Folder(folder) = &self.place {
                // With what a crash has left of half an object, which the listing does not show.
                match tokio::fs::remove_dir_all(folder.join(parts.iter().collect::<PathBuf>())).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(STEP, removing).await?
    }
}

/// What a client is told when the store fails.
pub(super) fn unavailable() -> Problem {
    Problem::new(Code::Unavailable, "the store of the files does not answer; send it again")
}

/// The same for what is written: there is nothing that could be missing, but for the bucket.
pub(super) async fn put_in_time<T>(step: impl Future<Output = object_store::Result<T>>) -> Result<T, Problem> {
    in_time(async {
        step.await.map_err(|error| match error {
            object_store::Error::NotFound { source, .. } => object_store::Error::Generic { store: "files", source },
            error => error,
        })
    })
    .await
}

/// What went wrong, each cause once: most say those below them as well, but not the last one.
pub(super) fn said(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// An answer of the store in time. What went wrong is logged here.
pub(super) async fn in_time<T>(step: impl Future<Output = object_store::Result<T>>) -> Result<T, Problem> {
    match tokio::time::timeout(STEP, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(object_store::Error::NotFound { .. })) => {
            Err(Problem::new(Code::NotFound, "there is no such file, or you may not read it"))
        }
        Ok(Err(error)) => {
            tracing::error!(error = said(&error), "the store of the files failed");
            Err(unavailable())
        }
        Err(_) => {
            tracing::error!("the store of the files took too long");
            Err(unavailable())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let connecting = object_store::Error::Generic { store: "S3", source: refused.into() };
        let outer = object_store::Error::Generic { store: "S3", source: connecting.into() };
        assert_eq!(said(&outer), "Generic S3 error: Generic S3 error: connection refused");
    }
}
