use super::*;
use crate::proto::message::*;
use crate::proto::node::Event;
use crate::proto::record::SignedRecord;
fn on() -> bool {
    std::env::var("AOP_DBG").is_ok()
}
impl World {
    fn who(&self, k: &PeerKey) -> String {
        format!("{:?}", self.by_key.get(k))
    }
    fn rec(&self, b: &[u8]) -> String {
        match SignedRecord::parse(b, "world") {
            Ok(s) => {
                let a = s.header().author;
                let r = s.trust_sealed();
                format!(
                    "[{r:?} by {} e{:04x} g{} exp {}]",
                    self.who(&a.key),
                    a.epoch & 0xffff,
                    r.generation,
                    r.expires_at
                )
            }
            Err(e) => format!("{e}"),
        }
    }
    fn t(&mut self, at: usize) -> String {
        let w = self.wall();
        let n = self.now;
        let c = self.machines[at].clock(w);
        format!("{n} m{at} wall+{}", c.0 as i64 - START.0 as i64)
    }
    pub(super) fn dbg_output(&mut self, at: usize, o: &Output) {
        if !on() {
            return;
        }
        let t = self.t(at);
        let s = match o {
            Output::Persist(ws) => ws
                .iter()
                .map(|w| {
                    format!(
                        "{}{} {}",
                        w.key[0] as char,
                        if w.value.is_none() { "-" } else { "" },
                        match &w.value {
                            Some(v) if w.key[0] == b'o' || w.key[0] == b'r' => self.rec(v),
                            Some(v) => format!("{:02x?}", v),
                            None => "".into(),
                        }
                    )
                })
                .collect::<Vec<_>>()
                .join("; "),
            Output::Publish { bytes, .. } => match Envelope::decode(bytes) {
                Ok(Envelope::Records(r)) => r.iter().map(|r| self.rec(r)).collect(),
                _ => return,
            },
            Output::Event(Event::AgentChanged { record, via }) => format!("changed {record:?} {via:?}"),
            Output::Event(e) => {
                let s = format!("{e:?}");
                if s.starts_with("Synced") && s.contains("received: 0, sent: 0") {
                    return;
                }
                s
            }
            Output::Reply { reply, .. } => format!("{reply:?}").chars().take(150).collect(),
            Output::Penalize { reason, .. } => format!("PENALIZE {reason}"),
            _ => return,
        };
        eprintln!("{t} OUT {s}");
    }
    pub(super) fn dbg_input(&mut self, at: usize, i: &Input) {
        if !on() {
            return;
        }
        let t = self.t(at);
        let s = match i {
            Input::Command { command, .. } => format!("{command:?}").chars().take(120).collect(),
            Input::PeerJoined { peer, .. } => format!("joined {}", self.who(peer)),
            Input::PeerLeft { peer, .. } => format!("left {}", self.who(peer)),
            Input::SyncFailed { session } => format!("failed {session:?}"),
            _ => return,
        };
        eprintln!("{t} IN {s}");
    }
    pub(super) fn dbg_fault(&mut self, f: &Fault) {
        if on() {
            eprintln!("{} FAULT {f:?}", self.now);
        }
    }
}
