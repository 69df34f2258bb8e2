//! Still pictures: how good one is as a cover, and the files made of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine};
use domain::task::{Covers, OutputFile};
use domain::{COVER_WIDTHS_PX, CoverFormat, ObjectFile, Size};
use ffmpeg_next::codec::{self, packet::Packet};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Error, Rational};
use image::ExtendedColorType;
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};

use crate::TaskError;
use crate::chunk_file::output_file;
use crate::error::joined;

const JPEG_QUALITY: u8 = 84;
const WEBP_QUALITY: &str = "80";
/// 0 to 6: beyond this a picture takes longer and saves a few percent.
const WEBP_EFFORT: &str = "2";
/// Both sides of what a thumbhash is made of, at most.
const THUMBHASH_PX_MAX: u32 = 100;
/// Both sides of what a picture is judged by, at most.
const JUDGED_PX_MAX: u32 = 160;

/// How wide covers of a source are at most, and how high that makes them.
pub fn cover_size(source: Size) -> Size {
    let widest = COVER_WIDTHS_PX[COVER_WIDTHS_PX.len() - 1].min(source.width).max(1);
    Size { width: widest, height: scaled_height(source, widest) }
}

/// The greater, the better a cover: sharp pictures win, and those that are not usable lose against anything.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score {
    /// Neither black nor white nor blank.
    pub usable: bool,
    merit: f64,
}

/// Of a frame as it was decoded, by its luma.
pub fn score(frame: &Video) -> Result<Score, Error> {
    const DARK: f64 = 28.0;
    const BRIGHT: f64 = 228.0;
    const FLAT: f64 = 8.0;
    let small = within(frame, Pixel::GRAY8, JUDGED_PX_MAX)?;
    let values: Vec<f64> = packed(&small, 1).into_iter().map(f64::from).collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let usable = (DARK..BRIGHT).contains(&mean) && deviation >= FLAT;
    let sharpness = edges(&values, small.width() as usize);
    Ok(Score { usable, merit: if usable { sharpness } else { deviation + sharpness } })
}

/// Mean step between neighbours.
fn edges(values: &[f64], width: usize) -> f64 {
    let across = values.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    let down = values.iter().zip(values.iter().skip(width)).map(|(above, below)| (below - above).abs());
    across.chain(down).sum::<f64>() / values.len().max(1) as f64
}

/// Writes `cover-<width>.jpg` and `.webp` at every width that does not enlarge the source. `picture` is RGB.
pub fn write_covers(picture: &Video, source: Size, output: &Path) -> Result<Covers, TaskError> {
    let mut widths: Vec<u32> = COVER_WIDTHS_PX.into_iter().filter(|&width| width <= source.width).collect();
    if widths.is_empty() {
        widths.push(picture.width());
    }
    // The dearest first. Whoever waits for the film waits for its cover.
    let formats = [CoverFormat::Webp, CoverFormat::Jpeg];
    let wanted = widths.iter().rev().flat_map(|&width| formats.map(|format| (width, format)));
    let left = Mutex::new(wanted);
    let write_some = || -> Result<Vec<OutputFile>, TaskError> {
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let write = |(width, format)| {
            let size = Size { width, height: scaled_height(source, width) };
            match format {
                CoverFormat::Jpeg => cover_jpeg(picture, size, output),
                CoverFormat::Webp => cover_webp(picture, size, output),
            }
        };
        std::iter::from_fn(next).map(write).collect()
    };
    let (thumbhash, some, others) = thread::scope(|scope| {
        let others = scope.spawn(write_some);
        (thumbhash_of(picture), write_some(), joined(others, "writing covers"))
    });
    let mut files = some?;
    files.extend(others?);
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let width_max = widths.iter().copied().max().unwrap_or(0);
    Ok(Covers { files, width_max, thumbhash: thumbhash? })
}

fn scaled_height(source: Size, width: u32) -> u32 {
    let height = f64::from(source.height) * f64::from(width) / f64::from(source.width.max(1));
    (height.round() as u32).max(1)
}

fn cover_jpeg(picture: &Video, size: Size, output: &Path) -> Result<OutputFile, TaskError> {
    let bytes = packed(&scaled(picture, Pixel::RGB24, size)?, 3);
    write_jpeg(&bytes, size, ObjectFile::Cover(size.width, CoverFormat::Jpeg), output)
}

/// `rgb` without padding.
pub fn write_jpeg(
    rgb: &[u8],
    size: Size,
    object: ObjectFile,
    output: &Path,
) -> Result<OutputFile, TaskError> {
    let name = object.to_string();
    let mut file = BufWriter::new(File::create(output.join(&name))?);
    JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY)
        .encode(rgb, size.width, size.height, ExtendedColorType::Rgb8)
        .with_context(|| format!("write {name}"))?;
    file.flush()?;
    output_file(output, name)
}

/// Lossy by FFmpeg's libwebp, where it was built with it; the `image` crate only writes lossless WebP.
fn cover_webp(picture: &Video, size: Size, output: &Path) -> Result<OutputFile, TaskError> {
    let name = ObjectFile::Cover(size.width, CoverFormat::Webp).to_string();
    let bytes = match codec::encoder::find_by_name("libwebp") {
        Some(libwebp) => lossy_webp(&scaled(picture, Pixel::BGRA, size)?, libwebp)?,
        None => lossless_webp(&scaled(picture, Pixel::RGB24, size)?)?,
    };
    std::fs::write(output.join(&name), bytes)?;
    output_file(output, name)
}

fn lossy_webp(picture: &Video, libwebp: ffmpeg_next::Codec) -> Result<Vec<u8>, Error> {
    let mut video = codec::Context::new_with_codec(libwebp).encoder().video()?;
    video.set_width(picture.width());
    video.set_height(picture.height());
    video.set_format(picture.format());
    video.set_time_base(Rational::new(1, 25));
    let options: Dictionary =
        [("quality", WEBP_QUALITY), ("compression_level", WEBP_EFFORT)].into_iter().collect();
    let mut encoder = video.open_as_with(libwebp, options)?;
    encoder.send_frame(picture)?;
    encoder.send_eof()?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet)?;
    packet.data().map(<[u8]>::to_vec).ok_or(Error::InvalidData)
}

fn lossless_webp(picture: &Video) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    WebPEncoder::new_lossless(&mut bytes)
        .encode(&packed(picture, 3), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .context("write a WebP cover")?;
    Ok(bytes)
}

fn thumbhash_of(picture: &Video) -> Result<String, Error> {
    let small = within(picture, Pixel::RGBA, THUMBHASH_PX_MAX)?;
    let (width, height) = (small.width() as usize, small.height() as usize);
    Ok(BASE64_STANDARD.encode(thumbhash::rgba_to_thumb_hash(width, height, &packed(&small, 4))))
}

/// The same shape with both sides at most `px_max`.
fn within(picture: &Video, format: Pixel, px_max: u32) -> Result<Video, Error> {
    let size = Size { width: picture.width(), height: picture.height() };
    let longer = size.width.max(size.height);
    scaled(picture, format, longer_side(size, longer.min(px_max)))
}

/// The same shape, with a longer side of `px`.
pub fn longer_side(size: Size, px: u32) -> Size {
    let scale = f64::from(px) / f64::from(size.width.max(size.height).max(1));
    let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    Size { width: side(size.width), height: side(size.height) }
}

fn scaled(picture: &Video, format: Pixel, size: Size) -> Result<Video, Error> {
    let mut context = scaling::Context::get(
        picture.format(),
        picture.width(),
        picture.height(),
        format,
        size.width,
        size.height,
        scaling::Flags::BICUBIC,
    )?;
    let mut scaled = Video::empty();
    context.run(picture, &mut scaled)?;
    scaled.set_pts(Some(0));
    Ok(scaled)
}

/// The pixels without the padding at the end of rows.
pub fn packed(picture: &Video, pixel_bytes: usize) -> Vec<u8> {
    let (row_bytes, rows) = (picture.width() as usize * pixel_bytes, picture.height() as usize);
    let mut bytes = Vec::with_capacity(row_bytes * rows);
    for row in picture.data(0).chunks(picture.stride(0)).take(rows) {
        bytes.extend_from_slice(&row[..row_bytes.min(row.len())]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Video {
        let mut frame = Video::new(Pixel::RGB24, width, height);
        let stride = frame.stride(0);
        for (y, row) in frame.data_mut(0).chunks_mut(stride).take(height as usize).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(3).take(width as usize).enumerate() {
                pixel.copy_from_slice(&colour(x as u32, y as u32));
            }
        }
        frame
    }

    fn gradient(width: u32, height: u32) -> Video {
        picture(width, height, |x, y| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90])
    }

    #[test]
    fn black_and_blank_lose_and_sharp_wins() {
        let score_of = |colour: fn(u32, u32) -> [u8; 3]| score(&picture(64, 36, colour)).unwrap();
        let black = score_of(|_, _| [0; 3]);
        let white = score_of(|_, _| [255; 3]);
        let grey = score_of(|_, _| [128; 3]);
        let soft = score(&gradient(64, 36)).unwrap();
        let sharp = score_of(|x, y| [if (x / 4 + y / 4) % 2 == 0 { 40 } else { 200 }; 3]);
        assert!(black < soft && grey < soft && white < soft && soft < sharp);
    }

    #[test]
    fn covers_come_in_all_widths_that_do_not_enlarge() {
        let folder = tempfile::tempdir().unwrap();
        let source = Size { width: 500, height: 250 };
        let covers = write_covers(&gradient(500, 250), source, folder.path()).unwrap();
        let names: Vec<String> = covers.files.iter().map(|file| file.name.clone()).collect();
        let expected =
            [120, 240, 480].map(|width| [format!("cover-{width}.jpg"), format!("cover-{width}.webp")]);
        assert_eq!(names, expected.concat());
        assert_eq!(covers.width_max, 480);
        assert!(BASE64_STANDARD.decode(&covers.thumbhash).unwrap().len() <= 30);
        for file in &covers.files {
            let cover = image::open(folder.path().join(&file.name)).unwrap().to_rgb8();
            assert_eq!(cover.height() * 2, cover.width(), "{}", file.name);
            let [red, green, blue] = cover.get_pixel(cover.width() * 3 / 4, 10).0;
            assert!(
                red > 150 && green < 80 && (60..120).contains(&blue),
                "{} {red} {green} {blue}",
                file.name
            );
        }
    }

    #[test]
    fn a_tiny_source_gets_one_cover_at_its_own_width() {
        let folder = tempfile::tempdir().unwrap();
        let covers = write_covers(&gradient(40, 30), Size { width: 40, height: 30 }, folder.path()).unwrap();
        assert_eq!(covers.files.len(), 2);
        assert_eq!(covers.width_max, 40);
    }
}
