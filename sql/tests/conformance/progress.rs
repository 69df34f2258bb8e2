use domain::{JobKind, Stage};

use crate::both;
use crate::world::{LEASE_MS, World};

/// What the film shows, and how far its renditions are that are not there yet.
async fn shown(world: &World, video: domain::VideoId) -> (f64, Option<Stage>, Option<f64>, f64) {
    let seen = world.seen(video).await;
    let pending = seen.renditions.iter().filter(|r| r.state == domain::RenditionState::Pending);
    let rungs: Vec<f64> = pending.map(|rendition| rendition.progress).collect();
    assert!(rungs.windows(2).all(|pair| pair[0] == pair[1]), "{rungs:?}");
    (seen.progress, seen.stage, seen.eta_s, rungs.first().copied().unwrap_or(1.0))
}

both!(progress_is_weighed_by_cost_and_tells_stage_and_time_left);
async fn progress_is_weighed_by_cost_and_tells_stage_and_time_left(mut world: World) {
    let video = world.uploaded().await;
    assert_eq!(shown(&world, video).await, (0.0, Some(Stage::Waiting), None, 1.0));
    let lease = world.claim(JobKind::Ingest).await;
    assert_eq!(world.seen(video).await.stage, Some(Stage::Checking));
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    world.advance_ms(1000);
    world.ingest(&lease, 10).await.unwrap();
    let (begun, stage, eta_s, rung) = shown(&world, video).await;
    assert_eq!((stage, eta_s, rung), (Some(Stage::Waiting), None, 0.0));
    assert!(begun < 0.05, "{begun}");

    // Each was thought to take 10 s, and takes 20.
    let mut steps = vec![begun];
    for number in 0..5 {
        let lease = world.claim_one("w", JobKind::Encode).await;
        world.advance_ms(10_000);
        let until = world.now.plus_ms(LEASE_MS);
        world.catalog.heartbeat(&lease, Some(0.5), until, world.now).await.unwrap();
        let (progress, stage, eta_s, _) = shown(&world, video).await;
        assert_eq!(stage, Some(Stage::Encoding));
        // What is left of this chunk, the chunks that follow, and a fiftieth of all to join them.
        let expected_s = 10.0 + 20.0 * f64::from(9 - number) + 4.0;
        let eta_s = eta_s.expect("ten seconds were measured");
        assert!((eta_s / expected_s - 1.0).abs() < 0.2, "chunk {number}: {eta_s} of {expected_s}");
        steps.push(progress);
        world.advance_ms(10_000);
        world.encode(&lease, number).await.unwrap();
        steps.push(shown(&world, video).await.0);
    }
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    let (half, stage, eta_s, rung) = shown(&world, video).await;
    assert_eq!((stage, eta_s), (Some(Stage::Waiting), None), "nobody is at work");
    assert!((half - 0.49).abs() < 0.03 && (rung - 0.49).abs() < 0.03, "{half} {rung}");

    for number in 5..10 {
        let lease = world.claim_one("w", JobKind::Encode).await;
        world.encode(&lease, number).await.unwrap();
    }
    let lease = world.claim(JobKind::Assemble).await;
    assert_eq!(world.seen(video).await.stage, Some(Stage::Assembling));
    let until = world.now.plus_ms(LEASE_MS);
    world.catalog.heartbeat(&lease, Some(1.0), until, world.now).await.unwrap();
    let (almost, ..) = shown(&world, video).await;
    assert!((0.95..1.0).contains(&almost), "only what is published is done: {almost}");
    world.assemble(&lease).await.unwrap();
    assert_eq!(shown(&world, video).await, (1.0, None, None, 1.0));
    world.check().await;
}

both!(progress_never_falls_whatever_is_done_again);
async fn progress_never_falls_whatever_is_done_again(mut world: World) {
    let video = world.playable(2).await;
    let lease = world.claim_one("w", JobKind::Encode).await;
    world.advance_ms(10_000);
    let until = world.now.plus_ms(LEASE_MS);
    world.catalog.heartbeat(&lease, Some(0.9), until, world.now).await.unwrap();
    let before = shown(&world, video).await;
    world.catalog.fail_job(&lease, "bad luck", Some(world.now), world.now).await.unwrap();
    let lease = world.claim_one("w", JobKind::Encode).await;
    let until = world.now.plus_ms(LEASE_MS);
    world.catalog.heartbeat(&lease, Some(0.1), until, world.now).await.unwrap();
    let after = shown(&world, video).await;
    assert_eq!((after.0, after.3), (before.0, before.3));
    world.advance_ms(10_000);
    world.encode(&lease, 0).await.unwrap();
    assert!(shown(&world, video).await.0 > before.0);
}

both!(nothing_is_foretold_of_what_stands_still);
async fn nothing_is_foretold_of_what_stands_still(mut world: World) {
    let video = world.playable(1).await;
    let lease = world.claim_one("w", JobKind::Encode).await;
    world.catalog.fail_job(&lease, "poison", None, world.now).await.unwrap();
    let (_, stage, eta_s, _) = shown(&world, video).await;
    assert_eq!((stage, eta_s), (None, None));
}

both!(the_time_to_playable_counts_from_the_last_byte);
async fn the_time_to_playable_counts_from_the_last_byte(mut world: World) {
    let video = world.uploaded().await;
    let uploaded_at = world.now;
    assert_eq!(world.catalog.playable(video).await.unwrap(), None);
    world.advance_ms(1500);
    let lease = world.claim(JobKind::Ingest).await;
    world.ingest(&lease, 1).await.unwrap();
    let first = sql::Playable { uploaded_at, published_at: world.now };
    assert_eq!(world.catalog.playable(video).await.unwrap(), Some(first));
    world.advance_ms(9000);
    let lease = world.claim_one("w", JobKind::Encode).await;
    world.encode(&lease, 0).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.catalog.playable(video).await.unwrap(), Some(first), "what follows is no news");
}
