//! `sluice healthcheck`: asks a service on this machine whether it is ready. Containers run it, so that their image
//! needs no other program for it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The checks behind `/readyz` give up earlier and say which of them it was.
const ANSWER_S_MAX: u64 = 5;
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What the ops listener says; the error as well is for a person.
pub fn ask(ops_listen: SocketAddr) -> Result<String, String> {
    if ops_listen.port() == 0 {
        return Err("SLUICE_OPS_LISTEN has port 0: only the service knows which one it was given.".to_owned());
    }
    let address = reachable(ops_listen);
    let answer =
        ready(address).map_err(|error| format!("{address} (SLUICE_OPS_LISTEN) does not answer: {error}"))?;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    // HTTP/1.1 200 OK
    match head.split(' ').nth(1) {
        Some("200") => Ok(text.trim().to_owned()),
        Some("503") => Err(text.trim().to_owned()),
        _ => Err(format!("{address} (SLUICE_OPS_LISTEN) is something else than a service of Sluice.")),
    }
}

/// A listener on every address is on this machine's own as well.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ready(address: SocketAddr) -> io::Result<String> {
    let answer_max = Duration::from_secs(ANSWER_S_MAX);
    let mut stream = TcpStream::connect_timeout(&address, answer_max)?;
    stream.set_read_timeout(Some(answer_max))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    /// What a server that answers the one request with `answer` makes of us.
    fn asked_of(answer: &'static str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(request.next().unwrap().unwrap(), "GET /readyz HTTP/1.1");
            assert!(request.any(|line| line.unwrap().is_empty()), "the end of the head");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let said = ask(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        server.join().unwrap();
        said
    }

    #[test]
    fn ready_is_good_and_anything_else_is_not() {
        assert_eq!(asked_of("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"), Ok("ok".to_owned()));
        let busy =
            asked_of("HTTP/1.1 503 Service Unavailable\r\n\r\n[-]store failed: disk full\nnot ready\n");
        assert_eq!(busy, Err("[-]store failed: disk full\nnot ready".to_owned()));
        assert!(asked_of("SSH-2.0-OpenSSH_9.2\r\n").unwrap_err().contains("something else"));
        assert!(asked_of("").unwrap_err().contains("something else"));
    }

    #[test]
    fn nobody_there_is_told_with_address_and_setting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let said = ask(address).unwrap_err();
        assert!(said.contains(&address.to_string()) && said.contains("SLUICE_OPS_LISTEN"), "{said}");
    }

    #[test]
    fn a_port_that_nobody_knows_is_told() {
        assert!(ask("127.0.0.1:0".parse().unwrap()).unwrap_err().contains("port 0"));
    }

    #[test]
    fn every_address_is_reached_on_our_own() {
        assert_eq!(reachable("[::]:8010".parse().unwrap()), "[::1]:8010".parse().unwrap());
        assert_eq!(reachable("10.0.0.7:8010".parse().unwrap()), "10.0.0.7:8010".parse().unwrap());
    }
}
