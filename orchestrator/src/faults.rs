//! The faults that a scenario asks for.

use device_agent::HostClock;
use specfleet_config::Fault;
use specfleet_engine::id::VerifierId;
use specfleet_engine::time::Time;
use tokio::sync::watch;
use verifier_pool::PoolHandle;

/// Kills verifiers at their times, in turn.
pub(crate) async fn inject(
    pool: PoolHandle,
    mut faults: Vec<Fault>,
    verifiers: u16,
    clock: HostClock,
    injected: watch::Sender<u32>,
) {
    faults.sort_by_key(|Fault::KillVerifier { at }| *at);
    for (number, Fault::KillVerifier { at }) in faults.into_iter().enumerate() {
        let at = Time::ZERO + at;
        while clock.now() < at {
            // A time beyond what the clock can tell never comes.
            let Some(instant) = clock.instant(at) else { return };
            tokio::time::sleep_until(instant.into()).await;
        }
        let victim = VerifierId((number % usize::from(verifiers.max(1))) as u16);
        if pool.kill_verifier(victim).await.is_ok() {
            injected.send_modify(|count| *count += 1);
        }
    }
}
