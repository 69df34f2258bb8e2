//! What the ops listener shows of a life. Recorded once in a process; every test has its own.

use domain::VideoState;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::world::World;

/// The value of a line of the text format.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no `{line}` in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_shows_how_fast_it_was() {
    let buckets = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("scheduler".to_owned()), &[0.001, 1.0, 1000.0])
        .unwrap();
    let recorder = buckets.install_recorder().unwrap();
    let world = World::new().await;
    let at_work = world.start();
    // The film has 10 s, and reading it takes 0.2 s.
    let copied = world.upload("chunks=1 audio ms=200").await;
    world.until(copied, VideoState::Ready).await;
    let encoded = world.upload("chunks=1 no-original ms=200").await;
    world.until(encoded, VideoState::Ready).await;
    at_work.stop().await;
    let text = recorder.render();

    let mut to_playable_s = 0.0;
    for video in [copied, encoded] {
        let playable = world.catalog.playable(video).await.unwrap().unwrap();
        to_playable_s += playable.published_at.ms_since(playable.uploaded_at) as f64 / 1000.0;
    }
    assert_eq!(value(&text, "scheduler_time_to_playable_seconds_count"), 2.0, "each once, however it began");
    let sum_s = value(&text, "scheduler_time_to_playable_seconds_sum");
    assert!((sum_s - to_playable_s).abs() < 0.001 && sum_s > 0.4, "{sum_s} of {to_playable_s}");

    for (kind, rendition, ratio_max) in [
        ("ingest", "original", 50.0),
        ("ingest", "none", 50.0),
        ("encode", "medium", 50.0),
        ("encode", "low", 50.0),
        ("encode", "original", 50.0),
        ("encode", "audio", 10_000.0),
        ("assemble", "medium", 10_000.0),
        ("assemble", "low", 10_000.0),
        ("assemble", "original", 10_000.0),
    ] {
        let of = |what: &str| {
            let name = format!("scheduler_transcode_speed_ratio_{what}");
            value(&text, &format!("{name}{{kind=\"{kind}\",rendition=\"{rendition}\"}}"))
        };
        assert_eq!(of("count"), 1.0, "{kind} of {rendition}");
        let ratio = of("sum");
        assert!(ratio > 0.5 && ratio <= ratio_max, "{kind} of {rendition}: {ratio}");
    }
    let encodes = value(&text, r#"scheduler_job_duration_seconds_count{kind="encode",ending="done"}"#);
    assert_eq!(encodes, 4.0);
    let encodes_s = value(&text, r#"scheduler_job_duration_seconds_sum{kind="encode",ending="done"}"#);
    assert!(encodes_s >= 0.4, "{encodes_s}");
}
