//! What keeps a hostile file inside: attempts to get out of the sandbox, and files that ask for others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use domain::task::{Event, Task};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// What the program tries.
const ATTEMPTS: usize = 16;

/// A job as the scheduler lays it out, and things beside it that are none of its business.
struct Job {
    folder: TempDir,
    listener: TcpListener,
}

impl Job {
    fn new() -> Job {
        let folder = tempfile::tempdir().unwrap();
        for name in ["in", "out", "library"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        // As closed as a server's mask may make it.
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder.path().join("in"), closed).unwrap();
        fs::write(folder.path().join("library/sluice.db"), b"rows").unwrap();
        fs::write(folder.path().join("library/other.mp4"), b"someone's film").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Job { folder, listener }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn input(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("in/source.mp4");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn ingest(&self, bytes: &[u8]) -> Task {
        Task::Ingest {
            input: self.input(bytes),
            on_demand: false,
            output: self.path("out"),
            limits: child::limits(),
            settings: child::settings(),
            cover_at_s: None,
        }
    }

    fn connections(&self) -> usize {
        std::iter::from_fn(|| self.listener.accept().ok()).count()
    }
}

/// The program of `examples/escape`, built together with the tests.
fn escape(job: &Job, how: &str) -> Output {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/escape");
    assert!(program.exists(), "{} is there after `cargo build --examples`", program.display());
    let mut command = Command::new(program);
    command
        .arg(how)
        .args([job.path("library/sluice.db"), job.path("library/other.mp4"), job.path("library")])
        .arg(job.listener.local_addr().unwrap().to_string());
    run(command, &job.ingest(b"a film"), how != "free")
}

fn run(mut command: Command, task: &Task, is_bounded: bool) -> Output {
    let mut running =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if is_bounded {
        let most = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
        prlimit(Some(Pid::from_child(&running)), Resource::As, most).unwrap();
    }
    running.stdin.take().unwrap().write_all(&serde_json::to_vec(task).unwrap()).unwrap();
    running.wait_with_output().unwrap()
}

fn said(output: &Output, word: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect()
}

#[test]
fn every_attempt_to_get_out_is_refused() {
    let job = Job::new();
    let output = escape(&job, "locked-in");
    let refused = said(&output, "refused");
    println!("{} of {ATTEMPTS} refused:\n{}", refused.len(), refused.join("\n"));
    assert_eq!(said(&output, "escaped"), [""; 0]);
    assert_eq!(refused.len(), ATTEMPTS, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(job.connections(), 0);
    assert!(!job.path("library/written").exists());
    assert_eq!(fs::read(job.path("in/source.mp4")).unwrap(), b"a film");
}

/// Without the sandbox the same attempts come through, so that a refusal says something.
#[test]
fn outside_the_attempts_succeed() {
    let job = Job::new();
    let output = escape(&job, "free");
    let is_root = rustix::process::geteuid().is_root();
    // Whether a process may be traced, and what home is, depends on who we are.
    let refused: Vec<String> = said(&output, "refused")
        .into_iter()
        .filter(|line| is_root || !line.contains("trace the parent") && !line.contains("home"))
        .collect();
    assert_eq!(refused, [""; 0], "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(job.connections(), 1);
}

/// One line of a trace.
struct Call {
    line: String,
}

impl Call {
    fn is_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.line.contains(&format!(" {name}(")))
    }

    /// Where an open that succeeded led to.
    fn opened(&self) -> Option<&str> {
        let (_, result) = self.line.rsplit_once(" = ")?;
        let (_, path) = result.split_once('<')?;
        Some(path.trim_end().trim_end_matches('>'))
    }
}

const CALLS: &str = "trace=open,openat,openat2,socket,connect,execve,landlock_restrict_self";

/// Runs a task in the real child, and everything it opened or connected to.
fn traced(job: &Job, task: &Task) -> (Event, Vec<Call>) {
    let trace = job.path("trace");
    let mut strace = Command::new("strace");
    strace
        // As the scheduler starts it.
        .env_clear()
        .args(["-f", "-y", "-s", "4096", "-e", CALLS, "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_transcoder"));
    if Command::new("strace").arg("-V").output().is_err() {
        panic!("strace is not there: install it (make setup)");
    }
    let output = run(strace, task, false);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let calls =
        fs::read_to_string(&trace).unwrap().lines().map(|line| Call { line: line.to_owned() }).collect();
    (serde_json::from_str(last).unwrap(), calls)
}

/// What the task names, and libraries.
fn is_its_own(path: &str, job: &Job) -> bool {
    let library = ["/usr/lib/", "/lib/", "/etc/ld.so.cache"];
    library.iter().any(|start| path.starts_with(start))
        || Path::new(path) == job.path("in/source.mp4")
        || Path::new(path).starts_with(job.path("out"))
}

#[track_caller]
fn opens_nothing_else(name: &str, job: &Job, bytes: &[u8]) -> Event {
    let (event, calls) = traced(job, &job.ingest(bytes));
    let network: Vec<&str> = calls
        .iter()
        .filter(|call| call.is_of(&["socket", "connect"]))
        .map(|call| call.line.as_str())
        .collect();
    assert_eq!(network, [""; 0], "{name}");
    assert_eq!(job.connections(), 0, "{name}");
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look into a process that is locked in, not even at the names it opens.
        println!("{name}: 0 connections; what it opened is only seen by root: {event:?}");
        return event;
    }
    // Before it is locked in it is loaded, and has opened nothing that nobody vouches for.
    let locked_in = calls.iter().position(|call| call.is_of(&["landlock_restrict_self"])).unwrap();
    let opens: Vec<&str> = calls[locked_in..].iter().filter_map(Call::opened).collect();
    assert!(opens.iter().any(|path| path.ends_with("/in/source.mp4")), "{name}: the trace shows the input");
    let outside: Vec<&&str> = opens.iter().filter(|path| !is_its_own(path, job)).collect();
    assert!(outside.is_empty(), "{name}: {outside:?}");
    // Not even asked for.
    let named: Vec<&str> =
        calls.iter().map(|call| call.line.as_str()).filter(|line| line.contains("/library/")).collect();
    assert_eq!(named, [""; 0], "{name}");
    println!("{name}: {} opens, 0 outside, 0 connections: {event:?}", opens.len());
    event
}

/// A film whose samples lie in another file, as QuickTime had them: an alias record in place of "this file".
fn with_external_samples(film: &[u8], sibling: &str, target: &str) -> Vec<u8> {
    let mut record = vec![0; 4 + 10];
    let pascal = |text: &str, room: usize| {
        let mut field = vec![text.len() as u8];
        field.extend_from_slice(text.as_bytes());
        field.resize(room + 1, 0);
        field
    };
    let (volume, name) = (pascal("disk", 27), pascal(sibling, 63));
    record.extend(volume);
    record.extend([0; 12]);
    record.extend(name);
    record.extend([0; 16]);
    // Not by way of folders above: by its whole path.
    record.extend([0, 0, 0, 0]);
    record.extend([0; 16]);
    let path = format!("disk:{}", target.trim_start_matches('/').replace('/', ":"));
    record.extend([0, 2]);
    record.extend((path.len() as u16).to_be_bytes());
    record.extend(path.as_bytes());
    record.extend(vec![0; path.len() % 2]);
    record.extend([0xff, 0xff, 0, 0]);
    let mut alias = (record.len() as u32 + 8).to_be_bytes().to_vec();
    alias.extend(b"alis");
    alias.extend(record);

    let mut film = film.to_vec();
    let moov = place_in(&film, b"moov", 0);
    let dref = place_in(&film, b"dref", moov);
    // Behind size, name, version and count lies one entry of 12 bytes.
    let entry = dref + 12;
    let grown = alias.len() as u32 - 12;
    film.splice(entry..entry + 12, alias);
    let mut at = moov;
    for name in [&b"moov"[..], b"trak", b"mdia", b"minf", b"dinf", b"dref"] {
        at = place_in(&film, name, at);
        let size = u32::from_be_bytes(film[at - 4..at].try_into().unwrap()) + grown;
        film[at - 4..at].copy_from_slice(&size.to_be_bytes());
    }
    film
}

fn place_in(film: &[u8], name: &[u8], from: usize) -> usize {
    film[from..].windows(4).position(|window| window == name).unwrap() + from
}

fn film(path: &Path) -> Vec<u8> {
    let args = "-v error -nostdin -y -f lavfi -i testsrc2=size=320x180:rate=25:duration=1 -c:v libx264 \
                -preset ultrafast -pix_fmt yuv420p";
    let made = Command::new("ffmpeg").args(args.split_whitespace()).arg(path).status().unwrap();
    assert!(made.success());
    fs::read(path).unwrap()
}

/// All are named `.mp4`, and point at files beside the job and at a server of ours.
#[test]
fn files_that_ask_for_others_get_nothing() {
    let job = Job::new();
    let victim = job.path("library/other.mp4");
    let good = film(&victim);
    let file = format!("file://{}", victim.display());
    let url = format!("http://{}/film.ts", job.listener.local_addr().unwrap());
    let hls = |target: &str| {
        format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n")
    };
    let dash = |target: &str| {
        format!(
            "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" \
             mediaPresentationDuration=\"PT5S\" profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\"><Period>\
             <AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>{target}</BaseURL>\
             <SegmentBase indexRange=\"0-99\"/></Representation></AdaptationSet></Period></MPD>"
        )
    };
    let concat = |target: &str| format!("ffconcat version 1.0\nfile '{target}'\n");
    let sdp = format!(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\n",
        5004
    );
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"{file}\"/><image href=\"{url}\"/></svg>"
    );
    let hostile = [
        ("HLS, file", hls(&file)),
        ("HLS, bare path", hls(victim.to_str().unwrap())),
        ("HLS, http", hls(&url)),
        ("ffconcat, file", concat(&file)),
        ("ffconcat, relative", concat("../library/other.mp4")),
        ("ffconcat, http", concat(&url)),
        ("DASH, file", dash(&file)),
        ("DASH, http", dash(&url)),
        ("SDP", sdp),
        ("SVG", svg),
        ("list of files", format!("{}\n{url}\n", victim.display())),
    ];
    for (name, text) in &hostile {
        let event = opens_nothing_else(name, &job, text.as_bytes());
        assert!(matches!(event, Event::Rejected { .. }), "{name}: {event:?}");
    }
    // What looks like a film at its start.
    let behind_a_head = [&good[..64.min(good.len())], hls(&file).as_bytes()].concat();
    let event = opens_nothing_else("a playlist behind the head of a film", &job, &behind_a_head);
    assert!(matches!(event, Event::Rejected { .. }), "{event:?}");

    let external = with_external_samples(&good, "other.mp4", victim.to_str().unwrap());
    opens_nothing_else("samples in another file", &job, &external);
}

/// The trace would show it: the same alias makes FFmpeg itself open the other file, when it is let.
#[test]
fn an_alias_is_followed_where_nobody_forbids_it() {
    let job = Job::new();
    let victim = job.path("library/other.mp4");
    let external = with_external_samples(&film(&victim), "other.mp4", victim.to_str().unwrap());
    let (path, trace) = (job.input(&external), job.path("trace"));
    let args = "-v error -enable_drefs 1 -use_absolute_path 1";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=openat", "-o"]).arg(&trace).arg("ffprobe").args(args.split_whitespace());
    strace.arg("-show_packets").arg(path).output().unwrap();
    let calls = fs::read_to_string(&trace).unwrap();
    let opened = calls.lines().filter(|line| line.contains("library/other.mp4"));
    assert!(opened.count() > 0, "the file does not ask for another");
}
