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
