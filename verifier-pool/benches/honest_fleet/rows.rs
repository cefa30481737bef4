//! The rows of the table: which attack, beside which fleet.

/// Whose door is attacked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Run,
    Pool,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Run => "run",
            Target::Pool => "pool",
        }
    }
}

/// What is served over HTTP.
pub(crate) struct Http {
    /// What tells the program where to serve it.
    pub(crate) flag: &'static str,
    /// What the attacker asks for, and what an honest reader.
    pub(crate) attacked: &'static str,
    pub(crate) read: &'static str,
    /// Connections of the attacker.
    pub(crate) connections: &'static str,
}

/// One row.
pub(crate) struct Row {
    pub(crate) attack: &'static str,
    pub(crate) target: Target,
    /// What a run does; agents all do the same.
    pub(crate) scenario: &'static [&'static str],
    pub(crate) http: Option<Http>,
    /// Whether newcomers come one after another.
    pub(crate) has_newcomers: bool,
}

/// Two methods, so that the devices come back in the middle.
const USUAL: &[&str] = &["--prompts", "16", "--methods", "ui-hlm,hlm"];

/// The one method whose tokens follow what the pool has to do.
const PRICE: &[&str] = &["--prompts", "96", "--methods", "price"];

const PAGE: Http = Http { flag: "--dashboard", attacked: "/assets/d3.min.js", read: "/api/runs", connections: "135" };
const METRICS: Http = Http { flag: "--metrics", attacked: "/metrics", read: "/metrics", connections: "40" };

impl Row {
    /// All of them.
    pub(crate) fn all() -> Vec<Row> {
        let row = |attack, target| {
            let scenario = if attack == "A4" { PRICE } else { USUAL };
            let has_newcomers = attack == "A3" && target == Target::Pool;
            Row { attack, target, scenario, http: None, has_newcomers }
        };
        let mut rows = Vec::new();
        for attack in ["A2", "A3", "A4", "A5", "A8", "A9"] {
            rows.extend([row(attack, Target::Run), row(attack, Target::Pool)]);
        }
        let many = Http { connections: PAGE.connections, ..METRICS };
        for (target, http) in
            [(Target::Run, PAGE), (Target::Run, METRICS), (Target::Pool, METRICS), (Target::Pool, many)]
        {
            rows.push(Row { http: Some(http), ..row("A10", target) });
        }
        rows
    }

    /// How the row is asked for.
    pub(crate) fn name(&self) -> String {
        let of = |http: &Http| format!("/{}-{}", http.flag.trim_start_matches('-'), http.connections);
        format!("{}/{}{}", self.attack, self.target.name(), self.http.as_ref().map(of).unwrap_or_default())
    }
}
