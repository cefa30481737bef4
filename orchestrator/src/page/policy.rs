//! What a browser may load for a page: the Content Security Policy, which names inline texts by their digest.

use sha2::{Digest, Sha256};

/// The style sheet that the plotting library puts into each drawing. It is inline, so a policy has to name it; it is the
/// same for every drawing. If a new version of the library changes it, the browser reports it and the tests in
/// `tests/python/` fail.
pub(crate) const PLOT_STYLE: &str = ":where(.plot-d6a7b5) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot-d6a7b5 text),
:where(.plot-d6a7b5 tspan) {
  white-space: pre;
}";

/// The policy of a report in a file: these scripts and styles, and nothing from anywhere.
pub(crate) fn of_file(scripts: &[&str], styles: &[&str]) -> String {
    let sources = |texts: &[&str]| texts.iter().map(|text| source(text)).collect::<Vec<_>>().join(" ");
    format!(
        "default-src 'none'; script-src {}; style-src {} {}; base-uri 'none'; form-action 'none'",
        sources(scripts),
        sources(styles),
        source(PLOT_STYLE)
    )
}

/// The policy of the dashboard: its own files, and its own address for data.
pub(crate) fn of_dashboard() -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' {}; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'",
        source(PLOT_STYLE)
    )
}

/// An inline text by its digest.
fn source(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn nothing_from_elsewhere_and_nothing_inline_without_a_digest() {
        for policy in [of_dashboard(), of_file(&["a"], &["b"])] {
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            assert!(
                !policy.contains("-inline")
                    && !policy.contains("-eval")
                    && !policy.contains("http")
                    && !policy.contains('*'),
                "{policy}"
            );
        }
    }
}
