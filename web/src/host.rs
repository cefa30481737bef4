//! Whose name a request may bear in its `Host` header. A page from elsewhere could have its own name point to this machine
//! (DNS rebinding) and read what stands here through the browser of somebody who looks at it.

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// The ports that a browser leaves out of a `Host` header.
const UNSAID_PORTS: [u16; 2] = [80, 443];

/// A name that a server answers to besides those of the loopback, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    /// `None` stands for any.
    port: Option<u16>,
}

/// Why a text is no name of a host.
#[derive(Debug, Error)]
#[error("{given:?} is no host name; use NAME or NAME:PORT, such as runs.example.org")]
pub struct AllowedHostError {
    given: String,
}

impl FromStr for AllowedHost {
    type Err = AllowedHostError;

    fn from_str(text: &str) -> Result<AllowedHost, AllowedHostError> {
        let wrong = || AllowedHostError { given: text.to_owned() };
        let (name, port) = split(text).ok_or_else(wrong)?;
        let foreign = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '@' | '*' | ',');
        if name.is_empty() || name.contains(foreign) || (name.contains(':') && name.parse::<IpAddr>().is_err()) {
            return Err(wrong());
        }
        Ok(AllowedHost { name, port })
    }
}

/// What a server that listens at one address answers to.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// Whether only this machine reaches the server.
    loopback: bool,
    allowed: Vec<AllowedHost>,
}

impl HostRule {
    /// The rule of a server at an address of the loopback or elsewhere, with further names that it answers to.
    pub fn new(loopback: bool, allowed: Vec<AllowedHost>) -> HostRule {
        HostRule { loopback, allowed }
    }

    /// Whether a request with this `Host` from this address is answered. Where other machines reach the server, their names
    /// for it are checked only if some are allowed, and addresses never: no other site can have one. What comes from this
    /// machine itself may come from a browser on it, so its names are checked always.
    pub fn admits(&self, host: &str, peer: Option<IpAddr>) -> bool {
        let is_local = peer.is_none_or(|peer| peer.to_canonical().is_loopback());
        if !self.loopback && !is_local && self.allowed.is_empty() {
            return true;
        }
        let Some((name, port)) = split(host) else { return false };
        let ours = match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || !self.loopback,
            Err(_) => name == "localhost",
        };
        let has_port = |allowed: Option<u16>| match (allowed, port) {
            (Some(allowed), Some(port)) => allowed == port,
            (Some(allowed), None) => UNSAID_PORTS.contains(&allowed),
            (None, _) => true,
        };
        ours || self.allowed.iter().any(|allowed| allowed.name == name && has_port(allowed.port))
    }
}

/// A host in small letters, without the brackets of an IPv6 address and the dot of the root, and its port.
fn split(host: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match host.rsplit_once(':') {
        // The colon of an IPv6 address has others beside it, or brackets around it.
        Some((name, port)) if !port.contains(']') && (!name.contains(':') || name.ends_with(']')) => {
            (name, Some(port.parse().ok()?))
        }
        _ => (host, None),
    };
    let name = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<IpAddr>().is_ok())?,
        None => name.strip_suffix('.').unwrap_or(name),
    };
    Some((name.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn rule(loopback: bool, allowed: &[&str]) -> HostRule {
        HostRule::new(loopback, allowed.iter().map(|name| name.parse().expect(name)).collect())
    }

    const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    const OTHER_MACHINE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));

    const ELSEWHERE: [&str; 8] = [
        "",
        "example.org",
        "localhost.example.org:8080",
        "10.0.0.1:8080",
        "127.0.0.1.example.org",
        "[::2]:80",
        "[localhost]",
        "localhost:port",
    ];

    #[test]
    fn only_names_of_the_loopback_are_this_machine() {
        let rule = rule(true, &[]);
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]", "localhost."]
        {
            assert!(rule.admits(good, HERE), "{good}");
        }
        for bad in ELSEWHERE {
            assert!(!rule.admits(bad, HERE), "{bad}");
        }
    }

    #[test]
    fn allowed_names_are_added_with_their_port_or_any() {
        let rule = rule(true, &["Runs.example.org", "other.example.org:8443", "plain.example.org:80", "[fd00::7]"]);
        for good in [
            "runs.example.org",
            "RUNS.example.org:8080",
            "runs.example.org.",
            "other.example.org:8443",
            "plain.example.org",
            "[fd00::7]:9",
            "localhost:1",
        ] {
            assert!(rule.admits(good, HERE), "{good}");
        }
        let others = ["other.example.org", "other.example.org:80", "sub.runs.example.org", "runs.example.org.evil.org"];
        for bad in ELSEWHERE.iter().chain(&others) {
            assert!(!rule.admits(bad, HERE), "{bad}");
        }
    }

    #[test]
    fn an_open_server_checks_names_once_some_are_allowed() {
        assert!(rule(false, &[]).admits("anything.example.org", OTHER_MACHINE));
        let named = rule(false, &["runs.example.org"]);
        assert!(named.admits("runs.example.org", OTHER_MACHINE) && named.admits("10.0.0.1:8080", OTHER_MACHINE));
        assert!(named.admits("[::2]:80", OTHER_MACHINE) && !named.admits("rebound.example.org", OTHER_MACHINE));
    }

    #[test]
    fn an_open_server_checks_the_names_that_this_machine_has_for_it() {
        let open = rule(false, &[]);
        let mapped = Some(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        for peer in [HERE, mapped, None] {
            assert!(open.admits("localhost:9464", peer) && open.admits("10.0.0.1:9464", peer));
            assert!(!open.admits("rebound.example.org", peer), "{peer:?}");
        }
        assert!(rule(false, &["runs.example.org"]).admits("runs.example.org", HERE));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", ":80", "http://runs.example.org", "a b", "*", "*.example.org", "runs.example.org:web", "a,b"]
        {
            let error = wrong.parse::<AllowedHost>().expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("{wrong:?} is no host name")), "{error}");
        }
    }
}
