//! The excerpt of a diagnostic, cut to what a terminal shows: one long line would bury what is wrong with it.

use std::fmt;

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};

/// Columns of a line that are shown.
const COLUMNS_MAX: usize = 80;
/// Of these, columns before what is underlined, where the line begins further left.
const COLUMNS_BEFORE: usize = 20;
/// Lines around what is underlined, as the report draws them.
const LINES_AROUND: usize = 1;
/// Stands where a line was cut.
const CUT: char = '…';

/// A diagnostic with another excerpt.
pub(super) struct Cut<'a> {
    inner: &'a dyn Diagnostic,
    excerpt: Option<(Excerpt, LabeledSpan)>,
}

/// Some lines of a source, each no longer than a terminal's.
struct Excerpt {
    name: Option<String>,
    text: String,
    /// Lines of the source before the first.
    lines_before: usize,
    /// Columns of the source before what is underlined, in characters as everywhere else.
    column: usize,
}

impl<'a> Cut<'a> {
    /// Cuts the excerpt of a diagnostic with one label; any other stays as it is.
    pub(super) fn new(inner: &'a dyn Diagnostic) -> Cut<'a> {
        Cut { inner, excerpt: cut(inner) }
    }
}

fn cut(diagnostic: &dyn Diagnostic) -> Option<(Excerpt, LabeledSpan)> {
    let label = diagnostic.labels()?.next()?;
    let span = *label.inner();
    let contents = diagnostic.source_code()?.read_span(&span, LINES_AROUND, LINES_AROUND).ok()?;
    let source = std::str::from_utf8(contents.data()).ok()?;
    // Where the underlined text begins in this part of the source.
    let start = span.offset().checked_sub(contents.span().offset())?;
    let mut excerpt = Excerpt {
        name: contents.name().map(str::to_owned),
        text: String::new(),
        lines_before: contents.line(),
        column: 0,
    };
    let (mut offset, mut marked) = (0, None);
    for line in source.split_inclusive('\n') {
        let text = line.trim_end_matches(['\n', '\r']);
        // The end of the source is a place on its last line, too.
        let has_mark = marked.is_none() && (offset..=offset + text.len()).contains(&start);
        let before = if has_mark { text.get(..start - offset)?.chars().count() } else { 0 };
        let skipped = skipped_columns(text.chars().count(), before, span.len());
        let at = excerpt.text.len();
        let shown: String = text.chars().skip(skipped).take(COLUMNS_MAX).collect();
        excerpt.text.extend((skipped > 0).then_some(CUT));
        excerpt.text.push_str(&shown);
        excerpt.text.extend((skipped + COLUMNS_MAX < text.chars().count()).then_some(CUT));
        if has_mark {
            let left: String = shown.chars().take(before - skipped).collect();
            let mark = at + if skipped > 0 { CUT.len_utf8() } else { 0 } + left.len();
            marked = Some((mark, span.len().min(excerpt.text.len() - mark)));
            excerpt.column = before;
        }
        excerpt.text.push('\n');
        offset += line.len();
    }
    let (mark, length) = marked?;
    let label = LabeledSpan::new_with_span(label.label().map(str::to_owned), (mark, length));
    Some((excerpt, label))
}

/// Columns left out at the beginning of a line whose mark begins at the column `before`.
fn skipped_columns(columns: usize, before: usize, marked: usize) -> usize {
    if columns <= COLUMNS_MAX || before + marked.min(COLUMNS_MAX - COLUMNS_BEFORE) <= COLUMNS_MAX {
        return 0;
    }
    before.saturating_sub(COLUMNS_BEFORE)
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = self.text.read_span(span, lines_before, lines_after)?;
        let line = read.line() + self.lines_before;
        // What is read without lines around it begins at what is underlined.
        let column = if lines_before == 0 { self.column } else { read.column() };
        let (data, at, lines) = (read.data(), *read.span(), read.line_count());
        Ok(Box::new(match &self.name {
            Some(name) => MietteSpanContents::new_named(name.clone(), data, at, line, column, lines),
            None => MietteSpanContents::new(data, at, line, column, lines),
        }))
    }
}

impl fmt::Debug for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.inner, f)
    }
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.inner, f)
    }
}

impl std::error::Error for Cut<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

impl Diagnostic for Cut<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.inner.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.inner.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.inner.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match &self.excerpt {
            Some((excerpt, _)) => Some(excerpt),
            None => self.inner.source_code(),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match &self.excerpt {
            Some((_, label)) => Some(Box::new(std::iter::once(label.clone()))),
            None => self.inner.labels(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miette::{GraphicalReportHandler, GraphicalTheme, NamedSource};

    #[derive(Debug, thiserror::Error, Diagnostic)]
    #[error("wrong")]
    struct Wrong {
        #[source_code]
        text: NamedSource<String>,
        #[label("here")]
        span: SourceSpan,
    }

    fn report(text: &str, marked: &str) -> String {
        let span = (text.find(marked).unwrap(), marked.len()).into();
        let wrong = Wrong { text: NamedSource::new("a.toml", text.to_owned()), span };
        let mut report = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(110);
        handler.render_report(&mut report, &Cut::new(&wrong)).unwrap();
        report
    }

    #[test]
    fn a_line_of_any_length_is_shown_around_what_is_wrong_with_it() {
        let value = format!("\"{}\"", "long ".repeat(2_000));
        let report = report(&format!("[agent]\nname = \"a\"\ndescription = {value}\n{value}\n"), &value);
        assert!(report.len() < 1_000, "{report}");
        assert!(report.contains("a.toml:3:15") && report.contains("description = \"long long"), "{report}");
        assert!(report.lines().all(|line| line.chars().count() < 110), "{report}");
    }

    #[test]
    fn what_stands_far_to_the_right_is_found_at_its_line_and_column() {
        let text = format!("[agent]\ntags = [{}7]\n", "\"é\", ".repeat(500));
        let report = report(&text, "7]");
        assert!(report.contains(&format!("a.toml:2:{}", 9 + 5 * 500)), "{report}");
        assert!(report.contains("…") && report.contains("\"é\", 7]") && report.len() < 1_000, "{report}");
    }

    #[test]
    fn a_short_excerpt_stays_as_it_is() {
        let text = "[agent]\nname = 7\ntags = []\n";
        let wrong = Wrong { text: NamedSource::new("a.toml", text.to_owned()), span: (15, 1).into() };
        let mut plain = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(110);
        handler.render_report(&mut plain, &wrong).unwrap();
        assert_eq!(report(text, "7"), plain);
    }
}
