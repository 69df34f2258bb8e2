//! The names of what lies under a publication.

use std::fmt;
use std::str::FromStr;

use domain::{RenditionName, TrackKind};

/// Media files end in `.mp4`, because CDNs decide by the ending what they cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicationFile {
    MediaPlaylist(RenditionName, TrackKind),
    Init(RenditionName, TrackKind),
    /// Counted from 1.
    Segment(RenditionName, TrackKind, u32),
}

/// A name that no publication has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFile;

impl PublicationFile {
    pub fn track(self) -> (RenditionName, TrackKind) {
        match self {
            PublicationFile::MediaPlaylist(rendition, kind)
            | PublicationFile::Init(rendition, kind)
            | PublicationFile::Segment(rendition, kind, _) => (rendition, kind),
        }
    }
}

impl fmt::Display for PublicationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rendition, kind) = self.track();
        match self {
            PublicationFile::MediaPlaylist(..) => write!(f, "{rendition}.{kind}.m3u8"),
            PublicationFile::Init(..) => write!(f, "{rendition}.{kind}.init.mp4"),
            PublicationFile::Segment(.., number) => write!(f, "{rendition}.{kind}.{number:05}.mp4"),
        }
    }
}

impl FromStr for PublicationFile {
    type Err = UnknownFile;

    fn from_str(name: &str) -> Result<Self, UnknownFile> {
        let parts: Vec<&str> = name.split('.').take(5).collect();
        let [rendition, kind, rest @ ..] = &parts[..] else { return Err(UnknownFile) };
        let rendition = rendition.parse().map_err(|_| UnknownFile)?;
        let kind = kind.parse().map_err(|_| UnknownFile)?;
        let file = match rest {
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

    #[test]
    fn names_round_trip() {
        for &rendition in RenditionName::ALL {
            for &kind in TrackKind::ALL {
                for file in [
                    PublicationFile::MediaPlaylist(rendition, kind),
                    PublicationFile::Init(rendition, kind),
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
            "best.video.m3u8",
            "a.b.c.d.e.f",
        ];
        for name in bad {
            assert_eq!(name.parse::<PublicationFile>(), Err(UnknownFile), "{name}");
        }
    }
}
