//! What the cues of a storyboard say, for players that want it in another form. The cues are all that is stored: what else
//! there is, is read from them.

use domain::Size;
use serde::Serialize;

/// One sprite with pictures of equal size, in rows from the left, of equal stretches of the film.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    pub tile: Size,
    /// In the order of the film; never empty.
    pub tiles: Vec<Tile>,
    /// Never 0.
    pub end_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    pub start_ms: u64,
    /// From the left and from the top, in pixels.
    pub x: u32,
    pub y: u32,
}

/// What players show while a viewer looks for a place, as playlists and manifests name it.
pub struct Pictures<'a> {
    pub sheet: &'a Sheet,
    /// Where it is, and how long it is.
    pub sprite: String,
    pub sprite_bytes: u64,
    /// Where HLS lists it.
    pub playlist: String,
}

/// As Mux names things, which is what other players read.
#[derive(Serialize)]
struct Storyboard<'a> {
    url: &'a str,
    tile_width: u32,
    tile_height: u32,
    /// In seconds, as all times.
    duration: f64,
    tiles: Vec<StoryboardTile>,
}

#[derive(Serialize)]
struct StoryboardTile {
    start: f64,
    x: u32,
    y: u32,
}

impl Sheet {
    /// `None`: not what the transcoder writes.
    pub fn parse(cues: &str) -> Option<Sheet> {
        let mut sheet: Option<Sheet> = None;
        let mut lines = cues.lines();
        while let Some(line) = lines.next() {
            let Some((from, to)) = line.split_once(" --> ") else { continue };
            let (_, place) = lines.next()?.split_once("#xywh=")?;
            let place: Vec<u32> = place.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
            let [x, y, width, height] = place[..] else { return None };
            let sheet = sheet.get_or_insert_with(|| Sheet {
                tile: Size { width, height },
                tiles: Vec::new(),
                end_ms: 0,
            });
            sheet.tiles.push(Tile { start_ms: milliseconds(from)?, x, y });
            sheet.end_ms = milliseconds(to)?;
        }
        sheet.filter(|sheet| sheet.tile.pixels() > 0 && sheet.end_ms > 0)
    }

    /// About what it holds in memory.
    pub fn weight_bytes(&self) -> usize {
        size_of::<Sheet>() + size_of_val(&self.tiles[..])
    }

    pub fn columns(&self) -> u32 {
        self.tiles.iter().map(|tile| tile.x / self.tile.width + 1).max().unwrap_or(1)
    }

    pub fn rows(&self) -> u32 {
        self.tiles.iter().map(|tile| tile.y / self.tile.height + 1).max().unwrap_or(1)
    }

    /// `url` is the sprite's. Players take no relative one here.
    pub fn json(&self, url: &str) -> String {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let tile = |tile: &Tile| StoryboardTile { start: seconds(tile.start_ms), x: tile.x, y: tile.y };
        let storyboard = Storyboard {
            url,
            tile_width: self.tile.width,
            tile_height: self.tile.height,
            duration: seconds(self.end_ms),
            tiles: self.tiles.iter().map(tile).collect(),
        };
        serde_json::to_string(&storyboard).expect("made of numbers and text")
    }
}

/// `HH:MM:SS.mmm`, the hours only where there are some.
fn milliseconds(instant: &str) -> Option<u64> {
    let (whole, thousandths) = instant.trim().split_once('.')?;
    let mut seconds = 0_u64;
    for part in whole.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    seconds.checked_mul(1000)?.checked_add(thousandths.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUES: &str = "WEBVTT\n\n\
        00:00:00.000 --> 00:00:01.010\na/storyboard.jpg#xywh=0,0,160,90\n\n\
        00:00:01.010 --> 00:00:02.020\na/storyboard.jpg#xywh=160,0,160,90\n\n\
        00:00:02.020 --> 01:00:03.031\na/storyboard.jpg#xywh=0,90,160,90\n";

    #[test]
    fn cues_make_a_sheet() {
        let sheet = Sheet::parse(CUES).unwrap();
        assert_eq!(sheet.end_ms, 3_603_031);
        assert_eq!((sheet.columns(), sheet.rows(), sheet.tile.width, sheet.tile.height), (2, 2, 160, 90));
        assert_eq!(sheet.tiles[2], Tile { start_ms: 2020, x: 0, y: 90 });
    }

    #[test]
    fn what_is_no_storyboard_makes_none() {
        for bad in [
            "",
            "WEBVTT\n",
            "00:00.000 --> 00:01.000\na.jpg\n",
            "00:00.000 --> 00:01.000\na.jpg#xywh=0,0,0,90\n",
            "00:00.000 --> 00:01.000\na.jpg#xywh=0,0,90\n",
            "00:00.000 --> 00:00.000\na.jpg#xywh=0,0,160,90\n",
            "x --> 00:01.000\na.jpg#xywh=0,0,160,90\n",
            "00:00.000 --> 00:01.000",
        ] {
            assert_eq!(Sheet::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn json_is_as_mux_has_it() {
        let json = Sheet::parse(CUES).unwrap().json("https://v.example/a/storyboard.jpg");
        assert_eq!(
            json,
            "{\"url\":\"https://v.example/a/storyboard.jpg\",\"tile_width\":160,\"tile_height\":90,\
             \"duration\":3603.031,\"tiles\":[{\"start\":0.0,\"x\":0,\"y\":0},{\"start\":1.01,\"x\":160,\"y\":0},\
             {\"start\":2.02,\"x\":0,\"y\":90}]}"
        );
    }
}
