//! Where the packets of the film lie in the uploaded file, for a copy that leaves them there.

use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::codec::packet::side_data::Type;
use ffmpeg_next::format::context::Input;

/// As many are remembered: two hours of thirty pictures and fifty sounds a second, and more.
const PACKETS_MAX: usize = 1 << 20;

/// One packet as the demuxer gave it: times are timestamps of its stream.
#[derive(Debug, Clone, Copy)]
pub struct SourcePacket {
    pub stream: usize,
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub duration: i64,
    pub is_key: bool,
    /// In the file.
    pub offset: u64,
    pub bytes: u32,
}

/// The packets of a source in the order of its demuxer, if all of them lie in the file as they came out.
pub struct SourcePackets(Option<Vec<SourcePacket>>);

impl SourcePackets {
    /// Only MP4 and its kin keep samples as decoders take them, in one piece.
    pub fn of(input: &Input) -> SourcePackets {
        let is_mp4 = input.format().name().split(',').any(|name| name == "mp4");
        SourcePackets(is_mp4.then(Vec::new))
    }

    pub fn take(&mut self, packet: &Packet) {
        let Some(packets) = &mut self.0 else { return };
        match source_packet(packet) {
            Some(packet) if packets.len() < PACKETS_MAX => packets.push(packet),
            _ => self.0 = None,
        }
    }

    /// `None` where some packet lies nowhere in the file as it is.
    pub fn into_list(self) -> Option<Vec<SourcePacket>> {
        self.0
    }
}

fn source_packet(packet: &Packet) -> Option<SourcePacket> {
    // From here on another header holds, which a track of ours has no place for.
    let changes_header = packet.side_data().any(|data| data.kind() == Type::NewExtraData);
    let offset = u64::try_from(packet.position()).ok()?;
    let bytes = u32::try_from(packet.size()).ok().filter(|&bytes| bytes > 0)?;
    (!changes_header).then_some(SourcePacket {
        stream: packet.stream(),
        pts: packet.pts(),
        dts: packet.dts(),
        duration: packet.duration(),
        is_key: packet.is_key(),
        offset,
        bytes,
    })
}
