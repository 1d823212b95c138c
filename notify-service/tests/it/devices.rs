//! Adding, listing and removing push targets.

use notify_service::Config;
use parlance_proto::notify::{
    Device, ListDevicesRequest, Platform, RegisterDeviceRequest, RemoveDeviceRequest, VapidRequest,
};
use tonic::Code;
use web_push_native::p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint};

use crate::world::{Database, Person, World, config, stories};

stories! {
    a_device_is_added_updated_listed_and_removed
    the_form_of_a_device_is_checked
    a_user_has_only_so_many
}

/// A subscription of a browser at this endpoint.
fn subscription(person: &Person, endpoint: &str) -> RegisterDeviceRequest {
    let key = SecretKey::from_slice(&[7; 32]).unwrap().public_key();
    RegisterDeviceRequest {
        user: person.id.to_wire(),
        session: person.session.to_wire(),
        platform: Platform::Webpush.into(),
        name: Some("laptop".to_owned()),
        target: endpoint.to_owned(),
        p256dh: key.to_encoded_point(false).as_bytes().to_vec().into(),
        auth: vec![9; 16].into(),
        ..RegisterDeviceRequest::default()
    }
}

async fn listed(world: &World, person: &Person) -> Vec<Device> {
    let request = ListDevicesRequest { user: person.id.to_wire() };
    world.notify.clone().list_devices(request).await.unwrap().into_inner().items
}

async fn refused(world: &World, request: RegisterDeviceRequest) -> (Code, String) {
    let status = world.notify.clone().register_device(request).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

async fn a_device_is_added_updated_listed_and_removed(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let first = world.registers(subscription(&maja, "https://push.example/1")).await;
    let other = world.registers(subscription(&maja, "https://push.example/2")).await;
    assert!(first.added && other.added);
    let renamed = RegisterDeviceRequest { name: None, ..subscription(&maja, "https://push.example/1") };
    let again = world.registers(renamed).await;
    assert!(!again.added, "the same target");
    let (first, again) = (first.device.unwrap(), again.device.unwrap());
    assert_eq!((again.id.clone(), again.created_at), (first.id.clone(), first.created_at));
    assert_eq!((first.name.as_deref(), again.name), (Some("laptop"), None));
    assert!(world.registers(subscription(&bob, "https://push.example/1")).await.added, "everybody's own");

    let ids = |items: Vec<Device>| items.into_iter().map(|device| device.id).collect::<Vec<_>>();
    let second = other.device.unwrap().id;
    assert_eq!(ids(listed(world, &maja).await), [first.id.clone(), second.clone()]);
    let remove = |person: &Person| RemoveDeviceRequest { user: person.id.to_wire(), device: first.id.clone() };
    let strange = world.notify.clone().remove_device(remove(&bob)).await.unwrap_err();
    assert_eq!(strange.code(), Code::NotFound, "another's");
    world.notify.clone().remove_device(remove(&maja)).await.unwrap();
    assert_eq!(ids(listed(world, &maja).await), [second]);
    assert_eq!(world.notify.clone().remove_device(remove(&maja)).await.unwrap_err().code(), Code::NotFound);
    let vapid = world.notify.clone().vapid(VapidRequest {}).await.unwrap().into_inner();
    assert_eq!((vapid.public_key.len(), vapid.public_key[0]), (65, 4), "an uncompressed point");
}

async fn the_form_of_a_device_is_checked(world: &World) {
    let maja = world.person("Maja").await;
    let good = subscription(&maja, "https://push.example/1");
    for (bad, code, field) in [
        (
            RegisterDeviceRequest { target: "ftp://push.example/".into(), ..good.clone() },
            Code::InvalidArgument,
            "endpoint",
        ),
        (RegisterDeviceRequest { p256dh: vec![4; 65].into(), ..good.clone() }, Code::InvalidArgument, "keys.p256dh"),
        (RegisterDeviceRequest { auth: vec![4; 15].into(), ..good.clone() }, Code::InvalidArgument, "keys.auth"),
        (RegisterDeviceRequest { name: Some("x".repeat(101)), ..good.clone() }, Code::InvalidArgument, "name"),
        (
            RegisterDeviceRequest { platform: Platform::Fcm.into(), ..good.clone() },
            Code::FailedPrecondition,
            "platform",
        ),
        (RegisterDeviceRequest { platform: Platform::Email.into(), ..good }, Code::FailedPrecondition, "platform"),
    ] {
        let (was, said) = refused(world, bad).await;
        assert_eq!(was, code, "{said}");
        assert!(said.starts_with(&format!("{field}: ")), "{said}");
    }
    assert!(listed(world, &maja).await.is_empty());
}

async fn a_user_has_only_so_many(world: &World) {
    let maja = world.person("Maja").await;
    for number in 0..notify_service::MOST_DEVICES {
        world.registers(subscription(&maja, &format!("https://push.example/{number}"))).await;
    }
    let (code, said) = refused(world, subscription(&maja, "https://push.example/more")).await;
    assert_eq!(code, Code::FailedPrecondition, "{said}");
    assert!(!world.registers(subscription(&maja, "https://push.example/3")).await.added, "those there are stay usable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_there_is_no_web_push_and_private_targets_are_refused() {
    let config = Config { vapid_key: String::new(), private_targets: false, ..config() };
    let world = World::begin_with(Database::sqlite(), config).await;
    let maja = world.person("Maja").await;
    assert_eq!(world.notify.clone().vapid(VapidRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    let (code, said) = refused(&world, subscription(&maja, "https://push.example/1")).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(said.contains("not configured"), "{said}");
    for inside in ["http://push.example/", "https://10.0.0.1/", "https://[::1]/", "https://localhost/"] {
        assert_eq!(refused(&world, subscription(&maja, inside)).await.0, Code::InvalidArgument, "{inside}");
    }
    world.end().await;
}
