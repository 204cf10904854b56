//! Requests to the parts of an installation, and what came of them in words.

use serde_json::Value;
use std::{
    io,
    time::{Duration, Instant, SystemTime},
};
use ureq::http::{HeaderMap, Response};

/// For one request. What answers slower is as good as away to whoever is to work with it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer: all metrics of a large service are a few MiB.
const LARGEST: u64 = 64 << 20;
/// How much of an answer is told.
const TOLD: usize = 200;
/// Between one look and the next at what is to come about.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes requests.
pub(super) struct Client(ureq::Agent);

/// What was answered.
pub(super) struct Answer {
    /// The request as it is told: without secrets.
    pub(super) asked: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// When it was sent, and when it was answered, by this host's clock.
    pub(super) sent: SystemTime,
    pub(super) came: SystemTime,
}

/// Why there is no answer, or none that could be used.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// The request as it is told.
    pub(super) asked: String,
    /// What came instead.
    pub(super) came: String,
    /// Nobody listens there.
    pub(super) is_away: bool,
    /// Somebody does, or a firewall keeps quiet.
    pub(super) is_late: bool,
}

/// A request to be made.
pub(super) struct Ask<'a> {
    url: String,
    query: Vec<(&'a str, &'a str)>,
    bearer: Option<&'a str>,
    headers: Vec<(&'a str, String)>,
}

impl<'a> Ask<'a> {
    /// Of a part's address and a path.
    pub(super) fn of(base: &str, path: &str) -> Self {
        Self {
            url: format!("{}{path}", base.trim_end_matches('/')),
            query: Vec::new(),
            bearer: None,
            headers: Vec::new(),
        }
    }

    /// With a parameter.
    pub(super) fn query(mut self, name: &'a str, value: &'a str) -> Self {
        self.query.push((name, value));
        self
    }

    /// With a credential, which is not told.
    pub(super) const fn bearer(mut self, token: &'a str) -> Self {
        self.bearer = Some(token);
        self
    }

    /// With a header, which is not told either.
    pub(super) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn told(&self, method: &str) -> String {
        let mut told = format!("{method} {}", without_secrets(&self.url));
        for (at, (name, value)) in self.query.iter().enumerate() {
            told.push(if at == 0 { '?' } else { '&' });
            told += &format!("{name}={value}");
        }
        told
    }

    fn dress<B>(&self, mut request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        for (name, value) in &self.query {
            request = request.query(*name, *value);
        }
        if let Some(token) = self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }
}

impl Client {
    pub(super) fn new() -> Self {
        // No proxy: the environment's would be asked for addresses on this host. Redirects are answers, too.
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        Self(config.into())
    }

    /// A GET.
    pub(super) fn get(&self, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let sent = SystemTime::now();
        let result = ask.dress(self.0.get(&ask.url)).call();
        read(ask.told("GET"), sent, result)
    }

    /// A POST of JSON.
    pub(super) fn post(&self, ask: &Ask<'_>, body: &Value) -> Result<Answer, Failed> {
        let sent = SystemTime::now();
        let result = ask.dress(self.0.post(&ask.url)).send_json(body);
        read(ask.told("POST"), sent, result)
    }

    /// A GET that must be answered with 200 and JSON.
    pub(super) fn json(&self, ask: &Ask<'_>) -> Result<Value, Failed> {
        self.get(ask)?.ok()?.json()
    }
}

impl Answer {
    /// Itself when the status is 200.
    pub(super) fn ok(self) -> Result<Self, Failed> {
        if self.status == 200 {
            return Ok(self);
        }
        Err(self.but(&self.told()))
    }

    /// Its body.
    pub(super) fn json(&self) -> Result<Value, Failed> {
        serde_json::from_str(&self.body).map_err(|_| self.but(&format!("no JSON: {}", self.told())))
    }

    /// A header, empty when there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The status, and the beginning of what was said with it.
    pub(super) fn told(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        // A problem's own words are better than its JSON.
        let text = match (body["code"].as_str(), body["detail"].as_str()) {
            (Some(code), Some(detail)) => format!("{code}: {detail}"),
            _ => self.body.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        format!("{} {}", self.status, cut(&text)).trim_end().to_owned()
    }

    /// That it cannot be used.
    pub(super) fn but(&self, came: &str) -> Failed {
        Failed {
            asked: self.asked.clone(),
            came: came.to_owned(),
            is_away: false,
            is_late: false,
        }
    }
}

fn read(
    asked: String,
    sent: SystemTime,
    result: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, Failed> {
    let failed = |error: &ureq::Error| Failed {
        asked: asked.clone(),
        came: in_words(error),
        is_away: is_away(error),
        is_late: matches!(error, ureq::Error::Timeout(_)),
    };
    let mut response = result.map_err(|error| failed(&error))?;
    // The head is what the clocks are compared by: a long body is no skew.
    let came = SystemTime::now();
    let body = response.body_mut().with_config().limit(LARGEST).lossy_utf8(true);
    let body = body.read_to_string().map_err(|error| failed(&error))?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        asked,
        body,
        sent,
        came,
    })
}

fn is_away(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        _ => false,
    }
}

fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there".to_owned()
        }
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
        other => other.to_string(),
    }
}

/// A URL without the user and password in it.
pub(super) fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

/// The beginning of a text.
pub(super) fn cut(text: &str) -> String {
    if text.chars().count() <= TOLD {
        return text.to_owned();
    }
    text.chars().take(TOLD).chain(['…']).collect()
}

/// Looks again and again until `look` gives something, for `limit` at most; the last complaint otherwise.
pub(super) fn wait<T, E>(limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let started = Instant::now();
    loop {
        let asked = started.elapsed();
        match look() {
            Err(_) if asked < limit => std::thread::sleep(PAUSE),
            last => return last,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer as a part would give it.
    pub(in crate::doctor) fn answer(status: u16, body: &Value) -> Answer {
        Answer {
            asked: "GET http://x/".to_owned(),
            status,
            headers: HeaderMap::new(),
            body: body.to_string(),
            sent: SystemTime::UNIX_EPOCH,
            came: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_told_of_a_request_holds_no_secret() {
        let ask = Ask::of("http://me:pass@host:1/", "/api")
            .query("query", "up == 0")
            .bearer("secret");
        assert_eq!(ask.told("GET"), "GET http://host:1/api?query=up == 0");
        assert_eq!(without_secrets("http://host/a@b"), "http://host/a@b");
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(300)).chars().count(), TOLD + 1);
    }
}
