//! The report of a run as one HTML file that needs nothing else: styles, scripts, the plotting library and the figures lie
//! in it, and its own policy forbids the browser to load anything from anywhere.
//!
//! The figures are a [`ReportData`](crate::report_data::ReportData) as JSON; the scripts in `orchestrator/assets/` draw
//! them, here and in the [`dashboard`](crate::dashboard) alike.

pub(crate) mod assets;
mod html;
pub(crate) mod policy;

pub use html::render;
