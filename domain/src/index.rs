//! Layouts: what is watched, as lists of pieces over stored objects. The transcoder writes them, the
//! streamserver serves them, and neither copies a sample.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A virtual file: its bytes are its pieces, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layout {
    pub pieces: Vec<Piece>,
}

/// A few bytes carried along, or an extent of a stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// `[file, offset, bytes]`: position in [`RenditionIndex::files`], byte offset, length in bytes.
    Extent(u16, u64, u64),
    /// Base64 in JSON.
    Inline(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] Vec<u8>),
}

/// All that is needed to serve one rendition, stored as `<rendition>.index.json` beside what it describes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenditionIndex {
    pub version: u32,
    /// Names as [`crate::ObjectFile`] writes them. `source` is the video's upload; the others lie under the
    /// rendition's own attempt.
    pub files: Vec<String>,
    pub video: TrackIndex,
    pub audio: Option<TrackIndex>,
    /// A plain MP4: `ftyp moov mdat`, not fragmented.
    pub progressive: Layout,
}

/// One track: an init segment and fragments that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackIndex {
    /// RFC 6381, e.g. `avc1.64001f` or `mp4a.40.2`.
    pub codec: String,
    /// Ticks a second.
    pub timescale: u32,
    /// Of sound. Indexes that were written before anybody asked for it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
    /// `ftyp moov`.
    pub init: Layout,
    pub fragments: Vec<Fragment>,
}

/// `moof mdat`; a video fragment starts with a keyframe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Presentation time of its first sample in ticks; 0 is the start of the film.
    pub start: i64,
    /// In ticks.
    pub duration: u64,
    /// From where it starts to where its first sample ends, which in a video is the keyframe. Indexes that were written
    /// before anybody asked for keyframes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_bytes: Option<u64>,
    pub layout: Layout,
}

impl RenditionIndex {
    pub const VERSION: u32 = 1;
}

impl TrackIndex {
    /// In seconds, over all fragments.
    pub fn duration_s(&self) -> f64 {
        self.fragments.iter().map(|f| f.duration).sum::<u64>() as f64 / f64::from(self.timescale)
    }
}

impl Layout {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(Piece::bytes).sum()
    }

    /// The part of the layout that covers bytes `offset .. offset + bytes`, clipped to what there is.
    pub fn slice(&self, offset: u64, bytes: u64) -> Layout {
        let end = offset.saturating_add(bytes);
        let mut piece_start = 0_u64;
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let piece_end = piece_start + piece.bytes();
            let (from, to) = (offset.max(piece_start), end.min(piece_end));
            if from < to {
                pieces.push(piece.slice(from - piece_start, to - from));
            }
            piece_start = piece_end;
            if piece_start >= end {
                break;
            }
        }
        Layout { pieces }
    }

    /// Appends a piece; an extent that continues the last one makes it longer.
    pub fn push(&mut self, piece: Piece) {
        if let (Some(Piece::Extent(last_file, last_offset, last_bytes)), Piece::Extent(file, offset, bytes)) =
            (self.pieces.last_mut(), &piece)
            && *last_file == *file
            && *last_offset + *last_bytes == *offset
        {
            *last_bytes += bytes;
            return;
        }
        if piece.bytes() > 0 {
            self.pieces.push(piece);
        }
    }

    /// One layout after the other.
    pub fn join<'a>(layouts: impl IntoIterator<Item = &'a Layout>) -> Layout {
        let mut joined = Layout::default();
        for layout in layouts {
            for piece in &layout.pieces {
                joined.push(piece.clone());
            }
        }
        joined
    }
}

impl Piece {
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Extent(_, _, bytes) => *bytes,
            Piece::Inline(bytes) => bytes.len() as u64,
        }
    }

    /// The caller keeps `offset + bytes` within the piece.
    pub fn slice(&self, offset: u64, bytes: u64) -> Piece {
        match self {
            Piece::Extent(file, start, _) => Piece::Extent(*file, start + offset, bytes),
            Piece::Inline(all) => {
                let (from, to) = (offset as usize, (offset + bytes) as usize);
                Piece::Inline(all[from..to].to_vec())
            }
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes a layout stands for, where byte `i` of file `f` is `(f, i)`.
    fn naive(layout: &Layout) -> Vec<(u16, u64)> {
        let mut bytes = Vec::new();
        for piece in &layout.pieces {
            match piece {
                Piece::Extent(file, offset, n) => bytes.extend((*offset..offset + n).map(|i| (*file, i))),
                Piece::Inline(inline) => bytes.extend(inline.iter().map(|b| (u16::MAX, u64::from(*b)))),
            }
        }
        bytes
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let extent = (0u16..3, 0u64..50, 0u64..20).prop_map(|(f, o, n)| Piece::Extent(f, o, n));
        let inline = proptest::collection::vec(any::<u8>(), 0..10).prop_map(Piece::Inline);
        proptest::collection::vec(prop_oneof![extent, inline], 0..8)
    }

    proptest! {
        #[test]
        fn slices_and_joins_agree_with_the_bytes(pieces in pieces(), offset in 0u64..200, bytes in 0u64..200) {
            let layout = Layout { pieces };
            let all = naive(&layout);
            let joined = Layout::join([&layout]);
            prop_assert_eq!(&naive(&joined), &all);
            let from = (offset as usize).min(all.len());
            let to = ((offset + bytes) as usize).min(all.len());
            prop_assert_eq!(naive(&layout.slice(offset, bytes)), &all[from..to]);
        }
    }

    #[test]
    fn json_is_compact() {
        let layout = Layout { pieces: vec![Piece::Extent(1, 2, 3), Piece::Inline(b"hi".to_vec())] };
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(json, r#"[[1,2,3],"aGk="]"#);
        assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
    }
}
