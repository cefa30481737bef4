//! What devices run under: one set of settings per part of the fleet, the same for the live and the simulated one.

use std::sync::Arc;

use specfleet_config::Settings;
use specfleet_engine::device::DeviceSettings;
use specfleet_engine::method::Method;

use crate::sizes::Sizes;

/// The settings of every part of the fleet, in the order of the parts.
pub fn device_settings(settings: &Settings, sizes: &Sizes, method: &Method) -> Vec<Arc<DeviceSettings>> {
    let Settings { run, device, .. } = settings;
    device
        .parts
        .iter()
        .map(|part| {
            Arc::new(DeviceSettings {
                method: method.clone(),
                sampling: run.sampling,
                seed: run.seed,
                max_new_tokens: run.max_new_tokens,
                context: sizes.context,
                vocab: sizes.vocab,
                end_tokens: sizes.end_tokens.clone(),
                profile: part.profile.clone(),
                link: part.link.clone(),
                verdict_timeout: device.verdict_timeout,
                retry: device.retry,
                on_unreachable: run.on_unreachable,
                unreachable_after: run.unreachable_after,
                on_refused: run.on_refused,
                latency_target: part.latency_target,
                battery_nanojoules: part.battery_nanojoules,
                outages: part.outages,
            })
        })
        .collect()
}
