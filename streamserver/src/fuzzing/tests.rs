//! The corpora that fuzzing found worth keeping, and a few bytes by chance.

use std::path::Path;

use futures::FutureExt;
use proptest::prelude::*;

use super::sequences::World;
use super::{forms, headers, ranges, sequences};

/// Name and bytes of every file.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Says which file it was before the panic goes on.
fn replay(target: &str, run: impl Fn(&[u8])) {
    for (name, bytes) in corpus(target) {
        println!("{name}");
        run(&bytes);
    }
}

#[test]
fn heads_of_the_corpus() {
    replay("tus_headers", headers::run);
}

#[test]
fn forms_of_the_corpus() {
    replay("forms", forms::run);
}

#[test]
fn ranges_of_the_corpus() {
    replay("ranges", ranges::run);
}

#[tokio::test]
async fn sequences_of_the_corpus() {
    let world = World::new().await;
    for (name, bytes) in corpus("sequences") {
        println!("{name}");
        sequences::run(&world, &bytes).await;
    }
    world.end().await;
}

proptest! {
    #[test]
    fn heads_by_chance(
        name in "(upload-(offset|length|defer-length|metadata|concat|checksum)|content-type|trailer)",
        value in prop_oneof![
            "[0-9]{1,22}",
            "(final;|partial|sha1 |sha256 |filename |video_id )?[ -~]{0,60}",
            "([a-c]( [A-D]{3}=)?,){0,80}",
        ],
        more in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let line = format!("{name}: {value}\n");
        headers::run(&[line.as_bytes(), &more].concat());
    }

    #[test]
    fn ranges_by_chance(total in any::<u8>(), form in "[abc]", header in header()) {
        ranges::run(&[&[total], form.as_bytes(), &header].concat());
    }

    #[test]
    fn forms_by_chance(seed in any::<u8>(), parts in proptest::collection::vec(part(), 0..12)) {
        let content_type = &b"multipart/form-data; boundary=b\n"[..];
        for seed in [b'1', b'-', seed] {
            forms::run(&[&[seed], content_type, &parts.concat()].concat());
        }
    }
}

/// Of ranges: right ones in a list, and anything.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let range = "([0-9]{0,2}-[0-9]{1,2}|[0-9]{1,2}-|-)";
    let ranges = proptest::collection::vec(range, 1..10).prop_map(|list| list.join(",").into_bytes());
    prop_oneof![ranges, proptest::collection::vec(any::<u8>(), 0..40)]
}

/// Of a form, in whatever order.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"--b\r\n".to_vec()),
        Just(b"\r\n--b\r\n".to_vec()),
        Just(b"\r\n--b--".to_vec()),
        Just(b"Content-Disposition: form-data; name=a".to_vec()),
        Just(b"Content-Disposition: form-data; name=a; filename=\"b\"\r\n\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        (0..300_usize).prop_map(|times| vec![b'x'; times]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

/// In the time of day, so they are few, and beside each other: most of it is waiting.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "how many, for whom asks for more by hand")]
async fn sequences_by_chance() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (sequences, seed) = (setting("SLUICE_TEST_SEQUENCES", 40), setting("SLUICE_TEST_SEED", 1));
    let worlds = (0..SEQUENCES_BESIDE).map(async |beside| {
        let mut state = seed * SEQUENCES_BESIDE + beside;
        for sequences in left_in_worlds(sequences / SEQUENCES_BESIDE) {
            let world = World::new().await;
            for _ in 0..sequences {
                let choices: Vec<u8> = (0..80).map(|_| next(&mut state)).collect();
                let told = format!("{choices:?}");
                let run = std::panic::AssertUnwindSafe(sequences::run(&world, &choices));
                if let Err(panic) = run.catch_unwind().await {
                    println!("{told}");
                    std::panic::resume_unwind(panic);
                }
            }
            world.end().await;
        }
    });
    futures::future::join_all(worlds).await;
}

const SEQUENCES_BESIDE: u64 = 4;
/// Then what the database has is checked, and it begins anew.
const SEQUENCES_PER_WORLD: u64 = 500;

fn left_in_worlds(sequences: u64) -> impl Iterator<Item = u64> {
    let whole = sequences / SEQUENCES_PER_WORLD;
    (0..whole).map(|_| SEQUENCES_PER_WORLD).chain([sequences % SEQUENCES_PER_WORLD])
}

fn next(state: &mut u64) -> u8 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 56) as u8
}
