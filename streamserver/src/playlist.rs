//! Playlists and manifests as they travel: plain, or gzipped as Apple's rules want it, each form with its own tag.

use std::io::Write;

use axum::response::Response;
use bytes::Bytes;
use chassis::Problem;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::answer::{self, Asked, Description};
use crate::suffix::Suffix;

pub const HLS: &str = "application/vnd.apple.mpegurl";
pub const DASH: &str = "application/dash+xml";

/// `description` is that of the plain form without `suffix`, which stands behind every address in `text`.
pub fn answer(
    asked: &Asked<'_>,
    description: Description,
    suffix: &Suffix,
    text: String,
) -> Result<Response, Problem> {
    let mut description = description.naming(suffix);
    let gzip = accepts_gzip(asked.headers);
    let body = if gzip {
        description.validators.etag.push_str("-gz");
        compress(&text)
    } else {
        Bytes::from(text)
    };
    let mut response = answer::bytes(asked, &description, body)?;
    let sent = response.status() == StatusCode::OK;
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if gzip && sent {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Some hundred lines of text: tens of microseconds.
fn compress(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("a Vec takes every byte");
    encoder.finish().expect("a Vec takes every byte").into()
}

/// RFC 9110 §12.5.3, for the one coding we have.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut gzip = None;
    let mut any = None;
    for coding in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let quality = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f64>);
        let wanted = quality.is_ok_and(|quality| quality > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                gzip = Some(wanted)
            }
            "*" => any = Some(wanted),
            _ => {}
        }
    }
    gzip.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn gzip_is_sent_to_those_who_want_it() {
        for (value, expected) in [
            ("gzip", true),
            ("GZIP;q=0.5, br", true),
            ("br, deflate", false),
            ("*", true),
            ("*, gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn gzip_gives_the_text_back() {
        let text = "#EXTM3U\n".repeat(1000);
        let compressed = compress(&text);
        assert!(compressed.len() < text.len() / 10);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
