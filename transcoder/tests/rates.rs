//! The choice of rates through the child: what is easy to encode gets a larger factor than what is not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::path::{Path, PathBuf};
use std::process::Command;

use domain::task::{EncodeSettings, EncodeSettingsPlanned, Outcome, Plan, Task};
use domain::{CHOSEN_CRF_MAX, CHOSEN_CRF_MIN, LadderSettings};

const FACTS: &str = "facts.json";
const EASY: &str = "testsrc2=s=426x240:r=25:d=4";
const NOISY: &str = "color=gray:s=426x240:r=25:d=4,noise=alls=20:allf=t:all_seed=7";

fn clip(folder: &Path, name: &str, pictures: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", pictures])
        .args("-c:v libx264 -preset ultrafast -crf 10 -g 25 -pix_fmt yuv420p".split(' '))
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn planned(clip: &Path, rungs: &str) -> (Plan, tempfile::TempDir) {
    let output = tempfile::tempdir().unwrap();
    let settings = child::settings();
    let task = Task::Ingest {
        input: clip.to_owned(),
        on_demand: false,
        output: output.path().to_owned(),
        limits: child::limits(),
        settings: EncodeSettings {
            ladder: LadderSettings { crf: 23.0, rungs: rungs.parse().unwrap(), codecs: Vec::new() },
            planned: EncodeSettingsPlanned { quality: Some(85.0), ..settings.planned },
            ..settings
        },
        cover_at_s: None,
    };
    let Ok(Outcome::Ingest(ingested)) = child::run(&task) else { panic!("it is taken") };
    assert_eq!(ingested.facts.unwrap().name, FACTS);
    (ingested.plan, output)
}

fn chosen(clip: &Path, rungs: &str) -> Option<f64> {
    let (plan, ingested) = planned(clip, rungs);
    let task = Task::ChooseRate { input: clip.to_owned(), facts: Some(ingested.path().join(FACTS)), plan };
    let Ok(Outcome::Rate { crf }) = child::run(&task) else { panic!("rates are chosen") };
    crf
}

#[test]
fn an_easy_film_gets_a_larger_factor_than_a_noisy_one() {
    let folder = tempfile::tempdir().unwrap();
    let clip = |name, pictures: &str| clip(folder.path(), name, pictures);
    let easy = clip("easy.mp4", EASY);
    let noisy = clip("noisy.mp4", NOISY);
    let (of_easy, of_noisy) =
        (chosen(&easy, "low:240").unwrap(), chosen(&noisy, "low:240:23:9000000").unwrap());
    assert!(of_easy > of_noisy + 1.0, "{of_easy} {of_noisy}");
    assert!([of_easy, of_noisy].iter().all(|crf| (CHOSEN_CRF_MIN..=CHOSEN_CRF_MAX).contains(crf)));
    // No finer than the cap lets it be.
    let capped = chosen(&noisy, "low:240:23:400000").unwrap();
    assert!(capped > of_noisy + 1.0, "{capped} {of_noisy}");
}

#[test]
fn a_film_of_one_picture_has_nothing_to_choose_by() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path(), "one.mp4", "testsrc2=s=426x240:r=25:d=0.04");
    assert_eq!(chosen(&clip, "low:240"), None);
}
