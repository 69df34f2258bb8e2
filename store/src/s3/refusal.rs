//! Why S3 cannot be used, in words that tell a person what to do.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_async::time::TimeSource;
use domain::StartError;

use super::failure::{Failure, Kind};

/// Servers refuse what is signed further from their own time.
const SKEW_S_MAX: i64 = 15 * 60;

/// Where the store was looked for, and as whom.
pub(super) struct Address {
    pub bucket: String,
    /// `None`: Amazon's, by region.
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key_id: String,
    pub path_style: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => f.write_str(endpoint),
            None => write!(f, "Amazon S3 in {}", self.region),
        }
    }
}

impl Address {
    /// Nobody answered, or only that it cannot.
    pub fn unavailable(&self, failure: &Failure, tries: usize, waited: Duration) -> StartError {
        let waited_s = waited.as_secs();
        if failure.kind == Kind::Busy {
            return StartError::unavailable(format!(
                "S3 at {self} is there and cannot work: {failure} ({tries} tries in {waited_s} s)."
            ));
        }
        let reason = reason(&failure.text);
        let from = match self.endpoint {
            Some(_) => "The address is that of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.",
            None => "For another S3 than Amazon's, set AWS_ENDPOINT_URL_S3.",
        };
        StartError::unavailable(format!(
            "Cannot reach S3 at {self} ({reason}; {tries} tries in {waited_s} s). {from}{}",
            self.style_hint()
        ))
    }

    /// It answered, and will answer the same again.
    pub fn refusal(&self, failure: &Failure, clock: &dyn TimeSource) -> StartError {
        StartError::settings(self.refusal_text(failure, skew_s(failure, clock)))
    }

    /// It answered well and did something else.
    pub fn wrong(&self, what: &str) -> StartError {
        StartError::settings(format!(
            "S3 at {self}, bucket \"{}\", cannot be relied on. {what}. Is there a cache in between?",
            self.bucket
        ))
    }

    fn refusal_text(&self, failure: &Failure, skew_s: Option<i64>) -> String {
        let Address { bucket, region, access_key_id: key, .. } = self;
        let code = failure.code.as_deref().unwrap_or_default();
        let skew_s = skew_s.filter(|skew_s| skew_s.abs() > SKEW_S_MAX || code == "RequestTimeTooSkewed");
        let elsewhere = failure.bucket_region.as_deref().filter(|home| *home != region.as_str());
        match (code, failure.status) {
            ("RequestTimeTooSkewed", _) | (_, Some(403)) if skew_s.is_some() => {
                clock_text(skew_s.unwrap_or(0))
            }
            ("RequestTimeTooSkewed", _) => {
                "This machine's clock and the S3 server's are too far apart. Set it right (timedatectl)."
                    .to_owned()
            }
            ("NoSuchBucket", _) | ("" | "NotFound", Some(404)) => format!(
                "Bucket \"{bucket}\" does not exist at {self}. Make it, or correct SLUICE_STORE \
                 (s3://bucket/prefix).{}",
                self.style_hint()
            ),
            ("InvalidBucketName", _) => {
                format!(
                    "\"{bucket}\" is no name of a bucket ({failure}). Correct SLUICE_STORE (s3://bucket/prefix)."
                )
            }
            ("SecondLevelDomainForbidden", _) => {
                format!(
                    "S3 at {self} wants the bucket in the host ({failure}): set S3_FORCE_PATH_STYLE=false."
                )
            }
            (_, Some(301 | 307)) | ("AuthorizationHeaderMalformed" | "PermanentRedirect", _) => {
                let home = elsewhere.map(|home| format!("; it is in \"{home}\"")).unwrap_or_default();
                format!(
                    "S3 at {self} does not serve bucket \"{bucket}\" in region \"{region}\"{home} ({failure}). Set \
                     AWS_REGION; Garage wants AWS_REGION=garage."
                )
            }
            ("ExpiredToken" | "InvalidToken", _) => format!(
                "S3 refused the session of the credentials ({key}): {failure}. Renew them, or unset \
                 AWS_SESSION_TOKEN."
            ),
            (_, Some(401 | 403)) => format!(
                "S3 at {self} refused the credentials ({key}, bucket \"{bucket}\", region \"{region}\"): {failure}. \
                 Wrong AWS_SECRET_ACCESS_KEY, no right to this bucket, or wrong AWS_REGION? Garage wants \
                 AWS_REGION=garage."
            ),
            (
                "InvalidRequest"
                | "InvalidDigest"
                | "XAmzContentSHA256Mismatch"
                | "BadDigest"
                | "NotImplemented",
                _,
            ) if is_about_checksums(failure) => {
                format!(
                    "S3 at {self} does not accept the SDK's checksums ({failure}). Set \
                     AWS_REQUEST_CHECKSUM_CALCULATION=when_required."
                )
            }
            _ => format!(
                "S3 at {self}, bucket \"{bucket}\", refused what the store needs: {failure}.{}",
                self.style_hint()
            ),
        }
    }

    /// Where the bucket was looked for in the host, although the server may not know such names.
    fn style_hint(&self) -> String {
        match &self.endpoint {
            Some(endpoint) if !self.path_style => format!(
                " The bucket was looked for as a part of the host (\"{}.\" before that of {endpoint}): if the \
                 server does not know such names, set S3_FORCE_PATH_STYLE=true.",
                self.bucket
            ),
            _ => String::new(),
        }
    }
}

fn is_about_checksums(failure: &Failure) -> bool {
    let text = failure.text.to_ascii_lowercase();
    failure.code.as_deref() != Some("NotImplemented") && failure.code.as_deref() != Some("InvalidRequest")
        || ["checksum", "trailer", "sha256", "digest"].into_iter().any(|word| text.contains(word))
}

fn clock_text(skew_s: i64) -> String {
    let far = match skew_s.unsigned_abs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    };
    let direction = if skew_s > 0 { "behind" } else { "ahead of" };
    format!("This machine's clock is {far} {direction} the S3 server's. Set it right (timedatectl).")
}

/// How far the server's clock is ahead of ours.
fn skew_s(failure: &Failure, clock: &dyn TimeSource) -> Option<i64> {
    let theirs = DateTime::from_str(failure.date.as_ref()?, DateTimeFormat::HttpDate).ok()?;
    let ours = clock.now().duration_since(UNIX_EPOCH).ok()?;
    theirs.secs().checked_sub(i64::try_from(ours.as_secs()).ok()?)
}

/// The one word in the chain of causes that says it.
fn reason(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let known = [
        ("connection refused", "connection refused"),
        ("dns error", "the name is not known to DNS"),
        ("failed to lookup address", "the name is not known to DNS"),
        ("no route to host", "no route to the host"),
        ("network is unreachable", "the network is unreachable"),
        ("certificate", "its TLS certificate is not trusted"),
        ("corrupt message", "it does not speak TLS"),
        ("timed out", "timed out"),
        ("timeout", "timed out"),
    ];
    let found = known.into_iter().find(|(words, _)| lower.contains(words));
    match found {
        Some(("certificate", meaning)) => format!("{meaning}: {text}"),
        Some((_, meaning)) => meaning.to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_async::time::StaticTimeSource;

    fn address() -> Address {
        Address {
            bucket: "media".to_owned(),
            endpoint: Some("http://s3:9000".to_owned()),
            region: "us-east-1".to_owned(),
            access_key_id: "AKIAXYZ".to_owned(),
            path_style: true,
        }
    }

    fn failure(status: u16, code: &str, text: &str) -> Failure {
        let mut failure = Failure::found("PutObject", ".probe/x", Kind::Refused, text);
        failure.status = Some(status);
        failure.code = Some(Box::<str>::from(code)).filter(|code| !code.is_empty());
        failure
    }

    #[test]
    fn a_clock_that_is_off_is_told_how_far() {
        let mut skewed = failure(403, "RequestTimeTooSkewed", "");
        skewed.date = Some("Sun, 06 Nov 1994 08:49:37 GMT".into());
        let text = |skewed: &Failure, seconds: i64| {
            let clock = StaticTimeSource::from_secs((784_111_777 + seconds) as u64);
            address().refusal(skewed, &clock).text
        };
        assert_eq!(
            text(&skewed, -16 * 60),
            "This machine's clock is 16 min behind the S3 server's. Set it right (timedatectl)."
        );
        assert!(text(&skewed, 3 * 3600).contains("3 h ahead of"), "{}", text(&skewed, 3 * 3600));
        // Servers that say it in other words.
        skewed.code = Some("AccessDenied".into());
        assert!(text(&skewed, -16 * 60).contains("16 min behind"));
        assert!(text(&skewed, -60).contains("refused the credentials"));
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let mut vhost = address();
        vhost.path_style = false;
        let cases = [
            (address(), failure(403, "SignatureDoesNotMatch", ""), "AWS_SECRET_ACCESS_KEY"),
            (address(), failure(403, "InvalidAccessKeyId", ""), "AKIAXYZ"),
            (
                address(),
                failure(404, "NoSuchBucket", ""),
                "Bucket \"media\" does not exist at http://s3:9000",
            ),
            (vhost, failure(404, "NoSuchBucket", ""), "S3_FORCE_PATH_STYLE=true"),
            (address(), failure(400, "AuthorizationHeaderMalformed", ""), "AWS_REGION=garage"),
            (
                address(),
                failure(400, "InvalidRequest", "unknown checksum"),
                "CHECKSUM_CALCULATION=when_required",
            ),
            (address(), failure(400, "XAmzContentSHA256Mismatch", ""), "CHECKSUM_CALCULATION=when_required"),
            (address(), failure(400, "InvalidRequest", "something else"), "refused what the store needs"),
            (address(), failure(403, "SecondLevelDomainForbidden", ""), "S3_FORCE_PATH_STYLE=false"),
            (address(), failure(400, "ExpiredToken", ""), "AWS_SESSION_TOKEN"),
        ];
        for (address, failure, words) in cases {
            let text = address.refusal_text(&failure, None);
            assert!(text.contains(words), "{failure}: {text}");
        }
        let mut moved = failure(301, "PermanentRedirect", "");
        moved.bucket_region = Some("eu-west-1".into());
        let text = address().refusal_text(&moved, None);
        assert!(text.contains("it is in \"eu-west-1\""), "{text}");
    }
}
