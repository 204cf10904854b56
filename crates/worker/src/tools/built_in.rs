//! The product's own tools: what each of them says about itself, and how one is called.

use crate::{
    outcome::{Code, Failure},
    progress::Reporter,
    sources::{Kind, Sources, Who},
};
use domain::{JsonObject, Scope, Time};
use futures_util::future::BoxFuture;
use proto::v1;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What a call of one of the product's tools works with.
pub struct Desk<'a> {
    /// Every source; [`Sources::pick`] gives what the caller may have.
    pub sources: &'a Sources,
    /// Who calls.
    pub who: Who<'a>,
    /// Tells how far it has come.
    pub progress: &'a Reporter,
    /// When the call began; relative times count from here.
    pub now: Time,
}

/// What a client may expect of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing.
    ReadOnly,
    /// It adds. Twice adds twice.
    Additive,
    /// It changes what is there. Twice is as good as once.
    Changing,
}

/// A tool that is part of the product.
pub trait BuiltIn: 'static {
    /// Its name; stands in [`domain::tool::built_in`], too.
    const NAME: &'static str;
    /// A person's name for it.
    const TITLE: &'static str;
    /// What it does, for the agent that chooses. Every listing pays for each word.
    const DESCRIPTION: &'static str;
    /// The scope that it needs.
    const SCOPE: Scope = Scope::ObserveRead;
    /// What it may do.
    const EFFECT: Effect = Effect::ReadOnly;
    /// The kinds of sources without which it is of no use.
    const NEEDS: &'static [Kind];
    /// How long a call may take.
    const TIMEOUT: Duration = Duration::from_secs(30);
    /// What it is called with; unknown members are refused (`deny_unknown_fields`).
    type Arguments: DeserializeOwned + JsonSchema + Send;

    /// Runs it. What the caller may ask has been checked but for the sources, which [`Sources::pick`] does.
    fn run(
        desk: &Desk<'_>,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Value, Failure>> + Send;
}

type Run = for<'a> fn(&'a Desk<'a>, JsonObject) -> BoxFuture<'a, Result<Value, Failure>>;

/// A tool of the product, ready to be listed and called.
pub struct Entry {
    listed: v1::BuiltInTool,
    needs: &'static [Kind],
    run: Run,
}

impl Entry {
    /// What `B` says about itself.
    pub fn of<B: BuiltIn>() -> (&'static str, Self) {
        let schema = Value::Object(domain::schema::of::<B::Arguments>());
        let listed = v1::BuiltInTool {
            name: B::NAME.to_owned(),
            title: B::TITLE.to_owned(),
            description: B::DESCRIPTION.to_owned(),
            input_schema_json: schema.to_string(),
            scope: B::SCOPE.as_str().to_owned(),
            timeout_ms: u32::try_from(B::TIMEOUT.as_millis()).unwrap_or(domain::tool::MAX_TIMEOUT_MS),
            read_only: B::EFFECT == Effect::ReadOnly,
            idempotent: B::EFFECT != Effect::Additive,
            destructive: false,
            tenants: Vec::new(),
            platform: false,
        };
        let run: Run = |desk, arguments| {
            Box::pin(async move {
                let arguments = serde_json::from_value(Value::Object(arguments))
                    .map_err(|error| Failure::new(Code::InvalidArguments, error.to_string()))?;
                B::run(desk, arguments).await
            })
        };
        let needs = B::NEEDS;
        (B::NAME, Self { listed, needs, run })
    }

    /// Calls it.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn run(&self, desk: &Desk<'_>, arguments: JsonObject) -> Result<Value, Failure> {
        (self.run)(desk, arguments).await
    }

    /// As rest-api is told of it, where anybody has the sources that it needs.
    pub fn listed(&self, sources: &Sources) -> Option<v1::BuiltInTool> {
        let (tenants, platform) = sources.open_to(self.needs);
        let listed = v1::BuiltInTool {
            tenants,
            platform,
            ..self.listed.clone()
        };
        (listed.platform || !listed.tenants.is_empty()).then_some(listed)
    }
}

/// All of them, by name.
pub type Entries = BTreeMap<&'static str, Entry>;
