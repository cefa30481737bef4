//! The files that pages are made of, embedded in the binary.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Asset {
    /// What it is called under `/assets/`.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

impl Asset {
    /// The media type that its name says.
    pub(crate) fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }
}

/// A file of `orchestrator/assets/`, by the part of its path that is also its name in the browser.
macro_rules! asset {
    ($folder:literal, $name:literal) => {
        Asset { name: $name, text: include_str!(concat!("../../assets/", $folder, "/", $name)) }
    };
}

pub(crate) const STYLE: Asset = asset!("page", "style.css");

/// What a browser shows beside the title.
pub(crate) const ICON: Asset = asset!("page", "icon.svg");

/// What draws a report, in the order in which it has to be loaded.
pub(crate) const DRAWING: [Asset; 17] = [
    asset!("vendor", "d3.min.js"),
    asset!("vendor", "plot.min.js"),
    asset!("page", "base.js"),
    asset!("page", "table.js"),
    asset!("page", "figure.js"),
    asset!("page", "plots.js"),
    asset!("page", "charts/energy.js"),
    asset!("page", "charts/pareto.js"),
    asset!("page", "charts/latency.js"),
    asset!("page", "charts/batches.js"),
    asset!("page", "charts/risk.js"),
    asset!("page", "charts/timeline.js"),
    asset!("page", "charts/devices.js"),
    asset!("page", "charts/positions.js"),
    asset!("page", "charts/answers.js"),
    asset!("page", "charts/damage.js"),
    asset!("page", "report.js"),
];

/// What starts a report that lies in a file.
pub(crate) const STANDALONE: Asset = asset!("page", "standalone.js");

/// What the pages of the dashboard have beyond a report, in the order in which it has to be loaded.
pub(crate) const DASHBOARD: [Asset; 6] = [
    asset!("page", "stream.js"),
    asset!("page", "live.js"),
    asset!("page", "runs.js"),
    asset!("page", "run.js"),
    asset!("page", "compare.js"),
    asset!("page", "start.js"),
];

/// The frame of the dashboard's pages, before anything in it is found: `{root}` stands for the way to the first page.
const SHELL: &str = include_str!("../../assets/page/shell.html");

/// The frame of the dashboard's pages; it holds nothing of any run. `root` is the relative address of the first page, so
/// that a page works under whatever path a proxy puts the dashboard.
pub(crate) fn shell(root: &str) -> String {
    SHELL.replace("{root}", root)
}

/// The licences of the embedded libraries.
pub(crate) const LICENCES: [Asset; 2] = [asset!("vendor", "d3-LICENSE"), asset!("vendor", "plot-LICENSE")];

/// Every file that the dashboard serves under `/assets/`.
pub(crate) fn served() -> impl Iterator<Item = Asset> {
    [STYLE, ICON].into_iter().chain(DRAWING).chain(DASHBOARD).chain(LICENCES)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn vendored_files_are_those_of_the_readme() {
        let readme = include_str!("../../assets/README.md");
        for asset in DRAWING.iter().filter(|asset| asset.name.ends_with(".min.js")) {
            let digest: String = Sha256::digest(asset.text).iter().map(|byte| format!("{byte:02x}")).collect();
            let line = readme.lines().find(|line| line.starts_with(&format!("| `vendor/{}`", asset.name)));
            assert!(line.is_some_and(|line| line.contains(&digest)), "{}: {digest}", asset.name);
        }
    }

    #[test]
    fn no_script_can_end_its_element() {
        for asset in DRAWING.into_iter().chain(DASHBOARD).chain([STANDALONE]) {
            let text = asset.text.to_lowercase();
            assert!(!text.contains("</script") && !text.contains("<!--"), "{} would break out of a page", asset.name);
        }
        assert!(!STYLE.text.to_lowercase().contains("</style"));
    }

    #[test]
    fn the_shell_names_every_script_once_and_in_order() {
        let shell = shell("../");
        let expected: Vec<String> = DRAWING
            .iter()
            .chain(&DASHBOARD)
            .map(|asset| format!("<script defer src=\"../assets/{}\"></script>", asset.name))
            .collect();
        let named: Vec<&str> = shell.lines().map(str::trim).filter(|line| line.starts_with("<script")).collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn no_address_in_a_page_begins_at_the_root_of_its_server() {
        let ours = DRAWING.iter().chain(&DASHBOARD).filter(|asset| !asset.name.ends_with(".min.js"));
        for text in ours.map(|asset| asset.text).chain([SHELL, STYLE.text]) {
            for opening in ["\"/", "'/", "`/", "(/"] {
                let path = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '?' || c == '$');
                let found = text.split(opening).skip(1).find(|rest| path(rest)).and_then(|rest| rest.lines().next());
                assert_eq!(found, None, "a proxy may put the dashboard below another path");
            }
            assert!(!text.contains("=\"/\""), "the first page is no exception");
        }
    }
}
