//! The one place that reads environment variables.

/// The value of a variable; an empty one counts as unset.
#[allow(
    clippy::disallowed_methods,
    reason = "the services parse their settings once through service-kit, which is no dependency of this tool"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
