//! HEVC and AV1 beside H.264: chunked and joined alike, in files that players know by their codec strings.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::path::{Path, PathBuf};
use std::process::Command;

use child::{Made, Verdict};
use domain::task::{EncodeSettings, RenditionOutput};
use domain::{LadderSettings, Layout, ObjectFile, Piece, RenditionIndex, TrackKind, VideoCodec};

const FRAMES: usize = 175;
/// Of a frame's number, one block each across the picture.
const BITS: usize = 16;

/// Seven seconds at 25 frames a second, each with its number in sixteen blocks of black and white, and a tone.
fn clip(folder: &Path) -> PathBuf {
    let path = folder.join("clip.mp4");
    let numbers =
        format!("nullsrc=s={BITS}x9:r=25:d=7,geq=lum='if(mod(floor(N/pow(2,X)),2),235,16)':cb=128:cr=128");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", &numbers, "-f", "lavfi", "-i", "sine=d=7"])
        .args([
            "-vf",
            "scale=640:360:flags=neighbor,format=yuv420p",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
        ])
        .args(["-g", "12", "-bf", "2", "-c:a", "aac"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn made(clip: &Path, scratch: &Path, codecs: &[VideoCodec]) -> Made {
    let ladder =
        LadderSettings { crf: 23.0, rungs: "medium:360,low:240".parse().unwrap(), codecs: codecs.to_vec() };
    let settings = EncodeSettings { ladder, chunk_s: Some(2.0), ..child::settings() };
    match child::whole_way_with(clip, scratch, settings) {
        Verdict::Made(made) => *made,
        other => panic!("{other:?}"),
    }
}

/// What `ffmpeg` makes of the pictures; it may complain of nothing.
fn decoded(path: &Path, arguments: &str) -> Vec<u8> {
    let ran = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(arguments.split_whitespace())
        .arg("-")
        .output()
        .unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

/// The numbers in the pictures, in the order they are shown.
fn numbers(path: &Path) -> Vec<usize> {
    let pictures =
        decoded(path, "-an -fps_mode passthrough -vf scale=16:1:flags=area,format=gray -f rawvideo");
    let number = |blocks: &[u8]| (0..BITS).map(|bit| usize::from(blocks[bit] > 128) << bit).sum();
    pictures.chunks_exact(BITS).map(number).collect()
}

fn probe(path: &Path, what: &str) -> String {
    let ran = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0", "-select_streams", "v", "-show_entries", what])
        .arg(path)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

fn index(folder: &Path, rendition: &RenditionOutput) -> RenditionIndex {
    let json = std::fs::read(folder.join(ObjectFile::Index(rendition.name).to_string())).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The bytes a layout stands for, as a file.
fn materialise(layout: &Layout, index: &RenditionIndex, folder: &Path) -> PathBuf {
    let mut bytes = Vec::new();
    for piece in &layout.pieces {
        match piece {
            Piece::Inline(inline) => bytes.extend(inline),
            Piece::Extent(file, offset, length) => {
                let all = std::fs::read(folder.join(&index.files[usize::from(*file)])).unwrap();
                bytes.extend(&all[*offset as usize..(*offset + *length) as usize]);
            }
        }
    }
    let path = folder.join("progressive.mp4");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn hevc_and_av1_are_chunked_joined_and_named_like_h264() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    let made = made(&clip, folder.path(), &[VideoCodec::Hevc, VideoCodec::Av1]);
    assert!(made.plan.chunks.len() >= 3, "{} chunks", made.plan.chunks.len());
    let expected = [
        ("medium", "avc1", "avc1.42c01e,mp4a.40.2"),
        ("medium-hevc", "hvc1", "hvc1.1.6.L63.90,mp4a.40.2"),
        ("medium-av1", "av01", "av01.0.01M.08,mp4a.40.2"),
        ("low", "avc1", "avc1.42c015,mp4a.40.2"),
        ("low-hevc", "hvc1", "hvc1.1.6.L60.90,mp4a.40.2"),
        ("low-av1", "av01", "av01.0.00M.08,mp4a.40.2"),
    ];
    let rungs: Vec<_> = made.renditions.iter().skip(1).map(|r| (r.name.as_str(), &*r.codecs)).collect();
    assert_eq!(rungs, expected.map(|(name, _, codecs)| (name, codecs)));
    let starts = |rendition| {
        let index = index(made.folder_of(rendition), rendition);
        index.video.fragments.iter().map(|fragment| fragment.start).collect::<Vec<_>>()
    };
    for (rendition, (name, tag, _)) in made.renditions.iter().skip(1).zip(expected) {
        let folder = made.folder_of(rendition);
        assert_eq!(rendition.frames, FRAMES as u64, "{name}");
        assert!((rendition.duration_s - 7.0).abs() < 0.1, "{name}: {} s", rendition.duration_s);
        assert_eq!(starts(rendition), made.plan.boundaries.starts, "{name}");
        let track = folder.join(ObjectFile::Track(rendition.name, TrackKind::Video).to_string());
        assert_eq!(numbers(&track), (0..FRAMES).collect::<Vec<_>>(), "{name}");
        let index = index(folder, rendition);
        let progressive = materialise(&index.progressive, &index, folder);
        for path in [&track, &progressive] {
            assert_eq!(probe(path, "stream=codec_tag_string"), tag, "{name}");
        }
        assert_eq!(numbers(&progressive), (0..FRAMES).collect::<Vec<_>>(), "{name}");
        assert_eq!(
            probe(&progressive, "stream=color_space,color_range,pix_fmt"),
            "yuv420p,tv,bt709",
            "{name}"
        );
        let engine = ["libx264 ", "libx265 ", "libsvtav1 "][rendition.name.codec() as usize];
        assert!(rendition.engine.contains(engine), "{}", rendition.engine);
    }
}
