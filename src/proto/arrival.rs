//! How records come, and what is made of them.

/// By which way a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Written here.
    Local,
    /// From the mesh.
    Gossip,
    /// From a conversation with a peer.
    Sync,
    /// From the own store.
    Store,
}

/// What was made of a record that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// It is held now.
    New,
    /// A greater record of its key is held.
    Stale,
    /// The same was held.
    Duplicate,
    /// There is no room for it.
    NoRoom,
    /// It may not be taken.
    Refused,
}

impl Taken {
    /// All.
    pub const ALL: [Taken; 5] = [Taken::New, Taken::Stale, Taken::Duplicate, Taken::NoRoom, Taken::Refused];

    /// As metrics name it.
    pub fn text(self) -> &'static str {
        match self {
            Taken::New => "new",
            Taken::Stale => "stale",
            Taken::Duplicate => "duplicate",
            Taken::NoRoom => "no_room",
            Taken::Refused => "refused",
        }
    }
}

impl Via {
    /// All.
    pub const ALL: [Via; 4] = [Via::Local, Via::Gossip, Via::Sync, Via::Store];

    /// As metrics name it.
    pub fn text(self) -> &'static str {
        match self {
            Via::Local => "local",
            Via::Gossip => "gossip",
            Via::Sync => "sync",
            Via::Store => "store",
        }
    }

    /// Whether another node sent it.
    pub fn is_foreign(self) -> bool {
        match self {
            Via::Gossip | Via::Sync => true,
            Via::Local | Via::Store => false,
        }
    }
}
