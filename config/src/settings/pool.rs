//! `[pool]`: the verifier pool, its bounds and its front door.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use specfleet_engine::device::energy::VerifierProfile;
use specfleet_engine::id::PhaseId;
use specfleet_engine::pool::{Autoscale, Breaker, PoolSettings, PriceUpdate, QueueOrder};
use specfleet_engine::sizing::VerifierMemory;
use specfleet_engine::time::Span;

use super::run::MOST_VERIFIERS;
use super::{CostChoice, RunSection};
use crate::ConfigError;
use crate::address::{AddressError, HostPort};
use crate::profile::{self, DeclaredVerifier, VerifierSpeed};
use crate::read::Section;

/// Share of a verifier's memory that weights and KV caches take \[declared\].
const MEMORY_SHARE: f64 = 0.9;

/// The pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSection {
    /// Most tokens fed in one batch.
    pub batch_tokens: u32,
    /// Most sequences in one batch.
    pub batch_sequences: u32,
    /// How long an idle verifier waits for more jobs after the first; 0 starts at once.
    pub max_wait: Span,
    /// A batch is cut where the pool thinks that it would take longer than this; zero never cuts.
    pub batch_time: Span,
    /// In which order jobs leave the queue.
    pub order: QueueOrder,
    /// When a failing verifier gets no more work.
    pub breaker: Breaker,
    /// How the congestion price moves.
    pub price: PriceUpdate,
    /// How many verifiers are up; none keeps `run.verifiers` up.
    pub autoscale: Option<Autoscale>,
    /// Most jobs in the queue.
    pub queue_jobs: u32,
    /// Most tokens of work in the queue.
    pub queue_tokens: u64,
    /// Most sessions that one connection may have open.
    pub sessions_per_connection: u32,
    /// What a refused device is told to wait.
    pub retry_after: Span,
    /// How long a connection may be silent before it is closed and its KV memory freed.
    pub idle_timeout: Span,
    /// How long a shutdown may take to drain.
    pub shutdown_timeout: Span,
    /// Where the front door listens; port 0 takes a free one.
    pub listen: HostPort,
    /// Sockets that the fleet's connections are spread over, each with a task of its own.
    pub endpoints: u16,
    /// What a batch is charged.
    pub cost: CostChoice,
    /// Power of one replica.
    pub profile: VerifierProfile,
    /// Speed of one replica, where its profile declares one.
    pub speed: Option<VerifierSpeed>,
    /// Memory of one replica, where its profile declares it: what KV caches and weights share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<VerifierMemory>,
    /// PEM files; without them a development certificate is made at start and pinned by the fleet.
    /// Not part of the canonical text: no result depends on it.
    #[serde(skip)]
    pub tls: Option<TlsFiles>,
}

/// PEM files of the front door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that client certificates must come from; none asks for no client certificate.
    pub client_authority: Option<PathBuf>,
}

impl PoolSection {
    /// `simulate`: the section in which the keys of the cost have their older names.
    pub(super) fn read(section: &Section<'_>, simulate: &Section<'_>) -> Result<PoolSection, ConfigError> {
        let DeclaredVerifier { profile, speed, memory_bytes } = profile::verifier(section, "profile", "host-cpu")?;
        let share = section.opt_number("memory_share", 0.01..=1.0)?;
        if share.is_some() && memory_bytes.is_none() {
            let problem = format!("has no use: pool.profile {:?} declares no memory_bytes", profile.name);
            return Err(section.conflict("memory_share", problem));
        }
        let memory = memory_bytes.map(|bytes| VerifierMemory { bytes, share: share.unwrap_or(MEMORY_SHARE) });
        Ok(PoolSection {
            batch_tokens: section.integer("batch_tokens", 1..=1_048_576, 512)?,
            batch_sequences: section.integer("batch_sequences", 1..=65_536, 64)?,
            max_wait: section.millis("max_wait_ms", 0.0..=10_000.0, 1.0)?,
            batch_time: section.millis("batch_time_ms", 0.0..=60_000.0, 0.0)?,
            order: section
                .opt_choice(
                    "order",
                    &[
                        ("fifo", QueueOrder::Fifo),
                        ("deadline", QueueOrder::Deadline),
                        ("fair", QueueOrder::Fair),
                        ("value", QueueOrder::Value),
                    ],
                )?
                .unwrap_or(QueueOrder::Fifo),
            breaker: Breaker {
                failures: section.integer("breaker_failures", 0..=1_000, 3)?,
                cooldown: section.millis("breaker_cooldown_ms", 1.0..=600_000.0, 1_000.0)?,
            },
            price: PriceUpdate {
                step: section.number("price_step", 0.0..=100.0, 0.05)? as f32,
                target_load: section.number("price_target_load", 0.01..=1.0, 0.8)? as f32,
                period: section.millis("price_period_ms", 1.0..=60_000.0, 100.0)?,
            },
            autoscale: autoscale(&section.section("autoscale")?)?,
            queue_jobs: section.integer("queue_jobs", 1..=16_777_216, 4_096)?,
            queue_tokens: section.integer("queue_tokens", 1..=1 << 40, 262_144)?,
            sessions_per_connection: section.integer("sessions_per_connection", 1..=65_536, 8)?,
            retry_after: section.millis("retry_after_ms", 1.0..=600_000.0, 20.0)?,
            idle_timeout: section.seconds("idle_timeout_seconds", 0.05..=86_400.0, 5.0)?,
            shutdown_timeout: section.seconds("shutdown_timeout_seconds", 0.0..=3_600.0, 5.0)?,
            listen: listen(section)?,
            endpoints: section.integer("endpoints", 1..=64, 1)?,
            cost: CostChoice::read(section, simulate, &profile.name, speed)?,
            profile,
            speed,
            memory,
            tls: tls(&section.section("tls")?)?,
        })
    }

    /// Refuses to start with fewer or more verifiers than there may ever be. `run`: the section that their number stands in.
    pub(super) fn check_verifiers(&self, run: &Section<'_>, verifiers: u16) -> Result<(), ConfigError> {
        match &self.autoscale {
            Some(scale) if !(scale.min..=scale.max).contains(&verifiers) => {
                let range = format!("must lie in {} to {}, min and max of pool.autoscale", scale.min, scale.max);
                Err(run.out_of_range("verifiers", &verifiers, range))
            }
            _ => Ok(()),
        }
    }

    /// What the pool's machine runs under, the same for the live pool and the simulated one. It measures what batches take,
    /// until somebody puts a cost there.
    ///
    /// `kv_tokens`: tokens that one verifier's KV memory holds. `context`: its longest sequence, in tokens. `end_tokens`:
    /// those that end a text.
    pub fn machine(&self, run: &RunSection, kv_tokens: u64, context: u32, end_tokens: Vec<u32>) -> PoolSettings {
        PoolSettings {
            phase: PhaseId::default(),
            verifiers: run.verifiers,
            batch_tokens: self.batch_tokens,
            batch_sequences: self.batch_sequences,
            max_wait: self.max_wait,
            batch_time: self.batch_time,
            order: self.order,
            breaker: self.breaker,
            price: self.price,
            autoscale: self.autoscale,
            queue_jobs: self.queue_jobs,
            queue_tokens: self.queue_tokens,
            sessions_per_connection: self.sessions_per_connection,
            kv_tokens,
            context,
            end_tokens,
            retry_after: self.retry_after,
            profile: self.profile.clone(),
            cost: None,
        }
    }
}

/// `[pool.autoscale]`; a table that is absent or empty is none.
fn autoscale(section: &Section<'_>) -> Result<Option<Autoscale>, ConfigError> {
    let min = section.integer("min", 1..=MOST_VERIFIERS, 1)?;
    let max = section.opt_integer("max", 1..=MOST_VERIFIERS)?;
    let target_busy = section.number("target_busy", 0.01..=1.0, 0.7)? as f32;
    let cold_start = section.millis("cold_start_ms", 0.0..=3_600_000.0, 5_000.0)?;
    let period = section.millis("period_ms", 1.0..=3_600_000.0, 1_000.0)?;
    if section.present().is_empty() {
        return Ok(None);
    }
    let expected = || format!("a whole number from 1 to {MOST_VERIFIERS}");
    let max = max.ok_or_else(|| section.missing("max", expected()))?;
    if max < min {
        return Err(section.conflict("max", "must not be below min"));
    }
    Ok(Some(Autoscale { min, max, target_busy, cold_start, period }))
}

fn listen(section: &Section<'_>) -> Result<HostPort, ConfigError> {
    const NAME: &str = "listen";
    // A bare port is a number in TOML, and what a flag gives is TOML where it can be.
    if let Some(toml::Value::Integer(_)) = section.value(NAME) {
        return Ok(HostPort::loopback(section.integer(NAME, 0..=65_535, 0)?));
    }
    let Some(text) = section.opt_text(NAME)? else { return Ok(HostPort::loopback(0)) };
    text.parse().map_err(|error: AddressError| section.conflict(NAME, error.to_string()))
}

fn tls(section: &Section<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = section.opt_path("certificate")?;
    let key = section.opt_path("key")?;
    let client_authority = section.opt_path("client_authority")?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_authority })),
        (None, None) if client_authority.is_none() => Ok(None),
        (None, _) => Err(section.missing("certificate", "a PEM file with the server's certificate chain".into())),
        (Some(_), None) => Err(section.missing("key", "a PEM file with the certificate's private key".into())),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::scenario::tests::{refused, refused_override, valid};

    #[test]
    fn scheduling_reaches_the_machine() {
        let settings = valid(
            "[run]\nverifiers = 3\n[pool]\norder = \"fair\"\nbatch_time_ms = 7.5\nbreaker_failures = 0\n\
             breaker_cooldown_ms = 20\nprice_step = 0.25\nprice_target_load = 0.5\nprice_period_ms = 10\n\
             [pool.autoscale]\nmin = 2\nmax = 5\ntarget_busy = 0.5\ncold_start_ms = 0\nperiod_ms = 40",
        );
        let machine = settings.pool.machine(&settings.run, 1_000, 128, vec![2]);
        assert_eq!(
            (machine.verifiers, machine.kv_tokens, machine.context, &machine.end_tokens[..]),
            (3, 1_000, 128, &[2][..])
        );
        assert_eq!((machine.order, machine.batch_time), (QueueOrder::Fair, Span::from_seconds(0.0075)));
        assert_eq!(machine.breaker, Breaker { failures: 0, cooldown: Span::from_millis(20) });
        assert_eq!(machine.price, PriceUpdate { step: 0.25, target_load: 0.5, period: Span::from_millis(10) });
        let scale =
            Autoscale { min: 2, max: 5, target_busy: 0.5, cold_start: Span::ZERO, period: Span::from_millis(40) };
        assert_eq!(machine.autoscale, Some(scale));
        assert_eq!((machine.batch_tokens, machine.queue_jobs), (settings.pool.batch_tokens, settings.pool.queue_jobs));
        for (name, order) in
            [("fifo", QueueOrder::Fifo), ("deadline", QueueOrder::Deadline), ("value", QueueOrder::Value)]
        {
            assert_eq!(valid(&format!("[pool]\norder = \"{name}\"")).pool.order, order);
        }
    }

    #[test]
    fn autoscaling_is_off_unless_something_of_it_is_set() {
        assert_eq!(valid("[pool.autoscale]").pool.autoscale, None);
        let scale = valid("[pool.autoscale]\nmax = 4").pool.autoscale.expect("set");
        assert_eq!((scale.min, scale.max, scale.period), (1, 4, Span::from_millis(1_000)));
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "[pool]\norder = \"lifo\"",
            expect![[r#"my.toml: pool.order = "lifo" is not known; valid: fifo, deadline, fair, value"#]],
        );
        refused(
            "[pool]\nbatch_time_ms = -1",
            expect!["my.toml: pool.batch_time_ms = -1 is out of range: must lie in 0 to 60000"],
        );
        refused(
            "[pool]\nbreaker_failures = 1001",
            expect!["my.toml: pool.breaker_failures = 1001 is out of range: must lie in 0 to 1000"],
        );
        refused(
            "[pool]\nbreaker_cooldown_ms = 0",
            expect!["my.toml: pool.breaker_cooldown_ms = 0 is out of range: must lie in 1 to 600000"],
        );
        refused(
            "[pool]\nprice_step = -1",
            expect!["my.toml: pool.price_step = -1 is out of range: must lie in 0 to 100"],
        );
        refused(
            "[pool]\nprice_target_load = 0",
            expect!["my.toml: pool.price_target_load = 0 is out of range: must lie in 0.01 to 1"],
        );
        refused(
            "[pool]\nprice_period_ms = 0",
            expect!["my.toml: pool.price_period_ms = 0 is out of range: must lie in 1 to 60000"],
        );
        refused(
            "[pool.autoscale]\nmin = 2",
            expect!["my.toml: pool.autoscale.max is missing: a whole number from 1 to 4096"],
        );
        refused("[pool.autoscale]\nmin = 3\nmax = 2", expect!["my.toml: pool.autoscale.max: must not be below min"]);
        refused(
            "[pool.autoscale]\nmax = 4\ntarget_busy = 0",
            expect!["my.toml: pool.autoscale.target_busy = 0 is out of range: must lie in 0.01 to 1"],
        );
        refused(
            "[pool.autoscale]\nmax = 4\nperiod_ms = 0",
            expect!["my.toml: pool.autoscale.period_ms = 0 is out of range: must lie in 1 to 3600000"],
        );
        refused(
            "[pool.autoscale]\nmax = 4\ncold_start_ms = -1",
            expect!["my.toml: pool.autoscale.cold_start_ms = -1 is out of range: must lie in 0 to 3600000"],
        );
        refused(
            "[pool.autoscale]\nmaxx = 4",
            expect!["my.toml: unknown key pool.autoscale.maxx; did you mean pool.autoscale.max?"],
        );
        refused(
            "[run]\nverifiers = 9\n[pool.autoscale]\nmin = 2\nmax = 8",
            expect!["my.toml: run.verifiers = 9 is out of range: must lie in 2 to 8, min and max of pool.autoscale"],
        );
        refused_override(
            "pool.autoscale.max=1",
            expect![
                "the default scenario: run.verifiers = 2 is out of range: must lie in 1 to 1, min and max of pool.autoscale"
            ],
        );
    }
}
