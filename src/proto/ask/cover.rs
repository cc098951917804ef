//! What an answer speaks for, and what it leaves to whoever asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contact, later, millis};
use crate::proto::codec;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{COVER_NAMED_MAX, REFERRALS_MAX, WAY_GATEWAYS_MAX};
use crate::proto::name::ZoneName;
use crate::proto::query::{ZoneAnswer, ZoneStatus};

/// What an answer speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Zones of the scope of which nothing is missing.
    #[serde(rename = "f")]
    pub fine: u32,
    /// What these held so many milliseconds ago is in the answer.
    #[serde(rename = "a")]
    pub age_ms: u32,
    /// The others: whether there is anything of it, and how old.
    #[serde(rename = "r", deserialize_with = "codec::at_most::<COVER_NAMED_MAX, _, _>")]
    pub rest: Vec<(ZoneName, Option<u32>)>,
    /// Others that are not named.
    #[serde(rename = "m")]
    pub more: u32,
    /// Who is to be asked of some of the others: for what this node has no room, or what it has only begun to follow.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<REFERRALS_MAX, _, _>")]
    pub refer: Vec<Referral>,
}

/// A zone that whoever asks has to ask itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referral {
    /// Which.
    #[serde(rename = "z")]
    pub zone: ZoneName,
    /// Its gateways, those that may answer first.
    #[serde(rename = "g", deserialize_with = "codec::at_most::<WAY_GATEWAYS_MAX, _, _>")]
    pub gateways: Vec<Contact>,
}

impl Cover {
    /// What an answer says of these zones; `refer` are some of those that are not fine.
    pub fn of(zones: &[ZoneAnswer], refer: Vec<Referral>) -> Cover {
        let (fine, rest): (Vec<&ZoneAnswer>, Vec<&ZoneAnswer>) =
            zones.iter().partition(|it| it.status.is_fine());
        let ages = fine.iter().map(|it| it.age.map_or(u32::MAX, millis));
        Cover {
            fine: fine.iter().map(|it| it.count as u32).sum(),
            age_ms: ages.max().unwrap_or(0),
            rest: rest.iter().take(COVER_NAMED_MAX).map(|it| (it.zone.clone(), it.age.map(millis))).collect(),
            more: rest.iter().skip(COVER_NAMED_MAX).map(|it| it.count as u32).sum(),
            refer,
        }
    }

    /// Whether nothing is missing.
    pub fn is_fine(&self) -> bool {
        self.rest.is_empty() && self.more == 0
    }

    /// How old the oldest is of what it is fine for.
    pub fn age(&self) -> Duration {
        Duration::from_millis(u64::from(self.age_ms))
    }

    /// What it says `passed` later.
    pub fn after(&self, passed: Duration) -> Cover {
        let later = |ms: u32| later(ms, passed);
        let rest = self.rest.iter().map(|(zone, age)| (zone.clone(), age.map(later))).collect();
        Cover { age_ms: later(self.age_ms), rest, ..self.clone() }
    }

    /// What it says of the zones of a scope, by whom, `passed` ago.
    pub fn zones(&self, scope: &ZoneName, by: PeerKey, passed: Duration) -> Vec<ZoneAnswer> {
        let age = |ms: u32| Duration::from_millis(u64::from(ms)) + passed;
        let named = |(zone, ms): &(ZoneName, Option<u32>)| ZoneAnswer {
            zone: zone.clone(),
            status: if ms.is_some() { ZoneStatus::Stale } else { ZoneStatus::Unreachable },
            age: ms.map(age),
            by: Some(by),
            count: 1,
        };
        let of_scope = |status, age, count: u32| ZoneAnswer {
            zone: scope.clone(),
            status,
            age,
            by: Some(by),
            count: count as usize,
        };
        let fine = (self.fine > 0).then(|| of_scope(ZoneStatus::Answered, Some(age(self.age_ms)), self.fine));
        let more = (self.more > 0).then(|| of_scope(ZoneStatus::Unreachable, None, self.more));
        fine.into_iter().chain(self.rest.iter().map(named)).chain(more).collect()
    }
}
