//! The transcoder of a running server is locked in, and a machine that cannot do that starts nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, geteuid};

use crate::harness::{App, clips, sluice_command};

const PATIENCE: Duration = Duration::from_secs(60);

/// A line of `/proc/<pid>/status`; `None` once the process has ended.
fn status(process: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The first child that has a system call filter; it has its task by then.
async fn child_at_work(app: &App) -> Pid {
    let since = Instant::now();
    loop {
        let children = app.program.children();
        if let Some(child) =
            children.into_iter().find(|&child| status(child, "Seccomp").as_deref() == Some("2"))
        {
            return child;
        }
        assert!(since.elapsed() < PATIENCE, "no child is locked in:\n{}", app.program.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_live_worker_is_locked_in() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let clip = clips::h264(app.folder.path(), "clip.mp4", "1280x720", 20);
    let id = alice.upload(&clip).await;
    let child = child_at_work(&app).await;
    // It stands still while we look.
    rustix::process::kill_process(child, rustix::process::Signal::STOP).unwrap();
    let of = |name| status(child, name).expect("it stands still");
    println!(
        "Seccomp: {} ({} filters), NoNewPrivs: {}, Uid: {}, Groups: {:?}, CapEff: {}",
        of("Seccomp"),
        of("Seccomp_filters"),
        of("NoNewPrivs"),
        of("Uid"),
        of("Groups"),
        of("CapEff")
    );
    assert_eq!(of("NoNewPrivs"), "1");
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&of(capabilities), 16), Ok(0), "{capabilities}");
    }
    if geteuid().is_root() {
        assert!(of("Uid").split_whitespace().all(|uid| uid == "65534"), "{}", of("Uid"));
        assert!(of("Gid").split_whitespace().all(|gid| gid == "65534"), "{}", of("Gid"));
        assert_eq!(of("Groups"), "");
        assert_eq!(fs::read(format!("/proc/{child}/environ")).unwrap(), b"");
        // Its pipes, and what the task names: nothing that we have open.
        let open = fs::read_dir(format!("/proc/{child}/fd")).unwrap().flatten();
        for file in open.filter_map(|file| fs::read_link(file.path()).ok()) {
            let text = file.display().to_string();
            assert!(text.starts_with("pipe:") || text.contains("/data/scratch/"), "{text}");
        }
    }
    rustix::process::kill_process(child, rustix::process::Signal::CONT).unwrap();
    alice.until(&id, &["ready"], 120).await;
    app.finish();
}

/// As on a kernel that has no such system call. Exit code, standard output, standard error.
fn without(call: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let sluice = sluice_command(folder.path());
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:error=ENOSYS")])
        .arg(sluice.get_program())
        .args(arguments)
        .env_clear()
        .envs(sluice.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .envs(settings.iter().copied())
        .current_dir(folder.path());
    let output = strace.output().expect("strace is installed (make setup)");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_machine_that_cannot_lock_it_in_starts_nothing() {
    for (call, layer) in [("landlock_create_ruleset", "Landlock"), ("seccomp", "seccomp")] {
        let (code, _, said) = without(call, &[], &[]);
        assert_eq!(code, Some(69), "{said}");
        for word in [layer, "cannot be locked in", "SLUICE_UNSAFE_NO_SANDBOX=1"] {
            assert!(said.contains(word), "{word} is missing in:\n{said}");
        }
    }
}

#[test]
fn the_doctor_tells_which_layers_hold() {
    let folder = tempfile::tempdir().unwrap();
    let output = sluice_command(folder.path()).arg("doctor").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("sandbox")).unwrap();
    println!("{line}");
    assert!(
        line.starts_with("[ok  ]") && line.contains("Landlock: ABI") && line.contains("seccomp"),
        "{line}"
    );

    let unsafe_too = [("SLUICE_UNSAFE_NO_SANDBOX", "1")];
    for (settings, mark, code) in [(&[][..], "[BAD ] sandbox", 1), (&unsafe_too[..], "[warn] sandbox", 0)] {
        let (ended, said, _) = without("landlock_create_ruleset", &["doctor"], settings);
        assert!(
            ended == Some(code) && said.contains(mark) && said.contains("Landlock: "),
            "{ended:?} {said}"
        );
    }
}
