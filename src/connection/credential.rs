//! What a request shows, and by whom. The query is looked at here and nowhere else, and never logged.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use ipnet::IpNet;

use crate::auth::{Credential, Reason, TokenError};

use super::forwarded;

/// What stands before a token among the subprotocols.
const BEARER_PROTOCOL: &str = "bearer.";

/// What a request shows: nothing, one thing, or more than can be.
pub(super) type Shown = Result<Option<Credential>, TokenError>;

/// Whoever is at the other end of a connection: an address, or on a Unix socket none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(Option<IpAddr>);

impl Peer {
    /// Whoever has opened our Unix socket.
    pub(crate) const UNIX: Self = Self(None);
    /// What stands for an address that nobody knows.
    pub(crate) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    /// What stands for one that a proxy has passed on, and nobody can read: all of these share one limit.
    const UNREADABLE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

    /// Whoever is at an address.
    pub(crate) const fn at(address: IpAddr) -> Self {
        Self(Some(address.to_canonical()))
    }

    /// The address; one that is none for a Unix socket.
    pub(super) fn address(self) -> IpAddr {
        self.0.unwrap_or(Self::NOWHERE)
    }

    /// Whether it is believed whom it speaks for. On a Unix socket it is: only those may open it whom
    /// the operator lets.
    pub(crate) fn is_trusted(self, trusted: &[IpNet]) -> bool {
        self.0.is_none_or(|address| trusted.iter().any(|network| network.contains(&address)))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The client's address, as far as it is known.
    pub(super) address: IpAddr,
    /// The page's origin.
    pub(super) origin: Option<Box<str>>,
}

/// Finds what a request shows, in the order of `protocol.md`; the first that is there decides.
pub(super) fn shown(headers: &HeaderMap, query: &str, cookie: Option<&str>) -> Shown {
    let token = |text: Cow<'_, str>| Credential::Token(text.into());
    if let Some(found) = only(bearer(headers))? {
        return Ok(Some(token(found.into())));
    }
    if let Some(found) = only(in_protocols(headers))? {
        return Ok(Some(token(found.into())));
    }
    let parameter = |name: &'static str| {
        form_urlencoded::parse(query.as_bytes()).filter(move |(key, _)| key == name).map(|(_, value)| value)
    };
    if let Some(found) = only(parameter("token"))? {
        return Ok(Some(token(found)));
    }
    if let Some(name) = cookie
        && let Some(found) = only(in_cookies(headers, name))?
    {
        return Ok(Some(token(found.into())));
    }
    if let Some(found) = only(parameter("ticket"))? {
        return Ok(Some(Credential::Ticket(found.into())));
    }
    Ok(parameter("anonymous").next().filter(|value| value != "false").map(|_| Credential::Anonymous))
}

/// `Authorization: Bearer` (RFC 6750, 2.1). Another scheme is for somebody else, as a proxy.
fn bearer(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    })
}

/// `Sec-WebSocket-Protocol: wsgate.v1, bearer.<token>`, which a browser's page can set.
fn in_protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|item| item.trim().strip_prefix(BEARER_PROTOCOL))
}

/// The cookies of a name (RFC 6265, 5.4). One that is empty has been cleared.
fn in_cookies<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    let lists = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(own, value)| *own == name && !value.is_empty()).map(|(_, value)| value.trim_matches('"'))
}

/// What may be there once. Of two cookies of one name, one may be somebody else's.
fn only<T>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, TokenError> {
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Reason::Ambiguous.into()),
    }
}

impl Visitor {
    /// Whoever has sent these headers. They are believed as far as proxies have written
    /// them that are trusted: what stands to the left of their entries, anybody may have put there.
    pub(super) fn of(headers: &HeaderMap, mut peer: Peer, trusted: &[IpNet]) -> Self {
        if peer.is_trusted(trusted) {
            for hop in forwarded::hops(headers) {
                peer = Peer::at(hop.unwrap_or(Peer::UNREADABLE));
                if !peer.is_trusted(trusted) {
                    break;
                }
            }
        }
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(Into::into);
        Self { address: peer.address(), origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::http::header::HeaderName;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn found(list: &[(&'static str, &'static str)], query: &str) -> String {
        match shown(&headers(list), query, Some("session")) {
            Ok(Some(Credential::Token(token))) => format!("token {token}"),
            Ok(Some(Credential::Ticket(ticket))) => format!("ticket {ticket}"),
            Ok(Some(Credential::Anonymous)) => "anonymous".to_owned(),
            Ok(None) => "nothing".to_owned(),
            Err(error) => error.reason.to_string(),
        }
    }

    #[test]
    fn the_first_in_the_order_decides() {
        let all = [
            ("authorization", "Bearer header"),
            ("sec-websocket-protocol", "wsgate.v1, bearer.protocol"),
            ("cookie", "a=b; session=cookie"),
        ];
        let query = "ticket=ticket&token=query&anonymous=true";
        assert_eq!(found(&all, query), "token header");
        assert_eq!(found(&all[1..], query), "token protocol");
        assert_eq!(found(&all[2..], query), "token query");
        assert_eq!(found(&all[2..], "ticket=ticket"), "token cookie");
        assert_eq!(found(&[], "anonymous=true&ticket=ticket"), "ticket ticket");
        assert_eq!(found(&[], "anonymous"), "anonymous");
        assert_eq!(found(&[], "anonymous=false&x=y"), "nothing");
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        assert_eq!(found(&[("authorization", "Basic dXNlcg==")], ""), "nothing");
        assert_eq!(found(&[("sec-websocket-protocol", "wsgate.v1")], ""), "nothing");
        assert_eq!(found(&[("cookie", "session=; other=token")], ""), "nothing");
        assert_eq!(found(&[("cookie", "xsession=token")], ""), "nothing");
        assert_eq!(found(&[("cookie", "session=\"quoted\"")], ""), "token quoted");
        assert_eq!(found(&[], "token="), "token ");
    }

    #[test]
    fn of_two_nobody_knows_which_is_meant() {
        assert_eq!(found(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], ""), "ambiguous");
        assert_eq!(found(&[("sec-websocket-protocol", "bearer.a, bearer.b")], ""), "ambiguous");
        assert_eq!(found(&[("cookie", "session=a; session=b")], ""), "ambiguous");
        assert_eq!(found(&[], "token=a&token=b"), "ambiguous");
    }

    #[test]
    fn a_forwarded_address_counts_as_far_as_trusted_proxies_wrote_it() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let address = |peer: &str, forwarded: &'static str| {
            let headers = headers(&[("x-forwarded-for", forwarded)]);
            let peer = if peer == "unix" { Peer::UNIX } else { Peer::at(peer.parse().unwrap()) };
            Visitor::of(&headers, peer, &trusted).address.to_string()
        };
        assert_eq!(address("192.0.2.1", "198.51.100.1"), "192.0.2.1", "not a proxy of ours");
        assert_eq!(address("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(address("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(address("::ffff:10.0.0.1", "198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(address("::1", "2001:db8::1"), "2001:db8::1");
        assert_eq!(address("10.0.0.1", "nonsense"), "::", "somebody, and not the proxy");
        assert_eq!(address("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2"), "::");
        assert_eq!(address("10.0.0.1", ""), "10.0.0.1");
        let headers = headers(&[("forwarded", "for=203.0.113.9, for=198.51.100.1;proto=https, for=10.0.0.2")]);
        let visitor = Visitor::of(&headers, Peer::at("10.0.0.1".parse().unwrap()), &trusted);
        assert_eq!(visitor.address.to_string(), "198.51.100.1", "Forwarded is believed as far, and no farther");
        assert_eq!(address("unix", "203.0.113.9, 198.51.100.1"), "198.51.100.1", "who opens our socket is trusted");
        assert_eq!(address("unix", ""), "0.0.0.0", "and has no address");
    }
}
