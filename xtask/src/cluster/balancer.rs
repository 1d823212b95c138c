//! HAProxy's configuration, out of the template that deployments use too.

use anyhow::ensure;

const TEMPLATE: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");

/// A gateway as the load balancer sees it.
pub(super) struct Server {
    pub(super) label: String,
    pub(super) port: u16,
    pub(super) admin_port: u16,
}

/// The configuration for clients on `listen_port` and these gateways.
pub(super) fn configuration(listen_port: u16, servers: &[Server]) -> anyhow::Result<String> {
    let servers: Vec<_> = servers.iter().map(Server::line).collect();
    fill(TEMPLATE, &[("listen", format!("127.0.0.1:{listen_port}")), ("servers", servers.join("\n    "))])
}

impl Server {
    fn line(&self) -> String {
        format!("server {} 127.0.0.1:{} check port {}", self.label, self.port, self.admin_port)
    }
}

fn fill(template: &str, values: &[(&str, String)]) -> anyhow::Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        let placeholder = format!("{{{{{name}}}}}");
        ensure!(text.contains(&placeholder), "the template lacks {placeholder}");
        text = text.replace(&placeholder, value);
    }
    ensure!(!text.contains("{{"), "the template has a placeholder that nobody fills");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Server, configuration, fill};

    #[test]
    fn the_deployed_template_takes_the_port_and_every_gateway() -> anyhow::Result<()> {
        let servers = [(1, 15_001, 15_002), (2, 15_003, 15_004)].map(|(n, port, admin_port)| Server {
            label: format!("gateway-{n}"),
            port,
            admin_port,
        });
        let text = configuration(15_000, &servers)?;
        assert!(text.contains("\n    bind 127.0.0.1:15000\n"));
        assert!(text.contains("\n    server gateway-1 127.0.0.1:15001 check port 15002\n"));
        assert!(text.contains("\n    server gateway-2 127.0.0.1:15003 check port 15004\n"));
        Ok(())
    }

    #[test]
    fn a_name_on_one_side_only_is_an_error() {
        assert!(fill("a {{x}} {{y}}", &[("x", "1".into())]).is_err());
        assert!(fill("a {{x}}", &[("x", "1".into()), ("y", "2".into())]).is_err());
    }
}
