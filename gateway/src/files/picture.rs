//! What a picture is made into: its size as it is shown, a blurred hint of it, and smaller copies without what cameras add.

use std::io::Cursor;

use bytes::Bytes;
use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::jpeg::JpegEncoder, imageops::FilterType, metadata::Orientation,
};
use img_parts::{
    ImageEXIF,
    jpeg::{
        Jpeg,
        markers::{APP1, APP2, APP3, APP13, APP15, COM},
    },
    png::Png,
    webp::WebP,
};
use parlance_proto::files::Thumbnails;

/// Longest sides of the thumbnails in pixels, from the largest.
pub(crate) const SIDES: [u32; 3] = [1280, 320, 160];
/// Bytes of the largest file that is made smaller; above that it is only kept.
pub(super) const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Quality of JPEG thumbnails, of 100.
const QUALITY: u8 = 80;
/// Bytes of a decoded pixel, at most: four channels.
const PIXEL: u64 = 4;
/// What decoders may take beside the pixels.
const BESIDE: u64 = 16 * 1024 * 1024;
/// Parts of a blurhash across and down.
const BLUR: (u32, u32) = (4, 3);

/// A picture that could be read.
pub(super) struct Picture {
    /// As it is shown: with its orientation applied.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) blurhash: Option<String>,
    pub(super) format: Thumbnails,
    /// One for each of [`SIDES`].
    pub(super) thumbnails: Vec<(u32, Bytes)>,
}

/// The kind of picture that a media type means, if it is one that is made smaller.
pub(super) fn format_of(media_type: &str) -> Option<ImageFormat> {
    match media_type {
        "image/jpeg" => Some(ImageFormat::Jpeg),
        "image/png" => Some(ImageFormat::Png),
        "image/gif" => Some(ImageFormat::Gif),
        "image/webp" => Some(ImageFormat::WebP),
        _ => None,
    }
}

/// Reads a picture and makes it smaller. Takes time and memory: `most_pixels` bounds both, before anything is decoded.
///
/// # Errors
/// Why it is not taken, for its owner to read.
pub(super) fn read(bytes: &[u8], format: ImageFormat, most_pixels: u64) -> Result<Picture, String> {
    if format == ImageFormat::Jpeg && jpeg_end(bytes).is_none() {
        return Err("the picture ends too early".to_owned());
    }
    let whole = decode(bytes, format, most_pixels)?;
    let (width, height) = whole.dimensions();
    let (format, kind) = match whole.color().has_alpha() {
        true => (ImageFormat::Png, Thumbnails::Png),
        false => (ImageFormat::Jpeg, Thumbnails::Jpeg),
    };
    let mut thumbnails = Vec::with_capacity(SIDES.len());
    let mut last = whole;
    for side in SIDES {
        last = smaller(last, side);
        thumbnails.push((side, encode(&last, format)?));
    }
    Ok(Picture { width, height, blurhash: blurhash(&last), format: kind, thumbnails })
}

fn decode(bytes: &[u8], format: ImageFormat, most_pixels: u64) -> Result<DynamicImage, String> {
    let mut decoder = decoder(bytes, format, most_pixels)?;
    let orientation = decoder.orientation().map_err(|error| unreadable(&error))?;
    let mut whole = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(&error))?;
    whole.apply_orientation(orientation);
    Ok(whole)
}

/// What would decode a picture that is not too large, and has read its head.
fn decoder(bytes: &[u8], format: ImageFormat, most_pixels: u64) -> Result<impl ImageDecoder, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(most_pixels.saturating_mul(PIXEL).saturating_add(BESIDE));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| unreadable(&error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > most_pixels {
        return Err(format!("the picture has {width} × {height} pixels; at most {most_pixels} are taken"));
    }
    Ok(decoder)
}

/// The same picture without what cameras and programs add to it, but for how it is to be turned. Of one that has been through
/// this it makes the same bytes.
///
/// # Errors
/// Why it is not taken, for its owner to read.
pub(super) fn strip(bytes: Bytes, format: ImageFormat, most_pixels: u64) -> Result<Bytes, String> {
    let broken = |_| "the picture cannot be read".to_owned();
    let orientation = decoder(&bytes, format, most_pixels)?.orientation().map_err(|error| unreadable(&error))?;
    let exif = (orientation != Orientation::NoTransforms).then(|| exif_of(orientation));
    match format {
        ImageFormat::Jpeg => {
            // What follows the end is another picture, or something that a program has put there.
            let end = jpeg_end(&bytes).unwrap_or(bytes.len());
            let mut jpeg = Jpeg::from_bytes(bytes.slice(..end)).map_err(broken)?;
            // Colours need their profile (APP2) and Adobe's note on them (APP14).
            jpeg.segments_mut().retain(|segment| match segment.marker() {
                APP2 => segment.contents().starts_with(b"ICC_PROFILE\0"),
                APP1 | APP3..=APP13 | APP15 | COM => false,
                _ => true,
            });
            jpeg.set_exif(exif);
            Ok(jpeg.encoder().bytes())
        }
        ImageFormat::Png => {
            let mut png = Png::from_bytes(bytes).map_err(broken)?;
            png.chunks_mut().retain(|chunk| !matches!(&chunk.kind(), b"eXIf" | b"tEXt" | b"zTXt" | b"iTXt" | b"tIME"));
            png.set_exif(exif);
            Ok(png.encoder().bytes())
        }
        ImageFormat::WebP => {
            let mut webp = WebP::from_bytes(bytes).map_err(broken)?;
            webp.remove_chunks_by_id(*b"XMP ");
            webp.set_exif(exif);
            Ok(webp.encoder().bytes())
        }
        // GIF has no place for it.
        _ => Ok(bytes),
    }
}

/// EXIF that says how a picture is to be turned, and nothing else: one entry, 0x0112, of one short (TIFF 6.0).
fn exif_of(orientation: Orientation) -> Bytes {
    let mut tiff = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend_from_slice(&[orientation.to_exif(), 0, 0, 0, 0, 0, 0]);
    tiff.into()
}

fn unreadable(error: &ImageError) -> String {
    match error {
        ImageError::Limits(_) => "the picture takes too much memory".to_owned(),
        _ => "the picture cannot be read".to_owned(),
    }
}

/// The picture with at most `side` pixels on its longest side; never larger than it was.
fn smaller(picture: DynamicImage, side: u32) -> DynamicImage {
    let (width, height) = picture.dimensions();
    match width.max(height) {
        longest if longest <= side => picture,
        // Of very large ones every pixel is looked at once, which is as good and much faster.
        longest if longest > side.saturating_mul(3) => picture.thumbnail(side, side),
        _ => picture.resize(side, side, FilterType::Triangle),
    }
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Result<Bytes, String> {
    let mut encoded = Cursor::new(Vec::new());
    let done = match format {
        ImageFormat::Png => picture.to_rgba8().write_to(&mut encoded, ImageFormat::Png),
        _ => picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut encoded, QUALITY)),
    };
    done.map_err(|error| unreadable(&error))?;
    Ok(encoded.into_inner().into())
}

fn blurhash(small: &DynamicImage) -> Option<String> {
    let tiny = small.thumbnail(32, 32).to_rgba8();
    blurhash::encode(BLUR.0, BLUR.1, tiny.width(), tiny.height(), &tiny).ok()
}

/// Bytes of a JPEG up to its end (ITU-T T.81, B.1). Decoders paint what is missing grey and say nothing.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        // The next marker: 0xff, perhaps repeated, then what it is. In coded data 0xff 0x00 is a byte, and D0 to D7 belong to it.
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        while bytes.get(at) == Some(&0xff) {
            at += 1;
        }
        match bytes.get(at)? {
            0xd9 => return Some(at + 1),
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            _ => {
                let length = bytes.get(at + 1..at + 3)?.try_into().ok()?;
                at += 1 + usize::from(u16::from_be_bytes(length));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage, codecs::png::PngEncoder};

    use super::*;

    const MOST: u64 = 4_000_000;

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let picture =
            RgbImage::from_fn(width, height, |x, y| Rgb([(x % 251) as u8, (y % 239) as u8, ((x * y) % 241) as u8]));
        let mut bytes = Vec::new();
        picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
        bytes
    }

    /// The same with an EXIF part that says how it is turned, and where it was taken.
    fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        tiff.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
        tiff.extend_from_slice(b"52.5200N 13.4050E");
        let length = u16::try_from(tiff.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &tiff, &jpeg[2..]].concat()
    }

    fn sizes(picture: &Picture) -> Vec<(u32, u32, u32)> {
        let size = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().dimensions();
        picture.thumbnails.iter().map(|(side, bytes)| (*side, size(bytes).0, size(bytes).1)).collect()
    }

    #[test]
    fn a_picture_has_three_smaller_ones_none_above_itself() {
        let picture = read(&jpeg(1600, 800), ImageFormat::Jpeg, MOST).unwrap();
        assert_eq!((picture.width, picture.height), (1600, 800));
        assert_eq!(sizes(&picture), [(1280, 1280, 640), (320, 320, 160), (160, 160, 80)]);
        assert_eq!(picture.format, Thumbnails::Jpeg);
        assert_eq!(picture.blurhash.unwrap().len(), 28, "4 × 3 parts");
        let picture = read(&jpeg(200, 20), ImageFormat::Jpeg, MOST).unwrap();
        assert_eq!(sizes(&picture), [(1280, 200, 20), (320, 200, 20), (160, 160, 16)]);
    }

    #[test]
    fn a_turned_picture_is_upright_and_says_nothing_of_where_it_was_taken() {
        let bytes = turned(&jpeg(400, 200), 6);
        let picture = read(&bytes, ImageFormat::Jpeg, MOST).unwrap();
        assert_eq!((picture.width, picture.height), (200, 400));
        assert_eq!(sizes(&picture)[1], (320, 160, 320));
        for (_, thumbnail) in &picture.thumbnails {
            for secret in [&b"Exif"[..], b"13.4050E"] {
                assert!(!thumbnail.windows(secret.len()).any(|window| window == secret));
            }
        }
    }

    #[test]
    fn a_stripped_picture_is_the_same_and_says_only_how_it_is_turned() {
        let bytes = turned(&jpeg(400, 200), 6);
        let first = read(&bytes, ImageFormat::Jpeg, MOST).unwrap();
        let bare = strip([&bytes[..], b"52.5200N"].concat().into(), ImageFormat::Jpeg, MOST).unwrap();
        for secret in [&b"13.4050E"[..], b"52.5200N"] {
            assert!(!bare.windows(secret.len()).any(|window| window == secret));
        }
        let again = read(&bare, ImageFormat::Jpeg, MOST).unwrap();
        assert_eq!((again.width, again.height), (200, 400));
        assert_eq!(again.thumbnails, first.thumbnails, "not a pixel is another");
        assert_eq!(strip(bare.clone(), ImageFormat::Jpeg, MOST).unwrap(), bare);
        let straight = jpeg(40, 20);
        let bare = strip(turned(&straight, 1).into(), ImageFormat::Jpeg, MOST).unwrap();
        assert_eq!(bare, straight);
        assert!(strip(straight.into(), ImageFormat::Jpeg, 799).is_err(), "no more is decoded than may be");
    }

    #[test]
    fn taking_out_twice_is_taking_out_once() {
        let picture = image::load_from_memory(&jpeg(40, 20)).unwrap();
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif] {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).unwrap();
            let bytes: Bytes = bytes.into_inner().into();
            let with = match format {
                ImageFormat::Png => noted(Png::from_bytes(bytes).unwrap()).encoder().bytes(),
                ImageFormat::WebP => noted(WebP::from_bytes(bytes).unwrap()).encoder().bytes(),
                _ => bytes,
            };
            let once = strip(with.clone(), format, MOST).unwrap();
            assert_eq!(strip(once.clone(), format, MOST).unwrap(), once, "{format:?}");
            // GIF has no place for a note.
            let had_one = format != ImageFormat::Gif;
            assert_eq!(once != with, had_one, "{format:?} has lost something");
            let width = if had_one { 20 } else { 40 };
            assert_eq!(read(&once, format, MOST).unwrap().width, width, "{format:?} is turned as before");
        }
    }

    /// With a note of how it is turned, and of something else.
    fn noted<P: ImageEXIF>(mut picture: P) -> P {
        picture.set_exif(Some([&exif_of(Orientation::Rotate90)[..], b"13.4050E"].concat().into()));
        picture
    }

    #[test]
    fn what_is_transparent_stays_so() {
        let mut bytes = Vec::new();
        let glass = RgbaImage::from_pixel(400, 400, Rgba([1, 2, 3, 0]));
        PngEncoder::new(&mut bytes).write_image(&glass, 400, 400, ExtendedColorType::Rgba8).unwrap();
        let picture = read(&bytes, ImageFormat::Png, MOST).unwrap();
        assert_eq!(picture.format, Thumbnails::Png);
        let small = image::load_from_memory(&picture.thumbnails[2].1).unwrap();
        assert_eq!(small.get_pixel(80, 80).0[3], 0);
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_refused_before_it_is_decoded() {
        let whole = turned(&jpeg(600, 600), 1);
        for length in [3, 40, whole.len() / 2, whole.len() - 2] {
            let refused = read(&whole[..length], ImageFormat::Jpeg, MOST).err();
            assert_eq!(refused.as_deref(), Some("the picture ends too early"), "{length} bytes");
        }
        assert!(read(&[&whole[..], b"what cameras add"].concat(), ImageFormat::Jpeg, MOST).is_ok());
        // The head of a PNG of 64k × 64k pixels, and nothing else.
        let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xff\xff\0\0\xff\xff\x08\x06\0\0\0".to_vec();
        bomb.extend_from_slice(&[0x06, 0x6d, 0x56, 0x5e]);
        let refused = read(&bomb, ImageFormat::Png, MOST).err().unwrap();
        assert!(refused.starts_with("the picture "), "{refused}");
        assert!(read(&whole, ImageFormat::Jpeg, 359_999).err().unwrap().contains("600 × 600 pixels"));
        assert!(read(b"\x89PNG\r\n\x1a\n....", ImageFormat::Png, MOST).is_err());
        assert!(read(b"GIF89a/*<script>", ImageFormat::Gif, MOST).is_err());
    }
}
