//! Files as people send and read them, by plain HTTP: the bytes, the headers, and what is left behind on the disk.

use std::path::Path;

use parlance_client::FileId;
use reqwest::{Body, Method, Response};
use serde_json::Value;

use crate::patience::eventually;
use crate::person::Person;

/// What separates the parts of a multipart body here.
const BOUNDARY: &str = "a-boundary-of-the-stories";

/// A body with these parts: the name of each, its file name, its bytes.
pub fn multipart(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file_name, bytes) in parts {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The media type of [`multipart`].
pub fn multipart_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// Files of any kind below a folder.
pub fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let entries = entries.filter_map(Result::ok);
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

impl Person {
    /// A request of this person to a gateway.
    pub fn asks(&self, gateway: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.api_at(gateway).base());
        reqwest::Client::new().request(method, url).bearer_auth(self.token())
    }

    /// Sends any body as a multipart one.
    pub async fn posts_files(&self, gateway: usize, body: impl Into<Body>) -> (u16, Value) {
        let request = self.asks(gateway, Method::POST, "/v1/files").header("content-type", multipart_type());
        let answer = request.body(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Sends one file that is held until it was scanned.
    pub async fn uploads_held(&self, name: &str, bytes: &[u8]) -> FileId {
        let (status, file) = self.posts_files(0, multipart(&[("file", name, bytes)])).await;
        assert_eq!((status, file["state"].as_str()), (201, Some("pending")), "{file}");
        file["id"].as_str().expect("an id").parse().expect("an id")
    }

    /// Waits until a file is no more pending, and has it.
    pub async fn sees_scanned(&self, gateway: usize, file: FileId) -> Value {
        eventually("end of the scan", async || {
            let info: Value = self.reads(gateway, file, "/info", &[]).await.json().await.expect("JSON");
            (info["state"] != "pending").then_some(info)
        })
        .await
    }

    /// Sends one file and has it.
    pub async fn uploads(&self, name: &str, bytes: &[u8]) -> FileId {
        let (status, file) = self.posts_files(0, multipart(&[("file", name, bytes)])).await;
        assert_eq!((status, file["state"].as_str()), (201, Some("ready")), "{file}");
        file["id"].as_str().expect("an id").parse().expect("an id")
    }

    /// Reads a file, or asks about it: `suffix` is empty, `/info` or the like.
    pub async fn reads(&self, gateway: usize, file: FileId, suffix: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.asks(gateway, Method::GET, &format!("/v1/files/{file}{suffix}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }
}
