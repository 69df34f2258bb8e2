//! The layout of the bucket, in one place: every object is `videos/<video>/<attempt>/<file>`.
//!
//! Objects are write-once under a key unique to the attempt, so a purge is a prefix and a lost race is a prefix.

use crate::closed_enum::closed_enum;
use crate::{AttemptId, RenditionName, VideoId};

closed_enum!(TrackKind { Video = "video", Audio = "audio" });
closed_enum!(CoverFormat { Jpeg = "jpg", Webp = "webp" });

/// The key of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub video: VideoId,
    pub attempt: AttemptId,
    pub file: ObjectFile,
}

/// What an object is, within its attempt. The word is also the name of the file the transcoder child writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectFile {
    /// The bytes as they were uploaded.
    Source,
    /// A CMAF track of one rendition: `ftyp moov sidx (moof mdat)*`.
    Track(RenditionName, TrackKind),
    /// The CMAF audio track that the encoded rungs share.
    SharedAudio,
    /// The head of the progressive file: `ftyp moov` and the header of `mdat`.
    Head(RenditionName),
    /// A [`crate::RenditionIndex`] as JSON.
    Index(RenditionName),
    /// One encoded chunk of one rung, before it is joined.
    Chunk(RenditionName, u32),
    /// The encoded audio, before it is packaged.
    ChunkAudio,
    /// What ingest measured of the source, so that no encode reads all of it again; the transcoder's own JSON.
    Facts,
    /// Width in pixels, one of [`crate::COVER_WIDTHS_PX`] or the source's own where it is smaller than all.
    Cover(u32, CoverFormat),
    /// WebVTT: which part of the sprite shows which part of the film.
    StoryboardCues,
    /// Small pictures of the film on one sheet.
    StoryboardSprite,
}

/// A path that is no object's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the key of an object")]
pub struct InvalidObjectKey(pub String);

impl ObjectKey {
    pub fn path(&self) -> String {
        format!("{}{}", Self::attempt_prefix(self.video, self.attempt), self.file)
    }

    /// Everything of one video. Ends in `/`, so that no id is another's prefix.
    pub fn video_prefix(video: VideoId) -> String {
        format!("videos/{video}/")
    }

    /// Everything one attempt wrote.
    pub fn attempt_prefix(video: VideoId, attempt: AttemptId) -> String {
        format!("videos/{video}/{attempt}/")
    }
}

impl std::str::FromStr for ObjectKey {
    type Err = InvalidObjectKey;

    fn from_str(path: &str) -> Result<Self, InvalidObjectKey> {
        let invalid = || InvalidObjectKey(path.to_owned());
        let mut parts = path.split('/');
        let (Some("videos"), Some(video), Some(attempt), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        Ok(ObjectKey {
            video: video.parse().map_err(|_| invalid())?,
            attempt: attempt.parse().map_err(|_| invalid())?,
            file: file.parse().map_err(|_| invalid())?,
        })
    }
}

impl ObjectFile {
    /// The media type it is served with.
    pub fn content_type(self) -> &'static str {
        match self {
            ObjectFile::Track(_, TrackKind::Audio) | ObjectFile::SharedAudio | ObjectFile::ChunkAudio => {
                "audio/mp4"
            }
            ObjectFile::Track(_, TrackKind::Video) | ObjectFile::Head(_) | ObjectFile::Chunk(..) => {
                "video/mp4"
            }
            ObjectFile::Index(_) | ObjectFile::Facts => "application/json",
            ObjectFile::Cover(_, CoverFormat::Jpeg) | ObjectFile::StoryboardSprite => "image/jpeg",
            ObjectFile::Cover(_, CoverFormat::Webp) => "image/webp",
            ObjectFile::StoryboardCues => "text/vtt; charset=utf-8",
            ObjectFile::Source => "application/octet-stream",
        }
    }

    /// The word that groups objects in metrics and in `sluice check`.
    pub fn class(self) -> &'static str {
        match self {
            ObjectFile::Source => "source",
            ObjectFile::Track(RenditionName::Original, _)
            | ObjectFile::Head(RenditionName::Original)
            | ObjectFile::Index(RenditionName::Original) => "original",
            ObjectFile::Track(..) | ObjectFile::SharedAudio | ObjectFile::Head(_) | ObjectFile::Index(_) => {
                "rendition"
            }
            ObjectFile::Chunk(..) | ObjectFile::ChunkAudio | ObjectFile::Facts => "chunk",
            ObjectFile::Cover(..) => "picture",
            ObjectFile::StoryboardCues | ObjectFile::StoryboardSprite => "storyboard",
        }
    }
}

impl std::fmt::Display for ObjectFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ObjectFile::Source => f.write_str("source"),
            ObjectFile::Track(rendition, kind) => write!(f, "{rendition}.{kind}.mp4"),
            ObjectFile::SharedAudio => f.write_str("shared.audio.mp4"),
            ObjectFile::Head(rendition) => write!(f, "{rendition}.head.mp4"),
            ObjectFile::Index(rendition) => write!(f, "{rendition}.index.json"),
            ObjectFile::Chunk(rendition, number) => write!(f, "{rendition}.chunk-{number:05}.mp4"),
            ObjectFile::ChunkAudio => f.write_str("chunk.audio.mp4"),
            ObjectFile::Facts => f.write_str("facts.json"),
            ObjectFile::Cover(width, format) => write!(f, "cover-{width}.{format}"),
            ObjectFile::StoryboardCues => f.write_str("storyboard.vtt"),
            ObjectFile::StoryboardSprite => f.write_str("storyboard.jpg"),
        }
    }
}

impl std::str::FromStr for ObjectFile {
    type Err = InvalidObjectKey;

    fn from_str(name: &str) -> Result<Self, InvalidObjectKey> {
        let parsed = match name.split('.').collect::<Vec<_>>()[..] {
            ["source"] => Some(ObjectFile::Source),
            ["shared", "audio", "mp4"] => Some(ObjectFile::SharedAudio),
            ["chunk", "audio", "mp4"] => Some(ObjectFile::ChunkAudio),
            ["facts", "json"] => Some(ObjectFile::Facts),
            ["storyboard", "vtt"] => Some(ObjectFile::StoryboardCues),
            ["storyboard", "jpg"] => Some(ObjectFile::StoryboardSprite),
            [rendition, "head", "mp4"] => rendition.parse().ok().map(ObjectFile::Head),
            [rendition, "index", "json"] => rendition.parse().ok().map(ObjectFile::Index),
            [rendition, middle, "mp4"] => {
                rendition.parse().ok().and_then(|rendition| match middle.strip_prefix("chunk-") {
                    Some(number) => number.parse().ok().map(|number| ObjectFile::Chunk(rendition, number)),
                    None => middle.parse().ok().map(|kind| ObjectFile::Track(rendition, kind)),
                })
            }
            [cover, format] => cover
                .strip_prefix("cover-")
                .and_then(|width| width.parse().ok())
                .zip(format.parse().ok())
                .map(|(width, format)| ObjectFile::Cover(width, format)),
            _ => None,
        };
        // The round trip refuses other spellings, such as `cover-0120.jpg`.
        parsed.filter(|file| file.to_string() == name).ok_or_else(|| InvalidObjectKey(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdParts, Timestamp};

    #[test]
    fn every_file_round_trips_under_its_prefix() {
        let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [3; 10] };
        let (video, attempt) = (VideoId::from(parts), AttemptId::from(parts));
        let mut files = vec![
            ObjectFile::Source,
            ObjectFile::SharedAudio,
            ObjectFile::ChunkAudio,
            ObjectFile::Facts,
            ObjectFile::Cover(120, CoverFormat::Jpeg),
            ObjectFile::Cover(720, CoverFormat::Webp),
            ObjectFile::StoryboardCues,
            ObjectFile::StoryboardSprite,
        ];
        for &name in RenditionName::ALL {
            files.extend([
                ObjectFile::Track(name, TrackKind::Video),
                ObjectFile::Track(name, TrackKind::Audio),
                ObjectFile::Head(name),
                ObjectFile::Index(name),
                ObjectFile::Chunk(name, 0),
                ObjectFile::Chunk(name, 123_456),
            ]);
        }
        for file in files {
            let key = ObjectKey { video, attempt, file };
            assert!(key.path().starts_with(&ObjectKey::video_prefix(video)));
            assert_eq!(key.path().parse(), Ok(key));
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let id = VideoId::from(IdParts { now: Timestamp::from_unix_ms(1), random: [3; 10] });
        for bad in [
            "".to_owned(),
            "source".to_owned(),
            format!("videos/{id}/{id}/../source"),
            format!("videos/{id}/{id}/cover-0120.jpg"),
            format!("videos/{id}/{id}/best.video.mp4"),
            format!("videos/{id}/../source"),
            format!("/videos/{id}/{id}/source"),
        ] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad}");
        }
    }
}
