//! Films that lie elsewhere: only what is asked for is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::path::{Path, PathBuf};
use std::process::Command;

use domain::task::{Ingested, Outcome, Task};

/// Pictures that do not compress: about 25 MB, of which a cover and a header need little.
fn large(folder: &Path, name: &str, more: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"])
        .arg("testsrc2=size=640x360:rate=25:duration=60,noise=alls=40:allf=t")
        .args("-f lavfi -i sine=frequency=500:duration=60 -c:a aac".split(' '))
        .args("-c:v libx264 -preset ultrafast -b:v 3500k -g 25 -pix_fmt yuv420p".split(' '))
        .args(more.split_whitespace())
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn ingested(film: &Path, on_demand: bool) -> (Ingested, Vec<Vec<u8>>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    std::fs::create_dir(&output).unwrap();
    let task = Task::Ingest {
        input: if on_demand { folder.path().join("stand-in") } else { film.to_owned() },
        on_demand,
        output: output.clone(),
        limits: child::limits(),
        settings: child::settings(),
        cover_at_s: None,
    };
    let Ok((Outcome::Ingest(ingested), asked)) = child::run_on_demand(&task, film) else {
        panic!("it is taken")
    };
    let files = ingested.original.iter().flat_map(|o| &o.files).chain(&ingested.covers.files);
    let bytes = files.map(|file| std::fs::read(output.join(&file.name)).unwrap()).collect();
    (ingested, bytes, asked)
}

#[test]
fn a_film_is_judged_without_most_of_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in [("end.mp4", ""), ("front.mp4", "-movflags +faststart")] {
        let film = large(folder.path(), name, more);
        let whole = std::fs::metadata(&film).unwrap().len();
        let (there, files, _) = ingested(&film, false);
        let (elsewhere, same_files, asked) = ingested(&film, true);
        assert_eq!(format!("{:?}", there.original), format!("{:?}", elsewhere.original), "{name}");
        assert!(there.original.is_some() && files == same_files, "{name}");
        assert!(asked < whole / 2, "{name}: {asked} of {whole} bytes were asked for");
    }
}

#[test]
fn a_container_without_an_index_is_asked_for_whole() {
    let folder = tempfile::tempdir().unwrap();
    let film = large(folder.path(), "film.mkv", "-t 5");
    let (there, files, _) = ingested(&film, false);
    let (elsewhere, same_files, _) = ingested(&film, true);
    assert_eq!(format!("{:?}", there.original), format!("{:?}", elsewhere.original));
    assert_eq!(files, same_files);
}
