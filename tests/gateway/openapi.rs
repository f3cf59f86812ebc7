//! The description of the API, and the API: each says what the other does.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use wsgate::config::File;

use crate::support::{API_KEY, Server, within_reason};

async fn document(server: &Server) -> Value {
    let (status, document) = server.api("GET", "/v1/openapi.json", "").await;
    assert_eq!(status, 200, "{document}");
    document
}

/// The methods of each path.
fn operations(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn what_is_described_is_there_and_no_other_method_is() {
    let server = Server::start().await;
    let operations = operations(&document(&server).await);
    assert!(operations.len() > 10, "{operations:?}");
    for (path, described) in operations {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if (method, &*path) == ("POST", "/v1/drain") {
                continue; // The gateway would go: shutdown.rs has that.
            }
            let path = path.replace("{user}", "alice").replace("{room}", "chat:1").replace("{id}", "7");
            let url = format!("http://{}{path}", server.backend);
            let method: Method = method.parse().unwrap();
            let request = reqwest::Client::new().request(method.clone(), url).bearer_auth(API_KEY);
            let response = within_reason("an answer", request.send()).await.unwrap();
            if described.contains(method.as_str()) {
                let status = response.status().as_u16();
                // There is no revocation of that number.
                assert!(status != 405 && (status != 404 || path.ends_with("/7")), "{method} {path}: {status}");
            } else {
                assert_eq!(response.status(), 405, "{method} {path}");
                let allowed = response.headers()["allow"].to_str().unwrap().split(',').map(str::to_owned);
                let allowed: BTreeSet<String> = allowed.filter(|method| method != "HEAD").collect();
                assert_eq!(allowed, described, "{path}");
                assert_eq!(response.json::<Value>().await.unwrap()["code"], "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_of_openapi_3_1_and_all_that_it_refers_to_is_in_it() {
    let server = Server::with(|limits| limits.max_targets = 7).await;
    let document = document(&server).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
    assert_eq!(document.pointer("/components/schemas/Target/properties/rooms/maxItems"), Some(&json!(7)));
    let text = document.to_string();
    let mut seen = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
    assert!(!text.contains("\"null\""), "nothing may be null, but for data");
}

#[tokio::test]
async fn every_operation_says_what_it_needs_and_what_may_come_of_it() {
    let server = Server::start().await;
    let document = document(&server).await;
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}: an id is used twice");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.contains("/v1")), "{name}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{name}");
            let with_key = path.starts_with("/v1/");
            assert_eq!(operation.get("security").is_some(), with_key, "{name}");
            assert_eq!(responses.contains_key("401"), with_key, "{name}");
            assert_eq!(responses.contains_key("403"), with_key && path != "/v1/openapi.json", "{name}");
            for (status, response) in responses {
                assert!(response.get("$ref").is_some() || response["description"].is_string(), "{name}: {status}");
            }
            let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(path.matches('{').count(), in_path, "{name}");
            let body = operation.pointer("/requestBody/content/application~1json/schema/$ref");
            let schema = body.and_then(|body| document.pointer(&body.as_str().unwrap()[1..]));
            for schema in schema.into_iter().flat_map(|schema| alternatives(&document, schema)) {
                assert_eq!(schema["additionalProperties"], false, "{name}: {schema}");
            }
        }
    }
}

/// A schema, or those that it is one of.
fn alternatives<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let Some(choices) = schema["oneOf"].as_array() else { return vec![schema] };
    choices.iter().map(|choice| document.pointer(&choice["$ref"].as_str().unwrap()[1..]).unwrap()).collect()
}

#[tokio::test]
async fn any_key_may_read_the_description_and_nobody_without() {
    let text = "[[api_keys]]\nname = \"least\"\nkey = \"a-key-that-may-next-to-nothing\"\nallow = [\"request\"]\nrooms = [\"x\"]";
    let keys = text.parse::<File>().unwrap().api_keys;
    let server = Server::configured(|config| config.api_keys = keys).await;
    assert_eq!(server.api_with("a-key-that-may-next-to-nothing", "GET", "/v1/openapi.json", "").await.0, 200);
    assert_eq!(server.api_with("some-other-key-altogether", "GET", "/v1/openapi.json", "").await.0, 401);
}
