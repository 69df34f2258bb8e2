use std::collections::BTreeMap;

use domain::{JobKind, Timestamp, VideoId, ViewerHash};
use futures::future::join_all;
use sql::{NewDeletion, Watched};

use crate::both;
use crate::world::World;

const WINDOW_MS: i64 = 60_000;

fn viewer(number: usize) -> ViewerHash {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    ViewerHash::of(&digest)
}

fn seen(
    video: VideoId,
    viewers: impl IntoIterator<Item = usize>,
    served_bytes: u64,
) -> BTreeMap<VideoId, Watched> {
    let viewers = viewers.into_iter().map(viewer).collect();
    BTreeMap::from([(video, Watched { viewers, served_bytes })])
}

impl World {
    async fn tell(&self, watched: &BTreeMap<VideoId, Watched>) -> u64 {
        self.catalog.add_watched(watched, before(self.now), self.now).await.unwrap()
    }

    async fn counts(&self, video: VideoId) -> (u64, u64) {
        let video = self.seen(video).await;
        (video.views_count, video.served_bytes)
    }
}

fn before(now: Timestamp) -> Timestamp {
    now.plus_ms(-WINDOW_MS)
}

both!(a_viewer_counts_once_in_a_window_and_bytes_always);
async fn a_viewer_counts_once_in_a_window_and_bytes_always(mut world: World) {
    let (video, other) = (world.ready().await, world.ready().await);
    assert_eq!(world.counts(video).await, (0, 0));
    assert_eq!(world.tell(&BTreeMap::new()).await, 0);
    assert_eq!(world.tell(&seen(video, [1, 2], 100)).await, 2);
    world.advance_ms(WINDOW_MS - 1);
    assert_eq!(world.tell(&seen(video, [2, 3], 10)).await, 1, "2 is still watching");
    assert_eq!(world.tell(&seen(other, [2], 1)).await, 1, "another video");
    assert_eq!(world.counts(video).await, (3, 110));
    // From when it was counted, not from when it was seen last.
    world.advance_ms(1);
    assert_eq!(world.tell(&seen(video, [1, 2, 3], 0)).await, 2);
    assert_eq!((world.counts(video).await, world.counts(other).await), ((5, 110), (1, 1)));
    let filter = sql::VideoFilter { author: None, tag: None, audience: sql::Audience::Public };
    let listed = world.catalog.videos(&filter, None, 10, world.now).await.unwrap();
    assert_eq!(listed.iter().map(|video| video.views_count).sum::<u64>(), 6);
    world.check().await;
}

both!(many_processes_count_the_same_viewers_once);
async fn many_processes_count_the_same_viewers_once(mut world: World) {
    let videos = [world.ready().await, world.ready().await, world.ready().await];
    // More than a statement takes.
    let watched = Watched { viewers: (0..1_200).map(viewer).collect(), served_bytes: 5 };
    let batch: BTreeMap<_, _> = videos.iter().map(|video| (*video, watched.clone())).collect();
    let told = join_all((0..4).map(|_| world.tell(&batch))).await;
    assert_eq!(told.iter().sum::<u64>(), 3 * 1_200);
    for video in videos {
        assert_eq!(world.counts(video).await, (1_200, 4 * 5));
    }
}

both!(views_are_forgotten_after_their_window_and_with_their_video);
async fn views_are_forgotten_after_their_window_and_with_their_video(mut world: World) {
    let video = world.ready().await;
    world.tell(&seen(video, 0..5, 1)).await;
    assert_eq!(world.catalog.forget_views(before(world.now), 10).await.unwrap(), 0);
    world.advance_ms(WINDOW_MS);
    world.tell(&seen(video, [9], 1)).await;
    assert_eq!(world.catalog.forget_views(before(world.now), 3).await.unwrap(), 3, "so many at a time");
    assert_eq!(world.catalog.forget_views(before(world.now), 10).await.unwrap(), 2);
    assert_eq!(world.counts(video).await, (6, 2), "what was counted stays");

    let deletion = NewDeletion {
        video,
        requested_by: "test".to_owned(),
        due_at: world.now,
        id: world.id(),
        job: world.id(),
    };
    world.catalog.delete_video(&deletion, world.now).await.unwrap();
    assert_eq!(world.tell(&seen(video, [10], 1)).await, 0, "it is gone");
    let lease = world.claim(JobKind::Purge).await;
    world.catalog.start_purge(&lease, world.now).await.unwrap();
    world.catalog.finish_purge(&lease, world.now, world.now).await.unwrap();
    assert_eq!(world.tell(&seen(video, [11], 1)).await, 0);
    assert_eq!(world.catalog.forget_views(world.now.plus_ms(1), 10).await.unwrap(), 0, "none is left");
    world.check().await;
}
