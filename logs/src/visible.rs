//! Texts from elsewhere on a terminal: names of files and runs, tags, what an import brought along.
//!
//! A control character in one of them would be an instruction to the terminal (move the cursor, change a colour, overwrite a
//! line), and a bidirectional override makes a line read as something that it is not.

use std::borrow::Cow;

/// Characters that change the order in which others are shown, and the two further ends of a line.
fn is_formatting(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without control characters other than line breaks and tabs. The others are escaped as in JSON, which stays the same
/// JSON by that.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| (c.is_control() && c != '\n' && c != '\t') || is_formatting(c))
}

/// The same in one line: for a name inside a line or a table.
pub fn visible_name(name: &str) -> Cow<'_, str> {
    escaped(name, |c| c.is_control() || is_formatting(c))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // All of them are in the basic multilingual plane, so four digits are enough.
        if is_escaped(c) { shown.push_str(&format!("\\u{:04x}", u32::from(c))) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(
            visible("a\u{1b}[31mb\r\n\tc\u{202e}d\u{9b}\u{7f}"),
            "a\\u001b[31mb\\u000d\n\tc\\u202ed\\u009b\\u007f"
        );
        assert_eq!(visible_name("a\nb\tc"), "a\\u000ab\\u0009c");
        let plain = "Grüße, 世界, שלום, 🦀 = + - @\n";
        assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain));
    }
}
