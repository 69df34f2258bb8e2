//! Covers and storyboards of generated films, judged by what their pixels show.

use std::path::PathBuf;

use domain::task::MediaLimits;
use image::RgbImage;

use crate::progress::Progress;
use crate::source::{self, SourceFacts};
use crate::test_clips::make;
use crate::{cover, storyboard};

const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

struct Film {
    folder: tempfile::TempDir,
    clip: PathBuf,
    facts: SourceFacts,
}

/// A cue of the WebVTT file and what it shows.
struct Tile {
    from_s: f64,
    to_s: f64,
    picture: RgbImage,
}

impl Film {
    fn new(name: &str, line: &str) -> Film {
        let folder = tempfile::tempdir().unwrap();
        let clip = make(folder.path(), name, line);
        Film::of(folder, clip)
    }

    fn of(folder: tempfile::TempDir, clip: PathBuf) -> Film {
        let limits = MediaLimits { duration_s_max: 7200.0, pixels_max: 35_389_440, streams_max: 16 };
        let facts = source::open(&clip, &limits).unwrap().facts;
        Film { folder, clip, facts }
    }

    /// The widest one, as JPEG, which WebP has to look like.
    fn cover(&self, at_s: Option<f64>) -> RgbImage {
        let covers = cover::take(&self.clip, &self.facts, self.folder.path(), at_s).unwrap().covers;
        let open = |format: &str| {
            let name = format!("cover-{}.{format}", covers.width_max);
            image::open(self.folder.path().join(name)).unwrap().to_rgb8()
        };
        let (jpeg, webp) = (open("jpg"), open("webp"));
        assert_eq!(jpeg.dimensions(), webp.dimensions());
        let different = (0..3).map(|channel| (mean(&jpeg, channel) - mean(&webp, channel)).abs());
        assert!(different.fold(0.0, f64::max) < 6.0, "JPEG and WebP have other colours");
        jpeg
    }

    fn storyboard(&self) -> Vec<Tile> {
        self.storyboard_of(0.0, self.facts.duration_s)
    }

    fn storyboard_of(&self, starts_at_s: f64, duration_s: f64) -> Vec<Tile> {
        let (folder, times_s) = (self.folder.path(), (starts_at_s, duration_s));
        let progress = Progress::silent();
        let files = storyboard::make(&self.clip, &self.facts, folder, times_s, "x/storyboard.jpg", &progress)
            .unwrap();
        assert_eq!(files.len(), 2);
        let sprite = image::open(folder.join("storyboard.jpg")).unwrap().to_rgb8();
        let cues = std::fs::read_to_string(folder.join("storyboard.vtt")).unwrap();
        let blocks: Vec<&str> = cues.trim_end().split("\n\n").collect();
        assert_eq!(blocks[0], "WEBVTT");
        let tiles: Vec<Tile> = blocks[1..].iter().map(|block| tile(block, &sprite)).collect();
        assert!(tiles.len() <= 100);
        assert_eq!(tiles[0].from_s, 0.0);
        assert!(tiles.windows(2).all(|pair| pair[0].to_s == pair[1].from_s && pair[0].from_s < pair[0].to_s));
        assert!((tiles[tiles.len() - 1].to_s - duration_s).abs() < 0.0011);
        tiles
    }
}

fn tile(block: &str, sprite: &RgbImage) -> Tile {
    let (times, picture) = block.split_once('\n').unwrap();
    let (from, to) = times.split_once(" --> ").unwrap();
    let place = picture.strip_prefix("x/storyboard.jpg#xywh=").unwrap();
    let [x, y, width, height] = place.split(',').map(|n| n.parse().unwrap()).collect::<Vec<u32>>()[..] else {
        panic!("{place}")
    };
    assert!(x + width <= sprite.width() && y + height <= sprite.height(), "{place} is not on the sheet");
    assert_eq!(width.max(height), 160);
    let picture = image::imageops::crop_imm(sprite, x, y, width, height).to_image();
    Tile { from_s: seconds(from), to_s: seconds(to), picture }
}

fn seconds(instant: &str) -> f64 {
    instant.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

fn brightness(picture: &RgbImage) -> f64 {
    mean(picture, 1)
}

fn mean(picture: &RgbImage, channel: usize) -> f64 {
    picture.pixels().map(|pixel| f64::from(pixel.0[channel])).sum::<f64>()
        / f64::from(picture.width() * picture.height())
}

fn assert_alike(a: &RgbImage, at_a: (u32, u32), b: &RgbImage, at_b: (u32, u32)) {
    let (found, expected) = (a.get_pixel(at_a.0, at_a.1).0, b.get_pixel(at_b.0, at_b.1).0);
    // At the edge of the gamut filters differ from processor to processor; what is not mapped is off by far more.
    assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 32), "{found:?} {expected:?}");
}

/// A grey film that gets brighter by `step` levels at the beginning of each `every_s`.
fn brightening(seconds: u32, rate: &str, every_s: u32, step: u32, more: &str) -> String {
    format!(
        "-f lavfi -i color=black:s=320x180:r={rate}:d={seconds} \
         -vf geq=lum='16+{step}*floor(T/{every_s})':cb=128:cr=128 {X264} {more}"
    )
}

/// Of full range, as the picture shows it.
fn level(steps: u32, step: u32) -> f64 {
    f64::from(steps * step) * 255.0 / 219.0
}

#[test]
fn a_film_that_begins_black_has_no_black_cover() {
    // Six minutes of black, and then ten seconds of something.
    let line = format!(
        "-f lavfi -i color=black:s=320x240:r=5:d=362 -f lavfi -i testsrc2=s=320x240:r=5:d=10 \
         -filter_complex concat {X264} -g 50"
    );
    let film = Film::new("clip.mp4", &line);
    assert!(brightness(&film.cover(None)) > 40.0);
    assert!(brightness(&film.cover(Some(1.0))) < 10.0, "what the author asked for");
    let tiles = film.storyboard();
    assert_eq!(tiles.len(), 100);
    let bright = tiles.iter().filter(|tile| brightness(&tile.picture) > 40.0).count();
    assert!((2..=4).contains(&bright), "{bright} of 100 tiles");
}

#[test]
fn a_film_that_is_black_has_a_black_cover() {
    let film = Film::new("clip.mp4", &format!("-f lavfi -i color=black:s=320x240:r=5:d=8 {X264}"));
    assert!(brightness(&film.cover(None)) < 10.0);
    assert_eq!(film.storyboard().len(), 8);
}

#[test]
fn one_frame_is_a_cover_and_a_storyboard() {
    for name in ["clip.mp4", "clip.avi"] {
        let line = format!("-f lavfi -i testsrc2=s=320x240:r=25 -frames:v 1 {X264}");
        let film = Film::new(name, &line);
        let cover = film.cover(None);
        let tiles = film.storyboard();
        assert_eq!((tiles.len(), tiles[0].picture.dimensions()), (1, (160, 120)), "{name}");
        assert!((brightness(&tiles[0].picture) - brightness(&cover)).abs() < 8.0, "{name}");
    }
}

#[test]
fn tiles_show_the_film_at_their_times() {
    for more in ["-g 1000", "-g 20", "-g 7 -bf 2 -preset veryfast"] {
        let film = Film::new("clip.mp4", &brightening(8, "20", 1, 25, more));
        let tiles = film.storyboard();
        assert_eq!(tiles.len(), 8);
        for (n, tile) in (0..).zip(&tiles) {
            let found = brightness(&tile.picture);
            assert!((found - level(n, 25)).abs() < 8.0, "{more}: {found} in tile {n}");
        }
    }
}

#[test]
fn long_films_with_few_keyframes_are_decoded_on_the_way() {
    let film = Film::new("clip.mkv", &brightening(600, "2", 6, 2, "-g 100000"));
    let tiles = film.storyboard();
    assert_eq!(tiles.len(), 100);
    for (n, tile) in (0..).zip(&tiles) {
        let found = brightness(&tile.picture);
        assert!((found - level(n, 2)).abs() < 6.0, "{found} in tile {n}");
    }
}

#[test]
fn a_picture_stays_for_as_long_as_it_is_shown() {
    // A slide show: a picture every ten seconds.
    for more in ["-g 1", "-g 1000"] {
        let film = Film::new("clip.mp4", &brightening(60, "1/10", 10, 35, more));
        for tile in film.storyboard() {
            let found = brightness(&tile.picture);
            let slide = (tile.from_s / 10.0).floor() as u32;
            assert!((found - level(slide, 35)).abs() < 8.0, "{more}: {found} at {}", tile.from_s);
        }
    }
}

#[test]
fn a_track_that_begins_later_than_its_film_is_shown_later() {
    let film = Film::new("clip.mp4", &brightening(4, "20", 1, 50, "-g 20"));
    let tiles = film.storyboard_of(2.0, 7.0);
    let found: Vec<u32> =
        tiles.iter().map(|tile| (brightness(&tile.picture) / level(1, 50)).round() as u32).collect();
    assert_eq!(found, [0, 0, 0, 1, 2, 3, 3]);
}

#[test]
fn turned_pictures_are_upright() {
    let line = format!(
        "-f lavfi -i color=red:s=640x480:r=10:d=3 -f lavfi -i color=blue:s=640x480:r=10:d=3 \
         -filter_complex hstack,scale=960:480,setsar=1 {X264}"
    );
    let plain = Film::new("plain.mp4", &line);
    let turned = make(plain.folder.path(), "turned.mp4", "-i plain.mp4 -c copy -metadata:s:v rotate=90");
    let film = Film::of(plain.folder, turned);
    // The program turns pictures by itself when it decodes.
    let upright = make(film.folder.path(), "upright.png", "-i turned.mp4 -frames:v 1");
    let upright = image::open(upright).unwrap().to_rgb8();
    assert_eq!(upright.dimensions(), (480, 960));
    let cover = film.cover(None);
    assert_eq!(cover.dimensions(), (480, 960));
    let tiles = film.storyboard();
    assert_eq!((tiles.len(), tiles[2].picture.dimensions()), (3, (80, 160)));
    for y in [1, 8] {
        assert_alike(&cover, (240, y * 100), &upright, (240, y * 100));
        assert_alike(&tiles[2].picture, (40, y * 16), &upright, (240, y * 100));
    }
}

#[test]
fn pictures_of_more_than_a_screen_shows_are_mapped_to_it() {
    let line = "-f lavfi -i smptebars=s=640x360:r=10:d=2 -vf zscale=pin=bt709:tin=bt709:min=bt709:rin=limited:\
                p=bt2020:t=smpte2084:m=bt2020nc:r=limited:npl=200,format=yuv420p10le \
                -c:v libx264 -preset ultrafast -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    let film = Film::new("clip.mp4", line);
    let mapped = make(
        film.folder.path(),
        "mapped.png",
        "-i clip.mp4 -frames:v 1 -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,\
         zscale=t=bt709:m=bt709:r=limited,format=yuv444p,scale=in_color_matrix=bt709:out_range=full,format=rgb24",
    );
    let mapped = image::open(mapped).unwrap().to_rgb8();
    let cover = film.cover(None);
    let tiles = film.storyboard();
    // One place in each of the seven bars.
    for bar in 0..7 {
        let x = 45 + bar * 91;
        let at_cover = (x * cover.width() / 640, cover.height() / 4);
        assert_alike(&cover, at_cover, &mapped, (x, 90));
        assert_alike(&tiles[0].picture, (x / 4, 22), &mapped, (x, 90));
    }
}
