//! Where and by what a film was taken stays in the source.

use std::path::Path;

use crate::measure::Probed;

/// Shorter texts may be there by chance.
const CHARS_MIN: usize = 6;
/// What says nothing of the person: how it is coded, and in which language.
const HARMLESS: [&str; 6] =
    ["major_brand", "minor_version", "compatible_brands", "language", "vendor_id", "handler_name"];
/// However they are spelled: keys of positions and devices, and what carries them in pictures.
const NEVER: [&[u8]; 7] =
    [b"location", b"ISO6709", b"com.apple", b"com.android", b"Exif\0", b"xmpmeta", b"GPSLatitude"];
/// Too short to be looked for among samples, where they are by chance.
const NEVER_IN_HEADS: [&[u8]; 4] = [b"\xa9xyz", b"loci", b"EXIF", b"XMP "];

/// Texts of the source that must be in no output.
pub fn texts_of(source: &Probed) -> Vec<String> {
    let mut texts: Vec<String> = source
        .tags()
        .into_iter()
        .filter(|(key, value)| !HARMLESS.contains(&key.as_str()) && value.len() >= CHARS_MIN)
        .map(|(_, value)| value)
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

/// What of it stands in the bytes of a file.
pub fn found_in(path: &Path, texts: &[String]) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy();
    let texts = texts.iter().map(String::as_bytes);
    let has_samples = name.ends_with(".mp4") && !name.ends_with(".head.mp4");
    let in_heads = NEVER_IN_HEADS.into_iter().filter(|_| !has_samples);
    let there =
        texts.chain(NEVER).chain(in_heads).filter(|word| memchr::memmem::find(&bytes, word).is_some());
    there.map(|word| format!("`{}` in {name}", String::from_utf8_lossy(word))).collect()
}
