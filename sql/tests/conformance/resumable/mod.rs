//! Resumable uploads: one holder at a time, every byte once, and nothing left over.

mod ends;
mod finals;
mod holds;
mod pieces;

use domain::{AttemptId, UploadId, UploadKind, VideoId};
use sql::{
    Acquire, AttemptState, CommitPieces, CompleteResumable, CompletedUpload, CreateFinal, CreateResumable,
    NewDeletion, NewResumable, Resumable, UploadPiece,
};

use crate::world::{LEASE_MS, World};

const EXPIRES_MS: i64 = 86_400_000;

pub fn new(world: &mut World, video: VideoId, kind: UploadKind, length_bytes: Option<u64>) -> NewResumable {
    NewResumable {
        room: Default::default(),
        id: world.id(),
        video,
        kind,
        length_bytes,
        metadata: "filename c2VhLm1wNA==".to_owned(),
        concat: (kind == UploadKind::Final).then(|| "final;a b".to_owned()),
        filename: Some("sea.mp4".to_owned()),
        expires_at: world.now.plus_ms(EXPIRES_MS),
    }
}

pub async fn create(world: &mut World, video: VideoId, kind: UploadKind, length: Option<u64>) -> UploadId {
    let new = new(world, video, kind, length);
    let created = world.catalog.create_resumable(&new, world.now).await.unwrap();
    assert_eq!(created, CreateResumable::Created);
    new.id
}

async fn ask(world: &World, id: UploadId, force: bool) -> Acquire {
    let expires_at = world.now.plus_ms(EXPIRES_MS);
    world.catalog.acquire_resumable(id, force, expires_at, world.now).await.unwrap()
}

pub async fn acquire(world: &World, id: UploadId) -> (i64, Vec<UploadPiece>) {
    match ask(world, id, false).await {
        Acquire::Held(upload, pieces) => (upload.token, pieces),
        other => panic!("{other:?}"),
    }
}

async fn begin_as(world: &World, id: UploadId, token: i64, attempt: AttemptId) -> bool {
    let until = world.now.plus_ms(LEASE_MS);
    world.catalog.begin_piece(id, token, attempt, until, world.now).await.unwrap()
}

/// Ends with a sum that uses all 64 bits.
pub async fn begin(world: &mut World, id: UploadId, token: i64, bytes: u64) -> UploadPiece {
    let attempt = world.id();
    assert!(begin_as(world, id, token, attempt).await);
    UploadPiece { attempt, bytes, crc64nvme: u64::MAX - bytes }
}

#[derive(Default)]
struct Said {
    replaces_last: bool,
    length_bytes: Option<u64>,
}

async fn commit_saying(
    world: &World,
    id: UploadId,
    token: i64,
    said: Said,
    pieces: &[UploadPiece],
) -> CommitPieces {
    let expires_at = world.now.plus_ms(EXPIRES_MS);
    let Said { replaces_last, length_bytes } = said;
    let committed = world
        .catalog
        .commit_pieces(id, token, replaces_last, pieces, length_bytes, expires_at, world.now)
        .await;
    committed.unwrap()
}

async fn commit(world: &World, id: UploadId, token: i64, pieces: &[UploadPiece]) -> CommitPieces {
    commit_saying(world, id, token, Said::default(), pieces).await
}

async fn release(world: &World, id: UploadId, token: i64) {
    world.catalog.release_resumable(id, token, world.now).await.unwrap();
}

/// One request that brings so many bytes.
pub async fn put(world: &mut World, id: UploadId, bytes: u64) -> UploadPiece {
    let (token, _) = acquire(world, id).await;
    let piece = begin(world, id, token, bytes).await;
    assert!(matches!(commit(world, id, token, &[piece]).await, CommitPieces::Committed { .. }));
    release(world, id, token).await;
    piece
}

pub async fn put_partial(world: &mut World, video: VideoId, bytes: u64) -> UploadId {
    let id = create(world, video, UploadKind::Partial, Some(bytes)).await;
    put(world, id, bytes).await;
    let (token, _) = acquire(world, id).await;
    assert!(world.catalog.finish_partial(id, token).await.unwrap());
    id
}

async fn find(world: &World, id: UploadId) -> Resumable {
    world.catalog.resumable(id, world.now).await.unwrap().expect("it is there")
}

async fn state_of(world: &World, attempt: AttemptId) -> AttemptState {
    world.catalog.attempt(attempt).await.unwrap().expect("the attempt is there").state
}

pub fn done(world: &mut World, video: VideoId, attempt: AttemptId, bytes: u64) -> CompletedUpload {
    CompletedUpload { bytes, ..world.upload(video, attempt) }
}

async fn complete(world: &World, id: UploadId, token: i64, done: &CompletedUpload) -> CompleteResumable {
    world.catalog.complete_resumable(id, token, done, world.now).await.unwrap()
}

async fn delete(world: &mut World, video: VideoId) {
    let (id, job) = (world.id(), world.id());
    let new = NewDeletion { video, requested_by: "admin".to_owned(), due_at: world.now, id, job };
    world.catalog.delete_video(&new, world.now).await.unwrap();
}

/// Attempts whose objects are to be removed, also those that ended just now.
async fn stale(world: &World) -> Vec<AttemptId> {
    let stale = world.catalog.stale_attempts(world.now, -1, 1000).await.unwrap();
    let mut stale: Vec<_> = stale.into_iter().map(|(_, id)| id).collect();
    stale.sort();
    stale
}

fn attempts(pieces: &[UploadPiece]) -> Vec<AttemptId> {
    let mut attempts: Vec<_> = pieces.iter().map(|piece| piece.attempt).collect();
    attempts.sort();
    attempts
}

async fn create_final(world: &mut World, video: VideoId, partials: &[UploadId]) -> (UploadId, CreateFinal) {
    let new = new(world, video, UploadKind::Final, None);
    (new.id, world.catalog.create_final(&new, partials, world.now).await.unwrap())
}

/// As the process of a holder does, every now and then.
async fn hear(world: &World, held: &[(UploadId, i64)]) -> Vec<UploadId> {
    let asked = world.catalog.releases_asked(held).await.unwrap();
    world.catalog.hear_releases(&asked).await.unwrap();
    asked.into_iter().map(|(id, _)| id).collect()
}
