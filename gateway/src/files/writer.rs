//! How an object is written whose size is not known yet. A folder takes small pieces at once. An object store takes large
//! parts only, so what comes waits in a file without a name until it makes one: a client that sends slowly then holds a
//! piece of a disk, and memory is taken for what is on its way to the store, by a few at a time.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::store::{STEP, in_time, put_in_time, said, unavailable};
use crate::error::Problem;

/// Bytes that are written to a disk at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of one part, of which only the last of an object is smaller: S3 wants at least 5 MiB, others want them equal, and of
/// 10,000 parts an object of 48 GiB can be made.
pub(crate) const PART: usize = 5 * 1024 * 1024;
/// Parts of all uploads that are in memory at once.
const TURNS: usize = 4;
/// How long an upload waits for its turn.
const TURN: Duration = Duration::from_secs(60);
/// How long taking back half an object may take.
const ABORT: Duration = Duration::from_secs(5);

/// Who may have a part in memory, and the memory, which is used again: given back each time, it would stay with the allocator
/// in more places than there are turns.
#[derive(Debug)]
pub(super) struct Turns {
    free: Semaphore,
    buffers: Mutex<Vec<BytesMut>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { free: Semaphore::new(TURNS), buffers: Mutex::default() }
    }
}

impl Turns {
    async fn take(&self) -> Result<Turn<'_>, Problem> {
        match tokio::time::timeout(TURN, self.free.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { turns: self, lent: None, _permit: permit }),
            _ => {
                tracing::error!("the store of the files is too slow for what comes");
                Err(unavailable())
            }
        }
    }
}

/// The right to have a part in memory until this is dropped.
struct Turn<'a> {
    turns: &'a Turns,
    /// What is on its way in a buffer of the turns.
    lent: Option<Bytes>,
    _permit: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// What waits on the disk and what comes after it, to be sent while this turn lasts.
    async fn payload(&mut self, spool: &mut Spool, after: Vec<Bytes>) -> Result<PutPayload, Problem> {
        let buffer = self.turns.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let spooled = spool.take(buffer.unwrap_or_else(|| BytesMut::with_capacity(PART))).await?;
        self.lent = Some(spooled.clone());
        Ok([spooled].into_iter().chain(after).filter(|bytes| !bytes.is_empty()).collect())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Memory that a request still holds, as one that took too long, goes with it.
        let Some(Ok(mut buffer)) = self.lent.take().map(Bytes::try_into_mut) else { return };
        buffer.clear();
        self.turns.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// An object that is being written. One that is dropped half way was never there.
pub(crate) enum Writer {
    Folder(InFolder),
    Objects(InParts),
}

impl Writer {
    /// Adds bytes. Waits for the store when enough have come together.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), Problem> {
        match self {
            Self::Folder(writer) => writer.push(bytes).await,
            Self::Objects(writer) => writer.push(bytes).await,
        }
    }

    /// Makes the object be there, whole.
    pub(crate) async fn finish(self) -> Result<(), Problem> {
        match self {
            Self::Folder(writer) => writer.finish().await,
            Self::Objects(writer) => writer.finish().await,
        }
    }

    /// Takes back what was written.
    pub(crate) async fn abort(self) {
        let upload = match self {
            Self::Folder(writer) => Some(writer.upload),
            Self::Objects(writer) => writer.upload,
        };
        let Some(mut upload) = upload else { return };
        // In a folder what stays behind is found by the sweep; a bucket has its own rule for it.
        match tokio::time::timeout(ABORT, upload.abort()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = said(&error), "half an object could not be taken back"),
            Err(_) => tracing::warn!("half an object could not be taken back in time"),
        }
    }
}

/// Written to a folder as it comes.
pub(crate) struct InFolder {
    upload: Box<dyn MultipartUpload>,
    waiting: Waiting,
}

impl InFolder {
    pub(super) fn new(upload: Box<dyn MultipartUpload>) -> Self {
        Self { upload, waiting: Waiting::default() }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.waiting.push(bytes);
        if self.waiting.length >= CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let payload: PutPayload = self.waiting.take().into_iter().collect();
        in_time(self.upload.put_part(payload)).await
    }

    async fn finish(mut self) -> Result<(), Problem> {
        if self.waiting.length > 0 {
            self.flush().await?;
        }
        in_time(self.upload.complete()).await.map(drop)
    }
}

/// Written to an object store: in one request when it fits, else in parts.
pub(crate) struct InParts {
    store: Arc<dyn ObjectStore>,
    path: Path,
    turns: Arc<Turns>,
    /// Begun when more than one part has come.
    upload: Option<Box<dyn MultipartUpload>>,
    spool: Spool,
    waiting: Waiting,
}

impl InParts {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, turns: Arc<Turns>) -> Self {
        Self { store, path, turns, upload: None, spool: Spool::default(), waiting: Waiting::default() }
    }

    async fn push(&mut self, mut bytes: Bytes) -> Result<(), Problem> {
        // Only when more comes is it clear that what is there is not the last part.
        while self.spool.length + self.waiting.length + bytes.len() > PART {
            let rest = bytes.split_off(PART - self.spool.length - self.waiting.length);
            self.waiting.push(bytes);
            self.send_part().await?;
            bytes = rest;
        }
        self.waiting.push(bytes);
        if self.waiting.length >= CHUNK { self.spool.write(self.waiting.take()).await } else { Ok(()) }
    }

    async fn send_part(&mut self) -> Result<(), Problem> {
        let mut turn = self.turns.take().await?;
        if self.upload.is_none() {
            self.upload = Some(put_in_time(self.store.put_multipart(&self.path)).await?);
        }
        let Some(upload) = &mut self.upload else { return Err(unavailable()) };
        let payload = turn.payload(&mut self.spool, self.waiting.take()).await?;
        put_in_time(upload.put_part(payload)).await
    }

    async fn finish(mut self) -> Result<(), Problem> {
        let finished = self.finish_it().await;
        if finished.is_err() {
            Writer::Objects(self).abort().await;
        }
        finished
    }

    async fn finish_it(&mut self) -> Result<(), Problem> {
        if self.upload.is_some() {
            if self.spool.length + self.waiting.length > 0 {
                self.send_part().await?;
            }
            let Some(upload) = &mut self.upload else { return Err(unavailable()) };
            return put_in_time(upload.complete()).await.map(drop);
        }
        if self.spool.length == 0 {
            let payload: PutPayload = self.waiting.take().into_iter().collect();
            return put_in_time(self.store.put(&self.path, payload)).await.map(drop);
        }
        let mut turn = self.turns.take().await?;
        let payload = turn.payload(&mut self.spool, self.waiting.take()).await?;
        put_in_time(self.store.put(&self.path, payload)).await.map(drop)
    }
}

/// What is too little to be written.
#[derive(Default)]
struct Waiting {
    bytes: Vec<Bytes>,
    length: usize,
}

impl Waiting {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.bytes.push(bytes);
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.length = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// What waits on a disk, in a file that nobody else sees and that ends with this process.
#[derive(Default)]
struct Spool {
    /// Made when there is something.
    file: Option<Arc<File>>,
    length: usize,
}

impl Spool {
    async fn write(&mut self, bytes: Vec<Bytes>) -> Result<(), Problem> {
        let (file, start) = (self.file.clone(), self.length);
        let writing = move || {
            let file = file.map_or_else(|| tempfile::tempfile().map(Arc::new), Ok)?;
            let mut end = start;
            for bytes in bytes {
                file.write_all_at(&bytes, end as u64)?;
                end += bytes.len();
            }
            Ok((file, end))
        };
        let (file, end) = on_disk(writing).await?;
        (self.file, self.length) = (Some(file), end);
        Ok(())
    }

    /// All that waits, in this buffer; nothing waits then.
    async fn take(&mut self, mut buffer: BytesMut) -> Result<Bytes, Problem> {
        buffer.resize(std::mem::take(&mut self.length), 0);
        let Some(file) = self.file.clone() else { return Ok(buffer.freeze()) };
        let reading = move || {
            file.read_exact_at(&mut buffer, 0)?;
            Ok(buffer.freeze())
        };
        on_disk(reading).await
    }
}

/// Reads or writes the file where that may wait.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Problem> {
    let done = tokio::time::timeout(STEP, tokio::task::spawn_blocking(work)).await;
    match done.map(|done| done.unwrap_or_else(|error| Err(io::Error::other(error)))) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::error!(%error, "the folder for temporary files cannot be used");
            Err(unavailable())
        }
        Err(_) => {
            tracing::error!("the folder for temporary files takes too long");
            Err(unavailable())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// The length of every part but the last one is the same, and what comes is what was sent, however it is cut.
    #[tokio::test]
    async fn bytes_come_together_however_they_are_cut() {
        for (length, cut) in [
            (10, 10),
            (CHUNK + 1, 1000),
            (PART, 65_537),
            (PART + 1, 65_537),
            (3 * PART, PART),
            (2 * PART + 5, 3 * PART),
        ] {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let bytes: Vec<u8> = (0..length).map(|place| u8::try_from(place * 31 % 251).unwrap()).collect();
            let mut writer = InParts::new(store.clone(), Path::from("x"), Arc::default());
            for piece in bytes.chunks(cut) {
                writer.push(Bytes::copy_from_slice(piece)).await.unwrap();
                assert!(writer.waiting.length < CHUNK, "{length} in pieces of {cut}");
                assert!(writer.spool.length <= PART);
            }
            assert_eq!(writer.upload.is_some(), length > PART, "{length} in pieces of {cut}");
            let turns = Arc::clone(&writer.turns);
            writer.finish().await.unwrap();
            assert!(turns.buffers.lock().unwrap().len() <= 1, "one at a time needs one buffer");
            let stored = store.get(&Path::from("x")).await.unwrap().bytes().await.unwrap();
            assert!(stored == bytes, "{length} in pieces of {cut}");
        }
    }
}
