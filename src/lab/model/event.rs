//! What can be due, in 12 bytes: millions of them are in flight at once.

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// A copy of an update, pushed.
    Copy,
    /// A copy of an update that was asked for, by IWANT or in a reconciliation.
    Repair,
    /// "I have this update."
    IHave,
    /// "Send me this update."
    IWant,
    /// "What do you have that I lack?", with a digest.
    Reconcile,
    /// The answer's second half: "and you have what I lack".
    Give,
    /// "What do you push?"
    Pull,
    /// A node pushes an update once more. `from` is how often from now on.
    Push,
    /// A node leaves or comes back. `from` is the number of the fault.
    Toggle,
    /// The next update is written.
    Write,
    /// A fault begins: `to` is its number.
    Begin,
    /// A fault ends: `to` is its number.
    Heal,
}

// In the order of the enum, whose numbers are places here.
const KINDS: [EventKind; 12] = [
    EventKind::Copy,
    EventKind::Repair,
    EventKind::IHave,
    EventKind::IWant,
    EventKind::Reconcile,
    EventKind::Give,
    EventKind::Pull,
    EventKind::Push,
    EventKind::Toggle,
    EventKind::Write,
    EventKind::Begin,
    EventKind::Heal,
];

impl EventKind {
    /// Whether it is a copy of an update.
    pub(super) fn is_copy(self) -> bool {
        matches!(self, EventKind::Copy | EventKind::Repair)
    }
}

/// Numbers of nodes end here: two bits of each hold the kind.
pub(super) const NODES_MAX: usize = 1 << NODE_BITS;
/// Numbers of updates end here: eight bits beside them count hops.
pub(super) const UPDATES_MAX: usize = 1 << UPDATE_BITS;
const NODE_BITS: u32 = 30;
const UPDATE_BITS: u32 = 24;
const NODE: u32 = (1 << NODE_BITS) - 1;
const UPDATE: u32 = (1 << UPDATE_BITS) - 1;
/// More hops are counted as this many.
const HOPS_MAX: u32 = 255;

/// Something that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    to: u32,
    from: u32,
    what: u32,
}

impl Event {
    pub(super) fn new(kind: EventKind, from: u32, to: u32, update: u32, hops: u32) -> Event {
        // A word of its own for the kind would make an event a third larger.
        let kind = kind as u32;
        Event {
            to: to | kind >> 2 << NODE_BITS,
            from: from | (kind & 3) << NODE_BITS,
            // Saturated: where paths are long, as on a ring, the count would begin at 0 again.
            what: update | hops.min(HOPS_MAX) << UPDATE_BITS,
        }
    }

    pub(super) fn kind(self) -> EventKind {
        // Only a kind was ever written to these four bits, so there is such a place.
        KINDS[(self.to >> NODE_BITS << 2 | self.from >> NODE_BITS) as usize]
    }

    pub(super) fn to(self) -> u32 {
        self.to & NODE
    }

    pub(super) fn from(self) -> u32 {
        self.from & NODE
    }

    pub(super) fn update(self) -> u32 {
        self.what & UPDATE
    }

    /// Links on its way so far.
    pub(super) fn hops(self) -> u32 {
        self.what >> UPDATE_BITS
    }

    /// Everything, for a hash.
    pub(super) fn content(self) -> (u64, u64) {
        (u64::from(self.to) << 32 | u64::from(self.from), u64::from(self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_holds_the_greatest_values_of_all_its_parts() {
        for kind in KINDS {
            let event = Event::new(kind, NODE, NODE - 1, UPDATE, 300);
            assert_eq!((event.kind(), event.from(), event.to()), (kind, NODE, NODE - 1));
            assert_eq!((event.update(), event.hops()), (UPDATE, HOPS_MAX));
        }
        assert_eq!(size_of::<Event>(), 12);
    }
}
