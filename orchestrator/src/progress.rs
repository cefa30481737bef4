//! What a person sees while a run goes on: bars on a terminal, plain lines elsewhere, nothing if told so. It all goes to
//! standard error; standard output is for results.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use specfleet_engine::time::Span;

/// Seconds between two lines about a simulation.
const LINE_EVERY: f64 = 10.0;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ui {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Plain lines.
    Plain,
    /// Nothing.
    None,
}

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    show: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Bars,
    Lines,
    Nothing,
}

/// The progress of one method.
#[derive(Debug)]
pub struct ProgressPhase {
    bar: Option<ProgressBar>,
    line: Option<(String, Instant)>,
    /// What is counted.
    unit: &'static str,
    total: u64,
    done: Cell<u64>,
    simulated: Cell<Option<Span>>,
    /// Seconds after which the last line was printed.
    said: Cell<f64>,
}

impl Progress {
    /// Chooses how to show it.
    pub fn new(ui: Ui) -> Progress {
        let show = match ui {
            Ui::None => Show::Nothing,
            Ui::Plain => Show::Lines,
            Ui::Auto if std::io::stderr().is_terminal() => Show::Bars,
            Ui::Auto => Show::Lines,
        };
        Progress { show }
    }

    /// One line about something that happens now.
    pub fn say(&self, text: &str) {
        if self.show != Show::Nothing {
            specfleet_logs::say!("{text}");
        }
    }

    /// A method starts on `total` prompts.
    pub fn phase(&self, method: &str, total: usize) -> ProgressPhase {
        self.phase_of(method, total, "prompts")
    }

    /// Some other work starts on `total` things.
    pub fn phase_of(&self, name: &str, total: usize, unit: &'static str) -> ProgressPhase {
        let total = total as u64;
        let phase = |bar, line| ProgressPhase {
            bar,
            line,
            unit,
            total,
            done: Cell::new(0),
            simulated: Cell::new(None),
            said: Cell::new(0.0),
        };
        match self.show {
            Show::Nothing => phase(None, None),
            Show::Lines => phase(None, Some((name.to_owned(), Instant::now()))),
            Show::Bars => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                // The template is valid; the default style would do as well.
                let template = format!("{{prefix:<9}} {{bar:40}} {{pos:>5}}/{{len}} {unit}  {{elapsed}}  {{msg}}");
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    bar.set_style(style);
                }
                bar.set_prefix(name.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                phase(Some(bar), None)
            }
        }
    }
}

impl ProgressPhase {
    /// A prompt is answered.
    pub fn tick(&self) {
        self.done.set(self.done.get() + 1);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// So many more are done.
    pub fn advance(&self, done: u64) {
        self.done.set(self.done.get() + done);
        if let Some(bar) = &self.bar {
            bar.inc(done);
        }
        if let Some((name, started)) = &self.line {
            let seconds = started.elapsed().as_secs_f64();
            if seconds >= self.said.get() + LINE_EVERY {
                self.said.set(seconds);
                specfleet_logs::say!("{name:<9} {}/{} {} in {seconds:.0} s", self.done.get(), self.total, self.unit);
            }
        }
    }

    /// So many requests are over, after so much virtual time.
    pub fn set(&self, done: u64, simulated: Span) {
        self.done.set(done);
        self.simulated.set(Some(simulated));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{:.1} s simulated", simulated.seconds()));
        }
        if let Some((method, started)) = &self.line {
            let seconds = started.elapsed().as_secs_f64();
            if seconds >= self.said.get() + LINE_EVERY {
                self.said.set(seconds);
                let simulated = simulated.seconds();
                specfleet_logs::say!(
                    "{method:<9} {done}/{} prompts, {simulated:.1} s simulated in {seconds:.0} s",
                    self.total
                );
            }
        }
    }

    /// The method is through.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        if let Some((method, started)) = &self.line {
            let seconds = started.elapsed().as_secs_f64();
            let simulated =
                self.simulated.get().map_or(String::new(), |span| format!(", {:.1} s simulated", span.seconds()));
            specfleet_logs::say!(
                "{method:<9} {}/{} {} in {seconds:.1} s{simulated}",
                self.done.get(),
                self.total,
                self.unit
            );
        }
    }
}
