//! Bad weather between a catalog and PostgreSQL: connections that end in the middle of something, servers that
//! restart, fall silent, or have no place left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::{DatabasePlace, JobKind, Role, Timestamp, UploadId, UploadKind, UserId, VideoId};
use sql::{
    Catalog, Claim, CompleteUpload, CreateUser, DeleteVideo, FencedError, NewComment, NewDeletion,
    NewSession, NewUpload, NewUser, OriginalPublished, SqlError,
};

use crate::cluster::{Cluster, until};
use crate::database::{Database, postgres_for_tests};
use crate::proxy::{Cut, Proxy};
use crate::resumable;
use crate::world::{ALL, ATTEMPTS_MAX, IngestParts, LEASE_MS, World};

/// Runs a test that only PostgreSQL can fail.
async fn on_postgres(test: impl AsyncFnOnce(World)) {
    if postgres_for_tests().is_some() {
        crate::database::on_postgres(test).await;
    }
}

/// Everything that writes, cut at each of its requests in turn, before and after the server did it; then asked
/// for again, as a caller does who heard that the database did not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_cut_wherever_can_be_asked_for_again() {
    on_postgres(async |mut world: World| {
        let proxy = Proxy::before(&world.database.place.url).await;
        let place =
            DatabasePlace { url: proxy.url.clone(), connections_max: 2, ..world.database.place.clone() };
        let catalog = Catalog::open(&place).await.unwrap();
        let mut cuts = 0;
        for act in Act::ALL {
            for cut in [Cut::BeforeTheRequest, Cut::BeforeTheAnswer] {
                for n in 1.. {
                    let case = act.prepare(&mut world).await;
                    proxy.cut(n, cut);
                    let first = case.call(&catalog, world.now).await;
                    if !proxy.has_cut() {
                        first.unwrap();
                        break;
                    }
                    cuts += 1;
                    if let Err(error) = first {
                        assert!(error.is_unavailable(), "{act:?} {cut:?} {n}: {error:?}");
                        case.call(&catalog, world.now)
                            .await
                            .unwrap_or_else(|error| panic!("{act:?} {cut:?} {n}, asked again: {error:?}"));
                    }
                    case.verify(&world, &format!("{act:?} {cut:?} {n}")).await;
                }
            }
        }
        world.check().await;
        eprintln!("{cuts} cuts");
        assert!(cuts > 150, "{cuts}");
        catalog.close().await;
    })
    .await;
}

#[derive(Debug, Clone, Copy)]
enum Act {
    CreateUser,
    CreateFirstAdmin,
    CreateSession,
    CreateVideo,
    CreateComment,
    BeginUpload,
    CompleteUpload,
    CommitPieces,
    CreateFinal,
    CompleteResumable,
    StartProcessing,
    BeginAttempt,
    PublishOriginal,
    FinishEncode,
    PublishRenditions,
    ReplaceCover,
    PublishStoryboard,
    UpdateVideo,
    DeleteVideo,
    FinishPurge,
}

/// The arguments of one call, the same whenever it is made again.
enum Case {
    CreateUser(NewUser),
    CreateFirstAdmin(NewUser),
    CreateSession(NewSession),
    CreateVideo(sql::NewVideo),
    CreateComment(NewComment),
    BeginUpload(VideoId, domain::AttemptId),
    CompleteUpload(sql::CompletedUpload),
    CommitPieces(UploadId, i64, sql::UploadPiece),
    CreateFinal(sql::NewResumable, UploadId),
    CompleteResumable(UploadId, i64, sql::CompletedUpload),
    StartProcessing(sql::Lease),
    BeginAttempt(sql::Lease, domain::AttemptId),
    PublishOriginal(sql::Lease, Box<IngestParts>, domain::PublicationId, domain::JobId),
    FinishEncode(sql::Lease, domain::AttemptId, Vec<sql::NewObject>, domain::JobId),
    PublishRenditions(
        sql::Lease,
        domain::AttemptId,
        Vec<sql::NewObject>,
        domain::PublicationId,
        domain::JobId,
    ),
    ReplaceCover(sql::Lease, domain::AttemptId, Vec<sql::NewObject>),
    PublishStoryboard(sql::Lease, domain::AttemptId, Vec<sql::NewObject>),
    UpdateVideo(VideoId, domain::JobId),
    DeleteVideo(NewDeletion),
    FinishPurge(sql::Lease),
}

impl Act {
    const ALL: [Act; 20] = [
        Act::CreateUser,
        Act::CreateFirstAdmin,
        Act::CreateSession,
        Act::CreateVideo,
        Act::CreateComment,
        Act::BeginUpload,
        Act::CompleteUpload,
        Act::CommitPieces,
        Act::CreateFinal,
        Act::CompleteResumable,
        Act::StartProcessing,
        Act::BeginAttempt,
        Act::PublishOriginal,
        Act::FinishEncode,
        Act::PublishRenditions,
        Act::ReplaceCover,
        Act::PublishStoryboard,
        Act::UpdateVideo,
        Act::DeleteVideo,
        Act::FinishPurge,
    ];

    async fn prepare(self, world: &mut World) -> Case {
        let index = [domain::ObjectFile::Index(domain::RenditionName::Low)];
        match self {
            Act::CreateUser => Case::CreateUser(person(world)),
            Act::CreateFirstAdmin => {
                // There may be one, once; the one before is none any more.
                execute(world, "UPDATE users SET role = 'user'").await;
                Case::CreateFirstAdmin(person(world))
            }
            Act::CreateSession => {
                let user = author(world).await;
                Case::CreateSession(NewSession { id: world.id(), user, expires_at: world.now.plus_s(60) })
            }
            Act::CreateVideo => Case::CreateVideo(sql::NewVideo {
                quota: Default::default(),
                author: author(world).await,
                id: world.id(),
                title: "A film".to_owned(),
                description: String::new(),
                tags: vec!["sea".to_owned()],
                visibility: domain::Visibility::Public,
            }),
            Act::CreateComment => {
                let (author, video) = (author(world).await, world.video().await);
                Case::CreateComment(NewComment { id: world.id(), video, author, content: String::new() })
            }
            Act::BeginUpload => Case::BeginUpload(world.video().await, world.id()),
            Act::CompleteUpload => {
                let video = world.video().await;
                let attempt = world.begin_upload(video).await;
                Case::CompleteUpload(world.upload(video, attempt))
            }
            Act::CommitPieces => {
                let (id, token) = held(world).await;
                Case::CommitPieces(id, token, resumable::begin(world, id, token, 30).await)
            }
            Act::CreateFinal => {
                let video = world.video().await;
                let partial = resumable::put_partial(world, video, 10).await;
                Case::CreateFinal(resumable::new(world, video, UploadKind::Final, None), partial)
            }
            Act::CompleteResumable => {
                let (id, token) = held(world).await;
                let piece = resumable::begin(world, id, token, 30).await;
                let commit = Case::CommitPieces(id, token, piece);
                commit.call(&world.catalog, world.now).await.unwrap();
                let video = world.catalog.resumable(id, world.now).await.unwrap().unwrap().video;
                let whole = resumable::begin(world, id, token, 30).await;
                Case::CompleteResumable(id, token, resumable::done(world, video, whole.attempt, 30))
            }
            Act::StartProcessing => Case::StartProcessing(uploaded(world).await),
            Act::BeginAttempt => Case::BeginAttempt(uploaded(world).await, world.id()),
            Act::PublishOriginal => {
                let lease = uploaded(world).await;
                world.catalog.start_processing(&lease, world.now).await.unwrap();
                let attempt = world.begin(&lease).await;
                let parts = IngestParts::new(world, lease.job.video, attempt, 1);
                Case::PublishOriginal(lease, Box::new(parts), world.id(), world.id())
            }
            Act::FinishEncode => {
                let lease = encodable(world).await;
                let attempt = world.begin(&lease).await;
                let objects = crate::world::objects(lease.job.video, attempt, &index);
                Case::FinishEncode(lease, attempt, objects, world.id())
            }
            Act::PublishRenditions => {
                let lease = encodable(world).await;
                world.encode(&lease, 0).await.unwrap();
                let lease = claim_of(world, JobKind::Assemble, lease.job.video).await;
                let attempt = world.begin(&lease).await;
                let objects = crate::world::objects(lease.job.video, attempt, &index);
                Case::PublishRenditions(lease, attempt, objects, world.id(), world.id())
            }
            Act::ReplaceCover => {
                let video = encodable(world).await.job.video;
                let patch = sql::VideoPatch { cover_at_s: Some(1.0), ..sql::VideoPatch::default() };
                let job = world.id();
                world.catalog.update_video(video, &patch, job, world.now).await.unwrap();
                let lease = claim_of(world, JobKind::Cover, video).await;
                let attempt = world.begin(&lease).await;
                Case::ReplaceCover(lease, attempt, crate::world::objects(video, attempt, &index))
            }
            Act::PublishStoryboard => {
                let video = world.playable(0).await;
                let lease = claim_of(world, JobKind::Cover, video).await;
                let attempt = world.begin(&lease).await;
                let cues = [domain::ObjectFile::StoryboardCues];
                Case::PublishStoryboard(lease, attempt, crate::world::objects(video, attempt, &cues))
            }
            Act::UpdateVideo => Case::UpdateVideo(encodable(world).await.job.video, world.id()),
            Act::DeleteVideo => {
                let video = world.playable(0).await;
                Case::DeleteVideo(deletion_of(world, video))
            }
            Act::FinishPurge => {
                let video = world.playable(0).await;
                let new = deletion_of(world, video);
                world.catalog.delete_video(&new, world.now).await.unwrap();
                let lease = claim_of(world, JobKind::Purge, video).await;
                world.catalog.start_purge(&lease, world.now).await.unwrap();
                Case::FinishPurge(lease)
            }
        }
    }
}

impl Case {
    async fn call(&self, catalog: &Catalog, now: Timestamp) -> Result<(), SqlError> {
        let fenced = |result: Result<(), FencedError>| match result {
            Err(FencedError::Sql(error)) => Err(error),
            Err(FencedError::LeaseLost) => panic!("the lease is held"),
            Ok(()) => Ok(()),
        };
        match self {
            Case::CreateUser(new) => {
                let outcome = catalog.create_user(new, now).await?;
                assert!(matches!(&outcome, CreateUser::Created(user) if user.id == new.id), "{outcome:?}");
                Ok(())
            }
            Case::CreateFirstAdmin(new) => {
                assert!(catalog.create_first_admin(new, now).await?);
                Ok(())
            }
            Case::CreateSession(new) => {
                assert!(catalog.create_session(new, now).await?);
                Ok(())
            }
            Case::CreateVideo(new) => {
                assert_eq!(catalog.create_video(new, now).await?.unwrap().id, new.id);
                Ok(())
            }
            Case::CreateComment(new) => {
                assert_eq!(catalog.create_comment(new, now).await?.unwrap().id, new.id);
                Ok(())
            }
            Case::BeginUpload(video, attempt) => {
                let until = now.plus_ms(LEASE_MS);
                assert_eq!(
                    catalog.begin_upload(&NewUpload::unbounded(*attempt, *video, until), now).await?,
                    sql::BeginUpload::Begun
                );
                Ok(())
            }
            Case::CompleteUpload(done) => {
                assert_eq!(catalog.complete_upload(done, now).await?, CompleteUpload::Completed);
                Ok(())
            }
            Case::CommitPieces(id, token, piece) => {
                let committed =
                    catalog.commit_pieces(*id, *token, true, &[*piece], None, now.plus_s(60), now).await?;
                assert_eq!(committed, sql::CommitPieces::Committed { offset_bytes: 30 });
                Ok(())
            }
            Case::CreateFinal(new, partial) => {
                let created = catalog.create_final(new, &[*partial], now).await?;
                assert!(
                    matches!(&created, sql::CreateFinal::Created(pieces) if pieces.len() == 1),
                    "{created:?}"
                );
                Ok(())
            }
            Case::CompleteResumable(id, token, done) => {
                let completed = catalog.complete_resumable(*id, *token, done, now).await?;
                assert_eq!(completed, sql::CompleteResumable::Completed);
                Ok(())
            }
            Case::StartProcessing(lease) => fenced(catalog.start_processing(lease, now).await),
            Case::BeginAttempt(lease, attempt) => fenced(catalog.begin_attempt(lease, *attempt, now).await),
            Case::PublishOriginal(lease, parts, publication, storyboard_job) => {
                let original = OriginalPublished {
                    publication: *publication,
                    rendition: &parts.original,
                    storyboard_job: *storyboard_job,
                };
                fenced(catalog.publish_original(lease, &parts.commit(), &original, now).await)
            }
            Case::FinishEncode(lease, attempt, objects, assemble) => {
                fenced(catalog.finish_encode(lease, *attempt, objects, *assemble, now).await)
            }
            Case::PublishRenditions(lease, attempt, objects, publication, storyboard_job) => {
                let renditions = [
                    crate::world::rendition(domain::RenditionName::Medium, 854, 480),
                    crate::world::rendition(domain::RenditionName::Low, 640, 360),
                ];
                let published = sql::RenditionsPublished {
                    attempt: *attempt,
                    publication: *publication,
                    renditions: &renditions,
                    objects,
                    next_job: *storyboard_job,
                };
                fenced(catalog.publish_renditions(lease, &published, now).await)
            }
            Case::ReplaceCover(lease, attempt, objects) => {
                let covers =
                    domain::task::Covers { files: Vec::new(), width_max: 480, thumbhash: "eA".to_owned() };
                fenced(catalog.replace_cover(lease, *attempt, &covers, objects, now).await)
            }
            Case::PublishStoryboard(lease, attempt, objects) => {
                fenced(catalog.publish_storyboard(lease, *attempt, objects, now).await)
            }
            Case::UpdateVideo(video, cover_job) => {
                let patch = sql::VideoPatch {
                    tags: Some(vec!["moon".to_owned()]),
                    cover_at_s: Some(2.0),
                    ..sql::VideoPatch::default()
                };
                catalog.update_video(*video, &patch, *cover_job, now).await?.unwrap();
                Ok(())
            }
            Case::DeleteVideo(new) => match catalog.delete_video(new, now).await? {
                DeleteVideo::Accepted(deletion) => {
                    assert_eq!(deletion.id, new.id);
                    Ok(())
                }
                DeleteVideo::NotFound => panic!("it was there"),
            },
            Case::FinishPurge(lease) => fenced(catalog.finish_purge(lease, now, now).await),
        }
    }

    /// There is one effect, and it is whole.
    async fn verify(&self, world: &World, what: &str) {
        let catalog = &world.catalog;
        let queued = async |kind, video| {
            let jobs = catalog.jobs(Some(kind), Some(domain::JobState::Queued), None, 100).await.unwrap();
            jobs.iter().filter(|job| job.video == video).count()
        };
        match self {
            Case::CreateUser(new) | Case::CreateFirstAdmin(new) => {
                assert_eq!(catalog.user(new.id).await.unwrap().unwrap().username, new.username, "{what}");
            }
            Case::CreateSession(new) => {
                assert!(catalog.session_alive(new.id, world.now).await.unwrap(), "{what}");
            }
            Case::CreateVideo(new) => assert_eq!(world.seen(new.id).await.tags, new.tags, "{what}"),
            Case::CreateComment(new) => {
                assert_eq!(world.seen(new.video).await.comments_count, 1, "{what}");
            }
            Case::BeginUpload(_, attempt) | Case::BeginAttempt(_, attempt) => {
                let state = catalog.attempt(*attempt).await.unwrap().unwrap().state;
                assert_eq!(state, sql::AttemptState::Open, "{what}");
            }
            Case::CommitPieces(id, ..) => {
                let upload = catalog.resumable(*id, world.now).await.unwrap().unwrap();
                assert_eq!(upload.offset_bytes, 30, "{what}");
            }
            Case::CreateFinal(new, _) => {
                let upload = catalog.resumable(new.id, world.now).await.unwrap().unwrap();
                let is = (upload.offset_bytes, upload.token, upload.held);
                assert_eq!(is, (10, 1, true), "{what}");
            }
            Case::CompleteUpload(done) | Case::CompleteResumable(_, _, done) => {
                assert_eq!(queued(JobKind::Ingest, done.video).await, 1, "{what}");
                // Not in the way of the next case.
                let lease = claim_of(world, JobKind::Ingest, done.video).await;
                let problem = domain::MediaProblem::NotMedia;
                catalog.reject_video(&lease, problem, "no", world.now).await.unwrap();
            }
            Case::StartProcessing(lease) => {
                assert_eq!(world.seen(lease.job.video).await.state, domain::VideoState::Processing, "{what}");
            }
            Case::PublishOriginal(lease, ..) => {
                let seen = world.seen(lease.job.video).await;
                assert_eq!(seen.state, domain::VideoState::Playable, "{what}");
                assert_eq!(queued(JobKind::Encode, lease.job.video).await, 1, "{what}");
                claim_of(world, JobKind::Encode, lease.job.video).await;
            }
            Case::FinishEncode(lease, ..) => {
                assert_eq!(queued(JobKind::Assemble, lease.job.video).await, 1, "{what}");
                claim_of(world, JobKind::Assemble, lease.job.video).await;
            }
            Case::PublishRenditions(lease, _, _, publication, _) => {
                let seen = world.seen(lease.job.video).await;
                let is = (seen.state, seen.publication);
                assert_eq!(is, (domain::VideoState::Ready, Some(*publication)), "{what}");
                assert_eq!(queued(JobKind::Cover, lease.job.video).await, 1, "{what}");
                claim_of(world, JobKind::Cover, lease.job.video).await;
            }
            Case::ReplaceCover(lease, attempt, _) => {
                assert_eq!(world.seen(lease.job.video).await.cover_attempt, Some(*attempt), "{what}");
            }
            Case::PublishStoryboard(lease, attempt, _) => {
                assert_eq!(world.seen(lease.job.video).await.storyboard_attempt, Some(*attempt), "{what}");
            }
            Case::UpdateVideo(video, _) => {
                assert_eq!(world.seen(*video).await.tags, ["moon"], "{what}");
                assert_eq!(queued(JobKind::Cover, *video).await, 1, "{what}");
                claim_of(world, JobKind::Cover, *video).await;
            }
            Case::DeleteVideo(new) => {
                assert!(catalog.video(new.video, world.now).await.unwrap().is_none(), "{what}");
                assert_eq!(queued(JobKind::Purge, new.video).await, 1, "{what}");
                claim_of(world, JobKind::Purge, new.video).await;
            }
            Case::FinishPurge(lease) => {
                let deletions = catalog.deletions(None, None, 500).await.unwrap();
                let deletion = deletions.iter().find(|d| d.video == lease.job.video).unwrap();
                assert_eq!(deletion.state, domain::DeletionState::Done, "{what}");
            }
        }
    }
}

fn person(world: &mut World) -> NewUser {
    let id: UserId = world.id();
    let name = format!("p{}", &id.to_string()[19..]).replace('-', "");
    NewUser {
        id,
        username: name.parse().unwrap(),
        email: Some(format!("{name}@example.org")),
        password_hash: "hash".to_owned(),
        role: Role::User,
        display_name: name,
    }
}

async fn author(world: &mut World) -> UserId {
    let new = person(world);
    assert!(matches!(world.catalog.create_user(&new, world.now).await.unwrap(), CreateUser::Created(_)));
    new.id
}

async fn claim_of(world: &World, kind: JobKind, video: VideoId) -> sql::Lease {
    let leases = world.claim_all(&[kind]).await;
    leases.into_iter().find(|lease| lease.job.video == video).expect("its job is due")
}

async fn uploaded(world: &mut World) -> sql::Lease {
    let video = world.uploaded().await;
    claim_of(world, JobKind::Ingest, video).await
}

async fn encodable(world: &mut World) -> sql::Lease {
    let video = world.playable(1).await;
    claim_of(world, JobKind::Encode, video).await
}

/// With ten of its thirty bytes, which are the first of the piece that is to come.
async fn held(world: &mut World) -> (UploadId, i64) {
    let video = world.video().await;
    let id = resumable::create(world, video, UploadKind::Whole, Some(30)).await;
    resumable::put(world, id, 10).await;
    (id, resumable::acquire(world, id).await.0)
}

fn deletion_of(world: &mut World, video: VideoId) -> NewDeletion {
    let (requested_by, due_at) = ("admin".to_owned(), world.now);
    NewDeletion { video, requested_by, due_at, id: world.id(), job: world.id() }
}

async fn execute(world: &World, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&mut world.database.connect().await).await.unwrap();
}

/// A machine that lost its power does not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_falls_silent_is_noticed_within_seconds_and_so_is_its_return() {
    on_postgres(async |mut world: World| {
        let video = world.video().await;
        let proxy = Proxy::before(&world.database.place.url).await;
        let place =
            DatabasePlace { url: proxy.url.clone(), connections_max: 4, ..world.database.place.clone() };
        let catalog = Catalog::open(&place).await.unwrap();
        catalog.ping().await.unwrap();
        proxy.be_silent(true);
        let began = Instant::now();
        let new = NewUpload::unbounded(world.id(), video, world.now);
        let (read, written) =
            tokio::join!(catalog.video(video, world.now), catalog.begin_upload(&new, world.now));
        assert!(read.unwrap_err().is_unavailable() && written.unwrap_err().is_unavailable());
        let noticed = began.elapsed();
        assert!(noticed < Duration::from_secs(8), "{noticed:?}");
        proxy.be_silent(false);
        let back =
            until("the catalog is back", Duration::from_secs(5), async || catalog.ping().await.is_ok()).await;
        eprintln!("silence noticed after {noticed:?}, back after {back:?}");
        catalog.close().await;
    })
    .await;
}

/// The server waits for a row, and nobody answers: what was under way on our side must not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_in_the_middle_of_a_statement_ends_it() {
    on_postgres(async |mut world: World| {
        let video = world.video().await;
        let proxy = Proxy::before(&world.database.place.url).await;
        let place =
            DatabasePlace { url: proxy.url.clone(), connections_max: 1, ..world.database.place.clone() };
        let catalog = Catalog::open(&place).await.unwrap();
        let mut holder = world.database.connect().await;
        sqlx::raw_sql("BEGIN; SELECT id FROM videos FOR UPDATE").execute(&mut holder).await.unwrap();
        let began = Instant::now();
        let attempt = world.id();
        let waiting = tokio::spawn({
            let (catalog, now) = (catalog.clone(), world.now);
            async move { catalog.begin_upload(&NewUpload::unbounded(attempt, video, now), now).await }
        });
        let blocked = "SELECT 1 FROM pg_locks WHERE NOT granted";
        until("it waits for the row", Duration::from_secs(5), async || {
            let mut connection = world.database.connect().await;
            sqlx::query(blocked).fetch_optional(&mut connection).await.unwrap().is_some()
        })
        .await;
        proxy.be_silent(true);
        let given_up = waiting.await.unwrap();
        assert!(given_up.unwrap_err().is_unavailable());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        // The one connection there may be is free for another.
        proxy.be_silent(false);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        until("writes go on", Duration::from_secs(6), async || catalog.ping().await.is_ok()).await;
        catalog.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_free_connection_a_call_waits_for_a_bounded_time() {
    on_postgres(async |mut world: World| {
        let (held, free) = (world.video().await, world.video().await);
        let place = DatabasePlace { connections_max: 1, ..world.database.place.clone() };
        let catalog = Catalog::open(&place).await.unwrap();
        let mut holder = world.database.connect().await;
        let hold = sqlx::query("SELECT id FROM videos WHERE id = $1 FOR UPDATE").bind(held.to_string());
        sqlx::raw_sql("BEGIN").execute(&mut holder).await.unwrap();
        hold.execute(&mut holder).await.unwrap();
        let began = Instant::now();
        let now = world.now;
        let first = NewUpload::unbounded(world.id(), held, now);
        let second = NewUpload::unbounded(world.id(), free, now);
        let (blocked, queued, read) = tokio::join!(
            catalog.begin_upload(&first, now),
            catalog.begin_upload(&second, now),
            catalog.video(free, now),
        );
        assert!(read.unwrap().is_some(), "reads are served");
        assert!(blocked.unwrap_err().is_unavailable());
        // It had to wait for the other's connection, not for a row.
        assert!(queued.is_ok() || queued.unwrap_err().is_unavailable());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        let again = catalog.begin_upload(&first, now).await.unwrap();
        assert_eq!(again, sql::BeginUpload::Begun);
        catalog.close().await;
    })
    .await;
}

/// A writer in another process, as a backup by hand may be one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_locked_sqlite_file_is_unavailable_for_writers_and_there_for_readers() {
    let mut world = World::on(Database::sqlite()).await;
    let video = world.video().await;
    let mut holder = world.database.connect().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let began = Instant::now();
    let attempt = world.id();
    let refused =
        world.catalog.begin_upload(&NewUpload::unbounded(attempt, video, world.now), world.now).await;
    assert!(refused.unwrap_err().is_unavailable());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    world.seen(video).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    let again = world
        .catalog
        .begin_upload(&NewUpload::unbounded(attempt, video, world.now), world.now)
        .await
        .unwrap();
    assert_eq!(again, sql::BeginUpload::Begun);
}

/// The server goes away under load and comes back: nothing that was answered is lost, nothing is there twice,
/// nobody has to do anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_is_a_few_seconds_of_unavailable_and_nothing_else() {
    let Some(cluster) = Cluster::start() else { return };
    let mut world = World::on(Database::somewhere(cluster.place())).await;
    let (ada, video) = (world.user("ada").await, world.video().await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..6 {
        let ids: Vec<domain::CommentId> = (0..20_000).map(|_| world.id()).collect();
        let (catalog, now, stop) = (world.catalog.clone(), world.now, stop.clone());
        writers.push(tokio::spawn(async move {
            let mut answered = 0_u64;
            for id in ids {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let new = NewComment { id, video, author: ada, content: String::new() };
                // As a client does: again, until it is answered.
                loop {
                    match catalog.create_comment(&new, now).await {
                        Ok(made) => break drop(made.unwrap()),
                        Err(error) => assert!(error.is_unavailable(), "{error:?}"),
                    }
                }
                answered += 1;
            }
            answered
        }));
    }
    let counted = async || world.catalog.comments(video, None, 200_000).await.map_or(0, |c| c.len());
    for mode in ["immediate", "fast", "immediate"] {
        let before = counted().await;
        until("they write", Duration::from_secs(10), async || counted().await > before + 20).await;
        cluster.stop(mode);
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.resume();
        let limit = Duration::from_secs(5);
        let back = until("writes are answered", limit, async || world.catalog.ping().await.is_ok()).await;
        eprintln!("{mode}: back after {back:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for writer in writers {
        answered += writer.await.unwrap();
    }
    assert_eq!(world.seen(video).await.comments_count, answered);
    world.check().await;
    world.catalog.close().await;
}

/// Claims go on over restarts: every job is committed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_survive_restarts() {
    const JOBS: usize = 60;
    let Some(cluster) = Cluster::start() else { return };
    let mut world = World::on(Database::somewhere(cluster.place())).await;
    for _ in 0..JOBS {
        world.uploaded().await;
    }
    let mut workers = Vec::new();
    for n in 0..4_u64 {
        let (catalog, mut now) = (world.catalog.clone(), world.now);
        workers.push(tokio::spawn(async move {
            let (worker, mut ended, mut idle) = (n.to_string(), 0, 0);
            let claim = Claim {
                kinds: ALL,
                worker: &worker,
                lease_ms: LEASE_MS,
                attempts_max: ATTEMPTS_MAX,
                left_to_others_ms: 0,
                limit: 2,
            };
            while idle < 3 {
                match catalog.claim_jobs(&claim, now).await {
                    Ok(leases) if leases.is_empty() => {
                        // What a lost answer left behind comes back when its lease is over.
                        idle += 1;
                        now = now.plus_ms(LEASE_MS + 1);
                    }
                    Ok(leases) => {
                        for lease in leases {
                            let problem = domain::MediaProblem::NotMedia;
                            match catalog.reject_video(&lease, problem, "no", now).await {
                                Ok(()) => ended += 1,
                                Err(FencedError::LeaseLost) => {}
                                Err(FencedError::Sql(error)) => assert!(error.is_unavailable(), "{error:?}"),
                            }
                        }
                    }
                    Err(error) => assert!(error.is_unavailable(), "{error:?}"),
                }
            }
            ended
        }));
    }
    cluster.stop("immediate");
    cluster.resume();
    let mut ended = 0;
    for worker in workers {
        ended += worker.await.unwrap();
    }
    assert!(ended <= JOBS, "one commit each: {ended}");
    let rejected = world.catalog.jobs(None, Some(domain::JobState::Done), None, 1000).await.unwrap();
    assert_eq!(rejected.len(), JOBS);
    world.check().await;
    world.catalog.close().await;
}
