//! What users may have, and what the store has promised.

use domain::{Quota, UploadKind, UserId, VideoId};
use futures::future::join_all;
use sql::{
    BeginUpload, CreateOnce, CreateResumable, NewResumable, NewUpload, NewVideo, NoRoom, Once, OwnQuota,
    Room, SqlError, Usage,
};

use crate::both;
use crate::resumable::{acquire, begin, new};
use crate::world::{LEASE_MS, World};

const ANY: Quota = Quota { bytes_max: None, videos_max: None, uploads_max: None };

fn bytes(bytes_max: u64) -> Room {
    Room { quota: Quota { bytes_max: Some(bytes_max), ..ANY }, store_bytes: None }
}

fn store(bytes: u64) -> Room {
    Room { quota: ANY, store_bytes: Some(bytes) }
}

async fn create(world: &mut World, video: VideoId, length: Option<u64>, room: Room) -> Result<(), NoRoom> {
    let new = NewResumable { room, ..new(world, video, UploadKind::Whole, length) };
    no_room(world.catalog.create_resumable(&new, world.now).await.map(drop))
}

async fn begin_whole(
    world: &mut World,
    video: VideoId,
    length: Option<u64>,
    room: Room,
) -> Result<(), NoRoom> {
    let new = NewUpload {
        length_bytes: length,
        room,
        ..NewUpload::unbounded(world.id(), video, world.now.plus_ms(LEASE_MS))
    };
    no_room(world.catalog.begin_upload(&new, world.now).await.map(drop))
}

fn no_room(outcome: Result<(), SqlError>) -> Result<(), NoRoom> {
    match outcome {
        Ok(()) => Ok(()),
        Err(SqlError::NoRoom(bound)) => Err(bound),
        Err(error) => panic!("{error:?}"),
    }
}

async fn usage(world: &World, user: UserId) -> Usage {
    world.catalog.quota(user, world.now).await.unwrap().unwrap().1
}

both!(what_was_uploaded_and_what_is_on_its_way_count);
async fn what_was_uploaded_and_what_is_on_its_way_count(mut world: World) {
    let ada = world.user("ada").await;
    let (done, whole, resumable) =
        (world.video_of(ada).await, world.video_of(ada).await, world.video_of(ada).await);
    world.uploaded_as(done).await;
    begin_whole(&mut world, whole, Some(300), bytes(10_000)).await.unwrap();
    create(&mut world, resumable, Some(50), bytes(10_000)).await.unwrap();
    let all = Usage { bytes: 1000, promised_bytes: 350, videos: 3, uploads: 2 };
    assert_eq!(usage(&world, ada).await, all);

    let next = world.video_of(ada).await;
    let refused = Err(NoRoom::UserBytes { used_bytes: 1350, bytes_max: 1400 });
    assert_eq!(create(&mut world, next, Some(51), bytes(1400)).await, refused);
    assert_eq!(begin_whole(&mut world, next, Some(51), bytes(1400)).await, refused);
    assert_eq!(usage(&world, ada).await.promised_bytes, 350, "what is refused leaves nothing");
    create(&mut world, next, Some(50), bytes(1400)).await.unwrap();

    // Somebody else's are theirs.
    let bob = world.user("bob").await;
    let video = world.video_of(bob).await;
    create(&mut world, video, Some(1400), bytes(1400)).await.unwrap();
    world.check().await;
}

both!(a_second_try_at_a_video_takes_the_place_of_the_first);
async fn a_second_try_at_a_video_takes_the_place_of_the_first(mut world: World) {
    let ada = world.user("ada").await;
    let video = world.video_of(ada).await;
    create(&mut world, video, Some(900), bytes(1000)).await.unwrap();
    create(&mut world, video, Some(1000), bytes(1000)).await.unwrap();
    begin_whole(&mut world, video, Some(1000), bytes(1000)).await.unwrap();
    // Parts are put together, so each counts.
    let bob = world.user("bob").await;
    let parts = world.video_of(bob).await;
    let part = |world: &mut World, length| NewResumable {
        room: bytes(1000),
        ..new(world, parts, UploadKind::Partial, Some(length))
    };
    let (first, second) = (part(&mut world, 600), part(&mut world, 401));
    no_room(world.catalog.create_resumable(&first, world.now).await.map(drop)).unwrap();
    let refused = no_room(world.catalog.create_resumable(&second, world.now).await.map(drop));
    assert_eq!(refused, Err(NoRoom::UserBytes { used_bytes: 600, bytes_max: 1000 }));
}

both!(what_ends_in_whatever_way_is_given_back);
async fn what_ends_in_whatever_way_is_given_back(mut world: World) {
    let ada = world.user("ada").await;
    let (video, other) = (world.video_of(ada).await, world.video_of(ada).await);
    let room = Room { quota: Quota { bytes_max: Some(100), ..ANY }, store_bytes: Some(100) };

    let new = NewResumable { room, ..new(&mut world, video, UploadKind::Whole, Some(100)) };
    world.catalog.create_resumable(&new, world.now).await.unwrap();
    create(&mut world, other, Some(1), room).await.unwrap_err();
    world.catalog.terminate_resumable(new.id, world.now).await.unwrap();
    create(&mut world, other, Some(100), room).await.unwrap();
    // Expired, before a sweeper comes by.
    world.now = new.expires_at.plus_ms(1);
    begin_whole(&mut world, video, Some(100), room).await.unwrap();
    create(&mut world, other, Some(1), room).await.unwrap_err();
    // Its process died.
    world.advance_ms(LEASE_MS + 1);
    let whole = NewUpload {
        length_bytes: Some(100),
        room,
        ..NewUpload::unbounded(world.id(), other, world.now.plus_ms(LEASE_MS))
    };
    world.catalog.begin_upload(&whole, world.now).await.unwrap();
    world.catalog.abandon_upload(whole.attempt, world.now).await.unwrap();
    assert_eq!(usage(&world, ada).await, Usage { videos: 2, ..Usage::default() });
}

both!(the_store_is_promised_what_is_still_to_come);
async fn the_store_is_promised_what_is_still_to_come(mut world: World) {
    let (video, other) = (world.video().await, world.video().await);
    let upload = NewResumable { room: store(1000), ..new(&mut world, video, UploadKind::Whole, Some(600)) };
    world.catalog.create_resumable(&upload, world.now).await.unwrap();
    let refused = begin_whole(&mut world, other, Some(500), store(1000)).await;
    assert_eq!(refused, Err(NoRoom::Store { free_bytes: 400 }));
    let (token, _) = acquire(&world, upload.id).await;
    let piece = begin(&mut world, upload.id, token, 250).await;
    let (expires_at, now) = (upload.expires_at, world.now);
    world.catalog.commit_pieces(upload.id, token, false, &[piece], None, expires_at, now).await.unwrap();
    // What came is on the disk, which says itself what it has left.
    begin_whole(&mut world, other, Some(400), store(1350)).await.unwrap();
    // 350 to come, and all 600 once more, as it will have several pieces.
    let left = world.catalog.room_left(video, &store(2000), world.now).await.unwrap();
    assert_eq!(left.store_bytes, Some(2000 - 950 - 400));
}

both!(a_lease_that_is_extended_tells_what_came);
async fn a_lease_that_is_extended_tells_what_came(mut world: World) {
    let ada = world.user("ada").await;
    let video = world.video_of(ada).await;
    let until = world.now.plus_ms(LEASE_MS);
    let whole = NewUpload { length_bytes: Some(600), ..NewUpload::unbounded(world.id(), video, until) };
    world.catalog.begin_upload(&whole, world.now).await.unwrap();
    world.catalog.extend_upload(whole.attempt, 500, until).await.unwrap();
    let left = world.catalog.room_left(video, &store(1000), world.now).await.unwrap();
    assert_eq!(left.store_bytes, Some(900));
    assert_eq!(usage(&world, ada).await.promised_bytes, 600, "the user is asked for all of it");
}

both!(videos_and_uploads_at_once_are_bounded);
async fn videos_and_uploads_at_once_are_bounded(mut world: World) {
    let ada = world.user("ada").await;
    let (first, second) = (world.video_of(ada).await, world.video_of(ada).await);
    let room = Room { quota: Quota { uploads_max: Some(1), ..ANY }, store_bytes: None };
    create(&mut world, first, None, room).await.unwrap();
    assert_eq!(create(&mut world, second, None, room).await, Err(NoRoom::UserUploads { uploads_max: 1 }));
    // One video is one upload, however many tries and parts.
    create(&mut world, first, None, room).await.unwrap();
    let quota = Quota { videos_max: Some(2), ..ANY };
    assert!(matches!(third_video(&mut world, ada, quota).await, Err(NoRoom::UserVideos { videos_max: 2 })));
    // What admins say of one user goes before what the settings say of all.
    let own = OwnQuota { videos_max: Some(3), uploads_max: Some(0), bytes_max: None };
    assert!(world.catalog.set_quota(ada, &own).await.unwrap());
    third_video(&mut world, ada, quota).await.unwrap();
    create(&mut world, second, None, room).await.unwrap();
    assert_eq!(world.catalog.quota(ada, world.now).await.unwrap().unwrap().0, own);
    let nobody = world.id();
    assert!(!world.catalog.set_quota(nobody, &own).await.unwrap());
    assert!(world.catalog.quota(nobody, world.now).await.unwrap().is_none());
}

async fn third_video(world: &mut World, author: UserId, quota: Quota) -> Result<(), NoRoom> {
    let new = NewVideo {
        id: world.id(),
        author,
        title: "third".to_owned(),
        description: String::new(),
        tags: Vec::new(),
        visibility: domain::Visibility::Public,
        quota,
    };
    no_room(world.catalog.create_video(&new, world.now).await.map(drop))
}

both!(of_many_at_once_no_more_are_admitted_than_there_is_room_for);
async fn of_many_at_once_no_more_are_admitted_than_there_is_room_for(mut world: World) {
    let ada = world.user("ada").await;
    let mut all = Vec::new();
    for _ in 0..8 {
        let video = world.video_of(ada).await;
        all.push(NewResumable { room: bytes(300), ..new(&mut world, video, UploadKind::Whole, Some(100)) });
    }
    let asked = join_all(all.iter().map(|new| world.catalog.create_resumable(new, world.now))).await;
    let admitted = asked.into_iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(admitted, 3);
    assert_eq!(usage(&world, ada).await.promised_bytes, 300);
}

both!(of_many_users_at_once_the_store_is_promised_once);
async fn of_many_users_at_once_the_store_is_promised_once(mut world: World) {
    let mut all = Vec::new();
    for _ in 0..8 {
        let video = world.video().await;
        all.push(NewResumable { room: store(300), ..new(&mut world, video, UploadKind::Whole, Some(100)) });
    }
    let asked = join_all(all.iter().map(|new| world.catalog.create_resumable(new, world.now))).await;
    assert_eq!(asked.into_iter().filter(|outcome| outcome.is_ok()).count(), 3);
}

both!(more_than_was_said_takes_nothing_from_what_others_were_promised);
async fn more_than_was_said_takes_nothing_from_what_others_were_promised(mut world: World) {
    let (video, other) = (world.video().await, world.video().await);
    let until = world.now.plus_ms(LEASE_MS);
    let whole = NewUpload { length_bytes: Some(1), ..NewUpload::unbounded(world.id(), video, until) };
    world.catalog.begin_upload(&whole, world.now).await.unwrap();
    world.catalog.extend_upload(whole.attempt, 5000, until).await.unwrap();
    begin_whole(&mut world, other, Some(700), store(1000)).await.unwrap();
    let left = world.catalog.room_left(video, &store(1000), world.now).await.unwrap();
    assert_eq!(left.store_bytes, Some(300));
}

both!(what_was_done_before_is_told_before_what_there_is_no_room_for);
async fn what_was_done_before_is_told_before_what_there_is_no_room_for(mut world: World) {
    let ada = world.user("ada").await;
    let video = world.video_of(ada).await;
    world.uploaded_as(video).await;
    let again = NewUpload {
        length_bytes: Some(1000),
        room: bytes(1000),
        ..NewUpload::unbounded(world.id(), video, world.now.plus_ms(LEASE_MS))
    };
    assert_eq!(world.catalog.begin_upload(&again, world.now).await.unwrap(), BeginUpload::AlreadyUploaded);
    let resumable =
        NewResumable { room: bytes(1000), ..new(&mut world, video, UploadKind::Whole, Some(1000)) };
    let created = world.catalog.create_resumable(&resumable, world.now).await.unwrap();
    assert_eq!(created, CreateResumable::AlreadyUploaded);

    // A video that was made is made, when it is asked for again.
    let new = NewVideo {
        id: world.id(),
        author: ada,
        title: "last".to_owned(),
        description: String::new(),
        tags: Vec::new(),
        visibility: domain::Visibility::Public,
        quota: Quota { videos_max: Some(2), ..ANY },
    };
    let once = Once { key: "k".to_owned(), request: "r".to_owned() };
    for _ in 0..2 {
        assert!(world.catalog.create_video(&new, world.now).await.unwrap().is_some());
    }
    let next = NewVideo { id: world.id(), quota: Quota { videos_max: Some(3), ..ANY }, ..new };
    for _ in 0..2 {
        let made = world.catalog.create_video_once(&next, &once, world.now).await.unwrap();
        assert!(matches!(made, CreateOnce::Created(_)), "{made:?}");
    }
}
