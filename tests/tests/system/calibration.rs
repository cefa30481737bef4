//! The calibrations that ship are those of the pair, prompts and precision that ship, so that nobody's first run has to
//! calibrate; and they say what a fresh calibration says.

use specfleet::calibrate::{calibrate, key};
use specfleet::pair::Pair;
use specfleet_config::{CALIBRATIONS, Scenario, Settings};
use specfleet_engine::calibration::Calibration;
use specfleet_engine::method::{Estimator, PayloadForm, ProbabilityBits};

const FULL: PayloadForm = PayloadForm::Full { bits: ProbabilityBits::B32 };

fn settings(temperature: &str) -> Settings {
    let mut scenario = Scenario::shipped_default().expect("ships");
    scenario.set(&format!("run.temperature={temperature}")).expect("valid");
    scenario.settings().expect("valid")
}

fn shipped() -> Vec<Calibration> {
    CALIBRATIONS.iter().map(|text| serde_json::from_str(text).expect("a calibration")).collect()
}

#[test]
fn the_default_scenario_finds_its_calibration() {
    for temperature in ["0.0", "1.0"] {
        let settings = settings(temperature);
        let pair = Pair::load(&settings.model).expect("embedded");
        let wanted = key(&settings, &pair, Estimator::Expected, FULL);
        assert!(
            shipped().iter().any(|calibration| calibration.key == wanted),
            "no shipped calibration for temperature {temperature}: make it again, see config/calibration/README.md"
        );
    }
}

/// Not bit for bit: another kind of processor may round its products otherwise.
#[test]
fn a_fresh_calibration_says_the_same() {
    let settings = settings("1.0");
    let pair = Pair::load(&settings.model).expect("embedded");
    let key = key(&settings, &pair, Estimator::Expected, FULL);
    let shipped = shipped().into_iter().find(|calibration| calibration.key == key).expect("ships");
    let fresh = calibrate(&settings, &pair, key, &|_| ()).expect("calibrates");
    let close = |what: &str, shipped: f64, fresh: f64, tolerance: f64| {
        assert!((shipped - fresh).abs() <= tolerance, "{what}: shipped {shipped}, fresh {fresh}");
    };
    close("a", shipped.line.a, fresh.line.a, 0.05);
    close("b", shipped.line.b, fresh.line.b, 0.02);
    close("correlation", shipped.line.r, fresh.line.r, 0.05);
    close("mean rejection", shipped.mean_rejection, fresh.mean_rejection, 0.02);
    close("upload rate of u-hlm", shipped.upload_rates["u-hlm"], fresh.upload_rates["u-hlm"], 0.1);
    // The figures that the pair was published with: a = 0.64, b = −0.038, correlation 0.67, measured on other prompts.
    assert!((0.5..0.8).contains(&fresh.line.a) && (-0.08..0.0).contains(&fresh.line.b) && fresh.line.r > 0.6);
}
