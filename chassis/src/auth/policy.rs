//! What a route asks of its callers.

use domain::Role;

use super::Caller;
use crate::Problem;

/// Registering a route takes one of these. A token that is sent must be good even where none is needed: whoever
/// believes to be logged in should learn that they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Whoever, with whatever token: what is answered says nothing that depends on it.
    Public,
    Anyone,
    /// A person with a live session.
    SignedIn,
    /// An admin, or another service.
    Admin,
    /// A person with a live session, or the holder of an upload token.
    Upload,
    /// As `Upload`, and the upload token may have expired: whoever began in time may end it. The route sees to it that it
    /// was in time.
    BegunUpload,
}

impl Policy {
    pub(crate) fn admit(self, caller: &Caller) -> Result<(), Problem> {
        let wrong_token = || Problem::forbidden("This token is for uploading one video; log in to do this.");
        match (self, caller) {
            (Policy::Public, _) => Ok(()),
            (Policy::SignedIn | Policy::Upload | Policy::BegunUpload, Caller::User { .. }) => Ok(()),
            (Policy::Upload | Policy::BegunUpload, Caller::Upload { .. }) => Ok(()),
            (Policy::Admin, Caller::Service | Caller::User { role: Role::Admin | Role::Service, .. }) => {
                Ok(())
            }
            (Policy::Admin, Caller::User { .. }) => Err(Problem::forbidden("Only admins may do this.")),
            (Policy::Anyone | Policy::SignedIn | Policy::Admin, Caller::Upload { .. }) => Err(wrong_token()),
            (Policy::Anyone, _) => Ok(()),
            (Policy::SignedIn | Policy::Upload | Policy::BegunUpload, Caller::Service) => {
                Err(Problem::forbidden("This is for people; a service token does not stand for one."))
            }
            (_, Caller::Anonymous) => {
                Err(Problem::unauthorized("Log in and send the token as `Authorization: Bearer …`."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ids;
    use domain::Timestamp;

    #[test]
    fn each_policy_admits_whom_it_says() {
        let (ids, now) = (Ids::seeded(1), Timestamp::from_unix_ms(1));
        let user = |role| Caller::User { user: ids.next(now), session: ids.next(now), role };
        let callers = [
            Caller::Anonymous,
            user(Role::User),
            user(Role::Admin),
            Caller::Upload { video: ids.next(now), user: ids.next(now), expires_at: now },
            Caller::Service,
        ];
        let answers =
            |policy: Policy| callers.map(|c| policy.admit(&c).map_or_else(|p| p.status().as_u16(), |()| 200));
        assert_eq!(answers(Policy::Public), [200; 5]);
        assert_eq!(answers(Policy::Anyone), [200, 200, 200, 403, 200]);
        assert_eq!(answers(Policy::SignedIn), [401, 200, 200, 403, 403]);
        assert_eq!(answers(Policy::Admin), [401, 403, 200, 403, 200]);
        assert_eq!(answers(Policy::Upload), [401, 200, 200, 200, 403]);
        assert_eq!(answers(Policy::BegunUpload), [401, 200, 200, 200, 403]);
    }
}
