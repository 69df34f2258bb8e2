//! For tests: clips made and judged by the `ffmpeg` and `ffprobe` programs, which know nothing of this crate.

use std::path::{Path, PathBuf};
use std::process::Command;

use domain::{Layout, Piece, RenditionIndex};

/// Runs `ffmpeg` with the arguments of `line`, separated by blanks, in `folder`; returns the path of `name`.
pub fn make(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    let args = line.split_whitespace();
    let run = Command::new("ffmpeg")
        .current_dir(folder)
        .args(["-v", "error", "-nostdin", "-y", "-threads", "2"])
        .args(args)
        .arg(&path)
        .output()
        .expect("ffmpeg is installed for tests");
    assert!(run.status.success(), "ffmpeg {line}: {}", String::from_utf8_lossy(&run.stderr));
    path
}

/// One line for each entry, `key=value` separated by `|`.
pub fn probe(path: &Path, line: &str) -> String {
    let args = line.split_whitespace();
    let run = Command::new("ffprobe")
        .args(["-v", "error", "-of", "compact=p=0"])
        .args(args)
        .arg(path)
        .output()
        .expect("ffprobe is installed for tests");
    assert!(run.status.success(), "ffprobe {line}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("ffprobe writes UTF-8")
}

/// The values of one key in what [`probe`] returns, as numbers; what is not a number is left out.
pub fn numbers(probed: &str, key: &str) -> Vec<f64> {
    let prefix = format!("{key}=");
    let fields = probed.split(['|', '\n']).filter_map(|field| field.strip_prefix(&prefix));
    fields.filter_map(|value| value.parse().ok()).collect()
}

/// What `ffmpeg` complains about when it decodes all of a file.
pub fn complaints(path: &Path) -> String {
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed for tests");
    String::from_utf8_lossy(&run.stderr).into_owned()
}

/// Digests of every decoded picture, in order.
pub fn picture_digests(path: &Path) -> Vec<String> {
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-noautorotate", "-i"])
        .arg(path)
        .args(["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output()
        .expect("ffmpeg is installed for tests");
    let text = String::from_utf8(run.stdout).expect("framemd5 is text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(',').next()).map(|digest| digest.trim().to_owned()).collect()
}

/// The bytes a layout stands for, as a file.
pub fn materialise(layout: &Layout, index: &RenditionIndex, folder: &Path, name: &str) -> PathBuf {
    let files: Vec<Vec<u8>> =
        index.files.iter().map(|name| std::fs::read(folder.join(name)).expect("a named file")).collect();
    let mut bytes = Vec::new();
    for piece in &layout.pieces {
        match piece {
            Piece::Inline(inline) => bytes.extend(inline),
            Piece::Extent(file, offset, length) => {
                let start = *offset as usize;
                bytes.extend(&files[usize::from(*file)][start..start + *length as usize]);
            }
        }
    }
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("write a file");
    path
}
