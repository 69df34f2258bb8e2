//! What came out, measured by FFmpeg's own programs, and never by our own index.

use std::path::{Path, PathBuf};
use std::process::Command;

use domain::task::RenditionOutput;
use domain::{Piece, RenditionIndex, Size};
use serde_json::Value;

use crate::child::Made;

/// The plain MP4 that a viewer would download, put together as its layout says.
pub fn progressive(made: &Made, rendition: &RenditionOutput, source: &Path, into: &Path) -> PathBuf {
    let folder = made.folder_of(rendition);
    let index = std::fs::read(folder.join(format!("{}.index.json", rendition.name))).unwrap();
    let index: RenditionIndex = serde_json::from_slice(&index).unwrap();
    let read = |name: &String| {
        let path = if name == "source" { source.to_owned() } else { folder.join(name) };
        std::fs::read(path).unwrap()
    };
    let files: Vec<Vec<u8>> = index.files.iter().map(read).collect();
    let mut film = Vec::new();
    for piece in &index.progressive.pieces {
        match piece {
            Piece::Inline(bytes) => film.extend(bytes),
            Piece::Extent(file, offset, bytes) => {
                let start = *offset as usize;
                film.extend(&files[usize::from(*file)][start..start + *bytes as usize]);
            }
        }
    }
    let path = into.join(format!("{}.mp4", rendition.name));
    std::fs::write(&path, film).unwrap();
    path
}

/// What `ffprobe` says.
pub struct Probed(Value);

impl Probed {
    pub fn of(path: &Path) -> Probed {
        let args = "-v error -count_packets -show_streams -show_format -of json";
        Probed(serde_json::from_slice(&said("ffprobe", args, path)).unwrap())
    }

    fn stream(&self, kind: &str) -> &Value {
        let streams = self.0["streams"].as_array().unwrap();
        streams.iter().find(|stream| stream["codec_type"] == kind).unwrap_or(&Value::Null)
    }

    pub fn has_sound(&self) -> bool {
        self.stream("audio").is_object()
    }

    pub fn frames(&self) -> u64 {
        number(&self.stream("video")["nb_read_packets"]).unwrap_or(0.0) as u64
    }

    pub fn duration_s(&self) -> f64 {
        number(&self.0["format"]["duration"]).unwrap_or(0.0)
    }

    /// Clockwise, in degrees.
    pub fn rotation_degrees(&self) -> i64 {
        let sides = self.stream("video")["side_data_list"].as_array().into_iter().flatten();
        let turn = sides.filter_map(|side| side["rotation"].as_i64()).next().unwrap_or(0);
        (-turn).rem_euclid(360)
    }

    /// Rotation and sample aspect ratio applied.
    pub fn shown(&self) -> Size {
        let video = self.stream("video");
        let side = |name: &str| video[name].as_u64().unwrap_or(0) as u32;
        let (mut width, mut height) = (side("width"), side("height"));
        let ratio = video["sample_aspect_ratio"].as_str().and_then(|ratio| ratio.split_once(':'));
        if let Some((n, d)) = ratio
            && let (Ok(n @ 1..), Ok(d @ 1..)) = (n.parse::<u32>(), d.parse::<u32>())
        {
            width = width * n / d;
        }
        if self.rotation_degrees() % 180 == 90 {
            std::mem::swap(&mut width, &mut height);
        }
        Size { width, height }
    }

    /// What the colours are made with; where nobody says, as players guess: by size.
    pub fn matrix(&self) -> &'static str {
        let video = self.stream("video");
        let side = |name: &str| video[name].as_u64().unwrap_or(0);
        match video["color_space"].as_str().filter(|space| *space != "unknown") {
            Some(_) => "auto",
            None if side("width") >= 1280 || side("height") > 576 => "bt709",
            None => "bt601",
        }
    }

    /// What is said of the film and its tracks besides their coding.
    pub fn tags(&self) -> Vec<(String, String)> {
        let streams = self.0["streams"].as_array().unwrap().iter();
        let all = streams.chain([&self.0["format"]]).filter_map(|part| part["tags"].as_object());
        all.flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

fn said(program: &str, args: &str, path: &Path) -> Vec<u8> {
    let run = Command::new(program).args(args.split_whitespace()).arg(path).output();
    run.expect("FFmpeg is installed for tests").stdout
}

const SOUND_HZ: f64 = 8000.0;
/// Of sound that is compared, in samples: one second.
const WINDOW: usize = 8000;
/// How far it is looked for, in samples: a quarter of a second.
const REACH: usize = 2000;
/// Root mean square below which there is nothing to hear.
const SILENCE: f64 = 1e-4;

/// Where the pictures begin that are kept.
pub struct Beginning {
    /// When it is shown.
    seconds: f64,
    /// Pictures before it that need others which are not there, and of which FFmpeg's programs make something all the same.
    leading: usize,
}

impl Beginning {
    /// `kept`: how many pictures came out. Where none is missing, none was left out at the beginning.
    pub fn of(path: &Path, kept: u64) -> Option<Beginning> {
        let pictures = Beginning::pictures(path, "-read_intervals %+#40");
        let leading = pictures.iter().position(|(is_key, _)| *is_key).unwrap_or(0);
        let are_kept = leading > 0 && Beginning::pictures(path, "").len() as u64 == kept;
        let leading = if are_kept { 0 } else { leading };
        Some(Beginning { seconds: pictures.get(leading)?.1, leading })
    }

    /// Whether it needs no other, and when it is shown.
    fn pictures(path: &Path, how_many: &str) -> Vec<(bool, f64)> {
        let args = format!(
            "-v error -select_streams v:0 -show_entries frame=key_frame,best_effort_timestamp_time {how_many} -of csv=p=0"
        );
        let text = String::from_utf8(said("ffprobe", &args, path)).unwrap();
        let pictures = text.lines().filter_map(|line| {
            let mut fields = line.split(',');
            Some((fields.next()? == "1", fields.next()?.parse().ok()?))
        });
        pictures.collect()
    }
}

/// When the pictures and the sound begin, and how it sounds.
pub struct SoundAndPicture {
    picture_s: f64,
    sound_s: f64,
    sound: Vec<f32>,
}

impl SoundAndPicture {
    pub fn of(path: &Path, beginning: &Beginning) -> Option<SoundAndPicture> {
        let args =
            "-v error -select_streams a:0 -show_entries frame=pts_time -read_intervals %+#8 -of csv=p=0";
        let text = String::from_utf8(said("ffprobe", args, path)).unwrap();
        let times = text.lines().filter_map(|line| line.trim_end_matches(',').parse::<f64>().ok());
        let sound_s = times.reduce(f64::min)?;
        let run = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-t", "15", "-i"])
            .arg(path)
            // Where there is a gap, time goes on.
            .args("-map 0:a:0 -af aresample=8000:async=1:min_hard_comp=0.02".split_whitespace())
            .args("-ac 1 -f f32le -".split_whitespace())
            .output()
            .unwrap();
        let sound = run.stdout.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        Some(SoundAndPicture { picture_s: beginning.seconds, sound_s, sound: sound.collect() })
    }

    /// How much later the sound of `made` comes after the pictures than it did in this, in milliseconds; and whether
    /// that was heard, or where there is nothing to hear, read from timestamps.
    pub fn shift_ms(&self, made: &SoundAndPicture) -> (f64, bool) {
        let before_s = self.sound_s - self.picture_s;
        let after_s = made.sound_s - made.picture_s;
        let by_timestamps = ((after_s - before_s) * 1000.0, false);
        let Some(start) = self.loudest() else { return by_timestamps };
        let window = &self.sound[start..(start + WINDOW).min(self.sound.len())];
        let expected = start as i64 + ((before_s - after_s) * SOUND_HZ).round() as i64;
        let from = (expected - REACH as i64).max(0) as usize;
        let to = (expected + REACH as i64).max(0) as usize;
        let places = (from..to).filter(|&at| at + window.len() <= made.sound.len());
        let alike = |at: usize| -> f64 {
            let theirs = &made.sound[at..at + window.len()];
            let (mut product, mut power) = (0.0_f32, 0.0_f32);
            for (a, b) in window.iter().zip(theirs) {
                product += a * b;
                power += b * b;
            }
            f64::from(product) / f64::from(power).sqrt().max(1e-9)
        };
        let best = places.map(|at| (alike(at), at)).max_by(|a, b| a.0.total_cmp(&b.0));
        match best {
            Some((_, at)) => ((at as i64 - expected) as f64 / SOUND_HZ * 1000.0, true),
            None => by_timestamps,
        }
    }

    /// Where the second begins that has most to hear.
    fn loudest(&self) -> Option<usize> {
        // Room on both sides, so that it is found wherever it went.
        let last = self.sound.len().saturating_sub(WINDOW + REACH);
        let power = |start: usize| -> f64 {
            let end = (start + WINDOW).min(self.sound.len());
            self.sound[start..end].iter().map(|sample| f64::from(sample * sample)).sum()
        };
        let starts = (0..=last.max(1)).step_by(WINDOW / 4);
        let (power, start) = starts.map(|start| (power(start), start)).max_by(|a, b| a.0.total_cmp(&b.0))?;
        ((power / WINDOW as f64).sqrt() > SILENCE).then_some(start)
    }
}

/// How many pictures are compared, from the first.
const PICTURES: &str = "8";

/// Pictures of one film against a reference made from the other: what differs in each plane.
pub struct Likeness {
    /// Peak signal to noise of Y, U, V, in decibels.
    pub psnr_db: [f64; 3],
    /// Mean of the film minus mean of the reference, of Y, U, V, in steps of 8 bits.
    pub mean: [f64; 3],
}

/// PQ or HLG in BT.2020 to BT.709 by Hable's curve with white at 100 cd/m², as the recipe of FFmpeg's wiki has it.
pub fn tone_mapping(transfer: &str) -> String {
    format!(
        "zscale=tin={transfer}:pin=bt2020:min=bt2020nc:rin=limited:t=linear:npl=100,format=gbrpf32le,\
         zscale=p=bt709,tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=limited,format=yuv420p,"
    )
}

/// `filters`: what the reference takes besides scaling to BT.709; ends in a comma. FFmpeg itself turns it upright.
pub fn likeness(
    source: &Path,
    filters: &str,
    matrix: &str,
    beginning: &Beginning,
    made: &Path,
    size: Size,
) -> Option<Likeness> {
    let Size { width, height } = size;
    let scale = format!(
        "select=gte(n\\,{}),{filters}scale={width}:{height}:flags=bicubic:in_color_matrix={matrix}:out_color_matrix=bt709:out_range=tv,\
         setsar=1,format=yuv420p",
        beginning.leading
    );
    let expected = pictures(source, &scale);
    let found = pictures(made, "format=yuv420p");
    let bytes = expected.len().min(found.len());
    let (luma, chroma) =
        ((size.pixels()) as usize, (size.width.div_ceil(2) * size.height.div_ceil(2)) as usize);
    let picture = luma + 2 * chroma;
    if bytes < picture || !expected.len().abs_diff(found.len()).is_multiple_of(picture) {
        return None;
    }
    let mut likeness = Likeness { psnr_db: [0.0; 3], mean: [0.0; 3] };
    for (plane, range) in [0..luma, luma..luma + chroma, luma + chroma..picture].into_iter().enumerate() {
        let (mut squares, mut sum, mut count) = (0_i64, 0_i64, 0_i64);
        for start in (0..bytes - bytes % picture).step_by(picture) {
            let at = start + range.start..start + range.end;
            for (a, b) in found[at.clone()].iter().zip(&expected[at]) {
                let difference = i64::from(*a) - i64::from(*b);
                (squares, sum, count) = (squares + difference * difference, sum + difference, count + 1);
            }
        }
        let mean_square = squares as f64 / count as f64;
        likeness.psnr_db[plane] = (10.0 * (255.0 * 255.0 / mean_square.max(1e-5)).log10()).min(99.0);
        likeness.mean[plane] = sum as f64 / count as f64;
    }
    Some(likeness)
}

fn pictures(path: &Path, filters: &str) -> Vec<u8> {
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-map", "0:v:0", "-vf", filters, "-frames:v", PICTURES, "-vsync", "passthrough"])
        .args(["-f", "rawvideo", "-"])
        .output()
        .unwrap();
    run.stdout
}
