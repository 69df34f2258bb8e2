//! How much the kernel keeps of an answer before it can send it: about what its reader takes within a second. The kernel
//! has only so much for all connections together, and drops what comes when some thousand slow readers have used it up;
//! a reader is not slower for having less of it.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// For a reader that nobody knows yet, or that is slow.
const BYTES_MIN: u32 = 128 * 1024;
/// What the kernel's buffers hold at most, as it comes: for quick readers, who cost fewer calls with it.
const BYTES_MAX: u32 = 4 * 1024 * 1024;
/// There is room for half of it, and the kernel says so.
const QUICK: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_millis(1500);

/// A connection's share.
pub(crate) struct Unsent {
    bytes_max: u32,
}

impl Unsent {
    pub fn of(stream: &TcpStream) -> Unsent {
        bound(stream, BYTES_MIN);
        Unsent { bytes_max: BYTES_MIN }
    }

    /// There is room again, after so long.
    pub fn waited(&mut self, stream: &TcpStream, waited: Duration) {
        let bytes_max = match waited {
            waited if waited < QUICK => (self.bytes_max * 2).min(BYTES_MAX),
            waited if waited > SLOW => (self.bytes_max / 2).max(BYTES_MIN),
            _ => self.bytes_max,
        };
        if bytes_max != self.bytes_max {
            bound(stream, bytes_max);
            self.bytes_max = bytes_max;
        }
    }
}

/// A system that knows no such bound keeps what its buffers hold.
fn bound(stream: &TcpStream, bytes: u32) {
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;

    #[tokio::test]
    async fn quick_readers_get_more_and_slow_ones_less() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut unsent = Unsent::of(&stream);
        let bound = || SockRef::from(&stream).tcp_notsent_lowat().unwrap();
        assert_eq!(bound(), 128 * KIB);
        let mut after_ms = |ms: &[u64]| {
            ms.iter().for_each(|ms| unsent.waited(&stream, Duration::from_millis(*ms)));
            bound()
        };
        assert_eq!(after_ms(&[2000, 1000]), 128 * KIB);
        assert_eq!(after_ms(&[400, 1]), 512 * KIB);
        assert_eq!(after_ms(&[600, 1400]), 512 * KIB);
        assert_eq!(after_ms(&[1600]), 256 * KIB);
        assert_eq!(after_ms(&[1; 10]), 4096 * KIB);
        assert_eq!(after_ms(&[2000; 10]), 128 * KIB);
    }
}
