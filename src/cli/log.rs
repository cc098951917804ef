//! The log: one line an event, and no line that a peer can forge or repeat at will.
//!
//! What others wrote may stand in any field, so every field is cleaned where it is printed. Events of one cause, which is the
//! place in the code and its `code` or `reason`, are ten lines a minute at most; what was left out is told once a minute.
//! Lines are text for people, or objects for programs ([`json`]); of text that systemd reads, the journal has time and level
//! itself.

pub(super) mod json;

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter};
use tracing_subscriber::fmt::format::{Format, Full, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines, reload};

use self::json::JsonLines;
use super::failure::wants_colours;
use crate::sanitize::clean_short;
use crate::telemetry::otel::Traces;
use crate::telemetry::{log_counts, names};

/// Lines of one cause in a minute. Whoever reads a log needs some, and a thousand peers at once would fill a disk.
const LINES_MAX: u32 = 10;
/// The time after which what was left out is told, and lines are printed again.
const WINDOW: Duration = Duration::from_secs(60);
/// Causes that are told apart; what comes beyond is one more. The texts of codes are few: only a loop in the code makes more.
const CAUSES_MAX: usize = 256;
/// Longest text of a cause, bytes.
const CAUSE_BYTES_MAX: usize = 96;
/// Longest field, bytes: the end of what an agent's program wrote has 4 KiB.
const FIELD_BYTES_MAX: usize = 6 * 1024;

/// Changes the filter of this process.
type ChangeFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;
static CHANGE: OnceLock<ChangeFilter> = OnceLock::new();

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// For the journal of systemd, which has a time of its own and reads the level from the begin of a line.
    Journal,
    /// For programs.
    Json,
}

impl LogFormat {
    /// That of this process.
    pub(super) fn of(is_json: bool) -> LogFormat {
        match is_json {
            true => LogFormat::Json,
            false if is_journal() => LogFormat::Journal,
            false => LogFormat::Text,
        }
    }
}

/// Whether systemd reads stderr. The variable alone does not say so: children have it too, wherever their stderr goes.
#[cfg(unix)]
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

#[cfg(not(unix))]
fn is_journal() -> bool {
    false
}

/// Prints events to stderr from now on, and makes spans of `traces` if there are any. Only a second start in one process
/// fails, and then the log of the first goes on.
pub(super) fn start(filter: EnvFilter, format: LogFormat, traces: Option<&Traces>) {
    let budget = Arc::new(Budget::default());
    let is_coloured = wants_colours() && std::io::stderr().is_terminal();
    // Of the lines alone: spans have a filter of their own, and their layer must not be behind one that changes.
    let (filter, changes) = reload::Layer::new(filter);
    let printed = printer(format, std::io::stderr, is_coloured).with_filter(Fold(budget.clone()).and(filter));
    // Spans first: a line names the ids of the span that it happened in.
    let layers = tracing_subscriber::registry().with(traces.map(Traces::layer)).with(printed);
    if layers.try_init().is_ok() {
        // Empty until now: only one start gets here.
        let _first = CHANGE.set(Box::new(move |filter| changes.reload(filter)));
        // For the life of the process; it ends with it.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(WINDOW);
                for (cause, left_out) in budget.begin_window() {
                    tracing::warn!(
                        event = "lines_left_out",
                        cause,
                        left_out,
                        "more lines like this were left out in the last minute"
                    );
                }
            }
        });
    }
}

/// Prints by another filter from now on.
pub(super) fn change(filter: EnvFilter) {
    if let Some(Err(error)) = CHANGE.get().map(|change| change(filter)) {
        tracing::warn!(%error, "the log goes on as it was");
    }
}

/// What writes lines of this format.
fn printer<S, W>(format: LogFormat, writer: W, is_coloured: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let text = lines::layer().fmt_fields(debug_fn(print_field));
    match format {
        LogFormat::Text => text.with_ansi(is_coloured).with_writer(writer).boxed(),
        LogFormat::Journal => {
            let lines = JournalLines(lines::format().without_time().with_level(false));
            text.with_ansi(false).event_format(lines).with_writer(writer).boxed()
        }
        LogFormat::Json => JsonLines::new(writer).boxed(),
    }
}

/// Lines as the journal reads them: `<4>` and what else a line says.
struct JournalLines(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for JournalLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(cx, writer, event)
    }
}

/// A field as text on its line, whoever wrote it.
fn print_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let text = clean_short(&format!("{value:?}"), FIELD_BYTES_MAX);
    match field.name() {
        "message" => write!(writer, "{text}"),
        name => write!(writer, " {name}={text}"),
    }
}

/// Lets so many events of a cause through.
struct Fold(Arc<Budget>);

impl<S: Subscriber> Filter<S> for Fold {
    fn enabled(&self, at: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        at.target() != names::TARGET
    }

    /// What is asked once of each place in the code: spans of traces are no part of the log.
    fn callsite_enabled(&self, at: &'static Metadata<'static>) -> Interest {
        match at.target() {
            names::TARGET => Interest::never(),
            // What an event's fields decide is asked each time: the library counts on a pass of its filters before.
            _ if at.is_event() => Interest::sometimes(),
            _ => Interest::always(),
        }
    }

    /// None would ask both filters of every line of every level.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let at = event.metadata();
        log_counts::count(*at.level());
        let mut cause = Cause(format!("{}:{}", at.target(), at.line().unwrap_or_default()));
        event.record(&mut cause);
        self.0.spend(clean_short(&cause.0, CAUSE_BYTES_MAX))
    }
}

/// Why something is logged: where, and with which code.
struct Cause(String);

impl Visit for Cause {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if matches!(field.name(), "code" | "reason") {
            // Writing to a string cannot fail.
            let _infallible = write!(self.0, " {value:?}");
        }
    }
}

/// The lines of this minute, by cause.
#[derive(Default)]
struct Budget(Mutex<BTreeMap<String, u32>>);

impl Budget {
    /// Whether one more line of this cause may be printed.
    fn spend(&self, cause: String) -> bool {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = lines.len() < CAUSES_MAX || lines.contains_key(&cause);
        let spent = lines.entry(if is_known { cause } else { "other causes".into() }).or_default();
        *spent = spent.saturating_add(1);
        *spent <= LINES_MAX
    }

    /// A minute is over: what was left out in it.
    fn begin_window(&self) -> Vec<(String, u32)> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        lines
            .into_iter()
            .filter_map(|(cause, spent)| Some((cause, spent.checked_sub(LINES_MAX)?)))
            .filter(|it| it.1 > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What a log printed.
    #[derive(Clone, Default)]
    struct Printed(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Printed {
        type Writer = Printed;
        fn make_writer(&self) -> Printed {
            self.clone()
        }
    }

    /// The lines that `work` logs, and the budget that let them through.
    fn logged(work: impl FnOnce()) -> (Vec<String>, Arc<Budget>) {
        logged_as(LogFormat::Text, work)
    }

    fn logged_as(format: LogFormat, work: impl FnOnce()) -> (Vec<String>, Arc<Budget>) {
        let (printed, budget) = (Printed::default(), Arc::new(Budget::default()));
        let layer = printer(format, printed.clone(), false).with_filter(Fold(budget.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = printed.0.lock().unwrap().clone();
        (String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect(), budget)
    }

    #[test]
    fn no_text_of_others_begins_a_line_or_hides_what_stands_in_it() {
        let forged = "x\n2026-11-28T00:00:00Z ERROR aop: FAKE\u{202e}\u{1b}[2J";
        let (lines, _) = logged(|| {
            tracing::warn!("peer speaks {forged}");
            tracing::warn!(speaks = forged, shown = %forged, "peer");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| !line.chars().any(crate::sanitize::is_unseen)), "{lines:?}");
        let long = "y".repeat(100_000);
        assert!(logged(|| tracing::warn!("{long}")).0[0].len() < FIELD_BYTES_MAX + 200);
    }

    #[test]
    fn a_flood_of_one_cause_is_ten_lines_and_a_count_and_hides_no_other_cause() {
        let tell = |code: &str, number: u32| tracing::warn!(code, "problem {number}");
        let (lines, budget) = logged(|| {
            (0..5_000).for_each(|number| tell("other_network", number));
            tell("listener_lost", 1);
        });
        assert_eq!(lines.len(), 11);
        assert!(lines[10].contains("listener_lost"), "{lines:?}");
        let left_out = budget.begin_window();
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        assert!(left_out[0].0.contains("other_network") && left_out[0].1 == 4_990, "{left_out:?}");
        assert_eq!(budget.begin_window(), [], "a new minute");
    }

    #[test]
    fn an_object_a_line_has_what_the_event_and_its_spans_say_once_and_no_break() {
        let (lines, _) = logged_as(LogFormat::Json, || {
            let _request = tracing::warn_span!("http", request = "r1", call = "outer").entered();
            let _call = tracing::warn_span!("agent", agent = "a@.", call = "c1").entered();
            let _unlogged = tracing::info_span!(target: names::TARGET, "traced", request = "r2").entered();
            tracing::warn!(code = "x", took_ms = 7_u64, ok = false, "first\n{}", "second\u{202e}");
            tracing::info!(agent = "b@.", timestamp = "forged", "other");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        let line = |at: usize| serde_json::from_str::<serde_json::Value>(&lines[at]).unwrap();
        let (first, other) = (line(0), line(1));
        for (name, value) in [("level", "WARN"), ("message", "first second"), ("code", "x"), ("call", "c1")] {
            assert_eq!(first[name], value, "{first}");
        }
        assert_eq!((&first["request"], &first["agent"]), (&"r1".into(), &"a@.".into()), "{first}");
        assert_eq!((&first["took_ms"], &first["ok"]), (&7.into(), &false.into()), "{first}");
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
        assert_eq!(lines[0].matches("\"call\"").count(), 1, "{}", lines[0]);
        assert_eq!(other["agent"], "b@.", "an event knows better than what it happened in");
    }

    #[test]
    fn the_journal_gets_the_level_and_no_time() {
        let (lines, _) = logged_as(LogFormat::Journal, || {
            tracing::error!("lost");
            tracing::warn!(peer = "p", "slow");
            tracing::info!("up");
        });
        let begins: Vec<&str> = lines.iter().map(|line| &line[..4]).collect();
        assert_eq!(begins, ["<3>a", "<4>a", "<6>a"], "{lines:?}");
        assert!(lines[1].ends_with(": slow peer=\"p\""), "{lines:?}");
    }

    #[test]
    fn causes_beyond_those_told_apart_are_one() {
        let budget = Budget::default();
        let printed = (0..10_000).filter(|number| budget.spend(format!("cause {number}"))).count();
        assert_eq!(printed, CAUSES_MAX + LINES_MAX as usize);
        assert_eq!(budget.0.lock().unwrap().len(), CAUSES_MAX + 1);
    }
}
