//! Who was met of which zone, and is kept on disk: whoever starts again when those that it was given are gone finds its zones
//! by it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::ask::Contact;
use crate::proto::context::Context;
use crate::proto::io::Output;
use crate::proto::links::Links;
use crate::proto::name::ZoneId;
use crate::proto::persistence;
use crate::proto::time::Timestamp;
use crate::proto::zone::Zone;

/// Contacts of one zone.
const CONTACTS_MAX: usize = 16;
/// Zones of which contacts are remembered: the root, and those on the way to the zones of this node.
const ZONES_MAX: usize = 64;

/// Contacts of a zone of this node that are dialed at once where nobody of it is met.
const SOUGHT: usize = 3;
/// Time between two such attempts, and the least between two rows on the disk.
const INTERVAL: Duration = Duration::from_secs(60);

/// Nodes that answered for a zone, those that they named, and those that were met in it, the best first.
pub(super) struct Contacts {
    of: BTreeMap<ZoneId, Vec<Contact>>,
    is_kept: bool,
    due: Timestamp,
}

impl Contacts {
    /// With those that the store kept.
    pub(super) fn new(kept: Vec<(ZoneId, Vec<Contact>)>, now: Timestamp) -> Contacts {
        let mut of: BTreeMap<ZoneId, Vec<Contact>> = kept.into_iter().take(ZONES_MAX).collect();
        of.values_mut().for_each(|contacts| contacts.truncate(CONTACTS_MAX));
        Contacts { of, is_kept: true, due: now }
    }

    pub(super) fn of(&self, zone: &ZoneId) -> &[Contact] {
        self.of.get(zone).map_or(&[], |contacts| contacts)
    }

    /// Notes who is met in the zones of this node; dials some of those that were where nobody is, and keeps what changed.
    pub(super) fn tend<'a>(
        &mut self,
        ctx: &mut Context<'_>,
        zones: impl Iterator<Item = &'a Zone>,
        links: &Links,
    ) {
        let is_due = self.due <= ctx.now;
        for zone in zones {
            for peer in zone.peers().iter().take(CONTACTS_MAX) {
                let contact = links.contact(*peer);
                if !contact.addresses.is_empty() && !self.of(zone.id()).contains(&contact) {
                    self.answered(zone.id(), contact, &[]);
                }
            }
            if is_due
                && zone.peers().is_empty()
                && let Some(contacts) = self.of.get_mut(zone.id())
            {
                for contact in contacts.iter().take(SOUGHT) {
                    ctx.out.push(Output::Reach(contact.clone()));
                }
                // Others the next time.
                let asked = SOUGHT.min(contacts.len());
                contacts.rotate_left(asked);
            }
        }
        if is_due {
            self.due = ctx.now + INTERVAL;
            if !std::mem::replace(&mut self.is_kept, true) {
                ctx.out.write(persistence::contacts_row(&self.of.iter().collect::<Vec<_>>()));
            }
        }
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.due = self.due - step;
    }

    /// A node answered for a zone, and named others.
    pub(super) fn answered(&mut self, zone: &ZoneId, by: Contact, others: &[Contact]) {
        if self.of.len() >= ZONES_MAX && !self.of.contains_key(zone) {
            return;
        }
        let known = self.of.entry(zone.clone()).or_default();
        let mut contacts = vec![by];
        for contact in others.iter().chain(known.iter()) {
            if contacts.iter().all(|it| it.peer != contact.peer) {
                contacts.push(contact.clone());
            }
        }
        contacts.truncate(CONTACTS_MAX);
        self.is_kept &= *known == contacts;
        *known = contacts;
    }

    /// A node did not answer: others are asked first.
    pub(super) fn failed(&mut self, zone: &ZoneId, contact: &Contact) {
        if let Some(known) = self.of.get_mut(zone)
            && let Some(at) = known.iter().position(|it| it.peer == contact.peer)
        {
            let last = known.remove(at);
            known.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::PeerKey;
    use crate::proto::name::ZoneName;

    fn contact(number: u8) -> Contact {
        Contact { peer: PeerKey([number; 32]), addresses: Vec::new() }
    }

    #[test]
    fn what_is_kept_of_a_zone_is_little_and_who_fails_is_asked_last() {
        let (mut contacts, root) = (Contacts::new(Vec::new(), Timestamp(0)), ZoneId::open(ZoneName::root()));
        let others: Vec<Contact> = (2..30).map(contact).collect();
        contacts.answered(&root, contact(1), &others);
        assert_eq!(contacts.of(&root).len(), CONTACTS_MAX);
        contacts.failed(&root, &contact(1));
        assert_eq!(contacts.of(&root).last().map(|it| it.peer), Some(PeerKey([1; 32])));
        for number in 0..100 {
            let zone = ZoneId::open(format!("z{number}.org").parse().unwrap());
            contacts.answered(&zone, contact(1), &[]);
        }
        assert_eq!(contacts.of.len(), ZONES_MAX);
    }
}
