//! Scenarios end to end: messages, precedence, hashes, and that nothing panics.

use std::fs;

use expect_test::{Expect, expect};
use specfleet_engine::calibration::{ThresholdChoice, ThresholdName};
use specfleet_engine::device::link::LinkRate;
use specfleet_engine::device::{OnRefused, OnUnreachable};
use specfleet_engine::id::DeviceId;
use specfleet_engine::method::METHOD_NAMES;
use specfleet_engine::time::Span;

use super::*;
use crate::Fault;

fn read(text: &str) -> Result<Settings, ConfigError> {
    Scenario::parse("my.toml", text, None)?.settings()
}

pub(crate) fn valid(text: &str) -> Settings {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn refused(text: &str, message: Expect) {
    message.assert_eq(&read(text).expect_err(text).to_string());
}

pub(crate) fn refused_override(assignment: &str, message: Expect) {
    let mut scenario = Scenario::shipped_default().expect("valid");
    let result = scenario.set(assignment).and_then(|()| scenario.settings());
    message.assert_eq(&result.expect_err(assignment).to_string());
}

#[test]
fn what_ships_is_valid() {
    for preset in ShippedFile::SCENARIOS {
        let scenario = Scenario::load(Path::new(preset.name)).expect(preset.name);
        scenario.settings().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_default_scenario_and_the_reference_are_the_defaults() {
    let defaults = valid("");
    assert_eq!(valid(Scenario::default_text()), defaults);
    assert_eq!(Scenario::load(Path::new("reference")).and_then(|s| s.settings()).expect("valid"), defaults);
    assert_eq!((defaults.run.devices, defaults.run.verifiers), (16, 2));
    assert_eq!(defaults.tasks().count(), 48);
    assert_eq!(defaults.methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), METHOD_NAMES[..11]);
    assert_eq!(METHOD_NAMES[11..], ["price"]);
    assert_eq!(valid("[run]\nmethods = \"price\"").methods[0].name, "price");
}

/// What is documented and what is read are the same keys.
#[test]
fn the_reference_names_every_key() {
    let scenario = Scenario::load(Path::new("reference")).expect("ships");
    scenario.settings().expect("valid");
    let mut section = String::new();
    let mut documented: Vec<String> = Vec::new();
    let text = ShippedFile::find(ShippedFile::SCENARIOS, "reference").expect("ships").text;
    for line in text.lines() {
        if let Some(name) = line.trim_start_matches("# ").strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        }
        let key = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
        if let Some(key) = key.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            documented.push(format!("{section}{key}"));
        }
    }
    documented.sort();
    // There is no part of a fleet unless one is named.
    let part = Scenario::parse("part", "[fleet.NAME]\nweight = 1", None).expect("valid");
    part.settings().expect("valid");
    let of_part = part.keys().into_iter().filter(|key| key.starts_with("fleet."));
    let mut keys: Vec<String> = scenario.keys().into_iter().chain(of_part).collect();
    keys.sort();
    let is_section = |key: &String| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    let read: Vec<String> =
        keys.iter().filter(|key| !key.starts_with("methods") && !is_section(key)).cloned().collect();
    assert_eq!(documented, read);
}

#[test]
fn the_papers_scenario_compares_on_the_same_links() {
    let paper = Scenario::load(Path::new("paper.toml")).and_then(|s| s.settings()).expect("valid");
    assert_eq!(paper.tasks().count(), 300);
    let mut per_link = [0; 3];
    for (index, _) in paper.tasks().enumerate() {
        let link = paper.device.link(DeviceId(index as u32 % paper.run.devices));
        per_link[["good", "fair", "poor"].iter().position(|name| *name == link.name).expect("a link")] += 1;
    }
    assert_eq!(per_link, [100, 100, 100]);
}

#[test]
fn unknown_keys_name_the_nearest() {
    refused("[run]\ndevcies = 3", expect!["my.toml: unknown key run.devcies; did you mean run.devices?"]);
    refused("devices = 3", expect!["my.toml: unknown key devices; did you mean run.devices?"]);
    refused("[runs]\ndevices = 3", expect!["my.toml: unknown key runs; did you mean run?"]);
    refused("[run]\ncolour = 3", expect!["my.toml: unknown key run.colour"]);
    refused(
        "[method]\npayload = { from = \"full\" }",
        expect!["my.toml: unknown key method.payload.from; did you mean method.payload.form?"],
    );
    refused(
        "[methods.u-hlm]\nkapa = 1.0",
        expect!["my.toml: unknown key methods.u-hlm.kapa; did you mean methods.u-hlm.kappa?"],
    );
    refused("\"a\\nb\" = 1", expect![[r#"my.toml: unknown key a\nb"#]]);
    refused_override("run.sead=1", expect!["--set: unknown key run.sead; did you mean run.seed?"]);
}

#[test]
fn values_out_of_range_name_the_range() {
    refused("[run]\ndevices = 0", expect!["my.toml: run.devices = 0 is out of range: must lie in 1 to 1000000"]);
    refused("[run]\ndevices = -1", expect!["my.toml: run.devices = -1 is out of range: must lie in 1 to 1000000"]);
    refused("[run]\nverifiers = 4097", expect!["my.toml: run.verifiers = 4097 is out of range: must lie in 1 to 4096"]);
    refused("[run]\nprompts = 0", expect!["my.toml: run.prompts = 0 is out of range: must lie in 1 to 10000000"]);
    refused("[run]\ntemperature = 5.5", expect!["my.toml: run.temperature = 5.5 is out of range: must lie in 0 to 5"]);
    refused(
        "[run]\ntemperature = 1e-9",
        expect!["my.toml: run.temperature = 0.000000001 is out of range: must be 0 (greedy) or lie in 0.001 to 5"],
    );
    refused("[run]\ntemperature = nan", expect!["my.toml: run.temperature = NaN is out of range: must lie in 0 to 5"]);
    refused(
        "[pool]\nidle_timeout_seconds = inf",
        expect!["my.toml: pool.idle_timeout_seconds = inf is out of range: must lie in 0.05 to 86400"],
    );
    refused(
        "[methods.block]\nblock = 9",
        expect!["my.toml: methods.block.block = 9 is out of range: must lie in 1 to 8"],
    );
    refused(
        "[method]\nuncertainty_threshold = 2",
        expect!["my.toml: method.uncertainty_threshold = 2 is out of range: must lie in 0 to 1"],
    );
    refused(
        "[method]\nrisk_per_joule = -1",
        expect!["my.toml: method.risk_per_joule = -1 is out of range: must lie in 0 to 1000000"],
    );
    refused(
        "[methods.price]\nrisk_per_second = 1e7",
        expect!["my.toml: methods.price.risk_per_second = 10000000 is out of range: must lie in 0 to 1000000"],
    );
    refused(
        "[methods.price]\nprice_half_life_ms = 0",
        expect!["my.toml: methods.price.price_half_life_ms = 0 is out of range: must lie in 1 to 3600000"],
    );
    refused_override(
        "run.max_new_tokens=0",
        expect!["--set: run.max_new_tokens = 0 is out of range: must lie in 1 to 1000000"],
    );
}

#[test]
fn wrong_types_name_both_types() {
    refused(
        "[run]\ndevices = \"many\"",
        expect![[r#"my.toml: run.devices must be a whole number, not the text "many""#]],
    );
    refused("[run]\ndevices = 1.5", expect!["my.toml: run.devices must be a whole number, not the number 1.5"]);
    refused("run = 3", expect!["my.toml: run must be a table, not the number 3"]);
    refused(
        "[audit]\nenabled = \"yes\"",
        expect![[r#"my.toml: audit.enabled must be true or false, not the text "yes""#]],
    );
    refused(
        "[run]\nmethods = [1]",
        expect!["my.toml: run.methods must be a list of texts, or one text with commas, not the number 1"],
    );
    refused(
        "[device]\nprofile = 7",
        expect![
            "my.toml: device.profile must be the name of a profile, a path to a .toml file or a table, not the number 7"
        ],
    );
    refused(
        "[run]\nworkload = [\"gsm8k\"]",
        expect![[
            r#"my.toml: run.workload must be a name, a path or a list of tables { data, prompts }, not the text "gsm8k""#
        ]],
    );
    refused_override("run=3", expect!["--set: run must be a table, not the number 3"]);
    refused_override("run.seed.x=3", expect!["--set: run.seed must be a whole number, not a table"]);
}

#[test]
fn unknown_names_list_the_valid_ones() {
    refused(
        "[run]\nmethods = [\"hlm\", \"ui-hml\"]",
        expect![[
            r#"my.toml: run.methods = "ui-hml" is not known; valid: slm-only, llm-only, hlm, rand-hlm, u-hlm, ui-hlm, cu-hlm, dssd, block, entropy, max-prob, price, or all"#
        ]],
    );
    refused(
        "[methods.ui-hml]\nkappa = 1",
        expect![[
            r#"my.toml: methods: "ui-hml" is no method; valid: slm-only, llm-only, hlm, rand-hlm, u-hlm, ui-hlm, cu-hlm, dssd, block, entropy, max-prob, price"#
        ]],
    );
    refused(
        "[run]\nworkload = \"mmlu\"",
        expect![[
            r#"my.toml: run.workload = "mmlu" is not known; valid: word-problems, gsm8k, calibration, or a path to a .jsonl file"#
        ]],
    );
    refused(
        "[run]\non_unreachable = \"panic\"",
        expect![[r#"my.toml: run.on_unreachable = "panic" is not known; valid: wait, local, fail"#]],
    );
    refused(
        "[run]\non_refused = \"fail\"",
        expect![[r#"my.toml: run.on_refused = "fail" is not known; valid: retry, wait, local"#]],
    );
    refused(
        "[device]\nlink = \"5g\"",
        expect![[
            r#"my.toml: device.link = "5g" is not known; valid: good, fair, poor, wifi, lte, ethernet, real, or a path to a .toml file"#
        ]],
    );
    refused(
        "[model]\ndrafter_precision = \"q5\"",
        expect![[r#"my.toml: model.drafter_precision = "q5" is not known; valid: f32, q8_0, q4_k"#]],
    );
    refused("[method]\nmatch = \"hlm\"", expect![[r#"my.toml: method.match = "hlm" is not known; valid: ui-hlm"#]]);
    refused(
        "[method.payload]\nbits = 12",
        expect!["my.toml: method.payload.bits = 12 is out of range: must be 8, 16 or 32"],
    );
    refused(
        "[faults]\ninject = [\"kill-verifier\"]",
        expect![[
            r#"my.toml: faults.inject = "kill-verifier" is not known; valid: kill-verifier@SECONDS, with 0 to 1000000 seconds"#
        ]],
    );
    refused(
        "[method]\nuncertainty_threshold = \"bold\"",
        expect![[r#"my.toml: method.uncertainty_threshold = "bold" is not known; valid: risk-averse, risk-prone"#]],
    );
}

#[test]
fn contradictions_are_named() {
    refused("[run]\nmethods = [\"hlm\", \"hlm\"]", expect!["my.toml: run.methods: names hlm twice"]);
    refused("[run]\nmethods = []", expect!["my.toml: run.methods: must name at least one method"]);
    refused(
        "[method]\nprobability = 0.5\nmatch = \"ui-hlm\"",
        expect!["my.toml: method.match: cannot stand beside probability: each gives the upload rate"],
    );
    refused(
        "[method.payload]\nform = \"top-k\"\nk = 30\ntheta = 0.1",
        expect!["my.toml: method.payload.theta: cannot stand beside k: each says how many entries are kept"],
    );
    refused(
        "[method.payload]\nform = \"full\"\nk = 30",
        expect!["my.toml: method.payload.form: k and theta belong to top-k and sparse-exact only"],
    );
    refused(
        "[pool.tls]\ncertificate = \"a.pem\"",
        expect!["my.toml: pool.tls.key is missing: a PEM file with the certificate's private key"],
    );
    refused(
        "[pool]\nlisten = \"here\"",
        expect![[
            r#"my.toml: pool.listen: "here" is no address; use HOST:PORT, such as localhost:8080 or [::1]:8080, or a port alone for this machine's loopback"#
        ]],
    );
    refused(
        "[device]\nretry_first_ms = 10\nretry_last_ms = 5",
        expect!["my.toml: device.retry_last_ms: must not be below retry_first_ms"],
    );
    refused("[device.link]\nname = \"x\"", expect!["my.toml: device.link.source is missing: a text"]);
    refused(
        "[device.link]\nnme = \"x\"",
        expect!["my.toml: unknown key device.link.nme; did you mean device.link.name?"],
    );
    refused("[device]\nlink = []", expect!["my.toml: device.link: must name at least one profile"]);
}

#[test]
fn bad_toml_names_its_line() {
    refused("[run]\ndevices = = 3", expect!["my.toml:2: not valid TOML: extra `=`, expected nothing"]);
    refused("[run]\n[run]", expect!["my.toml:2: not valid TOML: duplicate key"]);
}

#[test]
fn an_override_must_be_an_assignment() {
    refused_override("devices", expect!["--set devices: must be key=value, such as run.devices=100"]);
    refused_override("=3", expect!["--set =3: must be key=value, such as run.devices=100"]);
    refused_override("run..devices=3", expect!["--set run..devices=3: must be key=value, such as run.devices=100"]);
}

#[test]
fn overrides_win_and_later_ones_win_over_earlier() {
    let mut scenario = Scenario::parse("my.toml", "[run]\ndevices = 5\nseed = 7", None).expect("valid");
    scenario.set("run.devices=6").expect("valid");
    scenario.set_flag("--devices", "run.devices", 8).expect("valid");
    scenario.set("run.on_unreachable=local").expect("valid");
    scenario.set("run.on_refused=wait").expect("valid");
    scenario.set("run.methods=ui-hlm, hlm").expect("valid");
    scenario.set("methods.ui-hlm.uncertainty_threshold=risk-prone").expect("valid");
    scenario.set("faults.inject=kill-verifier@1,kill-verifier@0.5").expect("valid");
    let settings = scenario.settings().expect("valid");
    assert_eq!((settings.run.devices, settings.run.seed), (8, 7));
    assert_eq!((settings.run.on_unreachable, settings.run.on_refused), (OnUnreachable::Local, OnRefused::Wait));
    assert_eq!(settings.methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["ui-hlm", "hlm"]);
    let threshold = settings.methods[0].overrides.uncertainty_threshold;
    assert_eq!(threshold, Some(ThresholdChoice::Named(ThresholdName::RiskProne)));
    assert_eq!(settings.faults[0], Fault::KillVerifier { at: Span::from_millis(500) });
    // What a tree prints is what it means.
    let again = Scenario::parse("again", &scenario.to_toml(), None).expect("valid");
    assert_eq!(again.settings().expect("valid"), settings);
    // The flag that was wrong is named.
    scenario.set_flag("--devices", "run.devices", 0).expect("a key");
    expect!["--devices: run.devices = 0 is out of range: must lie in 1 to 1000000"]
        .assert_eq(&scenario.settings().expect_err("refused").to_string());
}

#[test]
fn a_methods_own_table_goes_before_the_general_one() {
    let settings = valid(
        "[method]\nestimator = \"sampled\"\nprobability = 0.75\n[methods.u-hlm]\nmatch = \"ui-hlm\"\n[method.payload]\nk = 8\nbits = 16\n\
         [methods.rand-hlm]\nprobability = 0.25\n[methods.rand-hlm.payload]\ntheta = 0.1",
    );
    let of = |name: &str| settings.methods.iter().find(|m| m.name == name).expect("runs").overrides;
    let (rand, hlm) = (of("rand-hlm"), of("hlm"));
    assert_eq!(rand.estimator, hlm.estimator);
    assert_eq!((rand.probability, rand.k, rand.tail_mass), (Some(0.25), None, Some(0.1)));
    assert_eq!((hlm.probability, hlm.k, hlm.tail_mass), (Some(0.75), Some(8), None));
    assert_eq!(rand.bits, hlm.bits);
    assert_eq!(of("u-hlm").probability, None);

    let settings = valid(
        "[run]\nmethods = \"price, hlm\"\n[method]\nrisk_per_joule = 2\nrisk_per_second = 3\n\
         [methods.price]\nrisk_per_joule = 0.5\nprice_half_life_ms = 250",
    );
    let [price, hlm] = &settings.methods[..] else { panic!("two methods") };
    assert_eq!((price.overrides.risk_per_joule, price.overrides.risk_per_second), (Some(0.5), Some(3.0)));
    assert_eq!(price.overrides.price_half_life, Some(Span::from_millis(250)));
    assert_eq!((hlm.overrides.risk_per_joule, hlm.overrides.price_half_life), (Some(2.0), None));
}

#[test]
fn a_mix_counts_its_prompts_on() {
    let text = "[run]\nworkload = [{ data = \"gsm8k\", prompts = 3 }, { data = \"word-problems\", prompts = 402 }]";
    let settings = valid(text);
    let tasks: Vec<_> = settings.tasks().collect();
    assert_eq!(tasks.len(), 405);
    assert_eq!((tasks[2].prompt_id, tasks[2].prompt.data_set.as_str()), (2, "gsm8k"));
    // 200 lines of gsm8k come before, and the data set starts again after its 400 lines.
    assert_eq!((tasks[3].prompt_id, tasks[3].repetition), (200, 0));
    assert_eq!((tasks[404].prompt_id, tasks[404].repetition, tasks[404].prompt.line), (201, 1, 1));
    let mut scenario = Scenario::parse("my.toml", text, None).expect("valid");
    scenario.set_flag("--prompts", "run.prompts", 81).expect("valid");
    let counts: Vec<u32> = scenario.settings().expect("valid").workload.iter().map(|part| part.prompts).collect();
    assert_eq!(counts.iter().sum::<u32>(), 81);
}

#[test]
fn files_of_ones_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("data.jsonl", "{\"prompt\": \"Say\", \"reference\": \" hi\"}\n");
    write("link.toml", &ShippedFile::find(ShippedFile::LINKS, "fair").expect("ships").text.replace("10.0", "12.0"));
    write("trace.csv", "seconds,uplink_bps,downlink_bps\n0,1e6,1e6\n1,2e6,2e6\n");
    write(
        "traced.toml",
        "name = \"t\"\nsource = \"s\"\nemulated = true\nkind = \"trace\"\ntrace = \"trace.csv\"\nround_trip_ms = 1\n\
         transmit_watts = 1\nreceive_watts = 1",
    );
    write(
        "my.toml",
        "[run]\nworkload = \"data.jsonl\"\n[device]\nlink = [\"link.toml\", \"./traced.toml\"]\n\
         [calibration]\nfile = \"fit.json\"\n[pool.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"",
    );
    write("fit.json", "{}\n");
    let scenario = Scenario::load(&folder.path().join("my.toml")).expect("valid");
    let settings = scenario.settings().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.workload[0].data_set, "data");
    assert!(matches!(settings.device.parts[0].link.rate, LinkRate::Fading { snr_db: 12.0, .. }));
    assert!(matches!(&settings.device.parts[1].link.rate, LinkRate::Trace { uplink, .. } if uplink[1] == 2e6));

    assert_eq!(settings.calibration.file.as_ref().expect("named").text, "{}\n");

    // The same files elsewhere hash the same.
    let other = folder.path().join("elsewhere");
    fs::create_dir(&other).expect("created");
    for name in ["data.jsonl", "link.toml", "trace.csv", "traced.toml", "fit.json", "my.toml"] {
        fs::copy(folder.path().join(name), other.join(name)).expect("copied");
    }
    let moved = Scenario::load(&other.join("my.toml")).and_then(|s| s.settings()).expect("valid");
    assert_eq!(moved.scenario_hash(), settings.scenario_hash());

    // A mistake in a profile names the profile's file.
    write("link.toml", "name = \"x\"\nsource = \"y\"\nemulated = true\nkind = \"fading\"\nuplink_hz = 0");
    let message = scenario.settings().expect_err("refused").to_string();
    let message = message.replace(&folder.path().display().to_string(), "DIR");
    expect!["DIR/link.toml: snr_db is missing: a number of dB, or a table path_loss"].assert_eq(&message);
    write("data.jsonl", "{}\n");
    let message = scenario.settings().expect_err("refused").to_string();
    expect!["DIR/data.jsonl:1: needs either question and perhaps answer, or prompt and perhaps reference"]
        .assert_eq(&message.replace(&folder.path().display().to_string(), "DIR"));
}

#[test]
fn a_link_can_be_written_in_place_and_varied() {
    let fair = ShippedFile::find(ShippedFile::LINKS, "fair").expect("ships").text;
    let text = format!("[device.link]\n{fair}");
    assert_eq!(valid(&text), valid(""));
    let mut scenario = Scenario::parse("my.toml", &text, None).expect("valid");
    scenario.set("device.link.snr_db=3").expect("valid");
    let settings = scenario.settings().expect("valid");
    assert!(matches!(settings.device.parts[0].link.rate, LinkRate::Fading { snr_db: 3.0, .. }));
}

#[test]
fn every_profile_meets_every_link() {
    let settings = valid("[device]\nprofile = \"phone, host\"\nlink = \"good, poor\"");
    let mut met: Vec<_> = (0..4)
        .map(|i| (settings.device.profile(DeviceId(i)).name.as_str(), settings.device.link(DeviceId(i)).name.as_str()))
        .collect();
    met.sort_unstable();
    assert_eq!(met, [("host", "good"), ("host", "poor"), ("phone", "good"), ("phone", "poor")]);
}

#[test]
fn equal_settings_have_equal_hashes_and_others_do_not() {
    let hash = |text: &str| valid(text).scenario_hash();
    let plain = hash("");
    assert_eq!(plain.len(), 64);
    assert_eq!(hash("# a remark\n[pool]\nendpoints = 1\n[run]\ntemperature = 1\nseed = 0x1"), plain);
    assert_eq!(hash("[run]\ntemperature = -0.0"), hash("[run]\ntemperature = 0"));
    let others = ["[run]\nseed = 2", "[device]\nlink = \"poor\"", "[audit]\nenabled = false", "[method]\nkappa = 0.0"];
    for other in others {
        assert_ne!(hash(other), plain, "{other}");
    }
}

/// The hash stands in ledgers: a change of it is a change of what scenarios mean, and belongs in the changelog.
#[test]
fn the_default_scenarios_canonical_text() {
    expect_test::expect_file!["canonical.toml"].assert_eq(&valid("").to_canonical_toml());
}

/// What a run stores of a path that is no Unicode leads to the same file, and two such paths are two.
#[cfg(unix)]
#[test]
fn paths_that_are_no_unicode_survive_their_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use crate::{Fidelity, ModelChoice, RunPlace};

    let with = |byte: u8| {
        let path = |name: &str| PathBuf::from(OsStr::from_bytes(&[name.as_bytes(), &[byte]].concat()));
        let mut scenario = Scenario::parse("my.toml", "[simulate]\nfidelity = \"trace\"", None).expect("valid");
        for (key, name) in [("model.drafter", "/d"), ("model.verifier", "/v"), ("simulate.trace", "/t")] {
            scenario.set_path_flag("--flag", key, &path(name)).expect("a key");
        }
        let settings = scenario.settings().expect("valid");
        assert_eq!(settings.model.drafter, ModelChoice::Folder(path("/d")));
        assert_eq!(settings.model.verifier, ModelChoice::Folder(path("/v")));
        assert_eq!(settings.simulate.fidelity, Fidelity::Trace { run: RunPlace::Folder(path("/t")) });
        assert_eq!(read(&scenario.to_toml()).expect("valid"), settings);
        assert_eq!(Settings::from_canonical_toml(&settings.to_canonical_toml()).expect("valid").model, settings.model);
        settings.scenario_hash()
    };
    assert_ne!(with(0xfe), with(0xff));
}

#[test]
fn canonical_text_reads_back() {
    let everything = Scenario::parse(
        "everything",
        "[run]\nmethods = \"hlm, price\"\nverifiers = 2\n[load]\npattern = \"ramp\"\nstart_rate = 0.1\n\
         stages = [{ seconds = 1, rate = 2 }]\n[churn]\nstay_seconds = 3\n[method]\nprice_half_life_ms = 5\n\
         [fleet.a]\nweight = 3\ndata = \"word-problems\"\nbattery_joules = 1\noutage_seconds = 1\noutage_every_seconds = 2\n\
         [fleet.b]\nlink = \"lte\"\n[pool]\nprofile = \"a100\"\n[pool.autoscale]\nmax = 3\n\
         [thresholds]\nchecks = [\"ttft_p95 <= 3s\", { check = \"agreement > 90%\", method = \"hlm\", abort_on_fail = true }]\n\
         [simulate]\nfidelity = \"trace\"\ntrace = \"x\"\ncost = \"roofline\"\nverifier_model = \"llama-2-7b\"",
        None,
    );
    let named = ["default", "paper"].map(|name| Scenario::load(Path::new(name)));
    for scenario in named.into_iter().chain([everything]) {
        let settings = scenario.and_then(|s| s.settings()).unwrap_or_else(|error| panic!("{error}"));
        let again = Settings::from_canonical_toml(&settings.to_canonical_toml()).expect("valid");
        assert_eq!(again, settings);
        assert_eq!(again.scenario_hash(), settings.scenario_hash());
    }
}
