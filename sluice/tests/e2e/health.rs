//! What runs around a process learns from it: container health checks and service managers.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::{Program, sluice_command};

#[test]
fn healthcheck_asks_the_ops_listener() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start("sluice", folder.path(), "log", &[]);
    let ops = program.ops.strip_prefix("http://").unwrap().to_owned();
    let ask = || {
        let mut command = sluice_command(folder.path());
        command.env("SLUICE_OPS_LISTEN", &ops).args(["healthcheck", "--service", "streamserver"]);
        command.output().unwrap()
    };
    let output = ask();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"ok\n");

    assert!(program.terminate().success());
    let output = ask();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&ops));
}

#[test]
fn a_service_manager_is_told_of_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).expect("a message within 30 s");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let settings = [("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned())];
    let mut program = Program::start("sluice", folder.path(), "log", &settings);
    assert_eq!(hear(), "READY=1");
    assert!(program.terminate().success());
    assert_eq!(hear(), "STOPPING=1");
}
