//! The FFmpeg calls that its safe wrapper lacks. `unsafe` of this crate lives in files named `ffi*`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::{Input, Output, StreamIo};
use ffmpeg_next::frame::Video;
use ffmpeg_next::packet::{Packet, Ref};
use ffmpeg_next::{Dictionary, Error, Rational, Stream, StreamMut};

use crate::source_reader::SourceReader;

/// Lines of FFmpeg's log that one task may write; broken files can produce millions.
const LOG_LINES_MAX: u32 = 200;
const LOG_LINE_BYTES_MAX: usize = 512;

/// Largest piece of memory that FFmpeg asks for at once. A plane of 8192×4320 in single floats has 135 MiB, all
/// planes of 16 bits together 270 MiB; an index of two hours at 240 frames a second has 40 MiB.
const BLOCK_BYTES_MAX: usize = 512 << 20;

/// What a container says of one stream, as plain values.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamHeader {
    pub codec: ffmpeg::codec::Id,
    /// Four characters where the container has them, else empty.
    pub tag: String,
    pub width: u32,
    pub height: u32,
    pub sar: Rational,
    pub pixel: ffmpeg::format::Pixel,
    pub profile: i32,
    pub interlaced: bool,
    pub sample_rate: u32,
    pub channels: u32,
    /// 3×3, 16.16 fixed point, as in ISO/IEC 14496-12 §6.2.2.
    pub display_matrix: Option<[i32; 9]>,
    pub encrypted: bool,
}

/// Opens a file with one demuxer and nothing else, and reads its header only: no codec is opened.
pub fn open_header(reader: SourceReader, demuxer: &str, options: Dictionary) -> Result<Input, Error> {
    let demuxer = CString::new(demuxer).map_err(|_| Error::DemuxerNotFound)?;
    let mut file = StreamIo::from_read_seek(reader)?;
    // SAFETY: the string outlives the calls, and the dictionary is taken back. avformat_open_input frees the context
    // itself when it fails, but, for the flag, not the file, which `file` frees; when it returns 0 the context is valid,
    // and `Input` owns both from then on.
    unsafe {
        let format = ffi::av_find_input_format(demuxer.as_ptr());
        if format.is_null() {
            return Err(Error::DemuxerNotFound);
        }
        let mut context = ffi::avformat_alloc_context();
        if context.is_null() {
            return Err(Error::Other { errno: ffmpeg::util::error::ENOMEM });
        }
        (*context).pb = file.as_mut_ptr();
        (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO as c_int;
        (*context).io_open = Some(refuse_to_open);
        let mut options = options.disown();
        let result = ffi::avformat_open_input(&mut context, c"upload".as_ptr(), format, &mut options);
        drop(Dictionary::own(options));
        if result < 0 {
            return Err(Error::from(result));
        }
        Ok(Input::wrap_with_custom_io(context, file))
    }
}

/// Called by a demuxer that wants more than the one file: a playlist's entries, a reference to other media.
unsafe extern "C" fn refuse_to_open(
    _context: *mut ffi::AVFormatContext,
    _opened: *mut *mut ffi::AVIOContext,
    _url: *const c_char,
    _flags: c_int,
    _options: *mut *mut ffi::AVDictionary,
) -> c_int {
    -ffmpeg::util::error::EACCES
}

/// Length of the file behind an input; 0 where it is not known.
pub fn file_bytes(input: &mut Input) -> u64 {
    // SAFETY: the context is alive, and its file is open as long as it is, or null, which is looked at before.
    let bytes = unsafe {
        let file = (*input.as_mut_ptr()).pb;
        if file.is_null() { 0 } else { ffi::avio_size(file) }
    };
    u64::try_from(bytes).unwrap_or(0)
}

/// From here on nothing is found out by looking into packets: what the container says of them holds.
pub fn leave_out_parsers(input: &mut Input) {
    // SAFETY: the context is alive; its flags are a plain integer.
    unsafe { (*input.as_mut_ptr()).flags |= ffi::AVFMT_FLAG_NOPARSE as c_int };
}

/// Fills in what the header left out by reading the first packets; the decoders it opens take `codec_options`.
pub fn find_stream_info(input: &mut Input, codec_options: &[(&str, &str)]) -> Result<(), Error> {
    let streams = input.nb_streams() as usize;
    // SAFETY: the array has one dictionary for each stream that exists now; FFmpeg reads no further, even when
    // it finds more streams. Every dictionary is taken back and freed.
    unsafe {
        let mut options: Vec<*mut ffi::AVDictionary> =
            (0..streams).map(|_| codec_options.iter().copied().collect::<Dictionary>().disown()).collect();
        let array = if streams == 0 { ptr::null_mut() } else { options.as_mut_ptr() };
        let result = ffi::avformat_find_stream_info(input.as_mut_ptr(), array);
        for dictionary in options {
            drop(Dictionary::own(dictionary));
        }
        if result < 0 { Err(Error::from(result)) } else { Ok(()) }
    }
}

/// An empty MP4 to write into.
pub fn create_mp4(path: &Path) -> Result<Output, Error> {
    let mut url = b"file:".to_vec();
    url.extend_from_slice(path.as_os_str().as_encoded_bytes());
    let url = CString::new(url).map_err(|_| Error::Other { errno: ffmpeg::util::error::EINVAL })?;
    // SAFETY: the strings outlive the calls; the context is owned by `Output` as soon as it is valid, so that it
    // is freed on every path, and `pb` is set before anything is written.
    unsafe {
        let mut context = ptr::null_mut();
        let result =
            ffi::avformat_alloc_output_context2(&mut context, ptr::null(), c"mp4".as_ptr(), url.as_ptr());
        if result < 0 {
            return Err(Error::from(result));
        }
        let output = Output::wrap(context);
        let result = ffi::avio_open(&mut (*context).pb, url.as_ptr(), ffi::AVIO_FLAG_WRITE as c_int);
        if result < 0 { Err(Error::from(result)) } else { Ok(output) }
    }
}

/// The same picture once more, without a copy of its pixels.
pub fn share(frame: &Video) -> Result<Video, Error> {
    let mut shared = Video::empty();
    // SAFETY: both frames are alive; the new one is empty, as av_frame_ref asks, and owns its references.
    let result = unsafe { ffi::av_frame_ref(shared.as_mut_ptr(), frame.as_ptr()) };
    if result < 0 { Err(Error::from(result)) } else { Ok(shared) }
}

/// Lets the muxer choose its own code for the codec: those of other containers do not fit.
pub fn clear_codec_tag(stream: &mut StreamMut) {
    // SAFETY: the stream and its parameters are alive as long as the borrow.
    unsafe { (*(*stream.as_mut_ptr()).codecpar).codec_tag = 0 };
}

/// Leaves only the given streams in the demuxer; packets of the others are never read out.
pub fn discard_all_but(input: &mut Input, kept: &[usize]) {
    for index in 0..input.nb_streams() as usize {
        let discard = if kept.contains(&index) {
            ffi::AVDiscard::AVDISCARD_DEFAULT
        } else {
            ffi::AVDiscard::AVDISCARD_ALL
        };
        // SAFETY: index is below nb_streams, so the pointer is a live stream of this context.
        unsafe { (**(*input.as_mut_ptr()).streams.add(index)).discard = discard };
    }
}

/// Decoded but not shown, as an edit list asks.
pub fn is_hidden(packet: &Packet) -> bool {
    // SAFETY: the packet is alive; its flags are a plain integer.
    unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD as c_int != 0 }
}

pub fn stream_header(stream: &Stream) -> StreamHeader {
    // SAFETY: the stream borrows its context, so the stream and its codec parameters are alive; all reads are of
    // plain integers, and the tag is copied.
    unsafe {
        let raw = &*stream.as_ptr();
        let codec = &*raw.codecpar;
        let sar =
            if raw.sample_aspect_ratio.num > 0 { raw.sample_aspect_ratio } else { codec.sample_aspect_ratio };
        let format = if codec.codec_type == ffi::AVMediaType::AVMEDIA_TYPE_VIDEO { codec.format } else { -1 };
        StreamHeader {
            codec: codec.codec_id.into(),
            tag: printable_tag(codec.codec_tag),
            width: u32::try_from(codec.width).unwrap_or(0),
            height: u32::try_from(codec.height).unwrap_or(0),
            sar: if sar.num > 0 && sar.den > 0 { sar.into() } else { Rational::new(1, 1) },
            pixel: pixel(format),
            profile: codec.profile,
            interlaced: is_interlaced(codec.field_order),
            sample_rate: u32::try_from(codec.sample_rate).unwrap_or(0),
            channels: u32::try_from(codec.ch_layout.nb_channels).unwrap_or(0),
            display_matrix: display_matrix(stream),
            encrypted: has_side_data(stream, ffmpeg::codec::packet::side_data::Type::EncryptionInitInfo)
                || matches!(printable_tag(codec.codec_tag).as_str(), "encv" | "enca"),
        }
    }
}

/// Once in a process: a bound on memory, error texts, and a log that goes to standard error, errors only, a bounded number of lines.
pub fn init() {
    ffmpeg::util::error::register_all();
    // SAFETY: nothing else runs in this process yet that could read or write the environment.
    unsafe {
        // SVT-AV1 writes a page about itself for every encoder, unless this says: errors only.
        std::env::set_var("SVT_LOG", "1");
    }
    // SAFETY: set before FFmpeg does anything; the callback has the signature it asks for, never unwinds and keeps
    // no pointer.
    unsafe {
        ffi::av_max_alloc(BLOCK_BYTES_MAX);
        ffi::av_log_set_level(ffi::AV_LOG_ERROR as c_int);
        ffi::av_log_set_callback(Some(log_line));
    }
}

#[cfg(target_arch = "x86_64")]
type VaList = *mut ffi::__va_list_tag;
#[cfg(not(target_arch = "x86_64"))]
type VaList = ffi::va_list;

/// Called by FFmpeg from any thread.
unsafe extern "C" fn log_line(object: *mut c_void, level: c_int, format: *const c_char, arguments: VaList) {
    static LINES: AtomicU32 = AtomicU32::new(0);
    // SAFETY: reading the level has no precondition.
    if level > unsafe { ffi::av_log_get_level() } || LINES.fetch_add(1, Ordering::Relaxed) >= LOG_LINES_MAX {
        return;
    }
    let mut line = [0 as c_char; LOG_LINE_BYTES_MAX];
    let mut print_prefix = 1;
    // SAFETY: FFmpeg passes arguments that fit its format; the line is cut to the buffer and ends in NUL.
    let text = unsafe {
        let size = LOG_LINE_BYTES_MAX as c_int;
        ffi::av_log_format_line(object, level, format, arguments, line.as_mut_ptr(), size, &mut print_prefix);
        CStr::from_ptr(line.as_ptr())
    };
    eprintln!("{}", text.to_string_lossy().trim_end());
}

fn printable_tag(tag: u32) -> String {
    let bytes = tag.to_le_bytes();
    let printable = bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    if printable { String::from_utf8_lossy(&bytes).trim_end().to_owned() } else { String::new() }
}

fn pixel(format: c_int) -> ffmpeg::format::Pixel {
    if format < 0 || format >= ffi::AVPixelFormat::AV_PIX_FMT_NB as c_int {
        return ffmpeg::format::Pixel::None;
    }
    // SAFETY: the enum is a C int, and the value lies within its range.
    unsafe { std::mem::transmute::<c_int, ffi::AVPixelFormat>(format) }.into()
}

fn is_interlaced(order: ffi::AVFieldOrder) -> bool {
    !matches!(order, ffi::AVFieldOrder::AV_FIELD_UNKNOWN | ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE)
}

fn has_side_data(stream: &Stream, kind: ffmpeg::codec::packet::side_data::Type) -> bool {
    stream.side_data().any(|data| data.kind() == kind)
}

fn display_matrix(stream: &Stream) -> Option<[i32; 9]> {
    let kind = ffmpeg::codec::packet::side_data::Type::DisplayMatrix;
    let data = stream.side_data().find(|data| data.kind() == kind)?;
    let words: Vec<i32> = data
        .data()
        .chunks_exact(4)
        .map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    words.try_into().ok()
}
