//! A replica that lags: here a copy of some time ago, which never catches up.

use domain::{DatabasePlace, VideoId, Visibility};
use sql::{Audience, Catalog, NewComment, NewDeletion, NewSession, VideoFilter, VideoPatch};

use crate::both;
use crate::world::World;

const PUBLIC: VideoFilter = VideoFilter { author: None, tag: None, audience: Audience::Public };

both!(a_replica_answers_what_may_lag_and_nothing_that_is_gone_is_shown);
async fn a_replica_answers_what_may_lag_and_nothing_that_is_gone_is_shown(mut world: World) {
    let ada = world.user("ada").await;
    let mut videos: Vec<VideoId> = Vec::new();
    for _ in 0..6 {
        world.advance_ms(1);
        videos.push(world.ready().await);
    }
    videos.reverse();
    let session = NewSession { id: world.id(), user: ada, expires_at: world.now.plus_s(60) };
    world.catalog.create_session(&session, world.now).await.unwrap();
    world.catalog.close().await;
    let replica = world.database.copy().await;
    let place = DatabasePlace { read_url: Some(replica.place.url.clone()), ..world.database.place.clone() };
    world.catalog = Catalog::open(&place).await.unwrap();

    // Newer than the replica: it is there, but not in a list.
    let comment = NewComment { id: world.id(), video: videos[0], author: ada, content: "new".to_owned() };
    world.catalog.create_comment(&comment, world.now).await.unwrap().unwrap();
    assert!(world.catalog.comments(videos[0], None, 10).await.unwrap().is_empty(), "the replica was asked");
    assert_eq!(world.seen(videos[0]).await.comments_count, 1);
    let late = world.ready().await;
    assert!(world.catalog.watchable(late, world.now).await.unwrap().is_some());

    // Gone or hidden: not even in a list, whose pages stay full.
    let new = NewDeletion {
        video: videos[1],
        requested_by: "admin".to_owned(),
        due_at: world.now,
        id: world.id(),
        job: world.id(),
    };
    world.catalog.delete_video(&new, world.now).await.unwrap();
    let hide = VideoPatch { visibility: Some(Visibility::Private), ..VideoPatch::default() };
    let unused = world.id();
    world.catalog.update_video(videos[2], &hide, unused, world.now).await.unwrap();
    let listed = world.catalog.videos(&PUBLIC, None, 4, world.now).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|video| video.id).collect();
    assert_eq!(ids, [videos[0], videos[3], videos[4], videos[5]]);
    assert!(world.catalog.watchable(videos[1], world.now).await.unwrap().is_none());
    assert!(world.catalog.revoke_session(session.id, world.now).await.unwrap());
    assert!(!world.catalog.session_alive(session.id, world.now).await.unwrap());
    assert_eq!(world.claim_all(&[domain::JobKind::Purge]).await.len(), 1);
    world.check().await;
    world.catalog.close().await;
    replica.remove().await;
}
