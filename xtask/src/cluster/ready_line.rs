//! The one line on stdout by which tests learn where everything is.

use std::fmt;

/// Gateways, admin URLs and the gateways' pids are in the same order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ReadyLine {
    pub(crate) balancer: String,
    pub(crate) gateways: Vec<String>,
    pub(crate) admin: Vec<String>,
    pub(crate) postgres: String,
    pub(crate) redis: String,
    pub(crate) amqp: String,
    /// Program and pid.
    pub(crate) pids: Vec<(String, u32)>,
}

impl ReadyLine {
    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let list = |name: &str| Some(field(name)?.split(',').map(str::to_owned).collect());
        let pid = |entry: &str| {
            let (program, pid) = entry.split_once(':')?;
            Some((program.to_owned(), pid.parse().ok()?))
        };
        Some(Self {
            balancer: field("lb")?.to_owned(),
            gateways: list("gateways")?,
            admin: list("admin")?,
            postgres: field("postgres")?.to_owned(),
            redis: field("redis")?.to_owned(),
            amqp: field("amqp")?.to_owned(),
            pids: field("pids")?.split(',').map(pid).collect::<Option<_>>()?,
        })
    }
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
            pids: vec![("gateway".into(), 10), ("gateway".into(), 11), ("chat-service".into(), 12)],
        };
        assert_eq!(
            line.to_string(),
            "ready lb=http://127.0.0.1:1 gateways=http://127.0.0.1:2,http://127.0.0.1:3 \
             admin=http://127.0.0.1:4,http://127.0.0.1:5 postgres=postgres://p redis=redis://r amqp=amqp://a \
             pids=gateway:10,gateway:11,chat-service:12"
        );
        assert_eq!(ReadyLine::parse(&line.to_string()), Some(line));
        assert_eq!(ReadyLine::parse("ready lb=http://127.0.0.1:1"), None);
    }
}
