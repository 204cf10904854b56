//! What is logged, and which `tracing` spans are traced.

use super::debug;
use crate::context;
use parking_lot::RwLock;
use std::sync::Arc;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Filter},
};

/// Crates of other people that say too much at INFO (rmcp logs what its peers claim to be, and warns of every error of theirs). A directive that names
/// one of them overrides this.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,opentelemetry=warn,opentelemetry_otlp=warn,\
    opentelemetry_sdk=warn,reqwest=warn,rmcp=error,rustls=warn,sqlx=warn,tonic=warn,tower=warn";

/// From DEBUG on rmcp logs whole messages: arguments of tools, results, prompts. Those are the tenants', and no directive
/// has them logged.
const CONTENTS: (&str, Level) = ("rmcp", Level::DEBUG);

fn tells_contents(metadata: &Metadata<'_>) -> bool {
    root(metadata.target()) == CONTENTS.0 && *metadata.level() >= CONTENTS.1
}

/// Our own crates, and the access log. Only these make spans, and only these log more for a debugged request.
const OWN: [&str; 9] = [
    "access",
    "chassis",
    "coordination",
    "domain",
    "mcp_server",
    "proto",
    "rest_api",
    "telemetry",
    "worker",
];

fn is_own(target: &str) -> bool {
    OWN.contains(&root(target))
}

/// The crate that a target is in.
fn root(target: &str) -> &str {
    target.split_once("::").map_or(target, |(root, _)| root)
}

/// Neither a level nor `target=level`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a level (off, error, warn, info, debug, trace) nor target=level (sqlx=debug)")]
pub struct InvalidDirective(String);

/// The level of what no directive names, where nothing says another.
const BASE: LevelFilter = LevelFilter::INFO;

/// What is logged; can be changed at any time.
#[derive(Debug)]
pub(super) struct Directives(RwLock<(String, Targets)>);

impl Directives {
    pub(super) fn new(text: &str) -> Result<Arc<Self>, InvalidDirective> {
        Ok(Arc::new(Self(RwLock::new(parse(text, BASE)?))))
    }

    pub(super) fn text(&self) -> String {
        self.0.read().0.clone()
    }

    /// Replaces all directives. Where the new ones name targets only, the level of the rest stays as it is.
    pub(super) fn set(&self, text: &str) -> Result<(), InvalidDirective> {
        let base = self.0.read().1.default_level().unwrap_or(BASE);
        *self.0.write() = parse(text, base)?;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    fn enables(&self, metadata: &Metadata<'_>) -> bool {
        !tells_contents(metadata) && self.0.read().1.would_enable(metadata.target(), metadata.level())
    }

    fn most_verbose(&self) -> LevelFilter {
        let (_, targets) = &*self.0.read();
        let named = targets.iter().map(|(_, level)| level);
        named
            .chain(targets.default_level())
            .max()
            .unwrap_or(LevelFilter::OFF)
    }
}

/// The directives in full, and what they mean. `base` is the level of the rest where only targets are named: who asks
/// for `sqlx=debug` does not want everything else to fall silent.
fn parse(text: &str, base: LevelFilter) -> Result<(String, Targets), InvalidDirective> {
    let mut all = Vec::new();
    let mut names_base = false;
    for directive in text.split(',').map(str::trim) {
        // The parser takes a lone word for a target to be logged in full: a mistyped level would go unnoticed.
        let (target, level) = directive.split_once('=').unzip();
        let level = level.unwrap_or(directive);
        if target == Some("") || level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(InvalidDirective(directive.to_owned()));
        }
        names_base |= target.is_none();
        all.push(directive);
    }
    let base = base.to_string();
    if !names_base {
        all.insert(0, &base);
    }
    let text = all.join(",");
    match format!("{QUIET},{text}").parse() {
        Ok(targets) => Ok((text, targets)),
        Err(_) => Err(InvalidDirective(text)),
    }
}

/// Lets pass the events to be logged: by the directives, or because their request is being debugged.
#[derive(Debug)]
pub(super) struct Events(pub(super) Arc<Directives>);

/// Also the question whether there would be an event: sqlx asks before it logs.
fn may_be_event(metadata: &Metadata<'_>) -> bool {
    !metadata.is_span()
}

fn may_be_debugged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG && is_own(metadata.target())
}

impl<S: Subscriber> Filter<S> for Events {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        may_be_event(metadata) && (self.0.enables(metadata) || (may_be_debugged(metadata) && debug::this()))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if !may_be_event(metadata) {
            Interest::never()
        } else if self.0.enables(metadata) {
            Interest::always()
        } else if debug::any() && may_be_debugged(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let base = self.0.most_verbose();
        Some(if debug::any() {
            base.max(LevelFilter::DEBUG)
        } else {
            base
        })
    }
}

/// Lets pass our own spans in sampled requests.
#[derive(Debug)]
pub(super) struct Spans;

impl<S: Subscriber> Filter<S> for Spans {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() && is_own(metadata.target()) && context::is_sampled()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let ours = metadata.is_span() && *metadata.level() <= Level::INFO && is_own(metadata.target());
        if ours {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_levels_or_name_a_target() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,sqlx=debug",
            " debug , rest_api::store=trace ",
        ] {
            assert!(Directives::new(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,", "sqlx=loud", "info,,warn", "=debug"] {
            assert!(Directives::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn noisy_peers_speak_up_only_when_named() {
        let enables = |text: &str, target| parse(text, BASE).unwrap().1.would_enable(target, &Level::INFO);
        assert!(!enables("debug", "rmcp::service"));
        assert!(enables("info,rmcp=info", "rmcp::service"));
        assert!(enables("info", "rest_api::store"));
    }

    #[test]
    fn the_rest_keeps_its_level_where_only_targets_are_named() {
        let directives = Directives::new("sqlx=debug").unwrap();
        assert_eq!(directives.text(), "info,sqlx=debug");
        directives.set("warn,worker=trace").unwrap();
        directives.set("sqlx=debug, mcp_server=trace").unwrap();
        assert_eq!(directives.text(), "warn,sqlx=debug,mcp_server=trace");
        let targets = &directives.0.read().1;
        assert!(targets.would_enable("sqlx::query", &Level::DEBUG));
        assert!(targets.would_enable("rest_api", &Level::WARN));
        assert!(!targets.would_enable("worker", &Level::INFO));
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let directives = Directives::new("info").unwrap();
        assert!(directives.set("loud").is_err());
        assert_eq!(directives.text(), "info");
        directives.set("warn,worker=debug").unwrap();
        assert_eq!(directives.text(), "warn,worker=debug");
        assert_eq!(directives.most_verbose(), LevelFilter::DEBUG);
    }
}
