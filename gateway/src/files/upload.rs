//! One upload: noted, streamed into the store, looked at or held for the antivirus, made ready. What fails on the way takes back
//! what it has done; what crashes on the way is found by the sweep.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use parlance_proto::{chat, files as wire, v1};
use service_kit::id::FileId;
use tokio::time::Instant;

use super::{Keeper, Part, kind, picture};
use crate::{error::Problem, frame::Code, services::Services};

/// How long a client may send nothing.
pub(crate) const STALL: Duration = Duration::from_secs(30);
/// How long the bytes of one request may take: less than chat-service waits for what never ends.
const MOST_TIME: Duration = Duration::from_secs(3000);
/// How long a client that is told that its upload failed waits for the bytes to be gone.
const FORGETTING: Duration = Duration::from_secs(5);
/// Longest name, in characters; a longer one loses its beginning.
const MAX_NAME: usize = 255;

/// Whose upload it is and what they say of it.
pub(crate) struct Origin {
    pub(crate) actor: chat::Actor,
    /// See [`clean_name`].
    pub(crate) name: String,
    /// Bytes that will come at most.
    pub(crate) most: u64,
    pub(crate) idempotency_key: Option<String>,
}

/// Takes a file from `body`.
///
/// # Errors
/// What the client is told; nothing is kept then.
pub(crate) async fn upload(
    keeper: Arc<Keeper>,
    services: Services,
    origin: Origin,
    body: impl Stream<Item = Result<Bytes, Problem>> + Unpin + Send,
) -> Result<v1::File, Problem> {
    let mut body = Body::new(body, origin.most);
    let (head, whole) = body.head().await?;
    let media_type = kind::of_head(&head, whole);
    let Origin { actor, name, most, idempotency_key } = origin;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let begin = wire::BeginRequest { actor: Some(actor.clone()), name, most, idempotency_key, resumable: false };
    keeper.check_type(media_type)?;
    let begun = services.files.clone().begin(begin).await?.into_inner();
    if let Some(made) = begun.made {
        return Ok(made);
    }
    let file = FileId::from_wire(&begun.file, "file")?;
    let stored = async {
        let size = body.store(&keeper, file, head).await?;
        keeper.settle(&services, actor.clone(), file, media_type, size).await
    };
    let stored: Result<_, Problem> = stored.await;
    if stored.is_err() {
        give_up(&keeper, &services, actor, file).await;
    }
    stored
}

/// Forgets an upload that failed. When not even that succeeds in a while, as of a store that hangs, the sweep takes it.
async fn give_up(keeper: &Keeper, services: &Services, actor: chat::Actor, file: FileId) {
    let mut files = services.files.clone();
    let given_up = async {
        files.abort(wire::FileRequest { actor: Some(actor), file: file.to_wire() }).await?;
        tokio::time::timeout(FORGETTING, keeper.forget(services, file)).await?
    };
    if let Err(error) = given_up.await {
        tracing::warn!(file.id = %file, error = format!("{error:#}"), "an upload that failed is left to the sweep");
    }
}

impl Keeper {
    /// Says what is stored: held for the antivirus when there is one, else what it turns out to be.
    pub(super) async fn settle(
        self: &Arc<Self>,
        services: &Services,
        actor: chat::Actor,
        file: FileId,
        media_type: &str,
        size: u64,
    ) -> Result<v1::File, Problem> {
        let (actor, media_type, id) = (Some(actor), media_type.to_owned(), file.to_wire());
        let Some(antivirus) = &self.antivirus else {
            let found = self.look(file, &media_type, size).await?;
            return self.finish(services, file, wire::FinishRequest { actor, file: id, media_type, ..found }).await;
        };
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let hold = wire::HoldRequest { actor, file: id, media_type, size };
        let held = self.known(services, file, services.files.clone().hold(hold).await).await?;
        antivirus.wake();
        Ok(held)
    }

    /// Looks at what is stored: of a picture it says what it is made into, and stores that. What cannot be read is rejected.
    pub(super) async fn look(
        self: &Arc<Self>,
        file: FileId,
        media_type: &str,
        size: u64,
    ) -> Result<wire::FinishRequest, Problem> {
        let as_it_is = || wire::FinishRequest { size: i64::try_from(size).unwrap_or(i64::MAX), ..Default::default() };
        let Some(format) = picture::format_of(media_type) else { return Ok(as_it_is()) };
        let strip = self.strip_exif;
        if size > picture::MOST_BYTES {
            return Ok(if strip { too_large_to_strip() } else { as_it_is() });
        }
        let Ok(_turn) = self.decoding.acquire().await else { return Err(stopping()) };
        let (bytes, most) = (self.store.read_whole(file, Part::Original).await?, self.max_pixels);
        let reading = tokio::task::spawn_blocking(move || {
            let picture = picture::read(&bytes, format, most)?;
            let bare = strip.then(|| picture::strip(bytes.clone(), format, most)).transpose()?;
            Ok((picture, bare.filter(|bare| *bare != bytes)))
        });
        let (picture, bare) = match reading.await {
            Ok(Ok(read)) => read,
            Ok(Err(reason)) => return Ok(rejected(reason)),
            // A decoder that panics has been given something that it cannot read.
            Err(error) if error.is_panic() => return Ok(rejected("the picture cannot be read".to_owned())),
            Err(_) => return Err(stopping()),
        };
        let size = bare.as_ref().map_or(as_it_is().size, |bare| i64::try_from(bare.len()).unwrap_or(i64::MAX));
        if let Some(bare) = bare {
            self.store.write_whole(file, Part::Original, bare).await?;
        }
        for (side, bytes) in picture.thumbnails {
            self.store.write_whole(file, Part::Thumbnail(side), bytes).await?;
        }
        Ok(wire::FinishRequest {
            size,
            width: Some(picture.width.into()),
            height: Some(picture.height.into()),
            blurhash: picture.blurhash,
            thumbnails: picture.format.into(),
            ..wire::FinishRequest::default()
        })
    }

    /// Says what an upload turned out to be. The bytes of one that is rejected are gone then.
    pub(super) async fn finish(
        &self,
        services: &Services,
        file: FileId,
        found: wire::FinishRequest,
    ) -> Result<v1::File, Problem> {
        self.known(services, file, services.files.clone().finish(found).await).await
    }

    /// What chat-service answers about an upload whose bytes are stored. They go when it is rejected, now or since somebody
    /// else was faster. And when it was given up meanwhile, or its time was over: nobody else may know of them then.
    async fn known(
        &self,
        services: &Services,
        file: FileId,
        answer: Result<tonic::Response<v1::File>, tonic::Status>,
    ) -> Result<v1::File, Problem> {
        match answer {
            Ok(reply) => {
                let known = reply.into_inner();
                if known.state() == v1::FileState::Rejected
                    && let Err(error) = self.forget(services, file).await
                {
                    tracing::warn!(file.id = %file, error = format!("{error:#}"), "a rejected file is left to the sweep");
                }
                Ok(known)
            }
            Err(status) => {
                if status.code() == tonic::Code::NotFound
                    && let Err(error) = self.store.remove(file).await
                {
                    tracing::error!(file.id = %file, error = format!("{error:#}"), "bytes that nobody knows of stay");
                }
                Err(status.into())
            }
        }
    }

    /// Removes the bytes of a file that are not to be kept, and says so.
    async fn forget(&self, services: &Services, file: FileId) -> anyhow::Result<()> {
        self.store.remove(file).await?;
        services.files.clone().removed(wire::DeadList { files: vec![file.to_wire()] }).await?;
        Ok(())
    }
}

/// What is found of a picture that would have to be in memory for it.
pub(super) fn too_large_to_strip() -> wire::FinishRequest {
    rejected("the picture is too large to take out what its camera has added".to_owned())
}

/// Says that a file is not taken, and why.
pub(super) fn rejected(reason: String) -> wire::FinishRequest {
    wire::FinishRequest { rejected: Some(reason), ..wire::FinishRequest::default() }
}

pub(super) fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "the server is stopping; send it again")
}

/// The bytes as they come.
pub(super) struct Body<S> {
    stream: S,
    read: u64,
    most: u64,
    deadline: Instant,
}

impl<S: Stream<Item = Result<Bytes, Problem>> + Unpin> Body<S> {
    /// What comes, which may be at most so many bytes.
    pub(super) fn new(stream: S, most: u64) -> Self {
        Self { stream, read: 0, most, deadline: Instant::now() + MOST_TIME }
    }

    /// More of it, until it has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let deadline = self.deadline.min(Instant::now() + STALL);
        let next = tokio::time::timeout_at(deadline, self.stream.next()).await.map_err(|_| stalled())?;
        let Some(bytes) = next.transpose()? else { return Ok(None) };
        self.read += bytes.len() as u64;
        if self.read > self.most {
            return Err(Problem::new(Code::TooLarge, format!("file: is larger than {} bytes", self.most)));
        }
        Ok(Some(bytes))
    }

    /// The first bytes, enough to tell what it is, and whether that is all of it.
    pub(super) async fn head(&mut self) -> Result<(Bytes, bool), Problem> {
        let mut head = BytesMut::new();
        while head.len() < kind::HEAD {
            match self.next().await? {
                Some(bytes) => head.extend_from_slice(&bytes),
                None if head.is_empty() => return Err(Problem::new(Code::BadRequest, "file: is empty")),
                None => return Ok((head.freeze(), true)),
            }
        }
        Ok((head.freeze(), false))
    }

    /// `head` and the rest, which are known to be few enough for memory.
    pub(super) async fn whole(&mut self, head: Bytes) -> Result<Bytes, Problem> {
        let mut whole = BytesMut::from(head);
        while let Some(bytes) = self.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// Stores `head` and the rest. Tells how many bytes there were.
    pub(super) async fn store(&mut self, keeper: &Keeper, file: FileId, head: Bytes) -> Result<u64, Problem> {
        let mut writer = keeper.store.write(file, Part::Original).await?;
        let mut next = Ok(Some(head));
        loop {
            match next {
                Ok(Some(bytes)) => match writer.push(bytes).await {
                    Ok(()) => next = self.next().await,
                    Err(problem) => next = Err(problem),
                },
                Ok(None) => {
                    writer.finish().await?;
                    return Ok(self.read);
                }
                Err(problem) => {
                    writer.abort().await;
                    return Err(problem);
                }
            }
        }
    }
}

/// What a client is told that does not send on, or for too long.
pub(crate) fn stalled() -> Problem {
    Problem::new(Code::Timeout, "file: this takes too long; send it again")
}

/// A name that is only a name: the last part of a path, without what no file system or header takes.
pub(crate) fn clean_name(given: Option<&str>) -> String {
    let last = given.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: Vec<char> = last.chars().filter(|character| !is_odd(*character)).collect();
    let kept: String = kept[kept.len().saturating_sub(MAX_NAME)..].iter().collect();
    let kept = kept.trim();
    if kept.trim_matches('.').is_empty() { "file".to_owned() } else { kept.to_owned() }
}

/// Controls, and the marks that make a text read in another direction than it is written: "exe.gpj" is no picture.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for (given, clean) in [
            (Some("cat.jpg"), "cat.jpg"),
            (Some("../../etc/passwd"), "passwd"),
            (Some("..\\..\\boot.ini"), "boot.ini"),
            (Some("/"), "file"),
            (Some(".."), "file"),
            (Some(" \u{0}\r\n"), "file"),
            (Some("a\u{202e}gpj.exe"), "agpj.exe"),
            (Some("Grüße \"x\".txt"), "Grüße \"x\".txt"),
            (None, "file"),
        ] {
            assert_eq!(clean_name(given), clean, "{given:?}");
        }
        assert_eq!(clean_name(Some(&format!("{}.png", "x".repeat(300)))).chars().count(), 255);
    }
}
