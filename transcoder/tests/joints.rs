//! Where chunks meet: every frame once and in order, and nothing to be heard, whatever the source's groups are like.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::path::{Path, PathBuf};
use std::process::Command;

use child::{Made, Verdict};
use domain::task::EncodeSettings;
use domain::{ObjectFile, RenditionName, TrackKind};

const FRAMES: usize = 250;
/// Of a frame's number, one block each across the picture.
const BITS: usize = 16;
const RATE_HZ: usize = 48_000;

/// Ten seconds at 25 frames a second, each with its number in sixteen blocks of black and white, and a tone that rises.
fn clip(folder: &Path, name: &str, codec: &str) -> PathBuf {
    let path = folder.join(name);
    let numbers =
        format!("nullsrc=s={BITS}x9:r=25:d=10,geq=lum='if(mod(floor(N/pow(2,X)),2),235,16)':cb=128:cr=128");
    let tone = "aevalsrc=exprs='0.4*sin(2*PI*(200*t+150*t*t))':s=48000:d=10";
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", &numbers, "-f", "lavfi", "-i", tone])
        .args(["-vf", "scale=640:360:flags=neighbor,format=yuv420p", "-ac", "2", "-b:a", "192k"])
        .args(["-c:a", if name.contains("mpeg2") { "mp2" } else { "aac" }])
        .args(codec.split_whitespace())
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
    path
}

fn made(clip: &Path, scratch: &Path, chunk_s: f64) -> Made {
    let settings = EncodeSettings { chunk_s: Some(chunk_s), ..child::settings() };
    match child::whole_way_with(clip, scratch, settings) {
        Verdict::Made(made) => *made,
        other => panic!("{}: {other:?}", clip.display()),
    }
}

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

/// How far the loudest step in the curve of the sound stands out: a click is a jump that a tone does not make.
fn loudest_click(path: &Path) -> f64 {
    let bytes = decoded(path, "-vn -ac 1 -ar 48000 -f f32le");
    let samples: Vec<f64> =
        bytes.as_chunks::<4>().0.iter().map(|sample| f64::from(f32::from_le_bytes(*sample))).collect();
    // The beginning and the end of the film are edges of their own.
    let samples = &samples[RATE_HZ / 10..samples.len() - RATE_HZ / 5];
    let bends: Vec<f64> = samples.windows(4).map(|s| (s[3] - 3.0 * s[2] + 3.0 * s[1] - s[0]).abs()).collect();
    let loudest = |window: &[f64]| window.iter().copied().fold(0.0, f64::max);
    let windows: Vec<f64> = bends.chunks(RATE_HZ / 100).map(loudest).collect();
    let around = |at: usize| {
        let mut near = windows[at.saturating_sub(5)..(at + 6).min(windows.len())].to_vec();
        near.sort_by(f64::total_cmp);
        near[near.len() / 2]
    };
    (0..windows.len()).map(|at| windows[at] / around(at).max(1e-4)).fold(0.0, f64::max)
}

#[test]
fn every_frame_comes_once_and_in_order_and_no_joint_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let gop = "-g 12 -bf 2";
    let sources = [
        ("closed.mp4", format!("-c:v libx264 -preset veryfast {gop}")),
        ("open.mp4", format!("-c:v libx264 -preset veryfast {gop} -x264-params open-gop=1:keyint=12:b-pyramid=0:scenecut=0")),
        ("closed.ts", format!("-c:v libx264 -preset veryfast {gop}")),
        ("open_mpeg2.ts", format!("-c:v mpeg2video -b:v 4M {gop}")),
        ("closed_mpeg2.ts", format!("-c:v mpeg2video -b:v 4M {gop} -flags +cgop -sc_threshold 1000000000")),
        ("open.mkv", "-c:v libx265 -preset ultrafast -x265-params keyint=12:open-gop=1:scenecut=0:log-level=error".to_owned()),
        ("closed.mov", "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params keyint=12:open-gop=0:scenecut=0:log-level=error".to_owned()),
    ];
    for (name, codec) in sources.into_iter().rev() {
        let clip = clip(folder.path(), name, &codec);
        let in_source = numbers(&clip);
        assert_eq!(in_source, (0..FRAMES).collect::<Vec<_>>(), "the clip itself, {name}");
        let few = name.ends_with("mp4").then_some([(5.0, 2..=3), (2.0, 5..=7)]);
        for (chunk_s, chunks) in few.into_iter().flatten().chain([(0.5, 20..=26)]) {
            let scratch = tempfile::tempdir().unwrap();
            let made = made(&clip, scratch.path(), chunk_s);
            assert!(chunks.contains(&made.plan.chunks.len()), "{name}: {} chunks", made.plan.chunks.len());
            for rendition in
                made.renditions.iter().filter(|rendition| rendition.name != RenditionName::Original)
            {
                let track = ObjectFile::Track(rendition.name, TrackKind::Video).to_string();
                let found = numbers(&made.folder_of(rendition).join(track));
                assert_eq!(
                    found,
                    in_source,
                    "{name} in {} chunks, {}",
                    made.plan.chunks.len(),
                    rendition.name
                );
            }
            let low = made.renditions.last().unwrap();
            let click = loudest_click(&made.folder_of(low).join(ObjectFile::SharedAudio.to_string()));
            assert!(
                click < 6.0,
                "{name} in {} chunks: a step {click:.1} times as loud as what is around it",
                made.plan.chunks.len()
            );
        }
    }
}
