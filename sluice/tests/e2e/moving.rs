//! `sluice move`: a library changes its store beside a server at work, however often the mover dies.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::backends::variable;
use crate::harness::{App, Persona, Points, clips};

/// Three videos and six kills in every run; `make campaign-move` asks for five hundred and twenty.
fn size(name: &str, default: usize) -> usize {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

/// Every byte that a viewer can ask for.
async fn everything(anyone: &Persona, id: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for path in ["", "/master.m3u8", "/cover.jpg", "/cover.webp?w=120"] {
        bytes.push(anyone.get(&format!("/stream/videos/{id}{path}")).await.expect(200).body);
    }
    bytes
}

/// Runs the mover, and kills it after a while for `kills` times; then lets it finish. How often it was alive to be
/// killed.
async fn move_with_kills(app: &App, to: [&str; 2], kills: usize, points: &mut Points) -> usize {
    let mut killed = 0;
    for _ in 0..kills {
        let mut mover = app.command(&["move", to[0], to[1]]);
        let mut mover = mover.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(40 + points.next_below(400))).await;
        killed += usize::from(mover.try_wait().unwrap().is_none());
        mover.kill().unwrap();
        mover.wait().unwrap();
    }
    run(app.command(&["move", to[0], to[1]]));
    killed
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn a_library_moves_to_another_store_under_its_viewers_eyes() {
    let (videos, kills) = (size("SLUICE_TEST_MOVE_VIDEOS", 3), size("SLUICE_TEST_MOVE_KILLS", 6));
    let mut app = App::start().await;
    let alice = app.user("alice").await;
    let clip = clips::h264(app.folder.path(), "clip.mp4", "320x240", 1);
    let mut ids = Vec::new();
    for _ in 0..videos {
        ids.push(alice.upload(&clip).await);
    }
    for id in &ids {
        alice.until_drawn(id, 600).await;
    }
    let from = app.setting("SLUICE_STORE").unwrap_or("disk").to_owned();
    let to = match variable("SLUICE_TEST_MOVE_TO") {
        Some(store) => app.add_store(&store),
        None => format!("disk:{}", app.folder.path().join("elsewhere").display()),
    };
    let anyone = app.anonymous();
    let mut before = Vec::new();
    for id in &ids {
        before.push(everything(&anyone, id).await);
    }

    // Beside the server, which goes on with the old store: one film goes, one comes.
    let mut points = Points::new(1);
    let mut killed = move_with_kills(&app, ["--to-store", &to], kills / 3, &mut points).await;
    let (gone, _) = (ids.remove(0), before.remove(0));
    alice.delete(&format!("/api/videos/{gone}")).await.expect(204);
    let late = alice.upload(&clip).await;
    alice.until_drawn(&late, 60).await;
    before.push(everything(&anyone, &late).await);
    ids.push(late);

    app.set("SLUICE_STORE", Some(&to));
    app.set("SLUICE_STORE_FROM", Some(&from));
    assert!(app.program.terminate().success());
    app.start_again();
    let (alice, anyone) = (alice.at(app.base()), app.anonymous());
    for (id, before) in ids.iter().zip(&before) {
        assert!(everything(&anyone, id).await == *before, "{id} differs while it moves");
    }
    killed += move_with_kills(&app, ["--to-store", &to], kills / 3, &mut points).await;

    app.set("SLUICE_STORE_FROM", None);
    assert!(app.program.terminate().success());
    app.start_again();
    let (alice, anyone) = (alice.at(app.base()), app.anonymous());
    for (id, before) in ids.iter().zip(&before) {
        assert!(everything(&anyone, id).await == *before, "{id} differs after it moved");
    }
    anyone.get(&format!("/stream/videos/{gone}")).await.problem(404, "/problems/not-found");
    assert!(!app.objects().iter().any(|path| path.contains(&gone)), "nothing of the deleted film came along");
    let rows_to = rows_move_too(&mut app, &alice, kills - kills / 3 * 2, &mut points, &mut killed).await;
    let (alice, anyone) = (alice.at(app.base()), app.anonymous());
    for (id, before) in ids.iter().zip(&before) {
        assert!(everything(&anyone, id).await == *before, "{id} differs after its rows moved");
    }
    let new = alice.upload(&clip).await;
    alice.until(&new, &["ready"], 60).await;
    println!(
        "{videos} videos moved from {from}, {rows_to}; the mover killed {killed} of {kills} times: byte for byte the same"
    );
    app.finish();
}

/// From SQLite to PostgreSQL, where there is one. Where the rows are in the end.
async fn rows_move_too(
    app: &mut App,
    alice: &Persona,
    kills: usize,
    points: &mut Points,
    killed: &mut usize,
) -> &'static str {
    if app.setting("DATABASE_URL").is_some() || variable("SLUICE_TEST_POSTGRES").is_none() {
        eprintln!("the rows stay where they are: they are not in SQLite, or SLUICE_TEST_POSTGRES is not set");
        return "rows where they were";
    }
    let url = app.add_database();
    *killed += move_with_kills(app, ["--to-database", &url], kills, points).await;
    // The server that still runs on the old rows shows them, takes nothing and says so.
    alice.get("/api/videos").await.expect(200);
    let refused = alice.post("/api/videos", &serde_json::json!({"title": "late"})).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "/problems/unavailable");
    let ready = alice.get(&format!("{}/readyz", app.program.ops)).await;
    assert!(ready.status == 503 && ready.text().contains("was moved to postgres://"), "{ready:?}");
    assert!(app.program.terminate().success());
    let said = app.command(&[]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(78) && text.contains("Set DATABASE_URL"), "{text}");
    app.set("DATABASE_URL", Some(&url));
    app.start_again();
    "rows to PostgreSQL"
}

#[tokio::test]
async fn another_librarys_store_is_left_alone() {
    let app = App::start().await;
    let elsewhere = app.folder.path().join("elsewhere");
    // More objects of nobody's than a move would ever have left behind.
    let film = elsewhere.join("objects/videos/0192f5a0-0000-7000-8000-000000000001");
    for number in 0..150 {
        let attempt = film.join(format!("0192f5a0-0000-7000-8000-{number:012}"));
        std::fs::create_dir_all(&attempt).unwrap();
        std::fs::write(attempt.join("source"), b"film").unwrap();
    }
    let to = format!("disk:{}", elsewhere.display());
    let output = app.command(&["move", "--to-store", &to]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("150 of 150"), "{said}");
    assert_eq!(std::fs::read_dir(&film).unwrap().count(), 150);
    app.finish();
}
