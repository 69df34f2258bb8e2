//! Who is asking, and whether they may.

mod caller;
mod keys;
mod links;
mod policy;
mod tokens;

pub use caller::Caller;
pub use keys::{KeyError, SigningKey, UploadToken, VerifyingKey};
pub use links::{Link, LinkKeys};
pub use policy::Policy;
pub use tokens::Tokens;
