//! Locks itself in as a transcoder does, then tries to get out, as a program would that a hostile file had taken
//! over. Says of each attempt, in a line, whether it came through; with `free` it stays outside and shows that the
//! attempts are good for something.

mod ffi_ptrace;

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use domain::task::Task;
use rustix::process::{Pid, getppid, test_kill_process};

/// More than any of them has.
const BLOCK_BYTES: usize = 8 << 30;

/// What there is to be had outside. Arguments, in this order.
struct Outside {
    database: PathBuf,
    other_video: PathBuf,
    folder: PathBuf,
    listener: SocketAddr,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("an argument");
    let is_free = next() == "free";
    let outside = Outside {
        database: next().into(),
        other_video: next().into(),
        folder: next().into(),
        listener: next().parse().expect("an address"),
    };
    let mut task: Task = serde_json::from_reader(io::stdin()).expect("a task");
    if !is_free {
        let report = transcoder::sandbox::enter(&mut task).expect("the files are there");
        assert!(report.missing.is_empty(), "{report:?}");
    }
    let (input, output) = (task.inputs()[0].to_owned(), task.output().expect("a folder").to_owned());
    // What it was given, it has.
    fs::read(&input).expect("the input is readable");
    fs::write(output.join("made"), b"x").expect("the output folder is writable");
    std::thread::spawn(|| ()).join().expect("threads can be started");

    tell("open the database", File::open(&outside.database));
    tell("open another video", File::open(&outside.other_video));
    tell("open /etc/passwd", File::open("/etc/passwd"));
    tell("list home", fs::read_dir("/root").or_else(|_| fs::read_dir("/home")));
    tell("write outside", fs::write(outside.folder.join("written"), b"x"));
    tell("write to the input", File::options().append(true).open(&input));
    tell("make a link to the outside", std::os::unix::fs::symlink("/etc", output.join("link")));
    tell("connect by TCP", TcpStream::connect(outside.listener));
    tell("make a UDP socket", UdpSocket::bind("127.0.0.1:0"));
    tell("make a unix socket", UnixDatagram::unbound());
    tell("fork", Command::new("/bin/true").spawn().and_then(|mut child| child.wait()));
    let parent = getppid().expect("someone started us");
    tell("trace the parent", ffi_ptrace::seize(parent));
    tell("signal the parent", test_kill_process(parent).map_err(io::Error::from));
    tell("read the parent's environment", environment_of(parent));
    tell("take more memory than it may", reserve(BLOCK_BYTES));
    // Last: where it succeeds, nothing of us is left.
    tell("execute a program", Err::<(), _>(Command::new("/bin/true").exec()));
}

fn tell<T>(what: &str, result: io::Result<T>) {
    match result {
        Ok(_) => println!("escaped: {what}"),
        Err(error) => println!("refused: {what}: {error}"),
    }
}

fn environment_of(process: Pid) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{process}/environ"))
}

fn reserve(bytes: usize) -> io::Result<()> {
    let mut block: Vec<u8> = Vec::new();
    block.try_reserve_exact(bytes).map_err(|_| io::ErrorKind::OutOfMemory.into())
}
