//! The table that a person reads.

use std::fmt;

use domain::task::RenditionOutput;

use crate::measure::{Likeness, Probed};

pub const HEADER: &str = "\
| file | end | rendition | shown, turned | frames (source) | seconds | sound later by | pictures against FFmpeg's, Y U V | private texts |
|---|---|---|---|---|---|---|---|---|";

/// A file and all that came of it.
#[derive(Default)]
pub struct Line {
    pub file: String,
    pub end: String,
    pub frames_before: u64,
    /// Texts of the source that were looked for in every output.
    pub private: usize,
    /// How often one of them, or a name under which such things are written, was found.
    pub private_found: usize,
    pub renditions: Vec<Cell>,
}

/// One rendition, as the file that a viewer would download.
pub struct Cell {
    pub rendition: RenditionOutput,
    pub copied: bool,
    pub after: Probed,
    /// In milliseconds, and whether it was heard.
    pub shift: Option<(f64, bool)>,
    pub likeness: Option<Likeness>,
}

impl Line {
    pub fn of(file: &str) -> Line {
        Line { file: file.to_owned(), ..Line::default() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.renditions.is_empty() {
            return write!(f, "| {} | {} | | | | | | | |", self.file, self.end);
        }
        for (number, cell) in self.renditions.iter().enumerate() {
            let (file, end) = if number == 0 { (self.file.as_str(), self.end.as_str()) } else { ("", "") };
            let private = if number == 0 {
                format!("{} of {}", self.private_found, self.private)
            } else {
                String::new()
            };
            let separator = if number == 0 { "" } else { "\n" };
            write!(
                f,
                "{separator}| {file} | {end} | {cell} | {private} |",
                cell = cell.text(self.frames_before)
            )?;
        }
        Ok(())
    }
}

impl Cell {
    fn text(&self, frames_before: u64) -> String {
        let shown = self.after.shown();
        let how = if self.copied { "copied" } else { "encoded" };
        let shift = match self.shift {
            Some((ms, true)) => format!("{ms:+.1} ms"),
            Some((ms, false)) => format!("{ms:+.1} ms, by timestamps"),
            None if self.after.has_sound() => "?".to_owned(),
            None => "no sound".to_owned(),
        };
        let likeness = self.likeness.as_ref().map_or(String::new(), |likeness| {
            let [y, u, v] = likeness.psnr_db;
            let [y_mean, u_mean, v_mean] = likeness.mean;
            format!("{y:.0} {u:.0} {v:.0} dB; mean {y_mean:+.1} {u_mean:+.1} {v_mean:+.1}")
        });
        format!(
            "{}, {how} | {}×{}, {}° | {} ({frames_before}) | {:.3} | {shift} | {likeness}",
            self.rendition.name,
            shown.width,
            shown.height,
            self.after.rotation_degrees(),
            self.after.frames(),
            self.after.duration_s(),
        )
    }
}

/// The file that the campaign writes.
pub fn page(lines: &[Line]) -> String {
    let rows: Vec<String> = lines.iter().map(Line::to_string).collect();
    format!(
        "# The folder of real files\n\n\
         `make campaign-corpus`: every file through the transcoder's children (ingest, encode, assemble, storyboard), and \
         each rendition\nput together as a viewer would download it, then measured by `ffprobe` and `ffmpeg` of Debian 12.\n\n\
         - Sound: a second of the source's is looked for in the rendition's, both counted from the first picture (limit \
         20 ms); where it is silent\n  the timestamps are compared.\n\
         - Pictures: the first eight of an encoded rendition against those that FFmpeg's own filters make of the source: peak \
         signal to noise (limit\n  26 dB of luma), and mean of the plane minus mean of the reference in steps of 8 bits. \
         HDR is tone-mapped for the reference by `zscale` and\n  `tonemap=hable`, white at 100 cd/m² (limit 2.5 steps in each \
         plane); interlaced pictures go through `bwdif`; where the source does not say its matrix, it is BT.709 from 1280×577 \
         on and BT.601 below.\n\
         - Private texts: what the source says of position, time and device, looked for in the bytes of every file that may \
         be published,\n  together with the names under which such things are written.\n\n{HEADER}\n{}\n",
        rows.join("\n")
    )
}
