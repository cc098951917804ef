//! The log: one line an event, and no line that a peer can forge or repeat at will.
//!
//! What others wrote may stand in any field, so every field is cleaned where it is printed. Events of one cause, which is the
//! place in the code and its `code` or `reason`, are ten lines a minute at most; what was left out is told once a minute.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

use super::failure::wants_colours;
use crate::sanitize::clean_short;

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

/// Where the filter of this process is changed.
static CHANGES: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Prints events to stderr from now on. Only a second start in one process fails, and then the log of the first goes on.
pub(super) fn start(filter: EnvFilter) {
    let budget = Arc::new(Budget::default());
    let layer = lines::layer()
        .fmt_fields(debug_fn(print_field))
        .with_ansi(wants_colours() && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(Fold(budget.clone()));
    let (filter, changes) = reload::Layer::new(filter);
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        // Empty until now: only one start gets here.
        let _first = CHANGES.set(changes);
        // For the life of the process; it ends with it.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(WINDOW);
                for (cause, left_out) in budget.begin_window() {
                    tracing::warn!(cause, left_out, "more lines like this were left out in the last minute");
                }
            }
        });
    }
}

/// Prints by another filter from now on.
pub(super) fn change(filter: EnvFilter) {
    if let Some(Err(error)) = CHANGES.get().map(|changes| changes.reload(filter)) {
        tracing::warn!(%error, "the log goes on as it was");
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
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let at = event.metadata();
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
        let (printed, budget) = (Printed::default(), Arc::new(Budget::default()));
        let layer = lines::layer()
            .fmt_fields(debug_fn(print_field))
            .with_ansi(false)
            .with_writer(printed.clone())
            .with_filter(Fold(budget.clone()));
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
    fn causes_beyond_those_told_apart_are_one() {
        let budget = Budget::default();
        let printed = (0..10_000).filter(|number| budget.spend(format!("cause {number}"))).count();
        assert_eq!(printed, CAUSES_MAX + LINES_MAX as usize);
        assert_eq!(budget.0.lock().unwrap().len(), CAUSES_MAX + 1);
    }
}
