//! Uploads that come in parts beside each other.

use domain::VideoState;
use reqwest::Method;

use super::{Uploader, content, header, location};
use crate::world::{World, expect_problem};

#[tokio::test]
async fn parts_are_put_together() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(500_000);
    let parts = [&bytes[..200_000], &bytes[200_000..200_001], &bytes[200_001..], &[]];
    let mut paths = Vec::new();
    for part in parts {
        paths.push(uploader.partial(part.len()).await);
    }
    let joined =
        |paths: &[String]| uploader.creation().header("upload-concat", format!("final;{}", paths.join(" ")));
    expect_problem(joined(&paths).send().await.unwrap(), 400, "bad-request").await;
    for (path, part) in paths.iter().zip(parts).rev() {
        uploader.appended(path, 0, part).await;
        let response = uploader.head(path).await;
        assert_eq!(header(&response, "upload-concat"), "partial");
        assert_eq!(header(&response, "upload-offset"), part.len().to_string());
    }
    assert_eq!(world.state(uploader.video).await, VideoState::Uploading);
    // As the client saw them, absolute and relative.
    paths[0] = world.url(&paths[0]);
    let with_length = joined(&paths).header("upload-length", bytes.len());
    expect_problem(with_length.send().await.unwrap(), 400, "bad-request").await;
    let response = joined(&paths).send().await.unwrap();
    let path = location(&response);
    uploader.is_uploaded(&bytes).await;
    let response = uploader.head(&path).await;
    assert_eq!(header(&response, "upload-concat"), format!("final;{}", paths.join(" ")));
    assert_eq!(header(&response, "upload-length"), bytes.len().to_string());
    assert_eq!(header(&response, "upload-offset"), bytes.len().to_string());
    expect_problem(uploader.send(&path, bytes.len(), b"x").await, 403, "forbidden").await;
    // The answer may have been lost.
    assert_eq!(location(&joined(&paths).send().await.unwrap()), path);
    world.end().await;
}

#[tokio::test]
async fn a_part_alone_is_put_together_too() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let part = uploader.partial(5).await;
    uploader.appended(&part, 0, b"hello").await;
    // It has no bytes, and says so in a body.
    let empty = uploader.creation().header("upload-length", 0).header("upload-concat", "partial");
    let empty =
        empty.header("content-type", "application/offset+octet-stream").body("").send().await.unwrap();
    assert_eq!(empty.status(), 201);
    let joined = uploader.creation().header("upload-concat", format!("final;{part} {}", location(&empty)));
    assert_eq!(joined.send().await.unwrap().status(), 201);
    uploader.is_uploaded(b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn parts_of_others_are_not_there() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (hers, his) = (Uploader::new(&world, &alice).await, Uploader::new(&world, &bob).await);
    let (her_part, his_part) = (hers.partial(5).await, his.partial(5).await);
    hers.appended(&her_part, 0, b"alice").await;
    his.appended(&his_part, 0, b"bobby").await;
    let stolen = his.creation().header("upload-concat", format!("final;{his_part} {her_part}"));
    expect_problem(stolen.send().await.unwrap(), 404, "not-found").await;
    let other = Uploader::new(&world, &alice).await;
    let other_part = other.partial(5).await;
    other.appended(&other_part, 0, b"alice").await;
    let mixed = hers.creation().header("upload-concat", format!("final;{her_part} {other_part}"));
    expect_problem(mixed.send().await.unwrap(), 400, "bad-request").await;
    // Without a video's name a part is nothing.
    let nameless = hers.request(Method::POST, "/stream/uploads").header("upload-concat", "partial");
    let problem = nameless.header("upload-length", 5).send().await.unwrap();
    let problem = expect_problem(problem, 400, "bad-request").await;
    assert!(problem["detail"].as_str().unwrap().contains("metadataForPartialUploads"), "{problem}");
    world.end().await;
}
