//! The codecs that are ever decoded, and the decoders allowed to do it.

use ffmpeg_next::codec::Id;

/// In words, for the uploader.
pub const VIDEO_ACCEPTED: &str =
    "H.264, HEVC, VP8, VP9, AV1, MPEG-1, MPEG-2, MPEG-4 part 2, H.263, MJPEG, ProRes and Theora";
pub const AUDIO_ACCEPTED: &str = "AAC, MP3, MP2, Opus, Vorbis, AC-3, E-AC-3, FLAC, ALAC, AMR and PCM";

/// FFmpeg's `codec_whitelist`: names of decoders. What is not here is never opened, whatever a file says.
pub const DECODERS: &str = "h264,hevc,vp8,vp9,libdav1d,libaom-av1,av1,mpeg1video,mpeg2video,mpeg4,h263,flv,mjpeg,\
    prores,theora,aac,aac_fixed,mp3float,mp3,mp2float,mp2,opus,libopus,vorbis,libvorbis,ac3,eac3,flac,alac,amrnb,\
    amrwb,libopencore_amrnb,libopencore_amrwb,pcm_alaw,pcm_mulaw,pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,\
    pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_dvd,pcm_bluray";

pub fn is_accepted_video(codec: Id) -> bool {
    use Id::*;
    matches!(
        codec,
        H264 | HEVC
            | VP8
            | VP9
            | AV1
            | MPEG1VIDEO
            | MPEG2VIDEO
            | MPEG4
            | H263
            | H263P
            | FLV1
            | MJPEG
            | PRORES
            | THEORA
    )
}

pub fn is_accepted_audio(codec: Id) -> bool {
    use Id::*;
    let listed = matches!(
        codec,
        AAC | MP3 | MP2 | OPUS | VORBIS | AC3 | EAC3 | FLAC | ALAC | AMR_NB | AMR_WB | PCM_DVD | PCM_BLURAY
    );
    listed || codec.name().starts_with("pcm_") && DECODERS.split(',').any(|name| name == codec.name())
}
