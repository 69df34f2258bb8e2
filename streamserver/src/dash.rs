//! The manifest of DASH (ISO/IEC 23009-1, DASH-IF's guidelines) as text. Pure: what goes in decides every byte.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;

use domain::{RenditionName, Size, TrackIndex, TrackKind};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use crate::hls::Rate;
use crate::publication_file::{Links, PublicationFile};
use crate::segments::{self, Segment};
use crate::sheet::Pictures;
use crate::track_file::TrackFile;

/// How clients ask for the parts of a track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// By the names of segments, which caches keep one by one.
    #[default]
    Segments,
    /// By byte ranges of one file a track, which say the same of a copy in a bucket.
    Ranges,
}

/// One track as players choose it.
pub struct Track<'a> {
    pub rendition: RenditionName,
    pub kind: TrackKind,
    /// Of pictures: their size, and how many there are in a second.
    pub picture: Option<(Size, f64)>,
    pub index: &'a TrackIndex,
    pub segments: &'a [Segment],
    /// `None`: it can be had in segments alone.
    pub file: Option<TrackFile<'a>>,
    pub rate: Rate,
}

pub struct Presentation<'a> {
    pub tracks: Vec<Track<'a>>,
    pub pictures: Option<Pictures<'a>>,
    /// Players buffer as much before they start: the longest segment, to which the rates refer.
    pub buffer_s: u64,
}

/// DASH-IF IOP, part 10: one picture in which others stand in columns and rows.
const TILES: &str = "http://dashif.org/guidelines/thumbnail_tile";

/// ISO/IEC 23003-3. Up to six, the number of a configuration is that of its channels.
const CHANNELS: &str = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";

type Xml = Writer<Vec<u8>>;

pub fn manifest(links: &Links, presentation: &Presentation<'_>, addressing: Addressing) -> String {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 1);
    write(&mut xml, links, presentation, addressing).expect("a Vec takes every byte");
    String::from_utf8(xml.into_inner()).expect("made of text")
}

fn write(
    xml: &mut Xml,
    links: &Links,
    presentation: &Presentation<'_>,
    addressing: Addressing,
) -> io::Result<()> {
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let duration = presentation.duration();
    let buffer = format!("PT{}S", presentation.buffer_s);
    let root = xml.create_element("MPD").with_attributes([
        ("xmlns", "urn:mpeg:dash:schema:mpd:2011"),
        ("type", "static"),
        ("profiles", addressing.profiles()),
        ("mediaPresentationDuration", &duration),
        ("minBufferTime", &buffer),
    ]);
    root.write_inner_content(|xml| {
        let period = xml.create_element("Period").with_attributes([("id", "0"), ("start", "PT0S")]);
        period.write_inner_content(|xml| {
            for (number, tracks) in sets(&presentation.tracks, addressing).iter().enumerate() {
                write_set(xml, links, number, tracks, addressing)?;
            }
            presentation.pictures.iter().try_for_each(|pictures| write_pictures(xml, pictures))
        })?;
        Ok(())
    })?;
    Ok(())
}

/// Tracks that a player may change between at any segment: of one codec, and cut at the same instants.
fn sets<'a>(tracks: &'a [Track<'a>], addressing: Addressing) -> Vec<Vec<&'a Track<'a>>> {
    let mut sets: Vec<Vec<&Track>> = Vec::new();
    for track in tracks.iter().filter(|track| track.can_be_had(addressing)) {
        match sets.iter_mut().find(|set| set[0].is_exchangeable_with(track)) {
            Some(set) => set.push(track),
            None => sets.push(vec![track]),
        }
    }
    sets
}

fn write_set(
    xml: &mut Xml,
    links: &Links,
    number: usize,
    tracks: &[&Track<'_>],
    addressing: Addressing,
) -> io::Result<()> {
    let kind = tracks[0].kind;
    let mime = format!("{kind}/mp4");
    let number = number.to_string();
    let mut set = xml.create_element("AdaptationSet").with_attributes([
        ("id", &*number),
        ("contentType", kind.as_str()),
        ("mimeType", &mime),
    ]);
    if kind == TrackKind::Audio {
        set = set.with_attribute(("lang", "und"));
    }
    set.with_attributes(addressing.promises()).write_inner_content(|xml| {
        for track in tracks {
            write_representation(xml, links, track, addressing)?;
        }
        Ok(())
    })?;
    Ok(())
}

fn write_representation(
    xml: &mut Xml,
    links: &Links,
    track: &Track<'_>,
    addressing: Addressing,
) -> io::Result<()> {
    let mut representation = xml.create_element("Representation").with_attributes([
        ("id", &*format!("{}.{}", track.rendition, track.kind)),
        ("codecs", &track.index.codec),
        ("bandwidth", &track.rate.peak_bps.to_string()),
    ]);
    if let Some((size, frame_rate)) = track.picture {
        representation = representation.with_attributes([
            ("width", &*size.width.to_string()),
            ("height", &size.height.to_string()),
            ("frameRate", &rational(frame_rate)),
            ("sar", "1:1"),
        ]);
    }
    representation.write_inner_content(|xml| {
        if let Some(channels) = track.index.channels {
            let configuration = xml.create_element("AudioChannelConfiguration");
            let value = channels.to_string();
            configuration.with_attributes([("schemeIdUri", CHANNELS), ("value", &value)]).write_empty()?;
        }
        match addressing {
            Addressing::Segments => write_template(xml, links, track),
            Addressing::Ranges => write_ranges(xml, links, track),
        }
    })?;
    Ok(())
}

fn write_template(xml: &mut Xml, links: &Links, track: &Track<'_>) -> io::Result<()> {
    let template = xml.create_element("SegmentTemplate").with_attributes([
        ("timescale", &*track.index.timescale.to_string()),
        ("startNumber", "1"),
        ("initialization", &links.to(PublicationFile::Init(track.rendition, track.kind))),
        ("media", &links.to_segments(track.rendition, track.kind)),
    ]);
    template.write_inner_content(|xml| {
        xml.create_element("SegmentTimeline").write_inner_content(|xml| write_timeline(xml, track))?;
        Ok(())
    })?;
    Ok(())
}

/// Segments of one length that follow each other are told at once.
fn write_timeline(xml: &mut Xml, track: &Track<'_>) -> io::Result<()> {
    let spans = track.spans();
    let mut end = None;
    for run in spans.chunk_by(|a, b| a.end == b.start && b.end - b.start == a.end - a.start) {
        let mut element = xml.create_element("S");
        if end != Some(run[0].start) {
            element = element.with_attribute(("t", &*run[0].start.to_string()));
        }
        element = element.with_attribute(("d", &*(run[0].end - run[0].start).to_string()));
        if run.len() > 1 {
            element = element.with_attribute(("r", &*(run.len() - 1).to_string()));
        }
        element.write_empty()?;
        end = run.last().map(|last| last.end);
    }
    Ok(())
}

fn write_ranges(xml: &mut Xml, links: &Links, track: &Track<'_>) -> io::Result<()> {
    let Some(file) = &track.file else { return Ok(()) };
    let address = links.to(PublicationFile::Track(track.rendition, track.kind));
    xml.create_element("BaseURL").write_text_content(BytesText::new(&address))?;
    let base = xml.create_element("SegmentBase").with_attributes([
        ("timescale", &*track.index.timescale.to_string()),
        ("indexRange", &range(file.index())),
    ]);
    base.write_inner_content(|xml| {
        xml.create_element("Initialization").with_attribute(("range", &*range(file.init()))).write_empty()?;
        Ok(())
    })?;
    Ok(())
}

/// The sprite as the one segment there is. Where its last row is not full it covers more than the film.
fn write_pictures(xml: &mut Xml, pictures: &Pictures<'_>) -> io::Result<()> {
    let Pictures { sheet, sprite, sprite_bytes, .. } = pictures;
    let (columns, rows, tiles) = (sheet.columns(), sheet.rows(), sheet.tiles.len() as u64);
    let (timescale, duration) = (1000 * tiles, sheet.end_ms * u64::from(columns) * u64::from(rows));
    let bandwidth = (8 * sprite_bytes * timescale).div_ceil(duration.max(1));
    let set = xml
        .create_element("AdaptationSet")
        .with_attributes([("contentType", "image"), ("mimeType", "image/jpeg")]);
    set.write_inner_content(|xml| {
        let representation = xml.create_element("Representation").with_attributes([
            ("id", "storyboard"),
            ("bandwidth", &*bandwidth.to_string()),
            ("width", &(columns * sheet.tile.width).to_string()),
            ("height", &(rows * sheet.tile.height).to_string()),
        ]);
        representation.write_inner_content(|xml| {
            let value = format!("{columns}x{rows}");
            let property = xml.create_element("EssentialProperty");
            property.with_attributes([("schemeIdUri", TILES), ("value", &value)]).write_empty()?;
            let template = xml.create_element("SegmentTemplate").with_attributes([
                ("timescale", &*timescale.to_string()),
                ("duration", &duration.to_string()),
                ("startNumber", "1"),
                ("media", sprite),
            ]);
            template.write_empty()?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

/// As RFC 9110 counts: the last byte belongs to it.
fn range(bytes: Range<u64>) -> String {
    format!("{}-{}", bytes.start, bytes.end.saturating_sub(1))
}

impl Addressing {
    fn profiles(self) -> &'static str {
        match self {
            Addressing::Segments => "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019",
            Addressing::Ranges => {
                "urn:mpeg:dash:profile:isoff-on-demand:2011,urn:mpeg:dash:profile:cmaf:2019"
            }
        }
    }

    /// What holds for all tracks of a set. With ranges, the whole file is the segment.
    fn promises(self) -> [(&'static str, &'static str); 2] {
        match self {
            Addressing::Segments => [("segmentAlignment", "true"), ("startWithSAP", "1")],
            Addressing::Ranges => [("subsegmentAlignment", "true"), ("subsegmentStartsWithSAP", "1")],
        }
    }
}

impl Presentation<'_> {
    /// To the end of the track that ends last, never less than it lasts.
    fn duration(&self) -> String {
        let end_us = |track: &Track| {
            let end = track.spans().last().map_or(0, |last| last.end);
            (u128::from(end) * 1_000_000).div_ceil(u128::from(track.index.timescale.max(1)))
        };
        let us = self.tracks.iter().map(end_us).max().unwrap_or(0);
        let mut text = format!("PT{}", us / 1_000_000);
        if us % 1_000_000 > 0 {
            write!(text, ".{:06}", us % 1_000_000).expect("a String takes every character");
        }
        text.push('S');
        text
    }
}

impl Track<'_> {
    fn spans(&self) -> Vec<Range<u64>> {
        segments::spans(self.index, self.segments)
    }

    fn can_be_had(&self, addressing: Addressing) -> bool {
        addressing == Addressing::Segments || self.file.is_some()
    }

    fn is_exchangeable_with(&self, other: &Track<'_>) -> bool {
        self.kind == other.kind
            && self.coding() == other.coding()
            && segments::are_aligned((self.index, self.segments), (other.index, other.segments))
    }

    /// Pictures of one codec may differ in profile and level.
    fn coding(&self) -> &str {
        match self.kind {
            TrackKind::Video => self.index.codec.split('.').next().unwrap_or_default(),
            TrackKind::Audio => &self.index.codec,
        }
    }
}

/// Measured rates are near those that are meant: whole ones, those of NTSC, else to the thousandth.
fn rational(frame_rate: f64) -> String {
    let near = |meant: f64| (frame_rate - meant).abs() < 0.005;
    let whole = frame_rate.round();
    if near(whole) {
        format!("{whole}")
    } else if near(whole * 1000.0 / 1001.0) {
        format!("{}/1001", whole * 1000.0)
    } else {
        format!("{}/1000", (frame_rate * 1000.0).round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::{Sheet, Tile};
    use crate::suffix::Suffix;
    use crate::track_file;
    use dash_mpd_core::{AdaptationSet, MPD, SegmentTemplate};
    use domain::{Fragment, Layout, Piece};
    use std::time::Duration;

    /// Fragments that start at these ticks, the last one until `end`, each of 100 bytes.
    fn index(codec: &str, timescale: u32, starts: &[i64], end: i64) -> TrackIndex {
        let ends = starts.iter().skip(1).chain([&end]);
        let fragment = |(start, end): (&i64, &i64)| Fragment {
            start: *start,
            duration: (end - start) as u64,
            lead_bytes: Some(10),
            layout: Layout { pieces: vec![Piece::Extent(0, 0, 100)] },
        };
        TrackIndex {
            codec: codec.to_owned(),
            timescale,
            channels: codec.starts_with("mp4a").then_some(2),
            init: Layout { pieces: vec![Piece::Extent(0, 0, 800)] },
            fragments: starts.iter().zip(ends).map(fragment).collect(),
        }
    }

    struct Film(Vec<(RenditionName, TrackKind, TrackIndex, Vec<Segment>)>);

    impl Film {
        /// A segment of 2 s, two of 6 s, one of a second, in each track as it counts.
        fn new(tracks: &[(RenditionName, TrackKind, &str, u32)]) -> Film {
            let tracks = tracks.iter().map(|&(rendition, kind, codec, timescale)| {
                let early = if kind == TrackKind::Audio { 1024 } else { 0 };
                let starts = [0, 2, 8, 14].map(|s| s * i64::from(timescale) - early);
                let index = index(codec, timescale, &starts, 15 * i64::from(timescale) + 1);
                let segments = segments::segments(&index, &[0, 2_000_000, 8_000_000, 14_000_000]);
                (rendition, kind, index, segments)
            });
            Film(tracks.collect())
        }

        fn manifest(&self, addressing: Addressing) -> MPD {
            let mut tracks = Vec::new();
            let sidxes =
                self.0.iter().map(|(.., index, segments)| track_file::sidx(index, segments).unwrap());
            let sidxes: Vec<Layout> = sidxes.collect();
            for (number, (rendition, kind, index, segments)) in self.0.iter().enumerate() {
                let picture = (Size { width: 720, height: 1280 }, 30_000.0 / 1001.0);
                tracks.push(Track {
                    rendition: *rendition,
                    kind: *kind,
                    picture: (*kind == TrackKind::Video).then_some(picture),
                    index,
                    segments,
                    file: Some(TrackFile::new(index, segments, &sidxes[number])),
                    rate: Rate { peak_bps: 3_000_000 >> number, average_bps: 1 },
                });
            }
            let presentation = Presentation { tracks, pictures: None, buffer_s: 6 };
            let text = manifest(&Links::beside(&Suffix::default()), &presentation, addressing);
            dash_mpd_core::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
        }
    }

    fn ids(set: &AdaptationSet) -> Vec<&str> {
        set.representations.iter().filter_map(|one| one.id.as_deref()).collect()
    }

    fn timeline(template: &SegmentTemplate) -> Vec<(Option<u64>, u64, Option<i64>)> {
        let timeline = template.SegmentTimeline.as_ref().unwrap();
        timeline.segments.iter().map(|s| (s.t, s.d, s.r)).collect()
    }

    #[test]
    fn a_manifest_of_segments() {
        use RenditionName::{Low, Original};
        let film = Film::new(&[
            (Original, TrackKind::Video, "avc1.640028", 30_000),
            (Original, TrackKind::Audio, "mp4a.40.2", 48_000),
            (Low, TrackKind::Video, "avc1.42c01e", 90_000),
        ]);
        let mpd = film.manifest(Addressing::Segments);
        assert_eq!(mpd.mpdtype.as_deref(), Some("static"));
        assert!(mpd.profiles.unwrap().contains("urn:mpeg:dash:profile:isoff-live:2011"));
        assert_eq!(mpd.minBufferTime, Some(Duration::from_secs(6)));
        // The last picture ends a tick behind 15 s, rounded up.
        assert_eq!(mpd.mediaPresentationDuration, Some(Duration::from_micros(15_000_034)));
        let [video, audio] = &mpd.periods[0].adaptations[..] else { panic!("one set of each kind") };
        assert_eq!(ids(video), ["original.video", "low.video"]);
        assert_eq!((video.mimeType.as_deref(), video.segmentAlignment), (Some("video/mp4"), Some(true)));
        assert_eq!((audio.mimeType.as_deref(), audio.lang.as_deref()), (Some("audio/mp4"), Some("und")));
        let low = &video.representations[1];
        assert_eq!((low.codecs.as_deref(), low.bandwidth), (Some("avc1.42c01e"), Some(750_000)));
        assert_eq!((low.width, low.height), (Some(720), Some(1280)));
        assert_eq!(low.frameRate.as_deref(), Some("30000/1001"));
        let template = low.SegmentTemplate.as_ref().unwrap();
        assert_eq!(template.media.as_deref(), Some("low.video.$Number%05d$.mp4"));
        assert_eq!(template.initialization.as_deref(), Some("low.video.init.mp4"));
        assert_eq!((template.timescale, template.startNumber), (Some(90_000), Some(1)));
        assert_eq!(
            timeline(template),
            [(Some(0), 180_000, None), (None, 540_000, Some(1)), (None, 90_001, None)]
        );
        let [configuration] = &audio.representations[0].AudioChannelConfiguration[..] else { panic!("one") };
        assert_eq!((&*configuration.schemeIdUri, configuration.value.as_deref()), (CHANNELS, Some("2")));
        assert!(low.AudioChannelConfiguration.is_empty());
        let sound = audio.representations[0].SegmentTemplate.as_ref().unwrap();
        let expected = [(Some(0), 94_976, None), (None, 288_000, Some(1)), (None, 49_025, None)];
        assert_eq!(timeline(sound), expected, "what sounds before the film is not counted");
    }

    #[test]
    fn a_manifest_of_ranges() {
        let film = Film::new(&[(RenditionName::Low, TrackKind::Video, "avc1.42c01e", 90_000)]);
        let mpd = film.manifest(Addressing::Ranges);
        assert!(mpd.profiles.unwrap().contains("urn:mpeg:dash:profile:isoff-on-demand:2011"));
        let set = &mpd.periods[0].adaptations[0];
        assert_eq!((set.subsegmentAlignment, set.segmentAlignment), (Some(true), None));
        let low = &set.representations[0];
        assert_eq!(low.BaseURL[0].base, "low.video.mp4");
        let base = low.SegmentBase.as_ref().unwrap();
        assert_eq!(base.Initialization.as_ref().unwrap().range.as_deref(), Some("0-799"));
        // 32 bytes, and 12 for each of four segments.
        assert_eq!((base.indexRange.as_deref(), base.timescale), (Some("800-879"), Some(90_000)));
        assert!(low.SegmentTemplate.is_none() && set.SegmentTemplate.is_none());
    }

    #[test]
    fn a_set_for_each_codec_and_for_sound_that_is_cut_elsewhere() {
        use RenditionName::{Low, LowAv1, LowHevc, Medium, Original};
        use TrackKind::{Audio, Video};
        let mut film = Film::new(&[
            (Original, Video, "avc1.640028", 30_000),
            (Original, Audio, "mp4a.40.2", 48_000),
            (Medium, Video, "avc1.64001f", 90_000),
            (Medium, Audio, "mp4a.40.2", 48_000),
            (Low, Audio, "mp4a.40.5", 48_000),
            (LowHevc, Video, "hvc1.1.6.L93.90", 90_000),
            (LowAv1, Video, "av01.0.05M.08", 90_000),
        ]);
        film.0[3].2.fragments[1].start += 1024;
        let mpd = film.manifest(Addressing::Segments);
        let sets: Vec<_> = mpd.periods[0].adaptations.iter().map(ids).collect();
        assert_eq!(
            sets,
            [
                vec!["original.video", "medium.video"],
                vec!["original.audio"],
                vec!["medium.audio"],
                vec!["low.audio"],
                vec!["low-hevc.video"],
                vec!["low-av1.video"],
            ]
        );
        let numbers: Vec<_> = mpd.periods[0].adaptations.iter().filter_map(|set| set.id.as_deref()).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"]);
    }

    #[test]
    fn a_storyboard_is_a_sheet_of_tiles() {
        // Seven tiles of 1.5 s in three rows: two places are empty.
        let tiles = (0..7).map(|n| Tile { start_ms: 1500 * n, x: n as u32 % 3 * 160, y: n as u32 / 3 * 90 });
        let sheet = Sheet { tile: Size { width: 160, height: 90 }, tiles: tiles.collect(), end_ms: 10_500 };
        let pictures = Some(Pictures {
            sheet: &sheet,
            sprite: "a/storyboard.jpg".to_owned(),
            sprite_bytes: 13_500,
            playlist: "storyboard.m3u8".to_owned(),
        });
        let presentation = Presentation { tracks: Vec::new(), pictures, buffer_s: 6 };
        let mpd = dash_mpd_core::parse(&manifest(
            &Links::beside(&Suffix::default()),
            &presentation,
            Addressing::Ranges,
        ))
        .unwrap();
        let set = &mpd.periods[0].adaptations[0];
        assert_eq!(set.mimeType.as_deref(), Some("image/jpeg"));
        let sprite = &set.representations[0];
        assert_eq!((sprite.width, sprite.height, sprite.bandwidth), (Some(480), Some(270), Some(8_000)));
        let property = &sprite.essential_property[0];
        assert_eq!((property.schemeIdUri.as_str(), property.value.as_deref()), (TILES, Some("3x3")));
        let template = sprite.SegmentTemplate.as_ref().unwrap();
        assert_eq!(template.media.as_deref(), Some("a/storyboard.jpg"));
        // Players divide by the places there are, the empty ones too.
        assert_eq!(template.duration.unwrap() / template.timescale.unwrap() as f64 / 9.0, 1.5);
    }

    #[test]
    fn frame_rates_are_told_as_they_are_meant() {
        for (measured, expected) in [
            (30.0, "30"),
            (29.9701, "30000/1001"),
            (23.976, "24000/1001"),
            (59.9401, "60000/1001"),
            (24.999, "25"),
            (12.345, "12345/1000"),
        ] {
            assert_eq!(rational(measured), expected);
        }
    }
}
