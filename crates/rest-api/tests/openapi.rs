//! The API's description is part of its contract: a change of it is seen in review.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p rest-api --test openapi` writes it anew.

use std::path::Path;

#[test]
fn the_description_is_the_one_that_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let now = rest_api::http::description() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &now).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        reviewed == now,
        "docs/openapi.json is not what the handlers say; UPDATE_SNAPSHOTS=1 writes it anew"
    );
}

#[test]
fn every_operation_says_what_it_needs_and_how_it_fails() {
    let api: serde_json::Value = serde_json::from_str(&rest_api::http::description()).expect("JSON");
    assert!(api["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")));
    let paths = api["paths"].as_object().expect("paths");
    assert!(
        paths.contains_key("/api/v1/contexts/{id}/items")
            && paths.contains_key("/api/v1/tools/{name}/execute")
    );
    for (path, item) in paths {
        for (verb, operation) in item.as_object().expect("operations") {
            assert!(operation["summary"].is_string(), "{verb} {path} has no summary");
            let errors = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert_eq!(
                errors["schema"]["$ref"], "#/components/schemas/Problem",
                "{verb} {path}"
            );
        }
    }
}
