//! Whom a name means here (protocol section 1). Anybody may register any name in an open zone, so of several owners of one
//! name none is better by itself: what counts is whom the operator named, else whom this node called first. Whoever comes
//! later under that name is shown and never picked.

use std::collections::BTreeMap;

use super::context::Context;
use super::identity::PeerKey;
use super::limits::OWNERS_MAX;
use super::name::{AgentName, FullName, NameError, ZoneName};
use super::persistence;
use super::query::{ChosenBy, KnownOwner, OwnerError};
use super::time::Timestamp;

/// The owners that names stand for.
#[derive(Default)]
pub(super) struct Owners {
    of: BTreeMap<FullName, Entry>,
}

/// An owner, and when its name was last called by what is known since the start.
struct Entry {
    known: KnownOwner,
    called_at: Timestamp,
}

impl Owners {
    /// Takes what the store held.
    pub(super) fn load(&mut self, stored: Vec<KnownOwner>) {
        for known in stored {
            let called_at = known.since;
            self.of.insert(known.name.clone(), Entry { known, called_at });
        }
    }

    pub(super) fn get(&self, name: &FullName) -> Option<&KnownOwner> {
        self.of.get(name).map(|entry| &entry.known)
    }

    /// The name that a text stands for among those known: a bare name is that of the nearest zone, of the home zone if none is.
    pub(super) fn name_known(&self, home: &ZoneName, text: &str) -> Result<FullName, NameError> {
        if text.contains('@') {
            return text.parse();
        }
        let agent: AgentName = text.parse()?;
        let nearest = agent.search_list(home).find(|name| self.of.contains_key(name));
        Ok(nearest.unwrap_or_else(|| FullName { agent, zone: home.clone() }))
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &KnownOwner> {
        self.of.values().map(|entry| &entry.known)
    }

    /// An agent is called by its name, and the name means this owner now.
    pub(super) fn called(&mut self, ctx: &mut Context<'_>, name: &FullName, owner: PeerKey, is_bare: bool) {
        if let Some(entry) = self.of.get_mut(name) {
            entry.called_at = ctx.now;
            if is_bare && !entry.known.is_bare {
                entry.known.is_bare = true;
                ctx.out.write(persistence::owner_row(&entry.known));
            }
            return;
        }
        if self.of.len() >= OWNERS_MAX {
            // What the operator named stays. Only clients of this node fill the list, and none of them means harm by a call.
            let by_calls = self.of.iter().filter(|(_, entry)| entry.known.by == ChosenBy::FirstCall);
            let Some(oldest) =
                by_calls.min_by_key(|(_, entry)| entry.called_at).map(|(name, _)| name.clone())
            else {
                return;
            };
            self.remove(ctx, &oldest);
        }
        let name = name.clone();
        self.insert(ctx, KnownOwner { name, owner, by: ChosenBy::FirstCall, is_bare, since: ctx.now });
    }

    /// The operator names the owner of a name.
    pub(super) fn trust(
        &mut self,
        ctx: &mut Context<'_>,
        name: FullName,
        owner: PeerKey,
        is_bare: bool,
    ) -> Result<KnownOwner, OwnerError> {
        if let Some(reason) = ctx.out.store_failure() {
            return Err(OwnerError::StoreFailed(reason.to_owned()));
        }
        if self.of.len() >= OWNERS_MAX && !self.of.contains_key(&name) {
            return Err(OwnerError::Full(OWNERS_MAX));
        }
        // Once a bare name meant it, it goes on to: only the owner is another.
        let is_bare = is_bare || self.get(&name).is_some_and(|known| known.is_bare);
        let known = KnownOwner { name, owner, by: ChosenBy::Operator, is_bare, since: ctx.now };
        self.insert(ctx, known.clone());
        Ok(known)
    }

    /// The name means nobody in particular any more.
    pub(super) fn forget(
        &mut self,
        ctx: &mut Context<'_>,
        name: &FullName,
    ) -> Result<KnownOwner, OwnerError> {
        match ctx.out.store_failure() {
            Some(reason) => Err(OwnerError::StoreFailed(reason.to_owned())),
            None => self.remove(ctx, name).ok_or_else(|| OwnerError::Unknown(name.clone())),
        }
    }

    fn insert(&mut self, ctx: &mut Context<'_>, known: KnownOwner) {
        ctx.out.write(persistence::owner_row(&known));
        self.of.insert(known.name.clone(), Entry { known, called_at: ctx.now });
    }

    fn remove(&mut self, ctx: &mut Context<'_>, name: &FullName) -> Option<KnownOwner> {
        let gone = self.of.remove(name)?;
        ctx.out.write(persistence::remove_owner(name));
        Some(gone.known)
    }
}
