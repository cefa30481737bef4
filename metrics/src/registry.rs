//! Where families are registered, and their text.

use prometheus::core::Collector;
use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use crate::family::{self, MetricFamily, MetricKind};

/// The families of one program. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// Of a program of this name and version, with nothing in it but that.
    pub fn new(program: &str, version: &str) -> Registry {
        let registry = Registry(prometheus::Registry::new());
        registry.gauges(&family::BUILD).with_label_values(&[program, version]).set(1);
        registry
    }

    /// Everything, in the text format 0.0.4: families by name, each with its HELP and TYPE.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.0.gather(), &mut text);
        encoded.expect("invariant: a registry gathers only families that it has checked, and a string takes any text");
        text
    }

    pub(crate) fn counters(&self, family: &MetricFamily) -> IntCounterVec {
        debug_assert_eq!(family.kind, MetricKind::Counter);
        self.register(IntCounterVec::new(opts(family), family.labels))
    }

    /// Counters of what comes in fractions.
    pub(crate) fn sums(&self, family: &MetricFamily) -> CounterVec {
        debug_assert_eq!(family.kind, MetricKind::Counter);
        self.register(CounterVec::new(opts(family), family.labels))
    }

    pub(crate) fn gauges(&self, family: &MetricFamily) -> IntGaugeVec {
        debug_assert_eq!(family.kind, MetricKind::Gauge);
        self.register(IntGaugeVec::new(opts(family), family.labels))
    }

    pub(crate) fn histograms(&self, family: &MetricFamily) -> HistogramVec {
        let MetricKind::Histogram(bounds) = family.kind else { panic!("{} is no histogram", family.name) };
        let opts = HistogramOpts::new(family.name, family.help).buckets(bounds.to_vec());
        self.register(HistogramVec::new(opts, family.labels))
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("invariant: names, labels and buckets are constants, and the tests make all of them");
        self.0.register(Box::new(family.clone())).expect("invariant: each family has one owner and a name of its own");
        family
    }
}

fn opts(family: &MetricFamily) -> Opts {
    Opts::new(family.name, family.help)
}
