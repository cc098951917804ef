//! The zones that were joined while the node ran, kept in its data folder: the next start joins them again. Those of the
//! settings come first and are not among them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::ZoneRole;
use crate::private_file::{read_if_there, replace};
use crate::proto::io::Role;
use crate::proto::name::ZoneName;

/// The file of a data folder.
const FILE: &str = "zones.json";
/// Zones that are kept. Each has a mesh, beacons and syncs of its own; who takes part in more names them in the settings.
pub(super) const JOINED_MAX: usize = 64;
/// Largest file, bytes: as many zones with the longest names have a third of it.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why the zones that were joined are not known. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the joined zones in {path}: {why}; mend it, or remove it and join them again with `aop zone join`",
    path = path.display()
)]
pub struct UnreadableZones {
    path: PathBuf,
    why: String,
}

/// What the settings name, and what was joined beside it.
pub(super) struct JoinedZones {
    /// None where nothing is kept.
    path: Option<PathBuf>,
    settings: BTreeMap<ZoneName, Role>,
    joined: BTreeMap<ZoneName, Role>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    zones: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    zone: ZoneName,
    role: ZoneRole,
}

impl JoinedZones {
    /// None yet, and none will be kept.
    pub(super) fn unkept(members: &[ZoneName], follows: &[ZoneName]) -> JoinedZones {
        // Where both lists name a zone the node is a member.
        let follows = follows.iter().map(|zone| (zone.clone(), Role::Follower));
        let settings = follows.chain(members.iter().map(|zone| (zone.clone(), Role::Member))).collect();
        JoinedZones { path: None, settings, joined: BTreeMap::new() }
    }

    /// Those of earlier runs in this data folder.
    pub(super) fn read(self, folder: &Path) -> Result<JoinedZones, UnreadableZones> {
        let path = folder.join(FILE);
        let unreadable = |why: String| UnreadableZones { path: path.clone(), why };
        let text = read_if_there(&path, FILE_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
        let Text { zones } = match text {
            None => Text::default(),
            Some(text) => serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?,
        };
        if zones.len() > JOINED_MAX {
            return Err(unreadable(format!("{} zones are more than {JOINED_MAX}", zones.len())));
        }
        let role = |Entry { zone, role }: Entry| match role {
            ZoneRole::Member => Ok((zone, Role::Member)),
            ZoneRole::Follower => Ok((zone, Role::Follower)),
            ZoneRole::Below | ZoneRole::Known => Err(unreadable(format!("nobody joins {zone} as `{role}`"))),
        };
        let joined = zones.into_iter().map(role).collect::<Result<_, _>>()?;
        Ok(JoinedZones { path: Some(path), joined, ..self })
    }

    /// Those that the settings do not name, in one role.
    pub(super) fn beside_settings(&self, role: Role) -> impl Iterator<Item = &ZoneName> {
        let joined =
            self.joined.iter().filter(move |(zone, of)| **of == role && !self.settings.contains_key(zone));
        joined.map(|(zone, _)| zone)
    }

    /// In which role the settings name a zone.
    pub(super) fn in_settings(&self, zone: &ZoneName) -> Option<Role> {
        self.settings.get(zone).copied()
    }

    /// Whether one more can be joined, or this one is already.
    pub(super) fn has_room(&self, zone: &ZoneName) -> bool {
        let is_known = self.settings.contains_key(zone) || self.joined.contains_key(zone);
        is_known || self.joined.len() < JOINED_MAX
    }

    /// A zone was joined.
    ///
    /// # Errors
    /// The next start does not know.
    pub(super) async fn join(&mut self, zone: &ZoneName, role: Role) -> io::Result<()> {
        match self.settings.contains_key(zone) {
            // Whatever the settings say holds from the next start on.
            true => Ok(()),
            false => {
                self.joined.insert(zone.clone(), role);
                self.keep().await
            }
        }
    }

    /// A zone is to be left.
    ///
    /// # Errors
    /// The next start would join it all the same. Nothing was changed.
    pub(super) async fn leave(&mut self, zone: &ZoneName) -> io::Result<()> {
        let Some(role) = self.joined.remove(zone) else { return Ok(()) };
        let kept = self.keep().await;
        if kept.is_err() {
            self.joined.insert(zone.clone(), role);
        }
        kept
    }

    async fn keep(&self) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let entry = |(zone, role): (&ZoneName, &Role)| Entry {
            zone: zone.clone(),
            role: if *role == Role::Follower { ZoneRole::Follower } else { ZoneRole::Member },
        };
        let text = serde_json::to_string(&Text { zones: self.joined.iter().map(entry).collect() })? + "\n";
        // On the disk before anybody is told that a zone is joined.
        tokio::task::spawn_blocking(move || replace(&path, text.as_bytes()))
            .await
            .map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(text: &str) -> ZoneName {
        text.parse().unwrap()
    }

    fn opened(folder: &Path, settings: &[&str]) -> JoinedZones {
        let settings: Vec<ZoneName> = settings.iter().map(|text| zone(text)).collect();
        JoinedZones::unkept(&settings, &[]).read(folder).unwrap()
    }

    fn members(zones: &JoinedZones) -> Vec<&str> {
        zones.beside_settings(Role::Member).map(ZoneName::as_str).collect()
    }

    #[tokio::test]
    async fn what_was_joined_is_there_at_the_next_start_beside_what_the_settings_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut zones = opened(folder.path(), &["."]);
        zones.join(&zone("lab"), Role::Member).await.unwrap();
        zones.join(&zone("acme.org"), Role::Follower).await.unwrap();
        zones.join(&zone("."), Role::Member).await.unwrap();
        let mut zones = opened(folder.path(), &["."]);
        assert_eq!(members(&zones), ["lab"]);
        assert_eq!(zones.beside_settings(Role::Follower).collect::<Vec<_>>(), [&zone("acme.org")]);
        assert!(members(&opened(folder.path(), &["lab"])).is_empty(), "the settings have it");
        zones.leave(&zone("lab")).await.unwrap();
        assert!(members(&opened(folder.path(), &["."])).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let many: Vec<String> =
            (0..=JOINED_MAX).map(|n| format!(r#"{{"zone":"z{n}","role":"member"}}"#)).collect();
        let many = format!(r#"{{"zones":[{}]}}"#, many.join(","));
        for text in [
            "",
            r#"{"zones":[{"zone":"Lab","role":"member"}]}"#,
            r#"{"zones":[{"zone":"lab","role":"below"}]}"#,
            r#"{"zones":[{"zone":"lab","role":"king"}]}"#,
            r#"{"zone":[]}"#,
            &many,
        ] {
            std::fs::write(&path, text).unwrap();
            let read = JoinedZones::unkept(&[], &[]).read(folder.path());
            let message = read.map(|_| ()).unwrap_err().to_string();
            assert!(message.contains("zones.json") && message.contains("aop zone join"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
