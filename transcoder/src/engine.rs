//! What made a rendition, for a person who wonders later: whose libraries, which encoder, how it was set, and how the
//! film was cut. Each chunk says itself what made it: the machine that joins chunks need not be one that encoded them.

use std::collections::BTreeMap;

use domain::task::Plan;
use domain::{Rung, VideoCodec};
use ffmpeg_next::{codec, format};

/// What is kept of the word of one chunk, in characters: it was written by a process that opened an upload.
const WORD_CHARS_MAX: usize = 200;
/// More than this differ only where a chunk lies.
const ENGINES_MAX: usize = 8;

/// How encoders begin to tell of themselves, in what they put before the first picture, and what comes behind it.
const SIGNATURES: [(&str, &str); 2] = [("x264 - core ", " - H.264"), ("x265 (build ", " - H.265")];

/// The machine that packaged it.
pub fn packager() -> String {
    format!(
        "sluice-transcoder {}; packaged by FFmpeg {} (libavformat {})",
        env!("CARGO_PKG_VERSION"),
        crate::ffi_version::version(),
        dotted(format::version())
    )
}

/// The machine that encoded a chunk. `head`: the encoder's headers, or its first packet.
pub fn of_chunk<'a>(heads: impl IntoIterator<Item = &'a [u8]>) -> String {
    let libraries =
        format!("FFmpeg {} (libavcodec {})", crate::ffi_version::version(), dotted(codec::version()));
    match heads.into_iter().find_map(signature) {
        Some(encoder) => format!("{libraries}, {encoder}"),
        None => libraries,
    }
}

/// How the pictures of a rung came to be. `pictures`: what each chunk says of itself.
pub fn of_rung(rung: &Rung, plan: &Plan, pictures: &[String], sound: Option<&str>) -> String {
    let settings = &plan.settings;
    let preset = match rung.name.codec() {
        VideoCodec::H264 => settings.x264_preset.clone(),
        VideoCodec::Hevc => settings.x265_preset.clone(),
        VideoCodec::Av1 => settings.svtav1_preset.to_string(),
    };
    let encoder = crate::encoder::encoder_name(rung.name.codec());
    let mut words = vec![
        format!(
            "{encoder} {preset} crf {} at most {} bit/s, a keyframe every {} s",
            rung.crf, rung.bitrate_bps_max, settings.gop_s_max
        ),
        format!("{} chunks (plan {})", plan.chunks.len(), digest(plan)),
        format!("encoded by {}", encoders(pictures)),
    ];
    // On one machine it is a part of what made the pictures.
    if let Some(sound) = sound.map(word).filter(|sound| !pictures.iter().all(|p| p.starts_with(sound))) {
        words.push(format!("sound by {sound}"));
    }
    words.join("; ")
}

/// One engine as it is; several, each with its chunks.
fn encoders(pictures: &[String]) -> String {
    let mut by_engine: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, engine) in pictures.iter().enumerate() {
        by_engine.entry(word(engine)).or_default().push(number);
    }
    let mut engines: Vec<_> = by_engine.into_iter().collect();
    engines.sort_by_key(|(_, chunks)| chunks.first().copied());
    if let [(only, _)] = engines.as_slice() {
        return only.clone();
    }
    let more = engines.len().saturating_sub(ENGINES_MAX);
    let named = engines.iter().take(ENGINES_MAX);
    let named: Vec<_> = named.map(|(name, chunks)| format!("{name} [{}]", ranges(chunks))).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(" and ") + &rest
}

/// `0-2,5`
fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

fn word(engine: &str) -> String {
    engine.chars().filter(|c| !c.is_control()).take(WORD_CHARS_MAX).collect()
}

/// Of the chunks and their timescale: two encodes with the same one were cut at the same instants. FNV-1a, for nobody
/// gains by a second plan with the same.
fn digest(plan: &Plan) -> String {
    let spans = plan.chunks.iter().flat_map(|span| [span.start, span.end.unwrap_or(i64::MAX)]);
    let numbers = [i64::from(plan.boundaries.timescale)].into_iter().chain(spans);
    let bytes = numbers.flat_map(i64::to_le_bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// What the encoder calls itself.
fn signature(head: &[u8]) -> Option<String> {
    SIGNATURES.iter().find_map(|(begin, behind)| {
        let from = find(head, begin.as_bytes())?;
        let head = &head[from..(from + WORD_CHARS_MAX).min(head.len())];
        let to = find(head, behind.as_bytes())?;
        Some(String::from_utf8_lossy(&head[..to]).into_owned())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// As FFmpeg packs a version.
fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version >> 16, (version >> 8) & 0xff, version & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_are_known_by_what_they_say() {
        let head = b"\0\0\x06\x05x264 - core 164 r3095 baee400 - H.264/MPEG-4 AVC codec - Copyleft";
        let engine = of_chunk([&b"nothing"[..], head]);
        assert!(engine.starts_with("FFmpeg ") && engine.contains("(libavcodec "), "{engine}");
        assert!(engine.ends_with(", x264 - core 164 r3095 baee400"), "{engine}");
        let silent = of_chunk([&b"x264 - core 164"[..]]);
        assert!(silent.ends_with(')'), "{silent}");
    }

    #[test]
    fn one_engine_is_named_once_and_several_with_their_chunks() {
        let engines =
            |names: &[&str]| encoders(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(engines(&["a", "a", "a"]), "a");
        assert_eq!(engines(&["b", "b", "a", "b", "a"]), "b [0-1,3] and a [2,4]");
        let many: Vec<String> = (0..20).map(|n| format!("engine {n}")).collect();
        assert!(encoders(&many).ends_with("engine 7 [7] and 12 more"), "{}", encoders(&many));
        assert_eq!(word("a\0b\n"), "ab");
        assert_eq!(word(&"x".repeat(1000)).len(), WORD_CHARS_MAX);
    }
}
