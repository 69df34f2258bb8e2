//! Files that are damaged inside still become watchable: what can be shown is shown, at its time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use child::{Made, Verdict, whole_way};
use domain::RenditionName;

/// Three groups of 2 s, 50 frames each; the pictures of one group are overwritten.
fn clip_with_lost_group(folder: &Path, group: usize) -> PathBuf {
    let path = folder.join("clip.mp4");
    let args = "-v error -nostdin -f lavfi -i testsrc2=size=640x360:rate=25:duration=6 -c:v libx264 \
                -preset ultrafast -pix_fmt yuv420p -g 50 -keyint_min 50 -sc_threshold 0";
    let made = Command::new("ffmpeg").args(args.split_whitespace()).arg(&path).status().unwrap();
    assert!(made.success());
    let args = "-v error -show_entries packet=pos,size -of csv=p=0";
    let probed = Command::new("ffprobe").args(args.split_whitespace()).arg(&path).output().unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    let text = String::from_utf8(probed.stdout).unwrap();
    for line in text.lines().skip(group * 50).take(50) {
        let numbers: Vec<u64> = line.split(',').filter_map(|number| number.parse().ok()).collect();
        let [bytes, offset] = numbers[..] else { panic!("{line}") };
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&vec![0xff; bytes as usize]).unwrap();
    }
    path
}

fn made(group: usize) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip_with_lost_group(folder.path(), group);
    match whole_way(&clip, folder.path()) {
        Verdict::Made(made) => *made,
        other => panic!("{other:?}"),
    }
}

/// Less than a frame of AAC, and later than the pictures.
#[test]
fn a_late_sound_of_a_few_samples_is_kept() {
    for samples in [1, 3, 700] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mov");
        let args = format!(
            "-v error -nostdin -f lavfi -i testsrc2=size=640x360:rate=25:duration=1 -f lavfi -i sine=duration=1 \
             -af atrim=end_sample={samples},asetpts=PTS+0.3333/TB -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
             -c:a pcm_s16le"
        );
        let clip = Command::new("ffmpeg").args(args.split_whitespace()).arg(&path).status().unwrap();
        assert!(clip.success());
        let Verdict::Made(made) = whole_way(&path, folder.path()) else { panic!("{samples} samples") };
        let low = made.renditions.iter().find(|rendition| rendition.name == RenditionName::Low).unwrap();
        assert!(low.codecs.contains("mp4a"), "{samples} samples: {low:?}");
    }
}

fn frames(made: &Made) -> Vec<(RenditionName, u64)> {
    made.renditions.iter().map(|rendition| (rendition.name, rendition.frames)).collect()
}

#[test]
fn a_lost_middle_is_skipped() {
    // One picture stands in for the lost one at which a fragment starts.
    let made = made(1);
    assert_eq!(made.copied, Some(RenditionName::Original));
    assert_eq!(frames(&made), [(RenditionName::Original, 150), (RenditionName::Low, 101)]);
    assert_eq!(made.source.warnings.len(), 1, "{:?}", made.source.warnings);
}

#[test]
fn a_lost_beginning_is_left_out() {
    let made = made(0);
    assert_eq!(frames(&made), [(RenditionName::Original, 100), (RenditionName::Low, 100)]);
    assert!((made.source.duration_s - 4.0).abs() < 0.001, "{} s", made.source.duration_s);
    assert_eq!(made.source.warnings.len(), 1, "{:?}", made.source.warnings);
}

#[test]
fn a_lost_end_stands_still() {
    let made = made(2);
    assert_eq!(frames(&made), [(RenditionName::Original, 150), (RenditionName::Low, 101)]);
    assert!(made.renditions.iter().all(|rendition| (rendition.duration_s - 6.0).abs() < 0.001));
    assert_eq!(made.source.warnings.len(), 1, "{:?}", made.source.warnings);
}
