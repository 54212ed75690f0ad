//! docs/openapi.json, made from the types and the routes.

use std::fs;

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "spillq: consumers",
        version = "1",
        description = "Programs lease lines of a group and settle them. docs/how-to/consumers.md explains it.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        routes::lease,
        routes::settle,
        routes::extend,
        routes::leave,
        routes::group,
        routes::openapi,
    ),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
    }
}

/// A change of the API changes this file: `cp target/openapi.json docs/` takes it.
#[test]
fn the_description_is_that_of_the_types() {
    let mut made = Description::openapi().to_pretty_json().unwrap();
    made.push('\n');
    let root = env!("CARGO_MANIFEST_DIR");
    let _ = fs::create_dir_all(format!("{root}/target"));
    fs::write(format!("{root}/target/openapi.json"), &made).unwrap();
    let committed = fs::read_to_string(format!("{root}/docs/openapi.json")).unwrap();
    assert!(made == committed, "docs/openapi.json differs: cp target/openapi.json docs/");
}
