//! Every command of the load generator, for a second or two against a real server.

mod generator;

use generator::{Generator, number};

use e2e::{OwnCluster, OwnStandalone};

#[test]
fn sends_are_measured_and_checked() {
    let standalone = OwnStandalone::start(&[]);
    let result = Generator::new("sends")
        .at(&standalone, 2)
        .with("--rooms 3 --members 4 --rate 100 --seconds 1 --warmup 1 --size 200")
        .passes();
    assert!(number(&result, "/achieved_per_s") > 50.0, "{result}");
    assert!(number(&result, "/deliveries_per_s") > 200.0, "{result}");
    assert!(number(&result, "/ack_ms/p99") >= number(&result, "/ack_ms/p50"), "{result}");
    assert!(number(&result, "/delivery_ms/max") > 0.0, "{result}");
    for kind in ["lost", "duplicated", "reordered", "gaps"] {
        assert!(number(&result, &format!("/violations/{kind}")) < 0.5, "{result}");
    }
    assert!(result["bottleneck"].is_string() && result["generator_cpu"].is_number(), "{result}");
}

#[test]
fn pairs_are_measured_and_checked() {
    let standalone = OwnStandalone::start(&[]);
    let result = Generator::new("pairs").at(&standalone, 2).with("--pairs 2 --rate 50 --seconds 1 --warmup 0").passes();
    assert!(number(&result, "/delivery_ms/p99") > 0.0, "{result}");
    assert_eq!(result["connections"], 4);
}

#[test]
fn a_knee_below_a_bound_is_that_bound() {
    let standalone = OwnStandalone::start(&[]);
    let result = Generator::new("knee pairs")
        .at(&standalone, 1)
        .with("--pairs 2 --slo-ms 5000 --from 20 --to 20 --seconds 1 --warmup 0")
        .passes();
    assert_eq!(result["knee_per_s"], 20);
    assert_eq!(result["steps"].as_array().map(Vec::len), Some(2), "{result}");
}

#[test]
fn a_room_is_measured_beside_a_bare_broadcast() {
    let standalone = OwnStandalone::start(&[]);
    let result =
        Generator::new("fanout").at(&standalone, 1).with("--members 8 --seconds 1 --warmup 1 --turns 1").passes();
    assert!(number(&result, "/deliveries_per_s") > 0.0, "{result}");
    assert!(number(&result, "/bare_deliveries_per_s") > 0.0, "{result}");
    assert!(number(&result, "/violations/lost") < 0.5, "{result}");
}

#[test]
fn idle_connections_are_weighed() {
    let standalone = OwnStandalone::start(&[]);
    // This process holds them, and its own memory moves too: the figures mean nothing here.
    let pid = std::process::id();
    let result = Generator::new("idle")
        .at(&standalone, 1)
        .with(&format!("--from 10 --connections 40 --watch 1 --source 127.0.0.9 --receive 5 --pid {pid}"))
        .passes();
    assert_eq!(result["sizes"][1]["connections"], 40);
    number(&result, "/bytes_per_connection");
    number(&result, "/cpu_us_per_s_per_connection");
    assert_eq!(result["receiving"]["messages"], 5);
    number(&result, "/receiving/peak_more_bytes_per_connection");
}

#[test]
fn reads_are_measured_and_checked() {
    let standalone = OwnStandalone::start(&[]);
    let result = Generator::new("reads").at(&standalone, 1).with("--messages 300 --rooms 30 --seconds 1").passes();
    assert!(number(&result, "/history_ms/p99") > 0.0 && number(&result, "/sync_ms/p99") > 0.0, "{result}");
    assert!(number(&result, "/violations/gaps") < 0.5, "{result}");
}

#[test]
fn clients_of_a_killed_gateway_come_back_and_lose_nothing() {
    let Some(cluster) = OwnCluster::start(&[]) else { return };
    let (pid, postgres) = (cluster.pid("gateway", 0), cluster.postgres());
    let mut storm = Generator::new("storm");
    for gateway in cluster.stack().gateways() {
        storm = storm.with(&format!("--url {gateway}"));
    }
    let result = storm
        .with(&format!("--sessions 40 --rate 40 --before 3 --after 3 --kill {pid} --postgres {postgres}"))
        .passes();
    assert_eq!(result["killed_sessions"], 20);
    assert!(number(&result, "/back_ms/max") > 0.0, "{result}");
    assert!(number(&result, "/database_calls_ratio") > 0.0, "{result}");
}
