//! The storyboard: small pictures from all over the film on one sheet, and the WebVTT file that says which is when.

use std::fmt::Write as _;
use std::path::Path;

use domain::task::OutputFile;
use domain::{ObjectFile, Size};
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::chunk_file::output_file;
use crate::picture;
use crate::progress::Progress;
use crate::source::SourceFacts;
use crate::stills::{Renderer, Stills};

const TILES_MAX: u32 = 100;
/// The longer side of a tile.
const TILE_PX: u32 = 160;
/// Pixels decoded at most between keyframes, which films of up to two minutes have too few of: a hundred seconds of
/// 360p at sixty frames a second.
const PIXELS_MAX: u64 = 1_500_000_000;

/// Where tiles lie on the sheet, and how long each of them stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sheet {
    tile: Size,
    tiles: u32,
    columns: u32,
    duration_s: f64,
}

/// Writes the sprite and the cues. `starts_at_s` is when the film comes to the first instant of `input`, which may be
/// one track of it; `duration_s` is the film's. Cues name the sprite as `sprite_url`.
pub fn make(
    input: &Path,
    source: &SourceFacts,
    output: &Path,
    (starts_at_s, duration_s): (f64, f64),
    sprite_url: &str,
    progress: &Progress,
) -> Result<Vec<OutputFile>, TaskError> {
    let sheet = Sheet::new(source.video.size, duration_s);
    let rgb = sheet.draw(input, source, starts_at_s, progress)?;
    let sprite = picture::write_jpeg(&rgb, sheet.size(), ObjectFile::StoryboardSprite, output)?;
    let name = ObjectFile::StoryboardCues.to_string();
    std::fs::write(output.join(&name), sheet.cues(sprite_url))?;
    Ok(vec![output_file(output, name)?, sprite])
}

impl Sheet {
    /// A tile a second, until there are as many as may be.
    fn new(source: Size, duration_s: f64) -> Sheet {
        let tiles = (duration_s.round() as u32).clamp(1, TILES_MAX);
        let columns = f64::from(tiles).sqrt().ceil() as u32;
        Sheet { tile: picture::longer_side(source, TILE_PX), tiles, columns, duration_s }
    }

    fn size(&self) -> Size {
        let rows = self.tiles.div_ceil(self.columns);
        Size { width: self.columns * self.tile.width, height: rows * self.tile.height }
    }

    /// Left and top edge.
    fn place(&self, tile: u32) -> (u32, u32) {
        (tile % self.columns * self.tile.width, tile / self.columns * self.tile.height)
    }

    fn draw(
        &self,
        input: &Path,
        source: &SourceFacts,
        starts_at_s: f64,
        progress: &Progress,
    ) -> Result<Vec<u8>, TaskError> {
        let mut stills = Stills::open(input, source, PIXELS_MAX)?;
        let mut renderer = Renderer::new(source, self.tile);
        let interval_s = self.duration_s / f64::from(self.tiles);
        let ticks = |seconds: f64| (seconds * f64::from(source.video.clock.timescale)) as i64;
        let mut rgb = vec![0; self.size().pixels() as usize * 3];
        let mut shown = None;
        for tile in 0..self.tiles {
            let middle_s = (f64::from(tile) + 0.5) * interval_s - starts_at_s;
            let left = u64::from(self.tiles - tile);
            if let Some(frame) = stills.near(ticks(middle_s), ticks(interval_s / 2.0), left)? {
                shown = Some(renderer.render(frame)?);
            }
            let picture = match shown.take() {
                Some(picture) => picture,
                None => renderer.render(stills.first()?)?,
            };
            self.paste(&picture, tile, &mut rgb);
            shown = Some(picture);
            progress.report(f64::from(tile + 1) / f64::from(self.tiles));
        }
        Ok(rgb)
    }

    fn paste(&self, picture: &Video, tile: u32, rgb: &mut [u8]) {
        let (left, top) = self.place(tile);
        let (row_bytes, sheet_row_bytes) = (self.tile.width as usize * 3, self.size().width as usize * 3);
        let start = top as usize * sheet_row_bytes + left as usize * 3;
        let rows = rgb[start..].chunks_mut(sheet_row_bytes);
        for (row, drawn) in rows.zip(picture::packed(picture, 3).chunks(row_bytes)) {
            row[..row_bytes].copy_from_slice(drawn);
        }
    }

    /// https://www.w3.org/TR/webvtt1/, with media fragments of pictures as players read them.
    fn cues(&self, sprite_url: &str) -> String {
        // A cue that ends when it begins is none.
        let end_ms = ((self.duration_s * 1000.0).ceil() as u64).max(1);
        let instant_ms = |tile: u32| end_ms * u64::from(tile) / u64::from(self.tiles);
        let mut text = "WEBVTT\n".to_owned();
        for tile in 0..self.tiles {
            let (from, to) = (instant(instant_ms(tile)), instant(instant_ms(tile + 1)));
            let (left, top) = self.place(tile);
            let Size { width, height } = self.tile;
            let cue = write!(text, "\n{from} --> {to}\n{sprite_url}#xywh={left},{top},{width},{height}\n");
            cue.expect("a String takes every character");
        }
        text
    }
}

fn instant(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Size = Size { width: 1920, height: 1080 };

    #[test]
    fn a_tile_a_second_and_a_hundred_at_most() {
        for (duration_s, tiles, size) in [
            (0.04, 1, (160, 90)),
            (1.4, 1, (160, 90)),
            (2.0, 2, (320, 90)),
            (10.0, 10, (640, 270)),
            (99.9, 100, (1600, 900)),
            (7200.0, 100, (1600, 900)),
        ] {
            let sheet = Sheet::new(HD, duration_s);
            assert_eq!(
                (sheet.tiles, (sheet.size().width, sheet.size().height)),
                (tiles, size),
                "{duration_s}"
            );
        }
    }

    #[test]
    fn tiles_are_as_wide_or_as_high_as_they_may_be() {
        for (width, height, expected) in
            [(1080, 1920, (90, 160)), (1, 1, (160, 160)), (40, 30, (160, 120)), (8000, 10, (160, 1))]
        {
            let tile = Sheet::new(Size { width, height }, 1.0).tile;
            assert_eq!((tile.width, tile.height), expected, "{width}x{height}");
        }
    }

    #[test]
    fn cues_follow_each_other_to_the_end() {
        let sheet = Sheet::new(HD, 3.0304);
        assert_eq!(
            sheet.cues("a/storyboard.jpg"),
            "WEBVTT\n\n\
             00:00:00.000 --> 00:00:01.010\na/storyboard.jpg#xywh=0,0,160,90\n\n\
             00:00:01.010 --> 00:00:02.020\na/storyboard.jpg#xywh=160,0,160,90\n\n\
             00:00:02.020 --> 00:00:03.031\na/storyboard.jpg#xywh=0,90,160,90\n"
        );
        assert!(Sheet::new(HD, 7200.0).cues("").contains("01:58:48.000 --> 02:00:00.000\n"));
        assert!(Sheet::new(HD, 0.0).cues("").contains("00:00:00.000 --> 00:00:00.001\n"));
    }
}
