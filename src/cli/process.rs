//! The life of a node process: logs, runtime, signals, and a stop within five seconds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use super::failure::{Exit, Failure};
use super::log::LogFormat;
use super::{log, supervisor};
use crate::host::Running;
use crate::http::Server;
use crate::telemetry::otel::Traces;

/// How long a stop may take; whoever stops a service kills it after 5 s.
const STOP_TIME_MAX: Duration = Duration::from_millis(4500);

/// Signals that come so soon after the first are the same wish: `timeout` of GNU sends two, a terminal one to each process of
/// a group. One that comes later ends the process at once, with the status of an end by that signal.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Logs by other directives from now on, where `-v` and `-q` are as they were.
pub(super) fn change_logs(directives: Option<&str>, verbose: u8, quiet: bool) -> Result<(), Failure> {
    log::change(filter(directives, verbose, quiet)?);
    Ok(())
}

/// Logs to stderr: `directives` if given, else RUST_LOG, else by `-q` and `-v`. With it begin the traces, if the environment
/// names who collects them; what is wrong with that is told, and is no reason not to serve.
pub(super) fn start_logs(
    directives: Option<&str>,
    is_json: bool,
    verbose: u8,
    quiet: bool,
) -> Result<Option<Traces>, Failure> {
    let filter = filter(directives, verbose, quiet)?;
    let (traces, wrong) = Traces::start().map_or_else(|wrong| (None, Some(wrong)), |traces| (traces, None));
    log::start(filter, LogFormat::of(is_json), traces.as_ref());
    if let Some(wrong) = wrong {
        tracing::warn!(event = "traces_off", "no traces are made: {wrong}");
    }
    Ok(traces)
}

fn filter(directives: Option<&str>, verbose: u8, quiet: bool) -> Result<EnvFilter, Failure> {
    let by_flags = match (quiet, verbose) {
        (true, _) => "error",
        // The libraries warn of what is normal here: a lone node has nobody to ask, equal repairs are published twice, a
        // peer hangs up first.
        // The MCP library warns of every mistake of a client, with what it sent, and of every attempt to reach a server
        // that is down; of servers we tell each change once.
        (_, 0) => {
            "warn,aop::call=info,libp2p_kad=error,libp2p_gossipsub=error,yamux=error,rmcp=error,rmcp::transport=off"
        }
        (_, 1) => {
            "warn,aop=info,libp2p_kad=error,libp2p_gossipsub=error,yamux=error,rmcp=error,rmcp::transport=off"
        }
        (_, 2) => "info,aop=debug,rmcp=error,rmcp::transport=off",
        _ => "debug,aop=trace",
    };
    // `-v` is typed for this one run, RUST_LOG set for many: what was typed wins.
    let from_env = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty() && verbose == 0);
    let directives = directives.map(str::to_string).or(from_env).unwrap_or(by_flags.into());
    EnvFilter::try_new(&directives).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("`{directives}` is no log filter: {error}"),
            "write `info` or `aop=debug`",
        )
    })
}

/// Sends what is left of the traces, beside the runtime: it blocks.
pub(super) async fn stop_traces(traces: Option<Traces>) {
    if let Some(traces) = traces {
        // A panic in it was printed, and there is nothing to do about it here.
        let _panicked = tokio::task::spawn_blocking(move || traces.stop()).await;
    }
}

/// How long tasks may take to be dropped at the end: programs of agents are killed as their calls are dropped.
const DROP_TIME_MAX: Duration = Duration::from_millis(300);

/// Runs `work` on a runtime of its own; threads that still block at its end are left behind.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(DROP_TIME_MAX);
    done
}

/// SIGTERM, SIGINT and SIGHUP, caught from its making on: a terminal that closes ends a node as well as ctrl-c does, unless
/// it was started with `nohup`.
#[cfg(unix)]
pub(super) struct Signals {
    stop: [tokio::signal::unix::Signal; 2],
    hangup: Option<tokio::signal::unix::Signal>,
    reload: Option<Reload>,
}

/// What SIGHUP asks of a process that reads its files again.
#[cfg(unix)]
struct Reload {
    wanted: Arc<Notify>,
    /// Whether it was started in a terminal.
    in_terminal: bool,
}

/// How long a terminal that closes may take to be gone after it said so.
#[cfg(unix)]
const TERMINAL_GONE: Duration = Duration::from_millis(100);

#[cfg(unix)]
impl Signals {
    pub(super) fn catch() -> Result<Signals, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error: std::io::Error| Failure::plain(Exit::Failure, &error);
        let catch = |kind| signal(kind).map_err(failed);
        let hangup = SignalKind::hangup();
        Ok(Signals {
            // Asked first: from then on a signal that is caught is ignored no more.
            hangup: (!is_ignored(hangup)).then(|| catch(hangup)).transpose()?,
            stop: [catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?],
            reload: None,
        })
    }

    /// From now on SIGHUP asks for what the answer tells, unless it comes from the terminal that closes.
    pub(super) fn reload_at_hangup(&mut self) -> Arc<Notify> {
        let wanted = Arc::new(Notify::new());
        self.reload = Some(Reload { wanted: wanted.clone(), in_terminal: has_terminal() });
        wanted
    }

    /// Waits for the next wish to end; answers with how a shell calls the end by that signal.
    pub(super) async fn next(&mut self) -> Exit {
        let [terminate, interrupt] = &mut self.stop;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Exit::Terminated,
                _ = interrupt.recv() => return Exit::Interrupted,
                Some(_) = async { self.hangup.as_mut()?.recv().await } => match &self.reload {
                    Some(reload) if !reload.lost_terminal().await => reload.wanted.notify_one(),
                    _ => return Exit::HungUp,
                },
            }
        }
    }
}

#[cfg(unix)]
impl Reload {
    async fn lost_terminal(&self) -> bool {
        if !self.in_terminal {
            return false;
        }
        tokio::time::sleep(TERMINAL_GONE).await;
        !has_terminal()
    }
}

/// Whether a terminal controls this process.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether the process was started with this signal ignored, as far as the system tells.
#[cfg(unix)]
fn is_ignored(kind: tokio::signal::unix::SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Ctrl-c.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn catch() -> Result<Signals, Failure> {
        Ok(Signals)
    }

    pub(super) fn reload_at_hangup(&mut self) -> Arc<Notify> {
        Arc::default()
    }

    pub(super) async fn next(&mut self) -> Exit {
        // Without a handler the process simply ends at ctrl-c.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Exit::Interrupted
    }
}

/// Makes a signal end the process well: for commands whose only end is ctrl-c.
pub(super) fn end_with_signal() -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::plain(Exit::Failure, &error))?;
    // Signals can only be caught inside of a runtime.
    let _inside = runtime.enter();
    let mut signals = Signals::catch()?;
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        // The main thread may be inside of a read that nothing else ends.
        std::process::exit(Exit::Done as i32);
    });
    Ok(())
}

/// Does something at each signal, in a thread of its own: for commands that end by themselves.
pub(super) fn at_signals(mut act: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let _inside = runtime.enter();
    let mut signals = Signals::catch()?;
    std::thread::spawn(move || {
        loop {
            runtime.block_on(signals.next());
            act();
        }
    });
    Ok(())
}

/// Waits for a signal, or for the node to stop by itself, which is a failure; then stops everything.
pub(super) async fn live(
    servers: Vec<Server>,
    mut nodes: Vec<Running>,
    mut signals: Signals,
) -> Result<(), Failure> {
    let reason = tokio::select! {
        _ = signals.next() => None,
        reason = first_failure(&mut nodes) => Some(reason),
    };
    supervisor::stopping();
    let asked_again = async {
        let same_wish = async {
            loop {
                signals.next().await;
            }
        };
        let _elapsed = timeout(ONE_WISH, same_wish).await;
        signals.next().await
    };
    let stopped = tokio::select! {
        stopped = timeout(STOP_TIME_MAX, stop(servers, nodes)) => stopped,
        by = asked_again => Ok(Err(Failure::new(by, "stopped without saying goodbye", ""))),
    };
    // Why the node stopped by itself says more than how the rest of it stopped.
    if let Some(reason) = reason {
        return Err(Failure::new(
            Exit::Failure,
            format!("the node stopped: {reason}"),
            "the log above says more",
        ));
    }
    stopped.unwrap_or_else(|_| {
        let message = format!("the node did not stop within {} ms", STOP_TIME_MAX.as_millis());
        Err(Failure::new(Exit::Failure, message, "nothing durable is lost; start it again"))
    })
}

async fn first_failure(nodes: &mut [Running]) -> String {
    let failures = nodes.iter_mut().map(|node| Box::pin(node.failed()));
    futures::future::select_all(failures).await.0
}

async fn stop(servers: Vec<Server>, nodes: Vec<Running>) -> Result<(), Failure> {
    // The API first, so that no request meets a node that is half gone.
    join_all(servers.into_iter().map(Server::stop)).await;
    // All at once, because they share one limit of time.
    for stopped in join_all(nodes.into_iter().map(Running::stop)).await {
        stopped.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    }
    Ok(())
}
