//! Bad weather is survived by trying again, and never shows half an object.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use domain::{AttemptId, IdParts, ObjectFile, ObjectKey, Timestamp, VideoId};
use futures::TryStreamExt;
use store::{Faulty, Memory, READ_BLOCK_BYTES_MAX, Store, StoreError, Weather};

const STORM: Weather = Weather { fails_before: 0.2, fails_after: 0.2, out_of_space: 0.1, breaks_off: 0.3 };
const TRIES_MAX: usize = 200;

fn key(number: u8) -> ObjectKey {
    let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [number; 10] };
    ObjectKey { video: VideoId::from(parts), attempt: AttemptId::from(parts), file: ObjectFile::Source }
}

async fn write(store: &dyn Store, key: &ObjectKey, bytes: &Bytes) -> Result<(), StoreError> {
    let mut writer = store.create(key).await?;
    writer.write(bytes.clone()).await?;
    writer.finish().await.map(|_| ())
}

async fn read(store: &dyn Store, key: &ObjectKey, bytes: u64) -> Result<Vec<u8>, StoreError> {
    let blocks: Vec<Bytes> = store.read(key, 0..bytes).await?.try_collect().await?;
    Ok(blocks.concat())
}

#[tokio::test]
async fn trying_again_gets_through_a_storm() {
    let bytes = Bytes::from(vec![7; 2 * READ_BLOCK_BYTES_MAX]);
    for seed in 0..50 {
        let store = Faulty::new(Memory::new(), seed, STORM);
        let key = key(1);
        let mut faults = 0;
        for _ in 0..TRIES_MAX {
            match write(&store, &key, &bytes).await {
                // `Exists` after a lost answer: the object is there, and whole.
                Ok(()) | Err(StoreError::Exists) => break,
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    faults += 1;
                }
            }
        }
        let mut whole = None;
        for _ in 0..TRIES_MAX {
            match read(&store, &key, bytes.len() as u64).await {
                Ok(read) => {
                    whole = Some(read);
                    break;
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    faults += 1;
                }
            }
        }
        assert_eq!(whole.as_deref(), Some(&bytes[..]), "seed {seed} after {faults} faults");
    }
}

#[tokio::test]
async fn the_same_seed_brings_the_same_faults() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let store = Faulty::new(Memory::new(), 42, STORM);
        let mut outcomes = Vec::new();
        for number in 0..50 {
            outcomes.push(write(&store, &key(number), &Bytes::from_static(b"x")).await.is_ok());
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0].contains(&false));
}
