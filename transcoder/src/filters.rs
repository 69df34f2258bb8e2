//! From decoded pictures to what the rungs show: progressive, upright, square pixels, BT.709, limited range, 4:2:0.

use domain::Size;
use ffmpeg_next::color::{Primaries, Range, Space, TransferCharacteristic};
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::util::error::EAGAIN;
use ffmpeg_next::{Error, Rational};

use crate::TaskError;
use crate::orientation::Orientation;

/// What a graph is built for; when it changes within a stream, a new graph is built.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureFormat {
    size: Size,
    pixel: Pixel,
    space: Space,
    primaries: Primaries,
    transfer: TransferCharacteristic,
    range: Range,
}

/// What comes out, and how the source is to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Upright sizes, largest first: each is scaled from the one before.
    pub sizes: Vec<Size>,
    pub orientation: Orientation,
    pub interlaced: bool,
    /// Name of the pixel format, e.g. `yuv420p`.
    pub pixel: &'static str,
}

/// Frames go in and come out at every size, with the timestamps they came with.
pub struct Filters {
    look: Look,
    timescale: u32,
    built: Option<(PictureFormat, Graph)>,
}

impl PictureFormat {
    pub fn of(frame: &Video) -> Self {
        PictureFormat {
            size: Size { width: frame.width(), height: frame.height() },
            pixel: frame.format(),
            space: frame.color_space(),
            primaries: frame.color_primaries(),
            transfer: frame.color_transfer_characteristic(),
            range: frame.color_range(),
        }
    }

    /// More than the screens show that rungs are made for.
    pub fn is_hdr(&self) -> bool {
        matches!(self.transfer, TransferCharacteristic::SMPTE2084 | TransferCharacteristic::ARIB_STD_B67)
    }

    fn is_wide(&self) -> bool {
        matches!(self.primaries, Primaries::BT2020 | Primaries::SMPTE431 | Primaries::SMPTE432)
    }

    fn is_rgb(&self) -> bool {
        self.space == Space::RGB
            || self.pixel.descriptor().is_some_and(|d| d.name().contains("rgb") || d.name().contains("gbr"))
    }

    /// By zscale's names; what a stream leaves out is guessed as players do.
    fn matrix(&self) -> &'static str {
        match self.space {
            Space::BT709 => "bt709",
            Space::BT2020NCL | Space::BT2020CL => "bt2020nc",
            Space::BT470BG => "bt470bg",
            Space::SMPTE170M => "smpte170m",
            Space::SMPTE240M => "smpte240m",
            Space::FCC => "fcc",
            _ if self.is_hdr() || self.is_wide() => "bt2020nc",
            _ if self.size.width >= 1280 || self.size.height > 576 => "bt709",
            _ => "smpte170m",
        }
    }

    fn range(&self) -> &'static str {
        let full = self.range == Range::JPEG
            || self.pixel.descriptor().is_some_and(|d| d.name().starts_with("yuvj"));
        if full { "full" } else { "limited" }
    }

    fn primaries(&self) -> &'static str {
        match self.primaries {
            Primaries::SMPTE431 => "smpte431",
            Primaries::SMPTE432 => "smpte432",
            _ => "bt2020",
        }
    }

    fn transfer(&self) -> &'static str {
        match self.transfer {
            TransferCharacteristic::SMPTE2084 => "smpte2084",
            TransferCharacteristic::ARIB_STD_B67 => "arib-std-b67",
            _ => "bt709",
        }
    }
}

impl Filters {
    /// Timestamps of the frames are in ticks of `timescale`.
    pub fn new(look: Look, timescale: u32) -> Self {
        Filters { look, timescale, built: None }
    }

    /// `out` is called with the index of the size and a frame. The frame given is used up.
    pub fn push(
        &mut self,
        frame: &Video,
        out: &mut dyn FnMut(usize, Video) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let format = PictureFormat::of(frame);
        if self.built.as_ref().is_none_or(|(built, _)| *built != format) {
            self.finish(out)?;
            let graph = build(&format, &self.look, self.timescale)?;
            self.built = Some((format, graph));
        }
        let (_, graph) = self.built.as_mut().expect("built just above when there was none");
        context(graph, "in")?.source().add(frame)?;
        self.pull(out)
    }

    /// What is still inside comes out.
    pub fn finish(
        &mut self,
        out: &mut dyn FnMut(usize, Video) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        if let Some((_, graph)) = self.built.as_mut() {
            context(graph, "in")?.source().flush()?;
            self.pull(out)?;
            self.built = None;
        }
        Ok(())
    }

    fn pull(&mut self, out: &mut dyn FnMut(usize, Video) -> Result<(), TaskError>) -> Result<(), TaskError> {
        let Some((_, graph)) = self.built.as_mut() else { return Ok(()) };
        for rung in 0..self.look.sizes.len() {
            let mut sink = context(graph, &sink_name(rung))?;
            loop {
                let mut frame = Video::empty();
                match sink.sink().frame(&mut frame) {
                    Ok(()) => {
                        let time_base = sink.sink().time_base();
                        let ticks =
                            frame.pts().map(|pts| crate::film_clock::rescale(pts, time_base, self.timescale));
                        frame.set_pts(ticks);
                        out(rung, frame)?;
                    }
                    Err(Error::Eof | Error::Other { errno: EAGAIN }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

fn context(graph: &mut Graph, name: &str) -> Result<filter::Context, TaskError> {
    graph.get(name).ok_or_else(|| anyhow::anyhow!("the filter graph has no `{name}`").into())
}

fn sink_name(rung: usize) -> String {
    format!("out{rung}")
}

fn build(format: &PictureFormat, look: &Look, timescale: u32) -> Result<Graph, TaskError> {
    let find = |name: &str| filter::find(name).ok_or(Error::FilterNotFound);
    let pixel = format.pixel.descriptor().ok_or(Error::InvalidData)?.name();
    let Size { width, height } = format.size;
    let mut graph = Graph::new();
    let arguments =
        format!("video_size={width}x{height}:pix_fmt={pixel}:time_base=1/{timescale}:pixel_aspect=1/1");
    graph.add(&find("buffer")?, "in", &arguments)?;
    for rung in 0..look.sizes.len() {
        graph.add(&find("buffersink")?, &sink_name(rung), "")?;
    }
    let mut parser = graph.output("in", 0)?;
    for rung in 0..look.sizes.len() {
        parser = parser.input(&sink_name(rung), 0)?;
    }
    parser.parse(&chain(format, look))?;
    graph.validate()?;
    Ok(graph)
}

/// The graph as text: first the picture as it should be, then one size from the other. Bicubic from size to size
/// costs no quality against scaling each from the source.
fn chain(format: &PictureFormat, look: &Look) -> String {
    let largest = look.sizes[0];
    let (width, height) = match look.orientation.is_sideways() {
        true => (largest.height, largest.width),
        false => (largest.width, largest.height),
    };
    let deinterlace =
        if look.interlaced { "bwdif=mode=send_frame:parity=auto:deint=interlaced," } else { "" };
    let colours = colours(format, width, height);
    let upright = look.orientation.filters();
    let mut text = format!("[in]{deinterlace}{colours}format={},{upright}setsar=1", look.pixel);
    for (rung, size) in look.sizes.iter().enumerate().skip(1) {
        let above = rung - 1;
        text += &format!(
            ",split=2[out{above}][from{above}];[from{above}]scale={}:{}:flags=bicubic,setsar=1",
            size.width, size.height
        );
    }
    text + &format!("[out{}]", look.sizes.len() - 1)
}

/// Scales and brings to BT.709, limited range (or RGB, by the pixel format that follows); ends in a comma.
fn colours(format: &PictureFormat, width: u32, height: u32) -> String {
    let (matrix, range) = (format.matrix(), format.range());
    let zscale = filter::find("zscale").is_some() && !format.is_rgb();
    if zscale && format.is_hdr() {
        // Linear light, one reference white at 100 cd/m², highlights rolled off by Hable's curve. Primaries that the stream
        // leaves out have to be told on both sides.
        let (primaries, transfer) = (format.primaries(), format.transfer());
        return format!(
            "zscale=w={width}:h={height}:filter=bicubic:min={matrix}:pin={primaries}:tin={transfer}:rin={range}:\
             p={primaries}:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0,\
             zscale=p=bt709:t=bt709:m=bt709:r=limited,"
        );
    }
    if zscale && format.is_wide() {
        return format!(
            "zscale=w={width}:h={height}:filter=bicubic:min={matrix}:pin={}:tin=bt709:rin={range}:\
             p=bt709:t=bt709:m=bt709:r=limited,",
            format.primaries()
        );
    }
    if format.is_rgb() {
        return format!("scale={width}:{height}:flags=bicubic:out_color_matrix=bt709:out_range=limited,");
    }
    let matrix = if matrix == "bt2020nc" { "bt2020" } else { matrix };
    format!(
        "scale={width}:{height}:flags=bicubic:in_color_matrix={matrix}:in_range={range}:\
         out_color_matrix=bt709:out_range=limited,"
    )
}

/// The ratio as a whole number of thousandths, for encoders that want one.
pub fn frame_rate_rational(frame_rate: f64) -> Rational {
    let thousandths = (frame_rate * 1000.0).round().clamp(1.0, 1_000_000.0) as i32;
    Rational::new(thousandths, 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> PictureFormat {
        PictureFormat {
            size: Size { width: 1920, height: 1080 },
            pixel: Pixel::YUV420P,
            space: Space::Unspecified,
            primaries: Primaries::Unspecified,
            transfer: TransferCharacteristic::Unspecified,
            range: Range::Unspecified,
        }
    }

    fn look(orientation: Orientation) -> Look {
        let sizes = vec![Size { width: 1280, height: 720 }, Size { width: 640, height: 360 }];
        Look { sizes, orientation, interlaced: false, pixel: "yuv420p" }
    }

    #[test]
    fn sizes_cascade() {
        assert_eq!(
            chain(&format(), &look(Orientation::default())),
            "[in]scale=1280:720:flags=bicubic:in_color_matrix=bt709:in_range=limited:out_color_matrix=bt709:\
             out_range=limited,format=yuv420p,setsar=1,split=2[out0][from0];\
             [from0]scale=640:360:flags=bicubic,setsar=1[out1]"
        );
    }

    #[test]
    fn sideways_pictures_are_scaled_before_they_are_turned() {
        let mut turned = look(Orientation { rotation_degrees: 90, mirrored: false });
        turned.sizes = vec![Size { width: 720, height: 1280 }];
        let text = chain(&format(), &turned);
        assert!(text.starts_with("[in]scale=1280:720:") && text.contains("transpose=clock,"), "{text}");
    }

    #[test]
    fn colours_follow_the_bitstream() {
        let small = PictureFormat { size: Size { width: 640, height: 480 }, ..format() };
        assert!(colours(&small, 2, 2).contains("in_color_matrix=smpte170m"));
        let pq = PictureFormat { transfer: TransferCharacteristic::SMPTE2084, ..format() };
        assert!(colours(&pq, 2, 2).contains("tin=smpte2084") && colours(&pq, 2, 2).contains("tonemap"));
        let full = PictureFormat { pixel: Pixel::YUVJ420P, ..format() };
        assert!(colours(&full, 2, 2).contains("in_range=full"));
    }
}
