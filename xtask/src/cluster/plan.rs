//! Which processes a cluster consists of and what each is told; nothing is started here.

use std::path::Path;

use crate::environment;
use crate::ports::Ports;

use super::balancer::Server;

/// What the processes have in common.
pub(super) struct Backends {
    pub(super) postgres: String,
    pub(super) redis: String,
    pub(super) amqp: String,
}

/// One process to be.
pub(super) struct Planned {
    pub(super) program: &'static str,
    /// Its name in messages and of its log.
    pub(super) label: String,
    /// Where it serves, gRPC or clients.
    pub(super) port: u16,
    pub(super) admin_port: u16,
    pub(super) variables: Vec<(&'static str, String)>,
}

/// Everything that is started, the services first, since the gateways need them.
pub(super) struct Plan {
    pub(super) services: Vec<Planned>,
    pub(super) gateways: Vec<Planned>,
    pub(super) balancer_port: u16,
}

impl Plan {
    pub(super) fn new(gateways: usize, chats: usize, dir: &Path, backends: &Backends) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let balancer_port = ports.pick()?;

        let presence = Planned::new("presence-service", "presence-service".into(), &mut ports, backends)?.on_grpc();
        let notify = Planned::new("notify-service", "notify-service".into(), &mut ports, backends)?
            .on_grpc()
            .with("PARLANCE_DATABASE_URL", backends.postgres.clone())
            .with("PARLANCE_PRESENCE_URL", presence.url())
            .unless_set("PARLANCE_ALLOW_PRIVATE_TARGETS", "true")
            .with("PARLANCE_VAPID_KEY_FILE", dir.join("vapid-key.pem").display().to_string());
        let mut services = vec![];
        for number in 1..=chats {
            let label = format!("chat-service-{number}");
            let chat = Planned::new("chat-service", label, &mut ports, backends)?
                .on_grpc()
                .with("PARLANCE_DATABASE_URL", backends.postgres.clone())
                .with("PARLANCE_PRESENCE_URL", presence.url())
                .with("PARLANCE_SIGNING_KEY_FILE", dir.join("signing-key.pem").display().to_string());
            services.push(chat);
        }
        let chat_urls: Vec<_> = services.iter().map(Planned::url).collect();

        let mut members = vec![];
        for number in 1..=gateways {
            let label = format!("gateway-{number}");
            let gateway = Planned::new("gateway", label, &mut ports, backends)?
                .listening("PARLANCE_LISTEN")
                .with("PARLANCE_CHAT_URL", chat_urls.join(","))
                .with("PARLANCE_PRESENCE_URL", presence.url())
                .with("PARLANCE_NOTIFY_URL", notify.url())
                .unless_set("PARLANCE_FILES_URL", &format!("file:{}", dir.join("files").display()))
                .unless_set("PARLANCE_ALLOWED_ORIGINS", &local(balancer_port))
                .unless_set("PARLANCE_TRUSTED_PROXIES", "127.0.0.1");
            members.push(gateway);
        }
        services.extend([presence, notify]);
        Ok(Self { services, gateways: members, balancer_port })
    }

    /// The gateways as the load balancer sees them.
    pub(super) fn servers(&self) -> Vec<Server> {
        let server = |gateway: &Planned| Server {
            label: gateway.label.clone(),
            port: gateway.port,
            admin_port: gateway.admin_port,
        };
        self.gateways.iter().map(server).collect()
    }
}

impl Planned {
    fn new(program: &'static str, label: String, ports: &mut Ports, backends: &Backends) -> anyhow::Result<Self> {
        let (port, admin_port) = (ports.pick()?, ports.pick()?);
        let planned = Self { program, label, port, admin_port, variables: vec![] }
            .with("PARLANCE_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}"))
            .with("PARLANCE_REDIS_URL", backends.redis.clone())
            .with("PARLANCE_AMQP_URL", backends.amqp.clone())
            .unless_set("PARLANCE_LOG_FORMAT", "json");
        Ok(planned)
    }

    pub(super) fn url(&self) -> String {
        local(self.port)
    }

    pub(super) fn admin_url(&self) -> String {
        local(self.admin_port)
    }

    fn on_grpc(self) -> Self {
        self.listening("PARLANCE_GRPC_LISTEN")
    }

    fn listening(self, variable: &'static str) -> Self {
        let address = format!("127.0.0.1:{}", self.port);
        self.with(variable, address)
    }

    fn with(mut self, variable: &'static str, value: String) -> Self {
        self.variables.push((variable, value));
        self
    }

    /// The caller's own choice passes on by inheritance.
    fn unless_set(self, variable: &'static str, value: &str) -> Self {
        if environment::variable(variable).is_some() { self } else { self.with(variable, value.to_owned()) }
    }
}

/// The URL of a port of this machine.
pub(super) fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{Backends, Plan, Planned};

    fn plan() -> anyhow::Result<Plan> {
        let backends = Backends { postgres: "postgres://p".into(), redis: "redis://r".into(), amqp: "amqp://a".into() };
        Plan::new(3, 2, Path::new("/d"), &backends)
    }

    fn variable<'a>(planned: &'a Planned, name: &str) -> Option<&'a str> {
        planned.variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_gateway_knows_every_chat_service() -> anyhow::Result<()> {
        let plan = plan()?;
        let chats: Vec<_> = plan.services.iter().filter(|it| it.program == "chat-service").map(Planned::url).collect();
        assert_eq!(chats.len(), 2);
        assert_eq!(plan.gateways.len(), 3);
        for gateway in &plan.gateways {
            assert_eq!(variable(gateway, "PARLANCE_CHAT_URL"), Some(chats.join(",").as_str()));
        }
        Ok(())
    }

    #[test]
    fn only_who_stores_knows_the_database_and_only_who_signs_the_key() -> anyhow::Result<()> {
        let plan = plan()?;
        for planned in plan.services.iter().chain(&plan.gateways) {
            let (chat, notify) = (planned.program == "chat-service", planned.program == "notify-service");
            assert_eq!(variable(planned, "PARLANCE_DATABASE_URL").is_some(), chat || notify);
            assert_eq!(variable(planned, "PARLANCE_SIGNING_KEY_FILE").is_some(), chat);
            assert_eq!(variable(planned, "PARLANCE_AMQP_URL"), Some("amqp://a"));
        }
        Ok(())
    }

    #[test]
    fn no_two_listen_on_the_same_port() -> anyhow::Result<()> {
        let plan = plan()?;
        let all = plan.services.iter().chain(&plan.gateways);
        let ports: Vec<_> = all.flat_map(|it| [it.port, it.admin_port]).chain([plan.balancer_port]).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        Ok(())
    }
}
