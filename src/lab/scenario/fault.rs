//! What goes wrong in a scenario: when, to whom, for how long.

use std::time::Duration;

use serde::Deserialize;

use super::values::{optional_count, optional_duration, parse_duration};
use crate::proto::name::ZoneName;
use crate::sim::RestartFrom;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "FaultText")]
pub struct Fault {
    /// Virtual time.
    pub at: Duration,
    /// Only nodes that serve this zone at the start are struck, where a kind strikes some.
    pub zone: Option<ZoneName>,
    /// What.
    pub kind: FaultKind,
}

/// Whom it strikes; drawn from the seed of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    /// This share of all nodes, above 0 to 1.
    Share(f64),
    /// This many.
    Nodes(usize),
}

impl Who {
    /// How many of `nodes`, at least one.
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Who::Share(share) => ((nodes as f64 * share).round() as usize).clamp(1, nodes),
            Who::Nodes(count) => count.min(nodes),
        }
    }
}

/// How nodes are split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// At random into this many.
    Random(usize),
    /// The first half of the regions from the rest.
    Regions,
    /// Who serves this zone or one below it from the rest.
    Zone(ZoneName),
}

/// What goes wrong. Times are virtual.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Nodes of different groups do not reach each other.
    Partition {
        /// How they are split.
        groups: Groups,
        /// How long.
        lasts: Duration,
    },
    /// Nodes leave without a word and come back, each for itself, so that on average this share is away.
    Churn {
        /// Share of nodes that are away at any time, 0 to 1.
        share: f64,
        /// Mean time a node is away.
        mean_off: Duration,
        /// How long it goes on; to the end if none.
        lasts: Option<Duration>,
    },
    /// Nodes stop at once and start again with what `memory` says.
    Crash {
        /// Which.
        who: Who,
        /// What each finds on its disk then.
        memory: RestartFrom,
        /// How long they are down.
        lasts: Duration,
    },
    /// A copy of these nodes' disks is made, for a later crash with `memory = "backup"`.
    Backup {
        /// Which.
        who: Who,
    },
    /// These nodes start for the first time.
    Join {
        /// Which.
        who: Who,
    },
    /// Nodes that do not serve a zone join it as members.
    JoinZone {
        /// Which.
        who: Who,
        /// The zone.
        zone: ZoneName,
    },
    /// Nodes whose home is elsewhere leave a zone; what they offer there is withdrawn.
    LeaveZone {
        /// Which.
        who: Who,
        /// The zone.
        zone: ZoneName,
    },
    /// Clocks show this much more than they should.
    Clock {
        /// Whose.
        who: Who,
        /// How much, milliseconds.
        error_ms: i64,
        /// How long; to the end if none.
        lasts: Option<Duration>,
    },
    /// Nodes do nothing for a while, as under SIGSTOP.
    Freeze {
        /// Which.
        who: Who,
        /// How long.
        lasts: Duration,
    },
    /// Everybody sleeps while wall time passes.
    Sleep {
        /// How long.
        lasts: Duration,
    },
    /// These nodes take messages and never forward one.
    Mute {
        /// Which.
        who: Who,
    },
    /// New identities of one adversary join, and each writes as many records as it may.
    Sybil {
        /// How many.
        who: Who,
    },
    /// One honest node sees nobody but nodes of an adversary, which forward nothing.
    Eclipse {
        /// How long.
        lasts: Duration,
    },
    /// Authors sign two records with one version and show one to each half of the world.
    Equivocate {
        /// Which.
        who: Who,
    },
    /// Nodes that are asked say that they speak for their zones and those below, and that nothing is there.
    Hollow {
        /// Which.
        who: Who,
    },
    /// Nodes that are asked say that they speak for their zones and those below, and that nothing lies below.
    Hide {
        /// Which.
        who: Who,
    },
    /// Nodes tell of zones below their own which do not exist.
    Invent {
        /// Which.
        who: Who,
        /// Of how many each.
        zones: usize,
    },
    /// Nodes are of an earlier version, which knows no questions of others.
    Older {
        /// Which.
        who: Who,
    },
    /// Nodes lie in sync: they claim to hold what they do not, leave out what they hold, and give forged records.
    Lie {
        /// Which.
        who: Who,
    },
}

impl FaultKind {
    /// Whether it is the work of an adversary, or of somebody who does not keep to the protocol for other reasons.
    pub fn is_hostile(&self) -> bool {
        match self {
            FaultKind::Mute { .. }
            | FaultKind::Sybil { .. }
            | FaultKind::Eclipse { .. }
            | FaultKind::Equivocate { .. }
            | FaultKind::Hollow { .. }
            | FaultKind::Hide { .. }
            | FaultKind::Invent { .. }
            | FaultKind::Older { .. }
            | FaultKind::Lie { .. } => true,
            FaultKind::Partition { .. }
            | FaultKind::Churn { .. }
            | FaultKind::Crash { .. }
            | FaultKind::Backup { .. }
            | FaultKind::Join { .. }
            | FaultKind::JoinZone { .. }
            | FaultKind::LeaveZone { .. }
            | FaultKind::Clock { .. }
            | FaultKind::Freeze { .. }
            | FaultKind::Sleep { .. } => false,
        }
    }

    /// As it is written in a file.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Partition { .. } => "partition",
            FaultKind::Churn { .. } => "churn",
            FaultKind::Crash { .. } => "crash",
            FaultKind::Backup { .. } => "backup",
            FaultKind::Join { .. } => "join",
            FaultKind::JoinZone { .. } => "join-zone",
            FaultKind::LeaveZone { .. } => "leave-zone",
            FaultKind::Clock { .. } => "clock",
            FaultKind::Freeze { .. } => "freeze",
            FaultKind::Sleep { .. } => "sleep",
            FaultKind::Mute { .. } => "mute",
            FaultKind::Sybil { .. } => "sybil",
            FaultKind::Eclipse { .. } => "eclipse",
            FaultKind::Equivocate { .. } => "equivocate",
            FaultKind::Hollow { .. } => "hollow",
            FaultKind::Hide { .. } => "hide",
            FaultKind::Invent { .. } => "invent",
            FaultKind::Older { .. } => "older",
            FaultKind::Lie { .. } => "lie",
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindText {
    Partition,
    Churn,
    Crash,
    Backup,
    Join,
    JoinZone,
    LeaveZone,
    Clock,
    Freeze,
    Sleep,
    Mute,
    Sybil,
    Eclipse,
    Equivocate,
    Hollow,
    Hide,
    Invent,
    Older,
    Lie,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    kind: KindText,
    #[serde(default, deserialize_with = "optional_duration")]
    at: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    lasts: Option<Duration>,
    #[serde(default)]
    share: Option<f64>,
    #[serde(default, deserialize_with = "optional_count")]
    nodes: Option<usize>,
    #[serde(default, deserialize_with = "optional_count")]
    groups: Option<usize>,
    #[serde(default)]
    by: Option<By>,
    #[serde(default, deserialize_with = "optional_duration")]
    mean_off: Option<Duration>,
    #[serde(default)]
    memory: Option<RestartFrom>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    zone: Option<ZoneName>,
    #[serde(default, deserialize_with = "optional_count")]
    zones: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Region,
    Zone,
    Random,
}

impl TryFrom<FaultText> for Fault {
    type Error = String;

    fn try_from(text: FaultText) -> Result<Fault, String> {
        let at = text.at.ok_or("when? at = \"10s\"")?;
        let kind = text.fault()?;
        // Here the zone is what is joined or left; those struck are outside it or guests.
        let is_of_kind = matches!(
            kind,
            FaultKind::JoinZone { .. } | FaultKind::LeaveZone { .. } | FaultKind::Partition { .. }
        );
        Ok(Fault { at, zone: text.zone.filter(|_| !is_of_kind), kind })
    }
}

impl FaultText {
    fn fault(&self) -> Result<FaultKind, String> {
        // Before what is missing: with the kind mistaken, the keys of another are the better hint.
        self.refuse_strangers()?;
        Ok(match self.kind {
            KindText::Partition => FaultKind::Partition { groups: self.split()?, lasts: self.lasting()? },
            KindText::Churn => FaultKind::Churn {
                share: self.share()?,
                mean_off: self.mean_off.ok_or("how long is a node away? mean_off = \"30s\"")?,
                lasts: self.lasts,
            },
            KindText::Crash => FaultKind::Crash {
                who: self.who()?,
                memory: self.memory.unwrap_or(RestartFrom::Disk),
                lasts: self.lasting()?,
            },
            KindText::Backup => FaultKind::Backup { who: self.who()? },
            KindText::Join => FaultKind::Join { who: self.who()? },
            KindText::JoinZone => FaultKind::JoinZone { who: self.who()?, zone: self.zone()? },
            KindText::LeaveZone => FaultKind::LeaveZone { who: self.who()?, zone: self.zone()? },
            KindText::Clock => {
                FaultKind::Clock { who: self.who()?, error_ms: self.error_ms()?, lasts: self.lasts }
            }
            KindText::Freeze => FaultKind::Freeze { who: self.who()?, lasts: self.lasting()? },
            KindText::Sleep => FaultKind::Sleep { lasts: self.lasting()? },
            KindText::Mute => FaultKind::Mute { who: self.who()? },
            KindText::Sybil => FaultKind::Sybil { who: self.who()? },
            KindText::Eclipse => FaultKind::Eclipse { lasts: self.lasting()? },
            KindText::Equivocate => FaultKind::Equivocate { who: self.who()? },
            KindText::Hollow => FaultKind::Hollow { who: self.who()? },
            KindText::Hide => FaultKind::Hide { who: self.who()? },
            KindText::Invent => {
                let zones = self.zones.ok_or("of how many? zones = 1_000")?;
                FaultKind::Invent { who: self.who()?, zones }
            }
            KindText::Older => FaultKind::Older { who: self.who()? },
            KindText::Lie => FaultKind::Lie { who: self.who()? },
        })
    }

    /// Keys that mean nothing for this kind are mistakes, as unknown ones are.
    fn refuse_strangers(&self) -> Result<(), String> {
        let known: &[&str] = match self.kind {
            KindText::Partition if matches!(self.by, Some(By::Zone)) => &["lasts", "by", "zone"],
            KindText::Partition => &["lasts", "groups", "by"],
            KindText::Churn => &["lasts", "share", "mean_off"],
            KindText::Crash => &["lasts", "share", "nodes", "zone", "memory"],
            KindText::Clock => &["lasts", "share", "nodes", "zone", "error"],
            KindText::Freeze => &["lasts", "share", "nodes", "zone"],
            KindText::Sleep | KindText::Eclipse => &["lasts"],
            KindText::JoinZone
            | KindText::LeaveZone
            | KindText::Backup
            | KindText::Join
            | KindText::Mute
            | KindText::Hollow
            | KindText::Hide
            | KindText::Older
            | KindText::Lie => &["share", "nodes", "zone"],
            KindText::Invent => &["share", "nodes", "zone", "zones"],
            KindText::Sybil | KindText::Equivocate => &["share", "nodes"],
        };
        let given = [
            ("lasts", self.lasts.is_some()),
            ("share", self.share.is_some()),
            ("nodes", self.nodes.is_some()),
            ("groups", self.groups.is_some()),
            ("by", self.by.is_some()),
            ("mean_off", self.mean_off.is_some()),
            ("memory", self.memory.is_some()),
            ("error", self.error.is_some()),
            ("zone", self.zone.is_some()),
            ("zones", self.zones.is_some()),
        ];
        match given.iter().find(|(key, given)| *given && !known.contains(key)) {
            Some((key, _)) => {
                Err(format!("`{key}` means nothing for this kind; it knows {}", known.join(", ")))
            }
            None => Ok(()),
        }
    }

    fn lasting(&self) -> Result<Duration, String> {
        self.lasts.ok_or_else(|| "how long? lasts = \"60s\"".into())
    }

    fn share(&self) -> Result<f64, String> {
        let share = self.share.ok_or("how many? share = 0.2")?;
        // TOML knows NaN, which fails every comparison.
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!("share = {share} is no share: above 0, at most 1"));
        }
        Ok(share)
    }

    fn who(&self) -> Result<Who, String> {
        match (self.nodes, self.share) {
            (Some(nodes), None) => Ok(Who::Nodes(nodes)),
            (None, Some(_)) => self.share().map(Who::Share),
            (None, None) => Err("whom? nodes = 5, or share = 0.2".into()),
            (Some(_), Some(_)) => Err("either nodes or share, not both".into()),
        }
    }

    fn zone(&self) -> Result<ZoneName, String> {
        self.zone.clone().ok_or_else(|| "which zone? zone = \"east.example\"".into())
    }

    fn split(&self) -> Result<Groups, String> {
        match (self.by, self.groups) {
            (Some(By::Region), None) => Ok(Groups::Regions),
            (Some(By::Zone), _) => self.zone().map(Groups::Zone),
            (Some(By::Region), Some(_)) => Err("by = \"region\" makes two groups; leave out groups".into()),
            (_, Some(groups)) if (2..=5).contains(&groups) => Ok(Groups::Random(groups)),
            (_, Some(groups)) => Err(format!("{groups} groups: from 2 to 5")),
            (_, None) => Ok(Groups::Random(2)),
        }
    }

    fn error_ms(&self) -> Result<i64, String> {
        let text = self.error.as_deref().ok_or("how wrong? error = \"+3s\" or \"-1h\"")?;
        let (sign, length) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        Ok(sign * parse_duration(length)?.as_millis() as i64)
    }
}
