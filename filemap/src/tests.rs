use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

fn file_of(bytes: usize) -> (Vec<u8>, FileMap) {
    let content: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    (content, FileMap::new(file).unwrap())
}

#[test]
fn any_slice_of_it_is_found_and_nothing_else() {
    let (content, map) = file_of(10_000);
    let bytes = map.bytes();
    assert_eq!(bytes[..], content[..]);
    for range in [0..1, 0..10_000, 4095..4097, 9_999..10_000] {
        let extent = find(&bytes.slice(range.clone())).unwrap();
        assert_eq!(extent.range, range);
    }
    assert!(find(&bytes.slice(5..5)).is_none(), "of nothing there is nothing to send");
    assert!(find(&content).is_none());
}

#[test]
fn its_addresses_are_forgotten_with_the_last_of_its_bytes() {
    let (_, map) = file_of(100);
    let part = map.bytes().slice(10..20);
    let address = part.as_ptr().addr();
    let is_known = || registry::is_known(address);
    drop(map);
    assert!(is_known() && find(&part).is_some());
    drop(part);
    assert!(!is_known());
}

#[test]
fn an_empty_file_is_no_bytes() {
    let (_, map) = file_of(0);
    assert!(map.bytes().is_empty() && find(map.bytes()).is_none());
}

#[test]
fn what_was_written_is_warm_and_what_was_dropped_can_be_warmed() {
    let (_, map) = file_of(3 * CHUNK_BYTES + 5);
    let extent = |range| find(&map.bytes().slice(range)).unwrap();
    let warm_bytes = |extent: Extent| extent.warm_part().map_or(0, |warm| warm.bytes());
    for range in [0..10, CHUNK_BYTES..2 * CHUNK_BYTES, CHUNK_BYTES + 10..3 * CHUNK_BYTES + 5] {
        assert_eq!(warm_bytes(extent(range.clone())), range.len(), "over the ends of chunks");
    }
    assert_eq!(warm_bytes(extent(5..3 * CHUNK_BYTES)), 2 * CHUNK_BYTES, "not all at once");
    let cold = FileMap::new(map.file().try_clone().unwrap()).unwrap();
    let range = CHUNK_BYTES + 7..2 * CHUNK_BYTES - 3;
    cold.file().sync_all().unwrap();
    let drop_from = |offset: usize| {
        rustix::fs::fadvise(cold.file(), offset as u64, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    drop_from(2 * CHUNK_BYTES);
    let half_cold = warm_bytes(find(&cold.bytes().slice(CHUNK_BYTES + 7..)).unwrap());
    drop_from(0);
    let cold = FileMap::new(map.file().try_clone().unwrap()).unwrap();
    let of_cold = find(&cold.bytes().slice(range.clone())).unwrap();
    if of_cold.warm_part().is_some() {
        eprintln!("SKIPPED: this file system keeps what it was told to drop");
        return;
    }
    assert_eq!(half_cold, CHUNK_BYTES - 7, "up to what is cold");
    of_cold.warm().unwrap();
    assert_eq!(warm_bytes(of_cold), range.len());
}

#[test]
fn the_kernel_sends_what_the_slice_says() {
    let (content, map) = file_of(3 * CHUNK_BYTES);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let range = CHUNK_BYTES - 100..2 * CHUNK_BYTES + 100;
    let mut rest = map.bytes().slice(range.clone());
    let reading = std::thread::spawn(move || {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map(|_| read)
    });
    let before = sent_bytes();
    while !rest.is_empty() {
        let extent = find(&rest).unwrap().first_chunk();
        assert!(extent.range.len() <= CHUNK_BYTES);
        let sent = extent.send_to(&socket).unwrap();
        let _ = rest.split_to(sent);
    }
    drop(socket);
    assert_eq!(reading.join().unwrap().unwrap(), content[range.clone()]);
    assert!(sent_bytes() - before >= range.len() as u64);
}

#[test]
fn a_file_that_was_shortened_is_an_error() {
    let (_, map) = file_of(2 * CHUNK_BYTES);
    map.file().set_len(10).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let beyond = find(&map.bytes().slice(CHUNK_BYTES..CHUNK_BYTES + 1)).unwrap();
    assert_eq!(beyond.send_to(&socket).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(beyond.warm().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
