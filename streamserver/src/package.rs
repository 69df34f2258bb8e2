//! A publication, ready to be served: its renditions with their indexes, cut into segments.

use std::sync::Arc;

use domain::{
    Layout, ObjectFile, ObjectKey, Piece, PublicationId, RenditionIndex, RenditionName, Timestamp,
    TrackIndex, TrackKind, VideoCodec, VideoId,
};
use sql::{Publication, PublishedRendition};

use crate::dash::{self, Addressing, Presentation, Track};
use crate::hls::{self, Variant, VariantAudio};
use crate::layout_body::Files;
use crate::publication_file::Links;
use crate::segments::{self, Segment};
use crate::sheet::Pictures;
use crate::suffix::Suffix;
use crate::track_file::{self, Keyframe, TrackFile};

/// Immutable: a publication never changes, and neither does what it points at.
pub struct Package {
    pub id: PublicationId,
    pub video: VideoId,
    pub published_at: Timestamp,
    /// Best first; never empty.
    pub renditions: Vec<PackagedRendition>,
    /// The target duration of every media playlist, in seconds.
    target_s: u64,
}

pub struct PackagedRendition {
    pub published: PublishedRendition,
    pub index: RenditionIndex,
    /// By the file numbers of the index's extents.
    pub files: Files,
    video: Cut,
    audio: Cut,
    /// None where nobody knows where they end.
    keyframes: Vec<Keyframe>,
    /// The first rendition that has the same audio track; playlists name it once, under that one.
    audio_of: RenditionName,
}

/// A track in segments.
#[derive(Default)]
struct Cut {
    segments: Vec<Segment>,
    /// Leads to them where the track is one file; `None` where it cannot be one.
    sidx: Option<Layout>,
}

impl Package {
    /// `indexes` belong to `publication.renditions`, in their order. `Err` says what makes no sense.
    pub fn new(publication: Publication, indexes: Vec<RenditionIndex>) -> Result<Package, String> {
        let mut renditions = Vec::new();
        for (published, index) in publication.renditions.iter().cloned().zip(indexes) {
            let files = files(&publication, &published, &index)?;
            check(&index, files.len()).map_err(|why| format!("index of {}: {why}", published.name))?;
            let audio_of = published.name;
            renditions.push(PackagedRendition {
                published,
                index,
                files,
                video: Cut::default(),
                audio: Cut::default(),
                keyframes: Vec::new(),
                audio_of,
            });
        }
        if renditions.is_empty() {
            return Err("no rendition".to_owned());
        }
        renditions.sort_by_key(|rendition| rendition.published.name);
        cut(&mut renditions);
        share_audio(&mut renditions);
        let tracks = renditions.iter().flat_map(|r| [&r.video.segments[..], &r.audio.segments[..]]);
        let target_s = hls::target_duration_s(tracks);
        let Publication { id, video, created_at, .. } = publication;
        Ok(Package { id, video, published_at: created_at, renditions, target_s })
    }

    pub fn rendition(&self, name: RenditionName) -> Option<&PackagedRendition> {
        self.renditions.iter().find(|rendition| rendition.published.name == name)
    }

    pub fn track(&self, name: RenditionName, kind: TrackKind) -> Option<(&TrackIndex, &[Segment])> {
        self.rendition(name)?.track(kind)
    }

    /// A track as one file; `None` where there is no such track, or where it cannot be one.
    pub fn file(&self, name: RenditionName, kind: TrackKind) -> Option<TrackFile<'_>> {
        self.rendition(name)?.file(kind)
    }

    /// The best one, or the asked one; one that is missing answers with the nearest in H.264, and of two equally near
    /// ones with the smaller.
    pub fn nearest(&self, asked: Option<RenditionName>) -> &PackagedRendition {
        let asked = asked.unwrap_or(RenditionName::Original);
        let place = |name: RenditionName| RenditionName::ALL.iter().position(|&other| other == name);
        let wanted = place(asked.in_h264()).unwrap_or(0);
        let plain = self.renditions.iter().filter(|r| r.published.name.codec() == VideoCodec::H264);
        let distance = |rendition: &&PackagedRendition| {
            let found = place(rendition.published.name).unwrap_or(0);
            (found.abs_diff(wanted), std::cmp::Reverse(found))
        };
        self.rendition(asked).or_else(|| plain.min_by_key(distance)).unwrap_or(&self.renditions[0])
    }

    /// `suffix` goes behind every address.
    pub fn master_playlist(&self, suffix: &Suffix, pictures: Option<Pictures<'_>>) -> String {
        let variants: Vec<Variant> =
            self.renditions.iter().map(|rendition| self.variant(rendition)).collect();
        hls::master(&Links::below(self.id, suffix), &variants, pictures.as_ref())
    }

    pub fn manifest(
        &self,
        suffix: &Suffix,
        pictures: Option<Pictures<'_>>,
        addressing: Addressing,
    ) -> String {
        let tracks = self.renditions.iter().flat_map(|rendition| self.tracks(rendition)).collect();
        let presentation = Presentation { tracks, pictures, buffer_s: self.target_s };
        dash::manifest(&Links::below(self.id, suffix), &presentation, addressing)
    }

    /// `None` where there is no such track.
    pub fn media_playlist(&self, name: RenditionName, kind: TrackKind, suffix: &Suffix) -> Option<String> {
        let (_, segments) = self.track(name, kind)?;
        Some(hls::media(&Links::beside(suffix), (name, kind), segments, self.target_s))
    }

    /// `None` where nobody knows where its keyframes end.
    pub fn keyframe_playlist(&self, name: RenditionName, suffix: &Suffix) -> Option<String> {
        let keyframes = &self.rendition(name)?.keyframes;
        let text = || hls::keyframes(&Links::beside(suffix), name, keyframes, self.target_s);
        (!keyframes.is_empty()).then(text)
    }

    /// About what it holds in memory.
    pub fn weight_bytes(&self) -> usize {
        self.renditions.iter().map(PackagedRendition::weight_bytes).sum()
    }

    /// Its pictures, and its sound where it is not that of a rendition before.
    fn tracks<'a>(&self, rendition: &'a PackagedRendition) -> impl Iterator<Item = Track<'a>> {
        let (published, target_s) = (&rendition.published, self.target_s);
        let kinds = [TrackKind::Video, TrackKind::Audio].into_iter();
        let own = kinds.filter(move |&kind| kind == TrackKind::Video || rendition.audio_of == published.name);
        own.filter_map(move |kind| {
            let (index, segments) = rendition.track(kind)?;
            let picture = (kind == TrackKind::Video).then_some((published.size, published.frame_rate));
            let rate = hls::rate(segments, target_s);
            let file = rendition.file(kind);
            Some(Track { rendition: published.name, kind, picture, index, segments, file, rate })
        })
    }

    fn variant(&self, rendition: &PackagedRendition) -> Variant {
        let audio = rendition.index.audio.as_ref().map(|track| VariantAudio {
            track_of: rendition.audio_of,
            codec: track.codec.clone(),
            channels: track.channels,
            rate: hls::rate(&rendition.audio.segments, self.target_s),
        });
        let keyframes = &rendition.keyframes;
        Variant {
            keyframe_rate: (!keyframes.is_empty()).then(|| hls::keyframe_rate(keyframes, self.target_s)),
            name: rendition.published.name,
            size: rendition.published.size,
            frame_rate: rendition.published.frame_rate,
            video_codec: rendition.index.video.codec.clone(),
            video_rate: hls::rate(&rendition.video.segments, self.target_s),
            audio,
        }
    }
}

impl PackagedRendition {
    /// The track and its segments.
    pub fn track(&self, kind: TrackKind) -> Option<(&TrackIndex, &[Segment])> {
        match kind {
            TrackKind::Video => Some((&self.index.video, &self.video.segments)),
            TrackKind::Audio => self.index.audio.as_ref().map(|track| (track, &self.audio.segments[..])),
        }
    }

    fn file(&self, kind: TrackKind) -> Option<TrackFile<'_>> {
        let (track, segments) = self.track(kind)?;
        let sidx = match kind {
            TrackKind::Video => self.video.sidx.as_ref(),
            TrackKind::Audio => self.audio.sidx.as_ref(),
        };
        Some(TrackFile::new(track, segments, sidx?))
    }

    fn weight_bytes(&self) -> usize {
        let tracks = [Some(&self.index.video), self.index.audio.as_ref()];
        let fragments = tracks
            .into_iter()
            .flatten()
            .flat_map(|track| track.fragments.iter().map(|fragment| &fragment.layout).chain([&track.init]));
        let made = [&self.video.sidx, &self.audio.sidx].into_iter().flatten();
        let layouts = fragments.chain([&self.index.progressive]).chain(made);
        layouts.map(|layout| 64 + layout.pieces.iter().map(piece_weight_bytes).sum::<usize>()).sum()
    }
}

fn piece_weight_bytes(piece: &Piece) -> usize {
    let inline = if let Piece::Inline(bytes) = piece { bytes.len() } else { 0 };
    size_of::<Piece>() + inline
}

/// `source` is the video's upload; the other names lie under the rendition's attempt.
fn files(
    publication: &Publication,
    published: &PublishedRendition,
    index: &RenditionIndex,
) -> Result<Files, String> {
    let keys = index.files.iter().map(|name| {
        let file: ObjectFile = name.parse().map_err(|error| format!("{error}"))?;
        let attempt = match file {
            ObjectFile::Source => publication.source_attempt,
            _ => published.attempt,
        };
        Ok(ObjectKey { video: publication.video, attempt, file })
    });
    keys.collect::<Result<Vec<_>, String>>().map(Arc::from)
}

fn check(index: &RenditionIndex, files: usize) -> Result<(), String> {
    if index.version != RenditionIndex::VERSION {
        return Err(format!("version {}", index.version));
    }
    let tracks = || [Some(&index.video), index.audio.as_ref()].into_iter().flatten();
    if tracks().any(|track| track.timescale == 0 || track.fragments.is_empty()) {
        return Err("a track without fragments or time scale".to_owned());
    }
    let of_tracks =
        tracks().flat_map(|t| t.fragments.iter().map(|fragment| &fragment.layout).chain([&t.init]));
    let mut pieces = of_tracks.chain([&index.progressive]).flat_map(|layout| &layout.pieces);
    let outside = |piece: &Piece| matches!(piece, Piece::Extent(file, ..) if usize::from(*file) >= files);
    if pieces.any(outside) { Err("an extent of a file it does not name".to_owned()) } else { Ok(()) }
}

fn cut(renditions: &mut [PackagedRendition]) {
    let videos: Vec<&TrackIndex> = renditions.iter().map(|rendition| &rendition.index.video).collect();
    let cuts = segments::cuts(&videos);
    for rendition in renditions {
        rendition.video = Cut::new(&rendition.index.video, &cuts);
        let audio = rendition.index.audio.as_ref();
        rendition.audio = audio.map(|track| Cut::new(track, &cuts)).unwrap_or_default();
        let file = rendition.file(TrackKind::Video);
        rendition.keyframes = file.and_then(|file| file.keyframes()).unwrap_or_default();
    }
}

impl Cut {
    fn new(track: &TrackIndex, cuts: &[i64]) -> Cut {
        let segments = segments::segments(track, cuts);
        Cut { sidx: track_file::sidx(track, &segments), segments }
    }
}

fn share_audio(renditions: &mut [PackagedRendition]) {
    for later in 1..renditions.len() {
        let (before, rest) = renditions.split_at_mut(later);
        let mine = &mut rest[0];
        if let Some(first) = before.iter().find(|rendition| same_audio(rendition, mine)) {
            mine.audio_of = first.audio_of;
        }
    }
}

/// Objects are write-once, so two tracks are the same when they begin and end at the same bytes of one object. What the
/// rungs share is encoded once, but packaged with the rungs of each phase: the same where nothing tells them apart.
fn same_audio(a: &PackagedRendition, b: &PackagedRendition) -> bool {
    match (audio_identity(a), audio_identity(b)) {
        (Some(one), Some(other)) => {
            one == other || (is_shared(&one) && is_shared(&other) && a.index.audio == b.index.audio)
        }
        _ => false,
    }
}

fn is_shared(extents: &[(&ObjectKey, u64, u64)]) -> bool {
    extents.iter().all(|(key, ..)| key.file == ObjectFile::SharedAudio)
}

fn audio_identity(rendition: &PackagedRendition) -> Option<Vec<(&ObjectKey, u64, u64)>> {
    let track = rendition.index.audio.as_ref()?;
    let ends = [track.fragments.first()?, track.fragments.last()?];
    let extents =
        ends.into_iter().flat_map(|fragment| &fragment.layout.pieces).filter_map(|piece| match piece {
            Piece::Extent(file, offset, bytes) => {
                Some((&rendition.files[usize::from(*file)], *offset, *bytes))
            }
            Piece::Inline(_) => None,
        });
    let extents: Vec<_> = extents.collect();
    (!extents.is_empty()).then_some(extents)
}
