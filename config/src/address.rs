//! Network addresses as people give them: a host and a port, or a port alone.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `HOST:PORT`, where the host is an IP address or a name. A port alone (`8080` or `:8080`) is one of this machine's
/// loopback, so that nothing is open to other machines unless somebody wrote an address.
///
/// A name is looked up by [`HostPort::resolve`], when the address is used: what a scenario means must not depend on the
/// machine that reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPort {
    /// An IP address with its port.
    Socket(SocketAddr),
    /// A name with a port.
    Name {
        /// The name, as it was given.
        name: String,
        /// The port; 0 takes a free one where a server listens.
        port: u16,
    },
}

/// Why a text is no address, or an address cannot be used.
#[derive(Debug, Error)]
pub enum AddressError {
    /// The text has another form.
    #[error(
        "{given:?} is no address; use HOST:PORT, such as localhost:8080 or [::1]:8080, or a port alone for this machine's \
         loopback"
    )]
    Malformed { given: String },
    /// No address is known for the name.
    #[error("{name}: the host name cannot be resolved: {source}")]
    Unresolved {
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl HostPort {
    /// A port of this machine's loopback.
    pub fn loopback(port: u16) -> HostPort {
        HostPort::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The host without the port: what a certificate is made out to.
    pub fn host(&self) -> String {
        match self {
            HostPort::Socket(address) => address.ip().to_string(),
            HostPort::Name { name, .. } => name.clone(),
        }
    }

    /// The socket address; a name is looked up, which may take as long as the system's resolver does. A name of both
    /// loopbacks, as `localhost` is on most machines, means the one that a bare port means, so that a server and its
    /// clients find each other however the address is written.
    pub fn resolve(&self) -> Result<SocketAddr, AddressError> {
        let (name, port) = match self {
            HostPort::Socket(address) => return Ok(*address),
            HostPort::Name { name, port } => (name.as_str(), *port),
        };
        let unresolved = |source| AddressError::Unresolved { name: name.to_owned(), source };
        let found: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(unresolved)?.collect();
        let loopback = found.iter().find(|address| address.ip() == Ipv4Addr::LOCALHOST);
        let chosen = loopback.or(found.first()).copied();
        chosen.ok_or_else(|| unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HostPort, AddressError> {
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            return Ok(HostPort::loopback(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(HostPort::Socket(address));
        }
        let parts = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
        match parts {
            Some((name, port)) if is_host_name(name) => Ok(HostPort::Name { name: name.to_owned(), port }),
            _ => Err(AddressError::Malformed { given: text.to_owned() }),
        }
    }
}

/// Whether a text can be a host's name: an IPv6 address without brackets, a URL or a path cannot.
fn is_host_name(text: &str) -> bool {
    let foreign =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '\\' | '[' | ']' | '@' | '*');
    !text.is_empty() && !text.contains(foreign)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPort::Socket(address) => address.fmt(f),
            HostPort::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> HostPort {
        HostPort::Socket(address)
    }
}

impl TryFrom<String> for HostPort {
    type Error = AddressError;

    fn try_from(text: String) -> Result<HostPort, AddressError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_bare_ports_are_read() {
        let cases = [
            ("9464", "127.0.0.1:9464", "127.0.0.1"),
            (":0", "127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:80", "0.0.0.0:80", "0.0.0.0"),
            ("[::1]:80", "[::1]:80", "::1"),
            ("localhost:8080", "localhost:8080", "localhost"),
            ("pool-1.example.org:4433", "pool-1.example.org:4433", "pool-1.example.org"),
        ];
        for (given, shown, host) in cases {
            let read: HostPort = given.parse().expect(given);
            assert_eq!((read.to_string().as_str(), read.host().as_str()), (shown, host));
            assert_eq!(shown.parse::<HostPort>().expect("what is shown can be read"), read);
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let wrong = [
            "",
            ":",
            "localhost",
            "70000",
            ":70000",
            "1.2.3.4",
            "::1",
            "::1:80",
            "a b:80",
            "http://localhost:80",
            "user@host:80",
            "host:",
            ":80:",
            "host:-1",
            "*:80",
            "[::1]",
        ];
        for given in wrong {
            let error = given.parse::<HostPort>().expect_err(given).to_string();
            assert!(error.starts_with(&format!("{given:?} is no address; use HOST:PORT")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn names_are_looked_up() {
        let local: HostPort = "localhost:81".parse().expect("a name");
        let found = local.resolve().expect("every machine knows it");
        assert!(found.ip().is_loopback() && found.port() == 81, "{found}");
        let unknown: HostPort = "no-such-host.invalid:80".parse().expect("a name");
        let error = unknown.resolve().expect_err("the domain is reserved for this").to_string();
        assert!(error.starts_with("no-such-host.invalid: the host name cannot be resolved: "), "{error}");
    }
}
