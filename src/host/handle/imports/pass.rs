//! One reading of a registry, from its first page to the mark.

use std::time::Duration;

use super::ImportClient;
use crate::api::{self, ApiError, ImportRun};
use crate::host::imports::{Batch, Change, Import, Writer};
use crate::host::view;
use crate::import::{Failed, Progress, Spool, Spooled, Upstream, read};
use crate::net::client::Patience;
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::identity::AgentId;
use crate::proto::import::Holdings;
use crate::proto::io::{Command, Reply};
use crate::proto::name::AgentName;
use crate::proto::registration::WriteError;

/// Documents that are made records, and given to the driver, at once, so that reads and gossip come in between.
const DOCUMENTS_AT_ONCE: usize = 64;
/// Documents that were left out and are told one by one.
const EXAMPLES_MAX: usize = 20;

/// Why a reading took nothing, or not all.
pub(super) struct Stopped {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl ImportClient {
    pub(super) async fn read_once(&self, import: &Import) -> Result<(), Stopped> {
        self.check_zones(&import.zones).await.map_err(Stopped::from)?;
        let folder = self
            .imports()
            .folder()
            .ok_or_else(|| Stopped::new(Code::StoreFailed, "there is no data folder"))?;
        let mut spool =
            Spool::new(folder).map_err(|error| Stopped::new(Code::StoreFailed, error.to_string()))?;
        let live = self.writer(import).await?.live(wall_clock());
        let upstream = upstream(import, live)?;
        // Only in pages: what is read may be of use to nobody.
        let told = |progress: Progress| {
            import.note(|run| (run.pages, run.documents) = (progress.pages, progress.documents));
        };
        let reading = read(&upstream, &mut spool, &told).await?;
        for (reason, count) in &reading.skipped {
            import.note(|run| *run.skipped.entry(reason.text().to_owned()).or_default() += count);
        }
        // With what stands now: a large registry takes minutes to be read.
        let writer = self.writer(import).await?;
        let writer = self.write_spooled(import, writer, spool).await?;
        let (meant, seen) = (writer.live(wall_clock()), writer.seen);
        drop(writer);
        // What stands is what the zone had room for, whatever was merged on the way.
        let held = self.writer(import).await?.live(wall_clock());
        if meant > held {
            import.note(|run| {
                *run.skipped.entry(Code::ZoneFull.text().to_owned()).or_default() += meant - held
            });
        }
        let mut state = import.state();
        (state.kind, state.list) = (Some(reading.kind), Some(reading.list));
        // The greater of both: a reading without changes tells of none.
        (state.held, state.seen) = (held, state.seen.max(seen));
        Ok(())
    }

    /// Makes records of what was read, the next ones while those before are kept.
    async fn write_spooled(
        &self,
        import: &Import,
        mut writer: Writer,
        spool: Spool,
    ) -> Result<Writer, Stopped> {
        let unreadable = |error: std::io::Error| {
            Stopped::new(Code::StoreFailed, format!("the pages cannot be read again: {error}"))
        };
        let mut documents = spool.drain().map_err(unreadable)?;
        let mut before = Batch::default();
        loop {
            let taken = blocking(move || {
                let part: Result<Vec<Spooled>, _> = documents.by_ref().take(DOCUMENTS_AT_ONCE).collect();
                (part, documents)
            });
            let (part, rest) = taken.await?;
            documents = rest;
            let part = self.without_own(import, part.map_err(unreadable)?).await?;
            let is_last = part.is_none();
            let made = blocking(move || {
                let documents: Vec<_> =
                    part.unwrap_or_default().into_iter().map(|spooled| spooled.document).collect();
                let batch = writer.take(wall_clock(), &documents);
                (batch, writer)
            });
            let (made, published) = tokio::join!(made, self.publish(import, before));
            published?;
            (before, writer) = made?;
            if is_last {
                return Ok(writer);
            }
        }
    }

    /// Documents but those of agents that this node knows from its own mesh; none at the end.
    async fn without_own(
        &self,
        import: &Import,
        part: Vec<Spooled>,
    ) -> Result<Option<Vec<Spooled>>, Stopped> {
        if part.is_empty() {
            return Ok(None);
        }
        let id = |spooled: &Spooled| spooled.agent.as_deref().and_then(|agent| agent.parse::<AgentId>().ok());
        let ids: Vec<Option<AgentId>> = part.iter().map(id).collect();
        if ids.iter().all(Option::is_none) {
            return Ok(Some(part));
        }
        let known = self.look(move |seen| {
            let now = wall_clock();
            ids.iter()
                .map(|id| id.is_some_and(|id| seen.node.agent(now, &id).is_some()))
                .collect::<Vec<bool>>()
        });
        let known = known.await.map_err(Stopped::from)?;
        let count = known.iter().filter(|known| **known).count();
        if count > 0 {
            import.note(|run| *run.skipped.entry("held".into()).or_default() += count);
        }
        Ok(Some(
            part.into_iter().zip(known).filter(|(_, known)| !known).map(|(spooled, _)| spooled).collect(),
        ))
    }

    /// Gives a batch to the node. Answers when it is durable.
    async fn publish(&self, import: &Import, batch: Batch) -> Result<(), Stopped> {
        let Batch { signed, changes, unchanged, skipped } = batch;
        let names: Vec<String> = signed.iter().map(|signed| signed.header().name.to_string()).collect();
        let results = match signed.is_empty() {
            true => Vec::new(),
            false => match self.0.command(Command::Publish(signed), Patience::Endless).await {
                Ok(Reply::Published(results)) => results,
                Ok(_) => return Err(Stopped::from(view::stopped())),
                Err(error) => return Err(Stopped::from(error)),
            },
        };
        let mut stopped = None;
        import.note(|run| {
            run.unchanged += unchanged;
            skipped.into_iter().for_each(|skipped| skip(run, skipped));
            for ((name, change), result) in names.into_iter().zip(changes).zip(results) {
                match result {
                    Ok(()) => *count_of(run, change) += 1,
                    // Told in one number at the end, by what stands then.
                    Err(WriteError::ZoneFull(_) | WriteError::Superseded(_)) => {}
                    Err(error @ WriteError::Refused(_)) => {
                        skip(run, api::Skipped { name, code: error.code(), message: error.to_string() });
                    }
                    Err(error) => stopped = Some(Stopped::from(view::write_error(&error))),
                }
            }
        });
        stopped.map_or(Ok(()), Err)
    }

    pub(super) async fn write_again(
        &self,
        import: &Import,
        writer: &mut Writer,
        names: &[(usize, AgentName)],
        change: Change,
    ) -> Result<(), Stopped> {
        for part in names.chunks(DOCUMENTS_AT_ONCE) {
            let batch = writer.again(wall_clock(), part, change);
            self.publish(import, batch).await?;
        }
        Ok(())
    }

    /// Whoever writes for an import, with what stands of it now.
    pub(super) async fn writer(&self, import: &Import) -> Result<Writer, Stopped> {
        let author = import.author.clone().lock_owned().await;
        let mut holdings = Vec::new();
        for zone in &import.zones {
            let mut records = Vec::new();
            // One shelf at a time, so that the driver does something else in between.
            for shelf in author.shelves() {
                let of = zone.clone();
                let read = self.look(move |seen| seen.node.on_shelf(&of, shelf).cloned().collect::<Vec<_>>());
                records.extend(read.await.map_err(Stopped::from)?);
            }
            holdings.push(Holdings::new(&author, zone.clone(), records));
        }
        Ok(Writer::new(author, holdings))
    }
}

/// What is asked for, where `live` documents of the import stand.
fn upstream(import: &Import, live: usize) -> Result<Upstream, Stopped> {
    let state = import.state();
    let header_env = state.schedule.iter().flat_map(|schedule| &schedule.header_env);
    let header = |(name, variable): (&String, &String)| match std::env::var(variable) {
        Ok(value) => Ok((name.clone(), value)),
        Err(_) => {
            let why = format!("the environment variable `{variable}` is not set; start the node with it");
            Err(Stopped::new(Code::BadRequest, why))
        }
    };
    Ok(Upstream {
        url: import.url.clone(),
        kind: state.kind,
        list: state.list.clone(),
        headers: header_env.map(header).collect::<Result<_, _>>()?,
        // Where some of it is gone, leases that ended for example, only the whole list brings it back.
        since: state.seen.filter(|_| live >= state.held),
    })
}

fn skip(run: &mut ImportRun, skipped: api::Skipped) {
    *run.skipped.entry(skipped.code.text().to_owned()).or_default() += 1;
    // Of a registry with several versions nearly all are older ones.
    if run.examples.len() < EXAMPLES_MAX && skipped.code != Code::OlderVersion {
        run.examples.push(skipped);
    }
}

fn count_of(run: &mut ImportRun, change: Change) -> &mut usize {
    match change {
        Change::New => &mut run.new,
        Change::Changed => &mut run.changed,
        Change::Renewed => &mut run.renewed,
        Change::Withdrawn => &mut run.withdrawn,
    }
}

/// Work of some milliseconds, beside what answers others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Stopped::new(Code::Internal, error.to_string()))
}

impl Stopped {
    fn new(code: Code, message: impl Into<String>) -> Stopped {
        Stopped { code, message: message.into(), retry_after: None }
    }
}

impl From<Stopped> for ApiError {
    fn from(why: Stopped) -> ApiError {
        let fix = "`aop status` tells when the node is well; then give the same command again".into();
        ApiError { code: why.code, message: why.message, fix, suggestions: Vec::new() }
    }
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Stopped {
        Stopped::new(error.code, error.message)
    }
}

impl From<Failed> for Stopped {
    fn from(failed: Failed) -> Stopped {
        Stopped { code: Code::UpstreamFailed, message: failed.message, retry_after: failed.retry_after }
    }
}
