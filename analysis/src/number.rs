//! Reading a number as people and models write it at the end of a solution.

/// Exponents beyond this make no number: nobody's final answer has a hundred digits.
const LARGEST_EXPONENT: usize = 100;

/// The number that `text` begins with, in a normal form in which equal numbers are equal text: no thousands separators, no
/// exponent, no `+`, no leading zeros, no zeros at the end of a fraction.
///
/// Marks around a number (`**7**`, `(7)`, `$7`, `\boxed{7}`, `~7`) and words after it do not matter. `None` if no number
/// stands there, or if it is only a part of something else: a fraction, a time, a range, a product, a date.
pub(crate) fn number_at_start(text: &str) -> Option<String> {
    let (negative, rest) = skip_marks(text)?;
    let (whole, rest) = take_whole(rest)?;
    let (fraction, rest) = take_fraction(rest);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (exponent, rest) = take_exponent(rest)?;
    if continues(rest) { None } else { Some(normal_form(negative, &whole, fraction, exponent)) }
}

/// The sign, and what is left after all that may stand before a number. `None` for two signs, or a sign before a space:
/// that is a bullet of a list.
fn skip_marks(text: &str) -> Option<(bool, &str)> {
    let mut sign = None;
    let mut rest = text.trim_start();
    loop {
        if let Some(inner) = [r"\boxed{", r"\(", r"\[", r"\$"].iter().find_map(|mark| rest.strip_prefix(mark)) {
            rest = inner;
            continue;
        }
        let Some(first) = rest.chars().next() else { return Some((sign == Some('-'), rest)) };
        let after = &rest[first.len_utf8()..];
        match first {
            '+' | '-' | '−' | '–' => {
                if sign.is_some() || after.starts_with(char::is_whitespace) {
                    return None;
                }
                sign = Some(if first == '+' { '+' } else { '-' });
            }
            '*' | '_' | '`' | '(' | '[' | '{' | '"' | '\'' | '~' | '≈' | '=' | '$' | '€' | '£' | '¥' | '₹' => {}
            _ if first.is_whitespace() => {}
            _ => return Some((sign == Some('-'), rest)),
        }
        rest = after;
    }
}

/// Digits with their thousands separators taken out: commas (also in Indian groups of two, the last one of three) or
/// spaces. `None` for commas that separate no such groups, which may mean a fraction.
fn take_whole(text: &str) -> Option<(String, &str)> {
    let (first, mut rest) = split_digits(text);
    let mut whole = first.to_owned();
    if first.is_empty() {
        return Some((whole, rest));
    }
    let mut last_group = None;
    while let Some((group, after)) = rest.strip_prefix(',').map(split_digits)
        && !group.is_empty()
    {
        if last_group.unwrap_or(first.len()) > 3 || !(2..=3).contains(&group.len()) {
            return None;
        }
        whole.push_str(group);
        (last_group, rest) = (Some(group.len()), after);
    }
    match last_group {
        Some(3) => return Some((whole, rest)),
        Some(_) => return None,
        None => {}
    }
    if first.len() <= 3 {
        while let Some((group, after)) = rest.strip_prefix([' ', '\u{a0}', '\u{2009}', '\u{202f}']).map(split_digits)
            && group.len() == 3
        {
            whole.push_str(group);
            rest = after;
        }
    }
    Some((whole, rest))
}

/// The digits after a decimal point, which may be none: a point also ends a sentence.
fn take_fraction(text: &str) -> (&str, &str) {
    text.strip_prefix('.').map_or(("", text), split_digits)
}

/// The power of ten of `2e3`. `None` if it is too large.
fn take_exponent(text: &str) -> Option<(isize, &str)> {
    let Some(after) = text.strip_prefix(['e', 'E']) else { return Some((0, text)) };
    let unsigned = after.strip_prefix(['+', '-', '−']).unwrap_or(after);
    let (digits, rest) = split_digits(unsigned);
    if digits.is_empty() {
        return Some((0, text));
    }
    let size = digits.parse().ok().filter(|&size: &usize| size <= LARGEST_EXPONENT)? as isize;
    let negative = after.starts_with(['-', '−']);
    Some((if negative { -size } else { size }, rest))
}

/// Whether what follows a number makes it a part of something else: `2/7`, `2:45`, `2-29`, `2 × 3`, `3 1/2`, `1.2.3`, `7½`.
fn continues(rest: &str) -> bool {
    let numeric = |text: &str| text.starts_with(char::is_numeric);
    let spaced = rest.trim_start_matches([' ', '\t', '\u{a0}', '\u{2009}', '\u{202f}']);
    if numeric(spaced) {
        return true;
    }
    let joined = ['/', '⁄', '÷', ':', '.', '-', '−', '–', '—', '+', '^', '×', 'x', '·', '*'];
    spaced.strip_prefix(joined).is_some_and(|after| numeric(after.trim_start_matches([' ', '\t'])))
}

fn normal_form(negative: bool, whole: &str, fraction: &str, exponent: isize) -> String {
    let zeros = exponent.unsigned_abs();
    // The point stands after `place` of these digits.
    let (digits, place) = if exponent < 0 {
        let padded = "0".repeat(zeros) + whole;
        let place = padded.len() - zeros;
        (padded + fraction, place)
    } else {
        let shifted = fraction.to_owned() + &"0".repeat(zeros.saturating_sub(fraction.len()));
        (whole.to_owned() + &shifted, whole.len() + zeros)
    };
    let (whole, fraction) = digits.split_at(place);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_as_they_are_written() {
        for (text, number) in [
            ("7", "7"),
            (" 7", "7"),
            ("7.", "7"),
            ("1,234", "1234"),
            ("1,00,000", "100000"),
            ("**7**", "7"),
            ("(7)", "7"),
            ("€7", "7"),
            ("-$7", "-7"),
            ("$-7", "-7"),
            ("~7", "7"),
            ("−7", "-7"),
            (r"\boxed{7}", "7"),
            (r"$\boxed{-7}$", "-7"),
            (r"\$7", "7"),
            ("7.50", "7.5"),
            ("2 000", "2000"),
            ("1\u{202f}234\u{202f}567.5", "1234567.5"),
            ("2e3", "2000"),
            ("1.5E1", "15"),
            ("25e-3", "0.025"),
            ("7 %", "7"),
            ("7%", "7"),
            ("-7", "-7"),
            ("7, because", "7"),
            ("7-day trip", "7"),
            ("7 eggs", "7"),
            ("7eggs", "7"),
            ("7 x", "7"),
            ("7\n8", "7"),
        ] {
            assert_eq!(number_at_start(text).as_deref(), Some(number), "{text}");
        }
    }

    #[test]
    fn parts_of_something_else_are_no_numbers() {
        for text in [
            "2/7",
            "2 / 7",
            "2:45",
            "2-29",
            "2 – 29",
            "3 1/2",
            "7½",
            "2 × 3",
            "2*3",
            "2^3",
            "1.2.3",
            "3,14",
            "12,34,5",
            "1234,567",
            "--7",
            "- 7",
            "1e400",
            "1e99999999999999999999",
            r"\frac{2}{7}",
            "seven",
            "",
            "**",
            ".",
            "-",
        ] {
            assert_eq!(number_at_start(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in r"[-−+*$\\{}(). ,0-9eE/½]{0,12}") {
            if let Some(number) = number_at_start(&text) {
                // What was read reads as itself.
                prop_assert_eq!(number_at_start(&number), Some(number.clone()));
            }
        }
    }
}
