//! The headers of tus 1.0.0, read strictly: one of each, plain digits, proper base64. What is not exactly as the
//! protocol writes it is refused before anything is done.

use std::collections::HashSet;

use axum::extract::FromRequestParts;
use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::Problem;
use domain::{UploadId, VideoId};
use http::header::{CONTENT_TYPE, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::resumable::checksum::{Algorithm, Checksum, Expected};
use crate::resumable::{UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::upload_request::essence;

pub const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
pub const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
pub const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
pub const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
pub const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
pub const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

pub const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
pub const EXTENSIONS: HeaderValue = HeaderValue::from_static(
    "creation,creation-with-upload,creation-defer-length,checksum,checksum-trailer,expiration,termination,concatenation",
);
pub const ALGORITHMS: HeaderValue = HeaderValue::from_static("sha1,sha256");
const BODY_TYPE: &str = "application/offset+octet-stream";

/// Lengths are signed 64 bits wherever they are kept.
const NUMBER_MAX: u64 = i64::MAX as u64;
const METADATA_BYTES_MAX: usize = 8 * 1024;
const METADATA_PAIRS_MAX: usize = 64;
/// As many as a video may have open.
const PARTIALS_MAX: usize = 64;

/// An extractor: the request speaks tus 1.0.0, or it is refused with 412 unread.
pub struct Version;

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.headers.get(TUS_RESUMABLE) == Some(&VERSION) {
            return Ok(Version);
        }
        let problem = Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "/problems/tus-version",
            "Another version of tus",
            "This server speaks tus 1.0.0: send `Tus-Resumable: 1.0.0` with every request; or `Upload-Draft-Interop-Version: 8` \
             where it is the IETF's draft that you speak.",
        );
        Err(problem.with_header(TUS_VERSION, VERSION))
    }
}

/// What an upload is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concat {
    Whole,
    Partial,
    /// The header, to be echoed, and the uploads that it names, in order.
    Final {
        header: String,
        partials: Vec<UploadId>,
    },
}

/// `Upload-Metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// As it came, to be echoed; empty where there was none.
    pub header: String,
    pairs: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    pub fn video(&self) -> Result<Option<VideoId>, Problem> {
        let Some(value) = self.value("video_id") else { return Ok(None) };
        let id = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        id.map(Some).ok_or_else(Problem::invalid_id)
    }

    /// `filename`, or `name` as Uppy has it.
    pub fn filename(&self) -> Option<String> {
        let name = self.value("filename").or_else(|| self.value("name"))?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
    }
}

pub fn offset(headers: &HeaderMap) -> Result<u64, Problem> {
    let offset = number(headers, &UPLOAD_OFFSET)?;
    offset.ok_or_else(|| bad(&UPLOAD_OFFSET, "is missing; it says where the bytes of this request begin"))
}

/// `None`: not said.
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    number(headers, &UPLOAD_LENGTH)
}

/// Of a new upload; `None` where it is deferred.
pub fn length_or_deferred(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let deferred = match single(headers, &UPLOAD_DEFER_LENGTH)? {
        None => false,
        Some("1") => true,
        Some(_) => return Err(bad(&UPLOAD_DEFER_LENGTH, "can only be `1`")),
    };
    match (length(headers)?, deferred) {
        (Some(_), true) => Err(bad(&UPLOAD_LENGTH, "and `Upload-Defer-Length` exclude each other")),
        (None, false) => {
            Err(bad(&UPLOAD_LENGTH, "is missing; where it is not known yet, send `Upload-Defer-Length: 1`"))
        }
        (length, _) => Ok(length),
    }
}

/// An empty header is none: there are clients that always send it.
pub fn metadata(headers: &HeaderMap) -> Result<Metadata, Problem> {
    let header = single(headers, &UPLOAD_METADATA)?.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(Metadata::default());
    }
    if header.len() > METADATA_BYTES_MAX {
        return Err(bad(&UPLOAD_METADATA, format!("is longer than {METADATA_BYTES_MAX} bytes")));
    }
    // One too many tells: the memory that all of them take is many times the header's.
    let pairs = header.split(',').take(METADATA_PAIRS_MAX + 1);
    let pairs = pairs.map(|pair| pair_of(pair.trim())).collect::<Option<Vec<_>>>();
    let pairs = pairs.ok_or_else(|| {
        bad(
            &UPLOAD_METADATA,
            "is a list such as `filename Y2xpcC5tcDQ=,is_draft`: keys, each with its value in base64",
        )
    })?;
    if pairs.len() > METADATA_PAIRS_MAX {
        return Err(bad(&UPLOAD_METADATA, format!("has more than {METADATA_PAIRS_MAX} keys")));
    }
    let mut seen = HashSet::new();
    if !pairs.iter().all(|(key, _)| seen.insert(key)) {
        return Err(bad(&UPLOAD_METADATA, "has the same key twice"));
    }
    Ok(Metadata { header: header.to_owned(), pairs })
}

/// The space may be left out before an empty value.
fn pair_of(text: &str) -> Option<(String, Vec<u8>)> {
    let (key, value) = text.split_once(' ').unwrap_or((text, ""));
    let value = BASE64_STANDARD.decode(value).ok()?;
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| (key.to_owned(), value))
}

/// What the bytes must hash to, if the client says so.
pub fn checksum(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    if let Some(value) = single(headers, &UPLOAD_CHECKSUM)? {
        return checksum_of(value).map(|checksum| Some(Expected::Given(checksum)));
    }
    let trailers = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    let mut names = trailers.flat_map(|value| value.split(','));
    let follows = names.any(|name| name.trim().eq_ignore_ascii_case(UPLOAD_CHECKSUM.as_str()));
    Ok(follows.then_some(Expected::Trailer))
}

/// In the trailers of a body that announced it.
pub fn checksum_in_trailers(trailers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    single(trailers, &UPLOAD_CHECKSUM)?.map(checksum_of).transpose()
}

fn checksum_of(value: &str) -> Result<Checksum, Problem> {
    let (name, digest) = value.split_once(' ').unwrap_or((value, ""));
    let algorithm: Algorithm = name.parse().map_err(|()| {
        bad(&UPLOAD_CHECKSUM, "names an algorithm that is not taken here; there are `sha1` and `sha256`")
    })?;
    let digest = BASE64_STANDARD.decode(digest).ok().filter(|digest| digest.len() == algorithm.bytes());
    let digest = digest.ok_or_else(|| {
        bad(&UPLOAD_CHECKSUM, format!("is `{name}` and {} bytes in base64 after it", algorithm.bytes()))
    })?;
    Ok(Checksum { algorithm, digest })
}

pub fn concat(headers: &HeaderMap) -> Result<Concat, Problem> {
    let Some(header) = single(headers, &UPLOAD_CONCAT)? else { return Ok(Concat::Whole) };
    if header == "partial" {
        return Ok(Concat::Partial);
    }
    let wrong = || {
        bad(
            &UPLOAD_CONCAT,
            "is `partial`, or `final;` and the addresses of partial uploads with spaces between them",
        )
    };
    let urls = header.strip_prefix("final;").ok_or_else(wrong)?;
    let partials = urls.split_ascii_whitespace().map(upload_at).collect::<Option<Vec<_>>>();
    let partials = partials.filter(|partials| !partials.is_empty()).ok_or_else(wrong)?;
    if partials.len() > PARTIALS_MAX {
        return Err(bad(&UPLOAD_CONCAT, format!("names more than {PARTIALS_MAX} uploads")));
    }
    let mut seen = HashSet::new();
    if !partials.iter().all(|partial| seen.insert(partial)) {
        return Err(bad(&UPLOAD_CONCAT, "names the same upload twice"));
    }
    Ok(Concat::Final { header: header.to_owned(), partials })
}

/// Clients repeat addresses as they saw them: relative as we gave them, or with whatever scheme, host and path a proxy
/// has in front of it. A comma is a list that was meant otherwise.
fn upload_at(url: &str) -> Option<UploadId> {
    let path = url.split(['?', '#']).next().filter(|path| !path.contains(','))?;
    path.rsplit('/').next()?.parse().ok()
}

/// The body is bytes of an upload.
pub fn has_bytes(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    essence(content_type) == BODY_TYPE
}

pub fn wrong_body_type() -> Problem {
    Problem::unsupported_media_type("`application/offset+octet-stream`")
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(text) = single(headers, name)? else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|&number| digits && number <= NUMBER_MAX);
    number.map(Some).ok_or_else(|| bad(name, "is a number of bytes in plain digits"))
}

/// A header that says a thing twice says nothing.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, "is there twice"));
    }
    value.to_str().map(Some).map_err(|_| bad(name, "has characters that are not plain ASCII"))
}

/// The name as the protocol writes it.
fn bad(name: &HeaderName, what: impl std::fmt::Display) -> Problem {
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    Problem::bad_request(format!("`{}` {what}.", words.collect::<Vec<_>>().join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0199c5a8-5c6e-7a3b-8f00-0123456789ab";
    const OTHER: &str = "0199c5a8-5c6e-7a3b-8f00-0123456789ac";

    fn with(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn is_bad<T: std::fmt::Debug>(outcome: Result<T, Problem>, what: &str) {
        let problem = outcome.expect_err(what);
        assert_eq!((problem.status().as_u16(), problem.kind()), (400, "/problems/bad-request"), "{what}");
    }

    #[test]
    fn numbers_are_plain_digits() {
        let of = |text: &str| offset(&with(&[(UPLOAD_OFFSET, text)]));
        assert_eq!(of("0").unwrap(), 0);
        assert_eq!(of("9223372036854775807").unwrap(), i64::MAX as u64);
        for bad in [
            "",
            " ",
            "-1",
            "+5",
            "0x10",
            "1e3",
            "1.0",
            "1_000",
            "1,0",
            "5 5",
            "nine",
            "９",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999999999999999999999",
        ] {
            is_bad(of(bad), bad);
        }
        is_bad(offset(&with(&[])), "none");
        is_bad(offset(&with(&[(UPLOAD_OFFSET, "5"), (UPLOAD_OFFSET, "5")])), "twice");
    }

    #[test]
    fn a_length_is_said_or_deferred() {
        let of = |pairs: &[(HeaderName, &str)]| length_or_deferred(&with(pairs));
        assert_eq!(of(&[(UPLOAD_LENGTH, "7")]).unwrap(), Some(7));
        assert_eq!(of(&[(UPLOAD_DEFER_LENGTH, "1")]).unwrap(), None);
        is_bad(of(&[]), "neither");
        is_bad(of(&[(UPLOAD_LENGTH, "7"), (UPLOAD_DEFER_LENGTH, "1")]), "both");
        for bad in ["0", "2", "true", "", "11", "01"] {
            is_bad(of(&[(UPLOAD_DEFER_LENGTH, bad)]), bad);
        }
    }

    #[test]
    fn metadata_is_keys_and_base64() {
        let of = |text: &str| metadata(&with(&[(UPLOAD_METADATA, text)]));
        assert_eq!(metadata(&with(&[])).unwrap(), Metadata::default());
        assert_eq!(of("").unwrap(), Metadata::default());
        let text = format!("video_id {},filename w7wubXA0,empty, also_empty ", BASE64_STANDARD.encode(ID));
        let read = of(&text).unwrap();
        assert_eq!(read.video().unwrap(), Some(ID.parse().unwrap()));
        assert_eq!(read.filename().as_deref(), Some("ü.mp4"));
        assert_eq!(read.value("empty"), Some(&[][..]));
        assert_eq!(read.value("also_empty"), Some(&[][..]));
        assert_eq!(read.value("other"), None);
        assert_eq!(of("name YQ==").unwrap().filename().as_deref(), Some("a"), "as Uppy has it");
        let many = (0..=METADATA_PAIRS_MAX).map(|i| format!("k{i}")).collect::<Vec<_>>().join(",");
        let long = format!("k {}", "A".repeat(METADATA_BYTES_MAX));
        for bad in [
            "filename ???",
            "filename YQ",
            "filename YQ= =",
            "filename  YQ==",
            "a YQ==,a Yg==",
            "a,a",
            "a,,b",
            ",",
            "a,",
            "ü YQ==",
            "a YQ==\tb",
            &many,
            &long,
        ] {
            is_bad(of(bad), bad);
        }
        is_bad(metadata(&with(&[(UPLOAD_METADATA, "a"), (UPLOAD_METADATA, "b")])), "two headers");
        let problem = of("video_id YQ==").unwrap().video().unwrap_err();
        assert_eq!(problem.kind(), "/problems/invalid-id");
    }

    #[test]
    fn keys_that_are_too_many_take_no_memory() {
        let keys = (0..4000).map(|_| "a,").collect::<String>();
        let headers = with(&[(UPLOAD_METADATA, &keys)]);
        let taken = allocation_counter::measure(|| is_bad(metadata(&headers), "4,000 keys"));
        assert!(taken.bytes_max < 16 * 1024, "{} bytes", taken.bytes_max);
    }

    #[test]
    fn checksums_are_of_their_algorithm() {
        let of = |text: &str| checksum(&with(&[(UPLOAD_CHECKSUM, text)]));
        let sha1 = BASE64_STANDARD.encode([7; 20]);
        let sha256 = BASE64_STANDARD.encode([7; 32]);
        let given =
            |algorithm, digest: &[u8]| Some(Expected::Given(Checksum { algorithm, digest: digest.to_vec() }));
        assert_eq!(of(&format!("sha1 {sha1}")).unwrap(), given(Algorithm::Sha1, &[7; 20]));
        assert_eq!(of(&format!("sha256 {sha256}")).unwrap(), given(Algorithm::Sha256, &[7; 32]));
        for bad in [
            String::new(),
            "sha1".into(),
            "sha1 ".into(),
            format!("sha1 {sha256}"),
            format!("sha256 {sha1}"),
            format!("md5 {sha1}"),
            format!("SHA1 {sha1}"),
            format!("sha1  {sha1}"),
            format!("sha1 {sha1}x"),
            format!("sha1,{sha1}"),
        ] {
            is_bad(of(&bad), &bad);
        }
        assert_eq!(checksum(&with(&[])).unwrap(), None);
        assert_eq!(
            checksum(&with(&[(TRAILER, "X-Other, Upload-Checksum")])).unwrap(),
            Some(Expected::Trailer)
        );
        assert_eq!(checksum(&with(&[(TRAILER, "X-Other")])).unwrap(), None);
        is_bad(checksum(&with(&[(UPLOAD_CHECKSUM, &sha1), (UPLOAD_CHECKSUM, &sha1)])), "twice");
    }

    #[test]
    fn partials_are_named_by_any_address() {
        let of = |text: &str| concat(&with(&[(UPLOAD_CONCAT, text)]));
        assert_eq!(concat(&with(&[])).unwrap(), Concat::Whole);
        assert_eq!(of("partial").unwrap(), Concat::Partial);
        for (first, second) in [
            (format!("/stream/uploads/{ID}"), format!("/stream/uploads/{OTHER}")),
            (
                format!("https://films.example:8443/behind/a/proxy/{ID}"),
                format!("http://10.0.0.7/stream/uploads/{OTHER}"),
            ),
            (format!("../uploads/{ID}?token=x"), format!("{OTHER}#top")),
        ] {
            let header = format!("final;{first} {second}");
            let partials = vec![ID.parse().unwrap(), OTHER.parse().unwrap()];
            assert_eq!(of(&header).unwrap(), Concat::Final { header, partials });
        }
        let many = format!(
            "final;{}",
            (0..=PARTIALS_MAX)
                .map(|i| format!("0199c5a8-5c6e-7a3b-8f00-{i:012x}"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        for bad in [
            "",
            "Partial",
            "partial;",
            "final",
            "final;",
            "final; ",
            "final;/stream/uploads/",
            "final;/stream/uploads/nonsense",
            &format!("final;/stream/uploads/{ID} /stream/uploads/{ID}"),
            &format!("final;/a/{ID},/b/{OTHER}"),
            &many,
        ] {
            is_bad(of(bad), bad);
        }
    }

    #[test]
    fn bodies_say_that_they_are_bytes_of_an_upload() {
        let of = |text: &str| has_bytes(&with(&[(CONTENT_TYPE, text)]));
        assert!(of("application/offset+octet-stream") && of("Application/Offset+Octet-Stream; x=y"));
        assert!(!of("application/octet-stream") && !of("") && !has_bytes(&with(&[])));
    }

    proptest! {
        #[test]
        fn every_number_is_read_back_and_nothing_else_is_a_number(number in 0..=NUMBER_MAX, text in "[0-9a-fx+ _.,-]{0,24}") {
            prop_assert_eq!(offset(&with(&[(UPLOAD_OFFSET, &number.to_string())])).unwrap(), number);
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let read = offset(&with(&[(UPLOAD_OFFSET, &text)]));
            let fits = text.parse::<u128>().is_ok_and(|number| number <= u128::from(NUMBER_MAX));
            prop_assert_eq!(read.is_ok(), plain && fits);
        }

        #[test]
        fn every_metadata_is_read_back(pairs in proptest::collection::btree_map("[!-+\\--~]{1,12}", proptest::collection::vec(any::<u8>(), 0..40), 0..12)) {
            let text: Vec<_> = pairs.iter().map(|(key, value)| format!("{key} {}", BASE64_STANDARD.encode(value))).collect();
            let read = metadata(&with(&[(UPLOAD_METADATA, &text.join(","))])).unwrap();
            prop_assert_eq!(read.pairs, pairs.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_is_echoed_can_be_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(UPLOAD_METADATA, value.clone()), (UPLOAD_CONCAT, value)]);
            if let Ok(read) = metadata(&headers) {
                prop_assert!(HeaderValue::try_from(read.header).is_ok());
            }
            if let Ok(Concat::Final { header, .. }) = concat(&headers) {
                prop_assert!(HeaderValue::try_from(header).is_ok());
            }
        }
    }
}
