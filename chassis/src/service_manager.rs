//! Tells the service manager that started us how far we are, as sd_notify(3) has it: systemd holds back what depends on a
//! unit of `Type=notify` until it hears that it is ready.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where it listens; `None` where nobody asked to be told.
pub struct ServiceManager {
    address: Option<SocketAddr>,
}

impl ServiceManager {
    /// The one that started this process.
    #[allow(clippy::disallowed_methods)] // Only chassis reads the environment.
    pub fn of_process() -> ServiceManager {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(socket) => ServiceManager::at(&socket),
            None => ServiceManager { address: None },
        }
    }

    /// `socket` is a path, or with an `@` in front a name in the abstract name space.
    fn at(socket: &OsStr) -> ServiceManager {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(socket),
        };
        if let Err(error) = &address {
            tracing::warn!(%error, ?socket, "NOTIFY_SOCKET is no address of a socket");
        }
        ServiceManager { address: address.ok() }
    }

    /// We serve from now on.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// We were asked to stop and finish what is in hand.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Who does not listen to us is not our trouble.
    fn tell(&self, state: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(state.as_bytes(), address)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, state, "the service manager cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn hear(socket: &UnixDatagram) -> io::Result<String> {
        let mut bytes = [0; 64];
        socket.set_nonblocking(true)?;
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn a_path_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path.as_os_str());
        manager.ready();
        assert_eq!(hear(&socket).unwrap(), "READY=1");
        manager.stopping();
        assert_eq!(hear(&socket).unwrap(), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_is_told() {
        let name = format!("sluice-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        ServiceManager::at(format!("@{name}").as_ref()).ready();
        assert_eq!(hear(&socket).unwrap(), "READY=1");
    }

    #[test]
    fn nobody_there_is_no_trouble() {
        ServiceManager { address: None }.ready();
        ServiceManager::at("/nonexistent/notify".as_ref()).ready();
        ServiceManager::at(OsStr::from_bytes(&[b'x'; 300])).ready();
    }
}
