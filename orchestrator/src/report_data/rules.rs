//! What each method of a run uploads, in words and numbers.

use specfleet_engine::method::{
    Estimator, Gate, ImportanceRule, ImportanceStatistic, Join, Keep, Method, PayloadForm, PriceRule, Writer,
};

use super::Rule;

/// The rule of a method whose thresholds are resolved.
pub(super) fn of(method: &Method) -> Rule {
    let uploads = match method.writer {
        Writer::Verifier => "the verifier writes".to_owned(),
        Writer::Drafter => gate(&method.gate),
    };
    Rule { method: method.name.clone(), uploads, payload: payload(&method.payload), block: method.block }
}

fn gate(gate: &Gate) -> String {
    match gate {
        Gate::Never => "nothing".to_owned(),
        Gate::Always => "every draft".to_owned(),
        Gate::Random { probability } => format!("each draft with probability {probability:.4}"),
        Gate::Uncertainty { estimator, threshold } => format!("u > {threshold:.4} ({})", estimate(*estimator)),
        Gate::Joint { estimator, threshold, importance, join } => {
            let join = match join {
                Join::And => "and",
                Join::Or => "or",
            };
            format!("u > {threshold:.4} ({}) {join} {}", estimate(*estimator), self::importance(importance))
        }
        Gate::Entropy { threshold } => format!("entropy > {threshold:.4} nats"),
        Gate::MaxProbability { threshold } => format!("largest probability < {threshold:.4}"),
        Gate::Price(PriceRule { estimator, a, b, risk_per_joule, risk_per_second, .. }) => format!(
            "clip({a:.4} u {b:+.4}) weighted by importance >= {risk_per_joule:.4}/J + {risk_per_second:.4}/s + pool's price ({})",
            estimate(*estimator)
        ),
    }
}

fn estimate(estimator: Estimator) -> &'static str {
    match estimator {
        Estimator::Sampled => "sampled",
        Estimator::Expected => "expected",
    }
}

fn importance(rule: &ImportanceRule) -> String {
    let statistic = match rule.statistic {
        ImportanceStatistic::Concentration => "concentration",
        ImportanceStatistic::Lookahead => "lookahead",
    };
    format!("I >= mean {:+.4} std ({statistic}, layer {})", rule.kappa, rule.layer)
}

fn payload(form: &PayloadForm) -> String {
    let keep = |keep: &Keep| match keep {
        Keep::Top(k) => format!("{k} most likely"),
        Keep::TailMass(mass) => format!("all but a tail of {mass}"),
    };
    match form {
        PayloadForm::Full { bits } => format!("all probabilities, {} bits", bits.bits()),
        PayloadForm::TopK { keep: kept, bits } => format!("{}, {} bits", keep(kept), bits.bits()),
        PayloadForm::SparseExact { keep: kept, bits } => format!("{}, {} bits, exact", keep(kept), bits.bits()),
        PayloadForm::TokenOnly { bits } => format!("token and its probability, {} bits", bits.bits()),
    }
}

#[cfg(test)]
mod tests {
    use specfleet_engine::calibration::{MethodOverrides, resolve};

    use super::*;

    #[test]
    fn rules_name_every_number() {
        let hlm = resolve(None, "hlm", &MethodOverrides::default()).expect("needs no calibration");
        let rule = of(&hlm);
        assert_eq!((rule.uploads.as_str(), rule.payload.as_str()), ("every draft", "all probabilities, 32 bits"));
        let importance = ImportanceRule { statistic: ImportanceStatistic::Lookahead, layer: 1, kappa: -0.5 };
        let joint = Gate::Joint { estimator: Estimator::Expected, threshold: 0.25, importance, join: Join::And };
        assert_eq!(gate(&joint), "u > 0.2500 (expected) and I >= mean -0.5000 std (lookahead, layer 1)");
        assert_eq!(gate(&Gate::MaxProbability { threshold: 0.5 }), "largest probability < 0.5000");
        let sparse = PayloadForm::TopK { keep: Keep::Top(16), bits: hlm_bits() };
        assert_eq!(payload(&sparse), "16 most likely, 8 bits");
    }

    fn hlm_bits() -> specfleet_engine::method::ProbabilityBits {
        specfleet_engine::method::ProbabilityBits::B8
    }
}
