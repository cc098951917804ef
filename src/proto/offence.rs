//! What a peer did that no honest peer does.

use super::record::Refusal;

/// Why a peer is penalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It sent a record or a message that breaks a rule.
    Sent(Refusal),
    /// It broke the protocol of a sync.
    BadSync,
}

impl Offence {
    /// Whether it claims to be somebody else, which is never an accident; anything else may be a bug.
    pub fn is_forgery(self) -> bool {
        matches!(self, Offence::Sent(Refusal::BadSignature | Refusal::BadAuthor | Refusal::BadGrant))
    }

    /// For logs and traces.
    pub fn text(self) -> &'static str {
        match self {
            Offence::Sent(refusal) => refusal.code().text(),
            Offence::BadSync => "bad_sync",
        }
    }
}
