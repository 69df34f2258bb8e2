//! Rungs and codecs that an operator asks for, as viewers and players meet them.

use std::path::Path;

use crate::harness::{App, clips, probe};

#[tokio::test]
async fn an_operators_rungs_are_served_in_every_codec_asked_for() {
    let rungs = [
        ("SLUICE_ENCODE_RUNGS", "high:360:24:900000,lowest:144"),
        ("SLUICE_ENCODE_CODECS", "hevc,av1"),
        ("SLUICE_ENCODE_X265_PRESET", "ultrafast"),
        ("SLUICE_ENCODE_SVTAV1_PRESET", "12"),
        ("SLUICE_ENCODE_CHUNK_S", "2"),
    ];
    let app = App::with(&rungs).await;
    let alice = app.user("alice").await;
    let clip = app.folder.path().join("clip.mp4");
    clips::ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=25:duration=5",
            "-f",
            "lavfi",
            "-i",
            "sine=duration=5",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-pix_fmt",
            "yuv420p",
            "-g",
            "25",
            "-c:a",
            "aac",
        ],
        &clip,
    );
    let id = alice.upload(&clip).await;
    let video = alice.until(&id, &["ready"], 120).await;
    let names: Vec<_> =
        video["renditions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    let (h264, others) = (
        ["original", "high", "lowest"],
        [("high-hevc", "hevc"), ("lowest-hevc", "hevc"), ("high-av1", "av1"), ("lowest-av1", "av1")],
    );
    assert_eq!(names, h264.into_iter().chain(others.map(|(name, _)| name)).collect::<Vec<_>>());

    let at = |rendition: &str| format!("{}/stream/videos/{id}?rendition={rendition}", app.base());
    let codec =
        |url: &str| probe::ffprobe(url).stream("video").unwrap()["codec_name"].as_str().unwrap().to_owned();
    for (name, expected) in h264.map(|name| (name, "h264")).into_iter().chain(others) {
        let url = at(name);
        assert_eq!(codec(&url), expected, "{name}");
        assert_eq!(probe::ffprobe(&url).frames(), 125, "{name}");
        probe::decodes(&url);
    }
    // Whoever asks for nothing, or for what is not there, gets what plays everywhere.
    assert_eq!(codec(&format!("{}/stream/videos/{id}", app.base())), "h264");
    assert_eq!(
        (codec(&at("medium-av1")), probe::ffprobe(&at("medium-av1")).shown_size()),
        ("h264".into(), (640, 360))
    );

    let master = alice.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
    let variants: Vec<_> = master.lines().filter(|line| line.starts_with("#EXT-X-STREAM-INF")).collect();
    let of =
        |codec: &str| variants.iter().filter(|line| line.contains(&format!("CODECS=\"{codec}."))).count();
    assert_eq!([of("avc1"), of("hvc1"), of("av01")], [3, 2, 2], "{master}");
    assert!(variants[..3].iter().all(|line| line.contains("avc1.")), "{master}");
    for playlist in master.lines().filter(|line| !line.starts_with('#')) {
        probe::decodes(&format!("{}/stream/videos/{id}/{playlist}", app.base()));
    }
    app.finish();
}

/// The same picture for 21 s: every factor is fine enough for it.
fn still(folder: &Path, size: &str, codec: &[&str]) -> std::path::PathBuf {
    let path = folder.join(format!("{size}.mp4"));
    let picture = format!("color=navy:size={size}:rate=5:duration=21");
    let arguments =
        [&["-f", "lavfi", "-i", &picture, "-pix_fmt", "yuv420p", "-g", "10", "-c:v"], codec].concat();
    clips::ffmpeg(&arguments, &path);
    path
}

/// What each rendition that was encoded says of its factor.
async fn factors(app: &App, id: &str) -> Vec<(String, f64)> {
    let video = app.admin().await.video(id).await;
    let factor = |rendition: &serde_json::Value| {
        let engine = rendition["engine"].as_str().unwrap();
        let (_, after) = engine.split_once(" crf ")?;
        let (factor, _) = after.split_once(' ').unwrap();
        Some((rendition["name"].as_str().unwrap().to_owned(), factor.parse().unwrap()))
    };
    video["renditions"].as_array().unwrap().iter().filter_map(factor).collect()
}

#[tokio::test]
async fn an_easy_film_is_encoded_at_the_coarse_factor_chosen_for_it() {
    let settings = [("SLUICE_ENCODE_CONTENT_AWARE", "true"), ("SLUICE_ENCODE_CODECS", "hevc")];
    let app = App::with(&settings).await;
    let alice = app.user("alice").await;
    let film = alice.upload(&still(app.folder.path(), "640x480", &["libx264"])).await;
    let other =
        still(app.folder.path(), "480x360", &["libx265", "-tag:v", "hvc1", "-x265-params", "log-level=none"]);
    let other = alice.upload(&other).await;
    let expected = |factors: &[(&str, f64)]| -> Vec<_> {
        factors.iter().map(|(name, factor)| ((*name).to_owned(), *factor)).collect()
    };
    alice.until(&film, &["ready"], 120).await;
    let of_h264 = [("medium", 32.0), ("low", 32.0), ("medium-hevc", 35.0), ("low-hevc", 35.0)];
    assert_eq!(factors(&app, &film).await, expected(&of_h264));
    // Browsers cannot play the other one: what is watched first was not waited for, and `original` is as good as it can be.
    alice.until(&other, &["ready"], 120).await;
    assert_eq!(
        factors(&app, &other).await,
        expected(&[("original", 20.0), ("low", 23.0), ("low-hevc", 35.0)])
    );
    app.finish();
}
