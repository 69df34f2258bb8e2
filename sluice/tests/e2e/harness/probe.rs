//! What `ffprobe` says of a file or an address.

use std::process::Command;

use serde_json::Value;

pub struct Probed(pub Value);

/// Streams with counted frames, and the format.
pub fn ffprobe(input: &str) -> Probed {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", input])
        .output()
        .expect("ffprobe is installed (make setup)");
    assert!(output.status.success(), "ffprobe {input}: {}", String::from_utf8_lossy(&output.stderr));
    Probed(serde_json::from_slice(&output.stdout).unwrap())
}

/// Decodes all of it; FFmpeg must not complain.
pub fn decodes(input: &str) {
    // Frames of a variable rate come closer together than the ticks of a rate that FFmpeg would guess.
    let as_they_come = ["-fps_mode", "passthrough", "-enc_time_base", "-1"];
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-i", input])
        .args(as_they_come)
        .args(["-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed (make setup)");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{input}: {complaints}");
}

/// Presentation times, in seconds, of the keyframes of the first video stream.
pub fn keyframes(input: &str) -> Vec<f64> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-skip_frame",
            "nokey",
            "-show_entries",
            "frame=pts_time",
        ])
        .args(["-of", "csv=p=0", input])
        .output()
        .expect("ffprobe is installed (make setup)");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim_end_matches(',').parse().ok())
        .collect()
}

/// No picture is shown before the keyframe that it was stored after: a player may start at any keyframe.
pub fn has_closed_gops(input: &str) -> bool {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "packet=pts_time,flags",
            "-of",
            "csv=p=0",
            input,
        ])
        .output()
        .expect("ffprobe is installed (make setup)");
    let text = String::from_utf8_lossy(&output.stdout);
    let packets: Vec<(f64, bool)> = text
        .lines()
        .map(|line| {
            let (pts_s, flags) = line.split_once(',').expect("two columns");
            (pts_s.parse().expect("a time"), flags.starts_with('K'))
        })
        .collect();
    let mut keyframe_s = f64::INFINITY;
    !packets.is_empty()
        && packets.iter().all(|(pts_s, is_keyframe)| {
            if *is_keyframe {
                keyframe_s = *pts_s;
            }
            *pts_s >= keyframe_s
        })
}

impl Probed {
    pub fn stream(&self, kind: &str) -> Option<&Value> {
        self.0["streams"].as_array().unwrap().iter().find(|stream| stream["codec_type"] == kind)
    }

    pub fn frames(&self) -> u64 {
        self.stream("video").unwrap()["nb_read_frames"].as_str().unwrap().parse().unwrap()
    }

    pub fn seconds(&self, kind: &str, field: &str) -> f64 {
        self.stream(kind).unwrap()[field]
            .as_str()
            .unwrap_or_else(|| panic!("{kind} has no {field}"))
            .parse()
            .unwrap()
    }

    /// Start of the audio minus start of the video.
    pub fn audio_offset_s(&self) -> Option<f64> {
        self.stream("audio")?;
        Some(self.seconds("audio", "start_time") - self.seconds("video", "start_time"))
    }

    /// As shown: rotation and sample aspect ratio applied.
    pub fn shown_size(&self) -> (u64, u64) {
        let video = self.stream("video").unwrap();
        let (mut width, mut height) = (video["width"].as_u64().unwrap(), video["height"].as_u64().unwrap());
        if let Some((n, d)) = video["sample_aspect_ratio"].as_str().and_then(|sar| sar.split_once(':')) {
            let (n, d): (u64, u64) = (n.parse().unwrap(), d.parse().unwrap());
            if n > 0 && d > 0 {
                width = width * n / d;
            }
        }
        let rotation = video["side_data_list"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|side| side["rotation"].as_i64());
        if rotation.is_some_and(|degrees| degrees.rem_euclid(180) == 90) {
            std::mem::swap(&mut width, &mut height);
        }
        (width, height)
    }
}
