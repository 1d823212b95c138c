//! The one place that reads environment variables.

use std::ffi::OsString;

/// The value of a variable; an empty one counts as unset.
#[allow(
    clippy::disallowed_methods,
    reason = "the services parse their settings once through service-kit, which is no dependency of this tool"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The names of all variables that begin so.
pub(crate) fn beginning_with(prefix: &str) -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(move |name| name.to_string_lossy().starts_with(prefix))
}
