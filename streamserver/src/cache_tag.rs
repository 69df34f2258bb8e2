//! What a CDN purges by: every answer about a video may say which one it is of.

use chassis::settings::CacheTagHeader;
use domain::VideoId;
use http::{HeaderMap, HeaderName, HeaderValue};

/// `video-<id>` in the header that the operator's CDN reads, or nothing where none was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheTag {
    pub header: Option<CacheTagHeader>,
    pub video: VideoId,
}

impl CacheTag {
    pub fn write(self, headers: &mut HeaderMap) {
        let Some(header) = self.header else { return };
        let tag = match header {
            // A structured field: a list of strings.
            CacheTagHeader::CacheGroups => format!("\"video-{}\"", self.video),
            CacheTagHeader::CacheTag | CacheTagHeader::EdgeCacheTag | CacheTagHeader::SurrogateKey => {
                format!("video-{}", self.video)
            }
        };
        let value = HeaderValue::try_from(tag).expect("ids are made of letters and digits");
        headers.insert(HeaderName::from_static(header.name()), value);
    }
}
