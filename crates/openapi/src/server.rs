//! Where an operation is called.

use crate::note::{Unfit, cut};
use serde_json::Value;
use url::Url;

/// The longest address of a server, bytes.
const MAX_BYTES: usize = 2048;
/// The most servers of one list that are looked at.
const MAX_SERVERS: usize = 16;

/// The address below which an operation's path stands, without a slash at its end.
///
/// # Errors
/// When none of the servers can be called.
pub(crate) fn base(lists: [Option<&Value>; 3], document_url: Option<&Url>) -> Result<Url, Unfit> {
    let said = lists
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .find(|servers| !servers.is_empty());
    let Some(servers) = said else {
        // What the specification has for a document that names none.
        return join("/", document_url);
    };
    let mut unfit = None;
    for server in servers.iter().take(MAX_SERVERS) {
        match address(server).and_then(|url| join(&url, document_url)) {
            Ok(url) => return Ok(url),
            Err(why) => unfit = unfit.or(Some(why)),
        }
    }
    Err(unfit.unwrap_or_else(|| Unfit::new("server_url", "no server is named")))
}

/// An address that was asked for instead.
///
/// # Errors
/// When it is none of HTTP.
pub(crate) fn instead(server: &str) -> Result<Url, Unfit> {
    join(server, None)
}

/// The server's address, its variables replaced by their defaults.
fn address(server: &Value) -> Result<String, Unfit> {
    let unfit = |text: &str| Unfit::new("server_url", text);
    let template = server.get("url").and_then(Value::as_str);
    let template = template.ok_or_else(|| unfit("a server without an address"))?;
    if template.len() > MAX_BYTES {
        return Err(unfit("a server's address is longer than 2048 bytes"));
    }
    let mut url = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| unfit("a server's address has a brace without its partner"))?;
        let value = server
            .get("variables")
            .and_then(|all| all.get(name)?.get("default")?.as_str());
        let value = value.ok_or_else(|| {
            let text = format!("the server's variable '{}' has no default", cut(name, 60));
            Unfit::new("server_variable", text)
        })?;
        url.push_str(before);
        url.push_str(value);
        rest = after;
        if url.len() > MAX_BYTES {
            return Err(unfit("a server's address is longer than 2048 bytes"));
        }
    }
    url.push_str(rest);
    Ok(url)
}

fn join(url: &str, document_url: Option<&Url>) -> Result<Url, Unfit> {
    let told = cut(url, 100);
    let parsed = match (Url::parse(url), document_url) {
        (Ok(url), _) => url,
        (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => base
            .join(url)
            .map_err(|_| Unfit::new("server_url", format!("the server '{told}' is no address")))?,
        (Err(url::ParseError::RelativeUrlWithoutBase), None) => {
            let text = format!("the server '{told}' has no host: say which with 'server'");
            return Err(Unfit::new("server_relative", text));
        }
        (Err(_), _) => {
            return Err(Unfit::new(
                "server_url",
                format!("the server '{told}' is no address"),
            ));
        }
    };
    let plain = matches!(parsed.scheme(), "http" | "https")
        && parsed.has_host()
        && parsed.username().is_empty()
        && parsed.password().is_none()
        && parsed.query().is_none()
        && parsed.fragment().is_none();
    if !plain {
        let text = format!("the server '{told}' is no plain http or https address");
        return Err(Unfit::new("server_url", text));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(servers: &Value, document: Option<&str>) -> Result<String, &'static str> {
        let document = document.map(|url| Url::parse(url).unwrap());
        base([None, Some(servers), None], document.as_ref())
            .map(String::from)
            .map_err(|unfit| unfit.code)
    }

    #[test]
    fn servers_are_plain_addresses_of_http() {
        let variables = json!([{"url": "https://{region}.example.com/{v}",
            "variables": {"region": {"default": "eu"}, "v": {"default": "v2"}}}]);
        assert_eq!(of(&variables, None).unwrap(), "https://eu.example.com/v2");
        let second = json!([{"url": "javascript:alert(1)"}, {"url": "ws://x"}, {"url": "https://h/"}]);
        assert_eq!(of(&second, None).unwrap(), "https://h/");
        let document = Some("https://docs.example.com/a/openapi.yaml");
        assert_eq!(
            of(&json!([{"url": "../v1"}]), document).unwrap(),
            "https://docs.example.com/v1"
        );
        assert_eq!(of(&json!([]), document).unwrap(), "https://docs.example.com/");
        for (url, code) in [
            ("/v1", "server_relative"),
            ("https://u:p@h/", "server_url"),
            ("https://h/?a=b", "server_url"),
            ("javascript:alert(1)", "server_url"),
            ("file:///etc/passwd", "server_url"),
            ("https://{host}/", "server_variable"),
            ("https://{host", "server_url"),
        ] {
            assert_eq!(of(&json!([{"url": url}]), None).unwrap_err(), code, "{url}");
        }
        // Dots climb no higher than the host's root, before anything is put into the path.
        let climbs = json!([{"url": "https://h/v1/../../../etc"}]);
        assert_eq!(of(&climbs, None).unwrap(), "https://h/etc");
    }
}
