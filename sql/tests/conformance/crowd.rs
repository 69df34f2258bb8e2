//! Many at once: whoever comes first, there is one effect.

use std::collections::HashSet;

use domain::{AttemptId, IdParts, JobId, JobKind, Role, Timestamp, VideoId, VideoState};
use futures::future::join_all;
use sql::{
    CancelDeletion, Catalog, Claim, CompleteUpload, CreateUser, DeleteVideo, FencedError, Lease, NewComment,
    NewDeletion, NewSession, NewUser, OriginalPublished, UpdateUser, UserPatch,
};
use sqlx::Row as _;

use crate::both;
use crate::world::{ATTEMPTS_MAX, IngestParts, LEASE_MS, World};

const MANY: usize = 50;

/// All of them at the same moment, as far as there is one: each in a task of its own.
pub async fn at_once<T, F>(calls: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

fn person(world: &mut World, name: &str, email: &str) -> NewUser {
    NewUser {
        id: world.id(),
        username: name.parse().unwrap(),
        email: Some(email.to_owned()),
        password_hash: "hash".to_owned(),
        role: Role::User,
        display_name: name.to_owned(),
    }
}

async fn create_users(world: &World, people: Vec<NewUser>) -> Vec<CreateUser> {
    at_once(people.into_iter().map(|new| {
        let (catalog, now) = (world.catalog.clone(), world.now);
        async move { catalog.create_user(&new, now).await.unwrap() }
    }))
    .await
}

both!(one_name_one_address_one_user);
async fn one_name_one_address_one_user(mut world: World) {
    let created = |users: &[CreateUser]| users.iter().filter(|u| matches!(u, CreateUser::Created(_))).count();
    let same_name: Vec<_> =
        (0..MANY).map(|n| person(&mut world, "ada", &format!("{n}@example.org"))).collect();
    let outcomes = create_users(&world, same_name).await;
    assert_eq!(created(&outcomes), 1);
    assert!(outcomes.iter().all(|u| matches!(u, CreateUser::Created(_) | CreateUser::UsernameTaken)));

    let same_address: Vec<_> =
        (0..MANY).map(|n| person(&mut world, &format!("bob{n}"), "bob@example.org")).collect();
    let outcomes = create_users(&world, same_address).await;
    assert_eq!(created(&outcomes), 1);
    assert!(outcomes.iter().all(|u| matches!(u, CreateUser::Created(_) | CreateUser::EmailTaken)));

    // The very same request, again and again: the same user for each.
    let eve = person(&mut world, "eve", "eve@example.org");
    let outcomes = create_users(&world, vec![eve.clone(); MANY]).await;
    assert!(
        outcomes.iter().all(|u| matches!(u, CreateUser::Created(user) if user.id == eve.id)),
        "{outcomes:?}"
    );
}

both!(one_address_for_two_who_change_to_it);
async fn one_address_for_two_who_change_to_it(mut world: World) {
    let people = [world.user("ada").await, world.user("bob").await];
    let patch = UserPatch { email: Some(Some("new@example.org".to_owned())), ..UserPatch::default() };
    let outcomes = at_once(people.map(|user| {
        let (catalog, now, patch) = (world.catalog.clone(), world.now, patch.clone());
        async move { catalog.update_user(user, &patch, now).await.unwrap() }
    }))
    .await;
    let updated = outcomes.iter().filter(|o| matches!(o, UpdateUser::Updated(_))).count();
    let refused = outcomes.iter().filter(|o| matches!(o, UpdateUser::EmailTaken)).count();
    assert_eq!((updated, refused), (1, 1));
}

both!(there_is_one_first_admin);
async fn there_is_one_first_admin(mut world: World) {
    let people: Vec<_> =
        (0..MANY).map(|n| person(&mut world, &format!("root{n}"), &format!("{n}@example.org"))).collect();
    let outcomes = at_once(people.into_iter().map(|new| {
        let (catalog, now) = (world.catalog.clone(), world.now);
        async move { (catalog.create_first_admin(&new, now).await.unwrap(), new) }
    }))
    .await;
    let first: Vec<_> = outcomes.into_iter().filter(|(made, _)| *made).collect();
    assert_eq!(first.len(), 1);
    assert!(world.catalog.create_first_admin(&first[0].1, world.now).await.unwrap(), "asked for again");
}

both!(one_upload_wins_however_often_it_is_said);
async fn one_upload_wins_however_often_it_is_said(mut world: World) {
    for attempts in [1, MANY] {
        let video = world.video().await;
        let mut uploads = Vec::new();
        for _ in 0..attempts {
            let attempt = world.begin_upload(video).await;
            uploads.push(world.upload(video, attempt));
        }
        let calls = uploads.iter().cycle().take(MANY).cloned();
        let outcomes = at_once(calls.map(|upload| {
            let (catalog, now) = (world.catalog.clone(), world.now);
            async move { catalog.complete_upload(&upload, now).await.unwrap() }
        }))
        .await;
        let completed = outcomes.iter().filter(|o| **o == CompleteUpload::Completed).count();
        assert_eq!(completed, MANY / attempts);
        assert!(!outcomes.contains(&CompleteUpload::Gone));
        assert_eq!(world.claim_all(&[JobKind::Ingest]).await.len(), 1, "one ingest job");
        assert_eq!(world.catalog.objects_of(video, "source").await.unwrap().len(), 1);
    }
    world.check().await;
}

both!(every_comment_counts_once);
async fn every_comment_counts_once(mut world: World) {
    let (video, ada) = (world.video().await, world.user("ada").await);
    let mut comments: Vec<_> = (0..MANY)
        .map(|n| NewComment { id: world.id(), video, author: ada, content: n.to_string() })
        .collect();
    let said_often = NewComment { id: world.id(), video, author: ada, content: "again".to_owned() };
    comments.extend(vec![said_often; MANY]);
    let ids: Vec<_> = comments.iter().map(|comment| comment.id).collect();
    let made = at_once(comments.into_iter().map(|new| {
        let (catalog, now) = (world.catalog.clone(), world.now);
        async move { catalog.create_comment(&new, now).await.unwrap() }
    }))
    .await;
    assert!(made.iter().all(Option::is_some));
    assert_eq!(world.seen(video).await.comments_count, MANY as u64 + 1);
    let deleted = at_once(ids.into_iter().map(|id| {
        let catalog = world.catalog.clone();
        async move { catalog.delete_comment(id).await.unwrap() }
    }))
    .await;
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), MANY + 1);
    assert_eq!(world.seen(video).await.comments_count, 0);
    world.check().await;
}

async fn delete_at_once(world: &mut World, video: VideoId, due_at: Timestamp) -> Vec<DeleteVideo> {
    let requests: Vec<_> = (0..MANY)
        .map(|_| NewDeletion {
            video,
            requested_by: "admin".to_owned(),
            due_at,
            id: world.id(),
            job: world.id(),
        })
        .collect();
    at_once(requests.into_iter().map(|new| {
        let (catalog, now) = (world.catalog.clone(), world.now);
        async move { catalog.delete_video(&new, now).await.unwrap() }
    }))
    .await
}

both!(a_video_is_deleted_once);
async fn a_video_is_deleted_once(mut world: World) {
    let (now, later) = (world.now, world.now.plus_s(3600));
    let video = world.ready().await;
    let accepted: Vec<_> = delete_at_once(&mut world, video, later)
        .await
        .into_iter()
        .map(|outcome| match outcome {
            DeleteVideo::Accepted(deletion) => deletion.id,
            DeleteVideo::NotFound => panic!("until it is due it is there"),
        })
        .collect();
    assert_eq!(accepted.iter().collect::<HashSet<_>>().len(), 1, "one deletion");
    let cancelled = at_once((0..MANY).map(|_| {
        let (catalog, now, id) = (world.catalog.clone(), world.now, accepted[0]);
        async move { catalog.cancel_deletion(id, now).await.unwrap() }
    }))
    .await;
    assert_eq!(cancelled.iter().filter(|c| **c == CancelDeletion::Cancelled).count(), 1);

    let outcomes = delete_at_once(&mut world, video, now).await;
    assert_eq!(outcomes.iter().filter(|o| matches!(o, DeleteVideo::Accepted(_))).count(), 1);
    let purges = world.claim_all(&[JobKind::Purge]).await;
    assert_eq!(purges.len(), 1);
    world.check().await;
}

both!(an_account_goes_once_and_takes_what_is_being_made_along);
async fn an_account_goes_once_and_takes_what_is_being_made_along(mut world: World) {
    for round in 0..10 {
        let (ada, bob) = (world.user(&format!("ada{round}")).await, world.user(&format!("bob{round}")).await);
        let of_bob = world.video_of(bob).await;
        let mut calls: Vec<futures::future::BoxFuture<'static, ()>> = Vec::new();
        for n in 0..8 {
            let (catalog, now) = (world.catalog.clone(), world.now);
            let comment = NewComment { id: world.id(), video: of_bob, author: ada, content: String::new() };
            let session = NewSession { id: world.id(), user: ada, expires_at: now.plus_s(60) };
            let video = sql::NewVideo {
                quota: Default::default(),
                id: world.id(),
                author: ada,
                title: String::new(),
                description: String::new(),
                tags: vec!["sea".to_owned()],
                visibility: domain::Visibility::Public,
            };
            calls.push(Box::pin(async move {
                // Each may find the account there or gone; none may find it half gone.
                catalog.create_comment(&comment, now).await.unwrap();
                catalog.create_session(&session, now).await.unwrap();
                catalog.create_video(&video, now).await.unwrap();
            }));
            let catalog = world.catalog.clone();
            let (mut used, first) = (0, 1 + round * 8 + n);
            calls.push(Box::pin(async move {
                let next_id = move || {
                    used += 1;
                    IdParts { now, random: [first, used, 0, 0, 0, 0, 0, 0, 0, 1] }
                };
                catalog.delete_user(ada, next_id, now).await.unwrap();
            }));
        }
        at_once(calls).await;
        assert!(world.catalog.user(ada).await.unwrap().is_none());
        assert_eq!(world.seen(of_bob).await.comments_count, 0);
    }
    let mut connection = world.database.connect().await;
    let left = "SELECT count(*) AS videos FROM videos v
                WHERE state <> 'deleted' AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = v.author_id)";
    let row = sqlx::query(left).fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i64, _>("videos"), 0, "a video that nobody owns");
    world.check().await;
}

both!(the_last_encode_queues_the_assembly_once);
async fn the_last_encode_queues_the_assembly_once(mut world: World) {
    const CHUNKS: usize = 12;
    let video = world.playable(CHUNKS).await;
    let mut calls = Vec::new();
    for (number, lease) in (0..).zip(world.claim_all(&[JobKind::Encode]).await) {
        let attempt = world.begin(&lease).await;
        let files = [domain::ObjectFile::Chunk(domain::RenditionName::Low, number)];
        let objects = crate::world::objects(video, attempt, &files);
        let (catalog, now, assemble): (_, _, JobId) = (world.catalog.clone(), world.now, world.id());
        calls.push(async move {
            // Said twice, as after a lost answer.
            for _ in 0..2 {
                catalog.finish_encode(&lease, attempt, &objects, assemble, now).await.unwrap();
            }
        });
    }
    assert_eq!(calls.len(), CHUNKS);
    at_once(calls).await;
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

/// How many jobs the crowd works off; the campaign says more.
fn jobs() -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "only chassis reads the environment of a program; this is a test's"
    )]
    let asked = std::env::var("SLUICE_TEST_JOBS").ok();
    asked.map_or(1000, |jobs| jobs.parse().unwrap())
}

/// Uploaded videos with their `ingest` jobs, without the way there.
pub async fn many_uploaded(world: &mut World, count: usize) {
    let sample = world.uploaded().await;
    let mut connection = world.database.connect().await;
    let numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $2)";
    // A copy's id is the original's with another end.
    let copy = |column: &str| match world.database.is_postgres() {
        true => format!("substr({column}, 1, 24) || lpad(to_hex(n + 1048576), 12, '0')"),
        false => format!("substr({column}, 1, 24) || printf('%012x', n + 1048576)"),
    };
    let tables = [
        (
            "videos",
            "id, source_attempt",
            "author_id, title, description, tags, visibility, state, progress, warnings, \
          source_bytes, comments_count, created_at, updated_at",
            "id",
        ),
        ("attempts", "id, video_id", "kind, state, lease_until, created_at, ended_at", "video_id"),
        ("objects", "video_id, attempt_id", "class, bytes, created_at", "video_id"),
        (
            "jobs",
            "id, video_id",
            "kind, state, payload, run_at, attempts, token, progress, created_at",
            "video_id",
        ),
    ];
    for (table, ids, columns, video) in tables {
        let copies: Vec<_> = ids.split(", ").map(copy).collect();
        let path =
            if table == "objects" { ("path, ", "path || n, ".to_owned()) } else { ("", String::new()) };
        let statement = format!(
            "{numbers} INSERT INTO {table} ({}{ids}, {columns})
             SELECT {}{}, {columns} FROM {table}, n WHERE {video} = $1",
            path.0,
            path.1,
            copies.join(", ")
        );
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(sample.to_string())
            .bind(count as i64 - 1)
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

struct Worker {
    catalog: Catalog,
    name: String,
    ids: u64,
    /// What it was given, and what it committed.
    leases: Vec<Lease>,
    committed: Vec<JobId>,
    /// Held beyond their end, as by a process that was stopped and goes on later.
    forgotten: Vec<(Lease, AttemptId)>,
}

impl Worker {
    fn id<T: From<IdParts>>(&mut self, now: Timestamp) -> T {
        self.ids += 1;
        let mut random = [0; 10];
        random[1] = self.name.as_bytes()[0];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        T::from(IdParts { now, random })
    }

    /// Until there is nothing to claim. Every tenth run of a job is left lying about.
    async fn work(mut self, parts: IngestParts, now: Timestamp) -> Worker {
        loop {
            let claim = Claim {
                kinds: &[JobKind::Ingest],
                worker: &self.name,
                lease_ms: LEASE_MS,
                attempts_max: ATTEMPTS_MAX,
                left_to_others_ms: 0,
                limit: 3,
            };
            let leases = self.catalog.claim_jobs(&claim, now).await.unwrap();
            if leases.is_empty() {
                return self;
            }
            for lease in leases {
                self.leases.push(lease.clone());
                let attempt = self.id(now);
                self.catalog.start_processing(&lease, now).await.unwrap();
                self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
                if lease.job.attempt == 1 && self.leases.len().is_multiple_of(10) {
                    self.forgotten.push((lease, attempt));
                    continue;
                }
                self.commit(&lease, attempt, &parts, now).await.unwrap();
                self.committed.push(lease.job.id);
            }
        }
    }

    async fn commit(
        &mut self,
        lease: &Lease,
        attempt: AttemptId,
        parts: &IngestParts,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        let files = [domain::ObjectFile::Index(domain::RenditionName::Original)];
        let objects = crate::world::objects(lease.job.video, attempt, &files);
        let commit = sql::IngestCommit { attempt, objects: &objects, ..parts.commit() };
        let (publication, storyboard_job) = (self.id(now), self.id(now));
        let original = OriginalPublished { publication, rendition: &parts.original, storyboard_job };
        self.catalog.publish_original(lease, &commit, &original, now).await
    }
}

both!(eight_workers_commit_every_job_once);
async fn eight_workers_commit_every_job_once(mut world: World) {
    let count = jobs();
    many_uploaded(&mut world, count).await;
    let mut workers = Vec::new();
    for n in 0..8 {
        // Processes of their own, where the database allows for it.
        let catalog = match world.database.is_postgres() {
            true => Catalog::open(&world.database.place).await.unwrap(),
            false => world.catalog.clone(),
        };
        let (leases, committed, forgotten) = (Vec::new(), Vec::new(), Vec::new());
        workers.push(Worker { catalog, name: format!("{n}"), ids: 0, leases, committed, forgotten });
    }
    let mut rounds = 0;
    loop {
        let (unused, now) = (world.id(), world.now);
        let video = world.id();
        workers = at_once(workers.into_iter().map(|worker| {
            // Only what does not name a video is taken from it.
            let parts = IngestParts::new(&mut world, video, unused, 0);
            worker.work(parts, now)
        }))
        .await;
        rounds += 1;
        if workers.iter().map(|worker| worker.committed.len()).sum::<usize>() >= count {
            break;
        }
        assert!(rounds < 3, "some jobs are stuck");
        world.advance_ms(LEASE_MS + 1);
    }
    let leases: Vec<_> = workers.iter().flat_map(|worker| &worker.leases).collect();
    let fences: HashSet<_> = leases.iter().map(|lease| (lease.job.id, lease.token)).collect();
    assert_eq!(fences.len(), leases.len(), "two leases of a job under one token");
    let committed: Vec<_> = workers.iter().flat_map(|worker| &worker.committed).collect();
    assert_eq!((committed.len(), committed.iter().collect::<HashSet<_>>().len()), (count, count));

    // Those that were stopped go on, and are told to stop.
    let parts = IngestParts::new(&mut world, VideoId::from(parts_of(1)), AttemptId::from(parts_of(2)), 0);
    let mut late = 0;
    for worker in &mut workers {
        for (lease, attempt) in std::mem::take(&mut worker.forgotten) {
            let refused = worker.commit(&lease, attempt, &parts, world.now).await;
            assert!(matches!(refused, Err(FencedError::LeaseLost)), "{refused:?}");
            late += 1;
        }
    }
    assert!(late > count / 20, "{late}");
    let depths = world.catalog.queue_depths(world.now).await.unwrap();
    assert!(depths.iter().all(|depth| depth.kind == JobKind::Cover), "{depths:?}");
    world.check().await;
    assert_eq!(deadlocks(&world).await, 0);
}

pub fn parts_of(n: u8) -> IdParts {
    IdParts { now: Timestamp::from_unix_ms(0), random: [n; 10] }
}

/// How often PostgreSQL had to break off one of several transactions that waited for each other.
pub async fn deadlocks(world: &World) -> i64 {
    // A connection tells what it counted when it ends.
    world.catalog.close().await;
    if !world.database.is_postgres() {
        return 0;
    }
    let mut connection = world.database.connect().await;
    let row = sqlx::query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    row.get("deadlocks")
}
