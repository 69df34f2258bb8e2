//! Rows change their database.

use std::collections::{BTreeMap, BTreeSet};

use domain::{DatabasePlace, StartFault, UploadKind, VideoId, ViewerHash};
use sql::{Acquire, CarryError, CarryOutcome, Catalog, NewComment, NewDeletion, UserPatch, Watched, carry};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::both;
use crate::database::Database;
use crate::resumable::{create, put};
use crate::world::World;

async fn carried(from: &DatabasePlace, to: &DatabasePlace, world: &World) -> sql::Carried {
    match carry(from, to, world.now, |_, _| {}).await.unwrap() {
        CarryOutcome::Carried(carried) => carried,
        CarryOutcome::AlreadyAt(place) => panic!("already at {place}"),
    }
}

/// Every row as text, read past the catalog. The columns are named, as the databases may order them differently.
async fn dump(database: &Database) -> Vec<String> {
    const EVERYTHING: [(&str, &str); 8] = [
        (
            "users",
            "id || username || coalesce(email, '-') || password_hash || role || display_name || updated_at",
        ),
        (
            "videos",
            "id || title || tags || state || CAST(coalesce(cover_at_s * 10, -1) AS BIGINT) || coalesce(plan, '-') || coalesce(publication_id, '-') || created_at",
        ),
        (
            "uploads",
            "id || video_id || kind || state || coalesce(length_bytes, -1) || offset_bytes || metadata || token || hold || expires_at || coalesce(ended_at, -1)",
        ),
        (
            "attempts",
            "id || kind || state || coalesce(token, -1) || coalesce(upload_id, '-') || coalesce(piece_number, -1)",
        ),
        ("objects", "path || attempt_id || class || bytes || coalesce(crc64nvme, 0)"),
        ("jobs", "id || kind || state || payload || run_at || attempts || token || coalesce(worker, '-')"),
        ("comments", "id || video_id || author_id || content || created_at"),
        ("video_tags", "tag || video_id"),
    ];
    let mut connection = database.connect().await;
    let mut lines = Vec::new();
    for (table, columns) in EVERYTHING {
        let statement = format!("SELECT {columns} AS line FROM {table}");
        let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(&mut connection).await.unwrap();
        lines.extend(rows.iter().map(|row| format!("{table} {}", row.get::<String, _>("line"))));
    }
    connection.close().await.unwrap();
    lines.sort();
    lines
}

async fn comment(world: &mut World, video: VideoId, author: domain::UserId, content: &str) {
    let new = NewComment { id: world.id(), video, author, content: content.to_owned() };
    world.catalog.create_comment(&new, world.now).await.unwrap().unwrap();
}

both!(rows_arrive_as_they_are_and_the_old_database_takes_no_more);
async fn rows_arrive_as_they_are_and_the_old_database_takes_no_more(target: Database) {
    let mut world = World::on(Database::sqlite()).await;
    let (ada, ready) = (world.user("ada").await, world.ready().await);
    let (playable, uploaded) = (world.playable(2).await, world.uploaded().await);
    let half = world.video().await;
    let upload = create(&mut world, half, UploadKind::Whole, Some(30)).await;
    let pieces = [put(&mut world, upload, 10).await, put(&mut world, upload, 5).await];
    comment(&mut world, ready, ada, "naïve — “Grüße” 🎬").await;
    let watched = Watched { viewers: BTreeSet::from([ViewerHash::of(&[1; 32])]), served_bytes: 7 };
    let watched = BTreeMap::from([(ready, watched)]);
    assert_eq!(world.catalog.add_watched(&watched, world.now, world.now).await.unwrap(), 1);
    let before = dump(&world.database).await;
    let done = carried(&world.database.place, &target.place, &world).await;
    assert_eq!(dump(&target).await, before);
    assert_eq!((done.written, done.removed), (done.rows, 0));

    let there = Catalog::open(&target.place).await.unwrap();
    for video in [ready, playable, uploaded] {
        let (here, there) = (world.seen(video).await, there.video(video, world.now).await.unwrap().unwrap());
        assert_eq!(here, there);
    }
    assert_eq!(there.violations().await.unwrap(), []);
    // An upload goes on where its rows are now.
    let expires_at = world.now.plus_s(60);
    let acquired = there.acquire_resumable(upload, false, expires_at, world.now).await.unwrap();
    assert!(matches!(acquired, Acquire::Held(_, found) if found == pieces));

    // The old one: readable, not writable, and it says where to go.
    let new = NewComment { id: world.id(), video: ready, author: ada, content: "late".to_owned() };
    let refused = world.catalog.create_comment(&new, world.now).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    assert!(world.catalog.ping().await.unwrap_err().to_string().contains("was moved"));
    let refused = world.catalog.acquire_resumable(upload, false, expires_at, world.now).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    let error = Catalog::open(&world.database.place).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("DATABASE_URL") && error.text.contains("moved to"), "{error}");
    let again = carry(&world.database.place, &target.place, world.now, |_, _| {}).await.unwrap();
    assert!(matches!(again, CarryOutcome::AlreadyAt(_)));
    there.close().await;
}

both!(a_second_run_brings_what_changed_and_takes_away_what_went);
async fn a_second_run_brings_what_changed_and_takes_away_what_went(target: Database) {
    let mut world = World::on(Database::sqlite()).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (kept, gone) = (world.ready().await, world.ready().await);
    comment(&mut world, kept, ada, "first").await;
    comment(&mut world, gone, bob, "soon gone").await;
    // What a first run saw before it was stopped: this file as it is now.
    world.catalog.close().await;
    let file = world.database.place.url.strip_prefix("sqlite://").unwrap().to_owned();
    let earlier = std::path::PathBuf::from(format!("{file}.earlier"));
    std::fs::copy(&file, &earlier).unwrap();
    carried(&DatabasePlace::sqlite(&earlier), &target.place, &world).await;

    world.catalog = Catalog::open(&world.database.place).await.unwrap();
    let deletion = NewDeletion {
        video: gone,
        requested_by: "admin".to_owned(),
        due_at: world.now,
        id: world.id(),
        job: world.id(),
    };
    world.catalog.delete_video(&deletion, world.now).await.unwrap();
    let lease = world.claim(domain::JobKind::Purge).await;
    world.catalog.start_purge(&lease, world.now).await.unwrap();
    world.catalog.finish_purge(&lease, world.now, world.now).await.unwrap();
    let email = |email: &str| UserPatch { email: Some(Some(email.to_owned())), ..UserPatch::default() };
    for (user, address) in [(ada, "x@example.org"), (bob, "ada@example.org"), (ada, "bob@example.org")] {
        world.catalog.update_user(user, &email(address), world.now).await.unwrap();
    }
    world.ready().await;

    let done = carried(&world.database.place, &target.place, &world).await;
    assert_eq!(dump(&target).await, dump(&world.database).await);
    assert!(done.removed > 0 && done.written < done.rows, "{done:?}");
}

both!(pages_full_of_nothing_do_not_spoil_the_next);
/// Numbers after NULLs in the same column, page after page.
async fn pages_full_of_nothing_do_not_spoil_the_next(target: Database) {
    let mut world = World::on(Database::sqlite()).await;
    world.video().await;
    let mut connection = world.database.connect().await;
    sqlx::query(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500)
         INSERT INTO videos (id, author_id, title, description, tags, visibility, state, progress, warnings,
                             comments_count, created_at, updated_at, cover_at_s)
         SELECT 'copy' || printf('%05d', n), author_id, title, description, tags, visibility, state, progress,
                warnings, comments_count, created_at, updated_at, CASE WHEN n > 250 THEN n * 0.5 END
         FROM videos, n",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    carried(&world.database.place, &target.place, &world).await;
    assert!(dump(&target).await == dump(&world.database).await, "some row differs");
}

#[tokio::test]
async fn only_sqlite_is_moved_from() {
    let (postgres, target) = (DatabasePlace::at("postgres://u:secret@127.0.0.1:1/d"), Database::sqlite());
    let error = carry(&postgres, &target.place, domain::Timestamp::from_unix_ms(0), |_, _| {}).await;
    let Err(CarryError::Start(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.fault, StartFault::Settings);
}
