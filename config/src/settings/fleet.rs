//! `[device]` and `[fleet.NAME]`: the parts of the fleet, and which device belongs to which.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use specfleet_engine::device::energy::DeviceProfile;
use specfleet_engine::device::link::LinkProfile;
use specfleet_engine::device::{Outages, Retry};
use specfleet_engine::id::DeviceId;
use specfleet_engine::time::Span;

use super::pattern;
use crate::ConfigError;
use crate::profile;
use crate::read::Section;

/// Longest pattern of parts, in devices.
const LONGEST_PATTERN: u64 = 10_000;
/// Profile and link of devices whose scenario does not say.
const PROFILE: &str = "phone";
const LINK: &str = "fair";

/// The fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceOptions {
    /// The kinds of devices that it is mixed from, at least one.
    pub parts: Vec<FleetPart>,
    /// Index into `parts` of devices 0, 1, …, repeated over the fleet; every part is in it, and any beginning of the fleet
    /// has of each part what its weight says, to less than one device.
    pub pattern: Vec<u16>,
    /// How long a device waits for a verdict before it cancels the upload and sends it again.
    pub verdict_timeout: Span,
    /// Waiting times of reconnection and of refused uploads.
    pub retry: Retry,
}

/// One kind of devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetPart {
    /// Its name; `PROFILE/LINK` where the scenario names none.
    pub name: String,
    /// Its share of the fleet, relative to the other parts' weights.
    pub weight: u16,
    pub profile: DeviceProfile,
    pub link: LinkProfile,
    /// The latency per token that its users want; zero for none.
    pub latency_target: Span,
    /// What device and radio may draw until the battery is empty, in nanojoules; 0 for mains.
    pub battery_nanojoules: u64,
    /// When the link is lost.
    pub outages: Option<Outages>,
    /// The data set that these devices answer; none answers any.
    pub data_set: Option<String>,
}

impl DeviceOptions {
    /// Reads `[device]` and `[fleet]`. `data_sets`: names of the workload's data sets.
    pub(super) fn read(
        section: &Section<'_>,
        fleet: &Section<'_>,
        data_sets: &[String],
    ) -> Result<DeviceOptions, ConfigError> {
        let retry = Retry {
            first: section.millis("retry_first_ms", 1.0..=600_000.0, 10.0)?,
            last: section.millis("retry_last_ms", 1.0..=600_000.0, 1_000.0)?,
        };
        if retry.last < retry.first {
            return Err(section.conflict("retry_last_ms", "must not be below retry_first_ms"));
        }
        let common = Common::read(section)?;
        let parts = match fleet.present().as_slice() {
            [] => every_profile_on_every_link(section, &common)?,
            names => named_parts(section, fleet, names, &common, data_sets)?,
        };
        parts.iter().try_for_each(|part| check_outages(section, fleet, part))?;
        let weights: Vec<u16> = parts.iter().map(|part| part.weight).collect();
        let pattern = pattern::of_weights(&weights, LONGEST_PATTERN).map_err(|length| {
            let problem = format!(
                "the parts' weights repeat after {length} devices only; at most {LONGEST_PATTERN}: take fewer parts, or \
                 weights with a larger common divisor"
            );
            if fleet.present().is_empty() {
                section.conflict("link", problem)
            } else {
                fleet.conflict_here(problem)
            }
        })?;
        Ok(DeviceOptions {
            parts,
            pattern,
            verdict_timeout: section.millis("verdict_timeout_ms", 1.0..=3_600_000.0, 10_000.0)?,
            retry,
        })
    }

    /// Index into `parts` of a device's part.
    pub fn part_index(&self, device: DeviceId) -> usize {
        usize::from(self.pattern[device.0 as usize % self.pattern.len()])
    }

    /// The part that a device belongs to.
    pub fn part(&self, device: DeviceId) -> &FleetPart {
        &self.parts[self.part_index(device)]
    }

    /// The link of a device.
    pub fn link(&self, device: DeviceId) -> &LinkProfile {
        &self.part(device).link
    }

    /// The profile of a device.
    pub fn profile(&self, device: DeviceId) -> &DeviceProfile {
        &self.part(device).profile
    }
}

/// What `[device]` says for all parts that do not say otherwise.
struct Common {
    latency_target: Span,
    battery_nanojoules: u64,
    outages: Option<Outages>,
}

impl Common {
    fn read(section: &Section<'_>) -> Result<Common, ConfigError> {
        Ok(Common {
            latency_target: latency_target(section)?.unwrap_or(Span::ZERO),
            battery_nanojoules: battery(section)?.unwrap_or(0),
            outages: outages(section)?,
        })
    }
}

/// The lists `device.profile` and `device.link`: device i has link i mod L of L links, and profile (i div L) mod P of P.
fn every_profile_on_every_link(section: &Section<'_>, common: &Common) -> Result<Vec<FleetPart>, ConfigError> {
    let profiles = profile::devices(section, "profile", PROFILE)?;
    let links = profile::links(section, "link", LINK)?;
    // Each part of the fleet is in the pattern at least once.
    let combinations = profiles.len().saturating_mul(links.len()) as u64;
    if combinations > LONGEST_PATTERN {
        let problem = format!("profiles and links make {combinations} kinds of devices; at most {LONGEST_PATTERN}");
        return Err(section.conflict("link", problem));
    }
    let part = |profile: &DeviceProfile, link: &LinkProfile| FleetPart {
        name: format!("{}/{}", profile.name, link.name),
        weight: 1,
        profile: profile.clone(),
        link: link.clone(),
        latency_target: common.latency_target,
        battery_nanojoules: common.battery_nanojoules,
        outages: common.outages,
        data_set: None,
    };
    Ok(profiles.iter().flat_map(|profile| links.iter().map(move |link| part(profile, link))).collect())
}

/// The tables `[fleet.NAME]`, by name.
fn named_parts(
    section: &Section<'_>,
    fleet: &Section<'_>,
    names: &[&str],
    common: &Common,
    data_sets: &[String],
) -> Result<Vec<FleetPart>, ConfigError> {
    for key in ["profile", "link"] {
        if section.value(key).is_some() {
            return Err(
                section.conflict(key, "cannot stand beside [fleet.NAME], whose parts have a profile and a link each")
            );
        }
    }
    names.iter().map(|name| named_part(&fleet.section(name)?, name, common, data_sets)).collect()
}

fn named_part(
    section: &Section<'_>,
    name: &str,
    common: &Common,
    data_sets: &[String],
) -> Result<FleetPart, ConfigError> {
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(section.conflict_here("the name of a part may have letters, digits, - and _"));
    }
    let data_set = section.opt_text("data")?;
    if let Some(data_set) = data_set
        && !data_sets.iter().any(|known| known == data_set)
    {
        return Err(section.unknown_name("data", data_set, format!("{} (run.workload)", data_sets.join(", "))));
    }
    Ok(FleetPart {
        name: name.to_owned(),
        weight: section.integer("weight", 1..=1_000, 1)?,
        profile: profile::device(section, "profile", PROFILE)?,
        link: profile::link(section, "link", LINK)?,
        latency_target: latency_target(section)?.unwrap_or(common.latency_target),
        battery_nanojoules: battery(section)?.unwrap_or(common.battery_nanojoules),
        outages: outages(section)?.or(common.outages),
        data_set: data_set.map(str::to_owned),
    })
}

fn latency_target(section: &Section<'_>) -> Result<Option<Span>, ConfigError> {
    section.opt_millis("latency_target_ms", 0.0..=600_000.0)
}

fn battery(section: &Section<'_>) -> Result<Option<u64>, ConfigError> {
    // At most 1e18 nJ, inside what TOML's integers hold.
    Ok(section.opt_number("battery_joules", 0.0..=1e9)?.map(|joules| (joules * 1e9).round() as u64))
}

fn outages(section: &Section<'_>) -> Result<Option<Outages>, ConfigError> {
    const SECONDS: RangeInclusive<f64> = 0.001..=1e6;
    let (every, length) = ("outage_every_seconds", "outage_seconds");
    match (section.opt_seconds(every, SECONDS)?, section.opt_seconds(length, SECONDS)?) {
        (None, None) => Ok(None),
        (Some(every), Some(length)) => Ok(Some(Outages { every, length })),
        (Some(_), None) => Err(section.missing(length, "the mean length of an outage, 0.001 to 1000000".into())),
        (None, Some(_)) => Err(section.missing(every, "the mean time between outages, 0.001 to 1000000".into())),
    }
}

/// How many mean gaps between outages an upload without a single byte may take: one gap in 150 is as long.
const MOST_GAPS: f64 = 5.0;

/// Seconds between two uploads that get through, on average, at which a fleet still comes to an end in virtual time.
const LONGEST_WAIT: f64 = 1e6;

/// Refuses outages between which next to no upload gets its verdict: a device that waits for one would wait for ever.
fn check_outages(section: &Section<'_>, fleet: &Section<'_>, part: &FleetPart) -> Result<(), ConfigError> {
    let Some(outages) = part.outages.filter(|_| part.link.emulated) else { return Ok(()) };
    let needed = part.link.round_trip;
    // Gaps are exponential: of exp(needed / every) of them one is long enough, and a long one has room for several uploads.
    let every = outages.every.seconds();
    let wait = (every + outages.length.seconds()) * (needed.seconds() / every).exp_m1();
    if wait <= LONGEST_WAIT && needed.seconds() <= MOST_GAPS * every {
        return Ok(());
    }
    let [length, every, needed] = [outages.length, outages.every, needed].map(|span| Duration::from_nanos(span.0));
    let problem = format!(
        "between outages of {length:?} every {every:?} next to no upload gets its verdict: one takes at least {needed:?} on \
         link {:?}; take a longer time between outages, or shorter outages",
        part.link.name
    );
    if fleet.present().is_empty() {
        Err(section.conflict("outage_every_seconds", problem))
    } else {
        Err(fleet.conflict(&part.name, problem))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::scenario::tests::{refused, valid};

    const TWO_SETS: &str =
        "[run]\nworkload = [{ data = \"gsm8k\", prompts = 6 }, { data = \"word-problems\", prompts = 9 }]\n";

    #[test]
    fn without_parts_the_lists_give_them() {
        let device =
            valid("[device]\nprofile = \"phone, host\"\nlink = \"good, poor, wifi\"\nlatency_target_ms = 40").device;
        for i in 0..30 {
            let (profile, link) = (["phone", "host"][i / 3 % 2], ["good", "poor", "wifi"][i % 3]);
            let part = device.part(DeviceId(i as u32));
            assert_eq!((part.profile.name.as_str(), part.link.name.as_str()), (profile, link));
            assert_eq!(part.name, format!("{profile}/{link}"));
            assert_eq!(part.latency_target, Span::from_millis(40));
        }
    }

    #[test]
    fn parts_are_mixed_by_weight() {
        let text = format!(
            "{TWO_SETS}[device]\nlatency_target_ms = 40\nbattery_joules = 2.5\noutage_every_seconds = 30\n\
             outage_seconds = 2\n[fleet.slow]\nweight = 2\nprofile = \"raspberry-pi-5\"\nlink = \"poor\"\n\
             latency_target_ms = 0\nbattery_joules = 0\noutage_every_seconds = 9\noutage_seconds = 1\ndata = \"gsm8k\"\n\
             [fleet.fast]\nweight = 6"
        );
        let device = valid(&text).device;
        // By name.
        let [fast, slow] = &device.parts[..] else { panic!("two parts") };
        assert_eq!(
            (fast.name.as_str(), fast.profile.name.as_str(), fast.link.name.as_str()),
            ("fast", "phone", "fair")
        );
        assert_eq!((slow.profile.name.as_str(), slow.link.name.as_str()), ("raspberry-pi-5", "poor"));
        assert_eq!((fast.latency_target, slow.latency_target), (Span::from_millis(40), Span::ZERO));
        assert_eq!((fast.battery_nanojoules, slow.battery_nanojoules), (2_500_000_000, 0));
        let outages =
            |every, length| Some(Outages { every: Span::from_millis(every), length: Span::from_millis(length) });
        assert_eq!((fast.outages, slow.outages), (outages(30_000, 2_000), outages(9_000, 1_000)));
        assert_eq!((fast.data_set.as_deref(), slow.data_set.as_deref()), (None, Some("gsm8k")));
        assert_eq!(device.pattern.len(), 4);
        assert_eq!((0..400).filter(|&i| device.part(DeviceId(i)).name == "slow").count(), 100);
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "[fleet.a]\n[device]\nlink = \"good\"",
            expect![
                "my.toml: device.link: cannot stand beside [fleet.NAME], whose parts have a profile and a link each"
            ],
        );
        refused(
            "[fleet.a]\nprofile = [\"phone\", \"host\"]",
            expect![
                "my.toml: fleet.a.profile must be the name of a profile, a path to a .toml file or a table, not a list"
            ],
        );
        refused("[fleet.a]\nweight = 0", expect!["my.toml: fleet.a.weight = 0 is out of range: must lie in 1 to 1000"]);
        refused("[fleet.a]\nwieght = 1", expect!["my.toml: unknown key fleet.a.wieght; did you mean fleet.a.weight?"]);
        refused("[fleet]\nweight = 1", expect!["my.toml: fleet.weight must be a table, not the number 1"]);
        refused(
            "[fleet.\"a b\"]\nweight = 1",
            expect!["my.toml: fleet.a b: the name of a part may have letters, digits, - and _"],
        );
        refused(
            "[fleet.a]\ndata = \"gsm8k\"",
            expect![[r#"my.toml: fleet.a.data = "gsm8k" is not known; valid: word-problems (run.workload)"#]],
        );
        refused(
            &format!("{TWO_SETS}[fleet.a]\ndata = \"gsm8k\""),
            expect![[
                r#"my.toml: fleet: no device answers "word-problems": leave data out of one part, or give a part data = "word-problems""#
            ]],
        );
        refused(
            &format!("{TWO_SETS}devices = 1\n[fleet.a]\nweight = 2\n[fleet.b]\ndata = \"gsm8k\"")
                .replace("[fleet.a]\n", "[fleet.a]\ndata = \"word-problems\"\n"),
            expect![[r#"my.toml: run.devices: 1 leaves no device that answers "gsm8k""#]],
        );
        refused(
            "[device]\noutage_seconds = 1",
            expect!["my.toml: device.outage_every_seconds is missing: the mean time between outages, 0.001 to 1000000"],
        );
        refused(
            "[fleet.a]\noutage_every_seconds = 1",
            expect!["my.toml: fleet.a.outage_seconds is missing: the mean length of an outage, 0.001 to 1000000"],
        );
        refused(
            "[device]\nlatency_target_ms = -1",
            expect!["my.toml: device.latency_target_ms = -1 is out of range: must lie in 0 to 600000"],
        );
        refused(
            "[device]\nbattery_joules = 1e10",
            expect!["my.toml: device.battery_joules = 10000000000 is out of range: must lie in 0 to 1000000000"],
        );
        let many: String = (0..11).map(|i| format!("[fleet.part{i}]\nweight = {}\n", 990 - i)).collect();
        refused(
            &many,
            expect![
                "my.toml: fleet: the parts' weights repeat after 10835 devices only; at most 10000: take fewer parts, or weights with a larger common divisor"
            ],
        );
    }
}
