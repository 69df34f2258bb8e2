//! Still pictures: how good one is as a cover, and the files made of it.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::task::{Covers, OutputFile};
use domain::{COVER_WIDTHS_PX, CoverFormat, ObjectFile, Size};
use ffmpeg_next::codec::{self, packet::Packet};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::{Dictionary, Error, Rational};
use image::RgbImage;
use image::imageops::FilterType;

use crate::TaskError;
use crate::chunk_file::output_file;

const JPEG_QUALITY: u8 = 84;
const WEBP_QUALITY: &str = "80";
/// Both sides of what a thumbhash is made of, at most.
const THUMBHASH_PX_MAX: u32 = 100;

/// How wide covers of a source are at most, and how high that makes them.
pub fn cover_size(source: Size) -> Size {
    let widest = COVER_WIDTHS_PX[COVER_WIDTHS_PX.len() - 1].min(source.width).max(1);
    Size { width: widest, height: scaled_height(source, widest) }
}

/// An RGB frame as an image.
pub fn image_of(frame: &Video) -> Option<RgbImage> {
    let (width, height) = (frame.width(), frame.height());
    let row_bytes = width as usize * 3;
    let rows = frame.data(0).chunks(frame.stride(0)).take(height as usize);
    let bytes: Vec<u8> = rows.flat_map(|row| row.iter().take(row_bytes)).copied().collect();
    RgbImage::from_raw(width, height, bytes)
}

/// Higher is better: sharp pictures win, black, white and blank ones lose against anything.
pub fn score(picture: &RgbImage) -> f64 {
    const DARK: f64 = 24.0;
    const BRIGHT: f64 = 235.0;
    const FLAT: f64 = 8.0;
    let small = image::imageops::thumbnail(picture, picture.width().min(160), picture.height().min(160));
    let luma = image::imageops::grayscale(&small);
    let values: Vec<f64> = luma.pixels().map(|pixel| f64::from(pixel.0[0])).collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let usable = (DARK..BRIGHT).contains(&mean) && deviation >= FLAT;
    let sharpness = edges(&values, luma.width() as usize);
    if usable { 1.0 + sharpness } else { (deviation + sharpness) / 1000.0 }
}

/// Mean step between neighbours.
fn edges(values: &[f64], width: usize) -> f64 {
    let across = values.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    let down = values.iter().zip(values.iter().skip(width)).map(|(above, below)| (below - above).abs());
    across.chain(down).sum::<f64>() / values.len().max(1) as f64
}

/// Writes `cover-<width>.jpg` and `.webp` at every width that does not enlarge the source.
pub fn write_covers(picture: &RgbImage, source: Size, output: &Path) -> Result<Covers, TaskError> {
    let mut widths: Vec<u32> = COVER_WIDTHS_PX.into_iter().filter(|&width| width <= source.width).collect();
    if widths.is_empty() {
        widths.push(picture.width());
    }
    let mut files = Vec::new();
    for &width in &widths {
        let height = scaled_height(source, width);
        let scaled = match (width, height) == picture.dimensions() {
            true => picture.clone(),
            false => image::imageops::resize(picture, width, height, FilterType::CatmullRom),
        };
        files.push(write_jpeg(&scaled, output)?);
        files.push(write_webp(&scaled, output)?);
    }
    let width_max = widths.into_iter().max().unwrap_or(0);
    Ok(Covers { files, width_max, thumbhash: thumbhash_of(picture) })
}

fn scaled_height(source: Size, width: u32) -> u32 {
    let height = f64::from(source.height) * f64::from(width) / f64::from(source.width.max(1));
    (height.round() as u32).max(1)
}

fn write_jpeg(picture: &RgbImage, output: &Path) -> Result<OutputFile, TaskError> {
    let name = ObjectFile::Cover(picture.width(), CoverFormat::Jpeg).to_string();
    let mut file = BufWriter::new(File::create(output.join(&name))?);
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
    picture.write_with_encoder(encoder).map_err(anyhow::Error::new)?;
    std::io::Write::flush(&mut file)?;
    output_file(output, name)
}

/// Lossy by FFmpeg's libwebp, where it was built with it; the `image` crate only writes lossless WebP.
fn write_webp(picture: &RgbImage, output: &Path) -> Result<OutputFile, TaskError> {
    let name = ObjectFile::Cover(picture.width(), CoverFormat::Webp).to_string();
    match codec::encoder::find_by_name("libwebp") {
        Some(libwebp) => std::fs::write(output.join(&name), lossy_webp(picture, libwebp)?)?,
        None => picture
            .save_with_format(output.join(&name), image::ImageFormat::WebP)
            .map_err(anyhow::Error::new)?,
    }
    output_file(output, name)
}

fn lossy_webp(picture: &RgbImage, libwebp: ffmpeg_next::Codec) -> Result<Vec<u8>, Error> {
    let (width, height) = picture.dimensions();
    let mut video = codec::Context::new_with_codec(libwebp).encoder().video()?;
    video.set_width(width);
    video.set_height(height);
    video.set_format(Pixel::BGRA);
    video.set_time_base(Rational::new(1, 25));
    let options: Dictionary = [("quality", WEBP_QUALITY)].into_iter().collect();
    let mut encoder = video.open_as_with(libwebp, options)?;
    let mut frame = Video::new(Pixel::BGRA, width, height);
    let stride = frame.stride(0);
    for (row, line) in picture.rows().zip(frame.data_mut(0).chunks_mut(stride)) {
        for (pixel, bytes) in row.zip(line.chunks_exact_mut(4)) {
            let [red, green, blue] = pixel.0;
            bytes.copy_from_slice(&[blue, green, red, 255]);
        }
    }
    frame.set_pts(Some(0));
    encoder.send_frame(&frame)?;
    encoder.send_eof()?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet)?;
    packet.data().map(<[u8]>::to_vec).ok_or(Error::InvalidData)
}

fn thumbhash_of(picture: &RgbImage) -> String {
    let (width, height) = picture.dimensions();
    let scale = (f64::from(THUMBHASH_PX_MAX) / f64::from(width.max(height))).min(1.0);
    let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    let small = image::imageops::resize(picture, side(width), side(height), FilterType::Triangle);
    let rgba: Vec<u8> = small.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2], 255]).collect();
    let hash = thumbhash::rgba_to_thumb_hash(small.width() as usize, small.height() as usize, &rgba);
    BASE64_STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 90]))
    }

    #[test]
    fn black_and_blank_lose_and_sharp_wins() {
        let black = RgbImage::new(64, 36);
        let grey = RgbImage::from_pixel(64, 36, Rgb([128; 3]));
        let soft = gradient(64, 36);
        let sharp =
            RgbImage::from_fn(64, 36, |x, y| Rgb([if (x / 4 + y / 4) % 2 == 0 { 40 } else { 200 }; 3]));
        assert!(score(&black) < score(&soft) && score(&grey) < score(&soft));
        assert!(score(&soft) < score(&sharp));
    }

    #[test]
    fn covers_come_in_all_widths_that_do_not_enlarge() {
        let folder = tempfile::tempdir().unwrap();
        let source = Size { width: 500, height: 250 };
        let covers = write_covers(&gradient(500, 250), source, folder.path()).unwrap();
        let names: Vec<&str> = covers.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "cover-120.jpg",
                "cover-120.webp",
                "cover-240.jpg",
                "cover-240.webp",
                "cover-480.jpg",
                "cover-480.webp"
            ]
        );
        assert_eq!(covers.width_max, 480);
        assert!(BASE64_STANDARD.decode(&covers.thumbhash).unwrap().len() <= 30);
        for file in &covers.files {
            let picture = image::open(folder.path().join(&file.name)).unwrap().to_rgb8();
            assert_eq!(picture.height() * 2, picture.width(), "{}", file.name);
            let pixel = picture.get_pixel(picture.width() * 3 / 4, 10);
            assert!(pixel.0[0] > 150 && pixel.0[2] > 50 && pixel.0[2] < 130, "{} {pixel:?}", file.name);
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
