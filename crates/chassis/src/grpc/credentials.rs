use crate::same_secret;
use secrecy::SecretString;
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// The metadata key of the credential.
const AUTHORIZATION: &str = "authorization";

/// Puts a credential (the caller's own, or the service token) on a request.
///
/// # Errors
/// `UNAUTHENTICATED` when it holds bytes that cannot be in a header: such a credential cannot be good.
pub fn with_bearer<T>(mut request: Request<T>, token: &str) -> Result<Request<T>, Status> {
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Status::unauthenticated("the credential is malformed"))?;
    value.set_sensitive(true);
    request.metadata_mut().insert(AUTHORIZATION, value);
    Ok(request)
}

/// The credential that a request carries.
pub fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let (scheme, token) = metadata.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Holds the caller to the service token.
///
/// # Errors
/// `UNAUTHENTICATED` without the right one, `PERMISSION_DENIED` when this service has none configured.
pub fn require_service_token(metadata: &MetadataMap, expected: Option<&SecretString>) -> Result<(), Status> {
    let Some(expected) = expected else {
        return Err(Status::permission_denied(
            "this needs the service token and none is configured (set SERVICE_TOKEN)",
        ));
    };
    match bearer(metadata) {
        Some(given) if same_secret(given, expected) => Ok(()),
        _ => Err(Status::unauthenticated("this needs the service token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_credential_travels_and_the_service_token_is_checked() {
        let request = with_bearer(Request::new(()), "s3cret").expect("plain ASCII");
        assert_eq!(bearer(request.metadata()), Some("s3cret"));
        assert!(format!("{:?}", request.metadata()).contains("Sensitive"));

        let expected = SecretString::from("s3cret");
        assert!(require_service_token(request.metadata(), Some(&expected)).is_ok());
        let code = |expected: Option<&SecretString>| {
            require_service_token(request.metadata(), expected)
                .expect_err("refused")
                .code()
        };
        assert_eq!(code(Some(&SecretString::from("other"))), Code::Unauthenticated);
        assert_eq!(code(None), Code::PermissionDenied);
        assert!(with_bearer(Request::new(()), "two\nlines").is_err());
    }
}
