//! For whom proxies have passed a request on, by the headers that they add.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::{FORWARDED, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses that proxies have added, the last first; None for one that is no address.
///
/// What a client has sent stands to the left of what proxies add, often on the same line, and may be anything:
/// it must not spoil what is to its right. So bytes that are no text spoil only their own entry, and a quote that a
/// client has left open hides no comma; no address has one.
///
/// `X-Forwarded-For` counts where it is there, and else `Forwarded` (RFC 7239): a proxy that adds to one
/// of them passes the other on as it came, and most add to the former.
pub(super) fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match headers.contains_key(&X_FORWARDED_FOR) {
        true => (X_FORWARDED_FOR, |hop| address(hop.trim())),
        false => (FORWARDED, forwarded_for),
    };
    let lines = headers.get_all(name).into_iter();
    let entries = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let entries = entries.filter(|entry| !entry.trim_ascii().is_empty());
    let mut hops: Vec<_> = entries.map(|entry| std::str::from_utf8(entry).ok().and_then(read)).collect();
    hops.reverse();
    hops
}

/// Whom one element of `Forwarded` is for.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_pairs(element).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    let (Some((_, node)), None) = (found.next(), found.next()) else { return None };
    // No address has a character that would have to be escaped.
    address(node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node))
}

/// An address, with or without a port, in brackets or not.
fn address(node: &str) -> Option<IpAddr> {
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    node.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// The parts between semicolons that stand in no quoted string (RFC 9110, 5.6.4).
fn split_pairs(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let ends = character == ';' && !quoted;
        (quoted, escaped) = match character {
            _ if escaped => (quoted, false),
            '\\' if quoted => (quoted, true),
            '"' => (!quoted, false),
            _ => (quoted, false),
        };
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn hops_of(list: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        hops(&headers).iter().map(|hop| hop.map_or("none".to_owned(), |hop| hop.to_string())).collect()
    }

    #[test]
    fn the_examples_of_rfc_7239_are_understood() {
        assert_eq!(hops_of(&[("forwarded", "for=\"_gazonk\"")]), ["none"]);
        assert_eq!(hops_of(&[("forwarded", "For=\"[2001:db8:cafe::17]:4711\"")]), ["2001:db8:cafe::17"]);
        assert_eq!(hops_of(&[("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43")]), ["192.0.2.60"]);
        assert_eq!(hops_of(&[("forwarded", "for=192.0.2.43, for=198.51.100.17")]), ["198.51.100.17", "192.0.2.43"]);
        assert_eq!(hops_of(&[("forwarded", "for=_hidden, for=unknown")]), ["none", "none"]);
        assert_eq!(hops_of(&[("forwarded", "for=\"192.0.2.43:47011\"")]), ["192.0.2.43"]);
    }

    #[test]
    fn what_a_client_has_sent_spoils_nothing_of_what_a_proxy_adds() {
        for forged in ["\u{ff}", "café", "\"", "for=\"", "for=\"203.0.113.9", "\\", ",,", "for=\"\\", ""] {
            let added = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1;proto=https")];
            for (name, added) in added {
                assert_eq!(hops_of(&[(name, &format!("{forged}, {added}"))])[0], "198.51.100.1", "{forged}");
                assert_eq!(hops_of(&[(name, forged), (name, added)])[0], "198.51.100.1", "{forged}");
            }
        }
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(b"\xff, 198.51.100.1").unwrap());
        assert_eq!(hops(&headers), ["198.51.100.1".parse().ok(), None]);
    }

    #[test]
    fn quotes_hide_what_separates_pairs() {
        let forged = "by=\"a; for=203.0.113.9; \\\" x\";for=198.51.100.1";
        assert_eq!(hops_of(&[("forwarded", forged)]), ["198.51.100.1"]);
        assert_eq!(hops_of(&[("forwarded", "for=203.0.113.9;for=198.51.100.1")]), ["none"], "which of them?");
        assert_eq!(hops_of(&[("forwarded", "proto=https")]), ["none"]);
        assert_eq!(hops_of(&[("forwarded", "for=\"[2001:db8::1]\"")]), ["2001:db8::1"]);
    }

    #[test]
    fn lines_follow_each_other_and_of_two_headers_one_counts() {
        assert_eq!(
            hops_of(&[("forwarded", "for=192.0.2.1"), ("forwarded", "for=192.0.2.2")]),
            ["192.0.2.2", "192.0.2.1"]
        );
        assert_eq!(hops_of(&[("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.2")]), ["192.0.2.2"]);
        assert_eq!(hops_of(&[("x-forwarded-for", "192.0.2.1:4711, 2001:db8::1")]), ["2001:db8::1", "192.0.2.1"]);
    }
}
