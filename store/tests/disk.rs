//! What only a store in a folder can get wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;

use std::os::unix::fs::symlink;

use bytes::Bytes;
use domain::ObjectKey;
use objects::key;
use store::{Disk, Store, StoreError};

async fn put(store: &Disk, key: &ObjectKey, bytes: &'static [u8]) -> Result<(), StoreError> {
    let mut writer = store.create(key).await?;
    writer.write(Bytes::from_static(bytes)).await?;
    writer.finish().await.map(|_| ())
}

#[tokio::test]
async fn planted_links_lead_nowhere() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Disk::open(folder.path()).unwrap();
    let canary = outside.path().join("source");
    std::fs::write(&canary, b"canary").unwrap();

    // A link in place of an object, of its attempt's folder, and of its video's.
    put(&store, &key(1), b"mine").await.unwrap();
    let object = folder.path().join("objects").join(key(1).path());
    std::fs::remove_file(&object).unwrap();
    symlink(&canary, &object).unwrap();
    assert!(store.read(&key(1), 0..1).await.is_err());
    assert!(matches!(put(&store, &key(1), b"again").await, Err(StoreError::Exists)));
    for (number, depth) in [(2, 1), (3, 2)] {
        let link = folder.path().join("objects").join(key(number).path());
        let link = link.ancestors().nth(depth).unwrap();
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(outside.path(), link).unwrap();
        assert!(put(&store, &key(number), b"mine").await.is_err());
        assert!(store.read(&key(number), 0..1).await.is_err());
        assert!(store.delete(&[key(number).path()]).await[0].1.is_err());
    }
    assert_eq!(std::fs::read(&canary).unwrap(), b"canary");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn paths_that_climb_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Disk::open(&folder.path().join("store")).unwrap();
    std::fs::write(folder.path().join("canary"), b"canary").unwrap();
    let climbing =
        ["../../canary", "videos/../../../canary", "/etc/passwd", "", "videos//x", "a/./b", "a\0b"];
    let paths: Vec<String> = climbing.iter().map(|path| (*path).to_owned()).collect();
    for (path, result) in store.delete(&paths).await {
        assert!(result.is_err(), "{path:?}");
        assert!(store.remove_unfinished(&path).await.is_err(), "{path:?}");
    }
    assert!(store.list("../", None, 10).await.is_err());
    assert!(folder.path().join("canary").exists());
}

#[tokio::test]
async fn what_no_key_explains_is_listed_in_byte_order_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Disk::open(folder.path()).unwrap();
    // In bytes, `-` and `.` come before `/`, and `0` after it.
    let expected = ["a-b/x", "a.txt", "a/b/c", "a/b0", "a/z", "a0"];
    for path in expected {
        let path = folder.path().join("objects").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"?").unwrap();
    }
    std::fs::create_dir_all(folder.path().join("objects/a/empty/er")).unwrap();
    for limit in 1..=7 {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list("", after.as_deref(), limit).await.unwrap();
            after = page.objects.last().map(|(path, _)| path.clone());
            found.extend(page.objects.into_iter().map(|(path, _)| path));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "limit {limit}");
    }
    let paths: Vec<String> = expected.iter().map(|path| (*path).to_owned()).collect();
    assert!(store.delete(&paths).await.into_iter().all(|(_, result)| result.is_ok()));
    assert!(store.list("", None, 10).await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn the_folders_of_a_deleted_object_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Disk::open(folder.path()).unwrap();
    put(&store, &key(1), b"one").await.unwrap();
    put(&store, &key(2), b"two").await.unwrap();
    store.delete(&[key(1).path()]).await.remove(0).1.unwrap();
    let videos = std::fs::read_dir(folder.path().join("objects/videos")).unwrap();
    assert_eq!(videos.count(), 1);
    store.delete(&[key(2).path()]).await.remove(0).1.unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("objects")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_beside_deletions_never_loses_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = Disk::open(folder.path()).unwrap();
    // One video, two attempts: deleting the one keeps removing the folder that the other is about to use.
    let (stays, goes) = (key(1), ObjectKey { attempt: key(2).attempt, ..key(1) });
    let churn = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..100 {
                put(&store, &goes, b"goes").await.unwrap();
                store.delete(&[goes.path()]).await.remove(0).1.unwrap();
            }
        }
    });
    for _ in 0..100 {
        put(&store, &stays, b"stays").await.unwrap();
        assert!(store.head(&stays).await.unwrap().is_some());
        store.delete(&[stays.path()]).await.remove(0).1.unwrap();
    }
    churn.await.unwrap();
}

#[tokio::test]
async fn processes_share_a_folder_and_the_dead_leave_what_can_be_swept() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Disk::open(folder.path()).unwrap(), Disk::open(folder.path()).unwrap());
    put(&one, &key(1), b"shared").await.unwrap();
    assert_eq!(other.head(&key(1)).await.unwrap().unwrap().bytes, 6);
    // What a killed process leaves.
    std::fs::write(folder.path().join("unfinished/videos~x~0"), b"half").unwrap();
    let left = other.list_unfinished(None, 10).await.unwrap();
    assert_eq!((left[0].name.as_str(), left[0].bytes), ("videos~x~0", 4));
    assert!(left[0].modified.is_some());
    other.remove_unfinished("videos~x~0").await.unwrap();
    assert!(one.list_unfinished(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn files_of_another_file_system_are_copied() {
    let Ok(scratch) = tempfile::tempdir_in("/dev/shm") else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = Disk::open(folder.path()).unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    std::fs::write(&from, b"elsewhere").unwrap();
    assert_eq!(store.put_file(&key(1), &from).await.unwrap().bytes, 9);
    assert_eq!(store.fetch(&key(1), &to).await.unwrap(), 9);
    assert_eq!(std::fs::read(&to).unwrap(), b"elsewhere");
    assert!(store.list_unfinished(None, 1).await.unwrap().is_empty());
}
