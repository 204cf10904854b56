//! `completion/complete`: what may stand in the place of a resource template's variable, or of a prompt's argument.
//! Answers are ids and names, for that is what stands there; they are found by their beginning, or by the beginning of the
//! context's, the tool's or the incident's name.

use crate::{
    error::{Error, Result},
    prompts::{self, SERVICES, argument},
    resources::{self, Uri},
    tools::{Call, view},
};
use domain::Scope;
use proto::v1::{ListContextsRequest, ListExecutionsRequest, ListIncidentsRequest};
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

/// How many of the latest contexts or executions are looked through, in pages of so many.
const LOOKED_THROUGH: usize = 1000;
const PAGE: u32 = 200;
/// The longest that a client may have typed, bytes: names are no longer.
const MAX_TYPED: usize = 256;

/// What fits what was typed.
pub(crate) async fn complete(call: Call<'_>, request: &CompleteRequestParams) -> Result<CompleteResult> {
    let mut fitting = Fitting::new(&request.argument.value);
    let name = request.argument.name.as_str();
    match &request.r#ref {
        Reference::Resource(template) => variable(call, &template.uri, name, &mut fitting).await?,
        Reference::Prompt(prompt) => of_prompt(call, &prompt.name, name, &mut fitting).await?,
        _ => {
            return Err(Error::Arguments(
                "ref: expected a prompt or a resource".to_owned(),
            ));
        }
    }
    fitting.into_result()
}

/// An argument of a prompt.
async fn of_prompt(call: Call<'_>, prompt: &str, name: &str, fitting: &mut Fitting) -> Result<()> {
    match prompts::takes(prompt, name) {
        None => {
            return Err(Error::Arguments(
                "ref.name: expected a prompt of prompts/list".to_owned(),
            ));
        }
        Some(false) => {
            return Err(Error::Arguments(
                "argument.name: the prompt does not take it".to_owned(),
            ));
        }
        Some(true) => {}
    }
    match name {
        argument::ALERT => fitting.look_at_names(knowledge::runbooks().iter().map(|runbook| runbook.alert)),
        argument::INCIDENT => incidents(call, fitting).await?,
        argument::SLO => {
            fitting.look_at_names(knowledge::objectives().iter().map(|objective| objective.name))
        }
        argument::SERVICE => fitting.look_at_names(SERVICES),
        // Ids of requests and traces come from elsewhere.
        _ => {}
    }
    Ok(())
}

/// A variable of a resource template.
async fn variable(call: Call<'_>, template: &str, name: &str, fitting: &mut Fitting) -> Result<()> {
    match (template, name) {
        (Uri::CONTEXTS, "id") => contexts(call, fitting).await?,
        (Uri::EXECUTIONS | Uri::RESULTS, "id") => executions(call, fitting).await?,
        (Uri::INCIDENTS | Uri::POSTMORTEMS, "id") => incidents(call, fitting).await?,
        (Uri::RUNBOOK, "alert") => {
            fitting.look_at_names(knowledge::runbooks().iter().map(|runbook| runbook.alert))
        }
        (Uri::DASHBOARDS, "uid") => {
            for dashboard in knowledge::dashboards() {
                fitting.look_at(dashboard.uid.to_owned(), dashboard.title);
            }
        }
        // Where pages begin is told by the pages.
        (Uri::RESULTS, "offset") => resources::require_executions(call.caller)?,
        (
            Uri::CONTEXTS
            | Uri::EXECUTIONS
            | Uri::RESULTS
            | Uri::INCIDENTS
            | Uri::POSTMORTEMS
            | Uri::RUNBOOK
            | Uri::DASHBOARDS,
            _,
        ) => {
            return Err(Error::Arguments("argument.name: not in the template".to_owned()));
        }
        _ => {
            return Err(Error::Arguments(
                "ref.uri: expected a template of resources/templates/list".to_owned(),
            ));
        }
    }
    Ok(())
}

/// What was found so far.
struct Fitting {
    typed: String,
    ids: Vec<String>,
    total: u32,
    looked_at: usize,
    /// There are more than were looked at.
    more: bool,
}

impl Fitting {
    fn new(typed: &str) -> Self {
        Self {
            typed: typed[..typed.floor_char_boundary(MAX_TYPED)].to_lowercase(),
            ids: Vec::new(),
            total: 0,
            looked_at: 0,
            more: false,
        }
    }

    fn look_at(&mut self, id: String, name: &str) {
        self.looked_at += 1;
        if !id.starts_with(&self.typed) && !name.to_lowercase().starts_with(&self.typed) {
            return;
        }
        self.total += 1;
        if self.ids.len() < CompletionInfo::MAX_VALUES {
            self.ids.push(id);
        }
    }

    /// Names that stand for themselves.
    fn look_at_names(&mut self, names: impl IntoIterator<Item = &'static str>) {
        for name in names {
            self.look_at(name.to_owned(), name);
        }
    }

    /// The cursor of the next page, unless there is none or enough was looked at.
    fn go_on(&mut self, cursor: String) -> Option<String> {
        self.more = !cursor.is_empty();
        (self.more && self.looked_at < LOOKED_THROUGH).then_some(cursor)
    }

    /// How many there are in all is said where all were looked at.
    fn into_result(self) -> Result<CompleteResult> {
        let has_more = self.more || self.total as usize > self.ids.len();
        let total = (!self.more).then_some(self.total);
        let info = CompletionInfo::with_pagination(self.ids, total, has_more).map_err(Error::internal)?;
        Ok(CompleteResult::new(info))
    }
}

async fn contexts(call: Call<'_>, fitting: &mut Fitting) -> Result<()> {
    call.caller.require(Scope::ContextsRead)?;
    let mut cursor = None;
    loop {
        let request = call.caller.request(ListContextsRequest {
            page: view::page(PAGE, cursor),
            ..Default::default()
        });
        let page = call.upstream.contexts.clone().list(request).await?.into_inner();
        for context in page.contexts {
            fitting.look_at(context.id, &context.name);
        }
        cursor = fitting.go_on(page.next_cursor);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn incidents(call: Call<'_>, fitting: &mut Fitting) -> Result<()> {
    call.caller.require(Scope::ContextsRead)?;
    let mut cursor = None;
    loop {
        let request = call.caller.request(ListIncidentsRequest {
            page: view::page(PAGE, cursor),
            ..Default::default()
        });
        let page = call.upstream.incidents.clone().list(request).await?.into_inner();
        for incident in page.incidents {
            fitting.look_at(incident.id, &incident.title);
        }
        cursor = fitting.go_on(page.next_cursor);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn executions(call: Call<'_>, fitting: &mut Fitting) -> Result<()> {
    resources::require_executions(call.caller)?;
    let mut cursor = None;
    loop {
        let request = call.caller.request(ListExecutionsRequest {
            page: view::page(PAGE, cursor),
            ..Default::default()
        });
        let page = call.upstream.executions.clone().list(request).await?.into_inner();
        for execution in page.executions {
            fitting.look_at(execution.id, &execution.tool);
        }
        cursor = fitting.go_on(page.next_cursor);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_by_their_own_and_by_their_names_beginning() {
        let found = |typed: &str| {
            let mut fitting = Fitting::new(typed);
            fitting.look_at("019a-1".into(), "Incident 7");
            fitting.look_at("019b-2".into(), "release notes");
            fitting.into_result().expect("an answer").completion.values
        };
        assert_eq!(found(""), ["019a-1", "019b-2"]);
        assert_eq!(found("019b"), ["019b-2"]);
        assert_eq!(found("inc"), ["019a-1"]);
        assert_eq!(found("REL"), ["019b-2"]);
        assert!(found("notes").is_empty());
    }

    #[test]
    fn a_hundred_are_answered_and_the_rest_is_counted_where_it_is_known() {
        let mut fitting = Fitting::new("");
        for n in 0..250 {
            fitting.look_at(n.to_string(), "");
        }
        assert_eq!(fitting.go_on(String::new()), None);
        let found = fitting.into_result().expect("an answer").completion;
        assert_eq!(
            (found.values.len(), found.total, found.has_more),
            (100, Some(250), Some(true))
        );

        let mut fitting = Fitting::new("x");
        assert_eq!(fitting.go_on("next".into()), Some("next".into()));
        fitting.looked_at = LOOKED_THROUGH;
        assert_eq!(fitting.go_on("next".into()), None);
        let found = fitting.into_result().expect("an answer").completion;
        assert_eq!(
            (found.values.len(), found.total, found.has_more),
            (0, None, Some(true))
        );
    }
}
