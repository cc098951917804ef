//! Imports: registries of others that are read to their end, whose documents this node then offers under keys of the import, and
//! keeps alive for as long as it knows the import, whether the registry answers or not.
//!
//! The order is the promise: all pages first, then records, each durable before its batch is answered, and last how far the
//! registry was read. So what breaks off anywhere is done again from the last mark, and finds what it did already.

mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use self::pass::Stopped;
use super::{Handle, HealthClient, parse_zone};
use crate::api::{self, ApiError, ImportError, ImportRun};
use crate::host::imports::{Change, IMPORTS_MAX, Import, Imports, Schedule, UnreadableImports};
use crate::host::view;
use crate::net::addresses::registry_url;
use crate::net::client::Patience;
use crate::net::driver::ReadContext;
use crate::net::wall_clock;
use crate::proto::import::ImportKind;
use crate::proto::io::{Command, Role};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::registration::WriteError;
use crate::proto::time::Timestamp;

/// How often leases are looked at: they are renewed at half of their seven days.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);
/// The same while this host may not write unasked.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// How soon a registry that failed is read again, where it is read regularly and asks for no longer pause.
const READ_AGAIN: Duration = Duration::from_secs(600);
/// How often it is looked whether the node has met the world.
const READY_EVERY: Duration = Duration::from_millis(250);

/// An import that the settings repeat.
#[derive(Clone, Debug)]
pub struct ImportSettings {
    /// Where the registry is.
    pub url: String,
    /// Zones that share its documents out; the home zone if there is none.
    pub zones: Vec<ZoneName>,
    /// What kind it is; none to find out.
    pub kind: Option<ImportKind>,
    /// Time between two readings.
    pub every: Duration,
    /// Names of headers, and of the environment variables that hold their values.
    pub header_env: BTreeMap<String, String>,
}

/// Starts imports and tells how they stand. Cheap to clone.
#[derive(Clone)]
pub struct ImportClient(Handle);

impl ImportClient {
    /// The imports of this node.
    pub fn new(handle: Handle) -> ImportClient {
        ImportClient(handle)
    }

    fn imports(&self) -> &Imports {
        &self.0.imports
    }

    /// Looks at the node, however long that has to wait: nobody else would ask again.
    async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut ReadContext<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.0.node.read(Patience::Endless, question).await.map_err(view::unanswered)
    }

    /// Goes on with the imports of earlier runs, and begins those of the settings.
    pub(in crate::host) async fn resume(
        &self,
        data_dir: &Path,
        network: &str,
        settings: Vec<ImportSettings>,
    ) -> Result<(), UnreadableImports> {
        self.imports().open(data_dir, network)?;
        // Named at once: what they offer is answered for from the start.
        _ = self.name_keys().await;
        for import in self.imports().list() {
            tokio::spawn(self.clone().follow(import));
        }
        for setting in settings {
            let url = setting.url.clone();
            if let Err(error) = self.schedule(setting).await {
                tracing::warn!(code = %error.code, "the import of {url} is not begun: {}", error.message);
            }
        }
        Ok(())
    }

    async fn schedule(&self, setting: ImportSettings) -> Result<(), ApiError> {
        let url = registry_url(&setting.url).map_err(bad_url)?;
        let import = self.known(&url, setting.zones).await?;
        let mut state = import.state();
        let last = state.last.as_ref().map(|last| Timestamp(last.began_ms));
        let every = setting.every;
        state.next = Some(last.map_or(Timestamp::default(), |last| last + jitter(every)));
        state.set_kind(setting.kind);
        state.schedule = Some(Schedule { every, header_env: setting.header_env });
        import.wake.notify_one();
        Ok(())
    }

    /// All imports, by address.
    pub fn list(&self) -> api::Imports {
        api::Imports { imports: self.imports().list().iter().map(|import| import.shown()).collect() }
    }

    /// Has a registry read now; one under way counts. Answers when the import is durable, not when it is done.
    ///
    /// # Errors
    /// The address or a zone is none, the import has other zones, there are too many, or the disk takes no writes.
    pub async fn start(&self, wanted: api::StartImport) -> Result<api::Import, ApiError> {
        let url = registry_url(&wanted.url).map_err(bad_url)?;
        let zones = wanted.zones.iter().map(|zone| parse_zone(zone)).collect::<Result<Vec<_>, _>>()?;
        let import = self.known(&url, zones).await?;
        {
            let mut state = import.state();
            state.set_kind(wanted.kind);
            if state.run.is_none() {
                state.runs += 1;
                state.run = Some(ImportRun { number: state.runs, ..ImportRun::default() });
            }
        }
        import.wake.notify_one();
        Ok(import.shown())
    }

    /// Withdraws all that an import offers and forgets it. Answers when that is durable.
    ///
    /// # Errors
    /// There is no such import, or not all could be withdrawn: it is there still, then.
    pub async fn remove(&self, url: &str) -> Result<api::Import, ApiError> {
        let url = registry_url(url).map_err(bad_url)?;
        let import = self.imports().get(&url).ok_or_else(|| view::no_import(url.as_str()))?;
        // A reading under way is of no use.
        import.interrupted.notify_waiters();
        let mut writer = self.writer(&import).await.map_err(ApiError::from)?;
        let names = writer.names(wall_clock());
        self.write_again(&import, &mut writer, &names, Change::Withdrawn).await.map_err(ApiError::from)?;
        import.removed.cancel();
        drop(writer);
        import.state().held = 0;
        self.imports().remove(&import).await.map_err(|error| view::import_unkept(&error))?;
        _ = self.name_keys().await;
        Ok(import.shown())
    }

    /// The import of a registry, made if there is none.
    async fn known(&self, url: &Url, zones: Vec<ZoneName>) -> Result<Arc<Import>, ApiError> {
        if let Some(import) = self.imports().get(url) {
            let same = zones.is_empty() || zones == import.zones;
            return if same { Ok(import) } else { Err(view::other_zones(url.as_str(), &import.zones)) };
        }
        let home = self.look(|seen| seen.node.config().home_zone()).await?;
        let zones = if zones.is_empty() { vec![home] } else { zones };
        self.check_zones(&zones).await?;
        if self.imports().list().len() >= IMPORTS_MAX {
            return Err(view::too_many_imports(IMPORTS_MAX));
        }
        let import =
            self.imports().add(url.clone(), zones).await.map_err(|error| view::import_unkept(&error))?;
        self.name_keys().await?;
        tokio::spawn(self.clone().follow(import.clone()));
        Ok(import)
    }

    /// Whether anything can be written in these zones.
    async fn check_zones(&self, zones: &[ZoneName]) -> Result<(), ApiError> {
        let zones = zones.to_vec();
        let judged = move |zone: &ZoneName, node: &Node| match node.zone(zone) {
            Some(held) if held.role() == Role::Member && held.id().key.is_none() => Ok(()),
            Some(held) if held.role() == Role::Member => Err(WriteError::NotGranted(zone.clone())),
            Some(_) | None => Err(WriteError::ZoneNotServed(zone.clone())),
        };
        let check = self.look(move |seen| zones.iter().try_for_each(|zone| judged(zone, seen.node))).await?;
        check.map_err(|error| view::write_error(&error))
    }

    async fn name_keys(&self) -> Result<(), ApiError> {
        let imports = self.imports().list();
        let keys: BTreeSet<_> = imports.iter().flat_map(|import| import.keys.iter().copied()).collect();
        self.0.command(Command::NameImports(keys), Patience::Endless).await.map(drop)
    }

    /// Reads an import when that is wanted or due, and keeps alive what it offers.
    async fn follow(self, import: Arc<Import>) {
        while !HealthClient::new(self.0.clone()).ready().await {
            tokio::select! {
                () = self.0.stopped() => return,
                () = tokio::time::sleep(READY_EVERY) => {}
            }
        }
        let mut renew_at = wall_clock();
        loop {
            let now = wall_clock();
            if renew_at <= now {
                let pause = if self.renew(&import).await { RENEW_EVERY } else { RENEW_AGAIN };
                renew_at = wall_clock() + pause;
            }
            if begin(&import, now) {
                tokio::select! {
                    () = self.run(&import) => {}
                    () = import.interrupted.notified() => import.state().run = None,
                }
                continue;
            }
            let next = import.state().next.map_or(renew_at, |next| next.min(renew_at));
            tokio::select! {
                () = import.removed.cancelled() => return,
                () = self.0.stopped() => return,
                () = import.wake.notified() => {}
                () = tokio::time::sleep(next.since(wall_clock()).max(READY_EVERY)) => {}
            }
        }
    }

    /// One reading, and what is told of it.
    async fn run(&self, import: &Import) {
        let ended = self.read_once(import).await;
        let now = wall_clock();
        {
            let mut state = import.state();
            let Some(mut run) = state.run.take() else { return };
            run.ended_ms = Some(now.0);
            let every = state.schedule.as_ref().map(|schedule| schedule.every);
            state.next = match &ended {
                Ok(()) => every.map(|every| now + jitter(every)),
                // Never sooner than the registry asks.
                Err(why) => {
                    every.map(|every| now + every.min(READ_AGAIN).max(why.retry_after.unwrap_or_default()))
                }
            };
            if let Err(Stopped { code, message, .. }) = ended {
                let is_news = state.last.as_ref().and_then(|last| last.error.as_ref()).map(|it| &it.message)
                    != Some(&message);
                if is_news {
                    tracing::warn!(event = "import_failed", url = %import.url, code = %code, "import failed: {message}");
                }
                run.error = Some(ImportError { code, message });
            } else {
                tracing::info!(
                    event = "import_ended",
                    url = %import.url, new = run.new, changed = run.changed, withdrawn = run.withdrawn, "imported"
                );
            }
            state.last = Some(run);
        }
        if let Err(error) = self.imports().keep().await {
            // All is read again from the earlier mark.
            tracing::warn!(url = %import.url, %error, "how far it was read is not kept");
        }
    }

    /// Renews what is due; whether this host may.
    async fn renew(&self, import: &Import) -> bool {
        let may = self.look(|seen| seen.node.may_renew(wall_clock())).await.unwrap_or(false);
        if !may {
            return false;
        }
        let renewed = async {
            let mut writer = self.writer(import).await?;
            let due = writer.due(wall_clock());
            self.write_again(import, &mut writer, &due, Change::Renewed).await
        };
        match renewed.await {
            Ok(()) => true,
            Err(Stopped { code, message, .. }) => {
                tracing::warn!(url = %import.url, %code, "leases are not renewed: {message}");
                false
            }
        }
    }
}

fn bad_url(why: String) -> ApiError {
    view::bad_request(format!("url: {why}"))
}

/// Whether a reading is to begin; then it has begun.
fn begin(import: &Import, now: Timestamp) -> bool {
    let mut state = import.state();
    if state.run.is_none() {
        if state.next.is_none_or(|next| next > now) {
            return false;
        }
        state.runs += 1;
        state.run = Some(ImportRun { number: state.runs, ..ImportRun::default() });
    }
    if let Some(run) = &mut state.run {
        run.began_ms = now.0;
    }
    true
}

/// So that the readers of one registry do not come at one time.
fn jitter(every: Duration) -> Duration {
    every.mul_f64(rand::random_range(0.9..1.1))
}
