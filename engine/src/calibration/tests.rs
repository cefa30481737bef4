use super::*;
use crate::device::gate::RunningMoments;
use crate::method::{Gate, ImportanceRule, Join, Keep, METHOD_NAMES, Method, ProbabilityBits, Writer};
use crate::random::{DrawKey, Purpose};

fn key() -> CalibrationKey {
    CalibrationKey {
        drafter: "d0".into(),
        verifier: "v0".into(),
        drafter_precision: "q8_0".into(),
        verifier_precision: "q8_0".into(),
        prompts: "p0".into(),
        estimator: Estimator::Expected,
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 },
        samples_from: None,
    }
}

fn reading(value: f32) -> ImportanceReading {
    ImportanceReading { value, mean: 0.5, std: 0.2 }
}

/// Rejection is 0.8·u − 0.1 plus nothing; two layers of concentration, of which layer 1 tells harm, and one of lookahead
/// that tells nothing.
fn samples() -> (Vec<CalibrationSample>, Vec<HarmSample>) {
    let uniform = |i: u32, purpose| {
        DrawKey { seed: 3, prompt: i, repetition: 0, position: 0, rejections: 0 }.draws(purpose).uniform_f32()
    };
    let samples = (0..1000)
        .map(|i| {
            let u = i as f32 / 1000.0;
            CalibrationSample {
                u_expected: u,
                u_sampled: 1.0 - u,
                entropy: u * 3.0,
                max_probability: 1.0 - u,
                rejection: 0.8 * u - 0.1,
                concentration: vec![reading(0.5), reading(uniform(i, Purpose::Gate))],
                lookahead: vec![reading(uniform(i, Purpose::Accept))],
            }
        })
        .collect();
    let harm = (0..400)
        .map(|i| {
            let harmful = i % 4 == 0;
            let tells = uniform(i, Purpose::Draft) * 0.5 + if harmful { 0.5 } else { 0.1 };
            HarmSample {
                harm: f32::from(harmful),
                concentration: vec![reading(0.5), reading(tells)],
                lookahead: vec![reading(uniform(i, Purpose::Residual))],
            }
        })
        .collect();
    (samples, harm)
}

fn fitted() -> Calibration {
    let (samples, harm) = samples();
    Calibration::fit(key(), &samples, &harm, HarmMeasure::ExactMatch)
}

#[test]
fn the_line_and_its_thresholds() {
    let c = fitted();
    assert!((c.line.a - 0.8).abs() < 1e-5 && (c.line.b + 0.1).abs() < 1e-5, "{:?}", c.line);
    assert!(c.line.r > 0.9999 && c.line.r2 > 0.9999 && c.line.rmse < 1e-6 && c.line.n == 1000);
    assert!((c.risk_averse.unwrap() - 0.125).abs() < 1e-5);
    assert!((c.delta - 0.875).abs() < 2e-3);
    assert!((f64::from(c.risk_prone.unwrap()) - ((c.delta + 0.1) / 0.8).min(1.0)).abs() < 1e-5);
    assert_eq!(c.fits_badly(), None);
    assert_eq!(c.line.risk(0.0), 0.0);
    assert!((c.line.risk(1.0) - 0.7).abs() < 1e-5);
    assert_eq!(c.uncertainty_percentiles.len(), 101);
    assert_eq!((c.uncertainty_percentiles[0], c.uncertainty_percentiles[100]), (0.0, 0.999));
}

#[test]
fn the_best_predictor_of_harm_is_chosen() {
    let c = fitted();
    assert_eq!(c.importance.len(), 3);
    assert_eq!(c.importance[0].auc, Some(0.5), "a constant predicts nothing");
    assert_eq!(c.importance[0].correlation, None);
    let best = c.best_importance().unwrap();
    assert_eq!((best.statistic, best.layer), (ImportanceStatistic::Concentration, 1));
    assert!(best.auc.unwrap() > 0.95, "{best:?}");
    assert!((c.importance[2].auc.unwrap() - 0.5).abs() < 0.1);
    // Harmful values lie in [0.5, 1]: nine tenths of them above 0.55 = mean + 0.25·std; layer 1's κ is the grid's 0.2 or 0.3.
    assert!((0.1..=0.5).contains(&best.kappa), "{best:?}");
    assert!(best.harm_kept.unwrap() >= HARM_KEPT_TARGET);
    // A statistic that tells nothing saves little: κ is low.
    assert!(c.importance[2].kappa < -1.0);
}

#[test]
fn rates_are_matched() {
    let c = fitted();
    let rate = |name: &str| c.upload_rates[name];
    assert_eq!((rate("slm-only"), rate("hlm"), rate("dssd"), rate("block")), (0.0, 1.0, 1.0, 1.0));
    assert!((rate("u-hlm") - 0.874).abs() < 2e-3);
    assert!(rate("ui-hlm") < 0.6 * rate("u-hlm"));
    for name in ["rand-hlm", "entropy", "max-prob"] {
        assert!((rate(name) - rate("ui-hlm")).abs() < 1.5e-3, "{name}: {}", rate(name));
    }
    // Lower uncertainty threshold by name: risk-prone; the other estimator reads the other column.
    let (samples, harm) = samples();
    let sampled = CalibrationKey { estimator: Estimator::Sampled, ..key() };
    let falling = Calibration::fit(sampled, &samples, &harm, HarmMeasure::ExactMatch);
    assert!(falling.line.a < 0.0 && falling.risk_averse.is_none() && falling.entropy_threshold.is_none());
    assert!(falling.fits_badly().unwrap().contains("does not rise"));
    assert!(matches!(falling.resolve("u-hlm", &MethodOverrides::default()), Err(MethodError::Missing { .. })));
}

#[test]
fn nothing_to_fit_is_no_panic() {
    let c = Calibration::fit(key(), &[], &[], HarmMeasure::TokenAgreement);
    assert_eq!((c.line.a, c.line.b, c.line.r, c.line.rmse), (0.0, 0.0, 0.0, 0.0));
    assert!(c.fits_badly().is_some() && c.best_importance().is_none());
    let (samples, _) = samples();
    let c = Calibration::fit(key(), &samples, &[], HarmMeasure::TokenAgreement);
    let best = c.best_importance().unwrap();
    assert_eq!((best.statistic, best.layer, best.kappa), (ImportanceStatistic::Concentration, 1, 0.0));
    assert!(c.resolve("ui-hlm", &MethodOverrides::default()).is_ok());
}

#[test]
fn stored_and_read_back() {
    for c in [fitted(), Calibration::fit(key(), &[], &[], HarmMeasure::TokenAgreement)] {
        let json: Calibration = serde_json::from_str(&serde_json::to_string(&c).unwrap()).unwrap();
        // JSON may lose the last bit of an f64, which no threshold is.
        assert_eq!((&json.key, json.risk_averse, json.risk_prone), (&c.key, c.risk_averse, c.risk_prone));
        for name in METHOD_NAMES {
            assert_eq!(json.resolve(name, &MethodOverrides::default()), c.resolve(name, &MethodOverrides::default()));
        }
        let toml = toml::to_string(&c).unwrap();
        assert_eq!(toml::from_str::<Calibration>(&toml).unwrap(), c);
    }
}

#[test]
fn keys_tell_each_other_apart() {
    let one = key().fingerprint();
    assert_eq!(one.len(), 16);
    assert_eq!(one, key().fingerprint());
    let form = PayloadForm::SparseExact { keep: Keep::Top(30), bits: ProbabilityBits::B8 };
    for other in [
        CalibrationKey { drafter: "d0v0".into(), verifier: String::new(), ..key() },
        CalibrationKey { estimator: Estimator::Sampled, ..key() },
        CalibrationKey { sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 }, ..key() },
        CalibrationKey { samples_from: CalibrationKey::samples_from(form), ..key() },
    ] {
        assert_ne!(other.fingerprint(), one);
    }
    assert_eq!(CalibrationKey::samples_from(PayloadForm::Full { bits: ProbabilityBits::B8 }), None);
}

#[test]
fn every_preset_resolves() {
    let c = fitted();
    let methods: Vec<Method> =
        METHOD_NAMES.iter().map(|name| c.resolve(name, &MethodOverrides::default()).unwrap()).collect();
    let by_name = |name: &str| methods.iter().find(|method| method.name == name).unwrap();
    assert_eq!(by_name("llm-only").writer, Writer::Verifier);
    assert!(methods.iter().filter(|method| method.writer == Writer::Verifier).count() == 1);
    assert_eq!(by_name("rand-hlm").gate, Gate::Random { probability: c.upload_rates["ui-hlm"] as f32 });
    let threshold = c.risk_averse.unwrap();
    assert_eq!(by_name("u-hlm").gate, Gate::Uncertainty { estimator: Estimator::Expected, threshold });
    assert_eq!(by_name("cu-hlm").gate, by_name("u-hlm").gate);
    let bits = ProbabilityBits::B32;
    assert_eq!(by_name("cu-hlm").payload, PayloadForm::TopK { keep: Keep::Top(30), bits });
    assert_eq!(by_name("dssd").payload, PayloadForm::TokenOnly { bits });
    let block = by_name("block");
    assert_eq!((block.block, block.bonus, block.draft_ahead, block.gate), (4, true, true, Gate::Always));
    let hlm = by_name("hlm");
    assert_eq!((hlm.block, hlm.bonus, hlm.draft_ahead, hlm.payload), (1, false, false, PayloadForm::Full { bits }));
    let Gate::Joint { importance, join, .. } = by_name("ui-hlm").gate else { panic!() };
    let best = c.best_importance().unwrap();
    assert_eq!(importance, ImportanceRule { statistic: best.statistic, layer: 1, kappa: best.kappa });
    assert_eq!(join, Join::And);
}

#[test]
fn price_takes_its_numbers_from_the_calibration() {
    let c = fitted();
    let resolve = |toml: &str| c.resolve("price", &toml::from_str(toml).unwrap());
    let Gate::Price(rule) = resolve("").unwrap().gate else { panic!() };
    let best = c.best_importance().unwrap();
    assert_eq!((rule.a, rule.b, rule.estimator), (c.line.a as f32, c.line.b as f32, Estimator::Expected));
    assert_eq!((rule.importance.statistic, rule.importance.layer), (best.statistic, best.layer));
    assert!((0..21).all(|k| rule.percentiles[k] == best.percentiles[5 * k]));
    let toml = "statistic = \"lookahead\"\nrisk_per_joule = 0.5\nrisk_per_second = 0\nprice_half_life = 7";
    let Gate::Price(rule) = resolve(toml).unwrap().gate else { panic!() };
    assert_eq!((rule.risk_per_joule, rule.risk_per_second, rule.half_life.0), (0.5, 0.0, 7));
    assert_eq!(rule.importance.statistic, ImportanceStatistic::Lookahead);
    let error = |toml: &str| resolve(toml).unwrap_err().to_string();
    assert!(error("risk_per_joule = -1").contains("0 or more"));
    assert!(error("price_half_life = 0").contains("more than 0"));
    assert!(error("estimator = \"sampled\"").contains("other estimator"));
    assert!(error("layer = 7").contains("no such importance statistic"));
}

#[test]
fn some_presets_need_no_calibration() {
    let none = MethodOverrides::default();
    for name in METHOD_NAMES {
        let free = ["slm-only", "llm-only", "hlm", "dssd", "block"].contains(&name);
        assert_eq!(resolve(None, name, &none).is_ok(), free, "{name}");
    }
    let numbers: MethodOverrides = toml::from_str(
        r#"
        uncertainty_threshold = 0.2
        statistic = "lookahead"
        layer = 1
        kappa = 0.5
        join = "or"
        probability = 0.3
        entropy_threshold = 0.7
        max_probability_threshold = 0.8
        "#,
    )
    .unwrap();
    for name in METHOD_NAMES {
        // `price` weighs by a risk line and by quantiles, which only a calibration has.
        assert_eq!(resolve(None, name, &numbers).is_ok(), name != "price", "{name}");
    }
}

#[test]
fn overrides_change_what_they_name() {
    let c = fitted();
    let overrides: MethodOverrides = toml::from_str(
        r#"
        uncertainty_threshold = "risk-prone"
        statistic = "lookahead"
        payload = "sparse-exact"
        bits = "16"
        tail_mass = 0.1
        block = 2
        bonus = true
        "#,
    )
    .unwrap();
    let method = c.resolve("ui-hlm", &overrides).unwrap();
    let Gate::Joint { threshold, importance, .. } = method.gate else { panic!() };
    assert_eq!(Some(threshold), c.risk_prone);
    assert_eq!((importance.statistic, importance.layer), (ImportanceStatistic::Lookahead, 0));
    assert_eq!(method.payload, PayloadForm::SparseExact { keep: Keep::TailMass(0.1), bits: ProbabilityBits::B16 });
    assert_eq!((method.block, method.bonus), (2, true));
}

#[test]
fn wrong_overrides_say_what_is_wrong() {
    let c = fitted();
    let error = |name: &str, toml: &str| c.resolve(name, &toml::from_str(toml).unwrap()).unwrap_err().to_string();
    let unknown = error("uhlm", "");
    assert!(unknown.contains("\"uhlm\"") && unknown.contains("ui-hlm"), "{unknown}");
    assert!(error("block", "block = 9").contains("between 1 and 8"));
    assert!(error("block", "block = 0").contains("block = 0"));
    assert!(error("u-hlm", "uncertainty_threshold = 1.5").contains("between 0 and 1"));
    assert!(error("rand-hlm", "probability = nan").contains("probability = NaN"));
    assert!(error("cu-hlm", "k = 0").contains("1 or more"));
    assert!(error("cu-hlm", "k = 3\ntail_mass = 0.1").contains("exclude each other"));
    assert!(error("u-hlm", "estimator = \"sampled\"").contains("other estimator"));
    assert!(error("ui-hlm", "layer = 7").contains("no such importance statistic"));
    assert!(toml::from_str::<MethodOverrides>("kapa = 1.0").is_err());
    assert!(toml::from_str::<MethodOverrides>("uncertainty_threshold = \"averse\"").is_err());
}

/// The gate over the same positions uploads what the calibration says it does.
#[test]
fn rates_are_those_of_the_gate() {
    let (samples, _) = samples();
    let c = fitted();
    for (name, statistic) in [
        ("u-hlm", (|s| s.u_expected) as fn(&CalibrationSample) -> f32),
        ("entropy", |s| s.entropy),
        ("max-prob", |s| 1.0 - s.max_probability),
    ] {
        let gate = c.resolve(name, &MethodOverrides::default()).unwrap().gate;
        let uploads = samples
            .iter()
            .filter(|sample| {
                let signals = crate::device::Signals {
                    statistic: statistic(sample),
                    importance: f32::NAN,
                    importance_threshold: f32::NAN,
                    draft_probability: 0.5,
                    gate_draw: 0.5,
                };
                crate::device::gate::decide(&gate, &signals, &RunningMoments::default(), f32::NAN).upload
            })
            .count();
        assert!((uploads as f64 / 1000.0 - c.upload_rates[name]).abs() <= 1e-3, "{name}: {uploads}");
    }
}
