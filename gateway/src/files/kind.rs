//! What a content is, by its first bytes. Neither a name nor a header has a say in it.

/// Bytes of the beginning that tell what a content is.
pub(super) const HEAD: usize = 8192;

/// What browsers show by themselves and cannot be made to run: everything else is offered for saving only.
const INLINE: [&str; 13] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "audio/mpeg",
    "audio/ogg",
    "audio/x-flac",
    "audio/x-wav",
    "audio/m4a",
    "text/plain",
];

/// Whether a browser may show this by itself.
pub(crate) fn is_inline(media_type: &str) -> bool {
    INLINE.contains(&media_type)
}

/// The media type of a content that begins so; `whole` when that is all of it.
pub(super) fn of_head(head: &[u8], whole: bool) -> &'static str {
    // Before anything else: what a browser could run must never count as something harmless.
    if let Some(active) = active(head) {
        return active;
    }
    match infer::get(head) {
        Some(kind) => kind.mime_type(),
        None if is_text(head, whole) => "text/plain",
        None => "application/octet-stream",
    }
}

/// HTML, SVG and other XML, however they begin.
fn active(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if !text.starts_with(b"<") {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let holds = |word: &[u8]| lower.windows(word.len()).any(|window| window == word);
    Some(if holds(b"<svg") {
        "image/svg+xml"
    } else if lower.starts_with(b"<?xml") && !holds(b"<html") {
        "application/xml"
    } else {
        "text/html"
    })
}

/// UTF-8 without control characters; the last character may be cut when there is more.
fn is_text(head: &[u8], whole: bool) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.chars().any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{c}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        for (head, kind) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], "image/png"),
            (b"\xff\xd8\xff\xe0....", "image/jpeg"),
            (b"GIF89a/*<script>", "image/gif"),
            (b"%PDF-1.7", "application/pdf"),
            (b"PK\x03\x04....", "application/zip"),
            ("Grüße".as_bytes(), "text/plain"),
            (b"\x00\x01\x02", "application/octet-stream"),
            (b"a\x00b", "application/octet-stream"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml"),
            (b"\xef\xbb\xbf <?xml version='1.0'?><!-- x --><SVG>", "image/svg+xml"),
            (b"<?xml version='1.0'?><x/>", "application/xml"),
            (b"  <!DOCTYPE html><script>", "text/html"),
            (b"<script>alert(1)</script>", "text/html"),
        ] {
            assert_eq!(of_head(head, true), kind, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_character_that_is_cut_at_the_end_of_the_head_is_still_text() {
        let cut = &"ab€".as_bytes()[..4];
        assert_eq!(of_head(cut, false), "text/plain");
        assert_eq!(of_head(cut, true), "application/octet-stream");
    }

    #[test]
    fn nothing_that_runs_is_shown() {
        for active in ["text/html", "image/svg+xml", "application/xml", "application/pdf", "application/octet-stream"] {
            assert!(!is_inline(active), "{active}");
        }
    }
}
