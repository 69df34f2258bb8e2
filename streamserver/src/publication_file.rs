//! The names of what lies under a publication.

use std::fmt;
use std::str::FromStr;

use domain::{AttemptId, ObjectFile, PublicationId, RenditionName, TrackKind};

use crate::suffix::Suffix;

/// Media files end in `.mp4`, because CDNs decide by the ending what they cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicationFile {
    MediaPlaylist(RenditionName, TrackKind),
    /// Of the keyframes alone, for pictures while a viewer seeks.
    KeyframePlaylist(RenditionName),
    Init(RenditionName, TrackKind),
    /// Counted from 1.
    Segment(RenditionName, TrackKind, u32),
    /// The whole track: its init segment, a `sidx`, all its segments.
    Track(RenditionName, TrackKind),
}

/// Where playlists and manifests say that files lie. All that they name goes through here, so that whatever an address
/// has to carry along is put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Relative to what names them; empty or ending in `/`.
    folder: String,
    /// Behind every address.
    suffix: Suffix,
}

/// What DASH clients put the number of a segment in place of (ISO/IEC 23009-1 §5.3.9.4.4).
const NUMBER: &str = "$Number%05d$";

/// A name that no publication has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFile;

impl Links {
    /// For what lies under the publication itself.
    pub fn beside(suffix: &Suffix) -> Links {
        Links { folder: String::new(), suffix: suffix.clone() }
    }

    /// For what lies above it, beside its folder.
    pub fn below(publication: PublicationId, suffix: &Suffix) -> Links {
        Links { folder: format!("{publication}/"), suffix: suffix.clone() }
    }

    pub fn to(&self, file: PublicationFile) -> String {
        self.named(&file.to_string())
    }

    /// To every segment of a track at once, as DASH has it.
    pub fn to_segments(&self, rendition: RenditionName, kind: TrackKind) -> String {
        self.named(&segment_name(rendition, kind, NUMBER))
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}{}", self.folder, self.suffix)
    }
}

/// Of a storyboard's sprite, seen from what lies beside the video's playlists.
pub fn sprite_address(storyboard: AttemptId, suffix: &Suffix) -> String {
    format!("{storyboard}/{}{suffix}", ObjectFile::StoryboardSprite)
}

/// Of the HLS playlist of a storyboard's pictures, seen from there too.
pub fn pictures_address(suffix: &Suffix) -> String {
    format!("storyboard.m3u8{suffix}")
}

impl PublicationFile {
    pub fn track(self) -> (RenditionName, TrackKind) {
        match self {
            PublicationFile::KeyframePlaylist(rendition) => (rendition, TrackKind::Video),
            PublicationFile::MediaPlaylist(rendition, kind)
            | PublicationFile::Init(rendition, kind)
            | PublicationFile::Track(rendition, kind)
            | PublicationFile::Segment(rendition, kind, _) => (rendition, kind),
        }
    }
}

impl fmt::Display for PublicationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rendition, kind) = self.track();
        match self {
            PublicationFile::MediaPlaylist(..) => write!(f, "{rendition}.{kind}.m3u8"),
            PublicationFile::KeyframePlaylist(_) => write!(f, "{rendition}.{kind}.keyframes.m3u8"),
            PublicationFile::Init(..) => write!(f, "{rendition}.{kind}.init.mp4"),
            PublicationFile::Segment(.., number) => {
                f.write_str(&segment_name(rendition, kind, &format!("{number:05}")))
            }
            PublicationFile::Track(..) => write!(f, "{rendition}.{kind}.mp4"),
        }
    }
}

fn segment_name(rendition: RenditionName, kind: TrackKind, number: &str) -> String {
    format!("{rendition}.{kind}.{number}.mp4")
}

impl FromStr for PublicationFile {
    type Err = UnknownFile;

    fn from_str(name: &str) -> Result<Self, UnknownFile> {
        let parts: Vec<&str> = name.split('.').take(5).collect();
        let [rendition, kind, rest @ ..] = &parts[..] else { return Err(UnknownFile) };
        let rendition = rendition.parse().map_err(|_| UnknownFile)?;
        let kind = kind.parse().map_err(|_| UnknownFile)?;
        let file = match rest {
            ["keyframes", "m3u8"] => PublicationFile::KeyframePlaylist(rendition),
            ["mp4"] => PublicationFile::Track(rendition, kind),
            ["m3u8"] => PublicationFile::MediaPlaylist(rendition, kind),
            ["init", "mp4"] => PublicationFile::Init(rendition, kind),
            [number, "mp4"] => {
                PublicationFile::Segment(rendition, kind, number.parse().map_err(|_| UnknownFile)?)
            }
            _ => return Err(UnknownFile),
        };
        // One spelling only: caches take another spelling for another file.
        if file.to_string() == name { Ok(file) } else { Err(UnknownFile) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{IdParts, Timestamp};

    #[test]
    fn names_round_trip() {
        for &rendition in RenditionName::ALL {
            let keyframes = PublicationFile::KeyframePlaylist(rendition);
            assert_eq!(keyframes.to_string().parse(), Ok(keyframes));
            for &kind in TrackKind::ALL {
                for file in [
                    PublicationFile::MediaPlaylist(rendition, kind),
                    PublicationFile::Init(rendition, kind),
                    PublicationFile::Track(rendition, kind),
                    PublicationFile::Segment(rendition, kind, 1),
                    PublicationFile::Segment(rendition, kind, 1_234_567),
                ] {
                    assert_eq!(file.to_string().parse(), Ok(file));
                }
            }
        }
        let bad = [
            "",
            "low.video.1.mp4",
            "low.video.+0001.mp4",
            "low.video.m3u8.x",
            "low.video.mp4.x",
            "low.audio.keyframes.m3u8",
            "low.mp4",
            "best.video.m3u8",
            "a.b.c.d.e.f",
        ];
        for name in bad {
            assert_eq!(name.parse::<PublicationFile>(), Err(UnknownFile), "{name}");
        }
    }

    #[test]
    fn links_name_files_and_all_segments_at_once() {
        use RenditionName::Low;
        let publication = PublicationId::from(IdParts { now: Timestamp::from_unix_ms(1), random: [3; 10] });
        let links = Links::below(publication, &Suffix::default());
        let numbered = links.to_segments(Low, TrackKind::Video).replace("$Number%05d$", "00042");
        assert_eq!(numbered, links.to(PublicationFile::Segment(Low, TrackKind::Video, 42)));
        assert_eq!(numbered, format!("{publication}/low.video.00042.mp4"));
        assert_eq!(
            Links::beside(&Suffix::default()).to(PublicationFile::Init(Low, TrackKind::Audio)),
            "low.audio.init.mp4"
        );
    }
}
