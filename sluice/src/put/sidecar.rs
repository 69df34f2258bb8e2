//! What is remembered of an upload that was begun: a small file beside the film, until the upload is complete.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Film;

pub struct Sidecar {
    path: PathBuf,
}

/// An upload under way.
#[derive(Serialize, Deserialize)]
pub struct Begun {
    pub server: String,
    pub username: String,
    pub video: String,
    /// Its address.
    pub upload: String,
}

#[derive(Serialize, Deserialize)]
struct Note {
    bytes: u64,
    modified_ms: u64,
    begun: Begun,
}

impl Sidecar {
    pub fn beside(film: &Path) -> Sidecar {
        let mut path = film.as_os_str().to_owned();
        path.push(".sluice-upload");
        Sidecar { path: path.into() }
    }

    /// The upload of this very film to this service. A note that makes no sense is none.
    pub fn of(&self, film: &Film, server: &str) -> Option<Begun> {
        let note: Note = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        let same = (note.bytes, note.modified_ms) == (film.bytes, film.modified_ms);
        (same && note.begun.server == server).then_some(note.begun)
    }

    pub fn write(&self, film: &Film, begun: &Begun) -> anyhow::Result<()> {
        let note =
            serde_json::json!({ "bytes": film.bytes, "modified_ms": film.modified_ms, "begun": begun });
        std::fs::write(&self.path, note.to_string())
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }

    pub fn remove(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("{} is of no use any more, and stays: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_gone_on_with_while_film_and_service_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mp4");
        std::fs::write(&path, b"film").unwrap();
        let (film, sidecar) = (Film::open(&path).unwrap(), Sidecar::beside(&path));
        let server = "http://127.0.0.1:8000/";
        assert!(sidecar.of(&film, server).is_none());
        let begun = Begun {
            server: server.to_owned(),
            username: "ada".to_owned(),
            video: "v".to_owned(),
            upload: "/u".to_owned(),
        };
        sidecar.write(&film, &begun).unwrap();
        assert_eq!(sidecar.of(&film, server).unwrap().upload, "/u");
        assert!(sidecar.of(&film, "http://127.0.0.1:8001/").is_none());
        assert!(sidecar.of(&Film { bytes: 5, ..Film::open(&path).unwrap() }, server).is_none());
        assert!(sidecar.of(&Film { modified_ms: 5, ..film }, server).is_none());
        std::fs::write(folder.path().join("clip.mp4.sluice-upload"), b"{").unwrap();
        let film = Film::open(&path).unwrap();
        assert!(sidecar.of(&film, server).is_none());
        sidecar.remove();
        sidecar.remove();
    }
}
