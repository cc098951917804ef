//! Who was met of zones that this node takes no part in.

use std::collections::BTreeMap;

use crate::proto::ask::Contact;
use crate::proto::name::ZoneId;

/// Contacts of one zone.
const CONTACTS_MAX: usize = 16;
/// Zones of which contacts are remembered: the root, and those on the way to the zones of this node.
const ZONES_MAX: usize = 64;

/// Nodes that answered for a zone, and those that they named, the best first.
#[derive(Default)]
pub(super) struct Contacts(BTreeMap<ZoneId, Vec<Contact>>);

impl Contacts {
    pub(super) fn of(&self, zone: &ZoneId) -> &[Contact] {
        self.0.get(zone).map_or(&[], |contacts| contacts)
    }

    /// A node answered for a zone, and named others.
    pub(super) fn answered(&mut self, zone: &ZoneId, by: Contact, others: &[Contact]) {
        if self.0.len() >= ZONES_MAX && !self.0.contains_key(zone) {
            return;
        }
        let known = self.0.entry(zone.clone()).or_default();
        let mut contacts = vec![by];
        for contact in others.iter().chain(known.iter()) {
            if contacts.iter().all(|it| it.peer != contact.peer) {
                contacts.push(contact.clone());
            }
        }
        contacts.truncate(CONTACTS_MAX);
        *known = contacts;
    }

    /// A node did not answer: others are asked first.
    pub(super) fn failed(&mut self, zone: &ZoneId, contact: &Contact) {
        if let Some(known) = self.0.get_mut(zone)
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
        let (mut contacts, root) = (Contacts::default(), ZoneId::open(ZoneName::root()));
        let others: Vec<Contact> = (2..30).map(contact).collect();
        contacts.answered(&root, contact(1), &others);
        assert_eq!(contacts.of(&root).len(), CONTACTS_MAX);
        contacts.failed(&root, &contact(1));
        assert_eq!(contacts.of(&root).last().map(|it| it.peer), Some(PeerKey([1; 32])));
        for number in 0..100 {
            let zone = ZoneId::open(format!("z{number}.org").parse().unwrap());
            contacts.answered(&zone, contact(1), &[]);
        }
        assert_eq!(contacts.0.len(), ZONES_MAX);
    }
}
