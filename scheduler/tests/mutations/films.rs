//! Small films of every container and codec that is accepted, made by FFmpeg.

use std::path::Path;
use std::process::Command;

pub struct Film {
    pub name: &'static str,
    pub container: Container,
    pub bytes: Vec<u8>,
}

/// How the bytes are divided into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Container {
    /// MP4, MOV, 3GP.
    Boxes,
    /// Matroska, WebM.
    Elements,
    /// MPEG-TS.
    Packets,
    /// MPEG-PS.
    Packs,
    /// AVI.
    Chunks,
    /// FLV.
    Tags,
    /// Ogg.
    Pages,
}

/// Name, container, and how it is coded.
const FILMS: [(&str, Container, &str); 20] = [
    ("plain.mp4", Container::Boxes, "-c:v libx264 -bf 2 -g 5 -c:a aac"),
    (
        "front.mp4",
        Container::Boxes,
        "-c:v libx264 -g 5 -an -movflags +faststart -metadata location=+48.1+11.5/",
    ),
    (
        "fragments.mp4",
        Container::Boxes,
        "-c:v libx264 -bf 2 -g 5 -c:a aac -movflags +frag_keyframe+empty_moov+default_base_moof",
    ),
    ("hevc.mp4", Container::Boxes, "-c:v libx265 -x265-params log-level=none -tag:v hvc1 -c:a ac3"),
    ("av1.mp4", Container::Boxes, "-c:v libaom-av1 -cpu-used 8 -c:a libopus"),
    ("prores.mov", Container::Boxes, "-c:v prores -pix_fmt yuv422p10le -c:a pcm_s16be"),
    ("mjpeg.mov", Container::Boxes, "-c:v mjpeg -pix_fmt yuvj420p -c:a alac"),
    ("h263.3gp", Container::Boxes, "-c:v h263 -s 128x96 -c:a aac"),
    ("h264.mkv", Container::Elements, "-c:v libx264 -bf 2 -g 5 -c:a flac"),
    ("mpeg4.mkv", Container::Elements, "-c:v mpeg4 -c:a libmp3lame"),
    ("vp8.webm", Container::Elements, "-c:v libvpx -deadline realtime -c:a libvorbis"),
    ("vp9.webm", Container::Elements, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
    ("h264.ts", Container::Packets, "-c:v libx264 -bf 2 -g 5 -c:a aac"),
    ("mpeg2.ts", Container::Packets, "-c:v mpeg2video -bf 2 -c:a mp2 -ar 48000"),
    ("mpeg1.mpg", Container::Packs, "-c:v mpeg1video -r 25 -c:a mp2 -ar 48000"),
    ("mpeg4.avi", Container::Chunks, "-c:v mpeg4 -bf 2 -c:a libmp3lame"),
    ("mjpeg.avi", Container::Chunks, "-c:v mjpeg -pix_fmt yuvj422p -c:a pcm_s16le"),
    ("h264.flv", Container::Tags, "-c:v libx264 -bf 2 -g 5 -c:a aac"),
    ("flv1.flv", Container::Tags, "-c:v flv -c:a libmp3lame -ar 44100"),
    ("theora.ogv", Container::Pages, "-c:v libtheora -c:a libvorbis"),
];

/// A second of a moving picture and a tone.
pub fn make(folder: &Path) -> Vec<Film> {
    let films = FILMS.iter().map(|&(name, container, coding)| {
        let path = folder.join(name);
        let sources = "-hide_banner -v error -nostdin -f lavfi -i testsrc2=size=96x64:rate=10:duration=1 \
                       -f lavfi -i sine=sample_rate=48000:duration=1";
        let status = Command::new("ffmpeg")
            .args(sources.split_whitespace())
            .args(["-pix_fmt", "yuv420p", "-ac", "1", "-strict", "-2"])
            .args(coding.split_whitespace())
            .arg(&path)
            .status()
            .expect("ffmpeg is installed (make setup)");
        assert!(status.success(), "ffmpeg {coding} {name}");
        Film { name, container, bytes: std::fs::read(&path).unwrap() }
    });
    films.collect()
}
