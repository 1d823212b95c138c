//! What handlers answer with.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::error::Problem;

/// What a handler returns.
pub(super) type Answer = Result<Response, Problem>;

/// 200 with an object.
pub(super) fn ok<T: Serialize>(body: &T) -> Answer {
    Ok(Json(body).into_response())
}

/// 201 with an object.
pub(super) fn created<T: Serialize>(body: &T) -> Answer {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// 201 when it was made by this call, else 200.
pub(super) fn created_or_ok<T: Serialize>(made: bool, body: &T) -> Answer {
    if made { created(body) } else { ok(body) }
}

/// 204.
pub(super) fn nothing() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}
