//! The operations of a document, under the names that their tools would have.

use crate::{
    Document, Error,
    names::{self, Names},
    note::{LeftOut, Unfit, cut},
};
use domain::tool::Method;
use serde_json::Value;

/// The most operations that are looked through.
const MAX_OPERATIONS: usize = 20_000;
/// The longest path and the longest `operationId`, bytes: longer ones are nobody's, and would be looked at for every
/// entry of a selection.
const MAX_PATH: usize = 2048;
const MAX_ID: usize = 256;
/// How many tags of an operation are looked at, and how long they may be, bytes.
const MAX_TAGS: usize = 16;
const MAX_TAG: usize = 256;
/// What a path may hold beside operations, and operations that a tool cannot be.
const METHODS: [(&str, Option<Method>); 9] = [
    ("get", Some(Method::Get)),
    ("head", Some(Method::Head)),
    ("post", Some(Method::Post)),
    ("put", Some(Method::Put)),
    ("patch", Some(Method::Patch)),
    ("delete", Some(Method::Delete)),
    ("options", None),
    ("trace", None),
    ("query", None),
];

/// One operation.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    /// Its tool's name. The same whatever is chosen, so that an import can be done again.
    pub(crate) name: String,
    pub(crate) id: Option<&'a str>,
    /// `None`: a method that tools do not have.
    pub(crate) method: Option<Method>,
    pub(crate) word: &'static str,
    pub(crate) path: &'a str,
    pub(crate) item: &'a Value,
    pub(crate) value: &'a Value,
}

impl<'a> Operation<'a> {
    /// What people call it.
    pub(crate) fn title(&self) -> String {
        match self.id {
            Some(id) => cut(id, 200),
            None => format!("{} {}", self.word.to_uppercase(), cut(self.path, 200)),
        }
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &'a str> {
        let tags = self.value.get("tags").and_then(Value::as_array);
        let tags = tags
            .into_iter()
            .flatten()
            .take(MAX_TAGS)
            .filter_map(Value::as_str);
        tags.filter(|tag| tag.len() <= MAX_TAG)
    }
}

/// All of them, in the order of their paths, and the paths that could not be read.
///
/// # Errors
/// When there are too many.
pub(crate) fn all<'a>(
    document: &'a Document,
    prefix: &str,
) -> Result<(Vec<Operation<'a>>, Vec<LeftOut>), Error> {
    let mut names = Names::default();
    let (mut operations, mut unread) = (Vec::new(), Vec::new());
    for (path, item) in document.paths().filter(|(path, _)| path.starts_with('/')) {
        let resolved = match document.references().resolve(item) {
            _ if path.len() > MAX_PATH => Err(Unfit::new("path", "the path is longer than 2048 bytes")),
            resolved => resolved,
        };
        let item = match resolved {
            Ok(item) => item,
            Err(unfit) => {
                unread.push(LeftOut {
                    operation: cut(path, 200),
                    code: unfit.code,
                    text: unfit.text,
                });
                continue;
            }
        };
        for (word, method) in METHODS {
            let Some(value) = item.get(word).filter(|value| value.is_object()) else {
                continue;
            };
            if operations.len() >= MAX_OPERATIONS {
                return Err(Error::TooManyOperations(MAX_OPERATIONS));
            }
            let id = value
                .get("operationId")
                .and_then(Value::as_str)
                .filter(|id| !id.is_empty() && id.len() <= MAX_ID);
            operations.push(Operation {
                name: names.take(&names::tool(prefix, id, word, path)),
                id,
                method,
                word,
                path,
                item,
                value,
            });
        }
    }
    Ok((operations, unread))
}
