//! The server of a processor of kind `redis`, `postgres` or `nats`, as a URL, which never contains a password.

use crate::processor::{Server, ServerAddress};

/// Nodes of a cluster: one that answers is enough.
const NATS_SERVERS_MAX: usize = 16;

/// Whether a server is on another host and without TLS.
pub(super) fn is_plain_to_another_host(server: &Server) -> bool {
    matches!(&server.address, ServerAddress::Tcp { host, .. } if !server.is_tls && !is_this_host(host))
}

/// Whether a name or an address, without brackets, is always this host.
pub(super) fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// The parts of a URL: `scheme://user@host:port/path?query`.
struct Parts<'u> {
    scheme: &'u str,
    user: Option<String>,
    /// Empty for none.
    host: &'u str,
    port: Option<u16>,
    /// With the slash before it; empty for none.
    path: &'u str,
    query: Vec<(&'u str, &'u str)>,
}

/// No message repeats any of it: somebody may have written a password there.
fn parts(url: &str) -> Result<Parts<'_>, String> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%' && byte != b'#') {
        return Err("not a URL of plain characters; spaces, % and # have no place in it".to_owned());
    }
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            return Err(
                "contains a password, which would be shown; write password = \"file:PATH\"".to_owned()
            );
        }
        Some((user, host)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), host),
        None => (None, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            (name, Some(port.parse().ok().filter(|port| *port > 0).ok_or("has an invalid port")?))
        }
        _ => (host, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    Ok(Parts { scheme, user, host, port, path, query })
}

/// `redis://user@host:port/number`, `rediss://` for TLS, or `redis+unix:///path?db=number`.
pub(super) fn redis(url: &str) -> Result<Server, String> {
    let parts = parts(url)?;
    let number = |text: &str| match text.parse::<u32>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("has a database that is not a number".to_owned()),
    };
    let (address, database) = match parts.scheme {
        "redis" | "rediss" => {
            if parts.host.is_empty() || !parts.query.is_empty() {
                return Err("expected redis://host:port/number".to_owned());
            }
            let address =
                ServerAddress::Tcp { host: parts.host.to_owned(), port: parts.port.unwrap_or(6379) };
            (address, Some(parts.path.trim_start_matches('/')).filter(|path| !path.is_empty()))
        }
        "redis+unix" => {
            let database = match parts.query.as_slice() {
                [] => None,
                [("db", number)] => Some(*number),
                _ => return Err("expected redis+unix:///path?db=number".to_owned()),
            };
            if !parts.host.is_empty() || parts.path.len() < 2 {
                return Err("expected redis+unix:///path?db=number".to_owned());
            }
            (ServerAddress::Unix(parts.path.into()), database)
        }
        _ => return Err("expected redis://, rediss:// or redis+unix://".to_owned()),
    };
    let database = database.map(number).transpose()?;
    Ok(Server { url: url.to_owned(), address, is_tls: parts.scheme == "rediss", user: parts.user, database })
}

/// `postgres://user@host:port/database?sslmode=disable`, or `postgres://user@/database?host=/folder` for a unix
/// socket. Over TCP the server has to prove its name by TLS, unless that is switched off.
pub(super) fn postgres(url: &str) -> Result<Server, String> {
    let parts = parts(url)?;
    if !matches!(parts.scheme, "postgres" | "postgresql") {
        return Err("expected postgres://user@host:port/database".to_owned());
    }
    let (mut folder, mut port, mut is_plain) = (None, parts.port, None);
    for (key, value) in parts.query {
        match key {
            "host" if value.starts_with('/') && parts.host.is_empty() => folder = Some(value),
            "host" => {
                return Err("host= names the folder of a unix socket, with no host before it".to_owned());
            }
            "port" => port = Some(value.parse().ok().filter(|port| *port > 0).ok_or("has an invalid port")?),
            "sslmode" if value == "disable" => is_plain = Some(true),
            "sslmode" if value == "verify-full" => is_plain = Some(false),
            "sslmode" => return Err("expected sslmode=verify-full or disable: no other is safe".to_owned()),
            "password" => {
                return Err(
                    "contains a password, which would be shown; write password = \"file:PATH\"".to_owned()
                );
            }
            _ => return Err("takes only host, port and sslmode after the ?".to_owned()),
        }
    }
    let port = port.unwrap_or(5432);
    let (address, is_tls) = match (folder, parts.host) {
        (Some(_), _) if is_plain == Some(false) => return Err("has no TLS on a unix socket".to_owned()),
        (Some(folder), _) => (ServerAddress::Unix(format!("{folder}/.s.PGSQL.{port}").into()), false),
        (None, "") => return Err("names no host; expected postgres://user@host:port/database".to_owned()),
        (None, host) => (ServerAddress::Tcp { host: host.to_owned(), port }, is_plain != Some(true)),
    };
    let database = parts.path.trim_start_matches('/');
    let Some(user) = parts.user else {
        return Err("names no user; expected postgres://user@host:port/database".to_owned());
    };
    let database = Some(database).filter(|database| !database.is_empty()).map(str::to_owned);
    Ok(Server { url: url.to_owned(), address, is_tls, user: Some(user), database })
}

/// `nats://user@host:port`, `tls://` for TLS; several are separated by commas. All have the same user, and TLS or not.
pub(super) fn nats(urls: &str) -> Result<Vec<Server>, String> {
    let one = |url: &str| {
        let parts = parts(url.trim())?;
        let is_tls = match parts.scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err("expected nats://host:port or tls://host:port".to_owned()),
        };
        if parts.host.is_empty() || !matches!(parts.path, "" | "/") || !parts.query.is_empty() {
            return Err("expected nats://host:port".to_owned());
        }
        let address = ServerAddress::Tcp { host: parts.host.to_owned(), port: parts.port.unwrap_or(4222) };
        Ok(Server { url: url.trim().to_owned(), address, is_tls, user: parts.user, database: None })
    };
    let servers = urls.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    if servers.len() > NATS_SERVERS_MAX {
        return Err(format!("names more than {NATS_SERVERS_MAX} servers"));
    }
    let is_alike = |other: &Server| {
        servers.first().is_some_and(|first| (first.is_tls, &first.user) == (other.is_tls, &other.user))
    };
    match servers.iter().all(is_alike) {
        true => Ok(servers),
        false => Err("all servers must have the same user, and TLS or not".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn what_has_no_place_in_a_url_is_named() {
        let told = redis("redis://a host/").unwrap_err();
        assert_eq!(told, "not a URL of plain characters; spaces, % and # have no place in it");
        assert_eq!(postgres("postgres://me@h/a%20b").unwrap_err(), told);
    }

    #[test]
    fn urls_of_redis_are_read() {
        for (url, address, is_tls, user, database) in [
            ("redis://r.example", tcp("r.example", 6379), false, None, None),
            ("rediss://spillq@r.example:7/3", tcp("r.example", 7), true, Some("spillq"), Some("3")),
            ("redis://[::1]:1/", tcp("::1", 1), false, None, None),
            ("redis://[::1]", tcp("::1", 6379), false, None, None),
            (
                "redis+unix:///run/r.sock?db=2",
                ServerAddress::Unix("/run/r.sock".into()),
                false,
                None,
                Some("2"),
            ),
            (
                "redis+unix://me@/run/r.sock",
                ServerAddress::Unix("/run/r.sock".into()),
                false,
                Some("me"),
                None,
            ),
        ] {
            let read = redis(url).unwrap();
            let found = (read.address, read.is_tls, read.user.as_deref(), read.database.as_deref());
            assert_eq!(found, (address, is_tls, user, database), "{url}");
        }
        for url in [
            "r.example",
            "http://r",
            "redis://",
            "redis://r:0",
            "redis://r:x",
            "redis://r/one",
            "redis://u:hunter2@r",
            "redis://r?password=hunter2",
            "redis+unix:///",
            "redis+unix://h/run/r",
            "redis://r%20",
        ] {
            let told = redis(url).unwrap_err();
            assert!(!told.contains("hunter2"), "{url}: {told}");
        }
    }

    #[test]
    fn urls_of_postgres_are_read() {
        for (url, address, is_tls, database) in [
            ("postgres://me@p.example/fills", tcp("p.example", 5432), true, Some("fills")),
            ("postgresql://me@p:1/fills?sslmode=disable", tcp("p", 1), false, Some("fills")),
            ("postgres://me@p?sslmode=verify-full", tcp("p", 5432), true, None),
            (
                "postgres://me@/f?host=/run/postgresql&port=5433",
                ServerAddress::Unix("/run/postgresql/.s.PGSQL.5433".into()),
                false,
                Some("f"),
            ),
        ] {
            let read = postgres(url).unwrap();
            let found = (read.address, read.is_tls, read.user.as_deref(), read.database.as_deref());
            assert_eq!(found, (address, is_tls, Some("me"), database), "{url}");
        }
        for url in [
            "postgres://p/fills",
            "postgres://me@/fills",
            "postgres://me:hunter2@p/f",
            "postgres://me@p/f?password=hunter2",
            "postgres://me@p/f?sslmode=require",
            "postgres://me@p/f?host=/run",
            "postgres://me@/f?host=/run&sslmode=verify-full",
            "postgres://me@p:99999/f",
            "redis://me@p/f",
        ] {
            let told = postgres(url).unwrap_err();
            assert!(!told.contains("hunter2"), "{url}: {told}");
        }
    }

    #[test]
    fn connections_without_tls_to_other_hosts_are_known() {
        for (url, is_plain) in [
            ("redis://localhost", false),
            ("redis://127.0.0.7", false),
            ("redis://[::1]:7", false),
            ("redis://10.0.0.1", true),
            ("redis://localhost.example", true),
            ("rediss://10.0.0.1", false),
            ("redis+unix:///run/r", false),
        ] {
            assert_eq!(is_plain_to_another_host(&redis(url).unwrap()), is_plain, "{url}");
        }
    }

    #[test]
    fn urls_of_nats_are_read() {
        let read = nats("nats://me@a, nats://me@[::1]:7/").unwrap();
        let seen: Vec<_> = read.iter().map(|one| (&one.address, one.is_tls, one.user.as_deref())).collect();
        assert_eq!(seen, [(&tcp("a", 4222), false, Some("me")), (&tcp("::1", 7), false, Some("me"))]);
        assert!(nats("tls://a").unwrap()[0].is_tls);
        for wrong in [
            "",
            "http://a",
            "nats://",
            "nats://a/b",
            "nats://a?x=y",
            "nats://a,tls://b",
            "nats://me@a,nats://b",
        ] {
            assert!(nats(wrong).is_err(), "{wrong}");
        }
        let told = nats("nats://me:hunter2@a").unwrap_err();
        assert!(!told.contains("hunter2"), "{told}");
    }
}
