//! Which operations are wanted.

use crate::{
    names::matches,
    note::{LeftOut, cut},
    operation::Operation,
};
use domain::Invalid;

/// The most entries of one list.
const MAX_ENTRIES: usize = 500;
/// The longest entry, bytes.
const MAX_ENTRY: usize = 512;

/// What must be true of an operation to be chosen: each list that is not empty must have an entry that fits. `*` stands
/// for any characters.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// `operationId`s, or names of the tools that they become.
    pub operations: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Paths, as the document writes them.
    pub paths: Vec<String>,
    /// Methods, in any case.
    pub methods: Vec<String>,
}

impl Selection {
    /// # Errors
    /// When there are too many entries, or one is too long.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        for (field, list) in [
            ("operations", &self.operations),
            ("tags", &self.tags),
            ("paths", &self.paths),
            ("methods", &self.methods),
        ] {
            if list.len() > MAX_ENTRIES
                || list
                    .iter()
                    .any(|entry| entry.is_empty() || entry.len() > MAX_ENTRY)
            {
                let expected = format!("at most {MAX_ENTRIES} entries of 1 to {MAX_ENTRY} bytes");
                return Err(Invalid::new(field, expected));
            }
        }
        Ok(())
    }

    pub(crate) fn chooses(&self, operation: &Operation<'_>) -> bool {
        let any =
            |list: &[String], fits: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|e| fits(e));
        any(&self.methods, &|word| word.eq_ignore_ascii_case(operation.word))
            && any(&self.paths, &|pattern| matches(pattern, operation.path))
            && any(&self.operations, &|pattern| names(pattern, operation))
            && any(&self.tags, &|pattern| {
                operation.tags().any(|tag| matches(pattern, tag))
            })
    }

    /// Operations that were asked for by name and are not there.
    pub(crate) fn missing(&self, operations: &[Operation<'_>]) -> Vec<LeftOut> {
        let by_name = self.operations.iter().filter(|name| !name.contains('*'));
        by_name
            .filter(|name| !operations.iter().any(|operation| names(name, operation)))
            .map(|name| LeftOut {
                operation: cut(name, 200),
                code: "no_such_operation",
                text: "the document has no operation of this name".into(),
            })
            .collect()
    }
}

fn names(pattern: &str, operation: &Operation<'_>) -> bool {
    matches(pattern, &operation.name) || operation.id.is_some_and(|id| matches(pattern, id))
}
