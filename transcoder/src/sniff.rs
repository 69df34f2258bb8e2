//! Which container a file is, by its first bytes: one demuxer of the allow-list, or a reason for the uploader.
//! FFmpeg's own probing is never asked: it would follow playlists and open still pictures as video.

use domain::MediaProblem;

use crate::TaskError;

/// Enough for five packets of the longest MPEG-TS kind.
pub const SNIFF_BYTES: usize = 4096;

/// A demuxer FFmpeg is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demuxer {
    Mov,
    Matroska,
    MpegTs,
    MpegPs,
    Avi,
    Flv,
    Ogg,
}

impl Demuxer {
    /// A name that `av_find_input_format` knows.
    pub fn name(self) -> &'static str {
        match self {
            Demuxer::Mov => "mov",
            Demuxer::Matroska => "matroska",
            Demuxer::MpegTs => "mpegts",
            Demuxer::MpegPs => "mpeg",
            Demuxer::Avi => "avi",
            Demuxer::Flv => "flv",
            Demuxer::Ogg => "ogg",
        }
    }
}

/// `head` is the start of the file, up to [`SNIFF_BYTES`].
pub fn sniff(head: &[u8]) -> Result<Demuxer, TaskError> {
    if let Some(picture) = still_picture(head) {
        return Err(not_media(format!("The file is {picture}, not a video.")));
    }
    container(head).ok_or_else(|| not_media(describe(head)))
}

fn container(head: &[u8]) -> Option<Demuxer> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let box_type = head.get(4..8).unwrap_or_default();
    match () {
        () if MOV_BOXES.contains(&box_type) => Some(Demuxer::Mov),
        () if starts(b"\x1A\x45\xDF\xA3") => Some(Demuxer::Matroska),
        () if starts(b"\x00\x00\x01\xBA") => Some(Demuxer::MpegPs),
        () if starts(b"RIFF") && head.get(8..11) == Some(b"AVI") => Some(Demuxer::Avi),
        () if starts(b"FLV\x01") => Some(Demuxer::Flv),
        () if starts(b"OggS") => Some(Demuxer::Ogg),
        () if is_mpeg_ts(head) => Some(Demuxer::MpegTs),
        () => None,
    }
}

/// Boxes that MP4 and QuickTime files begin with in the wild.
const MOV_BOXES: [&[u8]; 9] =
    [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"];

/// Sync bytes at a packet's distance: 188 plain, 192 with the time codes of AVCHD and Blu-ray, 204 with FEC.
fn is_mpeg_ts(head: &[u8]) -> bool {
    const PACKETS: usize = 5;
    [(188, 0), (192, 4), (192, 0), (204, 0)]
        .iter()
        .any(|&(stride, offset)| (0..PACKETS).all(|n| head.get(offset + n * stride) == Some(&0x47)))
}

fn still_picture(head: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let brand = (head.get(4..8) == Some(b"ftyp")).then(|| head.get(8..12).unwrap_or_default());
    match () {
        () if starts(b"\xFF\xD8\xFF") => Some("a JPEG picture"),
        () if starts(b"\x89PNG\r\n\x1A\n") => Some("a PNG picture"),
        () if starts(b"GIF8") => Some("a GIF picture"),
        () if starts(b"RIFF") && head.get(8..12) == Some(b"WEBP") => Some("a WebP picture"),
        () if starts(b"BM") && head.get(6..10) == Some(&[0; 4]) => Some("a BMP picture"),
        () if starts(b"II*\0") || starts(b"MM\0*") => Some("a TIFF picture"),
        () if brand.is_some_and(|b| [&b"heic"[..], b"heix", b"mif1"].contains(&b)) => Some("a HEIF picture"),
        () if brand == Some(b"avif") => Some("an AVIF picture"),
        () => None,
    }
}

/// One sentence on what the file is instead.
fn describe(head: &[u8]) -> String {
    const ACCEPTED: &str =
        "Accepted are MP4, QuickTime, Matroska, WebM, MPEG-TS, MPEG-PS, AVI, FLV and Ogg files.";
    let starts = |magic: &[u8]| head.starts_with(magic);
    let what = match text(head) {
        _ if head.is_empty() => "is empty",
        Some(text) if text.starts_with("#EXTM3U") => "is an HLS playlist, which names other files",
        Some(text) if text.starts_with("ffconcat") => "is a concat script, which names other files",
        Some(text) if text.starts_with('<') && text.contains("<MPD") => {
            "is a DASH manifest, which names other files"
        }
        Some(text) if text.starts_with('<') => "is an HTML, XML or SVG text",
        Some(_) => "is a text",
        None if starts(b"%PDF") => "is a PDF document",
        None if starts(b"PK\x03\x04") => "is a ZIP archive",
        None if starts(b"\x1F\x8B") => "is a gzip archive",
        None if starts(b"ID3") || starts(b"\xFF\xFB") => "is an MP3 recording without pictures",
        None if starts(b"fLaC") => "is a FLAC recording without pictures",
        None if starts(b"RIFF") && head.get(8..12) == Some(b"WAVE") => "is a WAV recording without pictures",
        None if starts(b"\x30\x26\xB2\x75") => "is a Windows Media file, which is not supported",
        None if starts(b".RMF") => "is a RealMedia file, which is not supported",
        None if starts(b"\x00\x00\x01\xB3") || starts(b"\x00\x00\x00\x01") => {
            "is a bare video stream without a container"
        }
        None => "is of no known video format",
    };
    format!("The file {what}. {ACCEPTED}")
}

/// The head as text, without byte order mark and leading space; `None` when it is binary.
fn text(head: &[u8]) -> Option<&str> {
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut by the end of the head.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let plain = valid.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    plain.then(|| valid.trim_start())
}

fn not_media(detail: String) -> TaskError {
    TaskError::rejected(MediaProblem::NotMedia, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(head: &[u8]) -> String {
        match sniff(head) {
            Err(TaskError::Rejected { problem: MediaProblem::NotMedia, detail }) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn containers_are_known_by_their_first_bytes() {
        assert_eq!(sniff(b"\0\0\0\x18ftypisom").unwrap(), Demuxer::Mov);
        assert_eq!(sniff(b"\0\0\0\x08wide\0\0").unwrap(), Demuxer::Mov);
        assert_eq!(sniff(b"\x1A\x45\xDF\xA3\x01").unwrap(), Demuxer::Matroska);
        assert_eq!(sniff(b"RIFF\0\0\0\0AVI LIST").unwrap(), Demuxer::Avi);
        assert_eq!(sniff(b"FLV\x01\x05").unwrap(), Demuxer::Flv);
        assert_eq!(sniff(b"OggS\0").unwrap(), Demuxer::Ogg);
        assert_eq!(sniff(b"\0\0\x01\xBA\x44").unwrap(), Demuxer::MpegPs);
        for (stride, offset) in [(188, 0), (192, 4), (204, 0)] {
            let mut head = vec![0_u8; SNIFF_BYTES];
            head.iter_mut().skip(offset).step_by(stride).for_each(|byte| *byte = 0x47);
            assert_eq!(sniff(&head).unwrap(), Demuxer::MpegTs, "{stride}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_name() {
        for (head, word) in [
            (&b""[..], "empty"),
            (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd", "HLS playlist"),
            (b"\xEF\xBB\xBF \n#EXTM3U", "HLS playlist"),
            (b"ffconcat version 1.0\nfile x.ts", "concat script"),
            (b"<?xml version='1.0'?><MPD/>", "DASH manifest"),
            (b"hello there", "a text"),
            (b"\xFF\xD8\xFF\xE0\0\x10JFIF", "JPEG"),
            (b"\0\0\0\x18ftypheic", "HEIF"),
            (b"GGGGG", "text"),
            (b"\x7FELF\x02\x01", "no known video format"),
        ] {
            let detail = rejected(head);
            assert!(detail.contains(word), "{detail}");
        }
    }
}
