//! A decoder that outlives damaged packets: it counts them and goes on.

use ffmpeg_next::codec::Context;
use ffmpeg_next::codec::decoder::{self, Opened};
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::util::error::{EAGAIN, ENOMEM};
use ffmpeg_next::{Dictionary, Error, Frame, Stream};

use crate::{TaskError, codecs, pulse};

/// Pictures of at most this many pixels are decoded even where the header promised less (streams that change
/// their size): 4096×2304.
pub const PIXELS_MIN: u64 = 9_437_184;
/// An option of decoders: a quarter of the work goes into edges that only a viewer sees.
pub const NOT_SHOWN: (&str, &str) = ("skip_loop_filter", "all");
/// Errors in a row, without a frame between, after which a stream is given up as hopeless.
const ERRORS_IN_A_ROW_MAX: u32 = 2_000;

pub struct Decoder {
    opened: Opened,
    /// Packets refused and frames that came out with known errors.
    pub damaged: u64,
    errors_in_a_row: u32,
}

impl Decoder {
    /// `threads` 0: as many as there are cores. `pixels` of the header bound what is decoded.
    pub fn open(stream: &Stream, threads: usize, pixels: u64) -> Result<Self, Error> {
        Self::open_with(stream, threads, pixels, &[])
    }

    /// For whoever asks what the pictures are like, and does not show them; as quick as two cores are.
    pub fn open_to_look(stream: &Stream, pixels: u64) -> Result<Self, Error> {
        Self::open_with(stream, 2, pixels, &[NOT_SHOWN])
    }

    fn open_with(stream: &Stream, threads: usize, pixels: u64, more: &[(&str, &str)]) -> Result<Self, Error> {
        let parameters = stream.parameters();
        let codec = decoder::find(parameters.id()).ok_or(Error::DecoderNotFound)?;
        let mut context = Context::from_parameters(parameters)?.decoder();
        context.set_packet_time_base(stream.time_base());
        let options: Dictionary = [
            ("codec_whitelist", codecs::DECODERS),
            ("threads", threads.to_string().as_str()),
            ("max_pixels", pixels.max(PIXELS_MIN).to_string().as_str()),
        ]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
        let opened = context.open_as_with(codec, options)?;
        Ok(Decoder { opened, damaged: 0, errors_in_a_row: 0 })
    }

    /// Before the next packet every frame must have been received.
    pub fn send(&mut self, packet: &Packet) -> Result<(), TaskError> {
        let sent = self.opened.send_packet(packet);
        sent.or_else(|error| self.tolerate(error))
    }

    pub fn send_end(&mut self) -> Result<(), TaskError> {
        match self.opened.send_eof() {
            Ok(()) | Err(Error::Eof) => Ok(()),
            Err(error) => self.tolerate(error),
        }
    }

    /// False when another packet is wanted, or when everything came out after the end.
    pub fn receive(&mut self, frame: &mut Frame) -> Result<bool, TaskError> {
        loop {
            match self.opened.receive_frame(frame) {
                Ok(()) => {
                    pulse::beat();
                    self.errors_in_a_row = 0;
                    self.damaged += u64::from(frame.is_corrupt() || frame.has_decode_errors());
                    return Ok(true);
                }
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(false),
                Err(error) => self.tolerate(error)?,
            }
        }
    }

    /// After a seek.
    pub fn flush(&mut self) {
        self.opened.flush();
    }

    fn tolerate(&mut self, error: Error) -> Result<(), TaskError> {
        self.damaged += 1;
        self.errors_in_a_row += 1;
        if error == (Error::Other { errno: ENOMEM }) || self.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
            return Err(TaskError::from(error));
        }
        Ok(())
    }
}
