//! Bad weather is survived by trying again, and never shows half an object.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;

use bytes::Bytes;
use domain::ObjectKey;
use futures::TryStreamExt;
use objects::key;
use store::{Faulty, Memory, READ_BLOCK_BYTES_MAX, Store, StoreError, Weather};

const STORM: Weather =
    Weather { fails_before: 0.2, fails_after: 0.2, out_of_space: 0.1, breaks_off: 0.3, ..Weather::FINE };
const TRIES_MAX: usize = 200;

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

#[tokio::test]
async fn reads_can_be_damaged_and_cut_short() {
    let bytes = Bytes::from(vec![7; 1000]);
    let (mut whole, mut flipped, mut short) = (0, 0, 0);
    for seed in 0..200 {
        let store = Faulty::new(Memory::new(), seed, Weather { flips: 0.3, truncates: 0.3, ..Weather::FINE });
        write(store.inner(), &key(1), &bytes).await.unwrap();
        let read = read(&store, &key(1), bytes.len() as u64).await.unwrap();
        let differing: Vec<u32> = std::iter::zip(&read, &bytes).map(|(a, b)| (a ^ b).count_ones()).collect();
        match (read.len() == bytes.len(), differing.iter().sum::<u32>()) {
            (true, 0) => whole += 1,
            (true, 1) => flipped += 1,
            (false, 0 | 1) => short += 1,
            (_, bits) => panic!("{bits} bits at seed {seed}"),
        }
    }
    assert!(whole > 50 && flipped > 20 && short > 30, "{whole} {flipped} {short}");
}

#[tokio::test]
async fn listings_can_be_old_and_have_gaps() {
    let paths = async |store: &Faulty<Memory>| -> Vec<String> {
        let page = store.list("", None, 10).await.unwrap();
        page.objects.into_iter().map(|(path, _)| path).collect()
    };
    let store = Faulty::new(Memory::new(), 1, Weather { lists_stale: 0.5, ..Weather::FINE });
    write(&store, &key(1), &Bytes::from_static(b"x")).await.unwrap();
    while paths(&store).await.is_empty() {}
    store.delete(&[key(1).path()]).await.pop().unwrap().1.unwrap();
    write(&store, &key(2), &Bytes::from_static(b"x")).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        seen.insert(paths(&store).await);
    }
    // Until it is asked for anew, and then never again.
    assert!(seen.contains(&vec![key(2).path()]));
    assert!(seen.is_subset(&[vec![key(1).path()], vec![key(2).path()]].into()), "{seen:?}");

    let store = Faulty::new(Memory::new(), 1, Weather { lists_partially: 0.5, ..Weather::FINE });
    for number in 0..10 {
        write(&store, &key(number), &Bytes::from_static(b"x")).await.unwrap();
    }
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..50 {
        lengths.insert(paths(&store).await.len());
    }
    assert!(lengths.len() > 3, "{lengths:?}");
}
