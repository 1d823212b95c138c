//! Servers of S3 that send a part of an object as if it were the whole: rclone up to 1.75 and others on the same library give
//! the right bytes and say which they are, with the status 200. The client of S3 takes a part only with 206.

use http::{StatusCode, header};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
};

/// Connects as ever, and calls a part a part.
#[derive(Debug)]
pub(super) struct Connector;

#[derive(Debug)]
struct Service(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?)))
    }
}

#[tonic::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let wants_part = request.headers().contains_key(header::RANGE);
        let mut response = self.0.execute(request).await?;
        // Which bytes these are is compared by whoever asked for them.
        let is_part = response.headers().contains_key(header::CONTENT_RANGE);
        if wants_part && is_part && response.status() == StatusCode::OK {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }
}
