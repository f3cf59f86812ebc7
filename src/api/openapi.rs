//! The description of the API (OpenAPI 3.1), made of the same functions as its routes.
//!
//! An operation says of itself, in `#[utoipa::path]`, what nobody else can know: its method and path,
//! its body, and its answers. What all have in common is added here: the key that is needed, the
//! names in the path, and the problems.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::openapi::path::Paths;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::config::{ApiAction, Limits};
use crate::protocol::{
    ConnectionId, ErrorCode, EventName, MAX_EVENT_BYTES, MAX_ROOM_BYTES, MAX_USER_BYTES, Pattern, RoomName, UserId,
};

use super::key::Caller;
use super::{Api, json};

/// The name of the way to prove oneself.
const SCHEME: &str = "api_key";
/// One character and more, and no control characters.
const NAME_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]+$";

/// An operation with its description, as `routes!` makes it.
pub(super) type Described = UtoipaMethodRouter<Arc<Api>>;

/// An operation that needs a key which allows an action.
pub(super) fn needs(action: ApiAction, (schemas, paths, router): Described) -> Described {
    let check = move |caller: Caller, request: Request, next: Next| async move {
        match caller.may(action) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    (schemas, secured(paths, &[action.as_str()]), router.route_layer(middleware::from_fn(check)))
}

/// An operation for whoever has a key.
pub(super) fn needs_any_key((schemas, paths, router): Described) -> Described {
    (schemas, secured(paths, &[]), router)
}

fn secured(mut paths: Paths, actions: &[&str]) -> Paths {
    for item in paths.paths.values_mut() {
        let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in methods.into_iter().flatten() {
            operation.security = Some(vec![SecurityRequirement::new(SCHEME, actions.iter().copied())]);
        }
    }
    paths
}

/// This description, with the limits that are in force.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", responses((status = 200, body = Value)))]
pub(super) async fn openapi(State(api): State<Arc<Api>>) -> Response {
    json(&document(super::operations().into_openapi(), &api.parts.limits.get()))
}

/// The whole document: what the operations say, and what they have in common.
fn document(openapi: OpenApi, limits: &Limits) -> Value {
    let mut document = serde_json::to_value(openapi).unwrap_or_default();
    without_null(&mut document);
    set(&mut document, &["info"], info(limits));
    set(&mut document, &["components", "responses"], problems());
    set(
        &mut document,
        &["components", "securitySchemes", SCHEME],
        json!({
            "type": "http",
            "scheme": "bearer",
            "description": "An API key. What an operation requires of it is an action that the key must \
                            allow; all that the request concerns must be of the key's patterns of rooms.",
        }),
    );
    for (_, list) in each(document.pointer_mut("/components/schemas/Target/properties")) {
        if list.get("items").is_some() {
            set(list, &["maxItems"], limits.max_targets.into());
        }
    }
    for (path, methods) in each(document.get_mut("paths")) {
        for (_, operation) in each(Some(methods)) {
            complete(path, operation);
        }
    }
    document
}

fn info(limits: &Limits) -> Value {
    json!({
        "title": "wsgate, backend API",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        "description": format!(
            "For backends: events in, look-ups out. The contract is protocol.md. Bodies are JSON, whatever \
             their `Content-Type` says, of {} bytes at most. No field may be `null`, but for `data`.",
            limits.max_body_bytes
        ),
    })
}

/// Adds to an operation what follows from its path, its body and the action that it needs.
fn complete(path: &str, operation: &mut Value) {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameters: Vec<Value> = names.map(parameter).collect();
    let mut statuses = Vec::new();
    // A number that cannot be is that of nothing: 404, which the operation says itself.
    if parameters.iter().any(|parameter| parameter.pointer("/schema/$ref").is_some()) {
        statuses.push("400");
    }
    if operation.get("requestBody").is_some() {
        statuses.extend(["400", "408", "413"]);
    }
    if operation.get("security").is_some() {
        statuses.push("401");
    }
    if operation.pointer(&format!("/security/0/{SCHEME}/0")).is_some() {
        statuses.push("403");
    }
    for status in statuses {
        set(operation, &["responses", status], json!({}));
    }
    for (status, response) in each(operation.get_mut("responses")) {
        if response.get("content").is_none() {
            *response = json!({ "$ref": format!("#/components/responses/{status}") });
        } else if response.get("description").is_none() {
            set(response, &["description"], "It is done.".into());
        }
    }
    if !parameters.is_empty() {
        set(operation, &["parameters"], parameters.into());
    }
}

/// What a name in a path is: a name means the same in all paths.
fn parameter(name: &str) -> Value {
    let schema = match name {
        "user" => json!({ "$ref": "#/components/schemas/UserId" }),
        "room" => json!({ "$ref": "#/components/schemas/RoomName" }),
        _ => json!({ "type": "integer", "minimum": 1 }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// The problem document of each status, with the codes that come with it.
fn problems() -> Value {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in ErrorCode::ALL.into_iter().filter(|code| !NOT_HERE.contains(code)) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), problem(status, &codes))).collect()
}

/// Codes that only the public door gives.
const NOT_HERE: [ErrorCode; 19] = [
    ErrorCode::UnknownType,
    ErrorCode::NotJoined,
    ErrorCode::TooManyRooms,
    ErrorCode::RoomFull,
    ErrorCode::NotAsked,
    ErrorCode::DataTooLarge,
    ErrorCode::TooFast,
    ErrorCode::TooManyPending,
    ErrorCode::BackendUnavailable,
    ErrorCode::BackendTimeout,
    ErrorCode::BackendFailed,
    ErrorCode::CallRefused,
    ErrorCode::NotConfigured,
    ErrorCode::TokenRefused,
    ErrorCode::WrongUser,
    ErrorCode::UpgradeRequired,
    ErrorCode::BadUpgrade,
    ErrorCode::OriginNotAllowed,
    ErrorCode::TooManyAttempts,
];

fn problem(status: u16, codes: &[ErrorCode]) -> Value {
    let title = codes.first().and_then(|code| code.status().canonical_reason());
    let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let schema = json!({
        "type": "object",
        "required": ["title", "status", "code", "detail"],
        "properties": {
            "title": { "const": title },
            "status": { "const": status },
            "code": { "enum": codes },
            "detail": { "type": "string", "description": "a sentence for a person" },
            "field": { "type": "string", "description": "the path of the field at fault, as in `to.rooms[1]`" },
        },
    });
    let mut response = json!({
        "description": format!("{}: a problem document (RFC 9457)", codes.join(", ")),
        "content": { "application/problem+json": { "schema": schema } },
    });
    if status == 401 {
        let header = json!({ "required": true, "schema": { "const": "Bearer" } });
        set(&mut response, &["headers", "WWW-Authenticate"], header);
    }
    response
}

/// A field that is an `Option` is missing, in this API, or has a value: it is never `null`, as the
/// library would have it.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            fields.values_mut().for_each(without_null);
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    fields.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
                choices.retain(|choice| choice != &json!({ "type": "null" }));
                if let [Value::Object(one)] = choices.as_slice() {
                    let one = one.clone();
                    fields.remove("oneOf");
                    fields.extend(one);
                }
            }
        }
        _ => {}
    }
}

/// The fields of an object, if it is one.
fn each(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flatten()
}

/// Sets a field, and makes the objects on the way to it that are not there.
fn set(value: &mut Value, path: &[&str], to: Value) {
    let mut place = value;
    for name in path {
        let Value::Object(fields) = place else { return };
        place = fields.entry(*name).or_insert_with(|| json!({}));
    }
    *place = to;
}

/// Describes a text of so many bytes.
fn text(pattern: Option<&str>, max_bytes: usize, what: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::String).pattern(pattern);
    let object = object.min_length(Some(1)).max_length(Some(max_bytes));
    object.description(Some(format!("{what}: 1 to {max_bytes} bytes of UTF-8"))).into()
}

macro_rules! described {
    ($type:ty, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $type {}
    };
}

described!(RoomName, text(Some(NAME_PATTERN), MAX_ROOM_BYTES, "The name of a room"));
described!(UserId, text(Some(NAME_PATTERN), MAX_USER_BYTES, "A user"));
described!(EventName, text(Some(NAME_PATTERN), MAX_EVENT_BYTES, "The name of an event"));
described!(Pattern, text(None, MAX_ROOM_BYTES, "A pattern of room names, in which `*` stands for any characters"));
described!(ConnectionId, ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{16}$")).into());

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, Secret};
    use crate::parts::Parts;

    /// axum tells nobody its routes but whoever prints them.
    #[test]
    fn every_route_is_described() {
        let config = Config::new(Secret::new("a-secret-of-32-bytes-for-this-test"), Secret::new("0123456789abcdef"));
        let parts = Parts::new(&config).unwrap();
        let api = Api {
            keys: super::super::ApiKeys::new(config.api_key.as_ref(), &[]).unwrap(),
            idempotency: super::super::Idempotency::new(parts.limits.clone(), config.clock),
            reread: None,
            reloading: Default::default(),
            parts,
        };
        let printed = format!("{:?}", super::super::routes(Arc::new(api)));
        let routes: BTreeSet<&str> =
            printed.split('"').filter(|word| word.starts_with('/') && !word.contains("__private")).collect();
        let document = document(super::super::operations().into_openapi(), &Limits::DEFAULT);
        let mut described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        described.insert("/"); // where axum keeps what answers for all other paths
        assert_eq!(routes, described);
    }
}
