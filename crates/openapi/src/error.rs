//! Why a document makes no plan at all.

/// What is wrong with a document, or with what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`crate::MAX_BYTES`].
    #[error("the document has more than {0} bytes")]
    TooLarge(usize),
    /// More values than [`crate::MAX_VALUES`], those that YAML aliases repeat counted each time.
    #[error("the document holds more than {0} values, those that aliases repeat counted each time")]
    TooManyValues(usize),
    /// Nested deeper than [`crate::MAX_DEPTH`].
    #[error("the document is nested more than {0} deep")]
    TooDeep(usize),
    /// Neither JSON nor YAML.
    #[error("the document is neither JSON nor YAML: {0}")]
    Syntax(String),
    /// The machine has no thread left to read it with.
    #[error("the document cannot be read now")]
    NoThread,
    /// JSON or YAML, but nothing of OpenAPI.
    #[error("the document is no OpenAPI: it {0}")]
    NotOpenApi(String),
    /// A version that is not understood.
    #[error("the document is {0}; OpenAPI 3.0 and 3.1 are understood")]
    Version(String),
    /// More operations than anyone could look through.
    #[error("the document has more than {0} operations")]
    TooManyOperations(usize),
    /// More operations were chosen than one plan may hold.
    #[error("{chosen} operations were chosen, {most} at most can be: name tags, paths or operations")]
    TooManyTools {
        /// How many.
        chosen: usize,
        /// How many there may be.
        most: usize,
    },
    /// What was asked for cannot be; the field and what was expected.
    #[error(transparent)]
    Option(#[from] domain::Invalid),
}

impl Error {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::TooManyValues(_) | Self::TooDeep(_) | Self::TooManyOperations(_) => {
                "document_too_large"
            }
            Self::Syntax(_) => "document_syntax",
            Self::NoThread => "unavailable",
            Self::NotOpenApi(_) => "not_openapi",
            Self::Version(_) => "openapi_version",
            Self::TooManyTools { .. } => "too_many_tools",
            Self::Option(_) => "invalid",
        }
    }
}
