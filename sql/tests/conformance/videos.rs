use domain::{JobKind, MediaProblem, VideoState, Visibility};
use sql::{Audience, VideoFilter, VideoPatch};

use crate::both;
use crate::world::World;

const PUBLIC: VideoFilter = VideoFilter { author: None, tag: None, audience: Audience::Public };

both!(lists_are_newest_first_and_page_without_gap_or_overlap);
async fn lists_are_newest_first_and_page_without_gap_or_overlap(mut world: World) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        world.advance_ms(1);
        ids.push(world.playable(0).await);
    }
    // Not listed: neither playable, nor public.
    world.uploaded().await;
    world.claim(JobKind::Ingest).await;
    let private = world.playable(0).await;
    let patch = VideoPatch { visibility: Some(Visibility::Private), ..VideoPatch::default() };
    let unused = world.id();
    world.catalog.update_video(private, &patch, unused, world.now).await.unwrap().unwrap();

    ids.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.catalog.videos(&PUBLIC, after, 3, world.now).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|video| video.id));
        assert!(page.iter().all(|video| video.renditions.len() == 1 && video.state == VideoState::Ready));
    }
    assert_eq!(seen, ids);
    world.check().await;
}

both!(filters_by_author_and_tag);
async fn filters_by_author_and_tag(mut world: World) {
    let author = world.user("alice").await;
    let mine = world.video_of(author).await;
    let other = world.playable(0).await;
    let own = VideoFilter { author: Some(author), tag: None, audience: Audience::OwnAll };
    let list = world.catalog.videos(&own, None, 10, world.now).await.unwrap();
    assert_eq!(list.iter().map(|video| video.id).collect::<Vec<_>>(), [mine]);
    let hidden = VideoFilter { audience: Audience::Public, ..own };
    assert!(world.catalog.videos(&hidden, None, 10, world.now).await.unwrap().is_empty());

    let tagged = |tag: &str| VideoFilter { tag: Some(tag.to_owned()), ..PUBLIC };
    let list = world.catalog.videos(&tagged("sun"), None, 10, world.now).await.unwrap();
    assert_eq!(list.iter().map(|video| video.id).collect::<Vec<_>>(), [other]);
    let patch = VideoPatch { tags: Some(vec!["moon".to_owned()]), ..VideoPatch::default() };
    let unused = world.id();
    world.catalog.update_video(other, &patch, unused, world.now).await.unwrap();
    assert!(world.catalog.videos(&tagged("sun"), None, 10, world.now).await.unwrap().is_empty());
    assert_eq!(world.catalog.videos(&tagged("moon"), None, 10, world.now).await.unwrap().len(), 1);
}

both!(a_patch_changes_what_it_names);
async fn a_patch_changes_what_it_names(mut world: World) {
    let video = world.video().await;
    let patch = VideoPatch { title: Some("New".to_owned()), cover_at_s: Some(1.5), ..VideoPatch::default() };
    let unused = world.id();
    let patched = world.catalog.update_video(video, &patch, unused, world.now).await.unwrap().unwrap();
    assert_eq!((&*patched.title, patched.tags.len(), patched.cover_at_s), ("New", 2, Some(1.5)));
    // Before there is anything to take it from, `ingest` will do it.
    assert!(world.claim_all(&[JobKind::Cover]).await.is_empty());
    let nowhere = world.id();
    assert!(world.catalog.update_video(nowhere, &patch, unused, world.now).await.unwrap().is_none());
}

both!(only_the_last_cover_asked_for_is_taken);
async fn only_the_last_cover_asked_for_is_taken(mut world: World) {
    let video = world.playable(1).await;
    let before = world.seen(video).await.cover_attempt;
    for at_s in [1.0, 2.0] {
        let patch = VideoPatch { cover_at_s: Some(at_s), ..VideoPatch::default() };
        let job = world.id();
        world.catalog.update_video(video, &patch, job, world.now).await.unwrap();
    }
    let lease = world.claim(JobKind::Cover).await;
    assert_eq!(lease.job.payload, r#"{"at_s":2.0}"#);
    let attempt = world.begin(&lease).await;
    let covers = domain::task::Covers { files: Vec::new(), width_max: 480, thumbhash: "eA==".to_owned() };
    world.catalog.replace_cover(&lease, attempt, &covers, &[], world.now).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!((seen.cover_attempt, seen.cover_width_max), (Some(attempt), Some(480)));
    assert_ne!(seen.cover_attempt, before);
    // The attempt before also holds the original, so it stays.
    assert!(world.catalog.stale_attempts(world.now.plus_s(1), 0, 10).await.unwrap().is_empty());
    world.check().await;
}

both!(a_cover_that_cannot_be_taken_leaves_the_video_as_it_was);
async fn a_cover_that_cannot_be_taken_leaves_the_video_as_it_was(mut world: World) {
    let video = world.playable(1).await;
    let before = world.seen(video).await;
    let patch = VideoPatch { cover_at_s: Some(1.0), ..VideoPatch::default() };
    let job = world.id();
    world.catalog.update_video(video, &patch, job, world.now).await.unwrap();
    let lease = world.claim(JobKind::Cover).await;
    world.catalog.reject_video(&lease, MediaProblem::Truncated, "no frame", world.now).await.unwrap();
    let after = world.seen(video).await;
    assert_eq!((after.state, after.cover_attempt), (VideoState::Playable, before.cover_attempt));
    assert_eq!(world.claim_all(&[JobKind::Encode]).await.len(), 1, "the encode goes on");
    world.check().await;
}
