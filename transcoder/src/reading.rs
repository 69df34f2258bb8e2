//! One pass over a source: every packet is seen, the first pictures and sounds are decoded.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use domain::task::MediaLimits;
use domain::{MediaProblem, Size};
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::{Audio, Video};
use ffmpeg_next::util::error::ENOMEM;
use ffmpeg_next::{Error, Rational};

use crate::decode::Decoder;
use crate::error::joined;
use crate::filters::PictureFormat;
use crate::frame_times::VideoPacket;
use crate::source_packets::SourcePackets;
use crate::source_reader::Blank;
use crate::{TaskError, error, ffi, pulse};

/// Pictures looked at for size, format and interlacing; where one of them is interlaced, more, for how its fields come.
const LOOKED_AT: usize = 6;
const INTERLACED_LOOKED_AT: usize = 12;
/// Packets tried for them; a stream that starts in the middle of a long GOP shows nothing before.
const TRIED_PACKETS_MAX: usize = 2_000;
/// Packets read ahead of the one that is being looked at.
const SHOWN_AHEAD_PACKETS_MAX: usize = 16;
const TRIED_SOUND_PACKETS_MAX: usize = 200;
/// Packets of one film: two hours at 240 frames a second and more; only a hostile file has more.
const VIDEO_PACKETS_MAX: usize = 4_000_000;
/// Damaged stretches the demuxer may skip before the rest counts as lost.
const SKIPS_MAX: u32 = 1_000;

/// Everything one pass over the file brings.
pub struct Reading {
    pub video: Vec<VideoPacket>,
    pub video_bytes: u64,
    pub audio: AudioRead,
    pub look: Look,
    pub packets: SourcePackets,
    /// It ended before the end of the file, or in the middle of a packet.
    pub cut: bool,
}

#[derive(Default)]
pub struct AudioRead {
    /// Timestamp of the first packet.
    pub start: Option<i64>,
    pub end: i64,
    pub bytes: u64,
    tried_packets: usize,
    /// Something could be decoded.
    pub heard: bool,
}

/// What the first decoded pictures show.
#[derive(Default)]
pub struct Look {
    pub first: Option<Picture>,
    /// Of the pictures that came out.
    pub timestamps: Vec<i64>,
    pub interlaced: bool,
    pub damaged: bool,
}

/// Decodes the first pictures beside the reading.
struct Looking {
    decoder: Decoder,
    tried_packets: usize,
    found: Look,
}

pub struct Picture {
    pub size: Size,
    pub pixel: Pixel,
    pub hdr: bool,
    pub sar: Rational,
}

/// Reads `input`, which stands at its start, to its end. `ear`: the audio stream and a decoder for it. Where
/// there are `samples` to leave out, they are once enough was seen and heard.
pub fn read_all(
    input: &mut Input,
    video: usize,
    ear: Option<(usize, Decoder)>,
    limits: &MediaLimits,
    samples: Option<&Blank>,
) -> Result<Reading, TaskError> {
    let looking = Looking::open(input, video, limits.pixels_max)?;
    let (read, look) = thread::scope(|scope| {
        let (shown, packets) = mpsc::sync_channel(SHOWN_AHEAD_PACKETS_MAX);
        let looking = scope.spawn(move || looking.through(&packets));
        let read = read_packets(input, video, ear, shown, samples);
        (read, joined(looking, "looking at the first pictures"))
    });
    Ok(Reading { look: look?, ..read? })
}

/// Whatever is `shown` is looked at, as long as somebody looks.
fn read_packets(
    input: &mut Input,
    video: usize,
    mut ear: Option<(usize, Decoder)>,
    shown: SyncSender<Packet>,
    samples: Option<&Blank>,
) -> Result<Reading, TaskError> {
    let mut read = Reading {
        video: Vec::new(),
        video_bytes: 0,
        audio: AudioRead::default(),
        look: Look::default(),
        packets: SourcePackets::of(input),
        cut: false,
    };
    let mut shown = Some(shown);
    let mut skips = 0;
    let mut left = Left(ffi::file_bytes(input));
    loop {
        if shown.is_none() && (ear.is_none() || read.audio.is_tried()) {
            samples.inspect(|samples| samples.go_blank());
        }
        let mut packet = Packet::empty();
        match packet.read(input) {
            Ok(()) if packet.stream() == video => {
                left.take(&packet);
                read.packets.take(&packet);
                read.video_packet(&packet)?;
                shown = shown.filter(|looked_at| looked_at.send(packet).is_ok());
            }
            Ok(()) => {
                left.take(&packet);
                if let Some((_, decoder)) = ear.as_mut().filter(|(audio, _)| *audio == packet.stream()) {
                    read.packets.take(&packet);
                    read.audio.packet(&packet, decoder)?;
                }
            }
            Err(Error::Eof) => break,
            Err(Error::InvalidData) if skips < SKIPS_MAX => skips += 1,
            // A packet may also say that it is larger than there can be.
            Err(error @ Error::Other { errno: ENOMEM }) if !error::has_memory() => return Err(error.into()),
            Err(_) => {
                read.cut = true;
                break;
            }
        }
    }
    // A picture cut off in the middle is not whole; in the middle of the film the decoder may still show it.
    while read.video.pop_if(|last| last.corrupt).is_some() {
        read.cut = true;
    }
    Ok(read)
}

/// Bytes of the file that were not read yet. A demuxer that goes round in circles comes to an end of them, and is
/// not heard any more.
struct Left(u64);

impl Left {
    fn take(&mut self, packet: &Packet) {
        let bytes = packet.size() as u64;
        if bytes > 0 && self.0 > 0 {
            self.0 = self.0.saturating_sub(bytes);
            pulse::beat();
        }
    }
}

impl Reading {
    fn video_packet(&mut self, packet: &Packet) -> Result<(), TaskError> {
        if self.video.len() >= VIDEO_PACKETS_MAX {
            let detail = format!("The video has more than {VIDEO_PACKETS_MAX} pictures.");
            return Err(TaskError::rejected(MediaProblem::TooLong, detail));
        }
        self.video.push(VideoPacket {
            pts: packet.pts(),
            dts: packet.dts(),
            duration: packet.duration(),
            key: packet.is_key(),
            hidden: ffi::is_hidden(packet),
            corrupt: packet.is_corrupt(),
        });
        self.video_bytes += packet.size() as u64;
        Ok(())
    }
}

impl AudioRead {
    fn is_tried(&self) -> bool {
        self.heard || self.tried_packets >= TRIED_SOUND_PACKETS_MAX
    }

    fn packet(&mut self, packet: &Packet, decoder: &mut Decoder) -> Result<(), TaskError> {
        if !self.is_tried() {
            self.tried_packets += 1;
            decoder.send(packet)?;
            let mut samples = Audio::empty();
            while decoder.receive(&mut samples)? {
                self.heard = true;
            }
        }
        let Some(pts) = packet.pts().or(packet.dts()) else { return Ok(()) };
        self.start = Some(self.start.map_or(pts, |start| start.min(pts)));
        self.end = self.end.max(pts.saturating_add(packet.duration().max(0)));
        self.bytes += packet.size() as u64;
        Ok(())
    }
}

impl Looking {
    fn open(input: &Input, video: usize, pixels_max: u64) -> Result<Self, TaskError> {
        let stream = input.stream(video).ok_or(Error::StreamNotFound)?;
        let decoder = Decoder::open_to_look(&stream, pixels_max).map_err(|error| {
            let detail = format!("The video cannot be decoded: {error}.");
            TaskError::rejected(MediaProblem::Unreadable, detail)
        })?;
        Ok(Looking { decoder, tried_packets: 0, found: Look::default() })
    }

    /// Until enough was seen, or the film is over.
    fn through(mut self, packets: &Receiver<Packet>) -> Result<Look, TaskError> {
        for packet in packets {
            self.tried_packets += 1;
            self.decoder.send(&packet)?;
            self.receive()?;
            if self.is_done() {
                break;
            }
        }
        if !self.is_done() {
            self.decoder.send_end()?;
            self.receive()?;
        }
        // Streams that begin in the middle of a GOP start with errors; only what follows a picture tells.
        self.found.damaged = self.decoder.damaged > 0 && !self.has_seen_enough();
        Ok(self.found)
    }

    fn is_done(&self) -> bool {
        self.has_seen_enough() || self.tried_packets >= TRIED_PACKETS_MAX
    }

    fn has_seen_enough(&self) -> bool {
        let enough = if self.found.interlaced { INTERLACED_LOOKED_AT } else { LOOKED_AT };
        self.found.timestamps.len() >= enough
    }

    fn receive(&mut self) -> Result<(), TaskError> {
        let mut frame = Video::empty();
        while self.decoder.receive(&mut frame)? {
            self.found.interlaced |= frame.is_interlaced();
            self.found.timestamps.extend(frame.timestamp());
            self.found.first.get_or_insert_with(|| Picture {
                size: Size { width: frame.width(), height: frame.height() },
                pixel: frame.format(),
                hdr: PictureFormat::of(&frame).is_hdr(),
                sar: frame.aspect_ratio(),
            });
        }
        Ok(())
    }
}
