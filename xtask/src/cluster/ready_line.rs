//! The one line on stdout by which tests learn where everything is.

use std::fmt;

/// Gateways, admin URLs and the gateways' pids are in the same order.
#[derive(Default)]
pub(super) struct ReadyLine {
    pub(super) balancer: String,
    pub(super) gateways: Vec<String>,
    pub(super) admin: Vec<String>,
    pub(super) postgres: String,
    pub(super) redis: String,
    pub(super) amqp: String,
    /// Program and pid.
    pub(super) pids: Vec<(&'static str, u32)>,
}

impl fmt::Display for ReadyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<_> = self.pids.iter().map(|(program, pid)| format!("{program}:{pid}")).collect();
        write!(
            f,
            "ready lb={} gateways={} admin={} postgres={} redis={} amqp={} pids={}",
            self.balancer,
            self.gateways.join(","),
            self.admin.join(","),
            self.postgres,
            self.redis,
            self.amqp,
            pids.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::ReadyLine;

    #[test]
    fn one_line_with_lists_by_commas() {
        let line = ReadyLine {
            balancer: "http://127.0.0.1:1".into(),
            gateways: vec!["http://127.0.0.1:2".into(), "http://127.0.0.1:3".into()],
            admin: vec!["http://127.0.0.1:4".into(), "http://127.0.0.1:5".into()],
            postgres: "postgres://p".into(),
            redis: "redis://r".into(),
            amqp: "amqp://a".into(),
            pids: vec![("gateway", 10), ("gateway", 11), ("chat-service", 12)],
        };
        assert_eq!(
            line.to_string(),
            "ready lb=http://127.0.0.1:1 gateways=http://127.0.0.1:2,http://127.0.0.1:3 \
             admin=http://127.0.0.1:4,http://127.0.0.1:5 postgres=postgres://p redis=redis://r amqp=amqp://a \
             pids=gateway:10,gateway:11,chat-service:12"
        );
    }
}
