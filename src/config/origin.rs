//! Whose pages may connect (RFC 6454; CWE-1385): a browser names the page's origin, and nothing
//! that the page does can change it.

use std::str::FromStr;

/// Which origins may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    rule: Rule,
    /// Whether a request without an origin, which is not a browser's, is turned away.
    required: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Rule {
    /// Pages of the host that they connect to.
    #[default]
    SameHost,
    /// Pages of this machine, whatever their port.
    Loopback,
    /// Pages of one of these.
    List(Vec<OriginPattern>),
}

/// An origin, `https://app.example.com`, or a pattern of such: `https://*.example.com` are all hosts
/// below that one, `http://localhost:*` all ports, and `*` is any origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Any origin at all, those of sandboxed pages (`null`) included.
    Any,
    /// The origin of pages that have none, as sandboxed ones: it is written `null`.
    Null,
    /// A scheme, a host and a port.
    Tuple {
        /// In lower case.
        scheme: String,
        /// In lower case; behind `*.`, all hosts below it.
        host: Host,
        /// None stands for any.
        port: Option<u16>,
    },
}

/// One host, or all below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// This one.
    Is(String),
    /// Those that end so; it begins with a dot.
    Below(String),
}

impl Origins {
    /// Only those on a list. If it is empty, only pages of the host that they connect to.
    pub fn list(patterns: Vec<OriginPattern>) -> Self {
        let rule = if patterns.is_empty() { Rule::SameHost } else { Rule::List(patterns) };
        Self { rule, required: false }
    }

    /// Pages of this machine, as for `wsgate dev`.
    pub fn loopback() -> Self {
        Self { rule: Rule::Loopback, required: false }
    }

    /// Turns away who names no origin: then only browsers can connect.
    #[must_use]
    pub fn required(self, required: bool) -> Self {
        Self { required, ..self }
    }

    /// Whether an operator has said which origins may connect, and has not said any or that of pages
    /// without one, which anybody can make.
    pub fn is_strict(&self) -> bool {
        let vague = |pattern: &OriginPattern| matches!(pattern, OriginPattern::Any | OriginPattern::Null);
        matches!(&self.rule, Rule::List(patterns) if !patterns.iter().any(vague))
    }

    /// Whether a request may connect, by its headers `Origin` and `Host`.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return !self.required };
        match (&self.rule, Tuple::parse(origin)) {
            (Rule::List(patterns), parsed) => patterns.iter().any(|pattern| pattern.matches(origin, parsed.as_ref())),
            (Rule::SameHost, Some(parsed)) => host.is_some_and(|host| parsed.is_of(host)),
            (Rule::Loopback, Some(parsed)) => parsed.is_loopback(),
            (_, None) => false,
        }
    }
}

impl OriginPattern {
    fn matches(&self, origin: &str, parsed: Option<&Tuple>) -> bool {
        match (self, parsed) {
            (Self::Any, _) => true,
            (Self::Null, _) => origin == "null",
            (Self::Tuple { scheme, host, port }, Some(parsed)) => {
                let host = match host {
                    Host::Is(host) => *host == parsed.host,
                    Host::Below(end) => parsed.host.len() > end.len() && parsed.host.ends_with(end),
                };
                *scheme == parsed.scheme && host && port.is_none_or(|port| port == parsed.port)
            }
            (Self::Tuple { .. }, None) => false,
        }
    }
}

impl FromStr for OriginPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let wrong =
            || format!("`{text}` is not an origin: it looks like https://app.example.com or https://*.example.com");
        let any_port = text.strip_suffix(":*");
        let parsed = Tuple::parse(any_port.unwrap_or(text)).ok_or_else(wrong)?;
        let host = match parsed.host.strip_prefix('*') {
            Some(below) if below.starts_with('.') && below.len() > 1 && !below.contains('*') => {
                Host::Below(below.to_owned())
            }
            None if !parsed.host.contains('*') => Host::Is(parsed.host),
            _ => return Err(wrong()),
        };
        Ok(Self::Tuple { scheme: parsed.scheme, host, port: any_port.is_none().then_some(parsed.port) })
    }
}

/// An origin in its parts.
struct Tuple {
    scheme: String,
    host: String,
    port: u16,
}

impl Tuple {
    /// Only what a browser writes (RFC 6454, 6.2): no path, no user, a port only if it is unusual.
    fn parse(origin: &str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority)?;
        let usual = match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*' | '[' | ']' | ':');
        let legal = !host.is_empty()
            && host.chars().all(is_host)
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        legal.then_some(())?;
        Some(Self { port: port.or(usual).unwrap_or(0), scheme, host: host.to_ascii_lowercase() })
    }

    /// Whether this is the origin of pages of a host, as a `Host` header names it. That header does
    /// not say whether TLS ends at a proxy: a port that it lacks is the usual one of the origin.
    fn is_of(&self, host: &str) -> bool {
        let Some((name, port)) = split_port(host) else { return false };
        let usual = if self.scheme == "https" { 443 } else { 80 };
        matches!(self.scheme.as_str(), "https" | "http")
            && name.eq_ignore_ascii_case(&self.host)
            && port.unwrap_or(usual) == self.port
    }

    fn is_loopback(&self) -> bool {
        let name = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        address || name == "localhost" || name.ends_with(".localhost")
    }
}

/// A host and, if there is one, its port. An IPv6 address is in brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits)?;
            (!host.contains(':') || host.ends_with(']')).then_some((host, Some(port)))
        }
        _ => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Origins {
        Origins::list(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
    }

    fn allowed(origins: &Origins, origin: &str) -> bool {
        origins.allow(Some(origin), Some("gateway.example.com"))
    }

    #[test]
    fn an_origin_on_the_list_may_connect_and_what_only_looks_like_it_may_not() {
        let origins = list(&["https://app.example.com"]);
        for (origin, may) in [
            ("https://app.example.com", true),
            ("https://app.example.com:443", true),
            ("HTTPS://APP.example.com", true),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("https://app.example.com.evil.com", false),
            ("https://evil.com/https://app.example.com", false),
            ("https://evilapp.example.com", false),
            ("https://app.example.com@evil.com", false),
            ("https://app.example.com/", false),
            ("https://gateway.example.com", false),
            ("null", false),
            ("", false),
            ("app.example.com", false),
        ] {
            assert_eq!(allowed(&origins, origin), may, "{origin}");
        }
    }

    #[test]
    fn a_star_stands_for_hosts_below_one_or_for_any_port() {
        let origins = list(&["https://*.example.com", "http://localhost:*"]);
        for (origin, may) in [
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://badexample.com", false),
            ("https://a.example.com:8443", false),
            ("http://localhost", true),
            ("http://localhost:3000", true),
            ("http://localhost.evil.com:3000", false),
        ] {
            assert_eq!(allowed(&origins, origin), may, "{origin}");
        }
        assert!(allowed(&list(&["*"]), "null") && allowed(&list(&["null"]), "null"));
    }

    #[test]
    fn without_a_list_a_page_connects_to_its_own_host() {
        let origins = Origins::default();
        for (origin, host, may) in [
            ("https://app.example.com", "app.example.com", true),
            ("https://app.example.com", "app.example.com:443", true),
            ("http://app.example.com:8080", "app.example.com:8080", true),
            ("http://app.example.com", "app.example.com:8080", false),
            ("https://evil.com", "app.example.com", false),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("null", "null", false),
        ] {
            assert_eq!(origins.allow(Some(origin), Some(host)), may, "{origin} {host}");
        }
        assert!(!origins.allow(Some("https://a"), None));
        assert!(origins.allow(None, Some("a")), "no browser");
        assert!(!origins.required(true).allow(None, Some("a")));
    }

    #[test]
    fn for_development_only_pages_of_this_machine_connect() {
        let origins = Origins::loopback();
        for (origin, may) in [
            ("http://localhost:5173", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("https://app.localhost", true),
            // A name of somebody else's for this machine: its host is the same, its page is not ours.
            ("https://gateway.example.com", false),
            ("http://127.0.0.1.evil.com", false),
            ("null", false),
        ] {
            assert_eq!(allowed(&origins, origin), may, "{origin}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_is_refused() {
        for text in [
            "",
            "example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://a/b",
            "https://*a.com",
            "https://a:x",
        ] {
            assert!(text.parse::<OriginPattern>().is_err(), "{text}");
        }
    }
}
