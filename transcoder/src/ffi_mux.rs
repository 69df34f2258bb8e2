//! The FFmpeg calls for writing that have no safe wrapper.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::Parameters;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::Output;
use ffmpeg_next::packet::{Mut, Packet};

/// Bytes of a display matrix: nine 32-bit numbers in the machine's byte order, as FFmpeg keeps them.
pub const DISPLAY_MATRIX_BYTES: usize = 36;

/// Ends the fragment that a fragmenting muxer holds open. The header must have been written.
pub fn flush(output: &mut Output) -> Result<(), ffmpeg::Error> {
    // SAFETY: `output` owns a valid context; a null packet is the documented request to flush.
    check(unsafe { ffi::av_write_frame(output.as_mut_ptr(), ptr::null_mut()) })
}

/// Samples go to the file as they are, not through its buffer first.
pub fn write_through(output: &mut Output) {
    // SAFETY: `output` owns a valid context; its file is alive as long as it is, or null, which is looked at before;
    // the field is a plain integer that may be changed at any time.
    unsafe {
        let file = (*output.as_mut_ptr()).pb;
        if !file.is_null() {
            (*file).direct = 1;
        }
    }
}

/// Lets the muxer choose the tag: that of another container means nothing in MP4. Of HEVC it would choose `hev1`, which
/// Apple's players do not take.
pub fn choose_codec_tag(parameters: &mut Parameters) {
    let tag = if parameters.id() == ffmpeg::codec::Id::HEVC { u32::from_le_bytes(*b"hvc1") } else { 0 };
    // SAFETY: `parameters` owns a valid structure and is borrowed mutably; the field is a plain integer.
    unsafe { (*parameters.as_mut_ptr()).codec_tag = tag };
}

/// Samples a second; 0 where the parameters say nothing.
pub fn sample_rate(parameters: &Parameters) -> u32 {
    // SAFETY: `parameters` owns a valid structure; the field is a plain integer.
    let rate = unsafe { (*parameters.as_ptr()).sample_rate };
    u32::try_from(rate).unwrap_or(0)
}

/// Samples in one packet of audio; 0 where the parameters say nothing.
pub fn frame_samples(parameters: &Parameters) -> i64 {
    // SAFETY: `parameters` owns a valid structure; the field is a plain integer.
    let samples = unsafe { (*parameters.as_ptr()).frame_size };
    i64::from(samples.max(0))
}

/// What a decoder must know before the first packet; empty where there is none.
pub fn extradata(parameters: &Parameters) -> &[u8] {
    // SAFETY: `parameters` owns a valid structure whose extradata, where not null, holds extradata_size bytes
    // that live and stay as they are while it is borrowed.
    unsafe {
        let (data, bytes) = ((*parameters.as_ptr()).extradata, (*parameters.as_ptr()).extradata_size);
        if data.is_null() || bytes <= 0 { &[] } else { std::slice::from_raw_parts(data, bytes as usize) }
    }
}

/// Gives a stream of an output, before its header is written, the turn that shows the picture upright.
pub fn set_display_matrix(
    output: &mut Output,
    stream_index: usize,
    matrix: &[u8; DISPLAY_MATRIX_BYTES],
) -> Result<(), ffmpeg::Error> {
    assert!(stream_index < output.nb_streams() as usize, "the stream was added before");
    // SAFETY: the index lies within `streams` by the assertion; av_stream_new_side_data returns null or a
    // buffer of the asked size, owned by the stream.
    unsafe {
        let stream = *(*output.as_mut_ptr()).streams.add(stream_index);
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX;
        let data = ffi::av_stream_new_side_data(stream, kind, DISPLAY_MATRIX_BYTES as _);
        if data.is_null() {
            return Err(ffmpeg::Error::Other { errno: ffmpeg::util::error::ENOMEM });
        }
        ptr::copy_nonoverlapping(matrix.as_ptr(), data, DISPLAY_MATRIX_BYTES);
    }
    Ok(())
}

/// A packet that stands for any sample up to its capacity, so that a muxer can be shown the sizes of samples without
/// reading them. Zeros, but that the muxer leaves out of AV1 what is no unit of its syntax; so it is one unit as long as
/// the sample.
pub struct BlankPacket {
    packet: Packet,
    bytes_max: usize,
}

/// `OBU_FRAME` with a size field (AV1 specification §5.3.2).
const FRAME_UNIT: u8 = 6 << 3 | 1 << 1;

impl BlankPacket {
    pub fn new(bytes_max: usize) -> Self {
        let mut packet = Packet::new(bytes_max);
        if let Some(data) = packet.data_mut() {
            data.fill(0);
        }
        BlankPacket { packet, bytes_max }
    }

    /// The packet at a size of `bytes`, which is at most the capacity.
    pub fn sized(&mut self, bytes: usize) -> &mut Packet {
        assert!(bytes <= self.bytes_max, "the capacity is that of the largest sample");
        // SAFETY: the buffer behind the packet holds `bytes_max` initialised bytes, and `bytes` is no more.
        unsafe { (*self.packet.as_mut_ptr()).size = bytes as i32 };
        if let Some(data) = self.packet.data_mut() {
            write_unit_header(data);
        }
        &mut self.packet
    }
}

/// Makes all of `data` one unit: its kind, and how many bytes follow as `leb128` (AV1 specification §4.10.5).
fn write_unit_header(data: &mut [u8]) {
    let size_bytes = (1..=4).find(|&n| data.len() < (1 << (7 * n)) + 1 + n).unwrap_or(5);
    let Some(mut follow) = data.len().checked_sub(1 + size_bytes) else { return };
    data[0] = FRAME_UNIT;
    for (n, byte) in (1..).zip(&mut data[1..=size_bytes]) {
        let more = if n < size_bytes { 0x80 } else { 0 };
        *byte = (follow & 0x7f) as u8 | more;
        follow >>= 7;
    }
}

/// A bitstream filter that makes one packet of each.
pub struct BitstreamFilter {
    /// Never null, owned.
    context: *mut ffi::AVBSFContext,
}

impl BitstreamFilter {
    /// Turns AAC with ADTS headers, as MPEG-TS carries it, into what MP4 holds. The decoder's configuration
    /// comes as side data of the first packet.
    pub fn adts_to_asc(parameters: &Parameters) -> Result<Self, ffmpeg::Error> {
        Self::new(c"aac_adtstoasc", parameters)
    }

    fn new(name: &CStr, parameters: &Parameters) -> Result<Self, ffmpeg::Error> {
        // SAFETY: `name` is a C string; av_bsf_alloc sets the context only where it returns no error, and
        // `filter` owns it from then on, so that it is freed on each way out.
        unsafe {
            let kind = ffi::av_bsf_get_by_name(name.as_ptr());
            if kind.is_null() {
                return Err(ffmpeg::Error::BsfNotFound);
            }
            let mut context = ptr::null_mut();
            check(ffi::av_bsf_alloc(kind, &mut context))?;
            let filter = BitstreamFilter { context };
            check(ffi::avcodec_parameters_copy((*context).par_in, parameters.as_ptr()))?;
            check(ffi::av_bsf_init(context))?;
            Ok(filter)
        }
    }

    /// Replaces the packet by what the filter makes of it.
    pub fn apply(&mut self, packet: &mut Packet) -> Result<(), ffmpeg::Error> {
        // SAFETY: the context is initialised; sending moves the packet's contents into it and leaves the packet
        // blank, receiving fills it again.
        unsafe {
            check(ffi::av_bsf_send_packet(self.context, packet.as_mut_ptr()))?;
            check(ffi::av_bsf_receive_packet(self.context, packet.as_mut_ptr()))
        }
    }
}

impl Drop for BitstreamFilter {
    fn drop(&mut self) {
        // SAFETY: the context is owned and freed once; the call sets the pointer to null.
        unsafe { ffi::av_bsf_free(&mut self.context) };
    }
}

fn check(code: i32) -> Result<(), ffmpeg::Error> {
    if code < 0 { Err(ffmpeg::Error::from(code)) } else { Ok(()) }
}
