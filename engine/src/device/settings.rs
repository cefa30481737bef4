//! What a device machine is told once, for all generations of a method; shared by every device of a fleet.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::draft::DraftSpec;
use super::energy::DeviceProfile;
use super::link::LinkProfile;
use crate::method::{Gate, ImportanceStatistic, MAX_BLOCK, Method, PriceRule, Sampling, Writer};
use crate::time::Span;

/// What a device does with a token it wants to upload while the pool is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnreachable {
    /// Wait and try again; never changes tokens.
    Wait,
    /// Commit the draft after `unreachable_after`; the record says `fallback`.
    Local,
    /// End the generation after `unreachable_after`.
    Fail,
}

/// What a device does with an upload that the pool refuses for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRefused {
    /// Send it again after what the pool says, or after the doubling waits of [`Retry`] if those are longer.
    Retry,
    /// Send it again after what the pool says, every time.
    Wait,
    /// Commit the drafts; the record says `refused`.
    Local,
}

/// When a device loses its link: gaps and lengths are exponential, drawn per device and outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outages {
    /// Mean time from the end of one to the start of the next.
    pub every: Span,
    pub length: Span,
}

/// Waiting times between attempts: doubled from `first` up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Before the second attempt.
    pub first: Span,
    pub last: Span,
}

impl Retry {
    /// The waiting time after `failures` failures in a row, counted from 1.
    pub(crate) fn delay(&self, failures: u32) -> Span {
        let doublings = failures.saturating_sub(1).min(32);
        Span(self.first.0.saturating_mul(1 << doublings).min(self.last.0))
    }
}

/// Everything a device machine needs to know beyond its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSettings {
    pub method: Method,
    /// How tokens are drawn, by drafter and verifier alike.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Most tokens a generation may have.
    pub max_new_tokens: u32,
    /// Longest sequence the models take, in tokens.
    pub context: u32,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Tokens that end a text.
    pub end_tokens: Vec<u32>,
    pub profile: DeviceProfile,
    pub link: LinkProfile,
    /// How long to wait for a verdict before the upload is cancelled and sent again.
    pub verdict_timeout: Span,
    /// Waiting times of reconnection and of refused uploads.
    pub retry: Retry,
    /// What to do when the pool is out of reach.
    pub on_unreachable: OnUnreachable,
    /// From when on it counts as out of reach.
    pub unreachable_after: Span,
    /// What to do when the pool refuses an upload for now.
    pub on_refused: OnRefused,
    /// The latency per token that the device's user wants; zero for none. Uploads carry when their verdict is wanted.
    pub latency_target: Span,
    /// What device and radio may draw until the battery is empty, in nanojoules; 0 for mains.
    pub battery_nanojoules: u64,
    /// When the link is lost.
    pub outages: Option<Outages>,
}

/// Settings that no machine can run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// γ out of range.
    #[error("method {method}: block is {block}, but must lie in 1..={MAX_BLOCK}")]
    Block { method: String, block: u8 },
    /// No room for a single token.
    #[error("max_new_tokens must be at least 1")]
    NoTokens,
}

/// Positions beyond a draft that the machine may touch before it decides on it: two lookahead steps.
pub(super) const LOOKAHEAD: u32 = 2;

impl DeviceSettings {
    /// Checks what types do not carry.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.method.block == 0 || usize::from(self.method.block) > MAX_BLOCK {
            return Err(SettingsError::Block { method: self.method.name.clone(), block: self.method.block });
        }
        if self.max_new_tokens == 0 {
            return Err(SettingsError::NoTokens);
        }
        Ok(())
    }

    /// What a draft step computes beside the token.
    pub fn draft_spec(&self) -> DraftSpec {
        DraftSpec::of(&self.method, self.sampling)
    }

    /// Most tokens that a generation after `prompt_tokens` may have, so that even the lookahead stays in the context.
    pub fn limit(&self, prompt_tokens: u32) -> u32 {
        self.max_new_tokens.min(self.context.saturating_sub(prompt_tokens + LOOKAHEAD))
    }

    /// ⌈log2 V⌉: nominal bits of a token's number.
    pub(super) fn id_bits(&self) -> u64 {
        u64::from(self.vocab.max(2).next_power_of_two().trailing_zeros())
    }

    pub(super) fn estimates_uncertainty(&self) -> bool {
        matches!(self.method.gate, Gate::Uncertainty { .. } | Gate::Joint { .. } | Gate::Price(_))
    }

    /// Whether the device lives by the emulated accounts rather than by the host's clock: both computing and link are
    /// declared.
    pub fn is_emulated(&self) -> bool {
        self.link.emulated && self.profile.is_declared()
    }

    /// Whether its method ever asks the pool.
    pub(super) fn connects(&self) -> bool {
        self.method.writer == Writer::Verifier || self.method.gate != Gate::Never
    }

    pub(super) fn importance_statistic(&self) -> Option<ImportanceStatistic> {
        match self.method.gate {
            Gate::Joint { importance, .. } | Gate::Price(PriceRule { importance, .. }) => Some(importance.statistic),
            _ => None,
        }
    }

    pub(super) fn looks_ahead(&self) -> bool {
        self.importance_statistic() == Some(ImportanceStatistic::Lookahead)
    }
}
