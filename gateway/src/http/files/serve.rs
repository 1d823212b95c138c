//! The bytes of a file as HTTP answers them: whole or in part, and never as something that runs.

use std::ops::Range;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parlance_proto::v1;
use service_kit::id::FileId;

use super::super::reply::Answer;
use crate::{
    error::Problem,
    files::{Keeper, Part, is_inline},
    frame::Code,
};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Refuses a file without bytes.
fn refuse_unready(file: &v1::File) -> Result<(), Problem> {
    match file.state() {
        v1::FileState::Ready => Ok(()),
        v1::FileState::Rejected => {
            let reason = file.reason.as_deref().unwrap_or("it was rejected");
            Err(Problem::new(Code::Unprocessable, format!("the file is not kept: {reason}")))
        }
        _ => Err(Problem::new(Code::Unprocessable, "the file is not ready yet")),
    }
}

/// A smaller copy of a picture.
pub(super) async fn thumbnail(
    keeper: &Keeper,
    id: FileId,
    file: &v1::File,
    side: u32,
    media_type: &str,
    asked: &HeaderMap,
) -> Answer {
    refuse_unready(file)?;
    let etag = format!("\"{id}-{side}\"");
    if none_match(asked, &etag) {
        return Ok(headed(StatusCode::NOT_MODIFIED, &etag, Body::empty()));
    }
    let bytes = keeper.store.read_whole(id, Part::Thumbnail(side)).await?;
    let mut response = headed(StatusCode::OK, &etag, Body::from(bytes));
    insert(&mut response, header::CONTENT_TYPE, media_type);
    insert(&mut response, header::CONTENT_DISPOSITION, "inline");
    Ok(response)
}

/// What would be answered about a file that may be read, without asking the store for its bytes.
pub(super) fn described(id: FileId, file: &v1::File, asked: &HeaderMap) -> Answer {
    refuse_unready(file)?;
    let etag = format!("\"{id}\"");
    if none_match(asked, &etag) {
        return Ok(headed(StatusCode::NOT_MODIFIED, &etag, Body::empty()));
    }
    let mut response = headed(StatusCode::OK, &etag, Body::empty());
    insert(&mut response, header::CONTENT_LENGTH, &file.size.to_string());
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    describe(&mut response, &file.media_type, &file.name);
    Ok(response)
}

/// Where the original bytes of a file that may be read are for a while: the store answers for them itself, in parts too.
pub(super) async fn elsewhere(keeper: &Keeper, id: FileId, file: &v1::File, asked: &HeaderMap) -> Answer {
    refuse_unready(file)?;
    let etag = format!("\"{id}\"");
    if none_match(asked, &etag) {
        return Ok(headed(StatusCode::NOT_MODIFIED, &etag, Body::empty()));
    }
    // At the store there is no sandbox around it: nothing is shown there, everything is saved.
    let disposition = disposition(false, &file.name);
    let url = keeper.store.sign(id, Part::Original, shown(&file.media_type), &disposition).await?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    insert(&mut response, header::LOCATION, &url);
    insert(&mut response, header::CACHE_CONTROL, "no-store");
    // The URL is a right: it is not told to whom a page links.
    insert(&mut response, header::REFERRER_POLICY, "no-referrer");
    Ok(response)
}

/// The original bytes of a file that may be read.
pub(super) async fn original(keeper: &Keeper, id: FileId, file: &v1::File, asked: &HeaderMap) -> Answer {
    refuse_unready(file)?;
    let etag = format!("\"{id}\"");
    if none_match(asked, &etag) {
        return Ok(headed(StatusCode::NOT_MODIFIED, &etag, Body::empty()));
    }
    let size = u64::try_from(file.size).unwrap_or_default();
    let (status, range) = match wanted(asked, &etag, size) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let mut response = Problem::range_not_satisfiable(size).into_response();
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let length = range.end - range.start;
    let (first, last) = (range.start, range.end.saturating_sub(1));
    let bytes = keeper.store.read(id, Part::Original, range).await?;
    let mut response = headed(status, &etag, Body::from_stream(bytes));
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    }
    insert(&mut response, header::CONTENT_LENGTH, &length.to_string());
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    describe(&mut response, &file.media_type, &file.name);
    Ok(response)
}

/// An answer about bytes, with what goes with all of them.
fn headed(status: StatusCode, etag: &str, body: Body) -> Response {
    let mut response = (status, body).into_response();
    insert(&mut response, header::ETAG, etag);
    // Kept, but asked for again each time: the right to read it may end.
    insert(&mut response, header::CACHE_CONTROL, "private, no-cache");
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(&mut response, header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    insert(&mut response, CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin");
    response
}

/// What it is and what it is called.
fn describe(response: &mut Response, media_type: &str, name: &str) {
    insert(response, header::CONTENT_TYPE, shown(media_type));
    insert(response, header::CONTENT_DISPOSITION, &disposition(is_inline(media_type), name));
}

/// The type that is named.
fn shown(media_type: &str) -> &str {
    match media_type {
        "text/plain" => "text/plain; charset=utf-8",
        known if is_inline(known) => known,
        // A type that a browser could run is not even named.
        known if runs(known) => "application/octet-stream",
        known => known,
    }
}

fn runs(media_type: &str) -> bool {
    ["html", "xml", "script", "svg", "xslt"].iter().any(|word| media_type.contains(word))
}

/// `Content-Disposition` (RFC 6266): what is not plain ASCII goes into `filename*` (RFC 8187).
fn disposition(inline: bool, name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|character| match character {
            '"' | '\\' | '%' | '/' => '_',
            plain if plain.is_ascii_graphic() || plain == ' ' => plain,
            _ => '_',
        })
        .collect();
    let mut whole = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            whole.push(char::from(byte));
        } else {
            whole.push_str(&format!("%{byte:02X}"));
        }
    }
    let kind = if inline { "inline" } else { "attachment" };
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{whole}")
}

/// Whether the caller holds these bytes already.
fn none_match(asked: &HeaderMap, etag: &str) -> bool {
    let values = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    /// Of what there is, nothing.
    Nothing,
}

/// The one range that is asked for (RFC 9110, 14.2). What cannot be read, and several at once, count as not asked.
fn wanted(asked: &HeaderMap, etag: &str, size: u64) -> Wanted {
    if asked.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) {
        return Wanted::All;
    }
    let mut values = asked.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Wanted::All };
    let range = value.to_str().ok().and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return Wanted::All };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match last.parse::<u64>() {
            Ok(0) => Wanted::Nothing,
            Ok(count) => Wanted::Part(size.saturating_sub(count)..size),
            Err(_) => Wanted::All,
        };
    }
    let Ok(first) = first.parse::<u64>() else { return Wanted::All };
    let end = match last {
        "" => size,
        last => match last.parse::<u64>() {
            Ok(last) if last >= first => last.saturating_add(1).min(size),
            _ => return Wanted::All,
        },
    };
    if first >= size { Wanted::Nothing } else { Wanted::Part(first..end) }
}

/// Sets a header. The values here are visible ASCII.
fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_what_there_is() {
        for (range, size, part) in [
            ("bytes=0-3", 10, Wanted::Part(0..4)),
            ("bytes=4-", 10, Wanted::Part(4..10)),
            ("bytes=-3", 10, Wanted::Part(7..10)),
            ("bytes=-30", 10, Wanted::Part(0..10)),
            ("bytes=4-99", 10, Wanted::Part(4..10)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=5-4", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=18446744073709551615-18446744073709551615", 10, Wanted::Nothing),
            ("lines=0-3", 10, Wanted::All),
            ("bytes=x-", 10, Wanted::All),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(header::RANGE, range.parse().unwrap());
            assert_eq!(wanted(&asked, "\"a\"", size), part, "{range}");
            asked.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
            assert_eq!(wanted(&asked, "\"a\"", size), Wanted::All, "another version is wanted whole");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        for (name, header) in [
            ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
            ("a\"; x=\"\r\nb", "attachment; filename=\"a_; x=___b\"; filename*=UTF-8''a%22%3B%20x%3D%22%0D%0Ab"),
            ("ü.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%C3%BC.png"),
        ] {
            assert_eq!(disposition(false, name), header);
        }
    }
}
