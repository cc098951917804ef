//! Text in a page: escaping, and numbers as people read them.

use std::fmt::{Display, Formatter, Result, Write};

use super::super::measure::Unit;

/// Digits that are shown of a number.
const DIGITS: i32 = 4;
/// Relative error of a float that was multiplied: such a number is meant as a whole one.
const ROUNDING: f64 = 1e-14;
/// Digits behind the point at most.
const DECIMALS_MAX: i32 = 9;

/// Text that is shown as it is, in content and in quoted attributes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> Result {
        for character in self.0.chars() {
            match character {
                '&' => to.write_str("&amp;")?,
                '<' => to.write_str("&lt;")?,
                '>' => to.write_str("&gt;")?,
                '"' => to.write_str("&quot;")?,
                '\'' => to.write_str("&#39;")?,
                other => to.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Four digits, more where fewer would look like a whole number that it is not (0.99996 is not 1).
pub(super) fn number(value: f64) -> String {
    let whole = value.round();
    if !value.is_finite() || (value - whole).abs() <= whole.abs() * ROUNDING {
        let value = if value.is_finite() { whole } else { value };
        return if value.is_nan() { "no value".to_owned() } else { format!("{value}") };
    }
    let decimals = (DIGITS - 1 - value.abs().log10().floor() as i32).clamp(0, DECIMALS_MAX);
    let mut written = (decimals..=DECIMALS_MAX).map(|decimals| format!("{value:.*}", decimals as usize));
    // Beyond 10^4 a fraction is less than four digits tell, and may be dropped.
    let honest =
        written.find(|text| text.parse::<f64>().is_ok_and(|shown| shown.fract() != 0.0 || value.abs() > 1e4));
    let text = honest.unwrap_or_else(|| format!("{value:e}"));
    // Zeros of an exponent, or of a whole number, say something.
    if text.contains('.') && !text.contains('e') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// A thing and how many there are of it.
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", Unit::Number.show(count as f64), if count == 1 { "" } else { "s" })
}

/// Letters, digits, `-`, `_` and `.` of a name, anything else as `-`: for file names and anchors.
pub(super) fn slug(name: &str) -> String {
    let kept = |it: char| if it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '-' };
    name.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_looks_rounder_than_it_is() {
        let shown = [1.0, 0.940_512, 0.999_96, 0.999_999_9, 1234.567, 0.000_012_3, -3.5, 20_000.4, 1e-12];
        let wanted = ["1", "0.9405", "0.99996", "0.9999999", "1234.6", "0.0000123", "-3.5", "20000", "1e-12"];
        assert_eq!(shown.map(number), wanted);
        assert_eq!([f64::NAN, 3.0 * 0.2 / 0.01, 0.0].map(number), ["no value", "60", "0"]);
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(Escaped("<b a='1'>\"&").to_string(), "&lt;b a=&#39;1&#39;&gt;&quot;&amp;");
        assert_eq!(slug("../a b<c>.x"), "..-a-b-c-.x");
    }
}
