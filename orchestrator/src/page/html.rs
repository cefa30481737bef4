//! One or several reports as an HTML file.

use std::fmt::Write;

use super::assets::{DRAWING, STANDALONE, STYLE};
use super::policy;
use crate::report_data::ReportData;

/// The page of these reports: self-contained, and safe to open whatever the runs' names and scenarios contain.
pub fn render(reports: &[ReportData]) -> String {
    let names: Vec<&str> = reports.iter().map(|report| report.run.name.as_str()).collect();
    // Numbers, texts and maps with text keys: this serialises.
    let data = serde_json::to_string(reports).unwrap_or_else(|error| unreachable!("a report is plain data: {error}"));
    page(&format!("specfleet: {}", names.join(", ")), &data)
}

/// The page with this title around `data`, a JSON list of reports.
fn page(title: &str, data: &str) -> String {
    let scripts: Vec<&str> = DRAWING.iter().chain([&STANDALONE]).map(|asset| asset.text).collect();
    let policy = policy::of_file(&scripts, &[STYLE.text]);
    let mut page =
        String::with_capacity(scripts.iter().map(|script| script.len()).sum::<usize>() + data.len() + 16_384);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = page.write_fmt(text);
        page.push('\n');
    };
    line(format_args!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">"));
    line(format_args!("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"));
    line(format_args!("<meta name=\"generator\" content=\"specfleet {}\">", env!("CARGO_PKG_VERSION")));
    line(format_args!("<title>{}</title>", escaped(title)));
    line(format_args!("<style>{}</style>", STYLE.text));
    line(format_args!("</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to content</a>"));
    line(format_args!("<header class=\"top\"><span class=\"name\">specfleet</span></header>"));
    line(format_args!(
        "<main id=\"main\" tabindex=\"-1\"><noscript><p>The charts of this report are drawn by scripts that lie in this file.</p></noscript></main>"
    ));
    line(format_args!("<script type=\"application/json\" id=\"reports\">{}</script>", inert(data)));
    for script in scripts {
        line(format_args!("<script>{script}</script>"));
    }
    line(format_args!("</body>\n</html>"));
    page
}

/// JSON that can stand in a script element: a browser looks for `</script` and `<!--` there whatever the type. In JSON
/// `<` occurs in strings alone, where its escape means the same.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Text that can stand in an element or an attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script><script>alert(1)</script><!-- \u{2028} & \" '";

    /// The text between the first `start` and the next `end`.
    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        let from = text.find(start).expect("the start is there") + start.len();
        &text[from..from + text[from..].find(end).expect("the end is there")]
    }

    #[test]
    fn nothing_breaks_out_and_everything_comes_back() {
        let data = serde_json::to_string(&[serde_json::json!({ "scenario": HOSTILE })]).expect("JSON");
        let page = page(HOSTILE, &data);
        let island = between(&page, "id=\"reports\">", "</script>");
        let back: serde_json::Value = serde_json::from_str(island).expect("still JSON");
        assert_eq!(back[0]["scenario"], HOSTILE);
        assert!(!page.contains("<script>alert"));
        assert_eq!(between(&page, "<title>", "</title>"), escaped(HOSTILE));
        // As many scripts as were meant: the data and one element per file.
        assert_eq!(page.matches("<script").count(), DRAWING.len() + 2);
        assert_eq!(page.matches("</script>").count(), DRAWING.len() + 2);
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page("a run", "[]");
        let head = &page[..page.find("<style>").expect("a style")];
        for loading in ["src=", "<link", "@import", "url("] {
            assert!(!head.contains(loading) && !STYLE.text.contains(loading), "{loading}");
        }
        assert!(!page.contains("<script src") && !page.contains("<img") && !page.contains("<link"));
        assert!(head.contains("default-src 'none'"));
    }
}
