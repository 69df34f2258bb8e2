//! HLS playlists (RFC 8216bis; Apple's authoring rules) as text. Pure: what goes in decides every byte.

use std::fmt::Write;

use domain::{RenditionName, Size, TrackKind, VideoCodec};

use crate::publication_file::{Links, PublicationFile};
use crate::segments::Segment;
use crate::sheet::Pictures;
use crate::track_file::Keyframe;

/// Players start on the variant listed first; this bit rate plays nearly everywhere.
const FIRST_VARIANT_BPS: f64 = 2_000_000.0;

/// One rendition as players choose it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub name: RenditionName,
    pub size: Size,
    pub frame_rate: f64,
    /// RFC 6381.
    pub video_codec: String,
    pub video_rate: Rate,
    /// `None`: a film without sound.
    pub audio: Option<VariantAudio>,
    /// Of its keyframes alone; `None` where nobody knows where they end.
    pub keyframe_rate: Option<Rate>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VariantAudio {
    /// The rendition whose name the audio track goes by; renditions that share a track name the same one.
    pub track_of: RenditionName,
    pub codec: String,
    /// `None` where nobody knows.
    pub channels: Option<u32>,
    pub rate: Rate,
}

/// Measured over the segments, in bit/s.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    pub peak_bps: u64,
    pub average_bps: u64,
}

/// The multivariant playlist.
pub fn master(links: &Links, variants: &[Variant], pictures: Option<&Pictures<'_>>) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let mut groups: Vec<RenditionName> = Vec::new();
    for audio in variants.iter().filter_map(|variant| variant.audio.as_ref()) {
        if !groups.contains(&audio.track_of) {
            groups.push(audio.track_of);
            text.push_str(&audio_group(links, audio));
        }
    }
    for variant in in_order(variants) {
        text.push_str(&stream_line(variant));
        let playlist = PublicationFile::MediaPlaylist(variant.name, TrackKind::Video);
        push(&mut text, format_args!("{}", links.to(playlist)));
    }
    for variant in in_order(variants) {
        text.push_str(&keyframe_line(links, variant).unwrap_or_default());
    }
    text.push_str(&pictures.map(pictures_line).unwrap_or_default());
    text
}

/// A media playlist. `target_s` is the publication's: every track of it has the same.
pub fn media(
    links: &Links,
    (rendition, kind): (RenditionName, TrackKind),
    segments: &[Segment],
    target_s: u64,
) -> String {
    let mut text = media_head(target_s);
    push(&mut text, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    push(&mut text, format_args!("{}", map(links, rendition, kind)));
    for (number, segment) in (1..).zip(segments) {
        push(&mut text, format_args!("#EXTINF:{:.5},", segment.duration_s));
        let segment = links.to(PublicationFile::Segment(rendition, kind, number));
        push(&mut text, format_args!("{segment}"));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// A playlist of keyframes: for each the boxes in front of it and itself, as a part of the track's file.
pub fn keyframes(links: &Links, rendition: RenditionName, keyframes: &[Keyframe], target_s: u64) -> String {
    let mut text = media_head(target_s);
    push(&mut text, format_args!("#EXT-X-I-FRAMES-ONLY"));
    push(&mut text, format_args!("{}", map(links, rendition, TrackKind::Video)));
    let file = links.to(PublicationFile::Track(rendition, TrackKind::Video));
    for Keyframe { bytes, duration_s } in keyframes {
        push(&mut text, format_args!("#EXTINF:{duration_s:.5},"));
        push(&mut text, format_args!("#EXT-X-BYTERANGE:{}@{}", bytes.end - bytes.start, bytes.start));
        push(&mut text, format_args!("{file}"));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// A playlist of a storyboard's pictures, all on one sheet (Image Media Playlist 0.4, which is not Apple's: players that
/// do not know it pass over it). Where the last row is not full, the film ends before the sheet does.
pub fn pictures(pictures: &Pictures<'_>) -> String {
    let Pictures { sheet, sprite, .. } = pictures;
    let end_s = sheet.end_ms as f64 / 1000.0;
    let mut text = media_head(whole_s(end_s));
    push(&mut text, format_args!("#EXT-X-IMAGES-ONLY"));
    push(&mut text, format_args!("#EXTINF:{end_s:.5},"));
    let Size { width, height } = sheet.tile;
    let (columns, rows, tile_s) = (sheet.columns(), sheet.rows(), end_s / sheet.tiles.len() as f64);
    let tiles = format_args!("RESOLUTION={width}x{height},LAYOUT={columns}x{rows},DURATION={tile_s:.6}");
    push(&mut text, format_args!("#EXT-X-TILES:{tiles}"));
    push(&mut text, format_args!("{sprite}"));
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

fn media_head(target_s: u64) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    push(&mut text, format_args!("#EXT-X-TARGETDURATION:{target_s}"));
    push(&mut text, format_args!("#EXT-X-MEDIA-SEQUENCE:1"));
    push(&mut text, format_args!("#EXT-X-PLAYLIST-TYPE:VOD"));
    text
}

fn map(links: &Links, rendition: RenditionName, kind: TrackKind) -> String {
    format!("#EXT-X-MAP:URI=\"{}\"", links.to(PublicationFile::Init(rendition, kind)))
}

/// Segments are at most half a second longer than this, because `EXTINF` is compared after rounding.
pub fn target_duration_s<'a>(tracks: impl IntoIterator<Item = &'a [Segment]>) -> u64 {
    let longest = tracks.into_iter().flatten().map(|segment| segment.duration_s).fold(0.0, f64::max);
    whole_s(longest)
}

fn whole_s(longest_s: f64) -> u64 {
    (longest_s.round() as u64).max(1)
}

/// The peak is that of the busiest run of segments between half and one and a half target durations long
/// (RFC 8216bis §4.4.6.2); a short first segment does not count by itself.
pub fn rate(segments: &[Segment], target_s: u64) -> Rate {
    rate_of(&segments.iter().map(|segment| (segment.bytes, segment.duration_s)).collect::<Vec<_>>(), target_s)
}

/// The same of keyframes.
pub fn keyframe_rate(keyframes: &[Keyframe], target_s: u64) -> Rate {
    let parts = keyframes.iter().map(|one| (one.bytes.end - one.bytes.start, one.duration_s));
    rate_of(&parts.collect::<Vec<_>>(), target_s)
}

/// Of parts with so many bytes and seconds.
fn rate_of(parts: &[(u64, f64)], target_s: u64) -> Rate {
    let bytes: u64 = parts.iter().map(|(bytes, _)| bytes).sum();
    let duration_s: f64 = parts.iter().map(|(_, duration_s)| duration_s).sum();
    let average_bps = bits_per_second(bytes, duration_s);
    let (shortest_s, longest_s) = (0.5 * target_s as f64, 1.5 * target_s as f64);
    let mut peak_bps = 0;
    for first in 0..parts.len() {
        let (mut run_bytes, mut run_s) = (0, 0.0);
        for (bytes, duration_s) in &parts[first..] {
            run_bytes += bytes;
            run_s += duration_s;
            if run_s > longest_s {
                break;
            }
            if run_s >= shortest_s {
                peak_bps = peak_bps.max(bits_per_second(run_bytes, run_s));
            }
        }
    }
    // A film shorter than half a target duration has no such run.
    Rate { peak_bps: peak_bps.max(average_bps), average_bps }
}

fn bits_per_second(bytes: u64, duration_s: f64) -> u64 {
    if duration_s > 0.0 { (bytes as f64 * 8.0 / duration_s).ceil() as u64 } else { 0 }
}

fn audio_group(links: &Links, audio: &VariantAudio) -> String {
    let playlist = links.to(PublicationFile::MediaPlaylist(audio.track_of, TrackKind::Audio));
    let channels = audio.channels.map(|channels| format!("CHANNELS=\"{channels}\",")).unwrap_or_default();
    format!(
        "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{}\",NAME=\"Audio\",LANGUAGE=\"und\",DEFAULT=YES,AUTOSELECT=YES,\
         {channels}URI=\"{playlist}\"\n",
        group_id(audio.track_of)
    )
}

fn stream_line(variant: &Variant) -> String {
    let bandwidth = variant.bandwidth();
    let mut line = format!(
        "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\",RESOLUTION={}x{},FRAME-RATE={:.3}",
        bandwidth.peak_bps,
        bandwidth.average_bps,
        variant.codecs(),
        variant.size.width,
        variant.size.height,
        variant.frame_rate,
    );
    if let Some(audio) = &variant.audio {
        line.push_str(&format!(",AUDIO=\"{}\"", group_id(audio.track_of)));
    }
    line.push('\n');
    line
}

fn keyframe_line(links: &Links, variant: &Variant) -> Option<String> {
    let rate = variant.keyframe_rate?;
    Some(format!(
        "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\",RESOLUTION={}x{},URI=\"{}\"\n",
        rate.peak_bps,
        rate.average_bps,
        variant.video_codec,
        variant.size.width,
        variant.size.height,
        links.to(PublicationFile::KeyframePlaylist(variant.name)),
    ))
}

fn pictures_line(pictures: &Pictures<'_>) -> String {
    let Pictures { sheet, sprite_bytes, playlist, .. } = pictures;
    format!(
        "#EXT-X-IMAGE-STREAM-INF:BANDWIDTH={},CODECS=\"jpeg\",RESOLUTION={}x{},URI=\"{playlist}\"\n",
        bits_per_second(*sprite_bytes, sheet.end_ms as f64 / 1000.0),
        sheet.tile.width,
        sheet.tile.height,
    )
}

fn group_id(track_of: RenditionName) -> String {
    format!("audio-{track_of}")
}

/// Of those in H.264, which come first, the one nearest to [`FIRST_VARIANT_BPS`] first, then the others as they come:
/// players that know no other codec leave the rest out.
fn in_order(variants: &[Variant]) -> Vec<&Variant> {
    let distance = |variant: &Variant| {
        let average_bps = variant.bandwidth().average_bps.max(1) as f64;
        (average_bps / FIRST_VARIANT_BPS).ln().abs()
    };
    let mut ordered: Vec<&Variant> = variants.iter().collect();
    ordered.sort_by_key(|variant| variant.name.codec());
    let plain = ordered.iter().filter(|variant| variant.name.codec() == VideoCodec::H264).count();
    let first = (0..plain).min_by(|a, b| distance(ordered[*a]).total_cmp(&distance(ordered[*b])));
    if let Some(first) = first {
        ordered[..=first].rotate_right(1);
    }
    ordered
}

impl Variant {
    /// Video and audio together, as they are played.
    fn bandwidth(&self) -> Rate {
        let audio = self.audio.as_ref().map(|audio| audio.rate).unwrap_or_default();
        Rate {
            peak_bps: self.video_rate.peak_bps + audio.peak_bps,
            average_bps: self.video_rate.average_bps + audio.average_bps,
        }
    }

    fn codecs(&self) -> String {
        match &self.audio {
            Some(audio) => format!("{},{}", self.video_codec, audio.codec),
            None => self.video_codec.clone(),
        }
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes every line");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::{Sheet, Tile};
    use crate::suffix::Suffix;
    use m3u8_rs::{MediaPlaylistType, Playlist};

    fn segment(duration_s: f64, bytes: u64) -> Segment {
        Segment { fragments: 0..1, duration_s, bytes }
    }

    fn variant(name: RenditionName, average_bps: u64, audio: Option<RenditionName>) -> Variant {
        let rate = |average_bps| Rate { peak_bps: average_bps * 3 / 2, average_bps };
        Variant {
            name,
            size: Size { width: 720, height: 1280 },
            frame_rate: 30_000.0 / 1001.0,
            video_codec: "avc1.64001f".into(),
            video_rate: rate(average_bps),
            audio: audio.map(|track_of| VariantAudio {
                track_of,
                codec: "mp4a.40.2".into(),
                channels: (track_of == RenditionName::Medium).then_some(2),
                rate: rate(128_000),
            }),
            keyframe_rate: None,
        }
    }

    #[test]
    fn a_master_names_variants_and_their_sound() {
        use RenditionName::{Low, Medium, Original};
        let variants = [
            variant(Original, 9_000_000, Some(Original)),
            variant(Medium, 1_500_000, Some(Medium)),
            variant(Low, 400_000, Some(Medium)),
        ];
        let text = master(&Links::beside(&Suffix::default()), &variants, None);
        let Ok((_, Playlist::MasterPlaylist(parsed))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("{text}")
        };
        assert!(parsed.independent_segments);
        let names: Vec<&str> = parsed.variants.iter().map(|variant| variant.uri.as_str()).collect();
        assert_eq!(names, ["medium.video.m3u8", "original.video.m3u8", "low.video.m3u8"]);
        let medium = &parsed.variants[0];
        assert_eq!((medium.bandwidth, medium.average_bandwidth), (2_442_000, Some(1_628_000)));
        assert_eq!(medium.codecs.as_deref(), Some("avc1.64001f,mp4a.40.2"));
        assert_eq!(medium.resolution.map(|size| (size.width, size.height)), Some((720, 1280)));
        assert!(text.contains("FRAME-RATE=29.970"), "{text}");
        let groups: Vec<_> =
            parsed.alternatives.iter().map(|group| (&*group.group_id, group.uri.as_deref())).collect();
        let expected =
            [("audio-original", Some("original.audio.m3u8")), ("audio-medium", Some("medium.audio.m3u8"))];
        assert_eq!(groups, expected);
        assert!(parsed.alternatives.iter().all(|group| group.language.as_deref() == Some("und")));
        let channels: Vec<_> = parsed.alternatives.iter().map(|group| group.channels.as_deref()).collect();
        assert_eq!(channels, [None, Some("2")], "nobody knows of the original");
        assert_eq!(parsed.variants[2].audio.as_deref(), Some("audio-medium"));
    }

    #[test]
    fn other_codecs_are_variants_of_their_own_behind_all_h264() {
        use RenditionName::{Low, LowAv1, Medium, MediumAv1, MediumHevc};
        // The AV1 one is nearest to what players begin with.
        let rates =
            [(MediumAv1, 2_000_000), (Medium, 5_000_000), (LowAv1, 200_000), (Low, 900_000), (MediumHevc, 1)];
        let variants = rates.map(|(name, average_bps)| {
            let video_codec = ["avc1.64001f", "hvc1.1.6.L93.90", "av01.0.05M.08"][name.codec() as usize];
            Variant { video_codec: video_codec.into(), ..variant(name, average_bps, Some(Medium)) }
        });
        let text = master(&Links::beside(&Suffix::default()), &variants, None);
        let Ok((_, Playlist::MasterPlaylist(parsed))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("{text}")
        };
        let found: Vec<_> = parsed
            .variants
            .iter()
            .map(|v| (v.uri.as_str(), v.codecs.as_deref().unwrap_or_default()))
            .collect();
        let expected = [
            ("low.video.m3u8", "avc1.64001f,mp4a.40.2"),
            ("medium.video.m3u8", "avc1.64001f,mp4a.40.2"),
            ("medium-hevc.video.m3u8", "hvc1.1.6.L93.90,mp4a.40.2"),
            ("medium-av1.video.m3u8", "av01.0.05M.08,mp4a.40.2"),
            ("low-av1.video.m3u8", "av01.0.05M.08,mp4a.40.2"),
        ];
        assert_eq!(found, expected);
        assert_eq!(parsed.alternatives.len(), 1, "all share the sound");
    }

    #[test]
    fn a_silent_film_has_no_audio_group() {
        let text = master(
            &Links::beside(&Suffix::default()),
            &[variant(RenditionName::Original, 1_000_000, None)],
            None,
        );
        assert!(!text.contains("AUDIO"), "{text}");
        assert!(text.contains("CODECS=\"avc1.64001f\""), "{text}");
    }

    #[test]
    fn keyframes_are_parts_of_the_tracks_file() {
        use RenditionName::{Low, Medium};
        let found = [(900..1900, 2.0), (9900..10_100, 2.0), (20_000..20_300, 0.5)];
        let found = found.map(|(bytes, duration_s)| Keyframe { bytes, duration_s });
        let keyframe_rate = Some(keyframe_rate(&found, 6));
        let variants = [variant(Medium, 1_000_000, None), Variant { keyframe_rate, ..variant(Low, 1, None) }];
        let text = master(&Links::beside(&Suffix::default()), &variants, None);
        let Ok((_, Playlist::MasterPlaylist(parsed))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("{text}")
        };
        let of_keyframes: Vec<_> = parsed.variants.iter().filter(|variant| variant.is_i_frame).collect();
        let [low] = &of_keyframes[..] else { panic!("{text}") };
        assert_eq!(low.uri, "low.video.keyframes.m3u8");
        assert_eq!((low.bandwidth, low.average_bandwidth), (2667, Some(2667)), "1500 bytes in 4.5 s");
        assert_eq!(low.codecs.as_deref(), Some("avc1.64001f"));
        assert_eq!(low.resolution.map(|size| (size.width, size.height)), Some((720, 1280)));

        let text = keyframes(&Links::beside(&Suffix::default()), Low, &found, 6);
        let Ok((_, Playlist::MediaPlaylist(parsed))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("{text}")
        };
        assert!(parsed.i_frames_only && parsed.end_list);
        assert_eq!((parsed.target_duration, parsed.playlist_type), (6, Some(MediaPlaylistType::Vod)));
        assert_eq!(parsed.segments[0].map.as_ref().map(|map| map.uri.as_str()), Some("low.video.init.mp4"));
        assert!(parsed.segments.iter().all(|one| one.uri == "low.video.mp4"));
        let ranges: Vec<_> = parsed.segments.iter().filter_map(|one| one.byte_range.as_ref()).collect();
        let ranges: Vec<_> = ranges.iter().map(|range| (range.length, range.offset)).collect();
        assert_eq!(ranges, [(1000, Some(900)), (200, Some(9900)), (300, Some(20_000))]);
    }

    #[test]
    fn a_storyboard_is_a_sheet_of_tiles() {
        // Seven tiles of 1.5 s in three rows: two places are empty.
        let tiles = (0..7).map(|n| Tile { start_ms: 1500 * n, x: n as u32 % 3 * 160, y: n as u32 / 3 * 90 });
        let sheet = Sheet { tile: Size { width: 160, height: 90 }, tiles: tiles.collect(), end_ms: 10_500 };
        let drawn = Pictures {
            sheet: &sheet,
            sprite: "a/storyboard.jpg".to_owned(),
            sprite_bytes: 10_500,
            playlist: "storyboard.m3u8".to_owned(),
        };
        let variants = [variant(RenditionName::Low, 400_000, None)];
        let text = master(&Links::beside(&Suffix::default()), &variants, Some(&drawn));
        let line = "#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=8000,CODECS=\"jpeg\",RESOLUTION=160x90,URI=\"storyboard.m3u8\"\n";
        assert!(text.ends_with(line), "{text}");
        let expected = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:11\n#EXT-X-MEDIA-SEQUENCE:1\n\
                        #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-IMAGES-ONLY\n#EXTINF:10.50000,\n\
                        #EXT-X-TILES:RESOLUTION=160x90,LAYOUT=3x3,DURATION=1.500000\na/storyboard.jpg\n\
                        #EXT-X-ENDLIST\n";
        assert_eq!(pictures(&drawn), expected);
    }

    #[test]
    fn a_media_playlist_lists_segments_with_their_map() {
        let segments = [segment(2.002, 1), segment(6.006, 1), segment(0.5, 1)];
        let target_s = target_duration_s([&segments[..]]);
        let text = media(
            &Links::beside(&Suffix::default()),
            (RenditionName::Low, TrackKind::Audio),
            &segments,
            target_s,
        );
        let Ok((_, Playlist::MediaPlaylist(parsed))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!(parsed.version, Some(7));
        assert_eq!(parsed.target_duration, 6);
        assert_eq!(parsed.playlist_type, Some(MediaPlaylistType::Vod));
        assert!(parsed.end_list);
        let first = &parsed.segments[0];
        assert_eq!(first.uri, "low.audio.00001.mp4");
        assert_eq!(first.map.as_ref().map(|map| map.uri.as_str()), Some("low.audio.init.mp4"));
        assert!((parsed.segments[1].duration - 6.006).abs() < 1e-4);
        assert_eq!(parsed.segments.len(), 3);
    }

    #[test]
    fn rates_are_measured_over_runs_of_a_target_duration() {
        // One MB in the short first segment is no peak by itself: with the next one it is 1.5 MB in 8 s.
        let segments = [segment(2.0, 1_000_000), segment(6.0, 500_000), segment(6.0, 600_000)];
        let rate = rate(&segments, 6);
        assert_eq!(rate.peak_bps, 1_500_000);
        assert_eq!(rate.average_bps, 1_200_000);
        assert_eq!(super::rate(&[segment(0.04, 1000)], 1).peak_bps, 200_000);
        assert_eq!(super::rate(&[], 1), Rate::default());
    }
}
