//! From an `Authorization` header to a caller.

use std::sync::Arc;
use std::time::Duration;

use domain::{Role, SessionId, Timestamp};
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, Validation};
use moka::future::Cache;
use tokio_util::sync::CancellationToken;

use super::keys::{Claims, ISSUER, VerifyingKey, audience};
use super::{Caller, Policy};
use crate::problem::Source;
use crate::{Clock, Problem, Shared};

/// Asks the database whether a session is still alive.
type SessionLookup =
    Arc<dyn Fn(SessionId, Timestamp) -> BoxFuture<'static, Result<bool, Source>> + Send + Sync>;

/// A revoked session is dead on every service within a second: half of it is spent here.
const SESSION_CACHE: Duration = Duration::from_millis(500);
const SESSIONS_CACHED_MAX: u64 = 100_000;
const TOKEN_CHARS_MAX: usize = 4096;
/// Clocks of two machines differ a little.
const LEEWAY_S: i64 = 30;

/// Verifies tokens and looks up their sessions.
#[derive(Clone)]
pub struct Tokens {
    key: VerifyingKey,
    clock: Clock,
    lookup: SessionLookup,
    alive: Cache<SessionId, bool>,
    shared: Option<Shared>,
}

impl Tokens {
    /// `lookup` asks the database whether a session is still alive.
    pub fn new<F, E>(
        key: VerifyingKey,
        clock: Clock,
        lookup: impl Fn(SessionId, Timestamp) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<bool, E>> + Send + 'static,
        E: Into<Source>,
    {
        let lookup: SessionLookup = Arc::new(move |session, now| {
            let asked = lookup(session, now);
            Box::pin(async move { asked.await.map_err(Into::into) })
        });
        let alive = Cache::builder().max_capacity(SESSIONS_CACHED_MAX).time_to_live(SESSION_CACHE).build();
        Tokens { key, clock, lookup, alive, shared: None }
    }

    /// Ended sessions are told to, and heard from, other instances.
    pub fn sharing(mut self, shared: Option<Shared>, shutdown: &CancellationToken) -> Self {
        if let Some(shared) = &shared {
            tokio::spawn(shared.clone().follow(self.clone(), shutdown.clone()));
        }
        self.shared = shared;
        self
    }

    /// No header is `Anonymous`; a bad one is a 401, whatever the route asks for.
    pub async fn authenticate(&self, headers: &HeaderMap, policy: Policy) -> Result<Caller, Problem> {
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        let header = header.to_str().map_err(|_| invalid())?;
        let (scheme, token) = header.split_once(' ').ok_or_else(invalid)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthorized("Send the token as `Authorization: Bearer …`."));
        }
        let claims = self.verify(token.trim(), &[audience::SESSION, audience::UPLOAD])?;
        if policy != Policy::BegunUpload || claims.aud != audience::UPLOAD {
            self.check_expiry(&claims)?;
        }
        self.caller_of(claims).await
    }

    /// Whom a token of a session or an upload stands for.
    pub async fn caller(&self, token: &str) -> Result<Caller, Problem> {
        let claims = self.verify(token, &[audience::SESSION, audience::UPLOAD])?;
        self.check_expiry(&claims)?;
        self.caller_of(claims).await
    }

    async fn caller_of(&self, claims: Claims) -> Result<Caller, Problem> {
        let Claims { aud, sub, sid, vid, role, exp, .. } = claims;
        let caller = match (aud.as_str(), role) {
            (audience::UPLOAD, _) => {
                let expires_at = Timestamp::from_unix_ms(0).plus_s(exp.saturating_add(LEEWAY_S));
                Caller::Upload { video: parse(vid)?, user: parse(sub)?, expires_at }
            }
            (_, Some(Role::Service)) if sub.is_none() => Caller::Service,
            (_, Some(role)) => Caller::User { user: parse(sub)?, session: parse(sid)?, role },
            (_, None) => return Err(invalid()),
        };
        match caller {
            Caller::User { session, .. } if !self.is_alive(session).await? => Err(ended()),
            caller => Ok(caller),
        }
    }

    /// Whether this is a setup token of ours that has not expired.
    pub fn check_setup(&self, token: &str) -> Result<(), Problem> {
        self.verify(token, &[audience::SETUP]).and_then(|claims| self.check_expiry(&claims))
    }

    /// Nobody need wait for a cache to find out that this session has ended; `None`: that many have.
    pub async fn forget(&self, session: Option<SessionId>) {
        self.forget_here(session).await;
        if let Some(shared) = &self.shared {
            shared.tell_ended(session).await;
        }
    }

    pub(crate) async fn forget_here(&self, session: Option<SessionId>) {
        match session {
            Some(session) => self.alive.invalidate(&session).await,
            None => self.alive.invalidate_all(),
        }
    }

    async fn is_alive(&self, session: SessionId) -> Result<bool, Problem> {
        let looked_up = self.alive.try_get_with(session, (self.lookup)(session, self.clock.now())).await;
        looked_up.map_err(|error: Arc<Source>| Problem::unavailable(1).with_source(error.to_string()))
    }

    /// All but whether it has expired.
    fn verify(&self, token: &str, audiences: &[&str]) -> Result<Claims, Problem> {
        if token.len() > TOKEN_CHARS_MAX {
            return Err(invalid());
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(audiences);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Checked by `check_expiry` against our own clock.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key.0, &validation);
        decoded.map(|token| token.claims).map_err(|_| invalid())
    }

    fn check_expiry(&self, claims: &Claims) -> Result<(), Problem> {
        let now_s = self.clock.now().unix_ms() / 1000;
        if claims.exp <= now_s - LEEWAY_S {
            let minutes = (now_s - claims.exp) / 60;
            return Err(Problem::unauthorized(format!("The token expired {minutes} min ago; log in again.")));
        }
        Ok(())
    }
}

fn parse<T: std::str::FromStr>(claim: Option<String>) -> Result<T, Problem> {
    claim.and_then(|text| text.parse().ok()).ok_or_else(invalid)
}

fn invalid() -> Problem {
    Problem::unauthorized("The token is not one of ours; log in again.")
}

fn ended() -> Problem {
    Problem::unauthorized("This session has ended; log in again.")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use domain::{UserId, VideoId};

    use super::*;
    use crate::{Ids, SigningKey};

    struct Room {
        key: SigningKey,
        clock: Clock,
        ids: Ids,
        alive: Arc<AtomicBool>,
        tokens: Tokens,
    }

    fn room() -> Room {
        let (ids, clock) = (Ids::seeded(1), Clock::manual(Timestamp::from_unix_ms(1_790_000_000_000)));
        let key = SigningKey::generate(&ids).unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let answer = alive.clone();
        let lookup = move |_, _| {
            let alive = answer.load(Ordering::SeqCst);
            async move { Ok::<_, Source>(alive) }
        };
        let tokens = Tokens::new(key.verifying(), clock.clone(), lookup);
        Room { key, clock, ids, alive, tokens }
    }

    async fn status(room: &Room, token: &str) -> u16 {
        room.tokens.caller(token).await.map_or_else(|p| p.status().as_u16(), |_| 200)
    }

    impl Room {
        fn session_token(&self, lifetime_s: i64) -> (String, UserId, SessionId) {
            let now = self.clock.now();
            let (user, session) = (self.ids.next(now), self.ids.next(now));
            (self.key.session_token(user, session, Role::User, now, now.plus_s(lifetime_s)), user, session)
        }
    }

    #[tokio::test]
    async fn a_session_token_stands_for_its_user_until_it_expires() {
        let room = room();
        let (token, user, session) = room.session_token(60);
        assert_eq!(
            room.tokens.caller(&token).await.unwrap(),
            Caller::User { user, session, role: Role::User }
        );
        room.clock.advance_ms(60_000 + LEEWAY_S * 1000);
        assert_eq!(status(&room, &token).await, 401);
    }

    #[tokio::test]
    async fn a_revoked_session_is_dead_once_forgotten() {
        let room = room();
        let (token, _, session) = room.session_token(60);
        assert_eq!(status(&room, &token).await, 200);
        room.alive.store(false, Ordering::SeqCst);
        room.tokens.forget(Some(session)).await;
        assert_eq!(status(&room, &token).await, 401);
    }

    #[tokio::test]
    async fn an_upload_token_names_its_video() {
        let room = room();
        let (user, video): (UserId, VideoId) =
            (room.ids.next(room.clock.now()), room.ids.next(room.clock.now()));
        let upload = room.key.upload_token(user, video, room.clock.now(), 60);
        assert_eq!(
            room.tokens.caller(&upload.token).await.unwrap(),
            Caller::Upload { video, user, expires_at: upload.expires_at.plus_s(LEEWAY_S) }
        );
        assert_eq!(upload.expires_at, room.clock.now().plus_s(60));
    }

    #[tokio::test]
    async fn who_began_an_upload_in_time_may_end_it() {
        let room = room();
        let now = room.clock.now();
        let (user, video) = (room.ids.next(now), room.ids.next(now));
        let upload = room.key.upload_token(user, video, now, 60);
        let (session, ..) = room.session_token(60);
        room.clock.advance_ms(86_400_000);
        let asked = async |token: &str, policy| {
            let bearer = format!("Bearer {token}").parse().unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
            room.tokens.authenticate(&headers, policy).await.map_err(|problem| problem.status().as_u16())
        };
        let expires_at = upload.expires_at.plus_s(LEEWAY_S);
        let caller = Caller::Upload { video, user, expires_at };
        assert_eq!(asked(&upload.token, Policy::BegunUpload).await.unwrap(), caller);
        assert_eq!(asked(&upload.token, Policy::Upload).await.unwrap_err(), 401);
        assert_eq!(asked(&session, Policy::BegunUpload).await.unwrap_err(), 401);
    }

    #[tokio::test]
    async fn tokens_of_other_keys_audiences_and_algorithms_are_refused() {
        let room = room();
        let (token, ..) = room.session_token(60);
        let stranger = SigningKey::generate(&Ids::seeded(99)).unwrap();
        let now = room.clock.now();
        let foreign =
            stranger.session_token(room.ids.next(now), room.ids.next(now), Role::Admin, now, now.plus_s(60));
        assert_eq!(status(&room, &foreign).await, 401);
        let setup = room.key.setup_token(now, 60);
        assert_eq!(status(&room, &setup).await, 401);
        room.tokens.check_setup(&setup).unwrap();
        assert!(room.tokens.check_setup(&token).is_err());
        // {"alg":"none"} with the claims of a good token.
        let claims = token.split('.').nth(1).unwrap();
        assert_eq!(status(&room, &format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")).await, 401);
        for bad in ["", ".", "a.b.c", &"x".repeat(5000)] {
            assert_eq!(status(&room, bad).await, 401, "{bad}");
        }
        let mut forged = token.clone();
        forged.replace_range(forged.len() - 10..forged.len() - 9, "_");
        assert!(forged == token || status(&room, &forged).await == 401);
    }

    #[tokio::test]
    async fn only_bearer_is_spoken() {
        let room = room();
        let asked = async |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            room.tokens.authenticate(&headers, Policy::Anyone).await
        };
        let without = room.tokens.authenticate(&HeaderMap::new(), Policy::Anyone).await;
        assert_eq!(without.unwrap(), Caller::Anonymous);
        assert!(asked("Basic abc").await.is_err());
        assert!(asked("Bearer").await.is_err());
        let (token, ..) = room.session_token(60);
        assert!(asked(&format!("bearer {token}")).await.is_ok());
    }
}
