//! What players say of how watching goes (CTA-5004, Common Media Client Data): in the query as `CMCD=`, or in headers. It comes
//! from strangers and changes no answer: what makes no sense is as good as nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};

use domain::Timestamp;
use http::request::Parts;
use serde::Deserialize;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

const TEXT_BYTES_MAX: usize = 2048;
const SESSION_ID_CHARS_MAX: usize = 64;
const HEADERS: [&str; 4] = ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"];

/// Sessions that are starting up or have told of it, and how long one that says nothing is remembered.
const SESSIONS_MAX: usize = 10_000;
const SESSION_MS_MAX: i64 = 300_000;
/// What took longer was no start: the player slept, or invents.
const STARTUP_MS_MAX: i64 = 120_000;

/// Of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// A digest of the session's id; `None`: the player has none.
    pub session: Option<u64>,
    /// `su`: needed at once, as at the start, after a seek or when the buffer ran dry.
    pub urgent: bool,
    /// `bs`: the buffer ran dry since the last request.
    pub starved: bool,
    /// `msd`: what the start took, as the player measured it.
    pub startup_ms: Option<u32>,
}

#[derive(Deserialize)]
struct Query {
    #[serde(rename = "CMCD")]
    text: String,
}

impl Said {
    /// `None`: the request says nothing of the kind.
    pub fn of(parts: &Parts) -> Option<Said> {
        let query = parts.uri.query().filter(|query| query.contains("CMCD="));
        if query.is_some() {
            let Query { text } = axum::extract::Query::try_from_uri(&parts.uri).ok()?.0;
            return Said::parse([text.as_str()]);
        }
        let texts = HEADERS.iter().filter_map(|name| parts.headers.get(*name)?.to_str().ok());
        Said::parse(texts)
    }

    fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Said> {
        let mut said = Dictionary::new();
        for text in texts {
            if text.len() > TEXT_BYTES_MAX {
                return None;
            }
            said.extend(Parser::new(text).parse::<Dictionary>().ok()?);
        }
        let item = |name: &str| match said.get(name)? {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        let is_set = |name: &str| matches!(item(name), Some(BareItem::Boolean(true)));
        let session = match item("sid") {
            Some(BareItem::String(id)) if id.as_str().len() <= SESSION_ID_CHARS_MAX => {
                Some(digest(id.as_str()))
            }
            _ => None,
        };
        let startup_ms = match item("msd") {
            Some(BareItem::Integer(ms)) => u32::try_from(i64::from(*ms)).ok(),
            _ => None,
        };
        (!said.is_empty()).then(|| Said { session, urgent: is_set("su"), starved: is_set("bs"), startup_ms })
    }
}

/// Only to tell sessions apart for minutes.
fn digest(session_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    session_id.hash(&mut hasher);
    hasher.finish()
}

/// Players at their start.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<u64, Session>);

#[derive(Debug)]
struct Session {
    began_at: Timestamp,
    last_at: Timestamp,
    started: bool,
}

impl Sessions {
    /// How long the player took to start, in milliseconds, where this is the request that tells: by what it measured, else
    /// from its first request to the first that is not urgent any more. Once a session.
    pub fn hear(&mut self, said: &Said, at: Timestamp) -> Option<i64> {
        let id = said.session?;
        let is_full = self.0.len() >= SESSIONS_MAX;
        let session = match self.0.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            // Who is in no hurry came in the middle.
            Entry::Vacant(new) => new.insert(Session {
                began_at: at,
                last_at: at,
                started: !said.urgent && said.startup_ms.is_none(),
            }),
        };
        session.last_at = at.max(session.last_at);
        let took_ms = match said.startup_ms {
            _ if session.started => return None,
            Some(ms) => i64::from(ms),
            None if said.urgent => return None,
            None => at.ms_since(session.began_at),
        };
        session.started = true;
        (0..=STARTUP_MS_MAX).contains(&took_ms).then_some(took_ms)
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|_, session| now.ms_since(session.last_at) <= SESSION_MS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn of(query: &str, headers: &[(&'static str, &str)]) -> Option<Said> {
        let request = Request::get(format!("/stream/videos/x?{query}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Said::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_query_and_the_headers_say_the_same() {
        let query =
            "a=b&CMCD=bs%2Cbl%3D0%2Cmtp%3D25400%2Csid%3D%226e2fb550%22%2Csu%2Cnor%3D%22..%252F2.mp4%22";
        let headers = [
            ("cmcd-request", "mtp=25400,su"),
            ("cmcd-status", "bs,bl=0"),
            ("cmcd-session", "sid=\"6e2fb550\""),
        ];
        let said = of(query, &[]).unwrap();
        assert_eq!(of("", &headers), Some(said));
        assert_eq!(
            said,
            Said { session: Some(digest("6e2fb550")), urgent: true, starved: true, startup_ms: None }
        );
        let calm = of("CMCD=msd%3D830%2Csid%3D%22x%22%2Cv%3D2", &[]).unwrap();
        assert_eq!((calm.urgent, calm.starved, calm.startup_ms), (false, false, Some(830)));
    }

    #[test]
    fn what_makes_no_sense_is_nothing() {
        let long = format!("CMCD=sid%3D%22{}%22", "x".repeat(TEXT_BYTES_MAX));
        for bad in [
            "",
            "CMCD=",
            "CMCD",
            "CMCD=%ff",
            "CMCD==",
            "CMCD=%22",
            "CMCD=su&CMCD=bs",
            "CMCD=SU",
            "cmcd=su",
            &long,
        ] {
            assert_eq!(of(bad, &[]), None, "{bad}");
        }
        assert_eq!(of("", &[("cmcd-status", "bs,,")]), None);
        let odd = of("CMCD=sid%3D5%2Csu%3D7%2Cbs%3D%3F0%2Cmsd%3D-1", &[]).unwrap();
        assert_eq!(odd, Said { session: None, urgent: false, starved: false, startup_ms: None });
        let long = of(&format!("CMCD=sid%3D%22{}%22", "x".repeat(SESSION_ID_CHARS_MAX + 1)), &[]).unwrap();
        assert_eq!(long.session, None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}") {
            let _ = Said::parse([text.as_str()]);
        }
    }

    fn said(session: u64, urgent: bool, startup_ms: Option<u32>) -> Said {
        Said { session: Some(session), urgent, starved: false, startup_ms }
    }

    #[test]
    fn a_start_lasts_from_the_first_request_to_the_first_that_can_wait() {
        let at = |ms| Timestamp::from_unix_ms(1_790_000_000_000 + ms);
        let mut sessions = Sessions::default();
        assert_eq!(sessions.hear(&said(1, true, None), at(0)), None);
        assert_eq!(sessions.hear(&said(2, false, None), at(0)), None, "it came in the middle");
        assert_eq!(sessions.hear(&said(1, true, None), at(300)), None);
        assert_eq!(sessions.hear(&said(1, false, None), at(700)), Some(700));
        assert_eq!(sessions.hear(&said(1, true, None), at(9_000)), None, "a seek is no start");
        assert_eq!(sessions.hear(&said(1, false, None), at(9_500)), None);
        assert_eq!(sessions.hear(&said(2, false, None), at(9_500)), None);
        assert_eq!(sessions.hear(&said(3, true, Some(420)), at(0)), Some(420), "as the player measured it");
        assert_eq!(sessions.hear(&said(3, false, Some(420)), at(1)), None, "once");
        assert_eq!(sessions.hear(&said(4, true, None), at(0)), None);
        assert_eq!(sessions.hear(&said(4, false, None), at(STARTUP_MS_MAX + 1)), None, "it slept");
        assert_eq!(sessions.hear(&Said { session: None, ..said(0, true, Some(1)) }, at(0)), None);
    }

    #[test]
    fn sessions_are_bounded_and_forgotten() {
        let at = |ms| Timestamp::from_unix_ms(1_790_000_000_000 + ms);
        let mut sessions = Sessions::default();
        for id in 0..SESSIONS_MAX as u64 + 10 {
            sessions.hear(&said(id, true, None), at(0));
        }
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
        sessions.hear(&said(7, true, None), at(SESSION_MS_MAX));
        sessions.forget_old(at(SESSION_MS_MAX + 1));
        assert_eq!(sessions.0.keys().collect::<Vec<_>>(), [&7]);
    }
}
